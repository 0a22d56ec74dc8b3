# SPDX-License-Identifier: MIT
"""Cases that a peer or a path with bad intent would choose: what is left of recovery's state when they are over."""

from typing import Any

from ustack.testing.parts.recovery import Sender
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.states import ALL_OPTIONS, PEER_PORT, SYN_OPTIONS, Scene, established
from ustack.testing.testbed import MILLISECOND

COSTLY_PORT = 81
MSS = 1448
ROUND_TRIP = 20 * MILLISECOND


def measured(**config: Any) -> Scene:
    """ESTABLISHED, with SACK and timestamps, after one measurement of the round trip."""
    scene = established(options=ALL_OPTIONS, **config)
    scene.send(b"x")
    scene.peer.catch_up()
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.send("A")
    scene.testbed.mark()
    return scene


def sack(scene: Scene, left: int, right: int) -> dict[str, Any]:
    """The option, from relative numbers, with the timestamps that come with it."""
    peer = scene.peer
    assert peer.iss is not None
    edges = ((peer.iss + left) & SEQUENCE_MASK, (peer.iss + right) & SEQUENCE_MASK)
    return {"nop": 2, "timestamps": (peer.ts_now, peer.ts_recent), "sack": [edges]}


def test_a_probe_that_waited_for_its_turn_is_dropped_when_the_tail_is_sacked_first() -> None:
    """RFC 8985 section 7.3 step 1: the timer comes in a turn that another connection uses up, the answer before the
    next one."""
    with measured() as scene:
        bed, peer = scene.testbed, scene.peer
        costly = Recorder()
        costly.charge = 100_000  # units for each byte: more than a turn has
        bed.stack.listen(COSTLY_PORT, application=costly)
        other = ScriptedPeer(bed, port=PEER_PORT + 1, stack_port=COSTLY_PORT)
        other.send("S", options=SYN_OPTIONS)
        other.expect("SA", seq=0, ack=1)
        other.send("A")
        scene.send(bytes(2 * MSS))
        peer.drain()
        due = bed.stack.next_deadline_ns
        assert due is not None
        bed.now_ns = due
        other.send("PA", payload=b"???", pump=False)
        bed.network.advance(due)
        bed.stack.poll(due)
        peer.send("A", ack=2, options=sack(scene, 2 + MSS, 2 + 2 * MSS))
        assert "tail_probes_out" not in bed.counted()
        bed.advance(ROUND_TRIP)
        peer.drain()
        peer.rcv_nxt = 2 + 2 * MSS
        peer.send("A")
        assert scene.info()["snd_una"] == scene.info()["snd_nxt"]
        other.send("R")


def test_what_goes_again_in_smaller_segments_undoes_no_earlier_repair() -> None:
    """Its duplicates are to be expected (RFC 3708 section 2), and the window of before an earlier loss is long gone."""
    made = Sender(mss=1000, cwnd=40_000)
    made.send(40)
    made.now_ns += ROUND_TRIP
    made.ack(0, sack=[(1000, 40_000)])
    assert made.state["repair"] == "fast"
    reduced = made.state["ssthresh"]
    made.resend()
    made.now_ns += ROUND_TRIP
    made.send(4)
    made.ack(40_000)
    assert (made.state["repair"], made.state["cwnd"]) == ("none", reduced)
    made.smaller()
    made.ack(40_000, sack=[(0, 1000)])
    assert made.state["cwnd"] == reduced


def test_one_loss_reduces_the_window_once_though_a_probe_was_out() -> None:
    """RFC 8985 section 7.4.2: the probe has repaired nothing where a recovery has."""
    with measured() as scene:
        bed, peer = scene.testbed, scene.peer
        scene.send(bytes(2 * MSS))
        peer.drain()
        bed.advance(5 * ROUND_TRIP)
        assert bed.counted()["tail_probes_out"] == 1
        peer.send("A", ack=2, options=sack(scene, 2 + MSS, 2 + 2 * MSS))
        assert bed.counted()["fast_retransmits"] == 1
        ssthresh = scene.info()["ssthresh"]
        for end in (2 + 2 * MSS, 2 + 3 * MSS):
            bed.advance(ROUND_TRIP)
            peer.drain()
            peer.rcv_nxt = end
            peer.send("A")
            scene.send(bytes(MSS))
        peer.drain()
        assert "tail_probe_repairs" not in bed.counted()
        assert scene.info()["ssthresh"] == ssthresh


def test_a_loss_makes_no_window_larger() -> None:
    """RFC 5681 section 3.1, equation (4), is a limit: a peer that SACKs all but the first segment for many windows, and
    shows by a timestamp that no loss was one, has much outstanding that is in no network."""
    made = Sender(mss=1000, cwnd=20_000, timestamps=True)
    before = made.timestamp
    made.send(20)
    end = 20_000
    for _ in range(4):
        made.now_ns += ROUND_TRIP
        made.ack(0, sack=[(1000, end)])
        made.resend()
        made.send(20)
        end += 20_000
    made.now_ns += ROUND_TRIP
    made.ack(500, sack=[(1000, end)], ecr=before)
    assert made.counted()["repairs_undone"] == 1
    window = int(str(made.state["cwnd"]))
    made.send(20)
    end += 20_000
    made.now_ns += ROUND_TRIP
    made.ack(500, sack=[(1000, end)])
    assert made.state["repair"] == "fast"
    made.resend()
    made.now_ns += ROUND_TRIP
    made.ack(end)
    assert int(str(made.state["cwnd"])) <= window


def test_the_same_losses_are_not_taken_back_again_and_again() -> None:
    """A peer that has one segment sent again, says by a timestamp that it was not needed, and by one more SACK that all
    the rest is lost after all: each record is found once for each time that it is sent, whatever is said."""
    frames, rounds = 2000, 100
    made = Sender(mss=1000, cwnd=1 << 29, timestamps=True)
    made.send(1)
    made.now_ns += ROUND_TRIP
    made.ack(1000, ecr=made.timestamp - 20)
    made.send(frames)
    stamp = made.timestamp
    made.now_ns += ROUND_TRIP
    before = made.steps
    for una in range(1, rounds + 1):
        made.send(1)
        top = (frames + 1 + una) * 1000
        made.now_ns += 2 * ROUND_TRIP
        made.ack(una * 1000, sack=[(top - 1000, top)], ecr=stamp, check=False)
        assert made.resend(1) == [(una * 1000, una * 1000 + 1000)]
        made.ack(una * 1000 + 1000, ecr=stamp - 1, check=False)
    made.check()
    assert made.counted()["repairs_undone"] == 1
    assert made.steps - before <= 3 * frames + 100 * rounds  # lost, found, lost; and the trees


def test_losses_of_what_was_sent_since_are_taken_back_each_time() -> None:
    """A path that becomes slow now and then has each of its mistakes undone."""
    made = Sender(mss=1000, cwnd=1 << 29, timestamps=True)
    made.send(1)
    made.now_ns += ROUND_TRIP
    made.ack(1000, ecr=made.timestamp - 20)
    acked = 1
    for undone in range(1, 6):
        made.send(20)
        stamp = made.timestamp
        made.now_ns += 2 * ROUND_TRIP
        made.ack(acked * 1000, sack=[((acked + 16) * 1000, (acked + 20) * 1000)], ecr=stamp)
        if made.state["repair"] == "none":
            made.now_ns += 2 * ROUND_TRIP
            made.reordering_timeout()
        made.resend(1)
        made.now_ns += ROUND_TRIP
        made.ack((acked + 1) * 1000, ecr=stamp)
        assert made.counted()["repairs_undone"] == undone
        acked += 20
        made.ack(acked * 1000, ecr=stamp)

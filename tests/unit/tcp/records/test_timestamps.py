# SPDX-License-Identifier: MIT
"""What our timestamp clock says to whom: an offset for each pair of addresses (RFC 7323 section 5.4)."""

from itertools import pairwise
from typing import Any

import pytest

from ustack.base.prng import Prng
from ustack.testing.peer import ANY, ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, Scene, established, listen
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

MASK = 0xFFFFFFFF


def address(index: int) -> str:
    return f"198.18.{index // 200}.{10 + index % 200}"


def said_to(scene: Scene, peer: ScriptedPeer) -> int:
    """TSval of the SYN-ACK that a peer gets for a SYN; it then goes away."""
    peer.iss = None
    peer.snd_nxt = 0
    peer.send("S", options=ALL_OPTIONS)
    value = peer.expect("SA").options["timestamps"][0]
    peer.send("R")
    return int(value)


def test_each_pair_of_addresses_sees_the_clock_from_another_start() -> None:
    with listen() as scene:
        values = [said_to(scene, ScriptedPeer(scene.testbed, address=address(index))) for index in range(64)]
        differences = {(b - a) & MASK for a, b in pairwise(values)}
        assert len(differences) == 63
        assert sum(1 << 24 < difference < MASK - (1 << 24) for difference in differences) > 50


def test_every_port_of_a_pair_sees_the_same_clock_and_it_runs_in_milliseconds() -> None:
    """The next connection of a pair begins where the last one ended: PAWS and RFC 6191 depend on it."""
    with listen() as scene:
        other = scene.testbed.stack.listen(81)
        first = said_to(scene, ScriptedPeer(scene.testbed, port=1000))
        assert said_to(scene, ScriptedPeer(scene.testbed, port=2000)) == first
        assert said_to(scene, ScriptedPeer(scene.testbed, port=2000, stack_port=81)) == first
        scene.testbed.advance(3 * SECOND)
        assert said_to(scene, ScriptedPeer(scene.testbed, port=1001)) == (first + 3000) & MASK
        other.close()


def test_another_secret_gives_other_offsets() -> None:
    values = set()
    for seed in (1, 2, 3):
        with Testbed(seed=seed) as testbed, testbed.stack.listen(80):
            peer = ScriptedPeer(testbed)
            peer.send("S", options=ALL_OPTIONS)
            values.add(peer.expect("SA").options["timestamps"][0])
            peer.send("R")
    assert len(values) == 3


def test_more_peers_than_the_table_has_places_keep_their_offsets() -> None:
    """The table only saves the hash: who is pushed out of it is told the same again."""
    with listen(address="198.18.0.2/16") as scene:
        values = {}
        generator = Prng(1)
        peers = [ScriptedPeer(scene.testbed, address=address(index)) for index in range(2000)]
        for peer in peers:
            values[peer.address] = said_to(scene, peer)
        for _ in range(500):
            peer = peers[generator.below(len(peers))]
            assert said_to(scene, peer) == values[peer.address]


def test_an_echo_is_taken_back_to_our_clock() -> None:
    """Whoever the peer is: a segment is sent again, and only its echo tells the round trip (RFC 6298 section 3)."""
    for index in range(8):
        with listen() as scene:
            peer = ScriptedPeer(scene.testbed, address=f"198.18.0.{20 + index}")
            peer.send("S", options=ALL_OPTIONS)
            peer.expect("SA")
            peer.send("S", seq=0, options=ALL_OPTIONS)
            peer.expect("SA")
            peer.timestamps = True
            peer.send("A", options={"nop": 2, "timestamps": (peer.ts_now, 0)})  # measures nothing (Karn)
            connection = scene.accept()
            connection.send(b"lost")
            scene.testbed.pump()
            peer.drain()
            peer.wait(2 * SECOND)
            peer.drain()
            scene.testbed.advance(37 * MILLISECOND)
            peer.send("A", ack=5)
            assert 36_000 <= connection.info().rtt_us <= 39_000
            peer.send("R")


def test_all_segments_of_a_connection_carry_it() -> None:
    """Half-open record, connection, TIME-WAIT record, and the RST at its end."""
    with listen() as scene:
        for ending in ("time-wait", "abort"):
            peer = ScriptedPeer(scene.testbed, port=3000 if ending == "abort" else 3001)
            peer.send("S", options=ALL_OPTIONS)
            values = [peer.expect("SA").options["timestamps"][0]]
            peer.timestamps = True
            peer.send("PA", payload=b"x")
            connection = scene.accept()
            scene.connection = None
            connection.receive(10)
            if ending == "abort":
                connection.abort()
            else:
                connection.close()
            scene.testbed.pump()
            values += [segment.options["timestamps"][0] for segment in peer.drain()]
            if ending == "time-wait":
                peer.send("FA", ack=2)
                peer.send("FA", seq=2, ack=2)
                answers = [segment.options["timestamps"][0] for segment in peer.drain()]
                assert len(answers) == 2
                values += answers
            assert len(values) >= 2
            assert all((value - values[0]) & MASK < 1000 for value in values)


# ---------------------------------------------------------------- slow ticks

TICK = 512
"""Milliseconds of a slow tick."""
MSS = 1448
ROUND_TRIP = MILLISECOND
"""Too short for a tail loss probe."""


def stamp(scene: Scene) -> int:
    """TSval of one more segment of data, which is acknowledged."""
    scene.send(b"x")
    segment = scene.peer.drain()[-1]
    scene.peer.send("A", ack=scene.peer.relative(segment)[0] + 1)
    return int(segment.options["timestamps"][0])


def acknowledge(scene: Scene, ack: int, *blocks: tuple[int, int]) -> None:
    assert scene.peer.iss is not None
    edges = [tuple((scene.peer.iss + edge) & MASK for edge in block) for block in blocks]
    options: dict[str, Any] = {"nop": 2, "timestamps": (scene.peer.ts_now, scene.peer.ts_recent)}
    scene.peer.send("A", ack=ack, options=options | ({"sack": edges} if edges else {}))


def three_out(*, late: bool) -> Scene:
    """Three segments have gone, and been acknowledged: in their order, or the second one after the third."""
    scene = established(options=ALL_OPTIONS)
    scene.send(bytes(3 * MSS))
    scene.peer.drain()
    scene.testbed.advance(ROUND_TRIP)
    if late:
        acknowledge(scene, 1 + MSS, (1 + 2 * MSS, 1 + 3 * MSS))
    acknowledge(scene, 1 + 3 * MSS)
    return scene


def test_a_path_that_reorders_sees_the_end_of_slow_ticks() -> None:
    """RFC 7323 section 5.4: 1 ms to 1 s. Within one, nothing that is sent is older than what was sent later."""
    with three_out(late=False) as fine, three_out(late=True) as slow:
        for _ in range(40):
            now, shown = stamp(fine), stamp(slow)
            assert shown == now | (TICK - 1)
            for scene in (fine, slow):
                scene.testbed.advance(37 * MILLISECOND)
        for scene in (fine, slow):
            scene.abort()


def test_slow_ticks_never_go_back() -> None:
    """From the first segment that was stamped in milliseconds to the last ACK of TIME-WAIT."""
    with three_out(late=True) as scene:
        seen = [stamp(scene)]
        for _ in range(20):
            scene.testbed.advance(61 * MILLISECOND)
            seen.append(stamp(scene))
        scene.conn.close()
        scene.testbed.pump()
        fin = scene.peer.expect("FA", seq=ANY)
        seen.append(fin.options["timestamps"][0])
        end = scene.peer.relative(fin)[0] + 1
        scene.peer.send("FA", ack=end)
        scene.testbed.advance(5 * MILLISECOND)
        scene.peer.send("FA", seq=scene.peer.snd_nxt - 1, ack=end)
        answers = [segment.options["timestamps"][0] for segment in scene.peer.drain()]
        assert scene.state == "TIME-WAIT"
        assert len(answers) == 2
        assert all((later - earlier) & MASK <= 2 * TICK for earlier, later in pairwise(seen + answers))


def test_a_loss_does_not_slow_the_clock() -> None:
    """What was sent again and came after later segments has not been reordered by the path (RFC 8985 section 6.2)."""
    with established(options=ALL_OPTIONS) as scene:
        scene.send(bytes(6 * MSS))
        scene.peer.drain()
        scene.testbed.advance(ROUND_TRIP)
        acknowledge(scene, 1, (1 + MSS, 1 + 6 * MSS))
        assert scene.testbed.counted()["fast_retransmits"] == 1
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.drain()
        acknowledge(scene, 1 + 6 * MSS)
        shown = [stamp(scene)]
        scene.testbed.advance(3 * MILLISECOND)
        shown.append(stamp(scene))
        assert shown[1] - shown[0] == 3
        scene.abort()


def test_old_data_that_is_here_already_is_reported_as_a_duplicate() -> None:
    """RFC 7323 section 5.3 R1 wants an acknowledgment, RFC 2883 section 4 its first block: a late segment, which had
    been sent again for nothing."""
    with established(options=ALL_OPTIONS) as scene:
        before = scene.peer.ts_now
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("PA", payload=b"again")
        scene.peer.drain()
        scene.peer.send("PA", seq=1, payload=b"again", options={"nop": 2, "timestamps": (before, scene.peer.ts_recent)})
        answer = scene.peer.expect("A", ack=6)
        assert answer.options["sack"] == [((scene.peer.isn + 1) & MASK, (scene.peer.isn + 6) & MASK)]
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        scene.abort()


def test_old_data_that_is_not_here_is_no_duplicate() -> None:
    """It is discarded all the same, and the peer must send it again."""
    with established(options=ALL_OPTIONS) as scene:
        before = scene.peer.ts_now
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("PA", payload=b"again")
        scene.peer.drain()
        scene.peer.send("PA", seq=6, payload=b"late", options={"nop": 2, "timestamps": (before, scene.peer.ts_recent)})
        assert "sack" not in scene.peer.expect("A", ack=6).options
        scene.abort()


@pytest.mark.parametrize("late", [False, True])
def test_a_port_in_time_wait_is_taken_again_if_the_next_stamps_are_later(late: bool) -> None:
    """RFC 6191: timestamps tell the connections apart. Not if the last one's were the ends of slow ticks."""
    with three_out(late=late) as scene:
        stack, (_, port) = scene.testbed.stack, scene.info()["local"]
        scene.conn.close()
        scene.testbed.pump()
        end = scene.peer.relative(scene.peer.expect("FA", seq=ANY))[0] + 1
        scene.peer.send("FA", ack=end)
        assert scene.state == "TIME-WAIT"
        if late:
            with pytest.raises(OSError, match="in use"):
                stack.connect(scene.peer.address, scene.peer.port, local_port=port, wait=False)
        else:
            stack.connect(scene.peer.address, scene.peer.port, local_port=port, wait=False).abort()


def last_ack(scene: Scene, peer: ScriptedPeer) -> int:
    """The peer closes first, then the application. The last TSval that the peer has seen; both are CLOSED."""
    peer.drain()
    peer.send("FA")
    scene.close()
    segment = peer.drain()[-1]
    assert "F" in segment.flags
    peer.send("A", ack=peer.relative(segment)[0] + 1)
    return int(segment.options["timestamps"][0])


def syn_of(scene: Scene, peer: ScriptedPeer, port: int) -> tuple[int, int]:
    """TSval of the SYN of a connection from `port` to the peer, and how many milliseconds it takes to come."""
    peer.drain()
    began = scene.testbed.now_ns
    connection = scene.testbed.stack.connect(peer.address, peer.port, local_port=port, wait=False)
    scene.testbed.pump()
    if not peer.queue:
        peer.wait(SECOND)
    (segment,) = peer.drain()
    assert segment.flags == "S"
    connection.abort()
    scene.testbed.pump()
    return int(segment.options["timestamps"][0]), (scene.testbed.now_ns - began) // MILLISECOND


@pytest.mark.parametrize("phase_ms", range(0, 512, 96))
def test_a_syn_after_slow_ticks_is_newer_for_a_peer_in_time_wait(phase_ms: int) -> None:
    """RFC 6191 section 2: TIME-WAIT gives way to a SYN whose TSval is greater than the last one seen. Another port is
    another connection, and has no reason to wait."""
    with three_out(late=True) as scene:
        scene.testbed.advance(phase_ms * MILLISECOND)
        last = last_ack(scene, scene.peer)
        assert scene.state == "CLOSED"
        assert syn_of(scene, ScriptedPeer(scene.testbed, port=5000, stack_port=None), 0)[1] == 0
        value, waited_ms = syn_of(scene, scene.peer, 80)
        assert 0 < (value - last) & MASK <= 2
        assert waited_ms <= TICK + 1


def test_a_syn_after_fine_ticks_does_not_wait() -> None:
    with three_out(late=False) as scene:
        last = last_ack(scene, scene.peer)
        scene.testbed.advance(MILLISECOND)
        assert syn_of(scene, scene.peer, 80) == (last + 1, 0)


def test_where_the_peer_is_not_in_time_wait_a_syn_does_not_wait() -> None:
    """A reset leaves nothing at the peer."""
    with three_out(late=True) as scene:
        scene.peer.drain()
        scene.abort()
        scene.peer.drain()
        assert syn_of(scene, scene.peer, 80)[1] == 0


def test_after_the_tick_a_syn_does_not_wait() -> None:
    with three_out(late=True) as scene:
        last_ack(scene, scene.peer)
        scene.testbed.advance(TICK * MILLISECOND)
        assert syn_of(scene, scene.peer, 80)[1] == 0


def test_more_ends_in_one_tick_than_there_are_places_are_remembered() -> None:
    """Two connections or more have the same place: each of them waits."""
    with listen() as scene:
        made = []
        for port in range(1000, 1000 + 257):
            peer = ScriptedPeer(scene.testbed, port=port)
            peer.send("S", options=ALL_OPTIONS)
            peer.expect("SA")
            peer.timestamps = True
            peer.send("A")
            one = Scene(scene.testbed, peer, scene.listener)
            one.accept()
            one.send(bytes(3 * MSS))
            made.append(one)
        scene.testbed.advance(ROUND_TRIP)
        last = []
        for one in made:
            acknowledge(one, 1 + MSS, (1 + 2 * MSS, 1 + 3 * MSS))
            acknowledge(one, 1 + 3 * MSS)
            last.append(last_ack(one, one.peer))
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        stack = scene.testbed.stack
        again = [stack.connect(one.peer.address, one.peer.port, local_port=80, wait=False) for one in made]
        scene.testbed.pump()
        assert all(not one.peer.drain() for one in made)
        scene.testbed.advance(TICK * MILLISECOND)
        for one, shown in zip(made, last, strict=True):
            (segment,) = one.peer.drain()
            assert 0 < (segment.options["timestamps"][0] - shown) & MASK <= 2
        for connection in again:
            connection.abort()
        scene.testbed.pump()

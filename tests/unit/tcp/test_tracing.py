# SPDX-License-Identifier: MIT
"""What a trace records, event by event, against a scripted peer in virtual time (ustack/tcp/records/trace.pxd)."""

import struct
from collections import Counter
from typing import Any

import pytest

from tests.tree import ROOT
from tests.unit.tcp.test_ecn import ECT0, agreed
from ustack import Trace
from ustack.tcp import tracing
from ustack.testing.peer import length
from ustack.testing.states import SYN_OPTIONS, Scene, established, fly, listen, syn_sent
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND

MSS = 1460
SACK = {"mss": MSS, "sack_permitted": True}
ROUND_TRIP = 20 * MILLISECOND
PEER_WINDOW = 65535


def said(trace: Trace) -> list[tuple[Any, ...]]:
    """(event, cause, seq, length) of each record that has come since the last call."""
    from ustack.engine.trace import unpack

    return [(one["event"], one["cause"], one["seq"], one["length"]) for one in unpack(trace.take())]


def seq_of(index: int) -> int:
    return 1 + MSS * index


def sack(scene: Scene, ack: int, *blocks: tuple[int, int]) -> None:
    assert scene.peer.iss is not None
    edges = [tuple((scene.peer.iss + seq_of(edge)) & 0xFFFFFFFF for edge in block) for block in blocks]
    scene.peer.send("A", ack=seq_of(ack), options={"sack": edges} if edges else None)


def flying(segments: int, *, options: dict[str, Any] = SACK, total: int = 0, **config: Any) -> tuple[Scene, Trace]:
    """So many segments in flight, a round trip measured by one before them; traced from then on."""
    scene = established(options=options, initial_window_segments=segments + 1, **config)
    scene.send(bytes(MSS))
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.drain()
    scene.peer.send("A", ack=seq_of(1))
    scene.send(bytes((total or segments) * MSS))
    assert len(scene.peer.drain()) in (segments, segments + 1)
    scene.testbed.advance(ROUND_TRIP)
    trace = scene.conn.trace()
    return scene, trace


# The numbers of a trace that begins late: 0 is the byte before the first that is not acknowledged.
LATE = seq_of(1) - 1


def late(index: int) -> int:
    return seq_of(index) - LATE


# ---------------------------------------------------------------- one record


def test_a_record_is_one_cache_line_of_the_documented_fields() -> None:
    assert struct.calcsize(tracing.FORMAT) == 64
    assert len(struct.unpack(tracing.FORMAT, bytes(64))) == len(tracing.FIELDS)


def test_every_event_and_cause_has_a_name() -> None:
    """The numbers of the enums, without a gap."""
    text = (ROOT / "ustack/tcp/records/trace.pxd").read_text()
    events = text.split("cdef enum trace_event_t:")[1].split("TRACE_EVENTS")[0]
    names = [line.split()[0] for line in events.splitlines() if line.strip().startswith("TRACE_")]
    names.remove("TRACE_LAST_SENT")
    assert list(tracing.EVENTS) == list(range(1, len(names) + 1))
    assert [f"TRACE_{name.upper()}" for name in tracing.EVENTS.values()] == names
    assert list(tracing.CAUSES.values()) == ["none", "fast", "rack", "probe", "rto", "size"]
    assert list(tracing.CAUSES) == list(range(6))
    assert list(tracing.REPAIRS) == list(range(4))


def test_a_record_shows_the_variables_as_the_event_has_left_them() -> None:
    with established(measured=True) as scene:
        trace = scene.conn.trace()
        scene.send(bytes(3000))
        scene.peer.drain()
        scene.testbed.advance(ROUND_TRIP)
        began = scene.testbed.now_ns
        scene.peer.send("A", ack=1 + MSS, wnd=5000)
        info = scene.info()
        record = [one for one in trace.records() if one["event"] == "acked"][-1]
        assert record == {
            "time_ns": began,
            "connection": 1,
            "event": "acked",
            "cause": "none",
            "state": "ESTABLISHED",
            "repair": "none",
            "seq": 1,
            "length": MSS,
            "cwnd": info["cwnd"],
            "ssthresh": info["ssthresh"],
            "flight": 3000 - MSS,
            "srtt_us": info["srtt_us"],
            "rto_us": info["rto_ns"] // 1000,
            "snd_wnd": PEER_WINDOW,
            "rcv_wnd": info["rcv_wnd"],
            "detail": 20_000,
            "pacing_rate": 0,
        }
        window = trace.records()[-1]
        assert (window["event"], window["snd_wnd"], window["detail"]) == ("window", 5000, PEER_WINDOW)
        scene.abort()


def test_a_paced_flight_tells_its_rate() -> None:
    with established(measured=True, pacing=2) as scene:
        scene.send(bytes(MSS))
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.catch_up()
        scene.peer.send("A")
        trace = scene.conn.trace()
        scene.send(bytes(4 * MSS))
        scene.testbed.advance(ROUND_TRIP // 2)
        sent = [one for one in trace.records() if one["event"] == "sent"]
        twice_the_window = 2 * scene.info()["cwnd"] * SECOND // ROUND_TRIP  # slow start
        assert {one["pacing_rate"] for one in sent} == {twice_the_window}
        scene.abort()


# ---------------------------------------------------------------- a connection's life


def test_an_active_open_is_told_from_its_syn_to_its_end() -> None:
    with listen() as scene:
        scene.listener = None
        trace = scene.testbed.stack.trace(connections=1)
        from ustack.testing.peer import ScriptedPeer

        peer = ScriptedPeer(scene.testbed, port=7777, stack_port=None)
        scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, 7777, wait=False)
        scene.testbed.pump()
        peer.expect("S", seq=0)
        peer.send("SA", options=SYN_OPTIONS)
        peer.expect("A")
        scene.send(b"hello")
        peer.expect("A", payload=b"hello")
        peer.send("A", payload=b"answer")
        assert scene.read() == b"answer"
        scene.testbed.advance(SECOND)
        peer.expect("A")
        peer.send("FA")
        scene.testbed.pump()
        peer.expect("A")
        scene.conn.close()
        scene.testbed.pump()
        peer.expect("FA")
        peer.send("A")
        records = trace.records()
        told = [(one["event"], one["state"], one["seq"], one["length"], one["detail"]) for one in records]
        states = tracing.STATES
        number = {name: value for value, name in states.items()}
        assert told == [
            ("opened", "SYN-SENT", 0, 0, 0),
            ("sent", "SYN-SENT", 0, 1, 0),
            ("state", "ESTABLISHED", 0, 0, number["SYN-SENT"]),
            ("acked", "ESTABLISHED", 0, 1, told[3][4]),
            ("ack_sent", "ESTABLISHED", 1, 0, 1),
            ("sent", "ESTABLISHED", 1, 5, 1),
            ("acked", "ESTABLISHED", 1, 5, told[6][4]),
            ("ack_sent", "ESTABLISHED", 6, 0, 7),
            ("state", "CLOSE-WAIT", 6, 0, number["ESTABLISHED"]),
            ("ack_sent", "CLOSE-WAIT", 6, 0, 8),
            ("state", "LAST-ACK", 6, 0, number["CLOSE-WAIT"]),
            ("sent", "LAST-ACK", 6, 1, 8),
            ("acked", "LAST-ACK", 6, 1, told[12][4]),
            ("closed", "CLOSED", 7, 0, 0),
        ]
        known = trace.connections[0]
        assert (known["iss"], known["irs"], known["active"]) == (peer.iss, peer.isn, True)
        assert (known["remote"], known["smss"], known["cc"]) == ((PEER_ADDRESS, 7777), MSS, "cubic")
        assert not trace.active


def test_who_closes_first_ends_in_time_wait() -> None:
    with established() as scene:
        trace = scene.conn.trace()
        scene.close()
        scene.peer.expect("FA")
        scene.peer.send("A")
        scene.peer.send("FA")
        assert [one["state"] for one in trace.records() if one["event"] in ("state", "closed")] == [
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "TIME-WAIT",
        ]


def test_a_reset_is_told_with_its_reason() -> None:
    with established() as scene:
        trace = scene.conn.trace()
        scene.peer.send("R")
        last = trace.records()[-1]
        assert (last["event"], last["state"], last["detail"]) == ("closed", "CLOSED", 1)
        assert scene.conn.reason == "reset"


def test_a_syn_that_goes_again_is_a_retransmission_by_the_timer() -> None:
    with syn_sent() as scene:
        trace = scene.conn.trace()
        scene.testbed.advance(SECOND + MILLISECOND)
        scene.peer.expect("S")
        assert said(trace) == [
            ("opened", "none", 0, 1),
            ("timeout", "none", 0, 1),
            ("retransmitted", "rto", 0, 1),
        ]
        scene.abort()


# ---------------------------------------------------------------- losses


def test_three_sacked_segments_are_a_fast_retransmission() -> None:
    scene, trace = flying(8)
    with scene:
        sack(scene, 1, (2, 5))
        scene.peer.drain()
        assert said(trace) == [
            ("opened", "none", late(1), 8 * MSS),
            ("lost", "fast", late(1), MSS),
            ("recovery", "fast", late(9), 0),
            ("sacked", "none", late(5), 3 * MSS),
            ("retransmitted", "fast", late(1), MSS),
        ]
        sack(scene, 9)
        assert said(trace) == [
            ("recovered", "none", late(9), 0),
            ("acked", "none", late(1), 8 * MSS),
        ]


def test_what_the_reordering_window_finds_is_racks() -> None:
    scene, trace = flying(8)
    with scene:
        sack(scene, 1, (2, 3))
        scene.peer.wait(SECOND)
        scene.peer.drain()
        assert said(trace) == [
            ("opened", "none", late(1), 8 * MSS),
            ("sacked", "none", late(3), MSS),
            ("lost", "rack", late(1), MSS),
            ("recovery", "rack", late(9), 0),
            ("retransmitted", "rack", late(1), MSS),
        ]
        scene.abort()


def test_a_lost_retransmission_is_racks() -> None:
    """Counting duplicates never finds one (RFC 8985 section 3.1)."""
    scene, trace = flying(8, total=20)
    with scene:
        sack(scene, 1, (2, 6))
        scene.peer.drain()
        scene.testbed.advance(ROUND_TRIP)
        sack(scene, 1, (2, 9))
        new = max((scene.peer.relative(one)[0] - 1) // MSS for one in scene.peer.drain() if one.payload)
        scene.testbed.advance(ROUND_TRIP)
        sack(scene, 1, (2, new + 1))
        scene.testbed.advance(ROUND_TRIP // 2)
        again = [(event, cause, seq) for event, cause, seq, _ in said(trace) if event in ("lost", "retransmitted")]
        assert again[:2] == [("lost", "fast", late(1)), ("retransmitted", "fast", late(1))]
        assert again[-2:] == [("lost", "rack", late(1)), ("retransmitted", "rack", late(1))]
        scene.abort()


def test_three_duplicates_of_a_peer_without_sack_are_a_fast_retransmission() -> None:
    scene, trace = flying(8, options=SYN_OPTIONS)
    with scene:
        for _ in range(3):
            scene.peer.send("A", ack=seq_of(1))
        scene.peer.drain()
        told = said(trace)
        assert [one for one in told if one[0] in ("acked", "lost", "recovery", "retransmitted")] == [
            ("acked", "none", late(1), 0),
            ("acked", "none", late(1), 0),
            ("lost", "fast", late(1), MSS),
            ("recovery", "fast", late(9), 0),
            ("acked", "none", late(1), 0),
            ("retransmitted", "fast", late(1), MSS),
        ]
        scene.abort()


def test_a_tail_loss_probe_is_a_cause_of_its_own() -> None:
    scene, trace = flying(4)
    with scene:
        scene.peer.wait(SECOND)
        scene.peer.drain()
        assert said(trace)[1:] == [("retransmitted", "probe", late(4), MSS)]
        scene.abort()


def test_a_timeout_and_what_it_loses() -> None:
    scene, trace = flying(2)
    with scene:
        before = scene.info()
        scene.testbed.run_until(lambda: scene.testbed.counted().get("retransmit_timeouts", 0) == 1, 5 * SECOND)
        scene.peer.drain()
        told = said(trace)
        assert told[1] == ("retransmitted", "probe", late(2), MSS)
        assert told[2:] == [
            ("lost", "rto", late(1), MSS),
            ("lost", "rto", late(2), MSS),
            ("recovery", "rto", late(3), 0),
            ("timeout", "none", late(1), 2 * MSS),
            ("retransmitted", "rto", late(1), MSS),
        ]
        assert scene.info()["cwnd"] < before["cwnd"]
        scene.abort()


def test_a_timeout_that_was_none_is_undone() -> None:
    """F-RTO (RFC 5682 section 3.1): the originals arrive after all."""
    scene, trace = flying(4, total=10)
    with scene:
        scene.testbed.run_until(lambda: scene.testbed.counted().get("retransmit_timeouts", 0) == 1, 5 * SECOND)
        scene.peer.drain()
        said(trace)
        sack(scene, 2)
        sack(scene, 3)
        undone = [one for one in said(trace) if one[0] == "undone"]
        assert undone == [("undone", "rto", undone[0][2], 0)]
        assert scene.testbed.counted()["timeouts_undone"] == 1
        scene.abort()


def test_a_window_that_was_closed_and_opens_sends_again_for_no_congestion() -> None:
    """Something in flight when the window closes may have been dropped for it."""
    with established(wnd=4 * MSS, measured=True) as scene:
        trace = scene.conn.trace()
        scene.send(bytes(2 * MSS))
        scene.peer.drain()
        scene.peer.send("A", ack=1, wnd=0)
        scene.testbed.run_until(lambda: scene.testbed.counted().get("window_probes_out", 0) == 1, 10 * SECOND)
        scene.peer.drain()
        scene.peer.send("A", ack=1, wnd=4 * MSS)
        told = said(trace)
        assert ("probed", "none", 1, 1) in told
        assert ("recovery", "size", 1 + 2 * MSS, 0) in told
        assert [one for one in told if one[0] == "retransmitted"] == [
            ("retransmitted", "size", 1, MSS),
            ("retransmitted", "size", 1 + MSS, MSS),
        ]
        scene.abort()


def test_a_keep_alive_is_a_probe_of_nothing() -> None:
    with established(keepalive_idle_ns=60 * SECOND) as scene:
        scene.conn.keepalive = True
        trace = scene.conn.trace()
        scene.testbed.advance(61 * SECOND)
        scene.peer.expect("A", seq=0)
        assert said(trace)[1:] == [("probed", "none", 0, 0)]
        scene.abort()


def test_a_mark_is_told_with_the_window_before_it() -> None:
    with agreed(initial_window_segments=8) as scene:
        fly(scene, 8, mss=MSS, tos=ECT0, round_trip_ns=ROUND_TRIP)
        before = scene.info()["cwnd"]
        trace = scene.conn.trace()
        scene.peer.rcv_nxt = seq_of(2)
        scene.peer.send("AE")
        record = next(one for one in trace.records() if one["event"] == "marked")
        assert record["detail"] == before
        assert record["cwnd"] < before
        scene.abort()


def test_without_a_record_of_the_flight_a_timeout_is_told_all_the_same() -> None:
    with established(measured=True, flights=0) as scene:
        trace = scene.conn.trace()
        scene.send(bytes(2 * MSS))
        scene.peer.expect(payload=length(MSS))
        scene.peer.wait(3 * SECOND)
        scene.peer.drain()
        scene.peer.send("A", ack=1 + MSS)
        told = said(trace)
        assert [one[:2] for one in told[1:4]] == [("sent", "none"), ("timeout", "none"), ("retransmitted", "rto")]
        assert ("acked", "none", 1, MSS) in told
        scene.abort()


@pytest.mark.parametrize("options", [SACK, SYN_OPTIONS], ids=["SACK", "no SACK"])
def test_every_segment_that_is_sent_again_is_told_with_a_cause(options: dict[str, Any]) -> None:
    """The records of retransmissions are as many as the counter says, under loss, reordering and duplication."""
    from ustack.testing.pair import Pair

    network = {"loss": 0.03, "reorder": 0.05, "duplicate": 0.01, "delay_ns": 5 * MILLISECOND}
    with Pair(seed=11, network=network, sack=1 if options is SACK else 0) as pair:
        client, server = pair.connect()
        traces = [client.trace(1 << 20), server.trace(1 << 20)]
        before = [stack.counters()["segments_retransmitted"] for stack in (pair.b, pair.a)]
        payload = bytes(400_000)
        queued = received = 0

        def step() -> bool:
            nonlocal queued, received
            if queued < len(payload):
                queued += client.send(payload[queued:])
            while True:
                try:
                    got = server.receive(1 << 20, timeout=0)
                except BlockingIOError:
                    return received == len(payload) and client.info().queued_bytes == 0
                received += len(got)

        pair.run_until(step, 600 * SECOND)
        for stack, trace, counted in zip((pair.b, pair.a), traces, before, strict=True):
            causes = Counter(one["cause"] for one in trace.records() if one["event"] == "retransmitted")
            assert "none" not in causes
            assert sum(causes.values()) == stack.counters()["segments_retransmitted"] - counted
            assert trace.missed == 0
        assert sum(one["length"] for one in traces[0].records() if one["event"] == "acked") == len(payload)
        client.abort()
        pair.advance(SECOND)

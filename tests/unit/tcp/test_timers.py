# SPDX-License-Identifier: MIT
"""Persist, keep-alive, delayed ACK: RFC 9293 section 3.8.4, 3.8.6.1 and 3.8.6.3."""

from typing import Any

import pytest

from ustack import ConnectionTimeout
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND, TICK_NS

HOUR = 3600 * SECOND

# ---------------------------------------------------------------- a stopped process


@pytest.mark.parametrize("days", [1, 6, 7, 10, 12, 14, 20, 60, 255])
def test_a_timeout_has_come_however_long_nobody_looked(days: int) -> None:
    """Ticks tell 6.5 days: a process that was stopped for longer does not take the past for the future."""
    with established() as scene:
        scene.send(b"data")
        scene.peer.expect("PA", payload=b"data")
        scene.testbed.now_ns += days * 86400 * SECOND
        scene.testbed.pump()
        scene.peer.expect("PA", seq=1, payload=b"data")
        scene.abort()


# ---------------------------------------------------------------- persist


def closed_window(octets: int = 1000, **config: Any) -> Scene:
    """Data queued, the peer's window closed."""
    scene = established(**config)
    scene.peer.wnd = 0
    scene.peer.send("A")
    scene.send(bytes(octets))
    scene.peer.expect_nothing()
    scene.testbed.mark()
    return scene


def is_probe(scene: Scene) -> None:
    """One byte, the first that the window has no room for. Section 3.8.6.1: "at least one octet of new data".

    Linux sends no data instead, with SEQ=SND.UNA-1, which must be answered as well.
    """
    scene.peer.expect("A", seq=1, ack=1, payload=bytes(1))
    scene.peer.expect_nothing()


def test_persist_first_probe_comes_after_one_rto() -> None:
    """MUST-36, SHLD-29."""
    with closed_window() as scene:
        took = scene.peer.wait(10 * SECOND)
        assert abs(took - SECOND) <= 2 * TICK_NS
        is_probe(scene)
        assert scene.testbed.counted()["window_probes_out"] == 1
        scene.abort()


def test_persist_probes_back_off_exponentially() -> None:
    """SHLD-30."""
    with closed_window() as scene:
        for seconds in (1, 2, 4, 8, 16, 32):
            took = scene.peer.wait(100 * SECOND)
            is_probe(scene)
            assert abs(took - seconds * SECOND) <= 2 * TICK_NS
            scene.peer.send("A", ack=1)
        scene.abort()


def test_persist_never_gives_up_while_probes_are_acknowledged() -> None:
    """MUST-37."""
    with closed_window() as scene:
        for _ in range(200):
            scene.peer.wait(100 * SECOND)
            is_probe(scene)
            scene.peer.send("A", ack=1)
        assert scene.state == "ESTABLISHED"
        scene.abort()


def test_persist_gives_up_when_probes_are_not_answered() -> None:
    """R2 (900 s) as for data, from the first probe on: 1 + 2 + 4 + 8 + 16 + 32 and fifteen times 60 s.

    MUST-37 keeps the connection open only while the peer answers. RFC 6429 section 3 leaves the limit to the stack.
    """
    with closed_window() as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 10 * HOUR)
        assert took // SECOND == 963
        with pytest.raises(ConnectionTimeout):
            scene.conn.send(b"x")


def test_persist_ends_when_the_window_opens() -> None:
    with closed_window() as scene:
        scene.peer.wait(10 * SECOND)
        is_probe(scene)
        scene.peer.wnd = 65535
        scene.peer.send("A", ack=1)
        # The probe's byte was refused (ACK=1), so it is sent again with the rest.
        scene.peer.rcv_nxt = 1
        scene.peer.expect("PA", seq=1, ack=1, payload=bytes(1000))
        scene.peer.expect_nothing()
        scene.peer.send("A", ack=1001)
        scene.testbed.advance(HOUR)
        scene.peer.expect_nothing()


def test_persist_probe_octet_that_is_accepted_moves_on() -> None:
    with closed_window() as scene:
        scene.peer.wait(10 * SECOND)
        is_probe(scene)
        scene.peer.wnd = 65535
        scene.peer.send("A", ack=2)
        scene.peer.expect("PA", seq=2, ack=1, payload=bytes(999))
        scene.peer.expect_nothing()


def test_persist_fin_behind_a_closed_window_is_delivered_in_the_end() -> None:
    with closed_window(octets=10) as scene:
        scene.shutdown()
        scene.peer.wait(10 * SECOND)
        is_probe(scene)
        scene.peer.rcv_nxt = 1
        scene.peer.wnd = 100
        scene.peer.send("A", ack=1)
        scene.peer.expect("FPA", seq=1, ack=1, payload=bytes(10))
        scene.peer.expect_nothing()


def test_window_shrunk_to_zero_is_probed() -> None:
    """MUST-34, MUST-35, SHLD-17: data in flight when the window closes; answered, the connection stays open."""
    with established(wnd=10_000) as scene:
        scene.conn.nodelay = True
        scene.send(bytes(5000))
        assert len(scene.peer.drain()) == 4
        scene.peer.wnd = 0
        for _ in range(60):
            scene.peer.send("A", ack=1)
            scene.peer.wait(200 * SECOND)
            scene.peer.drain()
        assert scene.state == "ESTABLISHED"
        scene.abort()


@pytest.mark.parametrize("fin", [False, True])
def test_window_that_opens_again_gets_what_was_lost(fin: bool) -> None:
    """MUST-35, SHLD-16: the window closed over data in flight that never arrived."""
    with established(wnd=10_000) as scene:
        scene.conn.send(bytes(5000))
        if fin:
            scene.conn.shutdown()
        scene.testbed.pump()
        scene.peer.drain()
        scene.peer.send("A", ack=1, wnd=0)
        scene.testbed.advance(10 * SECOND)
        scene.peer.drain()
        scene.peer.wnd = 10_000
        received = 1
        for _ in range(20):
            scene.peer.send("A", ack=received)
            scene.testbed.advance(2 * SECOND)
            for segment in scene.peer.drain():
                seq, _ = scene.peer.relative(segment)
                if seq <= received:
                    received = max(received, seq + segment.length)
        assert received == 5001 + fin
        scene.abort()


def test_fin_lost_at_a_closed_window_is_sent_again() -> None:
    with established(wnd=10_000) as scene:
        scene.peer.send("A", ack=1, wnd=0)
        scene.shutdown()
        scene.testbed.advance(5 * SECOND)
        assert [segment.flags for segment in scene.peer.drain()] == ["FA"] * 3  # at once, after 1 s and after 2 s
        scene.peer.send("A", ack=1, wnd=10_000)
        scene.peer.expect("FA", seq=1, ack=1)
        scene.peer.expect_nothing()
        scene.abort()


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_a_closed_window_is_probed_with_the_fin_if_that_is_all_there_is(how: str) -> None:
    """Section 3.8.6.1, "or retransmit": the FIN is sent again as the probe, as it takes no room in the window."""
    with established(wnd=1000) as scene:
        scene.send(bytes(1000))
        scene.peer.catch_up()
        scene.peer.send("A", wnd=0)
        scene.shutdown() if how == "shutdown" else scene.close()
        for _ in range(4):
            scene.peer.wait(20 * SECOND)
            assert [(segment.flags, scene.peer.relative(segment)) for segment in scene.peer.drain()] == [
                ("FA", (1001, 1))
            ]
            scene.peer.send("A", wnd=0)
        scene.peer.send("A", ack=1002, wnd=0)
        assert scene.state == "FIN-WAIT-2"
        scene.peer.send("R")


@pytest.mark.parametrize("octets", [0, 1])
def test_simultaneous_window_probes_end_when_one_ack_arrives(octets: int) -> None:
    """RFC 9293 appendix A.2: both ends have taken the byte of the other's probe, and both ACKs were lost."""
    with established(wnd=1000) as scene:
        scene.send(bytes(1500))
        scene.peer.catch_up()
        scene.peer.send("A", wnd=0)
        scene.peer.wait(2 * SECOND)
        scene.peer.expect("A", seq=1001, payload=bytes(1))
        scene.peer.send("A", seq=1, ack=1001, wnd=0, payload=b"x")
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.peer.send("A", seq=1, ack=1002, payload=b"x" * octets)
        assert sum(len(segment.payload) for segment in scene.peer.drain()) == 499
        scene.peer.send("A", seq=2, ack=1501)
        assert scene.testbed.stack.leaks()["send_pieces"] == 0
        assert scene.read() == b"x"
        scene.abort()


def test_window_shrunk_sends_nothing_new() -> None:
    """SHLD-15: the sender SHOULD NOT send new data. Old data waits for its timer (SHLD-16), also beyond the new edge.

    Of the 5000 bytes of window 4380 are in flight: the rest has no room for a full segment.
    """
    with established(wnd=5000) as scene:
        scene.send(bytes(20_000))
        assert [len(segment.payload) for segment in scene.peer.drain()] == [1460] * 3
        scene.peer.send("A", ack=1, wnd=1000)
        scene.peer.expect_nothing()
        scene.abort()


def test_zero_window_still_processes_rst() -> None:
    """MUST-66: at a receive window of zero, RST and ACK are processed."""
    with established(rcv_buffer_bytes=4096) as scene:
        fill_receive_buffer(scene)
        scene.peer.send("R")
        assert scene.state == "CLOSED"


def test_zero_window_still_processes_acks() -> None:
    with established(rcv_buffer_bytes=4096) as scene:
        fill_receive_buffer(scene)
        scene.send(b"answer")
        scene.peer.expect("A", payload=b"answer")
        scene.peer.send("A")
        assert scene.testbed.stack.leaks()["send_pieces"] == 0


def test_zero_window_probe_is_acknowledged() -> None:
    """The ACK does not take the probe's byte: table 6, "not acceptable". A stack that has room may take it.

    The other kind of probe, a byte before the window and without data, is answered as well.
    """
    with established(rcv_buffer_bytes=4096) as scene:
        fill_receive_buffer(scene)
        received = scene.peer.snd_nxt
        scene.peer.send("A", seq=received, payload=b"x")
        scene.peer.expect("A", seq=1, ack=received, wnd=0)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}
        scene.peer.send("A", seq=received - 1)
        scene.peer.expect("A", seq=1, ack=received, wnd=0)
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"


def fill_receive_buffer(scene: Scene) -> None:
    """Send until the stack advertises a window of zero."""
    window = scene.info()["rcv_wnd"]
    for _ in range(200):
        if window == 0:
            break
        scene.peer.send("A", payload=b"x" * min(window, 1000))
        scene.testbed.advance(500 * MILLISECOND)
        window = scene.peer.drain()[-1].wnd
    assert window == 0
    scene.testbed.mark()


# ---------------------------------------------------------------- delayed ACK


def test_delayed_ack_of_a_small_segment() -> None:
    """MUST-40, SHLD-18: after 40 ms, where less than 500 ms is asked for."""
    with established() as scene:
        scene.peer.send("PA", payload=b"x")
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=1, ack=2)
        assert scene.testbed.counted()["pure_acks_out"] == 1


def test_delayed_ack_follows_the_configuration() -> None:
    with established(delayed_ack_ns=200 * MILLISECOND) as scene:
        scene.peer.send("PA", payload=b"x")
        scene.peer.expect_after(200 * MILLISECOND, "A", seq=1, ack=2)


def test_every_second_full_segment_is_acknowledged_at_once() -> None:
    """SHLD-19."""
    with established() as scene:
        for count in range(1, 5):
            scene.peer.send("A", payload=bytes(1460))
            scene.peer.expect_nothing()
            scene.peer.send("A", payload=bytes(1460))
            scene.peer.expect("A", seq=1, ack=1 + 2 * 1460 * count)
        scene.read()


def test_acks_of_a_burst_are_aggregated() -> None:
    """MUST-58, MUST-59: everything that has arrived is processed before one ACK is sent."""
    with established() as scene:
        for _ in range(10):
            scene.peer.send("A", payload=bytes(1460), pump=False)
        scene.testbed.pump()
        scene.peer.expect("A", seq=1, ack=14601)
        scene.peer.expect_nothing()
        scene.read()


def test_ack_rides_on_data() -> None:
    with established() as scene:
        scene.peer.send("PA", payload=b"question")
        scene.send(b"answer")
        scene.peer.expect("PA", seq=1, ack=9, payload=b"answer")
        scene.peer.send("A")
        scene.testbed.advance(SECOND)
        scene.peer.expect_nothing()
        scene.read()


def test_fin_is_acknowledged_at_once() -> None:
    with established() as scene:
        scene.peer.send("FA")
        scene.peer.expect("A", ack=2)


def test_filling_a_hole_is_acknowledged_at_once() -> None:
    """RFC 5681 section 4.2."""
    with established() as scene:
        scene.peer.send("A", seq=2, payload=b"b")
        scene.peer.expect("A", ack=1)
        scene.peer.send("A", seq=1, payload=b"a")
        scene.peer.expect("A", ack=3)
        scene.read()


@pytest.mark.parametrize("spacing_ms", [0, 1, 39, 41])
def test_a_segment_is_never_acknowledged_twice(spacing_ms: int) -> None:
    """RFC 5681 section 4.2: MUST NOT be more than one ACK for a segment, in order, out of order or come again."""
    with established(rcv_buffer_bytes=1 << 16) as scene:
        for number, (seq, size) in enumerate([(1, 1460), (1461, 10), (2000, 500), (1471, 529), (1, 100), (2500, 1460)]):
            scene.peer.send("A", seq=seq, payload=bytes(size))
            scene.testbed.advance(spacing_ms * MILLISECOND)
            assert len(scene.peer.drain()) <= 1, number
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", ack=3960) if spacing_ms < 40 else scene.peer.expect_nothing()
        scene.testbed.advance(10 * SECOND)
        scene.peer.expect_nothing()
        scene.read()


# ---------------------------------------------------------------- keep-alive


def keep_alive(**config: Any) -> Scene:
    """ESTABLISHED, keep-alive on."""
    scene = established(**config)
    scene.conn.keepalive = True
    scene.testbed.pump()
    return scene


def test_keepalive_is_off_by_default() -> None:
    """MUST-25."""
    with established() as scene:
        assert not scene.conn.keepalive
        scene.testbed.advance(100 * HOUR)
        scene.peer.expect_nothing()


def test_keepalive_probes_after_two_hours() -> None:
    """MUST-24, MUST-28, SHLD-12: without data, at SND.NXT - 1, which is not acceptable and so must be answered."""
    with keep_alive() as scene:
        scene.peer.expect_after(2 * HOUR, "A", seq=0, ack=1)
        assert scene.testbed.counted()["keepalive_probes_out"] == 1


def test_keepalive_is_answered_and_goes_on() -> None:
    with keep_alive() as scene:
        for _ in range(3):
            scene.peer.expect_after(2 * HOUR, "A", seq=0, ack=1)
            scene.peer.send("A")
        assert scene.state == "ESTABLISHED"


def test_keepalive_one_lost_probe_is_not_the_end() -> None:
    """MUST-29."""
    with keep_alive() as scene:
        scene.peer.expect_after(2 * HOUR, "A", seq=0)
        for _ in range(5):
            scene.peer.expect_after(75 * SECOND, "A", seq=0)
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"
        scene.peer.expect_after(2 * HOUR, "A", seq=0)


def test_keepalive_gives_up_after_nine_probes() -> None:
    with keep_alive() as scene:
        scene.testbed.run_until(lambda: scene.state == "CLOSED", 3 * HOUR)
        assert len([segment for segment in scene.peer.drain() if "R" not in segment.flags]) == 9
        with pytest.raises(ConnectionTimeout):
            scene.conn.receive(1, timeout=0)
        assert scene.testbed.counted()["connections_timed_out"] == 1


def test_keepalive_times_are_configurable() -> None:
    """MUST-27."""
    with keep_alive(keepalive_idle_ns=10 * SECOND, keepalive_interval_ns=SECOND, keepalive_probes=2) as scene:
        scene.peer.expect_after(10 * SECOND, "A", seq=0)
        scene.peer.expect_after(SECOND, "A", seq=0)
        scene.testbed.run_until(lambda: scene.state == "CLOSED", 3 * SECOND)


def test_keepalive_waits_from_the_last_segment_received() -> None:
    """MUST-26."""
    with keep_alive() as scene:
        scene.testbed.advance(HOUR)
        scene.peer.send("PA", payload=b"x")
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", seq=1, ack=2)
        scene.peer.expect_after(2 * HOUR - SECOND, "A", seq=0, ack=2)
        scene.read()


def test_keepalive_does_not_probe_with_data_outstanding() -> None:
    """MUST-26."""
    with keep_alive(user_timeout_ns=4 * HOUR) as scene:
        scene.send(b"hello")
        scene.testbed.advance(3 * HOUR)
        assert scene.testbed.counted().get("keepalive_probes_out", 0) == 0
        assert {segment.payload for segment in scene.peer.drain()} == {b"hello"}
        scene.abort()


def test_keepalive_can_be_switched_off_again() -> None:
    with keep_alive() as scene:
        scene.conn.keepalive = False
        scene.testbed.advance(10 * HOUR)
        scene.peer.expect_nothing()


@pytest.mark.parametrize("octets", [0, 1])
def test_keepalive_probe_of_the_peer_is_answered(octets: int) -> None:
    """Some stacks send a garbage byte with it (MAY-6). It lies before the window, so it is no data, and is answered."""
    with established() as scene:
        scene.peer.send("A", seq=0, payload=b"\0" * octets)
        scene.peer.expect("A", seq=1, ack=1)
        scene.peer.expect_nothing()

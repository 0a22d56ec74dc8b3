# SPDX-License-Identifier: MIT
"""ESTABLISHED: segment text, FIN, URG, user calls, timeouts. RFC 9293 section 3.10.7.4, steps five to eight."""

import errno
from dataclasses import replace

import pytest

from ustack import ConnectionReset, ConnectionTimeout, StackError, Unreachable
from ustack.testing.peer import length
from ustack.testing.segment import with_reserved_bits
from ustack.testing.states import established
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

both_roles = pytest.mark.parametrize("role", ["passive", "active"])


@both_roles
def test_established_data_in_order_is_delivered_and_acknowledged(role: str) -> None:
    with established(role=role) as scene:
        scene.peer.send("PA", payload=b"x" * 100)
        # After the delayed ACK's 40 ms. At once would be allowed, later than 0.5 s not (MUST-40).
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=1, ack=101)
        scene.peer.expect_nothing()
        assert scene.read() == b"x" * 100
        assert scene.testbed.dropped() == {}


def test_established_data_out_of_order_is_kept_and_answered_at_once() -> None:
    """SHLD-31, MAY-13; RFC 5681 section 4.2: an immediate duplicate ACK."""
    with established() as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        scene.peer.expect("A", seq=1, ack=1)
        scene.peer.expect_nothing()
        assert scene.read() == b""
        assert scene.testbed.counted()["out_of_order_in"] == 1
        assert scene.testbed.dropped() == {}
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.peer.expect("A", seq=1, ack=11)
        assert scene.read() == b"helloworld"


def test_established_data_partly_duplicate_is_trimmed() -> None:
    with established() as scene:
        scene.peer.send("A", payload=b"hello")
        assert scene.read() == b"hello"
        scene.peer.send("A", seq=4, payload=b"lo, world")
        assert scene.read() == b", world"
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=1, ack=13)


def test_established_data_wholly_duplicate_is_acknowledged_again() -> None:
    with established() as scene:
        scene.peer.send("A", payload=b"hello")
        scene.read()
        scene.testbed.advance(500 * MILLISECOND)
        scene.peer.drain()
        scene.testbed.mark()
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.peer.expect("A", seq=1, ack=6)
        assert scene.read() == b""
        assert scene.testbed.dropped() == {"drop_tcp_duplicate": 1}


def test_established_an_ack_at_the_right_edge_counts() -> None:
    """A peer that has filled the window sends its ACKs with SEG.SEQ = RCV.NXT + RCV.WND, which table 6 excludes.

    They count, even while the first byte of the window is still missing.
    """
    with established(rcv_buffer_bytes=8000) as scene:
        scene.send(b"answer")
        scene.peer.expect("A", payload=b"answer")
        scene.peer.send("A", seq=1001, ack=1, payload=bytes(7000))
        scene.peer.expect("A", seq=7, ack=1)
        for beyond in (8002, 8100):
            scene.peer.send("A", seq=beyond, ack=7)
            assert scene.info()["snd_una"] == scene.info()["snd_max"] - 6
        scene.peer.drain()
        scene.peer.send("R", seq=8001)
        assert scene.state == "ESTABLISHED"
        scene.peer.send("A", seq=8001, ack=7)
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["send_pieces"] == 0
        scene.abort()


def test_established_data_across_the_right_edge_is_trimmed() -> None:
    """The part in the window is taken, the part beyond is not; what lies wholly beyond is dropped.

    Section 3.10.7.4, first: "one could tailor actual segments [...] by trimming off any portions that lie outside the
    window"; it does not forbid to keep more.
    """
    with established(rcv_buffer_bytes=4096) as scene:
        window = scene.info()["rcv_wnd"]
        data = bytes(index % 251 for index in range(window + 1000))
        at = 0
        while at < len(data):
            scene.peer.send("A", seq=1 + at, payload=data[at : at + 1000], pump=False)
            at += 1000
        scene.testbed.pump()
        scene.peer.expect("A", seq=1, ack=1 + window, wnd=0)
        assert scene.read() == data[:window]
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", seq=1, ack=1 + window, wnd=window)


def test_established_data_across_both_edges_is_trimmed_on_both_sides() -> None:
    """Neither its first byte nor its last is in the window, which is all that table 6 asks; yet it has every byte that
    is waited for."""
    with established(rcv_buffer_bytes=4096) as scene:
        window = scene.info()["rcv_wnd"]
        data = bytes(index % 251 for index in range(window + 200))
        filled = window - 500
        for at in range(0, filled, 1000):
            scene.peer.send("A", seq=1 + at, payload=data[at : min(at + 1000, filled)])
        scene.peer.drain()
        scene.peer.send("A", seq=1 + filled - 100, payload=data[filled - 100 :])
        scene.peer.expect("A", seq=1, ack=1 + window, wnd=0)
        assert scene.read() == data[:window]
        assert scene.testbed.dropped() == {}
        scene.peer.drain()


@pytest.mark.parametrize("flags", ["UA", "UPA"])
@pytest.mark.parametrize("urgent", [0, 3, 5, 1000, 65535])
def test_established_urgent_data_is_delivered_in_line(flags: str, urgent: int) -> None:
    """MUST-30, MUST-31: whatever the pointer says, the bytes are part of the stream."""
    with established() as scene:
        scene.peer.send(flags, payload=b"hello", urgent=urgent)
        assert scene.read() == b"hello"
        assert scene.state == "ESTABLISHED"
        assert scene.testbed.dropped() == {}


def test_established_fin_reaches_close_wait() -> None:
    with established() as scene:
        scene.peer.send("FA")
        scene.peer.expect("A", seq=1, ack=2)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSE-WAIT"
        assert scene.at_eof()


def test_established_fin_with_data_delivers_the_data_first() -> None:
    with established() as scene:
        scene.peer.send("FPA", payload=b"last words")
        scene.peer.expect("A", seq=1, ack=12)
        assert scene.state == "CLOSE-WAIT"
        assert read_available(scene.conn) == (b"last words", True)


def test_established_fin_out_of_order_waits() -> None:
    with established() as scene:
        scene.peer.send("FA", seq=6, payload=b"world")
        scene.peer.expect("A", seq=1, ack=1)
        assert scene.state == "ESTABLISHED"
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.peer.expect("A", seq=1, ack=12)
        assert scene.state == "CLOSE-WAIT"
        assert read_available(scene.conn) == (b"helloworld", True)


def test_established_lone_fin_out_of_order_waits() -> None:
    with established() as scene:
        scene.peer.send("FA", seq=6)
        scene.peer.expect("A", seq=1, ack=1)
        assert scene.state == "ESTABLISHED"
        scene.peer.send("A", seq=1, payload=b"hello")
        assert scene.state == "CLOSE-WAIT"
        assert read_available(scene.conn) == (b"hello", True)


def test_established_options_in_any_segment_are_accepted() -> None:
    """MUST-5, MUST-6."""
    with established() as scene:
        scene.peer.send("A", payload=b"x", options={"nop": 3, "raw": b"\xfd\x06abcd\x22\x02", "mss": 99})
        assert scene.read() == b"x"
        assert scene.testbed.dropped() == {}


def test_established_reserved_and_ecn_bits_are_ignored() -> None:
    """Without an agreement on ECN (test_ecn.py)."""
    with established() as scene:
        scene.peer.send("AEC", payload=b"x")
        assert scene.read() == b"x"
        scene.testbed.inject(with_reserved_bits(scene.peer.frame(scene.peer.segment("A", payload=b"y")), 0x0F))
        assert scene.read() == b"y"
        scene.peer.snd_nxt += 1


# ---------------------------------------------------------------- ICMP


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 5), (11, 0), (11, 1), (12, 0)])
def test_established_soft_icmp_error_does_not_abort(kind: int, code: int) -> None:
    """MUST-56. The application can read it from info() (MUST-47, SHLD-25)."""
    with established() as scene:
        scene.send(b"x" * 10)
        segment = scene.peer.expect("A", payload=length(10))
        scene.peer.send_icmp_error(kind, code, segment)
        assert scene.state == "ESTABLISHED"
        assert scene.testbed.dropped() == {}
        assert scene.info()["soft_error"] == (kind, code)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
def test_established_no_icmp_unreachable_ends_the_connection(code: int) -> None:
    """RFC 5927 section 5.2: in a synchronized state hard errors count as soft ones, in spite of SHLD-26."""
    with established() as scene:
        scene.send(b"x" * 10)
        segment = scene.peer.expect("A", payload=length(10))
        scene.peer.send_icmp_error(3, code, segment)
        assert scene.state == "ESTABLISHED"
        assert scene.info()["soft_error"] == (3, code)
        assert scene.testbed.counted()["icmp_soft_errors"] == 1
        scene.peer.send("A", payload=b"still here")
        assert scene.read() == b"still here"


def test_established_an_icmp_error_is_forgotten_with_the_next_ack() -> None:
    with established() as scene:
        scene.send(b"x" * 10)
        scene.peer.send_icmp_error(3, 1, scene.peer.expect("A", payload=length(10)))
        scene.peer.send("A")
        assert scene.info()["soft_error"] is None


def test_established_the_icmp_error_is_the_reason_of_the_timeout() -> None:
    """MUST-47: when R2 ends the connection, the error says what the last ICMP message said."""
    with established(user_timeout_ns=20 * SECOND) as scene:
        scene.send(b"x" * 10)
        scene.peer.send_icmp_error(3, 1, scene.peer.expect("A", payload=length(10)))
        scene.testbed.run_until(lambda: scene.state == "CLOSED", 100 * SECOND)
        with pytest.raises(Unreachable) as caught:
            scene.conn.receive(1, timeout=0)
        assert (caught.value.reason, caught.value.errno) == ("host_unreachable", errno.EHOSTUNREACH)
        assert scene.testbed.counted()["connections_unreachable"] == 1


def test_established_icmp_error_for_another_port_is_dropped() -> None:
    """MUST-54: to the connection concerned, and to no other."""
    with established() as scene:
        scene.send(b"x" * 10)
        segment = scene.peer.expect("A", payload=length(10))
        scene.peer.send_icmp_error(3, 3, replace(segment, dport=segment.dport + 1))
        assert scene.state == "ESTABLISHED"
        assert scene.testbed.dropped() == {"drop_icmp_no_connection": 1}


# ---------------------------------------------------------------- the user


@both_roles
def test_established_send_is_segmented(role: str) -> None:
    with established(role=role) as scene:
        scene.send(b"hello")
        scene.peer.expect("PA", seq=1, ack=1, payload=b"hello")
        scene.peer.expect_nothing()


def test_established_push_is_on_the_last_segment_of_a_send() -> None:
    """MUST-61, MUST-60, SHLD-27, SHLD-28."""
    with established() as scene:
        scene.conn.nodelay = True
        scene.send(bytes(4000))
        sizes = []
        while scene.peer.queue:
            segment = scene.peer.expect(payload=at_least_one)
            sizes.append(len(segment.payload))
            assert ("P" in segment.flags) == (sum(sizes) == 4000)
        assert sizes == [1460, 1460, 1080]


def at_least_one(payload: bytes) -> bool:
    """Matches any payload."""
    return len(payload) >= 1


def test_established_send_of_nothing_sends_nothing() -> None:
    with established() as scene:
        scene.send(b"")
        scene.peer.expect_nothing()


def test_established_shutdown_sends_fin() -> None:
    with established() as scene:
        scene.shutdown()
        scene.peer.expect("FA", seq=1, ack=1)
        assert scene.state == "FIN-WAIT-1"


def test_established_shutdown_sends_fin_after_the_data() -> None:
    with established() as scene:
        scene.conn.send(b"last words")
        scene.conn.shutdown()
        scene.testbed.pump()
        scene.peer.expect("FPA", seq=1, payload=b"last words")
        scene.peer.expect_nothing()


def test_established_fin_waits_for_the_window() -> None:
    """FIN comes after all data; a closed window keeps both back."""
    with established(wnd=5) as scene:
        scene.conn.send(b"0123456789")
        scene.conn.shutdown()
        scene.testbed.advance(300 * MILLISECOND)
        scene.peer.expect("A", seq=1, payload=b"01234")
        scene.peer.expect_nothing()
        scene.peer.wnd = 1000
        scene.peer.send("A")
        scene.peer.expect("FPA", seq=6, payload=b"56789")
        assert scene.state == "FIN-WAIT-1"


def test_established_close_with_unread_data_sends_rst() -> None:
    """SHLD-3. The ACK on the RST covers the data that nobody reads: it was received (section 3.1)."""
    with established() as scene:
        scene.peer.send("PA", payload=b"never read")
        scene.peer.drain()
        scene.close()
        scene.peer.expect("RA", seq=1, ack=11)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"


def test_established_calls_after_close_fail() -> None:
    with established() as scene:
        conn = scene.conn
        scene.close()
        with pytest.raises(StackError):
            conn.send(b"x")
        scene.peer.drain()


def test_established_send_after_shutdown_fails() -> None:
    with established() as scene:
        scene.shutdown()
        with pytest.raises(StackError):
            scene.conn.send(b"x")


# ---------------------------------------------------------------- time


def test_established_retransmission_timeout_resends_the_first_segment() -> None:
    """After 1 s: nothing has been measured yet (RFC 6298 section 2.1)."""
    with established() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", seq=1, payload=b"hello")
        scene.peer.expect_after(SECOND, "A", seq=1, ack=1, payload=b"hello")
        assert scene.testbed.counted()["retransmit_timeouts"] == 1
        assert scene.testbed.counted()["segments_retransmitted"] == 1


def test_established_user_timeout_closes() -> None:
    """MUST-20, SHLD-11: R2 is 900 s and SHOULD be at least 100 s.

    It is compared when the timer expires: 1 + 2 + 4 + 8 + 16 + 32 and fourteen times 60 s after the data. Then a RST,
    which the RFC neither asks for nor forbids: if the peer can hear us after all, it learns that we have given up.
    """
    with established() as scene:
        scene.send(b"hello")
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == 903
        assert [segment.flags for segment in scene.peer.drain()] == ["PA"] * 20 + ["RA"]
        with pytest.raises(ConnectionTimeout):
            scene.conn.receive(1, timeout=0)
        assert scene.testbed.counted()["connections_timed_out"] == 1


def test_established_without_data_nothing_ever_happens() -> None:
    """MUST-25: keep-alive is off; an idle connection lives as long as both ends want."""
    with established() as scene:
        scene.testbed.advance(30 * 24 * 3600 * SECOND)
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"


def test_established_unacknowledged_then_reset_is_told() -> None:
    with established() as scene:
        scene.send(b"hello")
        scene.peer.drain()
        scene.peer.send("R")
        with pytest.raises(ConnectionReset):
            scene.conn.send(b"more")


def test_established_received_data_before_a_reset_is_not_passed_as_eof() -> None:
    with established() as scene:
        scene.peer.send("PA", payload=b"half")
        scene.peer.send("R")
        with pytest.raises(ConnectionReset):
            read_available(scene.conn)
        assert scene.state == "CLOSED"

# SPDX-License-Identifier: MIT
"""SYN-RECEIVED, entered from LISTEN (a mini-record) or by a simultaneous open (a tcb).

RFC 9293 section 3.10.7.4, RFC 5961, and MUST-11: it is remembered which of the two it was.
"""

import pytest

from ustack import ConnectionRefused
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, syn_received
from ustack.testing.testbed import MILLISECOND, SECOND

both_roles = pytest.mark.parametrize("role", ["passive", "active"])


def expect_ack(scene: Scene, role: str) -> None:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> from the mini-record of a passive open.

    After an active open it is the SYN,ACK once more, SEQ=ISS: the same ACK, and the peer may still lack our SYN. The
    RFC's form, an ACK alone, would be as right.
    """
    if role == "active":
        scene.peer.expect("SA", seq=0, ack=1)
    else:
        scene.peer.expect("A", seq=1, ack=1)


@both_roles
def test_syn_received_acceptable_ack_establishes(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"


@both_roles
@pytest.mark.parametrize("ack", [0, 2, 1000, -1000])
def test_syn_received_unacceptable_ack_is_answered_with_rst(role: str, ack: int) -> None:
    """Fifth, SYN-RECEIVED: <SEQ=SEG.ACK><CTL=RST>.

    A challenge ACK would be right, too: RFC 5961 section 5.2 (MAY-12) stands before the states in the same step.
    """
    with syn_received(role=role) as scene:
        sent = scene.peer.send("A", ack=ack)
        assert scene.peer.expect("R").seq == sent.ack
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


def test_syn_received_an_older_timestamp_is_answered_and_dropped() -> None:
    """RFC 7323 section 5.3 R1, on the mini-record of a passive open."""
    with syn_received(role="passive", options=ALL_OPTIONS) as scene:
        scene.peer.send("A", options={"timestamps": (ALL_OPTIONS["timestamps"][0] - 1, scene.peer.ts_recent)})
        expect_ack(scene, "passive")
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}


@both_roles
def test_syn_received_without_ack_is_dropped(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("", payload=b"x")
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


@both_roles
def test_syn_received_data_beyond_the_window_is_answered_with_an_ack(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("A", seq=70_001, payload=b"x")
        expect_ack(scene, role)
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}


def test_syn_received_passive_rst_returns_to_listen() -> None:
    """Second, a passive open: the application is not told, and the port goes on listening."""
    with syn_received() as scene:
        scene.peer.send("R")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.listener is not None
        assert scene.listener.pending == 0
        other = ScriptedPeer(scene.testbed, port=40001)
        other.send("S", options=SYN_OPTIONS)
        other.expect("SA", seq=0, ack=1)


def test_syn_received_active_rst_refuses() -> None:
    with syn_received(role="active") as scene:
        scene.peer.send("R")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        with pytest.raises(ConnectionRefused):
            scene.conn.receive(1, timeout=0)


@both_roles
def test_syn_received_rst_in_window_is_challenged(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("R", seq=11)
        expect_ack(scene, role)
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


@both_roles
def test_syn_received_rst_outside_of_the_window_is_dropped(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("R", seq=70_001)
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


def test_syn_received_passive_repeated_syn_gets_the_same_syn_ack() -> None:
    """The peer has not seen our SYN,ACK: it is sent again, with the same ISS.

    To the letter of section 3.10.7.4, first, the old SYN lies before the window and gets <SEQ=SND.NXT><CTL=ACK>.
    """
    with syn_received() as scene:
        scene.peer.send("S", seq=0, options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1, options={"mss": 1460})
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"


@pytest.mark.parametrize("offset", [500, 1 << 30], ids=["in_window", "outside"])
def test_syn_received_passive_another_syn_is_challenged(offset: int) -> None:
    """Fourth, a passive open: return to LISTEN. We send a challenge ACK first (RFC 5961 section 4.2).

    A peer that has restarted answers it with a RST, and its next SYN opens a new connection. A forged SYN changes
    nothing. The reason is in opening.pyx.
    """
    with syn_received() as scene:
        scene.peer.send("S", seq=offset, options=SYN_OPTIONS)
        answer = scene.peer.expect("A", seq=1, ack=1)
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_syn": 1}
        scene.peer.send("R", seq=(answer.ack - scene.peer.isn) & 0xFFFFFFFF)
        assert scene.state == "CLOSED"
        scene.peer.send("S", seq=offset, options=SYN_OPTIONS)
        scene.peer.expect("SA")


@both_roles
@pytest.mark.parametrize("octets", [1, 6])
def test_syn_received_acceptable_segment_from_before_the_window_establishes(role: str, octets: int) -> None:
    """Table 6 accepts a segment whose last byte lies in the window; only the new part is processed."""
    with syn_received(role=role) as scene:
        scene.peer.send("PA", seq=1 - octets, payload=b"......"[:octets] + b"hello")
        assert scene.state == "ESTABLISHED"
        if role == "passive":
            scene.accept()
        assert scene.read() == b"hello"
        assert scene.testbed.dropped() == {}


def test_syn_received_active_repeated_syn_gets_the_syn_ack_again_at_once() -> None:
    """Simultaneous open: the peer has not seen our SYN,ACK. The answer does not wait for our own timer."""
    with syn_received(role="active") as scene:
        for _ in range(3):
            scene.testbed.advance(600 * MILLISECOND)
            scene.peer.drain()
            scene.peer.send("S", seq=0, options=SYN_OPTIONS)
            scene.peer.expect("SA", seq=0, ack=1, options={"mss": 1460})
            scene.peer.expect_nothing()
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"


def test_syn_received_active_rst_on_the_syns_number_is_ignored() -> None:
    """The number of the peer's SYN lies before the window, so the RST is not acceptable."""
    with syn_received(role="active") as scene:
        scene.peer.send("SR", seq=0)
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"


def test_syn_received_active_syn_in_window_is_challenged() -> None:
    with syn_received(role="active") as scene:
        scene.peer.send("S", seq=1, options=SYN_OPTIONS)
        expect_ack(scene, "active")
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_syn": 1}


@both_roles
def test_syn_received_ack_with_data_establishes_and_delivers(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("PA", payload=b"hello")
        assert scene.state == "ESTABLISHED"
        if role == "passive":
            scene.accept()
        assert scene.read() == b"hello"
        # After the delayed ACK's 40 ms. At once would be allowed, later than 0.5 s not (MUST-40).
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=1, ack=6)


@both_roles
def test_syn_received_fin_reaches_close_wait(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("FA")
        scene.peer.expect("A", seq=1, ack=2)
        assert scene.state == "CLOSE-WAIT"
        if role == "passive":
            scene.accept()
        assert scene.at_eof()


def test_syn_received_out_of_order_data_does_not_break_the_handshake() -> None:
    """The handshake's ACK was lost or overtaken: data beyond RCV.NXT with an acceptable ACK establishes, and is kept.

    SHLD-31 is a SHOULD, so a stack may also drop the early text and have it sent again.
    """
    with syn_received() as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        scene.peer.expect("A", seq=1, ack=1)
        assert scene.state == "ESTABLISHED"
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.peer.expect("A", seq=1, ack=11)
        scene.accept()
        assert scene.read() == b"helloworld"


@both_roles
def test_syn_received_bad_options_are_survived(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("A", options={"raw": b"\x02\x00\x05\xb4"})
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_option": 1}


# ---------------------------------------------------------------- time


@both_roles
def test_syn_received_syn_ack_is_sent_again_with_backoff(role: str) -> None:
    with syn_received(role=role) as scene:
        for seconds in (1, 2, 4):
            scene.peer.expect_after(seconds * SECOND, "SA", seq=0, ack=1, options={"mss": 1460})


def test_syn_received_repeated_syn_ack_has_the_same_options() -> None:
    with syn_received(options=ALL_OPTIONS) as scene:
        scene.peer.expect_after(
            SECOND, "SA", seq=0, ack=1,
            options={"mss": 1460, "sack_permitted": True, "timestamps": lambda v: v is not None,
                     "wscale": lambda v: v is not None},
        )  # fmt: skip


def test_syn_received_passive_record_is_forgotten() -> None:
    """After five repetitions of the SYN,ACK: 1 + 2 + 4 + 8 + 16 + 32 s. MUST-23, three minutes, is about a SYN."""
    with syn_received() as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 600 * SECOND)
        assert took // SECOND == 63
        assert [segment.flags for segment in scene.peer.drain()] == ["SA"] * 5
        assert scene.testbed.stack.leaks()["syns"] == 0


# ---------------------------------------------------------------- the user


def test_syn_received_closing_the_listener_leaves_no_record() -> None:
    with syn_received() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = None
        scene.peer.send("A")
        scene.peer.expect("R", seq=1)
        scene.testbed.advance(600 * SECOND)
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["syns"] == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0


def test_syn_received_active_abort_sends_rst() -> None:
    """Section 3.10.5: ABORT sends <SEQ=SND.NXT><CTL=RST> in SYN-RECEIVED, too. Ours carries the ACK as well."""
    with syn_received(role="active") as scene:
        scene.abort()
        scene.peer.expect("RA", seq=1, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"


def test_syn_received_active_close_sends_fin_when_established() -> None:
    """The close waits for the handshake's ACK, and then sends the FIN.

    Section 3.10.4 lets it wait only for queued data; without any, as here, it would form the FIN in SYN-RECEIVED
    and enter FIN-WAIT-1 at once.
    """
    with syn_received(role="active") as scene:
        scene.shutdown()
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        scene.peer.send("A")
        scene.peer.expect("FA", seq=1, ack=1)
        assert scene.state == "FIN-WAIT-1"


# ---------------------------------------------------------------- ICMP


@both_roles
@pytest.mark.parametrize("code", [0, 1, 2, 3, 13])
def test_syn_received_no_icmp_error_removes_the_record(role: str, code: int) -> None:
    """The peer's SYN has arrived: RFC 5927 section 5.2."""
    with syn_received(role=role) as scene:
        scene.peer.send_icmp_error(3, code, scene.peer.from_stack("SA", seq=0))
        assert scene.testbed.counted()["icmp_soft_errors"] == 1
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"

# SPDX-License-Identifier: MIT
"""SYN-RECEIVED, entered from LISTEN (a mini-record) or by a simultaneous open (a tcb).

RFC 9293 section 3.10.7.4, RFC 5961, and MUST-11: it is remembered which of the two it was.
"""

import pytest

from ustack import ConnectionRefused
from ustack.testing.peer import ScriptedPeer, one_of
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, syn_received
from ustack.testing.testbed import MILLISECOND, SECOND

both_roles = pytest.mark.parametrize("role", ["passive", "active"])


def expect_ack(scene: Scene, role: str) -> None:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>. An active opener may say it with its SYN,ACK, which tells the peer more."""
    answer = scene.peer.expect(one_of("A", "SA") if role == "active" else "A", ack=1)
    assert scene.peer.relative(answer)[0] == ("S" not in answer.flags)


@both_roles
def test_syn_received_acceptable_ack_establishes(role: str) -> None:
    with syn_received(role=role) as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"


@both_roles
@pytest.mark.parametrize("ack", [0, 2, 1000, -1000])
def test_syn_received_unacceptable_ack_is_answered_with_rst(role: str, ack: int) -> None:
    """<SEQ=SEG.ACK><CTL=RST>. A stack may challenge what RFC 5961 section 5 excludes; it does not establish."""
    with syn_received(role=role) as scene:
        sent = scene.peer.send("A", ack=ack)
        answer = scene.peer.expect(lambda flags: flags in ("R", "A"))
        if "R" in answer.flags:
            assert answer.seq == sent.ack
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


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
    """No one is told; the port goes on listening."""
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
        assert sum(scene.testbed.dropped().values()) == 1


def test_syn_received_passive_repeated_syn_gets_the_same_syn_ack() -> None:
    """The peer has not seen our SYN,ACK: it is sent again, with the same ISS; an ACK alone would be legal too."""
    with syn_received() as scene:
        scene.peer.send("S", seq=0, options=SYN_OPTIONS)
        answer = scene.peer.expect(lambda flags: flags in ("SA", "A"), ack=1)
        assert scene.peer.relative(answer)[0] == (answer.flags == "A")
        assert scene.state == "SYN-RECEIVED"
        scene.peer.send("A")
        assert scene.state == "ESTABLISHED"


@pytest.mark.parametrize("offset", [500, 1 << 30], ids=["in_window", "outside"])
def test_syn_received_passive_another_syn_is_challenged(offset: int) -> None:
    """Fourth: passive: return to LISTEN. Here by way of a challenge (RFC 5961 section 4; opening.pyx says why):

    a peer that has restarted says so, and its next SYN is welcome; a blind one changes nothing.
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
    """Table 6 looks at the last octet, too; only the new part is processed."""
    with syn_received(role=role) as scene:
        scene.peer.send("PA", seq=1 - octets, payload=b"......"[:octets] + b"hello")
        assert scene.state == "ESTABLISHED"
        if role == "passive":
            scene.accept()
        assert scene.read() == b"hello"
        assert scene.testbed.dropped() == {}


def test_syn_received_active_repeated_syn_gets_the_syn_ack_again_at_once() -> None:
    """Simultaneous open: the peer has not seen our SYN,ACK. Its next SYN comes a timeout later, so does ours."""
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
    """It lies before the window."""
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
        if not scene.peer.queue:
            scene.peer.wait(SECOND)
        scene.peer.expect("A", seq=1, ack=6)


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
    """The handshake's ACK was lost or overtaken: data beyond RCV.NXT with an acceptable ACK."""
    with syn_received() as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        scene.peer.drain()
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.accept()
        data = scene.read()
        if data == b"hello":
            scene.peer.send("A", seq=6, payload=b"world")
            data += scene.read()
        assert data == b"helloworld"


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
    with syn_received() as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 600 * SECOND)
        assert took >= 3 * SECOND
        assert scene.testbed.stack.leaks()["syns"] == 0


# ---------------------------------------------------------------- the user


def test_syn_received_closing_the_listener_leaves_no_record() -> None:
    with syn_received() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = None
        scene.peer.send("A")
        scene.peer.drain()
        scene.testbed.advance(600 * SECOND)
        assert scene.testbed.stack.leaks()["syns"] == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0


def test_syn_received_active_abort_sends_rst() -> None:
    """Section 3.10.5: SYN-RECEIVED is among the states whose ABORT sends a reset."""
    with syn_received(role="active") as scene:
        scene.abort()
        scene.peer.expect(lambda flags: flags in ("R", "RA"), seq=1)
        assert scene.state == "CLOSED"


def test_syn_received_active_close_sends_fin_when_established() -> None:
    """Section 3.10.4: if data was or was not queued, FIN comes after the handshake, or right away (FIN-WAIT-1)."""
    with syn_received(role="active") as scene:
        scene.shutdown()
        scene.peer.send("A")
        scene.peer.wait(2 * SECOND)
        fins = [segment for segment in scene.peer.drain() if "F" in segment.flags]
        assert fins
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

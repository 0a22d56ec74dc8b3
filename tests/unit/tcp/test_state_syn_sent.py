# SPDX-License-Identifier: MIT
"""SYN-SENT. RFC 9293 section 3.10.7.3, and the calls of 3.10.1 to 3.10.5 in this state."""

import errno

import pytest

from ustack import ConnectionRefused, ConnectionTimeout, StackError, Unreachable
from ustack.testing.states import SYN_OPTIONS, Scene, syn_sent
from ustack.testing.testbed import PEER_ADDRESS, SECOND


def test_syn_sent_syn_carries_the_options() -> None:
    with syn_sent() as scene:
        syn = [f for f in scene.testbed.frames if f[12:14] == b"\x08\x00"][-1]
        assert syn[54:58] == b"\x02\x04\x05\xb4"
        assert scene.state == "SYN-SENT"


def test_syn_sent_syn_ack_establishes() -> None:
    with syn_sent() as scene:
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"
        assert scene.testbed.stack.counters()["connections_opened"] == 1


@pytest.mark.parametrize("ack", [0, 2, -1, 5000], ids=["iss", "beyond", "before", "far"])
@pytest.mark.parametrize("flags", ["A", "SA"])
def test_syn_sent_unacceptable_ack_is_answered_with_rst(ack: int, flags: str) -> None:
    """SEG.ACK =< ISS or SEG.ACK > SND.NXT: <SEQ=SEG.ACK><CTL=RST>."""
    with syn_sent() as scene:
        sent = scene.peer.send(flags, ack=ack)
        assert scene.peer.expect("R").seq == sent.ack
        scene.peer.expect_nothing()
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


@pytest.mark.parametrize("ack", [0, 2, -1])
def test_syn_sent_rst_with_an_unacceptable_ack_is_dropped(ack: int) -> None:
    """First, of the unacceptable ACK: "unless the RST bit is set, if so drop the segment and return"."""
    with syn_sent() as scene:
        scene.peer.send("RA", ack=ack)
        scene.peer.expect_nothing()
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


def test_syn_sent_rst_without_ack_is_dropped() -> None:
    """RFC 5961 section 3.2: acceptable only if the ACK field acknowledges the SYN."""
    with syn_sent() as scene:
        scene.peer.send("R")
        scene.peer.expect_nothing()
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


def test_syn_sent_rst_with_an_acceptable_ack_refuses() -> None:
    with syn_sent() as scene:
        scene.peer.send("RA", ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        with pytest.raises(ConnectionRefused):
            scene.conn.receive(1, timeout=0)


def test_syn_sent_syn_opens_simultaneously() -> None:
    """MUST-10: <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>, SYN-RECEIVED."""
    with syn_sent() as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1, options={"mss": 1460})
        assert scene.state == "SYN-RECEIVED"
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"


def simultaneous(flags: str, payload: bytes) -> Scene:
    """SYN-RECEIVED by a simultaneous open: the peer's SYN has text or a FIN on it, and all is acknowledged."""
    scene = syn_sent()
    scene.peer.send(flags, options=SYN_OPTIONS, payload=payload)
    scene.peer.expect("SA", seq=0, ack=scene.peer.snd_nxt)
    scene.peer.expect_nothing()
    assert scene.state == "SYN-RECEIVED"
    return scene


def test_syn_sent_text_on_a_simultaneous_syn_is_kept_until_established() -> None:
    """Fourth: queue it for processing after the ESTABLISHED state has been reached."""
    with simultaneous("S", b"early") as scene:
        with pytest.raises(BlockingIOError):
            scene.conn.receive(100, timeout=0)
        scene.peer.send("A", payload=b" and late")
        assert scene.state == "ESTABLISHED"
        assert scene.read() == b"early and late"
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", seq=1, ack=15)
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("again", [b"", b"ear", b"early", b"early and late"])
def test_syn_sent_text_on_a_simultaneous_syn_and_then_the_peers_syn_ack(again: bytes) -> None:
    """Figure 7: the other's SYN,ACK establishes. It may carry none, a part or all of the text again, or more."""
    with simultaneous("S", b"early") as scene:
        scene.peer.send("SA", seq=0, options=SYN_OPTIONS, payload=again)
        assert scene.state == "ESTABLISHED"
        assert scene.read() == max(again, b"early")
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("flags", ["SA", "SFA"])
def test_syn_sent_text_and_fin_on_a_simultaneous_syn_and_then_the_peers_syn_ack(flags: str) -> None:
    with simultaneous("SF", b"early") as scene:
        scene.peer.send(flags, seq=0, options=SYN_OPTIONS, payload=b"early" if "F" in flags else b"")
        assert scene.state == "CLOSE-WAIT"
        assert scene.read() == b"early"
        assert scene.testbed.dropped() == {}


def test_syn_sent_repeated_syn_with_text_is_answered_with_the_same_syn_ack() -> None:
    with simultaneous("S", b"early") as scene:
        scene.peer.send("S", seq=0, options=SYN_OPTIONS, payload=b"early")
        scene.peer.expect("SA", seq=0, ack=6)
        scene.peer.send("A")
        assert scene.read() == b"early"


@pytest.mark.parametrize("shut", [False, True])
def test_syn_sent_fin_on_a_simultaneous_syn_ends_the_stream_when_established(shut: bool) -> None:
    """Eighth, SYN-RECEIVED: CLOSE-WAIT; from FIN-WAIT-1, which a CLOSE in SYN-RECEIVED leads to: CLOSING."""
    with simultaneous("SF", b"all of it") as scene:
        with pytest.raises(BlockingIOError):
            scene.conn.receive(100, timeout=0)
        if shut:
            scene.shutdown()
        scene.peer.send("A")
        assert scene.state == ("CLOSING" if shut else "CLOSE-WAIT")
        assert scene.read() == b"all of it"
        assert scene.at_eof()
        scene.testbed.advance(SECOND)
        assert ["F" in segment.flags for segment in scene.peer.drain()] == [True] * shut


def test_syn_sent_text_on_a_simultaneous_syn_that_is_refused_is_given_back() -> None:
    with simultaneous("S", b"early") as scene:
        scene.peer.send("R")
        assert scene.state == "CLOSED"
        assert scene.testbed.stack.leaks()["rx_held_bytes"] == 0
        with pytest.raises(ConnectionRefused):
            scene.conn.receive(100, timeout=0)


def test_syn_sent_simultaneous_open_by_the_rfcs_figure() -> None:
    """RFC 9293 section 3.5, figure 7: the peer's answer is a SYN,ACK with its old sequence number.

    Nothing is sent in return, as in the figure. By the first step of section 3.10.7.4 an ACK could be: all of the
    segment lies before the window.
    """
    with syn_sent() as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1)
        scene.peer.send("SA", seq=0, options=SYN_OPTIONS)
        assert scene.state == "ESTABLISHED"
        scene.peer.expect_nothing()
        scene.peer.send("A", payload=b"after")
        scene.peer.wait(SECOND)
        scene.peer.expect("A", seq=1, ack=6)
        assert scene.read() == b"after"


@pytest.mark.parametrize("flags", ["A", "FA", "PA"])
def test_syn_sent_acceptable_ack_without_syn_is_dropped(flags: str) -> None:
    """Fifth: if neither of the SYN or RST bits is set, then drop the segment and return."""
    with syn_sent() as scene:
        scene.peer.send(flags, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


@pytest.mark.parametrize("flags", ["", "F", "P", "U"])
def test_syn_sent_without_syn_ack_or_rst_is_dropped(flags: str) -> None:
    """Fifth: if neither of the SYN or RST bits is set, then drop the segment and return."""
    with syn_sent() as scene:
        scene.peer.send(flags, payload=b"x")
        scene.peer.expect_nothing()
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


def test_syn_sent_syn_ack_with_data_is_taken_or_sent_again() -> None:
    """Taken: one ACK covers the SYN and the text.

    Section 3.10.7.3, fourth: "If there are other controls or text in the segment, then continue processing at the
    sixth step". It asks for an ACK of the SYN first and allows to leave it out, as here, where the text's ACK follows.
    A stack that keeps no text yet acknowledges the SYN alone, and the text comes again.
    """
    with syn_sent() as scene:
        scene.peer.send("SA", options=SYN_OPTIONS, payload=b"hi")
        scene.peer.expect("A", seq=1, ack=3)
        scene.peer.expect_nothing()
        assert scene.read() == b"hi"


def test_syn_sent_syn_ack_with_fin_reaches_close_wait() -> None:
    """The FIN is taken with the SYN,ACK, and one ACK covers both (the same step as for text, above)."""
    with syn_sent() as scene:
        scene.peer.send("SAF", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=2)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSE-WAIT"


@pytest.mark.parametrize("octets", [b"\x02\x00\x05\xb4", b"\x01\x01\x01\x02"])
def test_syn_sent_syn_ack_with_an_impossible_option_length_is_survived(octets: bytes) -> None:
    with syn_sent() as scene:
        scene.peer.send("SA", options={"raw": octets})
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_tcp_option": 1}


# ---------------------------------------------------------------- time


def test_syn_sent_retransmission_backs_off() -> None:
    """RFC 6298 section 2.1 and 5.5: 1 s, then doubled."""
    with syn_sent() as scene:
        for seconds in (1, 2, 4, 8):
            scene.peer.expect_after(seconds * SECOND, "S", seq=0, options={"mss": 1460})


def test_syn_sent_gives_up_not_before_three_minutes() -> None:
    """MUST-22, MUST-23, MUST-20: R2 is 180 s, the least that is allowed.

    It is compared when the timer expires: 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 s after the first SYN.
    """
    with syn_sent() as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 3600 * SECOND)
        assert took // SECOND == 183
        with pytest.raises(ConnectionTimeout):
            scene.conn.receive(1, timeout=0)
        assert scene.testbed.counted()["connections_timed_out"] == 1


def test_syn_sent_retransmission_takes_no_rtt_sample() -> None:
    """Karn's algorithm (RFC 6298 section 3): the SYN,ACK may answer either SYN, so it measures nothing.

    SRTT stays empty, so that the first measurement is one (2.2); the RTO is the 3 s that rule (5.7) of section 5
    prescribes after a lost SYN.
    """
    with syn_sent() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=1)
        info = scene.info()
        assert (info["srtt_us"], info["rto_ns"]) == (0, 3 * SECOND)


# ---------------------------------------------------------------- ICMP


@pytest.mark.parametrize(
    ("code", "reason", "number"),
    [
        (2, "protocol_unreachable", errno.ENOPROTOOPT),
        (3, "refused", errno.ECONNREFUSED),
        (6, "net_unreachable", errno.ENETUNREACH),
        (7, "host_down", errno.EHOSTDOWN),
        (8, "host_isolated", errno.ENONET),
        (9, "net_prohibited", errno.ENETUNREACH),
        (10, "prohibited", errno.EHOSTUNREACH),
        (13, "prohibited", errno.EHOSTUNREACH),
        (14, "prohibited", errno.EHOSTUNREACH),
        (15, "prohibited", errno.EHOSTUNREACH),
    ],
)
def test_syn_sent_hard_icmp_error_aborts(code: int, reason: str, number: int) -> None:
    """SHLD-26; the errno is that of Linux's icmp_err_convert."""
    with syn_sent() as scene:
        scene.peer.send_icmp_error(3, code, scene.peer.from_stack("S", seq=0))
        assert scene.state == "CLOSED"
        with pytest.raises(StackError) as caught:
            scene.conn.receive(1, timeout=0)
        assert (caught.value.reason, caught.value.errno) == (reason, number)


@pytest.mark.parametrize("seq", [1, 2, -1, 0x4000_0000])
def test_syn_sent_hard_icmp_error_about_another_sequence_number_is_dropped(seq: int) -> None:
    """RFC 5927 section 4.1."""
    with syn_sent() as scene:
        scene.peer.send_icmp_error(3, 3, scene.peer.from_stack("S", seq=seq))
        assert scene.state == "SYN-SENT"
        assert scene.testbed.dropped() == {"drop_icmp_no_connection": 1}


@pytest.mark.parametrize(
    ("kind", "code", "reason", "number"),
    [
        (3, 0, "net_unreachable", errno.ENETUNREACH),
        (3, 1, "host_unreachable", errno.EHOSTUNREACH),
        (3, 5, "source_route_failed", errno.EOPNOTSUPP),
        (3, 11, "net_unreachable", errno.ENETUNREACH),
        (3, 12, "host_unreachable", errno.EHOSTUNREACH),
        (11, 0, "time_exceeded", errno.EHOSTUNREACH),
        (12, 0, "parameter_problem", errno.EPROTO),
    ],
)
def test_syn_sent_soft_icmp_error_is_the_reason_in_the_end(kind: int, code: int, reason: str, number: int) -> None:
    """MUST-56: it does not abort. MUST-47: when R2 is over, it is the reason that the application gets."""
    with syn_sent() as scene:
        scene.peer.send_icmp_error(kind, code, scene.peer.from_stack("S", seq=0))
        assert scene.state == "SYN-SENT"
        scene.testbed.run_until(lambda: scene.state == "CLOSED", 3600 * SECOND)
        with pytest.raises(Unreachable) as caught:
            scene.conn.receive(1, timeout=0)
        assert (caught.value.reason, caught.value.errno) == (reason, number)


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 5), (11, 0), (12, 0)])
def test_syn_sent_soft_icmp_error_does_not_abort(kind: int, code: int) -> None:
    """MUST-56."""
    with syn_sent() as scene:
        scene.peer.send_icmp_error(kind, code, scene.peer.from_stack("S", seq=0))
        assert scene.state == "SYN-SENT"
        scene.peer.expect_after(SECOND, "S", seq=0)


# ---------------------------------------------------------------- the user


def test_syn_sent_send_is_queued_until_established() -> None:
    """Section 3.10.2: queue the data for transmission after entering ESTABLISHED."""
    with syn_sent() as scene:
        scene.send(b"early bird")
        scene.peer.expect_nothing()
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("PA", seq=1, ack=1, payload=b"early bird")
        scene.peer.expect_nothing()


def test_syn_sent_close_deletes_the_connection() -> None:
    """Section 3.10.4: delete the TCB; nothing was established, nothing is sent."""
    with syn_sent() as scene:
        scene.close()
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"


def test_syn_sent_abort_sends_no_rst() -> None:
    """Section 3.10.5: delete the TCB and enter CLOSED."""
    with syn_sent() as scene:
        scene.abort()
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"


@pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1", "0.0.0.0", "198.18.0.255"])
def test_open_to_an_invalid_address_is_rejected(address: str) -> None:
    """MUST-46. How it is said is local: EADDRNOTAVAIL, because the text is an address, only not of one host."""
    with syn_sent() as scene, pytest.raises(StackError) as caught:
        scene.testbed.stack.connect(address, 80, wait=False)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_open_takes_a_different_port_for_each_connection() -> None:
    with syn_sent() as scene:
        opened = [scene.testbed.stack.connect(PEER_ADDRESS, 7777, wait=False) for _ in range(10)]
        scene.testbed.pump()
        assert {connection.state for connection in opened} == {"SYN-SENT"}
        ports = {segment.sport for segment in scene.testbed.strays} | {scene.peer.stack_port}
        assert len(ports) == 11

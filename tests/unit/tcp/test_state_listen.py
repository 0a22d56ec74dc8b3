# SPDX-License-Identifier: MIT
"""LISTEN. RFC 9293 section 3.10.7.2."""

import pytest

from ustack import StackError
from ustack.testing.segment import build_frame
from ustack.testing.states import SYN_OPTIONS, listen
from ustack.testing.testbed import BROADCAST_MAC, PEER_MAC


@pytest.mark.parametrize("flags", ["R", "RA", "SR"])
def test_listen_rst_is_ignored(flags: str) -> None:
    with listen() as scene:
        scene.peer.send(flags)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "PA"])
def test_listen_ack_is_answered_with_rst(flags: str) -> None:
    """Any acknowledgment is bad if it arrives on a connection still in the LISTEN state: <SEQ=SEG.ACK><CTL=RST>."""
    with listen() as scene:
        sent = scene.peer.send(flags, ack=0xFFFFFFF0)
        assert scene.peer.expect("R").seq == sent.ack
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


def test_listen_syn_is_answered_with_syn_ack() -> None:
    with listen() as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1, options={"mss": 1460})
        scene.peer.expect_nothing()
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.dropped() == {}


def test_listen_syn_with_data_acknowledges_the_syn_alone_or_keeps_the_data() -> None:
    """The SYN alone: a half-open record has no room for text, so the peer sends it again after the handshake.

    Third: text "should be queued for processing later". A stack that keeps it acknowledges it with its SYN,ACK (6
    here). Neither delivers it before ESTABLISHED (section 3.5).
    """
    with listen() as scene:
        scene.peer.send("S", options=SYN_OPTIONS, payload=b"early")
        scene.peer.expect("SA", seq=0, ack=1)
        scene.peer.expect_nothing()
        scene.peer.snd_nxt = 1
        scene.peer.send("A", payload=b"early")
        scene.accept()
        assert scene.read() == b"early"


@pytest.mark.parametrize("flags", ["F", "", "P", "U", "FPU"])
def test_listen_neither_syn_nor_ack_is_dropped(flags: str) -> None:
    with listen() as scene:
        scene.peer.send(flags, payload=b"x")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


def test_listen_syn_fin_is_a_syn_and_its_fin_comes_again() -> None:
    """Third: "any other control or text should be queued for processing later". The FIN is not kept, nor acknowledged:
    the peer repeats it after the handshake, like text on a SYN.
    """
    with listen() as scene:
        scene.peer.send("SF", options=SYN_OPTIONS, payload=b"all of it")
        scene.peer.expect("SA", seq=0, ack=1)
        assert scene.testbed.counted()["syn_fin_in"] == 1
        assert scene.testbed.dropped() == {}
        scene.peer.send("FA", seq=1, payload=b"all of it")
        scene.peer.expect("A", seq=1, ack=11)
        scene.accept()
        assert scene.state == "CLOSE-WAIT"
        assert scene.read() == b"all of it"


@pytest.mark.parametrize("octets", [b"\x02\x00\x05\xb4", b"\x02\x01\x05\xb4", b"\x02\x28\x05\xb4", b"\x01\x01\x01\x02"])
def test_listen_syn_with_an_impossible_option_length_is_survived(octets: bytes) -> None:
    """MUST-7."""
    with listen() as scene:
        scene.peer.send("S", options={"raw": octets})
        assert scene.testbed.dropped() == {"drop_tcp_option": 1}
        assert scene.state == "CLOSED"


def test_listen_syn_with_unknown_and_unaligned_options_is_accepted() -> None:
    """MUST-6, MUST-64: skip what is not implemented by its length; no option needs a word boundary."""
    with listen() as scene:
        scene.peer.send("S", options={"nop": 1, "raw": b"\xfe\x05\x12\x34\x56\x22\x02", "mss": 1000})
        scene.peer.expect("SA", seq=0, ack=1)


def test_listen_options_after_eol_are_not_read() -> None:
    with listen() as scene:
        scene.peer.send("S", options={"mss": 1000, "eol": True, "raw": b"\x03\x00\xff"})
        scene.peer.expect("SA", seq=0, ack=1, options={"wscale": None})


def test_listen_two_listeners_on_one_port_is_an_error() -> None:
    with listen() as scene, pytest.raises(StackError):
        scene.testbed.stack.listen(80)


def test_listen_beside_half_open_and_established_connections() -> None:
    """MUST-41, MUST-42: a passive open disturbs no record that exists.

    So the handshake begun at the first listener is completed at the second, on the same port. By section 3.10.4
    CLOSE of a LISTEN deletes its TCB and says nothing of half-open connections: a stack may drop them with it, and
    answer the ACK with a RST.
    """
    with listen() as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", seq=0, ack=1)
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80)
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "ESTABLISHED"
        assert scene.listener.pending == 1


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("ethernet", "drop_not_for_us"),
        ("ip_limited", "drop_tcp_broadcast"),
        ("ip_subnet", "drop_tcp_broadcast"),
        ("ip_multicast", "drop_tcp_broadcast"),
    ],
)
def test_listen_syn_to_broadcast_is_dropped_silently(where: str, reason: str) -> None:
    """MUST-57. "ethernet": our IPv4 address in a broadcast frame (RFC 1122 section 3.3.6)."""
    address = {"ip_limited": "255.255.255.255", "ip_subnet": "198.18.0.255", "ip_multicast": "224.0.0.1"}
    with listen() as scene:
        segment = scene.peer.segment("S", dst=address.get(where, "198.18.0.2"))
        scene.testbed.inject(build_frame(segment, src_mac=PEER_MAC, dst_mac=BROADCAST_MAC))
        scene.peer.expect_nothing()
        assert not scene.testbed.strays
        assert scene.state == "CLOSED"
        assert scene.testbed.dropped() == {reason: 1}


@pytest.mark.parametrize("source", ["255.255.255.255", "224.0.0.1", "198.18.0.255", "0.0.0.0", "127.0.0.1"])
def test_listen_syn_from_an_impossible_source_is_ignored(source: str) -> None:
    """MUST-63."""
    with listen() as scene:
        scene.peer.send("S", src=source)
        scene.peer.expect_nothing()
        assert not scene.testbed.strays
        assert scene.testbed.dropped() == {"drop_ip_source": 1}

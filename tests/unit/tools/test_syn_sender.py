# SPDX-License-Identifier: MIT
"""syn_sender: its frames, read by scapy; sent, received by a packet socket."""

import ipaddress
import os
import socket

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from ustack.tools.syn_sender import SynSender

OURS = bytes.fromhex("020000000001")
THEIRS = bytes.fromhex("020000000002")


def make(target: str = "198.18.0.2", sources: str = "198.18.0.0/24", seed: int = 7, port: int = 80) -> SynSender:
    return SynSender(OURS, THEIRS, target, port, sources, seed)


def frames(sender: SynSender, count: int) -> list[bytes]:
    return [sender.next_frame() for _ in range(count)]


def test_a_frame_is_a_syn_with_the_options_of_a_real_client():
    frame = Ether(make().next_frame())
    assert (frame.src, frame.dst, frame.type) == ("02:00:00:00:00:01", "02:00:00:00:00:02", 0x0800)
    assert (frame[IP].dst, frame[IP].len, frame[IP].ttl, frame[IP].proto) == ("198.18.0.2", 60, 64, 6)
    assert (frame[TCP].dport, frame[TCP].flags, frame[TCP].ack, len(frame[TCP].payload)) == (80, "S", 0, 0)
    assert dict(frame[TCP].options) == {"MSS": 1460, "SAckOK": b"", "Timestamp": (1, 0), "NOP": None, "WScale": 7}


@pytest.mark.parametrize(
    ("target", "sources", "layer"),
    [("198.18.0.2", "198.18.0.0/15", IP), ("198.18.0.2", "198.18.0.0/29", IP), ("2001:2::2", "2001:2::/48", IPv6)],
)
def test_the_checksums_are_what_scapy_computes(target: str, sources: str, layer: type):
    for octets in frames(make(target, sources), 300):
        frame = Ether(octets)
        found = (frame[TCP].chksum, getattr(frame[layer], "chksum", None))
        del frame[TCP].chksum
        if layer is IP:
            del frame[IP].chksum
        again = Ether(bytes(frame))
        assert (again[TCP].chksum, getattr(again[layer], "chksum", None)) == found


def test_sources_are_hosts_of_the_network_and_never_the_target():
    found = {Ether(octets)[IP].src for octets in frames(make(sources="198.18.0.0/29"), 500)}
    assert found == {f"198.18.0.{host}" for host in (1, 3, 4, 5, 6)}


def test_sources_cover_a_large_network():
    found = [ipaddress.ip_address(Ether(octets)[IPv6].src) for octets in frames(make("2001:2::2", "2001:2::/48"), 200)]
    assert len(set(found)) == 200
    assert all(address in ipaddress.ip_network("2001:2::/48") for address in found)


def test_ports_are_never_reserved_ones():
    assert min(Ether(octets)[TCP].sport for octets in frames(make(), 2000)) >= 1024


def test_the_same_seed_gives_the_same_frames():
    assert frames(make(seed=1), 300) == frames(make(seed=1), 300)
    assert frames(make(seed=1), 3) != frames(make(seed=2), 3)


@pytest.mark.parametrize(
    "arguments",
    [
        (OURS[:5], THEIRS, "198.18.0.2", 80, "198.18.0.0/24", 1),
        (OURS, THEIRS + b"x", "198.18.0.2", 80, "198.18.0.0/24", 1),
        (OURS, THEIRS, "198.18.0.2", 80, "2001:2::/48", 1),
        (OURS, THEIRS, "198.18.0.2", 80, "198.18.0.0/30", 1),
        (OURS, THEIRS, "198.18.0.2", 0, "198.18.0.0/24", 1),
        (OURS, THEIRS, "198.18.0.2", 65536, "198.18.0.0/24", 1),
        (OURS, THEIRS, "somewhere", 80, "198.18.0.0/24", 1),
    ],
)
def test_what_cannot_be_sent_is_refused(arguments: tuple[bytes, bytes, str, int, str, int]):
    with pytest.raises(ValueError, match=r"bytes|family|addresses|port|address"):
        SynSender(*arguments)


def test_exactly_as_many_frames_as_wanted_are_sent_whatever_the_batch():
    # Any datagram socket takes the place of a packet socket: one frame is one datagram.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sender = make()
        assert [sender.send(ours.fileno(), count) for count in (1, 0, 3, 130)] == [1, 0, 3, 130]
        received = [theirs.recv(2048) for _ in range(134)]
        assert received == frames(make(), 134)
        assert (sender.sent, sender.refused) == (134, 0)


def test_a_full_device_is_counted_and_the_frames_are_offered_again():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        sender = make()
        went = sender.send(ours.fileno(), 1_000_000)
        assert sender.refused == 1
        received = [theirs.recv(2048) for _ in range(went)]
        assert sender.send(ours.fileno(), 1) == 1
        received.append(theirs.recv(2048))
        assert received == frames(make(), went + 1)


def test_a_closed_descriptor_raises():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        make().send(descriptor, 1)

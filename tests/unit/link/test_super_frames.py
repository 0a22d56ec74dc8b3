# SPDX-License-Identifier: MIT
"""Super-frames against the kernel's TCP, over veth and TAP, for both families: each side segments for nobody."""

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from ustack.lab import namespace
from ustack.lab.links import End, limit_super_frames
from ustack.link.packet_mmap import PacketMmapLink
from ustack.testing.parts.link_driver import LentFrame, LinkDriver

pytestmark = pytest.mark.root

Wire = Any  # the class is in conftest

ADDRESSES = {4: ("198.18.0.2", "198.18.0.1"), 6: ("fd00::2", "fd00::1")}
MSS = {4: 1460, 6: 1440}
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
ISS = 2**32 - 20_000  # our sequence numbers wrap inside the super-frame
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETHTOOL_STSO = 0x1F


class Peer:
    """As much TCP as a connection that the kernel opens to us needs."""

    def __init__(self, wire: Wire, driver: LinkDriver, family: int) -> None:
        self.wire, self.driver, self.family = wire, driver, family
        if family == 6:
            wire.add_ipv6(driver.link)
        self.socket = wire.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        assert self.socket.connect_ex((ADDRESSES[family][0], 80)) == errno.EINPROGRESS
        syn = self.take_tcp()
        header = self.tcp_of(syn)
        self.port, self.seq, self.ack = header.sport, ISS, header.seq + 1
        while True:
            self.send("SA", options=[("MSS", MSS[family]), ("WScale", 7)])
            if "S" not in self.tcp_of(self.take_tcp()).flags:
                break  # else its SYN came again before it had seen our answer
        self.seq += 1
        self.socket.settimeout(10)

    def tcp_of(self, frame: LentFrame) -> Any:
        return Ether(frame.data)[TCP]

    def take_tcp(self) -> LentFrame:
        at = 23 if self.family == 4 else 20
        for frame in iter(lambda: self.driver.wait_frames(1), []):
            if frame[0].data[12:14] == ETHERTYPE[self.family] and frame[0].data[at] == 6:
                return frame[0]
        raise AssertionError("the kernel sent no segment")

    def frame(self, flags: str, payload: bytes = b"", options: Any = ()) -> bytes:
        ours, theirs = ADDRESSES[self.family]
        header = IP(src=ours, dst=theirs) if self.family == 4 else IPv6(src=ours, dst=theirs)
        tcp = TCP(sport=80, dport=self.port, seq=self.seq % 2**32, ack=self.ack % 2**32, flags=flags,
                  window=65535, options=list(options))  # fmt: skip
        return bytes(Ether(src=self.driver.link.mac, dst=self.wire.peer_mac) / header / tcp / payload)

    def send(self, flags: str, options: Any = ()) -> None:
        assert self.driver.send(self.frame(flags, options=options))
        assert self.driver.submit() == 0

    def send_super_frame(self, payload: bytes) -> None:
        frame = bytearray(self.frame("PA", payload))
        start = 34 if self.family == 4 else 54
        struct.pack_into("!H", frame, start + 16, self.pseudo_header_sum(len(frame) - start))
        if self.family == 4:
            struct.pack_into("!H", frame, 24, 0)
            struct.pack_into("!H", frame, 24, ~fold(bytes(frame[14:34])) & 0xFFFF)
        assert self.driver.send(
            bytes(frame), csum_start=start, csum_offset=16, gso_size=MSS[self.family], header_length=start + 20,
            gso_family=self.family,
        )  # fmt: skip
        assert self.driver.submit() == 0

    def pseudo_header_sum(self, length: int) -> int:
        family = socket.AF_INET if self.family == 4 else socket.AF_INET6
        addresses = b"".join(socket.inet_pton(family, address) for address in ADDRESSES[self.family])
        return fold(addresses + struct.pack("!IHH", length, 0, 6))


def fold(octets: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.fixture(params=["veth", "tap"])
def wire(request: pytest.FixtureRequest, make_wire: Callable[[str], Wire]) -> Wire:
    return make_wire(request.param)


def receive_exactly(peer: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        chunk = peer.recv(length - len(got))
        assert chunk, f"the connection ended after {len(got)} bytes"
        got += chunk
    return got


@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_takes_a_super_frame(wire: Wire, family: int) -> None:
    peer = Peer(wire, wire.open(), family)
    payload = bytes(range(256)) * 160
    peer.send_super_frame(payload)
    assert receive_exactly(peer.socket, len(payload)) == payload


@pytest.mark.parametrize("family", [4, 6])
def test_the_largest_super_frame_passes(wire: Wire, family: int) -> None:
    """The kernel may not have room for it, but it answers; nothing gets stuck in the ring."""
    driver = wire.open()
    peer = Peer(wire, driver, family)
    room = driver.link.caps["max_frame"] - (54 if family == 4 else 74)
    peer.send_super_frame(bytes(room))
    peer.take_tcp()
    assert driver.link.counters()["tx_dropped"] == 0
    assert driver.submit() == 0


@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_sends_super_frames(wire: Wire, family: int) -> None:
    """What comes twice is passed over: the kernel repeats what we were too slow to acknowledge (a tail loss probe after
    a few milliseconds, RFC 8985 section 7; a SYN, after which it begins with one segment at a time)."""
    peer = Peer(wire, wire.open(), family)
    payload = bytes(range(256)) * 40
    peer.socket.sendall(payload)
    got = b""
    sizes = []
    while len(got) < len(payload):
        frame = peer.take_tcp()
        assert frame.wire_length == len(frame.data)
        segment = peer.tcp_of(frame)
        data = bytes(segment.payload)
        if len(data) == 0 or segment.seq != peer.ack % 2**32:
            continue
        got += data
        sizes.append((len(data), frame.gso_size, frame.checksum))
        peer.ack += len(data)
        peer.send("A")
    assert got == payload
    large = [size for size in sizes if size[0] > MSS[family]]
    assert large
    assert {(gso_size, checksum) for _, gso_size, checksum in large} == {(MSS[family], "partial")}


def ethtool(wire: Wire, command: int, value: int) -> None:
    """`ethtool -K ours ...`: one feature of our end on or off."""
    with namespace.inside(wire.ours_ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        request = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
        fcntl.ioctl(asker, SIOCETHTOOL, struct.pack("16sP16x", b"ours", ctypes.addressof(request)))


def limit(wire: Wire, what: str, limited: bool) -> None:
    """Take a feature from our end of the wire, or give it back."""
    if what == "tso":
        ethtool(wire, ETHTOOL_STSO, not limited)
    elif what == "tx":
        ethtool(wire, ETHTOOL_STXCSUM, not limited)
        if not limited:
            ethtool(wire, ETHTOOL_STSO, 1)  # it went with the checksums
    else:
        limit_super_frames(End(wire.ours_ns, "ours"), 16000 if limited else 65536)


@pytest.mark.parametrize("what", ["tso", "tx", "gso_ipv4_max_size"])
def test_a_device_that_stops_segmenting_loses_nothing(make_wire: Callable[[str], Wire], what: str) -> None:
    """The first frame that it refuses goes out all the same, segmented by the kernel; and back when it can again."""
    wire = make_wire("veth")
    driver = wire.open()
    link = driver.link
    assert isinstance(link, PacketMmapLink)
    peer = Peer(wire, driver, 4)
    payload = bytes(range(256)) * 160
    for limited, segments in ((False, True), (True, False), (True, False), (False, True), (True, False)):
        limit(wire, what, limited)
        if not limited:
            link.counters()  # once a second somebody asks, or a transmission does
        peer.send_super_frame(payload)
        assert receive_exactly(peer.socket, len(payload)) == payload
        peer.seq += len(payload)
        assert link.device_segments == segments
    assert link.counters()["tx_dropped"] == 0


@pytest.mark.parametrize("limit", ["no tso", "gso_max_size 16000", "gso_max_segs 10"])
def test_what_the_device_cannot_segment_the_kernel_does(make_wire: Callable[[str], Wire], limit: str) -> None:
    """Past the queueing discipline such a device would drop the super-frame."""
    wire = make_wire("veth")
    if limit == "no tso":
        with namespace.inside(wire.ours_ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STSO, 0), 8)
            fcntl.ioctl(asker, SIOCETHTOOL, struct.pack("16sP16x", b"ours", ctypes.addressof(value)))
    else:
        wire.run(f"ip -n {wire.ours_ns} link set dev ours {limit}")
    peer = Peer(wire, wire.open(), 4)
    payload = bytes(range(256)) * 160
    peer.send_super_frame(payload)
    assert receive_exactly(peer.socket, len(payload)) == payload

# SPDX-License-Identifier: MIT
"""How frames are cut into packets, against scapy; and what becomes of checksums that were left to a device."""

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from ustack.bridge.wire import Wire
from ustack.link.memory import MemoryLink

MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
OFFLOADS = ("csum_start", "csum_offset")


def carried(frame: bytes, *, offload: bool, **said: Any) -> tuple[list[tuple[bytes, dict[str, int]]], dict[str, int]]:
    """What leaves a wire without impairments, and its counters. offload: the other link fills in checksums."""
    size = {"mtu": 1500, "max_frame": 65549, "rx_slots": 8, "held_frames": 16384, "tx_slots": 16384}
    with (
        MemoryLink(**size, ring_bytes=1 << 23) as a,
        MemoryLink(**size, ring_bytes=1 << 23, checksum_offload=offload) as b,
        Wire(a, b, memory_bytes=1 << 24) as wire,
    ):
        assert a.inject(frame, **said)
        while wire.turn(0) is not None:
            pass
        return b.take(), wire.counters()["forward"]


def complete(frame: bytes, said: dict[str, int]) -> bytes:
    """Fill in a checksum as a device does (virtio 1.2 section 5.1.6.2): an oracle of its own."""
    if not said["csum_start"]:
        return frame
    start = said["csum_start"]
    summed = frame[start:] + b"\0" * ((len(frame) - start) % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + said["csum_offset"]
    return frame[:at] + struct.pack("!H", (~total & 0xFFFF) or 0xFFFF) + frame[at + 2 :]


def ip(family: int) -> Packet:
    if family == 4:
        return IP(src="10.0.0.1", dst="10.0.0.2", id=0xFFFE, ttl=61, flags="DF", tos=2)
    return IPv6(src="fd00::1", dst="fd00::2", hlim=61, fl=0x12345, tc=2)


def expected(headers: Packet, data: bytes, size: int) -> list[bytes]:
    """The packets that a sender without offload would have sent."""
    cut = []
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for number, piece in enumerate(pieces):
        packet = headers.copy()
        if IP in packet:
            packet[IP].id = (packet[IP].id + number) & 0xFFFF
        if TCP in packet:
            packet[TCP].seq = (packet[TCP].seq + number * size) & 0xFFFFFFFF
            flags = int(packet[TCP].flags)
            flags &= ~0x80 if number else ~0
            flags &= ~0x09 if number < len(pieces) - 1 else ~0
            packet[TCP].flags = flags
        cut.append(bytes(packet / piece))
    return cut


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("length", "flags"),
    [(1, "PA"), (999, "A"), (1000, "FPA"), (1001, "PA"), (2000, "PACE"), (2500, "FPAU"), (64000, "PAC")],
)
def test_tcp_super_frames_become_what_tcp_would_have_sent(offload: bool, family: int, length: int, flags: str) -> None:
    tcp = TCP(sport=80, dport=12345, seq=0xFFFFFF00, ack=7, flags=flags, window=501, options=[("Timestamp", (1, 2))])
    headers = Ether(**MACS) / ip(family) / tcp
    data = bytes(range(256)) * (length // 256 + 1)
    packets, counters = carried(bytes(headers / data[:length]), offload=offload, gso_size=1000, checksum="partial")
    assert [complete(*packet) for packet in packets] == expected(headers, data[:length], 1000)
    assert all(said["csum_start"] for _, said in packets) == offload
    assert (counters["packets"], counters["unreadable"]) == (len(packets), 0)


@pytest.mark.parametrize("family", [4, 6])
def test_udp_is_cut_into_datagrams(family: int) -> None:
    headers = Ether(**MACS) / ip(family) / UDP(sport=53, dport=99)
    packets, _ = carried(bytes(headers / (b"q" * 2500)), offload=False, gso_size=1200, checksum="partial")
    assert [data for data, _ in packets] == expected(headers, b"q" * 2500, 1200)


@pytest.mark.parametrize(
    "between",
    [Dot1Q(vlan=9, prio=3), Dot1AD(vlan=8) / Dot1Q(vlan=9)],
    ids=["tag", "two tags"],
)
def test_a_tag_in_the_frame_is_repeated(between: Packet) -> None:
    headers = Ether(**MACS) / between / ip(4) / TCP(seq=1)
    packets, _ = carried(bytes(headers / (b"q" * 2500)), offload=False, gso_size=1000)
    assert [data for data, _ in packets] == expected(headers, b"q" * 2500, 1000)


@pytest.mark.parametrize("gso_size", [0, 1000])
def test_a_tag_that_the_device_took_out_comes_back(gso_size: int) -> None:
    untagged = Ether(**MACS) / ip(4) / TCP(seq=1)
    tagged = Ether(**MACS) / Dot1Q(vlan=9) / ip(4) / TCP(seq=1)
    data = b"q" * (2500 if gso_size else 900)
    packets, _ = carried(bytes(untagged / data), offload=True, gso_size=gso_size, checksum="partial", vlan_id=9)
    found = [complete(*packet) for packet in packets]
    if gso_size:
        assert found == expected(tagged, data, 1000)
    else:
        # What a partial checksum's field holds is the sender's: it is complete() that is asked where to.
        assert [said["csum_start"] for _, said in packets] == [14 + 4 + 20]
        assert [data[:38] for data in found] == [bytes(tagged / data)[:38]]


def test_extension_headers_are_walked() -> None:
    headers = Ether(**MACS) / ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(seq=1)
    packets, _ = carried(bytes(headers / (b"q" * 2500)), offload=False, gso_size=1000)
    assert [data for data, _ in packets] == expected(headers, b"q" * 2500, 1000)


def partial(packet: Packet) -> bytes:
    """A frame whose TCP or UDP checksum field holds the pseudo-header's sum, as a local sender leaves it."""
    whole = bytes(packet)
    family, start = (4, 34) if whole[12:14] == b"\x08\x00" else (6, 54)
    protocol = 6 if TCP in packet else 17
    addresses = whole[26:34] if family == 4 else whole[22:54]
    pseudo = addresses + struct.pack("!II", len(whole) - start, protocol)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + (16 if protocol == 6 else 6)
    return whole[:at] + struct.pack("!H", total) + whole[at + 2 :]


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", [TCP(seq=1), UDP(dport=9)], ids=["tcp", "udp"])
def test_a_partial_checksum_is_completed_here_or_by_the_next_device(
    offload: bool, family: int, transport: Packet
) -> None:
    packet = Ether(**MACS) / ip(family) / transport / b"odd"
    ((data, said),), _ = carried(partial(packet), offload=offload, checksum="partial")
    assert complete(data, said) == bytes(packet)
    assert bool(said["csum_start"]) == offload


@pytest.mark.parametrize("checksum", ["unknown", "verified"])
def test_a_complete_frame_is_not_touched(checksum: str) -> None:
    frame = bytes(Ether(**MACS) / ip(4) / TCP(seq=1, chksum=0xBEEF) / b"data")
    ((data, said),), _ = carried(frame, offload=True, checksum=checksum)
    assert (data, set(said.values())) == (frame, {0})


def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() -> None:
    plain = Ether(**MACS) / ip(4) / UDP(sport=1, dport=2) / b"\0\0"
    word = bytes(plain)[40:42]  # the checksum itself, as data: then everything sums up to all ones
    ((data, _),), _ = carried(partial(plain)[:-2] + word, offload=False, checksum="partial")
    assert data[40:42] == b"\xff\xff"


# ---------------------------------------------------------------- what cannot be
SUPER = bytes(Ether(**MACS) / ip(4) / TCP(seq=1) / (b"q" * 2500))


def changed(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (SUPER[:13], {}),
        (b"", {}),
        (SUPER, {"wire_length": len(SUPER) + 1}),
        (SUPER, {"gso_size": 7}),
        (SUPER[:54], {"gso_size": 1000}),
        (SUPER[:33], {"gso_size": 1000}),
        (changed(SUPER, 16, struct.pack("!H", len(SUPER))), {"gso_size": 1000}),
        (changed(SUPER, 16, struct.pack("!H", 40)), {"gso_size": 1000}),
        (changed(SUPER, 14, b"\x4f")[:73], {"gso_size": 1000, "checksum": "partial"}),
        (changed(SUPER, 14, b"\x44"), {"gso_size": 1000}),
        (changed(SUPER, 20, b"\x20\x00"), {"gso_size": 1000}),
        (changed(SUPER, 20, b"\x00\x01"), {"checksum": "partial"}),
        (changed(SUPER, 46, b"\x40"), {"gso_size": 1000}),
        (changed(SUPER, 23, b"\x84"), {"checksum": "partial"}),
        (changed(SUPER, 12, b"\x08\x06"), {"gso_size": 1000}),
        (bytes(Ether(**MACS) / ip(6))[:50], {"checksum": "partial"}),
        (bytes(Ether(**MACS, type=0x86DD)) + b"\x60" + bytes(39), {"checksum": "partial"}),
    ],
)
def test_what_no_device_can_mean_is_dropped_and_counted(frame: bytes, said: dict[str, Any]) -> None:
    packets, counters = carried(frame, offload=True, **said)
    assert packets == []
    assert (counters["frames"], counters["unreadable"], counters["packets"]) == (1, 1, 0)


def test_padding_behind_a_super_frame_is_left_out() -> None:
    packets, _ = carried(SUPER + b"padding", offload=False, gso_size=1000)
    assert [data for data, _ in packets] == expected(Ether(**MACS) / ip(4) / TCP(seq=1), b"q" * 2500, 1000)


@pytest.mark.parametrize(
    "frame",
    [
        bytes(Ether(**MACS, type=0x88B5) / b"anything"),
        bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", frag=5) / b"a fragment"),
        bytes(Ether(**MACS, type=0x0800) / b"\x45"),
        bytes(Ether(**MACS) / Dot1Q(vlan=3))[:15],
        bytes(Ether(**MACS, type=0x8100)),
    ],
)
def test_what_is_not_tcp_passes_as_it_is(frame: bytes) -> None:
    ((data, said),), _ = carried(frame, offload=True)
    assert (data, set(said.values())) == (frame, {0})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cut=st.integers(0, len(SUPER)),
    edits=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6),
    gso_size=st.sampled_from([0, 8, 9, 1000, 1448, 65535]),
    checksum=st.sampled_from(["unknown", "partial", "verified"]),
    vlan_id=st.sampled_from([0, 5]),
    family=st.sampled_from([4, 6]),
    offload=st.booleans(),
)
def test_any_frame_is_carried_or_counted(
    cut: int,
    edits: list[tuple[int, int]],
    gso_size: int,
    checksum: str,
    vlan_id: int,
    family: int,
    offload: bool,
) -> None:
    frame = bytearray(SUPER if family == 4 else bytes(Ether(**MACS) / ip(6) / TCP() / (b"q" * 2500)))[:cut]
    for at, value in edits:
        if at < len(frame):
            frame[at] = value
    packets, counters = carried(bytes(frame), offload=offload, gso_size=gso_size, checksum=checksum, vlan_id=vlan_id)
    assert counters["unreadable"] + (counters["packets"] > 0) == 1
    assert counters["packets"] == len(packets) + counters["too_long"]
    for data, said in packets:
        assert said["gso_size"] == 0
        assert not said["csum_start"] or said["csum_start"] + said["csum_offset"] + 2 <= len(data)

# SPDX-License-Identifier: MIT
"""What goes out: headers and checksums against scapy, offloads, routes, the neighbour hint."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import checksum

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
US, PEER = "198.18.0.2", "198.18.0.1"
SEGMENT = bytes(TCP(sport=80, dport=40000, seq=0xFFFFFFF0))


def learn(ip: IpLayer, address: str = PEER, mac: str = PEER_MAC) -> None:
    """Make `address` reachable; the link is left empty."""
    ip.send(address, 6, SEGMENT, 16)
    ip.input(bytes(Ether(src=mac, dst=US_MAC) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=US_MAC, pdst=US)))
    assert isinstance(ip.link, MemoryLink)
    ip.link.take()


def make(link: MemoryLink, **config: Any) -> IpLayer:
    ip = IpLayer(link, f"{US}/24", **config)
    learn(ip)
    return ip


def transport(protocol: int, payload: bytes) -> Any:
    return TCP(sport=80, dport=40000, seq=0xFFFFFFF0) / payload if protocol == 6 else UDP(sport=80) / payload


def complete(octets: bytes, offload: dict[str, int]) -> bytes:
    """What a device does with csum_start and csum_offset."""
    start, field = offload["csum_start"], offload["csum_start"] + offload["csum_offset"]
    value = checksum(octets[start:])
    return octets[:field] + value.to_bytes(2, "big") + octets[field + 2 :]


# ---------------------------------------------------------------- against scapy
@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([6, 17]),
    st.binary(max_size=300),
    st.integers(0, 255),
    st.integers(1, 255),
    st.booleans(),
)
def test_scapy_emits_what_we_emit(protocol: int, payload: bytes, tos: int, ttl: int, offloaded: bool) -> None:
    link = MemoryLink(checksum_offload=offloaded)
    ip = make(link)
    segment = transport(protocol, payload)
    field = 16 if protocol == 6 else 6
    dirty = bytearray(bytes(segment))
    dirty[field : field + 2] = b"\xa5\x5a"
    assert ip.send(PEER, protocol, bytes(dirty), field, tos=tos, ttl=ttl, hint=ip.hint) == "ok"
    [(octets, offload)] = link.take()
    oracle = IP(src=US, dst=PEER, tos=tos, ttl=ttl, flags="DF", id=0) / segment
    if offloaded:
        assert (offload["csum_start"], offload["csum_offset"], offload["gso_size"]) == (34, field, 0)
        octets = complete(octets, offload)
    else:
        assert not any(offload.values())
    assert octets == bytes(Ether(dst=PEER_MAC, src=US_MAC) / oracle)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=300), st.booleans())
def test_a_packet_that_waited_is_the_same(payload: bytes, offloaded: bool) -> None:
    direct, waited = MemoryLink(checksum_offload=offloaded), MemoryLink(checksum_offload=offloaded)
    segment = SEGMENT + payload
    make(direct).send(PEER, 6, segment, 16)
    late = IpLayer(waited, f"{US}/24")
    late.send("198.18.0.77", 6, segment, 16)
    late.send(PEER, 6, segment, 16)
    waited.take()
    late.input(bytes(Ether(src=PEER_MAC, dst=US_MAC) / ARP(op=2, hwsrc=PEER_MAC, psrc=PEER, pdst=US)))
    assert waited.take() == direct.take()


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    link = MemoryLink()
    ip = make(link)
    pseudo = bytes(IP(src=US, dst=PEER))[12:20] + b"\0\x11\0\x08"
    sport = checksum(pseudo + bytes(UDP(sport=0, dport=40000, len=8, chksum=0)))
    datagram = bytes(UDP(sport=sport, dport=40000, len=8, chksum=0))
    assert checksum(pseudo + datagram) == 0
    ip.send(PEER, 17, datagram, 6)
    [(octets, _)] = link.take()
    assert octets[40:42] == b"\xff\xff"


def test_a_packet_may_be_shorter_than_its_reservation() -> None:
    link = MemoryLink()
    ip = make(link)
    ip.send(PEER, 6, SEGMENT, 16, reserve=1480)
    [(octets, _)] = link.take()
    assert len(octets) == 54
    assert Ether(octets)[IP].len == 40


# ---------------------------------------------------------------- offloads
def test_the_pseudo_header_sum_is_not_complemented() -> None:
    link = MemoryLink(checksum_offload=True)
    ip = make(link)
    ip.send(PEER, 6, SEGMENT, 16)
    [(octets, _)] = link.take()
    pseudo = bytes(IP(src=US, dst=PEER))[12:20] + b"\0\x06" + len(SEGMENT).to_bytes(2, "big")
    assert octets[50:52] == (0xFFFF ^ checksum(pseudo)).to_bytes(2, "big")


@pytest.mark.parametrize("size", [1449, 2896, 2897, 60000])
def test_a_super_frame(size: int) -> None:
    link = MemoryLink(checksum_offload=True, segmentation_offload=True)
    ip = make(link)
    payload = SEGMENT[:12] + b"\x80" + SEGMENT[13:] + bytes(12) + bytes(size)
    ip.send(PEER, 6, payload, 16, gso_size=1448, header_length=32)
    [(octets, offload)] = link.take()
    assert offload == {
        "csum_start": 34,
        "csum_offset": 16,
        "gso_size": 1448,
        "header_length": 66,
        "gso_family": 4,
    }
    assert Ether(octets)[IP].len == 20 + len(payload)
    pseudo = bytes(IP(src=US, dst=PEER))[12:20] + b"\0\x06" + len(payload).to_bytes(2, "big")
    assert octets[50:52] == (0xFFFF ^ checksum(pseudo)).to_bytes(2, "big")


def test_an_outsider_learns_nothing_from_identifications() -> None:
    """RFC 6864 section 4.1: where DF is set any value will do, and ours is the same for everybody, however much goes to
    others."""
    link = MemoryLink(checksum_offload=True, segmentation_offload=True)
    ip = make(link)
    ip.input(bytes(Ether(src=PEER_MAC, dst=US_MAC) / ARP(op=2, hwsrc=PEER_MAC, psrc="198.18.0.77", pdst=US)))
    ping = bytes(Ether(src=PEER_MAC, dst=US_MAC) / IP(src="198.18.0.77", dst=US) / ICMP())
    no_such = bytes(Ether(src=PEER_MAC, dst=US_MAC) / IP(src="198.18.0.77", dst=US, proto=99) / b"12345678")
    link.take()
    seen = []
    for count in (0, 1, 5, 300):
        for _ in range(count):
            ip.send(PEER, 6, SEGMENT + bytes(4000), 16, gso_size=1460)
        ip.input(ping)
        ip.input(no_such)
        ip.send("198.18.0.77", 6, SEGMENT, 16)
        packets = [frame[IP] for frame in (Ether(octets) for octets, _ in link.take()) if IP in frame]
        seen += [(packet.id, bool(packet.flags.DF)) for packet in packets]
        assert [packet.dst for packet in packets[count:]] == ["198.18.0.77"] * 3
    assert set(seen) == {(0, True)}


def test_a_datagram_that_may_be_fragmented_has_the_identification_of_its_transport() -> None:
    link = MemoryLink()
    ip = make(link)
    ip.send(PEER, 6, SEGMENT, 16, identification=0xBEEF)
    ip.send(PEER, 6, SEGMENT, 16)
    first, second = (Ether(octets)[IP] for octets, _ in link.take())
    assert (first.id, first.flags.DF, first.frag) == (0xBEEF, False, 0)
    assert (second.id, second.flags.DF) == (0, True)


@pytest.mark.parametrize(
    ("link", "mtu", "largest"),
    [
        (MemoryLink(mtu=1500), 1480, 1480),
        (MemoryLink(mtu=9000), 8980, 8980),
        (MemoryLink(mtu=65535), 65515, 65515),
        (MemoryLink(mtu=100000), 65515, 65515),
        (MemoryLink(checksum_offload=True), 1480, 1480),
        (MemoryLink(segmentation_offload=True), 1480, 65515),
        (MemoryLink(segmentation_offload=True, max_frame=32014), 1480, 31980),
        (MemoryLink(segmentation_offload=True, max_frame=1 << 20), 1480, 65515),
    ],
)
def test_how_much_fits(link: MemoryLink, mtu: int, largest: int) -> None:
    ip = IpLayer(link, f"{US}/24")
    assert (ip.payload_mtu, ip.payload_max) == (mtu, largest)


def test_the_largest_packets_go_out() -> None:
    link = MemoryLink(checksum_offload=True, segmentation_offload=True)
    ip = make(link)
    ip.send(PEER, 6, SEGMENT + bytes(65515 - 20), 16, gso_size=1460)
    [(octets, _)] = link.take()
    assert (len(octets), octets[16:18]) == (65549, b"\xff\xff")


# ---------------------------------------------------------------- routes
def test_another_network_goes_by_the_gateway() -> None:
    link = MemoryLink()
    ip = IpLayer(link, f"{US}/24", gateway=PEER)
    learn(ip)
    ip.send("203.0.113.9", 6, SEGMENT, 16)
    [(octets, _)] = link.take()
    frame = Ether(octets)
    assert (frame.dst, frame[IP].dst) == (PEER_MAC, "203.0.113.9")


def test_a_gateway_may_lie_outside_of_the_prefix() -> None:
    link = MemoryLink()
    ip = IpLayer(link, "203.0.113.5/32", gateway="198.18.0.1")
    ip.send("192.0.2.1", 6, SEGMENT, 16)
    assert Ether(link.take()[0][0])[ARP].pdst == "198.18.0.1"


def test_without_a_gateway_there_is_no_route() -> None:
    link = MemoryLink()
    ip = make(link)
    assert ip.send("203.0.113.9", 6, SEGMENT, 16) == "no_route"
    assert ip.counters()["drop_no_route"] == 1
    assert link.take() == []


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.255", US])
def test_what_is_no_host_gets_no_packet(address: str) -> None:
    link = MemoryLink()
    ip = IpLayer(link, f"{US}/24", gateway=PEER)
    assert ip.send(address, 6, SEGMENT, 16) == "no_route"
    assert ip.counters() == {"drop_no_route": 1}
    assert ip.neighbours() == {}


def test_neighbours_past_the_end_of_the_prefix_are_asked_of_the_gateway() -> None:
    link = MemoryLink()
    ip = IpLayer(link, "198.18.0.2/30", gateway="198.18.0.1")
    ip.send("198.18.0.4", 6, SEGMENT, 16)
    assert Ether(link.take()[0][0])[ARP].pdst == "198.18.0.1"


# ---------------------------------------------------------------- the hint and the ring
@pytest.mark.parametrize("hint", [0, 1, 2, 3, 1024, 1025, 1030, 65535])
def test_any_hint_leads_to_the_right_neighbour(hint: int) -> None:
    link = MemoryLink()
    ip = make(link)
    learn(ip, "198.18.0.7", "02:00:00:00:00:07")
    ip.send(PEER, 6, SEGMENT, 16, hint=hint)
    right = ip.hint
    ip.send("198.18.0.7", 6, SEGMENT, 16, hint=hint)
    assert [Ether(octets).dst for octets, _ in link.take()] == [PEER_MAC, "02:00:00:00:00:07"]
    assert 0 < right != ip.hint > 0


def test_a_full_ring_is_counted_and_nothing_is_lost() -> None:
    link = MemoryLink(held_frames=1)
    ip = IpLayer(link, f"{US}/24")
    learn(ip)
    assert ip.send(PEER, 6, SEGMENT, 16) == "ok"
    assert ip.send(PEER, 6, SEGMENT, 16) == "ring_full"
    assert ip.counters()["tx_ring_full"] == 2  # learn() left its segment waiting behind the question
    link.take()
    assert ip.send(PEER, 6, SEGMENT, 16) == "ok"

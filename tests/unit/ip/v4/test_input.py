# SPDX-License-Identifier: MIT
"""Every check of Ethernet and IPv4 input, each by its counter."""

import struct
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.l2 import ARP, Ether

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
US, PEER = "198.18.0.2", "198.18.0.1"
ISS = 0xFFFFFFF0


@pytest.fixture
def ip() -> IpLayer:
    return IpLayer(MemoryLink(), f"{US}/24")


def frame(*, ether: dict[str, Any] | None = None, payload: Any = None, **header: Any) -> bytes:
    segment = TCP(sport=40000, dport=80, seq=ISS, flags="S") if payload is None else payload
    return bytes(
        Ether(**{"src": PEER_MAC, "dst": US_MAC, **(ether or {})}) / IP(**{"src": PEER, "dst": US, **header}) / segment
    )


def drops(ip: IpLayer) -> dict[str, int]:
    return {name: value for name, value in ip.counters().items() if name.startswith("drop_")}


def assert_dropped(ip: IpLayer, octets: bytes, reason: str, **view: Any) -> None:
    assert ip.input(octets, **view) == ("consumed", {})
    assert drops(ip) == {reason: 1}
    assert isinstance(ip.link, MemoryLink)
    assert ip.link.take() == []


# ---------------------------------------------------------------- what is taken
def test_a_segment_is_handed_up(ip: IpLayer) -> None:
    segment = TCP(sport=40000, dport=80, seq=ISS, flags="S") / b"data"
    octets = frame(payload=segment, tos=0x1C, ttl=7)
    assert ip.input(octets, checksum="partial", gso_size=1448) == (
        "tcp",
        {
            "src": PEER,
            "dst": US,
            "payload": octets[34:],
            "gso_size": 1448,
            "checksum": 2,
            "tos": 0x1C,
            "ttl": 7,
            "broadcast": 0,
            "icmp_type": 0,
            "icmp_code": 0,
            "icmp_mtu": 0,
        },
    )
    assert ip.counters() == {"frames_in": 1, "bytes_in": len(octets)}


def test_padding_is_not_payload(ip: IpLayer) -> None:
    octets = frame()
    assert ip.input(octets + b"\xaa" * 6)[1]["payload"] == octets[34:]


def test_options_are_skipped(ip: IpLayer) -> None:
    octets = frame(options=[IPOption(b"\x94\x04\x00\x00"), IPOption(b"\x01")])
    verdict, packet = ip.input(octets)
    assert verdict == "tcp"
    assert packet["payload"] == octets[14 + 28 :]


def test_a_ttl_of_zero_is_no_matter_for_the_destination(ip: IpLayer) -> None:
    assert ip.input(frame(ttl=0))[0] == "tcp"


def test_dont_fragment_and_the_reserved_bit_are_no_fragment(ip: IpLayer) -> None:
    assert ip.input(frame(flags="DF"))[0] == "tcp"
    assert ip.input(frame(flags=4))[0] == "tcp"


def test_a_super_frame_is_one_packet(ip: IpLayer) -> None:
    octets = frame(payload=TCP(seq=ISS) / bytes(60000))
    verdict, packet = ip.input(octets, checksum="partial", gso_size=1448)
    assert (verdict, packet["payload"]) == ("tcp", octets[34:])


@pytest.mark.parametrize("destination", ["198.18.0.255", "255.255.255.255", "224.0.0.1"])
@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", US_MAC])
def test_a_broadcast_is_marked(ip: IpLayer, destination: str, mac: str) -> None:
    verdict, packet = ip.input(frame(ether={"dst": mac}, dst=destination))
    assert (verdict, packet["broadcast"]) == ("tcp", 1)


# ---------------------------------------------------------------- Ethernet
@pytest.mark.parametrize("length", range(14))
def test_a_runt_is_dropped(ip: IpLayer, length: int) -> None:
    assert_dropped(ip, frame()[:length], "drop_frame_truncated")


def test_a_frame_cut_by_its_slot_is_dropped(ip: IpLayer) -> None:
    octets = frame()
    assert_dropped(ip, octets, "drop_frame_truncated", wire_length=len(octets) + 1)


def test_another_stations_frame_is_dropped(ip: IpLayer) -> None:
    assert_dropped(ip, frame(ether={"dst": "02:00:00:00:00:03"}), "drop_not_for_us")


@pytest.mark.parametrize("ethertype", [0x0000, 0x0026, 0x05DC, 0x0801, 0x86DD, 0xFFFF])
def test_an_unknown_ethertype_is_dropped(ip: IpLayer, ethertype: int) -> None:
    assert_dropped(ip, frame(ether={"type": ethertype}), "drop_ethertype_unknown")


def tagged(*tags: tuple[int, int]) -> bytes:
    """The ordinary frame with (EtherType, priority and VID) in front of its packet."""
    plain = frame()
    return plain[:12] + b"".join(struct.pack("!HH", *tag) for tag in tags) + plain[12:]


@pytest.mark.parametrize("tci", [0x0000, 0x1000, 0xE000, 0xF000])
@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8])
def test_a_priority_tag_does_not_change_the_network(ip: IpLayer, ethertype: int, tci: int) -> None:
    """IEEE 802.1Q clause 6.7.1: VID 0 says that the tag carries a priority alone."""
    plain = ip.input(frame())
    assert plain[0] == "tcp"
    assert ip.input(tagged((ethertype, tci))) == plain
    assert ip.input(tagged((0x88A8, 0), (ethertype, tci))) == plain


@pytest.mark.parametrize("tci", [0x0001, 0x0FFF, 0xE005])
@pytest.mark.parametrize("ethertype", [0x8100, 0x88A8])
def test_another_vlans_frame_is_dropped(ip: IpLayer, ethertype: int, tci: int) -> None:
    assert ip.input(tagged((ethertype, tci))) == ("consumed", {})
    assert ip.input(tagged((ethertype, 0), (ethertype, tci))) == ("consumed", {})
    assert drops(ip) == {"drop_vlan": 2}


def test_another_vlans_frame_is_dropped_when_the_medium_took_the_tag_out(ip: IpLayer) -> None:
    assert_dropped(ip, frame(), "drop_vlan", vlan_id=5)


@pytest.mark.parametrize("length", range(14, 18))
def test_a_cut_tag_is_dropped(ip: IpLayer, length: int) -> None:
    assert_dropped(ip, tagged((0x8100, 0))[:length], "drop_frame_truncated")


def test_a_pile_of_tags_is_dropped(ip: IpLayer) -> None:
    assert_dropped(ip, tagged(*[(0x8100, 0)] * 3), "drop_ethertype_unknown")


def test_a_priority_tagged_arp_request_is_answered(ip: IpLayer) -> None:
    request = bytes(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=US))
    ip.input(request[:12] + b"\x81\x00\xe0\x00" + request[12:])
    assert isinstance(ip.link, MemoryLink)
    assert len(ip.link.take()) == 1


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "03:00:00:00:00:02"])
def test_a_unicast_packet_in_a_group_frame_is_dropped(ip: IpLayer, mac: str) -> None:
    assert_dropped(ip, frame(ether={"dst": mac}), "drop_not_for_us")  # RFC 1122 section 3.3.6


# ---------------------------------------------------------------- IPv4, in the order of RFC 1122 section 3.2.1
@pytest.mark.parametrize("length", range(14, 34))
def test_less_than_a_header_is_dropped(ip: IpLayer, length: int) -> None:
    assert_dropped(ip, frame()[:length], "drop_ip_truncated")


@pytest.mark.parametrize("version", [0, 5, 6, 15])
def test_another_version_is_dropped(ip: IpLayer, version: int) -> None:
    assert_dropped(ip, frame(version=version), "drop_ip_version")


@pytest.mark.parametrize("words", range(5))
def test_a_short_header_is_dropped(ip: IpLayer, words: int) -> None:
    assert_dropped(ip, frame(ihl=words), "drop_ip_header_length")


@pytest.mark.parametrize("total", [0, 19, 41, 65535])
def test_a_total_length_that_cannot_be_is_dropped(ip: IpLayer, total: int) -> None:
    assert_dropped(ip, frame(len=total), "drop_ip_total_length")


def test_a_wrong_checksum_is_dropped(ip: IpLayer) -> None:
    assert_dropped(ip, frame(chksum=0x1234), "drop_ip_checksum")


def test_a_devices_word_about_the_transport_does_not_cover_the_header(ip: IpLayer) -> None:
    assert_dropped(ip, frame(chksum=0x1234), "drop_ip_checksum", checksum="verified")


@pytest.mark.parametrize(
    "source",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "198.18.0.255",
        US,
    ],
)
def test_a_source_that_no_host_has_is_dropped(ip: IpLayer, source: str) -> None:
    assert_dropped(ip, frame(src=source), "drop_ip_source")


@pytest.mark.parametrize(
    "destination", ["198.18.0.3", "198.18.1.255", "224.0.0.2", "239.1.1.1", "127.0.0.1", "0.0.0.0"]
)
def test_another_hosts_packet_is_dropped(ip: IpLayer, destination: str) -> None:
    assert_dropped(ip, frame(dst=destination), "drop_not_for_us")


@pytest.mark.parametrize("prefix_length", [31, 32])
def test_a_link_of_two_has_no_broadcast_address(prefix_length: int) -> None:
    ip = IpLayer(MemoryLink(), f"{US}/{prefix_length}")
    assert ip.input(frame(src="198.18.0.3"))[0] == "tcp"
    assert ip.input(frame(dst="198.18.0.3"))[0] == "consumed"
    assert drops(ip) == {"drop_not_for_us": 1}


@pytest.mark.parametrize(
    "options", [b"\x94\x00\x01\x01", b"\x94\x05\x01\x01", b"\x01\x01\x01\x94", b"\x83\x03\x04\x00"]
)
def test_a_malformed_option_or_a_source_route_is_dropped(ip: IpLayer, options: bytes) -> None:
    assert_dropped(ip, frame(options=[IPOption(options)]), "drop_ip_option")


@pytest.mark.parametrize("fields", [{"flags": "MF"}, {"frag": 1}, {"frag": 0x1FFF}, {"flags": "MF", "frag": 185}])
def test_a_fragment_is_dropped(ip: IpLayer, fields: dict[str, Any]) -> None:
    assert_dropped(ip, frame(**fields), "drop_ip_fragment")


def test_the_first_fault_in_order_is_the_one_counted(ip: IpLayer) -> None:
    assert_dropped(ip, frame(src="127.0.0.1", dst="198.18.0.9", flags="MF"), "drop_ip_source")


# ---------------------------------------------------------------- transports
@pytest.mark.parametrize("payload", [UDP(dport=53), b"IGMP", ICMP()])
def test_nothing_is_answered_to_a_broadcast(ip: IpLayer, payload: Any) -> None:
    octets = frame(ether={"dst": "ff:ff:ff:ff:ff:ff"}, dst="198.18.0.255", payload=payload)
    reason = "drop_icmp_type" if isinstance(payload, ICMP) else "drop_ip_protocol"
    if payload == b"IGMP":
        octets = frame(ether={"dst": "ff:ff:ff:ff:ff:ff"}, dst="198.18.0.255", payload=payload, proto=2)
    assert_dropped(ip, octets, reason)

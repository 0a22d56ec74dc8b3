# SPDX-License-Identifier: MIT
"""Echo, errors in, errors out."""

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror
from scapy.layers.l2 import ARP, Ether

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
US, PEER = "198.18.0.2", "198.18.0.1"
SEGMENT = TCP(sport=80, dport=40000, seq=0xFFFFFFF0, ack=0xFFFFFFFF)
MS = 1_000_000


@pytest.fixture
def link() -> MemoryLink:
    return MemoryLink()


@pytest.fixture
def ip(link: MemoryLink) -> IpLayer:
    """A layer that has the peer's station address."""
    ip = IpLayer(link, f"{US}/24", gateway=PEER)
    ip.input(bytes(Ether(src=PEER_MAC, dst=US_MAC) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=US)))
    ip.send(PEER, 6, bytes(20), 16)
    ip.input(bytes(Ether(src=PEER_MAC, dst=US_MAC) / ARP(op=2, hwsrc=PEER_MAC, psrc=PEER, pdst=US)))
    link.take()
    return ip


def frame(payload: Any, **header: Any) -> bytes:
    return bytes(Ether(src=PEER_MAC, dst=US_MAC) / IP(**{"src": PEER, "dst": US, **header}) / payload)


def error(kind: int, code: int = 0, quoted: Any = None, **fields: Any) -> bytes:
    quoted = bytes(IP(src=US, dst=PEER) / SEGMENT) if quoted is None else quoted
    return frame(ICMP(type=kind, code=code, **fields) / quoted)


def drops(ip: IpLayer) -> dict[str, int]:
    return {name: value for name, value in ip.counters().items() if name.startswith("drop_")}


def assert_dropped(ip: IpLayer, octets: bytes, reason: str) -> None:
    assert ip.input(octets) == ("consumed", {})
    assert drops(ip) == {reason: 1}
    assert isinstance(ip.link, MemoryLink)
    assert ip.link.take() == []


# ---------------------------------------------------------------- echo
@pytest.mark.parametrize("size", [0, 1, 2, 55, 56, 1471, 1472])
def test_an_echo_comes_back_whole(ip: IpLayer, link: MemoryLink, size: int) -> None:
    data = bytes(i & 0xFF for i in range(size))
    assert ip.input(frame(ICMP(type=8, id=0x1234, seq=7) / data, tos=0x10)) == ("consumed", {})
    [(octets, offload)] = link.take()
    reply = Ether(octets)
    assert (reply.dst, reply.src) == (PEER_MAC, US_MAC)
    assert (reply[IP].src, reply[IP].dst, reply[IP].tos) == (US, PEER, 0x10)
    assert octets[34:] == bytes(ICMP(type=0, id=0x1234, seq=7) / data)
    assert not any(offload.values())
    assert ip.counters()["icmp_echoes_answered"] == 1
    assert drops(ip) == {}


def test_an_echo_beyond_the_mtu_is_cut(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(frame(ICMP(type=8, id=1, seq=2) / bytes(4000)))
    [(octets, _)] = link.take()
    assert octets[34:] == bytes(ICMP(type=0, id=1, seq=2) / bytes(1472))


def test_an_echo_is_verified_whatever_the_device_says(ip: IpLayer) -> None:
    octets = frame(ICMP(type=8, chksum=1))
    assert ip.input(octets, checksum="verified") == ("consumed", {})
    assert drops(ip) == {"drop_icmp_checksum": 1}


def test_an_echo_without_room_for_the_reply_is_counted(ip: IpLayer) -> None:
    full = MemoryLink(tx_slots=0)
    ip = IpLayer(full, f"{US}/24")
    ip.input(bytes(Ether(src=PEER_MAC, dst=US_MAC) / ARP(op=2, hwsrc=PEER_MAC, psrc=PEER, pdst=US)))
    assert ip.input(frame(ICMP(type=8))) == ("consumed", {})
    counters = ip.counters()
    assert "icmp_echoes_answered" not in counters
    assert counters["tx_ring_full"] == 2  # the question whether PEER is still there, and the reply
    assert full.take() == []


@pytest.mark.parametrize("kind", [0, 1, 2, 4, 5, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18, 30, 255])
def test_what_means_nothing_to_us_is_dropped(ip: IpLayer, kind: int) -> None:
    assert_dropped(ip, frame(ICMP(type=kind) / bytes(IP(src=US, dst=PEER) / SEGMENT)), "drop_icmp_type")


def test_an_echo_with_a_code_is_dropped(ip: IpLayer) -> None:
    assert_dropped(ip, frame(ICMP(type=8, code=1)), "drop_icmp_type")


@pytest.mark.parametrize("length", range(8))
def test_less_than_a_header_is_dropped(ip: IpLayer, length: int) -> None:
    assert_dropped(ip, frame(bytes(ICMP(type=8))[:length], proto=1), "drop_icmp_truncated")


# ---------------------------------------------------------------- errors in
@pytest.mark.parametrize(
    ("kind", "code"), [*((3, code) for code in range(16)), (11, 0), (11, 1), (12, 0), (12, 1), (12, 2)]
)
def test_an_error_about_a_segment_is_handed_up(ip: IpLayer, kind: int, code: int) -> None:
    verdict, packet = ip.input(error(kind, code))
    assert verdict == "tcp_error"
    assert (packet["icmp_type"], packet["icmp_code"], packet["icmp_mtu"]) == (kind, code, 0)
    assert (packet["src"], packet["dst"]) == (US, PEER)
    assert packet["payload"] == bytes(IP(src=US, dst=PEER) / SEGMENT)[20:]
    assert drops(ip) == {}


@pytest.mark.parametrize("mtu", [0, 68, 1400, 65535])
def test_fragmentation_needed_carries_the_next_hops_mtu(ip: IpLayer, mtu: int) -> None:
    assert ip.input(error(3, 4, nexthopmtu=mtu))[1]["icmp_mtu"] == mtu


def test_an_error_may_come_from_any_router(ip: IpLayer) -> None:
    quoted = bytes(IP(src=US, dst="203.0.113.9") / SEGMENT)
    verdict, packet = ip.input(frame(ICMP(type=3, code=1) / quoted, src="192.0.2.1"))
    assert (verdict, packet["dst"]) == ("tcp_error", "203.0.113.9")


def test_eight_octets_of_the_segment_are_enough(ip: IpLayer) -> None:
    verdict, packet = ip.input(error(3, 1, bytes(IP(src=US, dst=PEER) / SEGMENT)[:28]))
    assert (verdict, packet["payload"]) == ("tcp_error", bytes(SEGMENT)[:8])


def test_the_quoted_segment_ends_where_its_packet_ended(ip: IpLayer) -> None:
    octets = bytes(IP(src=US, dst=PEER) / SEGMENT)
    assert ip.input(error(3, 1, octets + b"extension"))[1]["payload"] == octets[20:]


def test_quoted_options_are_skipped(ip: IpLayer) -> None:
    quoted = bytes(IP(src=US, dst=PEER, ihl=6, len=44) / SEGMENT)
    quoted = quoted[:20] + b"\x01\x01\x01\x00" + quoted[20:]
    assert ip.input(error(3, 1, quoted))[1]["payload"] == quoted[24:]


@pytest.mark.parametrize("length", range(28))
def test_a_quote_too_short_is_dropped(ip: IpLayer, length: int) -> None:
    assert_dropped(ip, error(3, 1, bytes(IP(src=US, dst=PEER) / SEGMENT)[:length]), "drop_icmp_truncated")


@pytest.mark.parametrize("fields", [{"version": 6}, {"ihl": 4}, {"ihl": 15}, {"len": 0}, {"len": 27}])
def test_a_quote_that_is_no_packet_is_dropped(ip: IpLayer, fields: dict[str, Any]) -> None:
    quoted = bytes(IP(src=US, dst=PEER, **fields) / SEGMENT)
    assert_dropped(ip, error(3, 1, quoted), "drop_icmp_truncated")


@pytest.mark.parametrize(
    "fields",
    [{"src": "198.18.0.3"}, {"proto": 17}, {"proto": 1}, {"frag": 1}],
)
def test_an_error_about_what_we_did_not_send_is_dropped(ip: IpLayer, fields: dict[str, Any]) -> None:
    quoted = bytes(IP(**{"src": US, "dst": PEER, **fields}) / SEGMENT)
    assert_dropped(ip, error(3, 1, quoted), "drop_icmp_no_connection")


@pytest.mark.parametrize(("kind", "code"), [(3, 16), (11, 2), (12, 3), (4, 0)])
def test_unknown_codes_and_source_quench_are_dropped(ip: IpLayer, kind: int, code: int) -> None:
    assert_dropped(ip, error(kind, code), "drop_icmp_type")


def test_an_error_to_a_broadcast_address_is_dropped(ip: IpLayer) -> None:
    quoted = bytes(IP(src=US, dst=PEER) / SEGMENT)
    assert_dropped(ip, frame(ICMP(type=3, code=1) / quoted, dst="198.18.0.255"), "drop_icmp_type")


# ---------------------------------------------------------------- errors out
def assert_unreachable(link: MemoryLink, request: bytes, code: int) -> None:
    [(octets, _)] = link.take()
    answer = Ether(octets)
    assert (answer.dst, answer[IP].src, answer[IP].dst) == (PEER_MAC, US, PEER)
    assert (answer[ICMP].type, answer[ICMP].code) == (3, code)
    assert octets[34:] == bytes(ICMP(type=3, code=code) / request[14:][:548])


def test_udp_gets_port_unreachable(ip: IpLayer, link: MemoryLink) -> None:
    request = frame(UDP(sport=1000, dport=53) / b"question")
    ip.input(request)
    assert_unreachable(link, request, 3)
    assert drops(ip) == {"drop_ip_protocol": 1}
    assert ip.counters()["icmp_errors_out"] == 1


@pytest.mark.parametrize("protocol", [0, 2, 4, 41, 47, 132, 255])
def test_another_transport_gets_protocol_unreachable(ip: IpLayer, link: MemoryLink, protocol: int) -> None:
    request = frame(b"payload", proto=protocol)
    ip.input(request)
    assert_unreachable(link, request, 2)
    assert drops(ip) == {"drop_ip_protocol": 1}


def test_an_error_quotes_what_fits_into_576_octets(ip: IpLayer, link: MemoryLink) -> None:
    request = frame(UDP(sport=1000, dport=53) / bytes(1400))
    ip.input(request)
    assert_unreachable(link, request, 3)


def test_scapy_reads_the_quote(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(frame(UDP(sport=1000, dport=53) / b"question"))
    answer = Ether(link.take()[0][0])
    assert (answer[IPerror].src, answer[IPerror].dst, answer.getlayer(ICMPerror)) == (PEER, US, None)


@pytest.mark.parametrize(
    "datagram",
    [
        bytes(UDP(dport=53))[:7],
        bytes(UDP(dport=53, len=7)),
        bytes(UDP(dport=53, len=9)),
        bytes(UDP(dport=53, chksum=1) / b"broken"),
    ],
)
def test_a_broken_datagram_gets_nothing(ip: IpLayer, datagram: bytes) -> None:
    assert_dropped(ip, frame(datagram, proto=17), "drop_ip_protocol")


def test_a_datagram_without_checksum_gets_its_error(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(frame(UDP(dport=53, chksum=0) / b"none"))
    assert len(link.take()) == 1


def test_a_checksum_left_to_a_device_is_believed(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(frame(UDP(dport=53, chksum=1) / b"partial"), checksum="partial")
    assert len(link.take()) == 1


def test_errors_are_rationed(ip: IpLayer, link: MemoryLink) -> None:
    request = frame(UDP(dport=53))
    start = 1000 * MS
    for _ in range(60):
        ip.input(request, start)
    assert len(link.take()) == 50
    ip.input(request, start + 10 * MS - 1)
    assert link.take() == []
    ip.input(request, start + 10 * MS)
    ip.input(request, start + 10 * MS)
    assert len(link.take()) == 1
    for _ in range(60):
        ip.input(request, start + 2000 * MS)
    assert len(link.take()) == 50
    assert drops(ip)["drop_ip_protocol"] == 60 + 1 + 2 + 60

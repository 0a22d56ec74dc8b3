# SPDX-License-Identifier: MIT
"""ARP packets against scapy, every field check, every length."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import ARP

from ustack.base.counters import counter_t
from ustack.wire import arp

STATION = b"\x02\x00\x00\x00\x00\x01"
HOST = bytes([198, 18, 0, 1])
US = bytes([198, 18, 0, 2])
UNICAST_MAC = st.binary(min_size=5, max_size=5).map(lambda rest: b"\x02" + rest)
UNICAST = st.integers(0x80000000, 0xDFFFFFFF).map(lambda n: n.to_bytes(4, "big"))
ANY_MAC = st.binary(min_size=6, max_size=6)
ANY = st.binary(min_size=4, max_size=4)


def text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([1, 2]), UNICAST_MAC, UNICAST, ANY_MAC, ANY, st.binary(max_size=20))
def test_what_is_emitted_is_parsed(op: int, sha: bytes, spa: bytes, tha: bytes, tpa: bytes, padding: bytes) -> None:
    assert arp.parse(arp.emit(op, sha, spa, tha, tpa) + padding) == {
        "operation": op,
        "sender_mac": sha,
        "sender": spa,
        "target_mac": tha,
        "target": tpa,
    }


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([1, 2]), UNICAST_MAC, UNICAST, ANY_MAC, ANY)
def test_scapy_emits_what_we_emit(op: int, sha: bytes, spa: bytes, tha: bytes, tpa: bytes) -> None:
    psrc, pdst = str(IPv4Address(spa)), str(IPv4Address(tpa))
    oracle = ARP(op=op, hwsrc=text(sha), hwdst=text(tha), psrc=psrc, pdst=pdst)
    assert arp.emit(op, sha, spa, tha, tpa) == bytes(oracle)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([1, 2]), UNICAST_MAC, UNICAST, ANY_MAC, ANY)
def test_scapy_parses_what_we_emit(op: int, sha: bytes, spa: bytes, tha: bytes, tpa: bytes) -> None:
    oracle = ARP(arp.emit(op, sha, spa, tha, tpa))
    assert (oracle.op, oracle.hwsrc, oracle.hwdst) == (op, text(sha), text(tha))
    assert (IPv4Address(oracle.psrc).packed, IPv4Address(oracle.pdst).packed) == (spa, tpa)


@pytest.mark.parametrize("length", range(28))
def test_every_truncation_is_malformed(length: int) -> None:
    assert arp.parse(arp.emit(1, STATION, HOST, bytes(6), US)[:length]) == counter_t.DROP_ARP_MALFORMED


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 1), (1, 2), (2, 0x86), (3, 0xDD), (4, 7), (5, 16), (6, 1), (7, 0), (7, 3), (7, 4), (7, 8), (7, 9)],
)
def test_another_hardware_protocol_length_or_operation_is_malformed(offset: int, value: int) -> None:
    packet = bytearray(arp.emit(1, STATION, HOST, bytes(6), US))
    packet[offset] = value
    assert arp.parse(bytes(packet)) == counter_t.DROP_ARP_MALFORMED


@pytest.mark.parametrize("mac", [b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", bytes(6)])
def test_a_sender_that_is_no_station_is_malformed(mac: bytes) -> None:
    assert arp.parse(arp.emit(1, mac, HOST, bytes(6), US)) == counter_t.DROP_ARP_MALFORMED


@pytest.mark.parametrize("sender", ["224.0.0.1", "239.255.255.255", "255.255.255.255", "127.0.0.1"])
def test_a_sender_that_is_no_host_is_malformed(sender: str) -> None:
    packed = IPv4Address(sender).packed
    assert arp.parse(arp.emit(1, STATION, packed, bytes(6), US)) == counter_t.DROP_ARP_MALFORMED


def test_a_probe_has_no_sender_address() -> None:
    assert isinstance(arp.parse(arp.emit(1, STATION, bytes(4), bytes(6), US)), dict)


def test_a_reply_without_sender_address_is_malformed() -> None:
    assert arp.parse(arp.emit(2, STATION, bytes(4), STATION, US)) == counter_t.DROP_ARP_MALFORMED

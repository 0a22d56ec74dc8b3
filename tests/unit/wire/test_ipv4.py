# SPDX-License-Identifier: MIT
"""IPv4 headers against scapy, every check of RFC 1122 section 3.2.1, options of every shape."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, in4_chksum
from scapy.utils import checksum

from ustack.base.counters import counter_t
from ustack.wire import ipv4

SRC = bytes([198, 18, 0, 1])
DST = bytes([198, 18, 0, 2])
ADDRESS = st.binary(min_size=4, max_size=4)
OCTET = st.integers(0, 255)
WORD = st.integers(0, 0xFFFF)
FIELDS = {"tos": 0, "ttl": 64, "protocol": 6, "identification": 7, "fragment": 0x4000}


def header(payload: int = 0, **changes: int) -> bytes:
    fields = {**FIELDS, "total_length": 20 + payload, **changes}
    return ipv4.emit(SRC, DST, **fields)


def with_options(options: bytes) -> bytes:
    """A valid header with these bytes (padded with zeros to 4) as its options."""
    options += bytes(-len(options) % 4)
    packet = bytearray(header(payload=len(options)) + options)
    packet[0] = 0x45 + len(options) // 4
    packet[10:12] = bytes(2)
    packet[10:12] = checksum(bytes(packet)).to_bytes(2, "big")
    return bytes(packet)


@settings(deadline=None, max_examples=100)
@given(ADDRESS, ADDRESS, OCTET, OCTET, OCTET, st.integers(20, 1500), WORD, WORD)
def test_what_is_emitted_is_parsed(
    src: bytes, dst: bytes, tos: int, ttl: int, protocol: int, total: int, identification: int, fragment: int
) -> None:
    fields = {
        "tos": tos,
        "ttl": ttl,
        "protocol": protocol,
        "total_length": total,
        "identification": identification,
        "fragment": fragment,
    }
    packet = ipv4.emit(src, dst, **fields) + bytes(1500)
    assert ipv4.parse(packet) == {**fields, "header_length": 20, "src": src, "dst": dst}


@settings(deadline=None, max_examples=100)
@given(ADDRESS, ADDRESS, OCTET, OCTET, OCTET, st.integers(20, 65535), WORD, WORD)
def test_scapy_emits_what_we_emit(
    src: bytes, dst: bytes, tos: int, ttl: int, protocol: int, total: int, identification: int, fragment: int
) -> None:
    oracle = IP(
        src=str(IPv4Address(src)),
        dst=str(IPv4Address(dst)),
        tos=tos,
        ttl=ttl,
        proto=protocol,
        len=total,
        id=identification,
        flags=fragment >> 13,
        frag=fragment & 0x1FFF,
    )
    ours = ipv4.emit(
        src,
        dst,
        tos=tos,
        ttl=ttl,
        protocol=protocol,
        total_length=total,
        identification=identification,
        fragment=fragment,
    )
    assert ours == bytes(oracle)


@settings(deadline=None, max_examples=100)
@given(ADDRESS, ADDRESS, st.sampled_from([6, 17]), st.binary(max_size=200))
def test_pseudo_header_sum_leads_to_scapys_checksum(src: bytes, dst: bytes, protocol: int, payload: bytes) -> None:
    oracle = in4_chksum(protocol, IP(src=str(IPv4Address(src)), dst=str(IPv4Address(dst))), payload)
    summed = checksum(ipv4.pseudo_sum(src, dst, protocol, len(payload)) + payload)
    assert summed % 0xFFFF == oracle % 0xFFFF  # 0 and 0xFFFF are the same number in one's complement


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=80))
def test_any_octets_are_parsed_or_dropped(packet: bytes) -> None:
    assert isinstance(ipv4.parse(packet), (dict, int))


@pytest.mark.parametrize("length", range(20))
def test_less_than_a_header_is_truncated(length: int) -> None:
    assert ipv4.parse(header()[:length]) == counter_t.DROP_IP_TRUNCATED


@pytest.mark.parametrize("length", range(20, 32))
def test_options_beyond_the_frame_are_truncated(length: int) -> None:
    assert ipv4.parse(with_options(b"\x01" * 12)[:length]) == counter_t.DROP_IP_TRUNCATED


@pytest.mark.parametrize("version", [0, 3, 5, 6, 15])
def test_another_version_is_dropped(version: int) -> None:
    assert ipv4.parse(bytes([version << 4 | 5]) + header()[1:]) == counter_t.DROP_IP_VERSION


@pytest.mark.parametrize("words", range(5))
def test_a_header_of_less_than_five_words_is_dropped(words: int) -> None:
    assert ipv4.parse(bytes([0x40 | words]) + header()[1:]) == counter_t.DROP_IP_HEADER_LENGTH


@pytest.mark.parametrize("total", [0, 1, 19])
def test_a_total_length_below_the_header_is_dropped(total: int) -> None:
    assert ipv4.parse(header(total_length=total)) == counter_t.DROP_IP_TOTAL_LENGTH


@pytest.mark.parametrize("total", [21, 1500, 65535])
def test_a_total_length_beyond_the_frame_is_dropped(total: int) -> None:
    assert ipv4.parse(header(total_length=total)) == counter_t.DROP_IP_TOTAL_LENGTH


@pytest.mark.parametrize("bit", [bit for bit in range(160) if bit // 8 not in (0, 2, 3)])
def test_every_flipped_bit_breaks_the_checksum(bit: int) -> None:
    packet = bytearray(header())
    packet[bit // 8] ^= 1 << bit % 8
    assert ipv4.parse(bytes(packet)) == counter_t.DROP_IP_CHECKSUM


def test_a_flipped_bit_in_the_options_breaks_the_checksum() -> None:
    packet = bytearray(with_options(b"\x01" * 8))
    packet[27] ^= 0x80
    assert ipv4.parse(bytes(packet)) == counter_t.DROP_IP_CHECKSUM


@pytest.mark.parametrize(
    "options",
    [
        b"\x00",
        b"\x01\x01\x01\x01",
        b"\x94\x04\x00\x00",  # router alert
        b"\x07\x07\x04\x00\x00\x00\x00",  # record route
        b"\x44\x08\x05\x00\x00\x00\x00\x00",  # timestamp
        b"\x00\xff\xff\xff",  # nothing is read after the end of the list
        b"\xfe\x02\x01\x00",  # unknown
        b"\x01" * 40,
    ],
)
def test_options_are_skipped(options: bytes) -> None:
    assert isinstance(ipv4.parse(with_options(options)), dict)


@pytest.mark.parametrize(
    "options",
    [
        b"\x94\x00\x01\x01",  # length 0
        b"\x94\x01\x01\x01",  # length 1
        b"\x94\x05\x01\x01",  # beyond the header
        b"\x94\xff\x01\x01",
        b"\x01\x01\x01\x94",  # no room for a length
        b"\x83\x07\x04\x01\x02\x03\x04\x00",  # loose source route
        b"\x89\x07\x08\x01\x02\x03\x04\x00",  # strict source route, at its end
    ],
)
def test_bad_options_and_source_routes_are_dropped(options: bytes) -> None:
    assert ipv4.parse(with_options(options)) == counter_t.DROP_IP_OPTION


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=1, max_size=40))
def test_any_options_are_walked(options: bytes) -> None:
    assert isinstance(ipv4.parse(with_options(options)), (dict, int))


def test_a_quoted_packet_may_be_cut_and_rewritten() -> None:
    packet = bytearray(header(total_length=1500))
    packet[8] = 1  # a router's TTL, and the checksum not redone
    fields = ipv4.parse(bytes(packet), quoted=True)
    assert isinstance(fields, dict)
    assert fields["total_length"] == 1500


@pytest.mark.parametrize(
    "packet", [header()[:19], b"\x65" + header()[1:], b"\x44" + header()[1:], b"\x46" + header()[1:]]
)
def test_a_quoted_packet_without_a_whole_header_is_truncated(packet: bytes) -> None:
    assert ipv4.parse(packet, quoted=True) == counter_t.DROP_ICMP_TRUNCATED

# SPDX-License-Identifier: MIT
"""The kit's own frame builder and parser, held against scapy."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether

from ustack.testing.segment import (
    Segment,
    build_arp,
    build_frame,
    build_icmp_error,
    flags_to_int,
    flags_to_letters,
    internet_checksum,
    parse_frame,
    parse_options,
)

MACS: dict[str, Any] = {"src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02"}
OPTIONS = {
    "mss": 1460, "sack_permitted": True, "timestamps": (0xFFFFFFFF, 7), "nop": 1, "wscale": 7,
}  # fmt: skip
SCAPY_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (0xFFFFFFFF, 7)), ("NOP", None), ("WScale", 7)]
numbers = st.integers(min_value=0, max_value=0xFFFFFFFF)


def segment(**fields: object) -> Segment:
    base = {"src": "198.18.0.1", "dst": "198.18.0.2", "sport": 40000, "dport": 80, "seq": 0xFFFFFFFF}
    return Segment(**{**base, **fields})  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    seq=numbers,
    ack=numbers,
    flags=st.integers(0, 255),
    wnd=st.integers(0, 65535),
    payload=st.binary(max_size=200),
    with_options=st.booleans(),
)
def test_frames_are_scapys(seq: int, ack: int, flags: int, wnd: int, payload: bytes, with_options: bool) -> None:
    letters = flags_to_letters(flags)
    ours = build_frame(
        segment(seq=seq, ack=ack, flags=letters, wnd=wnd, payload=payload, options=OPTIONS if with_options else {}),
        **MACS,
    )
    tcp = TCP(
        sport=40000, dport=80, seq=seq, ack=ack, flags=flags, window=wnd, options=SCAPY_OPTIONS if with_options else []
    )
    ip = IP(src="198.18.0.1", dst="198.18.0.2", flags="DF", id=0, ttl=64)
    theirs = bytes(Ether(src=MACS["src_mac"], dst=MACS["dst_mac"]) / ip / tcp / payload)
    # Zero has two forms in ones' complement; both are right, so the sums are compared, not their bytes.
    assert ours[:50] + ours[52:] == theirs[:50] + theirs[52:]
    assert parse_frame(ours).checksum_ok  # type: ignore[union-attr]
    assert parse_frame(theirs).checksum_ok  # type: ignore[union-attr]


@settings(deadline=None, max_examples=60)
@given(seq=numbers, ack=numbers, flags=st.integers(0, 255), wnd=st.integers(0, 65535), payload=st.binary(max_size=99))
def test_parse_gives_back_what_was_built(seq: int, ack: int, flags: int, wnd: int, payload: bytes) -> None:
    built = segment(seq=seq, ack=ack, flags=flags_to_letters(flags), wnd=wnd, payload=payload)
    assert parse_frame(build_frame(built, **MACS)) == built


def test_options_are_parsed() -> None:
    parsed = parse_frame(build_frame(segment(options=OPTIONS), **MACS))
    assert parsed is not None
    assert parsed.options == {"mss": 1460, "sack_permitted": True, "timestamps": (0xFFFFFFFF, 7), "wscale": 7}


def test_sack_blocks_are_parsed() -> None:
    blocks = [(0xFFFFFFF0, 10), (20, 30)]
    parsed = parse_frame(build_frame(segment(options={"nop": 2, "sack": blocks}), **MACS))
    assert parsed is not None
    assert parsed.options == {"sack": blocks}


@pytest.mark.parametrize("octets", [b"\x02\x00", b"\x02", b"\x02\x05\x01"])
def test_impossible_option_lengths_are_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match="impossible length"):
        parse_options(octets)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=100), position=st.integers(0, 99), bit=st.integers(0, 7))
def test_checksum_verifies_itself_and_sees_a_bit(data: bytes, position: int, bit: int) -> None:
    data += b"\0" * (len(data) % 2)
    whole = data + internet_checksum(data).to_bytes(2, "big")
    assert internet_checksum(whole) in (0, 0xFFFF)
    damaged = bytearray(whole)
    damaged[position % len(whole)] ^= 1 << bit
    assert internet_checksum(bytes(damaged)) not in (0, 0xFFFF)


def test_flags_are_letters() -> None:
    assert flags_to_int("SA") == 0x12
    assert flags_to_letters(0x12) == "SA"


def test_length_counts_syn_and_fin() -> None:
    assert segment(flags="S").length == 1
    assert segment(flags="FA", payload=b"abc").length == 4
    assert segment(flags="FA", payload=b"abc").end == 3


def test_arp_is_scapys() -> None:
    ours = build_arp(
        operation=1, sender_mac=MACS["src_mac"], sender="198.18.0.1", target="198.18.0.2", dst_mac="ff:ff:ff:ff:ff:ff"
    )
    theirs = Ether(src=MACS["src_mac"], dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=MACS["src_mac"], psrc="198.18.0.1", pdst="198.18.0.2", hwdst="00:00:00:00:00:00"
    )
    assert ours == bytes(theirs)


def test_icmp_error_is_scapys() -> None:
    quoted = build_frame(segment(), **MACS)
    ours = build_icmp_error(3, 4, quoted, mtu=1400, src="198.18.0.1", dst="198.18.0.2", **MACS)
    theirs: Any = IP(src="198.18.0.1", dst="198.18.0.2", flags="DF", id=0) / ICMP(type=3, code=4, nexthopmtu=1400)
    theirs = Ether(src=MACS["src_mac"], dst=MACS["dst_mac"]) / theirs / quoted[14:42]
    assert ours == bytes(theirs)

# SPDX-License-Identifier: MIT
"""TCP headers and options against scapy, every option of every shape, and bytes that no honest sender emits."""

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from ustack.base.counters import counter_t
from ustack.wire import tcp

OCTET = st.integers(0, 255)
PORT = st.integers(0, 0xFFFF)
SEQUENCE = st.one_of(st.integers(0xFFFFFF00, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
EDGES = st.tuples(SEQUENCE, SEQUENCE)
NONE: dict[str, Any] = {"mss": None, "wscale": None, "sack_permitted": False, "timestamps": None, "sack": []}
OPTION_BYTES = 40


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """A set of options that fits in 40 bytes."""
    chosen: dict[str, Any] = {
        "mss": draw(st.none() | PORT),
        "wscale": draw(st.none() | st.integers(0, 14)),
        "sack_permitted": draw(st.booleans()),
        "timestamps": draw(st.none() | EDGES),
    }
    used = 4 * (chosen["mss"] is not None) + 4 * (chosen["wscale"] is not None)
    used += 12 if chosen["timestamps"] is not None else 4 * chosen["sack_permitted"]
    chosen["sack"] = draw(st.lists(EDGES, max_size=min(4, (OPTION_BYTES - used - 4) // 8)))
    return chosen


def plain(words: int = 5, flags: int = 0x10) -> bytes:
    """A header whose data offset is `words`, without the bytes beyond 20."""
    return struct.pack("!HHIIBBHHH", 40000, 80, 0xFFFFFFFE, 7, words << 4, flags, 1000, 0, 0)


def with_options(octets: bytes, data: bytes = b"") -> bytes:
    """A segment with these option bytes, padded with zeros to a word."""
    octets += bytes(-len(octets) % 4)
    return plain(5 + len(octets) // 4) + octets + data


def reason(segment: bytes) -> counter_t:
    with pytest.raises(ValueError, match=r"\d+") as raised:
        tcp.parse(segment)
    return counter_t(raised.value.args[0])


def found(octets: bytes) -> dict[str, Any]:
    """The options read from these bytes."""
    fields = tcp.parse(with_options(octets))
    return {name: fields[name] for name in NONE}


# ---------------------------------------------------------------- flags


def test_reserved_bits_are_no_flags_and_no_length() -> None:
    """MUST be ignored, section 3.1 of RFC 9293."""
    header = bytearray(plain())
    header[12] |= 0x0F
    assert tcp.parse(bytes(header))["flags"] == 0x10
    assert tcp.parse(bytes(header) + b"data")["data"] == b"data"


# ---------------------------------------------------------------- accurate ECN (RFC 9768 sections 3.2.2 and 3.2.3)


@pytest.mark.parametrize("ace", range(8))
def test_ae_cwr_and_ece_are_one_number(ace: int) -> None:
    header = tcp.emit(1, 2, 3, 4, 0x10, 5, ace=ace)
    assert tcp.parse(header)["ace"] == ace
    oracle = TCP(header)
    for letter, bit in (("N", 4), ("C", 2), ("E", 1)):
        assert bool(getattr(oracle.flags, letter)) is bool(ace & bit)
    assert oracle.dataofs == 5


@pytest.mark.parametrize("kind", [172, 174])
@pytest.mark.parametrize("fields", [(), (1,), (0x010203, 0xFFFFFF), (1, 0, 0x800001)])
@pytest.mark.parametrize("blocks", [0, 2])
def test_an_accecn_option_of_any_length_is_written_and_read(kind: int, fields: tuple[int, ...], blocks: int) -> None:
    sack = tuple((10 * index, 10 * index + 5) for index in range(blocks))
    header = tcp.emit(1, 2, 3, 4, 0x10, 5, accecn=(kind, fields), sack=sack, ace=5)
    read = tcp.parse(header + b"data")
    assert read["accecn"] == (kind, [*fields])
    assert (read["sack"], read["ace"], read["data"]) == ([*sack], 5, b"data")
    wire = next(value for name, value in TCP(header).options if name == kind)
    assert wire == b"".join(field.to_bytes(3, "big") for field in fields)


@pytest.mark.parametrize(("length", "fields"), [(2, 0), (3, 0), (4, 0), (6, 1), (7, 1), (9, 2), (12, 3), (20, 3)])
def test_an_accecn_option_of_another_length_has_the_whole_fields_that_fit(length: int, fields: int) -> None:
    """ "... and ignore the remainder of the option, treating it as padding" (section 3.2.3)."""
    read = tcp.parse(with_options(bytes([172, length]) + bytes(range(1, length - 1)), b"data"))
    assert read["accecn"] == (172, [0x010203, 0x040506, 0x070809][:fields])
    assert read["data"] == b"data"


# ---------------------------------------------------------------- round trip, and scapy as the oracle


@settings(deadline=None, max_examples=200)
@given(PORT, PORT, SEQUENCE, SEQUENCE, OCTET, PORT, options(), st.binary(max_size=40))
def test_what_is_emitted_is_parsed(
    sport: int, dport: int, seq: int, ack: int, flags: int, window: int, chosen: dict[str, Any], data: bytes
) -> None:
    header = tcp.emit(sport, dport, seq, ack, flags, window, **{**chosen, "sack": tuple(chosen["sack"])})
    assert len(header) % 4 == 0
    assert tcp.parse(header + data) == {
        "sport": sport,
        "dport": dport,
        "seq": seq,
        "ack": ack,
        "flags": flags,
        "window": window,
        "urgent": 0,
        "ace": flags >> 6,
        "accecn": None,
        "data": data,
        **chosen,
    }


@settings(deadline=None, max_examples=200)
@given(PORT, PORT, SEQUENCE, SEQUENCE, OCTET, PORT, options(), st.binary(max_size=40))
def test_scapy_reads_what_we_emit(
    sport: int, dport: int, seq: int, ack: int, flags: int, window: int, chosen: dict[str, Any], data: bytes
) -> None:
    header = tcp.emit(sport, dport, seq, ack, flags, window, **{**chosen, "sack": tuple(chosen["sack"])})
    oracle = TCP(header + data)
    assert (oracle.sport, oracle.dport, oracle.seq, oracle.ack) == (sport, dport, seq, ack)
    assert (oracle.flags.value, oracle.window, oracle.urgptr, oracle.chksum) == (flags, window, 0, 0)
    assert oracle.dataofs * 4 == len(header)
    assert bytes(oracle.payload) == data
    read = dict(oracle.options)
    assert read.get("MSS") == chosen["mss"]
    assert read.get("WScale") == chosen["wscale"]
    assert ("SAckOK" in read) == chosen["sack_permitted"]
    assert read.get("Timestamp") == chosen["timestamps"]
    assert read.get("SAck", ()) == tuple(edge for block in chosen["sack"] for edge in block)


def scapy_options(chosen: dict[str, Any]) -> list[tuple[str, Any]]:
    named = [
        ("MSS", chosen["mss"]),
        ("WScale", chosen["wscale"]),
        ("SAckOK", b"" if chosen["sack_permitted"] else None),
        ("Timestamp", chosen["timestamps"]),
        ("SAck", tuple(edge for block in chosen["sack"] for edge in block) or None),
    ]
    return [(name, value) for name, value in named if value is not None]


@settings(deadline=None, max_examples=200)
@given(SEQUENCE, SEQUENCE, st.integers(0, 0xFF), PORT, PORT, options(), st.binary(max_size=40), st.data())
def test_what_scapy_emits_in_any_order_is_parsed(
    seq: int, ack: int, flags: int, window: int, urgent: int, chosen: dict[str, Any], data: bytes, more: st.DataObject
) -> None:
    listed = more.draw(st.permutations(scapy_options(chosen)))
    oracle = TCP(
        sport=1, dport=2, seq=seq, ack=ack, flags=flags, window=window, urgptr=urgent, options=listed, chksum=0x1234
    )
    assert tcp.parse(bytes(oracle) + data) == {
        "sport": 1,
        "dport": 2,
        "seq": seq,
        "ack": ack,
        "flags": flags,
        "window": window,
        "urgent": urgent,
        "ace": flags >> 6,
        "accecn": None,
        "data": data,
        **chosen,
    }


def test_a_syn_as_it_is_sent() -> None:
    header = tcp.emit(
        80, 40000, 0xFFFFFFFF, 0, 0x02, 65535, mss=1460, wscale=7, sack_permitted=True, timestamps=(0xFFFFFFF0, 0)
    )
    assert header[20:].hex() == "020405b40402080afffffff00000000001030307"


def test_an_established_segment_begins_its_data_on_a_word_of_its_timestamps() -> None:
    assert tcp.emit(80, 1, 0, 0, 0x10, 0, timestamps=(1, 2))[20:].hex() == "0101080a0000000100000002"


def test_four_blocks_fill_the_option_space() -> None:
    header = tcp.emit(80, 1, 0, 0, 0x10, 0, sack=((1, 2), (3, 4), (5, 6), (7, 8)))
    assert len(header) == 20 + 36


def test_more_blocks_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="SACK"):
        tcp.emit(80, 1, 0, 0, 0x10, 0, timestamps=(1, 2), sack=((1, 2),) * 4)


# ---------------------------------------------------------------- lengths


@pytest.mark.parametrize("length", range(20))
def test_a_header_cut_short_is_truncated(length: int) -> None:
    assert reason(plain()[:length]) is counter_t.DROP_TCP_TRUNCATED


@pytest.mark.parametrize("words", range(5))
def test_a_data_offset_below_five_is_refused(words: int) -> None:
    assert reason(plain(words) + bytes(40)) is counter_t.DROP_TCP_DATA_OFFSET


@pytest.mark.parametrize(("words", "length"), [(w, n) for w in range(6, 16) for n in (20, w * 4 - 1)])
def test_a_data_offset_beyond_the_segment_is_refused(words: int, length: int) -> None:
    segment = plain(words) + b"\x01" * 40
    assert reason(segment[:length]) is counter_t.DROP_TCP_DATA_OFFSET


def test_every_truncation_of_a_full_header_is_refused_or_read_whole() -> None:
    header = tcp.emit(80, 1, 0, 0, 0x12, 0, mss=1460, wscale=7, sack_permitted=True, timestamps=(1, 2), sack=((1, 2),))
    for length in range(len(header)):
        assert reason(header[:length]) in (counter_t.DROP_TCP_TRUNCATED, counter_t.DROP_TCP_DATA_OFFSET)
    assert tcp.parse(header)["data"] == b""


def test_the_header_may_fill_sixty_octets() -> None:
    fields = tcp.parse(plain(15) + b"\x01" * 40 + b"data")
    assert fields["data"] == b"data"


def test_the_reserved_bits_are_ignored() -> None:
    segment = bytearray(plain())
    segment[12] |= 0x0F
    assert tcp.parse(bytes(segment))["seq"] == 0xFFFFFFFE


# ---------------------------------------------------------------- options one by one

KNOWN = {
    "mss": (b"\x02\x04\x05\xb4", 1460),
    "wscale": (b"\x03\x03\x07", 7),
    "sack_permitted": (b"\x04\x02", True),
    "timestamps": (b"\x08\x0a\xff\xff\xff\xff\x00\x00\x00\x01", (0xFFFFFFFF, 1)),
    "sack": (b"\x05\x0a\xff\xff\xff\xfe\x00\x00\x00\x10", [(0xFFFFFFFE, 0x10)]),
}
KNOWN_KINDS = {0, 1, 2, 3, 4, 5, 8}


@pytest.mark.parametrize("nops", range(8))
@pytest.mark.parametrize("name", KNOWN)
def test_an_option_is_read_at_any_alignment(name: str, nops: int) -> None:
    """MUST-64."""
    octets, value = KNOWN[name]
    assert found(b"\x01" * nops + octets) == {**NONE, name: value}


@pytest.mark.parametrize("names", [p for n in (2, 3) for p in itertools.permutations(KNOWN, n)])
def test_options_are_read_in_any_order(names: tuple[str, ...]) -> None:
    octets = b"".join(KNOWN[name][0] for name in names)
    assert found(octets) == {**NONE, **{name: KNOWN[name][1] for name in names}}


@pytest.mark.parametrize("body", [0, 1, 6])
def test_an_unknown_option_is_skipped_by_its_length(body: int) -> None:
    """MUST-6: what follows it is read. Its body looks like an MSS option, to catch a parser that walks into it."""
    for kind in sorted(set(range(256)) - KNOWN_KINDS):
        unknown = bytes([kind, 2 + body]) + b"\x02\x04\xff\xff\x02\x04"[:body]
        assert found(unknown + KNOWN["wscale"][0]) == {**NONE, "wscale": 7}, kind


@pytest.mark.parametrize("length", [0, 1])
def test_a_length_below_two_is_refused(length: int) -> None:
    """MUST-7."""
    for kind in range(2, 256):
        assert reason(with_options(bytes([kind, length, 0, 0]))) is counter_t.DROP_TCP_OPTION, kind


@pytest.mark.parametrize("excess", [1, 100])
def test_a_length_beyond_the_header_is_refused(excess: int) -> None:
    """MUST-7: the bytes after it are data, and no option may claim them."""
    for kind in range(2, 256):
        segment = with_options(b"\x01\x01" + bytes([kind, 2 + excess]), b"\x02\x04\x05\xb4" * 40)
        assert reason(segment) is counter_t.DROP_TCP_OPTION, kind


def test_a_kind_without_room_for_its_length_is_refused() -> None:
    for kind in range(2, 256):
        segment = with_options(b"\x01\x01\x01" + bytes([kind]), b"\x02" * 8)
        assert reason(segment) is counter_t.DROP_TCP_OPTION, kind


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"\x02\x03\x05", "mss"),
        (b"\x02\x05\x05\xb4\x01", "mss"),
        (b"\x03\x02", "wscale"),
        (b"\x03\x04\x07\x07", "wscale"),
        (b"\x04\x03\x00", "sack_permitted"),
        (b"\x08\x09" + bytes(7), "timestamps"),
        (b"\x08\x0b" + bytes(9), "timestamps"),
        (b"\x05\x02", "sack"),
        (b"\x05\x06" + bytes(4), "sack"),
        (b"\x05\x0b" + bytes(9), "sack"),
    ],
)
def test_a_known_option_of_another_length_is_skipped(octets: bytes, name: str) -> None:
    """Possible by its length, but not what its RFC says: nothing is read from it, and what follows is."""
    other = "wscale" if name == "mss" else "mss"
    assert found(octets + KNOWN[other][0]) == {**NONE, other: KNOWN[other][1]}


@pytest.mark.parametrize("shift", [14, 15, 255])
def test_a_shift_beyond_fourteen_is_taken_as_fourteen(shift: int) -> None:
    """RFC 7323 section 2.3."""
    assert found(bytes([3, 3, shift]))["wscale"] == 14


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_every_sack_block_is_read(blocks: int) -> None:
    edges = [(0xFFFFFFF0 + i, i) for i in range(blocks)]
    octets = bytes([5, 2 + 8 * blocks]) + b"".join(struct.pack("!II", *pair) for pair in edges)
    assert found(octets)["sack"] == edges


def test_the_later_of_two_equal_options_counts() -> None:
    assert found(b"\x02\x04\x00\x01\x02\x04\x05\xb4")["mss"] == 1460


@pytest.mark.parametrize("garbage", [b"\x02\x00\xff", b"\xff\xff\xff", b"\x02\x04\x05\xb4\x03\x00\x01"])
def test_nothing_is_read_behind_the_end_of_options(garbage: bytes) -> None:
    assert found(b"\x03\x03\x07\x00" + garbage) == {**NONE, "wscale": 7}


def test_options_may_begin_with_their_end() -> None:
    assert found(b"\x00\xff\xff\xff") == NONE


@pytest.mark.parametrize("tail", [b"\x01\x01", b"\x00\x00", b"\x04\x02"])
def test_padded_timestamps_are_read_with_company_behind_them(tail: bytes) -> None:
    """The shape that most segments have is read by a short cut, which must not swallow what comes after."""
    fields = found(b"\x01\x01\x08\x0a" + struct.pack("!II", 5, 6) + tail)
    assert fields == {**NONE, "timestamps": (5, 6), "sack_permitted": tail == b"\x04\x02"}


# ---------------------------------------------------------------- hostile bytes


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100))
def test_random_octets_are_refused_or_read_within_bounds(octets: bytes) -> None:
    refusals = {counter_t.DROP_TCP_TRUNCATED, counter_t.DROP_TCP_DATA_OFFSET, counter_t.DROP_TCP_OPTION}
    refusal = None
    try:
        fields = tcp.parse(octets)
    except ValueError as error:
        refusal = counter_t(error.args[0])
    if refusal is None:
        assert fields["data"] == octets[(octets[12] >> 4) * 4 :]
        assert len(fields["sack"]) <= 4
    else:
        assert refusal in refusals


@settings(deadline=None, max_examples=500)
@given(st.integers(6, 15), st.data())
def test_random_options_are_refused_or_read(words: int, more: st.DataObject) -> None:
    """A model of the option walk says which of the two."""
    octets = more.draw(st.binary(min_size=words * 4 - 20, max_size=words * 4 - 20))
    at, legal = 0, True
    while at < len(octets) and octets[at] != 0:
        size = 1 if octets[at] == 1 else octets[at + 1] if at + 1 < len(octets) else 0
        if (size < 2 and octets[at] != 1) or at + size > len(octets):
            legal = False
            break
        at += size
    if legal:
        assert tcp.parse(plain(words) + octets)["data"] == b""
    else:
        assert reason(plain(words) + octets) is counter_t.DROP_TCP_OPTION

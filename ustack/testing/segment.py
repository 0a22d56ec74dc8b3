# SPDX-License-Identifier: MIT
"""Frames with TCP segments in them: bytes to fields and back, in Python.

This is the test kit's own reading of the RFCs, kept apart from ustack.wire on purpose: a mistake made there is not
repeated here. It is quick enough for simulations (struct, no packet library); tests/unit/tcp/test_kit_segment.py holds
it against scapy. Nothing here sends, keeps time or knows a connection.

Read first: RFC 9293 section 3.1 and 3.2 (header, options), RFC 791 section 3.1, RFC 826, RFC 792.
Above: peer, pair, and the test suites. Below: the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
SEQUENCE_MASK = 0xFFFFFFFF

# In the order of the bits, from FIN (0x01) to CWR (0x80), by the letters that tcpdump and scapy use; N is 0x100: the
# nonce's bit in scapy's words, AE in RFC 9768's.
FLAG_LETTERS = "FSRPAUECN"

Options = Mapping[str, Any]


def flags_to_int(letters: str) -> int:
    """Control bits of flag letters: "SA" gives 0x12."""
    value = 0
    for letter in letters:
        value |= 1 << FLAG_LETTERS.index(letter)
    return value


def flags_to_letters(value: int) -> str:
    """Flag letters of control bits, in the order of the bits: 0x12 gives "SA"."""
    return "".join(letter for bit, letter in enumerate(FLAG_LETTERS) if value & (1 << bit))


def mac_bytes(mac: str) -> bytes:
    """The six bytes of a colon-separated station address."""
    return bytes.fromhex(mac.replace(":", ""))


def ipv4_bytes(address: str) -> bytes:
    """The four bytes of a dotted IPv4 address."""
    return bytes(int(part) for part in address.split("."))


def ipv4_text(octets: bytes) -> str:
    """A dotted IPv4 address."""
    return ".".join(str(octet) for octet in octets)


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the ones' complement of the ones' complement sum of all 16-bit words, 0 for data that sums to all ones.

    A number and the sum of its base-65536 digits are congruent modulo 65535, and that congruence is the sum.
    """
    if len(data) & 1:
        data += b"\0"
    rest = int.from_bytes(data, "big") % 0xFFFF
    if rest == 0 and any(data):
        return 0
    return rest ^ 0xFFFF


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment and the fields of the IPv4 packet around it that a test may care for.

    flags: letters of FLAG_LETTERS.  wnd: as on the wire, not scaled.  options: see emit_options.
    checksum_ok is what parse_frame found; build_frame does not read it.
    """

    src: str
    dst: str
    sport: int
    dport: int
    seq: int
    ack: int = 0
    flags: str = "A"
    wnd: int = 65535
    options: Options = field(default_factory=dict)
    payload: bytes = b""
    urgent: int = 0
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = True
    checksum_ok: bool = True

    @property
    def length(self) -> int:
        """SEG.LEN: bytes of sequence space, SYN and FIN counted."""
        return len(self.payload) + ("S" in self.flags) + ("F" in self.flags)

    @property
    def end(self) -> int:
        """The sequence number after the segment."""
        return (self.seq + self.length) & SEQUENCE_MASK

    def __str__(self) -> str:
        """RFC style: <SEQ=1><ACK=2><CTL=A><WND=3><LEN=4> and the options."""
        options = "".join(f" {name}={value}" for name, value in self.options.items())
        return (
            f"{self.sport}->{self.dport} <SEQ={self.seq}><ACK={self.ack}><CTL={self.flags}>"
            f"<WND={self.wnd}><LEN={len(self.payload)}>{options}"
        )


def emit_options(options: Options) -> bytes:
    """Option bytes in the mapping's order, padded with zeros to a word (MUST-69).

    mss: int.  wscale: int.  sack_permitted: True.  sack: [(left, right), ...].  timestamps: (value, echo reply).
    accecn: (172 or 174, its fields).  nop: how many.  eol: True.  raw: bytes as they are, for what no honest sender
    emits. A value of None is left out.
    """
    out = b""
    for name, value in options.items():
        if value is None:
            continue
        if name == "mss":
            out += struct.pack("!BBH", 2, 4, value)
        elif name == "wscale":
            out += struct.pack("!BBB", 3, 3, value)
        elif name == "sack_permitted":
            out += b"\x04\x02" if value else b""
        elif name == "sack":
            edges = [edge & SEQUENCE_MASK for block in value for edge in block]
            out += struct.pack(f"!BB{len(edges)}I", 5, 2 + 4 * len(edges), *edges)
        elif name == "timestamps":
            out += struct.pack("!BBII", 8, 10, value[0] & SEQUENCE_MASK, value[1] & SEQUENCE_MASK)
        elif name == "accecn":
            kind, fields = value
            out += bytes([kind, 2 + 3 * len(fields)]) + b"".join(field.to_bytes(3, "big") for field in fields)
        elif name == "nop":
            out += b"\x01" * value
        elif name == "eol":
            out += b"\x00"
        elif name == "raw":
            out += value
        else:
            raise ValueError(f"no such option: {name}")
    return out + b"\0" * (-len(out) % 4)


def parse_options(data: bytes) -> dict[str, Any]:
    """Options by name as emit_options takes them; what is not known goes to raw. NOP and EOL are left out.

    Raises ValueError for a length that is impossible: the stack under test must never send one.
    """
    found: dict[str, Any] = {}
    at = 0
    while at < len(data) and data[at] != 0:
        kind = data[at]
        if kind == 1:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            raise ValueError(f"TCP option {kind} has the impossible length {length}")
        body = data[at + 2 : at + length]
        if kind == 2 and length == 4:
            found["mss"] = int.from_bytes(body, "big")
        elif kind == 3 and length == 3:
            found["wscale"] = body[0]
        elif kind == 4 and length == 2:
            found["sack_permitted"] = True
        elif kind == 5:
            edges = struct.unpack(f"!{len(body) // 4}I", body)
            found["sack"] = list(zip(edges[::2], edges[1::2], strict=True))
        elif kind == 8 and length == 10:
            found["timestamps"] = struct.unpack("!II", body)
        elif kind in {172, 174} and length in {2, 5, 8, 11}:
            found["accecn"] = (kind, tuple(int.from_bytes(body[index : index + 3], "big") for index in range(0, length -
            2, 3)))
        else:
            found["raw"] = found.get("raw", b"") + data[at : at + length]
        at += length
    return found


def with_reserved_bits(frame: bytes, bits: int) -> bytes:
    """An IPv4 frame without options whose TCP header has these bits between the data offset and the flags (the last one
    is AE, RFC 9768); its checksum is as right as before."""
    out = bytearray(frame)
    before = int.from_bytes(out[46:48], "big")
    out[46] |= bits
    total = (int.from_bytes(out[50:52], "big") ^ 0xFFFF) + (before ^ 0xFFFF) + int.from_bytes(out[46:48], "big")
    total = (total & 0xFFFF) + (total >> 16)
    out[50:52] = (((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(out)


def ipv4_header(
    src: bytes,
    dst: bytes,
    payload_length: int,
    protocol: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    fragment: int = 0x4000,
    options: bytes = b"",
) -> bytes:
    """An IPv4 header with its checksum. fragment: flags and offset, 0x4000 is DF."""
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        tos,
        words * 4 + payload_length,
        identification,
        fragment,
        ttl,
        protocol,
        0,
        src,
        dst,
    )
    checksum = internet_checksum(head + options)
    return head[:10] + checksum.to_bytes(2, "big") + head[12:] + options


def build_frame(
    segment: Segment,
    *,
    src_mac: str,
    dst_mac: str,
    data_offset: int | None = None,
    checksum: int | None = None,
    ip_options: bytes = b"",
) -> bytes:
    """The Ethernet frame of a segment, complete with both checksums.

    data_offset (in words) and checksum replace the right values, for malformed segments.
    """
    src = ipv4_bytes(segment.src)
    dst = ipv4_bytes(segment.dst)
    options = emit_options(segment.options)
    words = 5 + len(options) // 4 if data_offset is None else data_offset
    tcp = (
        struct.pack(
            "!HHIIHHHH",
            segment.sport,
            segment.dport,
            segment.seq & SEQUENCE_MASK,
            segment.ack & SEQUENCE_MASK,
            (words & 0xF) << 12 | flags_to_int(segment.flags),
            segment.wnd,
            0,
            segment.urgent,
        )
        + options
        + segment.payload
    )
    pseudo = src + dst + struct.pack("!BBH", 0, PROTOCOL_TCP, len(tcp))
    if checksum is None:
        checksum = internet_checksum(pseudo + tcp)
    ip = ipv4_header(
        src,
        dst,
        len(tcp),
        PROTOCOL_TCP,
        ttl=segment.ttl,
        tos=segment.tos,
        identification=segment.identification,
        fragment=0x4000 if segment.dont_fragment else 0,
        options=ip_options,
    )
    ethernet = mac_bytes(dst_mac) + mac_bytes(src_mac) + b"\x08\x00"
    return ethernet + ip + tcp[:16] + checksum.to_bytes(2, "big") + tcp[18:]


def parse_frame(frame: bytes) -> Segment | None:
    """The segment in a frame, None if the frame carries no IPv4 TCP segment. Padding after the packet is ignored.

    Raises ValueError where lengths contradict each other.
    """
    if len(frame) < 34 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != PROTOCOL_TCP:
        return None
    header = (frame[14] & 0xF) * 4
    total = int.from_bytes(frame[16:18], "big")
    if header < 20 or total < header + 20 or 14 + total > len(frame):
        raise ValueError(f"IPv4 lengths contradict each other: header {header}, total {total}, frame {len(frame)}")
    packet = frame[14 : 14 + total]
    tcp = packet[header:]
    sport, dport, seq, ack, flags, wnd, _, urgent = struct.unpack_from("!HHIIHHHH", tcp)
    offset = (flags >> 12) * 4
    if offset < 20 or offset > len(tcp):
        raise ValueError(f"TCP data offset {offset} of a segment of {len(tcp)} bytes")
    pseudo = packet[12:20] + struct.pack("!BBH", 0, PROTOCOL_TCP, len(tcp))
    return Segment(
        src=ipv4_text(packet[12:16]),
        dst=ipv4_text(packet[16:20]),
        sport=sport,
        dport=dport,
        seq=seq,
        ack=ack,
        flags=flags_to_letters(flags & 0x1FF),
        wnd=wnd,
        options=parse_options(tcp[20:offset]) if offset > 20 else {},
        payload=tcp[offset:],
        urgent=urgent,
        ttl=packet[8],
        tos=packet[1],
        identification=int.from_bytes(packet[4:6], "big"),
        dont_fragment=bool(packet[6] & 0x40),
        checksum_ok=internet_checksum(packet[:header]) == 0 and internet_checksum(pseudo + tcp) == 0,
    )


# ---------------------------------------------------------------- the other protocols of the wire


def build_arp(
    *, operation: int, sender_mac: str, sender: str, target: str, target_mac: str = "00:00:00:00:00:00", dst_mac: str
) -> bytes:
    """An ARP frame (RFC 826) for IPv4 over Ethernet. operation: 1 asks, 2 answers."""
    return (
        mac_bytes(dst_mac)
        + mac_bytes(sender_mac)
        + b"\x08\x06"
        + struct.pack("!HHBBH", 1, ETHERTYPE_IPV4, 6, 4, operation)
        + mac_bytes(sender_mac)
        + ipv4_bytes(sender)
        + mac_bytes(target_mac)
        + ipv4_bytes(target)
    )


def build_icmp(
    icmp_type: int, code: int, rest: bytes, body: bytes, *, src: str, dst: str, src_mac: str, dst_mac: str
) -> bytes:
    """An ICMP frame. rest: the four bytes after the checksum (identifier and sequence, next-hop MTU, ...)."""
    message = struct.pack("!BBH", icmp_type, code, 0) + rest + body
    message = message[:2] + internet_checksum(message).to_bytes(2, "big") + message[4:]
    ip = ipv4_header(ipv4_bytes(src), ipv4_bytes(dst), len(message), PROTOCOL_ICMP)
    return mac_bytes(dst_mac) + mac_bytes(src_mac) + b"\x08\x00" + ip + message


def build_icmp_error(
    icmp_type: int, code: int, quoted: bytes, *, mtu: int = 0, src: str, dst: str, src_mac: str, dst_mac: str
) -> bytes:
    """An ICMP error about the frame `quoted`: its IP header and eight bytes (RFC 792). mtu: of code 4, else 0."""
    header = (quoted[14] & 0xF) * 4
    return build_icmp(
        icmp_type,
        code,
        struct.pack("!HH", 0, mtu),
        quoted[14 : 14 + header + 8],
        src=src,
        dst=dst,
        src_mac=src_mac,
        dst_mac=dst_mac,
    )

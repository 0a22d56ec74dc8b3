# SPDX-License-Identifier: MIT
"""Rules that both ends of a connection must keep, judged from nothing but the segments that they send.

The oracle sees a segment when it is sent, before the wire loses or delays it. What an end cannot know yet it must not
use: so every rule sets a segment against what the other end has sent by then.

    one connection, both ends honest    a SYN that is sent again, after an attempt that failed, begins anew

Read first: RFC 9293 section 3.4 and 3.8.6, RFC 7323 sections 2.3, 4 and 5, RFC 2018, RFC 2883.
"""

import itertools
from dataclasses import dataclass, field

from ustack.testing.segment import SEQUENCE_MASK, Segment, parse_frame

PROBE = 1  # RFC 9293 section 3.8.6.1: a byte beyond a closed window


@dataclass
class End:
    """What one end has sent. Positions count from its initial sequence number, which is 0; its first byte is 1."""

    isn: int = -1
    wscale: int | None = None
    may_sack: bool = False
    stamps: bool = False
    top: int = 0  # one past the last position that was sent
    ack: int = 0  # of the other's positions
    edge: int = 0  # the same, the rightmost that was promised
    ts_val: int = 0
    fin: int | None = None
    stream: bytearray = field(default_factory=bytearray)


class WireRules:
    """add() takes each frame when it is sent; an AssertionError says which rule it breaks."""

    def __init__(self) -> None:
        """Nothing has been sent."""
        self.ends: dict[tuple[str, int], End] = {}
        self.segments = 0
        self.probes = 0
        self.selective = 0
        self.duplicates = 0

    def add(self, now_ns: int, frame: bytes) -> None:
        """One more frame; ARP and ICMP are passed over."""
        segment = parse_frame(frame)
        if segment is None:
            return
        self.segments += 1
        assert segment.dont_fragment
        if "R" not in segment.flags:
            self.judge(segment)

    def judge(self, segment: Segment) -> None:
        """A segment of a connection that begins or is there."""
        end = self.ends.setdefault((segment.src, segment.sport), End())
        other = self.ends.setdefault((segment.dst, segment.dport), End())
        if "S" in segment.flags:
            self.begin(segment, end)
        else:
            assert "A" in segment.flags
            self.data(segment, end, other)
        if "A" in segment.flags:
            self.acknowledgement(segment, end, other)
        self.timestamps(segment, end, other)

    def begin(self, segment: Segment, end: End) -> None:
        """A SYN, which may come again."""
        if end.isn != segment.seq:
            vars(end).update(vars(End()))
        assert not segment.payload
        end.isn = segment.seq
        end.top = max(end.top, 1)
        end.wscale = segment.options.get("wscale")
        end.may_sack = "sack_permitted" in segment.options
        end.stamps = "timestamps" in segment.options

    def data(self, segment: Segment, end: End, other: End) -> None:
        """RFC 9293 section 3.4: one byte for one number, without a hole; 3.8.6: within the window, but for a probe."""
        start = signed(segment.seq - end.isn, end.top)
        stop = start + segment.length
        assert start <= end.top, f"a hole before {start}: {end.top} is next"
        if segment.payload:
            assert start >= 1
            at = start - 1
            known = bytes(end.stream[at : at + len(segment.payload)])
            assert segment.payload.startswith(known), f"other bytes at {start}"
            end.stream += segment.payload[len(known) :]
        if "F" in segment.flags:
            assert end.fin in (None, stop), "the end of the stream has moved"
            end.fin = stop
        assert end.fin is None or stop <= end.fin, "data after the end"
        if stop > max(end.top, other.edge):
            self.probes += 1
            assert stop <= other.edge + PROBE, f"{stop} is beyond the window's edge {other.edge}"
        end.top = max(end.top, stop)

    def acknowledgement(self, segment: Segment, end: End, other: End) -> None:
        """RFC 9293: neither what was not sent, nor less than before, nor a window that is taken back (SHLD-14)."""
        assert other.isn >= 0
        ack = signed(segment.ack - other.isn, end.ack)
        assert end.ack <= ack <= other.top, f"ACK {ack}: {end.ack} before, {other.top} sent"
        end.ack = ack
        both_scale = end.wscale is not None and other.wscale is not None
        shift = (end.wscale or 0) if both_scale and "S" not in segment.flags else 0
        edge = ack + (segment.wnd << shift)
        assert edge > end.edge - (1 << shift), f"the window's edge moves from {end.edge} to {edge}"
        end.edge = max(end.edge, edge)
        blocks = [(signed(a - other.isn, ack), signed(b - other.isn, ack)) for a, b in segment.options.get("sack", ())]
        assert not blocks or (end.may_sack and other.may_sack)
        for number, (left, right) in enumerate(blocks):
            assert left < right <= other.top, f"SACK [{left}, {right}) of {other.top}"
            inside = number == 0 and len(blocks) > 1 and blocks[1][0] <= left and right <= blocks[1][1]
            if right <= ack or inside:  # RFC 2883 section 4: the first one may report a duplicate
                assert number == 0
                self.duplicates += 1
            else:
                assert left > ack, f"SACK [{left}, {right}) reaches below the ACK {ack}"
                self.selective += 1
        apart = sorted(block for block in blocks if block[0] > ack)
        inside = any(b[0] <= a[0] and a[1] <= b[1] for a in apart for b in apart if a != b)
        if len(apart) == len(set(apart)) and not inside:
            assert all(a[1] < b[0] for a, b in itertools.pairwise(apart)), f"SACK blocks touch: {apart}"

    def timestamps(self, segment: Segment, end: End, other: End) -> None:
        """RFC 7323 section 3.2: on every segment or on none; an echo is of what was sent; values do not go back."""
        has = "timestamps" in segment.options
        if "S" not in segment.flags:
            assert has == (end.stamps and other.stamps)
        if not has:
            return
        value, echo = segment.options["timestamps"]
        if end.ts_val:
            assert (value - end.ts_val) & SEQUENCE_MASK < 1 << 31, "the clock goes back"
        end.ts_val = value
        if "A" in segment.flags:
            assert (other.ts_val - echo) & SEQUENCE_MASK < 1 << 31, "an echo of what was never sent"


def signed(number: int, near: int) -> int:
    """The position that `number` means modulo 2^32, near another one."""
    return near + (number - near + 0x80000000 & SEQUENCE_MASK) - 0x80000000

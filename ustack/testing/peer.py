# SPDX-License-Identifier: MIT
"""A scripted TCP peer: send and expect segments, in the words of the RFC.

    peer = ScriptedPeer(testbed, port=40000)
    peer.send("S", options={"mss": 1460})
    peer.expect("SA", seq=0, ack=1, options={"mss": 1460})
    peer.send("A")
    peer.send("PA", payload=b"hello")
    peer.expect("A", ack=6)

Sequence numbers in scripts are relative: 0 is the sender's SYN, 1 its first byte of data. `isn + relative` is what
goes on the wire, and `isn` is just under 2^32, so every script runs across the wrap. A peer does nothing by itself
except remember where it is: the default seq is the next one in its sequence space, the default ack everything that the
script has expected so far.

Above: states, test suites. Below: testbed, segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ustack.testing.segment import (
    SEQUENCE_MASK,
    Segment,
    build_frame,
    build_icmp_error,
    flags_to_int,
    flags_to_letters,
)
from ustack.testing.testbed import BROADCAST_MAC, MILLISECOND, PEER_ADDRESS, PEER_MAC, SECOND, Testbed

PEER_ISN = 0x1_0000_0000 - 51
"""Fifty bytes of data, then the wrap."""

Matcher = Callable[[Any], bool]


class _Any:
    """Matches everything."""

    def __call__(self, value: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANY"


ANY = _Any()


class _Named:
    """A predicate that can say what it wants."""

    def __init__(self, name: str, test: Matcher) -> None:
        self._name = name
        self._test = test

    def __call__(self, value: Any) -> bool:
        return self._test(value)

    def __repr__(self) -> str:
        return self._name


def at_least(bound: int) -> Matcher:
    """Matches bound and everything above."""
    return _Named(f"at least {bound}", lambda value: value >= bound)


def at_most(bound: int) -> Matcher:
    """Matches bound and everything below."""
    return _Named(f"at most {bound}", lambda value: value <= bound)


def between(low: int, high: int) -> Matcher:
    """Matches low, high and what lies between them."""
    return _Named(f"between {low} and {high}", lambda value: low <= value <= high)


def one_of(*choices: Any) -> Matcher:
    """Matches any of the choices."""
    return _Named(f"one of {choices}", lambda value: value in choices)


def length(octets: int) -> Matcher:
    """Matches a payload of so many bytes."""
    return _Named(f"{octets} bytes", lambda value: len(value) == octets)


def matches(expected: Any, value: Any) -> bool:
    """Whether a value is what a script expects: a matcher is asked, anything else compared."""
    return bool(expected(value)) if callable(expected) else bool(expected == value)


class ScriptedPeer:
    """One TCP endpoint on the free end of a testbed's wire.

    port: ours.  stack_port: the stack's; None: that of the first segment which arrives.
    """

    def __init__(
        self,
        testbed: Testbed,
        *,
        port: int = 40000,
        stack_port: int | None = 80,
        address: str = PEER_ADDRESS,
        isn: int = PEER_ISN,
    ) -> None:
        """Join the testbed's wire."""
        self.testbed = testbed
        self.address = address
        self.port = port
        self.stack_port = stack_port
        self.isn = isn
        self.iss: int | None = None
        """The stack's initial sequence number, once a SYN of it has been expected."""
        self.snd_nxt = 0
        """Relative: the default seq of send()."""
        self.rcv_nxt = 0
        """Relative: the default ack of send(), after everything expected."""
        self.wnd = 65535
        self.timestamps = False
        """Put a timestamps option into every segment."""
        self.ts_recent = 0
        self.ts_offset = 0xFFFFFF00
        self.queue: deque[Segment] = deque()
        """Segments that have arrived and were not yet expected."""
        testbed.peers[(address, port)] = self
        testbed.answers_arp_for.add(address)

    # ------------------------------------------------------------ from the testbed

    def take(self, segment: Segment) -> bool:
        """A segment for our address and port; False if it comes from a port that is not our stack_port."""
        if self.stack_port is None:
            self.stack_port = segment.sport
        if segment.sport != self.stack_port:
            return False
        if "timestamps" in segment.options:
            self.ts_recent = segment.options["timestamps"][0]
        self.queue.append(segment)
        return True

    # ------------------------------------------------------------ sending

    @property
    def ts_now(self) -> int:
        """The value of our timestamp clock: milliseconds, just under 2^32 at first."""
        return (self.testbed.now_ns // MILLISECOND + self.ts_offset) & SEQUENCE_MASK

    def segment(
        self,
        flags: str = "A",
        *,
        seq: int | None = None,
        ack: int | None = None,
        wnd: int | None = None,
        options: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        urgent: int = 0,
        **ip_fields: Any,
    ) -> Segment:
        """A segment of ours with absolute numbers, not sent. Parameters as send()."""
        options = dict(options or {})
        if self.timestamps and "timestamps" not in options:
            options = {"nop": 2, "timestamps": (self.ts_now, self.ts_recent), **options}
        if ack is None:
            ack = self.rcv_nxt
        base = 0 if self.iss is None else self.iss
        return Segment(
            src=ip_fields.pop("src", self.address),
            dst=ip_fields.pop("dst", self.testbed.stack_address),
            sport=self.port,
            dport=ip_fields.pop("dport", self.stack_port or 0),
            seq=(self.isn + (self.snd_nxt if seq is None else seq)) & SEQUENCE_MASK,
            ack=(base + ack) & SEQUENCE_MASK if "A" in flags else 0,
            flags=flags,
            wnd=self.wnd if wnd is None else wnd,
            options=options,
            payload=payload,
            urgent=urgent,
            **ip_fields,
        )

    def frame(self, segment: Segment, **malformed: Any) -> bytes:
        """The frame of a segment of ours. malformed: see segment.build_frame."""
        malformed.setdefault("dst_mac", self.testbed.stack_mac)
        return build_frame(segment, src_mac=PEER_MAC, **malformed)

    def send(
        self,
        flags: str = "A",
        *,
        seq: int | None = None,
        ack: int | None = None,
        wnd: int | None = None,
        options: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        urgent: int = 0,
        pump: bool = True,
        malformed: Mapping[str, Any] | None = None,
        **ip_fields: Any,
    ) -> Segment:
        """Send one segment; returns it, with absolute numbers.

        seq, ack: relative; seq given explicitly does not move snd_nxt.  wnd: as on the wire.  options: see
        segment.emit_options; {"timestamps": None} leaves the automatic one out.  pump: let the stack act on it at once.
        malformed: see segment.build_frame.  ip_fields: src, dst, dport, ttl, tos, identification of segment.Segment.
        """
        segment = self.segment(
            flags, seq=seq, ack=ack, wnd=wnd, options=options, payload=payload, urgent=urgent, **ip_fields
        )
        if seq is None:
            self.snd_nxt += segment.length
        self.testbed.inject(self.frame(segment, **(malformed or {})), pump=pump)
        return segment

    def from_stack(self, flags: str = "A", *, seq: int, payload: bytes = b"") -> Segment:
        """A segment as the stack would send it on this connection, for an ICMP error to quote."""
        return Segment(
            src=self.testbed.stack_address,
            dst=self.address,
            sport=self.stack_port or 0,
            dport=self.port,
            seq=((self.iss or 0) + seq) & SEQUENCE_MASK,
            ack=(self.isn + self.snd_nxt) & SEQUENCE_MASK,
            flags=flags,
            payload=payload,
        )

    def send_icmp_error(
        self, icmp_type: int, code: int, about: Segment, *, mtu: int = 0, router: str | None = None
    ) -> None:
        """Send an ICMP error about a segment that the stack sent. router: who complains, by default ourselves."""
        self.testbed.inject(
            build_icmp_error(
                icmp_type,
                code,
                build_frame(about, src_mac=self.testbed.stack_mac, dst_mac=PEER_MAC),
                mtu=mtu,
                src=router or self.address,
                dst=self.testbed.stack_address,
                src_mac=PEER_MAC,
                dst_mac=self.testbed.stack_mac,
            )
        )

    # ------------------------------------------------------------ expecting

    def relative(self, segment: Segment) -> tuple[int, int]:
        """(seq, ack) of a segment of the stack, relative to both initial sequence numbers."""
        iss = segment.seq if self.iss is None else self.iss
        ack = (segment.ack - self.isn) & SEQUENCE_MASK if "A" in segment.flags else 0
        return (segment.seq - iss) & SEQUENCE_MASK, ack

    def expect(
        self,
        flags: Any = ANY,
        *,
        seq: Any = ANY,
        ack: Any = ANY,
        wnd: Any = ANY,
        payload: Any = b"",
        options: Mapping[str, Any] | None = None,
        urgent: Any = ANY,
    ) -> Segment:
        """Take the next segment and fail unless it is as described; returns it, with absolute numbers.

        flags: letters; PSH is compared only if it is named.  seq, ack: relative.  payload: none, unless said
        otherwise.  options: the named ones are compared; None: must be absent.  Every value may be a matcher.
        """
        assert self.queue, f"expected <CTL={flags}> seq={seq} ack={ack}, but nothing came\n{self.describe()}"
        segment = self.queue.popleft()
        if "S" in segment.flags and self.iss is None:
            self.iss = segment.seq
        got_seq, got_ack = self.relative(segment)
        got_flags = segment.flags
        if isinstance(flags, str):
            flags = flags_to_letters(flags_to_int(flags))
            got_flags = got_flags if "P" in flags else got_flags.replace("P", "")
        wanted = {"flags": flags, "seq": seq, "ack": ack, "wnd": wnd, "payload": payload, "urgent": urgent}
        got = {
            "flags": got_flags,
            "seq": got_seq,
            "ack": got_ack,
            "wnd": segment.wnd,
            "payload": segment.payload,
            "urgent": segment.urgent,
        }
        for name, value in (options or {}).items():
            wanted[f"option {name}"] = value
            got[f"option {name}"] = segment.options.get(name)
        wrong = [f"{name}: expected {_short(wanted[name])}, got {_short(got[name])}" for name in wanted
                 if not matches(wanted[name], got[name])]  # fmt: skip
        assert not wrong, "; ".join(wrong) + f"\nof {self._line(segment)}\n{self.describe()}"
        if got_seq == self.rcv_nxt and "R" not in segment.flags:
            self.rcv_nxt += segment.length
        return segment

    def expect_nothing(self) -> None:
        """Fail if a segment has arrived that the script did not expect."""
        assert not self.queue, f"expected nothing\n{self.describe()}"

    def expect_after(self, duration_ns: int, flags: Any = ANY, **fields: Any) -> Segment:
        """Expect the next segment duration_ns from now, give or take a millisecond (timers tick four times in one)."""
        self.expect_nothing()
        start = self.testbed.now_ns
        self.wait(duration_ns + SECOND)
        segment = self.expect(flags, **fields)
        took = self.testbed.now_ns - start
        slack = MILLISECOND
        assert duration_ns - slack <= took <= duration_ns + slack, (
            f"expected after {duration_ns / MILLISECOND} ms, came after {took / MILLISECOND} ms"
        )
        return segment

    def wait(self, limit_ns: int) -> int:
        """Let time pass until a segment is there; how long it took. Fails when limit_ns is not enough."""
        return self.testbed.run_until(lambda: bool(self.queue), limit_ns)

    def drain(self) -> list[Segment]:
        """Take everything that has arrived, whatever it is."""
        taken = list(self.queue)
        self.queue.clear()
        return taken

    def catch_up(self) -> bytes:
        """Take everything that has arrived and count in-order data as received; returns that data."""
        data = b""
        while self.queue:
            segment = self.queue.popleft()
            seq, _ = self.relative(segment)
            if seq == self.rcv_nxt:
                self.rcv_nxt += segment.length
                data += segment.payload
        return data

    # ------------------------------------------------------------ messages

    def _line(self, segment: Segment) -> str:
        seq, ack = self.relative(segment)
        options = "".join(f" {name}={value}" for name, value in segment.options.items())
        return f"  <SEQ={seq}><ACK={ack}><CTL={segment.flags}><WND={segment.wnd}><LEN={len(segment.payload)}>{options}"

    def describe(self) -> str:
        """The queue and the stack's drops, for a failure's message."""
        lines = [self._line(segment) for segment in self.queue] or ["  (queue empty)"]
        return "\n".join([*lines, f"  dropped since mark: {self.testbed.dropped()}"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(value) if isinstance(value, bytes) else len(text)})"


__all__ = [
    "ANY", "BROADCAST_MAC", "PEER_ISN", "Matcher", "ScriptedPeer", "at_least", "at_most", "between", "length",
    "matches", "one_of",
]  # fmt: skip

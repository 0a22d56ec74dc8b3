# SPDX-License-Identifier: MIT
"""The profile `linux` beside Linux: one script for the machine's own kernel and for this stack, and the same answers.

What kernels differ in among each other is set in the kernel's namespace (the largest receive buffer) or not looked at.
Each script returns what it has seen. tests/unit/tcp/test_profiles.py has the profile's own, in virtual time.
"""

import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, Testbed
from ustack.tools.conformance.kernelbed import KernelTestbed

pytestmark = [pytest.mark.root, pytest.mark.tap, pytest.mark.timeout(120)]

# Of a kernel whose windows are those of the profile; without tail loss probes, whose timer is another matter.
SYSCTLS = {"tcp_rmem": "4096 131072 6291456", "tcp_early_retrans": 0, "tcp_syncookies": 1, "tcp_ecn": 2}
ATTEMPTS = 20


class End(ABC):
    """A TCP under test and its application: one listener, one connection."""

    bed: Any

    def listen(self, backlog: int = 16) -> None:
        """On port 80."""
        self.listener = self.bed.stack.listen(80, backlog=backlog)

    def connect(self, port: int) -> None:
        """To the peer."""
        self.connection = self.bed.stack.connect(PEER_ADDRESS, port, wait=False)
        self.bed.pump()

    def send(self, data: bytes) -> None:
        """One write."""
        assert self.connection.send(data) in {len(data), None}
        self.bed.pump()

    @abstractmethod
    def keep_alive(self) -> None:
        """A probe after a second of silence."""

    @abstractmethod
    def timeout_beyond_srtt_us(self) -> int:
        """From SRTT to the retransmission timeout."""

    def open(self) -> ScriptedPeer:
        """A peer with an established connection to port 80, which has been accepted."""
        self.listen()
        peer = ScriptedPeer(self.bed)
        peer.send("S", options=ALL_OPTIONS)
        peer.expect("SA")
        peer.timestamps = True
        peer.send("A")
        self.connection = self.listener.accept(timeout=0)
        return peer


class Kernel(End):
    """This machine's."""

    def __init__(self, **options: Any) -> None:
        self.bed = KernelTestbed(settings=SYSCTLS, **options)

    def keep_alive(self) -> None:
        self.connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def timeout_beyond_srtt_us(self) -> int:
        info = self.connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (rto_us,), (srtt_us,) = struct.unpack_from("=I", info, 8), struct.unpack_from("=I", info, 68)
        return int(rto_us - srtt_us)


class Ours(End):
    """A stack with the profile."""

    def __init__(self) -> None:
        self.bed = Testbed(profile="linux", keepalive_idle_ns=SECOND)
        self.bed.introduce()
        self.bed.frames.clear()

    def keep_alive(self) -> None:
        self.connection.keepalive = True

    def timeout_beyond_srtt_us(self) -> int:
        info = self.connection.info()
        return int(info.rto_us - info.rtt_us)


@contextmanager
def opened(kind: Callable[..., End]) -> Iterator[End]:
    """One end, gone afterwards with all that it holds."""
    end = kind()
    try:
        yield end
    finally:
        if isinstance(end.bed, Testbed):
            end.bed.stack.close()
        else:
            end.bed.close()


def both(script: Callable[[End], Any]) -> tuple[Any, Any]:
    """What a script sees of the kernel, and of the stack."""
    seen = []
    for kind in (Kernel, Ours):
        with opened(kind) as end:
            seen.append(script(end))
    return seen[0], seen[1]


def within(limit_ns: int, script: Callable[[End], Any]) -> Callable[[End], Any]:
    """The same, of a run that was not held up: the kernel's timers go on while this process waits for a processor."""

    def run(end: End) -> Any:
        start = end.bed.now_ns
        seen = script(end)
        if end.bed.now_ns - start <= limit_ns:
            return seen
        for _ in range(ATTEMPTS):
            with opened(type(end)) as another:
                start = another.bed.now_ns
                seen = script(another)
                if another.bed.now_ns - start <= limit_ns:
                    return seen
        pytest.skip("this machine is too busy to tell what comes at once")

    return run


def header_of_syn(end: End) -> str:
    """Data offset to the end of options of the latest SYN, but for the checksum and what timestamps say."""
    frame = next(frame for frame in reversed(end.bed.frames) if frame[12:14] == b"\x08\x00" and frame[47] & 2)
    header = bytearray(frame[34 : 34 + (frame[46] >> 4) * 4])
    header[16:18] = b"\0\0"
    at = 20
    while at < len(header) and header[at]:
        if header[at] == 8:
            header[at + 2 : at + 10] = bytes(8)
        at += 1 if header[at] == 1 else header[at + 1]
    return header[12:].hex(" ")


# ---------------------------------------------------------------- SYN


OFFERS: dict[str, dict[str, Any]] = {
    "all": {**ALL_OPTIONS},
    "mss": {"mss": 1460},
    "small mss": {"mss": 536, "nop": 1, "wscale": 2},
    "sack": {"mss": 1460, "sack_permitted": True},
    "timestamps": {"mss": 1460, "timestamps": (1, 0)},
    "none": {},
}


@pytest.mark.parametrize("offer", OFFERS)
def test_syn_ack_byte_by_byte(offer: str) -> None:
    """Flags, window, the order of options, MSS, window scale."""

    def script(end: End) -> str:
        end.listen()
        peer = ScriptedPeer(end.bed)
        peer.send("S", options=OFFERS[offer])
        peer.expect("SA")
        return header_of_syn(end)

    kernel, ours = both(script)
    assert ours == kernel


def test_syn_and_third_segment_byte_by_byte() -> None:
    def script(end: End) -> list[Any]:
        peer = ScriptedPeer(end.bed, port=7777, stack_port=None)
        end.connect(7777)
        peer.expect("S")
        syn = header_of_syn(end)
        peer.send("SA", options={**ALL_OPTIONS, "timestamps": (peer.ts_now, peer.ts_recent)})
        peer.wait(SECOND)
        third = peer.expect("A", seq=1, ack=1)
        return [syn, third.wnd, list(third.options)]

    kernel, ours = both(script)
    assert ours == kernel


# ---------------------------------------------------------------- ACKs


def test_how_many_acks_go_at_once() -> None:
    """Of small segments without PSH, which nobody reads or answers."""

    def script(end: End) -> list[bool]:
        peer = end.open()
        at_once = []
        for _ in range(17):
            peer.send("A", payload=bytes(500))
            at_once.append(bool(peer.drain()))
        return at_once

    kernel, ours = both(within(30 * MILLISECOND, script))
    assert ours == kernel == [True] * 16 + [False]


@pytest.mark.parametrize(
    ("what", "segment"),
    [
        ("junk", {"seq": 0x30000000}),
        ("keep-alive", {"seq": 0}),
        ("ACK of what was never sent", {"ack": 1000}),
        ("RST in the window", {"flags": "R", "seq": 100}),
        ("SYN in the window", {"flags": "S", "seq": 100}),
        ("old data", {"seq": 0, "payload": b"x"}),
    ],
)
def test_how_often_a_connection_is_corrected(what: str, segment: dict[str, Any]) -> None:
    """Forty times the same."""

    def script(end: End) -> int:
        peer = end.open()
        for _ in range(40):
            peer.send(**segment)
        return len(peer.drain())

    kernel, ours = both(within(400 * MILLISECOND, script))
    assert ours == kernel == (40 if what == "old data" else 1)


# ---------------------------------------------------------------- probes


def test_what_probes_a_closed_window_and_a_silent_peer() -> None:
    """Sequence numbers from SND.UNA, and how much data: of three probes of a window, and a keep-alive."""

    def script(end: End) -> list[tuple[int, int, str]]:
        peer = end.open()
        end.send(b"a" * 10)
        peer.wait(SECOND)
        peer.catch_up()
        peer.send("A", wnd=0)
        end.send(b"b" * 10)
        seen = []
        for _ in range(3):
            peer.wait(5 * SECOND)
            segment = peer.queue.popleft()
            seen.append((peer.relative(segment)[0] - 11, len(segment.payload), segment.flags))
            peer.send("A", wnd=0)
        peer.send("A")
        peer.wait(5 * SECOND)
        peer.catch_up()
        peer.send("A")
        end.keep_alive()
        peer.wait(5 * SECOND)
        segment = peer.queue.popleft()
        seen.append((peer.relative(segment)[0] - 21, len(segment.payload), segment.flags))
        return seen

    kernel, ours = both(script)
    assert ours == kernel == [(-1, 0, "A")] * 4


# ---------------------------------------------------------------- PSH


def test_each_frame_of_several_segments_ends_with_a_push() -> None:
    """Of the kernel: the unit test asks the profile. Frames that end what was written are not counted."""
    with opened(lambda: Kernel(segments=True)) as end:
        peer = end.open()
        total = 20_000
        end.send(bytes(total))
        end.bed.run_until(lambda: sum(len(one.payload) for one in peer.queue) >= 10 * 1448, 5 * SECOND)
        several = [
            bool(frame[47] & 8)
            for frame, gso_size in zip(end.bed.frames, end.bed.gso_sizes, strict=True)
            if gso_size and len(frame) > 66 + gso_size
        ]
        assert several
        assert all(several)
        assert sum(len(one.payload) for one in peer.queue) < total


def test_writes_that_go_out_at_once_end_with_a_push() -> None:
    """One that is a segment, and one of two and a half."""

    def script(end: End) -> list[tuple[int, int, bool]]:
        peer = end.open()
        for octets in (1448, 700):
            end.send(bytes(octets))
        end.bed.run_until(lambda: len(peer.queue) >= 2, 5 * SECOND)
        return [(peer.relative(one)[0], len(one.payload), "P" in one.flags) for one in peer.drain()]

    kernel, ours = both(within(150 * MILLISECOND, script))
    assert ours == kernel


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("backlog", [1, 3])
def test_how_many_a_backlog_holds(backlog: int) -> None:
    def script(end: End) -> int:
        end.listen(backlog)
        answered = 0
        for port in range(41000, 41000 + backlog + 4):
            peer = ScriptedPeer(end.bed, port=port)
            peer.send("S", options={"mss": 1460})
            if peer.queue:
                answered += 1
                peer.expect("SA")
                peer.send("A")
        return answered

    kernel, ours = both(script)
    assert ours == kernel == backlog + 1


def test_the_timeout_lies_200_ms_beyond_the_round_trip() -> None:
    """A path of 60 ms, which is much more than its variance. The kernel counts in ticks of up to 10 ms."""

    def script(end: End) -> int:
        peer = end.open()
        for _ in range(12):
            end.send(b"x")
            peer.wait(SECOND)
            peer.catch_up()
            end.bed.advance(60 * MILLISECOND)
            peer.send("A")
        return end.timeout_beyond_srtt_us()

    kernel, ours = both(script)
    assert 190_000 <= kernel <= 260_000
    assert 190_000 <= ours <= 260_000

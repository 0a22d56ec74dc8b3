# SPDX-License-Identifier: MIT
"""A wire between two links meets every truncation and many mutations of frames, whatever their device says about them.

Each frame is carried or counted under one reason; what is carried is no longer than its link takes, and is asked of no
device that could not be done. Under the address sanitizer (make asan-test) no byte outside of a frame is read or
written.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether

from ustack.bridge.wire import Wire
from ustack.link.memory import MemoryLink

MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
DATA = bytes(range(256)) * 6
OPTIONS: list[Any] = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
V4: dict[str, str] = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6: dict[str, str] = {"src": "fd00::1", "dst": "fd00::2"}
FRAMES = {
    "tcp over IPv4": bytes(Ether(**MACS) / IP(**V4, options=b"\1\1\1\0") / TCP(options=OPTIONS) / DATA),
    "tcp over IPv6": bytes(Ether(**MACS) / IPv6(**V6) / IPv6ExtHdrDestOpt() / TCP(options=OPTIONS) / DATA),
    "udp": bytes(Ether(**MACS) / Dot1Q(vlan=5) / IP(**V4) / UDP(dport=9) / DATA),
    "arp": bytes(Ether(**MACS) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")),
}
HEADERS = 110  # bytes that are worth a mutation
SAID: list[dict[str, Any]] = [
    {},
    {"checksum": "partial"},
    {"checksum": "partial", "vlan_id": 7},
    {"gso_size": 8},
    {"gso_size": 1000, "checksum": "partial"},
    {"gso_size": 65535, "checksum": "verified", "vlan_id": 4095},
]
REASONS = ("queue_dropped", "lost", "beyond_mtu", "too_long", "no_room")


class Joined:
    """Two links, the second with or without offloads, and a wire that impairs everything at once."""

    def __init__(self, *, offload: bool) -> None:
        self.stack = ExitStack()
        size = {"rx_slots": 4096, "held_frames": 65536, "tx_slots": 65536}
        self.a = self.stack.enter_context(MemoryLink(**size))
        self.b = self.stack.enter_context(MemoryLink(**size, checksum_offload=offload))
        self.wire = self.stack.enter_context(
            Wire(
                self.a,
                self.b,
                seed=5,
                rate_bps=10**9,
                mark_bytes=1,
                loss=0.05,
                reorder=0.1,
                duplicate=0.1,
                queue_frames=300,
                memory_bytes=1 << 18,
            )
        )
        self.now_ns = 0
        self.sent = 0

    def send(self, frame: bytes, **said: Any) -> None:
        if not self.a.inject(frame, **said):
            self.settle()
            assert self.a.inject(frame, **said)
        self.sent += 1

    def settle(self) -> None:
        """Everything arrives; what does is looked at."""
        after: int | None = self.now_ns
        while after is not None or self.a.waiting:
            self.now_ns = max(self.now_ns, after or 0)
            after = self.wire.turn(self.now_ns)
            for data, left in self.b.take():
                assert 14 <= len(data) <= 1514
                assert left["gso_size"] == 0
                assert not left["csum_start"] or left["csum_start"] + left["csum_offset"] + 2 <= len(data)

    def check(self) -> None:
        self.settle()
        counters = self.wire.counters()["forward"]
        assert counters["frames"] == self.sent
        dropped = sum(counters[name] for name in REASONS)
        assert counters["packets"] == counters["forwarded"] - counters["duplicated"] + dropped
        assert counters["travelling"] == 0
        assert counters["unreadable"] > 0
        assert counters["forwarded"] > 0
        assert self.b.counters()["tx_dropped"] == 0


@pytest.fixture(params=[True, False], ids=["offload", "no offload"])
def joined(request: pytest.FixtureRequest) -> Iterator[Joined]:
    made = Joined(offload=request.param)
    yield made
    made.check()
    made.stack.close()


@pytest.mark.parametrize("name", FRAMES)
def test_every_truncation(joined: Joined, name: str) -> None:
    frame = FRAMES[name]
    for length in [*range(HEADERS), len(frame) - 1, len(frame)]:
        for said in SAID:
            joined.send(frame[:length], **said)


@pytest.mark.parametrize("name", FRAMES)
def test_mutations_of_every_header_byte(joined: Joined, name: str) -> None:
    chance = random.Random(name)
    frame = FRAMES[name]
    for at in range(min(HEADERS, len(frame))):
        for value in {0, 255, *(frame[at] ^ (1 << bit) for bit in range(8)), chance.randrange(256)}:
            changed = bytearray(frame)
            changed[at] = value
            joined.send(bytes(changed), **SAID[(at + value) % len(SAID)])
            joined.send(bytes(changed), **chance.choice(SAID))
    joined.send(b"")


def test_frames_of_noise(joined: Joined) -> None:
    chance = random.Random(11)
    for _ in range(3000):
        data = bytearray(chance.randbytes(chance.choice((0, 13, 14, 20, 60, 200, 1514))))
        data[12:14] = chance.choice((b"\x08\x00", b"\x86\xdd", b"\x81\x00"))[: max(0, len(data) - 12)]
        if len(data) > 14:
            data[14] = chance.choice((0x45, 0x46, 0x4F, 0x60, data[14]))
        joined.send(bytes(data), gso_size=chance.choice((0, 0, 8, 100, 1448, 65535)), checksum="partial")
    joined.send(FRAMES["arp"])

# SPDX-License-Identifier: MIT
"""What several connections get of one bottleneck, between two stacks in virtual time.

    got = shares(("cubic", "cubic", "bbr"), rate_bps=20_000_000, round_trip_ms=40, queue_bdp=1, seconds=30)
    got.jain(), got.share(2), got.standing_queue_bytes()

All of them send from stack `b` to stack `a` as much as they may, each with a congestion control of its own, and begin
one after another. What arrives counts from `settle` seconds on. The queue is looked at every LOOK_NS: what is on the
wire, less what is between its end and the other stack.

Above: test suites. Below: pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ustack import Connection, WouldBlock
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS, read_available

MTU = 1500
FRAME_BYTES = MTU + 14
SEGMENT_BYTES = 1448  # with timestamps
LOOK_NS = 5 * MILLISECOND
QUEUES = {"rcv_buffer_bytes": 8 << 20, "snd_queue_bytes": 8 << 20}  # several products, so that the path is the limit
PIECE = bytes(1 << 18)
STAGGER_NS = 97 * MILLISECOND  # between two beginnings: no multiple of a round trip


def jain(rates: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1 / n where one has everything."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))


@dataclass(frozen=True)
class Shares:
    """What was measured, from `settle` on. rates: bytes of payload per second, in the order of the controls."""

    rates: tuple[float, ...]
    rate_bps: int
    queue_bytes: tuple[int, ...]
    """What stood in the queue, looked at every LOOK_NS."""
    drops: int

    def jain(self) -> float:
        """How equal they are."""
        return jain(self.rates)

    def share(self, index: int) -> float:
        """Of what all have got together."""
        return self.rates[index] / sum(self.rates)

    def utilisation(self) -> float:
        """Of what the bottleneck carries, less the headers."""
        return sum(self.rates) * 8 * FRAME_BYTES / SEGMENT_BYTES / self.rate_bps

    def mean_queue_bytes(self) -> float:
        """On average over time."""
        return sum(self.queue_bytes) / len(self.queue_bytes)

    def standing_queue_bytes(self) -> int:
        """What was exceeded for nine tenths of the time."""
        return sorted(self.queue_bytes)[len(self.queue_bytes) // 10]


class Bottleneck:
    """Two stacks, and connections from `b` to `a` through one queue. See shares()."""

    def __init__(self, *, rate_bps: int, round_trip_ms: int, queue_bdp: float, seed: int = 1, **config: Any) -> None:
        """config: settings of both stacks."""
        self.rate_bps = rate_bps
        self.bdp_bytes = rate_bps // 8 * round_trip_ms // 1000
        network = {
            "rate_bps": (0, rate_bps),
            "delay_ns": round_trip_ms * MILLISECOND // 2,
            "mtu": MTU,
            "queue_frames": max(4, int(self.bdp_bytes * queue_bdp / FRAME_BYTES)),
        }
        self.pair = Pair(seed=seed, network=network, **QUEUES | config)
        self.listener = self.pair.a.listen(80)
        self.senders: list[Connection] = []
        self.readers: dict[int, Connection] = {}
        self.received: dict[int, int] = {}
        self.queue_bytes: list[int] = []
        self._on_the_way = self.bdp_bytes // 2 // FRAME_BYTES  # of the frames on the wire, when it is busy

    def add(self, cc: str) -> Connection:
        """One more that sends."""
        self.senders.append(self.pair.b.connect(STACK_ADDRESS, 80, wait=False, cc=cc))
        return self.senders[-1]

    def run(self, duration_ns: int, look: Callable[[], None] | None = None) -> None:
        """Let time pass. look: every LOOK_NS."""
        end_ns = self.pair.now_ns + duration_ns
        while self.pair.now_ns < end_ns:
            self.pair.advance(min(LOOK_NS, end_ns - self.pair.now_ns))
            self._turn()
            wire = self.pair.network.stats()["ba"]
            frames = wire["sent"] - wire["queue_dropped"] - wire["delivered"]
            self.queue_bytes.append(max(0, frames - self._on_the_way) * FRAME_BYTES)
            if look is not None:
                look()

    def _turn(self) -> None:
        while self.listener.pending:
            reader = self.listener.accept(timeout=0)
            self.readers[reader.remote[1]] = reader
        for sender in self.senders:
            with suppress(WouldBlock):
                if sender.state == "ESTABLISHED":
                    sender.send(PIECE, timeout=0)
        for port, reader in self.readers.items():
            self.received[port] = self.received.get(port, 0) + len(read_available(reader)[0])

    def got(self) -> list[int]:
        """Bytes that have arrived, by sender."""
        return [self.received.get(sender.local[1], 0) for sender in self.senders]

    def drops(self) -> int:
        """Frames that found the queue full."""
        return int(self.pair.network.stats()["ba"]["queue_dropped"])

    def close(self) -> None:
        """End everything; asserts that nothing has leaked."""
        for connection in (*self.senders, *self.readers.values()):
            connection.abort()
        self.pair.pump()
        self.listener.close()
        self.pair.close()


def shares(
    controls: Sequence[str],
    *,
    rate_bps: int = 20_000_000,
    round_trip_ms: int = 40,
    queue_bdp: float = 1.0,
    settle: int = 10,
    seconds: int = 30,
    seed: int = 1,
    **config: Any,
) -> Shares:
    """Run and measure. config: settings of both stacks."""
    way = Bottleneck(rate_bps=rate_bps, round_trip_ms=round_trip_ms, queue_bdp=queue_bdp, seed=seed, **config)
    for cc in controls:
        way.add(cc)
        way.run(STAGGER_NS)
    way.run(settle * SECOND)
    before, drops = way.got(), way.drops()
    way.queue_bytes.clear()
    way.run(seconds * SECOND)
    rates = tuple((after - earlier) / seconds for after, earlier in zip(way.got(), before, strict=True))
    found = Shares(rates, rate_bps, tuple(way.queue_bytes), way.drops() - drops)
    way.close()
    return found

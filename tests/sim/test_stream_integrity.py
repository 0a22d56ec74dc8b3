# SPDX-License-Identifier: MIT
"""Every byte arrives once and in order, or the connection reports why not; and nothing leaks.

Two hundred seeds; each draws its wire (loss to 20 %, reordering, duplication, corruption, rate, queue), its two stacks
(tiny receive buffers, options on and off) and its two applications (slow readers, bursts, half-closes) from the grid
below, and both directions carry data at once.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.sim.wire_rules import WireRules
from ustack import Connection, StackError
from ustack.testing.leaks import refusals
from ustack.testing.pair import FrameHash, Pair
from ustack.testing.testbed import MICROSECOND, MILLISECOND, SECOND

SEEDS = 200
LIMIT_NS = 72 * 3600 * SECOND

LOSS = (0.0, 0.01, 0.05, 0.1, 0.2)
REORDER = (0.0, 0.0, 0.1, 0.3)
DUPLICATE = (0.0, 0.0, 0.05, 0.2)
CORRUPT = (0.0, 0.0, 0.02, 0.1)
DELAY_NS = (0, 100 * MICROSECOND, 5 * MILLISECOND, 80 * MILLISECOND)
MTU = (576, 1500, 1500, 9000)
PATH_MTU = (0, 0, 0, 600, 0, 1280, 0)
"""What is longer vanishes: a black hole, where the link's MTU is more. 0: nothing does."""
CONTROLS = ("newreno", "cubic", "bbr")
RCV_BUFFER = (2048, 5000, 20_000, 65_535, 512 * 1024)
SIZES = (0, 1, 1459, 20_000, 100_000, 300_000, 1_000_000)


@dataclass
class Application:
    """One end: writes its stream in bursts, reads the other's at its own pace."""

    generator: random.Random
    connection: Connection
    outgoing: bytes
    slow: bool
    waits_for_eof: bool
    """Sends its FIN only after the peer's: a server that answers. Otherwise as soon as everything is queued."""
    incoming: bytearray = field(default_factory=bytearray)
    queued: int = 0
    finished: bool = False
    end_seen: bool = False
    error: StackError | None = None
    wake_ns: int = 0
    idle: bool = False
    """Nothing to do until something arrives."""

    def turn(self, now_ns: int) -> None:
        """Read and write once, if it is time."""
        if self.error is not None or now_ns < self.wake_ns:
            return
        try:
            read, wrote = self._read(), self._write()
            self.idle = not read and not wrote
        except StackError as error:
            self.error = error
        if not self.idle:
            self.wake_ns = now_ns + (self.generator.choice((1, 20, 300)) if self.slow else 1) * MILLISECOND

    def _read(self) -> bool:
        """False: there was nothing."""
        if self.end_seen:
            return False
        most = self.generator.choice((1, 100, 1500, 5000)) if self.slow else 1 << 20
        try:
            piece = self.connection.receive(most, timeout=0)
        except BlockingIOError:
            return False
        self.incoming += piece
        self.end_seen = not piece
        return True

    def _write(self) -> bool:
        """False: there was nothing to write, or no room."""
        wrote = 0
        if self.queued < len(self.outgoing):
            burst = self.outgoing[self.queued : self.queued + self.generator.choice((1, 700, 10_000, 60_000))]
            wrote = self.connection.send(burst)
            self.queued += wrote
        if self.queued == len(self.outgoing) and not self.finished and (self.end_seen or not self.waits_for_eof):
            self.connection.shutdown()
            self.finished = True
        return wrote > 0

    @property
    def done(self) -> bool:
        """Nothing left to write or to read, or nobody to do it with."""
        return self.error is not None or (self.finished and self.end_seen)


def draw_pair(generator: random.Random, seed: int, observer: FrameHash | WireRules | None) -> Pair:
    """A wire and two stacks."""
    network: dict[str, Any] = {
        "loss": generator.choice(LOSS),
        "reorder": generator.choice(REORDER),
        "duplicate": generator.choice(DUPLICATE),
        "corrupt": generator.choice(CORRUPT),
        "delay_ns": generator.choice(DELAY_NS),
        "mtu": generator.choice(MTU),
        "rate_bps": generator.choice((0, 0, 10_000_000)),
        "queue_frames": generator.choice((20, 1000)),
        "checksum_offload": generator.random() < 0.3,
    }
    if network["checksum_offload"] and generator.random() < 0.5 and not network["corrupt"]:
        network["segmentation_offload"] = True
    network["path_mtu"] = PATH_MTU[seed % len(PATH_MTU)]

    def stack() -> dict[str, Any]:
        return {
            "rcv_buffer_bytes": generator.choice(RCV_BUFFER),
            "timestamps": generator.randrange(2),
            "sack": generator.randrange(2),
            "window_scaling": generator.randrange(2),
            "rto_min_ns": generator.choice((200 * MILLISECOND, SECOND)),
        }

    pair = Pair(
        seed=seed,
        network=network,
        a=stack() | {"cc": CONTROLS[seed % len(CONTROLS)], "mtu_probing": 1 + seed // 2 % 2},
        b=stack() | {"cc": CONTROLS[seed // 3 % len(CONTROLS)], "mtu_probing": 1 + seed // 4 % 2},
    )
    if observer is not None:

        def record(frame: bytes, now_ns: int) -> None:
            observer.add(now_ns, frame)

        pair.network.filter_ab = record
        pair.network.filter_ba = record
    return pair


def run(seed: int, observer: FrameHash | WireRules | None = None) -> tuple[Application, Application, Counter[str]]:
    """One whole life of a connection; returns both applications and what both stacks counted."""
    generator = random.Random(seed)
    with draw_pair(generator, seed, observer) as pair:
        client, server = pair.connect(limit_ns=LIMIT_NS)
        ends = [
            Application(
                generator=random.Random(seed * 2 + index),
                connection=connection,
                outgoing=generator.randbytes(generator.choice(SIZES)),
                slow=generator.random() < 0.4,
                waits_for_eof=index == 1 and generator.random() < 0.5,
            )
            for index, connection in enumerate((client, server))
        ]

        def turn() -> None:
            for end in ends:
                end.turn(pair.now_ns)

        def wake_at() -> int | None:
            return min((end.wake_ns for end in ends if not end.done and not end.idle), default=None)

        turn()
        pair.run_until(lambda: all(end.done for end in ends), LIMIT_NS, wake_at=wake_at, turn=turn)
        for end in ends:
            end.connection.close()
        pair.run_until(pair.at_rest, LIMIT_NS)
        counted: Counter[str] = Counter()
        for stack in (pair.a, pair.b):
            counters = stack.counters()
            assert sum(refusals(counters).values()) <= counters["frames_in"]
            counted.update(counters)
        assert pair.network.live_frames == 0
    return ends[0], ends[1], counted


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_octet_arrives_once_and_in_order(seed: int) -> None:
    client, server, _ = run(seed)
    for receiver, sender in ((client, server), (server, client)):
        got = bytes(receiver.incoming)
        assert got == sender.outgoing[: len(got)], "the stream is not what was sent"
        if receiver.error is None and sender.error is None:
            assert got == sender.outgoing, "the stream ended early without an error"
        for end in (receiver, sender):
            assert end.error is None or end.error.reason, "an error without a reason"


def test_same_seed_gives_the_same_frames() -> None:
    for seed in (3, 17, 42, 99):
        hashes = []
        for _ in range(2):
            hashed = FrameHash()
            run(seed, hashed)
            assert hashed.frames > 0
            hashes.append((hashed.frames, hashed.hexdigest()))
        assert hashes[0] == hashes[1]


def test_both_ends_keep_the_rules_of_the_wire() -> None:
    """What they send, judged by itself (wire_rules); and each rule that needs an occasion had one."""
    total: Counter[str] = Counter()
    for seed in range(0, SEEDS, 5):
        rules = WireRules()
        run(seed, rules)
        total.update({name: getattr(rules, name) for name in ("segments", "probes", "selective", "duplicates")})
    assert all(total[name] > 0 for name in ("segments", "probes", "selective", "duplicates")), total


def test_the_grid_reaches_what_it_is_for() -> None:
    """Errors are allowed where the wire is bad enough, but must stay rare; and every repair must have been needed."""
    total: Counter[str] = Counter()
    failed = []
    for seed in range(0, SEEDS, 2):
        client, server, counters = run(seed)
        total.update(counters)
        if client.error or server.error:
            failed.append(seed)
    assert len(failed) <= 2
    for name in (
        "segments_retransmitted",
        "fast_retransmits",
        "retransmit_timeouts",
        "window_probes_out",
        "out_of_order_in",
        "duplicate_acks_in",
        "drop_tcp_checksum",
        "drop_tcp_duplicate",
        "drop_tcp_sequence",
        "drop_ip_checksum",
        "drop_not_for_us",
    ):
        assert total[name] > 0, f"no seed led to {name}"

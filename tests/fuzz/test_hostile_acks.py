# SPDX-License-Identifier: MIT
"""A receiver that lies to our sender, on a path that loses, delays and shrinks: nothing breaks, and nothing hangs.

One connection sends a stream whose every byte is known. The peer acknowledges what it never got or too little, SACKs
what was never sent, backwards, byte by byte and twice, echoes timestamps of no time, closes its window and takes it
back, falls silent, and complains about the path's MTU, of probes of it (RFC 4821), too. The path may be narrow and say
nothing. The peer echoes marks that never were (RFC 3168), or counts them as it likes, back and forth, in the field and
in the option (RFC 9768), marks its own data and sends it twice. Rings are small, records are refused, the congestion
control is exchanged. Between two lies it may be honest for a while.

What must hold always: every byte on the wire is the stream's (RFC 9293 section 3.4), none lies beyond what was queued
or beyond the peer's window but for a probe (section 3.8.6), the window does not grow by more than what was acknowledged
(RFC 5681 section 3.1), a turn and a span of time cost a bounded number of polls, the record of transmissions is as
flight.pxd says (ensure(), in debug builds), what waits to be sent waits for an ACK or a timer, nothing says anything of
ECN that was not agreed on, what is reported as received was sent, and a peer that becomes honest gets everything.

    sudo make asan-test ARGS="tests/fuzz/test_hostile_acks.py"
"""

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ustack.errors import StackError
from ustack.testing import testbed as bed
from ustack.testing.peer import ANY, ScriptedPeer
from ustack.testing.segment import SEQUENCE_MASK, Segment, parse_frame
from ustack.testing.states import ALL_OPTIONS, PEER_PORT, STACK_PORT, SYN_OPTIONS, Scene, listen
from ustack.testing.testbed import MILLISECOND, SECOND

SACK_ONLY = {"mss": 1460, "sack_permitted": True}
STREAM = random.Random(7).randbytes(1 << 16) * 33
INITIAL_WINDOW = 14_600
STEPS = 120
TIMES = tuple(duration * MILLISECOND for duration in (0, 1, 1, 5, 20, 100, 1000, 3000, 61_000))
WRITES = (1, 10, 100, 1459, 1460, 1461, 5000, 20_000, 65_000)
WINDOWS = (0, 1, 100, 1459, 3000, 20_000, 65_535, 65_535, 65_535)
POLLS_PER_STEP = 4000
CONTROLS = ("newreno", "cubic", "bbr")
CLAIMS = (0, 68, 296, 552, 576, 1006, 1024, 1100, 1280, 1400, 1492, 1499, 1500, 65_535)
PATHS = (65_535, 65_535, 65_535, 1400, 1100, 600)
HEADERS = 40
NOT_ECT, ECT0, CE = 0, 2, 3


def signed(number: int) -> int:
    """A difference of sequence numbers."""
    return (number + 0x80000000 & SEQUENCE_MASK) - 0x80000000


class Foe:
    """The peer of one connection. Positions are relative: 1 is the first byte of data."""

    def __init__(self, generator: random.Random, scene: Scene, scale: int) -> None:
        """Nothing has been sent yet."""
        self.generator = generator
        self.scene = scene
        self.peer = scene.peer
        self.scale = scale
        self.queued = 1
        self.shut = False
        self.una = 1  # the highest ACK that we have sent and the stack has taken for good
        self.top = 1  # the end of what has arrived
        self.edge = 1 + scene.peer.wnd * (1 << scale)
        self.got: list[tuple[int, int]] = []  # pieces, in order, apart
        self.lose = 0.0
        self.acked = 0
        self.reset = False
        self.may_sack = True  # it was agreed upon
        self.ecn = False  # likewise
        self.accurate = False  # likewise, as RFC 9768 has it
        self.path = 65_535  # bytes of a packet that arrives
        self.carried = 0  # bytes that have come, again and again
        self.has_had_bbr = False
        self.said = 1  # the end of what we have sent
        self.pumped = True  # the stack has had time to act on what came last
        self.fillers: list[ScriptedPeer] = []

    # ------------------------------------------------------------ what has come

    def look(self) -> None:
        """Everything that the stack has sent is right."""
        while self.peer.queue:
            self.look_at(self.peer.queue.popleft())

    def look_at(self, segment: Segment) -> None:
        """One segment: bytes of the stream, within the window."""
        if "R" in segment.flags:
            self.reset = True
            return
        assert self.peer.iss is not None
        start = self.una + signed(segment.seq - self.peer.iss - self.una)
        end = start + len(segment.payload)
        self.look_at_reports(segment)
        if segment.tos != NOT_ECT:
            assert self.ecn
            assert segment.tos == ECT0
            assert segment.payload
            assert start >= self.top - 1, f"[{start}, {end}) goes again and may be marked"  # but a window probe's byte
        assert self.ecn or not set("ECN") & set(segment.flags)
        if "C" in segment.flags:
            assert segment.tos == ECT0 or self.accurate
            assert len(segment.payload) <= 1460, "CWR on more than one segment"
        if not segment.payload and "F" not in segment.flags:
            return
        assert segment.payload == STREAM[start - 1 : end - 1], f"other bytes at {start}"
        assert end <= self.queued
        if "F" in segment.flags:
            assert self.shut
            assert end == self.queued
            end += 1
        assert end <= self.edge + 1 or start <= self.una, f"[{start}, {end}) is beyond the window's edge {self.edge}"
        self.top = max(self.top, end)
        self.carried += end - start
        if self.generator.random() >= self.lose and len(segment.payload) + HEADERS <= self.path:
            self.keep(start, end)

    def look_at_reports(self, segment: Segment) -> None:
        """SACK blocks are of what we have sent; the first may be of what has come twice (RFC 2883 section 4)."""
        ack = signed(segment.ack - self.peer.isn)
        assert 1 <= ack <= self.said + 1
        for number, block in enumerate(segment.options.get("sack", ())):
            left, right = (signed(edge - self.peer.isn) for edge in block)
            assert 1 <= left < right <= self.said, f"[{left}, {right}) was never sent"
            assert left > ack or (number == 0 and right <= ack), f"[{left}, {right}) with ACK {ack}"

    def keep(self, start: int, end: int) -> None:
        """It has arrived."""
        apart = [piece for piece in self.got if piece[1] < start or piece[0] > end]
        joined = [piece for piece in self.got if not (piece[1] < start or piece[0] > end)]
        start = min([start, *(piece[0] for piece in joined)])
        end = max([end, *(piece[1] for piece in joined)])
        self.got = sorted([*apart, (start, end)])

    # ------------------------------------------------------------ answers

    def answer(self, ack: int, window: int, blocks: list[tuple[int, int]], echo: int | None = None) -> None:
        """One ACK."""
        options: dict[str, Any] = {}
        assert self.peer.iss is not None
        if self.peer.timestamps:
            options = {"nop": 2, "timestamps": (self.peer.ts_now, self.peer.ts_recent if echo is None else echo)}
        if blocks:
            options["sack"] = [
                ((self.peer.iss + left) & SEQUENCE_MASK, (self.peer.iss + right) & SEQUENCE_MASK)
                for left, right in blocks[: 3 if self.peer.timestamps else 4]
            ]
        if self.una <= ack <= self.top:
            self.acked += ack - self.una
            self.una = ack
            self.edge = max(self.edge, ack + (window << self.scale))
        self.edge = max(self.edge, ack + (window << self.scale)) if ack <= self.top else self.edge
        self.pumped = self.generator.random() < 0.8
        flags = "A" + self.generator.choice(("", "", "E", "C", "EC"))
        tos = self.generator.choice((NOT_ECT, NOT_ECT, CE))
        if self.accurate:
            flags = self.count(options)
        self.peer.send(flags, ack=ack, wnd=window, options=options, pump=self.pumped, tos=tos)

    def count(self, options: dict[str, Any]) -> str:
        """The flags of an ACK: any count of marks, any bytes."""
        generator = self.generator
        if "sack" not in options and generator.random() < 0.5:
            counters = (0, 1, 2, 1461, 14_601, 1 << 23, (1 << 24) - 1, generator.randrange(1 << 24))
            fields = tuple(generator.choice(counters) for _ in range(generator.randrange(4)))
            options["accecn"] = (generator.choice((172, 174)), fields)
        return "A" + "".join(letter for letter in "ECN" if generator.random() < 0.5)

    def tell_truth(self, window: int = 65_535) -> None:
        """What has arrived is acknowledged, with the SACK blocks that belong to it."""
        ack = self.una
        for start, end in self.got:
            if start <= ack < end:
                ack = end
        blocks = [piece for piece in self.got if piece[0] > ack]
        self.generator.shuffle(blocks)
        self.answer(ack, window, blocks if self.may_sack else [])

    def place(self) -> int:
        """Somewhere of interest."""
        generator = self.generator
        base = generator.choice((self.una, self.una, self.top, generator.randint(self.una, self.top)))
        return base + generator.choice((0, 0, 0, 1, -1, 536, 1460, -1460, 2920, 14_600, -70_000, 70_000, 1 << 31))

    def lie(self) -> None:
        """One ACK with a lie in any field."""
        generator = self.generator
        kind = generator.randrange(7)
        ack = self.una
        blocks: list[tuple[int, int]] = []
        if kind == 0:  # division, or optimism
            ack = min(self.top, self.una + generator.choice((1, 2, 100, 1460, 1461, 5000, 1 << 20)))
        elif kind == 1:  # nonsense
            ack = self.place()
            if ack > self.una + (1 << 30) or ack < self.una - (1 << 30):
                ack = self.una
        elif kind == 2:  # everything but the first byte, or all of it
            blocks = [(self.una + generator.choice((0, 1, 1460)), self.top)]
        elif kind == 3:  # a duplicate of everything
            blocks = [(generator.randint(max(1, self.una - 60_000), self.una), self.una)]
        elif kind == 4:
            blocks = [(self.una + at, self.una + at + 1460) for at in generator.sample(range(0, 60_000, 730), 4)]
        else:
            blocks = [(self.place(), self.place()) for _ in range(generator.randrange(5))]
        echo = None
        if generator.random() < 0.3:
            now = self.peer.ts_recent
            echo = (
                generator.choice((0, 1, now + 1, now + 100_000, now - 1000, now - 1, now + (1 << 31))) & SEQUENCE_MASK
            )
        self.answer(ack, generator.choice(WINDOWS), blocks if self.may_sack else [], echo)

    def complain(self) -> None:
        """A router says that segments are too big: the first that is missing, or any, a probe too."""
        generator = self.generator
        seq = generator.choice((self.una, self.una, generator.randint(self.una, self.top), self.top - 1))
        about = self.peer.from_stack(seq=seq, payload=bytes(1460))
        self.peer.send_icmp_error(3, 4, about, mtu=generator.choice(CLAIMS))

    def talk(self) -> None:
        """Data of ours, new, beyond a hole, or known: marked or not."""
        generator = self.generator
        size = generator.choice((1, 100, 1460))
        known = generator.randint(1, self.said)
        seq = generator.choice((None, None, self.said + 2000, known, max(1, self.said - size)))
        self.pumped = generator.random() < 0.7
        self.edge = max(self.edge, self.una + (self.peer.wnd << self.scale))
        flags = "A" + generator.choice(("", "", "C", "E"))
        self.peer.send(
            flags if not self.accurate else self.count({}),
            seq=seq,
            ack=self.una,
            payload=bytes(size),
            tos=generator.choice((NOT_ECT, ECT0, CE)),
            pump=self.pumped,
        )
        self.said = max(self.said, (self.said if seq is None else seq) + size)
        self.peer.snd_nxt = self.said

    # ------------------------------------------------------------ the application

    def write(self) -> None:
        """Some of the stream."""
        size = self.generator.choice(WRITES)
        if self.shut or self.queued + size >= len(STREAM):
            return
        with suppress(BlockingIOError):
            self.queued += self.scene.conn.send(STREAM[self.queued - 1 : self.queued - 1 + size], timeout=0)
        self.scene.testbed.pump()

    def step(self) -> None:
        """Anything."""
        what = self.generator.random()
        self.pumped = True
        if what < 0.22:
            self.write()
        elif what < 0.25:
            self.talk()
        elif what < 0.50:
            self.lie()
        elif what < 0.70:
            self.tell_truth(self.generator.choice(WINDOWS))
        elif what < 0.725:
            self.complain()
        elif what < 0.73 and not self.shut:
            self.shut = True
            self.scene.shutdown()
        elif what < 0.75:
            self.crowd()
        elif what < 0.77:
            self.lose = self.generator.choice((0.0, 0.05, 0.5, 1.0))
        elif what < 0.775:
            self.path = self.generator.choice(PATHS)
        elif what < 0.78:
            with suppress(StackError):  # no record for it
                self.scene.conn.cc = self.generator.choice(CONTROLS)
        else:
            self.scene.testbed.advance(self.generator.choice(TIMES))

    def crowd(self) -> None:
        """The ring is full of others' answers when a timer fires; what comes before it has room again?"""
        testbed = self.scene.testbed
        due = testbed.stack.next_deadline_ns
        if not self.fillers or due is None or due > testbed.now_ns + 100 * SECOND:
            return
        testbed.now_ns = max(due, testbed.now_ns)
        for filler in self.fillers:
            filler.send("A", seq=filler.snd_nxt + 10, payload=b"?", pump=False)
        testbed.network.advance(testbed.now_ns)
        testbed.stack.poll(testbed.now_ns)
        self.generator.choice((self.lie, self.tell_truth))()
        testbed.pump()
        for filler in self.fillers:
            filler.drain()

    def row(self) -> dict[str, Any] | None:
        """The stack's view; None: it holds nothing any more."""
        rows = self.scene.testbed.stack.connections("connection")
        return next((row for row in rows if row["remote"][1] == self.peer.port), None)


def assert_in_order(foe: Foe) -> bool:
    """After a step. False: the connection has ended."""
    foe.look()
    row = foe.row()
    if row is None or row["state"] == "CLOSED" or foe.reset:
        return False
    foe.has_had_bbr = foe.has_had_bbr or row["cc"] == "bbr"
    outstanding = (row["snd_nxt"] - row["snd_una"]) & SEQUENCE_MASK
    assert outstanding < 1 << 31
    # BBR counts what is SACKed as well, each time that the peer says so, though it has forgotten it in the meantime.
    if not (foe.has_had_bbr and foe.may_sack):
        assert row["cwnd"] <= INITIAL_WINDOW + (foe.carried if foe.has_had_bbr else foe.acked) + 4 * 1460, str(row)
    if outstanding or (foe.pumped and row["snd_unsent_bytes"]):
        assert foe.scene.testbed.stack.next_deadline_ns is not None, f"waits for nothing: {row}"
    return True


def without_checksum(segment: Segment | None) -> Segment | None:
    """As if it had been right."""
    return replace(segment, checksum_ok=True) if segment is not None else None


@pytest.mark.parametrize("seed", range(60))
def test_a_lying_peer_breaks_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lies(seed, monkeypatch, accurate=False)


@pytest.mark.parametrize("seed", range(100, 140))
def test_a_peer_that_counts_as_it_likes_breaks_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9768."""
    lies(seed, monkeypatch, accurate=True)


def lies(seed: int, monkeypatch: pytest.MonkeyPatch, *, accurate: bool) -> None:
    """One connection, with one generator."""
    generator = random.Random(seed)
    config: dict[str, Any] = {
        "cc": generator.choice(CONTROLS),
        "mtu_probing": generator.randrange(3),
        "ecn": generator.randrange(3),
        "pacing": generator.randrange(3),
        "user_timeout_ns": generator.choice((100, 86_400, 86_400)) * SECOND,
    }
    if generator.random() < 0.3:
        config["flights"] = generator.choice((0, 1))
    if generator.random() < 0.3:
        config["transmissions"] = generator.choice((0, 1, 2, 5))
    if generator.random() < 0.2:
        config["extra_records"] = generator.choice((0, 1))
    if generator.random() < 0.2:
        config["cc_records"] = generator.choice((0, 1))
    offload = generator.random() < 0.4
    network = {
        "tx_slots": generator.choice((2, 3, 64, 1024)),
        "checksum_offload": offload,
        "segmentation_offload": offload,
    }
    if offload:  # checksums are the device's
        monkeypatch.setattr(bed, "parse_frame", lambda frame: without_checksum(parse_frame(frame)))
    options = generator.choice((SYN_OPTIONS, SACK_ONLY, ALL_OPTIONS, ALL_OPTIONS))
    flags = generator.choice(("S", "SEC"))
    if accurate:
        flags = "SECN"
        config["ecn"] = generator.choice((3, 4, 5))
    with opened(flags, options, network=network, **config) as scene:
        foe = Foe(generator, scene, int(options.get("wscale", 0)))
        foe.ecn = scene.info()["ecn"] != "none"
        foe.accurate = scene.info()["ecn"] == "accurate"
        if accurate:
            assert foe.accurate == (config.get("extra_records") != 0)
        else:
            assert foe.ecn == (flags == "SEC" and config["ecn"] != 0)
        foe.path = generator.choice(PATHS) if not offload else foe.path
        if network["tx_slots"] < 4:
            foe.fillers = [another(scene, port) for port in range(PEER_PORT + 1, PEER_PORT + 5)]
        foe.may_sack = "sack_permitted" in options
        alive = True
        for _ in range(STEPS):
            before = scene.testbed.polls
            foe.step()
            assert scene.testbed.polls - before < POLLS_PER_STEP
            alive = assert_in_order(foe)
            if not alive:
                break
        if alive:
            become_honest(foe)
        for filler in foe.fillers:
            filler.send("R")


def opened(flags: str, options: Mapping[str, Any], **config: Any) -> Scene:
    """ESTABLISHED by a SYN with these flags, of a peer that says no more for now."""
    scene = listen(seed=1, **config)
    scene.peer.send(flags, options=options)
    scene.peer.expect(ANY, seq=0, ack=1)
    scene.peer.timestamps = "timestamps" in options
    scene.peer.send("AC" if "N" in flags else "A")  # to RFC 9768: the SYN-ACK was Not-ECT
    scene.accept()
    scene.peer.expect_nothing()
    return scene


def another(scene: Scene, port: int) -> ScriptedPeer:
    """A connection that only owes ACKs."""
    peer = ScriptedPeer(scene.testbed, port=port, stack_port=STACK_PORT)
    peer.send("S", options=SYN_OPTIONS)
    peer.expect("SA", seq=0, ack=1)
    peer.send("A")
    return peer


def become_honest(foe: Foe) -> None:
    """Everything that was queued arrives. What was acknowledged without having arrived is gone."""
    testbed = foe.scene.testbed
    foe.lose = 0.0
    foe.path = 65_535
    want = foe.queued + (1 if foe.shut else 0)
    for turn in range(2500):
        testbed.pump()
        foe.look()
        foe.tell_truth()
        testbed.pump()
        foe.look()
        if foe.una >= want or foe.reset:
            break
        testbed.advance(20 * MILLISECOND if turn < 1000 else SECOND)
    assert foe.una >= want or foe.reset, f"hangs at {foe.una} of {want}: {foe.row()}"

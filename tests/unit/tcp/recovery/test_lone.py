# SPDX-License-Identifier: MIT
"""A flight of one frame to which nothing has happened (flight.pxd): written late, acknowledged by a short way. Twins,
one of which always has everything written and so goes the long way, must become the same, byte by byte."""

import random

import pytest

from ustack.tcp.cc.registry import names
from ustack.testing.parts.recovery import Sender

MSS = 1000
MS = 1_000_000
US = 1000


class Twins:
    """Two senders to which the same happens: `short` as it comes, `long` with everything written."""

    def __init__(self, **settings: object) -> None:
        self.short = Sender(mss=MSS, **settings)  # type: ignore[arg-type]
        self.long = Sender(mss=MSS, **settings)  # type: ignore[arg-type]

    def wait(self, microseconds: int) -> None:
        for twin in (self.short, self.long):
            twin.now_ns += microseconds * US

    def same(self) -> None:
        self.long.write_out()
        assert self.short.image() == self.long.image()
        assert self.short.counted() == self.long.counted()
        assert self.short.held == self.long.held

    def send(self, frames: int = 1, length: int = 0) -> int:
        done = self.short.send(frames, length)
        assert self.long.send(frames, length) == done
        self.same()
        return done

    def ack(self, ack: int, **more: object) -> None:
        self.short.ack(ack, **more)  # type: ignore[arg-type]
        self.long.ack(ack, **more)  # type: ignore[arg-type]
        self.same()

    def rto(self) -> None:
        self.short.rto()
        self.long.rto()
        self.same()


@pytest.mark.parametrize("control", names())
@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("length", [1, 500, MSS, 2500, 60 * MSS])
def test_the_short_way_comes_to_what_the_long_way_does(control: str, sack: bool, length: int) -> None:
    twins = Twins(cc=control, sack=sack)
    sent = 0
    for round_trip_us in (20_000, 1, 0, 250_000, 30_000):
        twins.send(1, length)
        assert (twins.short.lone, twins.long.lone) == (True, False)
        twins.wait(round_trip_us)
        sent += length
        twins.ack(sent)
        assert not twins.short.held[0]


@pytest.mark.parametrize("control", names())
def test_a_window_that_was_the_limit_is_told_the_same(control: str) -> None:
    twins = Twins(cc=control, cwnd=2 * MSS)
    for n in range(1, 40):
        twins.send(1, 2 * MSS)
        twins.wait(10_000)
        twins.ack(2 * MSS * n)


def test_what_is_written_late_is_what_was_sent() -> None:
    made = Sender(mss=MSS)
    made.send(1, 2500)
    made.now_ns += 20 * MS
    assert made.lone
    assert made.records() == [(0, 2500, "sent", 1)]
    assert not made.lone
    assert made.state["pipe"] == 2500
    made.ack(2500)
    assert made.state["srtt_us"] == 20_000


EVENTS = {
    "a second frame": lambda made: made.send(1),
    "a part acknowledged": lambda made: made.ack(400),
    "a duplicate": lambda made: made.ack(0),
    "SACK": lambda made: made.ack(0, sack=[(MSS, 2 * MSS)]),
    "a report of a duplicate": lambda made: made.ack(2 * MSS, sack=[(0, MSS)]),
    "a timeout": lambda made: made.rto(),
    "smaller segments": lambda made: made.smaller(),
}


@pytest.mark.parametrize("event", EVENTS)
def test_whatever_happens_to_it_finds_everything_written(event: str) -> None:
    twins = Twins()
    twins.send(1, 2 * MSS)
    assert twins.short.lone
    twins.wait(7000)
    EVENTS[event](twins.short)
    EVENTS[event](twins.long)
    twins.same()
    assert not twins.short.lone
    assert twins.short.records() == twins.long.records()
    assert twins.short.state == twins.long.state


@pytest.mark.parametrize("control", names())
def test_any_sequence_of_events_leaves_twins_the_same(control: str) -> None:
    lone = 0
    for seed in range(20):
        generator = random.Random(seed)
        twins = Twins(cc=control, sack=seed % 4 != 0)
        una = sent = 0
        for _ in range(200):
            event = generator.randrange(12)
            if event < 4 and (una == sent or event == 0):
                length = generator.choice((0, 10, 2500, 5000))
                sent += twins.send(1 if event else 3, length) * (length or MSS)
            elif event < 11 and sent > una:
                una = sent if event < 9 else generator.randrange(una, sent + 1)
                lone += twins.short.lone
                twins.ack(una)
            elif event == 11 and sent > una:
                twins.rto()
                assert twins.short.resend() == twins.long.resend()
            twins.wait(generator.randrange(30_000))
        twins.ack(sent)
    assert lone > 200

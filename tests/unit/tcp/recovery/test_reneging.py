# SPDX-License-Identifier: MIT
"""Peers that take SACK back (RFC 2018 section 8): what is counted of them, and what controls make of it."""

from collections.abc import Iterator
from random import Random

import pytest

from ustack.tcp.cc.registry import names
from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register
from ustack.testing.parts.recovery import Sender
from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

K = 1000
MS = MILLISECOND
MSS = 1448
ROUND_TRIP = 20 * MILLISECOND
CONTROLS = ["newreno", "cubic", "bbr"]
each_control = pytest.mark.parametrize("cc", CONTROLS)


def test_these_are_all_controls() -> None:
    assert set(CONTROLS) <= set(names())


def number(made: Sender, name: str) -> int:
    """Of the sender's state."""
    value = made.state.get(name, 0)
    assert isinstance(value, int)
    return value


def consistent(made: Sender) -> None:
    """C.delivered is what the peer says it has, C.lost no less than what waits to be sent again."""
    assert number(made, "delivered") == number(made, "una") + number(made, "sacked")
    assert number(made, "lost") <= number(made, "lost_total") < 1 << 30


def reneged(cc: str, *, timestamps: bool = False) -> Sender:
    """Ten segments: the first acknowledged, six SACKed behind a hole. Then the hole is acknowledged, and nothing of the
    six, until the timer fires: the first thing in flight is what the peer had."""
    made = Sender(mss=K, cwnd=20 * K, cc=cc, timestamps=timestamps)
    made.send(10)
    made.now_ns += 20 * MS
    made.ack(K)
    made.ack(K, sack=[(2 * K, 8 * K)])
    consistent(made)
    made.now_ns += MS
    made.resend()
    made.now_ns += 20 * MS
    made.ack(2 * K)
    consistent(made)
    assert number(made, "delivered") == 8 * K
    made.now_ns += 1000 * MS
    made.rto()
    assert made.counted()["sack_reneged_in"] == 1
    return made


@each_control
def test_what_was_taken_back_is_not_delivered(cc: str) -> None:
    made = reneged(cc)
    consistent(made)
    assert (number(made, "delivered"), number(made, "sacked"), number(made, "pipe")) == (2 * K, 0, 0)
    assert {record[2] for record in made.records()} == {"lost"}
    assert number(made, "lost") == 8 * K


@each_control
def test_it_is_delivered_once_when_it_goes_again(cc: str) -> None:
    made = reneged(cc)
    una = 2
    while una < 10:
        made.resend()
        made.now_ns += 20 * MS
        una += 1
        made.ack(una * K)
        consistent(made)
    assert number(made, "delivered") == 10 * K


@each_control
def test_a_peer_that_had_it_all_the_time(cc: str) -> None:
    """Its ACKs were lost or late: the timestamp tells (RFC 3522). Nothing is lost then, and C.lost goes back."""
    made = reneged(cc, timestamps=True)
    before = made.timestamp
    made.resend(1)
    made.now_ns += 5 * MS
    made.ack(7 * K, ecr=(before - 900) & 0xFFFFFFFF)
    consistent(made)
    assert made.counted()["timeouts_undone"] == 1
    assert number(made, "lost") == 0
    made.now_ns += 5 * MS
    made.ack(10 * K)
    assert number(made, "delivered") == 10 * K


@each_control
@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_events(cc: str, seed: int) -> None:
    """ACKs, SACKs, losses, timeouts, and a peer that forgets all that lies behind a hole whenever it likes."""
    generator = Random(seed)
    made = Sender(mss=K, cwnd=40 * K, cc=cc, timestamps=seed % 2 == 0)
    sent, una = 0, 0
    held: set[int] = set()
    for _ in range(150):
        event = generator.randrange(8)
        made.now_ns += generator.choice((1, 5, 20)) * MS
        if event <= 1 and sent - una < 40:
            sent += made.send(generator.randrange(1, 5))
        elif event <= 4 and sent > una:
            held |= {n for n in range(una, sent) if generator.random() < 0.3}
            while una in held:
                una += 1
            held = {n for n in held if n > una}
            blocks: list[tuple[int, int]] = []
            for n in sorted(held):
                if blocks and blocks[-1][1] == n * K:
                    blocks[-1] = (blocks[-1][0], (n + 1) * K)
                else:
                    blocks.append((n * K, (n + 1) * K))
            generator.shuffle(blocks)
            made.ack(una * K, sack=blocks[:3], ecr=(made.timestamp - generator.randrange(60)) & 0xFFFFFFFF)
        elif event == 5 and sent > una:
            made.resend(generator.randrange(1, 4))
        elif event == 6 and sent > una:
            made.now_ns += 300 * MS
            made.rto()
        elif event == 7:
            held = set()
            una += generator.randrange(2) if una < sent else 0
            if sent > una:
                made.ack(una * K)
        consistent(made)


# ---------------------------------------------------------------- on the wire


class Notes(CongestionControl):
    """A window of twenty segments, and the delivery rates that it hears of."""

    name = "written"
    rates: list[int] = []  # noqa: RUF012

    def __init__(self, window: Window) -> None:
        window.cwnd = 20 * window.smss

    def on_ack(self, window: Window, ack: Ack) -> None:
        Notes.rates.append(ack.delivery_rate)

    def on_loss(self, window: Window, flight: int) -> None:
        """Nothing."""


@pytest.fixture
def rates() -> Iterator[list[int]]:
    register(Notes)
    Notes.rates = []
    yield Notes.rates
    Notes.rates = []


def renege_on_the_wire(scene: Scene) -> None:
    """Twenty segments, half of them SACKed behind a hole; the hole is filled, and half of what was SACKed is gone."""
    peer = scene.peer
    scene.send(bytes(200 * MSS))
    scene.testbed.advance(ROUND_TRIP)
    peer.drain()
    assert peer.iss is not None
    block = [((peer.iss + 1 + edge * MSS) & 0xFFFFFFFF) for edge in (1, 9)]
    peer.send("A", ack=1, options={"sack": [(block[0], block[1])]})
    peer.drain()
    scene.testbed.advance(ROUND_TRIP)
    peer.send("A", ack=1 + MSS)
    peer.drain()
    limit_ns = scene.testbed.now_ns + 10 * SECOND
    while scene.testbed.counted().get("sack_reneged_in", 0) == 0:
        scene.testbed.advance(MILLISECOND)
        assert scene.testbed.now_ns < limit_ns
    peer.drain()
    scene.testbed.advance(ROUND_TRIP)


def test_no_rate_is_measured_until_it_is_repaired(rates: list[int]) -> None:
    """What the peer has kept after all would count in it a second time."""
    with established(options=ALL_OPTIONS, cc="written", initial_window_segments=20) as scene:
        renege_on_the_wire(scene)
        rates.clear()
        scene.peer.send("A", ack=1 + 5 * MSS)
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.send("A", ack=1 + 9 * MSS)
        assert rates == [0, 0]
        end = scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF
        for _ in range(2):
            scene.testbed.advance(ROUND_TRIP)
            scene.peer.drain()
            scene.peer.send("A", ack=end)
            end = scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF
        assert 0 < rates[-1] <= 20 * MSS * SECOND // ROUND_TRIP
        scene.abort()


@each_control
@pytest.mark.parametrize("pacing", [0, 1])
def test_a_transfer_goes_on_as_before(cc: str, pacing: int) -> None:
    """All of it arrives, and the window stays of the path's kind: no more than what twice the flight would be."""
    with established(options=ALL_OPTIONS, cc=cc, pacing=pacing, initial_window_segments=20) as scene:
        renege_on_the_wire(scene)
        peer = scene.peer
        peer.rcv_nxt = 1 + 5 * MSS
        peer.send("A")
        for _ in range(600):
            scene.testbed.advance(ROUND_TRIP)
            peer.catch_up()
            peer.send("A")
            if peer.rcv_nxt == 1 + 200 * MSS:
                break
        assert peer.rcv_nxt == 1 + 200 * MSS
        assert scene.info()["snd_una"] == scene.info()["snd_nxt"]
        assert scene.info()["cwnd"] <= 200 * MSS
        assert scene.testbed.counted()["retransmit_timeouts"] <= 3  # the peer SACKs nothing of what it lacks

# SPDX-License-Identifier: MIT
"""The clockwork: time goes from event to event, stops where it is told to, and refuses what is no time."""

import pytest

from ustack import Stack
from ustack.link.sim import SimNetwork
from ustack.sim.world import MILLISECOND, SECOND, TICK_NS, World
from ustack.testing.pair import FrameHash, Pair

FRAME = bytes(60)
START_NS = 5 * SECOND


class Listening(World):
    """A stack at one end, and a list of what arrives at the other."""

    def __init__(self, **network: int) -> None:
        super().__init__(SimNetwork(1, now_ns=START_NS, **network), now_ns=START_NS)  # type: ignore[arg-type]
        self.stack = Stack(self.network.a, "198.18.0.2/24", seed=1, now_ns=START_NS)
        self.heard: list[int] = []

    def stacks(self) -> tuple[Stack, ...]:
        return (self.stack,)

    def collect(self) -> bool:
        some = False
        while self.network.b.receive() is not None:
            self.heard.append(self.now_ns)
            some = True
        return some

    def close(self) -> None:
        self.stack.close(linger=0)
        self.network.close()


def test_time_stops_at_each_event_and_at_the_limit() -> None:
    world = Listening(delay_ns=3 * MILLISECOND)
    world.pump()  # the announcement of its address leaves
    assert world.next_event_ns() == START_NS + 3 * MILLISECOND
    world.step(START_NS + MILLISECOND)
    assert (world.now_ns, world.heard) == (START_NS + MILLISECOND, [])
    world.step(START_NS + SECOND)
    assert (world.now_ns, world.heard) == (START_NS + 3 * MILLISECOND, [START_NS + 3 * MILLISECOND])
    world.close()


def test_what_is_due_already_moves_the_clock_by_one_tick() -> None:
    """A script has put a frame on the wire and not pumped: it arrives in the next tick, not in the past."""
    world = Listening()
    world.pump()
    world.network.b.inject(FRAME)
    assert world.next_event_ns() == START_NS
    world.step(START_NS + SECOND)
    assert world.now_ns == START_NS + TICK_NS
    assert world.stack.counters()["frames_in"] == 1
    world.close()


def test_a_world_that_does_not_come_to_rest_says_so() -> None:
    with SimNetwork(now_ns=START_NS) as network:
        network.a.inject(FRAME)
        with pytest.raises(AssertionError, match="rest"):
            World(network, now_ns=START_NS).pump()


def test_run_until_says_how_long_it_took_and_fails_at_its_limit() -> None:
    world = Listening(delay_ns=3 * MILLISECOND)
    world.pump()
    assert world.run_until(lambda: bool(world.heard), SECOND) == 3 * MILLISECOND
    assert world.run_until(lambda: True, 0) == 0
    with pytest.raises(AssertionError, match=r"within 0\.5 s"):
        world.run_until(lambda: False, SECOND // 2)
    assert world.now_ns == START_NS + 3 * MILLISECOND + SECOND // 2
    world.close()


def test_a_script_gets_its_turns_when_it_wants_them() -> None:
    world = Listening()
    turns: list[int] = []
    wanted = [START_NS + 10, START_NS + 10, START_NS + 500]
    world.run_until(
        lambda: len(turns) == 3, SECOND, wake_at=lambda: wanted[len(turns)], turn=lambda: turns.append(world.now_ns)
    )
    assert turns == [START_NS + 10, START_NS + 11, START_NS + 500]
    world.close()


def test_what_a_filter_raises_comes_out_of_the_pump() -> None:
    world = Listening()

    def broken(_frame: bytes, _index: int) -> None:
        raise KeyError("script")

    world.pump()
    connection = world.stack.connect("198.18.0.1", 80, wait=False)  # asks for the address in its next turn
    world.network.filter_ab = broken
    with pytest.raises(KeyError, match="script"):
        world.advance(60 * SECOND)
    world.network.filter_ab = None
    connection.abort()
    world.close()


@pytest.mark.parametrize("duration_ns", [-1, -(10**30)])
def test_time_never_goes_back(duration_ns: int) -> None:
    world = Listening()
    for move in (lambda: world.advance(duration_ns), lambda: world.run_until(lambda: False, duration_ns)):
        with pytest.raises(ValueError, match="must not be negative"):
            move()
    with pytest.raises(ValueError, match="never goes back"):
        world.step(START_NS - 1)
    assert world.now_ns == START_NS
    world.close()


@pytest.mark.parametrize("duration_ns", [1 << 63, 10**30])
def test_a_time_that_no_clock_has_is_a_value_error(duration_ns: int) -> None:
    world = Listening()
    for move in (
        lambda: world.advance(duration_ns),
        lambda: world.run_until(lambda: False, duration_ns),
        lambda: world.step(duration_ns),
    ):
        with pytest.raises(ValueError, match="292 years"):
            move()
    with pytest.raises(TypeError, match="whole nanoseconds"):
        world.advance(0.5)  # type: ignore[arg-type]
    assert world.now_ns == START_NS
    world.now_ns = duration_ns
    with pytest.raises(ValueError, match="292 years"):
        world.pump()
    world.close()


def test_the_same_seed_gives_the_same_frames_at_the_same_times() -> None:
    """Over an impaired wire, data one way and both ends: run twice, and once more with another seed."""

    def run(seed: int) -> str:
        seen = FrameHash()
        network = {"loss": 0.1, "reorder": 0.1, "duplicate": 0.05, "delay_ns": 7 * MILLISECOND}
        with Pair(seed=seed, network=network) as pair:
            pair.network.filter_ab = lambda frame, _index: seen.add(pair.now_ns, frame)
            pair.network.filter_ba = lambda frame, _index: seen.add(pair.now_ns, frame)
            opener, accepter = pair.connect()
            opener.send(bytes(20_000), timeout=0)
            opener.close()
            accepter.close()
            pair.run_until(pair.at_rest, 6000 * SECOND)
        assert seen.frames > 20
        return seen.hexdigest()

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize("finishes", [False, True])
def test_work_that_a_stack_puts_off_is_the_next_steps_or_this_ones(finishes: bool) -> None:
    """A stack whose deadline is now is polled again in the same pump, or when the script steps."""

    class Staged:
        """As much of a stack as the clockwork uses: work for three turns."""

        polled = 0

        def poll(self, _now_ns: int) -> int:
            self.polled += 1
            return 0

        @property
        def next_deadline_ns(self) -> int | None:
            return START_NS if self.polled < 3 else None

    staged = Staged()
    with SimNetwork(now_ns=START_NS) as network:
        world = World(network, now_ns=START_NS)
        world.finishes_turns = finishes
        world.stacks = lambda: (staged,)  # type: ignore[method-assign,assignment,return-value]
        world.pump()
        assert staged.polled == (3 if finishes else 1)
        assert world.next_event_ns() == (None if finishes else START_NS)
        world.step(START_NS + SECOND)
        assert staged.polled == (4 if finishes else 2)
        assert world.now_ns == START_NS + (SECOND if finishes else TICK_NS)

# SPDX-License-Identifier: MIT
"""CoDel and RED frame by frame, against models that are written here from their papers, in floating point and lists."""

import random
from collections import deque
from math import sqrt

import pytest

from ustack.sim.world import MICROSECOND, MILLISECOND
from ustack.testing.parts.queues import drawn, served

DROPTAIL, CODEL, RED = 0, 1, 2
TARGET_NS, INTERVAL_NS = 5 * MILLISECOND, 100 * MILLISECOND


class Codel:
    """RFC 8289 section 5: the queue as its pseudocode has it."""

    def __init__(self, max_packet: int) -> None:
        self.max_packet = max_packet
        self.waiting: deque[tuple[int, int, int]] = deque()  # (number, came at, bytes)
        self.first_above = 0
        self.drop_next = 0.0
        self.count = self.last_count = 0
        self.dropping = False
        self.dropped: list[int] = []

    def bytes(self) -> int:
        return sum(length for _, _, length in self.waiting)

    def look(self, now: int) -> tuple[tuple[int, int, int] | None, bool]:
        if not self.waiting:
            self.first_above = 0
            return None, False
        frame = self.waiting.popleft()
        if now - frame[1] < TARGET_NS or self.bytes() <= self.max_packet:
            self.first_above = 0
        elif self.first_above == 0:
            self.first_above = now + INTERVAL_NS
        elif now >= self.first_above:
            return frame, True
        return frame, False

    def drop(self, frame: tuple[int, int, int] | None) -> None:
        assert frame is not None
        self.dropped.append(frame[0])

    def take(self, now: int) -> int | None:
        frame, ok = self.look(now)
        if self.dropping:
            if not ok:
                self.dropping = False
            while self.dropping and now >= self.drop_next:
                self.drop(frame)
                self.count += 1
                frame, ok = self.look(now)
                if not ok:
                    self.dropping = False
                else:
                    self.drop_next += INTERVAL_NS / sqrt(self.count)
        elif ok:
            self.drop(frame)
            frame, ok = self.look(now)
            self.dropping = True
            delta = self.count - self.last_count
            self.count = delta if delta > 1 and now - self.drop_next < 16 * INTERVAL_NS else 1
            self.drop_next = now + INTERVAL_NS / sqrt(self.count)
            self.last_count = self.count
        return frame[0] if frame else None


def modelled(arrivals: list[tuple[int, int]], services: list[int], max_packet: int) -> tuple[Codel, list[int | None]]:
    model = Codel(max_packet)
    got: list[int | None] = []
    come = 0
    for now in services:
        while come < len(arrivals) and arrivals[come][0] <= now:
            model.waiting.append((come, *arrivals[come]))
            come += 1
        got.append(model.take(now))
    return model, got


@pytest.mark.parametrize(
    ("frame_bytes", "length", "max_packet"),
    [(0, 1514, 1514), (0, 590, 1514), (0, 9014, 9014), (590, 590, 590), (9014, 1514, 9014)],
)
def test_codel_lets_a_full_frame_of_its_link_wait(frame_bytes: int, length: int, max_packet: int) -> None:
    """What its MTU says; where the link takes any frame, the longest that has come, or Ethernet's."""

    def dropped(waiting: int) -> int:
        """Each frame leaves while so many are behind it, for longer than the target."""
        arrivals = [(10 * MILLISECOND * number, length) for number in range(300)]
        services = [10 * MILLISECOND * (number + waiting) + TARGET_NS for number in range(300 - waiting)]
        model, expected = modelled(arrivals, services, max_packet)
        _, got, _ = served(arrivals, services, kind=CODEL, frame_bytes=frame_bytes)
        assert got == expected
        return len(model.dropped)

    assert dropped(max_packet // length) == 0
    assert dropped(max_packet // length + 1) > 0


@pytest.mark.parametrize("seed", range(20))
def test_codel_drops_what_its_rfc_drops(seed: int) -> None:
    chance = random.Random(seed)
    # More comes than goes for a while, then less: into the dropping state and out of it, several times.
    arrivals, at = [], 0
    for _ in range(20):
        gap = chance.choice([700, 900, 950, 1100, 2000]) * MICROSECOND
        for _ in range(chance.randrange(50, 400)):
            at += chance.randrange(gap // 2, 3 * gap // 2)
            arrivals.append((at, chance.choice([66, 1514, 1514, 1514])))
    services = [MILLISECOND * number for number in range(at // MILLISECOND + 100)]
    model, expected = modelled(arrivals, services, max_packet=1514)
    met, got, _ = served(arrivals, services, kind=CODEL, limit_frames=1 << 20)
    assert got == expected
    assert set(met) == {"in"}
    assert len(model.dropped) > 20


ONE = 1 << 32  # probability 1


def gentle(average: int, least: int, most: int) -> int:
    """Floyd's curve: up to a tenth between the marks, from there on to certainty at twice the upper one."""
    tenth = ONE // 10
    if average < least:
        return 0
    if average < most:
        return tenth * (average - least) // (most - least)
    if average < 2 * most:
        return tenth + (ONE - tenth) * (average - most) // most
    return ONE


def test_red_drops_everything_far_above_its_upper_mark() -> None:
    arrivals = [(number * MILLISECOND, 1000) for number in range(40)]
    met, _, averages = served(arrivals, [], kind=RED, red_weight_shift=1, red_min_bytes=500, red_max_bytes=1_400)
    assert max(averages) >= 2_800
    assert all(what == "dropped" for what, average in zip(met, averages, strict=True) if average >= 2_800)


@pytest.mark.parametrize(("least", "most"), [(15_000, 45_000), (500, 1_500)])
@pytest.mark.parametrize("seed", range(10))
def test_red_drops_what_its_paper_drops(seed: int, least: int, most: int) -> None:
    chance = random.Random(seed)
    shift, idle = 6, 1_200_000
    arrivals, at = [], 0
    for _ in range(20):
        gap = chance.choice([300, 700, 1000, 1500, 3000]) * MICROSECOND
        for _ in range(chance.randrange(50, 400)):
            at += chance.randrange(gap // 2, 3 * gap // 2)
            arrivals.append((at, 1000))
    services = [MILLISECOND * number for number in range(at // MILLISECOND + 100)]
    met, got, averages = served(
        arrivals,
        services,
        kind=RED,
        seed=seed,
        idle_frame_ns=idle,
        limit_frames=1 << 20,
        red_min_bytes=least,
        red_max_bytes=most,
        red_weight_shift=shift,
    )
    numbers = iter(drawn(seed, len(arrivals)))
    average, queued, count, idle_since = 0.0, 0, 0, None
    served_at = 0
    waiting: deque[int] = deque()
    taken: list[int | None] = []
    expected = []
    for number, (now, length) in enumerate(arrivals):
        while served_at < len(services) and services[served_at] < now:
            if not waiting and idle_since is None:
                idle_since = services[served_at]
            taken.append(waiting.popleft() if waiting else None)
            served_at += 1
        queued = len(waiting) * length
        if not waiting and idle_since is not None:
            looks = (now - idle_since) // idle
            average *= (1 - 2**-shift) ** looks
            idle_since += looks * idle
        average += (queued - average) / 2**shift
        # What integers and floating point make of the same formula may differ by a byte; go on from theirs.
        assert abs(average - averages[number]) < 2 + average / 1000
        seen = averages[number]
        average = seen if abs(average - seen) > 1 else average
        probability = gentle(seen, least, most)
        drop = False
        if probability == 0:
            count = 0
        else:
            left = ONE - count * probability
            count += 1
            if left <= 0 or next(numbers) * left // ONE < probability:
                drop = True
                count = 1
        expected.append("dropped" if drop else "in")
        if not drop:
            waiting.append(number)
            idle_since = None
    assert met == expected
    assert got[: len(taken)] == taken
    assert 20 < expected.count("dropped") < len(arrivals) // 2


def test_red_marks_what_it_would_drop_up_to_twice_its_upper_mark() -> None:
    """From there on it drops all."""
    arrivals = [(number * MILLISECOND, 1000) for number in range(60)]
    red: dict[str, int] = {"red_weight_shift": 3, "red_min_bytes": 500, "red_max_bytes": 4_000, "red_max_p": ONE // 2}
    plain, _, _ = served(arrivals, [], kind=RED, **red)
    met, _, averages = served(arrivals, [], kind=RED, ecn=True, **red)
    assert set(plain) == {"in", "dropped"}
    below = sum(average < 8_000 for average in averages)
    assert set(met[:below]) == {"in", "marked"}
    assert set(met[below:]) == {"dropped"}
    first = plain.index("dropped")
    assert met[:first] == ["in"] * first
    assert met[first] == "marked"


def test_red_marks_nothing_that_finds_no_room() -> None:
    """And counts it as dropped: the next one is the first since."""
    arrivals = [(number * MILLISECOND, 1000) for number in range(300)]
    services = [number * MILLISECOND + 1 for number in range(100, 300, 2)]
    red: dict[str, int] = {"red_weight_shift": 3, "red_min_bytes": 1_000, "red_max_bytes": 9_000, "red_max_p": ONE // 4}
    met, _, averages = served(arrivals, services, kind=RED, ecn=True, limit_bytes=5_000, **red)
    assert averages[99] > 4_900  # an eighth of those that find room is to be marked
    assert met[5:101] == ["dropped"] * 96
    assert set(met) == {"in", "marked", "dropped"}
    assert averages[9] < averages[19] < averages[29]  # what finds no room has looked as well


def test_droptail_drops_what_finds_no_room() -> None:
    arrivals = [(number, 100) for number in range(10)]
    met, got, _ = served(arrivals, [100, 101, 102], kind=DROPTAIL, limit_frames=4)
    assert met == ["in"] * 4 + ["dropped"] * 6
    assert got == [0, 1, 2]
    met, _, _ = served([(0, 100), (1, 150), (2, 60), (3, 50)], [], kind=DROPTAIL, limit_bytes=250)
    assert met == ["in", "in", "dropped", "dropped"]

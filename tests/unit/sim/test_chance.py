# SPDX-License-Identifier: MIT
"""What chance does to frames, against what theory says of it. Seeds are fixed, so that a bound is passed or not.

Frames are told apart by when they leave and when they arrive: a recorder on either side of a hop under test.
"""

import io
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from math import sqrt
from typing import Any

import pytest

from ustack.sim.network import Network
from ustack.sim.world import SECOND

FRAMES = 20_000
SHORTEST_NS = 5_280  # what a frame of 66 bytes takes on the wire: what is late by less overtakes none
SIGMAS = 4.5


def blocks(recorded: bytes) -> Iterator[tuple[int, bytes]]:
    """Time and frame of each enhanced packet block (pcapng)."""
    at = 0
    while at < len(recorded):
        kind, length = struct.unpack_from("<II", recorded, at)
        if kind == 6:
            _, high, low, captured = struct.unpack_from("<IIII", recorded, at + 8)
            yield high << 32 | low, recorded[at + 28 : at + 28 + captured]
        at += length


def passed(**settings: Any) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]], dict[str, int]]:
    """What a hop with these settings was sent, what came of it, and what it has counted. The hop behind it takes no
    time."""
    sent, arrived = io.BytesIO(), io.BytesIO()
    with Network(seed=1) as network:
        network.host("a")
        network.host("b")
        network.router("r")
        tested, _ = network.connect("a", "r", rate_bps=100_000_000)
        behind, _ = network.connect("r", "b")
        tested.set(**settings)
        tested.record(sent)
        behind.record(arrived)
        network.flow("f", source="a", sink="b", size=FRAMES * 1448)
        network.run(3600 * SECOND, until_ended=True)
        network.run(SECOND)
        counters = tested.counters()
    assert counters["sent"] >= FRAMES
    return list(blocks(sent.getvalue())), list(blocks(arrived.getvalue())), counters


def near(count: float, trials: float, probability: float) -> bool:
    """A binomial count within SIGMAS of its mean."""
    return abs(count - trials * probability) < SIGMAS * sqrt(trials * probability * (1 - probability))


def fates(sent: list[tuple[int, bytes]], arrived: list[tuple[int, bytes]]) -> list[bool]:
    """Of each frame in the order of sending: was it lost? No two leave at one time."""
    times = {at for at, _ in arrived}
    return [at not in times for at, _ in sent]


def test_losses_by_chance_are_independent() -> None:
    """As often as said; and as often behind a loss as behind none (chi-square of the four pairs, one degree)."""
    sent, arrived, counters = passed(loss=0.05)
    lost = fates(sent, arrived)
    assert sum(lost) == counters["lost"]
    assert near(sum(lost), len(lost), 0.05)
    pairs = Counter(pairwise(lost))
    total, share = sum(pairs.values()), sum(lost) / len(lost)
    expected = {(x, y): total * (share if x else 1 - share) * (share if y else 1 - share) for x, y in pairs}
    assert len(pairs) == 4
    assert sum((pairs[pair] - expected[pair]) ** 2 / expected[pair] for pair in pairs) < 10.83  # one in a thousand


def test_a_gilbert_channel_has_bursts_as_long_as_its_bad_state() -> None:
    """All is lost in the bad state and nothing in the good: bursts are geometric, with a mean of 1 / bad_to_good, and
    so are the gaps between them; the share is good_to_bad / (good_to_bad + bad_to_good)."""
    p, r = 0.02, 0.25
    sent, arrived, _ = passed(good_to_bad=p, bad_to_good=r, loss_bad=1.0)
    lost = fates(sent, arrived)
    runs = [(was, len(list(run))) for was, run in groupby(lost)]
    for was, ends in ((True, r), (False, p)):
        lengths = [length for which, length in runs[1:-1] if which is was]
        assert near(len(lengths), sum(lengths), ends)  # each frame of a run ends it with that probability
        assert near(lengths.count(1), len(lengths), ends)
    # The variance of a share of a two-state chain: that of independent ones times (1 + memory) / (1 - memory).
    share, memory = p / (p + r), 1 - p - r
    spread = sqrt(share * (1 - share) * (1 + memory) / (1 - memory) / len(lost))
    assert abs(sum(lost) / len(lost) - share) < SIGMAS * spread


def test_an_elliott_channel_loses_a_share_in_each_state() -> None:
    p, r, good, bad = 0.05, 0.2, 0.01, 0.5
    sent, arrived, _ = passed(good_to_bad=p, bad_to_good=r, loss_good=good, loss_bad=bad)
    lost = fates(sent, arrived)
    share, memory = p / (p + r), 1 - p - r
    mean = share * bad + (1 - share) * good
    # Two frames next to each other: the state's covariance is share * (1 - share) * memory.
    together = mean**2 + share * (1 - share) * memory * (bad - good) ** 2
    spread = sqrt(mean * (1 - mean) * (1 + memory) / (1 - memory) / len(lost))
    assert abs(sum(lost) / len(lost) - mean) < SIGMAS * spread
    both = sum(x and y for x, y in pairwise(lost)) / (len(lost) - 1)
    assert abs(both - together) < 3 * spread
    assert together > 1.5 * mean**2


def test_jitter_is_uniform() -> None:
    """Ten equal parts of what is added at most, by chi-square of nine degrees."""
    sent, arrived, _ = passed(jitter_ns=SHORTEST_NS)
    delays = [there - here for (here, _), (there, _) in zip(sent, arrived, strict=True)]
    assert 0 <= min(delays) < max(delays) < SHORTEST_NS
    parts = Counter(delay * 10 // SHORTEST_NS for delay in delays)
    expected = len(delays) / 10
    assert sum((parts[part] - expected) ** 2 / expected for part in range(10)) < 27.88  # one in a thousand


@pytest.mark.parametrize(("setting", "counter"), [("duplicate", "duplicated"), ("corrupt", "corrupted")])
def test_a_share_of_frames_comes_twice_or_damaged(setting: str, counter: str) -> None:
    sent, arrived, counters = passed(**{setting: 0.05})
    assert near(counters[counter], len(sent), 0.05)
    if setting == "duplicate":
        assert len(arrived) == len(sent) + counters["duplicated"]


def test_a_late_frame_is_late_by_a_uniform_time() -> None:
    sent, arrived, counters = passed(reorder=0.05, reorder_ns=SHORTEST_NS)
    delays = [there - here for (here, _), (there, _) in zip(sent, arrived, strict=True)]
    late = [delay for delay in delays if delay]
    assert len(late) == counters["reordered"]
    assert near(len(late), len(sent), 0.05)
    assert min(late) >= 1
    assert max(late) <= SHORTEST_NS
    parts = Counter((delay - 1) * 4 // SHORTEST_NS for delay in late)
    expected = len(late) / 4
    assert sum((parts[part] - expected) ** 2 / expected for part in range(4)) < 16.27  # one in a thousand

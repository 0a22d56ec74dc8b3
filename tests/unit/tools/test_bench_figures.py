# SPDX-License-Identifier: MIT
"""figures: what runs mean together, and what a failed run is not."""

import random
from itertools import product
from math import comb

import pytest

from tests.unit.tools.bench_runs import run, runs
from ustack.tools.bench import figures
from ustack.tools.bench.figures import Ratio, best, cell, cells, limited_by, median_interval, pairs, ratio, sign_test


def test_a_ratio_is_of_rounds_and_not_of_medians():
    made = runs(a=[10, 100, 30], b=[5, 80, 10])
    found = ratio(made, "made", "a point", "a", "b")
    assert found is not None
    assert found.median == 2.0  # of 2, 1.25 and 3; the medians' is 3
    assert (found.least, found.most, found.rounds) == (1.25, 3.0, 3)


def test_a_failed_run_is_in_no_ratio_and_no_median():
    made = runs(a=[10, None, 30], b=[5, 1, None])
    assert pairs(made, "made", "a point", "a", "b") == [2.0]
    assert cell([one for one in made if one.contestant == "a"], 0, 1).median == 20


def test_a_value_with_an_error_does_not_count():
    """A server that answers fast and wrong has a figure, and an error beside it."""
    wrong = [run("fast", number, 1e9, errors={"status": 3}) for number in (1, 2, 3)]
    made = [*wrong, *runs(slow=[1, 1, 1])]
    assert ratio(made, "made", "a point", "fast", "slow") is None
    found = cells(made, 0, 1)
    assert best(found, "made", "a point", ["fast", "slow"], lower=False) == "slow"
    assert found["made", "a point", "fast"].median is None
    assert found["made", "a point", "fast"].why == "status"


@pytest.mark.parametrize("lower", [False, True])
def test_who_failed_in_one_round_is_not_best(lower: bool):
    """Neither as the greatest nor as the least."""
    made = runs(flaky=[1000, None, 0.001], steady=[3, 4, 5])
    assert best(cells(made, 0, 1), "made", "a point", ["flaky", "steady"], lower=lower) == "steady"


def test_nobody_is_best_where_all_failed():
    made = runs(a=[None], b=[None])
    assert best(cells(made, 0, 1), "made", "a point", ["a", "b"], lower=True) == ""
    assert ratio(made, "made", "a point", "a", "b") is None


def test_the_sign_test_is_the_coins():
    for n in range(1, 9):
        for above in range(n + 1):
            as_far = [k for k in range(n + 1) if min(k, n - k) <= min(above, n - above)]
            assert sign_test(above, n - above) == pytest.approx(min(1, sum(comb(n, k) for k in as_far) / 2**n))
    assert sign_test(0, 0) == 1.0


def compared(**values: list[float | None]) -> Ratio:
    found = ratio(runs(**values), "made", "a point", "a", "b")
    assert found is not None
    return found


def test_five_rounds_are_never_sure_and_six_may_be():
    assert not compared(a=[2] * 5, b=[1] * 5).sure
    assert compared(a=[2] * 6, b=[1] * 6).sure
    assert not compared(a=[2, 2, 2, 2, 2, 1], b=[1, 1, 1, 1, 1, 2]).sure


def test_rounds_that_tie_say_nothing():
    found = compared(a=[1] * 9, b=[1] * 9)
    assert (found.above, found.below, found.p) == (0, 0, 1.0)


@pytest.mark.parametrize("n", range(1, 12))
def test_the_interval_covers_the_median_as_often_as_it_says(n: int):
    """All orders of values above and below the true median are equally likely: count those in which it is inside."""
    low, high, coverage = median_interval(list(range(n)))
    drop = int(low)
    assert high == n - 1 - drop
    inside = sum(drop < sum(signs) < n - drop for signs in product((0, 1), repeat=n))
    assert coverage == pytest.approx(inside / 2**n)


def test_the_interval_is_narrower_when_rounds_are_many():
    source = random.Random(1)
    values = [source.gauss(1, 0.1) for _ in range(20)]
    low, high, coverage = median_interval(values)
    assert coverage >= figures.CONFIDENCE
    assert min(values) < low < high < max(values)


@pytest.mark.parametrize(
    ("client_idle", "server_idle", "said"),
    [(0.5, 0.01, "server"), (0.0, 0.3, "client"), (0.0, 0.0, "both"), (0.2, 0.2, "neither")],
)
def test_which_core_was_full(client_idle: float, server_idle: float, said: str):
    cores = [{"core": 2.0, "idle": client_idle}, {"core": 5.0, "idle": server_idle}, {"core": 0.0, "idle": 0.0}]
    assert limited_by(cores, 2, 5) == said

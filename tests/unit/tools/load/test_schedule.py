# SPDX-License-Identifier: MIT
"""When requests are due: by the rate, the ramp and the seed alone."""

import itertools

import pytest

from ustack.tools.load.schedule import due_times

SECOND = 1_000_000_000


def test_a_fixed_rate_is_due_at_equal_steps() -> None:
    assert due_times(1000, SECOND) == [i * 1_000_000 for i in range(1000)]


@pytest.mark.parametrize("rate", [3, 7, 10_000, 30_000, 123_456, 1_000_000])
def test_a_second_has_as_many_as_the_rate_says(rate: int) -> None:
    assert len(due_times(rate, SECOND)) == rate
    assert len(due_times(rate * 10, SECOND // 10)) == rate


def test_no_step_is_lost_by_rounding_in_an_hour() -> None:
    times = due_times(30, 3600 * SECOND)
    assert len(times) == 108_000
    assert times[-1] == pytest.approx(3600 * SECOND - SECOND / 30, abs=2)


def test_poisson_has_the_rate_and_the_gaps_of_independent_people() -> None:
    times = due_times(10_000, 10 * SECOND, poisson=True, seed=3)
    assert len(times) == pytest.approx(100_000, rel=0.01)  # three standard deviations
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(100_000, rel=0.01)
    assert deviation == pytest.approx(mean, rel=0.02)  # exponential: equal
    assert sum(gap > 3 * mean for gap in gaps) / len(gaps) == pytest.approx(0.0498, rel=0.1)  # exp(-3)
    assert times == due_times(10_000, 10 * SECOND, poisson=True, seed=3)
    assert times != due_times(10_000, 10 * SECOND, poisson=True, seed=4)


@pytest.mark.parametrize("poisson", [False, True])
def test_a_ramp_grows_in_a_straight_line(poisson: bool) -> None:
    times = due_times(10_000, 4 * SECOND, poisson=poisson, ramp_ns=2 * SECOND)

    def between(low: float, high: float) -> int:
        return sum(low * SECOND <= time < high * SECOND for time in times)

    assert between(0, 1) == pytest.approx(2500, rel=0.1)  # the integral of 5,000 t
    assert between(1, 2) == pytest.approx(7500, rel=0.1)
    assert between(2, 3) == pytest.approx(10_000, rel=0.05)
    assert between(3, 4) == pytest.approx(10_000, rel=0.05)
    assert times == sorted(times)

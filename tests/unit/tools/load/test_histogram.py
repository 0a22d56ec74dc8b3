# SPDX-License-Identifier: MIT
"""The histogram that is counted in C is the one that the package hdrhistogram counts."""

import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from ustack.tools.load.histogram import HIGHEST_NS, LOWEST_NS, SIGNIFICANT_FIGURES, Histogram
from ustack.tools.load.summary import as_hdr, spread

EDGES = [0, 1, 2047, 2048, 2049, 4095, 4096, 1_000_000, 2**31 - 1, 2**31, 2**40, HIGHEST_NS]


def both(values: list[int]) -> tuple[HdrHistogram, HdrHistogram]:
    """Ours, read by the package; and the package's own."""
    ours = Histogram()
    theirs = HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_FIGURES)
    for value in values:
        ours.record(value)
        assert theirs.record_value(value)
    return as_hdr(ours), theirs


@given(st.lists(st.integers(0, HIGHEST_NS), min_size=1, max_size=50))
def test_every_value_is_counted_where_the_package_counts_it(values: list[int]) -> None:
    ours, theirs = both([*values, *EDGES])
    assert list(ours.counts) == list(theirs.counts)
    assert ours.get_total_count() == theirs.get_total_count()


def test_percentiles_are_those_of_the_values() -> None:
    draw = random.Random(7)
    values = sorted(int(draw.lognormvariate(11, 1.5)) for _ in range(20_000))
    found = spread(both(values)[0])
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.99", 0.9999)):
        exact = values[min(len(values) - 1, round(share * len(values)) - 1)] / 1e3
        assert found[name] == pytest.approx(exact, rel=2e-3)
    assert found["max"] == pytest.approx(values[-1] / 1e3, rel=1e-3)


def test_histograms_are_merged_by_the_package() -> None:
    ours, theirs = both([5, 5_000_000, 9])
    ours.add(both([70_000, 5])[0])
    theirs.add(both([70_000, 5])[1])
    assert list(ours.counts) == list(theirs.counts)
    assert HdrHistogram.decode(ours.encode()).get_value_at_percentile(50) == 9


def test_what_is_beyond_is_counted_at_the_end_and_said() -> None:
    histogram = Histogram()
    histogram.record(2**63)
    assert (histogram.total, histogram.beyond) == (1, 1)
    assert as_hdr(histogram).get_total_count() == 1


def test_nothing_has_no_spread() -> None:
    assert spread(as_hdr(Histogram())) == {}

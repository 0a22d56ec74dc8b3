# SPDX-License-Identifier: MIT
"""Goodput over a path of 66 ms that delivers some frames late, in virtual time: reordering must not look like loss."""

import pytest

from ustack.tools.bench_paths import Path, transfer

SECONDS = 8


def goodput(reorder: float, late_ms: int, seed: int) -> float:
    path = Path("reorders", round_trip_ms=66, queue_bdp=1, reorder=reorder, late_ms=late_ms)
    return transfer(path, "cubic", SECONDS, seed).megabits_per_second


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundredth_of_frames_five_milliseconds_late_costs_nothing(seed: int) -> None:
    """The queue overflows now and then, too: that is answered as it is without reordering."""
    assert goodput(0.01, 5, seed) >= 0.97 * goodput(0, 5, seed)

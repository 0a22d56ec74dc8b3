# SPDX-License-Identifier: MIT
"""The clock that every `now_ns` counts in."""

import time

from ustack.base.clock import monotonic_ns


def test_it_is_the_systems_monotonic_clock_and_never_decreases() -> None:
    readings = [time.monotonic_ns(), monotonic_ns(), monotonic_ns(), time.monotonic_ns()]
    assert readings == sorted(readings)

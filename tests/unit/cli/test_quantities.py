# SPDX-License-Identifier: MIT
"""Rates, times, sizes and shares as text: what they mean, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from ustack.cli.quantities import queue, rate_bps, share, size_bytes, time_ns
from ustack.lab import LabError


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (rate_bps, "100mbit", 100_000_000),
        (rate_bps, "1.5Gbit/s", 1_500_000_000),
        (rate_bps, "64 kbit", 64_000),
        (rate_bps, "9600", 9600),
        (rate_bps, "0", 0),
        (time_ns, "10ms", 10_000_000),
        (time_ns, ".5s", 500_000_000),
        (time_ns, "250us", 250_000),
        (time_ns, "7ns", 7),
        (time_ns, "0", 0),
        (size_bytes, "250kB", 250_000),
        (size_bytes, "1MiB", 1 << 20),
        (size_bytes, "3000", 3000),
        (size_bytes, "0.3kb", 300),
        (share, "1%", 0.01),
        (share, "0.1 %", 0.001),
        (share, "0.25", 0.25),
        (share, "100%", 1.0),
        (share, "1.", 1.0),
        (queue, "100p", {"queue_frames": 100}),
        (queue, "1packets", {"queue_frames": 1}),
        (queue, "250kB", {"queue_bytes": 250_000}),
    ],
)
def test_what_people_write_is_understood(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (rate_bps, ""),
        (rate_bps, "fast"),
        (rate_bps, "100MB"),
        (rate_bps, "-1mbit"),
        (rate_bps, "1e9"),
        (rate_bps, "9999999999gbit"),
        (rate_bps, "٣mbit"),
        (time_ns, "10"),
        (time_ns, "10m"),
        (time_ns, "nan"),
        (size_bytes, "1kbit"),
        (share, "1ms"),
        (share, "101%"),
        (share, "1.5"),
        (share, "%"),
        (queue, "0p"),
        (queue, "0"),
        (queue, "p"),
        (queue, "1.5p"),
        (queue, "99999999p"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(LabError, match=r"^bad \w+ "):
        read(text)


def test_no_fraction_is_lost_on_the_way() -> None:
    assert time_ns("0.000000001s") == 1
    assert rate_bps("0.1gbit") == 100_000_000

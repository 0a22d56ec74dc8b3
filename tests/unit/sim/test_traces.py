# SPDX-License-Identifier: MIT
"""Recorded rates: both kinds of file, and what is neither."""

import re
from pathlib import Path

import pytest

from ustack.sim import traces
from ustack.sim.scenario import MILLISECOND, SECOND, Trace
from ustack.sim.traces import parse


def test_departures_are_averaged_over_steps() -> None:
    """Two packets in the first 100 ms, none in the second, one in the last 50: 12,000 bits each."""
    assert parse("# Mahimahi\n10\n100\n250\n", "t") == Trace(
        ((0, 240_000), (100_000_000, 0), (200_000_000, 240_000)), 250_000_000
    )
    assert parse("5\n5\n10\n", "t", step_ns=5 * MILLISECOND, repeats=False) == Trace(
        ((0, 4_800_000), (5_000_000, 2_400_000))
    )


def test_rates_are_steps_and_the_last_lasts_as_long_as_the_one_before() -> None:
    text = "0, 1.5\n\n1.5 1.5\n# less\n2 0\n"
    assert parse(text, "t") == Trace(((0, 1_500_000), (2 * SECOND, 0)), 2_500_000_000)
    assert parse("0 7", "t") == Trace(((0, 7_000_000),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t: no line with a number"),
        ("# 1\n", "t: no line with a number"),
        ("0\n", "t: it ends at 0 ms"),
        ("5\n4\n", "t:2: 4 is before the line above it"),
        ("5\n-4\n", "t:2: '-4': a whole number of milliseconds"),
        ("5\n4.5\n", "t:2: '4.5': a whole"),
        ("5\n6 7\n", "t:2: '6 7': a whole"),
        ("5\n999999999999\n", "t:2: more than 1,000,000 steps of 0.1 s"),
        ("5\n" + "9" * 5000 + "\n", "t:2: '999"),
        ("0 1\n1\n", "t:2: '1': two numbers are needed"),
        ("0 1\n1 x\n", "t:2: '1 x': two numbers are needed"),
        ("0 1\n0 2\n", "t:2: 0 s is not after the line above it"),
        ("1 1\n", "t:1: the first line is of 0 s"),
        ("0 nan\n", "t:1: nan Mb/s is not from 0"),
        ("0 1e99\n", "t:1: 1e99 Mb/s is not from 0"),
        ("0 1\ninf 2\n", "t:2: inf s is not from 0"),
        ("0 0\n1 0\n", "t: no rate is more than 0"),
        ("0 1 2\n", "t:1: '0 1 2': two numbers"),
        ("0 1.8e7\n", "t:1: 1.8e7 Mb/s is not from 0 to 17,000,000"),
        ("0 1\n1e-9 2\n", "t: 2 rates in 2 ns, again and again: more than one for each 10 us"),
    ],
)
def test_what_is_neither_is_refused_at_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(text, "t")


def test_steps_of_a_repetition_are_bounded_by_its_time() -> None:
    assert parse("0 1\n1e-5 2\n", "t").repeat_ns == 20_000
    assert parse("0 1\n1e-9 2\n", "t", repeats=False).steps == ((0, 1_000_000), (1, 2_000_000))
    text = "".join(f"{at}\n" for at in range(1, 6, 2))
    assert len(parse(text, "t", step_ns=100_000).steps) == 6
    with pytest.raises(ValueError, match=r"^t: 2 packets in 1 ns are more than 17,000,000 Mb/s"):
        parse("1\n1\n", "t", step_ns=1)
    assert parse("1\n", "t", step_ns=1).steps == ((0, 0), (999_999, 12_000 * SECOND))


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "BYTES_MOST", 4)
    monkeypatch.setattr(traces, "STEPS_MOST", 1)
    (tmp_path / "t").write_text("1\n2\n3\n")
    with pytest.raises(ValueError, match="larger than"):
        traces.read(tmp_path / "t")
    with pytest.raises(ValueError, match="more than 1 lines"):
        parse("0 1\n1 2\n", "t")
    with pytest.raises(ValueError, match="Is a directory"):
        traces.read(tmp_path)

# SPDX-License-Identifier: MIT
"""bench_trace: the ratio is of the two runs of a round, and what is missing or wrong is said."""

import pytest

from ustack.tools import bench_trace
from ustack.tools.generators import Load


def run_of(requests: int, errors: dict[str, int] | None = None) -> Load:
    return Load(requests=requests, seconds=2.0, errors=errors or {})


def test_the_ratio_is_of_the_runs_of_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    plain, traced = [run_of(n) for n in (1000, 2000, 4000)], [run_of(n) for n in (990, 1900, 4000)]
    bench_trace.report({"plain": plain, "traced": traced}, 12345, 67)
    said = capsys.readouterr().out
    cells = [cell.strip() for line in said.splitlines() if "traced / plain" in line for cell in line.split("│")[2:-1]]
    assert cells == ["0.990", "0.970", "0.995", "0.950", "1.000"]
    assert "12,345 records were written, 67 are missing" in said
    assert "errors" not in said


def test_a_single_round_and_its_errors(capsys: pytest.CaptureFixture[str]) -> None:
    bench_trace.report({"plain": [run_of(1000)], "traced": [run_of(500, {"timeout": 3})]}, 0, 0)
    said = capsys.readouterr().out
    assert said.count("0.500") == 5
    assert "timeout" in said

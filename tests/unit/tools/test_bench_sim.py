# SPDX-License-Identifier: MIT
"""bench_sim: each round simulates the same, what is printed, and wrong arguments."""

import pytest
from click.testing import CliRunner

from ustack.tools import bench_sim
from ustack.tools.bench_sim import Times, simulate, table_of


def test_every_round_simulates_the_same() -> None:
    times = Times(0.01)
    simulate(times, "newreno")
    events, virtual_s = times.events, times.virtual_s
    simulate(times, "newreno")
    assert (times.events, times.virtual_s) == (events, virtual_s)
    assert events > 30_000  # 13,800 segments with data
    assert virtual_s > bench_sim.SIZE_BYTES * 8 / bench_sim.RATE_BPS
    assert len(times.seconds) == 2


def test_the_quiet_one_is_an_hour_in_which_little_happens() -> None:
    times = Times(None)
    simulate(times, "cubic")
    assert times.virtual_s == 3600
    assert times.events < 12 * 3600  # of a request and a response: four frames at most, and two turns for each


def test_the_table_has_a_median() -> None:
    table = table_of([Times(0.001, [0.5, 0.125, 0.25], 7.0, 1_000)], "cubic")
    assert [list(column.cells) for column in table.columns] == [
        ["0.1%"],
        ["0.2500"],
        ["0.1250-0.5000"],
        ["7.0"],
        ["28"],
        ["1,000"],
        ["250000"],
    ]


@pytest.mark.parametrize("arguments", [["--cc", "nobody"], ["--rounds", "0"], ["--rounds", "x"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(bench_sim.main, arguments)
    assert done.exit_code == 2
    assert arguments[0] in done.output

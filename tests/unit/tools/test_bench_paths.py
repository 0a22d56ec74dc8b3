# SPDX-License-Identifier: MIT
"""bench_paths: a path's arguments, one transfer in virtual time, the same for the same seed, and wrong arguments."""

import pytest
from click.testing import CliRunner

from ustack.tools import bench_paths
from ustack.tools.bench_paths import PATHS, Path, transfer


def test_a_path_says_what_its_wire_does() -> None:
    network = Path("p", rate_bps=80_000_000, round_trip_ms=30, queue_bdp=2, loss=0.5).network()
    assert network["delay_ns"] == 15_000_000
    assert network["queue_frames"] == 80_000_000 // 8 * 30 * 2 // 1000 // 1500
    assert network["loss"] == 0.5


def test_the_same_seed_gives_the_same_figures() -> None:
    path = Path("p", rate_bps=10_000_000, loss=0.01)
    first = transfer(path, "newreno", 2, 7)
    assert first == transfer(path, "newreno", 2, 7)
    assert first.sent_again > 0
    assert 0 < first.megabits_per_second < 10


def test_a_run_prints_the_paths_that_were_asked_for() -> None:
    done = CliRunner().invoke(bench_paths.main, ["--seconds", "1", "--only", "0.1 %"], terminal_width=120)
    assert done.exit_code == 0, done.output
    assert "loses 0.1 %" in done.output
    assert "queue of four" not in done.output
    assert len({path.name for path in PATHS}) == len(PATHS)


@pytest.mark.parametrize("arguments", [["--cc", "nobody"], ["--only", "no such path"], ["--seconds", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(bench_paths.main, arguments)
    assert done.exit_code == 2
    assert arguments[0] in done.output

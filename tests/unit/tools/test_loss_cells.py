# SPDX-License-Identifier: MIT
"""bench_loss's cells: which there are, what path each asks of a wire, and what the runs of two servers come to."""

import pytest

from ustack.cli.wire import SETTINGS, pairs
from ustack.tools.compare import Measurement
from ustack.tools.loss_cells import (
    BESIDE_A_RUN_S,
    KINDS,
    QUEUE_LEAST_BYTES,
    Cell,
    cells,
    is_met,
    longest_s,
    percentile,
    rows,
)


def measured(round_number: int, column: str, server: str, value: float, **errors: int) -> Measurement:
    return Measurement(round_number, column, server, value, 0.0, errors, 0.0, 0.0, 0.0)


def test_the_grid_is_four_by_four() -> None:
    grid = cells(["bulk"], quick=False)
    assert len({(cell.rtt_ms, cell.loss_percent) for cell in grid}) == len(grid) == 16


def test_every_column_has_a_name_of_its_own() -> None:
    for quick in (False, True):
        names = [f"{cell.kind}: {column}" for cell in cells(KINDS, quick=quick) for column in cell.columns]
        assert len(names) == len(set(names))


def test_quick_has_some_of_each_kind() -> None:
    quick, full = cells(KINDS, quick=True), cells(KINDS, quick=False)
    assert {cell.kind for cell in quick} == set(KINDS)
    assert set(quick) < set(full)


@pytest.mark.parametrize("cell", cells(KINDS, quick=False), ids=lambda cell: f"{cell.kind}, {cell.name}")
def test_the_settings_are_those_of_the_command(cell: Cell) -> None:
    words = cell.settings(100, 2.0, 9)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options.pop("--seed") == "9"
    made = pairs({name.removeprefix("--"): value for name, value in options.items()}, {}, {})
    assert set(options) <= {f"--{name}" for name in SETTINGS}
    rate_bps = cell.rate_mbit * 1_000_000 or 100_000_000
    assert made["rate_bps"] == (rate_bps,) * 2
    assert made["delay_ns"] == (cell.rtt_ms * 500_000,) * 2
    assert made["queue_bytes"][0] == max(QUEUE_LEAST_BYTES, cell.rtt_ms * 25_000 * rate_bps // 100_000_000)
    assert made.get("loss", (0, 0))[1] == pytest.approx(cell.loss_percent / 100)
    assert ("reorder" in made) == (cell.kind == "reorder")


def test_a_cell_can_be_chosen_by_how_its_name_begins() -> None:
    one = cells(KINDS, quick=False, named=["reorder, 66 ms, 1%"])
    assert [cell.late for cell in one] == ["1%:5ms"]
    two = cells(KINDS, quick=False, named=["bulk, 20 ms, loss 1 %", "fast, 100"])
    assert [(cell.kind, cell.rtt_ms) for cell in two] == [("bulk", 20), ("fast", 100)]
    assert cells(KINDS, quick=False, named=["nothing"]) == []


def test_the_time_is_bounded_by_what_is_run() -> None:
    plain, loaded = Cell("bulk", 1000), Cell("queue", 1000, loaded=True)
    assert longest_s([plain], 1, 1, 10) == 10 + 1 + BESIDE_A_RUN_S
    assert longest_s([plain, loaded], 3, 2, 10) == 6 * (10 + 15 + 2 * (1 + BESIDE_A_RUN_S))


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0], 50) == 1.0


def test_goodput_is_to_be_as_high_and_times_as_low_as_the_kernel_s() -> None:
    bulk, short = Cell("bulk", 20), Cell("short", 20)
    runs = []
    for number, (ours, theirs) in enumerate(((90.0, 80.0), (10.0, 5.0), (50.0, 100.0)), 1):
        for server, value in (("ustack", ours), ("kernel", theirs)):
            runs.append(measured(number, f"bulk: {bulk.columns[0]}", server, value))
            runs += [measured(number, f"short: {column}", server, value) for column in short.columns]
    made = rows([bulk, short], runs, ["ustack", "kernel"])
    assert [(row.column, row.ratio, row.met) for row in made] == [
        (bulk.columns[0], 1.125, True),  # of 1.125, 2 and 0.5, never of the medians
        (short.columns[0], 1.125, False),
        (short.columns[1], 1.125, False),
    ]


def test_what_the_table_shows_as_equal_is_equal() -> None:
    assert [is_met(Cell("bulk", 1), ratio) for ratio in (0.994, 0.996, 1.0, 2.0)] == [False, True, True, True]
    assert [is_met(Cell("short", 1), ratio) for ratio in (1.006, 1.004, 1.0, 0.5)] == [False, True, True, True]
    assert is_met(Cell("bulk", 1), None) is None


def test_a_failed_run_is_neither_zero_nor_a_win() -> None:
    cell = Cell("bulk", 20, 5.0)
    key = f"bulk: {cell.columns[0]}"
    runs = [
        measured(1, key, "ustack", 0.0, broken=1),
        measured(1, key, "kernel", 4.0),
        measured(2, key, "ustack", 2.0),
        measured(2, key, "kernel", 4.0),
        measured(3, key, "ustack", 9.0),
        measured(3, key, "kernel", 0.0, **{"no byte came in 5 s": 1}),
    ]
    (row,) = rows([cell], runs, ["ustack", "kernel"])
    assert (row.ratio, row.met) == (0.5, False)
    assert [found.erroneous_runs for found in row.found] == [1, 1]
    assert row.found[0].errors == {"broken": 1}
    (lost,) = rows([cell], runs[:2], ["ustack", "kernel"])
    assert (lost.ratio, lost.met, lost.found[0].median) == (None, None, None)


def test_one_server_alone_has_no_ratio() -> None:
    cell = Cell("bulk", 20)
    (row,) = rows([cell], [measured(1, f"bulk: {cell.columns[0]}", "kernel", 4.0)], ["kernel"])
    assert (row.ratio, row.met, row.found[0].median) == (None, None, 4.0)

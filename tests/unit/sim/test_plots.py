# SPDX-License-Identifier: MIT
"""Drawings and tables: no peak is lost in what is thinned, the same outcome gives the same bytes, rows say what is."""

from typing import Any

import pytest

from ustack.sim import html, plots, tables
from ustack.sim.plots import POINTS_MOST
from ustack.sim.running import Outcome, run
from ustack.sim.scenario import SECOND, Flow, Host, Link, Scenario, Way

WAY = Way({"rate_bps": 10_000_000, "delay_ns": 10_000_000, "queue_bytes": 30_000})
SCENARIO = Scenario(
    (Host("a"), Host("b")),
    (Link("a-b", "a", "b", WAY, WAY),),
    (
        Flow("f", "a", "b", cc="newreno"),
        Flow(
            "ask", "b", "a", pattern="requests", pattern_settings={"request_bytes": 9, "response_bytes": 99, "count": 2}
        ),
    ),
    4 * SECOND,
    name="x<y",
)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    pytest.importorskip("matplotlib")
    return run(SCENARIO, series=True)


def drawn(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def most(line: tuple[list[float], list[float]]) -> float:
    return max(value for value in line[1] if value == value)


def axes_of(outcome: Outcome, kind: str) -> Any:
    [axes] = plots.figure_of(outcome, (kind,)).axes
    return axes


def test_what_is_thinned_keeps_peaks_and_their_order() -> None:
    values: list[float | None] = [float(number % 7) for number in range(100_000)]
    values[70_001], values[70_002] = 99.0, -99.0
    x, y = plots._thinned(range(100_000), values)
    assert len(y) <= POINTS_MOST + 2
    assert (max(y), min(y)) == (99.0, -99.0)
    assert x == sorted(x)
    assert x[y.index(99.0)] == 70_001


def test_a_gap_stays_a_gap() -> None:
    x, y = plots._thinned([0, 1, 2], [1.0, None, 3.0])
    assert (x, y[0], y[2]) == ([0, 1, 2], 1.0, 3.0)
    assert y[1] != y[1]
    _, long = plots._thinned(range(10_000), [None] * 10_000)
    assert all(value != value for value in long)


def test_each_kind_draws_what_the_series_say(outcome: Outcome) -> None:
    assert outcome.series is not None
    flow, hop = outcome.series["flows"]["f"], outcome.series["hops"]["a->b"]
    assert most(drawn(axes_of(outcome, "window"))["f (newreno)"]) == max(flow["cwnd"]) / 1000
    assert most(drawn(axes_of(outcome, "queue"))["a->b"]) == max(hop["queue_bytes"]) / 1000
    assert most(drawn(axes_of(outcome, "rtt"))["f (newreno)"]) == max(flow["srtt_us"]) / 1000
    assert most(drawn(axes_of(outcome, "sequence"))["f (newreno)"]) == max(flow["acked_bytes"]) / 1e6
    x, y = drawn(axes_of(outcome, "goodput"))["f (newreno)"]
    steps = [end - begin for begin, end in zip([0.0, *x], x, strict=False)]
    total = sum(rate * 1e6 / 8 * step for rate, step in zip(y, steps, strict=True))
    assert total == pytest.approx(flow["received_bytes"][-1], rel=0.02)


def test_a_queue_that_is_next_to_nothing_is_not_drawn(outcome: Outcome) -> None:
    assert "b->a" not in drawn(axes_of(outcome, "queue"))


def test_drops_and_retransmissions_have_marks(outcome: Outcome) -> None:
    assert outcome.hops["a->b"]["tail_dropped"] > 0
    for kind, marker in (("queue", "|"), ("sequence", "x")):
        assert marker in {line.get_marker() for line in axes_of(outcome, kind).get_lines()}


def test_the_same_outcome_gives_the_same_bytes(outcome: Outcome) -> None:
    first = plots.svg(outcome, plots.OVERVIEW)
    assert plots.svg(run(SCENARIO, series=True), plots.OVERVIEW) == first
    assert "var(--ink)" in first
    assert "<title>x&lt;y</title>" in first


def test_an_outcome_without_series_has_no_drawing(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="without series"):
        plots.svg(run(SCENARIO), ("window",))


def test_nothing_flowed_is_drawn_as_well() -> None:
    pytest.importorskip("matplotlib")
    silent = Scenario((Host("a"), Host("b")), (Link("a-b", "a", "b"),), (Flow("f", "a", "b", start_ns=9),), 1)
    made = run(silent, series=True)
    assert html.page_of(silent, made).count("<svg") == 5


def test_rows_of_a_flow_and_a_way(outcome: Outcome) -> None:
    rows = {row[0]: dict(zip(tables.FLOW_COLUMNS, row, strict=True)) for row in tables.flow_rows(outcome)}
    assert rows["f"]["control"] == "newreno"
    assert float(rows["f"]["goodput Mb/s"]) == pytest.approx(outcome.flows["f"]["goodput_bps"] / 1e6, abs=0.01)
    assert rows["f"]["end"] == "goes on"
    assert rows["ask"]["answers"] == "2"
    ways = {row[0]: dict(zip(tables.HOP_COLUMNS, row, strict=True)) for row in tables.hop_rows(outcome)}
    assert ways["a->b"]["dropped"] == f"{outcome.hops['a->b']['tail_dropped']:,}"
    assert ways["b->a"]["dropped"] == ""


def told(mbps: int, point: dict[str, str], seed: int = 1) -> Outcome:
    flow = {"received_bytes": mbps * 125_000, "goodput_bps": mbps * 10**6, "segments_sent": 100, "retransmitted": 1}
    return Outcome("x", seed, point, SECOND, {"f": flow, "g": flow})


def test_a_point_has_median_least_and_most_of_its_seeds() -> None:
    summary = tables.Summary()
    for seed, mbps in enumerate((1, 9, 2)):
        summary.add(told(mbps, {"cc": "bbr"}, seed))
    summary.add(told(5, {"cc": "cubic"}))
    assert summary.columns() == (
        *("cc", "runs", "goodput Mb/s", "least-most", "f Mb/s", "g Mb/s", "fairness", "again %"),
    )
    assert summary.rows() == [
        ("bbr", "3", "4.00", "2.00-18.00", "2.00", "2.00", "1.000", "1.00"),
        ("cubic", "1", "10.00", "10.00-10.00", "5.00", "5.00", "1.000", "1.00"),
    ]
    assert summary.goodputs() == {"bbr": [2.0, 18.0, 4.0], "cubic": [10.0]}


def test_a_point_whose_runs_failed_has_an_empty_row() -> None:
    summary = tables.Summary()
    summary.add(told(5, {"cc": "cubic"}))
    summary.add(Outcome("x", 7, {"cc": "bbr"}, error="ValueError: no"))
    assert summary.rows()[1] == ("bbr", "0", "", "", "", "", "", "")
    assert summary.failed == ["cc=bbr, seed 7: ValueError: no"]

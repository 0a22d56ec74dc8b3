# SPDX-License-Identifier: MIT
"""compare: medians, ratios by pairs, targets, on plain numbers."""

import pytest

from ustack.tools.compare import COLUMNS, SITE, Measurement, judge, ratio_by_pairs, summarize
from ustack.tools.generators import WRK_PATHS

INFO: dict[str, object] = {"tcb_bytes": 192, "flow_bytes": 16}


def run(
    round_number: int,
    server: str,
    value: float,
    *,
    column: str = "keepalive",
    errors: dict[str, int] | None = None,
    steal: float = 0.0,
) -> Measurement:
    return Measurement(
        round=round_number,
        column=column,
        server=server,
        value=value,
        p99_us=2 * value,
        errors=errors or {},
        busy=0.9,
        steal=steal,
        cpu_us_per_request=10.0,
    )


def test_every_load_asks_for_a_file_of_the_site():
    assert {column.path for column in COLUMNS if not column.paths} <= set(SITE)
    assert {column.paths for column in COLUMNS} - {""} == set(WRK_PATHS)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    # The machine is ten times slower in round 2: the ratio of the medians would be 130 / 10.
    runs = [
        run(1, "ustack", 130),
        run(1, "nginx", 100),
        run(2, "ustack", 15),
        run(2, "nginx", 10),
        run(3, "ustack", 200),
        run(3, "nginx", 5),
    ]
    assert ratio_by_pairs(runs, "keepalive", "ustack", "nginx") == pytest.approx(1.5)


def test_a_run_with_errors_takes_its_pair_out_of_the_ratio():
    runs = [run(1, "ustack", 10), run(1, "nginx", 10), run(2, "ustack", 90, errors={"read": 3}), run(2, "nginx", 10)]
    assert ratio_by_pairs(runs, "keepalive", "ustack", "nginx") == pytest.approx(1.0)


def test_there_is_no_ratio_without_a_pair():
    assert ratio_by_pairs([run(1, "ustack", 10), run(2, "nginx", 10)], "keepalive", "ustack", "nginx") is None
    assert ratio_by_pairs([run(1, "ustack", 10), run(1, "nginx", 0)], "keepalive", "ustack", "nginx") is None


def test_a_summary_has_the_spread_of_good_runs_and_the_steal_of_all():
    runs = [
        run(1, "ustack", 30, steal=0.1),
        run(2, "ustack", 10, steal=0.2),
        run(3, "ustack", 99, steal=0.3, errors={"timeout": 2, "read": 1}),
        run(4, "ustack", 20, steal=0.4),
    ]
    summary = summarize(runs, "keepalive", "ustack", ["nginx"])
    assert (summary.median, summary.least, summary.most, summary.p99_us) == (20, 10, 30, 40)
    assert summary.steals == (0.1, 0.2, 0.3, 0.4)
    assert (summary.erroneous_runs, summary.errors) == (1, {"timeout": 2, "read": 1})
    assert summary.ratios == {"nginx": None}


def test_a_summary_of_bad_runs_alone_has_no_figures():
    summary = summarize([run(1, "ustack", 5, errors={"connect": 1})], "keepalive", "ustack", [])
    assert (summary.median, summary.least, summary.most, summary.cpu_us_per_request) == (None, None, None, None)


@pytest.mark.parametrize(
    ("column", "ours", "met"),
    [
        ("keepalive", 130, True),
        ("keepalive", 129, False),
        ("connect", 150, True),
        ("connect", 149, False),
        ("bodies", 80, True),
        ("bodies", 79, False),
        ("latency", 100, True),
        ("latency", 101, False),
    ],
)
def test_targets_at_their_limits(column: str, ours: float, met: bool):
    targets = judge([run(1, "ustack", ours, column=column), run(1, "nginx", 100, column=column)], INFO)
    assert [(target.name, target.met) for target in targets] == [(column, met), ("memory", True)]


def test_a_target_that_was_not_measured_is_neither_met_nor_missed():
    targets = judge([run(1, "ustack", 100)], {})
    assert [(target.name, target.found, target.met) for target in targets] == [
        ("keepalive", None, None),
        ("memory", None, None),
    ]


def test_a_connection_of_257_octets_is_too_large():
    assert judge([], {"tcb_bytes": 192, "birth_bytes": 8, "flow_bytes": 57})[0].met is False
    assert judge([], {"tcb_bytes": 192, "birth_bytes": 8, "flow_bytes": 56})[0].met is True

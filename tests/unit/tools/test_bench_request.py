# SPDX-License-Identifier: MIT
"""bench_request: cases in turn, figures that add up."""

import io
import json

from click.testing import CliRunner
from rich.console import Console

from ustack.tools.bench_request import CASES, Cost, main, measure, measure_cost, show


def test_every_case_is_measured_as_often_as_wanted():
    costs = measure(runs=3, requests=2000)
    assert [(cost.case, cost.connections, cost.runs) for cost in costs] == [
        (case.name, case.connections, 3) for case in CASES
    ]
    assert all(cost.least_ns <= cost.ns_per_request <= cost.most_ns for cost in costs)


def test_the_figure_for_the_table_is_the_first_case():
    assert set(measure_cost(requests=1000)) == {"ns_per_request", "least_ns", "most_ns", "runs"}


def test_the_command_prints_json():
    done = CliRunner().invoke(main, ["--runs", "1", "--requests", "500", "--case", "single", "--json"])
    assert done.exit_code == 0, done.output
    assert [cost["case"] for cost in json.loads(done.output)] == ["single"]


def test_the_table_names_the_cases():
    out = io.StringIO()
    show(Console(file=out, width=120), [Cost("burst", 64, 400.0, 390.0, 410.0, 0.5, 5, 1000)])
    assert "64 connections, bursts of 64 requests" in out.getvalue()
    assert "2,500,000" in out.getvalue()

# SPDX-License-Identifier: MIT
"""report: what people and programs are shown."""

import io
import json

from rich.console import Console

from ustack.tools.compare import Measurement, judge, summarize
from ustack.tools.report import as_json, machine, number, ratio, show

REFERENCES = ["nginx", "epoll"]


def runs(column: str, ours: float, theirs: float) -> list[Measurement]:
    return [
        Measurement(round_number, column, server, value, 99.0, errors, 0.9, 0.12, 20.0)
        for round_number in (1, 2)
        for server, value, errors in (("ustack", ours, {}), ("nginx", theirs, {"read": 2} if round_number == 2 else {}))
    ]


def printed(measurements: list[Measurement], info: dict[str, object]) -> tuple[str, dict[str, object]]:
    columns = list(dict.fromkeys(m.column for m in measurements))
    summaries = [summarize(measurements, c, s, REFERENCES) for c in columns for s in ("ustack", "nginx")]
    targets = judge(measurements, info)
    report = as_json(
        settings={"rounds": 2, "seconds": 3, "link": "veth"},
        versions={"nginx": "1.22.1", "epoll": ""},
        info=info,
        measurements=measurements,
        summaries=summaries,
        targets=targets,
        ustack_idle_percent=0.25,
        request_cost={"ns_per_request": 850.0, "least_ns": 800.0, "most_ns": 900.0, "runs": 5},
    )
    out = io.StringIO()
    show(Console(file=out, width=200), report, summaries, targets, REFERENCES)
    return out.getvalue(), report


def test_the_table_has_figures_ratios_steal_bad_runs_and_verdicts():
    text, _ = printed(runs("keepalive", 130_000, 100_000), {"tcb_bytes": 192, "flow_bytes": 100})
    assert "2 alternating rounds of 3 s, link veth" in text
    assert "keep-alive, 64 connections, 512 B (requests/s)" in text
    ours = next(line for line in text.splitlines() if "│ ustack" in line)
    assert "130,000" in ours
    assert "1.30" in ours
    assert "12 12" in ours
    assert "not counted: nginx, keepalive: 2 x read" in text
    assert "nginx version 1.22.1" in text
    assert "0.25 % of a core" in text
    assert "850 ns for one small request" in text
    verdicts = [line for line in text.splitlines() if ">=" in line or "<=" in line]
    assert [("met" in line, "missed" in line) for line in verdicts] == [(True, False), (False, True)]


def test_a_latency_shows_its_p99():
    text, _ = printed(runs("latency", 50, 60), {})
    assert "50 (p99 99)" in text
    assert "not measured" in text


def test_the_report_is_json():
    _, report = printed(runs("bodies", 20, 25), {})
    again = json.loads(json.dumps(report))
    assert len(again["measurements"]) == 4
    assert again["summary"][0]["ratios"] == {"nginx": 0.8, "epoll": None}
    assert again["targets"][0] == {"name": "bodies", "wanted": "1 MiB bodies >= 0.8 x nginx", "found": 0.8, "met": True}


def test_numbers_have_the_digits_of_their_unit():
    assert [number(1234.5678, unit) for unit in ("requests/s", "Gb/s", "µs")] == ["1,235", "1234.57", "1235"]
    assert (number(None, "µs"), ratio(None), ratio(1.234)) == ("-", "-", "1.23")


def test_the_machine_is_named():
    assert {"kernel", "cpu", "cores", "python"} <= machine().keys()

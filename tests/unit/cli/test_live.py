# SPDX-License-Identifier: MIT
"""The live line and the JSON lines."""

import json

import pytest

from ustack.cli.live import Live, line
from ustack.obs.snapshot import Snapshot, rates

BEFORE = Snapshot(now_ns=0)
AFTER = Snapshot(
    now_ns=1_000_000_000,
    link={"rx_frames": 1200, "tx_frames": 1100, "tx_bytes": 125_000_000},
    application={"requests": 1000},
    connections=3,
)


def test_the_line_shows_what_a_user_looks_for() -> None:
    text = line(rates(BEFORE, AFTER), 5)
    assert text.plain.startswith("1,000 requests/s  3 connections  1.00 Gb/s  1,200 frames/s in 1,100 out  5 drops")
    assert text.no_wrap


def test_json_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(BEFORE, as_json_lines=True) as live:
        assert live.is_shown
        live.tick(AFTER)
        live.tick(AFTER)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["requests_per_s"] == 1000.0
    assert second["requests_per_s"] == 0.0


def test_nothing_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(BEFORE, as_json_lines=False) as live:
        assert not live.is_shown
        live.tick(AFTER)
    assert capsys.readouterr() == ("", "")

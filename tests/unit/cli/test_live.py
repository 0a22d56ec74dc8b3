# SPDX-License-Identifier: MIT
"""The live line and the JSON lines."""

import io
import json
import os

import pytest

from ustack.cli import live
from ustack.cli.live import Line, Live, erase, line, plain
from ustack.obs.snapshot import Snapshot, rates

BEFORE = Snapshot(now_ns=0)
AFTER = Snapshot(
    now_ns=1_000_000_000,
    link={"rx_frames": 1200, "tx_frames": 1100, "tx_bytes": 125_000_000},
    application={"requests": 1000},
    connections=3,
    cpu_ns=500_000_000,
)
BUSY = Snapshot(
    now_ns=1_000_000_000,
    link={"rx_frames": 123_456, "tx_frames": 123_456, "tx_bytes": 2_800_000_000},
    application={"requests": 234_567},
    connections=1_000_000,
    cpu_ns=1_000_000_000,
)


def test_the_line_shows_what_a_user_looks_for() -> None:
    text = plain(line(rates(BEFORE, AFTER), 5, 200))
    assert text == ("1,000 requests/s  3 connections  1.00 Gb/s  5 drops  cpu 50%  frames/s 1,200 in  1,100 out")


def test_at_80_columns_drops_and_processor_time_are_there() -> None:
    """With figures as large as they get; what is left out is left out whole."""
    text = plain(line(rates(BEFORE, BUSY), 12_345, 79))
    assert text == "234,567 requests/s  1,000,000 connections  22.40 Gb/s  12,345 drops  cpu 100%"


@pytest.mark.parametrize("width", range(1, 120))
def test_the_line_is_never_wider_than_the_terminal(width: int) -> None:
    assert len(plain(line(rates(BEFORE, BUSY), 12_345, width))) <= width


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> tuple[Line, io.StringIO, dict[str, int]]:
    stream, size = io.StringIO(), {"columns": 120}
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(Line, "_width", lambda self: size["columns"])
    return Line(stream), stream, size


def test_a_line_is_drawn_over_the_one_before(drawn: tuple[Line, io.StringIO, dict[str, int]]) -> None:
    display, stream, _ = drawn
    display.draw(rates(BEFORE, AFTER), 0)
    display.draw(rates(BEFORE, AFTER), 1)
    assert stream.getvalue().count("\r\x1b[J") == 2
    assert "\n" not in stream.getvalue()
    display.end()
    assert stream.getvalue().endswith("\n")


def test_after_a_resize_every_row_of_the_old_line_is_cleared(
    drawn: tuple[Line, io.StringIO, dict[str, int]],
) -> None:
    """90 cells, broken by a terminal of 40 columns into three rows: two up, then clear."""
    display, stream, size = drawn
    display.draw(rates(BEFORE, AFTER), 5)
    cells = len("1,000 requests/s  3 connections  1.00 Gb/s  5 drops  cpu 50%  frames/s 1,200 in  1,100 out")
    assert 80 < cells <= 120
    stream.truncate(0)
    size["columns"] = 40
    display.draw(rates(BEFORE, AFTER), 5)
    assert stream.getvalue().lstrip("\0").startswith("\r\x1b[2A\x1b[J")


@pytest.mark.parametrize(("cells", "width", "rows"), [(0, 80, 1), (80, 80, 1), (81, 80, 2), (160, 80, 2), (161, 80, 3)])
def test_rows_of_a_line(monkeypatch: pytest.MonkeyPatch, cells: int, width: int, rows: int) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert erase(cells, width) == "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J"


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


def test_a_full_disk_under_the_figures_ends_them_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "silence_stdout", lambda: None)
    with open("/dev/full", "w", buffering=1) as full, Live(BEFORE, as_json_lines=True) as shown:
        monkeypatch.setattr("sys.stdout", full)
        shown.tick(AFTER)
        shown.tick(AFTER)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert capsys.readouterr().err == "ustack: standard output: No space left on device\n"

# SPDX-License-Identifier: MIT
"""The examples do what their words, and docs/simulation.md, say of them."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tree import ROOT
from ustack.cli import main
from ustack.sim import controls
from ustack.sim.document import Document
from ustack.sim.reading import read, scenario_of
from ustack.sim.running import Outcome, run
from ustack.sim.sweep import given, points

EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.toml"))
GUIDE = ROOT / "docs" / "simulation.md"
WITH_COMMANDS = (*FILES, EXAMPLES / "level.py", GUIDE, ROOT / "README.md")
COMMAND = re.compile(r"^(?:#\s+|\s+)(?:\.venv/bin/)?ustack (sim [^#\n]*)(?:#.*)?$", re.MULTILINE)


@pytest.fixture(autouse=True)
def one_name() -> None:
    """Eight controls can be registered in a process, and all that tests write in Python have this one's name."""
    loaded = controls._file(str(EXAMPLES / "level.py"))
    loaded.Level.name = "written"


def outcome(name: str, *sets: str) -> Outcome:
    [scenario] = points(Document.load(EXAMPLES / name), [given(each) for each in sets])
    return run(scenario)


def mbps(outcome: Outcome, flow: str) -> float:
    return float(outcome.flows[flow]["goodput_bps"] / 1e6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_runs_and_all_of_its_flows_flow(path: Path) -> None:
    made = read(path)
    assert made.about
    assert all(flow["received_bytes"] > 0 for flow in run(made).flows.values())


def commands() -> list[str]:
    found = [command for path in WITH_COMMANDS for command in COMMAND.findall(path.read_text())]
    return sorted({command for command in found if "10000" not in command})


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_shown_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, from a directory that has examples/."""
    words = shlex.split(command)
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    assert main(words) == 0


def test_chance_hurts_cubic_more_than_bbr() -> None:
    assert mbps(outcome("lossy.toml", "flows.download.cc=bbr"), "download") > 3 * mbps(
        outcome("lossy.toml"), "download"
    )


def test_codel_and_red_keep_short_answers_quick() -> None:
    flows = outcome("queues.toml").flows
    waits = {name: flows[f"asks-{name}"]["response_p50_ns"] / 1e6 for name in ("droptail", "codel", "red")}
    assert waits["codel"] < waits["droptail"] / 4
    assert waits["red"] < waits["droptail"] / 4
    assert min(mbps(outcome("queues.toml"), name) for name in waits) > 8


def test_a_small_buffer_of_a_switch_is_incast() -> None:
    small, large = outcome("incast.toml"), outcome("incast.toml", "links.switch-client.buffer=2500kB")
    assert max(flow["end_ns"] for flow in small.flows.values()) > 5 * max(f["end_ns"] for f in large.flows.values())


def test_an_upload_behind_a_large_buffer_slows_the_download() -> None:
    shared = outcome("adsl.toml")
    alone = outcome("adsl.toml", "flows.upload.start=39 s", "flows.upload.stop=40 s")
    assert mbps(shared, "download") < 0.8 * mbps(alone, "download")


def test_a_control_of_ones_own_wins_over_chance_and_loses_to_who_fills_the_queue() -> None:
    assert mbps(outcome("own.toml"), "own") > 2 * mbps(outcome("own.toml", "flows.own.cc=cubic"), "own")
    contest = run(scenario_of(Document.load(EXAMPLES / "contest.toml")), series=True)
    assert contest.series is not None
    times, flows = contest.series["times_ns"], contest.series["flows"]
    begin, end = times.index(15_000_000_000), times.index(29_000_000_000)
    own, other = (
        flows[name]["received_bytes"][end] - flows[name]["received_bytes"][begin] for name in ("own", "other")
    )
    assert other > 5 * own


def test_the_controls_class_has_thirty_lines_and_ten_more_draw_it() -> None:
    text = (EXAMPLES / "level.py").read_text()
    code, _, script = text[text.index("from ustack.tcp.cc.scripted") :].partition('if __name__ == "__main__":\n')
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    assert len([line for line in script.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("words", [["level.py"]])
def test_a_script_runs_from_anywhere(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, EXAMPLES / words[0], *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "level.out" / "report.html").exists()


def test_the_sweep_takes_dasks_executor() -> None:
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("dask's distributed is not installed")
    done = subprocess.run([sys.executable, EXAMPLES / "sweep_dask.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10

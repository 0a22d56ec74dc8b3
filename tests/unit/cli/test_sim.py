# SPDX-License-Identifier: MIT
"""`ustack sim`: what it prints and leaves, and what it refuses in one line."""

import csv
import errno
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from ustack.cli import main
from ustack.obs.tracefile import read

TEXT = """\
about = "Two & two <b>"
duration = "2 s"
hosts = ["a", "b"]
[links.a-b]
rate = "10 Mb/s"
delay = "5 ms"
buffer = "50 kB"
[flows.f]
from = "a"
to = "b"
[flows.g]
from = "a"
to = "b"
cc = "bbr"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "two.toml"
    path.write_text(TEXT)
    return path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["sim", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err.removeprefix("ustack: ").rstrip("\n")


def test_a_run_prints_a_line_for_each_flow_and_way(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "two.toml"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows[:2]] == [["f", "a", "b", "cubic"], ["g", "a", "b", "bbr"]]
    assert [row[0] for row in rows[2:]] == ["a->b", "b->a"]
    assert 8 < sum(float(row[4]) for row in rows[:2]) < 10
    assert list(file.parent.iterdir()) == [file]


def test_a_terminal_shows_the_columns_that_have_a_value(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "110")
    assert main(["sim", "run", "two.toml", "--set", "links.a-b.lose=[5]"]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if "flow" in line or "link" in line]
    assert ["goodput Mb/s" in heads[0], "answers" in heads[0]] == [True, False]
    assert ["lost" in heads[1], "marked" in heads[1]] == [True, False]


def test_json_is_one_object(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "two.toml", "--json", "--set", "seed=9", "--set", "flows.*.cc=newreno"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["seed"]) == ("two", 9)
    assert {flow["cc"] for flow in told["flows"].values()} == {"newreno"}


def test_out_has_outcome_series_and_captures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "two.toml", "--out", "d/out", "--pcap", "a-b"]) == 0
    out = file.parent / "d" / "out"
    assert capsys.readouterr().err == "d/out/\n"
    assert sorted(path.name for path in out.iterdir()) == ["a-to-b.pcapng", "b-to-a.pcapng", "outcome.json", "series"]
    told = json.loads((out / "outcome.json").read_text())
    assert told["scenario"]["duration_ns"] == 2_000_000_000
    with (out / "series" / "flow-f.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 201
    assert int(rows[-1]["received_bytes"]) == told["outcome"]["flows"]["f"]["received_bytes"]
    assert (out / "series" / "hop-a-to-b.csv").exists()


def test_one_way_may_be_captured_alone(file: Path) -> None:
    assert main(["sim", "run", "two.toml", "--pcap", "b->a"]) == 0
    assert sorted(path.name for path in (file.parent / "two.out").glob("*.pcapng")) == ["b-to-a.pcapng"]


def test_a_hosts_connections_may_be_traced(file: Path) -> None:
    assert main(["sim", "run", "two.toml", "--trace", "a"]) == 0
    recorded = read(file.parent / "two.out" / "a.qlog")
    assert len(recorded.connections) == 2
    assert recorded.missed == 0
    assert len(recorded.records) > 64 * 1000


def test_plots_are_drawn_and_the_page_fetches_nothing(file: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["sim", "run", "two.toml", "--plot"]) == 0
    out = file.parent / "two.out"
    kinds = {"window", "rtt", "goodput", "queue", "sequence", "overview"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.svg")} == kinds
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 5
    assert "Two &amp; two &lt;b&gt;" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_a_sweep_has_a_row_for_each_point_and_a_line_for_each_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    words = [
        "--seeds",
        "2",
        "--set",
        "links.a-b.loss=0,1 %",
        "--set",
        "flows.f.cc=cubic,newreno",
        "--out",
        "o",
        "--plot",
    ]
    assert main(["sim", "run", "two.toml", "--jobs", "2", *words]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["0", "cubic", "2"],
        ["0", "newreno", "2"],
        ["1 %", "cubic", "2"],
        ["1 %", "newreno", "2"],
    ]
    lines = [json.loads(line) for line in (file.parent / "o" / "outcomes.jsonl").read_text().splitlines()]
    assert [(line["point"]["links.a-b.loss"], line["seed"]) for line in lines] == [
        *[("0", 1), ("0", 2)] * 2,
        *[("1 %", 1), ("1 %", 2)] * 2,
    ]
    assert (file.parent / "o" / "report.html").read_text().count("<svg") == 1


def test_a_sweep_as_json_has_a_line_for_each_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "two.toml", "--seeds", "3", "--json", "--jobs", "1"]) == 0
    assert [json.loads(line)["seed"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]


def test_a_run_that_fails_is_told_and_the_status_is_1(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that a stack refuses together: what reading does not know of."""
    file.write_text(TEXT.replace('["a", "b"]', "{ a = { rto_min = '2 s', rto_max = '1 s' }, b = {} }"))
    assert main(["sim", "run", "two.toml"]) == 2
    assert capsys.readouterr().err == "ustack: two: rto_min_ns is larger than rto_max_ns\n"
    assert main(["sim", "run", "two.toml", "--seeds", "2"]) == 1
    assert "two, seed 1: ValueError: " in capsys.readouterr().err


def test_check_says_what_is_there_or_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "bad.toml").write_text(TEXT.replace("10 Mb/s", "10 MB/s"))
    assert main(["sim", "check", "two.toml"]) == 0
    assert capsys.readouterr().out == "two.toml: 2 hosts, 0 routers, 1 links, 2 flows, 2 s\n"
    assert main(["sim", "check", "bad.toml", "none.toml", "two.toml"]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "ustack: bad.toml:5: links.a-b.rate: bad rate '10 MB/s': rates are in bits, such as 100mbit or 100 Mb/s",
        "ustack: none.toml: No such file or directory",
    ]
    assert shown.out.startswith("two.toml: 2 hosts")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.toml"], "none.toml: No such file or directory"),
        (["two.toml", "--set", "links.a-b.loss=2"], "--set links.a-b.loss=2: links.a-b.loss: 2 is no share"),
        (["two.toml", "--set", "links.a-b.loss=0,2"], "--set links.a-b.loss=2: links.a-b.loss: 2 is no share"),
        (["two.toml", "--set", "links.a-b.loss"], "'links.a-b.loss': KEY=VALUE is needed"),
        (["two.toml", "--set", "seed=0..99999", "--seeds", "200"], "20,000,000 runs: at most 10,000,000"),
        (["two.toml", "--pcap", "a-c"], "--pcap a-c: no link is called so (did you mean a-b?): a-b"),
        (["two.toml", "--trace", "c"], "--trace c: no host is called so: a, b"),
        (["two.toml", "--trace", "a", "--seeds", "2"], "--trace is about one run, not a sweep"),
        (["two.toml", "--pcap", "a-b", "--seeds", "2"], "--pcap is about one run, not a sweep"),
        (["two.toml", "--out", "two.toml"], "Invalid value for '--out'"),
        (["two.toml", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["two.toml", "--set", "sample=1 us", "--out", "o"], "--set sample=1 us: sample: more than"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert refused(["run", *words], capsys).startswith(message)


def test_a_worker_that_ends_by_itself_is_told_in_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "leaves.py").write_text(
        "import os\nfrom ustack.tcp.cc.scripted import CongestionControl\n"
        "class Leaves(CongestionControl):\n    name = 'written'\n"
        "    def __init__(self, window):\n        os._exit(3)\n"
    )
    words = ["two.toml", "--seeds", "2", "--jobs", "1", "--set", "flows.f.cc=leaves.py:Leaves"]
    said = refused(["run", *words, "--out", "o"], capsys)
    assert said.startswith("a process of the sweep has ended by itself after 0 of 2 runs: ")
    assert [path.name for path in (file.parent / "o").iterdir()] == ["outcomes.part.jsonl"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenProcessPool("it is gone"), "a process of the sweep has ended by itself after 2 of 4 runs: it is gone"),
        (CancelledError(), "the sweep has ended after 2 of 4 runs: CancelledError"),
        (RuntimeError("can't start new thread"), "the sweep has ended after 2 of 4 runs: can't start new thread"),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "Resource temporarily unavailable"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("where", ["result", "submit"])
def test_an_executor_that_cannot_go_on_ends_it(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
    where: str,
) -> None:
    class Failing(ThreadPoolExecutor):
        submitted = 0

        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(1)

        def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
            self.submitted += 1
            if where == "submit":
                if self.submitted == 3:
                    raise error
            elif self.submitted == 3:
                failed: Future[Any] = Future()
                failed.set_exception(error)
                return failed
            return super().submit(call, *arguments, **named)

    monkeypatch.setattr("ustack.cli.sim.ProcessPoolExecutor", Failing)
    if where == "submit":
        said = said.replace("after 2 of", "after 0 of")
    assert refused(["run", "two.toml", "--seeds", "4", "--out", "o"], capsys) == said
    assert [path.name for path in (file.parent / "o").iterdir()] == ["outcomes.part.jsonl"]


def test_a_control_that_cannot_be_loaded_in_a_worker_fails_its_runs(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "only.py").write_text(
        "import multiprocessing\nfrom ustack.tcp.cc.scripted import CongestionControl\n"
        "if multiprocessing.parent_process() is not None:\n    raise KeyError('here')\n"
        "class Only(CongestionControl):\n    name = 'written'\n"
    )
    assert main(["sim", "run", "two.toml", "--jobs", "1", "--set", "flows.f.cc=cubic,only.py:Only", "--out", "o"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[1:] == [
        f"ustack: flows.f.cc=only.py:Only, seed 1: ValueError: cannot load '{file.parent}/only.py': KeyError: 'here'"
    ]
    kept = [json.loads(line) for line in (file.parent / "o" / "outcomes.jsonl").read_text().splitlines()]
    assert [("error" in line, len(line["flows"])) for line in kept] == [(False, 2), (True, 0)]
    assert multiprocessing.active_children() == []


ENDLESS = """
import os
from ustack.tcp.cc.scripted import CongestionControl

class Endless(CongestionControl):
    name = "written"
    word = None

    def __init__(self, window):
        Endless.word = Endless.word or open("word", "w")
        print("running", file=Endless.word, flush=True)
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
@pytest.mark.parametrize("words", [["--seeds", "9", "--jobs", "1"], ["--pcap", "a->b"]])
def test_a_signal_ends_it_and_its_workers_at_once(
    file: Path, words: list[str], number: signal.Signals, status: int
) -> None:
    """Who holds the pipe open is a process that runs, as its first word says; nobody does any more at its end."""
    (file.parent / "endless.py").write_text(ENDLESS)
    os.mkfifo(file.parent / "word")
    command = [sys.executable, "-m", "ustack.cli", "sim", "run", "two.toml", "--out", "o", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    word = os.open(file.parent / "word", os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(
        [*command, "--set", "flows.f.cc=endless.py:Endless", "--set", "duration=9000 s", "--set", "sample=1 s"],
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            assert select.select([word], [], [], 60)[0]
            os.set_blocking(word, True)
            with os.fdopen(word) as stream:
                assert stream.readline() == "running\n"
                running.send_signal(number)
                assert running.wait(timeout=60) == status
                assert set(stream.read().split()) <= {"running"}
        finally:
            running.kill()
    left = [path.name for path in (file.parent / "o").iterdir()]
    assert left == ["outcomes.part.jsonl" if "--seeds" in words else "a-to-b.part.pcapng"]


@pytest.mark.parametrize("name", ["outcome.json", "series/hop-a-to-b.csv", "a-to-b.pcapng", "a.qlog"])
def test_a_file_that_does_not_become_whole_is_called_so(
    file: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (file.parent / "o" / "series").mkdir(parents=True)
    path = file.parent / "o" / name
    path.with_name(f"{path.stem}.part{path.suffix}").symlink_to("/dev/full")
    assert main(["sim", "run", "two.toml", "--out", "o", "--pcap", "a->b", "--trace", "a"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("ustack: o")
    assert shown.endswith(": No space left on device\n")
    assert not path.exists()

# SPDX-License-Identifier: MIT
"""bench_quick: who is measured when, what is refused, and one short run for real."""

import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from ustack.lab import sweep
from ustack.lab.namespace import names
from ustack.tools import bench_quick
from ustack.tools.bench_quick import Bench, main
from ustack.tools.benchmark import choose
from ustack.tools.compare import COLUMNS, Column, Measurement
from ustack.tools.generators import LoadError
from ustack.tools.servers import Epoll, Nginx, Server, Ustack


def bench(tmp_path: Path, servers: list[Server], columns: list[Column], rounds: int) -> Bench:
    return Bench(
        servers, columns, rounds, seconds=1, core=0, scripts={"": tmp_path}, console=Console(file=io.StringIO())
    )


def test_names_are_checked_and_keep_their_order():
    assert choose("epoll, nginx", ["ustack", "nginx", "epoll"], "server") == ["nginx", "epoll"]
    for wrong in ("apache", "", ","):
        with pytest.raises(click.BadParameter, match="server"):
            choose(wrong, ["nginx"], "server")


def test_rounds_alternate_between_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measured(server: Server, column: Column, round_number: int, **_: object) -> Measurement:
        return Measurement(round_number, column.name, server.name, 1.0, 0.0, {}, 0.0, 0.0, 0.0)

    monkeypatch.setattr(bench_quick, "measure", measured)
    monkeypatch.setattr(Ustack, "cpu_seconds", lambda _: 5.0)
    servers = [cls(tmp_path, tmp_path, 1) for cls in (Ustack, Nginx)]
    made = bench(tmp_path, servers, list(COLUMNS[:2]), 2)
    made.run()
    assert [(m.round, m.column, m.server) for m in made.measurements] == [
        (1, "keepalive", "ustack"),
        (1, "keepalive", "nginx"),
        (1, "connect", "ustack"),
        (1, "connect", "nginx"),
        (2, "keepalive", "ustack"),
        (2, "keepalive", "nginx"),
        (2, "connect", "ustack"),
        (2, "connect", "nginx"),
    ]
    # Only while others are measured does the stack's own use of its core tell what it costs to wait.
    assert made.idle_percents == [0.0] * 4


def test_a_server_that_reads_no_files_is_not_asked_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measured(server: Server, column: Column, round_number: int, **_: object) -> Measurement:
        return Measurement(round_number, column.name, server.name, 1.0, 0.0, {}, 0.0, 0.0, 0.0)

    monkeypatch.setattr(bench_quick, "measure", measured)
    columns = [column for column in COLUMNS if column.name in ("keepalive", "distinct", "missing")]
    made = bench(tmp_path, [cls(tmp_path, tmp_path, 1) for cls in (Nginx, Epoll)], columns, 1)
    made.run()
    assert [(m.column, m.server) for m in made.measurements] == [
        ("keepalive", "nginx"),
        ("keepalive", "epoll"),
        ("distinct", "nginx"),
        ("missing", "nginx"),
    ]


def test_a_load_generator_that_fails_is_a_run_with_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> None:
        raise LoadError("unable to connect")

    monkeypatch.setattr(bench_quick, "run_wrk", fails)
    monkeypatch.setattr(Epoll, "how_it_is", lambda _: "")
    measured = bench_quick.measure(
        Epoll(tmp_path, tmp_path, 1), COLUMNS[0], 3, seconds=1, core=0, scripts={"": tmp_path}
    )
    assert measured.errors == {"unable to connect": 1}
    assert (measured.round, measured.value, measured.cpu_us_per_request) == (3, 0.0, 0.0)


@pytest.mark.parametrize(
    "arguments",
    [["--only", "nothing"], ["--servers", "apache"], ["--rounds", "0"], ["--duration", "x"], ["--link", "token-ring"]],
)
def test_wrong_arguments_exit_with_2(arguments: list[str]):
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_without_root_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(main, [])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "needs root" in done.output


needs_everything = pytest.mark.skipif(
    os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2 or not all(map(shutil.which, ("cc", "curl", "wrk"))),
    reason="needs root, two cores, cc, curl and wrk",
)


@needs_everything
@pytest.mark.root
def test_a_short_run_reports_and_leaves_nothing(tmp_path: Path):
    figures = tmp_path / "figures.json"
    before = names()
    done = CliRunner().invoke(
        main,
        [
            "--servers",
            "epoll",
            "--rounds",
            "1",
            "--duration",
            "1",
            "--only",
            "connect,download",
            "--json",
            str(figures),
        ],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert [(m["column"], m["errors"]) for m in found["measurements"]] == [("connect", {}), ("download", {})]
    assert all(m["value"] > 0 for m in found["measurements"])
    assert "connection per request" in done.output
    assert set(names()) <= set(before) | {name for name in names() if f"-{os.getpid()}-" not in name}


@needs_everything
@pytest.mark.root
def test_a_server_that_cannot_start_ends_the_run_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Epoll, "command", lambda _: ["sh", "-c", "echo no luck >&2; exit 1"])
    done = CliRunner().invoke(main, ["--servers", "epoll", "--rounds", "1", "--duration", "1"])
    assert done.exit_code == 2
    assert done.output.strip() == "bench_quick: epoll: ended with 1: no luck"
    assert not any(f"-{os.getpid()}-" in name for name in names())


@needs_everything
@pytest.mark.root
def test_nothing_is_left_of_a_run_that_was_killed(tmp_path: Path):
    command = [sys.executable, "-c", "from ustack.tools.bench_quick import main; main()", "--servers", "epoll"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith(b"round 1/5")
        server = next(pid for pid in children(run.pid) if b"epoll_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
        ended = os.pidfd_open(server)
        run.kill()
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    sweep()
    assert not any(f"-{run.pid}-" in name for name in names())


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
    return found

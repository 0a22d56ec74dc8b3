# SPDX-License-Identifier: MIT
"""bench_loss: who is measured when, what a failed run leaves, what is refused, and one short run for real."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from ustack.lab.namespace import names
from ustack.tools import bench_loss, loss_client
from ustack.tools.bench_loss import Bench, main, show
from ustack.tools.generators import LoadError
from ustack.tools.loss_cells import Cell, rows
from ustack.tools.loss_client import Download, Responses


class Pair:
    """A wire that is never made."""

    failure = ""
    dropped = 0

    @contextmanager
    def wire(self, settings: list[str], core: int, figures: dict[str, Any]) -> Iterator[None]:
        if self.failure:
            raise LoadError(self.failure)
        yield
        way = {"ring_dropped": self.dropped, "no_room": 0, "too_long": 0}
        figures |= {"settings": settings, "forward": way, "backward": way}


class Standing:
    """A server that is always there."""

    address = client_netns = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pair_of_wire = Pair()

    def how_it_is(self) -> str:
        return ""


def bench(cells: list[Cell], rounds: int, out: io.StringIO | None = None) -> Bench:
    servers = [Standing("ustack"), Standing("kernel")]
    return Bench(servers, cells, rounds, 1.0, 100, 1.0, 0, Console(file=io.StringIO()), out)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loss, "SETTLE_S", 0.0)
    monkeypatch.setattr(bench_loss, "download", lambda *_: Download(1_000_000, 1.0, [1]))
    monkeypatch.setattr(bench_loss, "responses", lambda *_, **__: Responses([3.0, 1.0, 2.0]))


def test_runs_alternate_and_who_begins_changes() -> None:
    made = bench([Cell("bulk", 0)], 2)
    made.run()
    assert [(m.round, m.server) for m in made.measurements] == [
        (1, "ustack"),
        (1, "kernel"),
        (2, "kernel"),
        (2, "ustack"),
    ]
    assert {m.value for m in made.measurements} == {8.0}


def test_the_two_of_a_round_meet_the_same_fates() -> None:
    out = io.StringIO()
    bench([Cell("bulk", 0, 1.0)], 2, out).run()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    seeds = [(line["round"], line["wire"]["settings"][-1]) for line in lines]
    assert seeds == [(1, "1"), (1, "1"), (2, "2"), (2, "2")]


def test_short_responses_have_two_columns() -> None:
    made = bench([Cell("short", 0)], 1)
    made.run()
    assert [(m.column.rpartition(", ")[2], m.value) for m in made.measurements] == [
        ("p50 ms", 2.0),
        ("p99 ms", 3.0),
    ] * 2


def test_a_run_that_fails_says_why_and_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("bulk", 0), Cell("short", 0)]
    out = io.StringIO()
    made = bench(cells, 1, out)
    monkeypatch.setattr(bench_loss, "download", lambda *_: Download(failure="no byte came in 1 s"))
    made.servers[1].pair_of_wire.failure = "ustack wire: not ready"
    made.run()
    assert [(m.errors, m.server) for m in made.measurements[:2]] == [
        ({"no byte came in 1 s": 1}, "ustack"),
        ({"ustack wire: not ready": 1}, "kernel"),
    ]
    found = rows(cells, made.measurements, ["ustack", "kernel"])
    assert [(row.ratio, row.met) for row in found] == [(None, None)] * 3
    shown = io.StringIO()
    settings = {"rate_mbit": 100, "queue_bdp": 1.0, "cc": "cubic", "rounds": 1, "seconds": 1.0}
    show(Console(file=shown, width=150), found, ["ustack", "kernel"], settings)
    assert "not counted: ustack, bulk, 0 ms, loss 0 %: 1 x no byte came in 1 s" in shown.getvalue()
    assert "not counted: kernel, short, 0 ms, loss 0 %: 1 x ustack wire: not ready" in shown.getvalue()
    assert [json.loads(line)["values"] for line in out.getvalue().splitlines()] == [
        {},
        {},
        {"0 ms, loss 0 %, p50 ms": 2.0, "0 ms, loss 0 %, p99 ms": 3.0},
        {},
    ]


def test_a_wire_that_loses_packets_by_itself_makes_no_figure() -> None:
    made = bench([Cell("bulk", 0)], 1)
    made.servers[0].pair_of_wire.dropped = 3
    made.run()
    assert [m.errors for m in made.measurements] == [{"packets that the wire lost by itself": 6}, {}]
    (row,) = rows(made.chosen, made.measurements, ["ustack", "kernel"])
    assert row.ratio is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "everything"], "no such kind"),
        (["--servers", "nginx"], "no such server"),
        (["--rounds", "0"], "--rounds"),
        (["--rate", "0"], "--rate"),
        (["--queue", "0"], "--queue"),
        (["--cell", "bulk, 7 ms"], "no cell is called that"),
    ],
)
def test_wrong_options_are_refused(words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert message in result.output


def test_the_list_is_of_the_cells_that_would_run() -> None:
    result = CliRunner().invoke(main, ["--list", "--only", "reorder"])
    assert result.exit_code == 0
    assert result.output.splitlines() == ["reorder, 66 ms, 1% late by 5ms", "reorder, 66 ms, 5% late by 20ms"]


# ---------------------------------------------------------------- the client
class Peer:
    """A server on the loopback that answers each connection with what it is told, and then does as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: bytes, *, closes: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        monkeypatch.setattr(loss_client, "PORT", self.listener.getsockname()[1])
        self.answer, self.closes = answer, closes
        self.open: list[socket.socket] = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            if connection.recv(65536).startswith(b"GET /"):
                connection.sendall(self.answer)
            if self.closes:
                connection.close()

    def end(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for connection in self.open:
            connection.close()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Peer] = []

    def make(answer: bytes, **fields: Any) -> Peer:
        made.append(Peer(monkeypatch, answer, **fields))
        return made[-1]

    yield make
    for one in made:
        one.end()


OK = b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_download_counts_every_byte_until_its_time_is_over(peer: Any) -> None:
    peer(OK + bytes(5000), closes=False)
    found = loss_client.download(None, "127.0.0.1", "/long", 0.05)  # type: ignore[arg-type]
    assert (found.bytes, sum(found.series), found.failure) == (5000 + len(OK), 5000 + len(OK), "")
    assert found.megabits_per_second > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [(OK + bytes(10), "the server closed the connection"), (b"HTTP/1.1 404 Not Found\r\n\r\n", "not a 200")],
)
def test_a_download_that_ends_early_is_a_failure(peer: Any, answer: bytes, message: str) -> None:
    peer(answer)
    assert message in loss_client.download(None, "127.0.0.1", "/long", 60.0).failure  # type: ignore[arg-type]


def test_a_download_without_a_byte_is_a_failure(peer: Any) -> None:
    peer(b"", closes=False)
    assert loss_client.download(None, "127.0.0.1", "/l", 0.05).failure == "no byte came in 0.05 s"  # type: ignore[arg-type]


def test_each_whole_response_has_a_time(peer: Any) -> None:
    peer(OK + bytes(100))
    found = loss_client.responses(None, "127.0.0.1", "/s", 100, at_once=2, seconds=0.1)  # type: ignore[arg-type]
    assert found.failures == {}
    assert len(found.times_ms) >= 2
    assert min(found.times_ms) > 0


@pytest.mark.parametrize(
    ("answer", "message"), [(OK + bytes(50), "closed"), (b"HTTP/1.1 500 No\r\n\r\n" + bytes(200), "not a 200")]
)
def test_a_response_that_is_not_whole_or_not_good_is_a_failure(peer: Any, answer: bytes, message: str) -> None:
    peer(answer)
    found = loss_client.responses(None, "127.0.0.1", "/s", 100, at_once=1, seconds=60.0)  # type: ignore[arg-type]
    assert (found.times_ms, list(found.failures.values())) == ([], [1])
    assert message in next(iter(found.failures))


def test_what_does_not_come_in_time_is_unfinished(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_client, "GRACE_S", 0.05)
    peer(b"", closes=False)
    found = loss_client.responses(None, "127.0.0.1", "/s", 100, at_once=3, seconds=0.05)  # type: ignore[arg-type]
    assert (found.times_ms, found.failures) == ([], {"unfinished": 3})


def test_nobody_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(loss_client, "PORT", listener.getsockname()[1])
    assert "refused" in loss_client.download(None, "127.0.0.1", "/l", 5.0).failure  # type: ignore[arg-type]


# ---------------------------------------------------------------- for real
@pytest.mark.root
@pytest.mark.timeout(180)
def test_one_short_run_for_real(tmp_path: Path) -> None:
    figures = tmp_path / "figures.jsonl"
    words = ["--only", "queue", "--rounds", "1", "--duration", "1", "--json", str(figures)]
    with subprocess.Popen(
        [sys.executable, "-m", "ustack.tools.bench_loss", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "a full queue, p50 ms" in out
    lines = [json.loads(line) for line in figures.read_text().splitlines()]
    runs = [line for line in lines if "round" in line]
    assert [(run["server"], run["loaded"]) for run in runs] == [
        ("ustack", False),
        ("kernel", False),
        ("ustack", True),
        ("kernel", True),
    ]
    for run in runs:
        assert run["errors"] == {}
        assert run["responses"] > 0
        assert (run["load_bytes"] > 0) == run["loaded"]
        assert run["wire"]["backward"]["ring_dropped"] == 0
        assert run["wire"]["backward"]["unreadable"] == 0
    assert len([line for line in lines if "summary" in line]) == 4
    assert [name for name in names() if f"-{process.pid}-" in name] == []
    assert os.listdir(tmp_path) == ["figures.jsonl"]


@pytest.mark.root
def test_a_control_that_is_not_there_ends_it_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ustack.tools.bench_loss", "--cc", "nosuch", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("bench_loss: ")
    assert "no congestion control 'nosuch'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

# SPDX-License-Identifier: MIT
"""The experiment `idle`: responses that come in pieces, ends that are no answer; whose processes are counted."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments import idle
from ustack.tools.bench.experiments.base import Bench, Outcome
from ustack.tools.bench.experiments.idle import BODY_BYTES, Idle, IdleCpu, is_answered, unanswered
from ustack.tools.bench.generators import Wrk
from ustack.tools.bench.processor import cpu_ns, family, memory_bytes
from ustack.tools.generators import LoadError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "right"),
    [
        ([HEAD + b"x" * BODY_BYTES], True),
        ([HEAD, b"x" * BODY_BYTES], True),
        ([HEAD[:9], HEAD[9:] + b"x", b"x" * (BODY_BYTES - 1)], True),
        ([b"HTTP/1.1 503 Busy\r\n\r\n" + b"x" * BODY_BYTES], False),
        ([HEAD], False),
        ([b"x" * 2 * BODY_BYTES], False),
        ([], False),
    ],
)
def test_a_response_is_read_to_the_end_of_its_body(pieces: list[bytes], right: bool):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)
        assert is_answered(ours) is right


def test_who_does_not_answer_is_counted():
    pairs = [socket.socketpair() for _ in range(4)]
    try:
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(HEAD + b"x" * BODY_BYTES if number else b"")
            theirs.shutdown(socket.SHUT_WR)
        assert unanswered([ours for ours, _ in pairs]) == 1
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


def test_workers_in_sessions_of_their_own_are_of_the_family():
    """As `ustack serve` forks them: setsid, so that Ctrl-C reaches the first process alone."""
    words = "import os, sys\nif os.fork() == 0: os.setsid()\nprint(os.getpid(), flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(2)}
        assert process.pid in pids
        assert set(family(process.pid)) == pids
        assert cpu_ns(sorted(pids)) > 0
        assert memory_bytes(sorted(pids)) > 0
    assert os.getpid() not in pids


MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for step in ("begin", "file", "memory"):
    if step == "file":
        touched = sum(mapped[at] for at in range(0, len(mapped), mmap.PAGESIZE))
    if step == "memory":
        own = bytearray(b"x") * len(mapped)
    print(step, flush=True)
    sys.stdin.readline()
"""


def test_memory_is_what_a_process_wrote_not_the_files_that_it_maps(tmp_path: Path):
    size = 8 << 20
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * size)
    command = [sys.executable, "-c", MAPS, str(path)]
    found = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for _ in range(3):
            assert process.stdout.readline()
            found.append(memory_bytes([process.pid]))
            print(file=process.stdin, flush=True)
    assert found[1] - found[0] < size // 8
    assert size <= found[2] - found[1] < size + size // 8


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path, Wrk(tmp_path, 0), 0, 0, 1)


@contextmanager
def answering(count: int) -> Iterator[list[socket.socket]]:
    """Connections to a server that answers two requests on each, and `count` of them no second one."""
    pairs = [socket.socketpair() for _ in range(10)]
    try:
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(HEAD + b"x" * BODY_BYTES)
            if number >= count:
                theirs.sendall(HEAD + b"x" * BODY_BYTES)
            theirs.shutdown(socket.SHUT_WR)
        yield [ours for ours, _ in pairs]
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


@pytest.mark.parametrize(
    ("silent", "readings", "errors"),
    [
        (0, [{1: 10, 2: 20}, {1: 30, 2: 20}], {}),
        (3, [{1: 10}, {1: 10}], {"3 of 10 did not answer": 1}),
        (0, [{1: 10}, {}], {"no process was there before and after": 1}),
    ],
)
def test_a_server_that_is_dead_or_silent_does_not_idle_for_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, silent: int, readings: list[dict[int, int]], errors: dict[str, int]
):
    monkeypatch.setattr(idle, "opened", lambda contestant, count: answering(silent))
    monkeypatch.setattr(idle, "ask_each", read_once)
    monkeypatch.setattr(idle, "cpu_by_pid", lambda contestant: readings.pop(0))
    assert IdleCpu().measure(bench, Contestant(bench.work, bench.site, 1), "100 connections").errors == errors


def read_once(connections: list[socket.socket]) -> None:
    """One response on each, and no byte of the next."""
    for conn in connections:
        conn.recv(len(HEAD) + BODY_BYTES, socket.MSG_WAITALL)


def test_the_time_of_a_process_that_went_is_taken_off_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    readings = [{1: 10, 2: 10**15}, {1: 30, 3: 7}]
    monkeypatch.setattr(idle, "opened", lambda contestant, count: answering(0))
    monkeypatch.setattr(idle, "ask_each", lambda connections: None)
    monkeypatch.setattr(idle, "cpu_by_pid", lambda contestant: readings.pop(0))
    value = IdleCpu().measure(bench, Contestant(bench.work, bench.site, 1), "100 connections").value
    assert value is not None
    assert value > 0


Grown = Callable[[Contestant, int], tuple[float, float, float, str]]


def grown_by(found: dict[str, tuple[float, float, float, str]]) -> Grown:
    """By a contestant's kind; one that is not there fails."""

    def grown(contestant: Contestant, count: int) -> tuple[float, float, float, str]:
        if contestant.kind not in found:
            raise LoadError("would not start")
        return found[contestant.kind]

    return grown


def measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, found: dict[str, tuple[float, float, float, str]]
) -> Outcome:
    ours = Contestant(bench.work, bench.site, 1)
    ours.kind, ours.process = "ustack", object()  # type: ignore[assignment]
    bench.contestants["ours"] = ours
    monkeypatch.setattr(idle, "grown", grown_by(found))
    return Idle().measure(bench, Contestant(bench.work, bench.site, 1), "10,000 connections")


def test_a_connection_that_costs_nothing_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    found = measured(bench, monkeypatch, {"server": (-400.0, 300.0, 1.0, ""), "ustack": (0.0, 100.0, 1.0, "")})
    assert list(found.errors) == ["-200 bytes for a connection: something else was given back meanwhile"]
    right = measured(bench, monkeypatch, {"server": (-40.0, 300.0, 1.0, ""), "ustack": (0.0, 100.0, 1.0, "")})
    assert (right.value, right.errors) == (160.0, {})


def test_what_ours_cannot_do_is_not_in_anybodys_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    found = measured(bench, monkeypatch, {"server": (100.0, 300.0, 1.0, "")})
    assert (found.value, found.errors) == (250.0, {})
    assert found.details["kernel_bytes_of_client"] == "half of both ends"
    silent = measured(bench, monkeypatch, {"server": (100.0, 300.0, 1.0, ""), "ustack": (0.0, 9.0, 1.0, "3 of 10")})
    assert (silent.value, silent.errors) == (250.0, {})


def test_what_the_slabs_do_meanwhile_is_nothing_of_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    ours = Contestant(bench.work, bench.site, 1)
    ours.kind, ours.process = "ustack", object()  # type: ignore[assignment]
    bench.contestants["ours"] = ours
    grown = [(240.0, 3000.0, 1.0, ""), (230.0, 2900.0, 1.0, "")]
    monkeypatch.setattr(idle, "grown", lambda contestant, count: grown.pop(0))
    found = Idle().measure(bench, ours, "10,000 connections")
    assert (found.value, found.errors) == (230.0, {})

# SPDX-License-Identifier: MIT
"""Runs that say less than they seem to: cold files that nobody got, a median of a run that stood still; and whose
processes a contestant may end."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments import closed
from ustack.tools.bench.experiments.base import Bench
from ustack.tools.bench.experiments.closed import Latency1
from ustack.tools.bench.experiments.coldfiles import FILE_BYTES, faults_of
from ustack.tools.bench.generators import Wrk
from ustack.tools.generators import Load

RIGHT = f"200 {FILE_BYTES}"


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ([RIGHT] * 9, {}),
        ([*[RIGHT] * 9, "000 0"], {}),
        ([*[RIGHT] * 9, "000 0", "000 0"], {"no answer about a cold file": 2}),
        ([*[RIGHT] * 9, "404 9", "200 7"], {"status or length of a cold file": 2}),
        ([RIGHT] * 4, {"fewer than 5 cold files were fetched": 1}),
        ([], {"fewer than 5 cold files were fetched": 1}),
    ],
)
def test_cold_files_must_have_come(lines: list[str], faults: dict[str, int]):
    assert faults_of(lines) == faults


@pytest.mark.parametrize(
    ("requests", "errors"),
    [(20_000, {}), (8_000, {}), (100, {"requests as long as the median fill 0% of the run": 1})],
)
def test_a_median_of_a_run_that_stood_still_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: int, errors: dict[str, int]
):
    load = Load(requests=requests, seconds=1.0, bytes=700 * requests, p50_us=45.0)
    monkeypatch.setattr(closed, "ask", lambda *_: (load, "asked"))
    bench = Bench(tmp_path, tmp_path, Wrk(tmp_path, 0), 1, 0, 1)
    found = Latency1().measure(bench, Contestant(tmp_path, tmp_path, 1), "1 connection")
    assert (found.value, found.command, found.errors) == (45.0, "asked", errors)


def test_a_worker_whose_first_process_was_waited_for_is_ended(tmp_path: Path):
    words = "import os, signal\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\nsignal.pause()"
    server = Contestant(tmp_path, tmp_path, 1)
    server.process = subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, start_new_session=True)
    assert server.process.stdout is not None
    worker = int(server.process.stdout.readline())
    server.process.wait()
    handle = os.pidfd_open(worker)
    try:
        assert server.pids() == [worker]
        server.stop()
        assert select.select([handle], [], [], 10.0)[0], "a descriptor of a process is readable when it has ended"
    finally:
        os.close(handle)


def test_who_has_got_the_number_of_a_process_that_was_waited_for_is_left_alone(tmp_path: Path):
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    with stranger:
        ended = subprocess.Popen(["true"])
        ended.wait()
        ended.pid = stranger.pid
        server = Contestant(tmp_path, tmp_path, 1)
        server.process = ended
        assert server.pids() == []
        server.stop()
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0

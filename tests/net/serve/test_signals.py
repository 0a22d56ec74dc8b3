# SPDX-License-Identifier: MIT
"""Signals that `ustack serve` gets, and how it was started."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.net.serve.running import BODY, COMMAND, Server, Start
from ustack.lab import labs

pytestmark = pytest.mark.root


# ---------------------------------------------------------------- signals, and how it was started


def test_usr1_opens_the_log_again(serve: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serve("--access-log", str(log)) as server:
        server.curl(server.url + "512.bin", "-o", "/dev/null")
        log.rename(tmp_path / "access.log.1")
        server.process.send_signal(signal.SIGUSR1)
        while not log.exists():
            assert server.process.poll() is None
            os.sched_yield()
        server.curl(server.url + "index.html", "-o", "/dev/null")
        assert server.end() == 0
    assert "GET /512.bin" in (tmp_path / "access.log.1").read_text()
    assert "GET /index.html" in log.read_text()
    assert "GET /512.bin" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_log_on_standard_output_is_this_process_own(serve: Start) -> None:
    """Not the keeper's, to whom that name means another file."""
    with serve("--access-log", "/dev/stdout") as server:
        server.curl(server.url + "512.bin", "-o", "/dev/null")
        server.process.send_signal(signal.SIGUSR1)
        assert '"GET /512.bin HTTP/1.1" 200 512' in server.stdout.readline()


def test_the_current_directory_is_this_process_own(serve: Start, site: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(site)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        with serve(directory=Path("/proc/self/cwd")) as server:
            server.process.send_signal(signal.SIGUSR1)
            assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO]
)
def test_signals_that_are_not_for_ending_do_not_end_it(serve: Start, number: signal.Signals) -> None:
    with serve() as server:
        server.process.send_signal(number)
        assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.end() == 0


def test_under_nohup_a_hangup_does_not_end_it(site: Path, unique: Callable[[str], str]) -> None:
    name = unique("sv")
    command = ["nohup", *COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a"]
    command += ["--peer-netns", f"{name}-b"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        server = Server(process, f"{name}-a", f"{name}-b")
        server.url = server.stdout.readline().split()[1]
        process.send_signal(signal.SIGHUP)
        assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.end() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams_it_serves(site: Path, unique: Callable[[str], str], closed: str) -> None:
    """As daemons and cron start programs. No descriptor of ours takes the place of what is missing."""
    name = unique("sv")
    command = [*COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    with subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *command], stdout=subprocess.DEVNULL) as process:
        server = Server(process, f"{name}-a", f"{name}-b")  # type: ignore[arg-type]
        while True:
            assert process.poll() is None
            links_there = [lab for lab in labs() if lab.name == f"serve-{process.pid}"]
            if links_there:
                break
        url = "http://198.18.0.2/512.bin"
        answer = server.curl("--retry", "20", "--retry-connrefused", "--retry-delay", "1", url)
        assert answer.stdout == BODY
        for number in range(3):
            assert not os.readlink(f"/proc/{process.pid}/fd/{number}").startswith(("socket:", "anon_inode:"))
        assert server.end() == 0


@pytest.mark.parametrize("limit", [6, 10, 14, 31])
def test_too_few_descriptors_are_one_line(site: Path, limit: int) -> None:
    command = [*COMMAND, "serve", str(site), "--link", "veth"]
    result = subprocess.run(
        ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr == f"ustack: {limit} open files are too few (ulimit -n): 32 are needed\n"


def test_32_descriptors_are_enough(serve: Start) -> None:
    with serve() as server:
        opened = {name for name in os.listdir(f"/proc/{server.process.pid}/fd") if int(name) >= 32}
        assert not opened
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize("module", ["click.core", "ustack.lab", "ustack.cli.serve"])
def test_an_interrupt_during_the_imports_leaves_no_traceback(module: str) -> None:
    """Whatever has just been imported when it comes."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {module}"):
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130) or output  # or it was already done
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors

# SPDX-License-Identifier: MIT
"""A running `ustack serve`, and one that is refused."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import IO

from ustack.lab import namespace, ownership

COMMAND = [sys.executable, "-m", "ustack.cli"]
BODY = bytes(range(256)) * 2


class Server:
    """A running `ustack serve` with both ends in namespaces of its own."""

    def __init__(self, process: subprocess.Popen[str], ours: str, peer: str) -> None:
        self.process = process
        self.ours = ours
        self.peer = peer
        self.url = ""

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["ip", "netns", "exec", self.peer, "curl", "-sS", "--max-time", "30", *arguments]
        return subprocess.run(command, capture_output=True, check=True)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


Start = Callable[..., AbstractContextManager[Server]]


def nothing_left(server: Server) -> bool:
    pids = {server.process.pid}
    return not (
        namespace.exists(server.ours)
        or namespace.exists(server.peer)
        or any(record for record in ownership.records() if pids & {pid for pid, _ in record.owners})
    )


def refused(*arguments: str, **keywords: object) -> str:
    result = subprocess.run(
        [*COMMAND, "serve", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("ustack: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr

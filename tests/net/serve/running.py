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


def refused(*arguments: str) -> str:
    """What it says to its last line, which is its only one. It leaves no namespace."""
    command = [*COMMAND, "serve", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate()
    assert process.returncode == 2, errors
    assert output == ""
    assert errors.startswith("ustack: ")
    assert errors.count("\n") == 1, errors
    assert namespaces_of(process) == []
    return errors


def namespaces_of(process: subprocess.Popen[str]) -> list[str]:
    """Those that a `ustack serve` has given a name itself."""
    return [name for name in namespace.names() if f"{name}-".startswith(f"ustack-serve-{process.pid}-")]

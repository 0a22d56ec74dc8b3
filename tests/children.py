# SPDX-License-Identifier: MIT
"""Other processes: what Python says to some code, what fork() makes of the tests' own, and waiting for an end."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def in_a_child(body: Callable[[], object]) -> Any:
    """What body() returns in a process that fork() makes here, or the errno of its OSError."""
    answer, word = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                told: Any = body()
            except OSError as error:
                told = error.errno
            os.write(word, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(word)
    with os.fdopen(answer) as stream:
        text = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Code in a process of its own, with the modules of this one."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **environment},
        cwd="/",  # or the working directory's modules would come first
        capture_output=True,
        text=True,
        check=False,
    )


def assert_aborts(code: str) -> None:
    """A debug build stops at an ensure()."""
    child = run_python(code)
    assert child.returncode == -signal.SIGABRT
    assert "ensure(" in child.stderr


def wait_for_end(pid: int) -> None:
    """Until a process that need not be our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        os.close(descriptor)

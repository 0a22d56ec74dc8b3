# SPDX-License-Identifier: MIT
"""A small process that keeps a lab as long as its owner lives: it makes the lab, waits, and removes it.

The owner (the server) holds the write end of a pipe and nothing else of the lab's: it may give up its capabilities, and
however it ends, SIGKILL included, the kernel closes the pipe and the keeper cleans up. The keeper is in a session
of its own, so that Ctrl-C reaches the owner alone. If both are killed, the next start sweeps (ownership).

    owner  -> keeper   {"plan": ..., "owner": PID}, one line; then end of file when it is done
    keeper -> owner    {"lab": ...} or {"error": ..., "in_use": true|false}, one line; {"error": ...} if removing failed

Above: cli, programs that want a lab for themselves. Below: lab.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ustack.netns import lab
from ustack.netns.lab import Lab, Plan
from ustack.netns.namespace import InUseError, LabError

GRACE_S = 30


@contextmanager
def keep(plan: Plan) -> Iterator[Lab]:
    """Have a lab for as long as the block lasts, or this process. Raises LabError as lab.up does."""
    process = _start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"plan": asdict(plan), "owner": os.getpid()}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"error": "the lab keeper died"}')
        if "error" in answer:
            raise InUseError(answer["error"]) if answer.get("in_use") else LabError(answer["error"])
        yield Lab(**answer["lab"])
    finally:
        last = _finish(process)
    if last:
        raise LabError(last)


def main() -> None:
    """Run the keeper's side: lines on standard input and output."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # It ends when its owner does; ended before, it could not clean up.
        signal.signal(number, signal.SIG_IGN)
    request = json.loads(sys.stdin.readline() or "null")
    if request is None:
        return
    plan = Plan(**request["plan"])
    try:
        made = lab.up(plan, owners=(request["owner"],))
    except LabError as error:
        _say({"error": str(error), "in_use": isinstance(error, InUseError)})
        return
    _say({"lab": asdict(made)})
    sys.stdin.read()
    try:
        lab.down(plan.name)
    except LabError as error:
        _say({"error": f"cannot remove the lab: {error}"})


def _start() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", "from ustack.netns.keeper import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env=environment,
        start_new_session=True,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> str:
    """Close the pipe and wait for the keeper to have removed the lab. Returns what went wrong."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        with suppress(BrokenPipeError):
            process.stdin.close()
        rest = process.stdout.read().strip()
    code = process.wait(GRACE_S)
    # An owner that was interrupted has not read the answer about its lab.
    for message in map(json.loads, rest.splitlines()):
        if "error" in message:
            return str(message["error"])
    return "" if code == 0 else "the lab keeper was killed: the next start removes what is left"


def _say(message: dict[str, object]) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(message), flush=True)

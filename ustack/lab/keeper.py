# SPDX-License-Identifier: MIT
"""A small process that keeps a lab as long as its owner lives: it makes the lab, waits, and removes it.

The owner (the server) holds one end of a socket and nothing else of the lab's: it may give up its capabilities, and
however it ends, SIGKILL included, the kernel closes the socket and the keeper cleans up. The keeper is in a session
of its own, so that Ctrl-C reaches the owner alone. If both are killed, the next start sweeps (ownership).

An owner that has given up root can neither make a new log where root's logs are, nor find its directory below a home
that others may not enter. The keeper opens both for it, as often as it is asked, and removes the unfinished part of a
trace, and nothing but what was named at the start: whoever takes over the owner gains no other file, with links neither
(opening).

    owner  -> keeper   {"plan": ..., "owner": PID, "files": {"log": PATH, ...}}, one line
    keeper -> owner    {"lab": ...} or {"error": ..., "in_use": true|false}, one line
    owner  -> keeper   {"open": "log"}, one line, any number of times
    keeper -> owner    {"opened": "log"} with the descriptor, or {"error": ..., "errno": ...}, one line
    owner  -> keeper   {"remove": "part"}, one line
    keeper -> owner    {"removed": "part"} or {"error": ..., "errno": ...}, one line
    owner  -> keeper   end of file: it is done
    keeper -> owner    {"error": ...} if removing failed, then end of file

Above: cli, programs that want a lab for themselves. Below: lab, opening.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ustack.lab import making
from ustack.lab.making import Made, Plan
from ustack.lab.namespace import InUseError, LabError
from ustack.lab.opening import open_by_name, remove_by_name

GRACE_S = 30.0  # for the keeper to have removed the lab
START_TIMEOUT_S = 60.0  # for it to have made one: the lock may be others' for a while
PLACES_SAID = 6  # of a stack, innermost first
WORK_TIMEOUT_S = 25.0  # of its own, for either: less than the owner waits, so that it can say where it stands
OPEN_TIMEOUT_S = 2.0  # the owner serves, and waits no longer for a file
LINE_BYTES = 1 << 16

DIRECTORY = "directory"
LOG = "log"
PART = "part"  # of a trace
# A log that is a FIFO without a reader fails at once, and a terminal never becomes ours.
FLAGS = {
    DIRECTORY: os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
    LOG: os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK,
}
LOG_MODE = 0o640


class Lab:
    """A lab for as long as a with statement lasts, or this process. What was made is the statement's value.

    name: of the lab; the other arguments are those of Plan. __enter__ raises LabError as making.up does, and __exit__
    if removing failed.
    """

    def __init__(self, name: str, **fields: Any) -> None:
        self._keeper = Keeper(Plan(name, **fields))

    def __enter__(self) -> Made:
        return self._keeper.__enter__().lab

    def __exit__(self, *failure: Any) -> None:
        self._keeper.__exit__(*failure)


class Keeper:
    """Context manager: a lab, and the process that keeps it.

    files: what `open` may open, by DIRECTORY or LOG, and what `remove` may remove, by PART.
    Raises LabError as making.up does, and at the end if removing failed.
    """

    lab: Made

    def __init__(self, plan: Plan, files: dict[str, Path] | None = None) -> None:
        self._plan = plan
        self._files = {kind: str(path.absolute()) for kind, path in (files or {}).items()}
        self._received = b""
        self._lost = False

    def __enter__(self) -> "Keeper":
        try:
            self._process, self._channel = _start()
        except OSError as error:
            raise LabError(f"cannot start the lab keeper: {error.strerror or error}") from None
        try:
            self._channel.settimeout(START_TIMEOUT_S)
            self._send({"plan": asdict(self._plan), "owner": os.getpid(), "files": self._files})
            try:
                answer, _ = self._receive()
            except TimeoutError:
                raise LabError(f"the lab keeper has not made the lab within {START_TIMEOUT_S:g} s") from None
            self._channel.settimeout(None)
            if answer is None:
                raise LabError("the lab keeper ended without an answer")
            if "error" in answer:
                raise InUseError(answer["error"]) if answer.get("in_use") else LabError(answer["error"])
            self.lab = Made(**answer["lab"])
        except BaseException:
            last = self._finish()
            if last and isinstance(sys.exc_info()[1], LabError):
                raise LabError(f"{sys.exc_info()[1]}; {last}") from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        last = self._finish()
        if last:
            raise LabError(last)

    def open(self, kind: str) -> int:
        """A new descriptor of one of the files, opened with the keeper's privilege.

        Raises OSError as open(2) does, and if the keeper does not answer within OPEN_TIMEOUT_S: once that has happened
        it is not asked again, because its late answer would be taken for another.
        """
        answer, descriptors = self._ask({"open": kind})
        if not descriptors:
            raise OSError(answer.get("errno", 0), answer["error"], self._files[kind])
        return descriptors[0]

    def remove(self, kind: str) -> None:
        """Remove one of the files (PART), with the keeper's privilege. Raises OSError, as open() does."""
        answer, _ = self._ask({"remove": kind})
        if "error" in answer:
            raise OSError(answer.get("errno", 0), answer["error"], self._files[kind])

    def _ask(self, request: dict[str, object]) -> tuple[dict[str, Any], list[int]]:
        if self._lost:
            raise ConnectionError("the lab keeper does not answer")
        self._channel.settimeout(OPEN_TIMEOUT_S)
        self._lost = True
        try:
            self._send(request)
            answer, descriptors = self._receive()
        finally:
            self._channel.settimeout(None)
        if answer is None:
            raise ConnectionError("the lab keeper is gone")
        self._lost = False
        return answer, descriptors

    def _send(self, message: dict[str, object]) -> None:
        with suppress(BrokenPipeError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """One line and what came with it. None: the end."""
        descriptors: list[int] = []
        while b"\n" not in self._received:
            data, found, _, _ = socket.recv_fds(self._channel, LINE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            descriptors += found
            if not data:
                return None, descriptors
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line), descriptors

    def _finish(self) -> str:
        """End the conversation and wait for the keeper to have removed the lab, GRACE_S at most. Returns what went
        wrong."""
        message, deadline_s = "", time.monotonic() + GRACE_S
        late = f"the lab keeper has not removed the lab within {GRACE_S:g} s: a start after this program's end will"
        with self._channel:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_WR)
            # An owner that was interrupted has not read the answer about its lab.
            while True:
                self._channel.settimeout(max(0.001, deadline_s - time.monotonic()))
                try:
                    answer, descriptors = self._receive()
                except TimeoutError:
                    return message or late
                except ConnectionError:
                    break
                for descriptor in descriptors:
                    os.close(descriptor)
                if answer is None:
                    break
                message = message or str(answer.get("error", ""))
        try:
            code = self._process.wait(max(0.001, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return message or late
        return message or ("" if code == 0 else "the lab keeper was killed: the next start removes what is left")


def main() -> None:
    """Run the keeper's side. Its standard input is the socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # It ends when its owner does; ended before, it could not clean up.
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=0) as channel, channel.makefile("rb") as lines:
        line = lines.readline(LINE_BYTES)
        if not line:
            return
        request = json.loads(line)
        plan = Plan(**request["plan"])
        try:
            with limited(WORK_TIMEOUT_S):
                made = making.up(plan, owners=(request["owner"],))
        except LabError as error:
            _say(channel, {"error": str(error), "in_use": isinstance(error, InUseError)})
            return
        except Exception as error:
            # Whatever this is, its owner has one line for it.
            _say(channel, {"error": f"cannot make the link: {_described(error)}", "in_use": False})
            return
        _say(channel, {"lab": asdict(made)})
        with suppress(Exception):  # whatever an owner in foreign hands says, what was made is removed
            while line := lines.readline(LINE_BYTES):
                asked = json.loads(line)
                if "remove" in asked:
                    _remove(channel, str(asked["remove"]), request["files"])
                else:
                    _open(channel, str(asked["open"]), request["files"])
        try:
            with limited(WORK_TIMEOUT_S):
                making.down(plan.name)
        except Exception as error:
            _say(channel, {"error": f"cannot remove the lab: {_described(error)}"})


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise LabError in the block, with where it stands, when it takes longer: the kernel, which may not answer, and a
    lock that another keeper holds are all that it waits for. For the main thread."""

    def late(_number: int, frame: FrameType | None) -> None:
        places: list[str] = []
        while frame is not None and len(places) < PLACES_SAID:
            places.append(f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})")
            frame = frame.f_back
        raise LabError(f"no end after {seconds:g} s, in {' < '.join(places)}")

    before = signal.signal(signal.SIGALRM, late)
    # Again and again: undoing what was half made may wait for the same.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _open(channel: socket.socket, kind: str, files: dict[str, str]) -> None:
    """Answer one request for a descriptor."""
    try:
        descriptor = open_by_name(files[kind], FLAGS[kind], LOG_MODE)
    except KeyError:
        _say(channel, {"error": "no such file is kept", "errno": 0})
    except OSError as error:
        _say(channel, {"error": error.strerror, "errno": error.errno})
    else:
        try:
            socket.send_fds(channel, [json.dumps({"opened": kind}).encode() + b"\n"], [descriptor])
        finally:
            os.close(descriptor)


def _remove(channel: socket.socket, kind: str, files: dict[str, str]) -> None:
    """Answer one request to remove a file."""
    if kind != PART or kind not in files:
        _say(channel, {"error": "no such file is to be removed", "errno": errno.EACCES})
        return
    try:
        remove_by_name(files[kind])
    except OSError as error:
        _say(channel, {"error": error.strerror, "errno": error.errno})
    else:
        _say(channel, {"removed": kind})


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", "from ustack.lab.keeper import main; main()"],
                stdin=theirs.fileno(),
                # Not the owner's: whoever waits for the end of its output must not wait for the keeper.
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"


def _say(channel: socket.socket, message: dict[str, object]) -> None:
    with suppress(OSError):
        channel.sendall(json.dumps(message).encode() + b"\n")

# SPDX-License-Identifier: MIT
"""The trace of a stack that is running: from its ring to a file, without the stack ever waiting for that.

    ring ──▶ FILE.part ──▶ FILE
      │         │            after the end: Parquet or qlog, in parts; then FILE.part is removed
      │         while it runs: the records as they are (obs.spool), written by a thread from where the stack has them
      between turns: what has come since the last time is lent to that thread, if it is done with what it had

A thread that is slower than the stack, because the disk is, is not waited for: what finds no room in the ring is
counted. What cannot be written is said once, and ends the trace, not its stack. Whatever ends this process, or the
writing of FILE, FILE.part is there, and `ustack trace` reads it and writes it as another file.

Both files are opened by a process that may still have privilege, and written by one that has none. The thread is made
with the first records: by then it has none either.

It must not: know a format. Above: serve, serving, load. Below: live, signals, obs (tracefile, spool), lab.opening.
"""

import errno
import fcntl
import io
import os
import queue
import signal
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import click

from ustack.cli.live import say
from ustack.cli.signals import StopSignals
from ustack.lab import LabError
from ustack.lab.opening import open_by_name
from ustack.obs.spool import Spool, copy
from ustack.obs.tracefile import ensure_can, kind_of, open_writer

Command = TypeVar("Command", bound=Callable[..., Any])

RECORDS = 1 << 18  # of the ring: 16 MiB
CONNECTIONS = 64  # that --trace has, in all, where nobody says how many
CONNECTIONS_MOST = 1 << 20
SLICE_NS = 100_000_000  # how often it is looked into: by then a busy server has written 40,000 records
MANY_RECORDS = 1_000_000  # whose writing is announced: as qlog they take seconds


def trace_options(kind: "click.ParamType[Any]") -> Callable[[Command], Command]:
    """--trace FILE, of that kind, and --trace-connections N: a decorator of commands."""

    def decorated(command: Command) -> Command:
        for option in (
            click.option(
                "--trace-connections",
                type=click.IntRange(1, CONNECTIONS_MOST),
                default=CONNECTIONS,
                show_default=True,
                metavar="N",
                help="With --trace: the first N connections, and no more.",
            ),
            click.option(
                "--trace",
                metavar="FILE",
                type=kind,
                help="Record what happens to connections (docs/trace.md): .parquet, or .qlog. `ustack trace FILE` sums"
                " it up.",
            ),
        ):
            command = option(command)
        return command

    return decorated


def part_of(path: Path) -> Path:
    """Where the records are until the trace is written."""
    return path.with_name(path.name + ".part")


def check_trace(path: Path) -> None:
    """Raise LabError where a trace cannot be written to a file of this name."""
    if not path.absolute().parent.is_dir():
        raise LabError(f"no directory for the trace {path}")
    try:
        ensure_can(kind_of(path))
    except ValueError as error:
        raise LabError(f"--trace: {error}") from None


def open_file(path: Path, resources: ExitStack) -> io.FileIO:
    """A file that is made or emptied, with the privilege that this process has. Raises OSError."""
    descriptor = open_by_name(path.absolute(), os.O_WRONLY | os.O_CREAT | os.O_NOCTTY, 0o666)
    file = resources.enter_context(io.FileIO(descriptor, "wb"))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.ftruncate(descriptor, 0)  # not before it is known whose it is
    return file


def open_part(path: Path, resources: ExitStack) -> io.FileIO:
    """The same for what is read again, by one process at a time, which empties it: a file of ours alone."""
    descriptor = open_by_name(path.absolute(), os.O_RDWR | os.O_CREAT | os.O_NOCTTY | os.O_NOFOLLOW, 0o666)
    file = resources.enter_context(io.FileIO(descriptor, "r+b"))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):  # a write into a pipe might never end
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, f"it is user {status.st_uid}'s", str(path))
    if status.st_nlink != 1:
        raise PermissionError(errno.EACCES, "the file has another name as well", str(path))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from None
    except OSError:
        pass  # there are no locks there
    return file


def open_recording(path: Path, remove: Callable[[], None], signals: StopSignals, resources: ExitStack) -> "Recording":
    """Of a stack that is to be opened next: FILE is written after its end, so that its connections' ends are in it, and
    one more stop signal ends that. remove: FILE.part. Raises LabError."""
    name = part_of(path)
    try:
        part = open_part(name, resources)  # before anything of another process's is emptied
        name = path
        file = open_file(path, resources)
        part.truncate(0)  # nor is it, if there is to be no trace: it may be all that is left of one
        recording = Recording(path, file, part, remove)
    except OSError as error:
        raise LabError(f"cannot write the trace {name}: {error.strerror or error}") from None
    resources.callback(lambda: recording.close(signals.one_more()))
    return recording


class Whole(io.RawIOBase):
    """A file to which everything is written, or an error is raised: a raw file may take a part and say so."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.deaf = False  # nothing more is written, whoever still wants to

    def writable(self) -> bool:
        """For who asks."""
        return True

    def write(self, data: Any, /) -> int:
        """All of it."""
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view) and not self.deaf:
            written += self._file.write(view[written:])
        return len(view)


class Recording:
    """Owner of a trace and of what goes into a file of it. `close` writes FILE, once the stack is closed."""

    def __init__(self, path: Path, file: BinaryIO, part: BinaryIO, remove: Callable[[], None]) -> None:
        """file, part: of FILE, and of FILE.part, which `remove` removes. Raises ValueError, OSError."""
        self._path, self._file, self._part = path, file, part
        self._kind = kind_of(path)
        self._remove = remove
        # Nothing may be left to import, for a process that is somebody else by then.
        open_writer(self._kind, io.BytesIO()).finish()
        self._spool = Spool(part)
        self._trace: Any = None
        self._thread: Thread | None = None
        self._introduced = 0  # connections
        self._missed = 0  # when records were lent last
        self._lost = 0  # that could not be written
        self._failed = self._closed = False

    def begin(self, stack: Any, connections: int) -> None:
        """Trace the next `connections` connections of this stack."""
        self._trace = stack.trace(connections=connections, capacity=RECORDS)
        self._trace.lend()

    def drain(self) -> None:
        """Have what has come since the last time written, unless what came before still is."""
        if self._trace is None or self._failed:
            return
        if self._thread is None:
            self._thread = Thread(self._spool)
        if not self._thread.idle:
            return
        if self._thread.error is not None:
            self._give_up(self._thread.error)
            return
        self._trace.take_back()
        pieces = self._trace.lend()
        if pieces:
            people = self._trace.connections_from(self._introduced)
            self._thread.write(pieces, self._missed, self._introduced, people)
            self._introduced += len(people)
        # Whatever was missed since then found a full ring, behind all that is in it.
        self._missed = self._trace.missed

    def close(self, ended: Callable[[], bool] = bool) -> None:
        """Write the rest, then FILE. Idempotent. `ended` is asked now and then: whether FILE.part must do."""
        if self._closed:
            return
        self._closed = True
        self._finish_part()
        if self._spool.records > MANY_RECORDS:
            say(f"writing {self._path}: {self._spool.records:,} records (Ctrl-C leaves them in {part_of(self._path)})")
        try:
            whole = self._write_file(ended)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._leave(f"{self._path} cannot be written: {reason}")
            return
        if not whole:
            self._leave(f"{self._path} is not finished")
            return
        if self._missed and not self._failed:
            say(f"the trace lacks {self._missed:,} records: they came faster than they were written")
        try:
            self._remove()
        except OSError as error:
            say(f"cannot remove {part_of(self._path)}: {error.strerror or error}")

    def _finish_part(self) -> None:
        for _ in range(3):  # what is being written; what has come since then; whether that could be
            if self._thread is not None:
                self._thread.wait()
            self.drain()
        if self._thread is not None:
            self._thread.end()
        try:
            if self._trace is not None:
                self._spool.introduce(0, self._trace.connections)  # as they are known in the end
            self._spool.finish(self._missed)
        except OSError as error:
            self._give_up(error)

    def _write_file(self, ended: Callable[[], bool]) -> bool:
        """False: it was ended. Then, and after an error, the file is empty."""
        whole = Whole(self._file)
        try:
            with open(self._part.fileno(), "rb", closefd=False) as part:
                for _ in copy(part, open_writer(self._kind, cast(BinaryIO, whole)), self._missed):
                    if ended():
                        break
                else:
                    self._file.flush()
                    return True
        except BaseException:
            self._empty(whole)
            raise
        self._empty(whole)
        return False

    def _empty(self, whole: Whole) -> None:
        whole.deaf = True  # a writer of Parquet that is dropped writes an end all the same
        with suppress(OSError):  # a pipe
            self._file.truncate(0)

    def _leave(self, why: str) -> None:
        part = part_of(self._path)
        say(f"{why}; its records are in {part}: ustack trace {part} --out FILE")

    def _give_up(self, error: OSError) -> None:
        if self._failed:
            return
        self._failed = True
        if self._trace is not None:
            self._trace.stop()
            self._missed = self._trace.missed + self._trace.written - self._spool.records
        say(f"the trace ended: it cannot be written: {error.strerror or error}")


class Thread:
    """Writes into a spool what it is given, one after the other. All but `_run` is for who made it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._done.set()
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
        # The stack's sleep ends with a signal only where that comes to its own thread.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def idle(self) -> bool:
        """What it was given is written, or cannot be (error)."""
        return self._done.is_set()

    def write(
        self, pieces: Sequence[memoryview], missed: int, first: int, connections: Sequence[dict[str, Any]]
    ) -> None:
        """Spool.introduce, then add."""
        self._done.clear()

        def job() -> None:
            self._spool.introduce(first, connections)
            self._spool.add(pieces, missed)

        self._jobs.put(job)

    def wait(self) -> None:
        """Until it is idle."""
        self._done.wait()

    def end(self) -> None:
        """When it is idle."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self.error = error
            except MemoryError:
                self.error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._done.set()

# SPDX-License-Identifier: MIT
"""Several processes that serve one port of the kernel's: `ustack serve --stack kernel:prefork --workers N`.

Each has a transport and a server of its own, and becomes an ordinary user. With `prefork` all take connections from one
listening socket (EPOLLEXCLUSIVE: the kernel wakes one of those that sleep, and each takes one connection at a time);
with `reuseport` each has a socket, and the kernel gives every connection to one of them by its addresses and ports.

This process serves nothing: it announces when all are ready, passes on what ends them or opens their files again, and
ends them when one of them has ended by itself, or they when it is killed (PR_SET_PDEATHSIG). Why one could not start is
said once, whoever else could not for the same reason.

It must not: hold a socket that a connection could be given to, once they are ready. Above: serve_kernel. Below:
signals, live.
"""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO

from ustack.cli.live import say
from ustack.cli.signals import STOP_SIGNALS, Interrupted, StopSignals
from ustack.lab import LabError, libc

PR_SET_PDEATHSIG = 1
READY = b"ready"
ENDED = "a worker has ended before it was ready"
MESSAGE_BYTES = 4000  # less than PIPE_BUF: those of two workers are not mixed


class Workers:
    """The processes. `work` serves in each of them: it is called with the function that says that it is ready."""

    def __init__(self, count: int, work: Callable[[Callable[[], None]], int]) -> None:
        self.count = count
        self.work = work
        self.alive: set[int] = set()

    def start(self) -> None:
        """Returns when all are ready. Raises LabError when one has ended instead, with what it said."""
        heard, told = os.pipe()
        try:
            for _ in range(self.count):
                self._fork(heard, told)
            os.close(told)
            with os.fdopen(heard, "rb", buffering=0) as answers:
                said = self._listen(answers)
        except BaseException:  # a stop signal among it
            self.end()
            raise
        if said is not None:
            self.end()
            raise LabError(said)

    def _fork(self, heard: int, told: int) -> None:
        """No stop signal comes to a child before it can do what it says: raised at any moment, Interrupted can fall
        into a callback of the interpreter's, where it is printed and lost."""
        ours = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        child = os.fork()
        if child == 0:
            self._be_one(heard, told, ours, before)
        self.alive.add(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _listen(self, answers: IO[bytes]) -> str | None:
        """None when all are ready, or why one is not."""
        said = b""
        while part := answers.read(65536):
            said += part
            words = said.split(b"\0")[:-1]
            others = [word for word in words if word != READY]
            if others:
                return others[0].decode(errors="replace")
            if len(words) == self.count:
                return None
        return f"cannot serve: {ENDED}"

    def _be_one(self, heard: int, told: int, parent: int, mask: set[int | signal.Signals]) -> None:
        """In the child, to its end."""
        status = 2
        answer = Answer(told, parent, mask)
        try:
            os.close(heard)
            die_with(parent)
            os.setsid()  # Ctrl-C reaches the first process alone, which passes it on
            status = self.work(answer.ready)
        except LabError as error:
            answer.failed(str(error))
        except Interrupted:
            status = 0
        finally:
            os._exit(status)

    def wait(self, signals: StopSignals) -> int:
        """Until they have ended: 0, or 1 if one did unasked or failed."""
        failed = False
        with Bell() as bell:
            signals.stop = partial(self.pass_on, signals)
            self.pass_on(signals)  # what came while they started
            while self.alive:
                child, status = os.waitpid(-1, os.WNOHANG)
                if child == 0:
                    bell.wait()
                    continue
                self.alive.discard(child)
                failed = failed or status != 0
                if not signals.received and self.alive:
                    say(f"worker {child} has ended: the others are ended, too")
                    failed = True
                    self.signal()
        return int(failed)

    def pass_on(self, signals: StopSignals) -> None:
        """What this process was told, each of them is told."""
        if signals.reopen:
            signals.reopen = False
            self.signal(signal.SIGUSR1)
        if signals.received:
            self.signal()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tell each; to end, if nothing else is said."""
        for child in self.alive:
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def end(self) -> None:
        """All of them, and wait for it."""
        self.signal()
        while self.alive:
            self.alive.discard(os.wait()[0])


class Bell:
    """Rings for every signal, the end of a child among them, from here on: one that comes before the sleep ends it too.

    A sleep in wait() would go on: Python's handlers run when a call has returned, and a signal that comes right before
    it interrupts nothing."""

    def __enter__(self) -> "Bell":
        self.heard, self.rung = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fd_before = signal.set_wakeup_fd(self.rung, warn_on_full_buffer=False)
        self._child_before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGCHLD, self._child_before)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self.heard)
        os.close(self.rung)

    def wait(self) -> None:
        """Until it has rung since the last time."""
        select.select([self.heard], [], [])
        with suppress(BlockingIOError):
            os.read(self.heard, 4096)


class Answer:
    """What a worker says to the first process, once."""

    def __init__(self, told: int, parent: int, mask: set[int | signal.Signals]) -> None:
        """mask: of signals, for a process that serves."""
        self.told = told
        self.parent = parent
        self.mask = mask

    def ready(self) -> None:
        """It serves, as whom it will be from now on, and can be told to stop."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        die_with(self.parent)  # again: becoming another user has taken it back
        self._say(READY)

    def failed(self, why: str) -> None:
        """It ends; why is said to people, where the first process hears it no more."""
        if not self._say(why.encode()[:MESSAGE_BYTES]):
            say(why)

    def _say(self, word: bytes) -> bool:
        told, self.told = self.told, -1
        if told < 0:
            return False
        with suppress(OSError):
            os.write(told, word + b"\0")
        os.close(told)
        return True


def die_with(parent: int) -> None:
    """End when the first process does."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it had ended before
        raise Interrupted

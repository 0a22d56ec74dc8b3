# SPDX-License-Identifier: MIT
"""Several processes that serve one port of the kernel's: `ustack serve --stack kernel:reuseport --workers N`.

Each has a transport, a server and a listening socket of its own (SO_REUSEPORT: the kernel gives each connection to one
of them), and becomes an ordinary user. This process serves nothing: it announces when all are ready, passes on what
ends them or opens their files again, and ends them when one of them has ended by itself, or they when it is killed
(PR_SET_PDEATHSIG).

It must not: hold a socket that a connection could be given to. Above: serve_kernel. Below: signals, live.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ustack.cli.live import say
from ustack.cli.signals import StopSignals
from ustack.lab import LabError, libc

PR_SET_PDEATHSIG = 1
READY = b"r"


class Workers:
    """The processes. `work` serves in each of them: it is called with the function that says that it is ready."""

    def __init__(self, count: int, work: Callable[[Callable[[], None]], int]) -> None:
        self.count = count
        self.work = work
        self.alive: set[int] = set()

    def start(self) -> None:
        """Returns when all are ready. Raises LabError when one has ended instead; it has said why."""
        heard, told = os.pipe()
        for _ in range(self.count):
            child = os.fork()
            if child == 0:
                os.close(heard)
                self._be_one(told)
            self.alive.add(child)
        os.close(told)
        with os.fdopen(heard, "rb", buffering=0) as answers:
            ready = 0
            while ready < self.count and (word := answers.read(1)):
                ready += word == READY
        if ready < self.count:
            self.end()
            raise LabError("cannot serve: a worker has ended before it was ready")

    def _be_one(self, told: int) -> None:
        """In the child, to its end."""
        status = 2
        try:
            os.setsid()  # Ctrl-C reaches the first process alone, which passes it on
            status = self.work(lambda: be_ready(told))
        except LabError as error:
            say(str(error))
        finally:
            os._exit(status)

    def wait(self, signals: StopSignals) -> int:
        """Until they have ended: 0, or 1 if one did unasked or failed."""
        failed = False
        signals.stop = partial(self.pass_on, signals)
        self.pass_on(signals)  # what came while they started
        while self.alive:
            child, status = os.wait()
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


def be_ready(told: int) -> None:
    """This worker serves, as whom it will be from now on."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.write(told, READY)
    os.close(told)

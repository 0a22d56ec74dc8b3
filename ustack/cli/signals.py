# SPDX-License-Identifier: MIT
"""Signals of `ustack serve`: what ends it, what opens its files again, what is ignored.

It must not: know what is served. Above: serve. Below: nothing.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Who starts us in the background or under nohup has had these ignored, and means it.
INHERITED_SIGNALS = (signal.SIGINT, signal.SIGHUP)
# Their default is to end the process. Nobody sends them for that.
IGNORED_SIGNALS = (signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO)


class Interrupted(BaseException):
    """A stop signal came before there was a stack to stop. Not an error, and not to be caught as one."""


class StopSignals:
    """Turns a stop signal into the end of the stack's run or, before there is a stack, into an exception.

    SIGUSR1 ends the run as well, and sets `reopen`. Handlers are given back at the end.
    """

    def __init__(self) -> None:
        self.received = False
        self.insisted = False  # a second one came
        self.count = 0
        self.stop: Callable[[], None] | None = None
        self.ending = False
        self.reopen = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in STOP_SIGNALS:
            if number not in INHERITED_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_reopen)
        for number in IGNORED_SIGNALS:
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def one_more(self) -> Callable[[], bool]:
        """What says whether another one has come since now."""
        before = self.count
        return lambda: self.count > before

    def _on_reopen(self, number: int, frame: FrameType | None) -> None:
        self.reopen = True
        if self.stop is not None:
            self.stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.insisted = self.received
        self.received = True
        if self.stop is not None:
            self.stop()
        elif not self.ending:
            self.ending = True
            raise Interrupted


@contextmanager
def ending(signals: StopSignals) -> Iterator[None]:
    """From here on a stop signal, and a second one, only waits for the end."""
    try:
        yield
    finally:
        signals.stop = None
        signals.ending = True

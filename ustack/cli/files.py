# SPDX-License-Identifier: MIT
"""The served directory and the access log of a server that gives up root: opened before that, and again by its keeper.

Each is one descriptor, whose number never changes. When the name leads to another directory (a release switched by a
link) or to no file (a log moved away), and on SIGUSR1, the keeper opens it again and the new one takes the number.

Below a directory that the server's user may not enter, where a name leads to cannot be seen: only SIGUSR1 tells there.
A name that means something else to another process (/dev/stdout, /proc/self/cwd) is opened here, once.
Above: serve. Below: lab.keeper.
"""

import os
from pathlib import Path
from typing import Protocol

from ustack.cli.live import say
from ustack.lab import LabError
from ustack.lab.keeper import DIRECTORY, FLAGS, LOG, LOG_MODE
from ustack.lab.opening import open_by_name

WHAT = {DIRECTORY: "the directory", LOG: "the access log"}


class Opener(Protocol):
    """Who opens a file again: a keeper, or whoever has no other."""

    def open(self, kind: str) -> int:
        """A new descriptor. Raises OSError."""


class Ourselves:
    """An opener without privileges of its own: this process, whoever it is by then."""

    def __init__(self, directory: Path, log: Path | None) -> None:
        self._paths = {DIRECTORY: directory.absolute(), **({} if log is None else {LOG: log.absolute()})}

    def open(self, kind: str) -> int:
        """As a keeper does."""
        return open_by_name(self._paths[kind], FLAGS[kind], LOG_MODE)


class Files:
    """Owner of the descriptors. Closes them at the end of a with statement."""

    def __init__(self, keeper: Opener, directory: Path, log: Path | None) -> None:
        """Open both, with what privilege this process has. Raises LabError, naming the one that cannot be opened."""
        self._keeper = keeper
        self._paths = {DIRECTORY: directory.absolute(), **({} if log is None else {LOG: log.absolute()})}
        self._descriptors: dict[str, int] = {}
        self._said: dict[str, str] = {}
        try:
            for kind, path in list(self._paths.items()):
                try:
                    self._descriptors[kind] = open_by_name(path, FLAGS[kind], LOG_MODE)
                except OSError as error:
                    raise LabError(f"cannot serve: {WHAT[kind]} {path}: {error.strerror or error}") from None
                if not self._keeper_sees(kind):
                    del self._paths[kind]
        except BaseException:
            self.__exit__()
            raise

    def _keeper_sees(self, kind: str) -> bool:
        """Does the name lead the keeper to the same file?"""
        try:
            theirs = self._keeper.open(kind)
        except OSError:
            return False
        try:
            here, there = os.fstat(self._descriptors[kind]), os.fstat(theirs)
        finally:
            os.close(theirs)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    @property
    def directory(self) -> int:
        """Descriptor of the directory to serve."""
        return self._descriptors[DIRECTORY]

    @property
    def log(self) -> int | None:
        """Descriptor of the access log, if there is one."""
        return self._descriptors.get(LOG)

    def follow(self) -> None:
        """Open again what has moved. About once per second."""
        for kind, path in self._paths.items():
            try:
                there = os.stat(path)
            except FileNotFoundError:
                if kind == LOG:
                    self._reopen(kind)
                continue  # a directory: between two releases, perhaps. What was opened stays
            except OSError:
                continue
            here = os.fstat(self._descriptors[kind])
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                self._reopen(kind)

    def reopen(self) -> None:
        """Open everything again, moved or not."""
        for kind in self._paths:
            self._reopen(kind)

    def _reopen(self, kind: str) -> None:
        """A failure leaves the old one in use, and is said once."""
        try:
            opened = self._keeper.open(kind)
        except OSError as error:
            reason = str(error.strerror or error)
            if self._said.get(kind) != reason:
                say(f"cannot reopen {WHAT[kind]} {self._paths[kind]}: {reason}")
            self._said[kind] = reason
            return
        os.dup2(opened, self._descriptors[kind], inheritable=False)
        os.close(opened)
        self._said.pop(kind, None)

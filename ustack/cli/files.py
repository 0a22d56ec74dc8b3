# SPDX-License-Identifier: MIT
"""The served directory and the access log of a server that has given up root: opened by its keeper, used here.

Each is one descriptor, whose number never changes. When the name leads to another directory (a release switched by a
link) or to no file (a log moved away), and on SIGUSR1, the keeper opens it again and the new one takes the number.

Below a directory that the server's user may not enter, where a name leads to cannot be seen: only SIGUSR1 tells there.
Above: serve. Below: netns.keeper.
"""

import os
import sys
from pathlib import Path

from ustack.netns import LabError
from ustack.netns.keeper import DIRECTORY, LOG, Keeper

WHAT = {DIRECTORY: "the directory", LOG: "the access log"}


class Files:
    """Owner of the descriptors. Closes them at the end of a with statement."""

    def __init__(self, keeper: Keeper, directory: Path, log: Path | None) -> None:
        """Open both. Raises LabError, naming the one that cannot be opened."""
        self._keeper = keeper
        self._paths = {DIRECTORY: directory.absolute(), **({} if log is None else {LOG: log.absolute()})}
        self._descriptors: dict[str, int] = {}
        self._said: dict[str, str] = {}
        try:
            for kind, path in self._paths.items():
                try:
                    self._descriptors[kind] = keeper.open(kind)
                except OSError as error:
                    raise LabError(f"cannot serve: {WHAT[kind]} {path}: {error.strerror or error}") from None
        except BaseException:
            self.__exit__()
            raise

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
        """Open again what has moved. About once a second."""
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
                print(f"ustack: cannot reopen {WHAT[kind]} {self._paths[kind]}: {reason}", file=sys.stderr)
            self._said[kind] = reason
            return
        os.dup2(opened, self._descriptors[kind], inheritable=False)
        os.close(opened)
        self._said.pop(kind, None)

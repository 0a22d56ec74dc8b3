# SPDX-License-Identifier: MIT
"""Opening a file by a name that others may have a hand in, with a privilege that they lack.

Whoever owns a directory on the way can put a symbolic link there, at any time. So the way is walked one name after the
other, and a link leads no further than whoever made it could go: otherwise the user whose site is served, or whoever
took over a server that gave up root, would have the keeper open any directory of root's, or a "log" in /etc/cron.d.

Only owner and the bits for others are looked at; what a link's owner may do as a member of a group does not count. What
root made, and we, is trusted. Where everybody may write, as in /tmp, nothing is written into what somebody else has put
there. Where there are no links and files of others, this is os.open().

Read first: open(2), path_resolution(7), symlink(7). Above: keeper, cli. Below: nothing.
"""

import errno
import os
import stat
from contextlib import suppress

LINKS_MAX = 40  # what the kernel follows
SEARCH, READ, WRITE = 0o001, 0o004, 0o002  # for others


def open_by_name(path: str | os.PathLike[str], flags: int, mode: int = 0o640) -> int:
    """A new descriptor of the file that an absolute path leads to. flags: os.open's; O_CREAT makes it for its owner.

    O_NOFOLLOW: a link in its place is an error. Raises OSError as open(2) does, and PermissionError where a link leads
    further than its owner could go, or somebody else has laid the file that is to be written.
    """
    walk = _Walk()
    try:
        return walk.open(os.fspath(path), flags | os.O_CLOEXEC, mode)
    finally:
        os.close(walk.at)


def remove_by_name(path: str | os.PathLike[str]) -> None:
    """Remove the file, or the link, that an absolute path names. Raises OSError as unlink(2) does, and PermissionError
    where somebody else made a link on the way."""
    walk = _Walk()
    try:
        walk.remove(os.fspath(path))
    finally:
        os.close(walk.at)


class _Walk:
    """Where the walk is (a descriptor), and who made the links that it has followed."""

    def __init__(self) -> None:
        self.at = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # In a user namespace the machine's root is nobody, and owns the root directory.
        self._trusted = {0, os.geteuid(), os.fstat(self.at).st_uid}
        self._makers: set[int] = set()

    def open(self, path: str, flags: int, mode: int) -> int:
        names = _names(path) or ["."]
        links = 0
        while True:
            name = names.pop()
            self._check(os.fstat(self.at), SEARCH)
            try:
                found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.at)
            except FileNotFoundError:
                if names or not flags & os.O_CREAT:
                    raise
                return self._make(name, flags, mode)
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                if not names:
                    os.close(found)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        self._check_owner(name, status)  # before it is opened: of a pipe, that may wait for ever
                    return self._open_last(name, flags | os.O_NOFOLLOW)
                self._go(found)
                continue
            if not names and flags & os.O_NOFOLLOW:
                os.close(found)
                raise OSError(errno.ELOOP, "it is a symbolic link", path)
            links += 1
            self._makers |= {status.st_uid} - self._trusted
            target = os.readlink("", dir_fd=found)
            os.close(found)
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if status.st_dev == _device_of_proc():
                # It leads where no name does: to another process's file.
                if not names:
                    return self._open_last(name, flags)
                self._go(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.at))
                continue
            if target.startswith("/"):
                self._go(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            names += _names(target)

    def remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        directory = self.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0)
        try:
            if self._makers:
                raise PermissionError(errno.EACCES, "a link on the way is another user's", path)
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)

    def _go(self, descriptor: int) -> None:
        os.close(self.at)
        self.at = descriptor

    def _make(self, name: str, flags: int, mode: int) -> int:
        self._check(os.fstat(self.at), SEARCH | WRITE)
        return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=self.at)

    def _open_last(self, name: str, flags: int) -> int:
        descriptor = os.open(name, flags & ~os.O_CREAT, dir_fd=self.at)
        try:
            status, place = os.fstat(descriptor), os.fstat(self.at)
            if flags & os.O_ACCMODE == os.O_RDONLY:
                self._check(status, READ | SEARCH if stat.S_ISDIR(status.st_mode) else READ)
                return descriptor
            self._check_owner(name, status)
            # Who owns the directory can give the file any name there, but also its name to any file (link(2)).
            self._makers |= {place.st_uid} - self._trusted
            if self._makers != {place.st_uid} or status.st_nlink != 1:
                self._check(status, WRITE)
            if status.st_nlink != 1 and place.st_mode & WRITE and not status.st_mode & WRITE:
                raise PermissionError(errno.EACCES, "whoever may write there can have given it this name", name)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_owner(self, name: str, status: os.stat_result) -> None:
        """As the kernel's protected_regular and protected_fifos have it, which no call without O_CREAT hears of."""
        place = os.fstat(self.at)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)) or not place.st_mode & WRITE:
            return
        if status.st_uid not in self._trusted | {place.st_uid}:
            raise PermissionError(
                errno.EACCES, f"it is user {status.st_uid}'s, in a directory where everybody may write", name
            )

    def _check(self, status: os.stat_result, wanted: int) -> None:
        """May everybody who made a link on the way do that?"""
        for maker in self._makers:
            if status.st_uid != maker and status.st_mode & wanted != wanted:
                raise PermissionError(errno.EACCES, f"user {maker} made it lead to what that user may not open")


def _names(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name]


def _device_of_proc() -> int:
    with suppress(OSError):
        return os.stat("/proc").st_dev
    return -1

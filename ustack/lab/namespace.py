# SPDX-License-Identifier: MIT
"""Named network namespaces, as `ip netns` keeps them: a file in /run/netns with the namespace mounted on it.

A namespace that exists may also be given as a path, such as /proc/PID/ns/net. Who may not write to /run has names of
his own (places).

A namespace made here carries a mark (the alias of its loopback interface) from before it has a name, so that what was
made by whom is never a guess. Nothing here moves a thread of the caller for longer than `inside` lasts, and never
another thread.

Read first: namespaces(7), ip-netns(8). Above: links, ingress, lab. Below: libc.
"""

import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ustack.lab import libc, places

RUN_DIR = places.directory("netns")
SHARED_RUN_DIR = places.RUN / "netns"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
OWN = "/proc/thread-self/ns/net"
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)

Result = TypeVar("Result")


class LabError(Exception):
    """What stands in the way, in one line that a user can act on."""


class InUseError(LabError):
    """A name or an address that somebody else has."""


def check_name(name: str) -> str:
    """Return `name` if it may name a namespace or a lab; raise LabError if not."""
    if not NAME.fullmatch(name):
        raise LabError(f"bad name {name!r}: letters, digits, '_', '-' and '.', at most 64")
    return name


def names() -> list[str]:
    """Names of the namespaces that exist, sorted."""
    try:
        return sorted(entry.name for entry in RUN_DIR.iterdir())
    except FileNotFoundError:
        return []


def exists(name: str) -> bool:
    """True if the name is taken, be it by a namespace or by a stray file."""
    return _path(name).exists()


def check_reference(name: str) -> str:
    """Return `name` if it may name a namespace or is the path of one that exists; raise LabError if not."""
    if not name.startswith("/"):
        return check_name(name)
    try:
        with open(name, "rb") as file:
            kind = fcntl.ioctl(file, NS_GET_NSTYPE)
    except FileNotFoundError:
        raise LabError(f"no namespace {name}") from None
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EISDIR):
            raise LabError(f"{name} is not a network namespace") from None
        raise LabError(f"namespace {name}: {error.strerror}") from None
    if kind != libc.CLONE_NEWNET:
        raise LabError(f"{name} is not a network namespace")
    return name


def identity(name: str | None = None) -> tuple[int, int]:
    """Device and inode of a namespace (None: the calling thread's): equal for two names of one namespace."""
    status = os.stat(OWN if name is None else _path(name))
    return status.st_dev, status.st_ino


def find_by_identity(wanted: tuple[int, ...]) -> str | None:
    """A path, which `inside` takes for a name, to the namespace with this identity. None: no process lives in it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            path = entry / "ns/net"
            try:
                status = path.stat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == wanted:
                return str(path)
    return None


@contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Run the block in the namespace `name` (a name, or a path such as /proc/PID/ns/net); None: where the thread is.

    Moves the calling thread only, and moves it back however the block ends. Descriptors that are opened in the block
    stay with the namespace. Raises LabError if there is no such namespace, OSError without CAP_SYS_ADMIN.
    """
    if name is None:
        yield
        return
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(name)
        try:
            yield
        finally:
            libc.setns(home)
    finally:
        os.close(home)


def create(name: str, mark: str = "") -> None:
    """Make the namespace `name` with its loopback up and, if given, `mark` as that interface's alias.

    The mark is set before the name appears: a process that dies half-way leaves either nothing or something marked.
    Raises InUseError if the name is taken, OSError without CAP_SYS_ADMIN.
    """
    path = RUN_DIR / check_name(name)
    _prepare_run_dir()

    def body() -> None:
        libc.unshare_net()
        _raise_loopback(mark)
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        except FileExistsError:
            raise InUseError(f"namespace {name} exists") from None
        try:
            libc.mount(OWN, str(path), libc.MS_BIND)
        except OSError:
            path.unlink()
            raise

    in_thread(body)


def remove(name: str) -> None:
    """Take the name away. The namespace goes with its last user. Does nothing if there is none."""
    path = RUN_DIR / check_name(name)
    try:
        libc.unmount(str(path))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    path.unlink(missing_ok=True)


def is_mounted(name: str) -> bool:
    """False for the empty file that is left if a process dies between making and mounting it."""
    path = RUN_DIR / check_name(name)
    try:
        return path.stat().st_dev != RUN_DIR.stat().st_dev
    except FileNotFoundError:
        return False


def in_thread(body: Callable[[], Result]) -> Result:
    """Run `body` in a thread of its own, which may change its namespace for good, and return its result."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(body())
        except BaseException as error:
            errors.append(error)

    # daemon: one that the kernel never answers does not keep the program from ending.
    thread = threading.Thread(target=run, name="ustack-netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _path(name: str) -> Path:
    if name.startswith("/"):
        return Path(name)
    path = RUN_DIR / check_name(name)
    shared = SHARED_RUN_DIR / name
    if not places.is_safe(RUN_DIR):
        return shared
    return shared if not path.exists() and shared.exists() else path


def enter(name: str) -> None:
    """Move the calling thread into the namespace `name` for good: for a thread or a process that will end there."""
    try:
        target = os.open(_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LabError(f"no namespace {name}") from None
    try:
        libc.setns(target)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise LabError(f"{_path(name)} is not a network namespace") from None
        raise
    finally:
        os.close(target)


def _prepare_run_dir() -> None:
    """Make /run/netns a shared mount, so that names appear in every mount namespace (what `ip netns` does)."""
    places.make(RUN_DIR)
    directory = os.open(RUN_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            libc.mount("", str(RUN_DIR), libc.MS_SHARED | libc.MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            libc.mount(str(RUN_DIR), str(RUN_DIR), libc.MS_BIND | libc.MS_REC)
            libc.mount("", str(RUN_DIR), libc.MS_SHARED | libc.MS_REC)
    finally:
        os.close(directory)


def _raise_loopback(mark: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        loopback = ip.link_lookup(ifname="lo")[0]
        ip.link("set", index=loopback, state="up", **({"ifalias": mark} if mark else {}))

# SPDX-License-Identifier: MIT
"""From the path of a request to an open regular file below the document root, and what HTTP says about it.

Nothing outside the root is ever opened: links are resolved by the kernel beneath the root's descriptor, or, where it
cannot, component by component without following any. It must not read file contents, and it keeps nothing: the table of
files is filetable.pyx's.

Read first: openat2(2); RFC 9110 section 8.3 (Content-Type), 8.8 (validators), 12.5.3 (Accept-Encoding).
Above: selection.py, loading.pyx. Below: beneath.pyx, response.py.
"""

import errno
import mimetypes
import os
import stat
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ustack.server.beneath import open_beneath
from ustack.server.response import Refusal

INDEX = b"index.html"
GZIP_SUFFIX = b".gz"

# Never blocks on a FIFO that has no writer, and never makes a terminal ours.
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

# A .gz that was made together with its original may be older by the time it took to write both.
_GZIP_TOLERANCE_NS = 2_000_000_000

# The year 2262: a file system can hold later times, 64 bits of nanoseconds cannot (filetable.pyx has the same bound).
TIME_BOUND_NS = 9_223_372_036_000_000_000

# How a failed open looks from outside. EACCES alone admits that something is there.
_REFUSED = {errno.EACCES: 403, errno.EPERM: 403, errno.ENXIO: 403}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.EINVAL, errno.EILSEQ}
_BUSY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# What the standard library's table lacks in some supported version of Python, or has changed between them.
_MORE_TYPES = {
    ".avif": "image/avif",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
_CODED_TYPES = {".gz": "application/gzip", ".bz2": "application/x-bzip2", ".xz": "application/x-xz"}
_TYPES = {**mimetypes.MimeTypes(filenames=()).types_map[1], **_MORE_TYPES, **_CODED_TYPES}


class Identity(NamedTuple):
    """What stat(2) says that changes when a file does. All zero: there is no such file."""

    device: int = 0
    inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


NOTHING = Identity()


@dataclass(slots=True)
class Variant:
    """One representation of a resource: its bytes are those of one file."""

    path: bytes  # relative to the root
    identity: Identity
    coding: bytes  # b"" or a content coding
    etag: bytes

    @property
    def size(self) -> int:
        """Bytes of the representation."""
        return self.identity.size


@dataclass(slots=True)
class Resource:
    """A file and its precompressed neighbour, as they were when they were opened."""

    plain: Variant
    gzip: Variant | None
    gzip_identity: Identity  # of the neighbour, also when it is not used
    content_type: bytes
    last_modified_s: int
    last_modified: bytes


@dataclass(slots=True)
class Opened:
    """A resource with the descriptors to read it from. Closes them at the end of a with statement."""

    resource: Resource
    fd: int
    gzip_fd: int

    def __enter__(self) -> "Opened":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both descriptors."""
        for fd in (self.fd, self.gzip_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.gzip_fd = -1


def content_type(name: bytes) -> bytes:
    """Media type by extension; text is declared as UTF-8."""
    base = name[name.rfind(b"/") + 1 :]
    stem, dot, extension = base.rpartition(b".")
    # As os.path.splitext has it: dots that a name begins with begin no extension.
    return _content_type(dot + extension if stem.strip(b".") else b"")


@lru_cache(maxsize=256)
def _content_type(extension: bytes) -> bytes:
    kind = _TYPES.get(os.fsdecode(extension).lower(), "application/octet-stream")
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return kind.encode("latin-1")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=1024)
def http_date(second: int) -> bytes:
    """An IMF-fixdate (RFC 9110 section 5.6.7) of seconds since 1970."""
    try:
        at = time.gmtime(second)
    except (OverflowError, OSError, ValueError):
        at = time.gmtime(0)
    text = "%s, %02d %s %04d %02d:%02d:%02d GMT"
    return (text % (_DAYS[at[6]], at[2], _MONTHS[at[1]], at[0], at[3], at[4], at[5])).encode("ascii")


def _bounded(time_ns: int) -> int:
    return min(max(time_ns, -TIME_BOUND_NS), TIME_BOUND_NS - 1)


def identity_of(status: os.stat_result) -> Identity:
    """The part of a stat result that tells one state of a file from another."""
    return Identity(
        status.st_dev, status.st_ino, status.st_size, _bounded(status.st_mtime_ns), _bounded(status.st_ctime_ns)
    )


def entity_tag(identity: Identity, coding: bytes) -> bytes:
    """A strong validator (RFC 9110 section 8.8.3): another one for each coding and for every change of the file."""
    suffix = b"-" + coding if coding else b""
    return b'"%x-%x-%x%b"' % (identity.mtime_ns, identity.size, identity.inode, suffix)


def describe(name: bytes, identity: Identity, gzip_identity: Identity) -> Resource:
    """The resource that a file is, together with its .gz. All zero: there is none."""
    gzip = None
    # An original edited after its .gz was made would be hidden by it.
    if gzip_identity.inode and identity.mtime_ns - gzip_identity.mtime_ns <= _GZIP_TOLERANCE_NS:
        gzip = Variant(name + GZIP_SUFFIX, gzip_identity, b"gzip", entity_tag(gzip_identity, b"gzip"))
    modified_s = identity.mtime_ns // 1_000_000_000
    return Resource(
        plain=Variant(name, identity, b"", entity_tag(identity, b"")),
        gzip=gzip,
        gzip_identity=gzip_identity,
        content_type=content_type(name),
        last_modified_s=modified_s,
        last_modified=http_date(modified_s),
    )


def _refusal(error: OSError) -> Refusal:
    number = error.errno or errno.EIO
    if number in _ABSENT:
        return Refusal(404)
    return Refusal(503 if number in _BUSY else _REFUSED.get(number, 500))


class DocumentRoot:
    """The directory that is served. Holds one descriptor of it."""

    def __init__(self, directory: str | bytes | os.PathLike[str]) -> None:
        """Raises OSError when `directory` is missing or is not a directory."""
        self._directory = os.path.abspath(os.fsencode(directory))
        self.fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._identity = os.fstat(self.fd)
        self._has_openat2 = True

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        """Nobody closed it; give it back all the same."""
        if hasattr(self, "fd"):
            self.close()

    def replaced(self) -> bool:
        """Follow the directory's name to another directory, as a release switched by a link needs it.

        True if the root is another one now: everything known about files is then void.
        """
        try:
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False  # between two releases, perhaps: what was opened stays
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino) == (self._identity.st_dev, self._identity.st_ino):
            os.close(fd)
            return False
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self._identity = now
        return True

    def open(self, path: bytes) -> Opened:
        """Open what `path` names: relative, decoded, without dot segments; b"" or a final slash names a directory.

        Raises Refusal: 301 for a directory without its slash, 403 for what must not be read, 404 for what is not there.
        """
        directory = not path or path.endswith(b"/")
        name = path + INDEX if directory else path
        try:
            fd = self._open_file(name)
        except OSError as error:
            if directory and error.errno == errno.ENOENT and self._is_directory(path):
                raise Refusal(403) from None  # listings are not made
            raise _refusal(error) from None
        gzip_fd = -1
        try:
            identity = self._regular(fd, directory)
            gzip_fd = self._open_neighbour(name + GZIP_SUFFIX)
            resource = describe(name, identity, identity_of(os.fstat(gzip_fd)) if gzip_fd >= 0 else Identity())
        except BaseException:
            for opened in (fd, gzip_fd):
                if opened >= 0:
                    os.close(opened)
            raise
        return Opened(resource, fd, gzip_fd)

    def _regular(self, fd: int, index: bool) -> Identity:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode) and not index:
            raise Refusal(301)
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(403)
        return identity_of(status)

    def _open_neighbour(self, name: bytes) -> int:
        try:
            fd = self._open_file(name)
        except OSError:
            return -1
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return -1

    def _is_directory(self, path: bytes) -> bool:
        try:
            os.close(self._open_below(path or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def _open_file(self, name: bytes) -> int:
        return self._open_below(name, _OPEN)

    def _open_below(self, name: bytes, flags: int) -> int:
        if self._has_openat2:
            try:
                return open_beneath(self.fd, name, flags)
            except OSError as error:
                if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a container's filter
                    self._has_openat2 = False
                elif error.errno not in (errno.EXDEV, errno.EAGAIN):
                    raise
        # An absolute link may still stay inside of the root, and a rename during the look-up gives EAGAIN.
        return self._open_resolved(name, flags)

    def _open_resolved(self, name: bytes, flags: int) -> int:
        """Resolve every link by name, check where that is, and walk there without following any."""
        root = os.readlink(b"/proc/self/fd/%d" % self.fd)
        real = os.path.realpath(os.path.join(root, name))
        if real != root and not real.startswith(root.rstrip(b"/") + b"/"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(name))
        *steps, last = os.path.relpath(real, root).split(b"/")
        at = os.open(b".", _STEP, dir_fd=self.fd)
        try:
            for step in steps:
                below = os.open(step, _STEP, dir_fd=at)
                os.close(at)
                at = below
            return os.open(last, flags | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)

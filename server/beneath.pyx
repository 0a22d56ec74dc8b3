# SPDX-License-Identifier: MIT
"""openat2(2): open a path that must not lead out of a directory, whatever its links say.

The C library has no wrapper for it. Numbers and structures are the kernel's own headers'.

Read first: openat2(2), RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS. Above: files.py. Below: nothing.
"""

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.string cimport memset

import os

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/syscall.h>" nogil:
    const long SYS_openat2

cdef extern from "<linux/openat2.h>" nogil:
    struct open_how:
        uint64_t flags
        uint64_t mode
        uint64_t resolve
    const uint64_t RESOLVE_BENEATH
    const uint64_t RESOLVE_NO_MAGICLINKS


def open_beneath(int directory_fd, bytes path not None, int flags) -> int:
    """A descriptor of `path` under `directory_fd`, close-on-exec.

    Raises OSError: EXDEV when the path or a link in it leaves the directory, or a link is absolute; ENOSYS where the
    kernel does not know the call (before Linux 5.6).
    """
    cdef open_how how
    cdef const char *name = path
    cdef int directory = directory_fd
    cdef long fd
    memset(&how, 0, sizeof(how))
    how.flags = <uint64_t>(flags | os.O_CLOEXEC)
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    with nogil:
        fd = syscall(SYS_openat2, directory, name, &how, sizeof(how))
    if fd < 0:
        raise OSError(errno, os.strerror(errno), os.fsdecode(path))
    return fd

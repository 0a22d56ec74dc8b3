# SPDX-License-Identifier: MIT
"""openat2(2), for C and for Python (contract: beneath.pxd). The structure is the kernel's own header's."""

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.string cimport memset

import os

from ustack.base.posix cimport O_CLOEXEC, SYS_openat2, syscall

cdef extern from "<linux/openat2.h>" nogil:
    struct open_how:
        uint64_t flags
        uint64_t mode
        uint64_t resolve
    const uint64_t RESOLVE_BENEATH
    const uint64_t RESOLVE_NO_MAGICLINKS


cdef int beneath_open(int directory_fd, const char *path, int flags) noexcept nogil:
    cdef open_how how
    cdef long fd
    memset(&how, 0, sizeof(how))
    how.flags = flags | O_CLOEXEC
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    fd = syscall(SYS_openat2, directory_fd, path, &how, sizeof(how))
    return <int>fd if fd >= 0 else -errno


def open_beneath(int directory_fd, bytes path not None, int flags) -> int:
    """A descriptor of `path` under `directory_fd`, close-on-exec.

    Raises OSError: EXDEV when the path or a link in it leaves the directory, or a link is absolute; ENOSYS where the
    kernel does not know the call (before Linux 5.6).
    """
    cdef const char *name = path
    cdef int fd
    with nogil:
        fd = beneath_open(directory_fd, name, flags)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), os.fsdecode(path))
    return fd

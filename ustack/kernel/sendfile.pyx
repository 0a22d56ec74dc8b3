# SPDX-License-Identifier: MIT
"""sendfile(2) without its signal. See sendfile.pxd."""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t

from ustack.base.posix cimport (
    SIG_BLOCK, SIG_SETMASK, SIGPIPE, pthread_sigmask, sendfile, sigaddset, sigemptyset, sigismember, sigpending,
    sigset_t, sigtimedwait, timespec)


cdef bint is_pending(int number) noexcept nogil:
    cdef sigset_t pending
    sigpending(&pending)
    return sigismember(&pending, number) == 1


cdef void take_back(const sigset_t *sent) noexcept nogil:
    cdef timespec at_once
    at_once.tv_sec = at_once.tv_nsec = 0
    while sigtimedwait(sent, NULL, &at_once) < 0 and errno == EINTR:
        pass


cdef ssize_t sendfile_silently(int socket_fd, int file_fd, int64_t *at, size_t length) noexcept nogil:
    cdef sigset_t sent, before
    cdef bint others
    cdef ssize_t taken
    sigemptyset(&sent)
    sigaddset(&sent, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &sent, &before)
    others = sigismember(&before, SIGPIPE) == 1 and is_pending(SIGPIPE)
    taken = sendfile(socket_fd, file_fd, at, length)
    if taken < 0:
        taken = -errno
    if taken < <ssize_t>length and not others:      # it may have sent a part first
        take_back(&sent)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return taken

# SPDX-License-Identifier: MIT
# sendfile(2) without its signal.
#
# It has no MSG_NOSIGNAL: where nobody can read any more what is sent it sends this thread a SIGPIPE, whose default ends
# the process. A program may begin to handle SIGPIPE at any time, so it is blocked for the length of each call, and
# taken back. One that was pending before is somebody else's, and stays.
#
# It must not: know a connection. Above: sockets. Below: base.

from libc.stdint cimport int64_t

# Bytes sent, which may be fewer than length, or a negative errno. at: moved on by them.
cdef ssize_t sendfile_silently(int socket_fd, int file_fd, int64_t *at, size_t length) noexcept nogil

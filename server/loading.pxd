# SPDX-License-Identifier: MIT
# Files that it takes Python to open: through links, with a .gz beside them, larger than small_file_bytes.
#
# A Loader finds the file of a request's path in the table, or opens it (files.py, where file_open leaves it to that)
# and takes it in. It holds the document root and what HTTP says about each file (files.Resource). Needs the GIL.
#
# Above: decide, http (the root's life). Below: fetching, filetable; files (.py).

from libc.stdint cimport int64_t, uint32_t, uint64_t

from ustack.server.records cimport server_t, variant_t

cdef enum:
    ABSENT = -2                         # Loader.find: nothing has that name
    AWAITED = -3                        # ... it is being read: server.awaited

cdef class Loader:
    cdef server_t *s                    # of who owns this
    cdef object root                    # files.DocumentRoot
    cdef list resources                 # by the number of a file_t that is `described`
    cdef object absent                  # name that the last look-up did not find, for as long as nobody makes it

    # The number of the file_t for a path, opened if need be; ABSENT, with the name in `absent`; or AWAITED.
    # Raises Refusal.
    cdef int64_t find(self, bytes path) except -1
    cdef bint warm(self, size_t path_length, uint64_t hashed, opened) except -1
    cdef object describe(self, uint32_t number)                 # the files.Resource that a live file_t is
    cdef object load(self, size_t path_length, uint64_t hashed, opened)
    cdef bint lends_descriptors(self) noexcept
    cdef bint fill(self, variant_t *variant, bytes path, identity, int fd) except -1

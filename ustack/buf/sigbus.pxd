# SPDX-License-Identifier: MIT
# One SIGBUS handler for all mappings of files, so that a file that is cut short costs a connection and not the process.
# Body: sigbus.pyx. Above: lent.

from libc.stdint cimport uint8_t, uint64_t

# Make the handler the process's, above the one that is there. Cheap when it is already: one system call. 0, or -1 with
# errno.
cdef int sigbus_take() noexcept nogil
# From now on a fault in the range puts zero pages from there to its end and sets *damaged. NULL without memory.
cdef void *sigbus_register(const void *start, size_t length, uint8_t *damaged) noexcept nogil
# Before the range is unmapped: afterwards its addresses may be anybody's.
cdef void sigbus_forget(void *range) noexcept nogil
# How often the handler had to be put back since the start of the process.
cdef uint64_t sigbus_repairs_made() noexcept nogil

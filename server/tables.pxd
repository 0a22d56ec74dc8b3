# SPDX-License-Identifier: MIT
# Everything that a server keeps tables of: begun together, ended together.
#
# Above: upcalls (the last connection's end), http. Below: who keeps what.

from libc.stdint cimport uint32_t

from ustack.server.records cimport server_t

# All but those of header sections, which plain_begin begins. Raises MemoryError.
cdef int tables_begin(server_t *server, uint32_t max_heads, uint32_t max_files, uint32_t max_busy,
                      uint32_t log_lines) except -1
# Give everything back. Idempotent. No connection may be open: the records of busy ones go as well.
cdef void tables_end(server_t *server) noexcept nogil

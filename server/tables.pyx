# SPDX-License-Identifier: MIT
"""A server's tables. See tables.pxd."""

from libc.stdint cimport uint32_t

from ustack.server.exchange cimport exchanges_begin, exchanges_end
from ustack.server.fetching cimport loads_end
from ustack.server.filetable cimport files_begin, files_end
from ustack.server.headtable cimport heads_begin, heads_end
from ustack.server.logring cimport log_begin, log_end
from ustack.server.plainheads cimport plain_end
from ustack.server.ready cimport ready_begin, ready_end
from ustack.server.records cimport server_t


cdef int tables_begin(server_t *server, uint32_t max_heads, uint32_t max_files, uint32_t max_busy,
                      uint32_t log_lines) except -1:
    if (heads_begin(server, max_heads) != 0 or files_begin(server, max_files) != 0 or ready_begin(server) != 0
            or log_begin(&server.log, log_lines) != 0 or exchanges_begin(server, max_busy) != 0):
        raise MemoryError
    return 0


cdef void tables_end(server_t *server) noexcept nogil:
    heads_end(server)
    loads_end(server)
    files_end(server)
    log_end(&server.log)
    exchanges_end(server)
    plain_end(server)
    ready_end(server)

# SPDX-License-Identifier: MIT
# Ready-made responses: lent to TCP as they are, and dated again when they are needed in another second.
#
# What TCP still sends from must not change: such a response is copied before it gets its new date. Copies are counted
# in a ledger, which also knows those that only TCP still names, so that clients who do not read cannot make this server
# keep more than max_response_bytes.
#
# Read first: RFC 9110 section 6.6.1 (Date); buf/lent.pxd. Above: headtable, filetable, decide, plainheads, sending.
# Below: records, dates.

from libc.stdint cimport uint8_t, uint64_t

from ustack.buf.lent cimport lent_t
from ustack.server.records cimport ready_t, server_t

cdef int ready_begin(server_t *server) noexcept nogil           # 0, or -1 without memory
cdef void ready_end(server_t *server) noexcept nogil            # idempotent; the ledger stays until its last copy goes
# lent_from_copy, counted against max_response_bytes. NULL beyond it, and without memory.
cdef lent_t *counted_copy(server_t *server, const uint8_t *data, uint64_t length) noexcept nogil
cdef void ready_date(server_t *server, ready_t *ready) noexcept nogil
cdef void ready_free(ready_t *ready) noexcept nogil


cdef inline void ready_refresh(server_t *server, ready_t *ready) noexcept nogil:
    """Date it for this second. Without memory the older date stays: the approximation that RFC 9110 section 6.6.1 asks
    for is then as good as the last second in which there was room."""
    if ready.second != server.second:
        ready_date(server, ready)

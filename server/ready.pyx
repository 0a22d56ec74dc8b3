# SPDX-License-Identifier: MIT
"""Ready-made responses and the ledger of their copies (contract: ready.pxd)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen

from ustack.buf.lent cimport lent_from_copy, lent_t, lent_unref
from ustack.server.dates cimport DATE_BYTES
from ustack.server.records cimport FULL_FORMS, SHARED_STATUSES, ledger_t, ready_t, server_t

cdef const uint8_t *CONTINUE_100 = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef int ready_begin(server_t *server) noexcept nogil:
    server.continue_100 = lent_from_copy(CONTINUE_100, strlen(<const char *>CONTINUE_100))
    server.ledger = <ledger_t *>calloc(1, sizeof(ledger_t))
    if server.ledger == NULL or server.continue_100 == NULL:
        return -1
    server.ledger.refs = 1
    return 0


cdef void ready_end(server_t *server) noexcept nogil:
    cdef int index
    for index in range(SHARED_STATUSES * FULL_FORMS):
        ready_free(&server.shared[index])
    if server.continue_100 != NULL:
        lent_unref(server.continue_100)
        server.continue_100 = NULL
    if server.ledger != NULL:
        ledger_drop(server.ledger)
        server.ledger = NULL


cdef void ledger_drop(ledger_t *ledger) noexcept nogil:
    ledger.refs -= 1
    if ledger.refs == 0:
        free(ledger)


cdef void counted_release(lent_t *lent) noexcept nogil:
    cdef ledger_t *ledger = <ledger_t *>lent.owner
    ledger.bytes -= lent.length + sizeof(lent_t)
    ledger.release(lent)
    ledger_drop(ledger)


cdef lent_t *counted_copy(server_t *server, const uint8_t *data, uint64_t length) noexcept nogil:
    cdef ledger_t *ledger = server.ledger
    cdef lent_t *lent
    if ledger.bytes + length + sizeof(lent_t) > server.max_response_bytes:
        return NULL
    lent = lent_from_copy(data, length)
    if lent == NULL:
        return NULL
    ledger.release = lent.release
    ledger.bytes += length + sizeof(lent_t)
    ledger.refs += 1
    lent.owner = ledger
    lent.release = counted_release
    return lent


cdef void ready_date(server_t *server, ready_t *ready) noexcept nogil:
    cdef lent_t *copy
    if ready.lent.refs > 1:
        # Somebody sends from it, so it must not change; it goes on without us.
        copy = counted_copy(server, ready.lent.data, ready.lent.length)
        if copy == NULL:
            server.stats.dates_kept += 1
            return
        lent_unref(ready.lent)
        ready.lent = copy
    memcpy(<uint8_t *>ready.lent.data + ready.date_at, server.date, DATE_BYTES)
    ready.second = server.second


cdef void ready_free(ready_t *ready) noexcept nogil:
    if ready.lent != NULL:
        lent_unref(ready.lent)
        ready.lent = NULL

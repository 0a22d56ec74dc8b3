# SPDX-License-Identifier: MIT
# Ready-made responses, and the second that they are dated for. Included by http.pyx.


cdef void tick(server_t *server, uint64_t now_ns) noexcept nogil:
    """Take the engine's time; at a new second, write the date that responses carry."""
    cdef uint64_t wall_ns
    server.now_ns = now_ns
    if now_ns < server.next_second_ns:
        return
    wall_ns = <uint64_t>(<int64_t>now_ns + server.wall_offset_ns)
    server.second = <int64_t>(wall_ns / 1_000_000_000)
    server.next_second_ns = now_ns + 1_000_000_000 - wall_ns % 1_000_000_000
    server.checks_left = server.checks_per_second
    write_http_date(server.date, server.second)


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
    """lent_from_copy, counted against max_response_bytes. NULL beyond it, and without memory."""
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


cdef bint ready_refresh(server_t *server, ready_t *ready) noexcept nogil:
    """Date a response for this second. False without memory, which leaves the older date: the approximation that
    RFC 9110 section 6.6.1 asks for is then as good as the last second in which there was room."""
    cdef lent_t *copy
    if ready.second == server.second:
        return True
    if ready.lent.refs > 1:
        # Somebody sends from it, so it must not change; it goes on without us.
        copy = counted_copy(server, ready.lent.data, ready.lent.length)
        if copy == NULL:
            server.stats.dates_kept += 1
            return False
        lent_unref(ready.lent)
        ready.lent = copy
    memcpy(<uint8_t *>ready.lent.data + ready.date_at, server.date, DATE_BYTES)
    ready.second = server.second
    return True


cdef void ready_free(ready_t *ready) noexcept nogil:
    if ready.lent != NULL:
        lent_unref(ready.lent)
        ready.lent = NULL

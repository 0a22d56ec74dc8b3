# SPDX-License-Identifier: MIT
# The time as HTTP and the log write it, made once a second. Included by http.pyx.

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        int tm_wday
    tm *gmtime_r(const time_t *when, tm *out)

# Not strftime: its names follow the locale.
cdef const char *DAY_NAMES = b"SunMonTueWedThuFriSat"
cdef const char *MONTH_NAMES = b"JanFebMarAprMayJunJulAugSepOctNovDec"


cdef inline void write_two(uint8_t *out, int value) noexcept nogil:
    out[0] = <uint8_t>(48 + value / 10 % 10)
    out[1] = <uint8_t>(48 + value % 10)


cdef inline void write_four(uint8_t *out, int value) noexcept nogil:
    write_two(out, value / 100)
    write_two(out + 2, value % 100)


cdef inline void write_clock(uint8_t *out, const tm *parts) noexcept nogil:
    write_two(out, parts.tm_hour)
    out[2] = c':'
    write_two(out + 3, parts.tm_min)
    out[5] = c':'
    write_two(out + 6, parts.tm_sec)


cdef void write_http_date(uint8_t *out, int64_t second) noexcept nogil:
    """29 octets: Sun, 06 Nov 1994 08:49:37 GMT."""
    cdef tm parts
    cdef time_t when = second
    if gmtime_r(&when, &parts) == NULL:
        memcpy(out, b"Thu, 01 Jan 1970 00:00:00 GMT", DATE_BYTES)
        return
    memcpy(out, b"Day, 00 Mon 0000 00:00:00 GMT", DATE_BYTES)
    memcpy(out, DAY_NAMES + 3 * parts.tm_wday, 3)
    write_two(out + 5, parts.tm_mday)
    memcpy(out + 8, MONTH_NAMES + 3 * parts.tm_mon, 3)
    write_four(out + 12, parts.tm_year + 1900)
    write_clock(out + 17, &parts)


cdef void write_log_time(uint8_t *out, int64_t second) noexcept nogil:
    """28 octets: [10/Oct/2000:13:55:36 +0000]. The log is kept in UTC."""
    cdef tm parts
    cdef time_t when = second
    memcpy(out, b"[00/Mon/0000:00:00:00 +0000]", 28)
    if gmtime_r(&when, &parts) == NULL:
        return
    write_two(out + 1, parts.tm_mday)
    memcpy(out + 4, MONTH_NAMES + 3 * parts.tm_mon, 3)
    write_four(out + 8, parts.tm_year + 1900)
    write_clock(out + 13, &parts)


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

# SPDX-License-Identifier: MIT
"""Writers of dates (contract: dates.pxd)."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from ustack.base.posix cimport gmtime_r, time_t, tm

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
    cdef tm parts
    cdef time_t when = second
    memcpy(out, b"[00/Mon/0000:00:00:00 +0000]", LOG_TIME_BYTES)
    if gmtime_r(&when, &parts) == NULL:
        return
    write_two(out + 1, parts.tm_mday)
    memcpy(out + 4, MONTH_NAMES + 3 * parts.tm_mon, 3)
    write_four(out + 8, parts.tm_year + 1900)
    write_clock(out + 13, &parts)

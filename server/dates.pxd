# SPDX-License-Identifier: MIT
# The time as HTTP and the access log write it. Reads no clock, and never follows the locale.
#
# Read first: RFC 9110 section 5.6.7 (IMF-fixdate). Above: logring, http. Below: nothing.

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    DATE_BYTES = 29                 # an IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    LOG_TIME_BYTES = 28             # [10/Oct/2000:13:55:36 +0000]

# second: since 1970. A year beyond 9999 gives the epoch's date, and zeros in the log.
cdef void write_http_date(uint8_t *out, int64_t second) noexcept nogil
cdef void write_log_time(uint8_t *out, int64_t second) noexcept nogil   # the log is kept in UTC

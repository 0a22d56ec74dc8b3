# SPDX-License-Identifier: MIT
# The access log between a response and the file: fixed records in a bounded ring, made into lines and written outside
# of the bursts.
#
# A response costs one record. `log_drain` writes whole lines in batches; it never waits for a pipe's reader (the
# records stay), and a line that the file took in part is taken out again where that is possible. A record that finds
# the ring full is counted as lost, as is a line that the file refused. The texts are accesslog.py's.
#
# Above: records (server_t holds a log_t), exchange, http. Below: dates, buf/lent.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.server.dates cimport LOG_TIME_BYTES

ctypedef struct log_record_t:
    int64_t second                  # wall clock
    uint64_t body_bytes
    lent_t *text                    # owned: what stands before and behind status and size
    ip_addr_t address               # the client's
    uint32_t split                  # bytes of the text that stand before
    uint16_t status

ctypedef struct log_t:
    int fd                          # borrowed from accesslog.LogFile; -1: none
    uint8_t is_regular              # a write cannot wait for a reader
    int error                       # errno of the last write, 0: the file took it
    log_record_t *ring
    uint32_t mask
    uint32_t head                   # next to write, counts on
    uint32_t tail                   # next free
    uint8_t *buffer                 # a batch of lines
    int64_t time_second             # that time_text says
    uint8_t time_text[LOG_TIME_BYTES]
    uint64_t written_lines
    uint64_t lost_lines

cdef int log_begin(log_t *log, uint32_t lines) noexcept nogil   # a power of two. 0, or -1 without memory
cdef void log_end(log_t *log) noexcept nogil                    # idempotent; what is not written is dropped
# Keep one line. text: another reference is taken.
cdef void log_keep(log_t *log, int64_t second, const ip_addr_t *address, lent_t *text, uint32_t split, uint16_t status,
                   uint64_t body_bytes) noexcept nogil
# Write what the ring holds. Stops where a pipe's reader is slow: the records stay.
cdef void log_drain(log_t *log) noexcept nogil


cdef inline bint log_half_full(const log_t *log) noexcept nogil:
    return log.tail - log.head > log.mask >> 1

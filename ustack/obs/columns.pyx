# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Records of a trace, looked through and taken apart into columns, without the GIL. Above: parquet, spool. Below:
tcp.records.trace."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from ustack.tcp.records.flight cimport REPAIR_SIZE, REXMIT_SIZE
from ustack.tcp.records.state cimport CLOSE_PARAMETER_PROBLEM, STATE_COUNT
from ustack.tcp.records.trace cimport TRACE_CLOSED, TRACE_EVENTS, TRACE_STATE, trace_record_t
from ustack.tcp.tracing cimport TRACE_CONNECTIONS_MAX

cdef enum:
    BYTE_FIELDS = 4
    WORD_FIELDS = 11


cdef bytes column(Py_ssize_t count, size_t size):
    return PyBytes_FromStringAndSize(NULL, count * <Py_ssize_t>size)


cdef void split(const trace_record_t *record, Py_ssize_t count, uint64_t *times, uint64_t *rates, uint8_t **small,
                uint32_t **words) noexcept nogil:
    cdef Py_ssize_t at
    for at in range(count):
        times[at] = record.time_ns
        words[0][at] = record.connection
        small[0][at] = record.event
        small[1][at] = record.cause
        small[2][at] = record.state
        small[3][at] = record.repair
        words[1][at] = record.seq
        words[2][at] = record.length
        words[3][at] = record.cwnd
        words[4][at] = record.ssthresh
        words[5][at] = record.flight
        words[6][at] = record.srtt_us
        words[7][at] = record.rto_us
        words[8][at] = record.snd_wnd
        words[9][at] = record.rcv_wnd
        words[10][at] = record.detail
        rates[at] = record.pacing_rate
        record += 1


def columns(bytes records not None):
    """One column of native numbers for each of FIELDS (ustack.tcp.tracing), in their order."""
    cdef Py_ssize_t count = len(records) // <Py_ssize_t>sizeof(trace_record_t)
    cdef const trace_record_t *first = <const trace_record_t *>PyBytes_AS_STRING(records)
    cdef bytes times = column(count, sizeof(uint64_t)), rates = column(count, sizeof(uint64_t))
    cdef list small = [column(count, sizeof(uint8_t)) for _ in range(BYTE_FIELDS)]
    cdef list words = [column(count, sizeof(uint32_t)) for _ in range(WORD_FIELDS)]
    cdef uint64_t *times_at = <uint64_t *>PyBytes_AS_STRING(times)
    cdef uint64_t *rates_at = <uint64_t *>PyBytes_AS_STRING(rates)
    cdef uint8_t *small_at[BYTE_FIELDS]
    cdef uint32_t *words_at[WORD_FIELDS]
    cdef int i
    for i in range(BYTE_FIELDS):
        small_at[i] = <uint8_t *>PyBytes_AS_STRING(<bytes>small[i])
    for i in range(WORD_FIELDS):
        words_at[i] = <uint32_t *>PyBytes_AS_STRING(<bytes>words[i])
    with nogil:
        split(first, count, times_at, rates_at, small_at, words_at)
    return [times, words[0], *small, *words[1:], rates]


cdef bint is_known(const trace_record_t *record) noexcept nogil:
    """Has every number in it a name?"""
    if not (0 < record.event < TRACE_EVENTS and record.cause <= REXMIT_SIZE and record.repair <= REPAIR_SIZE
            and record.state < STATE_COUNT and 0 < record.connection <= <uint32_t>TRACE_CONNECTIONS_MAX):
        return False
    if record.event == TRACE_STATE:
        return record.detail < <uint32_t>STATE_COUNT
    return record.event != TRACE_CLOSED or record.detail <= <uint32_t>CLOSE_PARAMETER_PROBLEM


cdef Py_ssize_t find_unknown(const trace_record_t *record, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t at
    for at in range(count):
        if not is_known(&record[at]):
            return at
    return -1


def first_unknown(bytes records not None):
    """Which of the records is the first that no trace can have, because a number in it has no name; -1: none is."""
    cdef Py_ssize_t count = len(records) // <Py_ssize_t>sizeof(trace_record_t), found
    cdef const trace_record_t *first = <const trace_record_t *>PyBytes_AS_STRING(records)
    with nogil:
        found = find_unknown(first, count)
    return found

# SPDX-License-Identifier: MIT
"""Bytes that wait in a transport in memory: unread ones, and the send queue's lent ranges.

It must not: make upcalls, or know who waits for what. Below: buf. Above: downcalls, memory_transport.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from ustack.base.bytestring cimport bytes_from
from ustack.buf.lent cimport lent_unref


cdef int unread_append(memory_conn_t *record, const uint8_t *data, size_t length) except -1:
    cdef uint8_t *grown
    if record.start > 0:
        memmove(record.unread, record.unread + record.start, record.end - record.start)
        record.end -= record.start
        record.start = 0
    if record.end + length > record.capacity:
        grown = <uint8_t *>realloc(record.unread, 2 * (record.end + length))
        if grown == NULL:
            raise MemoryError
        record.unread = grown
        record.capacity = 2 * (record.end + length)
    memcpy(record.unread + record.end, data, length)
    record.end += length
    return 0


cdef bytes queue_take(memory_conn_t *record, uint64_t wanted):
    cdef piece_t *piece
    cdef uint64_t step
    cdef list parts = []
    while wanted > 0 and record.head != NULL:
        piece = record.head
        step = piece.length if piece.length < wanted else wanted
        parts.append(bytes_from(piece.data, step))
        piece.data += step
        piece.length -= step
        record.queued -= <uint32_t>step
        wanted -= step
        if piece.length == 0:
            queue_drop(record)
    return b"".join(parts)


cdef void queue_drop(memory_conn_t *record) noexcept:
    """Give the first piece back."""
    cdef piece_t *piece = record.head
    record.head = piece.next
    if record.head == NULL:
        record.tail = NULL
    record.queued -= <uint32_t>piece.length
    lent_unref(piece.lent)
    free(piece)


cdef void record_free(memory_conn_t *record) noexcept:
    while record.head != NULL:
        queue_drop(record)
    free(record.unread)
    free(record)

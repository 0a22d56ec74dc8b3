# SPDX-License-Identifier: MIT
# What a transport in memory holds: connections, listeners, what waits in either direction. Bodies: records.pyx.
#
# The send queue is a list of lent ranges, as the engine's is; unread bytes are copied. Every field is written by the
# downcalls (downcalls.pyx) or by a turn (turns.pyx), which never run at the same time.
#
# Below: application, buf. Above: downcalls, turns.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport (
    OPTION_LOW_WATER, OPTION_UNSENT_LOW_WATER, application_t, close_reason_t, conn_t, endpoints_t, file_calls_t,
    transport_t, turn_budget_t)
from ustack.buf.lent cimport lent_t

cdef enum:
    MEMORY_OPTIONS = OPTION_UNSENT_LOW_WATER + 1
    MEMORY_LISTENERS = 63
    MEMORY_READS = 128

cdef enum flags_t:
    ACCEPTED = 1
    PAUSED = 2                      # on_data left a rest
    RESUMED = 4                     # ... and wants it
    WANT_WRITABLE = 8
    FIN_QUEUED = 16                 # shutdown or close
    FIN_TAKEN = 32                  # the client has seen it
    CLOSED_BY_APP = 64
    ABORT = 128
    PEER_FIN = 256                  # behind everything unread
    EOF_TOLD = 512
    WAITING = 1024                  # it counts against the backlog
    ENDED = 2048                    # on_closed is being called

ctypedef struct piece_t:            # one lent range in the send queue
    lent_t *lent
    const uint8_t *data
    uint64_t length
    piece_t *next

ctypedef struct memory_conn_t:
    uint64_t user_data              # conn_t
    endpoints_t ends
    application_t *app
    uint32_t flags
    uint32_t queued                 # bytes
    piece_t *head
    piece_t *tail
    uint8_t *unread                 # received and not consumed: unread[start:end]
    size_t start
    size_t end
    size_t capacity
    uint64_t timeout_at_ns          # 0: off
    uint32_t options[MEMORY_OPTIONS]        # by conn_option_t
    close_reason_t reason
    bint offering                   # on_data has the unread bytes in its hands

ctypedef struct memory_listener_t:
    uint16_t port                   # 0: nobody listens
    uint32_t backlog
    uint32_t waiting
    application_t *app

ctypedef struct memory_read_t:      # of a file (file_calls_t)
    application_t *app
    lent_t *into
    uint64_t at
    uint64_t length
    uint64_t offset
    int64_t taken                   # once it is ended
    uint32_t token
    int fd
    bint ended                      # told in the next turn

ctypedef struct memory_t:
    transport_t transport           # first: see transport_t
    turn_budget_t budget
    uint64_t now_ns
    uint32_t send_queue_bytes
    uint32_t low_water_bytes        # connections begin with them
    uint32_t unsent_low_water_bytes
    memory_listener_t listeners[MEMORY_LISTENERS]
    memory_conn_t **conns           # of `count`; NULL: gone
    uint32_t count
    file_calls_t files              # transport.files, where files are read
    memory_read_t reads[MEMORY_READS]       # in the order in which they were asked for
    uint32_t read_count
    uint64_t hand_overs             # bit i: the application with that index has asked for on_hand_over


cdef inline memory_t *memory_of(const transport_t *transport) noexcept nogil:
    return <memory_t *>transport


cdef inline memory_conn_t *own(const conn_t *conn) noexcept nogil:
    return <memory_conn_t *>conn


# Neither measure of the send queue is above its mark. They are one here: a client acknowledges what it is sent.
cdef inline bint is_writable(const memory_conn_t *record) noexcept nogil:
    return (record.queued <= record.options[<int>OPTION_LOW_WATER]
            and record.queued <= record.options[<int>OPTION_UNSENT_LOW_WATER])


# Keep bytes that the application has left. Raises MemoryError.
cdef int unread_append(memory_conn_t *record, const uint8_t *data, size_t length) except -1
# The first `wanted` bytes of the send queue, acknowledged: what lent them gets them back.
cdef bytes queue_take(memory_conn_t *record, uint64_t wanted)
# Give everything back, and the record.
cdef void record_free(memory_conn_t *record) noexcept

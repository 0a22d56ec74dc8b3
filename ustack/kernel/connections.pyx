# SPDX-License-Identifier: MIT
"""The life of a connection's record. See connections.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

from ustack.application cimport application_t
from ustack.base.iqueue cimport iqueue_append, iqueue_take
from ustack.base.posix cimport close_descriptor, iovec
from ustack.base.wheel cimport (
    TIMER_NONE, tick_before, wheel_arm, wheel_cancel, wheel_deadline_tick, wheel_move, wheel_tick_of)
from ustack.buf.lent cimport lent_descriptor, lent_ref, lent_t, lent_unref
from ustack.buf.slab cimport slab_alloc, slab_at, slab_release
from ustack.kernel.counters cimport INTERESTS_CHANGED
from ustack.kernel.readiness cimport READY_IN, READY_OUT, SERVES_ALL
from ustack.kernel.records cimport (
    ABORT, CONNECTING, ENDED, IN_OUT, IN_WORK, PAUSED, PEER_FIN, RECEIVE_BYTES, SEND_MOST, UNREAD_STEP_BYTES, UNWATCHED,
    UNWRITABLE, VECTOR_MOST, kernel_conn_t, kernel_t, piece_at, piece_link, piece_t, piece_take, tally)
from ustack.kernel.zerocopy cimport zerocopy_part


# ---------------------------------------------------------------- the record

cdef inline kernel_conn_t *conn_at(const kernel_t *kernel, uint32_t index) noexcept nogil:
    return <kernel_conn_t *>slab_at(&kernel.conns, index)


cdef int generations_grow(kernel_t *kernel) noexcept nogil:
    cdef uint32_t wanted = 2 * kernel.generations_capacity if kernel.generations_capacity else 1024
    cdef uint32_t *grown = <uint32_t *>realloc(kernel.generations, wanted * sizeof(uint32_t))
    if grown == NULL:
        return -1
    memset(grown + kernel.generations_capacity, 0, (wanted - kernel.generations_capacity) * sizeof(uint32_t))
    kernel.generations = grown
    kernel.generations_capacity = wanted
    return 0


cdef kernel_conn_t *conn_new(kernel_t *kernel, int fd, application_t *app) noexcept nogil:
    cdef uint32_t index = slab_alloc(&kernel.conns)
    cdef kernel_conn_t *conn
    if index == 0:
        return NULL
    if index >= kernel.generations_capacity and generations_grow(kernel) < 0:
        slab_release(&kernel.conns, index)
        return NULL
    kernel.generation = kernel.generation % 0x7FFFFFFF + 1
    kernel.generations[index] = kernel.generation
    conn = <kernel_conn_t *>slab_at(&kernel.conns, index)
    conn.index = index
    conn.generation = kernel.generation
    conn.fd = fd
    conn.app = app
    conn.flags = UNWATCHED
    conn.low_water_bytes = kernel.low_water_bytes
    conn.unsent_low_water_bytes = kernel.unsent_low_water_bytes
    return conn


cdef uint64_t token_of(const kernel_conn_t *conn) noexcept nogil:
    return <uint64_t>conn.generation << 32 | conn.index


cdef kernel_conn_t *conn_named(kernel_t *kernel, uint64_t token) noexcept nogil:
    cdef uint32_t index = <uint32_t>token
    if index >= kernel.generations_capacity or kernel.generations[index] != token >> 32:
        return NULL
    return conn_at(kernel, index)


cdef void conn_end(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if not conn.flags & UNWATCHED and kernel.readiness.ops.close != NULL:
        kernel.readiness.ops.close(kernel.readiness, conn.fd)
    else:
        if not conn.flags & UNWATCHED and (conn.held.first or not kernel.readiness.ops.forgets_closed):
            kernel.readiness.ops.remove(kernel.readiness, conn.fd)
        if conn.held.first == 0 or not zerocopy_part(kernel, conn):
            close_descriptor(conn.fd)
    conn.fd = -1
    while conn.pieces.first:
        queue_drop(kernel, conn, piece_at(kernel, conn.pieces.first).length)
    unread_drop(kernel, conn, unread_of(conn))
    if conn.timer != TIMER_NONE:
        wheel_cancel(&kernel.wheel, conn.timer)
        conn.timer = TIMER_NONE
    conn.generation = 0
    kernel.generations[conn.index] = 0
    conn_release(kernel, conn)


cdef void conn_release(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """The record of one that has ended goes when it is on no list any more."""
    if not conn.flags & (IN_WORK | IN_OUT):
        conn.flags = 0
        slab_release(&kernel.conns, conn.index)


# ---------------------------------------------------------------- lists

cdef inline uint32_t *work_link(const void *kernel, uint32_t index) noexcept nogil:
    return &conn_at(<const kernel_t *>kernel, index).work_next


cdef inline uint32_t *out_link(const void *kernel, uint32_t index) noexcept nogil:
    return &conn_at(<const kernel_t *>kernel, index).out_next


cdef void work_add(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if conn.flags & (IN_WORK | ENDED):
        return
    conn.flags |= IN_WORK
    iqueue_append(&kernel.work, work_link, kernel, conn.index)


cdef void out_add(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if conn.flags & (IN_OUT | ENDED):
        return
    conn.flags |= IN_OUT
    iqueue_append(&kernel.out, out_link, kernel, conn.index)


cdef kernel_conn_t *work_take(kernel_t *kernel) noexcept nogil:
    cdef kernel_conn_t *conn
    while kernel.work.first:
        conn = conn_at(kernel, iqueue_take(&kernel.work, work_link, kernel))
        conn.flags &= ~<uint32_t>IN_WORK
        if conn.generation != 0:
            return conn
        conn_release(kernel, conn)
    return NULL


cdef kernel_conn_t *out_take(kernel_t *kernel) noexcept nogil:
    cdef kernel_conn_t *conn
    while kernel.out.first:
        conn = conn_at(kernel, iqueue_take(&kernel.out, out_link, kernel))
        conn.flags &= ~<uint32_t>IN_OUT
        if conn.generation != 0:
            return conn
        conn_release(kernel, conn)
    return NULL


# ---------------------------------------------------------------- what waits to be sent

cdef int queue_append(kernel_t *kernel, kernel_conn_t *conn, lent_t *lent, uint64_t offset,
                      uint64_t length) noexcept nogil:
    cdef piece_t *last = piece_at(kernel, conn.pieces.last) if conn.pieces.last else NULL
    cdef piece_t *piece
    cdef uint32_t index
    conn.queued_bytes += <uint32_t>length
    if last != NULL and last.lent == lent and last.data + last.length == lent.data + offset:
        last.length += length
        return 0
    index = slab_alloc(&kernel.pieces)
    if index == 0:
        conn.queued_bytes -= <uint32_t>length
        return -1
    piece = piece_at(kernel, index)
    piece.lent = lent_ref(lent)
    piece.data = lent.data + offset
    piece.length = length
    iqueue_append(&conn.pieces, piece_link, kernel, index)
    return 0


cdef void queue_drop(kernel_t *kernel, kernel_conn_t *conn, uint64_t length) noexcept nogil:
    cdef uint32_t index
    conn.queued_bytes -= <uint32_t>length
    index = piece_take(kernel, conn, &length)
    while index:
        lent_unref(piece_at(kernel, index).lent)
        slab_release(&kernel.pieces, index)
        index = piece_take(kernel, conn, &length)


cdef piece_t *queue_first(kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil:
    return piece_at(kernel, conn.pieces.first)


cdef uint32_t queue_vector(kernel_t *kernel, const kernel_conn_t *conn, iovec *vector, lent_t **lent,
                           size_t *offered) noexcept nogil:
    cdef uint32_t at = conn.pieces.first, count = 0
    cdef piece_t *piece
    offered[0] = 0
    while at and count < <uint32_t>VECTOR_MOST and offered[0] < <size_t>SEND_MOST:
        piece = piece_at(kernel, at)
        if piece.lent.damaged or (kernel.files.by_descriptor and lent_descriptor(piece.lent) >= 0):
            break
        vector[count].iov_base = <void *>piece.data
        vector[count].iov_len = min(piece.length, <uint64_t>SEND_MOST - offered[0])
        if lent != NULL:
            lent[count] = piece.lent
        offered[0] += vector[count].iov_len
        count += 1
        at = piece.next
    return count


# ---------------------------------------------------------------- what has come

cdef int unread_keep(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, uint32_t length) noexcept nogil:
    if unread_reserve(kernel, conn, length) < 0:
        return -1
    memcpy(conn.unread + conn.end, data, length)
    conn.end += length
    return 0


cdef int unread_reserve(kernel_t *kernel, kernel_conn_t *conn, uint32_t length) noexcept nogil:
    unread_to_front(conn)
    if length > RECEIVE_BYTES - conn.end:   # nobody reads on while something is left
        return -1
    return unread_resize(kernel, conn, conn.end + length) if length > conn.unread_capacity - conn.end else 0


cdef inline void unread_to_front(kernel_conn_t *conn) noexcept nogil:
    if conn.start > 0:
        memmove(conn.unread, conn.unread + conn.start, unread_of(conn))
        conn.end -= conn.start
        conn.start = 0


cdef int unread_resize(kernel_t *kernel, kernel_conn_t *conn, uint32_t length) noexcept nogil:
    cdef uint32_t wanted = (length + UNREAD_STEP_BYTES - 1) & ~<uint32_t>(UNREAD_STEP_BYTES - 1)
    cdef void *resized
    if wanted > conn.unread_capacity and wanted - conn.unread_capacity > kernel.max_unread_bytes - kernel.unread_bytes:
        return -1
    resized = realloc(conn.unread, wanted)
    if resized == NULL:
        return -1
    kernel.unread_bytes = kernel.unread_bytes + wanted - conn.unread_capacity
    conn.unread = <uint8_t *>resized
    conn.unread_capacity = wanted
    return 0


cdef void unread_drop(kernel_t *kernel, kernel_conn_t *conn, uint32_t length) noexcept nogil:
    """The room that a small rest does not need is given back: it counts against the bound of all."""
    conn.start += length
    if conn.unread == NULL:
        return
    if conn.start == conn.end:
        free(conn.unread)
        conn.unread = NULL
        kernel.unread_bytes -= conn.unread_capacity
        conn.start = conn.end = conn.unread_capacity = 0
    elif conn.unread_capacity - unread_of(conn) >= conn.unread_capacity // 2 + UNREAD_STEP_BYTES:
        unread_to_front(conn)
        unread_resize(kernel, conn, conn.end)


# ---------------------------------------------------------------- what the strategy is asked

cdef int interest_sync(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef uint32_t wanted = 0
    cdef int failed
    cdef bint more
    if conn.flags & CONNECTING:
        wanted = READY_OUT
    else:
        if not conn.flags & (PAUSED | PEER_FIN | ABORT):
            wanted = READY_IN
        if conn.flags & UNWRITABLE and conn.queued_bytes and kernel.readiness.ops.send == NULL:
            wanted |= READY_OUT
    if kernel.readiness.ops.edge:
        wanted = READY_IN | READY_OUT
    if wanted == conn.interest or conn.flags & UNWATCHED:
        return 0
    more = wanted & ~conn.interest != 0
    conn.interest = wanted
    tally(kernel, INTERESTS_CHANGED)
    failed = kernel.readiness.ops.modify(kernel.readiness, conn.fd, token_of(conn), wanted)
    return failed if failed < 0 else more


cdef int watch(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef int failed
    if kernel.readiness.ops.serves != SERVES_ALL:
        return kernel.serve_alone(kernel, conn)
    failed = kernel.readiness.ops.add(kernel.readiness, conn.fd, token_of(conn), conn.interest)
    if failed == 0:
        conn.flags &= ~<uint32_t>UNWATCHED
    return failed


cdef void watch_no_more(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    if not conn.flags & UNWATCHED:
        conn.flags |= UNWATCHED
        kernel.readiness.ops.remove(kernel.readiness, conn.fd)


# ---------------------------------------------------------------- time

cdef int timeout_sync(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    """A later time moves no timer: the one that is there finds nothing due, and is set again then (turns)."""
    if conn.timeout_at_ns == 0:
        return 0
    if conn.timer == TIMER_NONE:
        conn.timer = wheel_arm(&kernel.wheel, conn.timeout_at_ns, 0, conn.index)
        return 0 if conn.timer != TIMER_NONE else -1
    if tick_before(wheel_tick_of(&kernel.wheel, conn.timeout_at_ns), wheel_deadline_tick(&kernel.wheel, conn.timer)):
        wheel_move(&kernel.wheel, conn.timer, conn.timeout_at_ns)
    return 0

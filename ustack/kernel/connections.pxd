# SPDX-License-Identifier: MIT
# The life of a connection's record: made, on which lists, what it holds, what the strategy is asked about it.
#
# It must not: make upcalls, or decide what an event means. Above: accepting, downcalls, sockets, turns.
# Below: records, readiness, buf.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.application cimport application_t
from ustack.base.posix cimport iovec
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_at
from ustack.kernel.records cimport kernel_conn_t, kernel_t, piece_t

# A record for a descriptor, which is the record's from now on. NULL without memory: the descriptor stays the caller's.
cdef kernel_conn_t *conn_new(kernel_t *kernel, int fd, application_t *app) noexcept nogil
# Everything but the record itself, which goes when no list has it any more: the descriptor is closed, lent ranges and
# unread bytes are given back.
cdef void conn_end(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# Whom a token names; NULL: it has ended since.
cdef kernel_conn_t *conn_named(kernel_t *kernel, uint64_t token) noexcept nogil
cdef uint64_t token_of(const kernel_conn_t *conn) noexcept nogil

# Have the next turn look at it: upcalls (work), or output and the end (out). Taking one off gives NULL at the end, and
# frees the records of those that have ended.
cdef void work_add(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
cdef kernel_conn_t *work_take(kernel_t *kernel) noexcept nogil
cdef void out_add(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
cdef kernel_conn_t *out_take(kernel_t *kernel) noexcept nogil

# Queue a lent range. -1: without memory.
cdef int queue_append(kernel_t *kernel, kernel_conn_t *conn, lent_t *lent, uint64_t offset,
                      uint64_t length) noexcept nogil
# The kernel has taken so many bytes: references are given back.
cdef void queue_drop(kernel_t *kernel, kernel_conn_t *conn, uint64_t length) noexcept nogil

# Room for so many bytes behind those that wait. -1: without memory, or beyond the bound of all.
cdef int unread_reserve(kernel_t *kernel, kernel_conn_t *conn, uint32_t length) noexcept nogil
# Keep a copy of what on_data has left. -1: as unread_reserve.
cdef int unread_keep(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, uint32_t length) noexcept nogil
# So many of them are consumed.
cdef void unread_drop(kernel_t *kernel, kernel_conn_t *conn, uint32_t length) noexcept nogil

# Ask the strategy for what this connection waits for now. 1 if that is something new, 0, or a negative errno.
cdef int interest_sync(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# Have the strategy watch it, or somebody serve it. 0, or an errno of either sign.
cdef int watch(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# The strategy has nothing new to tell about it, but would tell the old again and again.
cdef void watch_no_more(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil

# Its timeout is conn.timeout_at_ns now. -1: without memory.
cdef int timeout_sync(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil


# What one system call is offered of the send queue: how many ranges, up to VECTOR_MOST of SEND_MOST bytes. It ends
# before one that is damaged, or that goes by its descriptor. lent: the same ranges' owners; may be NULL.
cdef uint32_t queue_vector(kernel_t *kernel, const kernel_conn_t *conn, iovec *vector, lent_t **lent,
                           size_t *offered) noexcept nogil
cdef piece_t *queue_first(kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil


# The connection with this index, from 0 to kernel.generations_capacity; NULL: there is none.
cdef inline kernel_conn_t *conn_living(const kernel_t *kernel, uint32_t index) noexcept nogil:
    return <kernel_conn_t *>slab_at(&kernel.conns, index) if kernel.generations[index] else NULL


cdef inline uint32_t unread_of(const kernel_conn_t *conn) noexcept nogil:
    return conn.end - conn.start

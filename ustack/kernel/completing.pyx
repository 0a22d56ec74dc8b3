# SPDX-License-Identifier: MIT
"""Output over a strategy that completes. See completing.pxd.

Bytes stay in the connection's queue until their send is over: they count as queued, and what comes behind them (more
bytes, the FIN) waits. The strategy has references of its own to what it was lent: the connection may end meanwhile.
"""

from libc.errno cimport EAGAIN, EFAULT
from libc.stdint cimport uint32_t, uint64_t

from ustack.base.posix cimport iovec
from ustack.buf.lent cimport lent_t
from ustack.kernel.connections cimport queue_drop, queue_vector
from ustack.kernel.counters cimport BYTES_SENT, DAMAGED_ABORTED, SENDS, SENDS_SHORT
from ustack.kernel.records cimport SEND_UNITS, UNWRITABLE, VECTOR_MOST, kernel_conn_t, kernel_t, tally


cdef int completing_flush(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef bint whole = True
    cdef ssize_t taken = kernel.readiness.ops.sent(kernel.readiness, conn.fd, &whole)
    if taken == -EAGAIN:
        conn.flags |= UNWRITABLE
        return 0
    if taken < 0:
        if taken == -EFAULT:    # the file behind a mapping has been cut short: there is nothing to send
            tally(kernel, DAMAGED_ABORTED)
        return <int>taken
    if taken > 0:
        kernel.counters[<int>BYTES_SENT] += <uint64_t>taken
        kernel.budget.stage_left -= <int>(taken >> 10)
        queue_drop(kernel, conn, <uint64_t>taken)
        if not whole:
            tally(kernel, SENDS_SHORT)
    return send_next(kernel, conn) if conn.pieces.first else 0


cdef int send_next(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef iovec vector[VECTOR_MOST]
    cdef lent_t *lent[VECTOR_MOST]
    cdef size_t offered
    cdef uint32_t count = queue_vector(kernel, conn, vector, lent, &offered)
    if count == 0:                  # made-up bytes (lent_t): never sent
        tally(kernel, DAMAGED_ABORTED)
        return -EFAULT
    tally(kernel, SENDS)
    kernel.budget.stage_left -= SEND_UNITS
    conn.flags |= UNWRITABLE
    return kernel.readiness.ops.send(kernel.readiness, conn.fd, vector, lent, count)

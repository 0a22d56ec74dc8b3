# SPDX-License-Identifier: MIT
# Sends without a copy (MSG_ZEROCOPY): what was lent is kept until the kernel says that it has it no more.
#
#     sendmsg ─▶ its ranges move from the send queue to the list of those that are held, with the number of the send
#     ◀─ error queue: sends lo to hi are over (READY_ERROR) ─▶ zerocopy_reap gives their references back
#
# A connection may end before all are over, and who closes a socket never hears of them: its bytes would be sent again
# from memory that is somebody else's by then. So the socket stays open for as long (an orphan): its FIN is sent, or it
# is reset without being closed, and it is looked at every ORPHANS_LOOK_NS, with ORPHANS_AT_ONCE others. It is reset
# when its peer has acknowledged nothing for ORPHAN_NS: one send, of a megabyte, can take a slow reader minutes.
#
# Above: connections (the end), sockets, turns, life. Below: records. Read first: msg_zerocopy.rst of the kernel.

from libc.stdint cimport uint32_t, uint64_t

from ustack.kernel.records cimport kernel_conn_t, kernel_t

cdef enum:
    ZEROCOPY_FROM = 16384               # bytes in a send: below, pages cost more than a copy
    ORPHANS_LOOK_NS = 10000000
    ORPHANS_AT_ONCE = 256

# A record that zerocopy_hold may need, before the send; 0: without memory.
cdef uint32_t zerocopy_spare(kernel_t *kernel) noexcept nogil
# The kernel has taken so many bytes of the queue without copying them. spare is used, or given back.
cdef void zerocopy_hold(kernel_t *kernel, kernel_conn_t *conn, uint64_t length, uint32_t spare) noexcept nogil
cdef void zerocopy_release(kernel_t *kernel, uint32_t spare) noexcept nogil
# What the error queue says is over. How many sends were.
cdef uint32_t zerocopy_reap(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# At the connection's end: True if something is held yet, and the descriptor has gone over to the orphans.
cdef bint zerocopy_part(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# How many orphans had their last send end.
cdef uint32_t orphans_look(kernel_t *kernel) noexcept nogil
# The transport goes: reset them, and wait for a while. What is not over then is kept for good.
cdef void orphans_end(kernel_t *kernel) noexcept nogil


# How long a wait may be.
cdef inline uint64_t orphans_timeout(const kernel_t *kernel, uint64_t timeout_ns) noexcept nogil:
    return min(timeout_ns, <uint64_t>ORPHANS_LOOK_NS) if kernel.orphan_count else timeout_ns

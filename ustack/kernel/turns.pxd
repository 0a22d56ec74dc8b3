# SPDX-License-Identifier: MIT
# One turn of a transport over the kernel's sockets.
#
#     kernel_wait   the strategy says who is ready; asks for a while (spin), then sleeps, if it may
#     kernel_turn   timeouts ─▶ for each connection with work: read, upcalls ─▶ accept ─▶ hand-over
#                   ─▶ for each with output: sendmsg, the end, what the strategy is asked next
#
# A turn does a bounded amount of work, counted in units of about 100 ns (application.pxd, turn_spent). What it does not
# pay for stays on the lists, and the next turn comes without a sleep. Who is established comes before who wants in: a
# listener gets what they have left of the turn, and a small share in any case.
#
# Above: transport, the face. Below: accepting, upcalls, connections, sockets.

from libc.stdint cimport uint32_t, uint64_t

from ustack.kernel.records cimport kernel_conn_t, kernel_t

# At most this long; not at all if something is left to do. Before a turn.
cdef void kernel_wait(kernel_t *kernel, uint64_t timeout_ns) noexcept nogil
# How much has happened: 0 if nothing was to be done.
cdef uint32_t kernel_turn(kernel_t *kernel, uint64_t now_ns) noexcept nogil
# The second half alone: what downcalls have left behind.
cdef void kernel_flush(kernel_t *kernel, uint64_t now_ns) noexcept nogil
# What turns have asked of a strategy that completes: before a pause in which nobody waits.
cdef void kernel_submit(kernel_t *kernel) noexcept nogil
# A time at or before the first timeout; UINT64_MAX: none. 0: something is left to do.
cdef uint64_t kernel_next_deadline(kernel_t *kernel) noexcept nogil
# Turns with sleep between them, until until_ns or until somebody sets *come_up.
cdef void kernel_run(kernel_t *kernel, uint64_t until_ns, const bint *come_up) noexcept nogil
# For who has a connection to himself (alone): a new budget; what the kernel takes of the send queue; has it ended?
cdef uint32_t kernel_expire(kernel_t *kernel) noexcept nogil     # timeouts
cdef void turn_begin(kernel_t *kernel) noexcept nogil
cdef bint kernel_depart(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
cdef bint kernel_finish(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# With a manual clock: until every thread that has a connection to itself sleeps. How many turns they had.
cdef uint32_t kernel_settle(kernel_t *kernel) noexcept nogil
# End up to `most` connections with a RST: the transport goes. False: none is left.
cdef bint kernel_end_some(kernel_t *kernel, uint32_t most, uint64_t now_ns) noexcept nogil

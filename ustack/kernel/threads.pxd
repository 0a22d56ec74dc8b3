# SPDX-License-Identifier: MIT
# Readiness by a thread for each connection: it sleeps in recv, and nobody is told anything. Body: threads.pyx.
#
# The first thread, which is in run() or poll(), waits for listeners alone (poll), accepts, and watches over timeouts.
# How many threads there can be is bounded: see threads_most. What is locked, and what is not: alone.pxd.
#
# Above: turns, alone, transport. Below: connections, records, polling.

from libc.stdint cimport uint32_t, uint64_t

from ustack.kernel.readiness cimport readiness_ops_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t

cdef const readiness_ops_t *thread_ops() noexcept nogil

# The lock is held by the caller from here on. 0, or a negative errno.
cdef int threads_begin(kernel_t *kernel) noexcept nogil
# After the last thread has gone.
cdef void threads_end(kernel_t *kernel) noexcept nogil
# A thread that calls `run` with the kernel_t and the connection's token. 0, or an errno.
cdef int thread_start(kernel_t *kernel, kernel_conn_t *conn,
                      void (*run)(kernel_t *kernel, uint64_t token) noexcept nogil) noexcept nogil
# The calling thread is one that serves a connection.
cdef bint in_own_thread() noexcept nogil
# Whoever is on a list is due for a turn: its thread is woken, unless it is `own`, the caller's. How many.
cdef uint32_t distribute(kernel_t *kernel, const kernel_conn_t *own) noexcept nogil
# Signals may come between a look at a flag and the sleep: those that have not come to their turn get another one.
cdef void kick_again(kernel_t *kernel) noexcept nogil
# Let others have the lock. Whoever takes it back at once has it before a thread that waits for it has woken up.
cdef void give_way(kernel_t *kernel) noexcept nogil
# Every thread sleeps, and nothing has come that would wake it.
cdef bint all_sleep(kernel_t *kernel) noexcept nogil
# Wait until no thread is left; each has been told to end. Takes the lock and gives it back while it waits.
cdef void threads_join(kernel_t *kernel) noexcept nogil
# What the first thread was woken with.
cdef void wake_drain(kernel_t *kernel) noexcept nogil
# How many threads this process can have, or processes of one thread, and what bounds it ("threads-max", ...).
cdef tuple threads_most(bint processes)

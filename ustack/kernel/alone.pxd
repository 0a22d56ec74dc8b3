# SPDX-License-Identifier: MIT
# A connection that somebody has to himself: a thread (threads.pyx) or a process (processes.pyx) that reads, tells,
# writes and sleeps, and does nothing else.
#
#     serve_alone   lock ─▶ turn: upcalls, hand-over, sendmsg, the end ─▶ sleep in recv ─▶ lock ...
#
# With threads, everything in the kernel_t and everything that the application has (its table of files, its counters,
# what is lent) is touched with the kernel_t's lock held, and so by one thread at a time. Nobody holds it while he
# sleeps, receives into a buffer of his own, or is inside sendmsg: there, the ranges lie in a vector on the thread's
# stack, and nobody else drops them. Only a connection's own thread reads, writes or ends it: others note on its record
# what they want, put it on a list, and distribute() sends the thread a signal. The lock comes before the GIL: who has
# the GIL gives it up to take the lock. In a process there is nobody else, and no lock.
#
# Above: transport, threads, processes. Below: turns, upcalls, connections.

from libc.stdint cimport uint64_t

from ustack.kernel.records cimport kernel_t

# The connection that this token names, to its end. Called and returns without the lock.
cdef void serve_alone(kernel_t *kernel, uint64_t token) noexcept nogil
# The same in a child, whose end it is.
cdef void serve_child(kernel_t *kernel, uint64_t token) noexcept nogil

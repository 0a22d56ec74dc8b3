# SPDX-License-Identifier: MIT
# Readiness by a process for each connection: the parent accepts and forks, the child serves one client with blocking
# calls (alone.pxd) and ends. Body: processes.pyx.
#
# In the parent a connection's record has the child's pidfd in place of the socket, which the parent has closed: epoll
# tells when the child has ended, and it is reaped. So max_connections bounds the children. A child that has ended has
# added its counters to a page that all share; those of children that live are missing. A child's timeouts are a timer
# of the process (setitimer), whose signal ends a system call that sleeps.
#
# Above: life, accepting, turns, transport. Below: connections, records, epoll, threads (how many there can be).

from libc.stdint cimport uint64_t

from ustack.kernel.readiness cimport readiness_ops_t
from ustack.kernel.records cimport kernel_conn_t, kernel_t

cdef const readiness_ops_t *process_ops() noexcept nogil

# The shared page. 0, or a negative errno.
cdef int processes_begin(kernel_t *kernel) noexcept nogil
cdef void processes_end(kernel_t *kernel) noexcept nogil
# Fork. 0 twice: in the parent with conn.pid set, in the child with kernel.in_child set. Or an errno.
cdef int serve_in_process(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# The child's counters are added to the page, and it is no more.
cdef void child_end(kernel_t *kernel) noexcept nogil
# The timer that ends the child's next sleep when a timeout is due.
cdef void child_alarm(kernel_t *kernel) noexcept nogil
# It has been told to end (SIGTERM), and is asked for the first time since.
cdef bint child_told() noexcept nogil
# In the parent: this child has ended.
cdef void child_reap(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil
# In the parent: SIGTERM to every child, or SIGKILL.
cdef void children_signal(kernel_t *kernel, int number) noexcept nogil
# What children that have ended have counted.
cdef const uint64_t *children_counters(const kernel_t *kernel) noexcept nogil

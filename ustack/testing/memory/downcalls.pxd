# SPDX-License-Identifier: MIT
# What applications call of a transport in memory (transport_t of application.pxd). Bodies: downcalls.pyx.

from libc.stdint cimport uint16_t

from ustack.application cimport transport_t
from ustack.testing.memory.records cimport memory_listener_t, memory_t

# Fill the table.
cdef void downcalls_fill(transport_t *table) noexcept
# ... with files that are read while others go on.
cdef void files_fill(transport_t *table) noexcept
# Who listens at this port; NULL: nobody.
cdef memory_listener_t *listener_of(memory_t *memory, uint16_t port) noexcept nogil

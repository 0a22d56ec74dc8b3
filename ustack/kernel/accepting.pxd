# SPDX-License-Identifier: MIT
# Who wants in: connections taken from a listening socket, and what is done when there is no room. Body: accepting.pyx.
#
# Above: turns. Below: upcalls, connections, sockets. Read first: accept(2), its paragraph about errors.

from libc.stdint cimport uint32_t

from ustack.kernel.records cimport kernel_t, listener_t

# Accept what is there, as far as the turn pays for. How many; listener.ready stays set where more may be there.
cdef uint32_t accept_some(kernel_t *kernel, uint32_t number) noexcept nogil
# Listeners that were held, because their backlog or this transport was full, are asked about again where there is room.
cdef void listeners_release(kernel_t *kernel) noexcept nogil

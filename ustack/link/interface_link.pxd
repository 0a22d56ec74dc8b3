# SPDX-License-Identifier: MIT
# What a link to an interface of the kernel's shares with others of its kind: arguments, opening, closing. Body:
# interface_link.pyx. Subclasses: packet_mmap, tap.

from libc.stdint cimport uint32_t

from ustack.link.device cimport Link, link_ops_t
from ustack.link.interface cimport interface_t


cdef class InterfaceLink(Link):
    cdef readonly str ifname                 # None until it has been opened
    cdef bint own_mac                        # the station address follows from the interface's
    # First, in __init__: check what every such link takes and note it in `c`. Returns the name as the kernel wants it.
    cdef bytes accept(self, str ifname, object busy_poll, object mac)
    # Last, in __init__: the device is open. max_frame: the longest frame that tx_reserve is to give room for.
    cdef void begin(self, const link_ops_t *ops, void *impl, str ifname, const interface_t *interface,
                    uint32_t max_frame) noexcept
    # The two halves of close(), for subclasses. settle: the operations still work, and Python may run. close_device:
    # nothing of the link leads to the device any more; give it back.
    cdef int settle(self) except -1
    cdef void close_device(self) noexcept

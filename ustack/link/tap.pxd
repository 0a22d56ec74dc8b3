# SPDX-License-Identifier: MIT
# A TAP device as a link. Body: tap.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.link.device cimport Link
from ustack.link.interface cimport interface_t, spin_t

ctypedef struct tap_t:
    int fd
    uint8_t *buffers                 # TAP_BUFFERS receive buffers, then the transmit buffer
    uint32_t rx_next                 # buffer of the next read
    uint32_t rx_lent                 # buffers before it that are lent
    int tx_error                     # errno of a write since the last submit that says the device is down or gone
    uint8_t tx_reserved
    uint8_t gone                     # the interface has been removed
    spin_t spin


cdef class TapLink(Link):
    cdef tap_t *tap
    cdef readonly str ifname
    cdef void describe(self, const interface_t *interface, bint own_mac) noexcept

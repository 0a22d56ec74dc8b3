# SPDX-License-Identifier: MIT
# A TAP device as a link. Body: tap.pyx.

from libc.stdint cimport uint8_t, uint32_t

from ustack.link.interface cimport spin_t
from ustack.link.interface_link cimport InterfaceLink

ctypedef struct tap_t:
    int fd
    uint8_t *buffers                 # TAP_BUFFERS receive buffers, then the transmit buffer
    uint32_t rx_next                 # buffer of the next read
    uint32_t rx_lent                 # buffers before it that are lent
    int tx_error                     # errno of a write since the last submit that says the device is down or gone
    uint8_t tx_reserved
    uint8_t gone                     # the interface has been removed
    spin_t spin


cdef class TapLink(InterfaceLink):
    cdef tap_t *tap

# SPDX-License-Identifier: MIT
"""A link to an interface of the kernel's: the shape in which packet_mmap and tap open and close.

    accept()  check arguments  ──▶  the subclass opens its device  ──▶  begin()  the operations work
    close()   settle()  ──▶  the operations do nothing (closed)  ──▶  close_device()

It must not know what the device is. Below: interface (questions to the kernel), closed, device.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, link_ops_t
from ustack.link.interface cimport interface_name, interface_t, parse_busy_poll, parse_mac
from ustack.link.packet_abi cimport ETH_HLEN


cdef class InterfaceLink(Link):
    """Base class of the links to an interface of the kernel's. Not useful by itself: see packet_mmap and tap."""

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    cdef bytes accept(self, str ifname, object busy_poll, object mac):
        name = interface_name(ifname)
        if self.ifname is not None:
            raise ValueError("a link is opened once")
        self.c.spin_ns = parse_busy_poll(busy_poll)
        self.own_mac = mac is None
        if mac is not None:
            parse_mac(mac, self.c.mac)
        return name

    cdef void begin(self, const link_ops_t *ops, void *impl, str ifname, const interface_t *interface,
                    uint32_t max_frame) noexcept:
        self.ifname = ifname
        if self.own_mac:
            memcpy(self.c.mac, interface.mac, 6)
        self.c.caps.mtu = min(interface.mtu, max_frame - ETH_HLEN)
        self.c.caps.max_frame = max_frame
        self.c.caps.tx_checksum = True
        self.c.caps.tx_segmentation = True
        self.c.caps.rx_checksum = True
        self.c.impl = impl
        self.c.ops = ops
        self.warns = True

    cpdef void close(self) except *:
        """Give the device back; one that this link made goes away. Frames still lent are gone."""
        cdef bint entered
        if self.closed:
            return
        entered = self.gate.enter_to_close()
        try:
            self.closed = True
            self.settle()
            self.c.ops = closed_link_ops()
            self.c.impl = NULL
            self.close_device()
        finally:
            self.gate.leave_closed(entered)

    cdef int settle(self) except -1:
        return 0

    cdef void close_device(self) noexcept:
        pass

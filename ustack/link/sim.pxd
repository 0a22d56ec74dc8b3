# SPDX-License-Identifier: MIT
# Two links joined by a simulated wire (simwire.pxd). Bodies: sim.pyx.

from ustack.link.device cimport Link
from ustack.link.simwire cimport SimWire, sim_end_t


cdef class SimLink(Link):
    cdef SimWire wire
    cdef sim_end_t *end
    cdef void require_open(self) except *
    cdef void take_frame(self, object frame, int checksum, int gso_size, int wire_length) except *


cdef class SimNetwork:
    cdef SimWire wire
    cdef readonly SimLink a
    cdef readonly SimLink b

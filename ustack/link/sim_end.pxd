# SPDX-License-Identifier: MIT
# One end of a simulated wire (simwire.pxd) as a link. Body: sim_end.pyx.

from ustack.link.device cimport Link
from ustack.link.simwire cimport SimWire, sim_end_t


cdef class SimLink(Link):
    cdef SimWire wire
    cdef sim_end_t *end
    cdef void require_open(self) except *
    cdef void take_frame(self, object frame, int checksum, int gso_size, int wire_length) except *

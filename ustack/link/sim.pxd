# SPDX-License-Identifier: MIT
# Two links (sim_end.pxd) joined by a simulated wire (simwire.pxd). Body: sim.pyx.

from ustack.link.sim_end cimport SimLink
from ustack.link.simwire cimport SimWire


cdef class SimNetwork:
    cdef SimWire wire
    cdef readonly SimLink a
    cdef readonly SimLink b

# SPDX-License-Identifier: MIT
"""Names of what a transport over the kernel's sockets counts, made from the enum in counters.pxd."""

from libc.stdint cimport uint64_t


cdef dict kernel_counters_as_dict(const uint64_t *values):
    """Every counter by name, in lower case."""
    return {member.name.lower(): values[<int>member] for member in kernel_counter_t
            if member.name != "KERNEL_COUNTERS"}

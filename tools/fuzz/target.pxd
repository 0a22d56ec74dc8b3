# SPDX-License-Identifier: MIT
# What is fuzzed, and how libFuzzer gets hold of it.
#
# A target is one class on Target. It has the GIL from beginning to end: nothing else runs in this process. Each input
# begins with everything new (a stack of its own, a clock that starts over), so that an input alone brings a finding
# back.
#
# Above: __main__, tests/fuzz. Below: nothing.

from libc.stdint cimport uint8_t


cdef class Target:
    # One input. Raises AssertionError for what must not be; whatever else it raises is a finding as well.
    cdef int run(self, const uint8_t *data, size_t size) except -1

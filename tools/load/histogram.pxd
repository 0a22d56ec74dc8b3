# SPDX-License-Identifier: MIT
# A high dynamic range histogram, counted without the GIL: times in ns from 1 ns to an hour, to three figures.
#
# The counts lie as in the package `hdrhistogram` for HdrHistogram(1, HIGHEST_NS, 3), which reads them, merges them and
# gives percentiles (summary). The layout: values below 2,048 have a count each; above, each doubling of the value
# has 1,024 counts, so that no count spans more than a thousandth of its value.
#
#     value      0 .. 2,047        2,048 .. 4,095         4,096 .. 8,191
#     counts     0 .. 2,047        2,048 .. 3,071         3,072 .. 4,095
#     each spans 1                 2                      4
#
# Below: nothing. Above: client.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    HALF_SHIFT = 10                         # log2 of the counts for one doubling
    LINEAR_MASK = (1 << (HALF_SHIFT + 1)) - 1
    DOUBLINGS = 32                          # 2,048 << 31 is more than an hour
    HISTOGRAM_COUNTS = (DOUBLINGS + 1) << HALF_SHIFT

cdef extern from *:
    int leading_zeros "__builtin_clzll"(uint64_t value) nogil

ctypedef struct histogram_t:
    uint64_t counts[HISTOGRAM_COUNTS]
    uint64_t total
    uint64_t beyond                         # of them longer than the last count says, and counted there


cdef inline void histogram_record(histogram_t *histogram, uint64_t value) noexcept nogil:
    cdef uint32_t doubling = 63 - leading_zeros(value | LINEAR_MASK) - HALF_SHIFT
    cdef uint64_t index = (<uint64_t>doubling << HALF_SHIFT) + (value >> doubling)
    if index >= HISTOGRAM_COUNTS:
        index = HISTOGRAM_COUNTS - 1
        histogram.beyond += 1
    histogram.counts[index] += 1
    histogram.total += 1


# The Python face: owner of one.
cdef class Histogram:
    cdef histogram_t *c

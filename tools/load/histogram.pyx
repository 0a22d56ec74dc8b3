# SPDX-License-Identifier: MIT
"""The Python face of a histogram that is counted without the GIL. See histogram.pxd; `summary` gives percentiles."""

from libc.stdint cimport UINT64_MAX, uint64_t
from libc.stdlib cimport calloc, free

from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport bytes_from

LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000
SIGNIFICANT_FIGURES = 3


cdef class Histogram:
    """Histogram()
--

    Times in ns, as HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_FIGURES) of the package hdrhistogram counts them."""

    def __cinit__(self) -> None:
        self.c = <histogram_t *>calloc(1, sizeof(histogram_t))
        if self.c == NULL:
            raise MemoryError

    def __dealloc__(self) -> None:
        free(self.c)

    def record(self, value: int) -> None:
        """Count one time. Raises ValueError for what is none."""
        histogram_record(self.c, <uint64_t>whole("value", value, 0, UINT64_MAX))

    def counts(self) -> bytes:
        """A copy of the counts: 64-bit numbers in the machine's order."""
        return bytes_from(<const unsigned char *>self.c.counts, sizeof(self.c.counts))

    @property
    def total(self) -> int:
        """How many times are in it."""
        return self.c.total

    @property
    def beyond(self) -> int:
        """How many of them were longer than it can tell."""
        return self.c.beyond

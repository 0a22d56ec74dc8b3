# SPDX-License-Identifier: MIT
"""Pacing with plain numbers (tcp/recovery/pacing.pxd). Above: tests. Below: tcp/recovery."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from ustack.tcp.records.flight cimport pacer_t
from ustack.tcp.recovery.pacing cimport (
    pacing_allows, pacing_quantum, pacing_rate_of_window, pacing_sent, pacing_set_rate, pacing_wait_ns)


def quantum(rate: int, smss: int, most: int) -> int:
    """Bytes for one frame."""
    return pacing_quantum(rate, smss, most)


def rate_of_window(cwnd: int, ssthresh: int, srtt_us: int) -> int:
    """Bytes per second, for a control that says none."""
    return pacing_rate_of_window(cwnd, ssthresh, srtt_us)


cdef class Pacer:
    """A connection's: smss, and most bytes in one frame."""

    cdef pacer_t pacer
    cdef uint32_t smss
    cdef uint32_t most

    def __init__(self, uint32_t smss, uint32_t most):
        memset(&self.pacer, 0, sizeof(self.pacer))
        self.smss = smss
        self.most = most

    def set_rate(self, uint64_t rate, uint64_t now_ns) -> None:
        """Bytes per second; 0: not paced."""
        pacing_set_rate(&self.pacer, now_ns, rate, self.smss, self.most)

    def allows(self, uint64_t now_ns) -> int:
        """Bytes that may go now."""
        return pacing_allows(&self.pacer, now_ns, self.smss, self.most)

    def wait_ns(self, uint64_t now_ns) -> int:
        """How long the next frame has to wait."""
        return pacing_wait_ns(&self.pacer, now_ns)

    def sent(self, uint32_t length, uint64_t now_ns) -> None:
        """A frame has gone."""
        pacing_sent(&self.pacer, now_ns, length, self.smss, self.most)

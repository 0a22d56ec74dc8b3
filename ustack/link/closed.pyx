# SPDX-License-Identifier: MIT
"""The operations of a link that is closed: receive gives no frame, transmit has no room, the rest says EBADF."""

from libc.errno cimport EBADF
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.buf.frame cimport frame_t
from ustack.link.device cimport link_ops_t, link_t, offload_t


cdef uint32_t closed_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    return 0


cdef void closed_rx_release(link_t *link, uint32_t n) noexcept nogil:
    return


cdef uint8_t *closed_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    return NULL


cdef void closed_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    return


cdef int closed_tx_submit(link_t *link) noexcept nogil:
    return -EBADF


cdef int closed_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    return -EBADF


cdef void closed_refresh_counters(link_t *link) noexcept nogil:
    return


cdef link_ops_t CLOSED_OPS
CLOSED_OPS.rx_burst = closed_rx_burst
CLOSED_OPS.rx_release = closed_rx_release
CLOSED_OPS.tx_reserve = closed_tx_reserve
CLOSED_OPS.tx_commit = closed_tx_commit
CLOSED_OPS.tx_submit = closed_tx_submit
CLOSED_OPS.wait = closed_wait
CLOSED_OPS.refresh_counters = closed_refresh_counters


cdef const link_ops_t *closed_link_ops() noexcept nogil:
    return &CLOSED_OPS

# SPDX-License-Identifier: MIT
"""The receive window. See window.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.rx_queue cimport rx_window_share


cdef uint32_t window_under_pressure(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint64_t share = rx_window_share(&tcp.rx)
    if share < 2 * <uint32_t>tcb.smss:
        share = 2 * <uint32_t>tcb.smss
    return <uint32_t>share if share < tcp.config.rcv_buffer_bytes else tcp.config.rcv_buffer_bytes

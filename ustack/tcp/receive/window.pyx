# SPDX-License-Identifier: MIT
"""The receive window. See window.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.rx_queue cimport rx_window_share


cdef uint32_t window_under_pressure(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t limit
    cdef uint64_t share = rx_window_share(&tcp.rx)
    if share < 2u * tcb.smss:
        share = 2u * tcb.smss
    limit = rcv_limit(tcp, tcb)
    return <uint32_t>share if share < limit else limit

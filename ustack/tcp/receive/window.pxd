# SPDX-License-Identifier: MIT
# The receive window: how much the peer may be told that it can send.
#
# It decides how far the right edge may move; output announces it. Read first: RFC 9293 section 3.8.6.2, RFC 7323
# section 2. Below: records. Above: output, ending.

from libc.stdint cimport int32_t, uint32_t

from ustack.tcp.records.rx_queue cimport rx_memory_short, rx_queue_t
from ustack.tcp.records.tcb cimport extra_at, rx_queue_of, tcb_t, tcp_t

# What the buffer is taken to be while memory is short.
cdef uint32_t window_under_pressure(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil


# Bytes that the connection may hold unread, as far as its window has grown (autotune).
cdef inline uint32_t rcv_limit(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef uint32_t limit
    if tcb.extra:
        limit = extra_at(tcp, tcb.extra).autotune.limit_bytes
        if limit:
            return limit
    return tcp.config.rcv_buffer_bytes


# Bytes the peer may be told it can send: never moves the right edge to the left (SHLD-14), nor by less than is
# worth an announcement (MUST-39). Less than 2^16 << rcv_wscale, and a multiple of 1 << rcv_wscale.
cdef inline uint32_t tcb_receive_window(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t queued = rx.queued_bytes if rx != NULL else 0
    cdef uint32_t buffer = rcv_limit(tcp, tcb)
    cdef uint32_t limit = buffer
    cdef uint32_t worth = buffer // 2
    cdef uint32_t advertised = tcb.rcv_adv - tcb.rcv_nxt
    cdef uint32_t unit = 1u << tcb.rcv_wscale
    cdef uint32_t scaled_max = <uint32_t>0xFFFF << tcb.rcv_wscale
    cdef uint32_t room, rounded
    if rx_memory_short(&tcp.rx):            # windows grow less, but never to less than what keeps a reader going
        limit = window_under_pressure(tcp, tcb)
    room = limit - queued if queued < limit else 0
    if room > scaled_max:
        room = scaled_max
    if <int32_t>advertised < 0:             # cannot be: what was accepted was inside
        advertised = 0
    if worth > tcb.smss:
        worth = tcb.smss
    # RFC 9293 section 3.8.6.2.2: the right edge moves by min(buffer/2, MSS) at least, or not at all.
    if room >= advertised + worth and room & ~(unit - 1) >= advertised:
        return room & ~(unit - 1)
    # The edge that was announced lies between two that the scaled field can say now. Both of RFC 7323 section 2.4's
    # ways out are bad: promise beyond the buffer, or move the edge to the left. Round up, as Linux does, while that
    # overdraws the buffer by an eighth at most. A bound there must be: a peer that sends less than a unit for each ACK
    # would never see the window close. Beyond it the edge is said to be less than a unit lower, and what lies up to
    # rcv_adv is accepted all the same, as that section asks (MUST).
    rounded = (advertised + unit - 1) & ~(unit - 1)
    if queued + rounded <= buffer + (buffer >> 3):
        return rounded
    return advertised & ~(unit - 1)

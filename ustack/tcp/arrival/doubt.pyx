# SPDX-License-Identifier: MIT
"""Segments that are not acceptable. See doubt.pxd for the contract."""

from ustack.base.counters cimport DROP_TCP_FLAGS, DROP_TCP_RST, DROP_TCP_SYN
from ustack.tcp.ending cimport connection_end
from ustack.tcp.records.state cimport CLOSE_REFUSED, CLOSE_RESET, SYN_RECEIVED
from ustack.tcp.throttle cimport challenge_allowed, corrective_allowed
from ustack.wire.tcp cimport RST, SYN


cdef bint correct(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, counter_t reason) noexcept nogil:
    """owe_ack, as often as throttle allows (is it?): two ends out of step must not answer each other for ever."""
    if corrective_allowed(tcp, tcb, seg):
        owe_ack(tcp, tcb, reason)
        return True
    count(tcp.counters, reason)
    return False


cdef void challenge(tcp_t *tcp, tcb_t *tcb, counter_t reason) noexcept nogil:
    """Ask the peer whether it meant it (RFC 5961)."""
    if challenge_allowed(tcp, tcb):
        owe_ack(tcp, tcb, reason)
    else:
        count(tcp.counters, reason)


cdef void unusual_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Second and fourth, and fifth without an ACK."""
    if seg.flags & RST:
        check_reset(tcp, tcb, seg)
    elif seg.flags & SYN:
        check_syn(tcp, tcb)
    else:
        count(tcp.counters, DROP_TCP_FLAGS)


cdef void check_reset(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    """Second: only the exact next byte resets; elsewhere in the window, ask (RFC 5961 section 3.2)."""
    if seg.seq == tcb.rcv_nxt:
        count(tcp.counters, DROP_TCP_RST)
        connection_end(tcp, tcb, CLOSE_REFUSED if tcb.state == SYN_RECEIVED else CLOSE_RESET)
    else:
        challenge(tcp, tcb, DROP_TCP_RST)


cdef void check_syn(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """Fourth: never in a synchronized connection; ask whether the peer has restarted (RFC 5961 section 4.2)."""
    challenge(tcp, tcb, DROP_TCP_SYN)

# SPDX-License-Identifier: MIT
"""Dynamic right-sizing of the receive window. See autotune.pxd.

The round trip of a receiver that sends no data is, in this order of preference,

* the smallest time within the round from sending an ACK to the arrival of a segment that echoes its timestamp. It may
  be longer than a round trip, where the sender had nothing to send, never shorter. The timestamp clock has 1 ms: below
  TICKS_MIN of them a sample says nothing;
* SRTT, which the handshake has measured at least;
* the time in which a whole window has arrived (RCV.NXT has reached the right edge that was announced when the round
  began): a round trip at least is over then.

An estimate that is too short makes growth slower, one that is too long makes it faster than the sender could use; what
is admitted stays bounded by rcv_buffer_max_bytes, and memory is taken only by what the application leaves or what lies
beyond a hole (pressure.pxd).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport WINDOWS_GROWN, count
from ustack.tcp.records.life cimport extra_make, extra_settle
from ustack.tcp.records.rx_queue cimport rx_memory_short, rx_queue_t
from ustack.tcp.records.sockopts cimport sockopts_of
from ustack.tcp.records.tcb cimport (
    OPT_TIMESTAMPS, TCB_REORDERED, autotune_t, extra_t, rx_queue_of, tcp_now_us, tcp_timestamp)
from ustack.wire.seq cimport seq_lt
from ustack.wire.tcp cimport HAS_TIMESTAMPS


cdef enum:
    TICKS_MIN = 4                           # of the timestamp clock: less is a matter of rounding
    TICKS_MAX = 60000                       # a minute: more is an echo of something else
    TICK_US = 1000
    THIN_SHIFT = 3                          # a round that takes an eighth of the window or less


cdef inline uint32_t consumed_seq(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """Where the application is."""
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    return tcb.rcv_nxt - (rx.queued_bytes if rx != NULL else 0)


cdef inline void round_begin(const tcp_t *tcp, const tcb_t *tcb, autotune_t *own) noexcept nogil:
    own.round_seq = consumed_seq(tcp, tcb)
    own.round_us = tcp_now_us(tcp)
    own.edge_seq = tcb.rcv_adv
    own.rtt_us = 0


cdef inline void take_sample(const tcp_t *tcp, const tcb_t *tcb, const segment_t *seg,
                             autotune_t *own) noexcept nogil:
    cdef uint32_t ticks
    if not tcb.options & OPT_TIMESTAMPS or not seg.has & HAS_TIMESTAMPS or tcb.flags & TCB_REORDERED:
        return                              # the last: its ticks are slow (timestamps.pxd)
    ticks = tcp_timestamp(tcp) - seg.ts_ecr
    if ticks < TICKS_MIN or ticks > TICKS_MAX:
        return
    if own.rtt_us == 0 or ticks * TICK_US < own.rtt_us:
        own.rtt_us = ticks * TICK_US


cdef inline bint round_over(const tcp_t *tcp, const tcb_t *tcb, const autotune_t *own) noexcept nogil:
    cdef uint32_t rtt_us = own.rtt_us if own.rtt_us else tcb.srtt_us
    if rtt_us:
        return tcp_now_us(tcp) - own.round_us >= rtt_us
    return not seq_lt(tcb.rcv_nxt, own.edge_seq)


cdef void autotune_note(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil:
    cdef extra_t *extra
    cdef autotune_t *own
    cdef uint32_t taken, limit
    cdef uint64_t wanted
    if tcp.config.rcv_buffer_max_bytes <= tcp.config.rcv_buffer_bytes:
        return
    extra = extra_make(tcp, tcb)
    if extra == NULL:
        return                              # the window stays what it is
    if sockopts_of(tcp, tcb) != NULL and sockopts_of(tcp, tcb).rcv_buffer_bytes:
        return                              # ... as its application wants it (SO_RCVBUF)
    own = &extra.autotune
    if own.limit_bytes == 0:
        own.limit_bytes = tcp.config.rcv_buffer_bytes
        round_begin(tcp, tcb, own)
        return
    take_sample(tcp, tcb, seg, own)
    if not round_over(tcp, tcb, own):
        return
    limit = own.limit_bytes
    taken = consumed_seq(tcp, tcb) - own.round_seq
    wanted = 2ULL * taken
    if wanted > limit and not rx_memory_short(&tcp.rx):
        own.limit_bytes = <uint32_t>(wanted if wanted < tcp.config.rcv_buffer_max_bytes
                                     else tcp.config.rcv_buffer_max_bytes)
        if own.limit_bytes > limit:
            count(tcp.counters, WINDOWS_GROWN)
    elif taken <= limit >> THIN_SHIFT and limit == tcp.config.rcv_buffer_bytes:
        memset(own, 0, sizeof(autotune_t))
        extra_settle(tcp, tcb)
        return
    round_begin(tcp, tcb, own)

# SPDX-License-Identifier: MIT
# Life of TCP's records: one TCP, its connections, and what a connection holds.
#
# It decides nothing about the protocol: that is the event files' work (calls, input, timers, output). Layouts are in
# tcb.pxd. Below: tcb, demux, rx_queue. Above: ending, opening, calls, engine.

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.counters cimport counters_t
from ustack.buf.lent cimport lent_t, lent_unref
from ustack.buf.slab cimport slab_release
from ustack.ip.layer cimport ip_t
from ustack.tcp.records.accecn cimport accecn_t
from ustack.tcp.records.configuration cimport tcp_config_t
from ustack.tcp.records.history cimport history_t
from ustack.tcp.records.sockopts cimport sockopts_t
from ustack.tcp.records.tcb cimport extra_t, send_piece_at, tcb_t, tcp_t
from ustack.tcp.records.urgent cimport urgent_t
from ustack.tcp.records.work cimport turn_charge

# ip and counters must outlive tcp. The same seed gives the same ISNs, hash and ports. 0, or -1 without memory.
cdef int tcp_init(tcp_t *tcp, ip_t *ip, counters_t *counters, const tcp_config_t *config, uint64_t seed,
                  uint64_t now_ns) noexcept nogil
# Frees every record, silently. Connections must have been told before (engine_close does).
cdef void tcp_destroy(tcp_t *tcp) noexcept nogil
# A zeroed tcb with its index, configured defaults and initial congestion state; in no table yet. NULL at the limit.
cdef tcb_t *tcb_alloc(tcp_t *tcp) noexcept nogil
# Gives back everything the connection holds, and the record. It must be in no list and no table.
cdef void tcb_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The connection's record of what few have, made if need be. NULL: the limit of them (config.extra_records), or memory.
cdef extra_t *extra_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The record of a connection that counts marks, zeroed, and its place in the other. NULL: no room for one of both.
cdef accecn_t *accecn_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The record of a connection's own options, filled with what is usual, and of its history. NULL as above.
cdef sockopts_t *sockopts_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef history_t *history_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The record of a connection with urgent data: the one it has, or a zeroed one; NULL: no room. Given back: with one.
cdef urgent_t *urgent_make(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void urgent_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# An option has changed: the record goes back if all are as usual. Only with one.
cdef void sockopts_settle(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# A part of it is as usual again: the record goes back if the others are, too. Only with tcb.extra.
cdef void extra_settle(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void send_queue_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil
cdef void rx_queue_release(tcp_t *tcp, tcb_t *tcb) noexcept nogil


# Give a piece back that is in no queue any more, and then what it lent. A peer that has thousands of them given back at
# once uses up its turn.
cdef inline void piece_release(tcp_t *tcp, uint32_t index) noexcept nogil:
    cdef lent_t *lent = send_piece_at(tcp, index).lent
    slab_release(&tcp.send_pieces, index)
    tcp.lent_held -= 1
    turn_charge(tcp, 1)
    lent_unref(lent)

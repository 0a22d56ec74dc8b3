# SPDX-License-Identifier: MIT
# Urgent pointers of a connection: a record on demand, 16 bytes, named by tcb.urgent.
#
#     RCV.UP    where what the peer has called urgent ends, while some of it has not been read
#     SND.UP    the same of ours, while some of it has not been acknowledged
#
# Few connections ever have one, and those only for as long: it is made by the segment that brings a pointer, or by the
# call that queues urgent data, and given back with the first segment that is sent after both have passed. A peer can
# have us keep no more than this of it. There are at most URGENT_MOST at a time, because the tcb has two bytes for the
# index, and no more than config.extra_records.
#
# Plain data. What moves it: tcp/urgent. Made and given back by life. Below: tcb, rx_queue. Above: life, urgent, status.

from libc.stdint cimport uint32_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.tcb cimport TCB_FIN_RECEIVED, rx_queue_of, tcb_t, tcp_t
from ustack.wire.seq cimport seq_gt, seq_lt

cdef enum:
    URGENT_MOST = 65535

cdef enum urgent_flags_t:
    URGENT_IN = 1                           # rcv_up is valid
    URGENT_UNTOLD = 2                       # ... and news for the application
    URGENT_OUT = 4                          # snd_up is valid

ctypedef struct urgent_t:                   # 16 bytes
    uint32_t rcv_up                         # 0
    uint32_t snd_up                         # 4
    uint32_t flags                          # 8   urgent_flags_t
    uint32_t unused                         # 12  a slab's records divide a cache line


# NULL: there is none.
cdef inline urgent_t *urgent_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <urgent_t *>slab_at(&tcp.urgents, tcb.urgent) if tcb.urgent else NULL


# Where the application reads on: RCV.NXT without the FIN, less what it has not consumed. What on_data has been handed
# in a frame is in no queue, and not consumed before that returns.
cdef inline uint32_t read_seq(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef uint32_t at = tcb.rcv_nxt - (1 if tcb.flags & TCB_FIN_RECEIVED else 0)
    if rx != NULL:
        at -= rx.queued_bytes
    return at - tcp.offered_bytes if tcp.offering == tcb.index else at


# Bytes before RCV.UP that are still to be read, come or not; 0: none, all that was urgent has been read. Nothing comes
# behind a FIN, whatever the pointer says.
cdef inline uint32_t urgent_unread(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const urgent_t *own = urgent_of(tcp, tcb)
    cdef uint32_t at, up
    if own == NULL or not own.flags & URGENT_IN:
        return 0
    at = read_seq(tcp, tcb)
    up = own.rcv_up
    if tcb.flags & TCB_FIN_RECEIVED and seq_gt(up, tcb.rcv_nxt - 1):
        up = tcb.rcv_nxt - 1
    return up - at if seq_gt(up, at) else 0


# Something before SND.UP is not acknowledged: segments from there carry URG, and none is left to a device to cut.
cdef inline bint urgent_is_out(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const urgent_t *own = urgent_of(tcp, tcb)
    return own != NULL and own.flags & URGENT_OUT and seq_lt(tcb.snd_una, own.snd_up)

# SPDX-License-Identifier: MIT
# When a connection's application may queue more: two low-water marks, and the event that says so.
#
#     queued     SND.END - SND.UNA    not acknowledged yet                 config.snd_low_water_bytes
#     unsent     SND.END - SND.MAX    ... and never sent, not even once    config.snd_unsent_low_water_bytes
#
# A connection is writable while neither is above its mark. The first falls with an ACK (recovery/ack), the second when
# output sends something new; what is sent again changes neither. Both then call note_writable, which turns the wish
# (TCB_WANT_WRITABLE) into the event; the engine makes the upcall when it next takes the connection from its work list.
#
# The unsent mark is Linux's TCP_NOTSENT_LOWAT, and as there it bounds what may be queued, too: while more than the mark
# is unsent, tcp_send takes nothing (tcp_stream_memory_free). What is taken below it may exceed it: Linux looks before
# each buffer of up to 64 KB, we before each range that is lent, which costs no memory here. So a writable connection
# always takes something, even at a mark of zero (Linux halves the mark for wake-ups, to the same end).
#
# Marks of a connection's own are in its sockopts_t. It must not: make upcalls. Above: ack, calls, output,
# engine/upcalls. Below: tcb, sockopts.

from libc.stdint cimport int32_t, uint32_t

from ustack.tcp.records.sockopts cimport sockopts_of, sockopts_t
from ustack.tcp.records.state cimport SYN_SENT
from ustack.tcp.records.tcb cimport TCB_ACCEPTED, TCB_EV_WRITABLE, TCB_WANT_WRITABLE, tcb_t, tcp_t
from ustack.wire.seq cimport seq_diff

# Neither measure is above its mark.
cdef bint tcb_is_writable(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Marks of its own from now on, both of them usable (configuration.pxd). 0, or -1: there is no record for them, nothing
# has changed. The wish is looked at again.
cdef int marks_set(tcp_t *tcp, tcb_t *tcb, uint32_t low_water_bytes, uint32_t unsent_low_water_bytes) noexcept nogil


cdef inline uint32_t tcb_low_water(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    if own == NULL:
        return tcp.config.snd_low_water_bytes
    # Of a queue that is smaller than the mark: half of it (configuration.pxd).
    return own.low_water_bytes if own.low_water_bytes < own.snd_queue_bytes else own.snd_queue_bytes // 2


cdef inline uint32_t tcb_unsent_low_water(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.unsent_low_water_bytes if own != NULL else tcp.config.snd_unsent_low_water_bytes


# Bytes queued and never sent. SND.MAX is beyond SND.END when our FIN is sent, and one short of the data before our SYN.
cdef inline uint32_t tcb_unsent(const tcb_t *tcb) noexcept nogil:
    cdef int32_t unsent = seq_diff(tcb.snd_end, tcb.snd_max)
    if unsent <= 0:
        return 0
    if tcb.state == SYN_SENT and tcb.snd_max == tcb.snd_una:
        unsent -= 1
    return <uint32_t>unsent


# One of the measures may have fallen to its mark. A wish from before on_accept waits for it.
cdef inline void note_writable(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    if tcb.flags & TCB_WANT_WRITABLE and tcb.flags & TCB_ACCEPTED and tcb_is_writable(tcp, tcb):
        tcb.flags = (tcb.flags & ~TCB_WANT_WRITABLE) | TCB_EV_WRITABLE

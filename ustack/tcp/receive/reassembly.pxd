# SPDX-License-Identifier: MIT
# What has been received and not consumed: the in-order queue and the runs beyond rcv_nxt (SHLD-31), with bounded
# memory.
#
# Copies happen here and only here: in-order data that its application used straight from the ring never comes this way.
# Above: input, calls, engine. Below: pressure, rx_queue, runs, tcb, wire/seq.

from libc.stdint cimport uint8_t, uint32_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# Keep in-order bytes at rcv_nxt, behind what is held. Returns how many there was memory for, from the front; the caller
# moves rcv_nxt over them.
cdef uint32_t reassembly_append(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil
# Keep in-order bytes that rcv_nxt counts already (and the FIN behind them, if it has come), before what is held. What
# there is no memory for is not received after all: rcv_nxt goes back, no ACK has told of it. False: it cannot go back,
# because a FIN has been taken; nothing is held then, or what lies behind the gap could be read as if there were none.
cdef bint reassembly_keep(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil
# Whether reassembly_keep will have memory for `length` bytes at rcv_nxt. May make room.
cdef bint reassembly_sure(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil
# Keep a segment beyond rcv_nxt; bytes that are held already stay as they are. fin: its last sequence number is a FIN.
# 0, or the counter_t to drop it under.
cdef int reassembly_insert(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length,
                           bint fin) noexcept nogil
# rcv_nxt has moved: join what is now in order to the queue and move rcv_nxt over it. True if the FIN came in order.
cdef bint reassembly_advance(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Drop everything beyond rcv_nxt: a FIN in order has been taken.
cdef void reassembly_forget(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Bytes of the queue, contiguous, from the one behind the first `skip` on. NULL: none there.
cdef const uint8_t *reassembly_peek(tcp_t *tcp, tcb_t *tcb, uint32_t skip, uint32_t *length) noexcept nogil
cdef void reassembly_consume(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil

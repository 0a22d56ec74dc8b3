# SPDX-License-Identifier: MIT
# What has been received and not consumed: the in-order queue and the islands beyond rcv_nxt (SHLD-31), with bounded
# memory.
#
# Copies happen here and only here: in-order data that its application used straight from the ring never comes this way.
# Above: input, calls, engine. Below: tcb, wire/seq.

from libc.stdint cimport uint8_t, uint32_t

from ustack.tcp.tcb cimport rx_chunk_t, rx_queue_t, tcb_t, tcp_t

# Keep in-order octets that were not consumed. They are counted in rcv_nxt already. 0, or -1 without memory.
cdef int reassembly_append(tcp_t *tcp, tcb_t *tcb, const uint8_t *data, uint32_t length) noexcept nogil
# Keep a segment beyond rcv_nxt; overlaps with what is held are cut from the new one. fin: its last sequence number is
# a FIN. 0, or the counter_t to drop it under.
cdef int reassembly_insert(tcp_t *tcp, tcb_t *tcb, uint32_t seq, const uint8_t *data, uint32_t length,
                           bint fin) noexcept nogil
# rcv_nxt has moved: join what is now in order to the queue and move rcv_nxt over it. True if the FIN came in order.
cdef bint reassembly_advance(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# First octets of the queue, contiguous. NULL: empty.
cdef const uint8_t *reassembly_peek(tcp_t *tcp, tcb_t *tcb, uint32_t *length) noexcept nogil
cdef void reassembly_consume(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil
# The run of touching chunks beyond rcv_nxt that holds octet `seq`. False: it is in none.
cdef bint reassembly_island(const tcp_t *tcp, const rx_queue_t *rx, uint32_t seq, uint32_t *left,
                            uint32_t *right) noexcept nogil

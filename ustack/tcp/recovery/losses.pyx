# SPDX-License-Identifier: MIT
"""Lost, and found again. See losses.pxd for the contract."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from ustack.base.counters cimport TRANSMISSION_STEPS, count_add
from ustack.base.debug cimport ensure
from ustack.tcp.records.flight cimport (
    FLIGHT_RENEGED, REXMIT_RTO, TX_FOUND, TX_LOST, TX_RETRANSMITTED, TX_SACKED, TX_SIZE_PROBE, transmission_at,
    transmission_bytes, transmission_t)
from ustack.tcp.records.tally cimport delivered_retreat
from ustack.tcp.records.trace cimport TRACE_LOST, trace_note
from ustack.tcp.recovery.transmission_lists cimport list_append, list_prepend, list_remove


cdef inline uint32_t counted_bytes(const transmission_t *sent) noexcept nogil:
    """What C.lost has of it. Not a probe of the path's MTU, whose loss says nothing of the path's rate."""
    return 0 if sent.flags & TX_SIZE_PROBE else transmission_bytes(sent)


cdef void transmission_lose(tcp_t *tcp, flight_t *flight, uint32_t index) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    list_remove(tcp, flight, index)
    sent.flags |= TX_LOST
    flight.lost_bytes += transmission_bytes(sent)
    flight.lost += counted_bytes(sent)
    list_append(tcp, flight, index)


cdef void transmission_lose_first(tcp_t *tcp, flight_t *flight) noexcept nogil:
    cdef transmission_t *sent = transmission_at(tcp, flight, flight.head)
    cdef uint32_t length = transmission_bytes(sent)
    ensure(not sent.flags & TX_SACKED)
    list_remove(tcp, flight, flight.head)
    if not sent.flags & TX_LOST:
        sent.flags |= TX_LOST
        flight.lost += counted_bytes(sent)
    flight.lost_bytes += length
    list_prepend(tcp, flight, flight.head)


cdef void transmissions_found(tcp_t *tcp, flight_t *flight, bint again) noexcept nogil:
    """They were sent before everything in the list by time, as they were lost before."""
    cdef uint32_t index = flight.to_resend.last, steps = 0
    cdef transmission_t *sent
    while index:
        sent = transmission_at(tcp, flight, index)
        steps += 1
        if sent.flags & TX_FOUND and not again:
            break
        list_remove(tcp, flight, index)
        sent.flags = <uint8_t>((sent.flags & ~TX_LOST) | TX_FOUND)
        flight.pipe += transmission_bytes(sent)
        flight.lost -= counted_bytes(sent)
        list_prepend(tcp, flight, index)
        index = flight.to_resend.last
    count_add(tcp.counters, TRANSMISSION_STEPS, steps)


cdef void transmissions_renege(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    cdef uint32_t index = flight.head
    cdef transmission_t *sent
    delivered_retreat(tcp, tcb, flight.sacked_bytes)        # they will be delivered, and counted, again
    while index:
        sent = transmission_at(tcp, flight, index)
        if sent.flags & TX_SACKED:
            sent.flags = <uint8_t>((sent.flags & ~TX_SACKED) | TX_LOST | TX_RETRANSMITTED)
            flight.lost_bytes += transmission_bytes(sent)
            flight.lost += counted_bytes(sent)
            list_append(tcp, flight, index)
            trace_note(tcp, tcb, TRACE_LOST, REXMIT_RTO, sent.seq, transmission_bytes(sent), 0)
        if <int32_t>(sent.delivered - tcb.delivered) > 0:
            sent.delivered = tcb.delivered
        index = sent.next
    flight.flags |= FLIGHT_RENEGED
    flight.sacked_bytes = 0
    flight.sacked_segs = 0

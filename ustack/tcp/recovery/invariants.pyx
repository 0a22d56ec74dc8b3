# SPDX-License-Identifier: MIT
"""The invariants of a flight. See invariants.pxd."""

from libc.stdint cimport uint32_t

from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, REPAIR_NONE, TX_LOST, TX_SACKED, TX_USED, flight_raw, flight_t, sacked_segments, transmission_at,
    transmission_bytes, transmission_t)
from ustack.tcp.records.tcb cimport DEADLINE_REXMIT
from ustack.wire.seq cimport seq_lt


cdef bint flight_check(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const flight_t *flight
    cdef const transmission_t *sent
    cdef uint32_t index, seq = tcb.snd_una, pipe = 0, lost = 0, sacked = 0, segs = 0, n = 0, in_flight = 0, waiting = 0
    if tcb.flight == 0:
        return True
    flight = flight_raw(tcp, tcb)
    if flight.flags & FLIGHT_LONE:
        return (flight.flags == FLIGHT_LONE and flight.records == 1 and seq_lt(tcb.snd_una, tcb.snd_nxt)
                and flight.to_resend.first == 0 and flight.repair == REPAIR_NONE and flight.sacked_bytes == 0
                and tcb.armed >> DEADLINE_REXMIT & 1)
    index = flight.head
    while index:
        sent = transmission_at(tcp, flight, index)
        if sent.seq != seq or not seq_lt(sent.seq, sent.end) or not sent.flags & TX_USED:
            return False
        if sent.flags & TX_SACKED:
            sacked += transmission_bytes(sent)
            segs += sacked_segments(<transmission_t *>sent)[0]
            if sent.flags & TX_LOST:
                return False
        elif sent.flags & TX_LOST:
            lost += transmission_bytes(sent)
            waiting += 1
        else:
            pipe += transmission_bytes(sent)
            in_flight += 1
        seq = sent.end
        n += 1
        index = sent.next
    index = flight.by_time.first
    while index:
        in_flight -= 1
        index = transmission_at(tcp, flight, index).order.next
    index = flight.to_resend.first
    while index:
        waiting -= 1
        index = transmission_at(tcp, flight, index).order.next
    return (n == flight.records and seq == tcb.snd_nxt and pipe == flight.pipe and lost == flight.lost_bytes
            and sacked == flight.sacked_bytes and segs == flight.sacked_segs and in_flight == 0 and waiting == 0
            and flight.duplicate_bytes <= flight.pipe and tcb.armed >> DEADLINE_REXMIT & 1)

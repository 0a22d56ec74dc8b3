# SPDX-License-Identifier: MIT
"""Retransmissions. See resend.pxd for the contract."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport RETRANSMITTED_FAST, RETRANSMITTED_RTO, count
from ustack.tcp.records.deadlines cimport deadline_is_set
from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_SEND_ONE, REPAIR_FAST, REPAIR_NONE, REPAIR_RTO, REXMIT_RTO, TX_LOST, rexmit_cause,
    rexmit_cause_t, transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.tally cimport tally_resent
from ustack.tcp.records.tcb cimport DEADLINE_REXMIT, TCB_REXMIT
from ustack.tcp.records.trace cimport TRACE_RETRANSMITTED, trace_note
from ustack.tcp.records.work cimport work_add
from ustack.tcp.recovery.control cimport control_sent
from ustack.tcp.recovery.losses cimport transmission_lose_first
from ustack.tcp.recovery.pacing cimport pacing_allows, pacing_sent
from ustack.tcp.recovery.path cimport path_resent
from ustack.tcp.recovery.repair cimport repair_note_sent
from ustack.tcp.recovery.rtt cimport rexmit_start
from ustack.tcp.recovery.transmissions cimport transmission_merge, transmission_resent, transmission_split
from ustack.tcp.send.allowance cimport beyond_window, largest_segment, lost_window
from ustack.tcp.send.probes cimport send_tail_probe
from ustack.tcp.send.progress cimport await_pace
from ustack.tcp.send.segment cimport SEND_OK, send_record, without_fin


cdef send_t send_again(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    cdef send_t sent = send_lost(tcp, tcb, flight)
    if sent == SEND_OK and flight.flags & FLIGHT_PROBE:
        if flight.sacked_bytes or flight.to_resend.first or flight.repair != REPAIR_NONE or tcb.snd_wnd == 0:
            flight.flags &= ~FLIGHT_PROBE   # asked for before a busy turn or a full ring, and answered since
            return SEND_OK
        return send_tail_probe(tcp, tcb, flight)
    return sent


cdef send_t send_lost(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """What is lost goes again, in the order in which it was found lost, as the window allows: whole segments, and
    super-frames of them. A record of which only a part may go is split; without memory for that its first segments go
    and the record counts as sent again: the rest will be found lost again."""
    cdef uint32_t largest = largest_segment(tcp, tcb), index, length, data, room, most
    cdef transmission_t *record
    cdef send_t sent
    while flight.to_resend.first:
        index = flight.to_resend.first
        record = transmission_at(tcp, flight, index)
        room = lost_window(tcb, flight, record.seq)
        most = largest
        if not flight.flags & FLIGHT_SEND_ONE:
            most = pacing_allows(&flight.pacer, tcp.now_ns, tcb.smss, largest)
        if most == 0:
            if room >= tcb.smss:
                await_pace(tcp, tcb)
            return SEND_OK
        if room > most:
            room = most
        if room > transmission_bytes(record):
            join_lost(tcp, tcb, flight, index, room)
        length = transmission_bytes(record)
        data = without_fin(tcb, record.seq, length)         # it takes no room
        if data > room or room == 0:
            if room < tcb.smss:
                if beyond_window(tcp, tcb, flight, index):
                    transmission_lose_first(tcp, flight)
                    continue
                return SEND_OK
            length = room - room % tcb.smss
            transmission_split(tcp, flight, index, record.seq + length)
        sent = send_record(tcp, tcb, record.seq, length)
        if sent != SEND_OK:
            return sent
        note_resent(tcp, tcb, flight, index, length)
        pacing_sent(&flight.pacer, tcp.now_ns, length, tcb.smss, largest)
        if tcp.turn.budget.stage_left <= 0:
            work_add(tcp, tcb)
            return SEND_OK
    return SEND_OK


cdef void join_lost(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t room) noexcept nogil:
    """What follows and is lost, too, goes in the same frame, as far as there is room: small writes become whole
    segments (RFC 9293 section 3.8.1 allows to repacketize), segments a super-frame."""
    cdef transmission_t *record = transmission_at(tcp, flight, index)
    while transmission_bytes(record) < room and record.next:
        if not transmission_at(tcp, flight, record.next).flags & TX_LOST:
            return
        transmission_merge(tcp, flight, index)


cdef void note_resent(tcp_t *tcp, tcb_t *tcb, flight_t *flight, uint32_t index, uint32_t length) noexcept nogil:
    cdef const transmission_t *record = transmission_at(tcp, flight, index)
    cdef rexmit_cause_t cause = rexmit_cause(tcb, flight, record)
    cdef bint of_probe = tcb.extra and path_resent(tcp, tcb, record.seq, length)
    flight.flags &= ~FLIGHT_SEND_ONE
    if flight.repair == REPAIR_FAST:
        count(tcp.counters, RETRANSMITTED_FAST)
    elif flight.repair == REPAIR_RTO:
        count(tcp.counters, RETRANSMITTED_RTO)
    tally_resent(tcp, tcb, cause, length, without_fin(tcb, record.seq, length))
    transmission_resent(tcp, tcb, flight, index)
    repair_note_sent(tcp, flight, length, True)
    if (index == flight.head and (flight.repair == REPAIR_FAST or of_probe)
            or not deadline_is_set(tcb, DEADLINE_REXMIT)):
        rexmit_start(tcp, tcb)              # it has a whole RTO from now on
    control_sent(tcp, tcb, length)
    trace_note(tcp, tcb, TRACE_RETRANSMITTED, cause, record.seq, length, 0)


cdef send_t retransmit_unrecorded(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """The segment at SND.UNA, of a frame for which there was no flight (transmissions.pxd). SND.NXT stays."""
    cdef uint32_t length = tcb.snd_nxt - tcb.snd_una
    cdef send_t sent
    if length > tcb.smss:
        length = tcb.smss
    if length:
        sent = send_record(tcp, tcb, tcb.snd_una, length)
        if sent != SEND_OK:
            return sent
        tally_resent(tcp, tcb, REXMIT_RTO, length, without_fin(tcb, tcb.snd_una, length))
        control_sent(tcp, tcb, length)
        trace_note(tcp, tcb, TRACE_RETRANSMITTED, REXMIT_RTO, tcb.snd_una, length, 0)
    tcb.flags &= ~TCB_REXMIT
    return SEND_OK

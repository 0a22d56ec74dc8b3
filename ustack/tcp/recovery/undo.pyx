# SPDX-License-Identifier: MIT
"""Repairs that were none. See undo.pxd for the rules and the sources."""

from libc.stdint cimport uint32_t

from ustack.base.counters cimport REPAIRS_UNDONE, TIMEOUTS_UNDONE, count
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.records.flight cimport (
    FLIGHT_MARKED_REPAIR, FLIGHT_RECOVER, FLIGHT_RENEGED, FLIGHT_SEND_ONE, FLIGHT_STAMPED, FLIGHT_TIMEOUT_UNDONE,
    FLIGHT_UNDO, FRTO_NONE, REPAIR_FAST, REPAIR_NONE, REPAIR_RTO, TX_FOUND, transmission_at)
from ustack.tcp.records.tally cimport tally_spurious
from ustack.tcp.records.tcb cimport TCB_REORDERED, tcp_timestamp
from ustack.tcp.records.trace cimport TRACE_UNDONE, trace_repair
from ustack.tcp.recovery.control cimport (
    control_awake, control_owns_repair, control_state, view_load, view_store, view_store_rate)
from ustack.tcp.recovery.losses cimport transmissions_found
from ustack.tcp.recovery.rtt cimport GRANULARITY_US
from ustack.wire.seq cimport seq_gt


cdef void undo_begin(tcb_t *tcb, flight_t *flight) noexcept nogil:
    if flight.repair == REPAIR_FAST or flight.repair == REPAIR_RTO:
        return                              # a timeout within a recovery: the window before that
    flight.flags = (flight.flags | FLIGHT_UNDO) & ~(FLIGHT_STAMPED | FLIGHT_MARKED_REPAIR)
    flight.cwnd_before = tcb.cwnd
    flight.ssthresh_before = tcb.ssthresh
    flight.undo_bytes = 0
    flight.undo_una = tcb.snd_una


cdef void undo_resent(const tcp_t *tcp, flight_t *flight, uint32_t length) noexcept nogil:
    flight.undo_bytes += length
    if not flight.flags & FLIGHT_STAMPED:
        flight.flags |= FLIGHT_STAMPED
        flight.resent_ts = tcp_timestamp(tcp)


cdef inline bint is_found_twice(const tcp_t *tcp, const flight_t *flight) noexcept nogil:
    """What waits to be sent again has been found before: the loss is believed this time (transmissions_found)."""
    cdef uint32_t index = flight.to_resend.last
    return index != 0 and transmission_at(tcp, flight, index).flags & TX_FOUND


cdef bint undo_detects(const tcp_t *tcp, const tcb_t *tcb, flight_t *flight, const ack_news_t *news,
                       bint moved) noexcept nogil:
    cdef uint32_t length
    if not flight.flags & FLIGHT_UNDO or not flight.flags & FLIGHT_STAMPED:
        return False
    if flight.repair == REPAIR_FAST and is_found_twice(tcp, flight):
        return False
    if (moved and news.first_echoed and flight.repair != REPAIR_NONE and not news.dsack
            and (tcb.snd_una != tcb.snd_nxt or tcb.reordering != 0)):
        return True
    if news.dsack and flight.undo_bytes and seq_gt(news.dsack_right, flight.undo_una):
        length = news.dsack_right - news.dsack_left
        flight.undo_bytes -= length if length < flight.undo_bytes else flight.undo_bytes
        return flight.undo_bytes == 0
    return False


cdef void undo_restore(tcp_t *tcp, tcb_t *tcb, flight_t *flight) noexcept nogil:
    """RFC 4015 section 3: what was believed lost is in flight, the window is as before, the RTO learns from it.

    The timer stays as it runs, its back-off with it: a spurious timeout is no measurement, and only one ends the
    back-off (RFC 6298 section 5; Linux does the same). With the first sample RFC 4015 makes the RTO anew and restarts
    the timer (take_measurements, rexmit_restart)."""
    cdef const cc_ops_t *ops = control_awake(tcp, tcb)
    cdef cc_view_t view
    count(tcp.counters, REPAIRS_UNDONE)
    tally_spurious(tcp, tcb)
    if flight.repair == REPAIR_RTO:
        count(tcp.counters, TIMEOUTS_UNDONE)
        flight.flags |= FLIGHT_TIMEOUT_UNDONE
        flight.srtt_before_us = tcb.srtt_us + 2 * GRANULARITY_US
        flight.rttvar_before_us = tcb.rttvar_us
    else:
        tcb.flags |= TCB_REORDERED
    transmissions_found(tcp, flight, flight.repair == REPAIR_RTO)      # a timeout is rare, and looks at all anyway
    view_load(tcp, tcb, &view)
    # PRR's window of this moment is what was in flight, and one segment more where the repair has just begun. What the
    # control made of the loss is ssthresh, where repair_end would have left it.
    if flight.repair == REPAIR_FAST and not control_owns_repair(tcp, tcb) and (
            view.ssthresh < view.cwnd or flight.flags & FLIGHT_MARKED_REPAIR):
        view.cwnd = view.ssthresh
    if not flight.flags & FLIGHT_MARKED_REPAIR:         # a mark in the meantime was none of those losses
        ops.on_spurious(control_state(tcp, tcb, ops), &view, flight.cwnd_before, flight.ssthresh_before)
    view_store(tcb, &view)
    view_store_rate(tcp, tcb, &view)
    flight.rack_sent_ns = 0                 # what proves a loss comes from now on
    trace_repair(tcp, tcb, flight, TRACE_UNDONE)
    flight.repair = REPAIR_NONE
    flight.frto = FRTO_NONE
    flight.flags &= ~(FLIGHT_UNDO | FLIGHT_STAMPED | FLIGHT_RECOVER | FLIGHT_RENEGED | FLIGHT_SEND_ONE)

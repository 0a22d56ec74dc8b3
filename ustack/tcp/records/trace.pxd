# SPDX-License-Identifier: MIT
# The time series of a connection: what one record of it says, and the hooks where something happens.
#
# A hook is a test of tcp.trace, which is NULL while nobody is traced: that is all it costs then. With somebody traced
# it calls through the table (trace_t), and tracing finds out whether this connection is, and writes. A hook comes last
# in what it is about: the record shows the connection's variables as the event has left them. What one ACK causes
# (LOST, RECOVERY, ...) is so written before the ACK itself (SACKED, ACKED), all with the same time.
#
# Which events there are, what `length` and `detail` say in each: below. docs/trace.md has it for readers of files.
#
# It must not: change anything. Below: tcb, flight. Above: whoever something happens in; tracing writes the records.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.tcp.records.flight cimport (
    REPAIR_FAST, REPAIR_RTO, REXMIT_NONE, REXMIT_RTO, REXMIT_SIZE, flight_t, rexmit_cause, rexmit_cause_t,
    transmission_at)
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef enum trace_event_t:
    # Segments of ours; detail: what their ACK acknowledges, relative to IRS
    TRACE_SENT = 1                          # for the first time: data, SYN, FIN. Cause: REXMIT_PROBE, or none
    TRACE_RETRANSMITTED                     # again, with its cause
    TRACE_ACK_SENT                          # nothing but an ACK
    TRACE_PROBED                            # a closed window (length 1), or the peer (keep-alive: 0)
    TRACE_LAST_SENT = TRACE_PROBED
    # What the peer says
    TRACE_ACKED                             # `length` bytes from `seq` on, 0: a duplicate. detail: round trip, us; or 0
    TRACE_SACKED                            # `length` bytes; `seq`: the end of what was sent last of them. detail: same
    TRACE_WINDOW                            # its window has changed; detail: what it was
    TRACE_MARKED                            # ECN has made cwnd smaller; detail: what it was
    # What is made of it
    TRACE_LOST                              # found lost, with what will be the cause; `length` bytes from `seq` on
    TRACE_RECOVERY                          # a repair begins, with its cause; `seq`: its end, RecoveryPoint
    TRACE_RECOVERED                         # ... ends
    TRACE_UNDONE                            # ... was none: the window is as before it
    TRACE_TIMEOUT                           # the retransmission timer; detail: how often in a row
    # The connection
    TRACE_OPENED                            # it is traced from now on
    TRACE_STATE                             # detail: the state before
    TRACE_CLOSED                            # detail: close_reason_t. The last one
    TRACE_EVENTS
    # TRACE_ACKED of all that is in flight, from before that is forgotten: what it says is at hand there, and need not
    # be kept to the end, which would cost who is not traced as well
    TRACE_ACKED_ALL

ctypedef struct trace_record_t:             # one cache line. TRACE_FORMAT of tracing.pyx has the same for Python
    uint64_t time_ns                        # 0   tcp.now_ns
    uint32_t connection                     # 8   which one of the ring's, from 1
    uint8_t event                           # 12  trace_event_t
    uint8_t cause                           # 13  rexmit_cause_t
    uint8_t state                           # 14  tcp_state_t
    uint8_t repair                          # 15  repair_state_t
    uint32_t seq                            # 16  relative to ISS; if it is traced from later on: see traced_t
    uint32_t length                         # 20
    uint32_t cwnd                           # 24
    uint32_t ssthresh                       # 28
    uint32_t flight                         # 32  bytes in flight
    uint32_t srtt_us                        # 36  0: no sample yet
    uint32_t rto_us                         # 40  backed off
    uint32_t snd_wnd                        # 44
    uint32_t rcv_wnd                        # 48  as advertised
    uint32_t detail                         # 52
    uint64_t pacing_rate                    # 56  bytes per second; 0: not paced


cdef inline void trace_note(tcp_t *tcp, const tcb_t *tcb, trace_event_t event, rexmit_cause_t cause, uint32_t seq,
                            uint32_t length, uint32_t detail) noexcept nogil:
    if tcp.trace != NULL:
        tcp.trace.note(tcp, tcb, <uint32_t>event | <uint32_t>cause << 8, seq, length, detail)


# A connection is there from now on, and all that is known of it.
cdef inline void trace_opened(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    if tcp.trace != NULL:
        tcp.trace.opened(tcp, tcb)


# It ends, and becomes CLOSED or TIME-WAIT. Nothing has been given back yet.
cdef inline void trace_closed(tcp_t *tcp, const tcb_t *tcb, uint8_t became, uint8_t reason) noexcept nogil:
    if tcp.trace != NULL:
        tcp.trace.closed(tcp, tcb, became, reason)


# Of a repair: what has begun it. Before flight.repair says that it is over.
cdef inline void trace_repair(tcp_t *tcp, const tcb_t *tcb, const flight_t *flight,
                              trace_event_t event) noexcept nogil:
    cdef rexmit_cause_t cause = REXMIT_SIZE
    if tcp.trace == NULL:
        return
    if flight.repair == REPAIR_RTO:
        cause = REXMIT_RTO
    elif flight.repair == REPAIR_FAST:
        cause = REXMIT_NONE                 # what waits first has told; later nothing may wait any more
        if flight.to_resend.first and event == TRACE_RECOVERY:
            cause = rexmit_cause(tcb, flight, transmission_at(tcp, flight, flight.to_resend.first))
    trace_note(tcp, tcb, event, cause, flight.recover, 0, 0)

# SPDX-License-Identifier: MIT
# The upcalls that a connection's events ask for, in the order in which the events can have happened.
#
# Each call gets its share of the turn (turn_t) and is charged for; the application's burst is begun before its first
# one. Above: poll. Below: application, tcp's receive queue and calls.

from libc.stdint cimport int32_t, uint32_t

from ustack.base.counters cimport counter_t
from ustack.engine.records cimport engine_t
from ustack.tcp.arrival.text cimport delivery_t
from ustack.tcp.records.tcb cimport (
    TCB_EV_ACCEPT, TCB_EV_CLOSED, TCB_EV_DATA, TCB_EV_EOF, TCB_EV_TIMEOUT, TCB_EV_WRITABLE, tcb_t)

cdef enum:
    EVENTS = (TCB_EV_ACCEPT | TCB_EV_DATA | TCB_EV_WRITABLE | TCB_EV_EOF | TCB_EV_TIMEOUT | TCB_EV_CLOSED)
    EVENTS_AGAIN = TCB_EV_ACCEPT | TCB_EV_DATA | TCB_EV_WRITABLE | TCB_EV_TIMEOUT

# What one segment has for the application, while its frame is still lent to us.
cdef void upcalls_deliver(engine_t *engine, const delivery_t *delivery) noexcept nogil
# Every event on the connection but its end.
cdef void upcalls_make(engine_t *engine, tcb_t *conn) noexcept nogil
# Its stream ended as it should, and the application has asked for the rest in the next turn: on_closed waits.
cdef bint upcalls_reads_on(const engine_t *engine, const tcb_t *conn) noexcept nogil
# The last upcall, on_closed, for those who know the connection; then its record is free.
cdef void upcalls_finish(engine_t *engine, tcb_t *conn) noexcept nogil
# on_burst_end to every application that was called in this poll.
cdef void upcalls_end_bursts(engine_t *engine) noexcept nogil
# Before output: every event on the work list's connections whose applications are handed them, their end as well. Looks
# at connections until at most `floor_units` of the stage are left, or until many had nothing for a hand-over (others'
# connections, and those that only send); the rest is told when it is its turn.
cdef void upcalls_gather(engine_t *engine, int32_t floor_units) noexcept nogil
# on_hand_over to every application that has asked for it. count_as: HAND_OVERS, HAND_OVERS_AT_RETURN.
cdef void upcalls_hand_over(engine_t *engine, counter_t count_as) noexcept nogil

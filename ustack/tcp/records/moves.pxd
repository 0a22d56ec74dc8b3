# SPDX-License-Identifier: MIT
# The one writer of a connection's state.
#
# Every move is checked against the table in state.pyx (debug builds abort on one that is not there) and noted in
# tcp.state_moves, so that a test can ask which ones have been made. A connection is in the state of the record that
# holds it: a listener_t is LISTEN, a syn_received_t SYN-RECEIVED, a time_wait_t TIME-WAIT, a tcb_t any of the others.
#
# Below: tcb, state, trace. Above: calls, input, opening, ending.

from libc.stdint cimport uint8_t

from ustack.base.debug cimport IS_DEBUG, ensure
from ustack.tcp.records.flight cimport REXMIT_NONE
from ustack.tcp.records.state cimport CLOSED, move_is_legal, tcp_state_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.records.trace cimport TRACE_STATE, trace_note


# For the records that are their state: one begins or ends.
cdef inline void note_move(tcp_t *tcp, tcp_state_t before, tcp_state_t after) noexcept nogil:
    if IS_DEBUG:
        ensure(move_is_legal(before, after))
    tcp.state_moves[<int>before] |= 1 << after


cdef inline void set_state(tcp_t *tcp, tcb_t *tcb, tcp_state_t state) noexcept nogil:
    cdef uint8_t before = tcb.state
    note_move(tcp, <tcp_state_t>before, state)
    tcb.state = state
    trace_note(tcp, tcb, TRACE_STATE, REXMIT_NONE, tcb.snd_una, 0, before)


# A new tcb takes over from a record that was in state `before`.
cdef inline void take_over_state(tcp_t *tcp, tcb_t *tcb, tcp_state_t before, tcp_state_t state) noexcept nogil:
    note_move(tcp, before, state)
    tcb.state = state


# The connection goes on in another record, in state `after`: nothing is left of it in this one.
cdef inline void hand_over_state(tcp_t *tcp, tcb_t *tcb, tcp_state_t after) noexcept nogil:
    note_move(tcp, <tcp_state_t>tcb.state, after)
    tcb.state = CLOSED

# SPDX-License-Identifier: MIT
"""The states of RFC 9293 section 3.3.2, and the table of legal moves between them.

MOVES is figure 5 and what section 3.10 adds to it: a move that is not there is a fault of the stack. Three are left out
because this stack never makes them: from LISTEN to SYN-SENT (a SEND on a listener), from SYN-RECEIVED to FIN-WAIT-1 (a
CLOSE waits for ESTABLISHED, as section 3.10.4 allows), and from FIN-WAIT-1 to TIME-WAIT (an ACK of our FIN and the
peer's FIN in one segment are two moves, by way of FIN-WAIT-2). `python -m ustack.tools.state_diagram` draws the table.
"""

from libc.stdint cimport uint16_t

from typing import NamedTuple


class Move(NamedTuple):
    """A legal move: states before and after, what makes it, and RFC 9293's section with the words that allow it."""

    before: tcp_state_t
    after: tcp_state_t
    event: str
    section: str
    words: str


RESET = "rcv RST, ABORT, timeout"
RESET_WORDS = "If the RST bit is set, [...] enter the CLOSED state, delete the TCB, and return."

MOVES = (
    Move(tcp_state_t.CLOSED, tcp_state_t.LISTEN, "passive OPEN", "3.10.1", "If passive, enter the LISTEN state."),
    Move(tcp_state_t.CLOSED, tcp_state_t.SYN_SENT, "active OPEN, snd SYN", "3.10.1",
         "A SYN segment of the form <SEQ=ISS><CTL=SYN> is sent. [...] enter SYN-SENT state."),
    Move(tcp_state_t.LISTEN, tcp_state_t.SYN_RECEIVED, "rcv SYN, snd SYN,ACK", "3.10.7.2",
         "The connection state should be changed to SYN-RECEIVED."),
    Move(tcp_state_t.LISTEN, tcp_state_t.CLOSED, "CLOSE", "3.10.4", "Delete TCB, enter CLOSED state, and return."),
    Move(tcp_state_t.SYN_SENT, tcp_state_t.SYN_RECEIVED, "rcv SYN, snd SYN,ACK", "3.10.7.3",
         "Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment [...] and send it."),
    Move(tcp_state_t.SYN_SENT, tcp_state_t.ESTABLISHED, "rcv SYN,ACK, snd ACK", "3.10.7.3",
         "If SND.UNA > ISS (our SYN has been ACKed), change the connection state to ESTABLISHED."),
    Move(tcp_state_t.SYN_SENT, tcp_state_t.CLOSED, "CLOSE, rcv RST, ABORT, timeout", "3.10.7.3",
         "If the ACK was acceptable, then [...] drop the segment, enter CLOSED state, delete TCB, and return."),
    Move(tcp_state_t.SYN_RECEIVED, tcp_state_t.ESTABLISHED, "rcv ACK of SYN", "3.10.7.4",
         "If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state."),
    Move(tcp_state_t.SYN_RECEIVED, tcp_state_t.LISTEN, "rcv RST, timeout (passive OPEN)", "3.10.7.4",
         "If this connection was initiated with a passive OPEN [...], then return this connection to LISTEN state."),
    Move(tcp_state_t.SYN_RECEIVED, tcp_state_t.CLOSED, "rcv RST, ABORT, timeout (active OPEN)", "3.10.7.4",
         "In the active OPEN case, enter the CLOSED state and delete the TCB, and return."),
    Move(tcp_state_t.ESTABLISHED, tcp_state_t.FIN_WAIT_1, "CLOSE, snd FIN", "3.10.4",
         "Queue this until all preceding SENDs have been segmentized [...]. In any case, enter FIN-WAIT-1 state."),
    Move(tcp_state_t.ESTABLISHED, tcp_state_t.CLOSE_WAIT, "rcv FIN, snd ACK", "3.10.7.4",
         "SYN-RECEIVED STATE, ESTABLISHED STATE: Enter the CLOSE-WAIT state."),
    Move(tcp_state_t.ESTABLISHED, tcp_state_t.CLOSED, RESET, "3.10.7.4", RESET_WORDS),
    Move(tcp_state_t.FIN_WAIT_1, tcp_state_t.FIN_WAIT_2, "rcv ACK of FIN", "3.10.7.4",
         "If the FIN segment is now acknowledged, then enter FIN-WAIT-2 and continue processing in that state."),
    Move(tcp_state_t.FIN_WAIT_1, tcp_state_t.CLOSING, "rcv FIN, snd ACK", "3.10.7.4",
         "If our FIN has been ACKed [...]; otherwise, enter the CLOSING state."),
    Move(tcp_state_t.FIN_WAIT_1, tcp_state_t.CLOSED, RESET, "3.10.7.4", RESET_WORDS),
    Move(tcp_state_t.FIN_WAIT_2, tcp_state_t.TIME_WAIT, "rcv FIN, snd ACK", "3.10.7.4",
         "Enter the TIME-WAIT state. Start the time-wait timer, turn off the other timers."),
    Move(tcp_state_t.FIN_WAIT_2, tcp_state_t.CLOSED, RESET, "3.10.7.4", RESET_WORDS),
    Move(tcp_state_t.CLOSE_WAIT, tcp_state_t.LAST_ACK, "CLOSE, snd FIN", "3.10.4",
         "Queue this request until all preceding SENDs have been segmentized; then send a FIN segment, enter LAST-ACK "
         "state."),
    Move(tcp_state_t.CLOSE_WAIT, tcp_state_t.CLOSED, RESET, "3.10.7.4", RESET_WORDS),
    Move(tcp_state_t.CLOSING, tcp_state_t.TIME_WAIT, "rcv ACK of FIN", "3.10.7.4",
         "If the ACK acknowledges our FIN, then enter the TIME-WAIT state; otherwise, ignore the segment."),
    Move(tcp_state_t.CLOSING, tcp_state_t.CLOSED, RESET, "3.10.7.4", RESET_WORDS),
    Move(tcp_state_t.LAST_ACK, tcp_state_t.CLOSED, "rcv ACK of FIN, rcv RST, timeout", "3.10.7.4",
         "If our FIN is now acknowledged, delete the TCB, enter the CLOSED state, and return."),
    Move(tcp_state_t.TIME_WAIT, tcp_state_t.CLOSED, "2 MSL, rcv RST, a new SYN", "3.10.8",
         "If the time-wait timeout expires on a connection, delete the TCB, enter the CLOSED state, and return."),
)

cdef uint16_t _legal[STATE_COUNT]           # bit `after` of _legal[before]; written here, read everywhere
for _before in range(STATE_COUNT):
    _legal[_before] = 0
for _move in MOVES:
    _legal[_move.before] |= 1 << _move.after


cdef bint move_is_legal(tcp_state_t before, tcp_state_t after) noexcept nogil:
    return _legal[<int>before] >> after & 1


def state_name(int state) -> str:
    """The RFC's spelling, with hyphens: 4 gives 'ESTABLISHED', 5 'FIN-WAIT-1'."""
    return tcp_state_t(state).name.replace("_", "-")

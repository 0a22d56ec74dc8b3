# SPDX-License-Identifier: MIT
# The states of RFC 9293 section 3.3.2, the moves between them, and what ICMP errors end them with.
#
# Who moves a connection: moves.pxd. Below: application. Above: tcb, everybody.

from libc.stdint cimport uint8_t

from ustack.application cimport (
    CLOSE_ABORTED, CLOSE_HOST_DOWN, CLOSE_HOST_ISOLATED, CLOSE_HOST_UNREACHABLE, CLOSE_KEEPALIVE, CLOSE_NET_PROHIBITED,
    CLOSE_NET_UNREACHABLE, CLOSE_NO_MEMORY, CLOSE_NORMAL, CLOSE_PARAMETER_PROBLEM, CLOSE_PROHIBITED,
    CLOSE_PROTOCOL_UNREACHABLE, CLOSE_REFUSED, CLOSE_RESET, CLOSE_SOURCE_ROUTE_FAILED, CLOSE_TIME_EXCEEDED,
    CLOSE_TIMEOUT, close_reason_t)

cpdef enum tcp_state_t:
    CLOSED = 0
    LISTEN
    SYN_SENT
    SYN_RECEIVED
    ESTABLISHED
    FIN_WAIT_1
    FIN_WAIT_2
    CLOSE_WAIT
    CLOSING
    LAST_ACK
    TIME_WAIT

cdef enum:
    STATE_COUNT = TIME_WAIT + 1

# Is the move in the table (state.pyx)?
cdef bint move_is_legal(tcp_state_t before, tcp_state_t after) noexcept nogil


# The reason for which a connection ends when this ICMP error is why. The table is RFC 1122 section 3.2.2.1 and RFC 1812
# section 5.2.7.1; errors.py gives each reason the errno that Linux gives the code (icmp_err_convert). 3/4 has none.
cdef inline close_reason_t reason_of_icmp(uint8_t type, uint8_t code) noexcept nogil:
    if type == 11:
        return CLOSE_TIME_EXCEEDED
    if type == 12:
        return CLOSE_PARAMETER_PROBLEM
    if code == 0 or code == 6 or code == 11:
        return CLOSE_NET_UNREACHABLE
    if code == 2:
        return CLOSE_PROTOCOL_UNREACHABLE
    if code == 3:
        return CLOSE_REFUSED
    if code == 5:
        return CLOSE_SOURCE_ROUTE_FAILED
    if code == 7:
        return CLOSE_HOST_DOWN
    if code == 8:
        return CLOSE_HOST_ISOLATED
    if code == 9:
        return CLOSE_NET_PROHIBITED
    if code == 10 or 13 <= code <= 15:
        return CLOSE_PROHIBITED
    return CLOSE_HOST_UNREACHABLE

# SPDX-License-Identifier: MIT
# The states of RFC 9293 section 3.3.2, the moves between them, and the reasons a connection ends for.
#
# Who moves a connection: moves.pxd. Below: nothing. Above: tcb, everybody.

from libc.stdint cimport uint8_t

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

cpdef enum close_reason_t:
    CLOSE_NORMAL = 0         # both FINs were exchanged (MUST-12)
    CLOSE_RESET              # the peer sent RST
    CLOSE_REFUSED            # RST in answer to our SYN, or ICMP 3/3
    CLOSE_TIMEOUT            # R2: no answer to data or to a SYN
    CLOSE_KEEPALIVE          # no answer to keep-alive probes
    CLOSE_NET_UNREACHABLE    # no route of ours; or ICMP 3/0, 3/6, 3/11
    CLOSE_ABORTED            # we sent RST: the application asked, or data came after its close (SHLD-3)
    CLOSE_NO_MEMORY          # a bound of this stack was reached
    # What the network said of our segments (ICMP type/code): at once if it is hard and the connection is being opened,
    # otherwise when the connection has timed out after it was said.
    CLOSE_HOST_UNREACHABLE   # 3/1, 3/12; or nobody answers ARP for the next hop
    CLOSE_PROTOCOL_UNREACHABLE  # 3/2
    CLOSE_SOURCE_ROUTE_FAILED   # 3/5
    CLOSE_HOST_DOWN          # 3/7
    CLOSE_HOST_ISOLATED      # 3/8
    CLOSE_NET_PROHIBITED     # 3/9
    CLOSE_PROHIBITED         # 3/10, 3/13, 3/14, 3/15: a filter on the way
    CLOSE_TIME_EXCEEDED      # 11
    CLOSE_PARAMETER_PROBLEM  # 12


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

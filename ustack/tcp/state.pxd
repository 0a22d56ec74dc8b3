# SPDX-License-Identifier: MIT
# The states of RFC 9293 section 3.3.2 and the reasons a connection ends for.

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

cpdef enum close_reason_t:
    CLOSE_NORMAL = 0         # both FINs were exchanged (MUST-12)
    CLOSE_RESET              # the peer sent RST
    CLOSE_REFUSED            # RST in answer to our SYN
    CLOSE_TIMEOUT            # R2: no answer to data or to a SYN
    CLOSE_KEEPALIVE          # no answer to keep-alive probes
    CLOSE_UNREACHABLE        # a hard ICMP error (SHLD-26)
    CLOSE_ABORTED            # we sent RST: the application asked, or data came after its close (SHLD-3)
    CLOSE_NO_MEMORY          # a bound of this stack was reached

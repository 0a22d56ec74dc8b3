# SPDX-License-Identifier: MIT
# The path MTU of one connection: RFC 1191, with the checks of RFC 5927 section 7.
#
# A connection begins with the MTU of its first hop (DF is set). A router to which a datagram is too big says so:
#
#     claim ──┬── not smaller, or while the connection is being opened     refused, counted
#             ├── a segment of the present size has been acknowledged      kept: it counts if the retransmission timer
#             │                                                            fires before the byte that it quotes is
#             │                                                            acknowledged (RFC 5927 section 7.2)
#             │   or PROMPT_CLAIMS were acted on at once already
#             └── neither: the first flights                               acted on at once
#
# What a claim can do is bounded: segments never become smaller than MINIMUM_PATH_MTU allows; below it DF is cleared
# and routers may fragment, as Linux does (its min_pmtu). After config.path_mtu_expires_ns the size is as before and DF
# is set again (RFC 1191 section 6.3); if it is still too big a router will say so.
#
# It keeps a path_t (in extra_t, tcb.pxd) only while the size is reduced or a claim waits. It knows one connection, not
# destinations: a claim that an attacker gets through reaches nobody else. It must not: send, or say what is sent again
# (network_errors and timers do). Above: network_errors, timers, output, ack. Below: tcb, control.

from libc.stdint cimport uint16_t, uint32_t

from ustack.tcp.records.tcb cimport path_at, path_t, tcb_t, tcp_t

cdef enum:
    MINIMUM_PATH_MTU = 552                  # what Linux takes: 512 bytes of data and both headers without options
    # Reductions of one connection until the size is full again that send what is in flight again at once. More narrow
    # links than this do not follow each other; somebody who claims one byte less each time would have a window sent
    # again for each message, without an ACK.
    PROMPT_CLAIMS = 4

# A fragmentation-needed about a datagram of ours of quoted_bytes, at `seq`, in flight. mtu: 0 from a router without RFC
# 1191. True: segments are smaller now, and what is in flight must be sent again.
cdef bint path_claimed(tcp_t *tcp, tcb_t *tcb, uint16_t mtu, uint32_t quoted_bytes, uint32_t seq) noexcept nogil
# The retransmission timer has fired, nothing has been sent again yet: a claim that waits for this is acted on.
cdef void path_timed_out(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# SND.UNA has moved: a claim about what is acknowledged was false. Only with tcb.extra.
cdef void path_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Back to the full size when it is time. Only with tcb.extra.
cdef void path_refresh(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The IPv4 identification of the connection's next datagram without DF.
cdef uint16_t path_identification(tcp_t *tcp, const tcb_t *tcb) noexcept nogil


# True: DF must be clear.
cdef inline bint path_fragments(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return tcb.extra != 0 and path_at(tcp, tcb.extra).may_fragment

# SPDX-License-Identifier: MIT
# Every event that the stack counts, by name, in one array per engine.
#
# A frame that is not used is counted under exactly one DROP_* reason, so that frames_in = used + sum(drops)
# can be checked by a test. The names (obs, --json-stats, tests) are made from this one enum.

from libc.stdint cimport uint64_t

cpdef enum counter_t:
    # -- what came and went
    FRAMES_IN
    BYTES_IN
    FRAMES_OUT
    BYTES_OUT
    TX_RING_FULL                # a reservation was refused; the work was kept and tried again
    ARP_REQUESTS_OUT
    ARP_REPLIES_OUT
    ARP_CONFLICTS               # another station claims our address (RFC 5227)
    ARP_CONFLICTS_UNANSWERED    # of these: too many other addresses of ours have been defended just now
    ICMP_ECHOES_ANSWERED
    ICMP_ERRORS_OUT
    PATH_MTU_REDUCED            # segments of a connection became smaller
    PATH_MTU_DEFERRED           # a claim that progress contradicts: it waits for a retransmission timeout
    PATH_MTU_RAISED             # segments became larger: a reduction was forgotten after its time, or a probe arrived
    MTU_PROBES                  # segments larger than those before, sent to see whether the path takes them
    MTU_PROBES_LOST             # ... that did not arrive
    BLACK_HOLES                 # full segments stopped getting through, and nobody said why: they became smaller
    ICMP_SOFT_ERRORS            # an ICMP error about a segment in flight, remembered with its connection
    SEGMENTS_IN
    SEGMENTS_OUT
    SEGMENTS_GATHERED           # super-frames whose data went to the link from where it lies, uncopied
    RESETS_OUT
    CHALLENGE_ACKS_OUT
    CHALLENGE_ACKS_LIMITED      # not sent: the allowance per second for all connections is spent (RFC 5961 section 7)
    CHALLENGE_ACKS_PEER_LIMITED     # not sent: what one peer may have of it is spent
    CORRECTIVE_ACKS_LIMITED     # not sent: the connection was corrected or challenged a moment ago, or as above
    PURE_ACKS_OUT
    # -- life of connections
    CONNECTIONS_ACCEPTED
    CONNECTIONS_OPENED
    CANDIDATES_TAKEN            # pairs of our address and a port that active opens looked at and found in use
    CONNECTIONS_CLOSED
    CONNECTIONS_RESET
    CONNECTIONS_TIMED_OUT
    CONNECTIONS_UNREACHABLE     # ended for what ICMP said, or without a route
    SYN_QUEUE_EVICTED           # the oldest half-open record made room for a new one
    SYN_COOKIES_SENT
    SYN_COOKIES_ACCEPTED        # became a connection
    SYN_COOKIES_REFUSED         # an ACK that proves none while some are out: forged, too old, not the first segment
    SYN_COOKIES_REFUSED_ECHO    # one of ours, with a timestamp echo that is not of its time
    SYN_COOKIES_REFUSED_SPENT   # one of ours that has been a connection already
    ORPHANS_TIMED_OUT           # closed by the application, then not answered by the peer
    ORPHANS_REFUSED             # closed with a RST: max_orphans others wait for their peers
    BACKLOGS                    # times that new connections began to be refused: too many frames waited in the link
    ACCEPT_QUEUE_OVERFLOW       # the last ACK of a handshake was ignored: the backlog is full
    TIME_WAIT_REUSED            # a new SYN took over a TIME-WAIT record (RFC 6191)
    ACCEPTS_WITHOUT_MEMORY      # reset: its application had no memory for a new connection
    # -- applications that need Python
    HAND_OVERS                  # turns in which one was handed its events: each takes the GIL once
    HAND_OVERS_AT_RETURN        # ... what came later, when the call that made the turn returned: it has the GIL by then
    EVENTS_HANDED_OVER          # in both. Events of one kind of one connection are one
    # -- loss and repair
    SEGMENTS_RETRANSMITTED      # frames that carried something again, for whatever cause
    FAST_RETRANSMITS            # fast recoveries: RACK, or three duplicate ACKs, found a loss
    RETRANSMIT_TIMEOUTS
    RETRANSMITTED_FAST          # of segments_retransmitted: in fast recovery
    RETRANSMITTED_RTO           # ... after a timeout
    RETRANSMITTED_PROBE         # ... as a tail loss probe (RFC 8985 section 7)
    TAIL_PROBES_OUT             # tail loss probes, of new data, too
    TAIL_PROBE_REPAIRS          # losses that a probe alone has repaired
    RETRANSMITS_LOST            # segments sent again that were lost again
    REPAIRS_UNDONE              # nothing was lost: the window is as before (Eifel, DSACK)
    TIMEOUTS_UNDONE             # ... after a timeout (F-RTO, too)
    DSACKS_IN                   # the peer reports that it had received something twice (RFC 2883)
    SACK_RENEGED_IN             # a peer has dropped what it had SACKed: all of it is sent again
    SACK_BLOCKS_IGNORED         # blocks beyond what was sent, or below SND.UNA and no duplicates of ours
    TRANSMISSIONS_REFUSED       # no record for a frame in flight, or for a part of one
    TRANSMISSION_STEPS          # records looked at in the trees of flights: a few for each SACK block and each frame
    WINDOW_PROBES_OUT
    WINDOW_OVERRIDES            # one segment into a window too small for a full one (RFC 9293 section 3.8.6.2.1)
    SEND_PIECES_SKIPPED         # pieces of a send queue that were walked over to find what to send
    KEEPALIVE_PROBES_OUT
    DUPLICATE_ACKS_IN
    OUT_OF_ORDER_IN             # kept for reassembly
    REASSEMBLY_STEPS            # runs looked at for that: a few for each segment, in whatever order they come
    SACK_RENEGED                # a connection's data beyond a hole was given up: receive memory was full
    CONTROLS_REPLACED           # no record for a connection's congestion control: it got the first one instead
    HOLDERS_ENDED               # took next to nothing of what waited for them while connections ran short
    CONNECTIONS_MEMORY_ABORTED  # held much unread data for long while receive memory was full
    WINDOWS_GROWN               # a connection's receive window was made larger (receive/autotune)
    TIMESTAMPS_MISSING_IN       # taken without the timestamps that were agreed on
    ECN_AGREED                  # connections that use ECN (RFC 3168), in both directions or as a receiver
    CE_IN                       # segments with data that arrived marked Congestion Experienced, and were reported
    ECE_IN                      # ... ACKs that report such marks of what we have sent
    CWR_IN                      # ... data of a peer that has slowed down
    CWR_OUT
    ECN_REDUCTIONS              # congestion windows that became smaller for a mark
    ECN_IGNORED_IN              # a mark, ECE or CWR where none can be: not agreed on, or on a segment without data
    ACCECN_AGREED               # ... of them those that count marks (RFC 9768)
    ACCECN_MARKS_IN             # segments of ours that such peers report as marked
    ACCECN_STOPPED              # their data asks for no marks any more, or reports are not believed: the path lies
    ACCECN_OPTIONS_IGNORED_IN   # AccECN options that were zeroed, or whose counters went back
    ACCECN_OPTIONS_ENDED        # connections that send no AccECN options any more: none of them gets through
    URGENT_NO_RECORD            # an urgent pointer that nobody was told of: no record for it (config.extra_records)
    ACCECN_NO_RECORD            # agreed on, but no record for it: neither marks nor reports (config.extra_records)
    ACCECN_MIXED_RESETS         # handshakes that offered both RFC 3168 and RFC 9768
    SYN_FIN_IN                  # a SYN with a FIN opened a connection; the FIN has to come again
    # -- drops, link and Ethernet
    DROP_FRAME_TRUNCATED
    DROP_NOT_FOR_US             # another station's frame, or another host's packet
    DROP_ETHERTYPE_UNKNOWN
    DROP_VLAN                   # tagged for another network than the untagged one
    # -- drops, ARP
    DROP_ARP_MALFORMED
    DROP_ARP_NOT_FOR_US
    # -- drops, IPv4 and ICMP
    DROP_IP_TRUNCATED
    DROP_IP_VERSION
    DROP_IP_HEADER_LENGTH
    DROP_IP_TOTAL_LENGTH
    DROP_IP_CHECKSUM
    DROP_IP_OPTION
    DROP_IP_SOURCE              # a source that no host can have (RFC 1122 section 3.2.1.3)
    DROP_IP_FRAGMENT
    DROP_IP_PROTOCOL            # no such transport here
    DROP_ICMP_TRUNCATED
    DROP_ICMP_CHECKSUM
    DROP_ICMP_TYPE
    DROP_ICMP_NO_CONNECTION     # an error about a segment that no connection sent
    DROP_ICMP_PATH_MTU          # a path MTU that is not smaller, or that an ACK has proved false
    DROP_NEIGHBOUR_UNRESOLVED   # sent, but the neighbour never answered, or its queue was full
    DROP_NO_ROUTE
    # -- drops, TCP
    DROP_TCP_TRUNCATED
    DROP_TCP_DATA_OFFSET
    DROP_TCP_CHECKSUM
    DROP_TCP_OPTION             # an option with an impossible length (MUST-7)
    DROP_TCP_FLAGS              # no ACK where one is due, or a combination that no TCP sends
    DROP_TCP_NO_LISTENER        # answered with a RST
    DROP_TCP_BROADCAST          # a SYN to or from a broadcast or multicast address (MUST-57, MUST-63)
    DROP_TCP_SEQUENCE           # outside of the receive window
    DROP_TCP_PAWS
    DROP_TCP_ACK                # acknowledges what was never sent, or too old
    DROP_TCP_RST                # a RST that did not match (RFC 5961 section 3)
    DROP_TCP_SYN                # a SYN inside a synchronized connection (RFC 5961 section 4)
    DROP_TCP_AFTER_CLOSE        # data for a connection that its application has closed
    DROP_TCP_AFTER_FIN          # text, or another FIN, beyond the peer's own FIN
    DROP_TCP_DUPLICATE          # everything in it had been received
    DROP_TCP_DEFERRED           # the end of a handshake whose listener waits for data (TCP_DEFER_ACCEPT)
    DROP_TCP_REASSEMBLY_FULL    # beyond a hole, and the connection's share of memory or its runs are used up
    DROP_TCP_SYN_QUEUE
    DROP_TCP_BACKLOG            # a SYN, while too many frames wait in the link; answered with a RST or with nothing
    DROP_TCP_FORGOTTEN          # may acknowledge a SYN cookie of ours, and does not prove it: not answered
    DROP_NO_MEMORY
    COUNTER_COUNT


ctypedef struct counters_t:
    uint64_t value[COUNTER_COUNT]


cdef inline void count(counters_t *counters, counter_t which) noexcept nogil:
    counters.value[<int>which] += 1


cdef inline void count_add(counters_t *counters, counter_t which, uint64_t amount) noexcept nogil:
    counters.value[<int>which] += amount


cdef dict counters_as_dict(const counters_t *counters)

# SPDX-License-Identifier: MIT
# The path MTU of one connection: what routers say (RFC 1191, with the checks of RFC 5927 section 7), and what the
# connection finds out by itself where they say nothing (RFC 4821, with RFC 8899 where it is more precise).
#
# A connection begins with the MTU of its first hop (DF is set). A router to which a datagram is too big says so:
#
#     claim ──┬── not smaller, or while the connection is being opened     refused, counted
#             ├── about a probe, and between SMSS and its size             kept: it counts if the probe is lost
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
# Where the router is silent, or what it says is filtered, full segments vanish and small ones arrive: a black hole (RFC
# 2923 section 2.1). With config.mtu_probing:
#
#     the segment at SND.UNA was sent again R1 times, and the timer fires: segments become as small as
#         config.mtu_probe_base_bytes says or, if it was no larger than that, half of it, never less than
#         MINIMUM_PATH_MTU (RFC 4821 section 7.7); what is lost goes again in such
#     then, upwards from SMSS, which is both search_low and eff_pmtu (section 7.1):
#
#     enough data, room, ──▶ probe: new data in one ──┬─▶ acknowledged, sent once: SMSS is its size
#     nothing lost (7.4)     segment of the size          ├─▶ it alone is lost: search_high is below it (7.6.2). No sign
#          ▲                 in question (7.5)            │   of congestion; the next one waits until congestion would
#          │                                              │   have caused a loss (probe_wait_ns)
#          └──────────────────────────────────────────────┴─▶ other losses beside it, a timeout, sent again before its
#                                                             fate was known: nothing (7.6.4), PROBE_TRIES times
#     the size: first search_high itself, because an outage looks like a black hole, and a path that has become wide
#         again is found with one probe; then the middle, until less than SEARCH_GAP is left (7.3)
#     the search rests for config.path_mtu_expires_ns and begins with full_smss again; at full_smss it is forgotten
#
# Sizes are of whole packets, IP and TCP headers and the options of every segment included (RFC 4821 section 5.1).
#
# It keeps a path_t (in extra_t, tcb.pxd) only while the size is reduced, searched, or a claim waits. It knows one
# connection, not destinations: a claim that an attacker gets through reaches nobody else, and a peer that lies about a
# probe gets segments that do not arrive, or small ones. It must not: send, or say what is sent again (network_errors,
# timers and output do). Above: network_errors, timers, output, ack, rack, repair. Below: tcb, flight, control.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.ip.layer cimport ip_header_bytes
from ustack.tcp.records.sockopts cimport OWN_FRAGMENTS, sockopts_flags
from ustack.tcp.records.tcb cimport PATH_PROBE_LOST, path_at, path_t, tcb_header_bytes, tcb_t, tcp_t

cdef enum:
    MINIMUM_PATH_MTU = 552                  # what Linux takes: 512 bytes of data and both headers without options
    # Reductions of one connection until the size is full again that send what is in flight again at once. More narrow
    # links than this do not follow each other; somebody who claims one byte less each time would have a window sent
    # again for each message, without an ACK.
    PROMPT_CLAIMS = 4
    BLACK_HOLE_RETRANSMISSIONS = 3          # R1 (RFC 9293 SHLD-10), which RFC 4821 section 7.7 names for this
    SEARCH_GAP = 8                          # Linux's tcp_probe_threshold
    PROBE_TRIES = 3                         # RFC 8899 section 5.1.2: MAX_PROBES
    PROBE_FOLLOWERS = 3                     # segments behind a probe, so that its loss is found without a timeout

cdef enum mtu_probing_t:
    MTU_PROBING_OFF = 0
    MTU_PROBING_SUSPECTED = 1
    MTU_PROBING_ALWAYS = 2

# A fragmentation-needed about a datagram of ours of quoted_bytes, at `seq`, in flight. mtu: 0 from a router without RFC
# 1191. True: segments are smaller now, and what is in flight must be sent again.
cdef bint path_claimed(tcp_t *tcp, tcb_t *tcb, uint16_t mtu, uint32_t quoted_bytes, uint32_t seq) noexcept nogil
# The retransmission timer has fired, nothing has been marked or sent again yet: a claim that waits for this is acted
# on; or it is a black hole.
cdef void path_timed_out(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# SND.UNA has moved: a claim about what is acknowledged was false, a probe has its answer. Only with tcb.extra.
cdef void path_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Back to the full size, or on with the search, when it is time. Only with tcb.extra.
cdef void path_refresh(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The IPv4 identification of the connection's next datagram without DF.
cdef uint16_t path_identification(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Search from the first segment (MTU_PROBING_ALWAYS), of a connection that is just being established.
cdef void path_search(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Bytes of data in the probe that should be sent next, as soon as there is room for it; 0: none. Only with tcb.extra.
cdef uint32_t path_probe_due(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# A probe is about to be sent at SND.NXT; it was; it was not.
cdef void path_probe_begin(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil
cdef void path_probe_sent(tcp_t *tcp, tcb_t *tcb, uint32_t index) noexcept nogil
cdef void path_probe_cancel(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Its record has been found lost (TX_SIZE_PROBE). Whether the probe was, shows when what it carried is acknowledged.
cdef void path_probe_lost(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# Bytes from `seq` go again. True: they are a lost probe's. Only with tcb.extra.
cdef bint path_resent(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil


# True: DF must be clear.
cdef inline bint path_fragments(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return tcb.extra != 0 and (path_at(tcp, tcb.extra).may_fragment or sockopts_flags(tcp, tcb) & OWN_FRAGMENTS)


# Bytes of a full packet: RFC 4821's eff_pmtu.
cdef inline uint32_t path_mtu(const tcb_t *tcb) noexcept nogil:
    return tcb.smss + ip_header_bytes(&tcb.key.raddr) + tcb_header_bytes(tcb)


# A segment at SND.NXT: the probe, which goes alone and whole. Only with tcb.extra.
cdef inline bint path_is_probe(const tcp_t *tcp, const tcb_t *tcb, uint32_t seq) noexcept nogil:
    return (path_at(tcp, tcb.extra).probe_bytes != 0 and seq == tcb.snd_nxt
            and seq == path_at(tcp, tcb.extra).probe_seq)


# What it carried is sent again, or waits for that. Only with tcb.extra.
cdef inline bint path_probe_is_lost(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return path_at(tcp, tcb.extra).flags & PATH_PROBE_LOST


# ---------------------------------------------------------------- the search, in plain numbers

# The packet to try next between low, which arrives, and high, which may; 0: what is left is not worth it.
cdef inline uint32_t search_size(uint32_t low, uint32_t high, bint top_first) noexcept nogil:
    if high <= low or (high - low <= SEARCH_GAP and not top_first):
        return 0
    return high if top_first else low + (high - low + 1) // 2


# RFC 4821 section 7.7: what to send where packets of so many bytes do not arrive.
cdef inline uint32_t black_hole_size(uint32_t packet_bytes, uint32_t base) noexcept nogil:
    cdef uint32_t size = base if packet_bytes > base else packet_bytes // 2
    return size if size > MINIMUM_PATH_MTU else MINIMUM_PATH_MTU


# Section 7.6.2: after a loss that was not taken for congestion MUST NOT come another one before congestion would have
# caused one, under standard congestion control: in as many round trips as the window has segments, its simplest
# estimate; or, if that is sooner, in the time K after which CUBIC is back where it was (RFC 9438 section 4.2: the cube
# root of W * (1 - beta) / C seconds, here of 0.75 * W), so that a window of thousands does not end the search.
cdef inline uint64_t probe_wait_ns(uint32_t cwnd, uint32_t smss, uint32_t srtt_us) noexcept nogil:
    cdef uint64_t segments = cwnd // smss + 1, cube = 750000000 * segments, k_ms = 0, bit = 1 << 20
    cdef uint64_t rounds_ns = segments * srtt_us * 1000
    while bit:
        if (k_ms + bit) * (k_ms + bit) * (k_ms + bit) <= cube:
            k_ms += bit
        bit >>= 1
    return rounds_ns if rounds_ns < k_ms * 1000000 else k_ms * 1000000

# SPDX-License-Identifier: MIT
# SYN cookies (RFC 4987 section 3.6): a handshake of which nothing is kept until its third segment comes.
#
# A half-open record costs memory, a timer, and for a minute a place that somebody else might need. While all places are
# taken (config.syn_cookies: never, then, or always), what the record would have said travels with the SYN-ACK and comes
# back with the segment that acknowledges it:
#
#     our ISN, back as SEG.ACK - 1        31         22 21                    3 2     0
#                                         +------------+-----------------------+-------+
#                                         | slot, veiled|         proof         |  MSS  |
#                                         +------------+-----------------------+-------+
#     our TSval, back as TSecr            31                           6 5 4 3         0
#     (only if the peer offers            +-----------------------------+-+-+-----------+
#     timestamps: RFC 7323)               |       timestamp clock       |E|S| its shift |   shift 15: no window scale
#                                         +-----------------------------+-+-+-----------+
#
# slot    time in steps of 17.2 s. A cookie is good for its own slot and the two after it: 34 to 52 s
# veil    a keyed hash of the 4-tuple, added to the slot: who has not seen the SYN-ACK does not know which value is
#         right. It does not depend on the peer's ISN, so it also tells an ACK of what we have lately sent, whose proof
#         does not fit (the peer's second segment came before its first), from an ACK of nothing
# proof   a keyed hash of the veil, the peer's ISN, the slot, and all that is said in either number: nothing of it can
#         be changed, and it fits this handshake alone
# MSS     the largest value of a table that is not above the peer's
#
# Of 2^32 numbers 24 are right at one time, eight values of MSS in three slots: a blind guess has one chance in 179
# million. The key is another one every 69 s, made of the secret by the number of that time.
#
# E, S    ECN (RFC 3168) and SACK are agreed on. Accurate ECN needs no bit, and no timestamps: the ACE field of the
#         third segment tells (RFC 9768 section 5.1)
#
# What it costs the peer in a flood: without timestamps there is no window scaling, no SACK and no classic ECN, the SYN-
# ACK is not sent again by ourselves, and of its MSS up to 11 % is lost. So records come first, and no record makes room
# for another: a flood that fills the queue can not push out who is in it.
#
# A third segment that comes again after its connection has ended must not open a second one. So the cookies that have
# become connections are remembered, in four bytes each, the latest few thousand of them; one that was sent costs
# nothing.
#
# Above: opening. Below: tcb, base/prng. Read first: RFC 4987 section 3.6 and appendix A, RFC 7323 section 5.4.

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.tcb cimport flow_key_t, syn_received_t, tcp_t
from ustack.wire.tcp cimport segment_t

cdef enum:
    # config.syn_cookies
    SYN_COOKIES_OFF = 0
    SYN_COOKIES_UNDER_PRESSURE = 1
    SYN_COOKIES_ALWAYS = 2

cdef enum cookie_t:
    COOKIE_NONE             # SEG.ACK acknowledges nothing that we have sent lately, or what has become a connection
    COOKIE_UNPROVED         # it may well acknowledge a cookie of ours, but this segment does not prove it
    COOKIE_RIGHT

cdef enum:
    COOKIE_SLOT_SHIFT = 34  # of nanoseconds: 17.2 s
    COOKIE_SLOTS = 3        # for which one is good

# Turn syn, what a half-open record of this SYN would be, into one with a cookie: its ISS, and the SYN-ACK's TSval.
cdef uint32_t cookie_make(tcp_t *tcp, syn_received_t *syn) noexcept nogil
# An ACK without SYN and RST for which there is no record, or one with another ISS. At most four hashes; counts what it
# refuses. COOKIE_RIGHT: syn is the record that the handshake would have had.
cdef cookie_t cookie_check(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, syn_received_t *syn) noexcept nogil
# The one that was found right last has become a connection: the same segment opens no second one.
cdef void cookie_spend(tcp_t *tcp) noexcept nogil


# A SYN would get one now.
cdef inline bint cookies_wanted(const tcp_t *tcp) noexcept nogil:
    return tcp.config.syn_cookies == SYN_COOKIES_ALWAYS or (
        tcp.config.syn_cookies == SYN_COOKIES_UNDER_PRESSURE and tcp.syns.in_use >= tcp.syns.limit)


# One that was sent may still be good.
cdef inline bint cookies_out(const tcp_t *tcp) noexcept nogil:
    return tcp.cookies.sent and tcp.now_ns - tcp.cookies.sent_ns <= <uint64_t>COOKIE_SLOTS << COOKIE_SLOT_SHIFT

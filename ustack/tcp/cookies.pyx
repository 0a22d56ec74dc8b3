# SPDX-License-Identifier: MIT
"""SYN cookies: made, checked, spent. See cookies.pxd for what is in one, and the sources."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from ustack.base.counters cimport (
    SYN_COOKIES_REFUSED, SYN_COOKIES_REFUSED_ECHO, SYN_COOKIES_REFUSED_SPENT, SYN_COOKIES_SENT, count)
from ustack.base.prng cimport siphash24
from ustack.tcp.records.configuration cimport ecn_takes_accurate
from ustack.tcp.records.tcb cimport (
    OPT_ECN, OPT_SACK, OPT_TIMESTAMPS, OPT_WSCALE, syn_is_accurate, syn_peer_mss, syn_set_accurate, tcp_timestamp)
from ustack.wire.ipv4 cimport IPV4_ECN_NOT
from ustack.wire.tcp cimport HAS_TIMESTAMPS, segment_ace


cdef enum:
    EPOCH_SHIFT = 2                         # of slots: a key lasts for four
    VEIL_SHIFT = 22
    VEIL_MASK = 0x3FF
    MSS_BITS = 3
    PROOF_MASK = (1 << VEIL_SHIFT) - 1 - 7  # where the proof is in an ISN
    SAID_BITS = 6                           # of a TSval
    SAID_MASK = (1 << SAID_BITS) - 1
    SAID_WSCALE = 0x0F
    SAID_NO_WSCALE = 0x0F
    SAID_SACK = 0x10
    SAID_ECN = 0x20
    ECHO_MOST_MS = 52000                    # as long as a cookie is good
    SPENT = 4096                            # a power of two

# In common use are 1460 (Ethernet), 1440 (IPv6 on it), 1400 and 1360 (tunnels) and the defaults of both families, just
# above 1200 and 512; 8960 is for frames of 9000 bytes. The first is what opening takes at least (MINIMUM_MSS).
cdef uint16_t[8] MSS_TABLE = [64, 512, 1200, 1360, 1400, 1440, 1460, 8960]

ctypedef struct key_seed_t:                 # 16 bytes, hashed whole; nothing else that the secret hashes is as long
    uint64_t epoch
    uint64_t half

ctypedef struct proved_t:                   # 16 bytes, hashed whole
    uint64_t veil
    uint32_t irs
    uint16_t slot
    uint8_t mss_index
    uint8_t said                            # the low bits of the TSval; 0xFF: no timestamps


cdef inline const uint8_t *key_of(tcp_t *tcp, uint64_t epoch) noexcept nogil:
    """The key of four slots. Two are kept, of which a check may need both."""
    cdef uint32_t at = <uint32_t>epoch & 1
    cdef key_seed_t seed
    cdef uint64_t word
    cdef int half
    if tcp.cookies.epochs[at] != epoch + 1:
        seed.epoch = epoch
        for half in range(2):
            seed.half = half
            word = siphash24(tcp.secret, &seed, sizeof(seed))
            memcpy(&tcp.cookies.keys[at][8 * half], &word, 8)
        tcp.cookies.epochs[at] = epoch + 1
    return tcp.cookies.keys[at]


cdef inline uint64_t veil_of(const uint8_t *secret, const flow_key_t *key) noexcept nogil:
    return siphash24(secret, key, sizeof(flow_key_t))


cdef inline uint64_t proof_of(const uint8_t *secret, uint64_t veil, uint32_t irs, uint64_t slot, uint8_t mss_index,
                              uint8_t said) noexcept nogil:
    cdef proved_t proved
    proved.veil = veil
    proved.irs = irs
    proved.slot = <uint16_t>slot
    proved.mss_index = mss_index
    proved.said = said
    return siphash24(secret, &proved, sizeof(proved))


cdef inline uint32_t veiled(uint64_t slot, uint64_t veil) noexcept nogil:
    return <uint32_t>(slot + veil) & VEIL_MASK


cdef uint32_t cookie_make(tcp_t *tcp, syn_received_t *syn) noexcept nogil:
    cdef uint64_t slot = tcp.now_ns >> COOKIE_SLOT_SHIFT
    cdef const uint8_t *secret = key_of(tcp, slot >> EPOCH_SHIFT)
    cdef uint64_t veil = veil_of(secret, &syn.key)
    cdef uint8_t options = syn.options_wscale >> 4
    cdef uint8_t mss_index = 7
    cdef uint8_t said = 0xFF
    cdef uint32_t ts_val = tcp_timestamp(tcp)
    while mss_index > 0 and MSS_TABLE[mss_index] > syn_peer_mss(syn):
        mss_index -= 1
    if options & OPT_TIMESTAMPS:
        said = (syn.options_wscale & SAID_WSCALE) if options & OPT_WSCALE else SAID_NO_WSCALE
        if options & OPT_SACK:
            said |= SAID_SACK
        if options & OPT_ECN and not syn_is_accurate(syn):
            said |= SAID_ECN
        # Never ahead of the clock: what the connection says afterwards is not older (RFC 7323 section 4.1).
        ts_val = ((ts_val - said) & ~<uint32_t>SAID_MASK) | said
    else:
        syn.options_wscale = 0
    syn.iss = (veiled(slot, veil) << VEIL_SHIFT | mss_index
               | (<uint32_t>proof_of(secret, veil, syn.irs, slot, mss_index, said) & PROOF_MASK))
    tcp.cookies.sent = True
    tcp.cookies.sent_ns = tcp.now_ns
    count(tcp.counters, SYN_COOKIES_SENT)
    return ts_val


cdef inline uint32_t tag_of(uint64_t proof) noexcept nogil:
    cdef uint32_t tag = <uint32_t>(proof >> 32)
    return tag if tag != 0 else 1           # 0: empty


cdef inline uint32_t place_of(uint64_t proof) noexcept nogil:
    """Bits of the proof that neither the cookie nor the tag has."""
    return (<uint32_t>(proof >> VEIL_SHIFT) & 0x3FF) | (<uint32_t>proof & 3) << 10


cdef cookie_t cookie_check(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, syn_received_t *syn) noexcept nogil:
    cdef uint32_t cookie = seg.ack - 1
    cdef bint stamped = seg.has & HAS_TIMESTAMPS and tcp.config.timestamps
    cdef uint8_t mss_index = <uint8_t>(cookie & ((1 << MSS_BITS) - 1))
    cdef uint8_t said = <uint8_t>(seg.ts_ecr & SAID_MASK) if stamped else 0xFF
    cdef uint64_t slot = tcp.now_ns >> COOKIE_SLOT_SHIFT, epoch = 0, veil = 0, proof
    cdef const uint8_t *secret = NULL
    cdef cookie_t found = COOKIE_NONE
    cdef int _back
    if not cookies_out(tcp):
        return COOKIE_NONE
    for _back in range(COOKIE_SLOTS):
        if secret == NULL or slot >> EPOCH_SHIFT != epoch:
            epoch = slot >> EPOCH_SHIFT
            secret = key_of(tcp, epoch)
            veil = veil_of(secret, key)
        if cookie >> VEIL_SHIFT == veiled(slot, veil):
            found = COOKIE_UNPROVED
            proof = proof_of(secret, veil, seg.seq - 1, slot, mss_index, said)
            if (<uint32_t>proof & PROOF_MASK) == (cookie & PROOF_MASK):
                return proved(tcp, key, seg, proof, syn)
        if slot == 0:
            break
        slot -= 1
    count(tcp.counters, SYN_COOKIES_REFUSED)
    return found


cdef cookie_t proved(tcp_t *tcp, const flow_key_t *key, const segment_t *seg, uint64_t proof,
                     syn_received_t *syn) noexcept nogil:
    """It is ours, and of this handshake. What is left to ask: TSecr (RFC 7323 section 5.3), and whether it was used."""
    cdef bint stamped = seg.has & HAS_TIMESTAMPS and tcp.config.timestamps
    cdef uint8_t said = <uint8_t>(seg.ts_ecr & SAID_MASK)
    cdef uint8_t options = 0, shift = 0
    cdef uint32_t waited_ms = tcp_timestamp(tcp) - seg.ts_ecr
    if stamped and waited_ms > ECHO_MOST_MS + SAID_MASK:
        count(tcp.counters, SYN_COOKIES_REFUSED_ECHO)
        return COOKIE_UNPROVED
    if tcp.cookies.spent != NULL and tcp.cookies.spent[place_of(proof)] == tag_of(proof):
        count(tcp.counters, SYN_COOKIES_REFUSED_SPENT)
        return COOKIE_NONE
    memset(syn, 0, sizeof(syn_received_t))
    syn.key = key[0]
    syn.iss = seg.ack - 1
    syn.irs = seg.seq - 1
    syn.peer_mss = MSS_TABLE[syn.iss & ((1 << MSS_BITS) - 1)]
    if stamped:
        syn.ts_recent = seg.ts_val
        options = OPT_TIMESTAMPS
        if said & SAID_SACK:
            options |= OPT_SACK
        if said & SAID_ECN:
            options |= OPT_ECN
        if said & SAID_WSCALE != SAID_NO_WSCALE:
            options |= OPT_WSCALE
            shift = said & SAID_WSCALE
    # RFC 9768 section 5.1: nothing need be kept of its mode. Whoever is in it says so in the ACE of any segment, and
    # whoever is not says 0 or 1 there.
    if ecn_takes_accurate(&tcp.config) and not options & OPT_ECN and segment_ace(seg) > 1:
        options |= OPT_ECN
        syn_set_accurate(syn, IPV4_ECN_NOT)
    syn.options_wscale = <uint8_t>(options << 4 | shift)
    # Its upper bits are a clock, so this is no less than the round trip, and at most a tick and SAID_MASK more. Beyond
    # the initial RTO, where a record would have sent its SYN-ACK again, it is more likely that this is not the peer's
    # first segment.
    tcp.cookies.rtt_us = 0
    if stamped and waited_ms * 1000000ULL < tcp.config.rto_initial_ns:
        tcp.cookies.rtt_us = (waited_ms + 1) * 1000
    tcp.cookies.proof = proof
    return COOKIE_RIGHT


cdef void cookie_spend(tcp_t *tcp) noexcept nogil:
    if tcp.cookies.spent == NULL:
        tcp.cookies.spent = <uint32_t *>calloc(SPENT, sizeof(uint32_t))
        if tcp.cookies.spent == NULL:
            return                          # then it is good until its time is over
    tcp.cookies.spent[place_of(tcp.cookies.proof)] = tag_of(tcp.cookies.proof)

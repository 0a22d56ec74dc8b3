# SPDX-License-Identifier: MIT
"""The path MTU of one connection. See path.pxd for what a router's claim can do, and the sources."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from ustack.base.counters cimport (
    BLACK_HOLES, DROP_ICMP_PATH_MTU, DROP_NO_MEMORY, MTU_PROBES, MTU_PROBES_LOST, PATH_MTU_DEFERRED, PATH_MTU_RAISED,
    PATH_MTU_REDUCED, count)
from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_t
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.records.flight cimport (
    FLIGHT_PROBE, FLIGHT_PROBED, REPAIR_NONE, TX_SACKED, TX_SIZE_PROBE, flight_t, transmission_at, transmission_bytes,
    transmission_t)
from ustack.tcp.records.life cimport extra_make, extra_settle
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tcb cimport (
    PATH_PROBE_RESENT, PATH_SEARCHES, PATH_TOP_FIRST, TCB_MSS_PROVEN, TCB_PERSIST, extra_t)
from ustack.tcp.recovery.control cimport control_of, control_state, view_load, view_store
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.tcp.recovery.transmissions cimport flight_of
from ustack.wire.seq cimport seq_ge, seq_gt, seq_lt


cdef enum:
    LOWEST_MTU = 68                         # RFC 791: every link carries this
    PLATEAUS = 8
    ROUNDS = 4
    UNMEASURED_US = 1000000                 # a round trip that nobody has measured: RFC 6298 (2.1)

# RFC 1191 section 7.1, table 7-1. The last is below MINIMUM_PATH_MTU already.
cdef uint16_t[PLATEAUS] PLATEAU = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508]


cdef inline uint16_t plateau_below(uint32_t quoted_bytes) noexcept nogil:
    """Section 5: a router that names no MTU. The next lower common one."""
    cdef int i
    for i in range(PLATEAUS):
        if PLATEAU[i] < quoted_bytes:
            return PLATEAU[i]
    return LOWEST_MTU


cdef inline path_t *path_of(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """What its path has said, beginning now if need be; NULL without memory."""
    cdef extra_t *extra = extra_make(tcp, tcb)
    if extra == NULL:
        count(tcp.counters, DROP_NO_MEMORY)
        return NULL
    if extra.path.full_smss == 0:
        extra.path.full_smss = tcb.smss
    return &extra.path


cdef inline uint32_t overhead_bytes(const tcb_t *tcb) noexcept nogil:
    return path_mtu(tcb) - tcb.smss


cdef inline uint16_t smss_for(const tcb_t *tcb, uint32_t mtu) noexcept nogil:
    cdef uint16_t smss = <uint16_t>((mtu if mtu > MINIMUM_PATH_MTU else MINIMUM_PATH_MTU) - overhead_bytes(tcb))
    return smss if smss < tcb.smss else tcb.smss


cdef void resize(tcp_t *tcp, tcb_t *tcb, uint16_t smss) noexcept nogil:
    """The new size has proved nothing yet, and the congestion window counts in it."""
    cdef const cc_ops_t *ops = control_of(tcp, tcb)
    cdef cc_view_t view
    cdef uint16_t old = tcb.smss
    tcb.smss = smss
    tcb.flags &= ~TCB_MSS_PROVEN
    view_load(tcp, tcb, &view)
    ops.on_mtu(control_state(tcp, tcb, ops), &view, old)
    view_store(tcb, &view)


# ---------------------------------------------------------------- what routers say

cdef void reduce(tcp_t *tcp, tcb_t *tcb, path_t *path, uint16_t mtu) noexcept nogil:
    forget_probe(path)
    path.claimed_mtu = 0
    if path.reductions < PROMPT_CLAIMS:
        path.reductions += 1
    path.raise_at_ns = tcp.now_ns + tcp.config.path_mtu_expires_ns
    if mtu < MINIMUM_PATH_MTU:
        path.may_fragment = 1
    resize(tcp, tcb, smss_for(tcb, mtu))
    if path.flags & PATH_SEARCHES:
        path.search_high = <uint16_t>path_mtu(tcb)
        path.flags &= <uint8_t>~PATH_TOP_FIRST
    count(tcp.counters, PATH_MTU_REDUCED)


cdef bint path_claimed(tcp_t *tcp, tcb_t *tcb, uint16_t mtu, uint32_t quoted_bytes, uint32_t seq) noexcept nogil:
    cdef path_t *path
    if mtu < LOWEST_MTU:
        mtu = plateau_below(quoted_bytes)
    if tcb.extra and claimed_of_probe(tcp, tcb, path_at(tcp, tcb.extra), mtu, seq):
        return False
    if tcb.state < ESTABLISHED or (smss_for(tcb, mtu) >= tcb.smss and (
            mtu >= MINIMUM_PATH_MTU or path_fragments(tcp, tcb))):
        count(tcp.counters, DROP_ICMP_PATH_MTU)
        return False
    path = path_of(tcp, tcb)
    if path == NULL:
        return False
    if tcb.flags & TCB_MSS_PROVEN or path.reductions >= PROMPT_CLAIMS:
        path.claimed_mtu = mtu
        path.claimed_seq = seq
        count(tcp.counters, PATH_MTU_DEFERRED)
        return False
    reduce(tcp, tcb, path, mtu)
    return True


cdef inline bint is_of_probe(const path_t *path, uint32_t seq) noexcept nogil:
    return path.probe_bytes != 0 and seq - path.probe_seq < path.probe_bytes


cdef bint claimed_of_probe(tcp_t *tcp, tcb_t *tcb, path_t *path, uint16_t mtu, uint32_t seq) noexcept nogil:
    """RFC 4821 section 7.6.2, RFC 8899 section 4.6.2: what lies between the size that arrives and that of the probe may
    be true. It is kept until the probe is lost, and is then the size of the next one. Nothing is sent for it."""
    if not is_of_probe(path, seq) or mtu < path_mtu(tcb) or mtu >= path.probe_bytes + overhead_bytes(tcb):
        return False
    path.claimed_mtu = mtu
    path.claimed_seq = seq
    count(tcp.counters, PATH_MTU_DEFERRED)
    return True


cdef inline bint claim_is_of_probe(const tcb_t *tcb, const path_t *path) noexcept nogil:
    """The claim that waits explains the loss of the probe."""
    return is_of_probe(path, path.claimed_seq) and path.claimed_mtu >= path_mtu(tcb)


cdef inline void forget_if_idle(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    if path.raise_at_ns == 0 and path.claimed_mtu == 0 and not path.flags & PATH_SEARCHES:
        memset(path, 0, sizeof(path_t))
        extra_settle(tcp, tcb)


# ---------------------------------------------------------------- events

cdef void path_timed_out(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path
    if tcb.extra:
        path = path_at(tcp, tcb.extra)
        if path.claimed_mtu and path.claimed_mtu < path_mtu(tcb) and seq_ge(path.claimed_seq, tcb.snd_una):
            reduce(tcp, tcb, path, path.claimed_mtu)
            return
        if path.probe_bytes:
            # Whether it was the size is not known: a timeout has causes of its own (RFC 4821 section 7.6.4).
            probe_inconclusive(tcp, tcb, path)
    if tcp.config.mtu_probing:
        black_hole(tcp, tcb, standing_bytes(tcp, tcb))


cdef void path_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    if path.full_smss == 0:
        return
    if path.probe_bytes and seq_ge(tcb.snd_una, path.probe_seq + path.probe_bytes):
        probe_acknowledged(tcp, tcb, path)
    if path.claimed_mtu and seq_gt(tcb.snd_una, path.claimed_seq) and not is_of_probe(path, path.claimed_seq):
        path.claimed_mtu = 0
    forget_if_idle(tcp, tcb, path)


cdef void path_refresh(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    if path.raise_at_ns == 0 or tcp.now_ns < path.raise_at_ns:
        return
    path.raise_at_ns = 0
    path.may_fragment = 0
    if path.flags & PATH_SEARCHES:
        if search_size(path_mtu(tcb), path.search_high, path.flags & PATH_TOP_FIRST) == 0:
            search_begin(tcb, path, path.full_smss + overhead_bytes(tcb))       # RFC 4821 section 7.3
        return
    resize(tcp, tcb, path.full_smss)
    count(tcp.counters, PATH_MTU_RAISED)
    forget_if_idle(tcp, tcb, path)


# ---------------------------------------------------------------- black holes

cdef uint32_t standing_bytes(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """The packet at SND.UNA, if this is a full-stop timeout of RFC 4821 section 7.7, else 0: it has been sent again R1
    times, and it is not the first timeout, or the second, since anything was measured: something that came through a
    lossy path at last has no timeouts in a row. (A full segment it need not be: a peer's window may be less than one,
    and a stream has an end.)"""
    cdef const flight_t *flight = flight_of(tcp, tcb)
    cdef const transmission_t *sent
    if tcb.state < ESTABLISHED:
        return 0
    if flight == NULL:                      # no record says how often: transmissions.pxd
        if tcb.backoff < BLACK_HOLE_RETRANSMISSIONS:
            return 0
        return min(tcb.snd_nxt - tcb.snd_una, <uint32_t>tcb.smss) + overhead_bytes(tcb)
    sent = transmission_at(tcp, flight, flight.head)
    if (sent.sends <= BLACK_HOLE_RETRANSMISSIONS or tcb.backoff + 1 < BLACK_HOLE_RETRANSMISSIONS
            or sent.flags & TX_SACKED):
        return 0
    return min(transmission_bytes(sent), <uint32_t>tcb.smss) + overhead_bytes(tcb)


cdef void black_hole(tcp_t *tcp, tcb_t *tcb, uint32_t standing) noexcept nogil:
    cdef uint32_t mtu = path_mtu(tcb), size = black_hole_size(standing, tcp.config.mtu_probe_base_bytes)
    cdef path_t *path
    if size >= standing:                    # what is so small says nothing of the path's MTU
        return
    path = path_of(tcp, tcb)
    if path == NULL:
        return
    # A further timeout before any probe has said something is of the same black hole, or outage.
    if not path.flags & PATH_SEARCHES or not path.flags & PATH_TOP_FIRST:
        search_begin(tcb, path, mtu)
    path.raise_at_ns = 0
    resize(tcp, tcb, smss_for(tcb, size))
    count(tcp.counters, BLACK_HOLES)


# ---------------------------------------------------------------- the search

cdef inline void forget_probe(path_t *path) noexcept nogil:
    path.probe_bytes = 0
    path.flags &= <uint8_t>~(PATH_PROBE_LOST | PATH_PROBE_RESENT)


cdef void search_begin(tcb_t *tcb, path_t *path, uint32_t high) noexcept nogil:
    forget_probe(path)
    path.flags |= PATH_SEARCHES | PATH_TOP_FIRST
    path.search_high = <uint16_t>high
    path.tries = 0
    path.claimed_mtu = 0


cdef void path_search(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    """RFC 4821 section 7.2: from an MTU that is likely to work everywhere."""
    cdef uint32_t mtu = path_mtu(tcb), base = tcp.config.mtu_probe_base_bytes
    cdef path_t *path
    if mtu <= base:
        return
    path = path_of(tcp, tcb)
    if path == NULL:
        return
    search_begin(tcb, path, mtu)
    resize(tcp, tcb, smss_for(tcb, base))


cdef void search_settle(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    """A probe has moved a bound. Where the range has become too small the search rests, or is over."""
    if tcb.smss == path.full_smss:
        path.flags = 0
        path.raise_at_ns = 0
    elif search_size(path_mtu(tcb), path.search_high, path.flags & PATH_TOP_FIRST) == 0:
        path.raise_at_ns = tcp.now_ns + tcp.config.path_mtu_expires_ns


cdef uint32_t path_probe_due(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """RFC 4821 section 7.4: no probe is out, nothing is lost, or may be; the window and the data suffice for the probe
    and for what has to follow it."""
    cdef const path_t *path = path_at(tcp, tcb.extra)
    cdef uint32_t size, needed
    if (not path.flags & PATH_SEARCHES or path.probe_bytes or path.raise_at_ns or path.claimed_mtu
            or path.may_fragment or tcb.backoff or tcb.flags & TCB_PERSIST or in_disorder(tcp, tcb)):
        return 0
    size = search_size(path_mtu(tcb), path.search_high, path.flags & PATH_TOP_FIRST)
    if size == 0:
        return 0
    size -= overhead_bytes(tcb)
    needed = size + PROBE_FOLLOWERS * tcb.smss
    if not seq_lt(tcb.snd_nxt, tcb.snd_end) or tcb.snd_end - tcb.snd_nxt < needed:
        return 0
    return size if tcb.cwnd >= needed and tcb.snd_wnd >= needed else 0


cdef inline bint in_disorder(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """Something in flight is lost, may be, or has no record."""
    cdef const flight_t *flight = flight_of(tcp, tcb)
    if flight == NULL:
        return tcb.snd_nxt != tcb.snd_una or tcb.snd_nxt != tcb.snd_max
    return (flight.repair != REPAIR_NONE or flight.to_resend.first != 0 or flight.sacked_bytes != 0
            or flight.duplicate_acks != 0 or flight.flags & (FLIGHT_PROBE | FLIGHT_PROBED) != 0)


cdef void path_probe_begin(tcp_t *tcp, tcb_t *tcb, uint32_t length) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    path.probe_seq = tcb.snd_nxt
    path.probe_bytes = <uint16_t>length


cdef void path_probe_sent(tcp_t *tcp, tcb_t *tcb, uint32_t index) noexcept nogil:
    """A peer may have all of it or nothing: a SACK of a part splits no record."""
    cdef path_t *path = path_at(tcp, tcb.extra)
    cdef flight_t *flight = flight_of(tcp, tcb)
    cdef transmission_t *sent = transmission_at(tcp, flight, index)
    sent.flags |= TX_SIZE_PROBE
    sent.segment_bytes = path.probe_bytes
    path.lost_before = flight.lost
    count(tcp.counters, MTU_PROBES)


cdef void path_probe_cancel(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    forget_probe(path_at(tcp, tcb.extra))


cdef void path_probe_lost(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path
    if tcb.extra == 0 or path_at(tcp, tcb.extra).probe_bytes == 0:
        return                              # its answer is not waited for any more
    path = path_at(tcp, tcb.extra)
    path.flags |= PATH_PROBE_LOST
    count(tcp.counters, MTU_PROBES_LOST)


cdef bint path_resent(tcp_t *tcp, tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    if (path.probe_bytes == 0 or not seq_lt(seq, path.probe_seq + path.probe_bytes)
            or not seq_gt(seq + length, path.probe_seq)):
        return False
    if not path.flags & PATH_PROBE_LOST:    # its ACK will not say which of the two has arrived
        probe_inconclusive(tcp, tcb, path)
        return False
    path.flags |= PATH_PROBE_RESENT
    return True


cdef void probe_acknowledged(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    """What the probe carried has arrived: in the probe, if nothing of it was sent again (RFC 4821 section 7.6.1)."""
    cdef const flight_t *flight = flight_of(tcp, tcb)
    if not path.flags & PATH_PROBE_RESENT:
        probe_arrived(tcp, tcb, path)
    elif flight == NULL or flight.repair != REPAIR_NONE or flight.lost != path.lost_before:
        probe_inconclusive(tcp, tcb, path)
    else:
        probe_failed(tcp, tcb, path)


cdef void probe_arrived(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    cdef uint16_t smss = path.probe_bytes
    forget_probe(path)
    path.flags &= <uint8_t>~PATH_TOP_FIRST
    path.tries = 0
    path.claimed_mtu = 0
    resize(tcp, tcb, smss)
    tcb.flags |= TCB_MSS_PROVEN             # sent once, and it arrived
    count(tcp.counters, PATH_MTU_RAISED)
    search_settle(tcp, tcb, path)


cdef inline uint32_t round_trip_us(const tcb_t *tcb) noexcept nogil:
    """In a first flight only SACKs may have measured, or nothing."""
    if tcb.srtt_us:
        return tcb.srtt_us
    return rtt_min_us(tcb) if tcb.min_rtt else UNMEASURED_US


cdef void probe_failed(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    path.search_high = <uint16_t>(path.probe_bytes + overhead_bytes(tcb) - 1)
    path.flags &= <uint8_t>~PATH_TOP_FIRST
    if claim_is_of_probe(tcb, path):
        path.search_high = path.claimed_mtu
        path.flags |= PATH_TOP_FIRST
        path.claimed_mtu = 0
    forget_probe(path)
    path.tries = 0
    path.raise_at_ns = tcp.now_ns + probe_wait_ns(tcb.cwnd, tcb.smss, round_trip_us(tcb))
    search_settle(tcp, tcb, path)


cdef void probe_inconclusive(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    """RFC 4821 section 7.6.4: the same size again. Where it has no answer again and again, that is one (RFC 8899)."""
    path.tries += 1
    if path.tries >= PROBE_TRIES or claim_is_of_probe(tcb, path):
        probe_failed(tcp, tcb, path)
    else:
        forget_probe(path)


# ---------------------------------------------------------------- identification without DF

ctypedef struct round_t:                    # 24 bytes, hashed whole
    ip_addr_t dst
    uint32_t number
    uint32_t half


cdef uint16_t path_identification(tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """RFC 6864 section 4.2: not twice for one destination while fragments of the first may live. A counter of all such
    datagrams, through a permutation of 16 bits that is keyed for each destination (a Feistel network): no value comes
    again within 65,536 of them, and nobody learns from his own values how many went to others (RFC 7739 section 5)."""
    cdef round_t round
    cdef uint32_t left = tcp.identification_next >> 8
    cdef uint32_t right = tcp.identification_next & 0xFF
    cdef uint32_t mixed
    cdef int i
    tcp.identification_next += 1
    memset(&round, 0, sizeof(round))
    round.dst = tcb.key.raddr
    for i in range(ROUNDS):
        round.number = i
        round.half = right
        mixed = left ^ (<uint32_t>siphash24(tcp.secret, <const uint8_t *>&round, sizeof(round)) & 0xFF)
        left = right
        right = mixed
    return <uint16_t>(left << 8 | right)

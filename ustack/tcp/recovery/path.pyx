# SPDX-License-Identifier: MIT
"""The path MTU of one connection. See path.pxd for what a router's claim can do, and the sources."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from ustack.base.counters cimport (
    DROP_ICMP_PATH_MTU, DROP_NO_MEMORY, PATH_MTU_DEFERRED, PATH_MTU_RAISED, PATH_MTU_REDUCED, count)
from ustack.base.prng cimport siphash24
from ustack.base.types cimport ip_addr_t
from ustack.ip.layer cimport ip_header_bytes
from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t
from ustack.tcp.records.life cimport extra_make, extra_settle
from ustack.tcp.records.state cimport ESTABLISHED
from ustack.tcp.records.tcb cimport TCB_MSS_PROVEN, extra_t, tcb_header_bytes
from ustack.tcp.recovery.control cimport control_of, control_state, view_load, view_store
from ustack.wire.seq cimport seq_ge, seq_gt


cdef enum:
    LOWEST_MTU = 68                         # RFC 791: every link carries this
    PLATEAUS = 8
    ROUNDS = 4

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


cdef inline uint16_t smss_for(const tcb_t *tcb, uint16_t mtu) noexcept nogil:
    cdef uint32_t overhead = ip_header_bytes(&tcb.key.raddr) + tcb_header_bytes(tcb)
    cdef uint16_t smss = <uint16_t>((mtu if mtu > MINIMUM_PATH_MTU else MINIMUM_PATH_MTU) - overhead)
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


cdef void reduce(tcp_t *tcp, tcb_t *tcb, path_t *path, uint16_t mtu) noexcept nogil:
    path.claimed_mtu = 0
    if path.reductions < PROMPT_CLAIMS:
        path.reductions += 1
    path.raise_at_ns = tcp.now_ns + tcp.config.path_mtu_expires_ns
    if mtu < MINIMUM_PATH_MTU:
        path.may_fragment = 1
    resize(tcp, tcb, smss_for(tcb, mtu))
    count(tcp.counters, PATH_MTU_REDUCED)


cdef bint path_claimed(tcp_t *tcp, tcb_t *tcb, uint16_t mtu, uint32_t quoted_bytes, uint32_t seq) noexcept nogil:
    cdef path_t *path
    if mtu < LOWEST_MTU:
        mtu = plateau_below(quoted_bytes)
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


cdef inline void forget_if_idle(tcp_t *tcp, tcb_t *tcb, path_t *path) noexcept nogil:
    if path.raise_at_ns == 0 and path.claimed_mtu == 0:
        memset(path, 0, sizeof(path_t))
        extra_settle(tcp, tcb)


cdef void path_timed_out(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path
    if tcb.extra == 0:
        return
    path = path_at(tcp, tcb.extra)
    if path.claimed_mtu and seq_ge(path.claimed_seq, tcb.snd_una):
        reduce(tcp, tcb, path, path.claimed_mtu)


cdef void path_acknowledged(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    if path.claimed_mtu and seq_gt(tcb.snd_una, path.claimed_seq):
        path.claimed_mtu = 0
        forget_if_idle(tcp, tcb, path)


cdef void path_refresh(tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef path_t *path = path_at(tcp, tcb.extra)
    if path.raise_at_ns == 0 or tcp.now_ns < path.raise_at_ns:
        return
    path.raise_at_ns = 0
    path.may_fragment = 0
    resize(tcp, tcb, path.full_smss)
    count(tcp.counters, PATH_MTU_RAISED)
    forget_if_idle(tcp, tcb, path)


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

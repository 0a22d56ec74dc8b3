# SPDX-License-Identifier: MIT
# Options that a program has set on one connection and that few connections have: a record on demand.
#
# It is there from the first option that differs from the usual until the last is as usual again; its index is in
# extra_t. What most connections need of their options is a bit of tcb.flags, and tcp.config has what nobody has
# changed. Plain data; made and given back by life. Below: tcb. Above: life, marks.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport extra_at, tcb_t, tcp_t

cdef enum sockopts_flags_t:
    OWN_CORK = 1                            # only whole segments go (allowance)
    OWN_MORE = 2                            # ... until the next part of what a program sends
    OWN_QUICKACK = 4                        # no ACK is delayed (output)
    OWN_FRAGMENTS = 8                       # DF is clear (path_fragments)
    OWN_HOLDS = OWN_CORK | OWN_MORE

# writer: tcp/options, and marks its two. 0 in a field but for the first three: the usual
ctypedef struct sockopts_t:                 # 32 bytes
    uint32_t low_water_bytes                # 0   what they mean: marks.pxd
    uint32_t unsent_low_water_bytes         # 4
    uint32_t snd_queue_bytes                # 8   instead of config's (SO_SNDBUF)
    uint32_t user_timeout_ms                # 12  R2 (MUST-21)
    uint32_t rcv_buffer_bytes               # 16  the window does not grow (SO_RCVBUF)
    uint16_t keepalive_idle_s               # 20
    uint16_t keepalive_interval_s           # 22
    uint16_t fin_wait_2_s                   # 24
    uint16_t mss                            # 26  most that either end may send in a segment
    uint8_t keepalive_probes                # 28
    uint8_t flags                           # 29  sockopts_flags_t


# NULL: all is as usual.
cdef inline sockopts_t *sockopts_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    if tcb.extra == 0 or extra_at(tcp, tcb.extra).sockopts == 0:
        return NULL
    return <sockopts_t *>slab_at(&tcp.sockopts, extra_at(tcp, tcb.extra).sockopts)


cdef inline uint8_t sockopts_flags(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.flags if own != NULL else 0


# Most bytes that may be queued and not acknowledged.
cdef inline uint32_t tcb_snd_queue(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.snd_queue_bytes if own != NULL else tcp.config.snd_queue_bytes


# 0: none of its own.
cdef inline uint64_t tcb_user_timeout_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.user_timeout_ms * 1000000ULL if own != NULL else 0


cdef inline uint64_t tcb_keepalive_idle_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    if own != NULL and own.keepalive_idle_s:
        return own.keepalive_idle_s * 1000000000ULL
    return tcp.config.keepalive_idle_ns


cdef inline uint64_t tcb_keepalive_interval_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    if own != NULL and own.keepalive_interval_s:
        return own.keepalive_interval_s * 1000000000ULL
    return tcp.config.keepalive_interval_ns


cdef inline uint8_t tcb_keepalive_probes(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.keepalive_probes if own != NULL and own.keepalive_probes else tcp.config.keepalive_probes


cdef inline uint64_t tcb_fin_wait_2_ns(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    cdef const sockopts_t *own = sockopts_of(tcp, tcb)
    return own.fin_wait_2_s * 1000000000ULL if own != NULL and own.fin_wait_2_s else tcp.config.fin_wait_2_timeout_ns

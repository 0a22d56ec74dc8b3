# SPDX-License-Identifier: MIT
# What a connection has been through: when it began, bytes both ways beyond 32 bits, what was sent again and why, what
# came twice.
#
#     birth_t      8 bytes beside every tcb, by its index: when it began, and the peer's initial sequence number
#     history_t    made with the first retransmission or duplicate, or when a count passes 2^32: a connection to which
#                  none of that happens has none. Where there is no room for one (config.extra_records) nothing is
#                  counted
#
# Bytes received are RCV.NXT less the IRS, bytes delivered C.delivered (tcb.delivered). Both are 32 bits and come
# round. The first time RCV.NXT does so is no news, for an IRS is anywhere: a bit of birth_t notes it; each later time
# is 4 GiB.
#
# Plain data, by which nothing is decided. Who counts, and moves RCV.NXT and tcb.delivered: tally. Below: tcb. Above:
# life, tally, status.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.flight cimport REXMIT_CAUSES, rexmit_cause_t
from ustack.tcp.records.tcb cimport extra_at, tcb_t, tcp_t

cdef enum:
    BIRTH_SHIFT = 25                        # of nanoseconds: 34 ms
    BIRTH_TIME = (1u << 31) - 1             # two years
    BIRTH_CAME_ROUND = 1u << 31             # RCV.NXT has passed zero

ctypedef struct birth_t:                    # 8 bytes
    uint32_t irs
    uint32_t opened                         # when, and BIRTH_CAME_ROUND

ctypedef struct history_t:                  # one cache line
    uint32_t resent_segs[REXMIT_CAUSES - 1]     # 0   see resent_by
    uint32_t spurious                       # 20  repairs that were none (undo)
    uint32_t timeouts                       # 24  of the retransmission timer
    uint16_t received_rounds                # 28  4 GiB each
    uint16_t delivered_rounds               # 30
    uint64_t resent_bytes                   # 32  of data
    uint32_t duplicates                     # 40  DSACKs: what the peer has had twice
    uint32_t unused[5]                      # 44  a slab's records divide a cache line


cdef inline birth_t *birth_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <birth_t *>slab_at(&tcp.births, index)


cdef inline uint32_t birth_time(const tcp_t *tcp) noexcept nogil:
    return <uint32_t>(tcp.now_ns >> BIRTH_SHIFT) & BIRTH_TIME


# NULL: there is none.
cdef inline history_t *history_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    if tcb.extra == 0 or extra_at(tcp, tcb.extra).history == 0:
        return NULL
    return <history_t *>slab_at(&tcp.histories, extra_at(tcp, tcb.extra).history)


# Segments sent again for a cause (not REXMIT_NONE).
cdef inline uint32_t *resent_by(history_t *own, rexmit_cause_t cause) noexcept nogil:
    return &own.resent_segs[<int>cause - 1]

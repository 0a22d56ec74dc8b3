# SPDX-License-Identifier: MIT
# What a connection keeps that counts marks exactly: RFC 9768. Plain data; what happens to it is in recovery/accecn.
#
# The names are the RFC's. r: what has arrived here, as a data receiver; s: what the peer has told of what we have sent.
#
#     cep    segments that were marked CE                        ACE, 3 bits of it in every segment
#     ceb    bytes of data in such segments                      ECEB of the option, 24 bits
#     e0b    ... in segments that said ECT(0)                    EE0B
#     e1b    ... in segments that said ECT(1)                    EE1B
#
# The record exists while the mode does: from the handshake to the connection's end. Its index is in extra_t, so a
# connection without it pays nothing, neither memory nor a step. Below: tcb. Above: life, emit, recovery, ending,
# status. Read first: RFC 9768 section 3.2.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.buf.slab cimport slab_at
from ustack.tcp.records.tcb cimport TCB_ECE_OWED, TCB_ECN, extra_at, tcb_t, tcp_t

cdef enum:
    ACCECN_CEP_AT_FIRST = 5                 # section 3.2.1: not zero, which a middlebox would write
    ACCECN_BYTES_AT_FIRST = 1               # e0b and e1b
    ACE_MASK = 7
    ACCECN_FIELD_MASK = 0xFFFFFF
    ACCECN_PLAN_1 = 0x80                    # accecn_t.planned: in order 1

cdef enum accecn_flags_t:
    ACCECN_AWAITS_ACK = 1                   # the ACK of our SYN-ACK says in ACE how that arrived (section 3.2.2.1)
    ACCECN_OWES_ACK = 2                     # ... and ours has to
    ACCECN_UNTESTED = 4                     # no counter has been seen yet (section 3.2.2.4)
    ACCECN_DEAF = 8                         # what the peer tells of marks is not believed, and answered by nothing
    ACCECN_PROVEN = 16                      # something of ours has arrived without a mark
    ACCECN_STAMPED = 32                     # ts_seen is valid
    ACCECN_OPTIONS_COME = 64                # the peer's options get through: ECEB can be relied on
    ACCECN_OPTIONS_BAD = 128                # ... but are zeroed (section 3.2.3.2.4)
    ACCECN_OPTIONS_FIRST = 256              # the next one that could be there is the first
    ACCECN_OPTIONS_OFF = 512                # we send none: what has one does not get through
    ACCECN_OPTION_WAITS = 1024              # for a sign that our latest one in an ACK without data got through
    ACCECN_OPTION_AGAIN = 2048              # our first data has one as well, for the peer to see (section 3.2.3.2.1)

ctypedef struct accecn_t:                   # one cache line
    uint32_t r_cep                          # 0
    uint32_t r_ceb                          # 4
    uint32_t r_e0b                          # 8
    uint32_t r_e1b                          # 12
    uint32_t s_cep                          # 16
    uint32_t s_ceb                          # 20
    uint32_t s_e0b                          # 24
    uint32_t s_e1b                          # 28
    uint32_t told_ceb                       # 32  r_... as the latest option of ours has told it
    uint32_t told_e0b                       # 36
    uint32_t told_e1b                       # 40
    uint32_t ts_seen                        # 44  SEG.TSval of the newest feedback
    uint32_t cep_at_option                  # 48  s_cep when the latest option came
    uint16_t flags                          # 52  accecn_flags_t
    uint16_t newly_marked                   # 54  segments that the ACK in hand tells of
    uint16_t stretch                        # 56  how many segments an ACK acknowledges: the average, times 16
    uint8_t ce_waiting                      # 58  marks that have arrived since our last ACK
    uint8_t ip_ecn                          # 59  of the latest segment
    uint8_t syn_ip_ecn                      # 60  ... of the peer's latest SYN or SYN-ACK
    uint8_t marked_rounds                   # 61  round trips in which everything was marked, since the first
    uint8_t option_losses                   # 62  of ours in a row that seem lost
    uint8_t planned                         # 63  the next segment's option: fields, and ACCECN_PLAN_1; 0: none


# The connection is in the mode of RFC 9768, and has a record.
cdef inline bint tcb_is_accurate(const tcb_t *tcb) noexcept nogil:
    return tcb.flags & (TCB_ECN | TCB_ECE_OWED) == TCB_ECE_OWED


cdef inline accecn_t *accecn_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <accecn_t *>slab_at(&tcp.accecns, extra_at(tcp, tcb.extra).accecn)


# What our segments say in AE, CWR and ECE (section 3.2.2).
cdef inline uint8_t accecn_ace(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return <uint8_t>(accecn_of(tcp, tcb).r_cep & ACE_MASK)


# How a SYN arrived, on its SYN-ACK, or a SYN-ACK on its ACK (tables 2 and 3).
cdef inline uint8_t ace_of_handshake(uint8_t ip_ecn) noexcept nogil:
    return <uint8_t>(2 + ip_ecn) if ip_ecn != 3 else 6

# SPDX-License-Identifier: MIT
# Accurate ECN feedback: RFC 9768. Every mark is counted and reported, where RFC 3168 says once per round trip that
# there was one. The mode is agreed on by opening and input; what a mark does to the window is the same as there
# (ecn.pxd).
#
#     agreed      TCB_ECE_OWED without TCB_ECN (tcb_is_accurate), and a record (records/accecn.pxd). ECT(0) in tcb.tos:
#                 our new data says that it may be marked; not a moment longer than the path seems sane
#     receiver    every segment that arrives is counted by what its IP header says, and every segment that goes says
#                 the last three bits of r.cep in AE, CWR and ECE: the ACE field. CWR in it means nothing else. An ACK
#                 goes at once when marks begin, and for every second one (section 3.2.2.5.1)
#     sender      an ACK that is not older than the latest: how far has ACE moved? So many segments were marked, or 8,
#                 16, ... more of them if the ACK covers so many that the three bits may have come round
#     option      ECEB, EE0B and EE1B tell bytes in 24 bits each, so they settle that question. They go in ACKs without
#                 data, and in short segments; what fills SMSS has no room for them. Where they are stripped or zeroed,
#                 ACE alone is left, read for the worst
#
# What stays as in RFC 3168: only new data says that it may be marked. RFC 9768 counts marks on anything that arrives,
# ACKs without data and what is sent again included, but leaves it to the experiments of RFC 8311 to ask for them there.
#
# What may lie, and what then: the handshake tells how our SYN, or SYN-ACK, arrived. It left as Not-ECT, so if it
# arrived otherwise somebody rewrites these bits, and our data does not ask for marks any more (section 3.2.2.3). An ACE
# of zero at the beginning is a peer that does not count, or a middlebox: then nothing it says of marks is believed,
# either (sections 3.2.2.1, 3.2.2.4). Nor is it if everything was marked from the first segment on, for four round
# trips. Later lies cost their teller only: marks that never were shrink the window once per round trip, to the
# control's least; hidden ones are what they are in RFC 3168. Counters here move by at most
# what an ACK acknowledges, or 7.
#
# Segmentation: a device may leave the flag CWR on the first segment of a frame alone, as RFC 3168 has it, and ACE would
# be wrong on the others. So super-frames go only while that bit of ACE is clear (TCB_CWR_OWED, output).
#
# It must not: send, find losses. Above: input, output, opening. Below: ecn, records/accecn.
# Read first: RFC 9768 sections 3.1, 3.2 and appendix A.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.tcp.records.accecn cimport ACE_MASK
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.ecn cimport ecn_heard_t
from ustack.wire.ipv4 cimport IPV4_ECN_CE, IPV4_ECN_ECT0, IPV4_ECN_ECT1, IPV4_ECN_NOT
from ustack.wire.tcp cimport CE, ECT0, ECT1, header_t, segment_t

cdef enum:
    STRETCH_SHIFT = 4                       # accecn_t.stretch is in sixteenths of a segment
    STRETCHED = 4 << STRETCH_SHIFT          # ACKs of so many segments are usual here: not "well below 8"
    ROUNDS_ALL_MARKED = 4                   # section 3.2.2.3: "the first three or four rounds"
    OPTION_DUE_BYTES = 1 << 21              # half of what section 3.2.3.3 allows between two options
    OPTION_LOSSES = 3                       # of ours in a row, and we send no more
    SACK_BLOCKS_FIRST = 2                   # that have precedence (section 3.2.3.3)

# The peer counts, and so do we, from now on. sends: our data may be marked. flags: of accecn_flags_t, beside the usual.
# Without a record: neither, and our segments say 0, which tells the peer so (sections 3.2.2.1, 3.2.2.4).
cdef void accecn_agree(tcp_t *tcp, tcb_t *tcb, bint sends, uint16_t flags) noexcept nogil
# An active open is complete: what its SYN-ACK says of our SYN, and how it arrived itself.
cdef void accecn_syn_ack_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# ... and it arrives again: so must the ACK of it.
cdef void accecn_syn_ack_again(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# An acceptable segment of a connection in this mode, before its acknowledgment is taken; the answer is for ecn_settle.
cdef ecn_heard_t accecn_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# What a header says; SACK blocks, if any, are in it already. bare: an ACK without data.
cdef void accecn_say(tcp_t *tcp, tcb_t *tcb, header_t *header, bint bare) noexcept nogil
# Bytes of options that a segment with `length` bytes of data from `seq` will have, which the next accecn_say writes.
# Only with tcb.extra.
cdef uint32_t accecn_plan(const tcp_t *tcp, const tcb_t *tcb, uint32_t seq, uint32_t length) noexcept nogil
# Data has come that we had acknowledged.
cdef void accecn_repeated(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# An ACK without data has to go before anything else: what it says cannot be said with data. Only with tcb.extra.
cdef bint accecn_wants_ack(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil


# ---------------------------------------------------------------- plain numbers

cdef inline uint8_t ip_ecn_of(const segment_t *seg) noexcept nogil:
    if not seg.flags & (CE | ECT0 | ECT1):
        return IPV4_ECN_NOT
    return IPV4_ECN_CE if seg.flags & CE else IPV4_ECN_ECT0 if seg.flags & ECT0 else IPV4_ECN_ECT1


# Appendix A.2.1: d.cep, the least by which the counter has moved, ...
cdef inline uint32_t marks_least(uint32_t ace, uint32_t s_cep) noexcept nogil:
    return (ace - s_cep) & ACE_MASK


# ... and dSafer.cep, the most for an ACK of so many segments. More marks than segments: marks of what is not counted,
# ACKs, and the counter is right (section 3.2.2.5.2).
cdef inline uint32_t marks_most(uint32_t least, uint32_t segments) noexcept nogil:
    return segments - ((segments - least) & ACE_MASK) if segments > least else least


# Appendix A.2.2: which of the two, where the option tells the bytes that were marked.
cdef inline uint32_t marks_by_bytes(uint32_t least, uint32_t most, uint32_t ceb, uint32_t smss) noexcept nogil:
    if most > least and ceb <= least * smss and ceb // most < smss // 2:
        return least
    return most

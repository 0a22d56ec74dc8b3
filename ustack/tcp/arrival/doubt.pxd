# SPDX-License-Identifier: MIT
# A segment that is not acceptable, or asks for the end: the ACK that answers it, RST and SYN of a connection.
#
# Answers are left on the tcb (TCB_ACK_NOW) and limited by throttle; every segment is counted under one DROP_* reason.
# It must not: take anything of the segment but its word that the connection is over.
#
# Read first: RFC 9293 section 3.10.7.4 (first, second, fourth), RFC 5961 sections 3 to 5. Above: text, active, input.
# Below: throttle, ending, work.

from ustack.base.counters cimport count, counter_t
from ustack.tcp.records.tcb cimport TCB_ACK_NOW, tcb_t, tcp_t
from ustack.tcp.records.work cimport work_add
from ustack.wire.tcp cimport segment_t

cdef bint correct(tcp_t *tcp, tcb_t *tcb, const segment_t *seg, counter_t reason) noexcept nogil
cdef void challenge(tcp_t *tcp, tcb_t *tcb, counter_t reason) noexcept nogil
cdef void unusual_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil


# Not acceptable: <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and drop.
cdef inline void owe_ack(tcp_t *tcp, tcb_t *tcb, counter_t reason) noexcept nogil:
    count(tcp.counters, reason)
    tcb.flags |= TCB_ACK_NOW
    work_add(tcp, tcb)

# SPDX-License-Identifier: MIT
# Urgent data: RFC 9293 section 3.8.5, with the sixth step of section 3.10.7.4 and the URGENT flag of SEND.
#
#     a segment with URG ──▶ urgent_arrives ──▶ RCV.UP, TCB_EV_URGENT ──▶ on_urgent (engine/upcalls)
#     urgent_queued ──▶ SND.UP ──▶ urgent_say, for each segment that begins before it: URG, pointer
#
# Urgent bytes stay in the stream, as section 3.8.5 has it and RFC 6093 section 3.4 wants it where programs still use
# them: this tells where they end, no more. The pointer names the byte that follows them (MUST-62), which is also how
# Linux writes and reads it (net.ipv4.tcp_stdurg = 0).
#
# A pointer is what the peer says, and may be a lie. One into what was read, or behind a FIN, is nothing; one beyond
# the window is true of a sender whose window is closed, and costs no more than any other. At most 65,535 bytes past
# its segment, it cannot come round.
#
# It must not: send, deliver, or look at a byte. Read first: RFC 9293 sections 3.8.5, 3.10.2, 3.10.7.4; RFC 6093. Above:
# input, arrival, calls, send. Below: records.

from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.wire.tcp cimport header_t, segment_t

# Sixth: an acceptable segment with URG, before its text. Of a connection that is being opened it waits for on_accept.
cdef void urgent_arrives(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
# All that is queued now is urgent. CALL_OK, also when nothing is; CALL_NO_MEMORY, CALL_STATE: nothing has changed.
cdef int urgent_queued(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# What a header says of urgent data. Only with tcb.urgent; gives the record back when neither pointer is ahead any more.
cdef void urgent_say(tcp_t *tcp, tcb_t *tcb, header_t *header) noexcept nogil

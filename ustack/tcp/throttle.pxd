# SPDX-License-Identifier: MIT
# How often a segment that is not acceptable may be answered: RFC 5961 section 7 (with errata 4772), and the loops that
# two ends out of step fall into when each corrects the other.
#
# Above: input, opening. Below: tcb, wire/tcp. It sends nothing: True means that the caller's ACK may go, and has been
# counted against the limit.
#
#     due to the peer  answers to keep-alives and window probes (RFC 9293 sections 3.8.4, 3.8.6.1), to segments with
#                      data or a FIN (and no SYN), to a SYN,ACK that comes again because the ACK of it was lost. They
#                      never wait for somebody else's, and blind SYNs cannot use them up. An ACK has neither data nor
#                      a FIN, so none of these keeps a loop going; the last kind is limited per record, the others to
#                      one ACK in a turn for a connection, however many segments ask for it.
#     corrective ACK   asked for by RFC 9293 section 3.10.7.4 or RFC 7323 section 5.3: other segments out of the window,
#                      and PAWS. Limited per record, per peer, and in total
#     challenge ACK    asked for by RFC 5961 sections 3 to 5: RST or SYN in the window, SYN outside, ACK of what was
#                      never sent or too long ago. Limited per record with the corrective ones, per peer, and in total
#
# Per peer: what is allowed in a second is divided among 256 places, to which addresses belong by a hash that is another
# one in each second, and a place may have an eighth. Whoever has many connections, or makes somebody else's misbehave,
# silences himself, not others (RFC 5961 section 10 warns of a total alone).

from ustack.tcp.records.tcb cimport syn_received_t, tcb_t, tcp_t, time_wait_t
from ustack.wire.tcp cimport segment_t

# For an unacceptable segment of a connection. A SYN without ACK asks for a challenge.
cdef bint corrective_allowed(tcp_t *tcp, tcb_t *tcb, const segment_t *seg) noexcept nogil
cdef bint challenge_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# For a SYN that is known already, to be answered with the SYN-ACK again.
cdef bint repeated_syn_allowed(tcp_t *tcp, tcb_t *tcb) noexcept nogil
# The same for mini-records.
cdef bint time_wait_corrective_allowed(tcp_t *tcp, time_wait_t *record, const segment_t *seg) noexcept nogil
cdef bint time_wait_challenge_allowed(tcp_t *tcp, time_wait_t *record) noexcept nogil
# A half-open record gives few answers, of either kind, from one of its SYN-ACKs to the next: the timer counts anew.
cdef bint syn_received_answer_allowed(tcp_t *tcp, syn_received_t *record, bint challenge) noexcept nogil

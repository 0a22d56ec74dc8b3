# SPDX-License-Identifier: MIT
# Who may hold how much received data, and who gives up first when the memory for it is full.
#
#     half of the memory in use or less     everybody holds what its window admits
#     more                                  a connection holds at most a sixteenth of what is free, but always
#                                           RX_FLOOR_BYTES, for which a sixteenth of all is set aside; windows grow less
#                                           (tcb_receive_window); the last eighth is for data in order
#     none free                             for data in order, in this turn: give up data beyond holes, the largest
#                                           holder first; then abort the largest holder that holds as much as the asker
#                                           or more and whose application has not taken an eighth of it within
#                                           RX_PATIENCE_MS
#     none yet                              the segment is not acknowledged and comes again
#
# Data beyond a hole goes first because its sender still has it: a data receiver MAY discard what it has reported in a
# SACK block (RFC 2018 section 8), senders MUST be ready for it. What was acknowledged can be lost only with its
# connection, and the peer is told by a RST.
#
# Above: reassembly, input. Below: tcb, rx_queue.

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef enum:
    RX_FLOOR_BYTES = 8192
    RX_PATIENCE_MS = 1000                   # about what a peer waits before it sends again what found no memory

# Further bytes of memory that the connection may take now for data in order, at most `wanted`. May give up what others
# hold (never tcb itself, but what it holds beyond a hole) if that much is not free.
cdef uint64_t pressure_allow(tcp_t *tcp, tcb_t *tcb, uint64_t wanted) noexcept nogil
# The same for data beyond a hole, which never makes others give up anything.
cdef uint64_t pressure_allow_beyond(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# Give up what a connection holds beyond a hole. Its record goes if that was all.
cdef void pressure_renege(tcp_t *tcp, tcb_t *tcb) noexcept nogil

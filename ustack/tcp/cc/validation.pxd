# SPDX-License-Identifier: MIT
# Congestion window validation (RFC 7661): what a window is worth that its sender does not use.
#
#     pipeACK     the most that was acknowledged in a round trip, of late (section 4.2). Undefined at first, after a
#                 timeout, and after a repair in the non-validated phase
#     validated   pipeACK is half the window or more, or was within the last round trip (it is measured as ACKs come),
#                 or is undefined; or the window is no larger than any connection's first. Nothing is different
#     otherwise   the phase in which it is not (NVP): the window is kept for five minutes, and does not grow unless it
#                 limits the sender (ack_sample_t.cwnd_limited; section 4.4). Then it is halved (section 4.4.3). A loss
#                 shows that keeping it was wrong: what counts is what was used (section 4.4.1)
#
# A control keeps a validation_t in its record, calls validation_on_ack first in its on_ack, asks validation_base at a
# sign of congestion, and forgets at a timeout. Half a sampling period is remembered at a time, so that a sample counts
# for half of the period at least and all of it at most: the sender is in the NVP rather early than late.
#
# RFC 7661 would keep the window over a pause without data, too, and asks for pacing then (section 4.4.2). Here a pause
# of an RTO ends with the restart window (RFC 5681 section 4.1, as in Linux), with ssthresh at three quarters of what
# there was, from which slow start finds the rest.
#
# It must not: let a window grow. Above: controls. Below: contract.

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport ack_sample_t, cc_view_t

ctypedef struct validation_t:               # 24 bytes; zeroed: pipeACK is undefined
    uint32_t samples[2]                     # largest of this half of the sampling period, of the last
    uint32_t half_ms                        # when this half began; 0: pipeACK is undefined
    uint32_t valid_ms                       # the window was last validated, or halved
    uint32_t at_loss                        # a repair in the NVP lasts: max(pipeACK, LossFlightSize). 0: none
    uint32_t repaired                       # R: bytes that it had to send again

# One ACK. True: it has changed the window, which was not used for five minutes, or was wrong.
cdef bint validation_on_ack(validation_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil
# A sign of congestion. In the NVP max(pipeACK, FlightSize), of which half is safe; otherwise 0. repair: one begins.
cdef uint32_t validation_base(validation_t *own, const cc_view_t *view, uint32_t flight, bint repair) noexcept nogil
# pipeACK is undefined from now on: after a timeout, a pause, or a repair that was none.
cdef void validation_forget(validation_t *own) noexcept nogil

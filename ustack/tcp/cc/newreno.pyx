# SPDX-License-Identifier: MIT
"""NewReno: slow start, congestion avoidance, half the window at a loss.

It decides how much may be in flight, never what is sent. What happens to the window during fast recovery is recovery's
(recovery/prr.pxd), for every control. Read first: RFC 5681 section 3, RFC 3465
(appropriate byte counting, L = 2). Its record is one word: the bytes acknowledged toward the next increase of one SMSS.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.cc.defaults cimport cc_default_on_loss, cc_default_on_rto, slow_start_again


cdef enum:
    BETA_ECN_TENTHS = 8                     # RFC 8511 section 3.1

ctypedef struct newreno_t:
    uint32_t acked                          # bytes, toward the next increase in congestion avoidance


cdef inline uint32_t min_of(uint32_t one, uint32_t other) noexcept nogil:
    return one if one < other else other


cdef void newreno_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef newreno_t *own = <newreno_t *>state
    if not sample.cwnd_limited or sample.in_recovery:
        return
    if view.cwnd < view.ssthresh:
        # RFC 5681 section 3.1 caps the step at one SMSS an ACK, RFC 3465 at two. A peer that receives super-frames
        # sends one ACK for forty segments where it would have sent twenty, so in the first slow start bytes are
        # counted without a cap, as Linux does.
        if view.ssthresh != SSTHRESH_AT_FIRST:
            slow_start_again(view, sample)
        elif view.cwnd < CWND_GROWS_BELOW:
            view.cwnd += min_of(sample.acked, view.ssthresh - view.cwnd)
        return
    own.acked += sample.acked
    if own.acked >= view.cwnd:
        own.acked -= view.cwnd
        if view.cwnd < CWND_GROWS_BELOW:
            view.cwnd += view.smss


cdef void newreno_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """Equation (4); credit toward the next increase is lost."""
    cc_default_on_loss(state, view, flight)
    (<newreno_t *>state).acked = 0


cdef void newreno_on_ecn(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """RFC 8511: a mark comes from a queue that is kept short, so less is taken than for a loss."""
    view.ssthresh = <uint32_t>(<uint64_t>flight * BETA_ECN_TENTHS // 10)
    if view.ssthresh < 2 * view.smss:
        view.ssthresh = 2 * view.smss
    view.cwnd = view.ssthresh
    (<newreno_t *>state).acked = 0


cdef void newreno_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    cc_default_on_rto(state, view, flight, first)
    (<newreno_t *>state).acked = 0


cdef cc_ops_t OPS
OPS.name = b"newreno"
OPS.state_bytes = sizeof(newreno_t)
OPS.begins_late = True
OPS.on_ack = newreno_on_ack
OPS.on_loss = newreno_on_loss
OPS.on_ecn = newreno_on_ecn
OPS.on_rto = newreno_on_rto


cdef cc_ops_t *newreno_ops() noexcept nogil:
    return &OPS

# SPDX-License-Identifier: MIT
"""NewReno: slow start, congestion avoidance, half the window at a loss.

It decides how much may be in flight, never what is sent. What duplicate and partial ACKs do to the window during fast
recovery is recovery's (recovery/newreno_window.pxd), for every control. Read first: RFC 5681 section 3, RFC 3465
(appropriate byte counting, L = 2). Its record is one word: the bytes acknowledged toward the next increase of one SMSS.
"""

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.cc.defaults cimport cc_default_on_loss, cc_default_on_rto


cdef enum:
    BYTE_COUNTING_LIMIT = 2                 # RFC 3465 section 2.2: L

ctypedef struct newreno_t:
    uint32_t acked                          # bytes, toward the next increase in congestion avoidance


cdef void newreno_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef newreno_t *own = <newreno_t *>state
    cdef uint32_t step
    if not sample.cwnd_limited or sample.in_recovery:
        return
    if view.cwnd < view.ssthresh:
        # RFC 5681 section 3.1 caps the step at one SMSS an ACK, RFC 3465 at two. A peer that receives super-frames
        # sends one ACK for forty segments where it would have sent twenty, so in the first slow start bytes are
        # counted without a cap, as Linux does. After a loss one ACK may cover much that arrived long ago: the cap
        # holds (RFC 3465 section 2.3).
        step = sample.acked
        if view.ssthresh != SSTHRESH_AT_FIRST and step > BYTE_COUNTING_LIMIT * view.smss:
            step = BYTE_COUNTING_LIMIT * view.smss
        if step > view.ssthresh - view.cwnd:
            step = view.ssthresh - view.cwnd
        if view.cwnd < CWND_GROWS_BELOW:
            view.cwnd += step
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


cdef void newreno_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    cc_default_on_rto(state, view, flight, first)
    (<newreno_t *>state).acked = 0


cdef cc_ops_t OPS
OPS.name = b"newreno"
OPS.state_bytes = sizeof(newreno_t)
OPS.on_ack = newreno_on_ack
OPS.on_loss = newreno_on_loss
OPS.on_rto = newreno_on_rto


cdef cc_ops_t *newreno_ops() noexcept nogil:
    return &OPS

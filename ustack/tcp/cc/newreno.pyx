# SPDX-License-Identifier: MIT
"""NewReno: slow start, congestion avoidance, half the window at a loss.

It decides how much may be in flight, never what is sent. What happens to the window during fast recovery is recovery's
(recovery/prr.pxd), for every control. Read first: RFC 5681 section 3, RFC 3465
(appropriate byte counting, L = 2), RFC 7661 (validation). Its record: the bytes acknowledged toward the next increase
of one SMSS, and what validates the window.

It is what a connection falls back to, and so does without a record: state may be NULL. Then the window is increased by
equation (3) of RFC 5681, which needs no memory, and is not validated.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.cc.defaults cimport (
    cc_default_on_idle, cc_default_on_loss, cc_default_on_rto, cc_default_on_spurious, slow_start_again)
from ustack.tcp.cc.validation cimport validation_base, validation_forget, validation_on_ack


cdef enum:
    BETA_ECN_TENTHS = 8                     # RFC 8511 section 3.1


cdef inline newreno_t *own_of(void *state) noexcept nogil:
    return <newreno_t *>state


cdef inline uint32_t min_of(uint32_t one, uint32_t other) noexcept nogil:
    return one if one < other else other


cdef void newreno_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef newreno_t *own = own_of(state)
    if own != NULL and validation_on_ack(&own.validation, view, sample):
        own.acked = 0
        return
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
    if own == NULL:
        if view.cwnd < CWND_GROWS_BELOW:    # equation (3), for each SMSS that is acknowledged
            view.cwnd += <uint32_t>(<uint64_t>min_of(sample.acked, view.cwnd) * view.smss // view.cwnd)
        return
    own.acked += sample.acked
    if own.acked >= view.cwnd:
        own.acked -= view.cwnd
        if view.cwnd < CWND_GROWS_BELOW:
            view.cwnd += view.smss


cdef void newreno_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """Equation (4), or what RFC 7661 section 4.4.1 makes of it; credit toward the next increase is lost."""
    cdef newreno_t *own = own_of(state)
    cdef uint32_t base = 0
    if own != NULL:
        own.acked = 0
        base = validation_base(&own.validation, view, flight, True)
    cc_default_on_loss(state, view, base if base else flight)


cdef void newreno_on_ecn(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """RFC 8511: a mark comes from a queue that is kept short, so less is taken than for a loss; but half of what was
    used where the window was not (RFC 7661 section 4.4.1)."""
    cdef newreno_t *own = own_of(state)
    cdef uint32_t base = 0
    if own != NULL:
        own.acked = 0
        base = validation_base(&own.validation, view, flight, False)
    view.ssthresh = base // 2 if base else <uint32_t>(<uint64_t>flight * BETA_ECN_TENTHS // 10)
    if view.ssthresh < 2 * view.smss:
        view.ssthresh = 2 * view.smss
    view.cwnd = view.ssthresh


cdef void newreno_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    cdef newreno_t *own = own_of(state)
    cc_default_on_rto(state, view, flight, first)
    if own != NULL:
        own.acked = 0
        validation_forget(&own.validation)


cdef void newreno_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before,
                              uint32_t ssthresh_before) noexcept nogil:
    cc_default_on_spurious(state, view, cwnd_before, ssthresh_before)
    if state != NULL:
        validation_forget(&own_of(state).validation)


cdef void newreno_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    cc_default_on_idle(state, view, restart_window)
    if state != NULL:
        validation_forget(&own_of(state).validation)


cdef uint32_t newreno_rest(void *state) noexcept nogil:
    """Nothing is worth keeping: the window is the tcb's, and after a pause it begins anew."""
    return 1


cdef cc_ops_t OPS
OPS.name = b"newreno"
OPS.state_bytes = sizeof(newreno_t)
OPS.begins_late = True
OPS.on_ack = newreno_on_ack
OPS.on_loss = newreno_on_loss
OPS.on_ecn = newreno_on_ecn
OPS.on_rto = newreno_on_rto
OPS.on_spurious = newreno_on_spurious
OPS.on_idle = newreno_on_idle
OPS.rest = newreno_rest


cdef cc_ops_t *newreno_ops() noexcept nogil:
    return &OPS

# SPDX-License-Identifier: MIT
"""The default bodies of a control's calls. See defaults.pxd for each one's source."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, loss_sample_t


cdef enum:
    BYTE_COUNTING_LIMIT = 2                 # RFC 3465: L, in segments


cdef inline uint32_t half_of(uint32_t flight, uint32_t smss) noexcept nogil:
    """Equation (4) of RFC 5681: max(FlightSize / 2, 2 * SMSS)."""
    cdef uint32_t half = flight // 2
    return half if half > 2 * smss else 2 * smss


cdef void default_init(void *state, cc_view_t *view) noexcept nogil:
    pass


cdef void default_wake(void *state, cc_view_t *view, uint32_t kept) noexcept nogil:
    pass


cdef void default_release(void *state) noexcept nogil:
    pass


cdef void default_on_sent(void *state, uint32_t length, uint32_t flight, uint64_t now_ns) noexcept nogil:
    pass


cdef void default_on_start(void *state, cc_view_t *view) noexcept nogil:
    pass


cdef void default_on_lost(void *state, cc_view_t *view, const loss_sample_t *lost) noexcept nogil:
    pass


cdef void default_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    pass


cdef void cc_default_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    view.ssthresh = half_of(flight, view.smss)
    view.cwnd = view.ssthresh


cdef void cc_default_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    if first:
        view.ssthresh = half_of(flight, view.smss)
    view.cwnd = view.smss


cdef void cc_default_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before,
                                 uint32_t ssthresh_before) noexcept nogil:
    if view.cwnd < cwnd_before:
        view.cwnd = cwnd_before
    if view.ssthresh < ssthresh_before:
        view.ssthresh = ssthresh_before


cdef void cc_default_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    if view.cwnd <= restart_window:
        return
    if view.ssthresh < view.cwnd - view.cwnd // 4:
        view.ssthresh = view.cwnd - view.cwnd // 4
    view.cwnd = restart_window


cdef void cc_default_on_mtu(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil:
    if view.smss < old_smss:
        view.cwnd = <uint32_t>(<uint64_t>view.cwnd * view.smss // old_smss)
    if view.cwnd < view.smss:
        view.cwnd = view.smss


cdef void slow_start_again(cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef uint32_t step = sample.acked, most = view.smss if sample.after_timeout else BYTE_COUNTING_LIMIT * view.smss
    if step > most and (sample.after_timeout or view.pacing_rate == 0):
        step = most
    if step > view.ssthresh - view.cwnd:
        step = view.ssthresh - view.cwnd
    if view.cwnd < CWND_GROWS_BELOW:
        view.cwnd += step


cdef void cc_fill_defaults(cc_ops_t *ops) noexcept nogil:
    if ops.init == NULL:
        ops.init = default_init
    if ops.wake == NULL:
        ops.wake = default_wake
    if ops.release == NULL:
        ops.release = default_release
    ops.hears_sent = ops.on_sent != NULL and ops.on_sent != default_on_sent
    ops.hears_start = ops.on_start != NULL and ops.on_start != default_on_start
    ops.hears_lost = ops.on_lost != NULL and ops.on_lost != default_on_lost
    if ops.on_start == NULL:
        ops.on_start = default_on_start
    if ops.on_lost == NULL:
        ops.on_lost = default_on_lost
    if ops.on_sent == NULL:
        ops.on_sent = default_on_sent
    if ops.on_ack == NULL:
        ops.on_ack = default_on_ack
    if ops.on_loss == NULL:
        ops.on_loss = cc_default_on_loss
    if ops.on_ecn == NULL:
        ops.on_ecn = ops.on_loss            # the control's own, where it has one
    if ops.on_spurious == NULL:
        ops.on_spurious = cc_default_on_spurious
    if ops.on_rto == NULL:
        ops.on_rto = cc_default_on_rto
    if ops.on_idle == NULL:
        ops.on_idle = cc_default_on_idle
    if ops.on_mtu == NULL:
        ops.on_mtu = cc_default_on_mtu

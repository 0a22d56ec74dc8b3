# SPDX-License-Identifier: MIT
"""CUBIC: the window follows a cubic function of the time since the last congestion, flat where that happened.

    W_cubic(t) = C * (t - K)^3 + W_max          K: when it reaches W_max again, the cube root of (W_max - cwnd) / C

Where Reno would be faster (short round trips, small windows), it is as fast as Reno (W_est). The first slow start is
HyStart++'s (hystart), one after a timeout Reno's. It decides how much may be in flight, never what is sent.

Windows are in segments here, as in the RFC, because its C is; the view's are bytes. All of it is whole numbers: windows
in 1/1024 of a segment (W_est in 2^-32, as one ACK adds little to it), times in ticks of 1/1024 s. So K is short by less
than a tick, and W_cubic by less than 3/1024 of a segment for it and for its own rounding, wherever the curve is flatter
than two segments a tick. What one ACK adds to the window is carried on to 2^-32 of a byte.

Read first: RFC 9438 section 4. Above: registry. Below: hystart, validation, contract, defaults.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, SSTHRESH_AT_FIRST, ack_sample_t, cc_view_t
from ustack.tcp.cc.defaults cimport cc_default_on_idle, cc_default_on_mtu, slow_start_again
from ustack.tcp.cc.hystart cimport hystart_on_ack, hystart_t
from ustack.tcp.cc.validation cimport validation_base, validation_forget, validation_on_ack, validation_t


cdef enum:
    BETA_TENTHS = 7                         # section 4.6: beta_cubic = 0.7
    BETA_ECN_HUNDREDTHS = 85                # RFC 8511 section 3.1: what it recommends for CUBIC
    WINDOW_SHIFT = 10                       # windows in 1/1024 of a segment
    W_EST_SHIFT = 32
    CUBE_SHIFT = 20                         # of (t - K)^3 in ticks, to segments / C in 1/1024
    # Section 4.3: alpha_cubic = 3 * (1 - beta_cubic) / (1 + beta_cubic) = 9/17
    ALPHA_NUMERATOR = 9
    ALPHA_DENOMINATOR = 17
    TICKS_FROM_K_MAX = (1 << 21) - 1        # 34 minutes: C * t^3 is beyond any window, and the cube fits in 64 bits
    RTT_WEIGHT_SHIFT = 3                    # RFC 6298 (2.3): alpha = 1/8

# What a congestion event changes, and what comes back when it was none (section 4.9.2).
ctypedef struct cubic_curve_t:              # 32 bytes
    uint64_t w_est                          # where Reno would be: segments << W_EST_SHIFT
    uint64_t epoch_ns                       # congestion avoidance began; moved by pauses. 0: not in it
    uint32_t w_max                          # segments << WINDOW_SHIFT, like:
    uint32_t cwnd_prior                     # the window when ssthresh was last set
    uint32_t k                              # ticks
    uint32_t after_timeout                  # the next stage begins without a W_max

ctypedef struct cubic_t:
    cubic_curve_t now
    cubic_curve_t before                    # the last congestion event
    uint64_t heard_ns                       # the last ACK
    uint32_t carried                        # 2^-32 of a byte: what is not yet worth one
    uint32_t srtt_us
    hystart_t hystart
    validation_t validation


cdef inline cubic_t *own_of(void *state) noexcept nogil:
    return <cubic_t *>state


cdef uint32_t cube_root(uint64_t value) noexcept nogil:
    """Digit by digit, three bits of the value for one of the root: 22 steps."""
    cdef uint64_t root = 0, next_cube
    cdef int shift = 63
    while shift >= 0:
        root <<= 1
        next_cube = 3 * root * (root + 1) + 1           # (root + 1)^3 - root^3
        if value >> shift >= next_cube:
            value -= next_cube << shift
            root += 1
        shift -= 3
    return <uint32_t>root


cdef inline uint32_t in_segments(uint32_t window, uint32_t smss) noexcept nogil:
    cdef uint64_t segments = (<uint64_t>window << WINDOW_SHIFT) // smss
    return <uint32_t>segments if segments < 0xFFFFFFFFu else 0xFFFFFFFFu


cdef inline uint64_t in_bytes(uint64_t segments, uint32_t smss) noexcept nogil:
    return segments * smss >> WINDOW_SHIFT


cdef inline uint64_t ticks(uint64_t ns) noexcept nogil:
    return ns * 2 // 1953125                            # 1024 / 10^9


cdef void begin_stage(cubic_curve_t *curve, const cc_view_t *view) noexcept nogil:
    """A stage of congestion avoidance begins at this window (sections 4.2 and 4.3)."""
    cdef uint32_t cwnd = in_segments(view.cwnd, view.smss)
    curve.epoch_ns = view.now_ns
    curve.w_est = <uint64_t>cwnd << (W_EST_SHIFT - WINDOW_SHIFT)
    # The first stage after a timeout (section 4.8), and one after a slow start that no loss has ended (section 4.10),
    # begin at the flat part.
    if curve.after_timeout or curve.w_max < cwnd:
        curve.w_max = cwnd
    curve.after_timeout = False
    # (W_max - cwnd) / C in ticks^3: / 1024 * 1024^3 / 0.4. At most 2^32 * 2^22.
    curve.k = cube_root(<uint64_t>(curve.w_max - cwnd) * ((1u << CUBE_SHIFT) * 5 // 2))


cdef uint64_t w_cubic(const cubic_curve_t *curve, uint64_t t) noexcept nogil:
    """Equation (1), in 1/1024 of a segment, t ticks after the stage began. C = 2/5 (section 5.1)."""
    cdef uint64_t from_k = t - curve.k if t > curve.k else curve.k - t
    cdef uint64_t cube
    if from_k > TICKS_FROM_K_MAX:
        from_k = TICKS_FROM_K_MAX
    cube = (from_k * from_k * from_k >> CUBE_SHIFT) * 2 // 5
    if t > curve.k:
        return curve.w_max + cube
    return curve.w_max - cube if cube < curve.w_max else 0


cdef void avoid_congestion(cubic_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """Sections 4.2 to 4.5, for one ACK; it counts for one window at most."""
    cdef cubic_curve_t *curve = &own.now
    cdef uint32_t acked = sample.acked if sample.acked < view.cwnd else view.cwnd
    cdef uint64_t of_window = (<uint64_t>acked << W_EST_SHIFT) // view.cwnd
    cdef uint64_t t, target, grown
    if curve.epoch_ns == 0:
        begin_stage(curve, view)
        own.carried = 0
    if view.cwnd >= CWND_GROWS_BELOW:
        return
    t = ticks(view.now_ns - curve.epoch_ns)
    # Equation (4): by alpha_cubic for each window, until the window before the loss is reached; then by one segment.
    if curve.w_est >> (W_EST_SHIFT - WINDOW_SHIFT) >= curve.cwnd_prior:
        curve.w_est += of_window
    else:
        curve.w_est += of_window * ALPHA_NUMERATOR // ALPHA_DENOMINATOR
    if w_cubic(curve, t) < curve.w_est >> (W_EST_SHIFT - WINDOW_SHIFT):
        target = in_bytes(curve.w_est >> (W_EST_SHIFT - WINDOW_SHIFT), view.smss)
        if target > view.cwnd:
            view.cwnd = <uint32_t>target if target < CWND_GROWS_BELOW else CWND_GROWS_BELOW
        return
    target = in_bytes(w_cubic(curve, t + ticks(own.srtt_us * 1000ULL)), view.smss)
    if target <= view.cwnd:
        return
    grown = target - view.cwnd
    if grown > view.cwnd // 2:              # section 4.2: target is between cwnd and 1.5 * cwnd
        grown = view.cwnd // 2
    grown = (grown << 32) // view.cwnd * acked + own.carried
    own.carried = <uint32_t>grown
    view.cwnd += <uint32_t>(grown >> 32)


cdef void cubic_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef cubic_t *own = own_of(state)
    cdef uint64_t since_ns = view.now_ns - own.heard_ns
    own.heard_ns = view.now_ns
    if sample.rtt_us:
        if own.srtt_us == 0:
            own.srtt_us = sample.rtt_us
        else:
            own.srtt_us += (sample.rtt_us >> RTT_WEIGHT_SHIFT) - (own.srtt_us >> RTT_WEIGHT_SHIFT)
    if validation_on_ack(&own.validation, view, sample):
        own.now.epoch_ns = 0
        return
    if sample.in_recovery:
        return
    if view.cwnd < view.ssthresh and view.ssthresh == SSTHRESH_AT_FIRST:
        hystart_on_ack(&own.hystart, view, sample)
    elif not sample.cwnd_limited:
        # Section 4.2: t is without the time in which the application did not fill the window (section 5.8).
        if own.now.epoch_ns:
            own.now.epoch_ns += since_ns
    elif view.cwnd < view.ssthresh:
        slow_start_again(view, sample)
    else:
        avoid_congestion(own, view, sample)


cdef void note_event(cubic_t *own, const cc_view_t *view) noexcept nogil:
    """A congestion event at this window: W_max is what was too much."""
    cdef uint32_t cwnd = in_segments(view.cwnd, view.smss)
    own.before = own.now
    own.now.cwnd_prior = cwnd
    if cwnd < own.now.w_max:
        # Section 4.7, fast convergence: less than last time, so leave room for newcomers. (1 + beta) / 2 = 0.85
        own.now.w_max = <uint32_t>(<uint64_t>cwnd * (10 + BETA_TENTHS) // 20)
    else:
        own.now.w_max = cwnd
    own.now.epoch_ns = 0
    own.now.after_timeout = False


cdef inline uint32_t reduced(uint32_t flight, uint32_t hundredths) noexcept nogil:
    return <uint32_t>(<uint64_t>flight * hundredths // 100)


cdef void cubic_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """Section 4.6, by FlightSize; by what was used of the window, where that was not validated (RFC 7661 section
    4.4.1): that is W_max then, and half of it safe."""
    cdef uint32_t base = validation_base(&own_of(state).validation, view, flight, True)
    if base and base < view.cwnd:
        view.cwnd = base
    note_event(own_of(state), view)
    view.ssthresh = base // 2 if base else reduced(flight, 10 * BETA_TENTHS)
    if view.ssthresh < 2 * view.smss:
        view.ssthresh = 2 * view.smss
    view.cwnd = view.ssthresh


cdef void cubic_on_ecn(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """Section 4.6 with the factor of RFC 8511. The window goes down to one segment; below that it is the timer's. One
    that was not validated counts as at a loss."""
    cdef uint32_t base = validation_base(&own_of(state).validation, view, flight, False)
    if base and base < view.cwnd:
        view.cwnd = base
    note_event(own_of(state), view)
    view.ssthresh = base // 2 if base else reduced(flight, BETA_ECN_HUNDREDTHS)
    view.cwnd = view.ssthresh if view.ssthresh > view.smss else view.smss
    if view.ssthresh < 2 * view.smss:
        view.ssthresh = 2 * view.smss


cdef void cubic_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    """Section 4.8: as RFC 5681 but for the factor."""
    validation_forget(&own_of(state).validation)
    if first:
        cubic_on_loss(state, view, flight)
    own_of(state).now.epoch_ns = 0
    own_of(state).now.after_timeout = True
    view.cwnd = view.smss


cdef void cubic_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before,
                            uint32_t ssthresh_before) noexcept nogil:
    """Section 4.9: all of it as it was, unless the window has grown beyond that since."""
    cdef cubic_t *own = own_of(state)
    validation_forget(&own.validation)
    if view.cwnd >= cwnd_before:
        return
    own.now = own.before
    view.cwnd = cwnd_before
    view.ssthresh = ssthresh_before


cdef void cubic_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    own_of(state).now.epoch_ns = 0     # a new stage begins where slow start has led back to
    validation_forget(&own_of(state).validation)
    cc_default_on_idle(state, view, restart_window)


cdef void in_larger_segments(cubic_curve_t *curve, uint32_t smss, uint32_t old_smss) noexcept nogil:
    curve.w_max = <uint32_t>(<uint64_t>curve.w_max * old_smss // smss)
    curve.cwnd_prior = <uint32_t>(<uint64_t>curve.cwnd_prior * old_smss // smss)
    curve.epoch_ns = 0


cdef void cubic_on_mtu(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil:
    """The window keeps its segments where they become smaller, its bytes where they become larger: so does W_max."""
    cc_default_on_mtu(state, view, old_smss)
    if view.smss > old_smss:
        in_larger_segments(&own_of(state).now, view.smss, old_smss)
        in_larger_segments(&own_of(state).before, view.smss, old_smss)


cdef uint32_t cubic_rest(void *state) noexcept nogil:
    """W_max is what the path has taught; the rest is found again in a round trip."""
    cdef uint32_t w_max = own_of(state).now.w_max
    return w_max if w_max else 1


cdef void cubic_wake(void *state, cc_view_t *view, uint32_t kept) noexcept nogil:
    own_of(state).now.w_max = kept
    own_of(state).now.cwnd_prior = kept


cdef cc_ops_t OPS
OPS.name = b"cubic"
OPS.state_bytes = sizeof(cubic_t)
OPS.begins_late = True
OPS.rest = cubic_rest
OPS.wake = cubic_wake
OPS.on_ack = cubic_on_ack
OPS.on_loss = cubic_on_loss
OPS.on_ecn = cubic_on_ecn
OPS.on_spurious = cubic_on_spurious
OPS.on_rto = cubic_on_rto
OPS.on_idle = cubic_on_idle
OPS.on_mtu = cubic_on_mtu


cdef cc_ops_t *cubic_ops() noexcept nogil:
    return &OPS

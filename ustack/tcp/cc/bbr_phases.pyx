# SPDX-License-Identifier: MIT
"""BBR's state machine and its long-term model. See bbr_phases.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.bbr_model cimport (
    ACKS_INIT, ACKS_PROBE_FEEDBACK, ACKS_PROBE_STARTING, ACKS_PROBE_STOPPING, ACKS_REFILLING, BBR_CRUISE, BBR_DOWN,
    BBR_DRAIN, BBR_NO_STATE, BBR_PROBE_RTT, BBR_REFILL, BBR_STARTUP, BBR_UP, BETA_TENTHS, HEADROOM_HUNDREDTHS,
    LOSS_THRESH_HUNDREDTHS, MIN_PIPE_SEGS, UNBOUND, advance_latest_delivery_signals, advance_max_bw_filter,
    bdp_multiple, bound_bw_for_model, is_in_probe_bw, max_u32, max_u64, min_u32, quantization_budget,
    reset_congestion_signals, reset_short_term_model, start_round, target_inflight, update_ack_aggregation,
    update_congestion_signals, update_latest_delivery_signals, update_min_rtt)
from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW


cdef enum:
    FULL_BW_ROUNDS = 3
    STARTUP_FULL_LOSS_CNT = 6
    DRAIN_ROUNDS = 3
    RENO_ROUNDS = 63                        # section 5.3.3.8: with the lot of PickProbeWait, 62 or 63
    UP_ROUNDS_MAX = 30
    PROBE_RTT_CWND_GAIN = 50

cdef uint64_t SECOND_NS = 1000000000
cdef uint64_t PROBE_RTT_DURATION_NS = 200000000


cdef inline uint32_t draw(bbr_t *own) noexcept nogil:
    """xorshift32; never 0."""
    own.seed ^= own.seed << 13
    own.seed ^= own.seed >> 17
    own.seed ^= own.seed << 5
    return own.seed


# ---------------------------------------------------------------- the pipe is full (5.3.1.2, 5.3.1.3)

cdef void reset_full_bw(bbr_t *own) noexcept nogil:
    own.full_bw = 0
    own.full_bw_count = 0
    own.full_bw_now = False


cdef void check_full_bw_reached(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    if own.full_bw_now or not own.round_start or sample.is_app_limited:
        return
    if own.rate >= own.full_bw + own.full_bw // 4:
        reset_full_bw(own)
        own.full_bw = own.rate
        return
    own.full_bw_count += 1
    own.full_bw_now = own.full_bw_count >= FULL_BW_ROUNDS
    if own.full_bw_now:
        own.full_bw_reached = True


cdef inline bint is_inflight_too_high(uint32_t lost, uint32_t in_flight, bint selective) noexcept nogil:
    return lost * 100ULL > <uint64_t>in_flight * LOSS_THRESH_HUNDREDTHS or (lost > 0 and not selective)


cdef void leave_startup_by_loss(bbr_t *own) noexcept nogil:
    cdef uint64_t safe = max_u64(bdp_multiple(own, own.bw, 100), own.inflight_latest)
    own.undo_state = BBR_STARTUP
    own.full_bw_reached = True
    own.inflight_longterm = <uint32_t>safe if safe < UNBOUND else UNBOUND


cdef void check_startup_high_loss(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    if own.state != BBR_STARTUP or own.full_bw_reached or not sample.in_recovery:
        return
    if sample.selective:
        if not own.loss_round_start:
            return
        if (own.round_count != own.recovery_round and own.lost_ranges >= STARTUP_FULL_LOSS_CNT
                and is_inflight_too_high(sample.rate_lost, sample.rate_in_flight, True)):
            leave_startup_by_loss(own)
    elif own.lost_ranges:
        leave_startup_by_loss(own)


# ---------------------------------------------------------------- STARTUP, DRAIN

cdef void enter_startup(bbr_t *own) noexcept nogil:
    own.state = BBR_STARTUP


cdef void enter_drain(bbr_t *own) noexcept nogil:
    own.state = BBR_DRAIN
    own.drain_start_round = own.round_count


cdef void check_startup_done(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    check_startup_high_loss(own, sample)
    if own.loss_round_start:
        own.lost_ranges = 0
    if own.state == BBR_STARTUP and own.full_bw_reached:
        enter_drain(own)


cdef uint64_t inflight(const bbr_t *own, uint64_t bw, uint32_t gain, uint32_t smss) noexcept nogil:
    return quantization_budget(own, bdp_multiple(own, bw, gain), smss)


cdef void check_drain_done(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    if own.state == BBR_DRAIN and (sample.in_flight <= inflight(own, own.bw, 100, view.smss)
                                   or own.round_count - own.drain_start_round > DRAIN_ROUNDS):
        start_down(own, view)


# ---------------------------------------------------------------- ProbeBW (5.3.3)

cdef void start_down(bbr_t *own, const cc_view_t *view) noexcept nogil:
    reset_congestion_signals(own)
    own.probe_up_acked_per_inc = UNBOUND
    # PickProbeWait: up to one round, and up to one second, by lot.
    own.rounds_since_probe_up = draw(own) & 1
    own.bw_probe_wait_ns = 2 * SECOND_NS + draw(own) % SECOND_NS
    own.cycle_stamp_ns = view.now_ns
    own.ack_phase = ACKS_PROBE_STOPPING
    start_round(own)
    own.state = BBR_DOWN


cdef void start_refill(bbr_t *own) noexcept nogil:
    reset_short_term_model(own)
    own.bw_probe_up_rounds = 0
    own.bw_probe_up_acked = 0
    own.prev_probe_precautionary = False
    own.ack_phase = ACKS_REFILLING
    start_round(own)
    own.state = BBR_REFILL


cdef void raise_inflight_longterm_slope(bbr_t *own, const cc_view_t *view) noexcept nogil:
    own.probe_up_acked_per_inc = max_u32(view.cwnd >> own.bw_probe_up_rounds, view.smss)
    own.bw_probe_up_rounds = min_u32(own.bw_probe_up_rounds + 1, UP_ROUNDS_MAX)


cdef void start_up(bbr_t *own, const cc_view_t *view) noexcept nogil:
    own.ack_phase = ACKS_PROBE_STARTING
    start_round(own)
    reset_full_bw(own)
    own.full_bw = own.rate
    own.state = BBR_UP
    raise_inflight_longterm_slope(own, view)


cdef bint is_time_to_probe_bw(bbr_t *own, const cc_view_t *view) noexcept nogil:
    """By the clock, or after the round trips in which Reno would have regained what a loss takes."""
    if (view.now_ns > own.cycle_stamp_ns + own.bw_probe_wait_ns
            or own.rounds_since_probe_up >= min_u32(target_inflight(own, view) // view.smss, RENO_ROUNDS)):
        start_refill(own)
        return True
    return False


cdef bint is_time_to_cruise(const bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    return (sample.in_flight <= inflight_with_headroom(own, view.smss)
            and sample.in_flight <= inflight(own, own.max_bw, 100, view.smss))


cdef inline bint is_cwnd_limited(const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """Not sample.cwnd_limited, which asks for half of it below ssthresh."""
    return sample.prior_in_flight + view.smss > view.cwnd


cdef bint is_time_to_go_down(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    if own.prev_probe_too_high and sample.in_flight >= own.inflight_longterm:
        own.prev_probe_precautionary = True
        return True
    if is_cwnd_limited(view, sample) and view.cwnd >= own.inflight_longterm:
        reset_full_bw(own)                  # the rate is limited by inflight_longterm
        own.full_bw = own.rate
        return False
    return own.full_bw_now


cdef void update_probe_bw_cycle_phase(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    if not own.full_bw_reached or adapt_long_term_model(own, view, sample):
        return
    if own.state == BBR_DOWN:
        if not is_time_to_probe_bw(own, view) and is_time_to_cruise(own, view, sample):
            own.state = BBR_CRUISE
    elif own.state == BBR_CRUISE:
        is_time_to_probe_bw(own, view)
    elif own.state == BBR_REFILL:
        if own.round_start:
            own.is_bw_probe_sample = True
            start_up(own, view)
    elif own.state == BBR_UP and is_time_to_go_down(own, view, sample):
        own.prev_probe_too_high = False
        start_down(own, view)


# ---------------------------------------------------------------- the long term (5.3.3.9, 5.5.10.2)

cdef uint32_t inflight_with_headroom(const bbr_t *own, uint32_t smss) noexcept nogil:
    cdef uint32_t headroom
    if own.inflight_longterm == UNBOUND:
        return UNBOUND
    headroom = max_u32(smss, <uint32_t>(<uint64_t>own.inflight_longterm * HEADROOM_HUNDREDTHS // 100))
    return max_u32(own.inflight_longterm - headroom if own.inflight_longterm > headroom else 0, MIN_PIPE_SEGS * smss)


cdef void probe_inflight_longterm_upward(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef uint32_t delta
    if not is_cwnd_limited(view, sample) or view.cwnd < own.inflight_longterm:
        return                              # not used as it is
    own.bw_probe_up_acked += sample.delivered
    if own.bw_probe_up_acked >= own.probe_up_acked_per_inc:
        delta = own.bw_probe_up_acked // own.probe_up_acked_per_inc
        own.bw_probe_up_acked -= delta * own.probe_up_acked_per_inc
        if own.inflight_longterm < CWND_GROWS_BELOW:
            own.inflight_longterm += <uint32_t>min_u32(delta, CWND_GROWS_BELOW // view.smss) * view.smss
    if own.round_start:
        raise_inflight_longterm_slope(own, view)


cdef bint adapt_long_term_model(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """What the ACKs of a probe say. True: it has decided on the next state."""
    if own.ack_phase == ACKS_PROBE_STARTING and own.round_start:
        own.ack_phase = ACKS_PROBE_FEEDBACK
    if own.ack_phase == ACKS_PROBE_STOPPING and own.round_start:
        own.is_bw_probe_sample = False
        own.ack_phase = ACKS_INIT
        if is_in_probe_bw(own) and not sample.is_app_limited:
            advance_max_bw_filter(own)
        # Precautionary bandwidth probing, acceleration (section 5.3.3.6).
        if is_in_probe_bw(own) and own.prev_probe_precautionary and not own.prev_probe_too_high:
            start_refill(own)
            return True
    if not is_inflight_too_high(sample.rate_lost, sample.rate_in_flight, sample.selective):
        if own.inflight_longterm == UNBOUND:
            return False
        if sample.rate_in_flight > own.inflight_longterm:
            own.inflight_longterm = sample.rate_in_flight
        if own.state == BBR_UP:
            probe_inflight_longterm_upward(own, view, sample)
    return False


cdef void handle_inflight_too_high(bbr_t *own, cc_view_t *view, uint32_t in_flight, bint app_limited) noexcept nogil:
    own.prev_probe_too_high = True
    own.is_bw_probe_sample = False          # one answer to each probe
    if not app_limited:
        own.inflight_longterm = max_u32(in_flight,
                                        <uint32_t>(<uint64_t>target_inflight(own, view) * BETA_TENTHS // 10))
    if own.state == BBR_UP:
        own.undo_state = BBR_UP
        start_down(own, view)


cdef uint32_t inflight_at_loss(const loss_sample_t *lost) noexcept nogil:
    """At which prefix of the frame had two in a hundred been lost? It may carry many segments."""
    cdef uint64_t inflight_prev = lost.in_flight - lost.bytes if lost.in_flight > lost.bytes else 0
    cdef uint64_t lost_prev = lost.lost - lost.bytes if lost.lost > lost.bytes else 0
    cdef uint64_t allowed = inflight_prev * LOSS_THRESH_HUNDREDTHS // 100
    if lost_prev >= allowed:
        return <uint32_t>inflight_prev
    return <uint32_t>(inflight_prev + (allowed - lost_prev) * 100 // (100 - LOSS_THRESH_HUNDREDTHS))


# ---------------------------------------------------------------- losses

cdef void save_cwnd(bbr_t *own, const cc_view_t *view) noexcept nogil:
    if not (own.in_recovery or own.in_rto) and own.state != BBR_PROBE_RTT:
        own.prior_cwnd = view.cwnd
    else:
        own.prior_cwnd = max_u32(own.prior_cwnd, view.cwnd)


cdef void restore_cwnd(const bbr_t *own, cc_view_t *view) noexcept nogil:
    view.cwnd = max_u32(view.cwnd, own.prior_cwnd)


cdef void save_state_upon_loss(bbr_t *own, const cc_view_t *view) noexcept nogil:
    """Once for a repair (section 5.5.11.1), with its first loss: by the second one the state may have moved on."""
    if own.saved:
        return
    own.saved = True
    save_cwnd(own, view)
    own.undo_state = BBR_NO_STATE
    own.undo_bw_shortterm = own.bw_shortterm
    own.undo_inflight_shortterm = own.inflight_shortterm
    own.undo_inflight_longterm = own.inflight_longterm


cdef void note_loss(bbr_t *own, const cc_view_t *view) noexcept nogil:
    if not own.is_loss_in_round:
        own.loss_round_delivered = own.delivered
        save_state_upon_loss(own, view)
    own.is_loss_in_round = True


cdef void handle_lost(bbr_t *own, cc_view_t *view, const loss_sample_t *lost) noexcept nogil:
    own.delivered = lost.delivered_total
    note_loss(own, view)
    if own.lost_ranges == 0 or lost.seq != own.lost_end:
        own.lost_ranges += 1
    own.lost_end = lost.seq + lost.bytes
    if own.is_bw_probe_sample and is_inflight_too_high(lost.lost, lost.in_flight, lost.selective):
        handle_inflight_too_high(own, view, inflight_at_loss(lost), lost.app_limited)


cdef void handle_mark(bbr_t *own, cc_view_t *view, uint32_t flight) noexcept nogil:
    note_loss(own, view)
    if own.state == BBR_STARTUP:
        leave_startup_by_loss(own)          # DRAIN follows with the next ACK
    elif own.is_bw_probe_sample:
        handle_inflight_too_high(own, view, flight, False)


cdef void handle_spurious_loss(bbr_t *own, cc_view_t *view) noexcept nogil:
    """Section 5.5.11.2: at least what was, and back to the probe that the loss had ended."""
    restore_cwnd(own, view)
    own.is_loss_in_round = False
    reset_full_bw(own)
    own.bw_shortterm = max_u64(own.bw_shortterm, own.undo_bw_shortterm)
    own.inflight_shortterm = max_u32(own.inflight_shortterm, own.undo_inflight_shortterm)
    own.inflight_longterm = max_u32(own.inflight_longterm, own.undo_inflight_longterm)
    if own.undo_state == BBR_STARTUP and own.state != BBR_STARTUP:
        own.full_bw_reached = False
        if own.state != BBR_PROBE_RTT:
            enter_startup(own)
    elif own.undo_state == BBR_UP and own.state != BBR_UP and own.state != BBR_PROBE_RTT:
        start_refill(own)
    own.undo_state = BBR_NO_STATE
    own.saved = False


# ---------------------------------------------------------------- ProbeRTT (5.3.4)

cdef uint32_t probe_rtt_cwnd(const bbr_t *own, uint32_t smss) noexcept nogil:
    cdef uint64_t half = bdp_multiple(own, own.bw, PROBE_RTT_CWND_GAIN)
    return <uint32_t>max_u64(half if half < CWND_GROWS_BELOW else CWND_GROWS_BELOW, MIN_PIPE_SEGS * <uint64_t>smss)


cdef void resume_cruise(bbr_t *own, const cc_view_t *view) noexcept nogil:
    start_down(own, view)
    own.state = BBR_CRUISE


cdef void exit_probe_rtt(bbr_t *own, const cc_view_t *view) noexcept nogil:
    reset_short_term_model(own)
    if own.full_bw_reached:
        resume_cruise(own, view)
    else:
        enter_startup(own)


cdef void check_probe_rtt_done(bbr_t *own, cc_view_t *view) noexcept nogil:
    if own.probe_rtt_done_stamp_ns == 0 or view.now_ns <= own.probe_rtt_done_stamp_ns:
        return
    own.probe_rtt_min_stamp_ns = view.now_ns
    restore_cwnd(own, view)
    exit_probe_rtt(own, view)


cdef void handle_probe_rtt(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    view.hold_samples = True                # MarkConnectionAppLimited: its low rates say nothing
    if own.probe_rtt_done_stamp_ns == 0:
        if sample.in_flight <= probe_rtt_cwnd(own, view.smss):
            own.probe_rtt_done_stamp_ns = view.now_ns + PROBE_RTT_DURATION_NS
            own.probe_rtt_round_done = False
            start_round(own)
        return
    if own.round_start:
        own.probe_rtt_round_done = True
    if own.probe_rtt_round_done:
        check_probe_rtt_done(own, view)


cdef void check_probe_rtt(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    if own.state != BBR_PROBE_RTT and own.probe_rtt_expired and not own.idle_restart:
        save_cwnd(own, view)
        own.state = BBR_PROBE_RTT
        own.probe_rtt_done_stamp_ns = 0
        own.ack_phase = ACKS_PROBE_STOPPING
        start_round(own)
    if own.state == BBR_PROBE_RTT:
        handle_probe_rtt(own, view, sample)
    if sample.rate_delivered:
        own.idle_restart = False


cdef void update_model_and_state(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    update_latest_delivery_signals(own, sample)
    update_congestion_signals(own, view, sample)
    update_ack_aggregation(own, view, sample)
    check_full_bw_reached(own, sample)
    check_startup_done(own, sample)
    check_drain_done(own, view, sample)
    update_probe_bw_cycle_phase(own, view, sample)
    update_min_rtt(own, view, sample)
    check_probe_rtt(own, view, sample)
    advance_latest_delivery_signals(own, sample)
    bound_bw_for_model(own)

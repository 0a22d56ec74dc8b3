# SPDX-License-Identifier: MIT
"""BBR, version 3: send at the rate at which the path delivers, with as much in flight as that takes.

It builds a model of the path from rates, round trips and losses (bbr_model), probes it in a cycle of phases
(bbr_phases), and from both sets what this file is about: the pacing rate, and the window as a bound above it. Unlike
the others it does not take a loss as an order to halve: the model bounds the window, while a loss is repaired as well
(`owns_repair`), and two lost in a hundred are borne.

What the draft leaves open: how to answer ECN (section 3.7, MUST treat marks as congestion). A mark, of which there is
at most one a round trip, counts as losses that are too many: it ends Startup and a probe, and otherwise shrinks the
short-term model once a round.

Read first: draft-ietf-ccwg-bbr-06 sections 3 and 5. Above: registry. Below: bbr_phases, bbr_model, contract.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.bbr_model cimport (
    ACKS_INIT, BBR_CRUISE, BBR_DOWN, BBR_DRAIN, BBR_NO_STATE, BBR_PROBE_RTT, BBR_STARTUP, BBR_UP, MIN_PIPE_SEGS, NO_RTT,
    UNBOUND, bbr_t, bdp_multiple, count_reached, is_in_probe_bw, max_u32, max_u64, min_u32, quantization_budget,
    reset_congestion_signals, reset_short_term_model)
from ustack.tcp.cc.bbr_phases cimport (
    check_probe_rtt_done, enter_startup, handle_lost, handle_mark, handle_spurious_loss, inflight_with_headroom,
    probe_rtt_cwnd, restore_cwnd, resume_cruise, save_state_upon_loss, update_model_and_state)
from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW, ack_sample_t, cc_view_t, loss_sample_t


cdef enum:                                  # hundredths: the table of section 5.6.1
    STARTUP_PACING_GAIN = 277
    DRAIN_PACING_GAIN = 50
    DOWN_PACING_GAIN = 90
    UP_PACING_GAIN = 125
    DEFAULT_CWND_GAIN = 200
    UP_CWND_GAIN = 225
    PROBE_RTT_CWND_GAIN = 50
    PACING_MARGIN = 99                      # 1 % below
    QUANTUM_MAX = 65535
    NOTHING_LEARNT = 1                      # of what is kept while the connection rests

cdef uint64_t QUANTA_PER_SECOND = 1000


# ---------------------------------------------------------------- control parameters (5.6)

cdef inline uint32_t pacing_gain(const bbr_t *own) noexcept nogil:
    if own.state == BBR_STARTUP:
        return STARTUP_PACING_GAIN
    if own.state == BBR_DRAIN:
        return DRAIN_PACING_GAIN
    if own.state == BBR_DOWN:
        return DOWN_PACING_GAIN
    return UP_PACING_GAIN if own.state == BBR_UP else 100


cdef inline uint32_t cwnd_gain(const bbr_t *own) noexcept nogil:
    if own.state == BBR_PROBE_RTT:
        return PROBE_RTT_CWND_GAIN
    return UP_CWND_GAIN if own.state == BBR_UP else DEFAULT_CWND_GAIN


cdef void init_pacing_rate(bbr_t *own, uint32_t srtt_us) noexcept nogil:
    """The initial window in a round trip, or in a millisecond while none is known; a byte per second at least, because
    0 says that nothing is paced."""
    own.seen_rtt = srtt_us != 0
    own.pacing_rate = max_u64(own.initial_cwnd * 1000000ULL // (srtt_us if srtt_us else 1000)
                              * STARTUP_PACING_GAIN // 100, 1)


cdef void set_pacing_rate_with_gain(bbr_t *own, uint32_t gain) noexcept nogil:
    cdef uint64_t rate = own.bw * gain // 100 * PACING_MARGIN // 100
    if own.full_bw_reached or rate > own.pacing_rate:
        own.pacing_rate = max_u64(rate, 1)


cdef void set_send_quantum(bbr_t *own, uint32_t smss) noexcept nogil:
    cdef uint64_t quantum = own.pacing_rate // QUANTA_PER_SECOND
    own.send_quantum = max_u32(<uint32_t>quantum if quantum < QUANTUM_MAX else QUANTUM_MAX, 2 * smss)


cdef void bound_cwnd_for_model(const bbr_t *own, cc_view_t *view) noexcept nogil:
    cdef uint32_t cap = UNBOUND
    if own.state == BBR_PROBE_RTT or own.state == BBR_CRUISE:
        cap = inflight_with_headroom(own, view.smss)
    elif is_in_probe_bw(own):
        cap = own.inflight_longterm
    cap = min_u32(cap, own.inflight_shortterm)
    view.cwnd = min_u32(view.cwnd, max_u32(cap, MIN_PIPE_SEGS * view.smss))


cdef void set_cwnd(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef uint64_t max_inflight = quantization_budget(
        own, bdp_multiple(own, own.bw, cwnd_gain(own)) + own.extra_acked, view.smss)
    cdef uint64_t cwnd = <uint64_t>view.cwnd + sample.delivered
    if own.full_bw_reached:
        if cwnd > max_inflight:
            cwnd = max_inflight
    elif view.cwnd >= max_inflight and own.first_window_delivered:
        cwnd = view.cwnd
    if cwnd > CWND_GROWS_BELOW:
        cwnd = CWND_GROWS_BELOW
    view.cwnd = max_u32(<uint32_t>cwnd, MIN_PIPE_SEGS * view.smss)
    if own.state == BBR_PROBE_RTT:
        view.cwnd = min_u32(view.cwnd, probe_rtt_cwnd(own, view.smss))
    bound_cwnd_for_model(own, view)


# ---------------------------------------------------------------- the calls of a control

cdef inline bbr_t *own_of(void *state) noexcept nogil:
    return <bbr_t *>state


cdef void bbr_init(void *state, cc_view_t *view) noexcept nogil:
    """OnInit of section 5.2.1; what is 0 there is 0 already."""
    cdef bbr_t *own = own_of(state)
    own.min_rtt_us = view.srtt_us if view.srtt_us else NO_RTT
    own.min_rtt_stamp_ns = view.now_ns
    own.probe_rtt_min_delay_us = own.min_rtt_us
    own.probe_rtt_min_stamp_ns = view.now_ns
    own.extra_acked_interval_start_ns = view.now_ns
    own.initial_cwnd = view.cwnd
    own.inflight_longterm = UNBOUND
    own.probe_up_acked_per_inc = UNBOUND
    own.undo_state = BBR_NO_STATE
    own.ack_phase = ACKS_INIT
    own.seed = view.seed | 1
    own.initial_delivered = view.delivered_total
    own.delivered = view.delivered_total
    own.next_round_delivered = own.delivered
    own.loss_round_delivered = own.delivered
    reset_congestion_signals(own)
    reset_short_term_model(own)
    init_pacing_rate(own, view.srtt_us)
    set_send_quantum(own, view.smss)
    enter_startup(own)
    view.pacing_rate = own.pacing_rate


cdef void follow_repair(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """What ended with this ACK brings back the window from before it (section 5.6.4.4)."""
    cdef bint over = own.in_recovery and not sample.in_recovery
    own.in_recovery = sample.in_recovery
    if own.in_rto and count_reached(sample.delivered_total, own.rto_end):
        own.in_rto = False
        over = True
    if over and not own.in_recovery and not own.in_rto:
        own.saved = False
        restore_cwnd(own, view)


cdef void bbr_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """UpdateOnACK of section 5.2.3."""
    cdef bbr_t *own = own_of(state)
    if not own.seen_rtt and sample.rtt_us:
        init_pacing_rate(own, sample.rtt_us)
    if sample.delivered_total - own.initial_delivered >= own.initial_cwnd:
        own.first_window_delivered = True
    follow_repair(own, view, sample)
    update_model_and_state(own, view, sample)
    set_pacing_rate_with_gain(own, pacing_gain(own))
    set_send_quantum(own, view.smss)
    set_cwnd(own, view, sample)
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_lost(void *state, cc_view_t *view, const loss_sample_t *lost) noexcept nogil:
    cdef bbr_t *own = own_of(state)
    handle_lost(own, view, lost)
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    """OnEnterFastRecovery. The first loss of it may have saved the state already, and moved on since."""
    cdef bbr_t *own = own_of(state)
    save_state_upon_loss(own, view)
    own.in_recovery = True
    own.recovery_round = own.round_count
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_ecn(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    cdef bbr_t *own = own_of(state)
    handle_mark(own, view, flight)
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    """OnEnterRTO. What is out is lost, but for what recovery knows better: the window allows one segment."""
    cdef bbr_t *own = own_of(state)
    save_state_upon_loss(own, view)
    own.in_rto = True
    own.delivered = view.delivered_total    # less than it was, where the peer has reneged
    own.rto_end = own.delivered + flight
    view.cwnd = view.smss
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before, uint32_t ssthresh_before) noexcept nogil:
    cdef bbr_t *own = own_of(state)
    own.in_recovery = False
    own.in_rto = False
    handle_spurious_loss(own, view)
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_start(void *state, cc_view_t *view) noexcept nogil:
    """HandleRestartFromIdle of section 5.4.1: the window stays, and the first round trip is paced at the estimate."""
    cdef bbr_t *own = own_of(state)
    own.idle_restart = True
    own.extra_acked_interval_start_ns = view.now_ns
    if is_in_probe_bw(own):
        set_pacing_rate_with_gain(own, 100)
    elif own.state == BBR_PROBE_RTT:
        check_probe_rtt_done(own, view)
    view.pacing_rate = own.pacing_rate


cdef void bbr_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    """Section 5.4.2: pacing takes the place of a restart window."""
    view.pacing_rate = own_of(state).pacing_rate


cdef uint32_t bbr_rest(void *state) noexcept nogil:
    """The rate, in units of 1,024 bytes per second, and in its last bit whether the pipe was ever full."""
    cdef const bbr_t *own = own_of(state)
    cdef uint64_t rate = own.max_bw >> 10
    cdef uint32_t kept = <uint32_t>rate & ~1u if rate < 0xFFFFFFFEu else 0xFFFFFFFEu
    return kept | own.full_bw_reached if kept else NOTHING_LEARNT


cdef void bbr_wake(void *state, cc_view_t *view, uint32_t kept) noexcept nogil:
    """The rate is believed for one cycle more; the round trip is measured again."""
    cdef bbr_t *own = own_of(state)
    bbr_init(state, view)
    if kept == NOTHING_LEARNT:
        return
    own.max_bw_filter[1] = <uint64_t>(kept & ~1u) << 10
    own.max_bw = own.max_bw_filter[1]
    own.bw = own.max_bw
    if kept & 1:
        own.full_bw_reached = True
        own.first_window_delivered = True
        resume_cruise(own, view)
    set_pacing_rate_with_gain(own, pacing_gain(own))
    set_send_quantum(own, view.smss)
    view.pacing_rate = own.pacing_rate


cdef cc_ops_t OPS
OPS.name = b"bbr"
OPS.state_bytes = sizeof(bbr_t)
OPS.owns_repair = True
OPS.paces = True
OPS.rest = bbr_rest
OPS.wake = bbr_wake
OPS.init = bbr_init
OPS.on_start = bbr_on_start
OPS.on_ack = bbr_on_ack
OPS.on_lost = bbr_on_lost
OPS.on_loss = bbr_on_loss
OPS.on_ecn = bbr_on_ecn
OPS.on_spurious = bbr_on_spurious
OPS.on_rto = bbr_on_rto
OPS.on_idle = bbr_on_idle


cdef cc_ops_t *bbr_ops() noexcept nogil:
    return &OPS

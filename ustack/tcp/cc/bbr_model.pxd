# SPDX-License-Identifier: MIT
# BBR's model of the path: how fast it carries, how long it is, how much it holds (draft-ietf-ccwg-bbr-06).
#
#     bbr_t           what a connection remembers; the draft's names without "BBR."
#     this file       filters, rounds, the short-term model: draft sections 5.5.1 to 5.5.9, 5.5.10.3
#     bbr_phases      the state machine and the long-term model: 5.3, 5.5.10.1, 5.5.10.2, 5.5.11
#     bbr             the calls of a control, the window and the pacing rate: 5.2, 5.4, 5.6
#
# Units: bytes, bytes per second, microseconds for round trips, nanoseconds for times. Counts of delivered bytes are
# modulo 2^32 and compared by their difference. Gains are in hundredths.
#
# It must not: change the state, the window or the rate. Above: bbr_phases. Below: contract.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from ustack.tcp.cc.contract cimport ack_sample_t, cc_view_t
from ustack.wire.seq cimport seq_ge

cdef enum bbr_state_t:
    BBR_STARTUP = 0
    BBR_DRAIN = 1
    BBR_DOWN = 2                            # ProbeBW_DOWN, and so on
    BBR_CRUISE = 3
    BBR_REFILL = 4
    BBR_UP = 5
    BBR_PROBE_RTT = 6
    BBR_NO_STATE = 7                        # of undo_state: nothing to return to

cdef enum bbr_ack_phase_t:
    ACKS_INIT = 0                           # not probing bandwidth, not getting probe feedback
    ACKS_REFILLING = 1
    ACKS_PROBE_STARTING = 2
    ACKS_PROBE_FEEDBACK = 3
    ACKS_PROBE_STOPPING = 4

cdef enum:
    UNBOUND = 0xFFFFFFFFu                   # of inflight_longterm, inflight_shortterm, probe_up_acked_per_inc
    NO_RTT = 0xFFFFFFFFu
    LOSS_THRESH_HUNDREDTHS = 2
    BETA_TENTHS = 7
    HEADROOM_HUNDREDTHS = 15
    MIN_PIPE_SEGS = 4
    EXTRA_ACKED_FILTER_LEN = 10             # rounds

# The largest of the last so many rounds, by its three best candidates (Kathleen Nichols' algorithm).
ctypedef struct max_filter_t:
    uint32_t value[3]                       # the best, the best after it, the best after that
    uint32_t time[3]

ctypedef struct bbr_t:
    # ---- data rate
    uint64_t max_bw_filter[2]               # of the ProbeBW cycle before, of this one
    uint64_t max_bw
    uint64_t bw_shortterm
    uint64_t bw
    uint64_t bw_latest
    uint64_t rate                           # RS.delivery_rate of the ACK that is looked at; 0: none
    uint64_t pacing_rate
    uint64_t full_bw
    uint64_t undo_bw_shortterm
    # ---- times
    uint64_t min_rtt_stamp_ns
    uint64_t probe_rtt_min_stamp_ns
    uint64_t probe_rtt_done_stamp_ns        # 0: not yet
    uint64_t cycle_stamp_ns
    uint64_t bw_probe_wait_ns
    uint64_t extra_acked_interval_start_ns
    # ---- data volume
    uint32_t min_rtt_us
    uint32_t probe_rtt_min_delay_us
    uint32_t inflight_longterm
    uint32_t inflight_shortterm
    uint32_t inflight_latest
    uint32_t undo_inflight_shortterm
    uint32_t undo_inflight_longterm
    uint32_t initial_cwnd
    uint32_t initial_delivered              # C.delivered when the control began
    uint32_t prior_cwnd
    uint32_t send_quantum
    uint32_t extra_acked
    uint32_t extra_acked_delivered
    max_filter_t extra_acked_filter
    # ---- rounds
    uint32_t delivered                      # C.delivered
    uint32_t next_round_delivered
    uint32_t loss_round_delivered
    uint32_t round_count
    uint32_t drain_start_round
    uint32_t rounds_since_probe_up
    uint32_t recovery_round                 # round_count when fast recovery began
    uint32_t rto_end                        # C.delivered at which what was out at the timeout has arrived
    # ---- probing upward
    uint32_t bw_probe_up_acked
    uint32_t probe_up_acked_per_inc
    uint32_t bw_probe_up_rounds
    # ---- losses of this round
    uint32_t lost_end                       # sequence number after the last one
    uint32_t lost_ranges
    uint32_t seed                           # of what is drawn by lot
    # ---- flags, each 0 or 1 but the first four
    uint8_t state
    uint8_t undo_state
    uint8_t ack_phase
    uint8_t full_bw_count
    uint8_t full_bw_reached
    uint8_t full_bw_now
    uint8_t round_start
    uint8_t loss_round_start
    uint8_t is_loss_in_round
    uint8_t is_bw_probe_sample
    uint8_t prev_probe_too_high
    uint8_t prev_probe_precautionary
    uint8_t probe_rtt_expired
    uint8_t probe_rtt_round_done
    uint8_t idle_restart
    uint8_t seen_rtt                        # the pacing rate began with a round trip that was measured
    uint8_t in_recovery                     # fast recovery, as of the last ACK
    uint8_t in_rto                          # what was out at a timeout has not all arrived
    uint8_t saved                           # the state before the repair that goes on, or begins now, is kept
    uint8_t first_window_delivered          # C.delivered has reached InitialCwnd

# ---------------------------------------------------------------- filters
# The largest value of the last `window` units of time; value is of now.
cdef uint32_t max_filter_update(max_filter_t *filter, uint32_t window, uint32_t time, uint32_t value) noexcept nogil
# A ProbeBW cycle has passed: what was measured before the last one is forgotten (section 5.5.6).
cdef void advance_max_bw_filter(bbr_t *own) noexcept nogil

# ---------------------------------------------------------------- one ACK, in this order
# RS.delivery_rate, and the latest round's most (5.5.10.3).
cdef void update_latest_delivery_signals(bbr_t *own, const ack_sample_t *sample) noexcept nogil
# Rounds, max_bw, and once per round what losses say of the short term (5.5.1, 5.5.5, 5.5.10.3).
cdef void update_congestion_signals(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil
cdef void update_ack_aggregation(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil
# Whether the least round trip has been refreshed lately, and the least of the last ten seconds (5.3.4.3).
cdef void update_min_rtt(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil
cdef void advance_latest_delivery_signals(bbr_t *own, const ack_sample_t *sample) noexcept nogil
cdef void bound_bw_for_model(bbr_t *own) noexcept nogil

cdef void reset_congestion_signals(bbr_t *own) noexcept nogil
cdef void reset_short_term_model(bbr_t *own) noexcept nogil
cdef uint64_t unbound_bw() noexcept nogil
# gain hundredths of bw * min_rtt; the initial window while there is no round trip.
cdef uint64_t bdp_multiple(const bbr_t *own, uint64_t bw, uint32_t gain) noexcept nogil
# ... and what offloads and small windows need on top (5.6.4.2).
cdef uint64_t quantization_budget(const bbr_t *own, uint64_t inflight_cap, uint32_t smss) noexcept nogil
# min(BDP, cwnd).
cdef uint32_t target_inflight(const bbr_t *own, const cc_view_t *view) noexcept nogil


cdef inline void start_round(bbr_t *own) noexcept nogil:
    own.next_round_delivered = own.delivered


cdef inline bint is_probing_bw(const bbr_t *own) noexcept nogil:
    return own.state == BBR_STARTUP or own.state == BBR_REFILL or own.state == BBR_UP


cdef inline bint is_in_probe_bw(const bbr_t *own) noexcept nogil:
    return BBR_DOWN <= own.state <= BBR_UP


cdef inline uint32_t min_u32(uint32_t one, uint32_t other) noexcept nogil:
    return one if one < other else other


cdef inline uint32_t max_u32(uint32_t one, uint32_t other) noexcept nogil:
    return one if one > other else other


cdef inline uint64_t max_u64(uint64_t one, uint64_t other) noexcept nogil:
    return one if one > other else other


# Counts of delivered bytes: `one` is at or behind `other`.
cdef inline bint count_reached(uint32_t one, uint32_t other) noexcept nogil:
    return seq_ge(one, other)

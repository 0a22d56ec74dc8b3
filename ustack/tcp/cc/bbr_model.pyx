# SPDX-License-Identifier: MIT
"""BBR's model of the path. See bbr_model.pxd."""

from libc.stdint cimport uint32_t, uint64_t


cdef uint64_t MIN_RTT_FILTER_LEN_NS = 10000000000
cdef uint64_t PROBE_RTT_INTERVAL_NS = 5000000000


# ---------------------------------------------------------------- filters

cdef void max_filter_reset(max_filter_t *filter, uint32_t time, uint32_t value) noexcept nogil:
    cdef int i
    for i in range(3):
        filter.value[i] = value
        filter.time[i] = time


cdef inline void max_filter_put(max_filter_t *filter, int place, uint32_t time, uint32_t value) noexcept nogil:
    """A candidate for this place and all after it."""
    while place < 3:
        filter.value[place] = value
        filter.time[place] = time
        place += 1


cdef uint32_t max_filter_update(max_filter_t *filter, uint32_t window, uint32_t time, uint32_t value) noexcept nogil:
    """Three candidates, each the best since the one before it. When the best is too old the next takes its place. A
    second one that is as old as the first is renewed after a quarter of the window, a third after half."""
    if value >= filter.value[0] or time - filter.time[2] > window:
        max_filter_reset(filter, time, value)
        return value
    if value >= filter.value[1]:
        max_filter_put(filter, 1, time, value)
    elif value >= filter.value[2]:
        max_filter_put(filter, 2, time, value)
    if time - filter.time[0] > window:
        filter.value[0], filter.time[0] = filter.value[1], filter.time[1]
        filter.value[1], filter.time[1] = filter.value[2], filter.time[2]
        max_filter_put(filter, 2, time, value)
        if time - filter.time[0] > window:
            filter.value[0], filter.time[0] = filter.value[1], filter.time[1]
            filter.value[1], filter.time[1] = filter.value[2], filter.time[2]
    elif filter.time[1] == filter.time[0] and time - filter.time[1] > window // 4:
        max_filter_put(filter, 1, time, value)
    elif filter.time[2] == filter.time[1] and time - filter.time[2] > window // 2:
        max_filter_put(filter, 2, time, value)
    return filter.value[0]


cdef void advance_max_bw_filter(bbr_t *own) noexcept nogil:
    """Two slots do: the filter is two cycles long (section 2.11). A cycle without a sample does not count, so that an
    estimate never comes to nothing."""
    if own.max_bw_filter[1] == 0:
        return
    own.max_bw_filter[0] = own.max_bw_filter[1]
    own.max_bw_filter[1] = 0
    own.max_bw = own.max_bw_filter[0]


# ---------------------------------------------------------------- rounds and rates

cdef void update_round(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    own.round_start = (sample.rate_delivered != 0
                       and count_reached(sample.rate_prior_delivered, own.next_round_delivered))
    if own.round_start:
        start_round(own)
        own.round_count += 1
        own.rounds_since_probe_up += 1


cdef void update_max_bw(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    update_round(own, sample)
    if own.rate == 0 or (own.rate < own.max_bw and sample.is_app_limited):
        return
    own.max_bw_filter[1] = max_u64(own.max_bw_filter[1], own.rate)
    own.max_bw = max_u64(own.max_bw_filter[0], own.max_bw_filter[1])


cdef void update_latest_delivery_signals(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    own.delivered = sample.delivered_total
    own.rate = 0
    if sample.rate_interval_us:
        own.rate = sample.rate_delivered * 1000000ULL // sample.rate_interval_us
    own.loss_round_start = False
    own.bw_latest = max_u64(own.bw_latest, own.rate)
    own.inflight_latest = max_u32(own.inflight_latest, sample.rate_delivered)
    if sample.rate_delivered and count_reached(sample.rate_prior_delivered, own.loss_round_delivered):
        own.loss_round_delivered = own.delivered
        own.loss_round_start = True


cdef void advance_latest_delivery_signals(bbr_t *own, const ack_sample_t *sample) noexcept nogil:
    if own.loss_round_start:
        own.bw_latest = own.rate
        own.inflight_latest = sample.rate_delivered


# ---------------------------------------------------------------- the short term

cdef void reset_congestion_signals(bbr_t *own) noexcept nogil:
    own.is_loss_in_round = False
    own.bw_latest = 0
    own.inflight_latest = 0


cdef uint64_t unbound_bw() noexcept nogil:
    return 0xFFFFFFFFFFFFFFFFULL


cdef void reset_short_term_model(bbr_t *own) noexcept nogil:
    own.bw_shortterm = unbound_bw()
    own.inflight_shortterm = UNBOUND


cdef void adapt_lower_bounds(bbr_t *own, const cc_view_t *view) noexcept nogil:
    """AdaptLowerBoundsFromCongestion: down toward what the last round has delivered, by 0.7 at most."""
    if is_probing_bw(own) or not own.is_loss_in_round:
        return
    if own.bw_shortterm == unbound_bw():
        own.bw_shortterm = own.max_bw
    if own.inflight_shortterm == UNBOUND:
        own.inflight_shortterm = view.cwnd
    own.bw_shortterm = max_u64(own.bw_latest, own.bw_shortterm // 10 * BETA_TENTHS)
    own.inflight_shortterm = max_u32(own.inflight_latest,
                                     <uint32_t>(<uint64_t>own.inflight_shortterm * BETA_TENTHS // 10))


cdef void update_congestion_signals(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    update_max_bw(own, sample)
    if not own.loss_round_start:
        return
    adapt_lower_bounds(own, view)
    own.is_loss_in_round = False


cdef void bound_bw_for_model(bbr_t *own) noexcept nogil:
    own.bw = own.max_bw if own.max_bw < own.bw_shortterm else own.bw_shortterm


# ---------------------------------------------------------------- aggregation, round trips

cdef inline uint64_t carried_by(uint64_t bw, uint64_t ns) noexcept nogil:
    """Bytes at this rate. Intervals are cut at four seconds: below 4 GB/s that is any window."""
    cdef uint64_t us = ns // 1000
    if us > 4000000:
        us = 4000000
    return (bw >> 10) * us // 976 if bw >> 40 else bw * us // 1000000


cdef void update_ack_aggregation(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    """Section 5.5.9: what is acknowledged beyond what the estimated rate would have brought."""
    cdef uint64_t expected = carried_by(own.bw, view.now_ns - own.extra_acked_interval_start_ns), extra
    if own.extra_acked_delivered <= expected:
        own.extra_acked_delivered = 0
        own.extra_acked_interval_start_ns = view.now_ns
        expected = 0
    own.extra_acked_delivered += sample.delivered
    extra = own.extra_acked_delivered - expected if own.extra_acked_delivered > expected else 0
    own.extra_acked = max_filter_update(
        &own.extra_acked_filter, EXTRA_ACKED_FILTER_LEN if own.full_bw_reached else 1, own.round_count,
        <uint32_t>extra if extra < view.cwnd else view.cwnd)


cdef void update_min_rtt(bbr_t *own, const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    own.probe_rtt_expired = view.now_ns > own.probe_rtt_min_stamp_ns + PROBE_RTT_INTERVAL_NS
    if sample.rtt_us and (sample.rtt_us < own.probe_rtt_min_delay_us or own.probe_rtt_expired):
        own.probe_rtt_min_delay_us = sample.rtt_us
        own.probe_rtt_min_stamp_ns = view.now_ns
    if own.probe_rtt_min_delay_us < own.min_rtt_us or view.now_ns > own.min_rtt_stamp_ns + MIN_RTT_FILTER_LEN_NS:
        own.min_rtt_us = own.probe_rtt_min_delay_us
        own.min_rtt_stamp_ns = own.probe_rtt_min_stamp_ns


# ---------------------------------------------------------------- volumes

cdef uint64_t bdp_multiple(const bbr_t *own, uint64_t bw, uint32_t gain) noexcept nogil:
    if own.min_rtt_us == NO_RTT:
        return own.initial_cwnd
    return carried_by(bw, own.min_rtt_us * 1000ULL) * gain // 100


cdef uint64_t quantization_budget(const bbr_t *own, uint64_t inflight_cap, uint32_t smss) noexcept nogil:
    """offload_budget: a quantum each in the queue, in the segmentation engine and in the receiver (section 5.5.8.1)."""
    inflight_cap = max_u64(inflight_cap, 3ULL * own.send_quantum)
    inflight_cap = max_u64(inflight_cap, MIN_PIPE_SEGS * <uint64_t>smss)
    if own.state == BBR_UP:
        inflight_cap += 2 * smss
    return inflight_cap


cdef uint32_t target_inflight(const bbr_t *own, const cc_view_t *view) noexcept nogil:
    cdef uint64_t bdp = bdp_multiple(own, own.bw, 100)
    return <uint32_t>bdp if bdp < view.cwnd else view.cwnd

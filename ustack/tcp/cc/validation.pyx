# SPDX-License-Identifier: MIT
"""Congestion window validation. See validation.pxd for the rules."""

from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    NON_VALIDATED_PERIOD_MS = 300000        # section 4.4.3 and 5: five minutes
    SAMPLING_ROUNDS = 3                     # section 4.2: max(3 * RTT, 1 s)
    SAMPLING_MIN_MS = 1000
    INITIAL_SEGS = 10                       # RFC 6928


cdef inline uint32_t now_ms(const cc_view_t *view) noexcept nogil:
    """Never 0."""
    return <uint32_t>(view.now_ns // 1000000) | 1


cdef inline uint32_t larger(uint32_t one, uint32_t other) noexcept nogil:
    return one if one > other else other


cdef inline uint32_t round_trip_us(const cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    return view.srtt_us if view.srtt_us else sample.rtt_us


cdef void turn_over(validation_t *own, const cc_view_t *view, uint32_t rtt_us) noexcept nogil:
    """Let old samples go."""
    cdef uint32_t period_ms = larger(SAMPLING_ROUNDS * (rtt_us // 1000), SAMPLING_MIN_MS)
    cdef uint32_t age_ms = now_ms(view) - own.half_ms
    if age_ms < period_ms // 2:
        return
    own.samples[1] = own.samples[0] if age_ms < period_ms else 0
    own.samples[0] = 0
    own.half_ms = now_ms(view)


cdef inline uint32_t acknowledged_in_a_round(const ack_sample_t *sample, uint32_t rtt_us) noexcept nogil:
    """Section 4.2: the volume acknowledged divided by the time it took, times the RTT: what the delivery rate says."""
    if sample.rate_interval_us <= rtt_us:
        return sample.rate_delivered
    return <uint32_t>(<uint64_t>sample.rate_delivered * rtt_us // sample.rate_interval_us)


cdef inline uint32_t initial_bytes(uint32_t smss) noexcept nogil:
    """RFC 6928 section 2."""
    cdef uint32_t most = larger(2 * smss, 14600)
    return INITIAL_SEGS * smss if INITIAL_SEGS * smss < most else most


cdef bint lower_unused(validation_t *own, cc_view_t *view) noexcept nogil:
    """Section 4.4.3, once for each period that has passed."""
    cdef uint32_t least = initial_bytes(view.smss)
    cdef bint lowered = False
    while now_ms(view) - own.valid_ms >= NON_VALIDATED_PERIOD_MS and view.cwnd > least:
        view.ssthresh = larger(view.ssthresh, view.cwnd - view.cwnd // 4)
        view.cwnd = larger(view.cwnd // 2, least)
        own.valid_ms += NON_VALIDATED_PERIOD_MS
        lowered = True
    if view.cwnd <= least:
        own.valid_ms = now_ms(view)
    return lowered


cdef bint end_repair(validation_t *own, cc_view_t *view) noexcept nogil:
    """Section 4.4.1: half of what was used, less what had to be sent again. Then pipeACK is undefined."""
    cdef uint32_t safe = own.at_loss - own.repaired if own.repaired < own.at_loss else 0
    safe = larger(safe // 2, 2 * view.smss)
    validation_forget(own)
    if safe >= view.cwnd:
        return False
    view.cwnd = safe
    view.ssthresh = safe
    return True


cdef bint validation_on_ack(validation_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef uint32_t rtt_us = round_trip_us(view, sample)
    if own.at_loss and not sample.in_recovery:
        return end_repair(own, view)
    if sample.in_recovery:                  # no sample is taken (section 4.2)
        own.repaired += sample.newly_lost
        return False
    if sample.rate_interval_us == 0:
        return False
    if own.half_ms == 0:
        own.half_ms = now_ms(view)
        own.valid_ms = own.half_ms
        own.samples[0] = 0
        own.samples[1] = 0
    turn_over(own, view, rtt_us)
    own.samples[0] = larger(own.samples[0], acknowledged_in_a_round(sample, rtt_us))
    if larger(own.samples[0], own.samples[1]) >= view.cwnd // 2:
        own.valid_ms = now_ms(view)
        return False
    return lower_unused(own, view)


cdef uint32_t validation_base(validation_t *own, const cc_view_t *view, uint32_t flight, bint repair) noexcept nogil:
    cdef uint32_t pipe_ack
    if own.half_ms == 0 or now_ms(view) - own.valid_ms <= view.srtt_us // 1000 or view.cwnd <= initial_bytes(view.smss):
        return 0
    turn_over(own, view, view.srtt_us)
    pipe_ack = larger(own.samples[0], own.samples[1])
    if pipe_ack >= view.cwnd // 2:
        return 0
    if repair:
        own.at_loss = larger(pipe_ack, flight)
        own.repaired = 0
    return larger(pipe_ack, flight)


cdef void validation_forget(validation_t *own) noexcept nogil:
    own.half_ms = 0
    own.at_loss = 0
    own.repaired = 0

# SPDX-License-Identifier: MIT
"""HyStart++ (RFC 9406 section 4). See hystart.pxd."""

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW
from ustack.wire.seq cimport seq_lt


cdef enum:                                  # section 4.3, as recommended
    MIN_RTT_THRESH_US = 4000
    MAX_RTT_THRESH_US = 16000
    MIN_RTT_DIVISOR = 8
    N_RTT_SAMPLE = 8
    CSS_GROWTH_DIVISOR = 4
    CSS_ROUNDS = 5
    L = 8                                   # segments that one ACK counts for where sending is not paced


cdef inline bint round_has_ended(hystart_t *hystart, const ack_sample_t *sample) noexcept nogil:
    """Count what was acknowledged; begin the next round when everything that was in flight at its beginning is."""
    hystart.delivered += sample.acked
    if seq_lt(hystart.delivered, hystart.round_end):
        return False
    hystart.round_end = hystart.delivered + (sample.flight - sample.acked if sample.flight > sample.acked else 0)
    return True


cdef inline uint32_t rtt_thresh_us(uint32_t rtt_us) noexcept nogil:
    """How much longer than the last round's the round trip may be."""
    cdef uint32_t wanted = rtt_us // MIN_RTT_DIVISOR
    if wanted < MIN_RTT_THRESH_US:
        return MIN_RTT_THRESH_US
    return wanted if wanted < MAX_RTT_THRESH_US else MAX_RTT_THRESH_US


cdef inline void grow(const hystart_t *hystart, cc_view_t *view, uint32_t acked) noexcept nogil:
    cdef uint32_t step = acked
    if view.pacing_rate == 0 and step > L * view.smss:
        step = L * view.smss
    if hystart.baseline_rtt_us:
        step //= CSS_GROWTH_DIVISOR
    if view.cwnd < CWND_GROWS_BELOW:
        view.cwnd += step


cdef void hystart_on_ack(hystart_t *hystart, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    if sample.rtt_us:
        hystart.samples += 1
        if hystart.round_rtt_us == 0 or sample.rtt_us < hystart.round_rtt_us:
            hystart.round_rtt_us = sample.rtt_us
    if sample.cwnd_limited:                 # a window that is not used does not grow (RFC 9293 section 3.8.2)
        grow(hystart, view, sample.acked)
    judge(hystart)
    if round_has_ended(hystart, sample):
        if hystart.baseline_rtt_us:
            hystart.css_rounds += 1
            if hystart.css_rounds >= CSS_ROUNDS:
                view.ssthresh = view.cwnd
        hystart.last_rtt_us = hystart.round_rtt_us
        hystart.round_rtt_us = 0
        hystart.samples = 0


cdef inline void judge(hystart_t *hystart) noexcept nogil:
    """Enough of this round has been measured: has the queue begun to grow, or was it jitter?"""
    if hystart.samples < N_RTT_SAMPLE or hystart.round_rtt_us == 0:
        return
    if hystart.baseline_rtt_us:
        if hystart.round_rtt_us < hystart.baseline_rtt_us:
            hystart.baseline_rtt_us = 0
            hystart.css_rounds = 0
    elif hystart.last_rtt_us and hystart.round_rtt_us >= hystart.last_rtt_us + rtt_thresh_us(hystart.last_rtt_us):
        hystart.baseline_rtt_us = hystart.round_rtt_us
        hystart.css_rounds = 0

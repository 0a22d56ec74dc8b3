# SPDX-License-Identifier: MIT
# Slow start that ends before the queue overflows: HyStart++ (RFC 9406 section 4).
#
#     slow start ── the least RTT of a round is an eighth above the last round's ──▶ conservative slow start (CSS)
#     CSS        ── the least RTT of a round is below what it was on entry ──▶ slow start: it was jitter
#                ── five rounds have passed, that of the entry counted ──▶ ssthresh <- cwnd: congestion avoidance
#
# Rounds are counted in bytes: one ends when as much has been acknowledged as was in flight when it began, which is what
# an ACK of SND.NXT of that time says. A control keeps a hystart_t in its own record and calls hystart_on_ack while cwnd
# is below ssthresh and there has been no loss (section 4.3: only in the first slow start).
#
# It must not: decide anything after slow start. Above: controls. Below: contract.

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport ack_sample_t, cc_view_t

ctypedef struct hystart_t:                  # 28 bytes; zeroed: before the first round
    uint32_t delivered                      # bytes acknowledged so far, modulo 2^32
    uint32_t round_end                      # of `delivered`
    uint32_t round_rtt_us                   # currentRoundMinRTT; 0: none yet
    uint32_t last_rtt_us                    # lastRoundMinRTT
    uint32_t baseline_rtt_us                # cssBaselineMinRtt; 0: slow start
    uint32_t samples                        # rttSampleCount
    uint32_t css_rounds                     # in CSS

# One ACK in slow start: grows the window, and ends slow start (view.ssthresh) when it is time to.
cdef void hystart_on_ack(hystart_t *hystart, cc_view_t *view, const ack_sample_t *sample) noexcept nogil

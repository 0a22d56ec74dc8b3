# SPDX-License-Identifier: MIT
# BBR's state machine and its long-term model (draft-ietf-ccwg-bbr-06 sections 5.3, 5.5.10 and 5.5.11).
#
#     STARTUP ── three rounds without a quarter more, or too many losses ──▶ DRAIN
#     DRAIN ──── no more in flight than the BDP, or three rounds ──▶ DOWN
#     DOWN ───── no more in flight than the BDP, less headroom ──▶ CRUISE, or REFILL when it is time
#     CRUISE ─── 2 to 3 s, or as many rounds as Reno would need ──▶ REFILL
#     REFILL ─── one round ──▶ UP
#     UP ─────── the rate grows no more, too many losses, or as far as was safe last time ──▶ DOWN
#     any ────── no lower round trip for five seconds ──▶ PROBE_RTT
#     PROBE_RTT  200 ms and a round at half a BDP ──▶ CRUISE, or STARTUP if the pipe was never full
#
# It must not: set the window or the rate. Above: bbr. Below: bbr_model.

from libc.stdint cimport uint32_t

from ustack.tcp.cc.bbr_model cimport bbr_state_t, bbr_t
from ustack.tcp.cc.contract cimport ack_sample_t, cc_view_t, loss_sample_t

cdef void enter_startup(bbr_t *own) noexcept nogil
# A cycle from its cruise: with less in flight than the BDP, after ProbeRTT or an idle time.
cdef void resume_cruise(bbr_t *own, const cc_view_t *view) noexcept nogil
# The whole cycle for one ACK: UpdateModelAndState of section 5.2.3.
cdef void update_model_and_state(bbr_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept nogil
# ProbeRTT may have lasted long enough (section 5.3.4.3); asked on a restart from idle as well.
cdef void check_probe_rtt_done(bbr_t *own, cc_view_t *view) noexcept nogil
# ---------------------------------------------------------------- losses
cdef void handle_lost(bbr_t *own, cc_view_t *view, const loss_sample_t *lost) noexcept nogil
# A mark counts as losses that are too many (section 3.7: "MUST treat any CE marks as congestion").
cdef void handle_mark(bbr_t *own, cc_view_t *view, uint32_t flight) noexcept nogil
cdef void save_state_upon_loss(bbr_t *own, const cc_view_t *view) noexcept nogil
cdef void handle_spurious_loss(bbr_t *own, cc_view_t *view) noexcept nogil
# ---------------------------------------------------------------- what the window asks
cdef uint32_t inflight_with_headroom(const bbr_t *own, uint32_t smss) noexcept nogil
cdef uint32_t probe_rtt_cwnd(const bbr_t *own, uint32_t smss) noexcept nogil
cdef void save_cwnd(bbr_t *own, const cc_view_t *view) noexcept nogil
cdef void restore_cwnd(const bbr_t *own, cc_view_t *view) noexcept nogil

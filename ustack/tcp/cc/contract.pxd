# SPDX-License-Identifier: MIT
# The congestion control contract. Units: octets and nanoseconds. A control writes tcb.cwnd, tcb.ssthresh and
# tcb.cc_word, nothing else; loss detection and what is sent belong to ack and output.

from libc.stdint cimport uint32_t, uint64_t

# A control sees a connection through this view, so that it depends on no layout and a Python class can stand in for it.
ctypedef struct cc_view_t:
    uint32_t cwnd            # in and out
    uint32_t ssthresh        # in and out
    uint32_t word            # in and out: the control's own state
    uint32_t smss
    uint32_t flight          # snd_nxt - snd_una before the event; at a loss without what limited transmit has added
    uint32_t srtt_us         # 0: no sample yet
    uint64_t now_ns

ctypedef struct cc_ops_t:
    const char *name
    void (*init)(cc_view_t *view, uint32_t initial_window) noexcept nogil
    void (*on_sent)(cc_view_t *view, uint32_t length) noexcept nogil         # may be NULL
    # acked: newly acknowledged octets; cwnd_limited: the window was what held the sender back (RFC 9293 / 7661).
    void (*on_ack)(cc_view_t *view, uint32_t acked, bint cwnd_limited) noexcept nogil
    void (*on_duplicate_ack)(cc_view_t *view) noexcept nogil                 # in recovery: inflate; may be NULL
    void (*on_loss)(cc_view_t *view) noexcept nogil                          # entering fast recovery
    void (*on_partial_ack)(cc_view_t *view, uint32_t acked) noexcept nogil   # RFC 6582 step 5; may be NULL
    void (*on_recovered)(cc_view_t *view) noexcept nogil
    # SMSS has become view.smss, from old_smss: a smaller path MTU, or the end of one. No sign of congestion.
    void (*on_mtu)(cc_view_t *view, uint32_t old_smss) noexcept nogil
    void (*on_rto)(cc_view_t *view, bint first) noexcept nogil               # first: not yet backed off

# SPDX-License-Identifier: MIT
# The congestion control contract: how much may be in flight, and nothing else.
#
# Finding losses and repairing them is recovery's work (tcp/recovery). Recovery calls a control at each event; the
# control answers by writing view.cwnd and view.ssthresh. What it remembers between events is its own record.
#
#     first data is about to go ──▶ init                              its record, zeroed; the window as it is.
#                                                                     begins_late: not before the window limits
#     nothing is in flight ───────▶ on_start                          data is about to go
#     a frame with data or a FIN ─▶ on_sent
#     something is delivered ─────▶ on_ack                            in recovery as well (sample.in_recovery)
#     a frame is found lost ──────▶ on_lost                           each of them
#     a loss is found ────────────▶ on_loss                           once per repair: fast recovery begins, or a tail
#                                                                     loss probe has repaired it
#     the retransmission timer ───▶ on_rto
#     either was none after all ──▶ on_spurious
#     sending again after an RTO ─▶ on_idle
#     SMSS has changed ───────────▶ on_mtu
#     ten seconds without data ───▶ rest, then release                its record goes; wake, not init, brings it back
#     the connection ends, or gets another control ─▶ release
#
# A control fills in the calls in which it differs; cc_register gives the rest their default bodies (defaults.pxd), so
# that nobody tests for NULL. It must not: block, allocate, keep `view` or `sample`, know the tcb.
#
# The record: state_bytes of the control's own, aligned to its size up to 64. A connection that has sent no data has
# none. STATE_IN_PLACE bytes or fewer are kept in the tcb itself and cost nothing; more come from a slab per control
# (tcp_t.cc_records). Where none is to be had, the connection falls back to the first control of the registry, which
# does without: its calls get NULL for state.
#
# begins_late: what such a control would do while the window does not limit the sender, nothing is lost and the timer
# does not fire is what the default bodies do: nothing on an ACK, the restart window after a pause. Until the first of
# these it has no record and hears nothing, so that a connection of small responses never pays for it. It must have no
# on_sent, on_start or on_lost, and not own the repair.
#
# While a loss is being repaired (RFC 9937) the window is recovery's, unless the control says owns_repair: on_loss
# says to which ssthresh it shrinks, on_ack is told what happens, but what it leaves in the view is not used until the
# repair is complete. It is ssthresh then.
#
# Delivery rate: the sample names what draft-ietf-ccwg-bbr section 4.1 calls C., P. and RS.; C.delivered counts from the
# connection's beginning, modulo 2^32. A rate is rate_delivered / rate_interval_us where the interval is not 0.
#
# Pacing: a rate holds while something is in flight (recovery/pacing.pxd); on_start says that of the next flight. To a
# control that says no rate (`paces`), what is in view.pacing_rate only tells whether it is paced: the rate is the
# window's, where the setting `pacing` is on.
#
# Units: bytes, microseconds where a name says _us, nanoseconds where it says _ns.
#
# Above: recovery. Read first: RFC 5681 section 3, RFC 9293 section 3.8.2. To add a control: a file like newreno.pyx,
# two lines in registry.pyx, a test like tests/unit/tcp/cc/test_newreno.py.

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef enum:
    CC_MAX = 8                      # controls that can be registered
    CC_NAME_MAX = 15                # characters of a name
    CC_STATE_BYTES_MAX = 1024
    STATE_IN_PLACE = 4
    SSTHRESH_AT_FIRST = 0x7FFFFFFF  # RFC 5681 section 3.1: arbitrarily high. There has been no loss yet
    CWND_GROWS_BELOW = 0x40000000   # the largest window of TCP: no use beyond, and no step from it overflows

# A connection as a control sees it, so that it depends on no layout.
ctypedef struct cc_view_t:
    uint32_t cwnd                   # in and out. Less than SMSS is taken as SMSS
    uint32_t ssthresh               # in and out
    uint32_t smss
    uint32_t srtt_us                # RFC 6298; 0: no sample yet
    uint64_t now_ns
    uint64_t pacing_rate            # in and out: bytes per second; 0: not paced
    # out, 0 before: what is in flight says nothing of the path's rate; it counts as sent while the application was the
    bint hold_samples               # limit (draft-ietf-ccwg-bbr section 4.1.2.4: MarkConnectionAppLimited)
    uint32_t seed                   # in, for init alone: of what is drawn by lot
    uint32_t delivered_total        # in, for init alone: as in ack_sample_t

# One ACK that says that something has been delivered, or lost.
ctypedef struct ack_sample_t:
    uint32_t acked                  # bytes that it acknowledges cumulatively, a FIN counted; 0: SACK alone
    uint32_t delivered              # bytes that it says have arrived, cumulatively or by SACK, each byte once
    uint32_t rtt_us                 # the round trip of the newest of them; 0: none (Karn's rule)
    uint32_t min_rtt_us             # the shortest for some minutes; 0: none yet
    uint32_t flight                 # SND.NXT - SND.UNA before it
    uint32_t prior_in_flight        # bytes in the network (neither SACKed nor lost) after the last output before it
    uint32_t in_flight              # ... after it
    bint cwnd_limited               # the window was what held the sender back (RFC 9293 / 7661), as far as it tells
    int32_t unsent                  # bytes queued and not sent when it came; 0 or less: the application is the limit
    bint in_recovery                # a loss is being repaired: see above
    bint after_timeout              # what was outstanding at a timeout is being repaired, or has been by this ACK
    bint selective                  # the peer says by SACK what has arrived
    bint round_start                # what was sent after the last such ACK is delivered: a round trip has passed
    bint is_app_limited             # the rate's segment was sent while the application was the limit
    uint32_t newly_lost             # bytes found lost with it
    uint32_t delivered_total        # C.delivered after it
    uint32_t lost_total             # C.lost after it, within this flight
    uint32_t rate_delivered         # RS.delivered: bytes, over; 0: nothing that it says has arrived can be measured
    uint32_t rate_interval_us       # RS.interval; 0: no rate
    uint32_t rate_prior_delivered   # RS.prior_delivered: C.delivered when the rate's segment was sent
    uint32_t rate_in_flight         # RS.tx_in_flight: bytes in the network then, itself included
    uint32_t rate_lost              # RS.lost: bytes lost since
    uint32_t ecn_marks              # segments marked, by this ACK (RFC 3168: 1). The window must not grow by it

# One frame, or what is left of it, that has been found lost.
ctypedef struct loss_sample_t:
    uint32_t seq                    # of its first byte: neighbours make one range
    uint32_t bytes
    uint32_t in_flight              # P.tx_in_flight: bytes in the network when it was sent, itself included
    uint32_t lost                   # bytes found lost since it was sent, itself included
    uint32_t delivered_total        # C.delivered
    bint app_limited                # it was sent while the application was the limit
    bint selective                  # the peer says by SACK what has arrived

ctypedef struct cc_ops_t:
    const char *name
    uint32_t state_bytes            # 0: none
    bint owns_repair                # what it leaves in the view holds while a loss is repaired, too
    bint paces                      # it says a rate of its own: the setting `pacing` is nothing to it
    bint begins_late                # it need not know of what does not fill the window: see above
    bint hears_sent                 # writer: cc_register. It names on_sent
    bint hears_start                # ... on_start
    bint hears_lost                 # ... on_lost
    # state is zeroed. view: the initial window of RFC 6928, or on a live connection what the control before has left.
    void (*init)(void *state, cc_view_t *view) noexcept nogil
    # The connection is idle and the record goes (release comes next): one word of it is kept, which is not 0. Without
    # this call a record stays until the connection ends.
    uint32_t (*rest)(void *state) noexcept nogil
    # Instead of init, on data after a rest: kept is that word. state is zeroed. on_idle comes next, and on_start.
    void (*wake)(void *state, cc_view_t *view, uint32_t kept) noexcept nogil
    # state goes away; what it owns must go first.
    void (*release)(void *state) noexcept nogil
    # The first data of a flight is about to go: nothing is in flight. After on_idle, where that is called.
    void (*on_start)(void *state, cc_view_t *view) noexcept nogil
    # length: of one frame, which may carry many segments, new or again. flight: SND.NXT - SND.UNA after it. No window
    # comes out of this call.
    void (*on_sent)(void *state, uint32_t length, uint32_t flight, uint64_t now_ns) noexcept nogil
    void (*on_ack)(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil
    # Each frame that is found lost, before on_loss or on_rto hears of it. No window comes out of this call.
    void (*on_lost)(void *state, cc_view_t *view, const loss_sample_t *lost) noexcept nogil
    # flight: FlightSize of RFC 5681, without what limited transmit has added.
    void (*on_loss)(void *state, cc_view_t *view, uint32_t flight) noexcept nogil
    # The network has marked what it would have dropped (RFC 3168): once per window of data, and not while a loss is
    # repaired. A larger window than before it is not taken.
    void (*on_ecn)(void *state, cc_view_t *view, uint32_t flight) noexcept nogil
    # The last loss, or timeout, was none: cwnd and ssthresh before it (Eifel, F-RTO, DSACK: recovery/undo.pxd).
    void (*on_spurious)(void *state, cc_view_t *view, uint32_t cwnd_before, uint32_t ssthresh_before) noexcept nogil
    # first: the segment at SND.UNA has not timed out before (RFC 5681 section 3.1).
    void (*on_rto)(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil
    # Nothing is in flight, and has not been for an RTO: the ACK clock has stopped (RFC 5681 section 4.1).
    void (*on_idle)(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil
    # SMSS has become view.smss, from old_smss: a smaller path MTU, or the end of one. No sign of congestion.
    void (*on_mtu)(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil

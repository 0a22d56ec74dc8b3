# SPDX-License-Identifier: MIT
# The congestion control contract: how much may be in flight, and nothing else.
#
# Finding losses and repairing them is recovery's work (tcp/recovery). Recovery calls a control at each event; the
# control answers by writing view.cwnd and view.ssthresh. What it remembers between events is its own record.
#
#     first data is about to go ──▶ init                              its record, zeroed; the window as it is
#     a frame with data or a FIN ─▶ on_sent
#     new data acknowledged ──────▶ on_ack                            in recovery as well (sample.in_recovery)
#     three duplicate ACKs ───────▶ on_loss                           once per window: fast recovery begins
#     the retransmission timer ───▶ on_rto
#     sending again after an RTO ─▶ on_idle
#     SMSS has changed ───────────▶ on_mtu
#     the connection ends, or gets another control ─▶ release
#
# A control fills in the calls in which it differs; cc_register gives the rest their default bodies (defaults.pxd), so
# that nobody tests for NULL. It must not: block, allocate, keep `view` or `sample`, know the tcb.
#
# The record: state_bytes of the control's own, aligned to its size up to 64. A connection that has sent no data has
# none. STATE_IN_PLACE bytes or fewer are kept in the tcb itself and cost nothing; more come from a slab per control
# (tcp_t.cc_records). Where none is to be had, the connection falls back to the first control of the registry, whose
# record is in place.
#
# While a loss is being repaired (RFC 6582) the window is recovery's: on_loss says from what it starts, on_ack is told
# what happens, but what it leaves in the view is not used until the repair is complete. It then is at most ssthresh.
#
# Units: bytes, microseconds where a name says _us, nanoseconds where it says _ns. A pacing rate is not heeded yet: output
# does not pace. There is no delivery rate: nobody keeps what was delivered when a segment was sent.
#
# Above: recovery. Read first: RFC 5681 section 3, RFC 9293 section 3.8.2. To add a control: a file like newreno.pyx, a
# line in registry.pyx, a test like tests/unit/tcp/cc/test_newreno.py.

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
    uint64_t now_ns
    uint64_t pacing_rate            # in and out: bytes per second. 0: not paced

# One ACK that acknowledges something new.
ctypedef struct ack_sample_t:
    uint32_t acked                  # bytes that it acknowledges, a FIN counted
    uint32_t rtt_us                 # the round trip that it has measured; 0: none (Karn's rule)
    uint32_t flight                 # SND.NXT - SND.UNA before it
    bint cwnd_limited               # the window was what held the sender back (RFC 9293 / 7661), as far as flight tells
    int32_t unsent                  # bytes queued and not sent when it came; 0 or less: the application is the limit
    bint in_recovery                # a loss is being repaired: see above
    uint32_t newly_lost             # bytes it proves lost. 0: nobody keeps a scoreboard yet, see on_loss
    uint32_t ecn_marks              # segments marked CE since the last ACK. 0: ECN is not negotiated yet

ctypedef struct cc_ops_t:
    const char *name
    uint32_t state_bytes            # 0: none
    bint hears_sent                 # writer: cc_register. It names on_sent
    # state is zeroed. view: the initial window of RFC 6928, or on a live connection what the control before has left.
    void (*init)(void *state, cc_view_t *view) noexcept nogil
    # state goes away; what it owns must go first.
    void (*release)(void *state) noexcept nogil
    # length: of one frame, which may carry many segments, new or again. flight: SND.NXT - SND.UNA after it. No window
    # comes out of this call.
    void (*on_sent)(void *state, uint32_t length, uint32_t flight, uint64_t now_ns) noexcept nogil
    void (*on_ack)(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil
    # flight: FlightSize of RFC 5681, without what limited transmit has added.
    void (*on_loss)(void *state, cc_view_t *view, uint32_t flight) noexcept nogil
    # The network has marked what it would have dropped (RFC 3168, once per window). Not called yet: see ecn_marks.
    void (*on_ecn)(void *state, cc_view_t *view, uint32_t flight) noexcept nogil
    # The last loss was none: cwnd and ssthresh before it. Not called yet: recovery does not find out.
    void (*on_spurious)(void *state, cc_view_t *view, uint32_t cwnd_before, uint32_t ssthresh_before) noexcept nogil
    # first: the segment at SND.UNA has not timed out before (RFC 5681 section 3.1).
    void (*on_rto)(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil
    # Nothing is in flight, and has not been for an RTO: the ACK clock has stopped (RFC 5681 section 4.1).
    void (*on_idle)(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil
    # SMSS has become view.smss, from old_smss: a smaller path MTU, or the end of one. No sign of congestion.
    void (*on_mtu)(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil

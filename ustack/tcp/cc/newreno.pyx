# SPDX-License-Identifier: MIT
"""NewReno: slow start, congestion avoidance, and the window's part of fast recovery.

It decides how much may be in flight, never what is sent. Read first: RFC 5681 section 3, RFC 6582 section 3.2, RFC 3465
(appropriate byte counting, L = 2). cc_word counts the octets acknowledged toward the next increase of one SMSS.
"""

from libc.stdint cimport uint32_t, uint64_t

from ustack.tcp.cc.contract cimport cc_ops_t, cc_view_t


cdef enum:
    BYTE_COUNTING_LIMIT = 2                 # RFC 3465 section 2.2: L
    SSTHRESH_AT_FIRST = 0x7FFFFFFF          # RFC 5681 section 3.1: arbitrarily high


cdef inline uint32_t half_of_flight(const cc_view_t *view) noexcept nogil:
    """Equation (4) of RFC 5681: max(FlightSize / 2, 2 * SMSS)."""
    cdef uint32_t half = view.flight // 2
    return half if half > 2 * view.smss else 2 * view.smss


cdef void newreno_init(cc_view_t *view, uint32_t initial_window) noexcept nogil:
    view.cwnd = initial_window
    view.ssthresh = SSTHRESH_AT_FIRST
    view.word = 0


cdef void newreno_on_ack(cc_view_t *view, uint32_t acked, bint cwnd_limited) noexcept nogil:
    cdef uint32_t step
    if not cwnd_limited:
        return
    if view.cwnd < view.ssthresh:
        # RFC 5681 section 3.1 caps the step at one SMSS an ACK, RFC 3465 at two. A peer that receives super-frames
        # sends one ACK for forty segments where it would have sent twenty, so in the first slow start octets are
        # counted without a cap, as Linux does. After a loss one ACK may cover much that arrived long ago: the cap
        # holds (RFC 3465 section 2.3).
        step = acked
        if view.ssthresh != SSTHRESH_AT_FIRST and step > BYTE_COUNTING_LIMIT * view.smss:
            step = BYTE_COUNTING_LIMIT * view.smss
        if step > view.ssthresh - view.cwnd:
            step = view.ssthresh - view.cwnd
        if view.cwnd < 0x40000000:
            view.cwnd += step
        return
    view.word += acked
    if view.word >= view.cwnd:
        view.word -= view.cwnd
        if view.cwnd < 0x40000000:
            view.cwnd += view.smss


cdef void newreno_on_loss(cc_view_t *view) noexcept nogil:
    """RFC 6582 section 3.2 step 2: the three duplicates have left the network."""
    view.ssthresh = half_of_flight(view)
    view.cwnd = view.ssthresh + 3 * view.smss
    view.word = 0


cdef void newreno_on_duplicate_ack(cc_view_t *view) noexcept nogil:
    """Step 3: each further duplicate tells that one more segment has left. No more segments can leave than are
    outstanding (RFC 5681 section 3.2 step 4, the note): what is beyond is made up by the receiver."""
    if view.cwnd < 0x40000000 and view.cwnd + view.smss <= view.ssthresh + view.flight:
        view.cwnd += view.smss


cdef void newreno_on_partial_ack(cc_view_t *view, uint32_t acked) noexcept nogil:
    """Step 3, partial acknowledgment: deflate by what was acknowledged, add back one SMSS if that was at least one."""
    view.cwnd -= acked if acked < view.cwnd else view.cwnd
    if acked >= view.smss:
        view.cwnd += view.smss
    if view.cwnd < view.smss:
        view.cwnd = view.smss


cdef void newreno_on_recovered(cc_view_t *view) noexcept nogil:
    """Step 3, full acknowledgment, option (1): no burst when little is in flight."""
    cdef uint32_t gentle = (view.flight if view.flight > view.smss else view.smss) + view.smss
    view.cwnd = gentle if gentle < view.ssthresh else view.ssthresh


cdef void newreno_on_rto(cc_view_t *view, bint first) noexcept nogil:
    """RFC 5681 section 3.1: ssthresh is kept when the same segment times out again."""
    if first:
        view.ssthresh = half_of_flight(view)
    view.cwnd = view.smss
    view.word = 0


cdef void newreno_on_mtu(cc_view_t *view, uint32_t old_smss) noexcept nogil:
    """As many segments as before where they have become smaller: ten routers' complaints about one flight are no loss.
    RFC 1191 section 6.4 leaves the window as it is, when windows were counted in segments anyway. Where they become
    larger the bytes stay."""
    if view.smss < old_smss:
        view.cwnd = <uint32_t>(<uint64_t>view.cwnd * view.smss // old_smss)
    if view.cwnd < view.smss:
        view.cwnd = view.smss


cdef cc_ops_t OPS
OPS.name = b"newreno"
OPS.init = newreno_init
OPS.on_sent = NULL
OPS.on_ack = newreno_on_ack
OPS.on_duplicate_ack = newreno_on_duplicate_ack
OPS.on_loss = newreno_on_loss
OPS.on_partial_ack = newreno_on_partial_ack
OPS.on_recovered = newreno_on_recovered
OPS.on_mtu = newreno_on_mtu
OPS.on_rto = newreno_on_rto


cdef const cc_ops_t *newreno_ops() noexcept nogil:
    return &OPS

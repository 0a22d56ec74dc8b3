# SPDX-License-Identifier: MIT
# What a control does where it says nothing else: the bodies that cc_register fills in. A control may call them.
#
# They are what RFC 5681 asks of every sender, and no more: half the window at a loss, one segment after a timeout, the
# restart window after a pause. The window never grows by itself: how it does is what makes a control.
#
# Above: registry, controls. Below: contract.

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport ack_sample_t, cc_ops_t, cc_view_t

# Give every entry that is NULL its default body.
cdef void cc_fill_defaults(cc_ops_t *ops) noexcept nogil
# RFC 5681 section 3.2 step 2, equation (4): ssthresh <- max(flight / 2, 2 * SMSS), cwnd <- ssthresh. For on_ecn as well
# (RFC 3168 section 6.1.2: as for a single loss).
cdef void cc_default_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil
# Equation (4), but ssthresh is kept when the same segment times out again. cwnd <- SMSS (section 3.1, MUST).
cdef void cc_default_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil
# RFC 4015 section 4: back to what was, if that is more.
cdef void cc_default_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before,
                                 uint32_t ssthresh_before) noexcept nogil
# RFC 5681 section 4.1: no more than the restart window. Slow start leads back to three quarters of what there was (as
# where RFC 7661 section 4.4.3 takes a window back, and in Linux).
cdef void cc_default_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil
# As many segments as before where they have become smaller: ten routers' complaints about one flight are no loss. RFC
# 1191 section 6.4 leaves the window as it is, when windows were counted in segments anyway. Where they become larger
# the bytes stay.
cdef void cc_default_on_mtu(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil
# No default, but what controls have in common: an ACK in a slow start that is not the first one, before which there was
# a loss. It may cover much that arrived long ago, so it counts for two segments at most (RFC 3465 section 2.3, L = 2),
# for one while what was outstanding at a timeout is not acknowledged (there: L = 1), and leads to ssthresh, not beyond.
# Two is a bound for the burst that an ACK lets go: where sending is paced it is not needed (RFC 9406 section 4.3).
cdef void slow_start_again(cc_view_t *view, const ack_sample_t *sample) noexcept nogil

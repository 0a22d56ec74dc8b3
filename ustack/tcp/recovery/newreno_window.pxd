# SPDX-License-Identifier: MIT
# The congestion window during fast recovery: RFC 6582 section 3.2, RFC 5681 section 3.2.
#
# Duplicate ACKs tell that segments have left the network without saying which. Until the loss is repaired the window
# therefore moves by what is known to have left, whatever the control: in when duplicates come, out when the repair gets
# on. Numbers in, numbers out. Above: fast_recovery. Read first: RFC 6582.
#
#     third duplicate    window_at_loss      ssthresh + 3 * SMSS      (the control has set ssthresh and cwnd)
#     further ones       window_inflated     + SMSS each
#     partial ACK        window_deflated     - what it acknowledges + SMSS
#     full ACK           window_recovered    min(ssthresh, what is in flight + SMSS)

from libc.stdint cimport uint32_t

from ustack.tcp.cc.contract cimport CWND_GROWS_BELOW


# Step 2: the three duplicates have left the network.
cdef inline uint32_t window_at_loss(uint32_t cwnd, uint32_t smss) noexcept nogil:
    return cwnd + 3 * smss


# Step 3: each further duplicate tells that one more segment has left. No more segments can leave than are outstanding
# (RFC 5681 section 3.2 step 4, the note): what is beyond is made up by the receiver.
cdef inline uint32_t window_inflated(uint32_t cwnd, uint32_t ssthresh, uint32_t flight, uint32_t smss) noexcept nogil:
    return cwnd + smss if cwnd < CWND_GROWS_BELOW and cwnd + smss <= ssthresh + flight else cwnd


# Step 3, partial acknowledgment: deflate by what was acknowledged, add back one SMSS if that was at least one.
cdef inline uint32_t window_deflated(uint32_t cwnd, uint32_t acked, uint32_t smss) noexcept nogil:
    cdef uint32_t left = cwnd - acked if acked < cwnd else 0
    if acked >= smss:
        left += smss
    return left if left > smss else smss


# Step 3, full acknowledgment, option (1): no burst when little is in flight. flight: after it. One segment at least,
# also where segments have become larger since ssthresh was set.
cdef inline uint32_t window_recovered(uint32_t ssthresh, uint32_t flight, uint32_t smss) noexcept nogil:
    cdef uint32_t gentle = (flight if flight > smss else smss) + smss
    if gentle < ssthresh:
        return gentle
    return ssthresh if ssthresh > smss else smss

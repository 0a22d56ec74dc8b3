# SPDX-License-Identifier: MIT
# Proportional Rate Reduction: RFC 9937, which replaces RFC 6937. How much may be sent during fast recovery.
#
# For each ACK: cwnd = what is in flight + SndCnt, so that the flight shrinks to ssthresh over the round trip in which
# the loss is repaired, in proportion to what is delivered (section 6.2):
#
#     in flight > ssthresh     SndCnt = CEIL(prr_delivered * ssthresh / RecoverFS) - prr_out
#     else, PRR-CRB            SndCnt = MAX(prr_delivered - prr_out, DeliveredData)
#           PRR-SSRB           ... + SMSS where the ACK is safe: SND.UNA has moved and nothing more is lost (SafeACK)
#                              and no more than ssthresh - in flight
#     the first                at least one segment: the fast retransmit. (The RFC says so where SndCnt is 0; what is
#                              less than a segment would send nothing here.)
#
# What is sent counts in prr_out (6.3), and at the end cwnd = ssthresh (6.4); both are repair's.
#
# Numbers in, numbers out; units are bytes. Above: repair. Read first: RFC 9937 section 6.

from libc.stdint cimport uint32_t, uint64_t


# RecoverFS: SND.NXT - SND.UNA, after the ACK that begins the recovery; what had been SACKed before it will not be
# delivered any more, and what it has acknowledged counts as delivered by it.
cdef inline uint32_t prr_recover_fs(uint32_t outstanding, uint32_t sacked, uint32_t newly_sacked,
                                    uint32_t newly_acked) noexcept nogil:
    return outstanding - (sacked - newly_sacked) + newly_acked


# SndCnt. delivered: DeliveredData of this ACK, in prr_delivered already.
cdef inline uint32_t prr_send_count(uint32_t in_flight, uint32_t ssthresh, uint32_t recover_fs, uint32_t prr_delivered,
                                    uint32_t prr_out, uint32_t delivered, uint32_t smss, bint safe_ack) noexcept nogil:
    cdef uint64_t allowed
    cdef uint32_t send_count
    if in_flight > ssthresh:
        if recover_fs == 0:
            recover_fs = 1
        allowed = (<uint64_t>prr_delivered * ssthresh + recover_fs - 1) // recover_fs
        send_count = <uint32_t>(allowed - prr_out) if allowed > prr_out else 0
    else:
        send_count = prr_delivered - prr_out if prr_delivered > prr_out else 0
        if send_count < delivered:
            send_count = delivered
        if safe_ack:
            send_count += smss
        if send_count > ssthresh - in_flight:
            send_count = ssthresh - in_flight
    if prr_out == 0 and send_count < smss:
        send_count = smss
    return send_count

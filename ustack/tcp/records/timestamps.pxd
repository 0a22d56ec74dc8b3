# SPDX-License-Identifier: MIT
# What our timestamp clock says to whom: RFC 7323 section 5.4, with an offset of its own for each pair of addresses.
#
# One clock for everybody tells whoever asks how long we have been up, which of two addresses are the same machine, and
# what the timestamps of other people's segments are. So each pair of addresses sees it from another start: a keyed hash
# (SipHash-2-4, as for ISNs). Ports are not in it: from one connection of a pair to the next the clock goes on, so that
# the peer can tell them apart (RFC 6191, RFC 7323 appendix B.2) and PAWS works for whoever comes after in TIME-WAIT.
#
#     tcp_timestamp        our clock, what recovery computes with (tcb.pxd)
#     timestamp_for        what goes into TSval                      writers of headers: emit, output
#     timestamp_slowed     ... of a connection that has seen its path reorder (TCB_REORDERED)
#     timestamp_echoed     what a TSecr was on our clock             input, once for each segment
#     timestamp_wait_ms    until a SYN says more than the connection before it has     send/handshake
#
# Slow ticks. A retransmission that fills the hole at the peer's RCV.NXT makes its own TSval TS.Recent, and PAWS
# (RFC 7323 section 5.3 R1) discards whatever was sent before it and is still on its way. On a path that delivers a
# twentieth of the segments 20 ms late those are eight at 100 Mb/s: each is lost, its retransmission makes the peer
# discard the next eight, and each flight for which this goes on is one more reduction, until the window is too small
# for anything to be late. Within one tick nothing is older than anything else. So the clock that a connection shows
# ticks every 512 ms once it has seen reordering (TCB_REORDERED); section 5.4 wants from 1 ms to 1 s, and no more than
# 2^31 bytes in a tick: 33 Gb/s. It shows the end of the tick that it is, so that the change does not take it back, and
# there is no change to milliseconds again, which would. Linux shows milliseconds, and loses its window there.
#
# Recovery goes on comparing echoes with the fine clock. Where a segment was sent twice within a tick, an echo of its
# end does not look older than the second sending: no proof either way, as if there were no timestamps, and duplicate
# SACKs tell (undo). What measures round trips by echoes must not while the ticks are slow (receive/autotune).
#
# Such a connection has shown up to half a second more of the clock than there was. If its peer closed first it is in
# TIME-WAIT, and takes a SYN for a new connection by a TSval that is greater than the last one (RFC 6191 section 2): so
# the SYN of the next one between the same ports waits until the clock has passed that, half a second at most. SLOW_ENDS
# places remember who ended like that, by a hash of the four; where two meet within a tick, whoever meets their place
# waits.
#
# The offset of a pair is looked up, not hashed, for the thousand or so pairs that were last in use. It must not be kept
# in the tcb, which has no room for it. Below: tcb, base/prng. Above: emit, output, input.

from libc.stdint cimport uint32_t, uint64_t

from ustack.base.types cimport ip_addr_is_v4
from ustack.tcp.records.tcb cimport TIMESTAMP_PAIRS, flow_key_t, tcb_t, tcp_t, tcp_timestamp, timestamp_pair_t

cdef enum:
    SLOW_TICK_MASK = 511                    # milliseconds of a slow tick, less one

# A connection has ended.
cdef void timestamp_note_end(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
# How long a SYN with timestamps for this connection has to wait; 0: not at all.
cdef uint32_t timestamp_wait_ms(tcp_t *tcp, const flow_key_t *key) noexcept nogil
# For a pair that is not in its place of the table: hashed, and put there if it is IPv4.
cdef uint32_t timestamp_offset_of(tcp_t *tcp, const flow_key_t *key) noexcept nogil


cdef inline uint32_t timestamp_offset(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    cdef uint64_t pair = <uint64_t>key.laddr.words_be[3] << 32 | key.raddr.words_be[3]
    cdef const timestamp_pair_t *entry = &tcp.timestamp_pairs[(pair * 0x9E3779B97F4A7C15ULL) >> 54]
    if entry.pair == pair and ip_addr_is_v4(&key.raddr):
        return entry.offset
    return timestamp_offset_of(tcp, key)


cdef inline uint32_t timestamp_for(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    return tcp_timestamp(tcp) + timestamp_offset(tcp, key)


# 0: nothing was echoed (RFC 7323 section 3.2), and stays 0.
cdef inline uint32_t timestamp_echoed(tcp_t *tcp, const flow_key_t *key, uint32_t ts_ecr) noexcept nogil:
    return ts_ecr - timestamp_offset(tcp, key) if ts_ecr != 0 else 0


# TSval in slow ticks: the end of its tick, so that it is never less than what was said before.
cdef inline uint32_t timestamp_slowed(uint32_t ts_val) noexcept nogil:
    return ts_val | SLOW_TICK_MASK

# SPDX-License-Identifier: MIT
"""Frames out of the receive rings of an AF_PACKET link, in the order in which they arrived.

Must not: trust a length in a slot beyond the slot; run any Python. One thread.

Read first: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux (tpacket_rcv). Above:
packet_mmap. Below: packet_ring (layout), vnet.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.debug cimport ensure
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.device cimport backlog_mark, link_t
from ustack.link.packet_abi cimport (
    TP_STATUS_CSUM_VALID, TP_STATUS_CSUMNOTREADY, TP_STATUS_KERNEL, TP_STATUS_TS_SOFTWARE, TP_STATUS_VLAN_VALID,
    store_release, tpacket2_hdr, virtio_net_hdr)
from ustack.link.packet_ring cimport (
    LARGE_FRAMES, SMALL_FRAMES, after, packet_ring_t, received, ring_of, rx_ring_t, slot_header)
from ustack.link.vnet cimport vnet_parse

cdef enum:
    VLAN_ID_MASK = 0x0FFF


cdef void read_slot(link_t *link, tpacket2_hdr *header, uint32_t slot_bytes, frame_t *frame) noexcept nogil:
    """Every number in the slot is checked against the slot; impossible ones make a frame of which nothing arrived."""
    cdef uint32_t mac = header.tp_mac
    cdef uint32_t length = header.tp_snaplen
    cdef uint32_t status = header.tp_status
    frame.data = <uint8_t *>header
    frame.length = 0
    frame.wire_length = max(header.tp_len, 1)
    frame.gso_size = 0
    frame.checksum = CHECKSUM_UNKNOWN
    # The kernel has taken the tag out of the frame: without this, another network's frames would look like ours.
    frame.vlan_id = header.tp_vlan_tci & VLAN_ID_MASK if status & TP_STATUS_VLAN_VALID else 0
    if (mac >= sizeof(tpacket2_hdr) + sizeof(virtio_net_hdr) and mac <= slot_bytes and length <= slot_bytes - mac
            and length <= header.tp_len):
        frame.data = <uint8_t *>header + mac
        frame.length = length
        vnet_parse(frame.data - sizeof(virtio_net_hdr), frame)
        if status & TP_STATUS_CSUMNOTREADY:
            frame.checksum = CHECKSUM_PARTIAL
        elif status & TP_STATUS_CSUM_VALID and frame.checksum == CHECKSUM_UNKNOWN:
            frame.checksum = CHECKSUM_VERIFIED
    link.counters.rx_frames += 1
    link.counters.rx_bytes += frame.length
    if frame.length < frame.wire_length:
        link.counters.rx_truncated += 1


cdef inline void lend_next(link_t *link, packet_ring_t *ring, int which, frame_t *frame) noexcept nogil:
    cdef rx_ring_t *rx = &ring.rx[which]
    cdef uint32_t last = ring.lent_first + ring.lent
    read_slot(link, slot_header(&rx.ring, rx.next), rx.ring.slot_bytes, frame)
    rx.next = after(&rx.ring, rx.next)
    rx.held += 1
    ring.lent_from[last if last < ring.lent_room else last - ring.lent_room] = <uint8_t>which
    ring.lent += 1


# Two rings are one arrival order. A processor stores one frame after the other: it reserves a slot, copies, stamps,
# and sets the status last, so that
#
#   (1) when a frame is seen in one ring, what its processor stored before it is seen by a *later* look at the other;
#   (2) of two frames of one processor, the earlier has the smaller stamp.
#
# Slots are reserved in order, but other processors may still be busy with some of them (at most stores_max - 1): then a
# slot that is ready lies behind one that is not, or has a smaller stamp than the one before it. So the look at a ring
# goes that many slots ahead. Frames of one processor, and so of one flow, keep their order: not two flows', nor while
# the wall clock is set back (stamps are CLOCK_REALTIME), which TCP then puts right as any reordering. Frames that were
# stamped when they came, not when they were stored (TP_STATUS_TS_SOFTWARE: somebody asked for time stamps), say nothing
# about the slots before them.
cdef inline bint nothing_stored(packet_ring_t *ring, rx_ring_t *rx) noexcept nogil:
    cdef uint32_t ahead
    for ahead in range(ring.stores_max):
        if received(rx, ahead) != NULL:
            return False
    return True


cdef inline uint64_t stamp_of(const tpacket2_hdr *header) noexcept nogil:
    return header.tp_sec * 1000000000ULL + header.tp_nsec


cdef uint64_t stored_by(packet_ring_t *ring, rx_ring_t *rx) noexcept nogil:
    """No later than this the next frame, or one that is stuck behind it, was stored."""
    cdef tpacket2_hdr *header = received(rx, 0)
    cdef uint64_t stamp, earliest = stamp_of(header)
    cdef uint32_t ahead
    if header.tp_status & TP_STATUS_TS_SOFTWARE:
        return earliest
    for ahead in range(1, ring.stores_max):
        header = received(rx, ahead)
        if header != NULL and not header.tp_status & TP_STATUS_TS_SOFTWARE:
            stamp = stamp_of(header)
            if stamp < earliest:
                earliest = stamp
    return earliest


cdef inline uint32_t run_length(rx_ring_t *rx, uint32_t limit) noexcept nogil:
    cdef uint32_t n = 0
    while n < limit and received(rx, n) != NULL:
        n += 1
    return n


cdef uint32_t merged_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef rx_ring_t *large = &ring.rx[LARGE_FRAMES]
    cdef rx_ring_t *small = &ring.rx[SMALL_FRAMES]
    cdef uint32_t n = 0, run
    while n < max_frames:
        run = run_length(small, max_frames - n)
        if run > 0 and nothing_stored(ring, large):             # (1), large after small
            while run > 0:
                lend_next(link, ring, SMALL_FRAMES, &frames[n])
                n += 1
                run -= 1
        elif received(large, 0) == NULL:
            break                       # nothing, or a processor is about to finish the slot that is first
        elif run == 0 and received(small, 0) == NULL:           # (1), small after large
            if not nothing_stored(ring, small):
                break
            lend_next(link, ring, LARGE_FRAMES, &frames[n])
            n += 1
        else:
            # A small frame behind a large one is what a sender does with the end of its data: so in case of a tie.
            lend_next(link, ring,
                      LARGE_FRAMES if stored_by(ring, large) <= stored_by(ring, small) else SMALL_FRAMES, &frames[n])
            n += 1
    return n


cdef uint32_t packet_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef rx_ring_t *only = &ring.rx[LARGE_FRAMES]
    cdef uint32_t n = 0
    if ring.rx[SMALL_FRAMES].fd >= 0:
        return merged_burst(link, frames, max_frames)
    while n < max_frames and received(only, 0) != NULL:
        lend_next(link, ring, LARGE_FRAMES, &frames[n])
        n += 1
    return n


cdef void packet_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef rx_ring_t *rx
    ensure(n <= ring.lent)
    if n > ring.lent:
        n = ring.lent
    ring.lent -= n
    while n > 0:
        n -= 1
        rx = &ring.rx[ring.lent_from[ring.lent_first]]
        ring.lent_first = ring.lent_first + 1 if ring.lent_first + 1 < ring.lent_room else 0
        store_release(&slot_header(&rx.ring, rx.oldest).tp_status, TP_STATUS_KERNEL)
        rx.oldest = after(&rx.ring, rx.oldest)
        rx.held -= 1


cdef inline bint holds(rx_ring_t *rx, uint32_t frames, bint still) noexcept nogil:
    """One slot tells: they are filled in order, but for those that processors are busy with."""
    frames = backlog_mark(rx.ring.count, frames if frames > 0 else rx.ring.count // 2)
    if still and frames > 1:
        frames //= 2
    return frames > 0 and received(rx, frames - 1) != NULL


cdef bint packet_rx_behind(link_t *link, uint32_t frames, bint still) noexcept nogil:
    """Of the ring in which short frames are: super-frames that wait take nobody else's place."""
    cdef packet_ring_t *ring = ring_of(link)
    return holds(&ring.rx[SMALL_FRAMES if ring.rx[SMALL_FRAMES].fd >= 0 else LARGE_FRAMES], frames, still)

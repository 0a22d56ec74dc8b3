# SPDX-License-Identifier: MIT
"""The AF_PACKET link: frames in and out through rings that are shared with the kernel.

Receive and transmit are both TPACKET_V2 (V3 hands over whole blocks: a lone frame waits for a timer), with a virtio_net
header in front of each frame: checksums and segmentation are left to the kernel in both directions.

Must not: trust a length in a slot beyond the slot; assume that a slot is free without having read its status; run any
Python on the data path. One thread.

Read first: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux. Below: packet_ring
(opening, layout), interface. Above: ip.
"""

import select

from libc.errno cimport EAGAIN, EBADF, EINTR, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, errno
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.debug cimport ensure
from ustack.base.posix cimport (
    MSG_DONTWAIT, POLLERR, POLLIN, POLLOUT, SOL_PACKET, SOL_SOCKET, SO_ERROR, getsockopt, send)
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, link_ops_t, link_t, offload_t
from ustack.link.interface cimport (
    interface_exists, interface_name, interface_t, parse_busy_poll, parse_mac, sleep_on_both, spin_adapt)
from ustack.link.packet_abi cimport (
    ETH_HLEN, PACKET_STATISTICS, TPACKET_ALIGNMENT, TP_STATUS_AVAILABLE, TP_STATUS_CSUMNOTREADY, TP_STATUS_CSUM_VALID,
    TP_STATUS_KERNEL, TP_STATUS_SEND_REQUEST, TP_STATUS_TS_SOFTWARE, TP_STATUS_USER, TP_STATUS_VLAN_VALID,
    TP_STATUS_WRONG_FORMAT, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, load_acquire, relax, store_release, tpacket2_hdr, tpacket_stats,
    virtio_net_hdr)
from ustack.link.packet_ring cimport (
    LARGE_FRAMES, RX_HEAD_BYTES, RX_RINGS_MAX, SLOTS_AUTO, SMALL_FRAMES, after, follow_segmentation, packet_ring_close,
    packet_ring_open, packet_ring_t, ring_plan_t, rx_ring_t, slot_header, tx_data_offset)

cdef enum:
    SLOT_BYTES = 66576                  # 64 KB and headers; an odd multiple of 16: neighbours do not share cache sets
    SLOT_BYTES_MIN = 256
    SLOT_BYTES_MAX = 262144
    SLOTS_MAX = 65536
    RING_BYTES_MAX = 1073741824         # the kernel would rather kill processes than refuse
    # The kernel attaches a super-frame's pages or copies them; it refuses super-frames of 64 KiB and more, the Ethernet
    # header counted (GSO_LEGACY_MAX_SIZE).
    SUPER_FRAME_MAX = 65535
    VLAN_ID_MASK = 0x0FFF
    SPIN_CHECKS = 32                    # looks at the ring between two looks at the clock
    SPIN_SLICE_NS = 10000000            # "always" still returns this often: signals and a removed interface are noticed
    TX_PIECE_BYTES = 2048               # the kernel always finds a piece of this size
    TCP_HEADER_MAX = 60
    TX_RETRY_NS = 1000000               # when the device refuses frames, come back this soon
    TX_STUCK_NS = 20000000              # and give up on them after this long
    ASK_AGAIN_NS = 1000000000           # a device that did not segment may do so again
    SUPER_FRAME_BYTES = 65549           # the longest that a peer sends by default: 65,535 and the Ethernet header


# ---------------------------------------------------------------- receive
cdef inline packet_ring_t *ring_of(link_t *link) noexcept nogil:
    return <packet_ring_t *>link.impl


cdef inline tpacket2_hdr *received(rx_ring_t *rx, uint32_t ahead) noexcept nogil:
    """The header of the slot `ahead` of the next one to read, if a frame is in it; NULL if not."""
    cdef uint32_t index = rx.next + ahead
    cdef tpacket2_hdr *header
    if rx.held + ahead >= rx.ring.count:
        return NULL
    header = slot_header(&rx.ring, index if index < rx.ring.count else index - rx.ring.count)
    return header if load_acquire(&header.tp_status) & TP_STATUS_USER else NULL


cdef inline bint rx_ready(packet_ring_t *ring) noexcept nogil:
    return received(&ring.rx[<int>LARGE_FRAMES], 0) != NULL or received(&ring.rx[<int>SMALL_FRAMES], 0) != NULL


cdef void read_slot(link_t *link, tpacket2_hdr *header, uint32_t slot_bytes, frame_t *frame) noexcept nogil:
    """Every number in the slot is checked against the slot; impossible ones make a frame of which nothing arrived."""
    cdef uint32_t mac = header.tp_mac
    cdef uint32_t length = header.tp_snaplen
    cdef uint32_t status = header.tp_status
    cdef virtio_net_hdr vnet
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
        memcpy(&vnet, frame.data - sizeof(virtio_net_hdr), sizeof(virtio_net_hdr))
        frame.gso_size = vnet.gso_size if vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE else 0
        if vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or status & TP_STATUS_CSUMNOTREADY:
            frame.checksum = CHECKSUM_PARTIAL
        elif vnet.flags & VIRTIO_NET_HDR_F_DATA_VALID or status & TP_STATUS_CSUM_VALID:
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
    return <uint64_t>header.tp_sec * 1000000000ULL + header.tp_nsec


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
    cdef rx_ring_t *large = &ring.rx[<int>LARGE_FRAMES]
    cdef rx_ring_t *small = &ring.rx[<int>SMALL_FRAMES]
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


cdef uint32_t mmap_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef rx_ring_t *only = &ring.rx[<int>LARGE_FRAMES]
    cdef uint32_t n = 0
    if ring.rx[<int>SMALL_FRAMES].fd >= 0:
        return merged_burst(link, frames, max_frames)
    while n < max_frames and received(only, 0) != NULL:
        lend_next(link, ring, LARGE_FRAMES, &frames[n])
        n += 1
    return n


cdef void mmap_rx_release(link_t *link, uint32_t n) noexcept nogil:
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


# ---------------------------------------------------------------- transmit
cdef uint8_t *mmap_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket2_hdr *header = slot_header(&ring.tx, ring.tx_next)
    cdef uint32_t status
    ensure(length <= link.caps.max_frame)
    if length > link.caps.max_frame:
        return NULL
    if not ring.tx_reserved:
        status = load_acquire(&header.tp_status)
        if status == TP_STATUS_WRONG_FORMAT:
            link.counters.tx_dropped += 1
        elif status != TP_STATUS_AVAILABLE:
            ring.tx_blocked = True
            return NULL
        ring.tx_reserved = True
    return <uint8_t *>header + tx_data_offset() + sizeof(virtio_net_hdr)


cdef void mmap_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket2_hdr *header = slot_header(&ring.tx, ring.tx_next)
    cdef virtio_net_hdr vnet
    ensure(ring.tx_reserved and length <= link.caps.max_frame)
    if not ring.tx_reserved or length > link.caps.max_frame:
        return
    ring.tx_reserved = False
    memset(&vnet, 0, sizeof(virtio_net_hdr))
    vnet.gso_type = VIRTIO_NET_HDR_GSO_NONE
    # hdr_len octets are copied into one piece, the slot's pages are attached for the rest. Copying all is faster: on a
    # veth, which copies attached pages itself, 60 KB frames go out at 45-75 Gb/s instead of 25-45.
    vnet.hdr_len = <uint16_t>length
    if offload.csum_start != 0:
        vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
        vnet.csum_start = offload.csum_start
        vnet.csum_offset = offload.csum_offset
    if offload.gso_size != 0:
        vnet.gso_type = VIRTIO_NET_HDR_GSO_TCPV6 if offload.gso_family == 6 else VIRTIO_NET_HDR_GSO_TCPV4
        vnet.gso_size = offload.gso_size
    memcpy(<uint8_t *>header + tx_data_offset(), &vnet, sizeof(virtio_net_hdr))
    header.tp_len = length + <uint32_t>sizeof(virtio_net_hdr)
    store_release(&header.tp_status, TP_STATUS_SEND_REQUEST)
    ring.tx_next = after(&ring.tx, ring.tx_next)
    ring.tx_unsent += 1
    link.counters.tx_frames += 1
    link.counters.tx_bytes += length


cdef inline uint32_t oldest_unsent(packet_ring_t *ring) noexcept nogil:
    if ring.tx_next >= ring.tx_unsent:
        return ring.tx_next - ring.tx_unsent
    return ring.tx_next + ring.tx.count - ring.tx_unsent


cdef void note_sent(packet_ring_t *ring) noexcept nogil:
    """The kernel takes slots in order: whatever is no longer a request has been taken."""
    cdef uint32_t index
    if ring.tx_unsent == 0:
        return
    index = ring.tx_next - 1 if ring.tx_next > 0 else ring.tx.count - 1
    if load_acquire(&slot_header(&ring.tx, index).tp_status) != TP_STATUS_SEND_REQUEST:
        ring.tx_unsent = 0
        return
    while ring.tx_unsent > 0:
        if load_acquire(&slot_header(&ring.tx, oldest_unsent(ring)).tp_status) == TP_STATUS_SEND_REQUEST:
            return
        ring.tx_unsent -= 1
        ring.tx_stuck_since_ns = 0


cdef void discard_unsent(link_t *link, packet_ring_t *ring) noexcept nogil:
    """Take back what the device does not want. The kernel stands at the oldest of these slots, and so do we afterwards:
    it looks at the ring only inside send()."""
    if ring.tx_reserved:
        return
    while ring.tx_unsent > 0:
        ring.tx_next = ring.tx_next - 1 if ring.tx_next > 0 else ring.tx.count - 1
        ring.tx_unsent -= 1
        store_release(&slot_header(&ring.tx, ring.tx_next).tp_status, TP_STATUS_AVAILABLE)
        link.counters.tx_dropped += 1
    ring.tx_stuck_since_ns = 0


cdef void use_page_fragments(packet_ring_t *ring) noexcept nogil:
    """The kernel may have no piece of memory as large as a super-frame: let it attach the slot's pages instead."""
    cdef uint8_t *data = ring.tx.slots[oldest_unsent(ring)] + tx_data_offset()
    cdef virtio_net_hdr vnet
    memcpy(&vnet, data, sizeof(virtio_net_hdr))
    if vnet.csum_start != 0 and vnet.hdr_len > TX_PIECE_BYTES:
        vnet.hdr_len = vnet.csum_start + TCP_HEADER_MAX
        memcpy(data, &vnet, sizeof(virtio_net_hdr))


cdef bint stopped_segmenting(packet_ring_t *ring) noexcept nogil:
    """Whether the device has, since it was asked last, and frames go through the queueing discipline now. A device that
    is only busy or without a carrier refuses in the same way, again and again: it is not asked each time."""
    cdef uint64_t now_ns = clock_monotonic_ns()
    return (ring.bypasses_qdisc and now_ns - ring.segments_asked_ns > TX_RETRY_NS
            and follow_segmentation(ring, now_ns))


cdef int mmap_tx_submit(link_t *link) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef int error = 0
    cdef uint64_t now_ns
    cdef int _attempt
    if ring.tx_unsent == 0:
        return 0
    if ring.gone:
        discard_unsent(link, ring)
        return -ENXIO
    if not ring.bypasses_qdisc:
        now_ns = clock_monotonic_ns()
        if now_ns - ring.segments_asked_ns > ASK_AGAIN_NS:
            follow_segmentation(ring, now_ns)
    for _attempt in range(2):
        link.counters.tx_submits += 1
        error = 0
        if send(ring.fd, NULL, 0, MSG_DONTWAIT) < 0:
            error = errno
        note_sent(ring)
        # A socket reports that its interface went down once more after it has come up again: ask twice. A device that
        # refuses a frame may have been told not to segment any more (ethtool -K): then go the other way, at once.
        if error != ENETDOWN and not (error == ENOBUFS and ring.tx_unsent > 0 and stopped_segmenting(ring)):
            break
    if ring.tx_unsent == 0:
        ring.tx_stuck_since_ns = 0
        return 0
    if error == 0 or error == EAGAIN or error == ENOBUFS or error == ENOMEM or error == EINTR:
        # Congestion, or no carrier: the kernel keeps its place in the ring. What waits for too long is better lost,
        # as on any device: TCP sends again.
        now_ns = clock_monotonic_ns()
        use_page_fragments(ring)
        if ring.tx_stuck_since_ns == 0:
            ring.tx_stuck_since_ns = now_ns
        elif now_ns - ring.tx_stuck_since_ns > TX_STUCK_NS:
            discard_unsent(link, ring)
        return 0
    discard_unsent(link, ring)
    return note_error(ring, error)


cdef int note_error(packet_ring_t *ring, int error) noexcept nogil:
    if not interface_exists(ring.fd, ring.ifindex):
        ring.gone = True
        return -ENXIO
    return -error


# ---------------------------------------------------------------- waiting
cdef bint spin_on_ring(packet_ring_t *ring, uint64_t until_ns) noexcept nogil:
    """True as soon as a frame is there."""
    cdef int _check
    while True:
        for _check in range(SPIN_CHECKS):
            if rx_ready(ring):
                return True
            relax()
        if clock_monotonic_ns() >= until_ns:
            return False


cdef int mmap_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef uint64_t now_ns, spin_ns
    cdef bint always = link.spin_ns == UINT64_MAX
    cdef short events = POLLIN
    cdef short revents = 0
    cdef int error
    if rx_ready(ring):
        return 0
    if ring.gone:
        return -ENXIO
    now_ns = clock_monotonic_ns()
    if ring.tx_unsent > 0 and deadline_ns > now_ns + TX_RETRY_NS:
        deadline_ns = now_ns + TX_RETRY_NS      # no event tells that the device takes frames again
    spin_ns = SPIN_SLICE_NS if always else (ring.spin.window_ns if ring.spin.window_ns < link.spin_ns else link.spin_ns)
    if spin_ns > 0 and deadline_ns > now_ns:
        if spin_on_ring(ring, now_ns + spin_ns if deadline_ns - now_ns > spin_ns else deadline_ns):
            return 0
        now_ns = clock_monotonic_ns()
    if always:
        deadline_ns = now_ns                    # only ask for errors
    if ring.tx_blocked and ring.tx_unsent == 0:
        events |= POLLOUT
    if deadline_ns > now_ns:
        link.counters.waits += 1
    error = sleep_on_both(ring.fd, events, ring.rx[<int>SMALL_FRAMES].fd, deadline_ns, &revents)
    if error < 0:
        return error
    if not always and deadline_ns > now_ns:
        spin_adapt(&ring.spin, link.spin_ns, clock_monotonic_ns() - now_ns, (revents & POLLIN) != 0)
    if revents & POLLOUT:
        ring.tx_blocked = False
    if revents & POLLERR:
        return take_socket_error(ring)
    return 0


cdef int take_socket_error(packet_ring_t *ring) noexcept nogil:
    """Fetching a socket's error clears it: a link that goes down is reported once, and works again when it is up."""
    cdef int error, found = 0, which
    cdef unsigned int length
    for which in range(RX_RINGS_MAX):
        error = 0
        length = sizeof(int)
        if ring.rx[which].fd < 0:
            continue
        if getsockopt(ring.rx[which].fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
            error = errno
        if error != 0:
            found = error
    return note_error(ring, found) if found != 0 else 0


cdef void mmap_refresh_counters(link_t *link) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket_stats stats
    cdef unsigned int length
    cdef int which
    for which in range(RX_RINGS_MAX):
        length = sizeof(tpacket_stats)
        if ring.rx[which].fd >= 0 and getsockopt(
                ring.rx[which].fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0:    # reading resets them
            ring.rx[which].drops += stats.tp_drops
            link.counters.rx_dropped += stats.tp_drops
    follow_segmentation(ring, clock_monotonic_ns())


cdef link_ops_t PACKET_MMAP_OPS
PACKET_MMAP_OPS.rx_burst = mmap_rx_burst
PACKET_MMAP_OPS.rx_release = mmap_rx_release
PACKET_MMAP_OPS.tx_reserve = mmap_tx_reserve
PACKET_MMAP_OPS.tx_commit = mmap_tx_commit
PACKET_MMAP_OPS.tx_submit = mmap_tx_submit
PACKET_MMAP_OPS.wait = mmap_wait
PACKET_MMAP_OPS.refresh_counters = mmap_refresh_counters


# ---------------------------------------------------------------- Python face
cdef class PacketMmapLink(Link):
    """PacketMmapLink(ifname, *, rx_slots=504, rx_small_slots=None, tx_slots=126, slot_bytes=66576,
peer_frame_bytes=65549, busy_poll='auto', mac=None)
--

    An Ethernet interface of the calling thread's network namespace, through AF_PACKET rings.

    rx_small_slots: at least so many frames of one MTU at most wait in the receive ring for the stack's next turn; by
    default 8,192, or fewer of a large MTU (32 MB). rx_slots: so many longer ones, super-frames, do; with rx_small_slots
    0 there is one ring, and these slots are for all frames. tx_slots: frames on their way out. slot_bytes: memory for
    each of rx_slots and tx_slots, a multiple of 16. All of it is locked memory.

    peer_frame_bytes: the longest frame that the other end may send, headers included: slot_bytes must hold it, because
    a frame that is cut is lost, each time it is sent again. A local peer sends 64 KB whatever the MTU, unless its
    segmentation offload is off or limited (gso_max_size), and more with a larger gso_ipv4_max_size.

    busy_poll: "auto" spins for a while before it sleeps when frames come quickly, "always" never sleeps, "never" never
    spins. mac: our station address, the interface's own by default (another one needs the interface to be promiscuous).

    Raises ValueError for a bad argument, PermissionError without CAP_NET_RAW, OSError when the interface does not
    exist, is not Ethernet, or the kernel lacks PACKET_VNET_HDR (Linux before 4.8 lacks it for rings).
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    def __init__(self, ifname: str, *, rx_slots: int = 504, rx_small_slots: int | None = None, tx_slots: int = 126,
                 slot_bytes: int = SLOT_BYTES, peer_frame_bytes: int = SUPER_FRAME_BYTES, busy_poll: str = "auto",
                 mac: str | None = None) -> None:
        cdef interface_t interface
        cdef ring_plan_t plan
        name = interface_name(ifname)
        for what, slots, least in (("rx_slots", rx_slots, 1), ("tx_slots", tx_slots, 1),
                                   ("rx_small_slots", rx_small_slots, 0)):
            if slots is not None and not least <= slots <= SLOTS_MAX:
                raise ValueError(f"{what} {slots}: must be {least} to {SLOTS_MAX}")
        if not SLOT_BYTES_MIN <= slot_bytes <= SLOT_BYTES_MAX or slot_bytes % TPACKET_ALIGNMENT:
            raise ValueError(f"slot_bytes {slot_bytes}: must be a multiple of {TPACKET_ALIGNMENT}, "
                             f"{SLOT_BYTES_MIN} to {SLOT_BYTES_MAX}")
        if peer_frame_bytes + RX_HEAD_BYTES > slot_bytes:
            raise ValueError(f"slot_bytes {slot_bytes}: cannot hold the peer's super-frames, of {peer_frame_bytes} "
                             f"bytes; say peer_frame_bytes if its frames are shorter")
        if (rx_slots + tx_slots) * slot_bytes > RING_BYTES_MAX:
            raise ValueError(f"rx_slots {rx_slots} and tx_slots {tx_slots} of {slot_bytes} octets: "
                             f"must be {RING_BYTES_MAX} octets at most together")
        if self.ring != NULL:
            raise ValueError("this link is open")
        self.c.spin_ns = parse_busy_poll(busy_poll)
        if mac is not None:
            parse_mac(mac, self.c.mac)
        plan.rx_slots = rx_slots
        plan.rx_small_slots = SLOTS_AUTO if rx_small_slots is None else rx_small_slots
        plan.tx_slots = tx_slots
        plan.slot_bytes = slot_bytes
        self.ring = packet_ring_open(ifname, name, &plan, &interface)
        self.ifname = ifname
        self.describe(&interface, mac is None)
        self.c.impl = self.ring
        self.c.ops = &PACKET_MMAP_OPS
        self.warns = True

    cdef void describe(self, const interface_t *interface, bint own_mac) noexcept:
        cdef packet_ring_t *ring = self.ring
        cdef uint32_t room = ring.tx.slot_bytes - tx_data_offset() - <uint32_t>sizeof(virtio_net_hdr)
        if own_mac:
            memcpy(self.c.mac, interface.mac, 6)
        self.c.caps.mtu = interface.mtu
        self.c.caps.max_frame = room if room < SUPER_FRAME_MAX else SUPER_FRAME_MAX
        if self.c.caps.mtu + ETH_HLEN > self.c.caps.max_frame:
            self.c.caps.mtu = self.c.caps.max_frame - ETH_HLEN
        self.c.caps.tx_checksum = True
        self.c.caps.tx_segmentation = True
        self.c.caps.rx_checksum = True

    cpdef void close(self) except *:
        """Unmap the rings and close the sockets. Frames still lent are gone."""
        cdef bint entered
        if self.closed:
            return
        entered = self.gate.enter_to_close()
        try:
            if self.ring != NULL:
                self.last_drops = self.ring_drops
            self.closed = True
            if self.watch is not None:
                self.watch.close()          # which lets other threads run
            self.c.ops = closed_link_ops()
            self.c.impl = NULL
            if self.ring != NULL:
                packet_ring_close(self.ring)
                self.ring = NULL
        finally:
            self.gate.leave_closed(entered)

    def __dealloc__(self) -> None:
        if self.ring != NULL:
            packet_ring_close(self.ring)

    def fileno(self) -> int:
        """Readable while a received frame waits in a ring: the packet socket, or what watches both of them."""
        if self.ring == NULL:
            raise OSError(EBADF, "the link is closed")
        if self.ring.rx[<int>SMALL_FRAMES].fd < 0:
            return self.ring.fd
        if self.watch is None:
            self.watch = select.epoll()
            self.watch.register(self.ring.fd, select.EPOLLIN)
            self.watch.register(self.ring.rx[<int>SMALL_FRAMES].fd, select.EPOLLIN)
        return self.watch.fileno()

    @property
    def ring_slots(self) -> tuple[int, int]:
        """Slots of the receive ring for frames of any length and of the transmit ring; (0, 0) when closed."""
        if self.ring == NULL:
            return 0, 0
        return self.ring.rx[<int>LARGE_FRAMES].ring.count, self.ring.tx.count

    @property
    def small_slots(self) -> int:
        """Slots of the receive ring for frames of one MTU at most; 0: there is none, or the link is closed."""
        return self.ring.rx[<int>SMALL_FRAMES].ring.count if self.ring != NULL else 0

    @property
    def ring_drops(self) -> tuple[int, int]:
        """Frames that found the receive ring full: that for large frames (or for all), that for small ones."""
        if self.ring == NULL:
            return self.last_drops
        mmap_refresh_counters(&self.c)
        return self.ring.rx[<int>LARGE_FRAMES].drops, self.ring.rx[<int>SMALL_FRAMES].drops

    @property
    def device_segments(self) -> bool:
        """Whether the device takes super-frames now; while it does not, the kernel segments them in software."""
        return self.ring != NULL and bool(self.ring.bypasses_qdisc)

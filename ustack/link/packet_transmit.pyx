# SPDX-License-Identifier: MIT
"""Frames into the transmit ring of an AF_PACKET link, and out with one send() for all that was queued.

A long frame whose payload lies elsewhere goes past the ring, with a sendmsg() of its own: its bytes are copied once
instead of twice, which is worth more than the system call.

Must not: assume that a slot is free without having read its status; run any Python. One thread.

Read first: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux (tpacket_snd). Above:
packet_mmap. Below: packet_ring (layout), interface, vnet.
"""

from libc.errno cimport EAGAIN, EFAULT, EINTR, EINVAL, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.debug cimport ensure
from ustack.base.posix cimport MSG_DONTWAIT, iovec, msghdr, send, sendmsg
from ustack.link.device cimport GATHER_PIECES_MAX, link_t, offload_t
from ustack.link.interface cimport interface_exists
from ustack.link.packet_abi cimport (
    TP_STATUS_AVAILABLE, TP_STATUS_SEND_REQUEST, TP_STATUS_WRONG_FORMAT, load_acquire, store_release, tpacket2_hdr,
    virtio_net_hdr)
from ustack.link.packet_ring cimport after, follow_segmentation, packet_ring_t, ring_of, slot_header, tx_data_offset
from ustack.link.vnet cimport vnet_emit, vnet_shorten_linear

cdef enum:
    TX_PIECE_BYTES = 2048               # the kernel always finds a piece of this size
    TX_STUCK_NS = 20000000              # a device that refuses frames for longer loses them
    ASK_AGAIN_NS = 1000000000           # a device that did not segment may do so again


cdef uint8_t *packet_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
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


cdef void packet_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket2_hdr *header = slot_header(&ring.tx, ring.tx_next)
    ensure(ring.tx_reserved and length <= link.caps.max_frame)
    if not ring.tx_reserved or length > link.caps.max_frame:
        return
    ring.tx_reserved = False
    # What is not in one piece is attached, page by page. Copying all of it is faster: on a veth, which copies attached
    # pages itself, 60 KB frames go out at 45-75 Gb/s instead of 25-45.
    vnet_emit(<uint8_t *>header + tx_data_offset(), offload, length)
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


cdef inline void use_page_fragments(packet_ring_t *ring) noexcept nogil:
    """The kernel may have no piece of memory as large as a super-frame: let it attach the slot's pages instead."""
    vnet_shorten_linear(ring.tx.slots[oldest_unsent(ring)] + tx_data_offset(), TX_PIECE_BYTES)


cdef bint stopped_segmenting(packet_ring_t *ring) noexcept nogil:
    """Whether the device has, since it was asked last, and frames go through the queueing discipline now. A device that
    is only busy or without a carrier refuses in the same way, again and again: it is not asked each time."""
    cdef uint64_t now_ns = clock_monotonic_ns()
    return (ring.bypasses_qdisc and now_ns - ring.segments_asked_ns > TX_RETRY_NS
            and follow_segmentation(ring, now_ns))


cdef int packet_tx_submit(link_t *link) noexcept nogil:
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
        # Congestion, or no carrier: the kernel keeps its place in the ring. Frames that the device has refused for
        # TX_STUCK_NS are dropped, as any device does; TCP retransmits.
        now_ns = clock_monotonic_ns()
        use_page_fragments(ring)
        if ring.tx_stuck_since_ns == 0:
            ring.tx_stuck_since_ns = now_ns
        elif now_ns - ring.tx_stuck_since_ns > TX_STUCK_NS:
            discard_unsent(link, ring)
        return 0
    discard_unsent(link, ring)
    return note_error(ring, error)


cdef int packet_tx_gather(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                          const iovec *pieces, uint32_t count) noexcept nogil:
    """Whatever goes wrong here (no memory, no interface, a device that refuses the frame) is left to the ring, through
    which the frame goes then: it knows what to do about each."""
    cdef packet_ring_t *ring = ring_of(link)
    cdef uint8_t *data = <uint8_t *>slot_header(&ring.tx, ring.tx_next) + tx_data_offset()
    cdef iovec vector[GATHER_PIECES_MAX + 1]
    cdef msghdr message
    ensure(ring.tx_reserved and length <= link.caps.max_frame and count <= GATHER_PIECES_MAX)
    if not ring.tx_reserved or length > link.caps.max_frame or count > GATHER_PIECES_MAX:
        return -EINVAL
    if ring.tx_stuck_since_ns != 0 or link.now_ns < ring.gather_after_ns:
        return -EAGAIN
    if ring.tx_unsent > 0:
        packet_tx_submit(link)
        if ring.tx_unsent > 0 or ring.gone:
            return -EAGAIN                      # what is older goes first
    vnet_emit(data, offload, length)            # all in one piece, as packet_tx_commit wants it
    vector[0].iov_base = data
    vector[0].iov_len = sizeof(virtio_net_hdr) + head_bytes
    memcpy(&vector[1], pieces, count * sizeof(iovec))
    memset(&message, 0, sizeof(msghdr))
    message.msg_iov = vector
    message.msg_iovlen = count + 1
    link.counters.tx_submits += 1
    if sendmsg(ring.gather_fd, &message, MSG_DONTWAIT) < 0:
        if errno != EFAULT:
            ring.gather_after_ns = link.now_ns + TX_RETRY_NS
        return -errno
    ring.tx_reserved = False
    link.counters.tx_frames += 1
    link.counters.tx_bytes += length
    return 0


cdef int note_error(packet_ring_t *ring, int error) noexcept nogil:
    if not interface_exists(ring.fd, ring.ifindex):
        ring.gone = True
        return -ENXIO
    return -error

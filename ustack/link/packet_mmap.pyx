# SPDX-License-Identifier: MIT
"""The AF_PACKET link: frames in and out through rings that are shared with the kernel.

Receive and transmit are both TPACKET_V2 (V3 hands over whole blocks: a lone frame waits for a timer), with a virtio_net
header in front of each frame: checksums and segmentation are left to the kernel in both directions.

Must not: trust a length in a slot beyond the slot; assume that a slot is free without having read its status; run any
Python on the data path. One thread.

Read first: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux. Below: packet_ring
(opening, layout), interface. Above: ip.
"""

from libc.errno cimport EAGAIN, EBADF, EINTR, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, errno
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.debug cimport ensure
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.link.closed cimport closed_link_ops
from ustack.link.device cimport Link, link_ops_t, link_t, offload_t
from ustack.link.interface cimport (
    interface_exists,
    interface_name,
    interface_t,
    parse_busy_poll,
    parse_mac,
    sleep_on,
    spin_adapt,
)
from ustack.link.packet_abi cimport (
    ETH_HLEN,
    MSG_DONTWAIT,
    PACKET_STATISTICS,
    POLLERR,
    POLLIN,
    POLLOUT,
    SO_ERROR,
    SOL_PACKET,
    SOL_SOCKET,
    TP_STATUS_AVAILABLE,
    TP_STATUS_CSUM_VALID,
    TP_STATUS_CSUMNOTREADY,
    TP_STATUS_KERNEL,
    TP_STATUS_SEND_REQUEST,
    TP_STATUS_USER,
    TP_STATUS_VLAN_VALID,
    TP_STATUS_WRONG_FORMAT,
    TPACKET_ALIGNMENT,
    VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
    getsockopt,
    load_acquire,
    relax,
    send,
    store_release,
    tpacket2_hdr,
    tpacket_stats,
    virtio_net_hdr,
)
from ustack.link.packet_ring cimport (
    after,
    packet_ring_close,
    packet_ring_open,
    packet_ring_t,
    slot_header,
    tx_data_offset,
)

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


# ---------------------------------------------------------------- receive
cdef inline packet_ring_t *ring_of(link_t *link) noexcept nogil:
    return <packet_ring_t *>link.impl


cdef inline bint rx_ready(packet_ring_t *ring) noexcept nogil:
    return (ring.rx_held < ring.rx.count
            and (load_acquire(&slot_header(&ring.rx, ring.rx_next).tp_status) & TP_STATUS_USER) != 0)


cdef bint read_slot(link_t *link, tpacket2_hdr *header, uint32_t status, uint32_t slot_bytes,
                    frame_t *frame) noexcept nogil:
    """False: nothing in it is for us. Every number in the slot is checked against the slot."""
    cdef uint32_t mac = header.tp_mac
    cdef uint32_t length = header.tp_snaplen
    cdef virtio_net_hdr vnet
    if (mac < sizeof(tpacket2_hdr) + sizeof(virtio_net_hdr) or mac > slot_bytes or length > slot_bytes - mac
            or length > header.tp_len):
        return False
    frame.data = <uint8_t *>header + mac
    frame.length = length
    frame.wire_length = header.tp_len
    # The kernel has taken the tag out of the frame: without this, another network's frames would look like ours.
    frame.vlan_id = header.tp_vlan_tci & VLAN_ID_MASK if status & TP_STATUS_VLAN_VALID else 0
    memcpy(&vnet, frame.data - sizeof(virtio_net_hdr), sizeof(virtio_net_hdr))
    frame.gso_size = vnet.gso_size if vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE else 0
    if vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or status & TP_STATUS_CSUMNOTREADY:
        frame.checksum = CHECKSUM_PARTIAL
    elif vnet.flags & VIRTIO_NET_HDR_F_DATA_VALID or status & TP_STATUS_CSUM_VALID:
        frame.checksum = CHECKSUM_VERIFIED
    else:
        frame.checksum = CHECKSUM_UNKNOWN
    link.counters.rx_frames += 1
    link.counters.rx_bytes += length
    if length < header.tp_len:
        link.counters.rx_truncated += 1
    return True


cdef uint32_t mmap_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket2_hdr *header
    cdef uint32_t n = 0
    cdef uint32_t status
    while n < max_frames and ring.rx_held < ring.rx.count:
        header = slot_header(&ring.rx, ring.rx_next)
        status = load_acquire(&header.tp_status)
        if not status & TP_STATUS_USER:
            break
        if read_slot(link, header, status, ring.rx.slot_bytes, &frames[n]):
            n += 1
            ring.rx_lent += 1
            ring.rx_held += 1
        else:
            link.counters.rx_dropped += 1
            store_release(&header.tp_status, TP_STATUS_KERNEL)
            if ring.rx_held == 0:
                ring.rx_oldest = after(&ring.rx, ring.rx_oldest)
            else:
                ring.rx_skipped[ring.rx_next] = 1
                ring.rx_held += 1
        ring.rx_next = after(&ring.rx, ring.rx_next)
    return n


cdef void mmap_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef uint32_t oldest
    ensure(n <= ring.rx_lent)
    if n > ring.rx_lent:
        n = ring.rx_lent
    ring.rx_lent -= n
    # Skipped slots went back when they were read; they are passed over with the frame before them.
    while ring.rx_held > 0:
        oldest = ring.rx_oldest
        if ring.rx_skipped[oldest]:
            ring.rx_skipped[oldest] = 0
        elif n > 0:
            n -= 1
            store_release(&slot_header(&ring.rx, oldest).tp_status, TP_STATUS_KERNEL)
        else:
            break
        ring.rx_oldest = after(&ring.rx, oldest)
        ring.rx_held -= 1


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


cdef void ask_for_less(packet_ring_t *ring) noexcept nogil:
    """The kernel may have no piece of memory as large as a super-frame: let it attach the slot's pages instead."""
    cdef uint8_t *data = ring.tx.slots[oldest_unsent(ring)] + tx_data_offset()
    cdef virtio_net_hdr vnet
    memcpy(&vnet, data, sizeof(virtio_net_hdr))
    if vnet.csum_start != 0 and vnet.hdr_len > TX_PIECE_BYTES:
        vnet.hdr_len = vnet.csum_start + TCP_HEADER_MAX
        memcpy(data, &vnet, sizeof(virtio_net_hdr))


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
    for _attempt in range(2):
        link.counters.tx_submits += 1
        error = 0
        if send(ring.fd, NULL, 0, MSG_DONTWAIT) < 0:
            error = errno
        note_sent(ring)
        # A socket reports that its interface went down once more after it has come up again: ask twice.
        if error != ENETDOWN:
            break
    if ring.tx_unsent == 0:
        ring.tx_stuck_since_ns = 0
        return 0
    if error == 0 or error == EAGAIN or error == ENOBUFS or error == ENOMEM or error == EINTR:
        # Congestion, or no carrier: the kernel keeps its place in the ring. What waits for too long is better lost,
        # as on any device: TCP sends again.
        now_ns = clock_monotonic_ns()
        ask_for_less(ring)
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
    error = sleep_on(ring.fd, events, deadline_ns, &revents)
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
    cdef int error = 0
    cdef unsigned int length = sizeof(int)
    if getsockopt(ring.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
        error = errno
    return note_error(ring, error) if error != 0 else 0


cdef void mmap_refresh_counters(link_t *link) noexcept nogil:
    cdef packet_ring_t *ring = ring_of(link)
    cdef tpacket_stats stats
    cdef unsigned int length = sizeof(tpacket_stats)
    if getsockopt(ring.fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0:    # reading resets them
        link.counters.rx_dropped += stats.tp_drops


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
    """An Ethernet interface of the calling thread's network namespace, through AF_PACKET rings.

    rx_slots, tx_slots: at least so many frames in the rings (memory: slots times slot_bytes, locked). slot_bytes:
    a multiple of 16; what does not fit is truncated. busy_poll: "auto" spins for a while before it sleeps when
    frames come quickly, "always" never sleeps, "never" never spins. mac: our station address, the interface's own by
    default (another one needs the interface to be promiscuous).

    Raises ValueError for a bad argument, PermissionError without CAP_NET_RAW, OSError when the interface does not
    exist, is not Ethernet, or the kernel lacks PACKET_VNET_HDR (Linux before 4.8 lacks it for rings).
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.c.ops = closed_link_ops()

    def __init__(self, ifname: str, *, rx_slots: int = 504, tx_slots: int = 126, slot_bytes: int = SLOT_BYTES,
                 busy_poll: str = "auto", mac: str | None = None) -> None:
        cdef interface_t interface
        name = interface_name(ifname)
        for what, slots in (("rx_slots", rx_slots), ("tx_slots", tx_slots)):
            if not 1 <= slots <= SLOTS_MAX:
                raise ValueError(f"{what} {slots}: must be 1 to {SLOTS_MAX}")
        if not SLOT_BYTES_MIN <= slot_bytes <= SLOT_BYTES_MAX or slot_bytes % TPACKET_ALIGNMENT:
            raise ValueError(f"slot_bytes {slot_bytes}: must be a multiple of {TPACKET_ALIGNMENT}, "
                             f"{SLOT_BYTES_MIN} to {SLOT_BYTES_MAX}")
        if (rx_slots + tx_slots) * slot_bytes > RING_BYTES_MAX:
            raise ValueError(f"rx_slots {rx_slots} and tx_slots {tx_slots} of {slot_bytes} octets: "
                             f"must be {RING_BYTES_MAX} octets at most together")
        if self.ring != NULL:
            raise ValueError("this link is open")
        self.c.spin_ns = parse_busy_poll(busy_poll)
        if mac is not None:
            parse_mac(mac, self.c.mac)
        self.ring = packet_ring_open(ifname, name, rx_slots, tx_slots, slot_bytes, &interface)
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
        """Unmap the rings and close the socket. Frames still lent are gone."""
        if not self.closed:
            self.gate.check("close()")
            if self.ring != NULL:
                mmap_refresh_counters(&self.c)
            self.closed = True
            self.c.ops = closed_link_ops()
            self.c.impl = NULL
            if self.ring != NULL:
                packet_ring_close(self.ring)
                self.ring = NULL

    def __dealloc__(self) -> None:
        if self.ring != NULL:
            packet_ring_close(self.ring)

    def fileno(self) -> int:
        """The packet socket: readable while a received frame waits in the ring."""
        if self.ring == NULL:
            raise OSError(EBADF, "the link is closed")
        return self.ring.fd

    @property
    def ring_slots(self) -> tuple[int, int]:
        """Slots of the receive and of the transmit ring; (0, 0) when closed."""
        if self.ring == NULL:
            return 0, 0
        return self.ring.rx.count, self.ring.tx.count

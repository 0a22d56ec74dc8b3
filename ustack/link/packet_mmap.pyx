# SPDX-License-Identifier: MIT
"""The AF_PACKET link: frames in and out through rings that are shared with the kernel.

Receive and transmit are both TPACKET_V2 (V3 hands over whole blocks: a lone frame waits for a timer), with a virtio_net
header in front of each frame: checksums and segmentation are left to the kernel in both directions.

Here: waiting, counters and the Python face. Must not run any Python on the data path. One thread.

Read first: Documentation/networking/packet_mmap.rst of Linux. Below: packet_receive, packet_transmit, packet_ring
(opening, layout), interface_link. Above: ip.
"""

import select

from libc.errno cimport EBADF, ENXIO, errno
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport POLLERR, POLLIN, POLLOUT, SO_ERROR, SOL_PACKET, SOL_SOCKET, getsockopt
from ustack.link.device cimport link_ops_t, link_t
from ustack.link.interface cimport interface_t, sleep_on_all, spin_adapt, spin_for
from ustack.link.interface_link cimport InterfaceLink
from ustack.link.packet_abi cimport PACKET_STATISTICS, TPACKET_ALIGNMENT, relax, tpacket_stats, virtio_net_hdr
from ustack.link.packet_receive cimport packet_rx_behind, packet_rx_burst, packet_rx_release
from ustack.link.packet_ring cimport (
    LARGE_FRAMES, RX_HEAD_BYTES, RX_RINGS_MAX, SLOTS_AUTO, SMALL_FRAMES, follow_segmentation, packet_ring_close,
    packet_ring_open, packet_ring_t, ring_of, ring_plan_t, ring_ready, tx_data_offset)
from ustack.link.packet_transmit cimport (
    TX_RETRY_NS, note_error, packet_tx_commit, packet_tx_gather, packet_tx_reserve, packet_tx_submit)

cdef enum:
    SLOT_BYTES = 66576                  # 64 KB and headers; an odd multiple of 16: neighbours do not share cache sets
    SLOT_BYTES_MIN = 256
    SLOT_BYTES_MAX = 262144
    SLOTS_MAX = 65536
    RING_BYTES_MAX = 1073741824         # the kernel would rather kill processes than refuse
    # The kernel attaches a super-frame's pages or copies them; it refuses super-frames of 64 KiB and more, the Ethernet
    # header counted (GSO_LEGACY_MAX_SIZE).
    SUPER_FRAME_MAX = 65535
    SUPER_FRAME_BYTES = 65549           # the longest that a peer sends by default: 65,535 and the Ethernet header
    SPIN_CHECKS = 32                    # looks at the ring between two looks at the clock


# ---------------------------------------------------------------- waiting
cdef bint spin_on_ring(packet_ring_t *ring, uint64_t until_ns) noexcept nogil:
    """True as soon as a frame is there."""
    cdef int _check
    while True:
        for _check in range(SPIN_CHECKS):
            if ring_ready(ring):
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
    if ring_ready(ring):
        return 0
    if ring.gone:
        return -ENXIO
    now_ns = clock_monotonic_ns()
    if ring.tx_unsent > 0 and deadline_ns > now_ns + TX_RETRY_NS:
        deadline_ns = now_ns + TX_RETRY_NS      # no event tells that the device takes frames again
    spin_ns = spin_for(&ring.spin, link.spin_ns)
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
    error = sleep_on_all(ring.fd, events, ring.rx[SMALL_FRAMES].fd, link.wake_fd, deadline_ns, &revents)
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
PACKET_MMAP_OPS.rx_burst = packet_rx_burst
PACKET_MMAP_OPS.rx_release = packet_rx_release
PACKET_MMAP_OPS.rx_behind = packet_rx_behind
PACKET_MMAP_OPS.tx_reserve = packet_tx_reserve
PACKET_MMAP_OPS.tx_commit = packet_tx_commit
PACKET_MMAP_OPS.tx_gather = packet_tx_gather
PACKET_MMAP_OPS.tx_submit = packet_tx_submit
PACKET_MMAP_OPS.wait = mmap_wait
PACKET_MMAP_OPS.refresh_counters = mmap_refresh_counters


# ---------------------------------------------------------------- Python face
cdef class PacketMmapLink(InterfaceLink):
    """PacketMmapLink(ifname, *, rx_slots=504, rx_small_slots=None, tx_slots=126, slot_bytes=66576,
peer_frame_bytes=65549, busy_poll='auto', mac=None)
--

    An Ethernet interface of the calling thread's network namespace, through AF_PACKET rings.

    rx_small_slots: at least so many frames of one MTU at most wait in the receive ring for the stack's next turn; by
    default 4,096, or fewer of a large MTU (16 MB). rx_slots: so many longer ones, super-frames, do; with rx_small_slots
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

    def __init__(self, ifname: str, *, rx_slots: int = 504, rx_small_slots: int | None = None, tx_slots: int = 126,
                 slot_bytes: int = SLOT_BYTES, peer_frame_bytes: int = SUPER_FRAME_BYTES, busy_poll: str = "auto",
                 mac: str | None = None) -> None:
        cdef interface_t interface
        cdef ring_plan_t plan
        cdef uint32_t room
        name = self.accept(ifname, busy_poll, mac)
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
            raise ValueError(f"rx_slots {rx_slots} and tx_slots {tx_slots} of {slot_bytes} bytes: "
                             f"must be {RING_BYTES_MAX} bytes at most together")
        plan.rx_slots = rx_slots
        plan.rx_small_slots = SLOTS_AUTO if rx_small_slots is None else rx_small_slots
        plan.tx_slots = tx_slots
        plan.slot_bytes = slot_bytes
        self.ring = packet_ring_open(ifname, name, &plan, &interface)
        room = self.ring.tx.slot_bytes - tx_data_offset() - <uint32_t>sizeof(virtio_net_hdr)
        self.begin(&PACKET_MMAP_OPS, self.ring, ifname, &interface, min(room, <uint32_t>SUPER_FRAME_MAX))

    cdef int settle(self) except -1:
        if self.ring != NULL:
            self.last_drops = self.ring_drops
        if self.watch is not None:
            self.watch.close()          # which lets other threads run
        return 0

    cdef void close_device(self) noexcept:
        if self.ring != NULL:
            packet_ring_close(self.ring)
            self.ring = NULL

    def __dealloc__(self) -> None:
        if self.ring != NULL:
            packet_ring_close(self.ring)

    def fileno(self) -> int:
        """Readable while a received frame waits in a ring: the packet socket, or what watches both of them."""
        if self.ring == NULL:
            raise OSError(EBADF, "the link is closed")
        if self.ring.rx[SMALL_FRAMES].fd < 0:
            return self.ring.fd
        if self.watch is None:
            self.watch = select.epoll()
            self.watch.register(self.ring.fd, select.EPOLLIN)
            self.watch.register(self.ring.rx[SMALL_FRAMES].fd, select.EPOLLIN)
        return self.watch.fileno()

    @property
    def ring_slots(self) -> tuple[int, int]:
        """Slots of the receive ring for frames of any length and of the transmit ring; (0, 0) when closed."""
        if self.ring == NULL:
            return 0, 0
        return self.ring.rx[LARGE_FRAMES].ring.count, self.ring.tx.count

    @property
    def small_slots(self) -> int:
        """Slots of the receive ring for frames of one MTU at most; 0: there is none, or the link is closed."""
        return self.ring.rx[SMALL_FRAMES].ring.count if self.ring != NULL else 0

    @property
    def ring_drops(self) -> tuple[int, int]:
        """Frames that found the receive ring full: that for large frames (or for all), that for small ones."""
        if self.ring == NULL:
            return self.last_drops
        mmap_refresh_counters(&self.c)
        return self.ring.rx[LARGE_FRAMES].drops, self.ring.rx[SMALL_FRAMES].drops

    @property
    def device_segments(self) -> bool:
        """Whether the device takes super-frames now; while it does not, the kernel segments them in software."""
        return self.ring != NULL and bool(self.ring.bypasses_qdisc)

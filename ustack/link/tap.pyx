# SPDX-License-Identifier: MIT
"""The TAP link: the local kernel is the other end of the wire.

One read() and one write() a frame, each with a virtio_net header in front of it: checksums and segmentation are left to
the kernel in both directions. A frame is written when it is committed: the kernel takes it in at once, so there is one
transmit buffer, always warm in the cache, and submit has nothing left to do.

Batches by io_uring, IFF_NAPI and a bounded send buffer all cost more than one call a frame: measured, and left out.

Must not: trust what read() returns beyond the buffer; run any Python on the data path. One thread.

Read first: Documentation/networking/tuntap.rst of Linux. Below: interface_link, interface, vnet. Above: ip.
"""

from libc.errno cimport (
    EAGAIN, EBADF, EBADFD, EBUSY, EFAULT, EINTR, EINVAL, EIO, ENETDOWN, ENODEV, ENOENT, ENXIO, EPERM, errno)
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from ustack.base.bytestring cimport data_of
from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.debug cimport ensure
from ustack.base.posix cimport (
    AF_INET, O_CLOEXEC, O_NONBLOCK, O_RDWR, POLLERR, POLLIN, SOCK_CLOEXEC, SOCK_DGRAM, close_descriptor, ioctl,
    iovec, open_descriptor, read, socket, write, writev)
from ustack.buf.frame cimport frame_t
from ustack.link.device cimport GATHER_PIECES_MAX, link_ops_t, link_t, offload_t
from ustack.link.interface cimport (
    interface_bring_up, interface_read, interface_t, os_error, sleep_on, sleep_on_all, spin_adapt, spin_for)
from ustack.link.interface_link cimport InterfaceLink
from ustack.link.packet_abi cimport (
    ETH_HLEN, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUN_F_CSUM, TUN_F_TSO4,
    TUN_F_TSO6, ifreq, virtio_net_hdr)
from ustack.link.vnet cimport vnet_emit, vnet_parse

cdef enum:
    TAP_BUFFERS = 64                    # the engine's burst
    BUFFER_BYTES = 66576                # 64 KB and headers; an odd multiple of 16: neighbours do not share cache sets
    # The virtio_net header takes the 10 bytes before the frame; the IP header then lies at a multiple of 16.
    FRAME_OFFSET = 18
    VNET_OFFSET = 8
    IP_PACKET_MAX = 65535


cdef inline tap_t *tap_of(link_t *link) noexcept nogil:
    return <tap_t *>link.impl


cdef inline uint8_t *buffer_of(tap_t *tap, uint32_t index) noexcept nogil:
    return tap.buffers + <size_t>index * BUFFER_BYTES


# ---------------------------------------------------------------- receive
cdef void describe_frame(link_t *link, uint8_t *buffer, ssize_t taken, frame_t *frame) noexcept nogil:
    frame.data = buffer + FRAME_OFFSET
    frame.length = <uint32_t>(taken - <ssize_t>sizeof(virtio_net_hdr))
    # read() cuts a longer frame without a word: a full buffer is taken for a cut frame.
    frame.wire_length = frame.length + (1 if taken == BUFFER_BYTES - VNET_OFFSET else 0)
    frame.vlan_id = 0                   # a tag stays in the frame
    vnet_parse(buffer + VNET_OFFSET, frame)
    link.counters.rx_frames += 1
    link.counters.rx_bytes += frame.length
    if frame.wire_length > frame.length:
        link.counters.rx_truncated += 1


cdef uint32_t tap_rx_burst(link_t *link, frame_t *frames, uint32_t max_frames) noexcept nogil:
    cdef tap_t *tap = tap_of(link)
    cdef uint8_t *buffer
    cdef ssize_t taken
    cdef uint32_t n = 0
    while n < max_frames and tap.rx_lent < TAP_BUFFERS and not tap.gone:
        buffer = buffer_of(tap, tap.rx_next)
        taken = read(tap.fd, buffer + VNET_OFFSET, BUFFER_BYTES - VNET_OFFSET)
        if taken < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                tap.gone = errno == EBADFD
            break
        if taken < <ssize_t>sizeof(virtio_net_hdr):
            link.counters.rx_dropped += 1
            continue
        describe_frame(link, buffer, taken, &frames[n])
        tap.rx_next = (tap.rx_next + 1) % TAP_BUFFERS
        tap.rx_lent += 1
        n += 1
    return n


cdef void tap_rx_release(link_t *link, uint32_t n) noexcept nogil:
    cdef tap_t *tap = tap_of(link)
    ensure(n <= tap.rx_lent)
    tap.rx_lent -= n if n <= tap.rx_lent else tap.rx_lent


# ---------------------------------------------------------------- transmit
cdef uint8_t *tap_tx_reserve(link_t *link, uint32_t length) noexcept nogil:
    cdef tap_t *tap = tap_of(link)
    ensure(length <= link.caps.max_frame)
    if length > link.caps.max_frame:
        return NULL
    tap.tx_reserved = True
    return buffer_of(tap, TAP_BUFFERS) + FRAME_OFFSET


cdef inline void describe_sent(link_t *link, uint8_t *buffer, uint32_t length,
                               const offload_t *offload) noexcept nogil:
    vnet_emit(buffer + VNET_OFFSET, offload, offload.header_length if offload.gso_size != 0 else 0)
    link.counters.tx_frames += 1
    link.counters.tx_bytes += length
    link.counters.tx_submits += 1


cdef void tap_tx_commit(link_t *link, uint32_t length, const offload_t *offload) noexcept nogil:
    cdef tap_t *tap = tap_of(link)
    cdef uint8_t *buffer = buffer_of(tap, TAP_BUFFERS)
    ensure(tap.tx_reserved and length <= link.caps.max_frame)
    if not tap.tx_reserved or length > link.caps.max_frame:
        return
    tap.tx_reserved = False
    describe_sent(link, buffer, length, offload)
    if write(tap.fd, buffer + VNET_OFFSET, sizeof(virtio_net_hdr) + length) < 0:
        link.counters.tx_dropped += 1
        note_write_error(tap, errno)


cdef int tap_tx_gather(link_t *link, uint32_t length, uint32_t head_bytes, const offload_t *offload,
                       const iovec *pieces, uint32_t count) noexcept nogil:
    """Only memory that is gone is the caller's matter: any other error is about a frame that was taken and lost."""
    cdef tap_t *tap = tap_of(link)
    cdef uint8_t *buffer = buffer_of(tap, TAP_BUFFERS)
    cdef iovec vector[GATHER_PIECES_MAX + 1]
    ensure(tap.tx_reserved and length <= link.caps.max_frame and count <= GATHER_PIECES_MAX)
    if not tap.tx_reserved or length > link.caps.max_frame or count > GATHER_PIECES_MAX:
        return -EINVAL
    describe_sent(link, buffer, length, offload)
    vector[0].iov_base = buffer + VNET_OFFSET
    vector[0].iov_len = sizeof(virtio_net_hdr) + head_bytes
    memcpy(&vector[1], pieces, count * sizeof(iovec))
    if writev(tap.fd, vector, <int>count + 1) < 0:
        if errno == EFAULT:
            link.counters.tx_frames -= 1
            link.counters.tx_bytes -= length
            return -EFAULT
        link.counters.tx_dropped += 1
        note_write_error(tap, errno)
    tap.tx_reserved = False
    return 0


cdef void note_write_error(tap_t *tap, int error) noexcept nogil:
    """EIO: the interface is down. EBADFD: it is gone. Anything else is about this one frame, which is lost."""
    if error == EIO:
        tap.tx_error = ENETDOWN
    elif error == EBADFD:
        tap.gone = True
        tap.tx_error = ENXIO


cdef int tap_tx_submit(link_t *link) noexcept nogil:
    cdef tap_t *tap = tap_of(link)
    cdef int error = tap.tx_error
    tap.tx_error = 0
    return -error


# ---------------------------------------------------------------- waiting
cdef int tap_wait(link_t *link, uint64_t deadline_ns) noexcept nogil:
    """Nothing in user memory says that a frame is there: spinning means asking the kernel without sleeping."""
    cdef tap_t *tap = tap_of(link)
    cdef bint always = link.spin_ns == UINT64_MAX
    cdef uint64_t now_ns, spin_ns, until_ns
    cdef short revents = 0
    cdef int error
    if tap.gone:
        return -ENXIO
    now_ns = clock_monotonic_ns()
    spin_ns = spin_for(&tap.spin, link.spin_ns)
    if spin_ns > 0 and deadline_ns > now_ns:
        until_ns = now_ns + spin_ns if deadline_ns - now_ns > spin_ns else deadline_ns
        while now_ns < until_ns and revents == 0:
            error = sleep_on(tap.fd, POLLIN, 0, &revents)
            if error < 0:
                return error
            now_ns = clock_monotonic_ns()
    if revents == 0 and not always and deadline_ns > now_ns:
        link.counters.waits += 1
        error = sleep_on_all(tap.fd, POLLIN, -1, link.wake_fd, deadline_ns, &revents)
        if error < 0:
            return error
        spin_adapt(&tap.spin, link.spin_ns, clock_monotonic_ns() - now_ns, (revents & POLLIN) != 0)
    if revents & POLLERR:
        tap.gone = True
        return -ENXIO
    return 0


cdef void tap_refresh_counters(link_t *link) noexcept nogil:
    return


cdef link_ops_t TAP_OPS
TAP_OPS.rx_burst = tap_rx_burst
TAP_OPS.rx_release = tap_rx_release
TAP_OPS.tx_reserve = tap_tx_reserve
TAP_OPS.tx_commit = tap_tx_commit
TAP_OPS.tx_gather = tap_tx_gather
TAP_OPS.tx_submit = tap_tx_submit
TAP_OPS.wait = tap_wait
TAP_OPS.refresh_counters = tap_refresh_counters


# ---------------------------------------------------------------- opening
cdef int ask_for_device(int fd, str ifname, bytes name) except -1:
    cdef ifreq request
    cdef int header_bytes = sizeof(virtio_net_hdr)
    memset(&request, 0, sizeof(ifreq))
    memcpy(request.ifr_name, data_of(name), len(name))
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    if ioctl(fd, TUNSETIFF, &request) < 0:
        if errno == EPERM:
            raise PermissionError(EPERM, f"TAP device {ifname} needs CAP_NET_ADMIN")
        if errno == EBUSY:
            raise OSError(EBUSY, f"TAP device {ifname} is in use")
        if errno == EINVAL:
            raise OSError(EINVAL, f"interface {ifname} is not a TAP device with one queue")
        raise os_error(errno, f"TAP device {ifname}")
    if ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0:
        raise os_error(errno, "TUNSETVNETHDRSZ")
    if ioctl(fd, TUNSETOFFLOAD, <unsigned long>(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) < 0:
        raise os_error(errno, "TUNSETOFFLOAD")
    return 0


cdef int open_tap(tap_t *tap, str ifname, bytes name, bint create, bint up, interface_t *interface) except -1:
    """Fill in *tap and *interface. What was opened before an error is in *tap for tap_free."""
    cdef int asker = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    cdef int error
    if asker < 0:
        raise os_error(errno, "socket")
    try:
        error = interface_read(asker, name, interface)
        if error < 0 and (error != -ENODEV or not create):
            raise OSError(-error, f"no interface {ifname} in this network namespace")
        tap.fd = open_descriptor(b"/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        if tap.fd < 0:
            if errno == ENOENT or errno == ENODEV:
                raise OSError(errno, "this kernel has no /dev/net/tun")
            raise os_error(errno, "/dev/net/tun")
        ask_for_device(tap.fd, ifname, name)
        error = interface_bring_up(asker, name) if up else 0
        if error == 0:
            error = interface_read(asker, name, interface)
        if error < 0:
            raise os_error(-error, f"interface {ifname}")
    finally:
        close_descriptor(asker)
    tap.buffers = <uint8_t *>malloc(<size_t>(TAP_BUFFERS + 1) * BUFFER_BYTES)
    if tap.buffers == NULL:
        raise MemoryError
    return 0


cdef void tap_free(tap_t *tap) noexcept:
    if tap.fd >= 0:
        close_descriptor(tap.fd)
    free(tap.buffers)
    free(tap)


cdef class TapLink(InterfaceLink):
    """TapLink(ifname, *, create=True, up=True, busy_poll='auto', mac=None)
--

    A TAP device of the calling thread's network namespace; the kernel's side of it is the other end.

    create: make the device when it does not exist (it then goes away with the link). up: set it up, as root may. mac:
    our station address; by default one that follows from the kernel's side's own and differs from it. busy_poll: "auto"
    spins for a while before it sleeps when frames come quickly, "always" never sleeps, "never" never spins.

    Raises ValueError for a bad argument, PermissionError without CAP_NET_ADMIN, OSError when the device does not exist,
    is in use or is something else.
    """

    def __init__(self, ifname: str, *, create: bool = True, up: bool = True, busy_poll: str = "auto",
                 mac: str | None = None) -> None:
        cdef interface_t interface
        name = self.accept(ifname, busy_poll, mac)
        self.tap = <tap_t *>calloc(1, sizeof(tap_t))
        if self.tap == NULL:
            raise MemoryError
        self.tap.fd = -1
        try:
            open_tap(self.tap, ifname, name, create, up, &interface)
        except BaseException:
            tap_free(self.tap)
            self.tap = NULL
            raise
        if self.own_mac:
            # Locally administered, unicast, and never the kernel's side's own.
            interface.mac[0] = (interface.mac[0] | 0x02) & 0xFE
            interface.mac[5] ^= 0x01
        self.begin(&TAP_OPS, self.tap, ifname, &interface, ETH_HLEN + IP_PACKET_MAX)

    cdef void close_device(self) noexcept:
        if self.tap != NULL:
            tap_free(self.tap)
            self.tap = NULL

    def __dealloc__(self) -> None:
        if self.tap != NULL:
            tap_free(self.tap)

    def fileno(self) -> int:
        """The device's descriptor: readable while a frame waits."""
        if self.tap == NULL:
            raise OSError(EBADF, "the link is closed")
        return self.tap.fd

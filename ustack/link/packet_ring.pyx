# SPDX-License-Identifier: MIT
"""Opening and closing the sockets and the rings of an AF_PACKET link. Not on the data path.

Read first: Documentation/networking/packet_mmap.rst of Linux. Below: interface, packet_abi. Above: packet_mmap.
"""

from libc.errno cimport ENODEV, ENOPROTOOPT, EPERM, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.base.posix cimport (
    AF_PACKET, MAP_FAILED, MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE, SOCK_CLOEXEC, SOCK_RAW, SOL_PACKET,
    SOL_SOCKET, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_SNDBUF, SO_SNDBUFFORCE, _SC_NPROCESSORS_CONF, _SC_PAGESIZE, bind,
    close_descriptor, getsockopt, htons, mmap, munmap, setsockopt, sockaddr, socket, sysconf)
from ustack.link.interface cimport interface_read, interface_segments, interface_t, netlink_open, os_error
from ustack.link.packet_abi cimport (
    ARPHRD_ETHER, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_LEN, BPF_RET, BPF_W, ETH_HLEN, ETH_P_ALL, PACKET_FANOUT,
    PACKET_FANOUT_CBPF, PACKET_FANOUT_DATA, PACKET_FANOUT_FLAG_UNIQUEID, PACKET_IGNORE_OUTGOING, PACKET_LOSS,
    PACKET_QDISC_BYPASS, PACKET_RX_RING, PACKET_TX_RING, PACKET_VERSION, PACKET_VNET_HDR, TPACKET_ALIGNMENT, TPACKET_V2,
    sock_filter, sock_fprog, sockaddr_ll, tpacket_req)

cdef enum:
    BLOCK_BYTES = 4194304               # the largest that the kernel can usually get in one piece
    SNDBUF_MAX = 0x7FFFFFFF
    STORES_MAX = 16                     # no interface has so many processors store frames at once
    SNAP_ALL = 0x7FFFFFFF
    SMALL_SLOTS = 4096                  # twice what 1,000 clients can have under way; more are cold in the caches
    SMALL_RING_BYTES = 16777216         # with jumbo frames, fewer
    SMALL_RING_BYTES_MAX = 268435456    # the kernel would rather kill processes than refuse
    ORDINARY_MTU = 1500
    JUMBO_MTU_MAX = 9216                # an interface with more is virtual: most frames are short all the same
    VLAN_TAG_BYTES = 4
    FANOUT_IGNORE_OUTGOING = 0x4000     # PACKET_FANOUT_FLAG_IGNORE_OUTGOING, which older headers lack


cdef int set_option(int fd, int name, int value, str what) except -1:
    if setsockopt(fd, SOL_PACKET, name, &value, sizeof(int)) < 0:
        if errno == ENOPROTOOPT:
            raise OSError(ENOPROTOOPT, f"this kernel has no {what}")
        raise os_error(errno, what)
    return 0


cdef void plan_ring(uint32_t slots, uint32_t slot_bytes, tpacket_req *request) noexcept:
    """Whole blocks of slots, at least `slots` of them; a small ring is one small block."""
    cdef uint32_t page = <uint32_t>sysconf(_SC_PAGESIZE)
    cdef uint32_t per_block
    if slots < BLOCK_BYTES // slot_bytes:
        request.tp_block_size = (slots * slot_bytes + page - 1) // page * page
    else:
        request.tp_block_size = BLOCK_BYTES
    # The kernel insists on tp_frame_nr being what fits into the blocks.
    per_block = request.tp_block_size // slot_bytes
    request.tp_block_nr = (slots + per_block - 1) // per_block
    request.tp_frame_size = slot_bytes
    request.tp_frame_nr = request.tp_block_nr * per_block


cdef int open_ring(int fd, int option, const tpacket_req *request, str what) except -1:
    if setsockopt(fd, SOL_PACKET, option, request, sizeof(tpacket_req)) < 0:
        raise os_error(errno, f"{what} of {request.tp_block_nr * (request.tp_block_size >> 10)} KiB")
    return 0


cdef int place_slots(ring_t *ring, const tpacket_req *request, uint8_t *map) except -1:
    """No slot crosses a block, so what is left of a block is skipped."""
    cdef uint32_t per_block = request.tp_block_size // request.tp_frame_size
    cdef uint32_t i
    ring.slots = <uint8_t **>calloc(request.tp_frame_nr, sizeof(uint8_t *))
    if ring.slots == NULL:
        raise MemoryError
    for i in range(request.tp_frame_nr):
        ring.slots[i] = (map + <size_t>(i // per_block) * request.tp_block_size
                         + <size_t>(i % per_block) * request.tp_frame_size)
    ring.count = request.tp_frame_nr
    ring.slot_bytes = request.tp_frame_size
    return 0


cdef int map_rings(rx_ring_t *rx, const tpacket_req *receive, ring_t *tx, const tpacket_req *transmit) except -1:
    """transmit NULL: the socket has a receive ring only."""
    cdef size_t rx_bytes = <size_t>receive.tp_block_size * receive.tp_block_nr
    cdef size_t tx_bytes = <size_t>transmit.tp_block_size * transmit.tp_block_nr if transmit != NULL else 0
    cdef void *map = mmap(NULL, rx_bytes + tx_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, rx.fd, 0)
    if map == MAP_FAILED:
        raise os_error(errno, "mapping the rings")
    rx.map = <uint8_t *>map
    rx.map_bytes = rx_bytes + tx_bytes
    place_slots(&rx.ring, receive, rx.map)
    if transmit != NULL:
        place_slots(tx, transmit, rx.map + rx_bytes)
    return 0


cdef void set_send_buffer(int fd, int limit) noexcept:
    if setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &limit, sizeof(int)) < 0:
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &limit, sizeof(int))


cdef int set_options(int fd) except -1:
    # These are refused once there is a ring.
    set_option(fd, PACKET_VERSION, TPACKET_V2, "TPACKET_V2")
    set_option(fd, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR")
    set_option(fd, PACKET_LOSS, 1, "PACKET_LOSS")
    set_option(fd, PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING")
    # The ring bounds what is on its way; the socket's own limit would stop a batch of super-frames halfway.
    set_send_buffer(fd, SNDBUF_MAX)
    return 0


cdef bint follow_segmentation(packet_ring_t *ring, uint64_t now_ns) noexcept nogil:
    # Past the queueing discipline, a super-frame that the device cannot segment is dropped; through it, the kernel
    # segments such frames in software, and fills in checksums.
    cdef bint segments = interface_segments(ring.fd, ring.netlink_fd, ring.ifindex)
    cdef int value = segments
    ring.segments_asked_ns = now_ns
    if (segments == ring.bypasses_qdisc
            or setsockopt(ring.fd, SOL_PACKET, PACKET_QDISC_BYPASS, &value, sizeof(int)) < 0
            or setsockopt(ring.gather_fd, SOL_PACKET, PACKET_QDISC_BYPASS, &value, sizeof(int)) < 0):
        return False
    ring.bypasses_qdisc = segments
    return True


cdef int set_by_length(int fd, int level, int option, uint32_t length_max, uint32_t up_to_it,
                       uint32_t longer) noexcept:
    """Give a socket a program that returns one of two numbers, by a frame's length. What setsockopt returns."""
    cdef sock_filter program[4]
    cdef sock_fprog attached
    memset(program, 0, sizeof(program))
    program[0].code = <uint16_t>(BPF_LD | BPF_W | BPF_LEN)
    program[1].code = <uint16_t>(BPF_JMP | BPF_JGT | BPF_K)
    program[1].k = length_max
    program[1].jt = 1                           # longer: the last line
    program[2].code = <uint16_t>(BPF_RET | BPF_K)
    program[2].k = up_to_it
    program[3].code = <uint16_t>(BPF_RET | BPF_K)
    program[3].k = longer
    attached.len = 4
    attached.filter = program
    return setsockopt(fd, level, option, &attached, sizeof(sock_fprog))


cdef int divide_by_length(int small_fd, int large_fd, uint32_t length_max) except -1:
    """Have each socket store its part of the frames only."""
    if (set_by_length(small_fd, SOL_SOCKET, SO_ATTACH_FILTER, length_max, SNAP_ALL, 0) < 0
            or set_by_length(large_fd, SOL_SOCKET, SO_ATTACH_FILTER, length_max, 0, SNAP_ALL) < 0):
        raise os_error(errno, "dividing frames by length")
    return 0


cdef void join_group(int small_fd, int large_fd, uint32_t length_max) noexcept:
    """Have the kernel look at each frame once for both sockets: as a fanout group they have one hook and one program,
    which chooses the member; their filters are then not needed any more.

    A kernel that refuses any of it (FANOUT_IGNORE_OUTGOING is newer than the rest) goes on with what it has agreed to:
    after every step each frame goes to the same socket as before. The members keep their numbers when the interface
    goes down and comes back, since the kernel goes through its sockets in the order in which they were made.
    """
    cdef int kind = (PACKET_FANOUT_CBPF | FANOUT_IGNORE_OUTGOING) << 16
    cdef int group = kind | PACKET_FANOUT_FLAG_UNIQUEID << 16
    cdef int nothing = 0
    cdef unsigned int length = sizeof(int)
    if setsockopt(large_fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(int)) < 0:            # member 0
        return
    # The program sees a frame without its Ethernet header.
    if (set_by_length(large_fd, SOL_PACKET, PACKET_FANOUT_DATA, length_max - ETH_HLEN, 1, 0) < 0
            or getsockopt(large_fd, SOL_PACKET, PACKET_FANOUT, &group, &length) < 0):
        return
    group = kind | (group & 0xFFFF)
    if setsockopt(small_fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(int)) < 0:            # member 1
        return
    setsockopt(small_fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(int))
    setsockopt(large_fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(int))


cdef int bind_to(int fd, const interface_t *interface, str ifname, uint16_t protocol) except -1:
    """protocol: what to receive; 0: nothing."""
    cdef sockaddr_ll address
    memset(&address, 0, sizeof(sockaddr_ll))
    address.sll_family = AF_PACKET
    address.sll_protocol = htons(protocol)
    address.sll_ifindex = interface.index
    if bind(fd, <const sockaddr *>&address, sizeof(sockaddr_ll)) < 0:
        raise os_error(errno, f"binding to {ifname}")
    return 0


cdef int open_socket() except -1:
    # Protocol 0: nothing is received before bind(), when the rings are ready.
    cdef int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)
    if fd < 0:
        if errno == EPERM:
            raise PermissionError(EPERM, "a packet socket needs CAP_NET_RAW")
        raise os_error(errno, "packet socket")
    return fd


cdef int read_interface(packet_ring_t *ring, str ifname, bytes name, interface_t *interface) except -1:
    cdef int error = interface_read(ring.fd, name, interface)
    if error == -ENODEV:
        raise OSError(ENODEV, f"no interface {ifname} in this network namespace")
    if error < 0:
        raise os_error(-error, f"interface {ifname}")
    if interface.hardware != ARPHRD_ETHER:
        raise OSError(ENODEV, f"interface {ifname} is not Ethernet")
    ring.ifindex = interface.index
    ring.netlink_fd = netlink_open()
    if ring.netlink_fd < 0:
        raise os_error(-ring.netlink_fd, "netlink socket")
    return 0


cdef uint32_t small_frame_bytes(uint32_t mtu) noexcept:
    """The longest frame for the second ring: what the MTU allows, with a tag inside that no device takes out."""
    return (mtu if mtu <= JUMBO_MTU_MAX else ORDINARY_MTU) + ETH_HLEN + 2 * VLAN_TAG_BYTES


cdef int open_small(packet_ring_t *ring, const ring_plan_t *plan, uint32_t frame_bytes) except -1:
    """The second receive ring, on a socket of its own; both sockets get a filter that divides the frames."""
    cdef rx_ring_t *small = &ring.rx[SMALL_FRAMES]
    cdef tpacket_req receive
    cdef uint32_t slot_bytes = (frame_bytes + RX_HEAD_BYTES + TPACKET_ALIGNMENT - 1) // TPACKET_ALIGNMENT
    cdef uint32_t slots = plan.rx_small_slots
    slot_bytes = (slot_bytes | 1) * TPACKET_ALIGNMENT   # an odd multiple: neighbours do not share cache sets
    if slots == SLOTS_AUTO:
        slots = min(<uint32_t>SMALL_SLOTS, <uint32_t>(SMALL_RING_BYTES // slot_bytes))
    if <uint64_t>slots * slot_bytes > SMALL_RING_BYTES_MAX:
        raise ValueError(f"rx_small_slots {slots} of {slot_bytes} bytes: must be {SMALL_RING_BYTES_MAX} bytes at most")
    small.fd = open_socket()
    plan_ring(slots, slot_bytes, &receive)
    set_options(small.fd)
    open_ring(small.fd, PACKET_RX_RING, &receive, "receive ring for small frames")
    map_rings(small, &receive, NULL, NULL)
    divide_by_length(small.fd, ring.fd, frame_bytes)
    return 0


cdef int open_gather(packet_ring_t *ring, const interface_t *interface, str ifname, size_t limit) except -1:
    """The socket for frames from several places. As much as the ring holds may be on its way from there, too."""
    ring.gather_fd = open_socket()
    set_option(ring.gather_fd, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR")
    set_send_buffer(ring.gather_fd, <int>min(limit, <size_t>SNDBUF_MAX))
    bind_to(ring.gather_fd, interface, ifname, 0)
    return 0


cdef int open_all(packet_ring_t *ring, str ifname, bytes name, const ring_plan_t *plan,
                  interface_t *interface) except -1:
    cdef rx_ring_t *large = &ring.rx[LARGE_FRAMES]
    cdef rx_ring_t *small = &ring.rx[SMALL_FRAMES]
    cdef tpacket_req receive, transmit
    cdef long processors = sysconf(_SC_NPROCESSORS_CONF)
    ring.stores_max = <uint32_t>min(max(processors, 1), STORES_MAX)
    ring.fd = large.fd = open_socket()
    read_interface(ring, ifname, name, interface)
    plan_ring(plan.rx_slots, plan.slot_bytes, &receive)
    plan_ring(plan.tx_slots, plan.slot_bytes, &transmit)
    set_options(ring.fd)
    open_ring(ring.fd, PACKET_RX_RING, &receive, "receive ring")
    open_ring(ring.fd, PACKET_TX_RING, &transmit, "transmit ring")
    map_rings(large, &receive, &ring.tx, &transmit)
    if plan.rx_small_slots:
        open_small(ring, plan, small_frame_bytes(interface.mtu))
    ring.lent_room = large.ring.count + small.ring.count
    ring.lent_from = <uint8_t *>calloc(ring.lent_room, 1)
    if ring.lent_from == NULL:
        raise MemoryError
    open_gather(ring, interface, ifname, <size_t>transmit.tp_block_size * transmit.tp_block_nr)
    follow_segmentation(ring, 0)
    bind_to(large.fd, interface, ifname, ETH_P_ALL)     # ETH_P_IP is starved by an ingress drop
    if small.fd >= 0:
        bind_to(small.fd, interface, ifname, ETH_P_ALL)
        join_group(small.fd, large.fd, small_frame_bytes(interface.mtu))
    return 0


cdef packet_ring_t *packet_ring_open(str ifname, bytes name, const ring_plan_t *plan,
                                     interface_t *interface) except NULL:
    cdef packet_ring_t *ring = <packet_ring_t *>calloc(1, sizeof(packet_ring_t))
    cdef int which
    if ring == NULL:
        raise MemoryError
    ring.fd = ring.gather_fd = ring.netlink_fd = -1
    for which in range(RX_RINGS_MAX):
        ring.rx[which].fd = -1
    try:
        open_all(ring, ifname, name, plan, interface)
    except BaseException:
        packet_ring_close(ring)
        raise
    return ring


cdef void packet_ring_close(packet_ring_t *ring) noexcept:
    cdef int which
    for which in range(RX_RINGS_MAX):
        if ring.rx[which].map != NULL:
            munmap(ring.rx[which].map, ring.rx[which].map_bytes)
        if ring.rx[which].fd >= 0:
            close_descriptor(ring.rx[which].fd)
        free(ring.rx[which].ring.slots)
    if ring.gather_fd >= 0:
        close_descriptor(ring.gather_fd)
    if ring.netlink_fd >= 0:
        close_descriptor(ring.netlink_fd)
    free(ring.tx.slots)
    free(ring.lent_from)
    free(ring)

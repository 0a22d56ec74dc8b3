# SPDX-License-Identifier: MIT
"""Frames of a host made of a packet socket: segments built quickly, many sent at once, nothing heard but its own.

The fast half of `attacks`, whose sender shares a core with the client that is measured beside it: what it costs, the
client loses. Read first: packet(7), socket(7) (SO_ATTACH_FILTER). Above: attacks. Below: wire, base/posix.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, ENETDOWN, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from ustack.base.posix cimport (
    MSG_DONTWAIT, SOL_SOCKET, SO_ATTACH_FILTER, iovec, mmsghdr, recv, sendmmsg, setsockopt)
from ustack.ip.records cimport IP_PROTO_TCP
from ustack.link.packet_abi cimport (
    BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog)
from ustack.wire.checksum cimport checksum_emit, checksum_partial
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit
from ustack.wire.ipv4 cimport IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, ipv4_emit, ipv4_parse, ipv4_pseudo_sum, ipv4_t
from ustack.wire.octets cimport read_u16
from ustack.wire.tcp cimport (
    HAS_MSS, HAS_SACK_PERMITTED, HAS_WSCALE, SYN, TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES, header_t, segment_emit,
    segment_parse, segment_t)

import socket

cdef enum:
    BATCH = 128
    FRAME_MAX = 65536 + 14            # a super-frame of the other end
    OPTION_BYTES_MAX = 12
    PAYLOAD_MAX = 1460
    TTL = 64


cdef class SegmentMaker:
    """Segments from one IPv4 host to a port of another, as whole frames.

    source_mac, target_mac: 6 bytes. source, target: addresses as text. A SYN offers mss, SACK and a window scale of 7.
    """

    cdef uint8_t source_mac[6]
    cdef uint8_t target_mac[6]
    cdef ipv4_t ip
    cdef uint16_t port
    cdef uint16_t mss

    def __cinit__(self, source_mac: bytes, target_mac: bytes, source: str, target: str, port: int, mss: int):
        if len(source_mac) != 6 or len(target_mac) != 6:
            raise ValueError("a MAC address has 6 bytes")
        if not 0 < port < 65536:
            raise ValueError("port: 1 to 65535")
        memcpy(self.source_mac, <const uint8_t *>source_mac, 6)
        memcpy(self.target_mac, <const uint8_t *>target_mac, 6)
        memset(&self.ip, 0, sizeof(ipv4_t))
        self.ip.ttl = TTL
        self.ip.protocol = IP_PROTO_TCP
        self.ip.fragment = IPV4_DONT_FRAGMENT
        self.ip.src_be = address_be(source)
        self.ip.dst_be = address_be(target)
        self.port = port
        self.mss = mss

    def frame(self, sport: int, seq: int, ack: int, flags: int, window: int, payload: bytes = b"") -> bytes:
        """One segment. seq, ack: modulo 2^32. flags: as in the header. Raises ValueError if the payload is too long."""
        cdef header_t header
        cdef uint32_t header_bytes, length
        cdef uint32_t payload_bytes = <uint32_t>PyBytes_GET_SIZE(payload)
        cdef uint8_t *out
        cdef uint8_t *tcp
        if PyBytes_GET_SIZE(payload) > PAYLOAD_MAX:
            raise ValueError(f"payload: at most {PAYLOAD_MAX} bytes")
        memset(&header, 0, sizeof(header))
        header.sport = sport
        header.dport = self.port
        header.seq = seq & 0xFFFFFFFF
        header.ack = ack & 0xFFFFFFFF
        header.flags = flags
        header.window = window
        if header.flags & SYN:
            header.has = HAS_MSS | HAS_SACK_PERMITTED | HAS_WSCALE
            header.mss = self.mss
            header.wscale = 7
        built = PyBytes_FromStringAndSize(
            NULL, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + TCP_HEADER_BYTES + OPTION_BYTES_MAX + PAYLOAD_MAX)
        out = <uint8_t *>PyBytes_AS_STRING(built)
        tcp = out + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
        header_bytes = segment_emit(tcp, &header)
        length = header_bytes + payload_bytes
        memcpy(tcp + header_bytes, PyBytes_AS_STRING(payload), payload_bytes)
        self.ip.total_length = <uint16_t>(IPV4_HEADER_BYTES + length)
        ethernet_emit(out, self.target_mac, self.source_mac, ETHERTYPE_IPV4)
        ipv4_emit(out + ETHERNET_HEADER_BYTES, &self.ip)
        cdef uint16_t checksum = checksum_emit(
            checksum_partial(tcp, length, ipv4_pseudo_sum(self.ip.src_be, self.ip.dst_be, IP_PROTO_TCP, length)))
        memcpy(tcp + TCP_CHECKSUM_OFFSET, &checksum, 2)
        return built[:ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + length]


def send_frames(fd: int, frames: list) -> int:
    """Send frames (bytes) through the packet socket `fd` with as few calls as it takes; returns how many went.

    Fewer go when the device has no room. Raises OSError for anything else that the kernel refuses, TypeError for a
    frame that is not bytes.
    """
    cdef iovec vectors[BATCH]
    cdef mmsghdr messages[BATCH]
    cdef Py_ssize_t at = 0, count = len(frames)
    cdef int descriptor = fd, went, i, wanted
    memset(messages, 0, sizeof(messages))
    while at < count:
        wanted = <int>(count - at if count - at < BATCH else BATCH)
        for i in range(wanted):
            frame = frames[at + i]
            if type(frame) is not bytes:
                raise TypeError("a frame is bytes")
            vectors[i].iov_base = PyBytes_AS_STRING(frame)
            vectors[i].iov_len = PyBytes_GET_SIZE(frame)
            messages[i].msg_hdr.msg_iov = &vectors[i]
            messages[i].msg_hdr.msg_iovlen = 1
        went = sendmmsg(descriptor, messages, wanted, 0)    # with the GIL: `frames` keeps what is being sent
        if went < 0:
            if errno == ENOBUFS or errno == EAGAIN or errno == EINTR:
                return at
            PyErr_SetFromErrno(OSError)
        at += went
        if went < wanted:
            return at
    return at


def hear(fd: int) -> list:
    """Everything that has come to the packet socket `fd`, without waiting, in order.

    A TCP segment is a tuple (port, seq, flags, length): the port it is for, the sequence number, the header's flags and
    the bytes of data. What is neither that nor whole is passed over; ARP is bytes, the whole frame. Raises OSError.
    """
    cdef uint8_t frame[FRAME_MAX]
    cdef ssize_t got
    cdef uint32_t length
    cdef uint16_t ethertype
    cdef int descriptor = fd
    cdef ipv4_t ip
    cdef segment_t seg
    heard = []
    while True:
        got = recv(descriptor, frame, FRAME_MAX, MSG_DONTWAIT)
        if got < 0:
            if errno == EAGAIN or errno == ENETDOWN:
                return heard
            if errno == EINTR:
                continue
            PyErr_SetFromErrno(OSError)
        if got < ETHERNET_HEADER_BYTES:
            continue
        length = <uint32_t>got - ETHERNET_HEADER_BYTES
        ethertype = read_u16(frame + ETHERNET_HEADER_BYTES - 2)
        if ethertype == ETHERTYPE_ARP:
            heard.append(frame[:got])
        elif ethertype == ETHERTYPE_IPV4 and ipv4_parse(frame + ETHERNET_HEADER_BYTES, length, &ip) == 0 and (
                ip.protocol == IP_PROTO_TCP and ip.fragment & ~IPV4_DONT_FRAGMENT == 0) and segment_parse(
                frame + ETHERNET_HEADER_BYTES + ip.header_length, ip.total_length - ip.header_length, &seg) == 0:
            heard.append((seg.dport, seg.seq, seg.flags, seg.length))


def hear_only(fd: int, mac: bytes) -> None:
    """Have the kernel give the packet socket `fd` only ARP and what is sent to `mac`: the rest of the link's traffic is
    neither copied nor waited for. Raises OSError."""
    cdef sock_filter program[8]
    cdef sock_fprog attached
    if len(mac) != 6:
        raise ValueError("a MAC address has 6 bytes")
    line(&program[0], BPF_LD | BPF_H | BPF_ABS, 12, 0, 0)
    line(&program[1], BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 5, 0)
    line(&program[2], BPF_LD | BPF_W | BPF_ABS, 0, 0, 0)
    line(&program[3], BPF_JMP | BPF_JEQ | BPF_K, int.from_bytes(mac[:4], "big"), 0, 2)
    line(&program[4], BPF_LD | BPF_H | BPF_ABS, 4, 0, 0)
    line(&program[5], BPF_JMP | BPF_JEQ | BPF_K, int.from_bytes(mac[4:], "big"), 1, 0)
    line(&program[6], BPF_RET | BPF_K, 0, 0, 0)
    line(&program[7], BPF_RET | BPF_K, 0xFFFFFFFF, 0, 0)
    attached.len = 8
    attached.filter = program
    if setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &attached, sizeof(sock_fprog)) < 0:
        PyErr_SetFromErrno(OSError)


cdef void line(sock_filter *at, int code, uint32_t k, uint8_t if_true, uint8_t if_false) noexcept:
    at.code = <uint16_t>code
    at.k = k
    at.jt = if_true
    at.jf = if_false


cdef uint32_t address_be(str text) except? 0:
    cdef uint32_t address
    cdef bytes packed = socket.inet_pton(socket.AF_INET, text)
    memcpy(&address, PyBytes_AS_STRING(packed), 4)
    return address

# SPDX-License-Identifier: MIT
"""Questions to the kernel about an interface, and waiting on a descriptor: what packet_mmap and tap share.

It opens nothing and owns nothing: descriptors are the caller's. Names are looked up in the network namespace in
which the descriptor was opened.
"""

import os

from libc.errno cimport EINTR, errno
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport (
    AF_NETLINK, MSG_DONTWAIT, POLLIN, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMTU, SIOCGIFNAME, SIOCSIFFLAGS,
    SOCK_CLOEXEC, SOCK_RAW, ioctl, pollfd, ppoll, recv, send, socket, timespec)
from ustack.link.packet_abi cimport IFF_UP, IFNAMSIZ, ifreq


cdef extern from "<linux/sockios.h>" nogil:
    int SIOCETHTOOL


cdef extern from "<linux/ethtool.h>" nogil:
    int ETHTOOL_GTSO
    cdef struct ethtool_value:
        uint32_t cmd
        uint32_t data


cdef extern from "<linux/rtnetlink.h>" nogil:
    int NETLINK_ROUTE, RTM_GETLINK, RTM_NEWLINK, NLM_F_REQUEST, IFLA_GSO_MAX_SIZE, IFLA_GSO_MAX_SEGS
    int NLMSG_HDRLEN
    cdef struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
    cdef struct ifinfomsg:
        int ifi_index
    cdef struct rtattr:
        unsigned short rta_len
        unsigned short rta_type


cdef enum:
    # A sleep and its wake-up cost some 10 us here (more when the core goes idle under a hypervisor): spinning
    # pays while the next frame is nearer than a few of them.
    SPIN_LIMIT_NS = 50000
    SPIN_START_NS = 10000
    SPIN_SLICE_NS = 10000000        # "always" still returns this often: signals and a removed device are noticed
    # What a device must take so that no super-frame of ours is too large for it: 64 KiB, in any number of segments.
    GSO_BYTES = 65536
    GSO_SEGS = 65535
    REPLY_BYTES = 16384
    IFLA_GSO_IPV4_MAX_SIZE = 63     # Linux 6.3, and its headers; absent before

cdef set BUSY_POLL = {"auto", "always", "never"}


# ---------------------------------------------------------------- arguments
cdef object os_error(int error, str what):
    return OSError(error, f"{what}: {os.strerror(error)}")


cdef bytes interface_name(str ifname):
    name = ifname.encode()
    if not 0 < len(name) < IFNAMSIZ or name in (b".", b"..") or any(c in b"/: \t\n\r\v\f%\0" for c in name):
        raise ValueError(f"interface name {ifname!r}: must be 1 to {IFNAMSIZ - 1} bytes without / : % or blanks")
    return name


cdef int parse_mac(object text, uint8_t *mac) except -1:
    parts = text.split(":") if isinstance(text, str) else []
    try:
        octets = [int(part, 16) for part in parts if 0 < len(part) <= 2]
    except ValueError:
        octets = []
    if len(parts) != 6 or len(octets) != 6:
        raise ValueError(f"MAC address {text!r}: must be six bytes in hexadecimal, separated by colons")
    if octets[0] & 1 or not any(octets):
        raise ValueError(f"MAC address {text!r}: must be a unicast address")
    for i in range(6):
        mac[i] = octets[i]
    return 0


cdef uint64_t parse_busy_poll(object busy_poll) except? 1:
    if busy_poll not in BUSY_POLL:
        raise ValueError(f"busy_poll {busy_poll!r}: must be one of {', '.join(sorted(BUSY_POLL))}")
    if busy_poll == "auto":
        return SPIN_LIMIT_NS
    return UINT64_MAX if busy_poll == "always" else 0


# ---------------------------------------------------------------- questions
cdef inline void ask_about(ifreq *request, const char *ifname) noexcept nogil:
    memset(request, 0, sizeof(ifreq))
    memcpy(request.ifr_name, ifname, strlen(ifname))


cdef int interface_read(int fd, const char *ifname, interface_t *interface) noexcept nogil:
    cdef ifreq request
    memset(interface, 0, sizeof(interface_t))
    ask_about(&request, ifname)
    if ioctl(fd, SIOCGIFINDEX, &request) < 0:
        return -errno
    interface.index = request.ifr_ifindex
    ask_about(&request, ifname)
    if ioctl(fd, SIOCGIFHWADDR, &request) < 0:
        return -errno
    interface.hardware = request.ifr_hwaddr.sa_family
    memcpy(interface.mac, request.ifr_hwaddr.sa_data, 6)
    ask_about(&request, ifname)
    if ioctl(fd, SIOCGIFMTU, &request) < 0:
        return -errno
    interface.mtu = request.ifr_mtu
    ask_about(&request, ifname)
    if ioctl(fd, SIOCGIFFLAGS, &request) < 0:
        return -errno
    interface.up = (request.ifr_flags & IFF_UP) != 0
    return 0


cdef bint interface_segments(int fd, int netlink_fd, int index) noexcept nogil:
    cdef ifreq request
    cdef ethtool_value value
    memset(&request, 0, sizeof(ifreq))
    request.ifr_ifindex = index
    if ioctl(fd, SIOCGIFNAME, &request) < 0:      # asked each time: it can be renamed
        return False
    value.cmd = ETHTOOL_GTSO
    value.data = 0
    request.ifr_data = <char *>&value
    if ioctl(fd, SIOCETHTOOL, &request) < 0:      # a driver that does not know the question does not segment
        return False
    return value.data != 0 and takes_all_sizes(netlink_fd, index)


cdef int netlink_open() noexcept nogil:
    cdef int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    return fd if fd >= 0 else -errno


cdef bint takes_all_sizes(int netlink_fd, int index) noexcept nogil:
    """Some devices segment, but only so many bytes or segments at a time. Only netlink tells (RTM_GETLINK)."""
    cdef uint8_t message[REPLY_BYTES]
    cdef nlmsghdr *header = <nlmsghdr *>message
    cdef ifinfomsg *about = <ifinfomsg *>(message + NLMSG_HDRLEN)
    cdef ssize_t length = -1
    cdef size_t told
    cdef uint32_t ipv4_bytes
    while recv(netlink_fd, message, REPLY_BYTES, MSG_DONTWAIT) >= 0:
        pass                                      # an answer that an earlier question did not wait for
    memset(message, 0, NLMSG_HDRLEN + sizeof(ifinfomsg))
    header.nlmsg_len = <uint32_t>(NLMSG_HDRLEN + sizeof(ifinfomsg))
    header.nlmsg_type = <uint16_t>RTM_GETLINK
    header.nlmsg_flags = <uint16_t>NLM_F_REQUEST
    about.ifi_index = index
    if send(netlink_fd, message, header.nlmsg_len, 0) == <ssize_t>header.nlmsg_len:
        length = recv(netlink_fd, message, REPLY_BYTES, MSG_DONTWAIT)     # the kernel has answered within send()
    if length < NLMSG_HDRLEN or header.nlmsg_type != RTM_NEWLINK:
        return False
    told = <size_t>length
    ipv4_bytes = link_attribute(message, told, IFLA_GSO_IPV4_MAX_SIZE)
    return (link_attribute(message, told, IFLA_GSO_MAX_SIZE) >= GSO_BYTES
            and (ipv4_bytes >= GSO_BYTES or ipv4_bytes == 0)
            and link_attribute(message, told, IFLA_GSO_MAX_SEGS) >= GSO_SEGS)


cdef uint32_t link_attribute(const uint8_t *message, size_t length, int wanted) noexcept nogil:
    """The 32-bit attribute `wanted` of an RTM_NEWLINK message; 0 when it is not there."""
    cdef size_t at = NLMSG_HDRLEN + sizeof(ifinfomsg)
    cdef rtattr attribute
    cdef uint32_t value
    while at + sizeof(rtattr) <= length:
        memcpy(&attribute, message + at, sizeof(rtattr))
        if attribute.rta_len < sizeof(rtattr) or attribute.rta_len > length - at:
            return 0
        if attribute.rta_type == wanted and attribute.rta_len >= sizeof(rtattr) + sizeof(uint32_t):
            memcpy(&value, message + at + sizeof(rtattr), sizeof(uint32_t))
            return value
        at += (attribute.rta_len + 3u) & ~3u
    return 0


cdef bint interface_exists(int fd, int index) noexcept nogil:
    cdef ifreq request
    memset(&request, 0, sizeof(ifreq))
    request.ifr_ifindex = index
    return ioctl(fd, SIOCGIFNAME, &request) == 0


cdef int interface_bring_up(int fd, const char *ifname) noexcept nogil:
    cdef ifreq request
    ask_about(&request, ifname)
    if ioctl(fd, SIOCGIFFLAGS, &request) < 0:
        return -errno
    if request.ifr_flags & IFF_UP:
        return 0
    request.ifr_flags |= <short>IFF_UP
    return 0 if ioctl(fd, SIOCSIFFLAGS, &request) == 0 else -errno


# ---------------------------------------------------------------- waiting
cdef int sleep_on(int fd, short events, uint64_t deadline_ns, short *revents) noexcept nogil:
    return sleep_on_all(fd, events, -1, -1, deadline_ns, revents)


cdef int sleep_on_all(int fd, short events, int reader_fd, int wake_fd, uint64_t deadline_ns,
                      short *revents) noexcept nogil:
    cdef pollfd requests[3]
    cdef timespec timeout
    cdef uint64_t now_ns
    cdef int ready
    revents[0] = 0
    requests[0].fd = fd
    requests[0].events = events
    requests[0].revents = 0
    requests[1].fd = reader_fd                    # a negative one is passed over
    requests[1].events = POLLIN
    requests[1].revents = 0
    requests[2].fd = wake_fd
    requests[2].events = POLLIN
    requests[2].revents = 0
    if deadline_ns == UINT64_MAX:
        ready = ppoll(requests, 3, NULL, NULL)
    else:
        now_ns = clock_monotonic_ns()
        deadline_ns = deadline_ns - now_ns if deadline_ns > now_ns else 0
        timeout.tv_sec = deadline_ns // 1000000000ULL
        timeout.tv_nsec = deadline_ns % 1000000000ULL
        ready = ppoll(requests, 3, &timeout, NULL)
    if ready < 0:
        return 0 if errno == EINTR else -errno
    if ready > 0:
        revents[0] = requests[0].revents | requests[1].revents
    return 0


cdef uint64_t spin_for(const spin_t *spin, uint64_t limit_ns) noexcept nogil:
    return SPIN_SLICE_NS if limit_ns == UINT64_MAX else min(spin.window_ns, limit_ns)


cdef void spin_adapt(spin_t *spin, uint64_t limit_ns, uint64_t slept_ns, bint woken_by_frame) noexcept nogil:
    """Frames that come soon after falling asleep widen the window; long sleeps close it: idling costs nothing."""
    if slept_ns >= limit_ns:
        spin.window_ns //= 2
        if spin.window_ns < SPIN_START_NS:
            spin.window_ns = 0
    elif woken_by_frame:
        spin.window_ns = spin.window_ns * 2 if spin.window_ns else SPIN_START_NS
        if spin.window_ns > limit_ns:
            spin.window_ns = limit_ns


# ---------------------------------------------------------------- for tests
def spin_windows(limit_ns: int, sleeps: list[tuple[int, bool]]) -> list[int]:
    """The spin window after each of these sleeps: (how long in ns, ended by a frame)."""
    cdef spin_t spin
    spin.window_ns = 0
    windows = []
    for slept_ns, woken_by_frame in sleeps:
        spin_adapt(&spin, limit_ns, slept_ns, woken_by_frame)
        windows.append(spin.window_ns)
    return windows

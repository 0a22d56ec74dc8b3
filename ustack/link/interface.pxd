# SPDX-License-Identifier: MIT
# What a real link asks the kernel about its interface, and how it waits on a descriptor. Body: interface.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

ctypedef struct interface_t:
    int index
    uint32_t mtu
    uint16_t hardware                # ARPHRD_*
    uint8_t mac[6]
    uint8_t up                       # IFF_UP

# The spin window of one link. It follows what the last sleeps were like, as KVM's halt polling does.
ctypedef struct spin_t:
    uint64_t window_ns

# An OSError (PermissionError, ...) that says what was being done.
cdef object os_error(int error, str what)
# A checked name as bytes. Raises ValueError.
cdef bytes interface_name(str ifname)
# "02:00:00:00:00:0a" to six bytes of a unicast address. Raises ValueError.
cdef int parse_mac(object text, uint8_t *mac) except -1
# The value of link.spin_ns for "auto", "always" or "never". Raises ValueError.
cdef uint64_t parse_busy_poll(object busy_poll) except? 1
# fd: any socket, in the interface's namespace. 0 or -errno (ENODEV: no such interface).
cdef int interface_read(int fd, const char *ifname, interface_t *interface) noexcept nogil
# A socket to ask about interfaces of the calling thread's network namespace for as long as it is open. -errno: none.
cdef int netlink_open() noexcept nogil
# Whether the device takes every TCP super-frame now. fd, netlink_fd: sockets of its namespace.
cdef bint interface_segments(int fd, int netlink_fd, int index) noexcept nogil
# True while an interface with this index is in fd's namespace.
cdef bint interface_exists(int fd, int index) noexcept nogil
# Set IFF_UP. 0 or -errno.
cdef int interface_bring_up(int fd, const char *ifname) noexcept nogil
# ppoll until deadline_ns (monotonic; UINT64_MAX: none). *revents is 0 after the deadline or a signal. 0 or -errno.
cdef int sleep_on(int fd, short events, uint64_t deadline_ns, short *revents) noexcept nogil
# The same for one more descriptor that is only read from (-1: none), and for link_t.wake_fd. *revents: of the first two
# together.
cdef int sleep_on_all(int fd, short events, int reader_fd, int wake_fd, uint64_t deadline_ns,
                      short *revents) noexcept nogil
# How long to spin before the next sleep. limit_ns: link.spin_ns.
cdef uint64_t spin_for(const spin_t *spin, uint64_t limit_ns) noexcept nogil
# Note a sleep of `slept_ns` that ended with (or without) frames. limit_ns: link.spin_ns.
cdef void spin_adapt(spin_t *spin, uint64_t limit_ns, uint64_t slept_ns, bint woken_by_frame) noexcept nogil

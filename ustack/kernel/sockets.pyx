# SPDX-License-Identifier: MIT
"""The kernel's side of a connection: system calls on its socket. See sockets.pxd."""

from libc.errno cimport (
    EAGAIN, ECONNREFUSED, EFAULT, EHOSTDOWN, EHOSTUNREACH, EINPROGRESS, EINTR, EINVAL, ENETDOWN, ENETUNREACH, ENOBUFS,
    ENOMEM, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPROTO, ETIMEDOUT, errno)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset, strncmp

from ustack.application cimport (
    CALL_NO_MEMORY, CALL_OK, CALL_STATE, CALL_UNSUPPORTED, CLOSE_HOST_DOWN, CLOSE_HOST_ISOLATED, CLOSE_HOST_UNREACHABLE,
    CLOSE_NET_UNREACHABLE, CLOSE_NO_MEMORY, CLOSE_PARAMETER_PROBLEM, CLOSE_PROTOCOL_UNREACHABLE, CLOSE_REFUSED,
    CLOSE_RESET, CLOSE_SOURCE_ROUTE_FAILED, CLOSE_TIMEOUT, OPTION_CC, OPTION_KEEPALIVE, OPTION_NODELAY, OPTION_TOS,
    OPTION_TTL, OPTION_USER_TIMEOUT_MS, close_reason_t)
from ustack.base.posix cimport (
    AF_INET, FIONREAD, F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, IPPROTO_IP, IPPROTO_TCP, IP_TOS, IP_TTL, MSG_DONTWAIT,
    MSG_MORE, MSG_NOSIGNAL, MSG_TRUNC, MSG_ZEROCOPY, O_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET,
    SO_ACCEPTCONN, SO_ERROR, SO_KEEPALIVE, SO_LINGER, SO_OOBINLINE, SO_REUSEADDR, SO_REUSEPORT, SO_SNDBUF, SO_ZEROCOPY,
    TCP_CONGESTION, TCP_CORK, TCP_INFO, TCP_NODELAY, TCP_USER_TIMEOUT, bind, close_descriptor, fcntl, getpeername,
    getsockname, getsockopt, htons, ioctl, iovec, linger, msghdr, ntohs, recv, sendmsg, setsockopt, sockaddr,
    sockaddr_in, socket, socket_connect, socket_listen, tcp_info)
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.buf.lent cimport lent_descriptor
from ustack.kernel.completing cimport completing_flush
from ustack.kernel.connections cimport queue_drop, queue_first, queue_vector
from ustack.kernel.counters cimport (
    BYTES_RECEIVED, BYTES_SENT, CORKS, DAMAGED_ABORTED, RECEIVES, RECEIVES_IN_VAIN, SENDFILES, SENDS, SENDS_SHORT,
    ZEROCOPIES, ZEROCOPIES_DECLINED)
from ustack.kernel.records cimport (
    CONTROL_NAME_BYTES, NAMED, SEND_MOST, SEND_UNITS, UNWRITABLE, VECTOR_MOST, kernel_conn_t, kernel_lock, kernel_t,
    kernel_unlock, piece_t, tally)
from ustack.kernel.sendfile cimport sendfile_silently
from ustack.kernel.zerocopy cimport ZEROCOPY_FROM, zerocopy_hold, zerocopy_release, zerocopy_spare

# tcpi_state, in the kernel's order (include/net/tcp_states.h).
cdef tuple STATES = (
    "CLOSED", "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED",
    "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "SYN-RECEIVED")


cdef close_reason_t reason_of(int error) noexcept nogil:
    """What ICMP says has come through the kernel's table (icmp_err_convert in net/ipv4/icmp.c), which tells less."""
    if error == ECONNREFUSED:
        return CLOSE_REFUSED
    if error == ETIMEDOUT:
        return CLOSE_TIMEOUT
    if error == EHOSTUNREACH:
        return CLOSE_HOST_UNREACHABLE
    if error == ENETUNREACH or error == ENETDOWN:
        return CLOSE_NET_UNREACHABLE
    if error == EHOSTDOWN:
        return CLOSE_HOST_DOWN
    if error == ENONET:
        return CLOSE_HOST_ISOLATED
    if error == ENOPROTOOPT:
        return CLOSE_PROTOCOL_UNREACHABLE
    if error == EOPNOTSUPP:
        return CLOSE_SOURCE_ROUTE_FAILED
    if error == EPROTO:
        return CLOSE_PARAMETER_PROBLEM
    if error == ENOBUFS or error == ENOMEM:
        return CLOSE_NO_MEMORY
    return CLOSE_RESET              # ECONNRESET, and EPIPE after it


# ---------------------------------------------------------------- sockets

cdef void address_fill(sockaddr_in *out, const ip_addr_t *address, uint16_t port) noexcept nogil:
    memset(out, 0, sizeof(sockaddr_in))
    out.sin_family = <unsigned short>AF_INET
    out.sin_port = htons(port)
    if address != NULL:
        out.sin_addr.s_addr = address.words_be[3]


cdef unsigned int name_length(const char *name) noexcept nogil:
    cdef unsigned int length = 0
    while length < CONTROL_NAME_BYTES and name[length] != 0:
        length += 1
    return length


cdef int close_with(int fd) noexcept nogil:
    """Close it, and say what had failed."""
    cdef int error = errno
    close_descriptor(fd)
    return -error


cdef int settings_apply(const kernel_t *kernel, int fd) noexcept nogil:
    """What every connection of this transport has; those that a listening socket accepts inherit it. -1: refused.

    Urgent bytes stay among the others (RFC 6093 section 6), as on this project's own stack."""
    cdef unsigned int length = name_length(kernel.cc)
    cdef int one = 1
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one))
    if kernel.zerocopy and setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) < 0:
        return -1
    if kernel.sndbuf_bytes and setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kernel.sndbuf_bytes, sizeof(int)) < 0:
        return -1
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kernel.cc, length) if length else 0


cdef int socket_listening(const kernel_t *kernel, const ip_addr_t *address, uint16_t *port,
                          uint32_t backlog) noexcept nogil:
    cdef sockaddr_in name
    cdef unsigned int length = sizeof(sockaddr_in)
    cdef int one = 1
    cdef int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    address_fill(&name, address, port[0])
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
    if kernel.reuse_port and setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0:
        return close_with(fd)
    if settings_apply(kernel, fd) < 0:
        return close_with(fd)
    if bind(fd, <sockaddr *>&name, sizeof(sockaddr_in)) < 0 or socket_listen(fd, <int>backlog) < 0:
        return close_with(fd)
    if getsockname(fd, <sockaddr *>&name, &length) < 0:
        return close_with(fd)
    port[0] = ntohs(name.sin_port)
    return fd


cdef int socket_adopted(const kernel_t *kernel, int listening_fd, ip_addr_t *address, uint16_t *port) noexcept nogil:
    cdef sockaddr_in name
    cdef unsigned int length = sizeof(int)
    cdef int listening = 0, flags
    cdef int fd = fcntl(listening_fd, F_DUPFD_CLOEXEC, 0)
    if fd < 0:
        return -errno
    if getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0:
        return close_with(fd)
    length = sizeof(sockaddr_in)
    if getsockname(fd, <sockaddr *>&name, &length) < 0:
        return close_with(fd)
    if not listening or name.sin_family != AF_INET:
        close_descriptor(fd)
        return -EINVAL
    flags = fcntl(fd, F_GETFL)
    if flags < 0 or fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 or settings_apply(kernel, fd) < 0:
        return close_with(fd)
    ip_addr_set_v4(address, name.sin_addr.s_addr)
    port[0] = ntohs(name.sin_port)
    return fd


cdef int socket_connecting(const kernel_t *kernel, const ip_addr_t *address, uint16_t port,
                           uint16_t local_port) noexcept nogil:
    cdef sockaddr_in name
    cdef int one = 1
    cdef int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    if settings_apply(kernel, fd) < 0:
        return close_with(fd)
    if local_port:
        address_fill(&name, NULL, local_port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
        if bind(fd, <sockaddr *>&name, sizeof(sockaddr_in)) < 0:
            return close_with(fd)
    address_fill(&name, address, port)
    if socket_connect(fd, <sockaddr *>&name, sizeof(sockaddr_in)) < 0 and errno != EINPROGRESS:
        return close_with(fd)
    return fd


cdef int socket_error(int fd) noexcept nogil:
    cdef int error = 0
    cdef unsigned int length = sizeof(error)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0:
        return errno
    return error


cdef bint socket_is_connected(int fd) noexcept nogil:
    cdef sockaddr_in name
    cdef unsigned int length = sizeof(sockaddr_in)
    return getpeername(fd, <sockaddr *>&name, &length) == 0


cdef void socket_name(kernel_conn_t *conn) noexcept nogil:
    cdef sockaddr_in name
    cdef unsigned int length = sizeof(sockaddr_in)
    if conn.flags & NAMED or conn.fd < 0:
        return
    if getsockname(conn.fd, <sockaddr *>&name, &length) == 0:
        ip_addr_set_v4(&conn.ends.laddr, name.sin_addr.s_addr)
        conn.ends.lport = ntohs(name.sin_port)
        conn.flags |= NAMED


cdef void socket_reset_at_close(int fd) noexcept nogil:
    cdef linger now
    now.l_onoff = 1
    now.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))


# ---------------------------------------------------------------- bytes

cdef uint32_t socket_receivable(const kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil:
    cdef int fd = conn.fd
    cdef int waiting = 0
    if kernel.readiness.ops.receivable != NULL:
        return kernel.readiness.ops.receivable(kernel.readiness, fd)
    if fd < 0 or ioctl(fd, FIONREAD, &waiting) < 0 or waiting < 0:
        return 0
    return <uint32_t>waiting


cdef ssize_t socket_receive(kernel_t *kernel, kernel_conn_t *conn, uint8_t *out, size_t length) noexcept nogil:
    cdef ssize_t taken
    if kernel.readiness.ops.receive != NULL:
        taken = kernel.readiness.ops.receive(kernel.readiness, conn.fd, out, length)
        if taken > 0:
            kernel.counters[<int>BYTES_RECEIVED] += <uint64_t>taken
        return taken
    while True:
        tally(kernel, RECEIVES)
        taken = recv(conn.fd, out, length, MSG_DONTWAIT if out != NULL else MSG_DONTWAIT | MSG_TRUNC)
        if taken > 0:
            kernel.counters[<int>BYTES_RECEIVED] += <uint64_t>taken
            conn.received_bytes += <uint64_t>taken
            return taken
        if taken == 0:
            return 0
        if errno != EINTR:
            break
    if errno == EAGAIN:
        tally(kernel, RECEIVES_IN_VAIN)
    return -errno


cdef ssize_t offer_vector(kernel_t *kernel, const kernel_conn_t *conn, size_t *offered,
                          uint32_t *spare) noexcept nogil:
    """sendmsg with what comes first in the queue. Bytes taken, or a negative errno; -EFAULT: made-up bytes (lent_t).
    *spare: not 0 when they were taken without a copy (zerocopy_hold)."""
    cdef iovec vector[VECTOR_MOST]
    cdef msghdr message
    cdef ssize_t taken
    cdef int error, flags = MSG_NOSIGNAL | MSG_DONTWAIT
    memset(&message, 0, sizeof(message))
    message.msg_iov = vector
    message.msg_iovlen = queue_vector(kernel, conn, vector, NULL, offered)
    if offered[0] == 0:
        return -EFAULT
    if kernel.files.by_descriptor and offered[0] < conn.queued_bytes:
        flags |= MSG_MORE               # the file goes into the same segment
    if kernel.zerocopy and offered[0] >= ZEROCOPY_FROM:
        spare[0] = zerocopy_spare(kernel)
    kernel_unlock(kernel)
    taken = sendmsg(conn.fd, &message, flags | MSG_ZEROCOPY if spare[0] else flags)
    error = errno
    kernel_lock(kernel)
    if spare[0] and taken > 0:
        tally(kernel, ZEROCOPIES)
    elif spare[0]:
        zerocopy_release(kernel, spare[0])
        spare[0] = 0
        if error == ENOBUFS:                # net.core.optmem_max, RLIMIT_MEMLOCK
            tally(kernel, ZEROCOPIES_DECLINED)
            taken = sendmsg(conn.fd, &message, flags)
            error = errno
    return taken if taken >= 0 else -error


cdef ssize_t offer_file(kernel_t *kernel, const kernel_conn_t *conn, piece_t *piece, size_t *offered) noexcept nogil:
    """The same with sendfile. A file that ends before what was lent of it has been cut short."""
    cdef int64_t at = piece.data - piece.lent.data
    cdef ssize_t taken
    offered[0] = min(piece.length, <uint64_t>SEND_MOST)
    tally(kernel, SENDFILES)
    taken = sendfile_silently(conn.fd, lent_descriptor(piece.lent), &at, offered[0])
    if taken == 0:
        piece.lent.damaged = 1
        return -EFAULT
    return taken


cdef inline ssize_t offer(kernel_t *kernel, const kernel_conn_t *conn, size_t *offered,
                          uint32_t *spare) noexcept nogil:
    cdef piece_t *first
    spare[0] = 0
    tally(kernel, SENDS)
    kernel.budget.stage_left -= SEND_UNITS
    if kernel.files.by_descriptor:
        first = queue_first(kernel, conn)
        if not first.lent.damaged and lent_descriptor(first.lent) >= 0:
            return offer_file(kernel, conn, first, offered)
    return offer_vector(kernel, conn, offered, spare)


cdef int socket_flush(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef size_t offered = 0
    cdef ssize_t taken
    cdef uint32_t spare
    if kernel.readiness.ops.send != NULL:
        return completing_flush(kernel, conn)
    if kernel.cork and not conn.corked:
        conn.corked = True
        tally(kernel, CORKS)
        set_number(conn, IPPROTO_TCP, TCP_CORK, 1)
    while conn.pieces.first:
        taken = offer(kernel, conn, &offered, &spare)
        if taken < 0:
            if taken == -EINTR:
                continue
            if taken == -EAGAIN:
                tally(kernel, SENDS_SHORT)
                conn.flags |= UNWRITABLE
                return 0
            if taken == -EFAULT:            # the file behind a mapping has been cut short: there is nothing to send
                tally(kernel, DAMAGED_ABORTED)
            return <int>taken
        kernel.counters[<int>BYTES_SENT] += <uint64_t>taken
        kernel.budget.stage_left -= <int>(taken >> 10)
        if spare:
            zerocopy_hold(kernel, conn, <uint64_t>taken, spare)
        else:
            queue_drop(kernel, conn, <uint64_t>taken)
        if <size_t>taken < offered:
            tally(kernel, SENDS_SHORT)
            if not kernel.readiness.ops.edge:
                conn.flags |= UNWRITABLE    # its next READY_OUT says that there is room again
                return 0
            # What can be written is not told again. Was the buffer full, or the rest not to be read? The next one says.
        if conn.pieces.first and kernel.budget.stage_left <= 0:
            return 0
    if conn.corked:
        conn.corked = False
        set_number(conn, IPPROTO_TCP, TCP_CORK, 0)      # what does not fill a segment goes now
    return 0


# ---------------------------------------------------------------- settings

cdef int set_number(const kernel_conn_t *conn, int level, int name, int value) noexcept nogil:
    if conn.fd < 0:
        return CALL_STATE
    return CALL_OK if setsockopt(conn.fd, level, name, &value, sizeof(value)) == 0 else CALL_UNSUPPORTED


cdef uint32_t number(const kernel_conn_t *conn, int level, int name) noexcept nogil:
    cdef int value = 0
    cdef unsigned int length = sizeof(value)
    if conn.fd < 0 or getsockopt(conn.fd, level, name, &value, &length) < 0:
        return 0
    return <uint32_t>value


cdef int set_control(kernel_t *kernel, kernel_conn_t *conn, uint32_t which) noexcept nogil:
    cdef const char *name
    if which >= kernel.control_count:
        return CALL_UNSUPPORTED
    if conn.fd < 0:
        return CALL_STATE
    name = kernel.controls[which]
    if setsockopt(conn.fd, IPPROTO_TCP, TCP_CONGESTION, name, name_length(name)) == 0:
        return CALL_OK
    return CALL_NO_MEMORY if errno == ENOMEM else CALL_UNSUPPORTED


cdef uint32_t control(const kernel_t *kernel, const kernel_conn_t *conn) noexcept nogil:
    cdef char name[CONTROL_NAME_BYTES]
    cdef unsigned int length = CONTROL_NAME_BYTES
    cdef uint32_t which
    memset(name, 0, CONTROL_NAME_BYTES)
    if conn.fd < 0 or getsockopt(conn.fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) < 0:
        return 0
    for which in range(kernel.control_count):
        if strncmp(kernel.controls[which], name, CONTROL_NAME_BYTES) == 0:
            return which
    return 0


cdef int socket_set_option(kernel_t *kernel, kernel_conn_t *conn, int option, uint32_t value) noexcept nogil:
    if option == OPTION_NODELAY:
        return set_number(conn, IPPROTO_TCP, TCP_NODELAY, value != 0)
    if option == OPTION_KEEPALIVE:
        return set_number(conn, SOL_SOCKET, SO_KEEPALIVE, value != 0)
    if option == OPTION_USER_TIMEOUT_MS:
        return set_number(conn, IPPROTO_TCP, TCP_USER_TIMEOUT, <int>(value & 0x7FFFFFFF))
    if option == OPTION_TOS:
        return set_number(conn, IPPROTO_IP, IP_TOS, <int>(value & 0xFF))
    if option == OPTION_TTL:
        return set_number(conn, IPPROTO_IP, IP_TTL, <int>(value & 0xFF))
    if option == OPTION_CC:
        return set_control(kernel, conn, value)
    return CALL_UNSUPPORTED


cdef uint32_t socket_option(const kernel_t *kernel, const kernel_conn_t *conn, int option) noexcept nogil:
    if option == OPTION_NODELAY:
        return number(conn, IPPROTO_TCP, TCP_NODELAY) != 0
    if option == OPTION_KEEPALIVE:
        return number(conn, SOL_SOCKET, SO_KEEPALIVE)
    if option == OPTION_USER_TIMEOUT_MS:
        return number(conn, IPPROTO_TCP, TCP_USER_TIMEOUT)
    if option == OPTION_TOS:
        return number(conn, IPPROTO_IP, IP_TOS)
    if option == OPTION_TTL:
        return number(conn, IPPROTO_IP, IP_TTL)
    if option == OPTION_CC:
        return control(kernel, conn)
    return 0


cdef dict socket_info(const kernel_conn_t *conn):
    cdef tcp_info found
    cdef unsigned int length = sizeof(tcp_info)
    memset(&found, 0, sizeof(tcp_info))
    if conn.fd < 0 or getsockopt(conn.fd, IPPROTO_TCP, TCP_INFO, &found, &length) < 0:
        return {"state": "CLOSED"}
    return {
        "state": STATES[found.tcpi_state] if found.tcpi_state < len(STATES) else "CLOSED",
        "smss": found.tcpi_snd_mss, "cwnd_segs": found.tcpi_snd_cwnd, "ssthresh_segs": found.tcpi_snd_ssthresh,
        "unacked_segs": found.tcpi_unacked, "srtt_us": found.tcpi_rtt, "rttvar_us": found.tcpi_rttvar,
        "retransmits": found.tcpi_total_retrans}

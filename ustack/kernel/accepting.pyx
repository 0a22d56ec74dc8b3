# SPDX-License-Identifier: MIT
"""Connections taken from a listening socket. See accepting.pxd.

A process that has used up its descriptors cannot accept, and a listening socket that is never emptied stays ready for
ever. So one descriptor is kept in reserve: it is given up for a moment, for the connection that is accepted and reset
with it. A listener whose backlog is full, or whose transport is, is not asked about: the kernel's own queue fills, and
its SYNs are not answered.
"""

from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t

from ustack.application cimport ACCEPT_NO_MEMORY, ACCEPT_REFUSED, ACCEPT_WAITING, application_t, conn_t
from ustack.base.posix cimport (
    O_CLOEXEC, O_RDONLY, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, close_descriptor, ntohs, open_descriptor, sockaddr,
    sockaddr_in)
from ustack.base.types cimport ip_addr_is_any, ip_addr_set_v4
from ustack.kernel.connections cimport conn_end, conn_new, token_of, watch
from ustack.kernel.counters cimport (
    ACCEPTED_CONNECTIONS, ACCEPTS_FAILED, LISTENERS_HELD, REFUSED_BY_APPLICATION, REFUSED_BY_STRATEGY,
    REFUSED_WITHOUT_DESCRIPTOR, REFUSED_WITHOUT_MEMORY)
from ustack.kernel.readiness cimport READY_IN, READY_OUT
from ustack.kernel.records cimport (
    ACCEPTED, NAMED, WAITING, kernel_conn_t, kernel_t, listener_interest, listener_t,
    listener_token, tally)
from ustack.kernel.sockets cimport socket_reset_at_close
from ustack.kernel.upcalls cimport upcall_begin

cdef enum:
    ACCEPTS_MOST = 64           # in a turn, for each listener
    ACCEPTS_SHARED = 1          # ... of a socket that others take from, too: so that all of them get some
    ACCEPT_UNITS = 30           # of about 100 ns: accept4, the strategy's word, a record
    STARVED_NS = 100000000      # nobody is accepted for so long without memory, or even the descriptor in reserve


cdef void reset(int fd) noexcept nogil:
    socket_reset_at_close(fd)
    close_descriptor(fd)


cdef int spare_accept(kernel_t *kernel, listener_t *listener) noexcept nogil:
    """No descriptor is left: take and reset one connection with the one in reserve. 0, -EAGAIN if nobody is there (the
    kernel looks for a descriptor first), or another errno: even that failed."""
    cdef int fd, failed = 0
    if kernel.reserve_fd < 0:
        kernel.reserve_fd = open_descriptor("/dev/null", O_RDONLY | O_CLOEXEC)
    if kernel.reserve_fd < 0:
        return -EMFILE
    close_descriptor(kernel.reserve_fd)
    fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC)
    if fd >= 0:
        reset(fd)
        tally(kernel, REFUSED_WITHOUT_DESCRIPTOR)
    else:
        failed = -errno
    kernel.reserve_fd = open_descriptor("/dev/null", O_RDONLY | O_CLOEXEC)
    return failed


cdef void hold(kernel_t *kernel, listener_t *listener) noexcept nogil:
    if not listener.held:
        listener.held = True
        kernel.held += 1
        kernel.readiness.ops.remove(kernel.readiness, listener.fd)
        tally(kernel, LISTENERS_HELD)


cdef void starve(kernel_t *kernel, listener_t *listener) noexcept nogil:
    tally(kernel, ACCEPTS_FAILED)
    kernel.starved_until_ns = kernel.now_ns + STARVED_NS
    listener.ready = False
    hold(kernel, listener)


cdef inline bint has_room(const kernel_t *kernel, const listener_t *listener) noexcept nogil:
    return (listener.waiting < listener.backlog and kernel.conns.in_use + kernel.orphan_count < kernel.conns.limit
            and kernel.now_ns >= kernel.starved_until_ns)


cdef int take(kernel_t *kernel, listener_t *listener, sockaddr_in *peer) noexcept nogil:
    """A connection's descriptor, or a negative errno."""
    cdef unsigned int length = sizeof(sockaddr_in)
    cdef int fd
    if kernel.readiness.ops.accept != NULL:
        return kernel.readiness.ops.accept(kernel.readiness, listener.fd, peer)
    fd = accept4(listener.fd, <sockaddr *>peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef uint32_t accept_some(kernel_t *kernel, uint32_t number) noexcept nogil:
    cdef listener_t *listener = &kernel.listeners[number]
    cdef sockaddr_in peer
    cdef uint32_t taken = 0, most = ACCEPTS_SHARED if listener.shared else ACCEPTS_MOST
    cdef int fd, failed
    listener.ready = True
    while taken < most and kernel.budget.stage_left > 0 and listener.fd >= 0:
        if not has_room(kernel, listener):
            hold(kernel, listener)
            listener.ready = False
            break
        kernel.budget.stage_left -= ACCEPT_UNITS
        fd = take(kernel, listener, &peer)
        if fd >= 0:
            taken += 1
            welcome(kernel, number, fd, &peer)
        elif fd == -EAGAIN:
            listener.ready = False
            break
        elif fd == -EMFILE or fd == -ENFILE:
            failed = spare_accept(kernel, listener)
            if failed == 0:
                taken += 1
                continue
            listener.ready = False
            if failed != -EAGAIN:
                starve(kernel, listener)
            break
        elif fd == -ENOBUFS or fd == -ENOMEM:
            starve(kernel, listener)
            break
        elif fd == -EINTR or fd == -ECONNABORTED:
            tally(kernel, ACCEPTS_FAILED)   # what accept(2) says to take for EAGAIN, but the next may be there
        else:
            tally(kernel, ACCEPTS_FAILED)   # errors of the network that this connection had met
            break
    if listener.shared and taken == most and not kernel.readiness.ops.edge:
        listener.ready = False          # the strategy says it again, if nobody else has taken the next one
    return taken


cdef void welcome(kernel_t *kernel, uint32_t number, int fd, const sockaddr_in *peer) noexcept nogil:
    """One that was accepted: its record, the strategy, the application."""
    cdef listener_t *listener = &kernel.listeners[number]
    cdef kernel_conn_t *conn = conn_new(kernel, fd, listener.app)
    cdef uint64_t token
    if conn == NULL:
        tally(kernel, REFUSED_WITHOUT_MEMORY)
        reset(fd)
        return
    token = token_of(conn)
    ip_addr_set_v4(&conn.ends.raddr, peer.sin_addr.s_addr)
    conn.ends.rport = ntohs(peer.sin_port)
    conn.ends.lport = listener.port
    if not ip_addr_is_any(&listener.address):
        conn.ends.laddr = listener.address
        conn.flags |= NAMED
    conn.interest = READY_IN | READY_OUT if kernel.readiness.ops.edge else READY_IN
    if watch(kernel, conn) != 0:
        tally(kernel, REFUSED_BY_STRATEGY)
        socket_reset_at_close(fd)
        conn_end(kernel, conn)
        return
    if conn.pid != 0:                       # its child does the rest, and the parent counts
        tally(kernel, ACCEPTED_CONNECTIONS)
        return
    present(kernel, number, conn)
    if kernel.in_child:
        kernel.serve_child(kernel, token)


cdef void present(kernel_t *kernel, uint32_t number, kernel_conn_t *conn) noexcept nogil:
    """The application hears of it."""
    cdef listener_t *listener = &kernel.listeners[number]
    cdef application_t *app = upcall_begin(kernel, conn)
    cdef int answer
    answer = app.on_accept(app, &kernel.transport, <conn_t *>conn)
    if answer == ACCEPT_REFUSED or answer == ACCEPT_NO_MEMORY:
        tally(kernel, REFUSED_BY_APPLICATION if answer == ACCEPT_REFUSED else REFUSED_WITHOUT_MEMORY)
        socket_reset_at_close(conn.fd)
        conn_end(kernel, conn)
        return
    if not kernel.in_child:                 # whose parent has
        tally(kernel, ACCEPTED_CONNECTIONS)
    conn.flags |= ACCEPTED
    kernel.established += 1
    if answer == ACCEPT_WAITING:
        conn.flags |= WAITING
        conn.listener = <unsigned char>number
        listener.waiting += 1


cdef void listeners_release(kernel_t *kernel) noexcept nogil:
    cdef uint32_t number
    cdef listener_t *listener
    if kernel.held == 0:
        return
    for number in range(kernel.listeners_used):
        listener = &kernel.listeners[number]
        if listener.fd < 0 or not listener.held or not has_room(kernel, listener):
            continue
        if kernel.readiness.ops.add(
                kernel.readiness, listener.fd, listener_token(number), listener_interest(listener)) == 0:
            listener.held = False
            kernel.held -= 1

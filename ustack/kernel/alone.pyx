# SPDX-License-Identifier: MIT
"""A connection that a thread or a process has to itself. See alone.pxd."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ustack.base.clock cimport clock_monotonic_ns
from ustack.base.posix cimport (
    F_GETFL, F_SETFL, MSG_DONTWAIT, O_NONBLOCK, POLLERR, POLLHUP, POLLIN, POLLOUT, fcntl, pollfd, ppoll, recv, write)
from ustack.base.wheel cimport wheel_next_ns
from ustack.buf.lent cimport lent_release_pending, lent_watch
from ustack.kernel.connections cimport conn_named, unread_of
from ustack.kernel.counters cimport BYTES_RECEIVED, RECEIVES, RECEIVES_IN_VAIN, TURNS
from ustack.kernel.downcalls cimport conn_fail
from ustack.kernel.records cimport (
    ABORT, ACTIVE, BLOCKED, BLOCKED_IN, BLOCKED_OUT, CONNECTING, DUE, HUNG_UP, KICKED, OFFER, PAUSED, PEER_FIN,
    RECEIVE_BYTES, UNWRITABLE, kernel_conn_t, kernel_lock, kernel_t, kernel_unlock, tally)
from ustack.kernel.sockets cimport socket_error
from ustack.kernel.processes cimport child_alarm, child_end, child_told
from ustack.kernel.threads cimport distribute
from ustack.kernel.turns cimport kernel_depart, kernel_expire, kernel_finish, turn_begin
from ustack.kernel.upcalls cimport upcalls_end_bursts, upcalls_hand_over, upcalls_make_read

cdef void serve_alone(kernel_t *kernel, uint64_t token) noexcept nogil:
    cdef uint8_t buffer[RECEIVE_BYTES]
    cdef kernel_conn_t *conn
    cdef ssize_t taken = -EAGAIN
    cdef bint put_off = False               # an object of Python's is to be given back
    lent_watch(&put_off)
    kernel_lock(kernel)
    conn = conn_named(kernel, token)
    if conn != NULL and not conn.flags & ACTIVE:
        set_blocking(conn)
    while conn != NULL:
        if turn(kernel, conn, buffer, taken) or conn.fd < 0:    # it has called fork(), and is the child's copy
            conn = NULL
        distribute(kernel, conn)
        wake_first(kernel)
        if put_off:
            put_off = False
            with gil:
                lent_release_pending()
        if conn == NULL:
            break
        taken = -EAGAIN
        if not conn.flags & DUE:
            taken = sleep(kernel, conn, buffer)
        if kernel.in_child:
            watch_over(kernel)
    kernel_unlock(kernel)
    lent_watch(NULL)


cdef void serve_child(kernel_t *kernel, uint64_t token) noexcept nogil:
    serve_alone(kernel, token)
    with gil:
        kernel.call_owner(kernel.owner, b"housekeeping")        # the access log is written
    child_end(kernel)


cdef void watch_over(kernel_t *kernel) noexcept nogil:
    """What the first thread does for threads: timeouts, and the word that it is time to end."""
    kernel.now_ns = clock_monotonic_ns()
    kernel_expire(kernel)
    if child_told():
        with gil:
            kernel.call_owner(kernel.owner, b"finish")


cdef void set_blocking(const kernel_conn_t *conn) noexcept nogil:
    cdef int flags = fcntl(conn.fd, F_GETFL)
    if flags >= 0:
        fcntl(conn.fd, F_SETFL, flags & ~O_NONBLOCK)


cdef bint turn(kernel_t *kernel, kernel_conn_t *conn, const uint8_t *data, ssize_t taken) noexcept nogil:
    """True: it has ended."""
    cdef bint connecting = conn.flags & CONNECTING != 0, ended
    if not kernel.manual:
        kernel.now_ns = clock_monotonic_ns()
    tally(kernel, TURNS)
    kernel.alone_turns += 1
    turn_begin(kernel)
    conn.flags &= ~<uint32_t>DUE
    upcalls_make_read(kernel, conn, data, taken)
    if connecting and not conn.flags & CONNECTING:
        set_blocking(conn)
    if kernel.hand_overs:
        upcalls_hand_over(kernel)
    if kernel.open_applications:
        upcalls_end_bursts(kernel)          # not held over system calls: others have theirs meanwhile
    turn_begin(kernel)
    kernel_depart(kernel, conn)
    ended = kernel_finish(kernel, conn)
    if kernel.hand_overs:
        upcalls_hand_over(kernel)
    if kernel.open_applications:
        upcalls_end_bursts(kernel)
    return ended


cdef void wake_first(kernel_t *kernel) noexcept nogil:
    """The first thread sleeps for too long: a timeout is nearer, a signal may have to be sent again, or a listener that
    was held may go on."""
    cdef uint64_t one = 1
    if kernel.asleep_until_ns and (
            kernel.held or kernel.kicked or wheel_next_ns(&kernel.wheel) < kernel.asleep_until_ns):
        kernel.asleep_until_ns = 0
        write(kernel.wake_fd, &one, sizeof(one))


cdef ssize_t sleep(kernel_t *kernel, kernel_conn_t *conn, uint8_t *buffer) noexcept nogil:
    """Until there is something to do for it. What recv said: bytes in the buffer, 0, or a negative errno."""
    cdef uint32_t how = BLOCKED
    cdef int fd = conn.fd
    cdef short told = 0
    cdef ssize_t taken = -EAGAIN
    cdef int error
    cdef bint rest = unread_of(conn) > 0
    if conn.flags & CONNECTING:
        how |= BLOCKED_OUT
    else:
        if not conn.flags & (PAUSED | PEER_FIN | ABORT | OFFER):
            how |= BLOCKED_IN
        if conn.flags & UNWRITABLE and conn.queued_bytes:
            how |= BLOCKED_OUT
    if conn.flags & HUNG_UP and not how & (BLOCKED_IN | BLOCKED_OUT):
        fd = -1                             # poll would tell it at once
    conn.flags |= how
    if kernel.in_child:
        child_alarm(kernel)
    kernel_unlock(kernel)
    if how == BLOCKED | BLOCKED_IN and not rest:
        taken = receive(fd, buffer, 0)
    else:
        told = wait(fd, how)
        if how & BLOCKED_IN and not rest and told & (POLLIN | POLLHUP | POLLERR):
            taken = receive(fd, buffer, MSG_DONTWAIT)
    kernel_lock(kernel)
    if conn.flags & KICKED:
        kernel.kicked -= 1
    conn.flags &= ~<uint32_t>(BLOCKED | BLOCKED_IN | BLOCKED_OUT | KICKED)
    if told & (POLLOUT | POLLHUP | POLLERR):
        conn.flags &= ~<uint32_t>UNWRITABLE
    if told & POLLHUP:
        conn.flags |= HUNG_UP
    if rest and told & POLLIN:
        conn.flags |= OFFER                 # before what has come behind it
    elif how & BLOCKED_IN and not rest:
        note_receive(kernel, conn, taken)
    elif told & POLLERR and not conn.flags & CONNECTING:
        error = socket_error(fd)
        if error != 0:
            conn_fail(kernel, conn, error)
    return taken


cdef ssize_t receive(int fd, uint8_t *buffer, int flags) noexcept nogil:
    cdef ssize_t taken = recv(fd, buffer, RECEIVE_BYTES, flags)
    if taken < 0:
        return -EAGAIN if errno == EINTR else -errno
    return taken


cdef short wait(int fd, uint32_t how) noexcept nogil:
    cdef pollfd asked
    asked.fd = fd
    asked.events = (POLLIN if how & BLOCKED_IN else 0) | (POLLOUT if how & BLOCKED_OUT else 0)
    asked.revents = 0
    return asked.revents if ppoll(&asked, 1, NULL, NULL) > 0 else 0


cdef void note_receive(kernel_t *kernel, kernel_conn_t *conn, ssize_t taken) noexcept nogil:
    tally(kernel, RECEIVES)
    if taken > 0:
        conn.received_bytes += <uint64_t>taken
        kernel.counters[<int>BYTES_RECEIVED] += <uint64_t>taken
    elif taken == -EAGAIN:
        tally(kernel, RECEIVES_IN_VAIN)

# SPDX-License-Identifier: MIT
"""The downcalls over the kernel's sockets: each notes on the record what the next turn does. None makes an upcall.

Only what concerns no order is a system call here: options, what is receivable, a copy of it. It must not: wait, or
send. Read first: application.pxd (transport_t says what each promises). Below: connections, sockets. Above: turns.
"""

from libc.errno cimport EACCES, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EEXIST, EHOSTUNREACH, EINVAL, ENETUNREACH
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.application cimport (
    CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_PORT, CALL_NO_ROUTE, CALL_OK, CALL_STATE, CLOSE_ABORTED,
    CLOSE_NO_MEMORY, CONN_ABORTED, CONN_ACTIVE, CONN_EOF, OPTION_LOW_WATER, OPTION_UNSENT_LOW_WATER, application_t,
    close_reason_t, conn_t, endpoints_t, transport_t, visit_t)
from ustack.base.posix cimport close_descriptor
from ustack.base.types cimport ip_addr_equal, ip_addr_is_any, ip_addr_is_v4, ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.kernel.connections cimport (
    conn_end, conn_living, conn_new, out_add, queue_append, timeout_sync, unread_drop, unread_of, unread_reserve, watch,
    work_add)
from ustack.kernel.readiness cimport READY_IN, READY_OUT, SERVES_IN_PROCESSES
from ustack.kernel.records cimport (
    ABORT, ACCEPTED, ACTIVE, BLOCKED_IN, CLOSED_BY_APP, CONNECTING, ENDED, FIN_QUEUED, FIN_WAIT, KERNEL_LISTENERS,
    OFFER, OFFERING, PAUSED, PEER_FIN, READABLE, RECEIVE_BYTES, RESUMED, TIMED_OUT, WAITING, WANT_WRITABLE, is_writable,
    kernel_conn_t, kernel_of, kernel_t, listener_interest, listener_t, listener_token, own)
from ustack.kernel.sockets cimport (
    reason_of, socket_adopted, socket_connecting, socket_info, socket_listening, socket_name, socket_option,
    socket_receivable, socket_receive, socket_set_option)
from ustack.kernel.threads cimport in_own_thread


cdef void conn_fail(kernel_t *kernel, kernel_conn_t *conn, int error) noexcept nogil:
    if not conn.flags & (ABORT | ENDED):
        conn.flags |= ABORT
        conn.reason = <uint8_t>reason_of(error)
        out_add(kernel, conn)


# ---------------------------------------------------------------- sending

cdef uint32_t send_queued(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return own(conn).queued_bytes


cdef uint32_t send_room(const transport_t *transport, const conn_t *conn) noexcept nogil:
    if own(conn).queued_bytes > own(conn).unsent_low_water_bytes:
        return 0
    return kernel_of(transport).send_queue_bytes - own(conn).queued_bytes


cdef int64_t send(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t offset,
                  uint64_t length) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    cdef uint64_t accepted = send_room(transport, conn)
    if record.flags & (FIN_QUEUED | ABORT | ENDED):
        return CALL_STATE
    if offset > lent.length or length > lent.length - offset:
        return CALL_BAD_ADDRESS
    if length < accepted:
        accepted = length
    if accepted == 0:
        return 0
    if queue_append(kernel, record, lent, offset, accepted) < 0:
        return CALL_NO_MEMORY
    out_add(kernel, record)
    return <int64_t>accepted


cdef void want_writable(const transport_t *transport, conn_t *conn) noexcept nogil:
    own(conn).flags |= WANT_WRITABLE
    if is_writable(own(conn)):
        work_add(kernel_of(transport), own(conn))


cdef void want_hand_over(const transport_t *transport, application_t *app) noexcept nogil:
    kernel_of(transport).hand_overs |= 1ULL << app.index


# ---------------------------------------------------------------- receiving

cdef uint32_t receivable(const transport_t *transport, const conn_t *conn) noexcept nogil:
    if own(conn).flags & (ABORT | ENDED):
        return unread_of(own(conn))
    return unread_of(own(conn)) + socket_receivable(kernel_of(transport), own(conn))


cdef size_t receive(const transport_t *transport, conn_t *conn, uint8_t *out, size_t length) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    cdef size_t taken
    cdef ssize_t more = 0
    if record.flags & (OFFERING | ENDED):
        return 0
    taken = unread_of(record)
    if length < taken:
        taken = length
    if out != NULL and taken > 0:
        memcpy(out, record.unread + record.start, taken)
    unread_drop(kernel, record, <uint32_t>taken)
    if length > taken and not record.flags & (PEER_FIN | ABORT | BLOCKED_IN):      # its thread may have some already
        more = socket_receive(kernel, record, out + taken if out != NULL else NULL, length - taken)
        if more > 0:
            taken += <size_t>more
        elif more == 0:
            record.flags |= PEER_FIN
            work_add(kernel, record)
        elif more != -EAGAIN:
            conn_fail(kernel, record, <int>-more)
    if taken > 0 and record.flags & PAUSED:
        record.flags &= ~<uint32_t>PAUSED
        out_add(kernel, record)             # asks for what comes next
        if kernel.readiness.ops.edge and record.flags & READABLE:
            work_add(kernel, record)        # it was told already, and is not again
    return taken


cdef const uint8_t *peek(const transport_t *transport, conn_t *conn, uint32_t skip, uint32_t *length) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    cdef ssize_t taken
    cdef uint32_t wanted
    if record.flags & (OFFERING | ENDED):
        return NULL
    if record.unread == NULL and not record.flags & (PEER_FIN | ABORT | BLOCKED_IN):
        wanted = min(max(socket_receivable(kernel, record), 1), <uint32_t>RECEIVE_BYTES)     # the FIN alone is 0
        if unread_reserve(kernel, record, wanted) < 0:
            return NULL
        taken = socket_receive(kernel, record, record.unread, wanted)
        if taken > 0:
            record.end = <uint32_t>taken
        else:
            unread_drop(kernel, record, 0)
            if taken == 0:
                record.flags |= PEER_FIN
                work_add(kernel, record)
            elif taken != -EAGAIN:
                conn_fail(kernel, record, <int>-taken)
    if skip >= unread_of(record):
        return NULL
    length[0] = unread_of(record) - skip
    return record.unread + record.start + skip


cdef void resume(const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef kernel_conn_t *record = own(conn)
    if record.flags & OFFERING:
        record.flags |= RESUMED
    elif record.flags & PAUSED or unread_of(record) > 0:
        record.flags &= ~<uint32_t>PAUSED
        record.flags |= OFFER
        if not kernel_of(transport).readiness.ops.edge:
            record.flags |= READABLE        # nobody was asked meanwhile
        work_add(kernel_of(transport), record)


# ---------------------------------------------------------------- ending

cdef void shutdown(const transport_t *transport, conn_t *conn) noexcept nogil:
    if own(conn).flags & CONNECTING:        # RFC 9293 section 3.10.4: in SYN-SENT, delete the TCB
        abort(transport, conn)
        return
    own(conn).flags |= FIN_QUEUED
    out_add(kernel_of(transport), own(conn))


cdef void close(const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    if record.flags & (CLOSED_BY_APP | ABORT | ENDED):
        return
    if unread_of(record) > 0 and not record.flags & OFFERING:
        abort(transport, conn)              # unread data is lost, say so
        return
    if record.flags & CONNECTING:
        abort(transport, conn)              # as shutdown does
        return
    if record.flags & PAUSED:               # what has come since is found, and answered with a reset
        record.flags &= ~<uint32_t>PAUSED
        record.flags |= READABLE
        work_add(kernel, record)
    record.flags |= CLOSED_BY_APP | FIN_QUEUED
    record.flags &= ~<uint32_t>TIMED_OUT
    record.timeout_at_ns = 0
    kernel.closing += 1
    out_add(kernel, record)


cdef void abort(const transport_t *transport, conn_t *conn) noexcept nogil:
    if not own(conn).flags & (ABORT | ENDED):
        own(conn).flags |= ABORT
        own(conn).reason = CLOSE_ABORTED
        out_add(kernel_of(transport), own(conn))


# ---------------------------------------------------------------- settings

cdef void set_timeout(const transport_t *transport, conn_t *conn, uint64_t after_ns) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    if record.flags & ENDED:
        return
    record.flags &= ~<uint32_t>(TIMED_OUT | FIN_WAIT)   # nor is one told that was due and not told yet
    record.timeout_at_ns = kernel.now_ns + after_ns if after_ns else 0
    if record.flags & CLOSED_BY_APP:
        out_add(kernel, record)             # without one there is still an end: turns, finish
    if timeout_sync(kernel, record) < 0 and not record.flags & ABORT:
        record.flags |= ABORT
        record.reason = CLOSE_NO_MEMORY
        out_add(kernel, record)


cdef int set_option(const transport_t *transport, conn_t *conn, int option, uint32_t value) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record = own(conn)
    cdef uint32_t most = kernel.send_queue_bytes
    if option != OPTION_LOW_WATER and option != OPTION_UNSENT_LOW_WATER:
        return socket_set_option(kernel, record, option, value)
    if record.flags & ENDED:
        return CALL_STATE
    if option == OPTION_LOW_WATER:
        record.low_water_bytes = value if value < most else most // 2
    else:
        record.unsent_low_water_bytes = value if value < most else most
    if record.flags & WANT_WRITABLE and is_writable(record):
        work_add(kernel, record)
    return CALL_OK


cdef uint32_t get_option(const transport_t *transport, const conn_t *conn, int option) noexcept nogil:
    if option == OPTION_LOW_WATER:
        return own(conn).low_water_bytes
    if option == OPTION_UNSENT_LOW_WATER:
        return own(conn).unsent_low_water_bytes
    return socket_option(kernel_of(transport), own(conn), option)


# ---------------------------------------------------------------- looking

cdef const endpoints_t *endpoints(const transport_t *transport, const conn_t *conn) noexcept nogil:
    socket_name(own(conn))
    return &own(conn).ends


cdef uint32_t status(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef uint32_t bits = 0
    if own(conn).flags & ACTIVE:
        bits |= CONN_ACTIVE
    if own(conn).flags & PEER_FIN:
        bits |= CONN_EOF
    if own(conn).flags & ABORT:
        bits |= CONN_ABORTED
    return bits


cdef close_reason_t reason(const transport_t *transport, const conn_t *conn) noexcept nogil:
    return <close_reason_t>own(conn).reason


cdef object state(const transport_t *transport, const conn_t *conn):
    return socket_info(own(conn))["state"]


cdef object info(const transport_t *transport, const conn_t *conn):
    return {**socket_info(own(conn)), "snd_queued_bytes": own(conn).queued_bytes,
            "snd_unsent_bytes": own(conn).queued_bytes, "rcv_queued_bytes": receivable(transport, conn)}


cdef void each(const transport_t *transport, application_t *app, visit_t visit) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record
    cdef uint32_t index
    for index in range(kernel.generations_capacity):
        record = conn_living(kernel, index)
        if record != NULL and record.app == app and record.flags & (ACCEPTED | ENDED) == ACCEPTED:
            visit(app, transport, <conn_t *>record)


# ---------------------------------------------------------------- opening

cdef int status_of(int error) noexcept nogil:
    if error == EADDRINUSE or error == EEXIST:
        return CALL_IN_USE
    if error == EADDRNOTAVAIL or error == EINVAL or error == EACCES:
        return CALL_BAD_ADDRESS
    if error == ENETUNREACH or error == EHOSTUNREACH:
        return CALL_NO_ROUTE
    return CALL_NO_MEMORY                   # descriptors among it


cdef listener_t *listener_of(kernel_t *kernel, const ip_addr_t *address, uint16_t port) noexcept nogil:
    cdef listener_t *listener
    cdef int index
    for index in range(KERNEL_LISTENERS):
        listener = &kernel.listeners[index]
        if listener.fd >= 0 and listener.port == port and (
                ip_addr_is_any(&listener.address) if address == NULL else ip_addr_equal(&listener.address, address)):
            return listener
    return NULL


cdef int listen(const transport_t *transport, const ip_addr_t *address, uint16_t port, application_t *app,
                uint32_t backlog) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef listener_t *listener
    cdef int fd
    if kernel.ending or kernel.in_child or in_own_thread():     # the listeners are the first thread's, which may wait
        return CALL_STATE
    if address != NULL and not ip_addr_is_v4(address):
        return CALL_BAD_ADDRESS
    listener = listener_free(kernel)
    if listener == NULL:
        return CALL_NO_MEMORY
    listener.port = port
    if address != NULL:
        listener.address = address[0]
    fd = socket_listening(kernel, address, &listener.port, backlog)
    return status_of(-fd) if fd < 0 else listener_begin(kernel, listener, fd, app, backlog)


cdef int listen_shared(kernel_t *kernel, int listening_fd, application_t *app, uint32_t backlog) noexcept nogil:
    cdef listener_t *listener
    cdef int fd
    if kernel.ending:
        return CALL_STATE
    listener = listener_free(kernel)
    if listener == NULL:
        return CALL_NO_MEMORY
    fd = socket_adopted(kernel, listening_fd, &listener.address, &listener.port)
    listener.shared = True
    return status_of(-fd) if fd < 0 else listener_begin(kernel, listener, fd, app, backlog)


cdef listener_t *listener_free(kernel_t *kernel) noexcept nogil:
    """One that nobody uses, empty. NULL: there is none."""
    cdef uint32_t index
    for index in range(<uint32_t>KERNEL_LISTENERS):
        if kernel.listeners[index].fd < 0:
            memset(&kernel.listeners[index], 0, sizeof(listener_t))
            kernel.listeners[index].fd = -1
            return &kernel.listeners[index]
    return NULL


cdef int listener_begin(kernel_t *kernel, listener_t *listener, int fd, application_t *app,
                        uint32_t backlog) noexcept nogil:
    cdef uint32_t index = <uint32_t>(listener - kernel.listeners)
    if kernel.readiness.ops.add(kernel.readiness, fd, listener_token(index), listener_interest(listener)) != 0:
        close_descriptor(fd)
        return CALL_NO_MEMORY
    listener.fd = fd
    listener.app = app
    listener.backlog = backlog
    kernel.latest_port = listener.port
    kernel.latest_address = listener.address
    if index >= kernel.listeners_used:
        kernel.listeners_used = index + 1
    return CALL_OK


cdef int unlisten(const transport_t *transport, const ip_addr_t *address, uint16_t port) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef listener_t *listener = listener_of(kernel, address, port)
    if listener == NULL:
        return CALL_STATE
    if not listener.held:
        kernel.readiness.ops.remove(kernel.readiness, listener.fd)
    else:
        kernel.held -= 1
    if kernel.readiness.ops.close != NULL:
        kernel.readiness.ops.close(kernel.readiness, listener.fd)
    else:
        close_descriptor(listener.fd)
    memset(listener, 0, sizeof(listener_t))
    listener.fd = -1
    return CALL_OK


cdef conn_t *connect(const transport_t *transport, const ip_addr_t *address, uint16_t port, uint16_t local_port,
                     application_t *app, int *outcome) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    cdef kernel_conn_t *record
    cdef int fd
    if kernel.ending or kernel.readiness.ops.serves == SERVES_IN_PROCESSES:     # the child would go on behind this call
        outcome[0] = CALL_STATE
        return NULL
    if not ip_addr_is_v4(address):
        outcome[0] = CALL_BAD_ADDRESS
        return NULL
    fd = socket_connecting(kernel, address, port, local_port)
    if fd < 0:
        outcome[0] = CALL_NO_PORT if -fd == EADDRNOTAVAIL else status_of(-fd)
        return NULL
    record = conn_new(kernel, fd, app)
    if record == NULL:
        close_descriptor(fd)
        outcome[0] = CALL_NO_MEMORY
        return NULL
    record.flags |= ACTIVE | CONNECTING
    record.ends.raddr = address[0]
    record.ends.rport = port
    record.interest = READY_IN | READY_OUT if kernel.readiness.ops.edge else READY_OUT
    if watch(kernel, record) != 0:
        conn_end(kernel, record)
        outcome[0] = CALL_NO_MEMORY
        return NULL
    outcome[0] = CALL_OK
    return <conn_t *>record


cdef void taken(const transport_t *transport, const conn_t *conn) noexcept nogil:
    cdef kernel_t *kernel = kernel_of(transport)
    if own(conn).flags & WAITING and kernel.listeners[own(conn).listener].waiting:
        kernel.listeners[own(conn).listener].waiting -= 1
    own(conn).flags &= ~<uint32_t>WAITING


cdef void downcalls_fill(transport_t *table) noexcept:
    table.send = send
    table.send_queued = send_queued
    table.send_room = send_room
    table.want_writable = want_writable
    table.want_hand_over = want_hand_over
    table.receivable = receivable
    table.receive = receive
    table.peek = peek
    table.resume = resume
    table.shutdown = shutdown
    table.close = close
    table.abort = abort
    table.set_timeout = set_timeout
    table.set_option = set_option
    table.option = get_option
    table.endpoints = endpoints
    table.status = status
    table.reason = reason
    table.state = state
    table.info = info
    table.each = each
    table.listen = listen
    table.unlisten = unlisten
    table.connect = connect
    table.taken = taken

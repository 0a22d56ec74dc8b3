# SPDX-License-Identifier: MIT
# An application and what carries its bytes: the upcalls that it answers, and the downcalls that it makes.
#
#     application_t   upcalls     on_accept, on_data, on_writable, on_eof, on_timeout, on_closed, ...
#     transport_t     downcalls   send, receive, resume, shutdown, close, abort, set_timeout, options, addresses, ...
#     conn_t          a connection: one word of the application's own; the rest is the transport's
#
# An application is written against this file alone, and runs unchanged over every transport: the engine's TCP
# (engine/transport), the kernel's sockets (kernel/transport), one in memory for tests (testing/memory_transport). A
# transport makes the upcalls never two at once, in whichever of its threads, and never from inside a downcall: a
# downcall only leaves work behind.
#
# It must not: know a protocol's record. Above: transports (engine, kernel, testing) and applications (server, blocking,
# testing's recorder). Below: base, buf's lent_t, link's gate.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.link.gate cimport Gate

# ---------------------------------------------------------------- words
# What on_accept answers.
cdef enum accept_t:
    ACCEPT_TAKEN = 0
    ACCEPT_WAITING = 1          # it counts against the listener's backlog until transport.taken
    ACCEPT_REFUSED = 2          # it is reset; on_closed is not called
    ACCEPT_NO_MEMORY = 3        # the same, for want of memory: counted by the transport

# What downcalls answer.
cdef enum call_status_t:
    CALL_OK = 0
    CALL_IN_USE = -1            # the address and port, or the 4-tuple, are taken
    CALL_NO_MEMORY = -2         # a limit of the transport, or memory
    CALL_BAD_ADDRESS = -3       # not ours, not one that can be connected to; a range outside of its buffer
    CALL_STATE = -4             # the connection is closing or gone
    CALL_NO_ROUTE = -5
    CALL_NO_PORT = -6           # no free ephemeral port was found. A search has a bound, and the next one goes on there
    CALL_UNSUPPORTED = -7       # this transport has no such option

# Why a connection ended.
cpdef enum close_reason_t:
    CLOSE_NORMAL = 0         # both FINs were exchanged (MUST-12)
    CLOSE_RESET              # the peer sent RST
    CLOSE_REFUSED            # RST in answer to our SYN, or ICMP 3/3
    CLOSE_TIMEOUT            # R2: no answer to data or to a SYN
    CLOSE_KEEPALIVE          # no answer to keep-alive probes
    CLOSE_NET_UNREACHABLE    # no route of ours; or ICMP 3/0, 3/6, 3/11
    CLOSE_ABORTED            # we sent RST: the application asked, or data came after its close (SHLD-3)
    CLOSE_NO_MEMORY          # a bound of this stack was reached
    # What the network said of our segments (ICMP type/code): at once if it is hard and the connection is being opened,
    # otherwise when the connection has timed out after it was said.
    CLOSE_HOST_UNREACHABLE   # 3/1, 3/12; or nobody answers ARP for the next hop
    CLOSE_PROTOCOL_UNREACHABLE  # 3/2
    CLOSE_SOURCE_ROUTE_FAILED   # 3/5
    CLOSE_HOST_DOWN          # 3/7
    CLOSE_HOST_ISOLATED      # 3/8
    CLOSE_NET_PROHIBITED     # 3/9
    CLOSE_PROHIBITED         # 3/10, 3/13, 3/14, 3/15: a filter on the way
    CLOSE_TIME_EXCEEDED      # 11
    CLOSE_PARAMETER_PROBLEM  # 12

# Bits of transport.status.
cdef enum conn_status_t:
    CONN_ACTIVE = 1             # we opened it (transport.connect)
    CONN_EOF = 2                # the peer's FIN has come: nothing follows what is receivable
    CONN_ABORTED = 4            # it is being reset, and on_closed follows: transport.reason says why

# Settings of one connection, whole numbers (transport.set_option).
cdef enum conn_option_t:
    OPTION_NODELAY = 1          # 1: Nagle's algorithm is off (MUST-17)
    OPTION_KEEPALIVE            # 1: probes when the connection is idle (MUST-24)
    OPTION_USER_TIMEOUT_MS      # R2 (MUST-21); 0: the transport's default
    OPTION_TOS                  # the byte of DiffServ and ECN bits (MUST-48)
    OPTION_TTL                  # 1 to 255 (MUST-49)
    OPTION_CC                   # number of the congestion control (Transport.control_number)
    # Marks of want_writable, in bytes; at first the transport's. A want_writable that waits is judged by the new one.
    OPTION_LOW_WATER            # queued and not acknowledged. As much as the queue holds, or more: half of it
    OPTION_UNSENT_LOW_WATER     # queued and never sent (TCP_NOTSENT_LOWAT). As much as the queue holds, or more: none
    # What the engine's TCP has beside them. Bounds are the caller's matter; 0: the transport's default
    OPTION_KEEPALIVE_IDLE_S     # silence before the first probe (TCP_KEEPIDLE); at most 65,535
    OPTION_KEEPALIVE_INTERVAL_S     # ... between two (TCP_KEEPINTVL); at most 65,535
    OPTION_KEEPALIVE_PROBES     # without an answer, then it ends (TCP_KEEPCNT); at most 255
    OPTION_FIN_WAIT_2_S         # after close (TCP_LINGER2); at most 65,535
    OPTION_CORK                 # 1: only whole segments go, for 200 ms at most (TCP_CORK)
    OPTION_MORE                 # 1: the same until it is 0 again, beside OPTION_CORK (MSG_MORE)
    OPTION_QUICKACK             # 1: no ACK is delayed (TCP_QUICKACK)
    OPTION_SEND_BUFFER          # most bytes queued and not acknowledged (SO_SNDBUF)
    OPTION_RECEIVE_BUFFER       # bytes held unread, fixed from now on (SO_RCVBUF). 0: as it grows
    OPTION_MSS                  # most bytes in a segment, of ours and of the peer's (TCP_MAXSEG). Before the SYN
    OPTION_DEFER_ACCEPT_S       # of a listener: a connection is there with its first data (TCP_DEFER_ACCEPT)
    OPTION_MAY_FRAGMENT         # 1: DF is clear (IP_MTU_DISCOVER: IP_PMTUDISC_DONT)
    # 1: all that is queued now is urgent (MSG_OOB; RFC 9293 section 3.8.5). Asked for: 1 until the peer has it
    OPTION_URGENT
    OPTION_URGENT_UNREAD        # read alone: bytes up to the peer's urgent pointer that are not consumed, come or not
    OPTION_UNSENT               # read alone: bytes queued and never sent (SIOCOUTQNSD)
    OPTION_PATH_MTU             # read alone: the largest packet that is sent (IP_MTU)

# Who talks to whom. Ports in host order.
ctypedef struct endpoints_t:
    ip_addr_t laddr
    ip_addr_t raddr
    uint16_t lport
    uint16_t rport

# A connection. Opaque but for its first word; the transport has its own record behind it. Valid from on_accept (or from
# the call that opened it) until on_closed returns.
ctypedef struct conn_t:
    uint64_t user_data          # the application's own, 0 at first

# What a turn can still pay for, in units of about 100 ns: see turn_spent.
ctypedef struct turn_budget_t:
    int32_t stage_left
    int32_t upcall_floor        # where stage_left lies when the present upcall has had its share

# ---------------------------------------------------------------- upcalls
# Inside an upcall the application may make every downcall on any of its connections.
ctypedef struct application_t:
    void *context
    uint16_t index              # the transport's own
    bint gather                 # see on_hand_over
    # A connection is established: accepted, or opened by us (CONN_ACTIVE). Returns accept_t.
    int (*on_accept)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
    # `length` in-order bytes. Returns how many were used. What is left is copied and kept, and the receive window
    # shrinks by it: the connection is paused. on_data is not called again for it until transport.resume (then with the
    # rest, a chunk at a time), or until transport.receive has taken some and more arrives. `data` is a view of the
    # receive ring: gone when the upcall returns.
    #
    # A turn must end soon whatever one peer sends. An application whose work on some bytes costs more than about
    # 100 ns charges it, and stops when its share of the turn is spent; the rest comes in the next turn, after other
    # connections have had theirs:
    #
    #     while used < length:
    #         if turn_spent(transport):       # false when on_data begins, so every call makes progress
    #             transport.resume(transport, conn)       # again in the next turn
    #             return used
    #         used += one_request(...)
    #         turn_charge(transport, 3)       # units of about 100 ns; a call into Python: 300
    size_t (*on_data)(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                      size_t length) noexcept nogil
    # After transport.want_writable: send takes something, and the queue has fallen to both low-water marks.
    void (*on_writable)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
    # The peer has sent its FIN and all data before it has been consumed. Called once; not after close or abort.
    void (*on_eof)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
    # After transport.set_timeout: its time has come. The timeout is then off.
    void (*on_timeout)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
    # The last upcall for conn: it is gone for the application (TIME-WAIT may go on without it). After a normal end it
    # waits for on_data and on_eof while the application asks for the rest, turn by turn.
    void (*on_closed)(application_t *app, const transport_t *transport, conn_t *conn,
                      close_reason_t reason) noexcept nogil
    # In-order bytes have come behind what on_data has left, or the peer's FIN (CONN_EOF), whatever is before it; they
    # are not offered. For applications that tell each arrival from the last (edges); may be NULL. Only from a transport
    # that receives while a connection is paused: the engine's TCP.
    void (*on_more)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil
    # Around every poll that has upcalls to make; may be NULL. For applications that batch their work.
    void (*on_burst_begin)(application_t *app, uint64_t now_ns) noexcept nogil
    void (*on_burst_end)(application_t *app, uint64_t now_ns) noexcept nogil
    # After transport.want_hand_over; may be NULL. Returns how many events it has handed over, for the counters.
    #
    # For applications that need Python. Their upcalls touch no Python object: they note what happened in C (a record of
    # their own for each connection, which conn_t.user_data points to) and ask for the hand-over. It comes once per
    # turn, between receiving and output: every frame of the burst has been taken, timers have expired, nothing has been
    # sent. There they take the GIL, once, and do the work of all connections; every downcall is allowed, and what it
    # leaves behind goes out in the same turn. No GIL is held over the system calls of output.
    #
    # What upcalls note later than that (output has ended a connection; a turn could not pay for all of it) is handed
    # over before the call that made the turn returns to Python, with the GIL that its caller has then, or else by the
    # next turn, which comes without a sleep before it. With `gather`, upcalls that timers and output have left are made
    # before the hand-over, as far as half of the stage pays for them, so that their events are in it; without, they
    # come right before the connection's output, as those of all others. It is for applications most of whose upcalls
    # have something to note: blocking/events.pxd does all this for a subclass. server/asking.pxd notes little.
    uint32_t (*on_hand_over)(application_t *app, const transport_t *transport) noexcept nogil
    # After transport.files.read: bytes of a file, 0 at its end, or a negative errno. What was given is given back: the
    # descriptor and the reference on `into`; fd -1: the read has not ended, and the transport keeps the descriptor, and
    # a reference of its own, until it has. NULL for who reads no files.
    void (*on_file_read)(application_t *app, const transport_t *transport, uint32_t token, int fd, lent_t *into,
                         int64_t taken) noexcept nogil
    # The peer has urgent data and had none before, or has more of it now (MUST-32); before the on_data for what has
    # brought the news. The bytes are among the others: OPTION_URGENT_UNREAD says how many are still to be read, inside
    # on_data those that it was handed included. NULL for who does not want to know.
    void (*on_urgent)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil

ctypedef void (*visit_t)(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil

# ---------------------------------------------------------------- files
# What a transport does with files beside lending their bytes (transport.files; mostly NULL: it does nothing with them).
ctypedef struct file_calls_t:
    # Read `length` bytes of a file from `offset` on into into.data + at while the application goes on; NULL: it cannot.
    # CALL_OK: on_file_read follows, when the transport goes at the latest (-ECANCELED), and until then the descriptor
    # and the reference on `into` are the transport's. CALL_NO_MEMORY, CALL_STATE: they have stayed the caller's.
    int (*read)(const transport_t *transport, application_t *app, int fd, lent_t *into, uint64_t at, uint64_t length,
                uint64_t offset, uint32_t token) noexcept nogil
    # Files go out by their descriptors: lend them with one (lent_from_file).
    bint by_descriptor

# ---------------------------------------------------------------- downcalls
# Every call takes the table that it is in: it is the transport. None of them sends, makes an upcall or waits.
#
# A transport's own record begins with its transport_t, so that `<own_t *>transport` is all it takes to come back to it.
ctypedef struct transport_t:
    turn_budget_t *budget
    # ---- sending
    # Queue lent.data[offset : offset + length]. Takes a reference while any of it is unacknowledged. Returns the bytes
    # accepted, which may be fewer when the queue is full, and none while more bytes than OPTION_UNSENT_LOW_WATER were
    # never sent (then use want_writable), or a negative call_status_t.
    int64_t (*send)(const transport_t *transport, conn_t *conn, lent_t *lent, uint64_t offset,
                    uint64_t length) noexcept nogil
    # Bytes queued and not yet acknowledged, and how many more send would accept now.
    uint32_t (*send_queued)(const transport_t *transport, const conn_t *conn) noexcept nogil
    uint32_t (*send_room)(const transport_t *transport, const conn_t *conn) noexcept nogil
    # on_writable, once, as soon as at most OPTION_LOW_WATER bytes are unacknowledged and at most
    # OPTION_UNSENT_LOW_WATER of them were never sent: in this turn if that is so now, at the latest in the turn after
    # the ACK or the sending that brought it about. Never before on_accept, nor after close or abort.
    void (*want_writable)(const transport_t *transport, conn_t *conn) noexcept nogil
    # ---- receiving
    # Bytes received, in order, not consumed.
    uint32_t (*receivable)(const transport_t *transport, const conn_t *conn) noexcept nogil
    # Copy and consume up to `length` of them (out NULL: consume alone); returns how many. Inside the same connection's
    # on_data: none. Ends a pause: on_data is called again when more arrives.
    size_t (*receive)(const transport_t *transport, conn_t *conn, uint8_t *out, size_t length) noexcept nogil
    # Some of them, from the one behind the first `skip` on, without consuming: a view, valid until the next call for
    # this connection. NULL: none there. What lies in several pieces is seen piece after piece; a transport that has
    # some of it elsewhere still (kernel: in its socket) shows that when what lies before has been consumed.
    const uint8_t *(*peek)(const transport_t *transport, conn_t *conn, uint32_t skip,
                           uint32_t *length) noexcept nogil
    # End the pause that began when on_data left a rest: it is offered again after the burst. Inside on_data: what this
    # call leaves is offered again in the next turn, without waiting for another segment (with turn_spent: see on_data).
    void (*resume)(const transport_t *transport, conn_t *conn) noexcept nogil
    # ---- ending
    # No more data from us: FIN after what is queued; receiving goes on (half-close; RFC 9293's CLOSE).
    void (*shutdown)(const transport_t *transport, conn_t *conn) noexcept nogil
    # Done with both directions: FIN after what is queued; unread or later data is answered with RST (SHLD-3).
    # on_closed still comes, when the peer has acknowledged our FIN or the connection ends otherwise.
    void (*close)(const transport_t *transport, conn_t *conn) noexcept nogil
    # RST now; queued data is dropped. on_closed(CLOSE_ABORTED) follows in this poll.
    void (*abort)(const transport_t *transport, conn_t *conn) noexcept nogil
    # ---- handing over
    # on_hand_over to `app`, once: in this turn's gap between receiving and output, or the next one's.
    void (*want_hand_over)(const transport_t *transport, application_t *app) noexcept nogil
    # ---- settings
    # One-shot timeout in ns from now; 0 turns it off. Cheap to move. After close it is no upcall any more: its time
    # ends the connection (CLOSE_TIMEOUT), whatever is still queued. close turns off the one that was set before it.
    void (*set_timeout)(const transport_t *transport, conn_t *conn, uint64_t after_ns) noexcept nogil
    # conn_option_t. CALL_OK, CALL_UNSUPPORTED; for OPTION_CC and the marks CALL_STATE, CALL_NO_MEMORY as well. option:
    # 0 for what this transport does not have.
    int (*set_option)(const transport_t *transport, conn_t *conn, int option, uint32_t value) noexcept nogil
    uint32_t (*option)(const transport_t *transport, const conn_t *conn, int option) noexcept nogil
    # ---- looking
    const endpoints_t *(*endpoints)(const transport_t *transport, const conn_t *conn) noexcept nogil
    uint32_t (*status)(const transport_t *transport, const conn_t *conn) noexcept nogil    # conn_status_t
    close_reason_t (*reason)(const transport_t *transport, const conn_t *conn) noexcept nogil
    object (*state)(const transport_t *transport, const conn_t *conn)       # its name, "ESTABLISHED". With the GIL
    object (*info)(const transport_t *transport, const conn_t *conn)        # a dict of its variables. GIL and gate
    # visit() for every connection that `app` has accepted. visit must not open one.
    void (*each)(const transport_t *transport, application_t *app, visit_t visit) noexcept nogil
    # ---- opening. app: registered (Transport.register)
    # Passive OPEN. address NULL: any of ours. backlog: bounds those that wait for `taken`. call_status_t.
    int (*listen)(const transport_t *transport, const ip_addr_t *address, uint16_t port, application_t *app,
                  uint32_t backlog) noexcept nogil
    int (*unlisten)(const transport_t *transport, const ip_addr_t *address, uint16_t port) noexcept nogil
    # Active OPEN. local_port 0: an ephemeral one. NULL on error, and *status says which. on_accept comes when it is
    # established, on_closed if that fails.
    conn_t *(*connect)(const transport_t *transport, const ip_addr_t *address, uint16_t port, uint16_t local_port,
                       application_t *app, int *status) noexcept nogil
    # A connection that on_accept left waiting has been taken, or has ended.
    void (*taken)(const transport_t *transport, const conn_t *conn) noexcept nogil
    # NULL: this transport does nothing with files.
    const file_calls_t *files
    # (A new one has its name in DOWNCALLS of application.pyx, too.)


# The upcall that is being made has had its share of the turn: leave the rest (on_data).
cdef inline bint turn_spent(const transport_t *transport) noexcept nogil:
    return transport.budget.stage_left <= transport.budget.upcall_floor


# Work done, in units of about 100 ns.
cdef inline void turn_charge(const transport_t *transport, uint32_t units) noexcept nogil:
    transport.budget.stage_left -= <int32_t>units


# ---------------------------------------------------------------- their owners in Python
# What an Application and its transport know of each other, of which either may be gone first: a link of the transport's
# list, in C, because who is being collected may have lost its Python objects already.
ctypedef struct attachment_t:
    attachment_t *next
    attachment_t **at                       # what points here; NULL: in no list
    const transport_t **transport           # the Application's fields, made NULL when the transport goes
    bint **come_up
    bint orphaned                           # it has gone without a word: on_closed was never called


# Owner of a transport_t: who may be inside, time, waiting. ustack.Stack is one (blocking/stack, engine/owner).
#
# All methods but register, enter and leave: inside the gate.
cdef class Transport:
    cdef transport_t *table                            # lives as long as this object
    cdef attachment_t *attached                        # the first of its applications
    cdef readonly bint alive
    cdef readonly bint manual_clock                    # every turn is told the time (simulation, tests)
    cdef Gate gate                                     # who is inside
    # Index of an application, registered when it is new.
    cdef uint16_t register(self, Application application) except 0
    # A public call begins. Raises OwnershipError, or ValueError if the transport is closed.
    cdef int enter(self, str call) except -1
    # It ends, in a `finally`: does what was deferred, opens the gate, raises what is parked.
    cdef int leave(self) except -1
    # The time for downcalls between two turns, which the transport takes as well; it never goes back.
    cdef uint64_t now(self) noexcept
    # One turn without the GIL; the number of frames (or whatever comes in) taken.
    cdef uint32_t turn(self, uint64_t at_ns) noexcept
    # Send what downcalls have left behind; with a manual clock the next turn does.
    cdef void push(self) noexcept
    # The same without giving the GIL up: a finalizer's thread is not the owner, who must not find the gate shut.
    cdef void push_with_gil(self) noexcept
    # The number of a congestion control by its name ("cc" in info), ready to be given to connections with OPTION_CC;
    # None: the transport's own. Raises ValueError.
    cdef int control_number(self, object name) except -1
    # An option of a listener's own (OPTION_MSS, OPTION_DEFER_ACCEPT_S); call_status_t.
    cdef int set_listener_option(self, const ip_addr_t *address, uint16_t port, int option, uint32_t value) noexcept
    # The name that belongs to such a number; None: there are none here. For any thread.
    cdef object control_name(self, int number)
    # A Trace of one of its connections, with room for so many records. Raises StackError: it has none, or no room.
    cdef object trace_of(self, conn_t *conn, uint32_t capacity)
    # call(argument), with the gate open, as soon as this turn is over. In a hand-over.
    cdef void call_later(self, object call, object argument) noexcept
    # Names of the downcalls that its table leaves empty.
    cdef list missing_downcalls(self)
    # For `register`: raises ValueError for an application that cannot be registered.
    cdef int ensure_usable(self, Application application) except -1
    # For `leave`: raises what one of its applications has parked.
    cdef int raise_parked_of(self, list applications) except -1
    # Make turns until condition() holds. timeout: seconds, None: for ever. what: for the CallTimeout that it raises
    # then ("accept() on port 80: no connection came").
    cdef void wait_until(self, object condition, object timeout, str what) except *
    # The same until `until_ns` (base/clock), without a word: whether it holds.
    cdef bint wait_for(self, object condition, uint64_t until_ns, str what) except -1
    # One turn, and what is due between two, for a call that makes a turn whether it has to wait or not (a Poller's).
    # Nothing with a manual clock.
    cdef int step(self) except -1


# Owner of an application_t. A subclass fills the table in its __cinit__ (c.context = <void *>self) and writes the
# upcalls as nogil functions; Stack.listen(port, application=...) registers it.
cdef class Application:
    cdef application_t c
    cdef const transport_t *transport                  # that it is registered with; NULL: with none
    cdef object parked                                 # an exception for who drives the engine, None: none
    cdef bint *come_up                                 # the transport's owner comes up to raise it; or NULL
    cdef attachment_t attachment
    # For a hand-over, and upcalls that take the GIL: keep an exception that must not end in them
    # (errors.is_interruption). It is raised from run(), poll() or the blocking call in progress once the turn is over.
    # The first one is kept.
    cdef void park(self, object error) noexcept
    # For an application's own Python methods that touch what its upcalls touch: they are inside the stack while they
    # do. Raises OwnershipError.
    cdef Gate gate                                     # the transport's; one of its own while it serves none
    cdef int enter(self, str call) except -1
    cdef int leave(self) except -1
    # What its transport does with every application: check the table, and hold it or let it go. attach raises
    # NotImplementedError where the transport's own table has holes: a call through one would end the process.
    cdef int attach(self, Transport transport, uint16_t index, bint *come_up) except -1
    cdef void detach(self) noexcept
    cdef list missing_upcalls(self)
    # Raises ValueError if it may not be attached: it is already, or was left behind with connections in it.
    cdef int ensure_free(self) except -1

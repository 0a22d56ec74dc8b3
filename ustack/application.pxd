# SPDX-License-Identifier: MIT
# What an application is to the stack: a table of upcalls.
#
# The engine calls them, nobody else; in its own thread; never two at once; never from inside a call that the
# application makes (tcp_send, tcp_close, ... only leave work behind).
#
# Above: every application (server, blocking, testing's recorder) and engine, which makes the upcalls. Below: tcp.

from libc.stdint cimport uint8_t, uint64_t

from ustack.link.gate cimport Gate
from ustack.tcp.records.state cimport close_reason_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

cdef enum accept_t:
    ACCEPT_TAKEN = 0
    ACCEPT_WAITING = 1
    ACCEPT_REFUSED = 2

# `conn` stays valid from on_accept (or the call that opened it) until on_closed returns. conn.user_data is the
# application's own word. Inside an upcall the application may call everything in tcp/calls.pxd on any of its
# connections.
ctypedef struct application_t:
    void *context
    # A connection is established: accepted, or opened by us (conn.flags has TCB_ACTIVE). Return ACCEPT_TAKEN,
    # ACCEPT_WAITING (it counts against the listener's backlog until tcp_taken), or ACCEPT_REFUSED (it is reset,
    # on_closed is not called).
    int (*on_accept)(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil
    # `length` in-order bytes. Returns how many were used. What is left is copied and kept, and the receive window
    # shrinks by it: the connection is paused. on_data is not called again for it until tcp_resume (then with the rest,
    # a chunk at a time), or until tcp_receive has taken some and more arrives. `data` is a view of the receive ring:
    # gone when the upcall returns.
    #
    # A turn must end soon whatever one peer sends. An application whose work on some bytes costs more than about
    # 100 ns charges it, and stops when its share of the turn is spent; the rest comes in the next turn, after other
    # connections have had theirs:
    #
    #     while used < length:
    #         if turn_spent(tcp):             # false when on_data begins, so every call makes progress
    #             tcp_resume(tcp, conn)       # again in the next turn
    #             return used
    #         used += one_request(...)
    #         turn_charge(tcp, 3)             # units of about 100 ns; a call into Python: 300
    size_t (*on_data)(application_t *app, tcp_t *tcp, tcb_t *conn, const uint8_t *data,
                      size_t length) noexcept nogil
    # After tcp_want_writable: at most tcp.config.snd_low_water_bytes octets are still unacknowledged.
    void (*on_writable)(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil
    # The peer has sent its FIN and all data before it has been consumed. Called once.
    void (*on_eof)(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil
    # After tcp_set_timeout: its time has come. The timeout is then off.
    void (*on_timeout)(application_t *app, tcp_t *tcp, tcb_t *conn) noexcept nogil
    # The last upcall for conn: it is gone for the application (TIME-WAIT may go on without it). After a normal end it
    # waits for on_data and on_eof while the application asks for the rest, turn by turn.
    void (*on_closed)(application_t *app, tcp_t *tcp, tcb_t *conn, close_reason_t reason) noexcept nogil
    # Around every poll that has upcalls to make; may be NULL. For applications that need the GIL or batch their work.
    void (*on_burst_begin)(application_t *app, uint64_t now_ns) noexcept nogil
    void (*on_burst_end)(application_t *app, uint64_t now_ns) noexcept nogil


# Owner of an application_t. A subclass fills the table in its __cinit__ (c.context = <void *>self) and writes the
# upcalls as nogil functions; Stack.listen(port, application=...) registers it.
cdef class Application:
    cdef application_t c
    cdef bint registered                               # an engine holds a pointer to c
    cdef object parked                                 # an exception for who drives the engine, None: none
    cdef bint *come_up                                 # the engine's owner comes up to raise it; NULL: not registered
    # For upcalls that take the GIL: keep an exception that must not end in them (errors.is_interruption). It is raised
    # from run(), poll() or the blocking call in progress once the turn is over. The first one is kept.
    cdef void park(self, object error) noexcept
    # For an application's own Python methods that touch what its upcalls touch: they are inside the stack while they
    # do. Raises OwnershipError.
    cdef Gate gate                                     # the stack's; one of its own while it serves none
    cdef int enter(self, str call) except -1
    cdef int leave(self) except -1

# SPDX-License-Identifier: MIT
# What an application may ask of TCP: RFC 9293 section 3.10.1 to 3.10.6 (OPEN, SEND, RECEIVE, CLOSE, ABORT, STATUS).
#
# No call sends anything or makes an upcall: it leaves work on the tcb, and the engine pulls output at the end of its
# burst. An application reaches these through its transport (application.pxd, engine/transport). Above: engine. Below:
# application, tcb, state, demux. Never imports input, timers or output.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport call_status_t
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.tcp.records.tcb cimport tcb_t, tcp_t

# Passive OPEN. laddr NULL: any of ours. Upcalls go to application `app`. backlog: bounds tcb's waiting for tcp_taken.
cdef int tcp_listen(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, uint16_t app, uint32_t backlog) noexcept nogil
# The congestion control of a listener's connections, by its number (control_provide); at first config.cc.
cdef void tcp_set_listener_cc(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, int number) noexcept nogil
# OPTION_MSS, of SYN-ACKs and connections from now on; OPTION_DEFER_ACCEPT_S. CALL_STATE: nobody listens there.
cdef int tcp_set_listener_option(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, int option,
                                 uint32_t value) noexcept nogil
cdef int tcp_unlisten(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil
# Active OPEN. lport 0: an ephemeral one (RFC 6056). *status: call_status_t. NULL on error. on_accept comes when it is
# established, on_closed if that fails.
cdef tcb_t *tcp_connect(tcp_t *tcp, const ip_addr_t *raddr, uint16_t rport, uint16_t lport, uint16_t app,
                        int *status) noexcept nogil
# Queue lent.data[offset : offset + length]. Takes a reference while any of it is unacknowledged. Returns the bytes
# accepted, which may be fewer when config.snd_queue_bytes is reached, and none while more than the unsent mark was
# never sent (then use tcp_want_writable), or a negative call_status_t.
cdef int64_t tcp_send(tcp_t *tcp, tcb_t *conn, lent_t *lent, uint64_t offset, uint64_t length) noexcept nogil
# Bytes queued and not yet acknowledged.
cdef uint32_t tcp_send_queued(const tcb_t *conn) noexcept nogil
# How many more tcp_send would accept now.
cdef uint32_t tcp_send_room(const tcp_t *tcp, const tcb_t *conn) noexcept nogil
# on_writable, once, as soon as neither measure of the queue is above its mark (marks.pxd): in this turn if that is so
# now, and not before on_accept.
cdef void tcp_want_writable(tcp_t *tcp, tcb_t *conn) noexcept nogil
# Bytes received, in order, not consumed.
cdef uint32_t tcp_receivable(const tcp_t *tcp, const tcb_t *conn) noexcept nogil
# Copy and consume up to `length` of them (out NULL: consume alone); returns how many. Inside the same connection's
# on_data: none. Ends a pause: on_data is called again when more arrives.
cdef size_t tcp_receive(tcp_t *tcp, tcb_t *conn, uint8_t *out, size_t length) noexcept nogil
# The first of them, a view that is valid until the next call for this connection; NULL: none.
cdef const uint8_t *tcp_peek(tcp_t *tcp, tcb_t *conn, uint32_t skip, uint32_t *length) noexcept nogil
# End the pause that began when on_data left a rest: it is offered again after the burst. Inside on_data: what this call
# leaves is offered again in the next turn, without waiting for another segment (with turn_spent: see application.pxd).
cdef void tcp_resume(tcp_t *tcp, tcb_t *conn) noexcept nogil
# No more data from us: FIN after what is queued; receiving goes on (half-close; the RFC's CLOSE).
cdef void tcp_shutdown(tcp_t *tcp, tcb_t *conn) noexcept nogil
# Done with both directions: FIN after what is queued; unread or later data is answered with RST (SHLD-3).
# on_closed still comes, when the peer has acknowledged our FIN or the connection ends otherwise.
cdef void tcp_close(tcp_t *tcp, tcb_t *conn) noexcept nogil
# RST now; queued data is dropped. on_closed(CLOSE_ABORTED) follows in this poll.
cdef void tcp_abort(tcp_t *tcp, tcb_t *conn) noexcept nogil
# One-shot application timeout in ns from now; 0 turns it off. Cheap to move (no wheel operation in the usual case).
cdef void tcp_set_timeout(tcp_t *tcp, tcb_t *conn, uint64_t after_ns) noexcept nogil
cdef void tcp_set_nodelay(tcp_t *tcp, tcb_t *conn, bint on) noexcept nogil           # MUST-17
cdef void tcp_set_keepalive(tcp_t *tcp, tcb_t *conn, bint on) noexcept nogil         # MUST-24
# Another congestion control, from the present window; its number (control_provide). CALL_OK; CALL_NO_MEMORY: no record
# is left for it, the connection keeps the one it has; CALL_UNSUPPORTED: no such number; CALL_STATE: it is closed.
cdef int tcp_set_cc(tcp_t *tcp, tcb_t *conn, int number) noexcept nogil
# Marks of its own (marks.pxd). CALL_OK; CALL_NO_MEMORY: no record is left, nothing changed; CALL_STATE: it is closed.
cdef int tcp_set_low_water(tcp_t *tcp, tcb_t *conn, uint32_t wanted_bytes) noexcept nogil
cdef int tcp_set_unsent_low_water(tcp_t *tcp, tcb_t *conn, uint32_t wanted_bytes) noexcept nogil
cdef void tcp_set_tos(tcb_t *conn, uint8_t tos) noexcept nogil                       # MUST-48
cdef void tcp_set_ttl(tcb_t *conn, uint8_t ttl) noexcept nogil                       # MUST-49
# A connection waits for its application (the engine says so after ACCEPT_WAITING), and has been taken or has ended.
cdef void tcp_waiting(tcp_t *tcp, const tcb_t *conn) noexcept nogil
cdef void tcp_taken(tcp_t *tcp, const tcb_t *conn) noexcept nogil

# SPDX-License-Identifier: MIT
"""What an application may ask of TCP (RFC 9293 section 3.10.1 to 3.10.6). See calls.pxd for each call's contract."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ustack.application cimport (
    CALL_BAD_ADDRESS, CALL_IN_USE, CALL_NO_MEMORY, CALL_NO_PORT, CALL_OK, CALL_STATE, CALL_UNSUPPORTED,
    OPTION_DEFER_ACCEPT_S, OPTION_MSS)
from ustack.base.counters cimport CANDIDATES_TAKEN, CONNECTIONS_OPENED, ORPHANS_REFUSED, count, count_add
from ustack.base.prng cimport siphash24
from ustack.buf.lent cimport lent_ref
from ustack.buf.slab cimport slab_take
from ustack.ip.layer cimport ip_is_local, ip_is_valid_remote, ip_source, ip_sources
from ustack.tcp.emit cimport advertised_wscale, default_mss
from ustack.tcp.ending cimport connection_end, time_wait_remove
from ustack.tcp.receive.reassembly cimport reassembly_consume, reassembly_peek
from ustack.tcp.records.configuration cimport usable_low_water, usable_unsent_low_water
from ustack.tcp.records.deadlines cimport deadline_clear, deadline_set, deadlines_arm
from ustack.tcp.records.demux cimport (
    FLOW_CONNECTION, FLOW_NONE, FLOW_TIME_WAIT, flow_find, flow_insert, flow_t, initial_sequence_number, listener_exact,
    listener_find)
from ustack.tcp.records.life cimport tcb_alloc, tcb_release
from ustack.tcp.records.marks cimport (
    marks_set, note_writable, tcb_low_water, tcb_unsent, tcb_unsent_low_water)
from ustack.tcp.records.measures cimport note_wait
from ustack.tcp.records.moves cimport note_move, set_state
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.sockopts cimport tcb_fin_wait_2_ns, tcb_snd_queue
from ustack.tcp.records.state cimport (
    CLOSED, CLOSE_ABORTED, CLOSE_WAIT, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, LISTEN, SYN_RECEIVED, SYN_SENT)
from ustack.tcp.records.tcb cimport (
    DEADLINE_APPLICATION, OPT_SLOW_TICKS, TCB_ABORT, TCB_ACTIVE, TCB_CLOSED_BY_APP, TCB_EV_DATA, TCB_EV_TIMEOUT,
    TCB_EV_WRITABLE, TCB_FIN_QUEUED, TCB_KEEPALIVE, TCB_NODELAY, TCB_PAUSED, TCB_WANT_WRITABLE, TCP_MAX_CC,
    TCP_MAX_LISTENERS, flow_key_t, listener_t, rx_queue_of, send_piece_at, send_piece_t, time_wait_at)
from ustack.tcp.records.trace cimport trace_opened
from ustack.tcp.records.work cimport turn_charge, work_add
from ustack.tcp.recovery.control cimport control_change
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_gt


cdef enum:
    EPHEMERAL_FIRST = 32768
    EPHEMERAL_COUNT = 28232u                # 32768..60999, what Linux uses
    CANDIDATES_IN_A_ROW = 1024u             # that one search looks at; with the leaps, a quarter of a turn's stage
    CANDIDATES_BY_LEAPS = 1024u
    MOST_SYN_ACKS = 20
    LEAP = 2654435769u                      # 2^32 by the golden ratio


# ---------------------------------------------------------------- OPEN (section 3.10.1)

cdef int tcp_listen(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, uint16_t app, uint32_t backlog) noexcept nogil:
    cdef ip_addr_t wanted
    cdef int i
    memset(&wanted, 0, sizeof(wanted))
    if laddr != NULL:
        if not ip_is_local(tcp.ip, laddr):
            return CALL_BAD_ADDRESS
        wanted = laddr[0]
    if lport == 0:
        return CALL_NO_PORT
    if listener_exact(tcp, &wanted, lport) != NULL:
        return CALL_IN_USE
    for i in range(TCP_MAX_LISTENERS):
        if tcp.listeners[i].lport == 0:
            tcp.listeners[i].laddr = wanted
            tcp.listeners[i].lport = lport
            tcp.listeners[i].app = app
            tcp.listeners[i].cc = tcp.config.cc
            tcp.listeners[i].backlog = backlog + tcp.config.backlog_extra
            tcp.listeners[i].waiting = 0
            tcp.listeners[i].deferred_syn_acks = 0
            tcp.listeners[i].mss = 0
            note_move(tcp, CLOSED, LISTEN)
            return CALL_OK
    return CALL_NO_MEMORY


cdef void tcp_set_listener_cc(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, int number) noexcept nogil:
    cdef ip_addr_t wanted
    cdef listener_t *listener
    memset(&wanted, 0, sizeof(wanted))
    if laddr != NULL:
        wanted = laddr[0]
    listener = listener_exact(tcp, &wanted, lport)
    if listener != NULL:
        listener.cc = <uint8_t>number


cdef int tcp_set_listener_option(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport, int option,
                                 uint32_t value) noexcept nogil:
    cdef ip_addr_t wanted
    cdef listener_t *listener
    memset(&wanted, 0, sizeof(wanted))
    if laddr != NULL:
        wanted = laddr[0]
    listener = listener_exact(tcp, &wanted, lport)
    if listener == NULL:
        return CALL_STATE
    if option == OPTION_MSS:
        listener.mss = <uint16_t>value
        tcp.own_mss = True
        return CALL_OK
    if option != OPTION_DEFER_ACCEPT_S:
        return CALL_UNSUPPORTED
    listener.deferred_syn_acks = syn_acks_within(tcp, value)
    return CALL_OK


cdef uint8_t syn_acks_within(const tcp_t *tcp, uint32_t seconds) noexcept nogil:
    """How many are sent again until then, after 1, 2, 4, ... times the initial RTO (timers)."""
    cdef uint8_t found = 0
    cdef uint64_t until_ns = seconds * 1000000000ULL
    while until_ns and found < MOST_SYN_ACKS and tcp.config.rto_initial_ns * ((1ULL << found) - 1) < until_ns:
        found += 1
    return found


cdef int tcp_unlisten(tcp_t *tcp, const ip_addr_t *laddr, uint16_t lport) noexcept nogil:
    """Half-open records stay: their last ACK finds no listener and is answered with RST."""
    cdef ip_addr_t wanted
    cdef listener_t *listener
    memset(&wanted, 0, sizeof(wanted))
    if laddr != NULL:
        wanted = laddr[0]
    listener = listener_exact(tcp, &wanted, lport)
    if listener == NULL or lport == 0:
        return CALL_STATE
    memset(listener, 0, sizeof(listener_t))
    note_move(tcp, LISTEN, CLOSED)
    return CALL_OK


cdef bint claim_flow(tcp_t *tcp, const flow_key_t *key) noexcept nogil:
    """True if the 4-tuple is free. A TIME-WAIT of ours gives way when timestamps tell the connections apart (RFC
    6191): not where the last one's may be ahead of the clock."""
    cdef flow_t flow = flow_find(tcp, key)
    if flow.kind == FLOW_NONE:
        return True
    if (flow.kind == FLOW_TIME_WAIT and tcp.config.timestamps and time_wait_at(tcp, flow.index).ts_recent != 0
            and not time_wait_at(tcp, flow.index).options & OPT_SLOW_TICKS):
        time_wait_remove(tcp, flow.index)
        return True
    return False


cdef inline bint candidate_is_free(tcp_t *tcp, flow_key_t *key, uint16_t lport, uint32_t sources,
                                   uint64_t number) noexcept nogil:
    """Writes our side of the key: the candidate with this number."""
    cdef uint64_t offset
    ip_source(tcp.ip, <uint32_t>(number % sources), &key.laddr)
    if lport == 0:
        key.lport = 0
        offset = siphash24(tcp.secret, key, sizeof(flow_key_t)) % EPHEMERAL_COUNT
        key.lport = <uint16_t>(EPHEMERAL_FIRST + (offset + number // sources) % EPHEMERAL_COUNT)
    return claim_flow(tcp, key)


cdef bint choose_local(tcp_t *tcp, flow_key_t *key, uint16_t lport) noexcept nogil:
    """The local address (MUST-44, MUST-45: one of ours) and port: lport or, if that is 0, an ephemeral one.

    The candidates for one destination stand in a circle: each of our addresses with one port, then each with the next.
    RFC 6056 section 3.3.4: a keyed offset for each pair of addresses, then upwards by a counter that the destination
    shares with few others. (By one that all shared, section 3.3.3, a server that we connect to could count our
    connections to others.) So our addresses fill evenly for each destination, and what is asked first is what has been
    in use for the longest time.

    That section looks at every candidate before it gives up, which is a stall where many side by side are taken. Here
    one search takes CANDIDATES_IN_A_ROW, then as many leaps, spread evenly over the circle (multiples of the golden
    ratio), so that a clump is left behind as soon as an eight hundredth of the circle in a row is free; what a leap
    finds may have been in use of late, as in section 3.3.1. Only the row moves the counter: the next search goes on
    where this one ended, so the last free candidate is found, by a later call, if not by this one.
    """
    cdef uint32_t sources = ip_sources(tcp.ip)
    cdef uint64_t candidates = sources if lport else <uint64_t>sources * EPHEMERAL_COUNT
    cdef uint32_t row = <uint32_t>candidates if candidates < CANDIDATES_IN_A_ROW else CANDIDATES_IN_A_ROW
    cdef uint32_t most = row if row == candidates else row + CANDIDATES_BY_LEAPS
    cdef uint64_t mixed, number
    cdef uint64_t *next_candidate
    cdef uint32_t taken = 0
    cdef bint found = False
    key.lport = lport
    mixed = siphash24(tcp.secret, key, sizeof(flow_key_t))  # of the destination: there is no laddr in it yet
    next_candidate = &tcp.candidate_next[mixed >> 56]
    while not found and taken < most:
        number = <uint32_t>mixed + next_candidate[0]
        if taken < row:
            next_candidate[0] += 1
        else:
            number += (<uint32_t>(taken * LEAP) >> 16) * candidates >> 16
        found = candidate_is_free(tcp, key, lport, sources, number)
        taken += not found
    turn_charge(tcp, taken)
    count_add(tcp.counters, CANDIDATES_TAKEN, taken)
    return found


cdef tcb_t *tcp_connect(tcp_t *tcp, const ip_addr_t *raddr, uint16_t rport, uint16_t lport, uint16_t app,
                        int *status) noexcept nogil:
    cdef flow_key_t key
    cdef tcb_t *tcb
    memset(&key, 0, sizeof(key))
    if rport == 0 or not ip_is_valid_remote(tcp.ip, raddr):
        status[0] = CALL_BAD_ADDRESS                     # MUST-46
        return NULL
    key.raddr = raddr[0]
    key.rport = rport
    if not choose_local(tcp, &key, lport):
        status[0] = CALL_IN_USE if lport else CALL_NO_PORT
        return NULL
    tcb = tcb_alloc(tcp)
    if tcb == NULL:
        status[0] = CALL_NO_MEMORY
        return NULL
    tcb.key = key
    if flow_insert(tcp, &tcb.key, FLOW_CONNECTION, tcb.index) != 0:
        tcb_release(tcp, tcb)
        status[0] = CALL_NO_MEMORY
        return NULL
    set_state(tcp, tcb, SYN_SENT)
    tcb.app = <uint8_t>app
    tcb.flags = TCB_ACTIVE
    tcb.smss = default_mss(&key.raddr)
    tcb.rcv_wscale = advertised_wscale(tcp) if tcp.config.window_scaling else 0
    tcb.snd_una = initial_sequence_number(tcp, &key)
    tcb.snd_nxt = tcb.snd_una
    tcb.snd_max = tcb.snd_una
    tcb.snd_end = tcb.snd_una + 1
    work_add(tcp, tcb)
    count(tcp.counters, CONNECTIONS_OPENED)
    trace_opened(tcp, tcb)
    status[0] = CALL_OK
    return tcb


# ---------------------------------------------------------------- SEND (section 3.10.2)

cdef uint32_t tcp_send_queued(const tcb_t *conn) noexcept nogil:
    return conn.snd_end - conn.snd_una if seq_gt(conn.snd_end, conn.snd_una) else 0


cdef uint32_t tcp_send_room(const tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef uint32_t queued = tcp_send_queued(conn), most = tcb_snd_queue(tcp, conn)
    if queued >= most or (
            conn.snd_end != conn.snd_max and tcb_unsent(conn) > tcb_unsent_low_water(tcp, conn)):
        return 0
    return most - queued


cdef int64_t tcp_send(tcp_t *tcp, tcb_t *conn, lent_t *lent, uint64_t offset, uint64_t length) noexcept nogil:
    cdef uint32_t room = tcp_send_room(tcp, conn)
    cdef uint32_t accepted = <uint32_t>length if length < room else room
    cdef send_piece_t *tail
    cdef uint32_t index, short_end
    if conn.flags & (TCB_FIN_QUEUED | TCB_ABORT) or (
            conn.state != ESTABLISHED and conn.state != CLOSE_WAIT
            and conn.state != SYN_SENT and conn.state != SYN_RECEIVED):
        return CALL_STATE
    if offset > lent.length or length > lent.length - offset:
        return CALL_BAD_ADDRESS
    if accepted == 0:
        return 0
    tail = send_piece_at(tcp, conn.snd_tail) if conn.snd_tail else NULL
    if tail != NULL and tail.lent == lent and tail.data + tail.length == lent.data + offset:
        tail.length += accepted             # the next slice of the same buffer
    else:
        index = slab_take(&tcp.send_pieces)
        if index == 0:
            return CALL_NO_MEMORY
        short_end = conn.snd_una            # none in flight
        if tail != NULL:
            tail.next = index
            short_end = tail.note
            if conn.snd_head == conn.snd_tail:
                tail.note = conn.snd_head   # the cursor, from now on
        else:
            conn.snd_head = index
        conn.snd_tail = index
        tail = send_piece_at(tcp, index)
        tail.note = short_end
        tail.lent = lent_ref(lent)
        tcp.lent_held += 1
        tail.data = lent.data + offset
        tail.length = accepted
        tail.seq = conn.snd_end
        tail.next = 0
    conn.snd_end += accepted
    work_add(tcp, conn)
    return accepted


cdef void tcp_want_writable(tcp_t *tcp, tcb_t *conn) noexcept nogil:
    conn.flags |= TCB_WANT_WRITABLE
    note_writable(tcp, conn)
    if tcp.config.measure:
        note_wait(tcp, conn)
    if conn.flags & TCB_EV_WRITABLE:
        work_add(tcp, conn)


# ---------------------------------------------------------------- RECEIVE (section 3.10.3)

cdef inline uint32_t unread(const tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef const rx_queue_t *rx = rx_queue_of(tcp, conn)
    return rx.queued_bytes if rx != NULL else 0


cdef uint32_t tcp_receivable(const tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    if conn.state == SYN_RECEIVED:
        return 0                            # text on a SYN is nobody's before the peer has proved to be there
    return unread(tcp, conn)


cdef size_t tcp_receive(tcp_t *tcp, tcb_t *conn, uint8_t *out, size_t length) noexcept nogil:
    cdef size_t copied = 0
    cdef uint32_t step
    cdef const uint8_t *data
    if tcp.offering == conn.index or conn.state == SYN_RECEIVED:
        return 0                            # on_data has them in its hands: it consumes by what it returns
    while copied < length:
        data = reassembly_peek(tcp, conn, 0, &step)
        if data == NULL:
            break
        if step > length - copied:
            step = <uint32_t>(length - copied)
        if out != NULL:
            memcpy(out + copied, data, step)
        reassembly_consume(tcp, conn, step)
        copied += step
    if copied > 0:
        conn.flags &= ~TCB_PAUSED
    if copied > 0 and conn.state != CLOSED:
        work_add(tcp, conn)                 # the window may be worth an announcement now
    return copied


cdef const uint8_t *tcp_peek(tcp_t *tcp, tcb_t *conn, uint32_t skip, uint32_t *length) noexcept nogil:
    if tcp.offering == conn.index or conn.state == SYN_RECEIVED:
        return NULL
    return reassembly_peek(tcp, conn, skip, length)


cdef void tcp_resume(tcp_t *tcp, tcb_t *conn) noexcept nogil:
    if conn.rx != 0 or tcp.offering == conn.index:
        conn.flags |= TCB_EV_DATA
        work_add(tcp, conn)


# ---------------------------------------------------------------- CLOSE, ABORT (sections 3.10.4, 3.10.5)

cdef void tcp_shutdown(tcp_t *tcp, tcb_t *conn) noexcept nogil:
    if conn.flags & (TCB_FIN_QUEUED | TCB_ABORT):
        return
    if conn.state == SYN_SENT:
        connection_end(tcp, conn, CLOSE_ABORTED)            # section 3.10.4: delete the TCB
        return
    if conn.state == ESTABLISHED:
        set_state(tcp, conn, FIN_WAIT_1)
    elif conn.state == CLOSE_WAIT:
        set_state(tcp, conn, LAST_ACK)
    elif conn.state != SYN_RECEIVED:        # there the FIN waits for ESTABLISHED
        return
    conn.flags |= TCB_FIN_QUEUED
    work_add(tcp, conn)


cdef void tcp_close(tcp_t *tcp, tcb_t *conn) noexcept nogil:
    if conn.flags & TCB_CLOSED_BY_APP or conn.state == CLOSED:
        return
    if unread(tcp, conn) > 0 and tcp.offering != conn.index:
        tcp_abort(tcp, conn)                                # SHLD-3: unread data is lost, say so
        return
    if conn.state != SYN_SENT and tcp.orphans >= tcp.config.max_orphans:
        count(tcp.counters, ORPHANS_REFUSED)
        tcp_abort(tcp, conn)
        return
    conn.flags = (conn.flags & ~TCB_WANT_WRITABLE) | TCB_CLOSED_BY_APP
    deadline_clear(conn, DEADLINE_APPLICATION)
    tcp.orphans += 1
    tcp_shutdown(tcp, conn)
    if conn.state == FIN_WAIT_2:
        tcp_set_timeout(tcp, conn, tcb_fin_wait_2_ns(tcp, conn))


cdef void tcp_abort(tcp_t *tcp, tcb_t *conn) noexcept nogil:
    if conn.state == CLOSED:
        return
    conn.close_reason = CLOSE_ABORTED
    conn.flags |= TCB_ABORT
    work_add(tcp, conn)


# ---------------------------------------------------------------- settings

cdef void tcp_set_timeout(tcp_t *tcp, tcb_t *conn, uint64_t after_ns) noexcept nogil:
    deadline_clear(conn, DEADLINE_APPLICATION)
    conn.flags &= ~TCB_EV_TIMEOUT           # nor is one told that was due and not told yet
    if after_ns == 0 or conn.state == CLOSED:
        return
    deadline_set(tcp, conn, DEADLINE_APPLICATION, after_ns)


cdef void tcp_set_nodelay(tcp_t *tcp, tcb_t *conn, bint on) noexcept nogil:
    if on:
        conn.flags |= TCB_NODELAY
        work_add(tcp, conn)                 # what Nagle held back may go
    else:
        conn.flags &= ~TCB_NODELAY


cdef void tcp_set_keepalive(tcp_t *tcp, tcb_t *conn, bint on) noexcept nogil:
    if on:
        conn.flags |= TCB_KEEPALIVE
        deadlines_arm(tcp, conn)
    else:
        conn.flags &= ~TCB_KEEPALIVE


cdef int tcp_set_cc(tcp_t *tcp, tcb_t *conn, int number) noexcept nogil:
    if not 0 <= number < TCP_MAX_CC or tcp.cc[number] == NULL:
        return CALL_UNSUPPORTED
    if conn.state == CLOSED:
        return CALL_STATE
    if control_change(tcp, conn, number) != 0:
        return CALL_NO_MEMORY
    work_add(tcp, conn)                     # its window may be wider
    return CALL_OK


cdef int set_marks(tcp_t *tcp, tcb_t *conn, uint32_t low_water_bytes, uint32_t unsent_low_water_bytes) noexcept nogil:
    if conn.state == CLOSED:
        return CALL_STATE
    return CALL_OK if marks_set(tcp, conn, low_water_bytes, unsent_low_water_bytes) == 0 else CALL_NO_MEMORY


cdef int tcp_set_low_water(tcp_t *tcp, tcb_t *conn, uint32_t wanted_bytes) noexcept nogil:
    return set_marks(tcp, conn, usable_low_water(&tcp.config, wanted_bytes), tcb_unsent_low_water(tcp, conn))


cdef int tcp_set_unsent_low_water(tcp_t *tcp, tcb_t *conn, uint32_t wanted_bytes) noexcept nogil:
    return set_marks(tcp, conn, tcb_low_water(tcp, conn), usable_unsent_low_water(&tcp.config, wanted_bytes))


cdef void tcp_set_tos(tcb_t *conn, uint8_t tos) noexcept nogil:
    conn.tos = <uint8_t>((tos & ~IPV4_ECN_MASK) | (conn.tos & IPV4_ECN_MASK))     # ECN is not the application's


cdef void tcp_set_ttl(tcb_t *conn, uint8_t ttl) noexcept nogil:
    conn.ttl = ttl


cdef inline listener_t *listener_of(tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef listener_t *listener = listener_find(tcp, &conn.key.laddr, conn.key.lport)
    return listener if listener != NULL and listener.app == conn.app else NULL


cdef void tcp_waiting(tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef listener_t *listener = listener_of(tcp, conn)
    if listener != NULL:
        listener.waiting += 1


cdef void tcp_taken(tcp_t *tcp, const tcb_t *conn) noexcept nogil:
    cdef listener_t *listener = listener_of(tcp, conn)
    cdef ip_addr_t any_address
    if listener == NULL or listener.waiting == 0:
        # That of any address has counted it, before the one of its own address was there.
        memset(&any_address, 0, sizeof(any_address))
        listener = listener_exact(tcp, &any_address, conn.key.lport)
    if listener != NULL and listener.app == conn.app and listener.waiting > 0:
        listener.waiting -= 1

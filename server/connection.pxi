# SPDX-License-Identifier: MIT
# One connection, request by request: answer, wait, linger, close. Included by http.pyx.
#
# A request whose response TCP takes at once leaves nothing behind: no record, user_data 0. Everything else is a busy_t
# in one of five phases:
#
#     (idle) ──part of a head──▶ HEAD ──▶ (answer)            (answer) ──TCP takes a part──▶ SENDING ──▶ (end)
#            ──head with body──▶ BODY ──▶ (answer)                     ──a mapped file──────▶ DRAIN ───▶ (end)
#     (end): idle again, or LINGER and then tcp_close; tcp_close at once where nothing is left to deliver


cdef inline busy_t *busy_of(server_t *server, const tcb_t *conn) noexcept nogil:
    cdef uint32_t index = <uint32_t>(conn.user_data & BUSY_MASK)
    return <busy_t *>slab_at(&server.busy, index) if index else NULL


cdef busy_t *busy_take(server_t *server, tcb_t *conn, phase_t phase) noexcept nogil:
    """A record for the connection. NULL at the limit."""
    cdef uint32_t index = slab_alloc(&server.busy)
    cdef busy_t *busy
    if index == 0:
        server.stats.busy_refused += 1
        return NULL
    busy = <busy_t *>slab_at(&server.busy, index)
    busy.phase = <uint8_t>phase
    busy.file = NO_FILE
    conn.user_data = index
    return busy


cdef busy_t *busy_begin(server_t *server, tcp_t *tcp, tcb_t *conn, phase_t phase) noexcept nogil:
    """A record for the connection. NULL at the limit: the connection is then aborted."""
    cdef busy_t *busy = busy_take(server, conn, phase)
    if busy == NULL:
        connection_abort(server, tcp, conn)
    return busy


# ---------------------------------------------------------------- what is kept of unfinished requests
#
# A head that has not ended, and a head whose body is awaited, stay in memory for up to head_timeout_ns: at most
# max_head_bytes for a connection, and max_request_bytes for all of them. When those are used up, the request that is
# unfinished for longest makes room (503), as the oldest half-open connection does in TCP (RFC 4987 section 3.2): an
# honest request is unfinished for a round trip or two, and is overtaken only by a flood that fills all of it in that
# time.

cdef void request_release(server_t *server, busy_t *busy) noexcept nogil:
    """What was kept of the request is not any more."""
    if busy.held_bytes == 0:
        return
    server.request_bytes -= busy.held_bytes
    busy.held_bytes = 0
    if busy.older:
        (<busy_t *>slab_at(&server.busy, busy.older)).newer = busy.newer
    else:
        server.request_oldest = busy.newer
    if busy.newer:
        (<busy_t *>slab_at(&server.busy, busy.newer)).older = busy.older
    else:
        server.request_newest = busy.older
    busy.older = 0
    busy.newer = 0


cdef void request_hold(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, uint32_t more_bytes) noexcept nogil:
    """Count what is kept of a request, after others have made room for it."""
    cdef busy_t *oldest
    while server.request_bytes + more_bytes > server.max_request_bytes and server.request_oldest:
        oldest = <busy_t *>slab_at(&server.busy, server.request_oldest)
        if oldest == busy:
            break                       # it alone fits, by the bounds on a head
        server.stats.requests_displaced += 1
        if oldest.phase == PHASE_HEAD or oldest.phase == PHASE_BODY:
            refuse_held(server, tcp, oldest.conn, oldest, 503)
        else:
            connection_abort(server, tcp, oldest.conn)      # a 100 is half sent: nothing can follow it
    if busy.held_bytes == 0:
        busy.conn = conn
        busy.older = server.request_newest
        busy.newer = 0
        if server.request_newest:
            (<busy_t *>slab_at(&server.busy, server.request_newest)).newer = <uint32_t>(conn.user_data & BUSY_MASK)
        else:
            server.request_oldest = <uint32_t>(conn.user_data & BUSY_MASK)
        server.request_newest = <uint32_t>(conn.user_data & BUSY_MASK)
    busy.held_bytes += more_bytes
    server.request_bytes += more_bytes


cdef void busy_clear(server_t *server, tcb_t *conn, busy_t *busy) noexcept nogil:
    """Give back everything that the record names; the record stays, empty."""
    request_release(server, busy)
    if busy.phase == PHASE_SENDING:
        # Cut off: what is logged is what was handed to TCP and acknowledged.
        busy_log(server, conn, busy, busy.body_left + tcp_send_queued(conn))
    free(busy.head)
    if busy.first != NULL:
        lent_unref(busy.first)
    if busy.body != NULL:
        lent_unref(busy.body)
    if busy.log_text != NULL:
        lent_unref(busy.log_text)
    if busy.pending != NULL:
        decision_free(busy.pending)
    memset(busy, 0, sizeof(busy_t))
    busy.file = NO_FILE


cdef void busy_end(server_t *server, tcb_t *conn) noexcept nogil:
    """Give back what the connection holds, if anything."""
    cdef busy_t *busy = busy_of(server, conn)
    if busy == NULL:
        return
    busy_clear(server, conn, busy)
    slab_release(&server.busy, <uint32_t>(conn.user_data & BUSY_MASK))
    conn.user_data &= ~BUSY_MASK


cdef void busy_log(server_t *server, tcb_t *conn, busy_t *busy, uint64_t missing) noexcept nogil:
    if busy.log_text == NULL:
        return
    log_keep(&server.log, server.second, &conn.key.raddr, busy.log_text, busy.log_split, busy.status,
             busy.body_bytes - missing if missing < busy.body_bytes else 0)
    lent_unref(busy.log_text)
    busy.log_text = NULL


cdef void mark_closing(server_t *server, tcb_t *conn) noexcept nogil:
    """The rest is TCP's: no upcall but on_closed means anything any more."""
    if not conn.user_data & CLOSING:
        server.stats.connections_ending += 1
    conn.user_data = CLOSING


cdef void connection_abort(server_t *server, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    busy_end(server, conn)
    mark_closing(server, conn)
    tcp_abort(tcp, conn)


cdef void connection_leave(server_t *server, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    """tcp_close: nothing of ours is left to deliver, or nobody can be waited for."""
    busy_end(server, conn)
    mark_closing(server, conn)
    tcp_close(tcp, conn)
    if tcp_send_queued(conn):
        # No upcall comes any more. A peer that keeps its window shut must not keep the rest for ever (RFC 6429).
        tcp_set_timeout(tcp, conn, server.send_timeout_ns)


cdef void connection_close(server_t *server, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    """End it; what is queued is still delivered."""
    if tcp_send_queued(conn):
        connection_linger(server, tcp, conn)
    else:
        connection_leave(server, tcp, conn)


cdef void connection_idle(server_t *server, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    conn.user_data = 0
    tcp_set_timeout(tcp, conn, server.idle_timeout_ns)


# ---------------------------------------------------------------- lingering
#
# RFC 9112 section 9.6: a server that closes at once risks that the client's next bytes are answered with a RST, which
# destroys the response that the client has not read. So: FIN behind the response, then read and discard until the
# client's FIN, or for linger_ns after the last byte was acknowledged. How long the acknowledgements may take is bounded
# by send_timeout_ns since the last one that brought something, not by how long the response is.

cdef void connection_linger(server_t *server, tcp_t *tcp, tcb_t *conn) noexcept nogil:
    cdef busy_t *busy = busy_of(server, conn)
    cdef uint8_t eof = busy.flags & B_EOF if busy != NULL else 0
    if busy != NULL:
        if busy.phase == PHASE_LINGER:
            return
        busy_clear(server, conn, busy)
    else:
        busy = busy_take(server, conn, PHASE_LINGER)
        if busy == NULL:
            connection_leave(server, tcp, conn)
            return
    busy.phase = PHASE_LINGER
    busy.flags = eof
    busy.left = server.linger_bytes
    busy.seen_queued = tcp_send_queued(conn)
    busy.progress_ns = server.now_ns
    conn.user_data &= BUSY_MASK
    tcp_shutdown(tcp, conn)
    tcp_set_timeout(tcp, conn, server.linger_ns)
    if tcp_receivable(tcp, conn):
        tcp_resume(tcp, conn)


cdef size_t linger_data(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, size_t length) noexcept nogil:
    """PHASE_LINGER: discard. The bound in bytes counts once the response has arrived: until then a RST could destroy
    it, and the time is bounded all the same."""
    busy.left = busy.left - length if length < busy.left else 0
    if busy.left == 0 and tcp_send_queued(conn) == 0:
        connection_leave(server, tcp, conn)
    return length


cdef void linger_timeout(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy) noexcept nogil:
    """PHASE_LINGER, once in linger_ns: has the rest been acknowledged, or a part of it?"""
    cdef uint32_t queued = tcp_send_queued(conn)
    if queued == 0 and busy.seen_queued == 0:
        connection_leave(server, tcp, conn)         # acknowledged for at least linger_ns
        return
    if queued < busy.seen_queued:
        busy.seen_queued = queued
        busy.progress_ns = server.now_ns
    elif server.now_ns - busy.progress_ns >= server.send_timeout_ns:
        server.stats.stalled_aborted += 1
        connection_abort(server, tcp, conn)
        return
    tcp_set_timeout(tcp, conn, server.linger_ns)


cdef void response_end(server_t *server, tcp_t *tcp, tcb_t *conn, uint8_t flags) noexcept nogil:
    """The response is TCP's now. flags: busy_flags_t."""
    if flags & B_EOF:
        connection_close(server, tcp, conn)         # the client sends nothing any more
    elif flags & B_CLOSE or server.finishing:
        connection_linger(server, tcp, conn)
    else:
        busy_end(server, conn)
        connection_idle(server, tcp, conn)


# ---------------------------------------------------------------- answering

cdef void respond(server_t *server, tcp_t *tcp, tcb_t *conn, decision_t *decision) noexcept nogil:
    """Queue the response. The decision is only borrowed, and may be freed afterwards."""
    cdef ready_t *ready = &decision.own
    cdef lent_t *body = NULL
    cdef uint64_t length, body_bytes
    cdef int64_t accepted, followed = 0
    cdef bint mapped = False
    cdef busy_t *busy = busy_of(server, conn)
    cdef uint8_t flags = busy.flags & B_EOF if busy != NULL else 0
    if decision.flags & D_FULL:
        ready = &server.files[decision.file].variant[decision.variant].full[decision.form]
    elif decision.shared:
        ready = &server.shared[decision.shared - 1]
    ready_refresh(server, ready)
    length = ready.head_length if decision.flags & D_HEAD_ONLY else ready.lent.length
    body_bytes = length - ready.head_length
    if decision.body_length and not decision.flags & D_HEAD_ONLY:
        body = server.files[decision.file].variant[decision.variant].body
        mapped = server.files[decision.file].variant[decision.variant].mapped
        body_bytes += decision.body_length
    if decision.flags & D_CLOSE:
        flags |= B_CLOSE
    server.stats.requests += 1
    server.stats.responses[decision.status // 100] += 1
    server.stats.bytes_queued += ready.head_length + body_bytes
    accepted = tcp_send(tcp, conn, ready.lent, 0, length)
    if accepted == <int64_t>length and body != NULL and not mapped:
        followed = tcp_send(tcp, conn, body, decision.body_at, decision.body_length)
        if followed < 0:
            accepted = followed
    if accepted == <int64_t>length and (body == NULL or followed == <int64_t>decision.body_length):
        if decision.log_text != NULL:
            log_keep(&server.log, server.second, &conn.key.raddr, decision.log_text, decision.log_split,
                     decision.status, body_bytes)
        response_end(server, tcp, conn, flags)
        return
    if accepted < 0:
        connection_abort(server, tcp, conn)
        return
    if busy == NULL:
        busy = busy_begin(server, tcp, conn, PHASE_SENDING)
        if busy == NULL:
            return
    busy.phase = PHASE_SENDING
    busy.flags = flags
    busy.status = decision.status
    busy.body_bytes = body_bytes
    busy.first = lent_ref(ready.lent)
    busy.first_at = <uint64_t>accepted
    busy.first_left = length - <uint64_t>accepted
    if body != NULL:
        busy.body = lent_ref(body)
        busy.body_at = decision.body_at + <uint64_t>followed
        busy.body_left = decision.body_length - <uint64_t>followed
        if mapped:
            busy.flags |= B_MAPPED
        busy.file = decision.file
        busy.generation = decision.generation
    if decision.log_text != NULL:
        busy.log_text = lent_ref(decision.log_text)
        busy.log_split = decision.log_split
    tcp_set_timeout(tcp, conn, server.send_timeout_ns)
    send_more(server, tcp, conn, busy)


cdef void send_more(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy) noexcept nogil:
    """PHASE_SENDING: hand over what TCP takes."""
    cdef int64_t accepted
    if damaged(server, busy):
        server.stats.damaged_aborted += 1
        connection_abort(server, tcp, conn)
        return
    if busy.first_left:
        accepted = tcp_send(tcp, conn, busy.first, busy.first_at, busy.first_left)
        if accepted < 0:
            connection_abort(server, tcp, conn)
            return
        busy.first_at += <uint64_t>accepted
        busy.first_left -= <uint64_t>accepted
    if busy.body_left and not busy.first_left:
        accepted = tcp_send(tcp, conn, busy.body, busy.body_at, busy.body_left)
        if accepted < 0:
            connection_abort(server, tcp, conn)
            return
        busy.body_at += <uint64_t>accepted
        busy.body_left -= <uint64_t>accepted
    if busy.first_left or busy.body_left:
        tcp_want_writable(tcp, conn)
        return
    if busy.flags & B_BODY:
        busy.flags &= ~B_BODY
        lent_unref(busy.first)
        busy.first = NULL
        busy.phase = PHASE_BODY
        if busy.flags & B_EOF:
            connection_close(server, tcp, conn)
        return
    busy_log(server, conn, busy, 0)
    if not busy.flags & B_MAPPED:
        response_end(server, tcp, conn, busy.flags)
        return
    # Segments will still be built from the mapping; if the file is cut meanwhile, the end must not look like success.
    busy.phase = PHASE_DRAIN
    tcp_want_writable(tcp, conn)


cdef bint damaged(server_t *server, busy_t *busy) noexcept nogil:
    """Was the mapped file cut under this response? Looks at the disk only for what no fault has told."""
    if not busy.flags & B_MAPPED:
        return False
    if busy.file != NO_FILE and server.files[busy.file].generation == busy.generation:
        file_fresh(server, &server.files[busy.file])
    return busy.body.damaged != 0


cdef void drain(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy) noexcept nogil:
    """PHASE_DRAIN, after on_writable or a timeout: little or nothing is unacknowledged."""
    if damaged(server, busy):
        server.stats.damaged_aborted += 1
        connection_abort(server, tcp, conn)
    elif tcp_send_queued(conn) == 0 or busy.flags & (B_CLOSE | B_EOF) or server.finishing:
        response_end(server, tcp, conn, busy.flags)
        if not conn.user_data & CLOSING:
            tcp_resume(tcp, conn)
    else:
        busy.flags |= B_TAIL            # looked at again with the next request, or soon
        tcp_set_timeout(tcp, conn, server.linger_ns)
        tcp_resume(tcp, conn)


# ---------------------------------------------------------------- requests

cdef void answer(server_t *server, tcp_t *tcp, tcb_t *conn, decision_t *decision) noexcept nogil:
    """Respond, at once or after the request's body. Takes a decision that is not remembered."""
    if not decision.flags & D_CHUNKED and decision.request_body == 0:
        respond(server, tcp, conn, decision)
        if not decision.flags & D_REMEMBERED:
            decision_free(decision)
        return
    cdef busy_t *busy = busy_of(server, conn)
    if busy == NULL:
        busy = busy_begin(server, tcp, conn, PHASE_BODY)
        if busy == NULL:
            decision_free(decision)
            return
    busy.phase = PHASE_BODY
    busy.left = decision.request_body
    busy.chunks.left = server.max_body_bytes
    busy.pending = decision
    request_hold(server, tcp, conn, busy, sizeof(decision_t) + decision.head_length)
    tcp_set_timeout(tcp, conn, server.head_timeout_ns)
    if decision.flags & D_CONTINUE:
        busy.phase = PHASE_SENDING
        busy.flags = B_BODY
        busy.first = lent_ref(server.continue_100)
        busy.first_left = busy.first.length
        send_more(server, tcp, conn, busy)


cdef void answer_head(server_t *server, tcp_t *tcp, tcb_t *conn, const uint8_t *head, size_t length) noexcept nogil:
    """One complete head: from memory, as a plain one, or by one call of the parser."""
    cdef uint64_t hashed
    cdef decision_t *decision
    if length > server.max_head_bytes:
        refuse(server, tcp, conn, 431, head, length)
        return
    hashed = siphash13(server.hash_key, head, length)
    decision = head_lookup(server, head, length, hashed) if not server.finishing else NULL
    if decision != NULL:
        if decision_valid(server, decision):
            server.stats.head_hits += 1
            decision.referenced = 1
            server.last = decision
            answer(server, tcp, conn, decision)
            return
        head_drop(server, decision)
    server.stats.head_misses += 1
    decision = decide_plain(server, head, length, hashed)
    if decision == NULL:
        decision = decide_unseen(server, head, length, hashed)
    if decision == NULL:
        connection_abort(server, tcp, conn)
        return
    answer(server, tcp, conn, decision)


cdef void refuse(server_t *server, tcp_t *tcp, tcb_t *conn, int status, const uint8_t *head,
                 size_t length) noexcept nogil:
    """End the connection with an error for what is not, or not yet, a complete head."""
    cdef decision_t *decision = decide_refusal(server, status, head, length)
    if decision == NULL:
        connection_abort(server, tcp, conn)
        return
    answer(server, tcp, conn, decision)


cdef inline bint starts_no_request(uint8_t first) noexcept nogil:
    """No method begins with it: TLS, noise. Nothing is waited for then."""
    return first <= 0x20 or first >= 0x7f


cdef bint too_long(server_t *server, tcp_t *tcp, tcb_t *conn, const uint8_t *head, size_t length) noexcept nogil:
    """Refuse a head that is beyond a limit before it is complete."""
    if (length > server.max_request_line_bytes
            and memchr(head, c'\n', server.max_request_line_bytes + 1) == NULL):
        refuse(server, tcp, conn, 414, head, length)
        return True
    if length > server.max_head_bytes:
        refuse(server, tcp, conn, 431, head, length)
        return True
    return False


cdef size_t request(server_t *server, tcp_t *tcp, tcb_t *conn, const uint8_t *data, size_t length) noexcept nogil:
    """Nothing is going on: data begins a request. Returns the octets used, never 0."""
    cdef decision_t *last = server.last
    cdef size_t end
    cdef bint broken, complete = False
    cdef int fault
    cdef busy_t *busy
    if (last != NULL and length >= last.head_length and memcmp(data, last.head, last.head_length) == 0
            and decision_valid(server, last)):
        # The same head as before, as clients in a hurry send it. It ends with its first empty line, so this one does.
        server.stats.head_hits += 1
        last.referenced = 1
        end = last.head_length
        respond(server, tcp, conn, last)
        return end
    if length >= 2 and data[0] == c'\r' and data[1] == c'\n':
        return 2                        # an empty line before a request is passed over (RFC 9112 section 2.2)
    if starts_no_request(data[0]) and (data[0] != c'\r' or length >= 2):
        refuse(server, tcp, conn, 400, data, length)
        return length
    end = head_end(data, length, 0, &broken)
    if broken:
        refuse(server, tcp, conn, 400, data, length)
        return length
    if end:
        answer_head(server, tcp, conn, data, end)
        return end
    if data[0] != c'\r':
        fault = line_fault(server, data, length, &complete)
        if fault:
            refuse(server, tcp, conn, fault, data, length)
            return length
    if too_long(server, tcp, conn, data, length):
        return length
    busy = busy_begin(server, tcp, conn, PHASE_HEAD)
    if busy == NULL:
        return length
    if complete:
        busy.flags |= B_LINE
    tcp_set_timeout(tcp, conn, server.head_timeout_ns)
    return head_append(server, tcp, conn, busy, data, length)


cdef size_t head_append(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, const uint8_t *data,
                        size_t length) noexcept nogil:
    """Keep the octets of a head that is not complete. Returns how many were kept: all, or up to the limit."""
    cdef size_t wanted = busy.head_length + length
    cdef uint32_t capacity
    cdef uint8_t *grown
    if wanted > <size_t>server.max_head_bytes + 1:
        wanted = <size_t>server.max_head_bytes + 1
        length = wanted - busy.head_length
    if wanted > busy.head_capacity:
        capacity = <uint32_t>(wanted * 2 if wanted > 256 else 512)
        if capacity > server.max_head_bytes + 1:
            capacity = server.max_head_bytes + 1
        request_hold(server, tcp, conn, busy, capacity - busy.head_capacity)
        busy.head_capacity = capacity
        grown = <uint8_t *>realloc(busy.head, capacity)
        if grown == NULL:
            connection_abort(server, tcp, conn)
            return length
        busy.head = grown
    memcpy(busy.head + busy.head_length, data, length)
    busy.head_length += <uint32_t>length
    return length


cdef size_t head_more(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, const uint8_t *data,
                      size_t length) noexcept nogil:
    """PHASE_HEAD: the next octets. Returns how many belong to this head."""
    cdef size_t before = busy.head_length, used = head_append(server, tcp, conn, busy, data, length), end
    cdef uint8_t *head
    cdef bint broken, complete = False
    cdef int fault
    if conn.user_data & CLOSING:
        return length
    if busy.head[0] == c'\r':
        # An empty line that came in two parts, or no request at all.
        if busy.head_length < 2:
            return used
        head = busy.head
        broken = head[1] != c'\n'
        if broken:
            refuse_held(server, tcp, conn, busy, 400)
            return length
        busy_end(server, conn)
        connection_idle(server, tcp, conn)
        return 2 - before
    end = head_end(busy.head, busy.head_length, before, &broken)
    if broken:
        refuse_held(server, tcp, conn, busy, 400)
        return length
    if end == 0:
        if not busy.flags & B_LINE:
            fault = line_fault(server, busy.head, busy.head_length, &complete)
            if fault:
                refuse_held(server, tcp, conn, busy, fault)
                return length
            if complete:
                busy.flags |= B_LINE
        if busy.head_length > server.max_head_bytes or (
                busy.head_length > server.max_request_line_bytes
                and memchr(busy.head, c'\n', server.max_request_line_bytes + 1) == NULL):
            head = busy.head
            busy.head = NULL
            request_release(server, busy)
            too_long(server, tcp, conn, head, busy.head_length)
            free(head)
            return length
        return used
    # The head leaves the record before it is answered: the record may go away meanwhile.
    head = busy.head
    busy.head = NULL
    busy_end(server, conn)
    conn.user_data = 0
    answer_head(server, tcp, conn, head, end)
    free(head)
    return end - before


cdef void refuse_held(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, int status) noexcept nogil:
    """PHASE_HEAD, PHASE_BODY: refuse what has been kept of a request. Nothing of it is kept then, however much of the
    response TCP takes."""
    cdef uint8_t *head = busy.head
    cdef decision_t *pending = busy.pending
    busy.head = NULL
    busy.pending = NULL
    request_release(server, busy)
    if pending != NULL:
        refuse(server, tcp, conn, status, pending.head, pending.head_length)
        decision_free(pending)
    else:
        refuse(server, tcp, conn, status, head, busy.head_length)
    free(head)


cdef size_t body_more(server_t *server, tcp_t *tcp, tcb_t *conn, busy_t *busy, const uint8_t *data,
                      size_t length) noexcept nogil:
    """PHASE_BODY: discard the request's body, then answer. Returns the octets that belong to it."""
    cdef decision_t *pending
    cdef size_t used = length if length < busy.left else <size_t>busy.left
    cdef int verdict = 0
    if busy.pending.flags & D_CHUNKED:
        verdict = chunks_read(&busy.chunks, data, length, &used)
    else:
        busy.left -= used
        if busy.left == 0:
            verdict = 1
    if verdict == 0:
        return used
    if verdict != 1:
        refuse_held(server, tcp, conn, busy, verdict)
        return length
    pending = busy.pending
    busy.pending = NULL
    pending.flags &= ~D_CHUNKED
    pending.request_body = 0
    if pending.flags & D_FULL or pending.body_length:
        if not decision_valid(server, pending):
            # The file changed while the body came: decide again. What was parsed once parses again.
            answer_again(server, tcp, conn, pending)
            return used
    busy_end(server, conn)
    conn.user_data = 0
    answer(server, tcp, conn, pending)
    return used


cdef void answer_again(server_t *server, tcp_t *tcp, tcb_t *conn, decision_t *stale) noexcept nogil:
    cdef decision_t *decision = decide_unseen(server, stale.head, stale.head_length, 0)
    decision_free(stale)
    busy_end(server, conn)
    conn.user_data = 0
    if decision == NULL:
        connection_abort(server, tcp, conn)
        return
    decision.flags &= ~(D_CHUNKED | D_CONTINUE)
    decision.request_body = 0
    answer(server, tcp, conn, decision)

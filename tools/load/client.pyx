# SPDX-License-Identifier: MIT
"""A load client over any transport. See client.pxd; records.pxd has what it keeps."""

from libc.stdint cimport INT64_MAX, UINT8_MAX, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, CALL_NO_PORT, CALL_NO_ROUTE, CLOSE_HOST_UNREACHABLE, CLOSE_NET_UNREACHABLE,
    CLOSE_REFUSED, CLOSE_RESET, CLOSE_TIMEOUT, OPTION_NODELAY, Transport, application_t, close_reason_t, conn_t,
    transport_t, turn_charge)
from ustack.base.address cimport ip_addr_from_text
from ustack.base.arguments cimport whole
from ustack.base.bytestring cimport data_of, size_of
from ustack.buf.lent cimport lent_from_copy, lent_unref
from ustack.tools.load.histogram cimport Histogram, histogram_record
from ustack.tools.load.records cimport (
    CLIENT_BEHIND, CLIENT_CLOSED, CLIENT_DUE, CLIENT_IDLE, CLIENT_LISTED, CLIENT_OPENING, CLIENT_PARTING, CLIENT_TIMED,
    CLIENT_WAITING, OUTCOME_BAD_LENGTH, OUTCOME_BODY, OUTCOME_CLOSED, OUTCOME_CUT, OUTCOME_HEAD_TOO_LONG, OUTCOME_KINDS,
    OUTCOME_LENGTH, OUTCOME_MALFORMED, OUTCOME_NO_PORT, OUTCOME_OK, OUTCOME_OPEN_FAILED, OUTCOME_OPEN_TIMEOUT,
    OUTCOME_REFUSED, OUTCOME_RESET, OUTCOME_STATUS, OUTCOME_TIMEOUT, OUTCOME_UNANSWERED, OUTCOME_UNASKED,
    OUTCOME_UNREACHABLE, OUTCOME_UNSENT, STATUS_CLASSES, client_t, list_t, load_t, outcome_t, question_t, tally_t)
from ustack.tools.load.responses cimport (
    READ_BAD_LENGTH, READ_COMPLETE, READ_HEAD_TOO_LONG, READ_MORE, READ_NO_MEMORY, RESPONSE_BEGUN, RESPONSE_HASHED,
    RESPONSE_LAST, RESPONSE_TO_HEAD, response_begin, response_end, response_forget, response_read)
from ustack.tools.load.schedule cimport schedule_advance, schedule_init, schedule_start

cdef enum:
    PUMP_MOST = 1024                        # connections opened, or asked on, between two turns
    PAUSE_NS = 100000000                    # before a connection that could not be opened is tried again
    ENDS_MOST = 16                          # connections without an answer in a row, opened one after the other
    RESPONSE_UNITS = 2                      # of a turn, for reading a small one (turn_charge)
    HASH_UNIT_SHIFT = 7                     # bytes hashed for one unit more
    READ_STEPS_PER_SECOND = 10              # of a slow reader, unless it is told how large they are; but
    READ_STEP_BYTES_LEAST = 1448            # no smaller ones: a segment on Ethernet, with timestamps
    READ_STEP_BYTES_MOST = 1 << 29          # the largest window
    CONNECTIONS_MOST = 1 << 28
    QUESTIONS_MOST = 1 << 20

# By outcome_t.
OUTCOMES = ("ok", "refused", "open timeout", "unreachable", "no port", "open failed", "reset", "closed", "cut",
            "timeout", "malformed", "head too long", "bad length", "unasked", "status", "length", "body",
            "unanswered", "unsent")


# ---------------------------------------------------------------- lists

cdef inline uint32_t number_of(const load_t *load, const client_t *client) noexcept nogil:
    return <uint32_t>(client - load.clients) + 1


cdef inline void append_closed(load_t *load, list_t *clients, client_t *client) noexcept nogil:
    cdef uint32_t number = number_of(load, client)
    client.next_closed = 0
    if clients.last:
        load.clients[clients.last - 1].next_closed = number
    else:
        clients.first = number
    clients.last = number


cdef inline client_t *pop_closed(load_t *load, list_t *clients) noexcept nogil:
    cdef client_t *client
    if clients.first == 0:
        return NULL
    client = &load.clients[clients.first - 1]
    clients.first = client.next_closed
    if clients.first == 0:
        clients.last = 0
    return client


cdef inline void append_idle(load_t *load, client_t *client) noexcept nogil:
    cdef uint32_t number = number_of(load, client)
    if client.flags & CLIENT_LISTED:
        return
    client.flags |= CLIENT_LISTED
    client.next_idle = 0
    if load.idle.last:
        load.clients[load.idle.last - 1].next_idle = number
    else:
        load.idle.first = number
    load.idle.last = number


cdef inline client_t *pop_idle(load_t *load) noexcept nogil:
    """The one that has been idle for longest. Those that are idle no more are dropped on the way."""
    cdef client_t *client
    while load.idle.first:
        client = &load.clients[load.idle.first - 1]
        load.idle.first = client.next_idle
        if load.idle.first == 0:
            load.idle.last = 0
        client.flags &= <uint8_t>~CLIENT_LISTED
        if client.state == CLIENT_IDLE:
            return client
    return NULL


# ---------------------------------------------------------------- counting

cdef inline bint in_window(const load_t *load, uint64_t due_ns) noexcept nogil:
    return load.measured_from_ns <= due_ns < load.until_ns


cdef inline void count_outcome(load_t *load, outcome_t kind, uint64_t due_ns) noexcept nogil:
    load.all.outcomes[<int>kind] += 1
    if in_window(load, due_ns):
        load.measured.outcomes[<int>kind] += 1


cdef inline bint has_no_response(outcome_t kind) noexcept nogil:
    """It ended without a whole response, right or wrong."""
    return OUTCOME_REFUSED <= kind <= OUTCOME_TIMEOUT or kind == OUTCOME_UNANSWERED or kind == OUTCOME_UNSENT


cdef void count_failure(load_t *load, outcome_t kind, uint64_t due_ns) noexcept nogil:
    """Of a request that was due: one without a response has waited until now, at least."""
    count_outcome(load, kind, due_ns)
    if has_no_response(kind) and in_window(load, due_ns):
        histogram_record(load.unanswered, load.now_ns - due_ns)


cdef inline void count_response(tally_t *tally, const client_t *client) noexcept nogil:
    tally.statuses[client.response.status // 100] += 1
    tally.body_bytes += client.response.body_bytes


cdef outcome_t judge(load_t *load, const client_t *client) noexcept nogil:
    """A complete response: is it what was to come?"""
    cdef question_t *question = &load.questions[client.question]
    cdef uint32_t status = client.response.status
    if status != load.expected_status if load.expected_status else status // 100 != 2:
        return OUTCOME_STATUS
    if not (load.any_length or load.to_head):
        if question.body_bytes == UINT64_MAX:
            question.body_bytes = client.response.body_bytes
        elif question.body_bytes != client.response.body_bytes:
            return OUTCOME_LENGTH
    if client.response.flags & RESPONSE_HASHED:
        load.hashed += 1
        if not question.has_hash:
            question.hash = client.response.hash
            question.has_hash = True
        elif question.hash != client.response.hash:
            return OUTCOME_BODY
    return OUTCOME_OK


# ---------------------------------------------------------------- one connection

cdef inline client_t *client_of(const conn_t *conn) noexcept nogil:
    """NULL: we have left it, or are about to."""
    cdef client_t *client = <client_t *>conn.user_data
    return NULL if client == NULL or client.state == CLIENT_PARTING else client


cdef inline void forget(client_t *client) noexcept nogil:
    client.conn.user_data = 0
    client.conn = NULL
    client.state = CLIENT_CLOSED


cdef inline void gone(const conn_t *conn) noexcept nogil:
    """It has ended before we have left it: load_part must not."""
    cdef client_t *client = <client_t *>conn.user_data
    if client != NULL:
        forget(client)


cdef void leave(load_t *load, client_t *client) noexcept nogil:
    """The connection is none of ours any more, whatever still comes."""
    release(load, client)
    forget(client)


cdef void release(load_t *load, client_t *client) noexcept nogil:
    """It counts for none any more."""
    if client.state == CLIENT_OPENING:
        load.opening -= 1
    else:
        load.open -= 1
        if client.state == CLIENT_WAITING:
            load.waiting -= 1
    response_forget(&load.reader, &client.response)
    client.flags &= CLIENT_LISTED
    if client.ends < UINT8_MAX:
        client.ends += 1


cdef void again(load_t *load, client_t *client, bint pause) noexcept nogil:
    """Open it again: at once, or after a while where that has just failed, or where so many have ended in a row
    without an answer: a server that accepts and resets is not pressed harder than one that refuses."""
    if pause or client.ends > ENDS_MOST:
        client.due_ns = load.now_ns + PAUSE_NS
        append_closed(load, &load.later, client)
    elif load.keeps_alive or not may_ask(load):
        append_closed(load, &load.closed, client)
    else:
        client.due_ns = take_due(load)
        client.flags |= CLIENT_DUE
        open_one(load, client)


cdef void part(load_t *load, client_t *client, bint aborts) noexcept nogil:
    """Its connection ends, by a RST or in order, and it may have another."""
    cdef conn_t *conn = client.conn
    leave(load, client)
    if aborts:
        load.transport.abort(load.transport, conn)
    else:
        load.transport.close(load.transport, conn)
    again(load, client, False)


cdef void fail(load_t *load, client_t *client, outcome_t kind, bint aborts) noexcept nogil:
    """The request under way has failed, and the connection with it."""
    count_failure(load, kind, client.due_ns)
    part(load, client, aborts)


cdef void fail_opening(load_t *load, client_t *client, outcome_t kind) noexcept nogil:
    """It could not be opened. With a request that was due on it, that one has failed."""
    if client.flags & CLIENT_DUE:
        count_failure(load, kind, client.due_ns)
    else:
        count_outcome(load, kind, load.now_ns)
    client.flags &= CLIENT_LISTED
    again(load, client, True)


cdef void open_one(load_t *load, client_t *client) noexcept nogil:
    cdef const transport_t *transport = load.transport
    cdef int status = 0
    cdef conn_t *conn = transport.connect(transport, &load.server, load.port, 0, load.app, &status)
    if conn == NULL:
        if status == CALL_NO_PORT:
            fail_opening(load, client, OUTCOME_NO_PORT)
        else:
            fail_opening(load, client, OUTCOME_UNREACHABLE if status == CALL_NO_ROUTE else OUTCOME_OPEN_FAILED)
        return
    conn.user_data = <uint64_t>client
    client.conn = conn
    client.state = CLIENT_OPENING
    client.asked_ns = load.now_ns
    client.flags |= CLIENT_TIMED
    load.opening += 1
    transport.set_timeout(transport, conn, load.timeout_ns)


# ---------------------------------------------------------------- asking

cdef inline bint may_ask(const load_t *load) noexcept nogil:
    """Is a request due now?"""
    if load.schedule.per_second > 0:
        return load.schedule.due_ns <= load.now_ns
    return (load.measured_from_ns != UINT64_MAX and load.now_ns < load.until_ns
            and (load.requests_most == 0 or load.taken < load.requests_most))


cdef inline uint64_t take_due(load_t *load) noexcept nogil:
    """When the request that is sent now was due."""
    cdef uint64_t due_ns = load.now_ns
    load.taken += 1
    if load.schedule.per_second > 0:
        due_ns = load.schedule.due_ns
        schedule_advance(&load.schedule)
    return due_ns


cdef void ask(load_t *load, client_t *client, uint64_t due_ns) noexcept nogil:
    cdef const transport_t *transport = load.transport
    cdef question_t *question = &load.questions[load.next_question]
    cdef uint8_t flags = RESPONSE_TO_HEAD if load.to_head else 0
    client.question = load.next_question
    load.next_question += 1
    if load.next_question == load.question_count:
        load.next_question = 0
    if load.hash_every:
        if load.hash_left == 0:
            load.hash_left = load.hash_every
            flags |= RESPONSE_HASHED
        load.hash_left -= 1
    response_begin(&client.response, flags)
    client.due_ns = due_ns
    client.asked_ns = load.now_ns
    client.state = CLIENT_WAITING
    load.waiting += 1
    load.all.requests += 1
    if in_window(load, due_ns):
        load.measured.requests += 1
    if (transport.send(transport, client.conn, question.bytes, 0, question.bytes.length)
            != <int64_t>question.bytes.length):
        fail(load, client, OUTCOME_RESET, True)         # it is ending already
        return
    if not client.flags & CLIENT_TIMED:
        client.flags |= CLIENT_TIMED
        transport.set_timeout(transport, client.conn, load.timeout_ns)


cdef inline void go_on(load_t *load, client_t *client) noexcept nogil:
    """It is idle: ask, or wait to be asked on."""
    if may_ask(load):
        ask(load, client, take_due(load))
    else:
        append_idle(load, client)


cdef void complete(load_t *load, client_t *client, bint more_came) noexcept nogil:
    """A response is there. more_came: and bytes that nobody has asked for."""
    cdef outcome_t kind = OUTCOME_UNASKED if more_came else judge(load, client)
    load.latest_ns = load.now_ns
    client.ends = 0
    count_outcome(load, kind, client.due_ns)
    count_response(&load.all, client)
    if in_window(load, client.due_ns):
        count_response(&load.measured, client)
        if kind == OUTCOME_OK:
            histogram_record(load.latency, load.now_ns - client.due_ns)
            load.in_time += load.now_ns < load.until_ns
    if not more_came and load.keeps_alive and not client.response.flags & RESPONSE_LAST:
        load.waiting -= 1
        client.state = CLIENT_IDLE
        go_on(load, client)
        return
    part(load, client, more_came)


# ---------------------------------------------------------------- slow readers

cdef inline void fill_up(load_t *load, client_t *client) noexcept nogil:
    """What its line has brought. One that was idle does not catch up, so a step at most; one whose reader was late has
    gone on meanwhile, so that the rate is what was asked for, however busy this process is."""
    client.allowance += load.read_per_ns * <double>(load.now_ns - client.read_at_ns)
    client.read_at_ns = load.now_ns
    if client.allowance > load.step_bytes and not client.flags & CLIENT_BEHIND:
        client.allowance = load.step_bytes
    client.flags &= <uint8_t>~CLIENT_BEHIND


cdef inline uint32_t step_of(const load_t *load, size_t there) noexcept nogil:
    """What is read next of so many bytes that are there."""
    return load.step_bytes if there > load.step_bytes else <uint32_t>there


cdef uint32_t read_now(load_t *load, client_t *client, size_t there) noexcept nogil:
    """Of so many bytes that are there. A step is read whole, or what there is if that is less: its reader waits until
    that much has come over its line. Bytes read one by one would open the window by what no segment is worth. Who is
    late reads all steps that have come meanwhile."""
    cdef uint32_t wanted = step_of(load, there)
    cdef double steps
    if client.step_left == 0:
        fill_up(load, client)
        if client.allowance < wanted:
            read_later(load, client, wanted)
            return 0
        steps = client.allowance // load.step_bytes * load.step_bytes
        if steps > wanted:
            wanted = <uint32_t>min(steps, <double>there)
        client.allowance -= wanted
        client.step_left = wanted
    return client.step_left


cdef void read_later(load_t *load, client_t *client, uint32_t wanted) noexcept nogil:
    """As soon as so many bytes may be read."""
    cdef double missing = wanted - client.allowance
    client.flags |= CLIENT_TIMED
    load.transport.set_timeout(load.transport, client.conn,
                               <uint64_t>(missing / load.read_per_ns) + 1 if missing > 0 else 1)


# ---------------------------------------------------------------- upcalls

cdef inline load_t *load_of(application_t *app) noexcept nogil:
    return <load_t *>app.context


cdef void on_burst_begin(application_t *app, uint64_t now_ns) noexcept nogil:
    load_of(app).now_ns = now_ns


cdef int on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef load_t *load = load_of(app)
    cdef client_t *client = client_of(conn)
    if client == NULL:
        gone(conn)
        return ACCEPT_REFUSED
    load.opening -= 1
    load.open += 1
    if load.open > load.most_open:
        load.most_open = load.open
    load.all.opened += 1
    if in_window(load, load.now_ns):
        load.measured.opened += 1
    histogram_record(load.opened, load.now_ns - client.asked_ns)
    client.state = CLIENT_IDLE
    client.read_at_ns = load.now_ns
    client.allowance = 0
    client.step_left = 0
    transport.set_option(transport, conn, OPTION_NODELAY, 1)
    if client.flags & CLIENT_DUE:
        client.flags &= <uint8_t>~CLIENT_DUE
        ask(load, client, client.due_ns)
    else:
        go_on(load, client)
    return ACCEPT_TAKEN


cdef outcome_t outcome_of_reading(int status) noexcept nogil:
    if status == READ_HEAD_TOO_LONG:
        return OUTCOME_HEAD_TOO_LONG
    if status == READ_BAD_LENGTH:
        return OUTCOME_BAD_LENGTH
    return OUTCOME_OPEN_FAILED if status == READ_NO_MEMORY else OUTCOME_MALFORMED


cdef size_t on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                    size_t length) noexcept nogil:
    cdef load_t *load = load_of(app)
    cdef client_t *client = client_of(conn)
    cdef size_t used = 0, take = length, there = length
    cdef int status
    if client == NULL:
        return length
    if client.state != CLIENT_WAITING:
        # Before any request: none has failed, but the server is no good one.
        count_outcome(load, OUTCOME_UNASKED, load.now_ns)
        leave(load, client)
        transport.abort(transport, conn)
        again(load, client, True)
        return length
    if load.read_per_ns > 0:
        there = max(length, transport.receivable(transport, conn))     # a frame is in no queue
        take = read_now(load, client, there)
        if take == 0:
            return 0
        if take > length:
            take = length
        client.step_left -= <uint32_t>take
        client.asked_ns = load.now_ns       # it gets on: its timeout is one of silence
    status = response_read(&load.reader, &client.response, data, take, &used)
    turn_charge(transport, RESPONSE_UNITS)
    load.all.bytes += used
    if in_window(load, load.now_ns):
        load.measured.bytes += used
        if load.readings != NULL:
            load.readings[client - load.clients] += used
    if client.response.flags & RESPONSE_HASHED:
        turn_charge(transport, <uint32_t>(used >> HASH_UNIT_SHIFT))
    if status == READ_MORE:
        if take < length:
            read_later(load, client, step_of(load, there - take))
        return take
    if status == READ_COMPLETE:
        client.allowance += client.step_left            # of the next response
        client.step_left = 0
        complete(load, client, used < length)
    else:
        fail(load, client, outcome_of_reading(status), True)
    return length


cdef void on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    return


cdef void on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef load_t *load = load_of(app)
    cdef client_t *client = client_of(conn)
    if client == NULL:
        return
    if client.state == CLIENT_WAITING:
        if client.response.flags & RESPONSE_BEGUN and response_end(&client.response) == READ_COMPLETE:
            complete(load, client, False)
        else:
            fail(load, client, OUTCOME_CUT if client.response.flags & RESPONSE_BEGUN else OUTCOME_CLOSED, False)
        return
    closed_idle(load, client)
    transport.close(transport, conn)


cdef void closed_idle(load_t *load, client_t *client) noexcept nogil:
    """The server has ended a connection on which nothing was asked: no request has failed."""
    load.all.closed_idle += 1
    if in_window(load, load.now_ns):
        load.measured.closed_idle += 1
    leave(load, client)
    again(load, client, False)


cdef void on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef load_t *load = load_of(app)
    cdef client_t *client = client_of(conn)
    cdef uint64_t passed_ns
    if client == NULL:
        return
    client.flags &= <uint8_t>~CLIENT_TIMED
    if client.state == CLIENT_OPENING:
        leave_opening(load, client, OUTCOME_OPEN_TIMEOUT)
        transport.abort(transport, conn)
        return
    if client.state != CLIENT_WAITING:
        return
    if load.read_per_ns > 0 and transport.receivable(transport, conn) > 0:
        client.flags |= CLIENT_TIMED | CLIENT_BEHIND
        transport.set_timeout(transport, conn, load.timeout_ns)     # on_data sets a shorter one if it leaves something
        transport.resume(transport, conn)
        return
    # It was set for an earlier request: moving it for each would cost more than asking here.
    passed_ns = load.now_ns - client.asked_ns
    if passed_ns >= load.timeout_ns:
        fail(load, client, OUTCOME_TIMEOUT, True)
        return
    client.flags |= CLIENT_TIMED
    transport.set_timeout(transport, conn, load.timeout_ns - passed_ns)


cdef void leave_opening(load_t *load, client_t *client, outcome_t kind) noexcept nogil:
    cdef bint due = client.flags & CLIENT_DUE != 0
    leave(load, client)
    if due:
        client.flags |= CLIENT_DUE          # whose request this was
    fail_opening(load, client, kind)


cdef outcome_t outcome_of_opening(close_reason_t reason) noexcept nogil:
    if reason == CLOSE_REFUSED or reason == CLOSE_RESET:
        return OUTCOME_REFUSED
    if reason == CLOSE_TIMEOUT:
        return OUTCOME_OPEN_TIMEOUT
    if reason == CLOSE_NET_UNREACHABLE or reason >= CLOSE_HOST_UNREACHABLE:
        return OUTCOME_UNREACHABLE
    return OUTCOME_OPEN_FAILED


cdef void on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                    close_reason_t reason) noexcept nogil:
    cdef load_t *load = load_of(app)
    cdef client_t *client = client_of(conn)
    cdef uint64_t due_ns
    if client == NULL:
        gone(conn)
        return
    if client.state == CLIENT_OPENING:
        leave_opening(load, client, outcome_of_opening(reason))
    elif client.state == CLIENT_WAITING:
        due_ns = client.due_ns
        leave(load, client)
        count_failure(load, OUTCOME_TIMEOUT if reason == CLOSE_TIMEOUT else OUTCOME_RESET, due_ns)
        again(load, client, False)
    else:
        closed_idle(load, client)


# ---------------------------------------------------------------- between turns

cdef void start(load_t *load, uint64_t from_ns) noexcept nogil:
    """Requests are made from now on, and count from then on."""
    load.measured_from_ns = from_ns
    load.until_ns = from_ns + load.duration_ns if load.duration_ns < UINT64_MAX - from_ns else UINT64_MAX
    schedule_start(&load.schedule, load.now_ns, load.until_ns)


cdef uint32_t may_be_open(const load_t *load) noexcept nogil:
    """By the ramp. One connection at least."""
    cdef double share
    if load.ramp_ns == 0 or load.now_ns - load.began_ns >= load.ramp_ns:
        return load.count
    share = <double>(load.now_ns - load.began_ns) / <double>load.ramp_ns
    return <uint32_t>(share * (load.count - 1)) + 1


cdef inline bint is_past(const load_t *load) noexcept nogil:
    """No request will be made any more."""
    if load.schedule.per_second > 0:
        return load.now_ns >= load.until_ns and load.schedule.due_ns == UINT64_MAX
    return load.now_ns >= load.until_ns or (load.requests_most and load.taken >= load.requests_most)


cdef uint32_t open_some(load_t *load) noexcept nogil:
    # One first: few packets may wait for an answer to ARP, and a SYN that is dropped there costs a second.
    cdef uint32_t most = load.openings_most if load.all.opened else 1
    cdef uint32_t left = PUMP_MOST
    cdef client_t *client
    while load.later.first and load.clients[load.later.first - 1].due_ns <= load.now_ns:
        append_closed(load, &load.closed, pop_closed(load, &load.later))
    while left > 0 and load.closed.first and load.opening < most and not load.ending:
        if load.keeps_alive:
            if load.open + load.opening >= may_be_open(load) or is_past(load):
                break
            client = pop_closed(load, &load.closed)
        else:
            if not may_ask(load) or load.open + load.opening >= may_be_open(load):
                break
            client = pop_closed(load, &load.closed)
            client.due_ns = take_due(load)
            client.flags |= CLIENT_DUE
        open_one(load, client)
        left -= 1
    return left


cdef uint64_t load_pump(load_t *load, uint64_t now_ns) noexcept nogil:
    cdef uint32_t left
    cdef client_t *client
    cdef uint64_t next_ns
    load.now_ns = now_ns
    if load.ending:
        return UINT64_MAX
    left = open_some(load)
    if load.measured_from_ns == UINT64_MAX and (
            load.open == load.count or now_ns - load.began_ns >= load.timeout_ns):
        start(load, now_ns)                 # all are open, or have had their time
    while left > 0 and may_ask(load):
        client = pop_idle(load)
        if client == NULL:
            break
        ask(load, client, take_due(load))
        left -= 1
    if left == 0:
        return now_ns
    next_ns = load.until_ns if load.measured_from_ns != UINT64_MAX else load.began_ns + load.timeout_ns
    if next_ns <= now_ns:
        next_ns = UINT64_MAX                # load_is_over says whether it is
    if load.later.first and load.clients[load.later.first - 1].due_ns < next_ns:
        next_ns = load.clients[load.later.first - 1].due_ns
    if load.schedule.due_ns < next_ns and (load.idle.first or (load.closed.first and not load.keeps_alive)):
        next_ns = load.schedule.due_ns
    if (load.closed.first and now_ns - load.began_ns < load.ramp_ns
            and load.ramp_ns // load.count < next_ns - now_ns):
        next_ns = now_ns + load.ramp_ns // load.count
    return next_ns if next_ns > now_ns else now_ns


cdef bint load_is_over(const load_t *load) noexcept nogil:
    if load.measured_from_ns == UINT64_MAX:
        return False
    if load.until_ns < UINT64_MAX - load.timeout_ns and load.now_ns >= load.until_ns + load.timeout_ns:
        return True
    if load.waiting or (load.opening and not load.keeps_alive):
        return False
    return is_past(load)


cdef void load_finish(load_t *load, uint64_t now_ns) noexcept nogil:
    cdef uint32_t i
    cdef client_t *client
    load.now_ns = now_ns
    load.ending = True
    for i in range(load.count):
        client = &load.clients[i]
        if client.state in (CLIENT_CLOSED, CLIENT_PARTING):
            continue
        if client.state == CLIENT_WAITING or client.flags & CLIENT_DUE:
            count_failure(load, OUTCOME_UNANSWERED, client.due_ns)
        release(load, client)
        client.state = CLIENT_PARTING
    while load.schedule.due_ns != UINT64_MAX and load.schedule.due_ns < now_ns:
        count_failure(load, OUTCOME_UNSENT, load.schedule.due_ns)
        schedule_advance(&load.schedule)
    load.schedule.due_ns = UINT64_MAX
    if load.until_ns > now_ns:
        load.until_ns = now_ns


cdef bint load_part(load_t *load) noexcept nogil:
    cdef client_t *client
    cdef conn_t *conn
    cdef uint32_t most = PARTED_AT_ONCE
    while load.parted < load.count and most > 0:
        client = &load.clients[load.parted]
        load.parted += 1
        if client.state != CLIENT_PARTING:
            continue
        most -= 1
        conn = client.conn
        forget(client)
        load.transport.close(load.transport, conn)
    return load.parted < load.count


# ---------------------------------------------------------------- the Python face

cdef dict tally_of(const tally_t *tally):
    cdef int i
    return {
        "requests": tally.requests,
        "outcomes": {OUTCOMES[i]: tally.outcomes[i] for i in range(<int>OUTCOME_KINDS) if tally.outcomes[i]},
        "statuses": {f"{i}xx": tally.statuses[i] for i in range(<int>STATUS_CLASSES) if tally.statuses[i]},
        "bytes": tally.bytes,
        "body_bytes": tally.body_bytes,
        "opened": tally.opened,
        "closed_idle": tally.closed_idle,
    }


cdef dict readers_of(const load_t *load, uint64_t measured_ns):
    """How evenly slow readers were served (summary.py says what each means)."""
    cdef double due = load.read_per_ns * measured_ns, total = 0, squares = 0
    cdef uint64_t least = UINT64_MAX, most = 0, read_bytes
    cdef uint32_t i, served = 0
    for i in range(load.count):
        read_bytes = load.readings[i]
        total += read_bytes
        squares += <double>read_bytes * read_bytes
        least = min(least, read_bytes)
        most = max(most, read_bytes)
        served += read_bytes > 0 and read_bytes + <double>load.step_bytes >= due
    return {
        "step_bytes": load.step_bytes,
        "due_bytes": due,
        "least_bytes": least,
        "most_bytes": most,
        "served": served,
        "fairness": total * total / (load.count * squares) if squares else 0.0,
    }


cdef uint32_t whole_step(double bytes_per_second, uint32_t given):
    """What a slow reader reads at once."""
    cdef double step = bytes_per_second / READ_STEPS_PER_SECOND
    if given:
        return given
    if step < READ_STEP_BYTES_LEAST:
        return READ_STEP_BYTES_LEAST
    return <uint32_t>step if step < READ_STEP_BYTES_MOST else READ_STEP_BYTES_MOST


cdef class LoadClient(Application):
    """LoadClient(server, port, requests, *, connections=1, keep_alive=True, rate=0.0, poisson=False, ramp_ns=0,
timeout_ns=10_000_000_000, requests_most=0, read_bytes_per_second=0.0, read_step_bytes=0, to_head=False, status=0,
any_length=False, bodies=None, hash_every=64, openings=256, seed=1)
--

    Asks `server` (an IPv4 address) for `requests`, in turn, on so many connections.

    requests: whole requests as they go on the wire; with keep_alive=False they should say that the connection ends.
    rate: per second, 0: closed loop. poisson: gaps that vary as with independent users. ramp_ns: the rate and the
    connections grow to the whole within this time, which is not measured. timeout_ns: for a connection to open, and for
    a response; of a slow reader's, for silence. requests_most: ends a closed loop. read_bytes_per_second: what each
    connection reads, read_step_bytes at once (0: those of a tenth of a second, or 1,448): by so much its window opens
    each time, where that is less than the window. status: what every response must have; 0: any of class 2xx. bodies:
    (bytes, hash of responses or None) of each request's response, where it is known. hash_every: one response in so
    many is hashed; 0: none. openings: handshakes under way at once.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.load, 0, sizeof(load_t))
        self.latency = Histogram()
        self.unanswered = Histogram()
        self.opened = Histogram()
        self.load.latency = self.latency.c
        self.load.unanswered = self.unanswered.c
        self.load.opened = self.opened.c
        self.load.app = &self.c
        self.c.context = &self.load
        self.c.on_accept = on_accept
        self.c.on_data = on_data
        self.c.on_writable = on_writable
        self.c.on_eof = on_eof
        self.c.on_timeout = on_timeout
        self.c.on_closed = on_closed
        self.c.on_burst_begin = on_burst_begin

    def __init__(self, server: str, port: int, requests: list[bytes], *, connections: int = 1,
                 keep_alive: bool = True, rate: float = 0.0, poisson: bool = False, ramp_ns: int = 0,
                 timeout_ns: int = 10_000_000_000, requests_most: int = 0, read_bytes_per_second: float = 0.0,
                 read_step_bytes: int = 0, to_head: bool = False, status: int = 0, any_length: bool = False,
                 bodies: list[tuple[int, int | None]] | None = None, hash_every: int = 64, openings: int = 256,
                 seed: int = 1) -> None:
        cdef load_t *load = &self.load
        if load.clients != NULL:
            raise RuntimeError("a load client is initialised once")
        ip_addr_from_text(server, &load.server)
        load.port = <uint16_t>whole("port", port, 1, 65535)
        load.count = <uint32_t>whole("connections", connections, 1, CONNECTIONS_MOST)
        load.keeps_alive = keep_alive
        load.to_head = to_head
        load.any_length = any_length
        load.hash_every = <uint32_t>whole("hash_every", hash_every, 0, 0xFFFFFFFF)
        load.openings_most = <uint32_t>whole("openings", openings, 1, CONNECTIONS_MOST)
        load.timeout_ns = <uint64_t>whole("timeout_ns", timeout_ns, 1000000, INT64_MAX)
        load.ramp_ns = <uint64_t>whole("ramp_ns", ramp_ns, 0, INT64_MAX)
        load.requests_most = <uint64_t>whole("requests_most", requests_most, 0, INT64_MAX)
        load.expected_status = <uint32_t>whole("status", status, 0, 599)
        if not 0 <= rate <= 1e9 or not 0 <= read_bytes_per_second <= 1e12:
            raise ValueError("rates: from 0 to 1e9 requests per second, to 1e12 bytes per second")
        if rate and requests_most:
            raise ValueError("requests_most is for a closed loop: a rate and a duration say how many there are")
        load.read_per_ns = read_bytes_per_second / 1e9
        load.step_bytes = whole_step(read_bytes_per_second,
                                     <uint32_t>whole("read_step_bytes", read_step_bytes, 0, READ_STEP_BYTES_MOST))
        if not keep_alive:
            load.openings_most = load.count
        schedule_init(&load.schedule, rate, poisson, load.ramp_ns, <uint64_t>whole("seed", seed, 0, UINT64_MAX))
        self.make_questions(list(requests), bodies)
        load.clients = <client_t *>calloc(load.count, sizeof(client_t))
        if load.clients == NULL:
            raise MemoryError
        if read_bytes_per_second:
            load.readings = <uint64_t *>calloc(load.count, sizeof(uint64_t))
            if load.readings == NULL:
                raise MemoryError

    cdef void make_questions(self, list requests, object bodies) except *:
        cdef load_t *load = &self.load
        cdef question_t *question
        cdef bytes text
        if not 0 < len(requests) <= QUESTIONS_MOST:
            raise ValueError(f"requests: 1 to {QUESTIONS_MOST}")
        if bodies is not None and len(bodies) != len(requests):
            raise ValueError("bodies: one for each request")
        load.questions = <question_t *>calloc(len(requests), sizeof(question_t))
        if load.questions == NULL:
            raise MemoryError
        for number, text in enumerate(requests):
            question = &load.questions[load.question_count]
            question.bytes = lent_from_copy(data_of(text), size_of(text))
            if question.bytes == NULL:
                raise MemoryError
            load.question_count += 1
            question.body_bytes = UINT64_MAX
            if bodies is not None:
                question.body_bytes = bodies[number][0]
                if bodies[number][1] is not None:
                    question.hash = bodies[number][1]
                    question.has_hash = True

    def __dealloc__(self) -> None:
        cdef uint32_t i
        if self.load.clients != NULL:
            for i in range(self.load.count):
                response_forget(&self.load.reader, &self.load.clients[i].response)
        for i in range(self.load.question_count):
            lent_unref(self.load.questions[i].bytes)
        free(self.load.questions)
        free(self.load.readings)
        free(self.load.clients)

    cdef void begin_at(self, uint64_t now_ns, uint64_t duration_ns) except *:
        """On the transport that it is registered with."""
        cdef load_t *load = &self.load
        cdef uint32_t i
        if load.transport != NULL:
            raise RuntimeError("a load client runs once")
        load.transport = self.transport
        load.now_ns = now_ns
        load.began_ns = now_ns
        load.measured_from_ns = UINT64_MAX
        load.until_ns = UINT64_MAX
        load.duration_ns = duration_ns
        for i in range(load.count):
            append_closed(load, &load.closed, &load.clients[i])
        if load.ramp_ns or not load.keeps_alive:
            start(load, now_ns + load.ramp_ns)

    def begin(self, transport: Transport, duration_ns: int | None = None) -> None:
        """Begin on a transport, which is then to be driven with this client (driver). duration_ns: of the measured
        part; None: until it is ended."""
        cdef uint64_t now_ns
        transport.enter("LoadClient.begin()")
        try:
            now_ns = transport.now()
            transport.register(self)
            self.owner = transport
            self.begin_at(now_ns, UINT64_MAX if duration_ns is None
                          else <uint64_t>whole("duration_ns", duration_ns, 1, INT64_MAX))
        finally:
            transport.leave()

    def stats(self) -> dict[str, object]:
        """What was counted: `all` from the beginning, `measured` of requests due in the measured part."""
        cdef load_t *load = &self.load
        started = load.measured_from_ns != UINT64_MAX
        ended_ns = min(load.now_ns, load.until_ns)
        measured_ns = ended_ns - load.measured_from_ns if started and ended_ns > load.measured_from_ns else 0
        return {
            "all": tally_of(&load.all),
            "measured": tally_of(&load.measured),
            "measured_ns": measured_ns,
            "readers": None if load.readings == NULL else readers_of(load, measured_ns),
            "opened_in_ns": load.measured_from_ns - load.began_ns if started and load.keeps_alive else None,
            "in_time": load.in_time,
            "due": load.schedule.taken,
            "hashed": load.hashed,
            "open": load.open,
            "most_open": load.most_open,
            "opening": load.opening,
            "waiting": load.waiting,
            "interim": load.reader.interim,
            "heads_known": load.reader.heads_known,
            "held_bytes": load.reader.held_bytes,
            "lengths": [None if load.questions[i].body_bytes == UINT64_MAX else load.questions[i].body_bytes
                        for i in range(load.question_count)],
        }

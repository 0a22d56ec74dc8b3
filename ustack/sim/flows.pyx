# SPDX-License-Identifier: MIT
"""What hosts say to each other. See flows.pxd."""

from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, CALL_NO_MEMORY, CLOSE_ABORTED, CLOSE_NET_UNREACHABLE, CLOSE_NO_MEMORY, OPTION_CC,
    OPTION_NODELAY, application_t, close_reason_t, conn_t, transport_t)
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.engine.transport cimport engine_of, tcb_of
from ustack.sim.records cimport (
    FLOW_ENDED, FLOW_OPEN, FLOW_PORT, PATTERN_BULK, PATTERN_CHUNKS, PATTERN_REQUESTS, SINK_PORT)
from ustack.tcp.records.flight cimport REXMIT_CAUSES, rexmit_cause_t
from ustack.tcp.records.history cimport history_of, history_t, resent_by
from ustack.tcp.records.tcb cimport tcb_t, tcp_t
from ustack.tcp.recovery.rtt cimport rtt_min_us
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES
from ustack.wire.ipv4 cimport IPV4_FRAGMENT_OFFSET
from ustack.wire.octets cimport read_u16, read_u32
from ustack.wire.seq cimport seq_diff
from ustack.wire.tcp cimport SYN, TCP_HEADER_BYTES

cdef enum:
    TIMES_MIN = 64
    TIMES_MAX = 1 << 20                     # response times that a flow keeps
    PROTOCOL_TCP = 6


cdef inline net_t *net_of(const application_t *app) noexcept nogil:
    return <net_t *>app.context


cdef inline flow_t *flow_of(const conn_t *conn) noexcept nogil:
    return <flow_t *>conn.user_data


# ---------------------------------------------------------------- sending
cdef bint feed(net_t *net, const transport_t *transport, conn_t *conn, uint64_t *queued,
               uint64_t wanted) noexcept nogil:
    """Hand over what is wanted and was not. Whether all of it is; if not, on_writable goes on."""
    cdef int64_t taken
    cdef uint64_t length
    while queued[0] < wanted:
        length = wanted - queued[0]
        if length > net.text.length:
            length = net.text.length
        taken = transport.send(transport, conn, net.text, 0, length)
        if taken > 0:
            queued[0] += <uint64_t>taken
        if taken < <int64_t>length:
            break
    if queued[0] < wanted:
        transport.want_writable(transport, conn)
        return False
    return True


cdef void send_on(net_t *net, const transport_t *transport, conn_t *conn, flow_t *flow) noexcept nogil:
    if not feed(net, transport, conn, &flow.queued, flow.wanted):
        return
    if flow.size != 0 and flow.queued >= flow.size and flow.pattern != PATTERN_REQUESTS:
        transport.shutdown(transport, conn)


cdef void next_chunk(net_t *net, const transport_t *transport, conn_t *conn, flow_t *flow) noexcept nogil:
    """And those whose time has come since: a timer's tick is longer than some intervals."""
    cdef uint64_t due = (net.now_ns - flow.asked_ns) // flow.every_ns + 1
    flow.asked_ns += due * flow.every_ns
    flow.wanted += due * flow.chunk_bytes
    if flow.size != 0 and flow.wanted >= flow.size:
        flow.wanted = flow.size
    else:
        transport.set_timeout(transport, conn, flow.asked_ns - net.now_ns)
    send_on(net, transport, conn, flow)


cdef void next_request(net_t *net, const transport_t *transport, conn_t *conn, flow_t *flow) noexcept nogil:
    flow.asked_ns = net.now_ns
    flow.wanted += flow.request_bytes
    send_on(net, transport, conn, flow)


cdef void note_time(flow_t *flow, uint64_t taken_ns) noexcept nogil:
    cdef uint64_t capacity = flow.times_capacity * 2 if flow.times_capacity else TIMES_MIN
    cdef uint64_t *grown
    if flow.times_count == flow.times_capacity:
        if flow.times_count >= TIMES_MAX:
            return
        grown = <uint64_t *>realloc(flow.times, capacity * sizeof(uint64_t))
        if grown == NULL:
            return
        flow.times = grown
        flow.times_capacity = capacity
    flow.times[flow.times_count] = taken_ns
    flow.times_count += 1


# ---------------------------------------------------------------- upcalls of who opens
cdef int sender_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef net_t *net = net_of(app)
    cdef flow_t *flow = flow_of(conn)
    if flow == NULL:
        return ACCEPT_REFUSED
    flow.first_ns = net.now_ns
    if flow.pattern == PATTERN_BULK:
        flow.wanted = flow.size if flow.size else UINT64_MAX
        send_on(net, transport, conn, flow)
    elif flow.pattern == PATTERN_CHUNKS:
        flow.asked_ns = net.now_ns
        next_chunk(net, transport, conn, flow)
    else:
        next_request(net, transport, conn, flow)
    return ACCEPT_TAKEN


cdef size_t sender_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                           size_t length) noexcept nogil:
    cdef net_t *net = net_of(app)
    cdef flow_t *flow = flow_of(conn)
    flow.answered += length
    if flow.pattern != PATTERN_REQUESTS or flow.answered < flow.wanted // flow.request_bytes * flow.response_bytes:
        return length
    flow.responses += 1
    note_time(flow, net.now_ns - flow.asked_ns)
    if flow.count and flow.responses >= flow.count:
        transport.shutdown(transport, conn)
    elif flow.think_ns:
        transport.set_timeout(transport, conn, flow.think_ns)
    else:
        next_request(net, transport, conn, flow)
    return length


cdef void sender_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    send_on(net_of(app), transport, conn, flow_of(conn))


cdef void sender_on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef flow_t *flow = flow_of(conn)
    if flow.pattern == PATTERN_CHUNKS:
        next_chunk(net_of(app), transport, conn, flow)
    else:
        next_request(net_of(app), transport, conn, flow)


cdef void either_on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    transport.close(transport, conn)


cdef void sender_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                           close_reason_t reason) noexcept nogil:
    cdef net_t *net = net_of(app)
    cdef flow_t *flow = flow_of(conn)
    if flow != NULL:
        flow_ask(net, flow)
        flow.sender = NULL
        flow.reason = <uint8_t>reason
        flow_ended(net, flow)


# ---------------------------------------------------------------- upcalls of who listens
cdef int receiver_on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef net_t *net = net_of(app)
    cdef uint32_t index = transport.endpoints(transport, conn).rport - FLOW_PORT
    if (index >= net.flow_count or net.flows[index].receiver != NULL
            or net.nodes[net.flows[index].end].engine != engine_of(transport)):
        return ACCEPT_REFUSED
    conn.user_data = <uint64_t>net.flows[index]
    net.flows[index].receiver = conn
    if net.flows[index].sink_cc >= 0:
        transport.set_option(transport, conn, OPTION_CC, <uint32_t>net.flows[index].sink_cc)
    return ACCEPT_TAKEN


cdef size_t receiver_on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                             size_t length) noexcept nogil:
    cdef net_t *net = net_of(app)
    cdef flow_t *flow = flow_of(conn)
    if flow.state == FLOW_ENDED:            # cut off
        return length
    flow.received += length
    flow.last_ns = net.now_ns
    if flow.pattern == PATTERN_REQUESTS:
        flow.answer_wanted = flow.received // flow.request_bytes * flow.response_bytes
        feed(net, transport, conn, &flow.answer_queued, flow.answer_wanted)
    return length


cdef void receiver_on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef flow_t *flow = flow_of(conn)
    feed(net_of(app), transport, conn, &flow.answer_queued, flow.answer_wanted)


cdef void receiver_on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                             close_reason_t reason) noexcept nogil:
    if flow_of(conn) != NULL:
        flow_of(conn).receiver = NULL


cdef void nothing_on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    return


# ---------------------------------------------------------------- a flow's life
cdef void flow_ended(net_t *net, flow_t *flow) noexcept nogil:
    if flow.state == FLOW_ENDED:
        return
    flow.state = FLOW_ENDED
    flow.ended_ns = net.now_ns
    if flow_ends(flow):
        net.flows_running -= 1


cdef void flow_start(net_t *net, flow_t *flow) noexcept nogil:
    cdef node_t *node = net.nodes[flow.begin]
    cdef const transport_t *transport
    cdef ip_addr_t address
    cdef int status
    if node.engine == NULL:                 # its stack was closed
        flow.reason = CLOSE_ABORTED
        flow_ended(net, flow)
        return
    transport = &node.engine.transport
    ip_addr_set_v4(&address, net.nodes[flow.end].address_be)
    node.engine.tcp.now_ns = net.now_ns
    flow.state = FLOW_OPEN
    flow.sender = transport.connect(transport, &address, SINK_PORT, <uint16_t>(FLOW_PORT + flow.index),
                                    node.sender, &status)
    if flow.sender == NULL:
        flow.reason = CLOSE_NO_MEMORY if status == CALL_NO_MEMORY else CLOSE_NET_UNREACHABLE
        flow_ended(net, flow)
        return
    flow.sender.user_data = <uint64_t>flow
    if flow.cc >= 0:
        transport.set_option(transport, flow.sender, OPTION_CC, <uint32_t>flow.cc)
    if flow.pattern != PATTERN_BULK:
        transport.set_option(transport, flow.sender, OPTION_NODELAY, 1)


cdef void flow_stop(net_t *net, flow_t *flow) noexcept nogil:
    """Cut off: what has not arrived by now does not count."""
    cdef const transport_t *transport
    if flow.sender == NULL or net.nodes[flow.begin].engine == NULL:
        return
    transport = &net.nodes[flow.begin].engine.transport
    net.nodes[flow.begin].engine.tcp.now_ns = net.now_ns
    transport.abort(transport, flow.sender)


cdef void flow_ask(const net_t *net, flow_t *flow) noexcept nogil:
    cdef const tcp_t *tcp
    cdef const tcb_t *tcb
    cdef history_t *history
    cdef uint32_t cause
    if flow.sender == NULL or net.nodes[flow.begin].engine == NULL:
        return
    tcp = &net.nodes[flow.begin].engine.tcp
    tcb = tcb_of(flow.sender)
    flow.srtt_us = tcb.srtt_us
    flow.min_rtt_us = rtt_min_us(tcb)
    history = history_of(tcp, tcb)
    if history == NULL:
        return
    for cause in range(1, <uint32_t>REXMIT_CAUSES):
        flow.resent_segs[cause] = resent_by(history, <rexmit_cause_t>cause)[0]
    flow.spurious = history.spurious
    flow.timeouts = history.timeouts


cdef bint flow_ends(const flow_t *flow) noexcept nogil:
    return flow.stop_ns != 0 or (flow.count if flow.pattern == PATTERN_REQUESTS else flow.size) != 0


cdef void flow_free(flow_t *flow) noexcept nogil:
    free(flow.times)
    free(flow)


# ---------------------------------------------------------------- the bystander
cdef void flow_overhear(net_t *net, node_t *node, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef const uint8_t *ip = frame + ETHERNET_HEADER_BYTES
    cdef const uint8_t *tcp
    cdef uint32_t header_bytes = (ip[0] & 15) * 4
    cdef uint32_t index, data, seq, end
    cdef flow_t *flow
    if (ip[9] != PROTOCOL_TCP or read_u16(ip + 6) & IPV4_FRAGMENT_OFFSET
            or length < ETHERNET_HEADER_BYTES + header_bytes + TCP_HEADER_BYTES):
        return
    tcp = ip + header_bytes
    index = read_u16(tcp) - FLOW_PORT
    if index >= net.flow_count or net.flows[index].begin != node.index:
        return
    flow = net.flows[index]
    seq = read_u32(tcp + 4)
    if tcp[13] & SYN:
        seq += 1
        if not flow.seen:
            flow.max_seq = seq
            flow.seen = True
    data = length - ETHERNET_HEADER_BYTES - header_bytes
    if data <= (tcp[12] >> 4) * 4:
        return
    data -= (tcp[12] >> 4) * 4
    end = seq + data
    flow.segments += 1
    if seq_diff(seq, flow.max_seq) < 0:
        flow.segments_again += 1
        flow.bytes_again += data if seq_diff(end, flow.max_seq) < 0 else flow.max_seq - seq
    if seq_diff(end, flow.max_seq) > 0:
        flow.max_seq = end


# ---------------------------------------------------------------- owners
cdef class FlowSender(Application):
    """The end of flows that opens and sends; made by Network alone."""

    def __cinit__(self) -> None:
        self.c.on_accept = sender_on_accept
        self.c.on_data = sender_on_data
        self.c.on_writable = sender_on_writable
        self.c.on_eof = either_on_eof
        self.c.on_timeout = sender_on_timeout
        self.c.on_closed = sender_on_closed


cdef class FlowReceiver(Application):
    """The end of flows that listens; made by Network alone."""

    def __cinit__(self) -> None:
        self.c.on_accept = receiver_on_accept
        self.c.on_data = receiver_on_data
        self.c.on_writable = receiver_on_writable
        self.c.on_eof = either_on_eof
        self.c.on_timeout = nothing_on_timeout
        self.c.on_closed = receiver_on_closed

# SPDX-License-Identifier: MIT
"""The stack, its application and its peers, for targets that are C from end to end. See world.pxd.

What is looked at: every frame that leaves (lengths, checksums, both streams, RSTs that answer RSTs), every record that
an application owns (the order of SND.UNA, SND.NXT and SND.MAX, its flight, that it waits for something), the work of
each turn, and at the end every pool.
"""

from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from ustack.application cimport (
    ACCEPT_REFUSED, ACCEPT_TAKEN, ACCEPT_WAITING, CONN_ACTIVE, OPTION_URGENT_UNREAD, application_t, close_reason_t,
    conn_t, transport_t, turn_charge, turn_spent)
from ustack.base.bytestring cimport data_of
from ustack.base.posix cimport htonl
from ustack.base.types cimport ip_addr_set_v4
from ustack.buf.chunks cimport chunk_held_bytes
from ustack.buf.lent cimport lent_from_copy, lent_unref
from ustack.engine.layers cimport begin_layers, end_layers
from ustack.engine.poll cimport engine_add_application, engine_end_some, engine_next_deadline, engine_poll
from ustack.engine.settings cimport configure_all
from ustack.engine.transport cimport engine_transport_init, tcb_of
from ustack.ip.layer cimport ip_config_defaults
from ustack.link.memory cimport MemoryLink
from ustack.link.memory_ring cimport far_commit, far_next, far_release, far_reserve, far_waiting, memory_sent_t
from ustack.tcp.records.configuration cimport tcp_config_defaults
from ustack.tcp.records.state cimport CLOSED, ESTABLISHED
from ustack.tcp.records.tcb cimport TCB_ABORT, TCB_EV_CLOSED, TCB_LISTED, tcb_t, tcp_t
from ustack.tcp.recovery.control cimport control_provide, control_records_in_use
from ustack.tcp.recovery.invariants cimport flight_check
from ustack.tcp.tracing cimport (
    TRACE_RECORDS_MIN, trace_everybody, trace_ring_free, trace_ring_init, trace_ring_stop, trace_waiting)
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.checksum cimport checksum_emit, checksum_fold, checksum_partial
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet_emit
from ustack.wire.ipv4 cimport (
    IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, ipv4_emit, ipv4_parse, ipv4_pseudo_sum, ipv4_t)
from ustack.wire.octets cimport read_u16, write_u16, write_u16_be, write_u32
from ustack.wire.seq cimport seq_gt, seq_le, seq_lt
from ustack.wire.tcp cimport (
    ACK, FIN, HAS_TIMESTAMPS, RST, SYN, TCP_CHECKSUM_OFFSET, header_t, segment_emit, segment_parse, segment_t)

import random

cdef enum:
    PROTO_ICMP = 1
    PROTO_TCP = 6
    PATTERN_BYTES = 65536
    SETTLE_TURNS = 64
    END_TURNS = 6000
    SMALL_LIMIT = 8                     # records of most kinds
    TRACED = 16                         # connections of a ring

cdef const uint8_t *PATTERN = NULL
cdef bytes PATTERN_OWNER = None


cdef const uint8_t *pattern(uint32_t position) noexcept nogil:
    return PATTERN + (position & (PATTERN_BYTES - 1))


cdef inline void broken(world_t *world, const char *rule) noexcept nogil:
    if world.fault == NULL:
        world.fault = rule


# ---------------------------------------------------------------- the application

cdef inline slot_t *slot_of(world_t *world, const conn_t *conn) noexcept nogil:
    return &world.slots[conn.user_data - 1] if conn.user_data else NULL


cdef inline world_t *world_of(application_t *app) noexcept nogil:
    return <world_t *>app.context


cdef void slot_send(world_t *world, slot_t *slot, uint32_t length) noexcept nogil:
    cdef const transport_t *transport = &world.engine.transport
    cdef uint32_t room = transport.send_room(transport, slot.conn)
    cdef int64_t taken
    if length > PATTERN_BYTES:
        length = PATTERN_BYTES
    taken = transport.send(transport, slot.conn, world.text, slot.queued & (PATTERN_BYTES - 1), length)
    if taken > length or (taken > 0 and taken > room):
        broken(world, b"send took more than it was given, or than it said that it would")
    if taken > 0:
        slot.queued += <uint32_t>taken


cdef void slot_read(world_t *world, slot_t *slot, uint32_t length) noexcept nogil:
    cdef uint8_t room[4096]
    cdef const transport_t *transport = &world.engine.transport
    cdef uint32_t there = transport.receivable(transport, slot.conn)
    cdef size_t taken
    if length > sizeof(room):
        length = sizeof(room)
    taken = transport.receive(transport, slot.conn, room, length)
    if taken > length or taken > there:
        broken(world, b"receive gave more than there is")
        return
    if slot.trusted and memcmp(room, pattern(slot.taken), taken) != 0:
        broken(world, b"receive gave other bytes than the peer has sent")
    slot.taken += <uint32_t>taken


cdef void slot_take(world_t *world, slot_t *slot) noexcept nogil:
    if slot.waiting:
        slot.waiting = False
        world.engine.transport.taken(&world.engine.transport, slot.conn)


cdef void app_does(world_t *world, slot_t *slot, uint8_t what, uint32_t length) noexcept nogil:
    cdef const transport_t *transport = &world.engine.transport
    if what == APP_ECHOES:
        slot_send(world, slot, length)
    elif what == APP_CLOSES:
        transport.close(transport, slot.conn)
    elif what == APP_ABORTS:
        transport.abort(transport, slot.conn)
    elif what == APP_SHUTS_DOWN:
        transport.shutdown(transport, slot.conn)


cdef int on_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef world_t *world = world_of(app)
    cdef const tcb_t *tcb = tcb_of(conn)
    cdef slot_t *slot
    cdef int i, k
    if conn.user_data:
        broken(world, b"on_accept for a connection that has an owner")
    if world.on_accept == ACCEPT_REFUSED:
        return ACCEPT_REFUSED
    for i in range(WORLD_SLOTS):
        slot = &world.slots[i]
        if slot.conn == NULL:
            memset(slot, 0, sizeof(slot_t))
            slot.conn = conn
            slot.port = tcb.key.rport
            slot.iss = tcb.snd_una - 1
            slot.born = world.memory.tx_written
            for k in range(WORLD_PEERS):
                if world.peers[k].port == slot.port:
                    slot.trusted = world.peers[k].trusted
            conn.user_data = <uint64_t>i + 1
            slot.waiting = world.on_accept == ACCEPT_WAITING and not transport.status(transport, conn) & CONN_ACTIVE
            return ACCEPT_WAITING if slot.waiting else ACCEPT_TAKEN
    broken(world, b"more connections than max_connections")
    return ACCEPT_REFUSED


cdef size_t on_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                    size_t length) noexcept nogil:
    cdef world_t *world = world_of(app)
    cdef slot_t *slot = slot_of(world, conn)
    cdef size_t used = length
    if slot == NULL or slot.conn != conn:
        broken(world, b"on_data without on_accept, or after on_closed")
        return length
    if length == 0:
        broken(world, b"on_data with nothing")
    if slot.trusted and memcmp(data, pattern(slot.taken), min(length, <size_t>PATTERN_BYTES)) != 0:
        broken(world, b"on_data with other bytes than the peer has sent")
    if world.on_data == APP_TAKES_HALF:
        used = length >> 1
    elif world.on_data == APP_TAKES_NOTHING:
        used = 0
    elif world.on_data == APP_PAYS:
        used = 0
        while used < length:
            if turn_spent(transport):
                transport.resume(transport, conn)
                break
            used += min(length - used, <size_t>256)
            turn_charge(transport, 300)
    else:
        app_does(world, slot, world.on_data, <uint32_t>length)
    slot.taken += <uint32_t>used
    return used


cdef void on_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef world_t *world = world_of(app)
    cdef slot_t *slot = slot_of(world, conn)
    if slot == NULL:
        broken(world, b"on_writable without on_accept")
        return
    if transport.send_room(transport, conn) == 0:
        broken(world, b"on_writable without room")
    app_does(world, slot, world.on_writable, 3000)


cdef void on_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef world_t *world = world_of(app)
    cdef slot_t *slot = slot_of(world, conn)
    if slot == NULL:
        broken(world, b"on_eof without on_accept")
        return
    app_does(world, slot, world.on_eof, 500)


cdef void on_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    if slot_of(world_of(app), conn) == NULL:
        broken(world_of(app), b"on_timeout without on_accept")


cdef void on_urgent(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    cdef world_t *world = world_of(app)
    if slot_of(world, conn) == NULL:
        broken(world, b"on_urgent without on_accept")
    elif transport.option(transport, conn, OPTION_URGENT_UNREAD) == 0:
        broken(world, b"on_urgent with nothing urgent to read")


cdef void on_closed(application_t *app, const transport_t *transport, conn_t *conn,
                    close_reason_t reason) noexcept nogil:
    cdef world_t *world = world_of(app)
    cdef slot_t *slot = slot_of(world, conn)
    if slot != NULL:                    # NULL: connect() failed before on_accept
        slot_take(world, slot)
        slot.conn = NULL


# ---------------------------------------------------------------- frames to the stack

cdef void world_put(world_t *world, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef uint8_t *room
    if length == 0:
        return
    room = far_reserve(world.memory, length)
    if room != NULL:
        memcpy(room, frame, length)
        far_commit(world.memory, length, length)


cdef uint32_t ip_around(world_t *world, const peer_t *peer, uint8_t *frame, uint32_t length, uint8_t protocol,
                        uint8_t tos) noexcept nogil:
    """Ethernet and IPv4 headers before `length` bytes of a transport. The whole frame's length."""
    cdef ipv4_t fields
    memset(&fields, 0, sizeof(fields))
    fields.tos = tos
    fields.ttl = 64
    fields.protocol = protocol
    fields.fragment = IPV4_DONT_FRAGMENT
    fields.total_length = <uint16_t>(IPV4_HEADER_BYTES + length)
    fields.src_be = htonl(peer.address)
    fields.dst_be = htonl(STACK_ADDRESS)
    ethernet_emit(frame, world.engine.link.mac, FAR_MAC, ETHERTYPE_IPV4)
    ipv4_emit(frame + ETHERNET_HEADER_BYTES, &fields)
    return ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + length


cdef const uint8_t *FAR_MAC = <const uint8_t *>b"\x02\x00\x00\x00\x00\x01"


cdef void peer_send(world_t *world, peer_t *peer, header_t *header, uint32_t length, uint8_t tos, uint16_t urgent,
                    const uint8_t *raw, uint32_t raw_length) noexcept nogil:
    cdef uint8_t frame[2048]
    cdef uint8_t *tcp = frame + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
    cdef uint32_t head, at
    header.sport = peer.port
    header.dport = LISTEN_PORT if header.dport == 0 else header.dport
    if raw != NULL:
        header.has = 0
    head = segment_emit(tcp, header)
    if raw != NULL:
        memcpy(tcp + head, raw, raw_length)
        head += raw_length
        tcp[12] = <uint8_t>(head << 2)
    write_u16(tcp + 18, urgent)
    if length > 1514 - ETHERNET_HEADER_BYTES - IPV4_HEADER_BYTES - head:
        length = 1514 - ETHERNET_HEADER_BYTES - IPV4_HEADER_BYTES - head
    if header.flags & SYN and header.seq != peer.iss:
        peer.trusted = False
    at = header.seq + (1 if header.flags & SYN else 0) - peer.iss - 1
    memcpy(tcp + head, pattern(at), length)
    write_u16_be(tcp + TCP_CHECKSUM_OFFSET, checksum_emit(checksum_partial(
        tcp, head + length, ipv4_pseudo_sum(htonl(peer.address), htonl(STACK_ADDRESS), PROTO_TCP, head + length))))
    world_put(world, frame, ip_around(world, peer, frame, head + length, PROTO_TCP, tos))


cdef void peer_open(world_t *world, peer_t *peer, header_t *header) noexcept nogil:
    header.seq = peer.iss
    header.flags = <uint16_t>(header.flags | SYN)
    peer_send(world, peer, header, 0, 0, 0, NULL, 0)
    world_settle(world)
    peer.timestamps = header.has & HAS_TIMESTAMPS != 0
    header.flags = ACK
    header.has = HAS_TIMESTAMPS if peer.timestamps else 0
    header.ts_val += 1
    header.ts_ecr = peer.ts_recent
    header.seq = peer.snd_nxt = peer.iss + 1
    header.ack = peer.stack_iss + 1
    peer_send(world, peer, header, 0, 0, 0, NULL, 0)
    world_settle(world)


cdef void peer_complain(world_t *world, peer_t *peer, uint8_t kind, uint8_t code, uint16_t mtu,
                        uint32_t seq) noexcept nogil:
    cdef uint8_t frame[128]
    cdef uint8_t *icmp = frame + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
    cdef ipv4_t quoted
    memset(frame, 0, sizeof(frame))
    memset(&quoted, 0, sizeof(quoted))
    quoted.ttl = 1
    quoted.protocol = PROTO_TCP
    quoted.fragment = IPV4_DONT_FRAGMENT
    quoted.total_length = 1500
    quoted.src_be = htonl(STACK_ADDRESS)
    quoted.dst_be = htonl(peer.address)
    icmp[0] = kind
    icmp[1] = code
    write_u16(icmp + 6, mtu)
    ipv4_emit(icmp + 8, &quoted)
    write_u16(icmp + 28, LISTEN_PORT)
    write_u16(icmp + 30, peer.port)
    write_u32(icmp + 32, seq)
    write_u16_be(icmp + 2, checksum_emit(checksum_partial(icmp, 36, 0)))
    world_put(world, frame, ip_around(world, peer, frame, 36, PROTO_ICMP, 0))


cdef void mend_frame(uint8_t *frame, uint32_t length, bint of_ip, bint of_transport) noexcept nogil:
    cdef uint8_t *ip = frame + ETHERNET_HEADER_BYTES
    cdef uint32_t head, total, body, at
    cdef uint32_t sum = 0
    if length < ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES or read_u16(frame + 12) != ETHERTYPE_IPV4:
        return
    head = <uint32_t>(ip[0] & 0xF) * 4
    if head < IPV4_HEADER_BYTES or ETHERNET_HEADER_BYTES + head > length:
        return
    if of_ip:
        write_u16(ip + 10, 0)
        write_u16_be(ip + 10, checksum_emit(checksum_partial(ip, head, 0)))
    total = read_u16(ip + 2)
    if not of_transport or total < head or ETHERNET_HEADER_BYTES + total > length:
        return
    body = total - head
    if ip[9] == PROTO_TCP:
        at = TCP_CHECKSUM_OFFSET
    elif ip[9] == PROTO_ICMP:
        at = 2
    else:
        return
    if body < at + 2:
        return
    write_u16(ip + head + at, 0)
    if ip[9] == PROTO_TCP:
        sum = checksum_partial(ip + 12, 8, htonl(<uint32_t>PROTO_TCP << 16 | body))
    write_u16_be(ip + head + at, checksum_emit(checksum_partial(ip + head, body, sum)))


# ---------------------------------------------------------------- frames of the stack's

cdef void answer_arp(world_t *world, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef uint8_t answer[42]
    cdef arp_t arp
    cdef uint32_t asked_be
    cdef int i
    if arp_parse(frame + ETHERNET_HEADER_BYTES, length - ETHERNET_HEADER_BYTES, &arp) != 0:
        broken(world, b"the stack sent a malformed ARP packet")
        return
    if world.mute or arp.operation != ARP_REQUEST or arp.target_be == arp.sender_be:
        return
    for i in range(WORLD_PEERS):
        if htonl(world.peers[i].address) == arp.target_be:
            asked_be = arp.target_be
            arp.operation = ARP_REPLY
            arp.target_be = arp.sender_be
            arp.sender_be = asked_be
            memcpy(arp.target_mac, arp.sender_mac, 6)
            memcpy(arp.sender_mac, FAR_MAC, 6)
            ethernet_emit(answer, arp.target_mac, FAR_MAC, ETHERTYPE_ARP)
            arp_emit(answer + ETHERNET_HEADER_BYTES, &arp)
            world_put(world, answer, ETHERNET_HEADER_BYTES + ARP_BYTES)
            return


cdef void look_at_text(world_t *world, const segment_t *seg) noexcept nogil:
    cdef const slot_t *slot
    cdef uint32_t at
    cdef int i
    for i in range(WORLD_SLOTS):
        slot = &world.slots[i]
        if slot.conn == NULL or slot.port != seg.dport or world.memory.tx_taken < slot.born:
            continue                    # the frame may be of a connection before it, that nobody had taken yet
        at = seg.seq - slot.iss - 1
        if at + seg.length > slot.queued:
            broken(world, b"the stack sent what its application did not")
        elif memcmp(seg.data, pattern(at), seg.length) != 0:
            broken(world, b"the stack sent other bytes than its application")


cdef void look_at_segment(world_t *world, const memory_sent_t *sent, const ipv4_t *ip) noexcept nogil:
    cdef const uint8_t *tcp = sent.data + ETHERNET_HEADER_BYTES + ip.header_length
    cdef uint32_t length = ip.total_length - ip.header_length
    cdef segment_t seg
    cdef peer_t *peer = NULL
    cdef uint32_t end
    cdef int i
    if sent.offload.csum_start == 0 and checksum_fold(checksum_partial(
            tcp, length, ipv4_pseudo_sum(ip.src_be, ip.dst_be, PROTO_TCP, length))) != 0xFFFF:
        broken(world, b"the stack sent a bad checksum")
    memset(&seg, 0, sizeof(seg))
    if segment_parse(tcp, length, &seg) != 0:
        broken(world, b"the stack sent a malformed segment")
        return
    if seg.flags & SYN and seg.flags & (FIN | RST):
        broken(world, b"the stack sent a SYN with FIN or RST")
    if seg.flags & RST and world.unanswerable:
        broken(world, b"a RST in answer to a RST, or to what is no segment")
    for i in range(seg.sack_count):
        if not seq_lt(seg.sack[i].left, seg.sack[i].right):
            broken(world, b"the stack sent an empty SACK block")
    for i in range(WORLD_PEERS):
        if world.peers[i].port == seg.dport and htonl(world.peers[i].address) == ip.dst_be:
            peer = &world.peers[i]
    if peer == NULL:
        return
    end = seg.seq + seg.length + (1 if seg.flags & SYN else 0) + (1 if seg.flags & FIN else 0)
    if seg.flags & SYN:
        peer.stack_iss = seg.seq
        peer.seen = end
        peer.met = True
        peer.edge_count = 0
    if seg.has & HAS_TIMESTAMPS:
        peer.ts_recent = seg.ts_val
    if seg.flags & RST:
        return
    if seq_gt(end, peer.seen):
        peer.seen = end
    if end != seg.seq:
        peer.edges[peer.edge_count % PEER_EDGES] = seg.seq
        peer.edge_count += 1
    if seg.length:
        look_at_text(world, &seg)


cdef void look_at(world_t *world, const memory_sent_t *sent) noexcept nogil:
    """Is this frame one that may be sent?"""
    cdef ipv4_t ip
    memset(&ip, 0, sizeof(ip))
    world.frames_out += 1
    if sent.length < ETHERNET_HEADER_BYTES or (
            not sent.offload.gso_size and sent.length > world.engine.link.caps.mtu + ETHERNET_HEADER_BYTES):
        broken(world, b"the stack sent a frame of a wrong length")
        return
    if read_u16(sent.data + 12) == ETHERTYPE_ARP:
        answer_arp(world, sent.data, sent.length)
        return
    if read_u16(sent.data + 12) != ETHERTYPE_IPV4 or ipv4_parse(
            sent.data + ETHERNET_HEADER_BYTES, sent.length - ETHERNET_HEADER_BYTES, &ip) != 0:
        broken(world, b"the stack sent what is no IPv4 packet")
        return
    if ip.total_length != sent.length - ETHERNET_HEADER_BYTES or ip.src_be != htonl(STACK_ADDRESS):
        broken(world, b"the stack sent a wrong length or address")
        return
    if ip.protocol == PROTO_TCP:
        look_at_segment(world, sent, &ip)
    elif ip.protocol == PROTO_ICMP and checksum_fold(checksum_partial(
            sent.data + ETHERNET_HEADER_BYTES + ip.header_length, ip.total_length - ip.header_length, 0)) != 0xFFFF:
        broken(world, b"the stack sent a bad ICMP checksum")


# ---------------------------------------------------------------- turns

cdef void look_at_record(world_t *world, const tcb_t *tcb) noexcept nogil:
    """What must hold between two turns."""
    if tcb.state == CLOSED or tcb.flags & (TCB_ABORT | TCB_EV_CLOSED):
        return
    if not seq_le(tcb.snd_una, tcb.snd_nxt) or not seq_le(tcb.snd_nxt, tcb.snd_max):
        broken(world, b"SND.UNA <= SND.NXT <= SND.MAX does not hold")
    elif not flight_check(&world.engine.tcp, tcb):
        broken(world, b"flight_check")
    if tcb.smss == 0:
        broken(world, b"a segment size of nothing")
    if tcb.flags & TCB_LISTED or tcb.state < ESTABLISHED:
        return
    if (seq_lt(tcb.snd_una, tcb.snd_nxt) or seq_lt(tcb.snd_nxt, tcb.snd_end)) and tcb.armed == 0:
        broken(world, b"a connection with something to send waits for nothing")


cdef void world_turn(world_t *world, uint64_t after_ns) noexcept nogil:
    cdef const memory_sent_t *sent
    cdef int i
    if world.fault != NULL:
        return
    world.now_ns += after_ns
    engine_poll(&world.engine, world.now_ns)
    if world.engine.link_error:
        broken(world, b"the link failed")
    if not world.holds:
        sent = far_next(world.memory)
        while sent != NULL:
            look_at(world, sent)
            far_release(world.memory)
            sent = far_next(world.memory)
    for i in range(WORLD_SLOTS):
        if world.slots[i].conn != NULL:
            look_at_record(world, tcb_of(world.slots[i].conn))


cdef void world_settle(world_t *world) noexcept nogil:
    cdef int _i
    for _i in range(SETTLE_TURNS):
        world_turn(world, 0)
        if world.fault != NULL:
            return
        if far_waiting(world.memory) == 0 and engine_next_deadline(&world.engine) > world.now_ns:
            return


cdef bint world_next(world_t *world, int64_t early_ns) noexcept nogil:
    cdef uint64_t due_ns = engine_next_deadline(&world.engine)
    if due_ns == UINT64_MAX or world.fault != NULL:
        return False
    if due_ns > world.now_ns:
        due_ns -= world.now_ns
        if early_ns > 0 and <uint64_t>early_ns >= due_ns:
            due_ns = 0
        else:
            due_ns -= early_ns
        world_turn(world, due_ns)
    else:
        world_turn(world, 0)
    return True


cdef tcb_t *tcb_of_peer(world_t *world, const peer_t *peer) noexcept nogil:
    cdef int i
    for i in range(WORLD_SLOTS):
        if world.slots[i].conn != NULL and world.slots[i].port == peer.port:
            return tcb_of(world.slots[i].conn)
    return NULL


# ---------------------------------------------------------------- beginning and end

cdef bint is_empty(world_t *world) noexcept nogil:
    cdef tcp_t *tcp = &world.engine.tcp
    return tcp.tcbs.in_use == 0 and tcp.syns.in_use == 0 and tcp.time_waits.in_use == 0


cdef void close_all(world_t *world, bint patient) noexcept nogil:
    cdef const transport_t *transport = &world.engine.transport
    cdef int i
    world.engine.tcp.now_ns = world.now_ns
    for i in range(WORLD_SLOTS):
        if world.slots[i].conn != NULL and patient:
            transport.close(transport, world.slots[i].conn)
        elif world.slots[i].conn != NULL:
            transport.abort(transport, world.slots[i].conn)


cdef void end_by_itself(world_t *world) noexcept nogil:
    """Every application has closed, every peer is silent: each connection ends, in bounded work."""
    cdef int _i
    for _i in range(END_TURNS):
        if is_empty(world) or world.fault != NULL:
            return
        if not world_next(world, 0):
            broken(world, b"a closed connection waits for nothing")
            return
    broken(world, b"a closed connection does not end")


cdef void judge_balance(world_t *world) noexcept nogil:
    cdef tcp_t *tcp = &world.engine.tcp
    if tcp.tcbs.in_use or tcp.syns.in_use or tcp.time_waits.in_use:
        broken(world, b"leak: connections")
    elif tcp.send_pieces.in_use or tcp.lent_held or world.text.refs != 1:
        broken(world, b"leak: send queues")
    elif tcp.flights.in_use or tcp.transmissions.in_use or tcp.extras.in_use:
        broken(world, b"leak: flights, transmissions, extra records")
    elif tcp.accecns.in_use or tcp.sockopts.in_use or tcp.urgents.in_use:
        broken(world, b"leak: records of AccECN, of options, of urgent data")
    elif control_records_in_use(tcp):
        broken(world, b"leak: records of congestion controls")
    elif tcp.rx.queues.in_use or tcp.rx.chunks.chunks_in_use or chunk_held_bytes(&tcp.rx.chunks):
        broken(world, b"leak: receive memory")
    elif tcp.wheel.armed or tcp.flows.used:
        broken(world, b"leak: timers, flows")


cdef class World:
    """A world that is made again for each input; its memory stays."""

    def __cinit__(self) -> None:
        cdef int i
        global PATTERN, PATTERN_OWNER
        if PATTERN_OWNER is None:
            PATTERN_OWNER = random.Random(1).randbytes(PATTERN_BYTES) * 2
            PATTERN = data_of(PATTERN_OWNER)
        self.c = <world_t *>calloc(1, sizeof(world_t))
        if self.c == NULL:
            raise MemoryError
        self.c.text = lent_from_copy(PATTERN, 2 * PATTERN_BYTES)
        if self.c.text == NULL:
            raise MemoryError
        for i in range(2):
            tcp_config_defaults(&self.profiles[i])
            ip_config_defaults(&self.ip_config)
            configure_all(&self.ip_config, &self.profiles[i], "linux" if i else "rfc", {})
        self.plain = MemoryLink(rx_slots=256, tx_slots=64, held_frames=128, ring_bytes=1 << 19)
        self.offloading = MemoryLink(segmentation_offload=True, rx_slots=256, tx_slots=64, held_frames=128,
                                     ring_bytes=1 << 21)

    def __dealloc__(self) -> None:
        if self.c != NULL:
            if self.c.text != NULL:
                lent_unref(self.c.text)
            free(self.c)

    cdef void defaults(self, bint linux) noexcept:
        self.tcp_config = self.profiles[linux]
        ip_config_defaults(&self.ip_config)
        ip_addr_set_v4(&self.ip_config.address, htonl(STACK_ADDRESS))
        self.ip_config.prefix_length = 24
        self.ip_config.neighbour_limit = 16
        self.tcp_config.max_connections = SMALL_LIMIT
        self.tcp_config.syn_queue = 4
        self.tcp_config.time_wait_limit = 3
        self.tcp_config.cc_records = SMALL_LIMIT
        self.tcp_config.extra_records = SMALL_LIMIT
        self.tcp_config.flights = SMALL_LIMIT
        self.tcp_config.transmissions = 512
        self.tcp_config.rx_memory_bytes = 1 << 18
        self.tcp_config.measure = 1

    cdef int begin(self, bint offloads, uint64_t now_ns) except -1:
        cdef world_t *world = self.c
        cdef lent_t *text = world.text
        cdef MemoryLink link = self.offloading if offloads else self.plain
        cdef peer_t *peer
        cdef int i
        memset(world, 0, sizeof(world_t))
        world.text = text
        world.memory = &link.memory
        world.now_ns = now_ns
        world.engine.link = &link.c
        world.engine.now_ns = now_ns
        link.c.now_ns = now_ns
        begin_layers(&world.engine, &self.ip_config, &self.tcp_config, 1)
        for i in range(CONTROLS):
            control_provide(&world.engine.tcp, i)
        engine_transport_init(&world.engine)
        for i in range(WORLD_PEERS):
            peer = &world.peers[i]
            peer.address = STACK_ADDRESS - 1 if i < 2 else STACK_ADDRESS + 1
            peer.port = <uint16_t>(40000 + i)
            peer.iss = PEER_ISS + <uint32_t>i
            peer.snd_nxt = peer.iss + 1
            peer.trusted = True
        world.app.context = world
        world.app.on_accept = on_accept
        world.app.on_data = on_data
        world.app.on_writable = on_writable
        world.app.on_eof = on_eof
        world.app.on_timeout = on_timeout
        world.app.on_closed = on_closed
        world.app.on_urgent = on_urgent
        world.app.index = engine_add_application(&world.engine, &world.app)
        world.engine.transport.listen(&world.engine.transport, NULL, LISTEN_PORT, &world.app, 4)
        return 0

    cdef int trace(self) except -1:
        if trace_ring_init(&self.ring, TRACE_RECORDS_MIN, TRACED) != 0:
            raise MemoryError
        if trace_everybody(&self.c.engine.tcp, &self.ring) != 0:
            raise MemoryError
        return 0

    cdef int end(self, bint patient) except -1:
        cdef world_t *world = self.c
        world.holds = False
        world.on_data = world.on_eof = world.on_writable = APP_TAKES
        if world.fault == NULL:
            world_settle(world)
            close_all(world, patient)
            if patient:
                end_by_itself(world)
        while engine_end_some(&world.engine, world.now_ns):
            if world.fault == NULL:
                world_turn(world, 0)
            else:
                drain(world)
        drain(world)
        judge_balance(world)
        self.end_trace()
        end_layers(&world.engine)
        if world.fault != NULL:
            raise AssertionError((<bytes>world.fault).decode())
        return 0

    cdef void end_trace(self) noexcept:
        cdef uint64_t waiting
        if self.ring.records == NULL:
            return
        waiting = trace_waiting(&self.ring)
        if waiting + self.ring.missed != self.ring.written:
            broken(self.c, b"a ring has lost records that it does not count")
        trace_ring_stop(&self.c.engine.tcp, &self.ring)
        if self.ring.users:
            broken(self.c, b"leak: connections of a trace")
        trace_ring_free(&self.ring)


cdef void drain(world_t *world) noexcept nogil:
    """What is left on the link is the next input's no more."""
    while far_next(world.memory) != NULL:
        far_release(world.memory)

# SPDX-License-Identifier: MIT
"""Scripts of segments, with right checksums, for live connections: numbers, flags, windows, SACK blocks, timestamps,
ECN, time, and what applications call meanwhile.

An input is records of eight bytes. The first sets the stack up (see set_up), each other one is a step: its first byte
says which (step_t), the rest is its own. Numbers are offsets from those that the connection has at that moment, SACK
blocks begin and end where text of the stack's did, so that small changes of an input stay near what matters:

    [PIECES, 3, 100, 0 ...]  [BLOCK, 2, 1 ...]  [ANSWER, 4 ...]  [DEADLINE ...]
    three segments of ours   SACK from the 2nd  ACK the 4th      a timer comes
    of 100 bytes             edge, one segment  edge from the
                             of text long       end
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.application cimport (
    ACCEPT_REFUSED, OPTION_CC, OPTION_CORK, OPTION_DEFER_ACCEPT_S, OPTION_FIN_WAIT_2_S, OPTION_KEEPALIVE,
    OPTION_KEEPALIVE_IDLE_S, OPTION_KEEPALIVE_INTERVAL_S, OPTION_KEEPALIVE_PROBES, OPTION_LOW_WATER,
    OPTION_MAY_FRAGMENT, OPTION_MORE, OPTION_MSS, OPTION_NODELAY, OPTION_QUICKACK, OPTION_RECEIVE_BUFFER,
    OPTION_SEND_BUFFER, OPTION_TOS, OPTION_TTL, OPTION_UNSENT_LOW_WATER, OPTION_URGENT, OPTION_URGENT_UNREAD,
    OPTION_USER_TIMEOUT_MS, conn_t, transport_t)
from ustack.base.posix cimport htonl
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.tcp.calls cimport tcp_set_listener_option
from ustack.tcp.records.configuration cimport tcp_config_t
from ustack.tcp.records.tcb cimport tcb_t
from ustack.tools.fuzz.target cimport Target
from ustack.tools.fuzz.world cimport (
    APP_DOES, CONTROLS, LISTEN_PORT, PEER_EDGES, WORLD_PEERS, WORLD_SLOTS, World, peer_complain, peer_open, peer_send,
    peer_t, slot_read, slot_send, slot_t, slot_take, tcb_of_peer, world_next, world_settle, world_t, world_turn)
from ustack.wire.tcp cimport (
    ACK, CWR, ECE, FIN, HAS_ACCECN, HAS_AE, HAS_MSS, HAS_SACK, HAS_SACK_PERMITTED, HAS_TIMESTAMPS, HAS_WSCALE,
    OPTION_ACCECN0, OPTION_ACCECN1, PSH, SYN, header_t)

cdef enum:
    RECORD = 8
    STEPS_MAX = 160
    MSS_MIN = 88                # TCP_MAXSEG's bounds (blocking/options)
    MSS_MAX = 32767
    HONEST_TURNS = 24

cdef enum step_t:
    SEGMENT = 0         # flags, how, number, acknowledgement, length, window (2)
    ANSWER              # an honest ACK: edges from the end, window (2), how
    BLOCK               # a SACK block for the next segments: first edge, edges, moved left, moved right
    PIECES              # text in order: how many, bytes (2), bit i: the i-th is lost, how
    DEADLINE            # the next timer: milliseconds early (signed)
    TIME                # unit, amount (2)
    CALL                # call_t, slot, argument (4)
    APPLICATION         # what it does from now on: on_accept, on_data, on_eof, on_writable
    COMPLAINT           # ICMP: kind, mtu (2), edge, peer
    OPENING             # a SYN: options, MSS (2), window scale, flags, peer
    STAMPS              # of the next segment: how TSval and TSecr lie to what is right
    COUNTERS            # of the next segment: an AccECN option
    CONNECT             # we open: peer, bit 0: from LISTEN_PORT, bit 1: later, bit 2: TCP_MAXSEG, MSS (2)
    TAKING              # bit 0: nobody takes what the stack sends; bit 1: nobody answers ARP
    HONEST              # the peer acknowledges everything, for a while
    SETTLE
    STEPS

cdef enum how_t:
    AT_ONCE = 0x04              # bits 0, 1: ECN of the IP header
    PLAIN = 0x08                # without the timestamps that were agreed on
    ACCURATE_BIT = 0x10
    IS_URGENT = 0x20
    PEER_SHIFT = 6

cdef enum call_t:
    CALL_SEND = 0
    CALL_RECEIVE
    CALL_RESUME
    CALL_WANT_WRITABLE
    CALL_SHUTDOWN
    CALL_CLOSE
    CALL_ABORT
    CALL_TIMEOUT
    CALL_OPTION
    CALL_TAKEN
    CALLS

# Distances that matter: edges of windows and segments, halves of the circle.
cdef int32_t[32] DISTANCES = [
    0, 0, 0, 1, -1, 2, -2, 10, -10, 100, -100, 535, 536, 1447, 1448, 1460, -1460, 2920, 8191, 8192, -8192, 65534,
    65535, 65536, -65536, 1000000, -1000000, 0x3FFFFFFF, 0x7FFFFFFF, <int32_t>0x80000000, <int32_t>0x80000001, 3]
cdef uint32_t[8] BUFFERS = [65536, 1, 700, 8192, 3000, 65535, 262144, 1 << 20]
cdef uint32_t[4] RECORDS = [8, 0, 1, 2]
cdef uint64_t[8] UNITS = [1000, 1000000, 10000000, 1000000000, 60000000000, 3600000000000, 86400000000000, 1]
cdef uint64_t[4] STARTS = [1000000000000, 1000000, 4294967296000000 - 2000000000, 4294967296000 - 5000000]
cdef uint8_t[8] COMPLAINTS = [0x34, 0x33, 0x31, 0xB0, 0xC0, 0x32, 0x3D, 0x34]
cdef int[32] OPTIONS = [
    OPTION_NODELAY, OPTION_KEEPALIVE, OPTION_USER_TIMEOUT_MS, OPTION_TOS, OPTION_TTL, OPTION_CC, OPTION_LOW_WATER,
    OPTION_UNSENT_LOW_WATER, OPTION_KEEPALIVE_IDLE_S, OPTION_KEEPALIVE_INTERVAL_S, OPTION_KEEPALIVE_PROBES,
    OPTION_FIN_WAIT_2_S, OPTION_CORK, OPTION_MORE, OPTION_QUICKACK, OPTION_SEND_BUFFER, OPTION_RECEIVE_BUFFER,
    OPTION_MSS, OPTION_DEFER_ACCEPT_S, OPTION_MAY_FRAGMENT, OPTION_CORK, OPTION_MORE, OPTION_SEND_BUFFER,
    OPTION_RECEIVE_BUFFER, OPTION_NODELAY, OPTION_CC, OPTION_QUICKACK, OPTION_SEND_BUFFER, OPTION_URGENT,
    OPTION_URGENT, OPTION_URGENT, OPTION_URGENT_UNREAD]

# What steps leave for the next segment.
ctypedef struct script_t:
    world_t *world
    header_t pending            # its SACK blocks and AccECN fields
    int32_t stamp_moved
    int32_t echo_moved
    uint16_t urgent


cdef inline uint32_t two(const uint8_t *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8


cdef inline uint32_t four(const uint8_t *at) noexcept nogil:
    return two(at) | two(at + 2) << 16


cdef class Segments(Target):
    """Scripts of segments."""

    cdef World world

    def __init__(self) -> None:
        self.world = World()

    cdef int run(self, const uint8_t *data, size_t size) except -1:
        cdef world_t *world = self.world.c
        cdef const uint8_t *knobs = data
        cdef script_t script
        if size < RECORD:
            return 0
        self.world.defaults(knobs[6] >> 4 & 1)
        set_up(&self.world.tcp_config, knobs)
        self.world.begin(knobs[6] & 1, STARTS[knobs[6] >> 1 & 3])
        memset(&script, 0, sizeof(script))
        script.world = world
        if knobs[6] & 32:
            listener_option(world, OPTION_MSS, MSS_MIN + (knobs[3] | knobs[4] << 8) % (MSS_MAX - MSS_MIN + 1))
        if knobs[6] & 64:
            listener_option(world, OPTION_DEFER_ACCEPT_S, knobs[3])
        if knobs[6] & 128:
            self.world.trace()
        with nogil:
            if knobs[7] & 1:
                open_first(world, knobs[7])
            play(&script, data + RECORD, size - RECORD)
        return self.world.end(knobs[6] & 8)


cdef void listener_option(world_t *world, int option, uint32_t value) noexcept nogil:
    tcp_set_listener_option(&world.engine.tcp, NULL, LISTEN_PORT, option, value)


cdef void set_up(tcp_config_t *config, const uint8_t *knobs) noexcept nogil:
    config.cc = knobs[0] % CONTROLS
    config.pacing = (knobs[0] >> 4) % 3
    config.ecn = knobs[1] % 6
    config.mtu_probing = (knobs[1] >> 4) % 3
    config.syn_cookies = (knobs[1] >> 6) % 3
    config.flights = RECORDS[knobs[2] & 3]
    config.extra_records = RECORDS[knobs[2] >> 2 & 3]
    config.cc_records = RECORDS[knobs[2] >> 4 & 3]
    if knobs[2] >> 6:
        config.transmissions = RECORDS[knobs[2] >> 6]
    config.rcv_buffer_bytes = BUFFERS[knobs[3] & 7]
    config.rcv_buffer_max_bytes = max(config.rcv_buffer_bytes, BUFFERS[knobs[3] >> 3 & 7])
    config.rx_memory_bytes = 1 << (12 + 3 * (knobs[3] >> 6))
    config.snd_queue_bytes = BUFFERS[knobs[4] & 7]
    config.snd_low_water_bytes = BUFFERS[knobs[4] >> 3 & 7] // 2
    config.max_orphans = RECORDS[knobs[4] >> 6]
    config.timestamps = not knobs[5] & 1
    config.sack = not knobs[5] & 2
    config.window_scaling = not knobs[5] & 4
    if knobs[5] & 8:
        config.delayed_ack_ns = 0
    if knobs[5] & 16:
        config.msl_ns = 0
    if knobs[5] & 32:
        config.max_connections = 2
    if knobs[5] & 64:
        config.syn_queue = 1
    if knobs[5] & 128:
        config.snd_unsent_low_water_bytes = 2000


# ---------------------------------------------------------------- segments

cdef void offer(header_t *header, uint8_t options) noexcept nogil:
    """What a SYN offers."""
    memset(header, 0, sizeof(header_t))
    header.window = 65535
    header.mss = 1460
    header.wscale = 7
    header.ts_val = 0xFFFFFF00
    if options & 2:
        header.has |= HAS_MSS
    if options & 4:
        header.has |= HAS_SACK_PERMITTED
    if options & 8:
        header.has |= HAS_TIMESTAMPS
    if options & 16:
        header.has |= HAS_WSCALE
    if options & 32:
        header.flags |= ECE | CWR
    if options & 64:
        header.flags |= ECE | CWR
        header.has |= HAS_AE


cdef void open_first(world_t *world, uint8_t options) noexcept nogil:
    cdef header_t header
    offer(&header, options)
    peer_open(world, &world.peers[0], &header)


cdef inline peer_t *peer_of(world_t *world, uint32_t number) noexcept nogil:
    return &world.peers[number % WORLD_PEERS]


cdef uint32_t edge_back(const peer_t *peer, uint32_t back) noexcept nogil:
    """Where the stack's text began, so many segments before the end. 0: behind all of it."""
    if back == 0 or peer.edge_count == 0:
        return peer.seen
    if back > peer.edge_count:
        back = peer.edge_count
    if back > PEER_EDGES:
        back = PEER_EDGES
    return peer.edges[(peer.edge_count - back) % PEER_EDGES]


cdef uint32_t our_number(world_t *world, const peer_t *peer, uint8_t selector) noexcept nogil:
    cdef const tcb_t *tcb = tcb_of_peer(world, peer)
    cdef uint32_t base = peer.snd_nxt
    if selector & 0xC0 == 0x40 and tcb != NULL:
        base = tcb.rcv_nxt
    elif selector & 0xC0 == 0x80 and tcb != NULL:
        base = tcb.rcv_adv
    elif selector & 0xC0 == 0xC0:
        base = peer.iss
    return base + <uint32_t>DISTANCES[selector & 31]


cdef uint32_t their_number(world_t *world, const peer_t *peer, uint8_t selector) noexcept nogil:
    cdef const tcb_t *tcb = tcb_of_peer(world, peer)
    cdef uint32_t base = peer.seen
    if selector & 0xC0 == 0x40:
        return edge_back(peer, selector & 0x3F)
    if selector & 0xC0 == 0x80 and tcb != NULL:
        base = tcb.snd_una
    elif selector & 0xC0 == 0xC0:
        base = tcb.snd_max if tcb != NULL and selector & 0x20 else peer.stack_iss
    return base + <uint32_t>DISTANCES[selector & 31]


cdef void stamp(script_t *script, const peer_t *peer, header_t *header, uint8_t how) noexcept nogil:
    """Timestamps, SACK blocks and counters that wait for this segment, as far as they fit."""
    cdef uint32_t room = 40
    if peer.timestamps and not how & PLAIN:
        header.has |= HAS_TIMESTAMPS
        header.ts_val = <uint32_t>(script.world.now_ns // 1000000) + 0xFFFFFF00u + <uint32_t>script.stamp_moved
        header.ts_ecr = peer.ts_recent + <uint32_t>script.echo_moved
        room -= 12
    if script.pending.accecn_kind:
        header.has |= HAS_ACCECN
        header.accecn_kind = script.pending.accecn_kind
        header.accecn_fields = script.pending.accecn_fields
        header.accecn = script.pending.accecn
        room -= (2 + 3 * header.accecn_fields + 3) & ~3
    if script.pending.sack_count and room >= 12:
        header.has |= HAS_SACK
        header.sack_count = <uint8_t>min(<uint32_t>script.pending.sack_count, (room - 4) // 8)
        header.sack = script.pending.sack
    if how & ACCURATE_BIT:
        header.has |= HAS_AE
    memset(&script.pending, 0, sizeof(script.pending))
    script.stamp_moved = script.echo_moved = 0


cdef void sent(script_t *script, peer_t *peer, header_t *header, uint32_t length, uint8_t how) noexcept nogil:
    """Send it, and a turn if it is not one of a burst."""
    peer_send(script.world, peer, header, length, how & 3, script.urgent if how & IS_URGENT else 0, NULL, 0)
    if not how & AT_ONCE:
        world_settle(script.world)


cdef void any_segment(script_t *script, const uint8_t *step) noexcept nogil:
    cdef uint8_t how = step[2]
    cdef peer_t *peer = peer_of(script.world, how >> PEER_SHIFT)
    cdef header_t header
    cdef uint32_t length = <uint32_t>step[5] * 6
    memset(&header, 0, sizeof(header))
    header.flags = step[1]
    header.seq = our_number(script.world, peer, step[3])
    header.ack = their_number(script.world, peer, step[4])
    header.window = <uint16_t>two(step + 6)
    stamp(script, peer, &header, how)
    if header.seq == peer.snd_nxt:
        peer.snd_nxt += length + (1 if header.flags & FIN else 0)
    sent(script, peer, &header, length, how)


cdef void answer(script_t *script, const uint8_t *step) noexcept nogil:
    cdef uint8_t how = step[4]
    cdef peer_t *peer = peer_of(script.world, how >> PEER_SHIFT)
    cdef header_t header
    memset(&header, 0, sizeof(header))
    header.flags = <uint16_t>(ACK | (step[5] & (ECE | CWR)))
    header.seq = peer.snd_nxt
    header.ack = edge_back(peer, step[1])
    header.window = <uint16_t>two(step + 2)
    stamp(script, peer, &header, how)
    sent(script, peer, &header, 0, how)


cdef void block(script_t *script, const uint8_t *step) noexcept nogil:
    cdef peer_t *peer = peer_of(script.world, step[5])
    cdef uint8_t at = script.pending.sack_count
    if at >= 4:
        return
    script.pending.sack[at].left = edge_back(peer, step[1]) + <uint32_t><int8_t>step[3]
    script.pending.sack[at].right = edge_back(
        peer, step[1] - step[2] if step[1] > step[2] else 0) + <uint32_t><int8_t>step[4]
    script.pending.sack_count += 1


cdef void pieces(script_t *script, const uint8_t *step) noexcept nogil:
    cdef peer_t *peer = peer_of(script.world, step[5] >> PEER_SHIFT)
    cdef uint32_t i, length = two(step + 2) % 1449
    cdef header_t header
    for i in range(step[1] % 24):
        memset(&header, 0, sizeof(header))
        header.flags = <uint16_t>(ACK | PSH | (step[6] & (ECE | CWR)))
        header.seq = peer.snd_nxt
        header.ack = peer.seen
        header.window = 65535
        stamp(script, peer, &header, step[5])
        peer.snd_nxt += length
        if not step[4] >> (i & 7) & 1:
            sent(script, peer, &header, length, step[5] | AT_ONCE)
    world_settle(script.world)


cdef void opening(script_t *script, const uint8_t *step) noexcept nogil:
    cdef peer_t *peer = peer_of(script.world, step[6])
    cdef header_t header
    offer(&header, step[1])
    header.mss = <uint16_t>two(step + 2)
    header.wscale = step[4]
    header.seq = peer.iss
    if step[5] & 1:
        peer_open(script.world, peer, &header)
    else:
        header.flags |= SYN
        peer.timestamps = header.has & HAS_TIMESTAMPS != 0
        peer_send(script.world, peer, &header, step[7], 0, 0, NULL, 0)
        if not step[5] & 2:
            world_settle(script.world)


cdef void honest(script_t *script, const uint8_t *step) noexcept nogil:
    """Everything that comes is acknowledged at once, with an open window, and time goes on."""
    cdef peer_t *peer = peer_of(script.world, step[1])
    cdef header_t header
    cdef int _i
    for _i in range(HONEST_TURNS):
        memset(&header, 0, sizeof(header))
        header.flags = ACK
        header.seq = peer.snd_nxt
        header.ack = peer.seen
        header.window = 65535
        stamp(script, peer, &header, 0)
        sent(script, peer, &header, 0, 0)
        world_next(script.world, 0)
        if script.world.fault != NULL:
            return


# ---------------------------------------------------------------- the stack's own side

cdef void set_option(world_t *world, conn_t *conn, int option, uint32_t value) noexcept nogil:
    """Within the bounds that callers keep (blocking/options), and asked for again."""
    cdef const transport_t *transport = &world.engine.transport
    if option == OPTION_CC:
        value %= CONTROLS
    elif option == OPTION_TTL:
        value = 1 + value % 255
    elif option == OPTION_USER_TIMEOUT_MS:
        value &= 0xFFFF
    elif option == OPTION_TOS or option == OPTION_KEEPALIVE_PROBES:
        value &= 0xFF
    elif option == OPTION_MSS:
        value = MSS_MIN + value % (MSS_MAX - MSS_MIN + 1)
    elif OPTION_KEEPALIVE_IDLE_S <= option <= OPTION_FIN_WAIT_2_S or option == OPTION_DEFER_ACCEPT_S:
        value &= 0xFFFF
    if option != OPTION_URGENT_UNREAD:
        transport.set_option(transport, conn, option, value)
    if option != OPTION_CC:
        transport.option(transport, conn, option)


cdef void call(world_t *world, const uint8_t *step) noexcept nogil:
    cdef const transport_t *transport = &world.engine.transport
    cdef slot_t *slot = &world.slots[step[2] % WORLD_SLOTS]
    cdef uint32_t argument = four(step + 3)
    cdef int which = step[1] % CALLS
    cdef int i
    for i in range(WORLD_SLOTS):                # the next one that is there
        slot = &world.slots[(step[2] + i) % WORLD_SLOTS]
        if slot.conn != NULL:
            break
    if slot.conn == NULL:
        return
    world.engine.tcp.now_ns = world.now_ns
    if which == CALL_SEND:
        slot_send(world, slot, argument & 0x1FFFF)
    elif which == CALL_RECEIVE:
        slot_read(world, slot, argument & 0xFFFF)
    elif which == CALL_RESUME:
        transport.resume(transport, slot.conn)
    elif which == CALL_WANT_WRITABLE:
        transport.want_writable(transport, slot.conn)
    elif which == CALL_SHUTDOWN:
        transport.shutdown(transport, slot.conn)
    elif which == CALL_CLOSE:
        transport.close(transport, slot.conn)
    elif which == CALL_ABORT:
        transport.abort(transport, slot.conn)
    elif which == CALL_TIMEOUT:
        transport.set_timeout(transport, slot.conn, argument * 1000ULL)
    elif which == CALL_OPTION:
        set_option(world, slot.conn, OPTIONS[argument & 31], argument >> 8)
    elif which == CALL_TAKEN:
        slot_take(world, slot)
    if step[7] & 1:
        world_settle(world)


cdef void connect(world_t *world, const uint8_t *step) noexcept nogil:
    cdef peer_t *peer = peer_of(world, step[1])
    cdef ip_addr_t address
    cdef conn_t *made
    cdef int status = 0
    ip_addr_set_v4(&address, htonl(peer.address))
    world.engine.tcp.now_ns = world.now_ns
    made = world.engine.transport.connect(&world.engine.transport, &address, peer.port,
                                          LISTEN_PORT if step[2] & 1 else 0, &world.app, &status)
    if made != NULL and step[2] & 4:
        set_option(world, made, OPTION_MSS, two(step + 3))
    if not step[2] & 2:
        world_settle(world)


cdef void play(script_t *script, const uint8_t *data, size_t size) noexcept nogil:
    cdef world_t *world = script.world
    cdef uint32_t steps = 0
    cdef uint8_t which
    while size >= RECORD and world.fault == NULL and steps < STEPS_MAX:
        which = data[0] % STEPS
        if which == SEGMENT:
            any_segment(script, data)
        elif which == ANSWER:
            answer(script, data)
        elif which == BLOCK:
            block(script, data)
        elif which == PIECES:
            pieces(script, data)
        elif which == DEADLINE:
            world_next(world, <int64_t><int8_t>data[1] * 1000000)
        elif which == TIME:
            world_turn(world, UNITS[data[1] & 7] * two(data + 2))
        elif which == CALL:
            call(world, data)
        elif which == APPLICATION:
            world.on_accept = data[1] % (ACCEPT_REFUSED + 1)
            world.on_data = data[2] % APP_DOES
            world.on_eof = data[3] % APP_DOES
            world.on_writable = data[4] % APP_DOES
        elif which == COMPLAINT:
            peer_complain(world, peer_of(world, data[5]), COMPLAINTS[data[1] & 7] >> 4, COMPLAINTS[data[1] & 7] & 15,
                          <uint16_t>two(data + 2), edge_back(peer_of(world, data[5]), data[4]))
            world_settle(world)
        elif which == OPENING:
            opening(script, data)
        elif which == STAMPS:
            script.stamp_moved = DISTANCES[data[1] & 31]
            script.echo_moved = DISTANCES[data[2] & 31]
            script.urgent = <uint16_t>two(data + 3)
        elif which == COUNTERS:
            script.pending.accecn_kind = OPTION_ACCECN1 if data[1] & 1 else OPTION_ACCECN0
            script.pending.accecn_fields = (data[1] >> 1) & 3
            script.pending.accecn[0] = two(data + 2)
            script.pending.accecn[1] = two(data + 4)
            script.pending.accecn[2] = two(data + 6) << 8
        elif which == CONNECT:
            connect(world, data)
        elif which == TAKING:
            world.holds = data[1] & 1
            world.mute = data[1] >> 1 & 1
        elif which == HONEST:
            honest(script, data)
        else:
            world_settle(world)
        data += RECORD
        size -= RECORD
        steps += 1

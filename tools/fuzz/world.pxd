# SPDX-License-Identifier: MIT
# A stack on a link in memory, an application that does what it is told, peers that say anything, and a clock that an
# input moves. All of it begins anew for each input, with the same seed: an input alone brings a finding back.
#
#     target ── peer_send, world_put ──▶ link ──▶ engine ──▶ application (a table of upcalls, below)
#            ◀── edges, numbers ──── collect: is what the stack sends right? ◀── link ◀──┘
#
# Both streams are a pattern by position, so that each byte which arrives, at the application or on the wire, can be
# judged. The first rule that is broken is world.fault; nothing happens after it.
#
# It must not: know what a target means to show. Above: frames, segments, options. Below: engine, link/memory, wire.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, conn_t
from ustack.buf.lent cimport lent_t
from ustack.engine.records cimport engine_t
from ustack.ip.layer cimport ip_config_t
from ustack.link.memory cimport MemoryLink
from ustack.link.memory_ring cimport memory_t
from ustack.tcp.records.configuration cimport tcp_config_t
from ustack.tcp.records.tcb cimport tcb_t
from ustack.tcp.tracing cimport trace_ring_t
from ustack.wire.tcp cimport header_t

cdef enum:
    STACK_ADDRESS = 0xC6120002          # 198.18.0.2/24
    LISTEN_PORT = 80
    WORLD_PEERS = 3                     # ports 40000, 40001 of 198.18.0.1; 40002 of 198.18.0.3
    WORLD_SLOTS = 32
    PEER_EDGES = 32
    CONTROLS = 3                        # congestion controls, by their numbers
    PEER_ISS = 0xFFFFFE00               # numbers wrap soon

# What the application does (app_does_t by upcall).
cdef enum app_does_t:
    APP_TAKES = 0                       # whatever is offered; says nothing
    APP_ECHOES                          # and sends as much
    APP_TAKES_HALF
    APP_TAKES_NOTHING
    APP_PAYS                            # charges the turn for each byte, and stops when it is spent
    APP_CLOSES
    APP_ABORTS
    APP_SHUTS_DOWN
    APP_DOES                            # how many there are

# A connection of the application's.
ctypedef struct slot_t:
    conn_t *conn                        # NULL: free
    uint32_t iss                        # the stack's
    uint32_t taken                      # bytes of the peer that it has used
    uint32_t queued                     # bytes that send has accepted
    uint64_t born                       # frames that the stack had sent before
    uint16_t port                       # the peer's
    bint trusted                        # what comes is the pattern
    bint waiting                        # on_accept has said ACCEPT_WAITING

ctypedef struct peer_t:
    uint32_t address
    uint16_t port
    bint met                            # the stack has sent a SYN: stack_iss is valid
    bint timestamps                     # what it sends has them
    bint trusted                        # every SYN of its had the same number
    uint32_t iss
    uint32_t snd_nxt                    # where its next text goes
    uint32_t stack_iss
    uint32_t seen                       # behind the last byte that the stack has sent
    uint32_t ts_recent                  # the last TSval of the stack's
    uint32_t edges[PEER_EDGES]          # where text that the stack sent began, around
    uint32_t edge_count

ctypedef struct world_t:
    engine_t engine
    application_t app
    memory_t *memory
    lent_t *text                        # the stack's stream
    const char *fault                   # the first rule that was broken; NULL: none
    uint64_t now_ns
    bint holds                          # nobody takes what the stack sends
    bint mute                           # nobody answers ARP
    uint8_t on_accept                   # accept_t
    uint8_t on_data                     # app_does_t
    uint8_t on_eof
    uint8_t on_writable
    bint unanswerable                   # writer: the target. No RST is due to anybody in the next turn
    uint32_t frames_out
    slot_t slots[WORLD_SLOTS]
    peer_t peers[WORLD_PEERS]

# The bytes of both streams at `position`, 65,536 at least of them in one piece.
cdef const uint8_t *pattern(uint32_t position) noexcept nogil

# Owner of the memory. begin: a new stack, with the configuration that the caller has changed since `defaults`.
cdef class World:
    cdef world_t *c
    cdef MemoryLink plain
    cdef MemoryLink offloading
    cdef tcp_config_t tcp_config
    cdef ip_config_t ip_config
    cdef tcp_config_t[2] profiles           # rfc, linux
    cdef trace_ring_t ring
    cdef void defaults(self, bint linux) noexcept
    cdef int begin(self, bint offloads, uint64_t now_ns) except -1
    # Whoever opens from now on is traced.
    cdef int trace(self) except -1
    cdef void end_trace(self) noexcept
    # Everything ends. patient: by itself, after the applications have closed. Raises AssertionError for a rule broken.
    cdef int end(self, bint patient) except -1

# A turn at `now_ns` + after_ns; then what was sent is looked at, and the rules that hold between two turns.
cdef void world_turn(world_t *world, uint64_t after_ns) noexcept nogil
# Turns until the link is empty and nothing is due; a bounded number of them.
cdef void world_settle(world_t *world) noexcept nogil
# A turn when the next deadline comes, early_ns before it or (negative) behind it. False: nothing is waited for.
cdef bint world_next(world_t *world, int64_t early_ns) noexcept nogil
# A frame on the wire. It is lost when the ring is full.
cdef void world_put(world_t *world, const uint8_t *frame, uint32_t length) noexcept nogil
# A segment with right checksums. header: ports are filled in. length: bytes of the pattern that follow. raw: options as
# they are to be on the wire, of raw_length bytes (a multiple of 4), instead of the header's; NULL: the header's.
cdef void peer_send(world_t *world, peer_t *peer, header_t *header, uint32_t length, uint8_t tos, uint16_t urgent,
                    const uint8_t *raw, uint32_t raw_length) noexcept nogil
# An honest opening of a connection with what `header.has` offers, up to ESTABLISHED.
cdef void peer_open(world_t *world, peer_t *peer, header_t *header) noexcept nogil
# Frames for an input's own segments: an ICMP error about text of the stack's at `seq`.
cdef void peer_complain(world_t *world, peer_t *peer, uint8_t kind, uint8_t code, uint16_t mtu,
                        uint32_t seq) noexcept nogil
# The connection to a peer, NULL: none that an application has.
cdef tcb_t *tcb_of_peer(world_t *world, const peer_t *peer) noexcept nogil
# The application sends so many bytes, if there is room.
cdef void slot_send(world_t *world, slot_t *slot, uint32_t length) noexcept nogil
# ... reads so many from its queue.
cdef void slot_read(world_t *world, slot_t *slot, uint32_t length) noexcept nogil
# ... has taken a connection that it had left waiting.
cdef void slot_take(world_t *world, slot_t *slot) noexcept nogil
# Checksums of an Ethernet frame made right, as far as its lengths make sense.
cdef void mend_frame(uint8_t *frame, uint32_t length, bint of_ip, bint of_transport) noexcept nogil

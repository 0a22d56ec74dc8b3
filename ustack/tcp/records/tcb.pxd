# SPDX-License-Identifier: MIT
# The records of TCP: one connection (tcb_t), its two mini-forms (SYN-RECEIVED, TIME-WAIT), queue pieces, and
# the state of one TCP (tcp_t). Plain data: what happens to it is in the event files (calls, input, timers, output).
# Allocated and released by life; deadlines and the work list have files of their own beside it.
#
# Read first: RFC 9293 section 3.3 (variables, under their own names here), section 3.10 (the event files' chapters).
#
# Sizes are part of the contract: tcb_t is exactly three cache lines (192 bytes), the mini-records are one.
# An idle established connection owns a tcb_t, its share of the flow table, 8 bytes about its beginning (birth_t) and at
# most one 16-byte timer node, nothing else.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport endpoints_t
from ustack.base.counters cimport counters_t
from ustack.base.ilist cimport ilist_hook_t, ilist_t
from ustack.base.types cimport ip_addr_t, ms_of, us_of
from ustack.base.wheel cimport wheel_t
from ustack.buf.lent cimport lent_t
from ustack.buf.slab cimport slab_at, slab_t
from ustack.ip.layer cimport ip_t
from ustack.tcp.cc.contract cimport CC_MAX, cc_ops_t
from ustack.tcp.records.admission cimport admission_t
from ustack.tcp.records.configuration cimport tcp_config_t
from ustack.tcp.records.rx_queue cimport rx_memory_t, rx_queue_at, rx_queue_t
from ustack.tcp.records.state cimport STATE_COUNT
from ustack.tcp.records.turn cimport turn_t
from ustack.wire.seq cimport seq_diff
from ustack.wire.tcp cimport TCP_HEADER_BYTES, TCP_TIMESTAMP_BYTES

cdef enum:
    TCP_MAX_LISTENERS = 64
    TCP_MAX_CC = CC_MAX
    # tcb.cc: the control's number and
    CC_WAITING = CC_MAX                     # no data has flowed yet (recovery/control.pxd)
    CC_HEARS_SENT = 2 * CC_MAX              # it has an on_sent of its own
    CC_HEARS_MORE = 8 * CC_MAX              # ... an on_start or on_lost, or owns_repair
    CC_USED = 4 * CC_MAX                    # a flight has begun since its record was last looked at, or at all
    CC_PACED = 16 * CC_MAX                  # by its window, unless its control says a rate (setting pacing)
    CC_TABLE = 2 * CC_MAX - 1               # number and CC_WAITING: index in tcp.cc
    TCP_EPHEMERAL_COUNTERS = 256
    TIMESTAMP_PAIRS = 1024                  # 2^10: the shift in timestamps.pxd
    ALLOWANCE_SHARES = 256
    DUPLICATE_PLACES = 16
    SLOW_ENDS = 256
    SYN_ACCURATE = 0x80                     # syn_received_t.retries_answers
    SYN_IP_ECN_SHIFT = 14                   # ... peer_mss
    SYN_MSS_MASK = (1 << 14) - 1

# ---------------------------------------------------------------- identity
# What the application sees as its connection's endpoints.
ctypedef endpoints_t flow_key_t             # 36 bytes, hashed and compared whole

# ---------------------------------------------------------------- tcb.flags
cdef enum tcb_flags_t:
    TCB_ACTIVE          = 1 << 0            # opened by us (MUST-11)
    TCB_LISTED          = 1 << 1            # in tcp.work
    TCB_ACK_NOW         = 1 << 2            # output owes an ACK
    TCB_ACK_DELAYED     = 1 << 3            # output owes an ACK, but may wait for company
    TCB_FIN_QUEUED      = 1 << 4            # no more data will be queued; FIN after snd_end
    TCB_FIN_SENT        = 1 << 5
    TCB_FIN_RECEIVED    = 1 << 6            # the FIN is in rcv_nxt
    TCB_REXMIT          = 1 << 7            # output resends the SYN, or one segment at snd_una that has no record
    TCB_PROBE           = 1 << 8            # output sends one window or keep-alive probe
    TCB_REPAIRED        = 1 << 9            # a fast recovery has ended at snd_una (RFC 6582 section 3.2 step 1)
    TCB_REORDERED       = 1 << 10           # RACK.reordering_seen (RFC 8985). Never cleared (timestamps.pxd)
    TCB_PROBE_REPEATED  = 1 << 11           # what a probe repeated ends at snd_una: which copy has arrived (tlp)?
    TCB_NODELAY         = 1 << 12           # Nagle off (MUST-17)
    TCB_KEEPALIVE       = 1 << 13           # off by default (MUST-25)
    TCB_WANT_WRITABLE   = 1 << 14
    TCB_CLOSED_BY_APP   = 1 << 15           # full close: what still arrives is answered with RST (SHLD-3)
    TCB_PERSIST         = 1 << 16           # DEADLINE_REXMIT is the persist timer
    TCB_MSS_PROVEN      = 1 << 17           # a segment of SMSS bytes has been acknowledged. Writers: ack, path
    TCB_ABORT           = 1 << 18           # output sends a RST and the connection ends
    TCB_PROBE_UNMEASURED = 1 << 19          # no round trip has been measured since the last tail loss probe (tlp)
    TCB_ECN             = 1 << 20           # agreed on: RFC 3168 (recovery/ecn.pxd)
    # Every segment says ECE, until the peer says CWR. Without TCB_ECN: RFC 9768 is agreed on (accecn.pxd), to the end.
    TCB_ECE_OWED        = 1 << 21           # writer: recovery/ecn, recovery/accecn
    TCB_PAUSED          = 1 << 22           # on_data left a rest: no more upcalls for data until tcp_resume
    TCB_CWR_OWED        = 1 << 23           # the next new data says CWR; by RFC 9768: r.cep has this bit now
    # pending upcalls, taken by the engine
    TCB_EV_ACCEPT       = 1 << 24
    TCB_EV_URGENT       = 1 << 24           # the same bit once TCB_ACCEPTED: RCV.UP is news (urgent.pxd)
    TCB_EV_DATA         = 1 << 25           # the receive queue has in-order data to offer (with TCB_PAUSED: resumed)
    TCB_EV_WRITABLE     = 1 << 26
    TCB_EV_EOF          = 1 << 27
    TCB_EV_TIMEOUT      = 1 << 28
    TCB_EV_CLOSED       = 1 << 29           # with close_reason; the record is freed after the upcall
    TCB_ACCEPTED        = 1 << 30           # the application has it
    TCB_CORRECTED       = 1u << 31          # corrective_tick holds a time (throttle)
    TCB_ECN_SAYS        = TCB_ECE_OWED | TCB_CWR_OWED

cdef enum tcb_options_t:
    OPT_WSCALE = 1
    OPT_SACK = 2
    OPT_TIMESTAMPS = 4
    OPT_AGREED = 7                          # what both ends agreed on; the rest is the tcb's own:
    OPT_TS_STALE = 8                        # TS.Recent is older than 24 days and proves nothing (RFC 7323 section 5.5)
    OPT_CORRECTED = 8                       # in a TIME-WAIT record: corrective_tick holds a time
    OPT_SLOW_TICKS = 16                     # ... its connection's timestamps ticked slowly (timestamps.pxd)
    OPT_ACE_SHIFT = 5                       # ... bits 5 to 7: the ACE that it says (RFC 9768)
    OPT_ECN = 8                             # in a half-open record: its SYN offers ECN, and we accept (RFC 3168)
    OPT_EPOCH_SHIFT = 4                     # bits 4 to 7: bits 32 to 35 of last_received_ms

# ---------------------------------------------------------------- tcb.deadlines
# What a connection may wait for. Bit `kind` of tcb.armed: it does, until tcb.deadlines[kind]. How they are set, cleared
# and found: deadlines.pxd. What is done when one has come: timers. There are eight bits. A kind that an idle connection
# cannot have (a probe of the tail, reordering, pacing) keeps its tick in the record of what is in flight instead: tell
# deadline_tick where.
cdef enum deadline_t:
    # A delayed ACK is owed: the peer must not wait longer than 0.5 s for it (MUST-40). Before the first one its tick is
    # how many went without a delay (output, is_quick)
    DEADLINE_ACK
    DEADLINE_APPLICATION    # tcp_set_timeout; or FIN-WAIT-2 for nobody, so that a peer which never closes is forgotten
    DEADLINE_REXMIT         # data, SYN or FIN without an ACK; with TCB_PERSIST a window that does not open
    DEADLINES_STORED
    # What is in flight waits for a sign before the retransmission timer: a tail loss probe, or the end of the
    # reordering window (RFC 8985). Its tick is in the flight (flight.pxd).
    DEADLINE_PROBE = DEADLINES_STORED
    DEADLINE_PACE           # the next frame has to wait for it. Its tick is in the flight, too
    # A silence that asks for a probe (MUST-26). Never stored: it is counted from last_received_ms, which every segment
    # moves, while TCB_KEEPALIVE is set and nothing is in flight.
    DEADLINE_KEEPALIVE
    DEADLINE_KINDS

cdef enum:
    # The last bit of tcb.armed is no deadline: more than one segment waits for the ACK that TCB_ACK_DELAYED owes
    ACK_IN_COMPANY = 1 << 7

ctypedef struct tcb_t:
    # ---- line 0
    uint64_t user_data                      # 0    the application's: conn_t, the face that it knows. Stays first
    flow_key_t key                          # 8    within one line, for comparing
    uint8_t state                           # 44   tcp_state_t. writer: moves
    uint8_t options                         # 45   tcb_options_t
    uint8_t snd_wscale                      # 46
    uint8_t rcv_wscale                      # 47
    uint32_t flags                          # 48   tcb_flags_t
    uint32_t index                          # 52   own index in tcp.tcbs
    uint32_t snd_una                        # 56   writer: ack
    uint32_t snd_nxt                        # 60   writer: output. A retransmission does not move it
    # ---- line 1
    uint32_t snd_max                        # 64   writer: output. SND.NXT, or behind the byte of a window probe
    uint32_t snd_end                        # 68   writer: calls. After the last queued byte, FIN not counted
    uint32_t snd_wnd                        # 72   writer: ack. Scaled to bytes
    uint32_t snd_wl1                        # 76
    uint32_t snd_wl2                        # 80
    uint16_t snd_max_wnd                    # 84   largest window seen, as on the wire: see tcb_max_window
    uint16_t corrective_tick                # 86   writer: throttle. When the last corrective ACK was granted
    uint32_t rcv_nxt                        # 88   writer: input
    uint32_t rcv_adv                        # 92   writer: output. Right edge last advertised
    uint32_t last_ack_sent                  # 96   writer: output (RFC 7323 section 4.3)
    uint32_t rx                             # 100  rx_queue_t index; 0: nothing is held
    uint32_t snd_head                       # 104  send_piece_t: first not fully acknowledged
    uint32_t snd_tail                       # 108
    uint32_t work_next                      # 112  tcp.work, valid while TCB_LISTED
    uint32_t timer                          # 116  wheel id, 0: none
    uint32_t extra                          # 120  extra_t index; 0: the first hop's MTU, tcp.config's options, buffer
    uint32_t last_received_ms               # 124  writer: input. See tcb_last_received_ms
    # ---- line 2
    uint32_t deadlines[DEADLINES_STORED]    # 128  ticks by deadline_t, valid with its bit of `armed`. writer: deadlines
    uint32_t cwnd                           # 140  writer: cc, through recovery (view_store); in fast recovery: recovery
    uint32_t ssthresh                       # 144  writer: cc, through recovery
    uint32_t cc_word                        # 148  index of the control's record, 0: none; a small record (control.pxd)
    uint32_t flight                         # 152  flight_t index: what is in flight; 0: nothing. writer: recovery
    uint32_t srtt_us                        # 156  RFC 6298; 0: no sample yet
    uint32_t rttvar_us                      # 160
    uint32_t min_rtt                        # 164  microseconds << 4 | age: rtt.pxd
    uint32_t delivered                      # 168  C.delivered: bytes that the peer has, in all. writer: ack
    uint32_t ts_recent                      # 172  RFC 7323
    uint16_t smss                           # 176  payload bytes of a full segment, options taken off
    uint16_t urgent                         # 178  urgent_t index (urgent.pxd); 0: no urgent data. writer: urgent, life
    uint8_t app                             # 180  engine.applications index
    uint8_t armed                           # 181  bit `kind`: the deadline is set. writers: deadlines, arrival/text
    uint16_t neighbour                      # 182  ip's hint
    uint8_t ttl                             # 184
    uint8_t tos                             # 185  its last two bits are what new data says of ECN. writer: recovery/ecn
    uint8_t soft_error                      # 186  last ICMP soft error since an ACK: type << 4 | code (MUST-47)
    uint8_t reordering                      # 187  RACK's reordering window: rack.pxd
    uint8_t backoff                         # 188  RTO doublings or probes without an answer
    uint8_t keepalive_probes                # 189
    uint8_t cc                              # 190  number of its control, CC_WAITING and so on. writer: control
    uint8_t close_reason                    # 191  close_reason_t, valid with TCB_EV_CLOSED

# ---------------------------------------------------------------- pieces on demand
# One lent range in the send queue. Pieces are in sequence order; the first covers snd_una.
#
# The queue keeps two words about itself in its ends, so that an idle connection pays for neither:
#
#     tail.note                 end of the last short segment sent, for Nagle's algorithm in Minshall's form
#     head.note, if not tail    the cursor: index of the piece where the latest data sent at SND.NXT ended, so that the
#                               next segment need not walk there from the head. A queue of one piece needs none.
#
# snd_cursor and snd_short_end below read them; calls (append), ack (release) and output write them.
ctypedef struct send_piece_t:               # 32 bytes
    lent_t *lent
    const uint8_t *data
    uint32_t length
    uint32_t seq                            # of data[0]
    uint32_t next
    uint32_t note                           # of the queue, not of this piece: see above

# What is known of a path that is narrower than the first hop, or that is searched (path.pxd). All zero: nothing.
cdef enum path_flags_t:
    PATH_SEARCHES = 1                       # SMSS is what the path is known to carry, and probes ask for more
    PATH_TOP_FIRST = 2                      # the next probe has search_high itself
    PATH_PROBE_LOST = 4                     # the probe that is out has been found lost
    PATH_PROBE_RESENT = 8                   # ... and something of it was sent again

ctypedef struct path_t:                     # 32 bytes
    uint64_t raise_at_ns                    # SMSS is full_smss again, or the search goes on; 0: it is, or does, now
    uint32_t claimed_seq                    # what the waiting claim is about
    uint32_t probe_seq                      # where the probe begins
    uint32_t lost_before                    # C.lost when it was sent
    uint16_t claimed_mtu                    # 0: no claim waits
    uint16_t full_smss
    uint16_t search_high                    # the largest packet that may still get through. The smallest: SMSS
    uint16_t probe_bytes                    # data in the probe that is out; 0: none
    uint8_t may_fragment                    # DF is clear: the path is narrower than any segment we send
    uint8_t reductions                      # by claims, since the size was full_smss
    uint8_t tries                           # probes of the present size that have said nothing
    uint8_t flags                           # path_flags_t

# How large the receive window has become (autotune.pxd). All zero: config.rcv_buffer_bytes, and no round has begun.
ctypedef struct autotune_t:                 # 20 bytes
    uint32_t limit_bytes
    uint32_t round_seq                      # where the application was when the round began
    uint32_t round_us                       # when that was
    uint32_t edge_seq                       # the right edge then
    uint32_t rtt_us                         # smallest of the round; 0: none

# What few connections have, in one record, because none of it is worth a word in every tcb: there from the first of it
# until the last is gone (life: extra_make, extra_settle). A part that its connection does not use says the usual.
ctypedef struct extra_t:                    # one cache line
    path_t path                             # writer: path
    uint32_t sockopts                       # sockopts_t index (sockopts.pxd); 0: none
    uint32_t history                        # history_t index (history.pxd); 0: none
    autotune_t autotune                     # writer: autotune
    uint32_t accecn                         # accecn_t index (accecn.pxd); 0: none

# ---------------------------------------------------------------- mini-records
ctypedef struct syn_received_t:             # one cache line; a passive open before its handshake is complete
    flow_key_t key                          # 0
    uint32_t iss                            # 36
    uint32_t irs                            # 40
    uint32_t ts_recent                      # 44
    uint32_t timer                          # 48
    ilist_hook_t order                      # 52  in tcp.syn_order
    uint16_t peer_mss                       # 60  with SYN_ACCURATE 14 bits; << 14: its SYN's IP header, the bits of ECN
    uint8_t options_wscale                  # 62  tcb_options_t << 4 | the peer's shift
    uint8_t retries_answers                 # 63  SYN-ACKs sent again; << 5: answers since (throttle); SYN_ACCURATE

ctypedef struct time_wait_t:                # one cache line; only answers (RFC 9293 section 3.10.7.4)
    flow_key_t key                          # 0
    uint32_t snd_nxt                        # 36
    uint32_t rcv_nxt                        # 40
    uint32_t ts_recent                      # 44
    ilist_hook_t order                      # 48  in tcp.time_wait_order
    uint32_t expiry_tick                    # 56
    uint16_t rcv_wnd                        # 60  as on the wire
    uint8_t options                         # 62  tcb_options_t
    uint8_t corrective_tick                 # 63  writer: throttle

ctypedef struct timestamp_pair_t:           # 16 bytes; all zero: none, for no peer has the address 0.0.0.0
    uint64_t pair                           # both IPv4 addresses
    uint32_t offset

ctypedef struct slow_end_t:                 # 8 bytes (timestamps.pxd)
    uint32_t tag                            # which connection; all zero: none
    uint32_t shown                          # the latest that it may have shown of our clock

# What may still be answered in this second that is not due to anybody, by kind (throttle.pxd). writer: throttle
ctypedef struct allowance_t:
    uint64_t since_ns                       # when the second began
    uint32_t left[2]                        # for all peers together
    uint32_t share[2]                       # for the peers of one place together
    uint32_t spent[2][ALLOWANCE_SHARES]     # of that, by a hash of the peer's address

ctypedef struct holder_mark_t:              # 24 bytes (holders.pxd)
    uint32_t index                          # of its connection; 0: none
    uint32_t raddr_be                       # ... which may be another one's by now
    uint16_t rport
    uint32_t snd_una
    uint64_t at_ms

ctypedef struct duplicate_t:                # 12 bytes: data that came twice (duplicates.pxd)
    uint32_t index                          # of its connection; 0: none
    uint32_t left
    uint32_t right

ctypedef struct cookies_t:                  # all that is kept of SYN cookies. writer: cookies
    bint sent                               # one has been, and sent_ns is when the last one was
    uint64_t sent_ns
    uint64_t epochs[2]                      # plus one: times whose keys are in `keys`
    uint8_t keys[2][16]
    uint64_t proof                          # of the one that was found right last
    uint32_t rtt_us                         # ... and the round trip of its handshake. 0: not known
    uint32_t *spent                         # tags of those that became connections. NULL: none has yet


# ---------------------------------------------------------------- one TCP
ctypedef struct listener_t:
    ip_addr_t laddr                         # all zero: any of ours (MUST-43)
    uint16_t lport                          # 0: free entry
    uint16_t app
    uint8_t cc                              # number of the control that its connections have
    uint8_t deferred_syn_acks               # ... are there with data, or after so many SYN-ACKs sent again; 0: at once
    uint16_t mss                            # most that either end may send in a segment; 0: see advertised_mss
    uint32_t backlog                        # most connections that wait for the application
    uint32_t waiting                        # accepted by TCP, not yet taken (applications that take late)

ctypedef struct flow_slot_t:
    uint32_t tag                            # hash of the key, for comparing before looking
    uint32_t target                         # kind << 30 | index; 0: empty

# The hash of one IPv4 key. It is right whenever it was made: the hash's key never changes.
ctypedef struct flow_memo_t:                # 16 bytes
    uint64_t addresses                      # laddr << 32 | raddr
    uint32_t ports                          # lport << 16 | rport
    uint32_t tag

# Two tables while one is emptied into the other (demux.pyx). They are mapped: a new one is zero without being touched.
ctypedef struct flow_table_t:
    flow_slot_t *slots
    uint32_t mask
    uint32_t used                           # entries in both
    uint32_t mask_at_first                  # it never becomes smaller
    uint32_t old_mask
    flow_slot_t *old_slots                  # what is being emptied, NULL: nothing
    uint32_t moved_from                     # where that began: right behind an empty slot
    uint32_t moved                          # slots done, from there and around; the next one begins a run, or is empty
    flow_slot_t *retired                    # emptied; unmapped piece by piece, from its end
    size_t retired_bytes
    uint8_t hash_key[16]
    flow_memo_t memo                        # of the key that was hashed last, or will be next (engine/ahead)

# Who is told what happens to connections, while anybody is (trace.pxd).
ctypedef struct trace_t:
    # what: trace_event_t | rexmit_cause_t << 8
    void (*note)(tcp_t *tcp, const tcb_t *tcb, uint32_t what, uint32_t seq, uint32_t length,
                 uint32_t detail) noexcept nogil
    void (*opened)(tcp_t *tcp, const tcb_t *tcb) noexcept nogil
    void (*closed)(tcp_t *tcp, const tcb_t *tcb, uint8_t became, uint8_t reason) noexcept nogil

ctypedef struct tcp_t:
    ip_t *ip
    counters_t *counters
    tcp_config_t config
    uint64_t now_ns                         # writer: the event entry points
    const trace_t *trace                    # NULL: nobody is traced (trace.pxd). writer: tracing
    uint8_t secret[16]                      # ISNs and timestamp offsets (RFC 6528), from the seed
    slab_t tcbs
    slab_t syns
    slab_t time_waits
    slab_t send_pieces
    slab_t extras
    slab_t accecns                          # of connections that count marks (accecn.pxd)
    slab_t sockopts                         # of connections with options of their own (sockopts.pxd)
    slab_t histories                        # of connections that have sent something again (history.pxd)
    slab_t urgents                          # of connections with urgent data, either way (urgent.pxd)
    slab_t measures                         # by the indices of tcbs, with config.measure: measures_t (measures.pxd)
    slab_t births                           # by the indices of tcbs: birth_t (history.pxd)
    slab_t flights                          # of connections with something in flight (flight.pxd)
    slab_t transmissions
    rx_memory_t rx                          # what was received and not consumed
    flow_table_t flows
    wheel_t wheel
    listener_t listeners[TCP_MAX_LISTENERS]
    bint own_mss                            # one of them has, or has had, an MSS of its own
    # writer: control. By number, NULL: nobody has asked for it here; by number | CC_WAITING: default bodies
    const cc_ops_t *cc[2 * TCP_MAX_CC]
    slab_t cc_records[TCP_MAX_CC]
    ilist_t cc_orders[TCP_MAX_CC]           # of those records, the one looked at longest ago first
    uint32_t cc_listed                      # bit by number: there are any
    uint32_t work_head                      # connections that output must look at, in order of arrival
    uint32_t work_tail
    cookies_t cookies
    ilist_t syn_order                       # half-open records, oldest first
    ilist_t time_wait_order                 # every record waits equally long: the first one expires first
    turn_t turn
    uint64_t lent_held                      # references to lent buffers, one for each send piece
    # Of our addresses and ports, for the next active open, by a hash of the destination (RFC 6056 section 3.3.4). It
    # never wraps: the circle of candidates is no power of two, and would break there.
    uint64_t candidate_next[TCP_EPHEMERAL_COUNTERS]     # writer: calls
    uint16_t identification_next            # of datagrams without DF (path_identification)
    uint32_t established                    # connections that applications own now
    uint32_t orphans                        # against config.max_orphans. writer: calls, ending
    uint32_t offering                       # connection whose bytes on_data is looking at, 0: none
    uint32_t offered_bytes                  # ... of them in a frame, counted by RCV.NXT and not in the receive queue
    allowance_t allowance
    holder_mark_t *holder_marks             # writer: holders. NULL: connections have never run short
    uint64_t holders_at                     # where they go on in the flow table
    uint32_t timestamp_offset               # where our clock began
    timestamp_pair_t timestamp_pairs[TIMESTAMP_PAIRS]       # writer: timestamps
    slow_end_t slow_ends[SLOW_ENDS]         # writer: timestamps
    uint32_t duplicates_waiting             # places that are taken. writer: duplicates
    duplicate_t duplicates[DUPLICATE_PLACES]
    uint32_t transmission_seed              # nobody outside can tell how a flight's tree is balanced
    admission_t admission
    # Bit `after` of state_moves[before]: a connection has made that move between states. writer: moves
    uint16_t state_moves[STATE_COUNT]

# ---------------------------------------------------------------- leaf accessors
cdef inline tcb_t *tcb_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <tcb_t *>slab_at(&tcp.tcbs, index)


cdef inline rx_queue_t *rx_queue_of(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return rx_queue_at(&tcp.rx, tcb.rx) if tcb.rx else NULL


cdef inline send_piece_t *send_piece_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <send_piece_t *>slab_at(&tcp.send_pieces, index)


cdef inline extra_t *extra_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <extra_t *>slab_at(&tcp.extras, index)


cdef inline path_t *path_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return &extra_at(tcp, index).path


# Piece in which the latest data sent at SND.NXT ended, or one before it. Only with a queue.
cdef inline uint32_t snd_cursor(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return tcb.snd_head if tcb.snd_head == tcb.snd_tail else send_piece_at(tcp, tcb.snd_head).note


cdef inline void snd_cursor_set(const tcp_t *tcp, const tcb_t *tcb, uint32_t index) noexcept nogil:
    if tcb.snd_head != tcb.snd_tail:
        send_piece_at(tcp, tcb.snd_head).note = index


# End of the last short segment sent (Linux's snd_sml). Only with a queue; compared with what is in flight, because it
# may be long ago.
cdef inline uint32_t *snd_short_end(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    return &send_piece_at(tcp, tcb.snd_tail).note


cdef inline syn_received_t *syn_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <syn_received_t *>slab_at(&tcp.syns, index)


cdef inline ilist_hook_t *syn_hook(const void *tcp, uint32_t index) noexcept nogil:
    return &syn_at(<const tcp_t *>tcp, index).order


cdef inline uint8_t syn_retries(const syn_received_t *syn) noexcept nogil:
    return syn.retries_answers & 0x1F


cdef inline uint8_t syn_answers(const syn_received_t *syn) noexcept nogil:
    return syn.retries_answers >> 5 & 3


# It is in the mode of RFC 9768, and stays there; with OPT_ECN our data may be marked. The two bits that say how the
# latest SYN came are taken from its MSS: a segment of more than 16 KB is cut to that.
cdef inline bint syn_is_accurate(const syn_received_t *syn) noexcept nogil:
    return syn.retries_answers & SYN_ACCURATE


cdef inline uint16_t syn_peer_mss(const syn_received_t *syn) noexcept nogil:
    return syn.peer_mss & SYN_MSS_MASK if syn_is_accurate(syn) else syn.peer_mss


cdef inline uint8_t syn_ip_ecn(const syn_received_t *syn) noexcept nogil:
    return <uint8_t>(syn.peer_mss >> SYN_IP_ECN_SHIFT)


cdef inline void syn_note_ip_ecn(syn_received_t *syn, uint8_t ip_ecn) noexcept nogil:
    syn.peer_mss = <uint16_t>(syn_peer_mss(syn) | <uint16_t>ip_ecn << SYN_IP_ECN_SHIFT)


cdef inline void syn_set_accurate(syn_received_t *syn, uint8_t ip_ecn) noexcept nogil:
    syn.retries_answers |= SYN_ACCURATE
    if syn.peer_mss > SYN_MSS_MASK:
        syn.peer_mss = SYN_MSS_MASK
    syn_note_ip_ecn(syn, ip_ecn)


cdef inline time_wait_t *time_wait_at(const tcp_t *tcp, uint32_t index) noexcept nogil:
    return <time_wait_t *>slab_at(&tcp.time_waits, index)


cdef inline ilist_hook_t *time_wait_hook(const void *tcp, uint32_t index) noexcept nogil:
    return &time_wait_at(<const tcp_t *>tcp, index).order


# When the last acceptable segment of the peer came: 36 bits of milliseconds, two years. (32 alone come round after 49
# days, and an idle connection has no timer that could notice.)
cdef inline uint64_t tcb_last_received_ms(const tcb_t *tcb) noexcept nogil:
    return <uint64_t>(tcb.options >> OPT_EPOCH_SHIFT) << 32 | tcb.last_received_ms


# A segment of the peer is acceptable, its ACK included.
cdef inline void tcb_heard(const tcp_t *tcp, tcb_t *tcb) noexcept nogil:
    cdef uint64_t now_ms = tcp.now_ns // 1000000
    tcb.last_received_ms = <uint32_t>now_ms
    tcb.options = <uint8_t>((tcb.options & 0x0F) | (now_ms >> 32) << OPT_EPOCH_SHIFT)


# Largest window that the peer has ever offered, in bytes (MAX.SND.WND, RFC 5961 section 5.2; Max(SND.WND), RFC 9293
# section 3.8.6.2.1).
cdef inline uint32_t tcb_max_window(const tcb_t *tcb) noexcept nogil:
    return <uint32_t>tcb.snd_max_wnd << tcb.snd_wscale


# Options that every segment of the connection carries, and the whole header.
cdef inline uint32_t tcb_option_bytes(const tcb_t *tcb) noexcept nogil:
    return TCP_TIMESTAMP_BYTES if tcb.options & OPT_TIMESTAMPS else 0


cdef inline uint32_t tcb_header_bytes(const tcb_t *tcb) noexcept nogil:
    return TCP_HEADER_BYTES + tcb_option_bytes(tcb)


# Our own clock as records keep it: microseconds in 32 bits.
cdef inline uint32_t tcp_now_us(const tcp_t *tcp) noexcept nogil:
    return us_of(tcp.now_ns)


# Timestamp clock: 1 ms (RFC 7323 section 5.4). Peers see it with an offset (timestamps.pxd).
cdef inline uint32_t tcp_timestamp(const tcp_t *tcp) noexcept nogil:
    return ms_of(tcp.now_ns) + tcp.timestamp_offset


# SEQ of a segment without data: SND.NXT; never beyond the window, where a probe's byte may lie: the peer would refuse
# the segment and its ACK (table 6 of RFC 9293 section 3.10.7.4).
cdef inline uint32_t tcb_bare_seq(const tcb_t *tcb) noexcept nogil:
    cdef uint32_t edge = tcb.snd_una + tcb.snd_wnd
    return edge if seq_diff(tcb.snd_max, edge) > 0 else tcb.snd_max

# SPDX-License-Identifier: MIT
# The records of a simulated network: frames under way, one-way links (hops), hosts, routers, and the clock over them
# all.
#
#     host ──hop──▶ router ──hop──▶ host        one hop for each direction of a link
#
# Plain data. Who writes what: queues, hops, nodes, flows, series, pump; each names its part. Read first:
# network.pyi. Below: link's contract, impairment's chance, the engine.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, conn_t
from ustack.base.types cimport ip_addr_t
from ustack.buf.lent cimport lent_t
from ustack.engine.records cimport engine_t
from ustack.link.capture cimport capture_t
from ustack.link.device cimport link_t
from ustack.link.impairment cimport impairment_t
from ustack.link.parcels cimport arrivals_t, parcel_pool_t, parcel_t, parcels_t
from ustack.tcp.records.flight cimport REXMIT_CAUSES

cdef enum:
    NODES_MAX = 16384                       # a host has four addresses of 198.18.0.0/16
    FLOWS_MAX = 50000                       # a flow has a port of its own
    FLOW_PORT = 10000                       # ... at the sender: that of the first one
    SINK_PORT = 9                           # where every host listens: discard
    RX_PARCELS_MAX = 4096                   # that a host holds for its stack
    NO_HOP = 0xFFFFFFFF

# ---------------------------------------------------------------- queues
cdef enum queue_kind_t:
    QUEUE_DROPTAIL = 0
    QUEUE_CODEL = 1
    QUEUE_RED = 2

ctypedef struct codel_t:                    # RFC 8289 section 5; names are its own
    uint64_t target_ns
    uint64_t interval_ns
    uint64_t first_above_ns
    uint64_t drop_next_ns
    uint32_t count
    uint32_t lastcount
    bint dropping

ctypedef struct red_t:                      # Floyd and Jacobson 1993, "gentle" (Floyd 2000)
    uint64_t min_bytes
    uint64_t max_bytes
    uint32_t max_p                          # of 2**32
    uint32_t weight_shift                   # the average takes 2**-weight_shift of each look
    uint64_t average                        # bytes << RED_SHIFT
    uint64_t idle_since_ns                  # since when the wire finds nothing to send; 0: it is not so
    uint32_t idle_part                      # of a frame, that it could have sent before: << RED_PART_SHIFT
    uint32_t count                          # the next frame's number since one was dropped or marked; 0: none was

ctypedef struct queue_t:
    parcels_t waiting
    uint64_t bytes
    uint32_t frames
    uint8_t kind                            # queue_kind_t
    uint64_t frame_bytes                    # of the longest frame that the wire takes; 0: any
    uint64_t longest_bytes                  # a frame that has come, or Ethernet's
    bint ecn                                # what can be marked is marked instead of dropped, by CoDel and RED
    uint64_t limit_bytes
    uint64_t limit_frames
    uint64_t mark_bytes                     # drop-tail: who finds more waiting is marked; 0: nobody is
    uint64_t most_bytes                     # that have waited since the beginning
    uint64_t most_frames
    uint64_t tail_dropped                   # for want of room
    uint64_t early_dropped                  # by CoDel or RED
    uint64_t marked
    codel_t codel
    red_t red

# ---------------------------------------------------------------- hops
ctypedef struct change_t:                   # of a setting, later
    uint64_t at_ns
    uint32_t setting                        # its number in hops.pyx
    uint64_t value                          # as store() takes it

ctypedef struct rate_step_t:                # of a recorded rate trace
    uint64_t after_ns                       # since the trace, or its repetition, began
    uint64_t rate_bps                       # 0: nothing is sent

ctypedef struct hop_counters_t:
    uint64_t offered                        # frames that the sending node wanted to send
    uint64_t sent                           # ... that left the queue for the wire
    uint64_t sent_bytes
    uint64_t delivered
    uint64_t delivered_bytes
    uint64_t lost
    uint64_t beyond_mtu
    uint64_t reordered
    uint64_t duplicated
    uint64_t corrupted
    uint64_t no_memory

ctypedef struct hop_t:
    uint32_t index
    uint32_t source                         # of the clock
    uint32_t begin                          # node that sends
    uint32_t end                            # node that receives
    queue_t queue
    # The wire. It takes one frame at a time: `serving` leaves when its bits are out.
    parcel_t *serving
    uint64_t work                           # bits of `serving` that are not out at since_ns, times 10**9
    uint64_t since_ns
    uint64_t served_ns                      # when it has left; UINT64_MAX: nothing is served, or the wire stands still
    uint64_t rate_bps                       # 0: serialisation takes no time
    uint64_t trace_bps                      # what the rate trace says now
    bint stopped                            # by setting `down`: frames wait
    bint cut                                # frames are lost
    # Propagation.
    impairment_t chance                     # with the generator; delay_ns and jitter_ns are in it
    bint by_chance                          # any of these is not 0
    double good_to_bad                      # Gilbert-Elliott; 0: loss alone decides
    double bad_to_good
    double loss_good
    double loss_bad
    bint bad
    uint64_t mtu                            # bytes of the largest IP packet; 0: any
    bint silent                             # nobody is told of what is too long
    parcels_t in_order                      # under way, by arrival
    arrivals_t late                         # those that arrive out of that order
    uint64_t orders
    uint64_t *losses                        # numbers of frames that are lost, ascending
    uint32_t losses_count
    uint32_t losses_at
    # What changes.
    change_t *changes                       # ascending by at_ns
    uint32_t changes_count
    uint32_t changes_at
    rate_step_t *trace
    uint32_t trace_count
    uint32_t trace_at
    uint64_t trace_base_ns
    uint64_t trace_repeat_ns                # 0: once
    capture_t *capture                      # NULL: nothing is recorded
    hop_counters_t counters

# ---------------------------------------------------------------- nodes
ctypedef struct node_t:
    uint32_t index
    bint is_host
    uint32_t source                         # of the clock, of a host
    uint32_t address_be                     # of a host; of a router the one that its ICMP comes from
    uint32_t gateway_be
    uint8_t mac[6]
    uint32_t *routes                        # hop by host's index; NO_HOP: none
    # A host's.
    uint32_t out                            # its hop
    link_t *link                            # NULL: closed
    engine_t *engine                        # NULL: closed
    bint *come_up                           # its owner has something to raise
    application_t *sender                   # of its flows
    parcels_t arrived                       # not lent yet
    parcels_t lent
    uint32_t held                           # frames in both
    parcel_t *reserved
    parcels_t committed
    uint64_t again                          # turns at this instant, because the last one left work
    uint64_t again_ns
    uint64_t ring_dropped
    uint64_t unroutable
    uint64_t expired                        # TTL

# ---------------------------------------------------------------- flows
cdef enum flow_pattern_t:
    PATTERN_BULK = 0
    PATTERN_CHUNKS = 1
    PATTERN_REQUESTS = 2

ctypedef struct flow_t:
    uint32_t index
    uint32_t begin                          # host that opens, and sends
    uint32_t end                            # host that listens
    uint8_t pattern                         # flow_pattern_t
    int cc                                  # its number at the sender; -1: the stack's own
    int sink_cc                             # and at the receiver
    uint64_t start_ns
    uint64_t stop_ns                        # 0: never
    uint64_t size                           # bytes; 0: endless
    uint64_t chunk_bytes
    uint64_t every_ns
    uint64_t request_bytes
    uint64_t response_bytes
    uint64_t think_ns
    uint64_t count                          # requests; 0: endless
    # What has happened.
    conn_t *sender                          # NULL: not open
    conn_t *receiver
    uint64_t queued                         # bytes handed to the sender's transport
    uint64_t wanted                         # bytes that the pattern has asked for so far
    uint64_t received                       # at the listener
    uint64_t answer_wanted                  # bytes of responses, as `wanted`
    uint64_t answer_queued
    uint64_t answered                       # bytes of responses that have come
    uint64_t responses                      # whole ones
    uint64_t asked_ns                       # when the present request was made; when the next chunk is due
    uint64_t first_ns                       # when the connection was established
    uint64_t last_ns                        # when something was last received
    uint64_t ended_ns                       # when the sender's connection was gone; 0: it is not
    uint8_t state                           # flow_state_t
    uint8_t reason                          # close_reason_t of the sender's end
    # As a bystander at the sender's interface sees it.
    uint32_t max_seq                        # right end of what has been sent
    bint seen
    uint64_t segments                       # with data
    uint64_t segments_again                 # ... of which all, or a part, had been sent before
    uint64_t bytes_again
    # What the sender's TCP says of itself, the last time that it was asked.
    uint32_t srtt_us
    uint32_t min_rtt_us
    uint32_t resent_segs[REXMIT_CAUSES]     # by rexmit_cause_t
    uint32_t spurious                       # repairs that were none
    uint32_t timeouts
    uint64_t *times                         # response times
    uint64_t times_count
    uint64_t times_capacity

cdef enum flow_state_t:
    FLOW_WAITING = 0
    FLOW_OPEN = 1
    FLOW_ENDED = 2

# What happens at a time of the script's: a flow begins or is cut off.
ctypedef struct event_t:
    uint64_t at_ns
    uint32_t flow
    bint stop

# ---------------------------------------------------------------- the clock
ctypedef struct source_t:                   # of events: a hop, a host, the script, the sampler
    uint64_t at_ns                          # UINT64_MAX: nothing is to come
    uint32_t rank                           # at the same time the lower one is first
    uint32_t position                       # in the heap

ctypedef struct clock_t:
    source_t *sources
    uint32_t *heap                          # of source numbers
    uint32_t count
    uint32_t capacity

# ---------------------------------------------------------------- series
ctypedef struct column_t:
    uint64_t *values                        # rows of `width`
    uint64_t rows
    uint64_t capacity
    uint32_t width

ctypedef struct sampler_t:
    uint64_t every_ns                       # 0: nothing is sampled
    uint64_t next_ns
    uint64_t rows_max
    uint64_t missed                         # rows that were not taken: rows_max, or no memory
    column_t times
    column_t *flows                         # one each
    column_t *hops
    uint32_t flow_count                     # columns that there are
    uint32_t hop_count

# ---------------------------------------------------------------- the network
ctypedef struct net_t:
    uint64_t now_ns
    uint64_t start_ns
    uint64_t seed
    node_t **nodes
    uint32_t node_count
    uint32_t node_capacity
    hop_t **hops
    uint32_t hop_count
    uint32_t hop_capacity
    flow_t **flows
    uint32_t flow_count
    uint32_t flow_capacity
    uint32_t flows_running                  # of a size or count, that have not ended
    event_t *script                         # ascending
    uint32_t script_count
    uint32_t script_capacity
    uint32_t script_at
    uint32_t script_source
    uint32_t sampler_source
    sampler_t sampler
    clock_t clock
    parcel_pool_t pool
    lent_t *text                            # what flows send
    uint64_t frames                         # that hops have carried
    uint64_t turns                          # that stacks have made
    bint stuck                              # a stack did not come to rest
    bint come_up                            # something waits for the GIL

# SPDX-License-Identifier: MIT
# The records of one engine. Plain data: what happens to it is in upcalls and poll.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from ustack.application cimport application_t, transport_t
from ustack.base.counters cimport counters_t
from ustack.buf.frame cimport frame_t
from ustack.ip.layer cimport ip_t
from ustack.link.device cimport link_t
from ustack.tcp.records.tcb cimport tcp_t

cdef enum:
    ENGINE_BURST = 64
    ENGINE_APPLICATIONS = 64

# What turns have cost so far: the most that any one of them has done, in units and by kind of work.
ctypedef struct turn_stats_t:
    uint64_t turns
    uint32_t units_max
    uint32_t frames_max
    uint32_t upcalls_max
    uint32_t connections_max
    uint32_t timers_max
    uint32_t moves_max
    uint32_t looks_in_vain_max      # connections of the work list that had nothing for a hand-over

ctypedef struct engine_t:
    transport_t transport                              # first: what applications hold is the engine
    link_t *link
    ip_t ip
    tcp_t tcp
    counters_t counters
    application_t *applications[ENGINE_APPLICATIONS]   # [0] is never used; tcb.app is application_t.index
    uint16_t application_count
    frame_t frames[ENGINE_BURST]
    turn_stats_t turns
    uint64_t now_ns
    uint64_t open_applications                         # bit i: on_burst_begin has been called in this poll
    uint64_t gathers                                   # bit i: applications[i] has `gather`
    uint64_t hand_overs                                # bit i: it has asked for it
    bint tx_blocked                                    # the last flush ended at a full ring
    bint ending                                        # engine_end_some has been called
    bint untold                                        # it has given up on the device: peers get no RST
    uint32_t fruitless                                 # turns of it in which nothing could be sent
    uint64_t end_at                                    # where it goes on in the flow table
    int link_error                                     # -errno of a link that failed, 0 while it works

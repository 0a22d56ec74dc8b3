# SPDX-License-Identifier: MIT
"""What makes a simulated network go. See pump.pxd."""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from ustack.engine.poll cimport engine_next_deadline, engine_poll
from ustack.link.parcels cimport parcel_t
from ustack.sim.clockwork cimport clock_first, clock_next_ns, clock_set
from ustack.sim.flows cimport flow_start, flow_stop
from ustack.sim.hops cimport hop_arrival, hop_next_ns
from ustack.sim.nodes cimport node_receive
from ustack.sim.records cimport event_t, hop_t, node_t
from ustack.sim.series cimport sampler_take

cdef enum:
    TURNS_AT_ONCE = 20000                   # of one stack, at one instant
    TICK_NS = 1 << 18                       # the resolution of a stack's timers


cdef void hop_turn(net_t *net, hop_t *hop) noexcept nogil:
    cdef parcel_t *parcel = hop_arrival(hop, &net.pool, net.now_ns)
    while parcel != NULL:
        node_receive(net, net.nodes[hop.end], parcel)
        parcel = hop_arrival(hop, &net.pool, net.now_ns)
    clock_set(&net.clock, hop.source, hop_next_ns(hop))


cdef inline uint64_t turn_ns(net_t *net, node_t *node) noexcept nogil:
    """When a stack wants its next turn; now_ns: at this instant."""
    cdef uint64_t next_ns = engine_next_deadline(node.engine)
    return net.now_ns if node.arrived.first != NULL or next_ns < net.now_ns else next_ns


cdef void host_turn(net_t *net, node_t *node) noexcept nogil:
    """One turn of its stack. What it leaves for the next one is done at this instant, too, but not for ever."""
    cdef uint64_t next_ns
    if node.engine == NULL:
        clock_set(&net.clock, node.source, UINT64_MAX)
        return
    engine_poll(node.engine, net.now_ns)
    net.turns += 1
    next_ns = turn_ns(net, node)
    if next_ns == net.now_ns:
        if node.again_ns != net.now_ns:
            node.again_ns = net.now_ns
            node.again = 0
        node.again += 1
        if node.again > TURNS_AT_ONCE:
            net.stuck = True
            next_ns = net.now_ns + TICK_NS
    clock_set(&net.clock, node.source, next_ns)


cdef void script_turn(net_t *net) noexcept nogil:
    cdef event_t *event
    while net.script_at < net.script_count and net.script[net.script_at].at_ns <= net.now_ns:
        event = &net.script[net.script_at]
        net.script_at += 1
        if event.stop:
            flow_stop(net, net.flows[event.flow])
        else:
            flow_start(net, net.flows[event.flow])
        clock_set(&net.clock, net.nodes[net.flows[event.flow].begin].source, net.now_ns)
    clock_set(&net.clock, net.script_source,
              net.script[net.script_at].at_ns if net.script_at < net.script_count else UINT64_MAX)


cdef void net_run(net_t *net, uint64_t until_ns, bint until_ended, uint64_t events) noexcept nogil:
    cdef uint32_t source, rank, index
    cdef uint64_t at_ns
    while events > 0 and not (until_ended and net.flows_running == 0):
        events -= 1
        at_ns = clock_next_ns(&net.clock)
        if at_ns > until_ns:
            net.now_ns = until_ns
            return
        if at_ns > net.now_ns:
            net.now_ns = at_ns
        source = clock_first(&net.clock)
        rank = net.clock.sources[source].rank >> RANK_SHIFT
        index = net.clock.sources[source].rank & ((1 << RANK_SHIFT) - 1)
        if rank == RANK_HOP:
            hop_turn(net, net.hops[index])
        elif rank == RANK_HOST:
            host_turn(net, net.nodes[index])
            if net.come_up or net.nodes[index].come_up[0]:
                return
        elif rank == RANK_SAMPLER:
            clock_set(&net.clock, source, sampler_take(net))
        else:
            script_turn(net)


cdef void net_wake(net_t *net) noexcept nogil:
    cdef uint32_t i
    for i in range(net.node_count):
        if net.nodes[i].is_host and net.nodes[i].engine != NULL:
            clock_set(&net.clock, net.nodes[i].source, turn_ns(net, net.nodes[i]))

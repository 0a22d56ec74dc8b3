# SPDX-License-Identifier: MIT
"""A network in virtual time: hosts with a stack each, routers, links, and flows between the hosts.

    with Network(seed=7) as network:
        network.host("client", cc="bbr")
        network.router("r")
        network.host("server")
        network.connect("client", "r", rate_bps=100_000_000, delay_ns=20_000_000, queue_bytes=250_000)
        network.connect("r", "server")
        flow = network.flow("download", source="server", sink="client", size=20_000_000)
        network.run(60_000_000_000, until_ended=True)
        print(flow.report())

All of it runs in C, without the GIL, from event to event; the same seed and calls give the same frames at the same
times on every machine. What a host returns is an ordinary Stack with a manual clock: programs may use its sockets
between two runs. One thread at a time is inside a network and its stacks (OwnershipError). In a process that fork() has
made, the hosts are copies without links: such a network says what it has come to, and does not run (OSError, EBADF).

Read first: records.pxd (what there is), pump.pxd (how it goes). Above: scenarios. Below: the rest of this room, Stack.
"""

from collections import deque
from contextlib import ExitStack

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EBADF
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from ustack.application cimport CLOSE_NORMAL
from ustack.base.address cimport ip_addr_text
from ustack.base.arguments cimport whole
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.buf.lent cimport lent_unfilled, lent_unref, lent_watch
from ustack.engine.owner cimport Engine
from ustack.link.capture cimport Capture
from ustack.link.closed cimport closed_link_ops
from ustack.link.gate cimport Gate
from ustack.link.parcels cimport pool_empty
from ustack.sim.clockwork cimport clock_add, clock_free, clock_set
from ustack.sim.flows cimport FlowReceiver, FlowSender, flow_ask, flow_ends, flow_free
from ustack.sim.hops cimport hop_check, hop_free, hop_lose, hop_new, hop_next_ns, hop_schedule, hop_set, hop_set_trace
from ustack.sim.nodes cimport HostLink, node_free, node_new
from ustack.sim.pump cimport (
    RANK_HOP, RANK_HOST, RANK_SAMPLER, RANK_SCRIPT, RANK_SHIFT, net_run, net_wake)
from ustack.sim.records cimport (
    FLOW_ENDED, FLOWS_MAX, NO_HOP, NODES_MAX, PATTERN_BULK, PATTERN_CHUNKS, PATTERN_REQUESTS,
    SINK_PORT, event_t, flow_t, hop_t, net_t, node_t)
from ustack.sim.series cimport sampler_arrays, sampler_free, sampler_start
from ustack.tcp.records.flight cimport REXMIT_FAST, REXMIT_PROBE, REXMIT_RACK, REXMIT_RTO, REXMIT_SIZE

from ustack.application import reason_name
from ustack.blocking.stack import Stack

START_NS = 1_000_000_000_000
"""The clock's start: not zero, so that a time before it can be told from no time."""

cdef enum:
    TEXT_BYTES = 262144                     # what one piece of a flow is
    EVENTS_AT_ONCE = 1 << 18                # before signals are looked at
    HOPS_MAX = 2 * NODES_MAX
    ROWS_MAX = 1 << 22                      # of samples
    CAPTURE_BYTES = 1 << 20

cdef uint64_t DURATION_MAX = 1ULL << 61
cdef uint64_t BYTES_MAX = 1ULL << 48
cdef tuple CAUSES = (("fast", REXMIT_FAST), ("rack", REXMIT_RACK), ("probe", REXMIT_PROBE), ("rto", REXMIT_RTO),
                     ("size", REXMIT_SIZE))
cdef dict PATTERNS = {"bulk": PATTERN_BULK, "chunks": PATTERN_CHUNKS, "requests": PATTERN_REQUESTS}


cdef void *grown(void *items, uint32_t *capacity, uint32_t count, size_t size) except NULL:
    """The same with room for one more. Raises MemoryError."""
    cdef uint32_t wanted = capacity[0] * 2 if capacity[0] else 16
    cdef void *more
    if count < capacity[0]:
        return items
    more = realloc(items, wanted * size)
    if more == NULL:
        raise MemoryError
    capacity[0] = wanted
    return more


cdef str address_text(uint32_t address_be):
    cdef ip_addr_t address
    ip_addr_set_v4(&address, address_be)
    return ip_addr_text(&address)


cdef class Network:
    """Network(seed=0)
--

    An empty network. seed: of everything that chance decides, the stacks' included.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        self.gate = Gate()
        self._nodes = {}
        self._stacks = {}
        self._hops = {}
        self._flows = {}
        self._senders = {}
        self._receivers = {}
        self._captures = []
        memset(&self.c, 0, sizeof(net_t))
        self.closed = True

    def __init__(self, seed: int = 0) -> None:
        if self.c.start_ns != 0:
            raise RuntimeError("a network is initialised once")
        self.c.seed = <uint64_t>(seed & 0xFFFFFFFFFFFFFFFF)
        self.c.now_ns = self.c.start_ns = <uint64_t>START_NS
        self.c.text = lent_unfilled(TEXT_BYTES)
        if self.c.text == NULL:
            raise MemoryError
        memset(<void *>self.c.text.data, 0, TEXT_BYTES)
        if (clock_add(&self.c.clock, RANK_SCRIPT << RANK_SHIFT, &self.c.script_source) < 0
                or clock_add(&self.c.clock, RANK_SAMPLER << RANK_SHIFT, &self.c.sampler_source) < 0):
            raise MemoryError
        self.closed = False

    def __dealloc__(self) -> None:
        cdef uint32_t i
        for i in range(self.c.hop_count):
            hop_free(self.c.hops[i], &self.c.pool)
        for i in range(self.c.node_count):
            node_free(&self.c, self.c.nodes[i])
        for i in range(self.c.flow_count):
            flow_free(self.c.flows[i])
        free(self.c.hops)
        free(self.c.nodes)
        free(self.c.flows)
        free(self.c.script)
        sampler_free(&self.c.sampler)
        clock_free(&self.c.clock)
        pool_empty(&self.c.pool)
        if self.c.text != NULL:
            lent_unref(self.c.text)

    # ------------------------------------------------------------ topology
    cdef int add_node(self, str name, bint is_host) except -1:
        cdef node_t *node
        cdef uint32_t number = self.c.node_count
        cdef void *room
        if self.closed:
            raise ValueError("the network is closed")
        if name in self._nodes:
            raise ValueError(f"{name!r}: there is a node of that name")
        if number >= NODES_MAX:
            raise ValueError(f"a network has at most {NODES_MAX} nodes")
        self.gate.check("Network")
        room = grown(self.c.nodes, &self.c.node_capacity, number, sizeof(node_t *))
        self.c.nodes = <node_t **>room
        node = node_new(number, is_host)
        if node == NULL:
            raise MemoryError
        if is_host and clock_add(&self.c.clock, RANK_HOST << RANK_SHIFT | number, &node.source) < 0:
            node_free(&self.c, node)
            raise MemoryError
        self.c.nodes[number] = node
        self.c.node_count += 1
        self._nodes[name] = number
        self.routed = False
        return number

    def host(self, name: str, *, mtu: int = 1500, cc: str = "cubic", **settings: int) -> Stack:
        """A host, alone in a network of four addresses, and its stack. mtu: bytes of its interface's largest packet.

        settings: as Stack's. Raises ValueError.
        """
        cdef HostLink link
        cdef Engine stack
        cdef FlowSender sender
        cdef FlowReceiver receiver
        cdef node_t *node
        cdef int number
        whole("mtu", mtu, 68, 65535)
        number = self.add_node(name, True)
        node = self.c.nodes[number]
        link = HostLink.__new__(HostLink)
        link.attach(self, &self.c, node, self.gate, mtu)
        try:
            stack = Stack(link, f"{address_text(node.address_be)}/30", address_text(node.gateway_be), cc=cc,
                          seed=self.c.seed * NODES_MAX + <uint64_t>number, now_ns=self.c.now_ns, **settings)
            sender = FlowSender()
            receiver = FlowReceiver()
            sender.c.context = receiver.c.context = <void *>&self.c
            stack.enter("Network.host()")
            try:
                stack.register(sender)
            finally:
                stack.leave()
            (<object>stack).listen(SINK_PORT, application=receiver)
        except BaseException:
            link.close()
            del self._nodes[name]
            raise
        node.engine = &stack.c
        node.come_up = &stack.come_up
        node.sender = &sender.c
        self._stacks[name] = stack
        self._senders[name] = sender
        self._receivers[name] = receiver
        return stack

    def router(self, name: str) -> None:
        """A router. It forwards IPv4 by the shortest way, in links; of equal ones by the link that was made first."""
        self.add_node(name, False)

    cdef int number_of(self, object name) except -1:
        if name not in self._nodes:
            raise ValueError(f"{name!r}: there is no node of that name")
        return self._nodes[name]

    def connect(self, a: str, b: str, **settings: object) -> tuple[Hop, Hop]:
        """A link: its hops from a to b and from b to a, with the same settings (see Hop.set). A host has one link."""
        cdef int begin = self.number_of(a)
        cdef int end = self.number_of(b)
        cdef Hop there, back
        if self.closed:
            raise ValueError("the network is closed")
        self.gate.check("Network.connect()")
        if begin == end or (a, b) in self._hops:
            raise ValueError(f"{a}-{b}: a link joins two nodes, once")
        for name, number in ((a, begin), (b, end)):
            if self.c.nodes[<int>number].is_host and self.c.nodes[<int>number].out != NO_HOP:
                raise ValueError(f"{name!r}: a host has one link; put a router behind it")
        checked = {name: hop_check(name, value) for name, value in settings.items()}
        there = self.add_hop(begin, end)
        back = self.add_hop(end, begin)
        there.name = f"{a}->{b}"
        back.name = f"{b}->{a}"
        self._hops[a, b] = there
        self._hops[b, a] = back
        hop_set(there.c, &self.c.pool, checked, self.c.now_ns)
        hop_set(back.c, &self.c.pool, checked, self.c.now_ns)
        return there, back

    cdef Hop add_hop(self, int begin, int end):
        cdef Hop face = Hop.__new__(Hop)
        cdef hop_t *hop
        cdef void *room
        if self.c.hop_count >= HOPS_MAX:
            raise ValueError(f"a network has at most {HOPS_MAX // 2} links")
        room = grown(self.c.hops, &self.c.hop_capacity, self.c.hop_count, sizeof(hop_t *))
        self.c.hops = <hop_t **>room
        hop = hop_new(self.c.seed, self.c.hop_count, begin, end)
        if hop == NULL:
            raise MemoryError
        if clock_add(&self.c.clock, RANK_HOP << RANK_SHIFT | self.c.hop_count, &hop.source) < 0:
            hop_free(hop, &self.c.pool)
            raise MemoryError
        self.c.hops[self.c.hop_count] = hop
        self.c.hop_count += 1
        if self.c.nodes[begin].is_host:
            self.c.nodes[begin].out = hop.index
        self.routed = False
        face.network = self
        face.c = hop
        return face

    cdef int route(self) except -1:
        """Shortest ways to each host, from it outwards. Hosts forward nothing."""
        cdef uint32_t i, host
        cdef node_t *node
        into = [[] for _ in range(self.c.node_count)]
        for i in range(self.c.hop_count):
            if not self.c.nodes[self.c.hops[i].begin].is_host:
                into[self.c.hops[i].end].append((i, self.c.hops[i].begin))
        for i in range(self.c.node_count):
            node = self.c.nodes[i]
            if node.is_host:
                continue
            free(node.routes)
            node.routes = <uint32_t *>malloc(self.c.node_count * sizeof(uint32_t))
            if node.routes == NULL:
                raise MemoryError
            memset(node.routes, 0xFF, self.c.node_count * sizeof(uint32_t))
        for host in range(self.c.node_count):
            if not self.c.nodes[host].is_host:
                continue
            PyErr_CheckSignals()
            seen = {host}
            border = deque([host])
            while border:
                for number, begin in into[border.popleft()]:
                    if begin not in seen:
                        seen.add(begin)
                        border.append(begin)
                        self.c.nodes[<uint32_t>begin].routes[host] = number
        self.routed = True
        return 0

    def stack(self, name: str) -> Stack:
        """A host's stack."""
        return self._stacks[name]

    def hop(self, a: str, b: str) -> Hop:
        """One way of a link."""
        return self._hops[a, b]

    def address(self, name: str) -> str:
        """A host's address, or the one that a router's ICMP messages come from."""
        return address_text(self.c.nodes[self.number_of(name)].address_be)

    # ------------------------------------------------------------ flows
    cdef int control_of(self, object stack, object name) except -2:
        cdef Engine of = stack
        cdef int number
        if name is None:
            return -1
        of.enter("Network.flow()")
        try:
            number = of.control_number(name)
        finally:
            of.leave()
        return number

    def flow(self, name: str, *, source: str, sink: str, start_ns: int = 0, stop_ns: int = 0, size: int = 0,
             cc: str | None = None, pattern: str = "bulk", chunk_bytes: int = 0, every_ns: int = 0,
             request_bytes: int = 1, response_bytes: int = 1, think_ns: int = 0, count: int = 0) -> Flow:
        """Bytes from a host to another (patterns: flows.pxd), over one connection that `source` opens.

        start_ns, stop_ns: since the network began; 0 as a stop: never. size: bytes, 0: endless. cc: of both ends, by
        name; None: their stacks' own. count: requests, 0: endless. Raises ValueError.
        """
        cdef int begin = self.number_of(source)
        cdef int end = self.number_of(sink)
        cdef Flow face
        cdef flow_t *flow
        cdef void *room
        cdef int control, sink_control
        if self.closed:
            raise ValueError("the network is closed")
        if name in self._flows:
            raise ValueError(f"{name!r}: there is a flow of that name")
        if begin == end or not self.c.nodes[begin].is_host or not self.c.nodes[end].is_host:
            raise ValueError(f"{name!r}: a flow goes from a host to another")
        if self.c.flow_count >= FLOWS_MAX:
            raise ValueError(f"a network has at most {FLOWS_MAX} flows")
        if pattern not in PATTERNS:
            raise ValueError(f"pattern {pattern!r}: must be {', '.join(PATTERNS)}")
        for what, value, least in (("size", size, 0), ("chunk_bytes", chunk_bytes, int(pattern == "chunks")),
                                   ("request_bytes", request_bytes, 1), ("response_bytes", response_bytes, 1)):
            whole(what, value, least, BYTES_MAX)
        for what, value, least in (("start_ns", start_ns, 0), ("stop_ns", stop_ns, 0), ("think_ns", think_ns, 0),
                                   ("count", count, 0), ("every_ns", every_ns, int(pattern == "chunks"))):
            whole(what, value, least, DURATION_MAX)
        if self.c.start_ns + <uint64_t>start_ns < self.c.now_ns or (stop_ns and stop_ns <= start_ns):
            raise ValueError(f"{name!r}: it begins in the past, or ends before it begins")
        control = self.control_of(self._stacks[source], cc)
        sink_control = self.control_of(self._stacks[sink], cc)
        self.gate.check("Network.flow()")
        room = grown(self.c.flows, &self.c.flow_capacity, self.c.flow_count, sizeof(flow_t *))
        self.c.flows = <flow_t **>room
        flow = <flow_t *>calloc(1, sizeof(flow_t))
        if flow == NULL:
            raise MemoryError
        flow.index = self.c.flow_count
        flow.begin = begin
        flow.end = end
        flow.pattern = PATTERNS[pattern]
        flow.cc = control
        flow.sink_cc = sink_control
        flow.start_ns = self.c.start_ns + <uint64_t>start_ns
        flow.stop_ns = self.c.start_ns + <uint64_t>stop_ns if stop_ns else 0
        flow.size = size
        flow.chunk_bytes = chunk_bytes
        flow.every_ns = every_ns
        flow.request_bytes = request_bytes
        flow.response_bytes = response_bytes
        flow.think_ns = think_ns
        flow.count = count
        self.c.flows[self.c.flow_count] = flow
        self.c.flow_count += 1
        if flow_ends(flow):
            self.c.flows_running += 1
        self.schedule(flow.start_ns, flow.index, False)
        if stop_ns:
            self.schedule(flow.stop_ns, flow.index, True)
        face = Flow.__new__(Flow)
        face.network = self
        face.c = flow
        face.name = name
        face.source = source
        face.sink = sink
        face.cc = cc
        self._flows[name] = face
        return face

    cdef int schedule(self, uint64_t at_ns, int flow, bint stop) except -1:
        cdef void *room = grown(self.c.script, &self.c.script_capacity, self.c.script_count, sizeof(event_t))
        cdef uint32_t at = self.c.script_count
        self.c.script = <event_t *>room
        while at > self.c.script_at and self.c.script[at - 1].at_ns > at_ns:
            self.c.script[at] = self.c.script[at - 1]
            at -= 1
        self.c.script[at].at_ns = at_ns
        self.c.script[at].flow = flow
        self.c.script[at].stop = stop
        self.c.script_count += 1
        clock_set(&self.c.clock, self.c.script_source, self.c.script[self.c.script_at].at_ns)
        return 0

    # ------------------------------------------------------------ time
    @property
    def now_ns(self) -> int:
        """What the clock says; at first START_NS."""
        return self.c.now_ns

    @property
    def events(self) -> int:
        """Frames that hops have taken and turns that stacks have made: the simulation's work."""
        return self.c.frames + self.c.turns

    def run(self, duration_ns: int, *, until_ended: bool = False) -> int:
        """Let time pass; how much has. until_ended: if a flow goes on that has an end (a size, a count or a stop), no
        longer than until all those have ended.

        Raises what an application's Python has raised in a turn, ValueError for a stack that somebody has polled at a
        later time, RuntimeError for one that does not come to rest: it sends without end over links that take no time;
        and OSError (EBADF) in a process that fork() has made, for a network of its parent's.
        """
        cdef uint64_t begin_ns = self.c.now_ns
        cdef uint64_t until_ns
        cdef bint ended = until_ended and self.c.flows_running > 0
        if self.closed:
            raise ValueError("the network is closed")
        until_ns = begin_ns + <uint64_t>whole("duration_ns", duration_ns, 0, DURATION_MAX)
        if until_ns > self.c.start_ns + DURATION_MAX:
            raise ValueError(f"duration_ns {duration_ns}: a network's time ends {DURATION_MAX} ns after it began")
        self.gate.enter("Network.run()")
        try:
            if not self.routed:
                self.route()
            self.look_at_stacks()
            net_wake(&self.c)
            while True:
                self.c.come_up = False
                lent_watch(&self.c.come_up)
                with nogil:
                    net_run(&self.c, until_ns, ended, EVENTS_AT_ONCE)
                lent_watch(NULL)
                self.between()
                if self.c.now_ns >= until_ns and clock_is_past(&self.c, until_ns):
                    break
                if ended and self.c.flows_running == 0:
                    break
            self.set_clocks()
        finally:
            self.gate.leave()
        return self.c.now_ns - begin_ns

    cdef int set_clocks(self) except -1:
        """What a program calls now happens now, not at its stack's last turn."""
        cdef Engine stack
        for stack in self._stacks.values():
            stack.c.now_ns = self.c.now_ns
        return 0

    cdef int look_at_stacks(self) except -1:
        """One that has been closed takes no more turns."""
        cdef Engine stack
        for name, stack in self._stacks.items():
            if not stack.alive:
                self.c.nodes[self.number_of(name)].engine = NULL
            elif stack.c.link.ops == closed_link_ops() and not stack.link.closed:
                raise OSError(EBADF, f"{name!r}: its stack belongs to the process that this one was forked from")
            elif stack.c.now_ns > self.c.now_ns:
                raise ValueError(f"{name!r}: its stack was polled at {stack.c.now_ns}, later than {self.c.now_ns}")
            stack.come_up = False
        return 0

    cdef int between(self) except -1:
        cdef Engine stack
        self.gate.serve()
        for stack in self._stacks.values():
            if stack.alive:
                stack.hand_over()
                stack.come_up = False
                stack.raise_parked()
        if self.c.stuck:
            self.c.stuck = False
            raise RuntimeError("a stack does not come to rest")
        return PyErr_CheckSignals()

    # ------------------------------------------------------------ looking
    def sample(self, every_ns: int, *, rows_max: int = 1 << 20) -> None:
        """Sample flows and hops, those that there are now, from now on."""
        whole("every_ns", every_ns, 1, DURATION_MAX)
        whole("rows_max", rows_max, 1, ROWS_MAX)
        if self.closed:
            raise ValueError("the network is closed")
        self.gate.check("Network.sample()")
        if sampler_start(&self.c, every_ns, rows_max) < 0:
            raise MemoryError
        clock_set(&self.c.clock, self.c.sampler_source, self.c.now_ns)

    def series(self) -> dict[str, object]:
        """What was sampled: {"times_ns": array, "flows": {name: {column: array}}, "hops": {name: {column: array}}}.

        Arrays are of type Q. Times are since the network began. Of flows: cwnd, ssthresh, flight (bytes not
        acknowledged), srtt_us, rto_us, pacing_bps, acked_bytes, received_bytes, retransmitted (segments), state; zeros
        while there is no connection. Of hops: queue_bytes, queue_frames, dropped, marked, sent_bytes.
        """
        self.gate.check("Network.series()")
        found = sampler_arrays(&self.c.sampler)
        found["flows"] = dict(zip(self._flows, found["flows"]))
        found["hops"] = dict(zip((hop.name for hop in self.in_order()), found["hops"]))
        return found

    cdef list in_order(self):
        return sorted(self._hops.values(), key=hop_index)

    def flows(self) -> dict[str, Flow]:
        """All of them, by name."""
        return dict(self._flows)

    def hops(self) -> dict[str, Hop]:
        """All of them, by name ("a->b")."""
        return {hop.name: hop for hop in self.in_order()}

    def close(self) -> None:
        """Reset what is open, close the stacks and captures. Idempotent."""
        if self.closed:
            return
        self.gate.check("Network.close()")
        self.closed = True
        for opened in self._stacks.values():
            opened.close(linger=0)
            opened.link.close()
        self.look_at_stacks()
        lent_unref(self.c.text)
        self.c.text = NULL
        for hop in self._hops.values():
            (<Hop>hop).c.capture = NULL
        with ExitStack() as captures:           # all are closed, whatever becomes of one
            for capture in self._captures:
                captures.callback(close_capture, capture)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


cdef object close_capture(Capture capture):
    capture.close()


cdef bint clock_is_past(const net_t *net, uint64_t until_ns) noexcept nogil:
    """Nothing is left to do at until_ns."""
    return net.clock.sources[net.clock.heap[0]].at_ns > until_ns


def hop_index(hop: Hop) -> int:
    """In the order of their making."""
    return (<Hop>hop).c.index


# What a Hop and a Flow are of that no network has made.
cdef Network NOBODYS = Network.__new__(Network)
cdef hop_t NO_ONES_HOP
cdef flow_t NO_ONES_FLOW


cdef class Hop:
    """One way of a link; made by Network.connect()."""

    def __cinit__(self) -> None:
        self.network = NOBODYS
        self.c = &NO_ONES_HOP

    def __init__(self):
        raise TypeError("use Network.connect()")

    cdef int check(self, str call) except -1:
        if self.network.closed:
            raise ValueError("the network is closed")
        return self.network.gate.check(call)

    cdef int changed(self) except -1:
        clock_set(&self.network.c.clock, self.c.source, hop_next_ns(self.c))
        return 0

    def set(self, **settings: object) -> None:
        """Change settings from now on; frames under way are not touched. Raises ValueError before anything is changed.

        rate_bps (0: sending takes no time), delay_ns, jitter_ns (most that is added, anew for each frame) · queue:
        "droptail", "codel" or "red", queue_bytes, queue_frames, mark_bytes (drop-tail: who finds more waiting is marked
        Congestion Experienced), ecn (1: CoDel and RED mark instead of dropping), codel_target_ns, codel_interval_ns,
        red_min_bytes, red_max_bytes, red_max_p, red_weight_shift · loss; or Gilbert and Elliott's good_to_bad,
        bad_to_good, loss_good, loss_bad, while good_to_bad is not 0 · reorder and reorder_ns (most that such a frame is
        late), duplicate, corrupt (one bit) · mtu (bytes of an IP packet; 0: any) and silent (1: what is too long
        vanishes without ICMP) · down (1: frames wait), cut (1: frames are lost). Probabilities are floats, all else is
        whole.
        """
        checked = {name: hop_check(name, value) for name, value in settings.items()}
        self.check("Hop.set()")
        hop_set(self.c, &self.network.c.pool, checked, self.network.c.now_ns)
        self.changed()

    def at(self, at_ns: int, **settings: object) -> None:
        """The same from at_ns on, counted from the network's beginning."""
        cdef uint64_t when = whole("at_ns", at_ns, 0, DURATION_MAX)
        checked = {name: hop_check(name, value) for name, value in settings.items()}
        self.check("Hop.at()")
        when += self.network.c.start_ns
        if when < self.network.c.now_ns:
            raise ValueError(f"at_ns {at_ns}: is past")
        for name, value in checked.items():
            hop_schedule(self.c, when, name, value)
        self.changed()

    def lose(self, frames: list[int]) -> None:
        """Lose these frames: by number, from 1, as they leave for the wire. They take the place of earlier ones."""
        self.check("Hop.lose()")
        hop_lose(self.c, list(frames))

    def rates(self, steps: list[tuple[int, int]], *, repeat_ns: int = 0) -> None:
        """A recorded rate in place of rate_bps: [(ns from now, bits per second)], from 0 on; 0 bits: nothing is sent.

        repeat_ns: it begins anew after so long; 0: the last step stays.
        """
        whole("repeat_ns", repeat_ns, 0, DURATION_MAX)
        self.check("Hop.rates()")
        hop_set_trace(self.c, &self.network.c.pool, list(steps), repeat_ns, self.network.c.now_ns)
        self.changed()

    def record(self, file: object) -> None:
        """Record what leaves for the wire, lost or not, in a pcapng file until the network is closed.

        file: a path, a descriptor or a binary stream. Times are the network's clock.
        """
        cdef Capture capture = Capture()
        self.check("Hop.record()")
        if self.capture is not None:
            raise ValueError(f"{self.name}: it is recorded already")
        capture.open(file, self.name, 0, CAPTURE_BYTES)
        self.capture = capture
        self.network._captures.append(capture)
        self.c.capture = &capture.c

    def counters(self) -> dict[str, int]:
        """What became of the frames. tail_dropped: for want of room, early_dropped: by CoDel or RED. most_*: that have
        ever waited."""
        cdef const hop_t *hop = self.c
        return {
            "offered": hop.counters.offered, "sent": hop.counters.sent, "sent_bytes": hop.counters.sent_bytes,
            "delivered": hop.counters.delivered, "delivered_bytes": hop.counters.delivered_bytes,
            "tail_dropped": hop.queue.tail_dropped, "early_dropped": hop.queue.early_dropped,
            "marked": hop.queue.marked, "lost": hop.counters.lost, "beyond_mtu": hop.counters.beyond_mtu,
            "reordered": hop.counters.reordered, "duplicated": hop.counters.duplicated,
            "corrupted": hop.counters.corrupted, "no_memory": hop.counters.no_memory,
            "most_bytes": hop.queue.most_bytes, "most_frames": hop.queue.most_frames,
        }


cdef class Flow:
    """Bytes from a host to another; made by Network.flow()."""

    def __cinit__(self) -> None:
        self.network = NOBODYS
        self.c = &NO_ONES_FLOW

    def __init__(self):
        raise TypeError("use Network.flow()")

    @property
    def ended(self) -> bool:
        """Whether the connection of its sender has ended."""
        return self.c.state == FLOW_ENDED

    def report(self) -> dict[str, object]:
        """What it has come to by now.

        Times are since the network began; None: not yet. goodput_bps: of what has arrived at the sink, from the start
        to the last of it, or to now while the flow goes on. segments_sent: with data; retransmitted: those of which a
        part had been sent before, retransmitted_bytes: those parts; both as seen at the interface. retransmitted_by,
        spurious_repairs, timeouts and round trips: as the sender's TCP says. response_*: of whole responses (pattern
        requests). reason: of its end; "aborted" also where its source's stack was closed before it began.
        """
        cdef flow_t *flow = self.c
        cdef const net_t *net = &self.network.c
        cdef uint64_t end_ns = net.now_ns
        cdef uint64_t i
        self.network.gate.check("Flow.report()")
        flow_ask(net, flow)
        if flow.state == FLOW_ENDED:
            end_ns = flow.last_ns if flow.reason == CLOSE_NORMAL and flow.last_ns else flow.ended_ns
        lasted_ns = end_ns - flow.start_ns if end_ns > flow.start_ns else 0
        times = sorted(flow.times[i] for i in range(flow.times_count))
        return {
            "name": self.name, "source": self.source, "sink": self.sink, "cc": self.cc,
            "start_ns": flow.start_ns - net.start_ns,
            "first_ns": flow.first_ns - net.start_ns if flow.first_ns else None,
            "last_ns": flow.last_ns - net.start_ns if flow.last_ns else None,
            "end_ns": flow.ended_ns - net.start_ns if flow.state == FLOW_ENDED else None,
            "queued_bytes": flow.queued, "received_bytes": flow.received,
            "goodput_bps": flow.received * 8 * 1_000_000_000 // lasted_ns if lasted_ns else 0,
            "segments_sent": flow.segments, "retransmitted": flow.segments_again,
            "retransmitted_bytes": flow.bytes_again,
            "retransmitted_by": {name: flow.resent_segs[<int>cause] for name, cause in CAUSES},
            "spurious_repairs": flow.spurious, "timeouts": flow.timeouts,
            "srtt_us": flow.srtt_us or None, "min_rtt_us": flow.min_rtt_us or None,
            "responses": flow.responses,
            "response_p50_ns": times[len(times) // 2] if times else None,
            "response_p99_ns": times[len(times) * 99 // 100] if times else None,
            "reason": reason_name(flow.reason) if flow.state == FLOW_ENDED else None,
        }

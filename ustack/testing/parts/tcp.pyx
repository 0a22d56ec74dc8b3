# SPDX-License-Identifier: MIT
"""Parts of TCP without a Python face, for tests with plain numbers: flow table, ISN, deadlines, active opens,
congestion control.

Nothing here decides anything: each method is one call of the part under test, on records made for it alone. No engine
and no link are behind them. Read first: tcp/records/demux.pxd, tcp/cc/contract.pxd. Above: tests. Below: tcp.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.application cimport CALL_IN_USE, CALL_NO_PORT
from ustack.base.counters cimport CANDIDATES_TAKEN, counters_t
from ustack.base.posix cimport htonl, ntohl
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.base.wheel cimport TIMER_NONE, timer_event_t, wheel_deadline_tick, wheel_expire
from ustack.buf.slab cimport slab_alloc, slab_release
from ustack.ip.layer cimport ip_config_defaults, ip_config_t, ip_destroy, ip_init, ip_t
from ustack.tcp.calls cimport tcp_connect
from ustack.tcp.cc.contract cimport SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.cc.newreno cimport newreno_t
from ustack.tcp.cc.registry cimport cc_find, cc_table
from ustack.tcp.ending cimport connection_end
from ustack.tcp.records.configuration cimport tcp_config_defaults, tcp_config_t
from ustack.tcp.records.deadlines cimport (
    deadline_clear, deadline_expired, deadline_is_set, deadline_set, deadline_tick, deadlines_arm, tcp_tick)
from ustack.tcp.records.demux cimport (
    FLOW_CONNECTION, FLOW_SYN_RECEIVED, FLOW_TIME_WAIT, flow_find, flow_hash, flow_insert, flow_kind_t, flow_remove,
    flow_retarget, flow_t, flow_table_free, flow_table_init, flow_turn, initial_sequence_number, listener_exact,
    listener_find)
from ustack.tcp.records.life cimport tcb_alloc, tcb_release, tcp_destroy, tcp_init
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.state cimport CLOSE_ABORTED, tcp_state_t
from ustack.tcp.records.tcb cimport (
    DEADLINES_STORED, DEADLINE_KINDS, TCP_EPHEMERAL_COUNTERS, deadline_t, flow_key_t, flow_slot_t, listener_t, syn_at,
    tcb_at, tcb_t, tcp_t, time_wait_at)
from ustack.tcp.records.work cimport work_take

cdef enum:
    OUR_FIRST = 0xC6120100u                 # 198.18.1.0
    SERVER = 0xC6120001u


cdef void fill_key(flow_key_t *key, tuple flow) except *:
    laddr, lport, raddr, rport = flow
    memset(key, 0, sizeof(flow_key_t))
    ip_addr_set_v4(&key.laddr, <uint32_t>laddr)
    ip_addr_set_v4(&key.raddr, <uint32_t>raddr)
    key.lport = <uint16_t>lport
    key.rport = <uint16_t>rport


cdef class Deadlines:
    """tcp/records/deadlines over one connection of its own. A kind is a number of deadline_t; now_ns: settable."""

    cdef tcp_t c
    cdef tcb_t *tcb
    cdef counters_t counters

    def __init__(self, uint64_t now_ns=0):
        cdef tcp_config_t config
        tcp_config_defaults(&config)
        if self.tcb != NULL or tcp_init(&self.c, NULL, &self.counters, &config, 1, now_ns) != 0:
            raise MemoryError
        self.tcb = tcb_alloc(&self.c)

    def __dealloc__(self) -> None:
        if self.tcb != NULL:
            tcb_release(&self.c, self.tcb)
            tcp_destroy(&self.c)

    @property
    def stored(self) -> int:
        """How many kinds keep a tick."""
        return DEADLINES_STORED

    @property
    def now_ns(self) -> int:
        """The time."""
        return self.c.now_ns

    @now_ns.setter
    def now_ns(self, uint64_t value) -> None:
        self.c.now_ns = value

    def set(self, int kind, uint64_t delay_ns) -> None:
        """It is due delay_ns from now."""
        deadline_set(&self.c, self.tcb, <deadline_t>kind, delay_ns)

    def clear(self, int kind) -> None:
        """It is not waited for any more."""
        deadline_clear(self.tcb, <deadline_t>kind)

    def is_set(self, int kind) -> bool:
        """Is it waited for?"""
        return deadline_is_set(self.tcb, <deadline_t>kind)

    def expired(self) -> list[int]:
        """The kinds that have come."""
        return [kind for kind in range(DEADLINE_KINDS) if deadline_expired(&self.c, self.tcb, kind, tcp_tick(&self.c))]

    def due_in_ticks(self, int kind) -> int:
        """How far ahead its tick lies, negative: behind."""
        return <int32_t>(deadline_tick(&self.c, self.tcb, kind) - tcp_tick(&self.c))

    @property
    def node_in_ticks(self) -> int | None:
        """How far ahead the node fires; None: there is no node."""
        if self.tcb.timer == TIMER_NONE:
            return None
        return <int32_t>(wheel_deadline_tick(&self.c.wheel, self.tcb.timer) - tcp_tick(&self.c))

    def fire(self) -> bool:
        """Let the wheel reach the time, as timers does: forget a node that fires, and arm it for what is left."""
        cdef timer_event_t event
        cdef uint32_t moves = 1 << 30
        if wheel_expire(&self.c.wheel, self.c.now_ns, &event, 1, &moves) == 0:
            return False
        self.tcb.timer = TIMER_NONE
        for kind in self.expired():
            deadline_clear(self.tcb, <deadline_t><int>kind)
        deadlines_arm(&self.c, self.tcb)
        return True


def walk_states(*states: int) -> None:
    """A connection's record goes through these states, from CLOSED on. Debug builds abort at a move that is illegal."""
    cdef tcp_t tcp
    cdef tcb_t tcb
    memset(&tcp, 0, sizeof(tcp))
    memset(&tcb, 0, sizeof(tcb))
    for state in states:
        set_state(&tcp, &tcb, <tcp_state_t><int>state)


cdef class Opens:
    """tcp/calls' active opens, to port 80 of 198.18.0.1 from so many addresses, the first of them 198.18.1.0.

    counters: where each of the counters that pick a candidate begins.
    """

    cdef ip_t ip
    cdef tcp_t c
    cdef counters_t counted
    cdef bint made

    def __init__(self, uint32_t sources=1, *, uint64_t counters=0):
        cdef ip_config_t ip_config
        cdef tcp_config_t config
        cdef int i
        ip_config_defaults(&ip_config)
        ip_config.prefix_length = 15
        ip_addr_set_v4(&ip_config.address, htonl(OUR_FIRST))
        ip_config.range_count = 1
        ip_config.ranges[0].first = ip_config.address
        ip_addr_set_v4(&ip_config.ranges[0].last, htonl(OUR_FIRST + sources - 1))
        tcp_config_defaults(&config)
        config.max_connections = 1 << 18
        if self.made or ip_init(&self.ip, NULL, &self.counted, &ip_config, 0) != 0:
            raise MemoryError
        self.made = True
        if tcp_init(&self.c, &self.ip, &self.counted, &config, 1, 0) != 0:
            raise MemoryError
        for i in range(TCP_EPHEMERAL_COUNTERS):
            self.c.candidate_next[i] = counters

    def __dealloc__(self) -> None:
        if self.made:
            tcp_destroy(&self.c)
            ip_destroy(&self.ip)

    def connect(self, uint16_t local_port=0) -> tuple[int, tuple[int, int]] | None:
        """tcp_connect: the connection, and our address (which one of them) and port; None: none was found free."""
        cdef int status = 0
        cdef ip_addr_t server
        cdef tcb_t *tcb
        ip_addr_set_v4(&server, htonl(SERVER))
        tcb = tcp_connect(&self.c, &server, 80, local_port, 0, &status)
        if tcb == NULL:
            assert status == CALL_IN_USE if local_port else CALL_NO_PORT
            return None
        work_take(&self.c)
        return tcb.index, (ntohl(tcb.key.laddr.words_be[3]) - OUR_FIRST, tcb.key.lport)

    def end(self, uint32_t connection) -> None:
        """It is no more, and never was on the wire. Once for each."""
        cdef tcb_t *tcb = tcb_at(&self.c, connection)
        connection_end(&self.c, tcb, CLOSE_ABORTED)
        work_take(&self.c)
        tcb_release(&self.c, tcb)

    @property
    def looked_at(self) -> int:
        """Candidates that were in use, so far."""
        return self.counted.value[<int>CANDIDATES_TAKEN]


cdef class FlowTable:
    """tcp/demux over records of its own. A flow is (laddr, lport, raddr, rport), addresses as 32-bit numbers.

    seed: of the keyed hash and the ISNs. slots: size at first, a power of two.
    """

    cdef tcp_t c
    cdef counters_t counters

    def __init__(self, uint64_t seed=1, *, uint32_t slots=8):
        cdef tcp_config_t config
        if slots < 2 or slots & (slots - 1):
            raise ValueError("slots must be a power of two")
        tcp_config_defaults(&config)
        if self.c.flows.slots != NULL or tcp_init(&self.c, NULL, &self.counters, &config, seed, 0) != 0:
            raise MemoryError
        flow_table_free(&self.c.flows)
        if flow_table_init(&self.c.flows, slots) != 0:
            raise MemoryError

    def __dealloc__(self) -> None:
        if self.c.flows.slots != NULL:
            tcp_destroy(&self.c)

    cdef uint32_t record(self, tuple flow, int kind) except 0:
        """A new record of that kind which holds the flow's key."""
        cdef uint32_t index
        if kind == FLOW_CONNECTION:
            index = slab_alloc(&self.c.tcbs)
            fill_key(&tcb_at(&self.c, index).key, flow)
        elif kind == FLOW_SYN_RECEIVED:
            index = slab_alloc(&self.c.syns)
            fill_key(&syn_at(&self.c, index).key, flow)
        elif kind == FLOW_TIME_WAIT:
            index = slab_alloc(&self.c.time_waits)
            fill_key(&time_wait_at(&self.c, index).key, flow)
        else:
            raise ValueError("kind must be 1, 2 or 3")
        return index

    cdef void release(self, flow_t found) noexcept:
        if found.kind == FLOW_CONNECTION:
            slab_release(&self.c.tcbs, found.index)
        elif found.kind == FLOW_SYN_RECEIVED:
            slab_release(&self.c.syns, found.index)
        elif found.kind == FLOW_TIME_WAIT:
            slab_release(&self.c.time_waits, found.index)

    def insert(self, tuple flow, int kind) -> int:
        """Put a new record of that kind under the flow, which must not be in the table; its index."""
        cdef flow_key_t key
        cdef uint32_t index = self.record(flow, kind)
        fill_key(&key, flow)
        if flow_insert(&self.c, &key, <flow_kind_t>kind, index) != 0:
            raise MemoryError
        return index

    def find(self, tuple flow) -> tuple[int, int] | None:
        """(kind, index) of the flow's record, None if there is none."""
        cdef flow_key_t key
        fill_key(&key, flow)
        cdef flow_t found = flow_find(&self.c, &key)
        return (<int>found.kind, found.index) if <int>found.kind else None

    def retarget(self, tuple flow, int kind) -> int:
        """Give the flow a new record of another kind, and release the old one; the new index."""
        cdef flow_key_t key
        fill_key(&key, flow)
        cdef flow_t before = flow_find(&self.c, &key)
        cdef uint32_t index = self.record(flow, kind)
        flow_retarget(&self.c, &key, <flow_kind_t>kind, index)
        self.release(before)
        return index

    def remove(self, tuple flow) -> None:
        """Take the flow out and release its record. A flow that is not there is left alone."""
        cdef flow_key_t key
        fill_key(&key, flow)
        cdef flow_t before = flow_find(&self.c, &key)
        flow_remove(&self.c, &key)
        self.release(before)

    def hash(self, tuple flow) -> int:
        """The flow's keyed hash; its home is that modulo the number of slots."""
        cdef flow_key_t key
        fill_key(&key, flow)
        return flow_hash(&self.c, &key)

    @property
    def slots(self) -> list[tuple[int, int]]:
        """Every slot as (tag, target); a target of 0 is an empty slot."""
        cdef uint32_t i
        return [(self.c.flows.slots[i].tag, self.c.flows.slots[i].target) for i in range(self.c.flows.mask + 1)]

    @property
    def size(self) -> int:
        """Slots in the table."""
        return self.c.flows.mask + 1

    @property
    def old_slots(self) -> list[tuple[int, int]]:
        """The slots of the table that is being emptied into the other, in the order of moving; [] if there is none."""
        cdef uint32_t i
        cdef flow_slot_t *slot
        found = []
        if self.c.flows.old_slots != NULL:
            for i in range(self.c.flows.old_mask + 1):
                slot = &self.c.flows.old_slots[(self.c.flows.moved_from + i) & self.c.flows.old_mask]
                found.append((slot.tag, slot.target))
        return found

    @property
    def moved(self) -> tuple[int, int]:
        """Where emptying began, and how many slots are done."""
        return self.c.flows.moved_from, self.c.flows.moved

    @property
    def moves(self) -> int:
        """Slots that have been looked at to be moved, since the table was made."""
        return self.c.turn.moves

    @property
    def retired_bytes(self) -> int:
        """Memory of an emptied table that has not been given back yet."""
        return self.c.flows.retired_bytes

    def turn(self) -> None:
        """What a turn of the engine moves."""
        flow_turn(&self.c)

    @property
    def used(self) -> int:
        """Slots in use, by the table's own account."""
        return self.c.flows.used

    def isn(self, tuple flow, uint64_t now_ns) -> int:
        """The initial sequence number of a connection opened at now_ns."""
        cdef flow_key_t key
        fill_key(&key, flow)
        self.c.now_ns = now_ns
        return initial_sequence_number(&self.c, &key)

    def listen(self, int entry, object laddr, uint16_t lport, uint16_t app) -> None:
        """Fill an entry of the listeners' table. laddr None: any address."""
        memset(&self.c.listeners[entry], 0, sizeof(listener_t))
        if laddr is not None:
            ip_addr_set_v4(&self.c.listeners[entry].laddr, <uint32_t>laddr)
        self.c.listeners[entry].lport = lport
        self.c.listeners[entry].app = app

    def listener(self, uint32_t laddr, uint16_t lport, *, bint exact=False) -> int:
        """The app of the listener for that address and port; 0: nobody listens."""
        cdef ip_addr_t address
        ip_addr_set_v4(&address, laddr)
        cdef listener_t *found = (listener_exact(&self.c, &address, lport) if exact
                                  else listener_find(&self.c, &address, lport))
        return found.app if found != NULL else 0


cdef class NewReno:
    """The window under NewReno. smss and flight are the caller's to set before each event, in bytes."""

    cdef cc_view_t view
    cdef newreno_t own                      # the control's record
    cdef uint32_t in_flight
    cdef const cc_ops_t *ops

    def __init__(self, uint32_t smss, uint32_t initial_window):
        self.ops = cc_table(cc_find(b"newreno"))
        memset(&self.view, 0, sizeof(self.view))
        memset(&self.own, 0, sizeof(self.own))
        self.view.smss = smss
        self.view.cwnd = initial_window
        self.view.ssthresh = SSTHRESH_AT_FIRST
        self.ops.init(&self.own, &self.view)

    @property
    def name(self) -> str:
        """The control's name."""
        return self.ops.name.decode()

    @property
    def cwnd(self) -> int:
        """Bytes that may be in flight."""
        return self.view.cwnd

    @cwnd.setter
    def cwnd(self, uint32_t value):
        self.view.cwnd = value

    @property
    def ssthresh(self) -> int:
        """Below it the window grows by slow start."""
        return self.view.ssthresh

    @ssthresh.setter
    def ssthresh(self, uint32_t value):
        self.view.ssthresh = value

    @property
    def flight(self) -> int:
        """Bytes sent and not acknowledged before the event."""
        return self.in_flight

    @flight.setter
    def flight(self, uint32_t value):
        self.in_flight = value

    def on_ack(self, uint32_t acked, bint cwnd_limited=True, *, bint in_recovery=False) -> None:
        """New data was acknowledged."""
        cdef ack_sample_t sample
        memset(&sample, 0, sizeof(sample))
        sample.acked = acked
        sample.flight = self.in_flight
        sample.cwnd_limited = cwnd_limited
        sample.in_recovery = in_recovery
        self.ops.on_ack(&self.own, &self.view, &sample)

    def on_loss(self) -> None:
        """Fast recovery begins."""
        self.ops.on_loss(&self.own, &self.view, self.in_flight)

    def on_mtu(self, uint32_t smss) -> None:
        """Segments have another size from now on."""
        cdef uint32_t old_smss = self.view.smss
        self.view.smss = smss
        self.ops.on_mtu(&self.own, &self.view, old_smss)

    def on_rto(self, bint first=True) -> None:
        """The retransmission timer expired."""
        self.ops.on_rto(&self.own, &self.view, self.in_flight, first)

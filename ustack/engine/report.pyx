# SPDX-License-Identifier: MIT
"""What an engine holds and what it has done. See report.pxd."""

from ustack.buf.chunks cimport chunk_held_bytes
from ustack.engine.records cimport engine_t
from ustack.tcp.cookies cimport cookies_out, cookies_wanted
from ustack.tcp.holders cimport holders_wanted
from ustack.tcp.records.state cimport STATE_COUNT
from ustack.tcp.records.tcb cimport tcp_t
from ustack.tcp.recovery.control cimport control_records_in_use

from ustack.tcp.records.state import state_name


cdef dict balance_of(engine_t *engine):
    cdef tcp_t *tcp = &engine.tcp
    return {
        "tcbs": tcp.tcbs.in_use, "syns": tcp.syns.in_use, "time_waits": tcp.time_waits.in_use,
        "send_pieces": tcp.send_pieces.in_use, "extras": tcp.extras.in_use, "accecns": tcp.accecns.in_use,
        "sockopts": tcp.sockopts.in_use, "histories": tcp.histories.in_use, "urgents": tcp.urgents.in_use,
        "flights": tcp.flights.in_use, "transmissions": tcp.transmissions.in_use,
        "cc_records": control_records_in_use(tcp),
        "rx_queues": tcp.rx.queues.in_use,
        "rx_chunks": tcp.rx.chunks.chunks_in_use, "rx_held_bytes": chunk_held_bytes(&tcp.rx.chunks),
        "timers": tcp.wheel.armed, "flows": tcp.flows.used, "lent": tcp.lent_held,
    }


cdef dict pressure_of(engine_t *engine):
    cdef tcp_t *tcp = &engine.tcp
    return {
        "half_open": tcp.syns.in_use, "syn_queue": tcp.syns.limit,
        "connections": tcp.tcbs.in_use, "max_connections": tcp.tcbs.limit,
        "orphans": tcp.orphans, "max_orphans": tcp.config.max_orphans,
        "backlog": bool(tcp.admission.behind), "holders": holders_wanted(tcp),
        "syn_cookies": cookies_wanted(tcp), "cookies_out": cookies_out(tcp),
    }


cdef set state_moves_of(engine_t *engine):
    return {(state_name(before), state_name(after)) for before in range(STATE_COUNT) for after in range(STATE_COUNT)
            if engine.tcp.state_moves[before] >> after & 1}

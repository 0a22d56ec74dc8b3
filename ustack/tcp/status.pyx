# SPDX-License-Identifier: MIT
"""STATUS (RFC 9293 section 3.10.6): what a TCP holds, by the names of its variables. See status.pxd."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from ustack.base.address cimport ip_addr_text
from ustack.base.types cimport ip_addr_t
from ustack.base.wheel cimport TIMER_NONE, WHEEL_TICK_SHIFT, wheel_left_ns
from ustack.tcp.cc.registry cimport cc_table
from ustack.tcp.emit cimport tcb_advertised_mss
from ustack.tcp.receive.window cimport rcv_limit
from ustack.tcp.records.accecn cimport (
    ACCECN_CEP_AT_FIRST, ACCECN_OPTIONS_BAD, ACCECN_OPTIONS_COME, accecn_of, accecn_t, tcb_is_accurate)
from ustack.tcp.records.deadlines cimport deadline_is_set, deadline_tick, keepalive_left_ns, keepalive_runs, tcp_tick
from ustack.tcp.records.demux cimport flow_connection, flow_slot_count
from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, FLIGHT_MARKED, FLIGHT_REORDER, REPAIR_FAST, REPAIR_RTO, REXMIT_FAST, REXMIT_PROBE, REXMIT_RACK,
    REXMIT_RTO, REXMIT_SIZE, TX_LOST, TX_RETRANSMITTED, TX_SACKED, flight_raw, flight_t, rexmit_cause_t,
    transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.history cimport history_of, history_t, resent_by
from ustack.tcp.records.marks cimport tcb_unsent
from ustack.tcp.records.measures cimport WAIT_BUSY, WAIT_RWND, WAIT_SNDBUF, measures_of, measures_t, waited_ns
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.sockopts cimport OWN_QUICKACK, sockopts_flags
from ustack.tcp.records.state cimport SYN_RECEIVED, SYN_SENT
from ustack.tcp.records.tally cimport tally_age_ns, tally_delivered, tally_received
from ustack.tcp.records.tcb cimport (
    DEADLINE_ACK, DEADLINE_APPLICATION, DEADLINE_PACE, DEADLINE_PROBE, DEADLINE_REXMIT, OPT_AGREED, OPT_SACK,
    OPT_TIMESTAMPS, OPT_WSCALE, TCB_ACTIVE, TCB_CLOSED_BY_APP, TCB_ECN, TCB_FIN_SENT, TCB_PERSIST, TCB_REORDERED,
    TCP_MAX_LISTENERS, autotune_t, deadline_t, extra_at, flow_key_t, listener_t, rx_queue_of, syn_at, syn_received_t,
    syn_retries, tcb_last_received_ms, time_wait_at, time_wait_t)
from ustack.tcp.records.urgent cimport urgent_unread
from ustack.tcp.recovery.control cimport control_name
from ustack.tcp.recovery.path cimport path_mtu
from ustack.tcp.recovery.rtt cimport rtt_min_us, rtt_rto_ns
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_diff

from ustack.tcp.records.state import state_name


cdef object LISTENER = "listener"
cdef object HALF_OPEN = "half-open"
cdef object CONNECTION = "connection"
cdef object TIME_WAIT_KIND = "time-wait"
KINDS = (LISTENER, HALF_OPEN, CONNECTION, TIME_WAIT_KIND)
cdef tuple MEASURED = (
    "segs_in", "segs_out", "data_segs_in", "data_segs_out", "rcv_mss", "last_data_sent_ms", "last_data_recv_ms",
    "delivery_rate", "busy_time_us", "rwnd_limited_us", "sndbuf_limited_us")


cdef dict accecn_status(const accecn_t *own):
    """RFC 9768's counters by their names: r of what arrives, s of what the peer tells."""
    return {
        "r_cep": own.r_cep, "r_ceb": own.r_ceb, "r_e0b": own.r_e0b, "r_e1b": own.r_e1b,
        "s_cep": own.s_cep, "s_ceb": own.s_ceb, "s_e0b": own.s_e0b, "s_e1b": own.s_e1b,
        "options_come": bool(own.flags & ACCECN_OPTIONS_COME and not own.flags & ACCECN_OPTIONS_BAD),
    }


# ---------------------------------------------------------------- one connection

cdef tuple option_names(const tcb_t *tcb):
    cdef list found = []
    if tcb.options & OPT_TIMESTAMPS:
        found.append("timestamps")
    if tcb.options & OPT_SACK:
        found.append("sack")
    if tcb.options & OPT_WSCALE:
        found.append("wscale")
    if tcb.flags & TCB_ECN:
        found.append("ecn")
    elif tcb_is_accurate(tcb):
        found.append("accecn")
    return tuple(found)


cdef uint32_t resent_in_flight(const tcp_t *tcp, const flight_t *flight) noexcept nogil:
    """Bytes that are in flight for the second time, or later."""
    cdef uint32_t index = flight.head, found = 0
    cdef const transmission_t *sent
    while index:
        sent = transmission_at(tcp, flight, index)
        if sent.flags & TX_RETRANSMITTED and not sent.flags & (TX_SACKED | TX_LOST):
            found += transmission_bytes(sent)
        index = sent.next
    return found


cdef dict flight_status(const tcp_t *tcp, const tcb_t *tcb):
    """What is in flight and how its repair stands. A lone flight has had no trouble, and most of its fields are not
    written (flight.pxd)."""
    cdef const flight_t *flight = flight_raw(tcp, tcb) if tcb.flight else NULL
    cdef dict found = {"ca_state": "open", "sacked_bytes": 0, "lost_bytes": 0, "retrans_bytes": 0,
                       "app_limited": False, "pacing_rate": None}
    if flight == NULL:
        return found
    found["pacing_rate"] = flight.pacer.rate if flight.pacer.rate else None
    if flight.flags & FLIGHT_LONE or flight.records == 0:
        return found
    if flight.repair == REPAIR_FAST:
        found["ca_state"] = "recovery"
    elif flight.repair == REPAIR_RTO:
        found["ca_state"] = "loss"
    elif flight.flags & FLIGHT_MARKED:
        found["ca_state"] = "cwr"
    elif flight.sacked_bytes or flight.duplicate_acks:
        found["ca_state"] = "disorder"
    found["sacked_bytes"] = flight.sacked_bytes
    found["lost_bytes"] = flight.lost_bytes
    found["retrans_bytes"] = resent_in_flight(tcp, flight)
    found["app_limited"] = flight.app_limited != 0
    return found


cdef uint64_t acked_bytes(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """C.delivered less what is beyond SND.UNA, our SYN and our FIN. (The SYN of a passive open is its half-open
    record's.)"""
    cdef const flight_t *flight = flight_raw(tcp, tcb) if tcb.flight else NULL
    cdef uint64_t acked = tally_delivered(tcp, tcb)
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        return 0
    if flight != NULL and not flight.flags & FLIGHT_LONE and flight.records:
        acked -= flight.sacked_bytes + flight.duplicate_bytes
    if tcb.flags & TCB_ACTIVE:
        acked -= 1
    if tcb.flags & TCB_FIN_SENT and tcb.snd_una == tcb.snd_end + 1:
        acked -= 1
    return acked


cdef uint64_t sent_bytes(const tcp_t *tcp, const tcb_t *tcb) noexcept nogil:
    """Of data, as often as it was."""
    cdef const history_t *own = history_of(tcp, tcb)
    cdef uint32_t outstanding = tcb.snd_nxt - tcb.snd_una
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        return 0
    if outstanding and tcb.flags & TCB_FIN_SENT and tcb.snd_nxt == tcb.snd_end + 1:
        outstanding -= 1
    return acked_bytes(tcp, tcb) + outstanding + (own.resent_bytes if own != NULL else 0)


cdef inline uint32_t resent(history_t *own, rexmit_cause_t cause) noexcept nogil:
    return resent_by(own, cause)[0] if own != NULL else 0


cdef dict history_status(const tcp_t *tcp, const tcb_t *tcb):
    """What was sent again, by cause, and what the peer had twice."""
    cdef history_t *own = history_of(tcp, tcb)
    cdef dict causes = {
        "fast": resent(own, REXMIT_FAST), "rack": resent(own, REXMIT_RACK), "tlp": resent(own, REXMIT_PROBE),
        "rto": resent(own, REXMIT_RTO), "size": resent(own, REXMIT_SIZE)}
    total = sum(causes.values())
    causes["spurious"] = own.spurious if own != NULL else 0
    return {"total_retrans": total, "total_rto": own.timeouts if own != NULL else 0, "retransmissions": causes,
            "bytes_retrans": own.resent_bytes if own != NULL else 0,
            "dsack_dups": own.duplicates if own != NULL else 0}


cdef dict measures_status(const tcp_t *tcp, const tcb_t *tcb):
    """What the setting `measure` asks for; None without it, or where there has been none yet."""
    cdef const measures_t *own = measures_of(tcp, tcb)
    cdef uint64_t busy, rwnd, sndbuf
    if own == NULL:
        return dict.fromkeys(MEASURED)
    busy = waited_ns(tcp, own, WAIT_BUSY)
    rwnd = waited_ns(tcp, own, WAIT_RWND)
    sndbuf = waited_ns(tcp, own, WAIT_SNDBUF)
    return dict(zip(MEASURED, (
        own.segs_in, own.segs_out, own.data_segs_in, own.data_segs_out, own.rcv_mss if own.rcv_mss else None,
        (tcp.now_ns - own.data_sent_ns) // 1000000 if own.data_sent_ns else None,
        (tcp.now_ns - own.data_received_ns) // 1000000 if own.data_received_ns else None,
        own.rate_delivered * 1000000ULL // own.rate_interval_us if own.rate_interval_us else None,
        (busy + rwnd + sndbuf) // 1000, rwnd // 1000, sndbuf // 1000)))


cdef dict timers_status(const tcp_t *tcp, const tcb_t *tcb):
    """Deadlines that are set: nanoseconds left, of what is waited for. 0: due."""
    cdef dict found = {}
    if deadline_is_set(tcb, DEADLINE_REXMIT):
        found["persist" if tcb.flags & TCB_PERSIST else "retransmission"] = deadline_left_ns(tcp, tcb, DEADLINE_REXMIT)
    if tcb.flight and deadline_is_set(tcb, DEADLINE_PROBE):
        name = "reordering" if flight_raw(tcp, tcb).flags & FLIGHT_REORDER else "tail_probe"
        found[name] = deadline_left_ns(tcp, tcb, DEADLINE_PROBE)
    if tcb.flight and deadline_is_set(tcb, DEADLINE_PACE):
        found["pacing"] = deadline_left_ns(tcp, tcb, DEADLINE_PACE)
    if deadline_is_set(tcb, DEADLINE_ACK):
        found["delayed_ack"] = deadline_left_ns(tcp, tcb, DEADLINE_ACK)
    if deadline_is_set(tcb, DEADLINE_APPLICATION):
        name = "fin_wait_2" if tcb.flags & TCB_CLOSED_BY_APP else "application"
        found[name] = deadline_left_ns(tcp, tcb, DEADLINE_APPLICATION)
    if keepalive_runs(tcb):
        found["keepalive"] = keepalive_left_ns(tcp, tcb)
    return found


cdef uint64_t ticks_left_ns(const tcp_t *tcp, uint32_t tick) noexcept nogil:
    cdef int32_t ticks = <int32_t>(tick - tcp_tick(tcp))
    return <uint64_t>ticks << WHEEL_TICK_SHIFT if ticks > 0 else 0


cdef uint64_t deadline_left_ns(const tcp_t *tcp, const tcb_t *tcb, deadline_t kind) noexcept nogil:
    return ticks_left_ns(tcp, deadline_tick(tcp, tcb, kind))


cdef object ends(const ip_addr_t *address, uint32_t port):
    return ip_addr_text(address), port


cdef dict connection_status(const tcp_t *tcp, const tcb_t *tcb):
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    cdef const autotune_t *own = &extra_at(tcp, tcb.extra).autotune if tcb.extra else NULL
    cdef bint accurate = tcb_is_accurate(tcb)
    cdef bint persists = tcb.flags & TCB_PERSIST
    cdef dict row = {
        "kind": CONNECTION, "state": state_name(tcb.state),
        "local": ends(&tcb.key.laddr, tcb.key.lport), "remote": ends(&tcb.key.raddr, tcb.key.rport),
        "age_ns": tally_age_ns(tcp, tcb),
        "bytes_acked": acked_bytes(tcp, tcb), "bytes_sent": sent_bytes(tcp, tcb),
        "bytes_received": tally_received(tcp, tcb) if tcb.state != SYN_SENT else 0,
        "snd_una": tcb.snd_una, "snd_nxt": tcb.snd_nxt, "snd_max": tcb.snd_max, "snd_wnd": tcb.snd_wnd,
        "snd_queued_bytes": tcb.snd_end - tcb.snd_una if seq_diff(tcb.snd_end, tcb.snd_una) > 0 else 0,
        "snd_unsent_bytes": tcb_unsent(tcb), "unacked_bytes": tcb.snd_nxt - tcb.snd_una,
        "rcv_nxt": tcb.rcv_nxt, "rcv_wnd": tcb.rcv_adv - tcb.rcv_nxt, "rcv_limit_bytes": rcv_limit(tcp, tcb),
        "rcv_queued_bytes": rx.queued_bytes if rx != NULL else 0, "urgent_bytes": urgent_unread(tcp, tcb),
        "rcv_rtt_us": own.rtt_us if own != NULL and own.rtt_us else None,
        "cc": control_name(tcb).decode(), "cwnd": tcb.cwnd, "ssthresh": tcb.ssthresh,
        "smss": tcb.smss, "advmss": tcb_advertised_mss(tcp, tcb), "path_mtu": path_mtu(tcb),
        "srtt_us": tcb.srtt_us, "rttvar_us": tcb.rttvar_us, "min_rtt_us": rtt_min_us(tcb),
        "rto_ns": rtt_rto_ns(tcp, tcb), "backoff": tcb.backoff,
        "ato_ns": 0 if sockopts_flags(tcp, tcb) & OWN_QUICKACK else tcp.config.delayed_ack_ns,
        "retransmits": 0 if persists else tcb.backoff, "probes": tcb.keepalive_probes,
        "reord_seen": bool(tcb.flags & TCB_REORDERED), "delivered_bytes": tally_delivered(tcp, tcb),
        "last_received_ms": (tcp.now_ns // 1000000 - tcb_last_received_ms(tcb)) & 0xFFFFFFFFFULL,
        "snd_wscale": tcb.snd_wscale, "rcv_wscale": tcb.rcv_wscale, "options": tcb.options & OPT_AGREED,
        "option_names": option_names(tcb),
        "ecn": "classic" if tcb.flags & TCB_ECN else "accurate" if accurate else "none",
        "accecn": accecn_status(accecn_of(tcp, tcb)) if accurate else None,
        "delivered_ce": accecn_of(tcp, tcb).s_cep - ACCECN_CEP_AT_FIRST if accurate else None,
        "ts_recent": tcb.ts_recent, "ttl": tcb.ttl, "tos": tcb.tos & ~IPV4_ECN_MASK,
        "soft_error": (tcb.soft_error >> 4, tcb.soft_error & 0x0F) if tcb.soft_error else None,
    }
    row.update(flight_status(tcp, tcb))
    row.update(history_status(tcp, tcb))
    row.update(measures_status(tcp, tcb))
    row["timers"] = timers_status(tcp, tcb)
    return row


# ---------------------------------------------------------------- the other records

cdef dict listener_status(const listener_t *listener):
    return {
        "kind": LISTENER, "state": "LISTEN", "local": ends(&listener.laddr, listener.lport), "remote": None,
        "backlog": listener.backlog, "waiting": listener.waiting, "cc": cc_table(listener.cc).name.decode(),
    }


cdef dict record_status(object kind, object state, const flow_key_t *key):
    return {"kind": kind, "state": state, "local": ends(&key.laddr, key.lport),
            "remote": ends(&key.raddr, key.rport)}


cdef dict half_open_status(const tcp_t *tcp, const syn_received_t *syn):
    """Its timer has been set anew with each SYN-ACK, to twice the time: that tells how old it is."""
    cdef uint32_t retries = syn_retries(syn)
    cdef uint64_t before_ns = ((1ULL << retries) - 1) * tcp.config.rto_initial_ns
    cdef uint64_t interval_ns = tcp.config.rto_initial_ns << retries
    cdef int64_t left_ns = 0
    cdef dict row = record_status(HALF_OPEN, "SYN-RECEIVED", &syn.key)
    if syn.timer != TIMER_NONE:
        left_ns = wheel_left_ns(&tcp.wheel, syn.timer, tcp.now_ns)
    if left_ns < 0:
        left_ns = 0
    row["age_ns"] = before_ns + (interval_ns - <uint64_t>left_ns if <uint64_t>left_ns < interval_ns else 0)
    row["retransmissions"] = {"rto": retries}
    row["timers"] = {"retransmission": left_ns}
    return row


cdef dict time_wait_status(const tcp_t *tcp, const time_wait_t *record):
    """It began when its time did, or when it was last restarted (RFC 9293 section 3.10.7.4)."""
    cdef uint64_t left_ns = ticks_left_ns(tcp, record.expiry_tick), whole_ns = 2 * tcp.config.msl_ns
    cdef dict row = record_status(TIME_WAIT_KIND, "TIME-WAIT", &record.key)
    row["age_ns"] = whole_ns - left_ns if left_ns < whole_ns else 0
    row["timers"] = {"time_wait": left_ns}
    return row


cdef list status_rows(tcp_t *tcp, object kinds):
    cdef list found = []
    cdef uint64_t at
    cdef uint32_t index
    cdef tcb_t *tcb
    if LISTENER in kinds:
        for index in range(<uint32_t>TCP_MAX_LISTENERS):
            if tcp.listeners[index].lport:
                found.append(listener_status(&tcp.listeners[index]))
    if HALF_OPEN in kinds:
        index = tcp.syn_order.first
        while index:
            found.append(half_open_status(tcp, syn_at(tcp, index)))
            index = syn_at(tcp, index).order.next
    if CONNECTION in kinds:
        for at in range(flow_slot_count(tcp)):
            tcb = flow_connection(tcp, at)
            if tcb != NULL:
                found.append(connection_status(tcp, tcb))
    if TIME_WAIT_KIND in kinds:
        index = tcp.time_wait_order.first
        while index:
            found.append(time_wait_status(tcp, time_wait_at(tcp, index)))
            index = time_wait_at(tcp, index).order.next
    return found

# SPDX-License-Identifier: MIT
"""STATUS (RFC 9293 section 3.10.6): a connection's variables by their names."""

from ustack.base.address cimport ip_addr_text
from ustack.tcp.records.accecn cimport (
    ACCECN_OPTIONS_BAD, ACCECN_OPTIONS_COME, accecn_of, accecn_t, tcb_is_accurate)
from ustack.tcp.records.marks cimport tcb_unsent
from ustack.tcp.records.rx_queue cimport rx_queue_t
from ustack.tcp.records.tcb cimport OPT_AGREED, TCB_ECN, rx_queue_of
from ustack.tcp.recovery.control cimport control_name
from ustack.tcp.recovery.path cimport path_mtu
from ustack.tcp.recovery.rtt cimport rtt_rto_ns
from ustack.wire.ipv4 cimport IPV4_ECN_MASK
from ustack.wire.seq cimport seq_diff

from ustack.tcp.records.state import state_name


cdef dict accecn_status(const accecn_t *own):
    """RFC 9768's counters by their names: r of what arrives, s of what the peer tells."""
    return {
        "r_cep": own.r_cep, "r_ceb": own.r_ceb, "r_e0b": own.r_e0b, "r_e1b": own.r_e1b,
        "s_cep": own.s_cep, "s_ceb": own.s_ceb, "s_e0b": own.s_e0b, "s_e1b": own.s_e1b,
        "options_come": bool(own.flags & ACCECN_OPTIONS_COME and not own.flags & ACCECN_OPTIONS_BAD),
    }


cdef dict connection_status(const tcp_t *tcp, const tcb_t *tcb):
    """One connection in RFC 9293's names. Bytes, segments and the units that the names say."""
    cdef const rx_queue_t *rx = rx_queue_of(tcp, tcb)
    return {
        "state": state_name(tcb.state),
        "local": (ip_addr_text(&tcb.key.laddr), tcb.key.lport),
        "remote": (ip_addr_text(&tcb.key.raddr), tcb.key.rport),
        "snd_una": tcb.snd_una, "snd_nxt": tcb.snd_nxt, "snd_max": tcb.snd_max, "snd_wnd": tcb.snd_wnd,
        "snd_queued_bytes": tcb.snd_end - tcb.snd_una if seq_diff(tcb.snd_end, tcb.snd_una) > 0 else 0,
        "snd_unsent_bytes": tcb_unsent(tcb),
        "rcv_nxt": tcb.rcv_nxt, "rcv_wnd": tcb.rcv_adv - tcb.rcv_nxt,
        "rcv_queued_bytes": rx.queued_bytes if rx != NULL else 0,
        "cc": control_name(tcb).decode(), "cwnd": tcb.cwnd, "ssthresh": tcb.ssthresh, "smss": tcb.smss,
        "path_mtu": path_mtu(tcb),
        "srtt_us": tcb.srtt_us, "rttvar_us": tcb.rttvar_us, "rto_ns": rtt_rto_ns(tcp, tcb), "backoff": tcb.backoff,
        "snd_wscale": tcb.snd_wscale, "rcv_wscale": tcb.rcv_wscale, "options": tcb.options & OPT_AGREED,
        "ecn": "classic" if tcb.flags & TCB_ECN else "accurate" if tcb_is_accurate(tcb) else "none",
        "accecn": accecn_status(accecn_of(tcp, tcb)) if tcb_is_accurate(tcb) else None,
        "ts_recent": tcb.ts_recent, "ttl": tcb.ttl, "tos": tcb.tos & ~IPV4_ECN_MASK,
        "soft_error": (tcb.soft_error >> 4, tcb.soft_error & 0x0F) if tcb.soft_error else None,
    }

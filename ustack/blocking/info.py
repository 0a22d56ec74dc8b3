# SPDX-License-Identifier: MIT
"""What Connection.info() says: the fields of Linux's `struct tcp_info` that have a meaning here, typed, with units.

Linux counts windows and flights in packets; this stack counts bytes, and so do these fields. Units are in the names:
`_us` microseconds, `_ms` milliseconds, `_ns` nanoseconds, `_bytes` bytes, `_segs` segments. In front of the words about
a field stands Linux's name for it; "ours" has none. What Linux has and nobody here keeps is left out (README, "What a
program can set and read").

It must not: read a record itself. Above: endpoint. Below: nothing; the rows are tcp/status.pyx's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConnectionInfo:
    """A snapshot of one connection. It does not change; ask again for a new one."""

    state: str
    """tcpi_state: RFC 9293's name, "ESTABLISHED"."""
    ca_state: str
    """tcpi_ca_state: "open", "disorder" (something is missing, nothing is sent again yet), "cwr" (the window was
    reduced for a mark), "recovery" (fast recovery), "loss" (after a retransmission timeout)."""
    retransmits: int
    """tcpi_retransmits: retransmission timeouts in a row without an answer."""
    probes: int
    """tcpi_probes: window or keep-alive probes in a row without an answer."""
    backoff: int
    """tcpi_backoff: how often the timeout, or the wait between window probes, has been doubled."""
    options: tuple[str, ...]
    """tcpi_options: what both ends agreed on, of "timestamps", "sack", "wscale", "ecn" (RFC 3168), "accecn" (RFC
    9768)."""
    snd_wscale: int
    """tcpi_snd_wscale: bits that the peer's window is shifted by."""
    rcv_wscale: int
    """tcpi_rcv_wscale: bits that ours is."""
    app_limited: bool
    """tcpi_delivery_rate_app_limited: what is in flight was limited by the application, not by the window."""
    rto_us: int
    """tcpi_rto: the retransmission timeout in force, back-off included."""
    ato_us: int
    """tcpi_ato: how long an ACK is delayed at most."""
    snd_mss_bytes: int
    """tcpi_snd_mss: data in a full segment of ours, options taken off."""
    advmss_bytes: int
    """tcpi_advmss: the MSS that we announce."""
    unacked_bytes: int
    """tcpi_unacked: sent and not acknowledged (SND.NXT - SND.UNA)."""
    sacked_bytes: int
    """tcpi_sacked: ... of them, reported by SACK."""
    lost_bytes: int
    """tcpi_lost: ... of them, taken for lost and not sent again yet."""
    retrans_bytes: int
    """tcpi_retrans: ... of them, in flight once more."""
    last_ack_recv_ms: int
    """tcpi_last_ack_recv: since the peer's last acceptable segment."""
    pmtu_bytes: int
    """tcpi_pmtu: the largest packet that is sent."""
    rcv_ssthresh_bytes: int
    """tcpi_rcv_ssthresh: what the connection may hold unread, as far as its window has grown."""
    rtt_us: int
    """tcpi_rtt: smoothed round trip (SRTT); 0: none was measured."""
    rttvar_us: int
    """tcpi_rttvar: its mean deviation (RTTVAR)."""
    min_rtt_us: int
    """tcpi_min_rtt: the shortest of the last five minutes; 0: none was measured."""
    rcv_rtt_us: int | None
    """tcpi_rcv_rtt: as a receiver sees it, in this round of the window's growth; None: nothing grows."""
    snd_ssthresh_bytes: int | None
    """tcpi_snd_ssthresh: where slow start ends; None: nothing has been lost yet."""
    snd_cwnd_bytes: int
    """tcpi_snd_cwnd: the congestion window."""
    reord_seen: bool
    """tcpi_reord_seen: segments have overtaken each other."""
    total_retrans_segs: int
    """tcpi_total_retrans: segments sent again, SYNs included."""
    total_rto: int
    """tcpi_total_rto: retransmission timeouts."""
    pacing_rate: int | None
    """tcpi_pacing_rate: bytes per second; None: not paced now."""
    bytes_sent: int
    """tcpi_bytes_sent: data that was sent, each time that it was."""
    bytes_retrans: int
    """tcpi_bytes_retrans: ... of it, again."""
    dsack_dups: int
    """tcpi_dsack_dups: DSACKs, by which the peer says that something came twice (RFC 2883)."""
    bytes_acked: int
    """tcpi_bytes_acked: data that the peer has acknowledged, without SYN and FIN."""
    bytes_received: int
    """tcpi_bytes_received: data that was received in order."""
    notsent_bytes: int
    """tcpi_notsent_bytes: queued and never sent."""
    delivered_bytes: int
    """tcpi_delivered: what has arrived, SACKed bytes, SYN and FIN included."""
    delivered_ce: int | None
    """tcpi_delivered_ce: segments of ours that arrived marked, by RFC 9768; None: without it nobody knows."""
    snd_wnd_bytes: int
    """tcpi_snd_wnd: the window that the peer offers."""
    rcv_wnd_bytes: int
    """tcpi_rcv_wnd: the window that we offer."""
    segs_in: int | None
    """tcpi_segs_in: segments that came. This and the next ten are there with the setting `measure`, else None; the SYN
    and the SYN-ACK are counted by who has opened."""
    segs_out: int | None
    """tcpi_segs_out: segments that went, each of a frame that a device cuts."""
    data_segs_in: int | None
    """tcpi_data_segs_in: ... that had data."""
    data_segs_out: int | None
    """tcpi_data_segs_out: ... that had data."""
    rcv_mss_bytes: int | None
    """tcpi_rcv_mss: the peer's largest segment of data so far; None: there was none."""
    last_data_sent_ms: int | None
    """tcpi_last_data_sent: since data was sent last; None: it never was."""
    last_data_recv_ms: int | None
    """tcpi_last_data_recv: since data came last; None: none did."""
    delivery_rate: int | None
    """tcpi_delivery_rate: bytes per second at which data has arrived lately, which the network was the limit of, or the
    most that the application gave it (see app_limited); None: nothing was measured."""
    busy_time_us: int | None
    """tcpi_busy_time: with data that was not acknowledged, in all."""
    rwnd_limited_us: int | None
    """tcpi_rwnd_limited: ... of it held back by the peer's window."""
    sndbuf_limited_us: int | None
    """tcpi_sndbuf_limited: ... of it for want of data, because the application waited for room in the send queue."""
    queued_bytes: int
    """Ours: queued and not acknowledged, sent or not (SIOCOUTQ)."""
    receivable_bytes: int
    """Ours: received and not read (SIOCINQ)."""
    urgent_bytes: int
    """Ours: not read of what the peer has called urgent, come or not (SIOCATMARK asks whether it is 0)."""
    age_ns: int
    """Ours: since the record was made, with its SYN or at the end of a handshake; to 34 ms."""
    cc: str
    """Ours: the congestion control (TCP_CONGESTION)."""
    soft_error: tuple[int, int] | None
    """Ours: type and code of the latest ICMP error since the last ACK; it ends nothing (RFC 1122 section 4.2.3.9)."""
    retransmissions: Mapping[str, int]
    """Ours: segments sent again by cause. "fast": three duplicate ACKs, or as many segments SACKed; "rack": found lost
    by time (RFC 8985); "tlp": a tail loss probe that repeats; "rto": the retransmission timer; "size": in smaller
    segments for the path, or behind a window that opened again. And "spurious": repairs that were none."""
    timers: Mapping[str, int]
    """Ours: what is waited for, and how long still, in nanoseconds: "retransmission", "persist", "tail_probe",
    "reordering", "pacing", "delayed_ack", "application", "fin_wait_2", "keepalive"."""


# Rows of the stack (tcp/status.pyx) have some of it under the RFCs' names.
_NAMES = {
    "options": "option_names",
    "snd_mss_bytes": "smss",
    "advmss_bytes": "advmss",
    "last_ack_recv_ms": "last_received_ms",
    "pmtu_bytes": "path_mtu",
    "rcv_mss_bytes": "rcv_mss",
    "rcv_ssthresh_bytes": "rcv_limit_bytes",
    "rtt_us": "srtt_us",
    "snd_cwnd_bytes": "cwnd",
    "total_retrans_segs": "total_retrans",
    "notsent_bytes": "snd_unsent_bytes",
    "snd_wnd_bytes": "snd_wnd",
    "rcv_wnd_bytes": "rcv_wnd",
    "queued_bytes": "snd_queued_bytes",
    "receivable_bytes": "rcv_queued_bytes",
}
_SSTHRESH_AT_FIRST = 0x7FFFFFFF


def info_of(row: Mapping[str, Any]) -> ConnectionInfo:
    """The ConnectionInfo of a row of Stack.connections() that is a connection's."""
    made = {
        "rto_us": row["rto_ns"] // 1000,
        "ato_us": row["ato_ns"] // 1000,
        "snd_ssthresh_bytes": None if row["ssthresh"] >= _SSTHRESH_AT_FIRST else row["ssthresh"],
    }
    for field in fields(ConnectionInfo):
        if field.name not in made:
            made[field.name] = row[_NAMES.get(field.name, field.name)]
    return ConnectionInfo(**made)

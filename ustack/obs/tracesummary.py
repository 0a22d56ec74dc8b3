# SPDX-License-Identifier: MIT
"""What a trace comes to, connection by connection. Reads records, prints nothing.

Above: cli. Below: tcp.tracing (the records' layout).
"""

import struct
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ustack.obs.recorded import Recorded
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT, REASONS, STATES

AT = {name: number for number, name in enumerate(FIELDS)}
SECOND_NS = 1_000_000_000


@dataclass
class Summary:
    """One connection. Bytes are sequence numbers: a SYN and a FIN count one each. rtt_us: (min, median, max), or None.

    local, remote: "" if the file does not say. retransmitted: segments or super-frames by cause, and their bytes.
    received: bytes of the peer's that we have acknowledged. end: why it ended, None if the trace ends before it.
    """

    number: int
    local: str = ""
    remote: str = ""
    cc: str = ""
    first_ns: int = 0
    last_ns: int = 0
    records: int = 0
    sent_bytes: int = 0
    acked_bytes: int = 0
    received_bytes: int = 0
    retransmitted: dict[str, int] = field(default_factory=dict)
    retransmitted_bytes: int = 0
    lost_bytes: int = 0
    rtt_us: tuple[int, float, int] | None = None
    max_cwnd: int = 0
    max_flight: int = 0
    recoveries: int = 0
    undone: int = 0
    timeouts: int = 0
    marks: int = 0
    state: str = ""
    end: str | None = None

    @property
    def duration_s(self) -> float:
        """From its first record to its last."""
        return (self.last_ns - self.first_ns) / SECOND_NS


def summaries(recorded: Recorded) -> list[Summary]:
    """A summary of each connection that has records, by number."""
    found: dict[int, Summary] = {}
    rtts: dict[int, list[int]] = {}
    for record in struct.iter_unpack(FORMAT, recorded.records):
        number = record[AT["connection"]]
        if number not in found:
            found[number] = _begin(number, record, recorded.connections)
            rtts[number] = []
        _add(found[number], record, rtts[number])
    for number, samples in rtts.items():
        if samples:
            found[number].rtt_us = (min(samples), median(samples), max(samples))
    return [found[number] for number in sorted(found)]


def _begin(number: int, record: tuple[Any, ...], connections: list[dict[str, Any]]) -> Summary:
    summary = Summary(number, first_ns=record[AT["time_ns"]])
    known = connections[number - 1] if number <= len(connections) else {}
    if known:
        summary.local, summary.remote = (f"{address}:{port}" for address, port in (known["local"], known["remote"]))
        summary.cc = known["cc"]
    return summary


def _add(summary: Summary, record: tuple[Any, ...], rtts: list[int]) -> None:
    kind, cause = EVENTS[record[AT["event"]]], CAUSES[record[AT["cause"]]]
    length, detail = record[AT["length"]], record[AT["detail"]]
    summary.records += 1
    summary.last_ns = record[AT["time_ns"]]
    summary.state = STATES[record[AT["state"]]]
    summary.max_cwnd = max(summary.max_cwnd, record[AT["cwnd"]])
    summary.max_flight = max(summary.max_flight, record[AT["flight"]])
    if kind in ("sent", "retransmitted", "ack_sent"):
        summary.received_bytes = max(summary.received_bytes, detail)
    if kind == "sent":
        summary.sent_bytes += length
    elif kind == "retransmitted":
        summary.retransmitted[cause] = summary.retransmitted.get(cause, 0) + 1
        summary.retransmitted_bytes += length
    elif kind in ("acked", "sacked"):
        if detail and (kind == "acked" or length):
            rtts.append(detail)
        if kind == "acked":
            summary.acked_bytes += length
    elif kind == "lost":
        summary.lost_bytes += length
    elif kind == "closed":
        summary.end = REASONS[detail]
    else:
        _count(summary, kind)


def _count(summary: Summary, kind: str) -> None:
    if kind == "recovery":
        summary.recoveries += 1
    elif kind == "undone":
        summary.undone += 1
    elif kind == "timeout":
        summary.timeouts += 1
    elif kind == "marked":
        summary.marks += 1

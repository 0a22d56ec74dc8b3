# SPDX-License-Identifier: MIT
"""A trace as qlog: a JSON text sequence (RFC 7464) by draft-ietf-quic-qlog-main-schema (QlogFileSeq).

The first record is the file's head. Then each record of the trace is an event `ustack-tcp:NAME` with its own data,
and before it, where any of them has changed, `ustack-tcp:metrics_updated` with the variables under the names that
qlog's recovery events use: congestion_window, ssthresh, bytes_in_flight (bytes), smoothed_rtt (milliseconds),
pacing_rate (bits per second). No schema for TCP is registered, so the namespace is this project's own. `group_id` is
the connection's number; times are milliseconds of a monotonic clock, to the nanosecond.

Above: tracefile. Below: recorded, tcp.tracing. Read first: the draft's sections on
QlogFileSeq, Event and event schemas.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from ustack.obs.recorded import Recorded
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT, REASONS, REPAIRS, STATES

RECORD_SEPARATOR = b"\x1e"
NAMESPACE = "ustack-tcp"
EVENT_SCHEMA = "tag:ustack,2026:qlog:events:ustack-tcp"
FILE_SCHEMA = "urn:ietf:params:qlog:file:sequential"
SERIALIZATION = "application/qlog+json-seq"

# What metrics_updated calls a field, how it is written, and how it is read.
Convert = Callable[[Any], Any]
METRICS: dict[str, tuple[str, Convert, Convert]] = {
    "state": ("state", STATES.__getitem__, {name: number for number, name in STATES.items()}.__getitem__),
    "repair": ("repair", REPAIRS.__getitem__, {name: number for number, name in REPAIRS.items()}.__getitem__),
    "cwnd": ("congestion_window", int, int),
    "ssthresh": ("ssthresh", int, int),
    "flight": ("bytes_in_flight", int, int),
    "srtt_us": ("smoothed_rtt", lambda us: us / 1000, lambda ms: int(ms * 1000)),
    "rto_us": ("retransmission_timeout", lambda us: us / 1000, lambda ms: int(ms * 1000)),
    "snd_wnd": ("send_window", int, int),
    "rcv_wnd": ("receive_window", int, int),
    "pacing_rate": ("pacing_rate", lambda rate: 8 * rate, lambda bits: bits // 8),
}
METRIC_AT = [FIELDS.index(name) for name in METRICS]
# What an event's `detail` is called there, where it is something.
DETAILS = {
    "sent": "ack",
    "retransmitted": "ack",
    "ack_sent": "ack",
    "probed": "ack",
    "acked": "latest_rtt",
    "sacked": "latest_rtt",
    "window": "previous",
    "marked": "previous",
    "timeout": "count",
    "state": "old",
    "closed": "reason",
}
EVENT_NUMBERS = {name: number for number, name in EVENTS.items()}
CAUSE_NUMBERS = {name: number for number, name in CAUSES.items()}
STATE_NUMBERS = {name: number for number, name in STATES.items()}
REASON_NUMBERS = {name: number for number, name in REASONS.items()}


class QlogFile:
    """A qlog file that is being written: tracefile.Writer. It can be read at any time, up to the last whole line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._metrics: dict[int, tuple[Any, ...]] = {}
        self._missed = 0
        self._last = (0, 1)  # time and connection of the record before
        self._put(
            {
                "file_schema": FILE_SCHEMA,
                "serialization_format": SERIALIZATION,
                "title": "ustack trace",
                "trace": {
                    "common_fields": {
                        "time_format": "relative_to_epoch",
                        "reference_time": {"clock_type": "monotonic", "epoch": "unknown"},
                    },
                    "vantage_point": {"name": "ustack", "type": "unknown"},
                    "event_schemas": [EVENT_SCHEMA],
                },
            }
        )

    def _put(self, value: dict[str, Any]) -> None:
        self._file.write(RECORD_SEPARATOR + json.dumps(value, separators=(",", ":")).encode() + b"\n")

    def add(self, records: bytes, connections: Sequence[dict[str, Any]], missed: int) -> None:
        """As Writer's."""
        lines: list[str] = []
        for record in struct.iter_unpack(FORMAT, records):
            self._last = record[:2]
            self._miss(missed, lines)
            self._describe(record, connections, lines)
        self._miss(missed, lines)
        if lines:
            self._file.write("".join(lines).encode())

    def _miss(self, missed: int, lines: list[str]) -> None:
        if missed != self._missed:
            lines.append(_line(*self._last, "records_missed", {"count": missed - self._missed}))
            self._missed = missed

    def _describe(self, record: tuple[Any, ...], connections: Sequence[dict[str, Any]], lines: list[str]) -> None:
        time_ns, number, event, cause = record[:4]
        metrics = tuple(record[at] for at in METRIC_AT)
        before = self._metrics.get(number)
        if metrics != before:
            self._metrics[number] = metrics
            changed = {
                name: convert(value)
                for (name, convert, _), value, old in zip(
                    METRICS.values(), metrics, before or (None,) * len(metrics), strict=True
                )
                if value != old
            }
            lines.append(_line(time_ns, number, "metrics_updated", changed))
        kind = EVENTS[event]
        data: dict[str, Any] = {"seq": record[6], "length": record[7]}
        if cause:
            data["trigger"] = CAUSES[cause]
        if kind in DETAILS:
            data[DETAILS[kind]] = _detail(kind, record[15])
        if kind == "opened" and number <= len(connections):
            data["connection"] = connections[number - 1]
        lines.append(_line(time_ns, number, kind, data))

    def finish(self) -> None:
        """As Writer's. Every line is written already."""
        self._file.flush()


def _detail(kind: str, detail: int) -> Any:
    if DETAILS[kind] == "latest_rtt":
        return detail / 1000
    if kind == "state":
        return STATES[detail]
    return REASONS[detail] if kind == "closed" else detail


def _line(time_ns: int, number: int, name: str, data: dict[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"))
    milliseconds = f"{time_ns // 1_000_000}.{time_ns % 1_000_000:06d}"
    return f'\x1e{{"time":{milliseconds},"name":"{NAMESPACE}:{name}","group_id":"{number}","data":{text}}}\n'


# ---------------------------------------------------------------- reading


def texts(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON texts of a sequence. One that is cut short at the end is left out (RFC 7464 section 2.3)."""
    for text in content.split(RECORD_SEPARATOR)[1:]:
        if not text.endswith(b"\n"):
            continue
        value = json.loads(text, parse_float=Decimal)
        if not isinstance(value, dict):
            raise ValueError("a JSON text that is no object")
        yield value


def read_qlog(path: Path) -> Recorded:
    """A whole file that QlogFile has written. Raises ValueError if it is none."""
    try:
        found = texts(path.read_bytes())
        head = next(found, {})
        if head.get("file_schema") != FILE_SCHEMA or EVENT_SCHEMA not in head["trace"]["event_schemas"]:
            raise ValueError("not a qlog file of a trace of this project")
        return _Reader().take(found)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{path}: {error}") from None


class _Reader:
    """Puts records together from events."""

    def __init__(self) -> None:
        self._metrics: dict[int, dict[str, int]] = {}
        self._connections: dict[int, dict[str, Any]] = {}
        self._missed = 0

    def take(self, events: Iterator[dict[str, Any]]) -> Recorded:
        """All of them."""
        records = bytearray()
        for event in events:
            records += self._record(event)
        connections = [self._connections.get(n + 1, {}) for n in range(max(self._connections, default=0))]
        return Recorded(bytes(records), connections, self._missed)

    def _record(self, event: dict[str, Any]) -> bytes:
        number, data = int(event["group_id"]), event["data"]
        kind = event["name"].removeprefix(NAMESPACE + ":")
        metrics = self._metrics.setdefault(number, {})
        if kind == "records_missed":
            self._missed += data["count"]
            return b""
        if kind == "metrics_updated":
            for field, (name, _, convert) in METRICS.items():
                if name in data:
                    metrics[field] = convert(data[name])
            return b""
        if "connection" in data:
            one = data["connection"]
            self._connections[number] = {**one, "local": tuple(one["local"]), "remote": tuple(one["remote"])}
        values = {
            "time_ns": int(Decimal(event["time"]) * 1_000_000),
            "connection": number,
            "event": EVENT_NUMBERS[kind],
            "cause": CAUSE_NUMBERS[data.get("trigger", "none")],
            "seq": data["seq"],
            "length": data["length"],
            "detail": _number_of(kind, data),
            **metrics,
        }
        return struct.pack(FORMAT, *(values[name] for name in FIELDS))


def _number_of(kind: str, data: dict[str, Any]) -> int:
    if kind not in DETAILS:
        return 0
    value = data[DETAILS[kind]]
    if DETAILS[kind] == "latest_rtt":
        return int(value * 1000)
    if kind == "state":
        return STATE_NUMBERS[value]
    return REASON_NUMBERS[value] if kind == "closed" else int(value)

# SPDX-License-Identifier: MIT
"""What a running server did between two moments: counters in, rates out. Reads, changes nothing, prints nothing.

Read first: base/counters.pxd, where every counter is explained. Above: cli. Below: base, link (their counters' names).
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """All counters at one moment.

    stack: Stack.counters(). link: Link.counters(). application: the server's, with `requests` and `responses` by class.
    cpu_ns: processor time of this process. capture: of a recorded link, the frames `recorded` and `missed`, and the
    `error` that ended it, if one did.
    """

    now_ns: int
    stack: dict[str, int] = field(default_factory=dict)
    link: dict[str, int] = field(default_factory=dict)
    application: dict[str, Any] = field(default_factory=dict)
    connections: int = 0
    cpu_ns: int = 0
    capture: dict[str, Any] | None = None


@dataclass(frozen=True)
class Rates:
    """What happened between two snapshots, per second where the name says so."""

    interval_s: float
    requests_per_s: float
    frames_in_per_s: float
    frames_out_per_s: float
    gbit_in_per_s: float
    gbit_out_per_s: float
    drops: int
    cpu: float
    connections: int


def drops(snapshot: Snapshot) -> dict[str, int]:
    """Every reason for which a frame was dropped at least once, the link's own reasons among them."""
    counted = {name: value for name, value in snapshot.stack.items() if name.startswith("drop_")}
    for name in ("rx_dropped", "rx_truncated", "tx_dropped"):
        counted[f"link_{name}"] = snapshot.link.get(name, 0)
    return {name: value for name, value in counted.items() if value}


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """Rates between two snapshots. An interval of no length counts as one nanosecond."""
    interval_ns = max(after.now_ns - before.now_ns, 1)

    def per_second(old: dict[str, Any], new: dict[str, Any], name: str) -> float:
        return float(new.get(name, 0) - old.get(name, 0)) * 1e9 / interval_ns

    return Rates(
        interval_s=interval_ns / 1e9,
        requests_per_s=per_second(before.application, after.application, "requests"),
        frames_in_per_s=per_second(before.link, after.link, "rx_frames"),
        frames_out_per_s=per_second(before.link, after.link, "tx_frames"),
        gbit_in_per_s=per_second(before.link, after.link, "rx_bytes") * 8 / 1e9,
        gbit_out_per_s=per_second(before.link, after.link, "tx_bytes") * 8 / 1e9,
        drops=sum(drops(after).values()) - sum(drops(before).values()),
        cpu=(after.cpu_ns - before.cpu_ns) / interval_ns,
        connections=after.connections,
    )


def as_json(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """One object for --json-stats: the rates of the last interval, then everything counted since the start."""
    now = rates(before, after)
    capture = {} if after.capture is None else {"capture": after.capture}
    return {
        "interval_s": round(now.interval_s, 6),
        "requests_per_s": round(now.requests_per_s, 1),
        "connections": now.connections,
        "gbit_in_per_s": round(now.gbit_in_per_s, 6),
        "gbit_out_per_s": round(now.gbit_out_per_s, 6),
        "frames_in_per_s": round(now.frames_in_per_s, 1),
        "frames_out_per_s": round(now.frames_out_per_s, 1),
        "drops_in_interval": now.drops,
        "cpu": round(now.cpu, 4),
        "drops": drops(after),
        **capture,
        "http": after.application,
        "link": after.link,
        "counters": {name: value for name, value in after.stack.items() if not name.startswith("drop_")},
    }

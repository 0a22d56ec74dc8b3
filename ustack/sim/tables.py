# SPDX-License-Identifier: MIT
"""Outcomes as rows of words: of one scenario its flows and its links; of a sweep a row for each point.

A point's row has the median over its seeds, and the least and the greatest. It keeps a few numbers for each outcome,
not the outcome. Above: html, cli. Below: running.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ustack.sim.running import Outcome

FLOW_COLUMNS = (
    "flow",
    "from",
    "to",
    "control",
    "goodput Mb/s",
    "MB",
    "again %",
    "RTT ms",
    "least",
    "answers",
    "p99 ms",
    "end",
)
HOP_COLUMNS = ("link", "frames", "MB", "dropped", "early", "marked", "lost", "beyond MTU", "queue's most kB")
FLOWS_SHOWN = 4  # of a sweep: a column each


def _ms(value: float | None, scale: float) -> str:
    return f"{value / scale:,.1f}" if value else ""


def flow_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """A row for each flow."""
    rows: list[tuple[str, ...]] = []
    for name, flow in outcome.flows.items():
        sent = flow["segments_sent"]
        end_ns = flow["end_ns"]
        rows.append(
            (
                name,
                str(flow["source"]),
                str(flow["sink"]),
                str(flow["cc"] or ""),
                f"{flow['goodput_bps'] / 1e6:,.2f}",
                f"{flow['received_bytes'] / 1e6:,.2f}",
                f"{100 * flow['retransmitted'] / sent:.2f}" if sent else "",
                _ms(flow["srtt_us"], 1e3),
                _ms(flow["min_rtt_us"], 1e3),
                f"{flow['responses']:,}" if flow["responses"] else "",
                _ms(flow["response_p99_ns"], 1e6),
                "goes on" if end_ns is None else f"{end_ns / 1e9:.2f} s {flow['reason'] or ''}".strip(),
            )
        )
    return rows


def hop_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """A row for each way of a link."""
    return [
        (
            name,
            f"{hop['delivered']:,}",
            f"{hop['delivered_bytes'] / 1e6:,.2f}",
            *(
                f"{hop[key]:,}" if hop[key] else ""
                for key in ("tail_dropped", "early_dropped", "marked", "lost", "beyond_mtu")
            ),
            f"{hop['most_bytes'] / 1000:,.1f}",
        )
        for name, hop in outcome.hops.items()
    ]


class Summary:
    """What a sweep has come to so far."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.failed: list[str] = []
        self.outcomes = 0
        self.events = 0
        self._keys: list[str] = []
        self._flows: list[str] = []
        self._cells: dict[tuple[str, ...], dict[str, list[float]]] = {}

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.outcomes += 1
        self.events += outcome.events
        self._keys = self._keys or list(outcome.point)
        point = tuple(outcome.point.values())
        cells = self._cells.setdefault(point, {})
        if outcome.error:
            words = ", ".join(f"{key}={value}" for key, value in outcome.point.items())
            self.failed.append(f"{words or outcome.name}, seed {outcome.seed}: {outcome.error}")
            return
        self._flows = self._flows or list(outcome.flows)
        cells.setdefault("goodput", []).append(outcome.goodput_bps / 1e6)
        cells.setdefault("again", []).append(100 * outcome.retransmitted)
        if outcome.fairness is not None:
            cells.setdefault("fairness", []).append(outcome.fairness)
        for name in self._flows[:FLOWS_SHOWN]:
            if name in outcome.flows:
                cells.setdefault(f"flow {name}", []).append(outcome.flows[name]["goodput_bps"] / 1e6)

    def columns(self) -> tuple[str, ...]:
        """Heads of rows()."""
        flows = [f"{name} Mb/s" for name in self._own_columns()]
        return (*self._keys, "runs", "goodput Mb/s", "least-most", *flows, "fairness", "again %")

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each point."""
        rows = []
        for point, cells in self._cells.items():
            goodput = cells.get("goodput", [])
            span = f"{min(goodput):,.2f}-{max(goodput):,.2f}" if goodput else ""
            own = [_median(cells.get(f"flow {name}", []), 2) for name in self._own_columns()]
            more = (_median(cells.get("fairness", []), 3), _median(cells.get("again", []), 2))
            rows.append((*point, str(len(goodput)), _median(goodput, 2), span, *own, *more))
        return rows

    def goodputs(self) -> dict[str, list[float]]:
        """Mb/s of all flows together: each seed's, by the words of its point."""
        words = {point: ", ".join(point) or "all" for point in self._cells}
        return {words[point]: cells["goodput"] for point, cells in self._cells.items() if cells.get("goodput")}

    def _own_columns(self) -> list[str]:
        return self._flows if 1 < len(self._flows) <= FLOWS_SHOWN else []


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else ""

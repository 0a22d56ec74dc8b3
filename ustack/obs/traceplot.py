# SPDX-License-Identifier: MIT
"""Three plots of one traced connection over the same time, through matplotlib: its windows, its round trip, and the
sequence numbers that were sent, sent again and acknowledged.

Above: cli. Below: drawing, matplotlib, tcp.tracing.
"""

import struct
from pathlib import Path
from typing import Any

from ustack.obs import drawing
from ustack.obs.recorded import Recorded
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT

AT = {name: number for number, name in enumerate(FIELDS)}
NO_THRESHOLD = 1 << 30  # ssthresh is beyond it before the first loss, and not drawn
SECOND_NS = 1e9
COLOURS = {"fast": "tab:orange", "rack": "tab:purple", "probe": "tab:olive", "rto": "tab:red", "size": "tab:brown"}


def rows_of(recorded: Recorded, number: int) -> list[tuple[Any, ...]]:
    """The records of one connection. Raises ValueError if there are none."""
    rows = [row for row in struct.iter_unpack(FORMAT, recorded.records) if row[AT["connection"]] == number]
    if not rows:
        raise ValueError(f"connection {number}: the trace has no records of it")
    return rows


def plot(recorded: Recorded, number: int, path: Path) -> None:
    """Draw a connection into a file of a kind that matplotlib knows (.svg, .png, .pdf). Raises ValueError, OSError."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("plots need matplotlib: pip install 'ustack[trace]'") from None
    rows = rows_of(recorded, number)
    times = [(row[AT["time_ns"]] - rows[0][AT["time_ns"]]) / SECOND_NS for row in rows]
    title = title_of(recorded, number)
    with matplotlib.rc_context(drawing.settings(f"ustack trace {number}")):
        figure = Figure(figsize=(10, 11), facecolor=drawing.PAPER, layout="constrained")
        windows, trips, sequence = figure.subplots(3, 1, sharex=True)
        for axes in (windows, trips, sequence):
            drawing.plain(axes)
        _draw_windows(windows, times, rows)
        _draw_round_trips(trips, times, rows)
        _draw_sequence(sequence, times, rows)
        figure.suptitle(title)
        sequence.set_xlabel("seconds")
        drawing.save(figure, path, title)


def title_of(recorded: Recorded, number: int) -> str:
    """Whose connection it is, as far as the trace knows."""
    known = recorded.connections[number - 1] if number <= len(recorded.connections) else {}
    if not known:
        return f"connection {number}"
    (address, port), (peer, peer_port) = known["local"], known["remote"]
    return f"{address}:{port} to {peer}:{peer_port}, {known['cc']}"


def thresholds(rows: list[tuple[Any, ...]]) -> list[float]:
    """ssthresh of each record, not a number where there has been no loss yet."""
    found = (row[AT["ssthresh"]] for row in rows)
    return [limit if limit < NO_THRESHOLD else float("nan") for limit in found]


def _draw_windows(axes: Any, times: list[float], rows: list[tuple[Any, ...]]) -> None:
    axes.step(times, [row[AT["cwnd"]] for row in rows], where="post", label="cwnd")
    axes.step(times, [row[AT["flight"]] for row in rows], where="post", label="in flight", linewidth=0.7)
    axes.step(times, thresholds(rows), where="post", label="ssthresh", linestyle="--")
    axes.set_ylabel("bytes")
    axes.legend(loc="upper right", frameon=False, labelcolor=drawing.INK)


def _draw_round_trips(axes: Any, times: list[float], rows: list[tuple[Any, ...]]) -> None:
    measured, samples = [], []
    for at, row in zip(times, rows, strict=True):
        if EVENTS[row[AT["event"]]] in ("acked", "sacked") and row[AT["detail"]]:
            measured.append(at)
            samples.append(row[AT["detail"]] / 1000)
    axes.plot(measured, samples, ".", markersize=2, label="each ACK")
    axes.step(times, [row[AT["srtt_us"]] / 1000 or float("nan") for row in rows], where="post", label="srtt")
    axes.set_ylabel("milliseconds")
    axes.legend(loc="upper right", frameon=False, labelcolor=drawing.INK)


def _draw_sequence(axes: Any, times: list[float], rows: list[tuple[Any, ...]]) -> None:
    sent: list[tuple[float, int]] = []
    acked: list[tuple[float, int]] = []
    again: dict[str, list[tuple[float, int]]] = {}
    unwrap = _Unwrap()
    for at, row in zip(times, rows, strict=True):
        kind = EVENTS[row[AT["event"]]]
        end = unwrap(row[AT["seq"]] + row[AT["length"]])
        if kind == "sent":
            sent.append((at, end))
        elif kind == "retransmitted":
            again.setdefault(CAUSES[row[AT["cause"]]], []).append((at, end))
        elif kind == "acked":
            acked.append((at, end))
    axes.plot([at for at, _ in sent], [end for _, end in sent], ".", markersize=2, label="sent")
    axes.step([at for at, _ in acked], [end for _, end in acked], where="post", label="acknowledged")
    for cause, points in again.items():
        axes.plot([at for at, _ in points], [end for _, end in points], "x", markersize=4, color=COLOURS[cause],
                  label=f"again: {cause}")  # fmt: skip
    axes.set_ylabel("sequence number")
    axes.legend(loc="lower right", frameon=False, labelcolor=drawing.INK)


class _Unwrap:
    """Sequence numbers modulo 2^32 as numbers that go on."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self, number: int) -> int:
        ahead = (number - self._last) & 0xFFFFFFFF
        if ahead >= 1 << 31:
            ahead -= 1 << 32
        if ahead > 0:
            self._last += ahead
            return self._last
        return self._last + ahead

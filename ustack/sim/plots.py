# SPDX-License-Identifier: MIT
"""What happened in a scenario over time, drawn: windows, round trips, goodput, queues, sequence numbers.

    write(outcome, Path("out"))                     # out/window.png, out/window.svg, ... out/overview.svg

The outcome needs its series (run(..., series=True)). One look for all (drawing). It must not: run anything.
Above: html, cli. Below: running, drawing; matplotlib (the extra `sim`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ustack.obs import drawing
from ustack.obs.drawing import INK, PAPER
from ustack.sim.running import Outcome

INSTALL = "pip install 'ustack[sim]'"
# Readable on both papers.
COLOURS = ("#d9480f", "#4c8ed9", "#3d9a5f", "#a06cc8", "#c2a000", "#8a949e", "#b5495b", "#2f9e9e")
WIDTH_INCHES, HEIGHT_INCHES = 8.0, 2.7
POINTS_MOST = 400  # of a line: more than a screen shows
BINS = 120  # of goodput
NAMED_MOST = 8  # in a legend
LEGEND_COLUMNS = 4
HOPS_MOST = 4
NO_THRESHOLD = 1 << 30  # a slow start threshold that was never set is beyond it

Draw = Callable[[Any, Outcome], None]


class NoLibraries(Exception):
    """What drawings are made with is not installed."""


def check_libraries() -> None:
    """Raises NoLibraries."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise NoLibraries(f"matplotlib is not installed: {INSTALL}") from None


# ---------------------------------------------------------------- lines


def _seconds(outcome: Outcome) -> list[float]:
    return [at / 1e9 for at in _series(outcome)["times_ns"]]


def _series(outcome: Outcome) -> Mapping[str, Any]:
    if outcome.series is None:
        raise ValueError("an outcome without series: run(scenario, series=True)")
    return outcome.series


def _thinned(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Of each stretch of many points the least and the greatest, in their order: no peak is lost. None is a gap."""
    nothing = float("nan")
    values = [nothing if value is None else float(value) for value in y]
    if len(values) <= POINTS_MOST:
        return list(x), values
    stretch = -(-2 * len(values) // POINTS_MOST)
    kept: list[int] = []
    for begin in range(0, len(values), stretch):
        part = range(begin, min(begin + stretch, len(values)))
        there = [at for at in part if values[at] == values[at]]
        if not there:
            kept.append(begin)
            continue
        least, most = min(there, key=values.__getitem__), max(there, key=values.__getitem__)
        kept += sorted({least, most})
    return [x[at] for at in kept], [values[at] for at in kept]


def _line(axes: Any, x: Sequence[float], y: Sequence[float | None], **look: Any) -> None:
    axes.plot(*_thinned(x, y), **{"linewidth": 1.1, **look})


def _while_open(flow: Mapping[str, Any], name: str, scale: float, most: int = 1 << 62) -> list[float | None]:
    """A column where there was a connection, and a value."""
    column, cwnd = flow[name], flow["cwnd"]
    return [value / scale if window and value <= most else None for value, window in zip(column, cwnd, strict=True)]


def _flows(outcome: Outcome) -> Iterable[tuple[str, Mapping[str, Any], str, str | None]]:
    """Name, columns, colour, label (of the first few)."""
    for number, (name, flow) in enumerate(_series(outcome)["flows"].items()):
        cc = outcome.flows[name].get("cc") or ""
        label = (f"{name} ({cc})" if cc else name) if number < NAMED_MOST else None
        yield name, flow, COLOURS[number % len(COLOURS)], label


def window(axes: Any, outcome: Outcome) -> None:
    """Congestion window, threshold (dashed) and bytes in flight (faint)."""
    x = _seconds(outcome)
    few = len(outcome.flows) <= 3
    for _, flow, colour, label in _flows(outcome):
        if few:
            _line(axes, x, _while_open(flow, "flight", 1000), color=colour, alpha=0.35, linewidth=0.8)
            _line(axes, x, _while_open(flow, "ssthresh", 1000, NO_THRESHOLD), color=colour, linestyle="--", alpha=0.7)
        _line(axes, x, _while_open(flow, "cwnd", 1000), color=colour, label=label)
    axes.set_ylabel("window, kB")


def rtt(axes: Any, outcome: Outcome) -> None:
    """Smoothed round-trip times."""
    x = _seconds(outcome)
    for _, flow, colour, label in _flows(outcome):
        values = [value or None for value in _while_open(flow, "srtt_us", 1000)]
        _line(axes, x, values, color=colour, label=label)
    axes.set_ylabel("RTT, ms")


def goodput(axes: Any, outcome: Outcome) -> None:
    """What has arrived at the sink, per stretch of time."""
    x = _seconds(outcome)
    step = max(1, len(x) // BINS)
    at = range(step, len(x), step)
    for _, flow, colour, label in _flows(outcome):
        got = flow["received_bytes"]
        y = [max(0, got[i] - got[i - step]) * 8 / 1e6 / (x[i] - x[i - step]) for i in at]
        _line(axes, [x[i] for i in at], y, color=colour, label=label)
    axes.set_ylabel("goodput, Mb/s")


def queue(axes: Any, outcome: Outcome) -> None:
    """Bytes that wait, at the hops where most did; a mark where frames were dropped."""
    x = _seconds(outcome)
    hops = _series(outcome)["hops"]
    peaks = sorted(((max(hop["queue_bytes"], default=0), name) for name, hop in hops.items()), reverse=True)
    shown = [name for peak, name in peaks if peak * 50 > peaks[0][0]][:HOPS_MOST]  # others are a line at the bottom
    for number, name in enumerate(shown):
        hop, colour = hops[name], COLOURS[-1 - number]
        _line(axes, x, [value / 1000 for value in hop["queue_bytes"]], color=colour, label=name)
        dropped = hop["dropped"]
        at = [i for i in range(1, len(dropped)) if dropped[i] > dropped[i - 1]][-POINTS_MOST:]
        if at:
            axes.plot([x[i] for i in at], [0] * len(at), linestyle="", marker="|", color=colour, markersize=7)
    axes.set_ylabel("queue, kB")


def sequence(axes: Any, outcome: Outcome) -> None:
    """Bytes acknowledged, and sent (faint); a mark where segments were sent again."""
    x = _seconds(outcome)
    few = len(outcome.flows) <= 3
    for _, flow, colour, label in _flows(outcome):
        acked = [value / 1e6 for value in flow["acked_bytes"]]
        _line(axes, x, acked, color=colour, label=label)
        if few:
            sent = [(a + f) / 1e6 for a, f in zip(flow["acked_bytes"], flow["flight"], strict=True)]
            _line(axes, x, sent, color=colour, alpha=0.4, linewidth=0.7)
        again = flow["retransmitted"]
        at = [i for i in range(1, len(again)) if again[i] > again[i - 1]][-POINTS_MOST:]
        if at:
            axes.plot([x[i] for i in at], [acked[i] for i in at], linestyle="", marker="x", color=colour, markersize=4)
    axes.set_ylabel("sequence, MB")


KINDS: dict[str, Draw] = {"window": window, "rtt": rtt, "goodput": goodput, "queue": queue, "sequence": sequence}
OVERVIEW = ("window", "rtt", "goodput", "queue")


# ---------------------------------------------------------------- figures


def figure_of(outcome: Outcome, kinds: Sequence[str], title: str = "") -> Any:
    """A figure with a panel for each kind, one below the other. Within drawing.settings()."""
    from matplotlib.figure import Figure

    height = HEIGHT_INCHES if len(kinds) == 1 else 1.75 * len(kinds) + 0.5
    figure = Figure(figsize=(WIDTH_INCHES, height), facecolor=PAPER, layout="constrained")
    every = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for number, (axes, kind) in enumerate(zip(every, kinds, strict=True)):
        KINDS[kind](axes, outcome)
        axes.set_xlim(0, max(outcome.ran_ns / 1e9, 1e-9))
        axes.set_ylim(bottom=0)
        drawing.plain(axes)
        handles, _ = axes.get_legend_handles_labels()
        if handles and (number == 0 or kind == "queue"):
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1, 1),
                fontsize=8,
                frameon=False,
                labelcolor=INK,
                ncols=LEGEND_COLUMNS,
            )
    every[0].set_title(title or outcome.name, fontsize=9, loc="left")
    every[-1].set_xlabel("time, s")
    return figure


def svg(outcome: Outcome, kinds: Sequence[str], title: str = "") -> str:
    """The text of one. Raises NoLibraries."""
    check_libraries()
    import matplotlib

    with matplotlib.rc_context(drawing.settings(f"ustack {' '.join(kinds)}")):
        return drawing.svg_of(figure_of(outcome, kinds, title), title or outcome.name)


def drawn(outcome: Outcome, title: str = "") -> Iterator[tuple[str, bytes]]:
    """Each kind as PNG and SVG, and an overview: names of files and what is in them. Raises NoLibraries."""
    check_libraries()
    import matplotlib

    for name, kinds in {**{kind: (kind,) for kind in KINDS}, "overview": OVERVIEW}.items():
        yield f"{name}.svg", svg(outcome, kinds, title).encode()
        with matplotlib.rc_context({**drawing.settings(), "text.color": "black"}):
            png = drawing.png_of(figure_of(outcome, kinds, title))
        yield f"{name}.png", png


def write(outcome: Outcome, folder: Path, title: str = "") -> list[Path]:
    """The files of drawn(), in a folder. Raises NoLibraries, OSError."""
    made = []
    for name, data in drawn(outcome, title):
        made.append(folder / name)
        made[-1].write_bytes(data)
    return made


def bars(groups: Mapping[str, Sequence[float]], label: str, title: str) -> str:
    """SVG of medians, with whiskers from the least to the greatest: for the points of a sweep. Raises NoLibraries."""
    check_libraries()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.settings(f"ustack bars {label}")):
        figure = Figure(figsize=(WIDTH_INCHES, 0.28 * len(groups) + 0.9), facecolor=PAPER, layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("none")
        medians = [statistics.median(values) for values in groups.values()]
        spread = [
            [median - min(values) for median, values in zip(medians, groups.values(), strict=True)],
            [max(values) - median for median, values in zip(medians, groups.values(), strict=True)],
        ]
        axes.barh(
            range(len(groups)),
            medians,
            height=0.68,
            color=COLOURS[1],
            xerr=spread,
            error_kw={"ecolor": INK, "elinewidth": 0.8},
        )
        axes.set_yticks(range(len(groups)), list(groups))
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=9, loc="left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return drawing.svg_of(figure, title)

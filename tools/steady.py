# SPDX-License-Identifier: MIT
"""A congestion control written in Python, and what it does to a queue: the example of README.md.

    python -m ustack.tools.steady --svg docs/steady.svg

runs three connections in virtual time, each alone on a path of 20 Mb/s and 40 ms with a queue of four bandwidth-delay
products: CUBIC, Steady, and CUBIC that is exchanged for Steady while data flows. It prints what each came to and draws
their windows. The same class works on a real link: Stack(PacketMmapLink(...), cc="steady") after register(Steady).

Below: tcp.cc.scripted, testing.shares. The drawing is plain SVG, and needs no library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register
from ustack.testing.shares import Bottleneck
from ustack.testing.testbed import SECOND


class Steady(CongestionControl):
    """Keep two to four segments in the queue, as TCP Vegas does, instead of filling it."""

    name = "steady"

    def __init__(self, window: Window) -> None:
        """Data flows for the first time, or another control has handed over."""
        self.least_us = 0  # the shortest round trip of this round

    def on_ack(self, window: Window, ack: Ack) -> None:
        """Once in a round trip: how many bytes wait, by how much longer than the shortest it was?"""
        if ack.rtt_us:
            self.least_us = min(self.least_us or ack.rtt_us, ack.rtt_us)
        if ack.in_recovery or not ack.cwnd_limited:
            return
        slow_start = window.cwnd < window.ssthresh
        if slow_start:
            window.cwnd += ack.acked
        if not ack.round_start or not self.least_us:
            return
        queued = window.cwnd * (self.least_us - ack.min_rtt_us) // self.least_us
        self.least_us = 0
        if queued > 4 * window.smss:
            window.cwnd = max(window.cwnd - queued // 2, 2 * window.smss)
            window.ssthresh = window.cwnd
        elif queued < 2 * window.smss and not slow_start:
            window.cwnd += window.smss


RATE_BPS = 20_000_000
ROUND_TRIP_MS = 40
QUEUE_BDP = 4
EXCHANGED_S = 10
SIZE = (720, 300)
MARGIN = 45
COLOURS = ("#c0392b", "#2471a3", "#7d8a2e")
LEAST_STEP_S = 0.05  # between two points of a line


@dataclass
class Course:
    """One connection alone. points: (s, segments in the window), where that has changed."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)
    goodput_bps: float = 0.0
    mean_queue_ms: float = 0.0


def course(name: str, cc: str, seconds: int, exchanged_for: str | None = None) -> Course:
    """Run one; from EXCHANGED_S on with another control, if there is one. The second half is what counts."""
    way = Bottleneck(rate_bps=RATE_BPS, round_trip_ms=ROUND_TRIP_MS, queue_bdp=QUEUE_BDP)
    sender = way.add(cc)
    found = Course(name)
    begin_ns = way.pair.now_ns

    def look() -> None:
        info = sender.info()
        at_s, segments = (way.pair.now_ns - begin_ns) / SECOND, info.snd_cwnd_bytes / info.snd_mss_bytes
        if not found.points or at_s - found.points[-1][0] >= LEAST_STEP_S:
            found.points.append((at_s, segments))

    way.run(EXCHANGED_S * SECOND, look)
    if exchanged_for is not None:
        sender.cc = exchanged_for
    way.run(seconds * SECOND // 2 - EXCHANGED_S * SECOND, look)
    before = way.got()[0]
    way.queue_bytes.clear()
    way.run(seconds * SECOND // 2, look)
    found.goodput_bps = (way.got()[0] - before) * 8 / (seconds / 2)
    found.mean_queue_ms = sum(way.queue_bytes) / len(way.queue_bytes) * 8 / RATE_BPS * 1000
    way.close()
    return found


def drawing(courses: list[Course], seconds: int) -> str:
    """The windows over time, as SVG."""
    width, height = SIZE
    most = max(segments for one in courses for _, segments in one.points) * 1.05

    def at(seconds_in: float, segments: float) -> str:
        x = MARGIN + seconds_in / seconds * (width - MARGIN - 10)
        return f"{x:.1f},{height - MARGIN + 10 - segments / most * (height - MARGIN - 10):.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for part in range(5):
        x, y = at(seconds * part / 4, most * part / 4).split(",")
        lines += [
            f'<path d="M{at(0, most * part / 4)}H{width - 10}" stroke="#ddd"/>',
            f'<text x="{x}" y="{height - 18}" text-anchor="middle">{seconds * part // 4} s</text>',
            f'<text x="{MARGIN - 6}" y="{float(y) + 4:.0f}" text-anchor="end">{most * part / 4:.0f}</text>',
        ]
    for number, (one, colour) in enumerate(zip(courses, COLOURS, strict=False)):
        path = " ".join(at(*point) for point in one.points)
        lines += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>',
            f'<text x="{MARGIN + 10 + 230 * number}" y="{height - 4}" fill="{colour}">{one.name}: '
            f"{one.goodput_bps / 1e6:.1f} Mb/s, queue {one.mean_queue_ms:.0f} ms</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])


@click.command(help="Run a control written in Python beside CUBIC, in virtual time, and draw their windows.")
@click.option("--svg", type=click.Path(path_type=Path), help="Where the drawing goes.")
@click.option("--seconds", default=40, show_default=True, type=click.IntRange(2 * EXCHANGED_S, 600))
def main(*, svg: Path | None, seconds: int) -> None:
    """Run and print."""
    register(Steady)
    courses = [
        course("CUBIC", "cubic", seconds),
        course("Steady", "steady", seconds),
        course("CUBIC, then Steady", "cubic", seconds, "steady"),
    ]
    for one in courses:
        click.echo(f"{one.name}: {one.goodput_bps / 1e6:.1f} Mb/s, {one.mean_queue_ms:.1f} ms in the queue")
    if svg is not None:
        svg.write_text(drawing(courses, seconds), encoding="utf-8")


if __name__ == "__main__":
    main()

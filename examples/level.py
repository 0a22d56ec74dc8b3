# SPDX-License-Identifier: MIT
"""A congestion control of one's own, in thirty lines: keep a little queue, and believe no loss without one.

    python examples/level.py                                     # level.out/: drawings, a page of HTML
    ustack sim run examples/own.toml --set flows.own.cc=cubic,level.py:Level

docs/simulation.md goes through it step by step.
"""

from ustack.tcp.cc.scripted import Ack, CongestionControl, Window

TARGET_US = 10_000  # of waiting in queues, as LEDBAT (RFC 6817) counts it


class Level(CongestionControl):
    """The window goes up while less than TARGET_US waits, and down while more does."""

    name = "level"

    def __init__(self, window: Window) -> None:
        """Data flows for the first time."""
        self.waiting_us = 0

    def on_ack(self, window: Window, ack: Ack) -> None:
        """How long did this one wait, beyond the shortest round trip?"""
        if ack.rtt_us:
            self.waiting_us = max(0, ack.rtt_us - ack.min_rtt_us)
        if ack.in_recovery or not ack.cwnd_limited:
            return
        if window.cwnd < window.ssthresh and self.waiting_us < TARGET_US // 2:
            window.cwnd += ack.acked  # slow start
            return
        off = max(-1.0, (TARGET_US - self.waiting_us) / TARGET_US)
        window.cwnd = max(2 * window.smss, window.cwnd + round(off * ack.acked * window.smss / window.cwnd))
        window.ssthresh = window.cwnd

    def on_loss(self, window: Window, flight: int) -> None:
        """A full queue, or chance? Without a queue it was chance."""
        window.ssthresh = window.cwnd
        if self.waiting_us >= TARGET_US:
            super().on_loss(window, flight)


if __name__ == "__main__":
    from pathlib import Path

    from ustack.sim import html, plots
    from ustack.sim.reading import read
    from ustack.sim.running import run

    scenario = read(Path(__file__).with_name("own.toml"))
    outcome = run(scenario, series=True)
    folder = Path("level.out")
    folder.mkdir(exist_ok=True)
    plots.write(outcome, folder)
    (folder / "report.html").write_text(html.page_of(scenario, outcome))

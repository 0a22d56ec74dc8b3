# SPDX-License-Identifier: MIT
"""A grid of simulated downloads as text: loss x round trip x rate x queue x congestion control.

    python -m ustack.tools.sim_grid tests/data/sim/grid.txt          # write it anew, after a change of behaviour

A test compares the file with what the tree does now, so that a change of behaviour is a change of the file, which a
review sees. Below: sim.
"""

from __future__ import annotations

from pathlib import Path

import click

from ustack.sim.document import Document
from ustack.sim.running import run
from ustack.sim.sweep import given, points

ROOT = Path(__file__).resolve().parents[1]
SCENARIO = ROOT / "tests" / "data" / "sim" / "grid.toml"
# In the order of the columns; the last is a row's.
AXES = (
    "links.r-client.delay=5 ms,20 ms,100 ms",
    "links.r-client.rate=2 Mb/s,20 Mb/s,50 Mb/s",
    "links.r-client.queue=droptail,codel,red",
    "links.r-client.forward.loss=0,0.1 %,1 %",
    "flows.f.cc=newreno,cubic,bbr",
)
HEAD = (
    "# A download of 10 s over a bottleneck with 150 kB of buffer: delay of one way, rate, queue, loss, control;\n"
    "# goodput, segments sent again of all, timeouts, most bytes that the queue held.\n"
)


def text() -> str:
    """The whole file."""
    lines = []
    for scenario in points(Document.load(SCENARIO), [given(axis) for axis in AXES]):
        outcome = run(scenario)
        flow = outcome.flows["f"]
        words = " ".join(f"{value:>8}" for value in scenario.point.values())
        lines.append(
            f"{words}  {flow['goodput_bps'] // 1000:>6} kb/s {flow['retransmitted']:>5} of {flow['segments_sent']:>6}"
            f" {flow['timeouts']:>2} RTO {outcome.hops['r->client']['most_bytes']:>7} B"
        )
    return HEAD + "\n".join(lines) + "\n"


@click.command(help="Write the grid of simulated downloads to FILE.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def main(file: Path) -> None:
    """Write it."""
    file.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""A sweep on a Dask cluster: its client has an executor as concurrent.futures knows it, and sweep() takes any.

    pip install distributed
    python examples/sweep_dask.py                       # on this machine
    python examples/sweep_dask.py tcp://scheduler:8786  # on a cluster whose workers have ustack
"""

import sys
from pathlib import Path

from ustack.sim.document import Document
from ustack.sim.sweep import count, given, points, sweep
from ustack.sim.tables import Summary

SETS = [given("links.a-b.loss=0,0.1 %,1 %"), given("links.a-b.delay=5..45/20 ms")]
SEEDS = 10


def main(address: str | None) -> None:
    """Print a row for each point."""
    from dask.distributed import Client

    document = Document.load(Path(__file__).with_name("two.toml"))
    summary = Summary()
    with Client(address) as client:
        for outcome in sweep(points(document, SETS, seeds=SEEDS), client.get_executor()):
            summary.add(outcome)
            print(f"{summary.outcomes} of {count(SETS, SEEDS)}", end="\r", file=sys.stderr)
    print(file=sys.stderr)
    print(*summary.columns(), sep="\t")
    for row in summary.rows():
        print(*row, sep="\t")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)

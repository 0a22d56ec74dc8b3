# SPDX-License-Identifier: MIT
"""The grid of simulated downloads is as it was: a change of behaviour is a change of a file, which a review sees."""

from tests.tree import ROOT
from ustack.tools import sim_grid


def test_the_grid_is_as_it_was() -> None:
    """Meant to differ? `python -m ustack.tools.sim_grid tests/data/sim/grid.txt`, and say why in the commit."""
    was = (ROOT / "tests/data/sim/grid.txt").read_text().splitlines()
    now = sim_grid.text().splitlines()
    changed = [f"-{old}\n+{new}" for old, new in zip(was, now, strict=True) if old != new]
    assert not changed, "\n".join(changed[:20])

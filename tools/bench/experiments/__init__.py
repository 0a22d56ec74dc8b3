# SPDX-License-Identifier: MIT
"""What is measured: one file for each experiment, or for those of a kind. A file has `EXPERIMENTS`, and is found by
being here; in tables and runs they come in the order of `order`."""

from __future__ import annotations

import importlib
import pkgutil

from ustack.tools.bench.experiments.base import Experiment


def known() -> dict[str, Experiment]:
    """Every experiment by name."""
    found: list[Experiment] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            found += getattr(importlib.import_module(f"{__name__}.{module.name}"), "EXPERIMENTS", ())
    return {one.name: one for one in sorted(found, key=lambda one: one.order)}

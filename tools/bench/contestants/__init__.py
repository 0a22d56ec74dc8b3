# SPDX-License-Identifier: MIT
"""Who takes part: one file for each server, with how it is installed, started on a folder, and stopped.

A file has `CONTESTANTS`, the classes that it brings, each on `base.Contestant`; it is found by being here. Its tuned
configuration lies beside it, or in it.
"""

from __future__ import annotations

import importlib
import pkgutil

from ustack.tools.bench.contestants.base import Contestant

# In tables; who is not named here comes after, in the order of the files' names.
KINDS = ("ustack", "stack", "strategy", "server", "application", "reference")


def known() -> dict[str, type[Contestant]]:
    """Every contestant by name, kind by kind."""
    found: list[type[Contestant]] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base" and not module.ispkg:
            found += getattr(importlib.import_module(f"{__name__}.{module.name}"), "CONTESTANTS", ())
    found.sort(key=lambda one: KINDS.index(one.kind))
    return {one.name: one for one in found}

# SPDX-License-Identifier: MIT
"""PyTCP's asyncio fork, pmd-pytcp, under a coroutine for each connection: see applications/pytcp_files.py.

PyTCP itself, with a thread for each part of the stack, wants a Python of 3.14 at least.
"""

from __future__ import annotations

import sys

from ustack.tools.bench.contestants.base import HERE, version_of_module
from ustack.tools.bench.contestants.tap import OnTap


class PyTcp(OnTap):
    """A stack in Python alone. Its licence is the GPL, version 3 or later: it is installed by who wants it."""

    name = "pytcp"
    title = "PyTCP (asyncio), TAP"
    source = HERE / "applications" / "pytcp_files.py"
    modules = ("pmd_pytcp",)
    install = "pip install pmd-pytcp"
    at_most = 500
    why_at_most = "a SYN takes it milliseconds, and what comes late is in the way of the next runs"

    def build(self) -> tuple[str, ...]:
        """A script of this interpreter."""
        self.version = version_of_module("pmd-pytcp")
        return sys.executable, str(self.source)


CONTESTANTS = [PyTcp]

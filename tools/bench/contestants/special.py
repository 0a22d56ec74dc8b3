# SPDX-License-Identifier: MIT
"""Contestants of single experiments: the stack in memory, and two stacks at the far end of a wire."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ustack.tools.bench.contestants.base import CONGESTION_CONTROL, Contestant
from ustack.tools.loss_cells import BODIES
from ustack.tools.servers import ustack_info
from ustack.tools.wired import contestants as wired


class Special(Contestant):
    """No server that others could ask: it takes part where an experiment is about it."""

    special = True
    kind = "ustack"
    install = "this project"

    def check_files(self, files: dict[str, str]) -> None:
        """What it serves is its experiment's own."""

    def command(self) -> list[str]:
        """Its experiment starts what there is to start."""
        return []

    def start(self) -> None:
        """Nothing of its own."""
        self.version = str(ustack_info().get("version", ""))

    def how_it_is(self) -> str:
        """Always well, or its experiment says what is wrong."""
        return ""


class UstackMemory(Special):
    """Stack and server between canned frames."""

    name = "ustack-memory"
    title = "ustack, in memory"


class UstackWire(Special):
    """`ustack serve` behind `ustack wire`."""

    name = "ustack-wire"
    title = "ustack behind a wire"
    side = "ustack"

    def start(self) -> None:
        """The namespaces, and the server in one of them. It has a folder of its own."""
        super().start()
        folder = self.work / self.name
        folder.mkdir(mode=0o755, exist_ok=True)
        with ExitStack() as stack:
            (self.server,) = stack.enter_context(wired([self.side], BODIES, CONGESTION_CONTROL, folder, self.core))
            self.stack = stack.pop_all()

    def describe(self) -> dict[str, Any]:
        """The command is the server's."""
        import shlex

        return {**super().describe(), "command": shlex.join(self.server.command())}


class KernelWire(UstackWire):
    """The kernel's TCP under a bare epoll server, behind `ustack wire`."""

    name = "kernel-wire"
    title = "the kernel's TCP behind a wire"
    kind = "reference"
    side = "kernel"


CONTESTANTS = [UstackMemory, UstackWire, KernelWire]

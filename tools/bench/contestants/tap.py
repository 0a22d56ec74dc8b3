# SPDX-License-Identifier: MIT
"""What other userspace stacks have in common: a TAP device, whose other end the server opens.

Each is a program of this project that serves a folder on a library of theirs: it takes DIRECTORY, DEVICE, ADDRESS and
PORT, and prints a line when it listens.
"""

from __future__ import annotations

from pathlib import Path

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.pair import tap_pair


class OnTap(Contestant):
    """A stack beside the kernel's, on a link like that of `ustack-tap`; its congestion control is its own."""

    kind = "stack"
    link = "tap"
    source = Path()
    program: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Make the device, then the program."""
        self.use(self.stack.enter_context(tap_pair(self.plain_name)))
        self.configuration = self.source.read_text(encoding="utf-8")
        self.program = self.build()

    def build(self) -> tuple[str, ...]:
        """How the program is called. Raises LoadError if it cannot be made."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The program and what it takes."""
        pair = self.pair
        return self.pinned(*self.program, str(self.site), pair.device, pair.server_address, "80")

    def wait_ready(self) -> None:
        """It says so."""
        self.wait_line()

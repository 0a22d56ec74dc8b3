# SPDX-License-Identifier: MIT
"""A bare epoll server in C: the kernel's stack with an application that parses next to nothing and reads no file.

No server that is of use can be faster on the kernel's stack with one core: it is the measure, not a competitor.
"""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant
from ustack.tools.bench.site import FILES
from ustack.tools.servers import build_epoll


class Epoll(Contestant):
    """tools/reference/epoll_server.c; its bodies are made of one letter."""

    name = "bare-epoll"
    title = "bare epoll in C"
    kind = "reference"
    main = True
    reads_files = False
    programs = ("cc",)
    install = f"{APT} gcc libc6-dev"

    def prepare(self) -> None:
        """Compile it."""
        super().prepare()
        self.program = build_epoll(self.work / "reference")

    def command(self) -> list[str]:
        """Bodies are given by their sizes."""
        bodies = [f"{name}={size}" for name, size in FILES.items()]
        return self.pinned(str(self.program), self.pair.server_address, "80", *bodies)

    def wait_ready(self) -> None:
        """It says so."""
        self.wait_line()

    def check_file(self, path: str, wanted: str) -> None:
        """Its bodies are its own."""
        import hashlib

        super().check_file(path, hashlib.sha256(b"x" * FILES[path]).hexdigest())


CONTESTANTS = [Epoll]

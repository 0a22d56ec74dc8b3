# SPDX-License-Identifier: MIT
"""lwIP as Debian packages it, under a server in C on its raw interface: see tools/reference/lwip_files.c."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, version_of
from ustack.tools.bench.contestants.tap import OnTap
from ustack.tools.generators import run
from ustack.tools.servers import EPOLL_SOURCE


class Lwip(OnTap):
    """The library fixes its limits, its memory is malloc's."""

    name = "lwip"
    title = "lwIP, TAP"
    source = EPOLL_SOURCE.with_name("lwip_files.c")
    programs = ("cc",)
    files = ("/usr/include/lwip/lwipopts.h",)
    install = f"{APT} gcc libc6-dev liblwip-dev"

    def build(self) -> tuple[str, ...]:
        """Compile it."""
        self.version = version_of("dpkg-query", "-W", "-f", "${Version}", "liblwip-dev")
        program = self.work / self.plain_name
        words = ["cc", "-O2", "-I/usr/include/lwip", "-o", str(program), str(self.source), "-llwip"]
        run(words, timeout_s=120)
        return (str(program),)


CONTESTANTS = [Lwip]

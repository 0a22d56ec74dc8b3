# SPDX-License-Identifier: MIT
"""lighttpd: one process, epoll, sendfile, `stat` results remembered, no log."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant, version_of


class Lighttpd(Contestant):
    """A small event-driven server."""

    name = "lighttpd"
    programs = ("lighttpd",)
    install = f"{APT} lighttpd"

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        self.version = version_of("lighttpd", "-v").partition(" ")[0].removeprefix("lighttpd/")
        self.file = self.configured("lighttpd.conf")

    def command(self) -> list[str]:
        """In the foreground."""
        return self.pinned("lighttpd", "-D", "-f", str(self.file))


CONTESTANTS = [Lighttpd]

# SPDX-License-Identifier: MIT
"""Apache's httpd twice: event (threads, epoll for those that wait) and prefork (a process for each connection)."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant, version_of

PREFORK_PROCESSES = 256


class Apache2Event(Contestant):
    """The default of today."""

    name = "apache2-event"
    title = "apache2, event"
    programs = ("apache2",)
    install = f"{APT} apache2"
    template = "apache2-event.conf"

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        self.version = version_of("apache2", "-v").partition("/")[2].partition(" ")[0]
        self.file = self.configured(self.template)

    def command(self) -> list[str]:
        """In the foreground; without Debian's environment, which its own configuration needs."""
        return self.pinned("apache2", "-D", "FOREGROUND", "-f", str(self.file))


class Apache2Prefork(Apache2Event):
    """The way of 1999."""

    name = "apache2-prefork"
    title = "apache2, prefork"
    template = "apache2-prefork.conf"
    at_most = PREFORK_PROCESSES
    why_at_most = "a process for each, and so many of them"


CONTESTANTS = [Apache2Event, Apache2Prefork]

# SPDX-License-Identifier: MIT
"""Small servers of Debian's, in the manner of thttpd, which Debian no longer has; options are all they are given."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant, version_of


class MiniHttpd(Contestant):
    """A process for each request."""

    name = "mini-httpd"
    title = "mini_httpd"
    programs = ("mini_httpd",)
    install = f"{APT} mini-httpd"

    def command(self) -> list[str]:
        """In the foreground; without a log."""
        self.version = version_of("mini_httpd", "-V").removeprefix("mini_httpd/")
        address = self.pair.server_address
        return self.pinned("mini_httpd", "-D", "-h", address, "-p", "80", "-d", str(self.site), "-u", "root")


class Webfs(Contestant):
    """One thread and select(2)."""

    name = "webfs"
    programs = ("webfsd",)
    install = f"{APT} webfs"
    at_most = 1000
    why_at_most = "select(2), FD_SETSIZE is 1024"

    def command(self) -> list[str]:
        """In the foreground, as many connections as select(2) has room for."""
        self.version = version_of("dpkg-query", "-W", "-f", "${Version}", "webfs")
        words = ["webfsd", "-F", "-i", self.pair.server_address, "-p", "80", "-r", str(self.site)]
        return self.pinned(*words, "-c", str(self.at_most), "-t", "600", "-u", "root", "-g", "root")


CONTESTANTS = [MiniHttpd, Webfs]

# SPDX-License-Identifier: MIT
"""nginx: one worker, no access log, sendfile, open files remembered, any number of requests on a connection."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant, version_of


class Nginx(Contestant):
    """The server that people run."""

    name = "nginx"
    main = True
    programs = ("nginx",)
    install = f"{APT} nginx-light"

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        self.version = version_of("nginx", "-v").rpartition("/")[2]
        self.file = self.configured("nginx.conf")

    def command(self) -> list[str]:
        """The worker inherits the core from the master process."""
        return self.pinned("nginx", "-e", str(self.file.with_name("error.log")), "-c", str(self.file))


CONTESTANTS = [Nginx]

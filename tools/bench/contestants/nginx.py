# SPDX-License-Identifier: MIT
"""nginx: one worker, no access log, sendfile, open files remembered, any number of requests on a connection."""

from __future__ import annotations

import resource

from ustack.tools.bench.contestants.base import APT, Contestant, version_of

CONNECTIONS_MOST = 131_072
FILES_MOST = 200_000


def files_remembered(descriptors: int) -> int:
    """Each keeps a descriptor, which is then missing for a connection: a quarter of them at most."""
    return min(FILES_MOST, descriptors // 4)


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
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.file = self.configured(
            "nginx.conf",
            DESCRIPTORS=str(descriptors),
            CONNECTIONS=str(min(CONNECTIONS_MOST, descriptors)),
            FILES=str(files_remembered(descriptors)),
        )

    def command(self) -> list[str]:
        """The worker inherits the core from the master process."""
        return self.pinned("nginx", "-e", str(self.file.with_name("error.log")), "-c", str(self.file))


CONTESTANTS = [Nginx]

# SPDX-License-Identifier: MIT
"""h2o: one thread, files remembered, no log."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, Contestant, version_of


class H2o(Contestant):
    """An event-driven server known for its speed."""

    name = "h2o"
    main = True
    programs = ("h2o",)
    install = f"{APT} h2o"

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        self.version = version_of("h2o", "--version").removeprefix("h2o version ")
        self.file = self.configured("h2o.conf")

    def command(self) -> list[str]:
        """In the foreground, which is its way without a mode."""
        return self.pinned("h2o", "-c", str(self.file))


CONTESTANTS = [H2o]

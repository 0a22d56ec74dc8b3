# SPDX-License-Identifier: MIT
"""This project's HTTP server on the kernel's sockets, with each strategy that it has: the same application, so that
what differs is the stack."""

from __future__ import annotations

from ustack.kernel import strategies
from ustack.tools.bench.contestants.base import CONGESTION_CONTROL, Contestant
from ustack.tools.servers import ustack_command, ustack_info

MAIN = ("epoll-et",)
FD_SETSIZE = 1024
BESIDE_CLIENTS = 24  # descriptors that a server has open for other things


class KernelStrategy(Contestant):
    """`ustack serve --stack kernel:STRATEGY`."""

    kind = "strategy"
    strategy = ""
    install = "this project"

    def prepare(self) -> None:
        """Ask what it is."""
        super().prepare()
        self.version = str(ustack_info().get("version", ""))

    def command(self) -> list[str]:
        """On one core, with as many workers as that is worth, where there are workers."""
        words = [*ustack_command(), "serve", str(self.site), "--stack", f"kernel:{self.strategy}"]
        words += ["--listen", self.pair.server_address, "--cc", CONGESTION_CONTROL]
        return self.pinned(*words)

    def wait_ready(self) -> None:
        """It prints `ready http://ADDRESS:PORT/`."""
        self.url = self.wait_line().split()[1].rstrip("/")


def contestant(strategy: str) -> type[KernelStrategy]:
    """The class of one strategy."""
    attributes = {
        "__doc__": f"The kernel's sockets, {strategy}.",
        "__module__": __name__,
        "name": f"kernel:{strategy}",
        "title": f"kernel, {strategy}",
        "strategy": strategy,
        "main": strategy in MAIN,
        "at_most": FD_SETSIZE - BESIDE_CLIENTS if strategy == "select" else None,
        "why_at_most": f"FD_SETSIZE is {FD_SETSIZE}",
    }
    return type(f"Kernel_{strategy.replace('-', '_')}", (KernelStrategy,), attributes)


# Where several processes share a port, each learns by epoll who is ready: no strategy of the transport's.
CONTESTANTS = [contestant(name) for name in (*strategies.names(), "reuseport")]

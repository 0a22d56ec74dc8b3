# SPDX-License-Identifier: MIT
"""This project's HTTP server on the kernel's sockets, with each strategy that it has: the same application, so that
what differs is the stack."""

from __future__ import annotations

from functools import lru_cache

from ustack.tools.bench.contestants.base import CONGESTION_CONTROL, Contestant
from ustack.tools.generators import LoadError
from ustack.tools.servers import ustack_command, ustack_info

MAIN = ("epoll-et",)
FD_SETSIZE = 1024
SPIN_US = 50  # what --busy-poll auto does on a link
BESIDE_CLIENTS = 24  # descriptors that a server has open for other things


class KernelStrategy(Contestant):
    """`ustack serve --stack kernel:STRATEGY`."""

    kind = "strategy"
    strategy = ""
    spin_us = 0
    install = "this project"

    def prepare(self) -> None:
        """Ask what it is."""
        super().prepare()
        self.version = str(ustack_info().get("version", ""))

    def command(self) -> list[str]:
        """On one core, with as many workers as that is worth, where there are workers."""
        words = [*ustack_command(), "serve", str(self.site), "--stack", f"kernel:{self.strategy}"]
        words += ["--listen", self.pair.server_address, "--cc", CONGESTION_CONTROL]
        if self.spin_us:
            words += ["--spin", str(self.spin_us)]
        return self.pinned(*words)

    def wait_ready(self) -> None:
        """It prints `ready http://ADDRESS:PORT/`."""
        self.url = self.wait_line().split()[1].rstrip("/")


def contestant(strategy: str, *, spin: bool = False) -> type[KernelStrategy]:
    """The class of one strategy. spin: it asks for SPIN_US before it sleeps, as this project's links do."""
    attributes = {
        "__doc__": f"The kernel's sockets, {strategy}.",
        "__module__": __name__,
        "name": f"kernel:{strategy}{'+spin' if spin else ''}",
        "title": f"kernel, {strategy}{', spinning' if spin else ''}",
        "strategy": strategy,
        "spin_us": SPIN_US if spin else 0,
        "main": strategy in MAIN,
        "unasked": not spin or strategy in MAIN,
        "at_most": FD_SETSIZE - BESIDE_CLIENTS if strategy == "select" else None,
        "why_at_most": f"FD_SETSIZE is {FD_SETSIZE}",
    }
    return type(f"Kernel_{strategy.replace('-', '_')}", (KernelStrategy,), attributes)


@lru_cache(1)
def strategies() -> tuple[str, ...]:
    """Those that `ustack serve` has, as `ustack info` says; none where that does not run."""
    try:
        found = ustack_info().get("kernel_strategies", ())
    except LoadError:
        return ()
    return tuple(found) if isinstance(found, list) else ()


CONTESTANTS = [contestant(name, spin=spin) for spin in (False, True) for name in strategies()]

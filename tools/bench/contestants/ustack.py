# SPDX-License-Identifier: MIT
"""This project's stack under its HTTP server, on a veth pair and on a TAP device, each as any user starts it."""

from __future__ import annotations

from typing import Any

from ustack.tools.bench.contestants.base import CONGESTION_CONTROL, Contestant
from ustack.tools.servers import Ustack


class UstackVeth(Ustack, Contestant):
    """Frames over a veth pair, through packet rings."""

    name = "ustack-veth"
    title = "ustack, veth"
    kind = "ustack"
    main = True
    link = "veth"
    install = "this project"

    def prepare(self) -> None:
        """Names of its own, so that both links can be up at once."""
        Ustack.prepare(self)
        self.netns, self.client_netns = f"{self.netns}-{self.link}", f"{self.client_netns}-{self.link}"

    @property
    def server_netns(self) -> str:
        """It is made by `ustack serve`."""
        return self.netns

    def command(self) -> list[str]:
        """`ustack serve`, with the congestion control of all."""
        return [*super().command(), "--cc", CONGESTION_CONTROL]

    def describe(self) -> dict[str, Any]:
        """And what it says about itself."""
        return {**super().describe(), "info": self.info}


class UstackTap(UstackVeth):
    """Frames over a TAP device: a system call for each."""

    name = "ustack-tap"
    title = "ustack, TAP"
    link = "tap"


CONTESTANTS = [UstackVeth, UstackTap]

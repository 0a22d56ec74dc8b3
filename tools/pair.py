# SPDX-License-Identifier: MIT
"""Two namespaces joined by a veth pair, for a reference server and its client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Names of the two namespaces and the address at which the server listens."""

    server_netns: str
    client_netns: str
    server_address: str


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def veth_pair(name: str) -> Iterator[Pair]:
    """Make the pair; it is gone when the block ends."""
    server, client = f"bench-{name}-s{os.getpid()}", f"bench-{name}-c{os.getpid()}"
    made = []
    try:
        for netns in (server, client):
            _ip("netns", "add", netns)
            made.append(netns)
            _ip("-n", netns, "link", "set", "lo", "up")
        _ip("-n", server, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", client)
        for netns, address in ((server, "198.18.0.2"), (client, "198.18.0.1")):
            _ip("-n", netns, "address", "add", f"{address}/24", "dev", "veth0")
            _ip("-n", netns, "link", "set", "veth0", "up")
        yield Pair(server, client, "198.18.0.2")
    finally:
        for netns in made:
            _ip("netns", "delete", netns)

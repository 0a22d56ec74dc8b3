# SPDX-License-Identifier: MIT
"""A server and its client for a comparison: two namespaces joined by a veth pair, in which the kernel may answer, or a
TAP device.

Either is made as `ustack serve` makes its own, so that both have the same devices and the same offloads, and it is
removed by the lab's keeper even if this process is killed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ustack.lab import Lab
from ustack.lab.ingress import allow
from ustack.lab.links import End, configure

_numbers = itertools.count()


@dataclass(frozen=True)
class Pair:
    """Names of the two namespaces and the address at which the server listens.

    device: the TAP device, "" if there is none. A server opens it in the namespace that it is in, which is the
    client's: what it then holds is the other end of the link, and lives nowhere.
    """

    server_netns: str
    client_netns: str
    server_address: str
    device: str = ""


@contextmanager
def veth_pair(name: str) -> Iterator[Pair]:
    """Make the pair; it is gone when the block ends."""
    lab_name = f"bench-{name}-{os.getpid()}-{next(_numbers)}"
    with Lab(lab_name, netns=f"{lab_name}-s", peer_netns=f"{lab_name}-c") as lab:
        assert lab.netns is not None
        assert lab.peer_netns is not None
        end = End(lab.netns, lab.ifname)
        if lab.drop is not None:
            allow(end, lab.drop)
        configure(end, address=lab.address, ipv6=False)
        yield Pair(lab.netns, lab.peer_netns, lab.address.partition("/")[0])


@contextmanager
def tap_pair(name: str) -> Iterator[Pair]:
    """A TAP device with the client's address, whose other end is for the server to open."""
    lab_name = f"bench-{name}-{os.getpid()}-{next(_numbers)}"
    with Lab(lab_name, link="tap", peer_netns=f"{lab_name}-c") as lab:
        assert lab.peer_netns is not None
        yield Pair(lab.peer_netns, lab.peer_netns, lab.address.partition("/")[0], lab.ifname)

# SPDX-License-Identifier: MIT
"""Offloads of a link's two ends, off for a while.

It must not: measure. Above: experiments. Below: lab (namespaces), pyroute2.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ustack.lab import inside
from ustack.tools.bench.machine import OFFLOADS, offloads
from ustack.tools.generators import LoadError

KEPT = ("tx-scatter-gather",)  # costs nothing, and checksums and segmentation go without it, too


@contextmanager
def without_offloads(*namespaces: str) -> Iterator[dict[str, str]]:
    """Every link in these, but for loopback. The value says what is on and off meanwhile. Raises LoadError where the
    kernel does not let them be turned off; what was on is on again at the end, however that comes."""
    with ExitStack() as stack:
        found = {}
        for netns in namespaces:
            with inside(netns):
                names = [name for _, name in socket.if_nameindex() if name != "lo"]
            for name in names:
                before = turned(netns, name, dict.fromkeys(OFFLOADS, False))
                stack.callback(turned, netns, name, before)
                with inside(netns):
                    found[f"{netns} {name}"] = offloads(name)
        yield found


def turned(netns: str, ifname: str, wanted: dict[str, bool]) -> dict[str, bool]:
    """Turn offloads of one interface; returns how those were that are otherwise now. Raises LoadError."""
    from pyroute2.ethtool import Ethtool

    with inside(netns):
        tool = Ethtool()
        try:
            features = tool.get_features(ifname)
            before = {}
            for name, state in wanted.items():
                one = features.features.get(name)
                if one is not None and name not in KEPT and one.available and one.enable != state:
                    before[name] = bool(one.enable)
                    one.enable = state
            if before:
                tool.set_features(ifname, features)
            now = tool.get_features(ifname).features
            left = [name for name in before if bool(now[name].enable) != wanted[name]]
        except Exception as error:  # of the library, by kernel and version
            raise LoadError(f"offloads of {ifname}: {type(error).__name__}: {error}") from error
        finally:
            tool.close()
    if left:
        raise LoadError(f"offloads of {ifname} stay as they are: {', '.join(left)}")
    return before

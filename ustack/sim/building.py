# SPDX-License-Identifier: MIT
"""A network as a scenario tells: made, and nothing has moved yet.

Above: running, programs that look into the network itself. Below: network, scenario, controls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ustack.sim import controls
from ustack.sim.network import Hop, Network
from ustack.sim.scenario import Scenario, Way

LIMIT_MOST = {"queue_bytes": 1 << 40, "queue_frames": 1 << 24}
DEFAULT_CC = "cubic"


def build(scenario: Scenario) -> Network:
    """The network, which the caller closes. Raises ValueError for what no network takes."""
    network = Network(seed=scenario.seed)
    try:
        for host in scenario.hosts:
            network.host(host.name, cc=controls.load(host.cc or DEFAULT_CC), **host.settings)
        for router in scenario.routers:
            network.router(router.name)
        for link in scenario.links:
            there, back = network.connect(link.a, link.b)
            _set(there, link.there)
            _set(back, link.back)
        for flow in scenario.flows:
            network.flow(
                flow.name,
                source=flow.source,
                sink=flow.sink,
                start_ns=flow.start_ns,
                stop_ns=flow.stop_ns,
                size=flow.size,
                cc=None if flow.cc is None else controls.load(flow.cc),
                pattern=flow.pattern,
                **flow.pattern_settings,
            )
    except BaseException:
        network.close()
        raise
    return network


def _set(hop: Hop, way: Way) -> None:
    hop.set(**_plain(way.settings))
    for change in way.changes:
        hop.at(change.at_ns, **_plain(change.settings))
    if way.lose:
        hop.lose(list(way.lose))
    if way.trace is not None:
        hop.rates(list(way.trace.steps), repeat_ns=way.trace.repeat_ns)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As hops take them: 1 for true; of a queue's two limits the one that is said alone counts."""
    found = {name: int(value) if isinstance(value, bool) else value for name, value in settings.items()}
    for name, other in (("queue_bytes", "queue_frames"), ("queue_frames", "queue_bytes")):
        if name in settings:
            found.setdefault(other, LIMIT_MOST[other])
    return found

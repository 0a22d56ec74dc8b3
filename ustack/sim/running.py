# SPDX-License-Identifier: MIT
"""A scenario from its beginning to its end, and what it came to, as plain records.

    outcome = run(read(Path("two.toml")), series=True)
    outcome.flows["f0"]["goodput_bps"], outcome.series["flows"]["f0"]["cwnd"]

The same scenario gives the same outcome, on any machine and in any process. Above: sweep, plots, cli. Below: building.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from ustack.engine.trace import Trace
from ustack.sim.building import DEFAULT_CC, build
from ustack.sim.controls import load
from ustack.sim.network import Network
from ustack.sim.scenario import Scenario

CELLS_MOST = 1 << 25  # of series: 256 MiB
TRACE_RECORDS = 1 << 20  # of 64 bytes
COLUMNS = 15  # of a flow, at most


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to.

    ran_ns: how much time passed in it.  flows: Flow.report() by name.  hops: Hop.counters() by name, "a->b".  events:
    frames moved and turns made.  series: as Network.series(), where it was asked for.  error: it could not be run.
    """

    name: str
    seed: int
    point: Mapping[str, str]
    ran_ns: int = 0
    flows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hops: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: int = 0
    series: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def goodput_bps(self) -> int:
        """Of all flows together, while the scenario ran."""
        received = sum(flow["received_bytes"] for flow in self.flows.values())
        return received * 8 * 10**9 // self.ran_ns if self.ran_ns else 0

    @property
    def fairness(self) -> float | None:
        """Jain's index of the flows' goodput: 1 for equal shares, 1/n where one has all; None where nothing flowed."""
        shares = [flow["goodput_bps"] for flow in self.flows.values()]
        squares = sum(share * share for share in shares)
        return sum(shares) ** 2 / (len(shares) * squares) if squares else None

    @property
    def retransmitted(self) -> float:
        """The share of segments that had been sent before."""
        sent = sum(flow["segments_sent"] for flow in self.flows.values())
        return sum(flow["retransmitted"] for flow in self.flows.values()) / sent if sent else 0.0

    def as_json(self) -> dict[str, Any]:
        """All but the series, as JSON takes it."""
        return {
            "name": self.name,
            "seed": self.seed,
            "point": dict(self.point),
            **({"error": self.error} if self.error else {}),
            "ran_ns": self.ran_ns,
            "events": self.events,
            "goodput_bps": self.goodput_bps,
            "fairness": self.fairness,
            "flows": {name: dict(flow) for name, flow in self.flows.items()},
            "hops": {name: dict(hop) for name, hop in self.hops.items()},
        }


def run(
    scenario: Scenario,
    *,
    series: bool = False,
    captures: Mapping[str, str | PathLike[str]] | None = None,
    traces: Mapping[str, str | PathLike[str]] | None = None,
    slices: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Run it. series: sample flows and hops.  captures: of hops by name, the pcapng files that record them.  traces: of
    hosts by name, the files (docs/trace.md) of what happened to their connections, the latest TRACE_RECORDS of it.

    progress: called with 1 after each of so many slices of the duration; what happens does not depend on them.

    Raises ValueError for what no network takes, OSError for a file that cannot be written, RuntimeError for a stack
    that does not come to rest.
    """
    with ExitStack() as opened:
        network = opened.enter_context(build(scenario))
        for name, path in (captures or {}).items():
            network.hops()[name].record(path)
        begun = [(path, _trace(scenario, network, name)) for name, path in (traces or {}).items()]
        if series:
            network.sample(scenario.sample_ns, rows_max=_rows(scenario))
        ran_ns = _run(scenario, network, slices, progress)
        for path, trace in begun:
            trace.write(path)
        return _outcome(scenario, network, ran_ns, series)


def _trace(scenario: Scenario, network: Network, host: str) -> Trace:
    flows = sum(host in (flow.source, flow.sink) for flow in scenario.flows)
    return network.stack(host).trace(connections=max(1, flows), capacity=TRACE_RECORDS)


def _run(scenario: Scenario, network: Network, slices: int, progress: Callable[[int], None] | None) -> int:
    ran_ns = 0
    for number in range(1, slices + 1):
        wanted_ns = scenario.duration_ns * number // slices - ran_ns
        took_ns = network.run(wanted_ns, until_ended=scenario.ends_by_itself)
        ran_ns += took_ns
        if progress is not None:
            progress(1)
        is_over = scenario.ends_by_itself and all(flow.ended for flow in network.flows().values())
        if took_ns < wanted_ns or is_over:
            break
    return ran_ns


def _rows(scenario: Scenario) -> int:
    rows = scenario.duration_ns // scenario.sample_ns + 1
    cells = rows * COLUMNS * (len(scenario.flows) + 2 * len(scenario.links))
    if cells > CELLS_MOST:
        raise ValueError(
            f"{rows:,} samples of {len(scenario.flows)} flows and {2 * len(scenario.links)} hops are too much memory:"
            " sample less often"
        )
    return rows


def _outcome(scenario: Scenario, network: Network, ran_ns: int, series: bool) -> Outcome:
    of_host = {host.name: host.cc or DEFAULT_CC for host in scenario.hosts}
    controls = {flow.name: load(flow.cc or of_host[flow.source]) for flow in scenario.flows}
    return Outcome(
        name=scenario.name,
        seed=scenario.seed,
        point=scenario.point,
        ran_ns=ran_ns,
        flows={name: {**flow.report(), "cc": controls[name]} for name, flow in network.flows().items()},
        hops={name: hop.counters() for name, hop in network.hops().items()},
        events=network.events,
        series=network.series() if series else None,
    )


def run_or_say(scenario: Scenario) -> Outcome:
    """The same for one of many, without series: what goes wrong is its outcome's error."""
    try:
        return run(scenario)
    except Exception as error:  # whatever it is: the others have nothing to do with it
        words = f"{type(error).__name__}: {error}"
        return Outcome(name=scenario.name, seed=scenario.seed, point=scenario.point, error=words)

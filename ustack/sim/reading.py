# SPDX-License-Identifier: MIT
"""A scenario file in TOML: read, checked, told apart from what cannot work.

    duration = "30 s"
    hosts = ["a", "b"]
    routers = ["r"]

    [links.a-r]
    rate = "100 Mb/s"
    delay = "1 ms"

    [links.r-b]
    rate = "10 Mb/s"
    delay = "20 ms"
    buffer = "100 kB"

    [flows.f0]
    from = "a"
    to = "b"
    cc = "bbr"

What is no such key is a ScenarioError that names file, line and key. Below: document (a
file's tables), ways (links), values (what a key takes), controls, scenario (what comes out). Above: sweep, cli.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ustack.engine.profiles import PROFILES
from ustack.engine.settings import Setting
from ustack.engine.settings import settings as stack_settings
from ustack.sim import controls, values
from ustack.sim.document import Document, ScenarioError, Table
from ustack.sim.scenario import MILLISECOND, SECOND, Flow, Host, Link, Router, Scenario
from ustack.sim.ways import read_queue, read_ways

NODES_MOST = 1024
LINKS_MOST = 2048
FLOWS_MOST = 4096
COPIES_MOST = 1000
SAMPLES_MOST = 1 << 20
DURATION_MOST_NS = 30 * 86400 * SECOND
MTU = Setting("mtu", 1500, 68, 65535, "of a host's interface, in bytes of an IP packet")
SAMPLE_NS = 10 * MILLISECOND

__all__ = ["Document", "ScenarioError", "read", "scenario_of"]

# Key: the setting of a flow (network.pyi), and who reads it; by pattern.
PATTERNS: dict[str, dict[str, tuple[str, values.Reader]]] = {
    "bulk": {},
    "chunks": {"chunk": ("chunk_bytes", values.some_size_bytes), "every": ("every_ns", values.some_time_ns)},
    "requests": {
        "request": ("request_bytes", values.some_size_bytes),
        "response": ("response_bytes", values.some_size_bytes),
        "think": ("think_ns", values.time_ns),
        "count": ("count", values.whole(1, 1 << 30)),
    },
}
OPTIONAL = {"think", "count"}


def read(path: Path) -> Scenario:
    """The scenario of a file. Raises ScenarioError, OSError."""
    return scenario_of(Document.load(path))


def scenario_of(document: Document) -> Scenario:
    """The scenario that a document tells. Raises ScenarioError."""
    top = Table(document, (), document.tree)
    folder = Path(document.file).parent
    duration_ns = top.get("duration", values.some_time_ns)
    if duration_ns > DURATION_MOST_NS:
        raise top.error("duration", f"at most {DURATION_MOST_NS // SECOND // 86400} days")
    sample_ns = top.get("sample", values.some_time_ns, SAMPLE_NS)
    if duration_ns // sample_ns > SAMPLES_MOST:
        raise top.error("sample", f"more than {SAMPLES_MOST:,} samples: duration by sample")
    nodes = _Nodes(top, folder)
    links = _read_links(top, nodes, folder)
    reach = _Reach(nodes, links)
    flows = _read_flows(top, nodes, reach, folder)
    scenario = Scenario(
        hosts=tuple(nodes.hosts.values()),
        routers=tuple(nodes.routers.values()),
        links=tuple(links.values()),
        flows=tuple(flows.values()),
        duration_ns=duration_ns,
        seed=top.get("seed", values.whole(0, 2**63 - 1), 1),
        sample_ns=sample_ns,
        name=top.get("name", values.name, _stem(document.file)),
        about=top.get("about", values.text, ""),
    )
    top.done()
    _check_controls(document, scenario)
    return scenario


def _stem(file: str) -> str:
    """A name that any file may have."""
    stem = "".join(letter if values.NAME.fullmatch(letter) else "-" for letter in Path(file).stem)
    return stem[:40] or "scenario"


# ---------------------------------------------------------------- nodes


def _named(top: Table, key: str) -> list[tuple[str, Table]]:
    """Tables by name below a key; or, where they would say nothing, the names alone: `hosts = ["a", "b"]`."""
    if isinstance(top.tree.get(key), list):
        words = top.get(key, lambda value: [values.name(item) for item in values.array(value, "names", NODES_MOST)])
        if len(set(words)) < len(words):
            raise top.error(key, "a name is there twice")
        return [(word, Table(top.document, (key, word), {})) for word in words]
    found = []
    for name in top.table(key).tree:
        try:
            values.name(name)
        except ValueError as error:
            raise top.document.error((key, name), str(error)) from None
        found.append((name, top.document.table((key, name))))
    return found


def _copies(name: str, number: int | None) -> list[str]:
    return [name] if number is None else [f"{name}{count}" for count in range(1, number + 1)]


class _Nodes:
    """Hosts and routers, and the names that each name of the file stands for: its copies."""

    def __init__(self, top: Table, folder: Path) -> None:
        self.hosts: dict[str, Host] = {}
        self.routers: dict[str, Router] = {}
        self.groups: dict[str, list[str]] = {}
        self.queues: dict[str, dict[str, Any]] = {}  # of routers
        for name, table in _named(top, "hosts"):
            names = _copies(name, table.get("copies", values.whole(1, COPIES_MOST), None))
            cc = table.get("cc", lambda value: controls.located(value, folder), None)
            settings = _read_settings(table)
            self._add(top, ("hosts", name), names)
            self.hosts.update((one, Host(one, cc, settings)) for one in names)
        for name, table in _named(top, "routers"):
            queue = read_queue(table)
            table.done()
            self._add(top, ("routers", name), [name])
            self.routers[name] = Router(name)
            self.queues[name] = queue
        if not self.hosts:
            raise top.document.error((), "no hosts: [hosts.NAME] for each, or hosts = ['a', 'b']")

    def _add(self, top: Table, path: tuple[str, str], names: list[str]) -> None:
        there = {one for group in self.groups.values() for one in group}
        for one in names:
            if one in there:
                raise top.document.error(path, f"a node of the name {one} is there already")
        if len(there) + len(names) > NODES_MOST:
            raise top.document.error(path, f"more than {NODES_MOST} nodes")
        self.groups[path[1]] = names

    def group(self, value: Any) -> list[str]:
        """The nodes that a name stands for. Raises ValueError."""
        word = values.name(value)
        if word in self.groups:
            return self.groups[word]
        if word in self.hosts:
            return [word]
        raise ValueError(f"no host or router is called {word!r}{values.nearest(word, self.groups)}")


def _read_settings(table: Table) -> dict[str, Any]:
    """Settings of a stack, by their names or without the unit in them: rto_min = "200 ms". And a profile."""
    known = {**stack_settings(), "mtu": MTU}
    found: dict[str, Any] = {}
    if table.has("profile"):
        found["profile"] = table.get("profile", values.choice(*PROFILES))
    for key in table.tree:
        name = next((name for name in (key, f"{key}_ns", f"{key}_bytes") if name in known), None)
        if name is None:
            continue
        if name in found:
            raise table.error(key, "it is there twice, with and without its unit")
        found[name] = table.get(key, _setting_reader(known[name]))
    for key in table.tree:
        if not table.has(key) or key in ("cc", "copies") or key in found or {f"{key}_ns", f"{key}_bytes"} & set(found):
            continue
        near = values.nearest(key, [*known, "copies", "profile"])
        raise table.error(key, f"no setting of a stack is called so{near}: ustack info --settings lists them")
    return found


def _setting_reader(row: Setting) -> values.Reader:
    def reader(value: Any) -> int:
        number: int
        if isinstance(value, str) and row.name.endswith("_ns"):
            number = values.time_ns(value)
        elif isinstance(value, str) and row.name.endswith("_bytes"):
            number = values.size_bytes(value)
        elif row.name.endswith("_ns"):
            number = values.time_ns(value)  # which refuses numbers without a unit
        else:
            number = values.whole(row.low, row.high)(value)
        if not row.low <= number <= row.high:
            raise ValueError(f"{values.shown(value)} is not from {row.low} to {row.high}")
        return number

    return reader


# ---------------------------------------------------------------- links


def _read_links(top: Table, nodes: _Nodes, folder: Path) -> dict[str, Link]:
    found: dict[str, Link] = {}
    pairs: dict[frozenset[str], str] = {}
    of_host: dict[str, str] = {}
    for name, table in _named(top, "links"):
        groups = _ends_of(name, table, nodes)
        queues = [nodes.queues.get(group[0], {}) for group in groups]
        there, back = read_ways(table, (queues[0], queues[1]), folder)
        table.done()
        for number, (a, b) in enumerate(_paired(table, *groups), 1):
            many = max(map(len, groups)) > 1
            link = Link(f"{name}{number}" if many else name, a, b, there, back)
            if link.name in found:
                raise table.document.error(table.path, f"a link of the name {link.name} is there already")
            if frozenset((a, b)) in pairs:
                raise table.document.error(table.path, f"{a} and {b} have a link already: {pairs[frozenset((a, b))]}")
            if len(found) >= LINKS_MOST:
                raise table.document.error(table.path, f"more than {LINKS_MOST} links")
            for end in {a, b} & set(nodes.hosts):
                if end in of_host:
                    raise table.document.error(
                        table.path, f"the host {end} has a link already, {of_host[end]}: a router forwards"
                    )
                of_host[end] = link.name
            found[link.name] = link
            pairs[frozenset((a, b))] = link.name
    for host in nodes.hosts:
        if host not in of_host:
            raise top.document.error(("hosts", host), f"the host {host} has no link")
    return found


def _ends_of(name: str, table: Table, nodes: _Nodes) -> list[list[str]]:
    """`ends = ["a", "b"]`; without it a link's name says them: a-b."""
    if table.has("ends"):

        def read(value: Any) -> list[list[str]]:
            if len(values.array(value, "ends", 2)) != 2:
                raise ValueError("two ends are needed, such as ['a', 'b']")
            return [nodes.group(item) for item in value]

        groups: list[list[str]] = table.get("ends", read)
        key = "ends"
    else:
        cuts = [(name[:at], name[at + 1 :]) for at, letter in enumerate(name) if letter == "-"]
        both = [(a, b) for a, b in cuts if a in nodes.groups and b in nodes.groups]
        if len(both) != 1:
            nearest = [end for cut in cuts for end in cut if end not in nodes.groups]
            near = values.nearest(nearest[0], nodes.groups) if nearest else ""
            raise table.document.error(
                table.path, f"no ends: ends = ['a', 'b'], or a name of two nodes, such as links.a-b{near}"
            )
        groups = [nodes.groups[end] for end in both[0]]
        key = "ends"
    if set(groups[0]) & set(groups[1]):
        raise table.error(key, "both ends are the same")
    return groups


def _paired(table: Table, one: list[str], other: list[str]) -> list[tuple[str, str]]:
    """A name that stands for several nodes, with one: all with that one; with as many: the first with the first."""
    if len(one) == 1:
        return [(one[0], end) for end in other]
    if len(other) == 1:
        return [(end, other[0]) for end in one]
    if len(one) != len(other):
        raise table.document.error(table.path, f"{len(one)} copies at one end, {len(other)} at the other")
    return list(zip(one, other, strict=True))


class _Reach:
    """Which hosts have a way to each other, through routers."""

    def __init__(self, nodes: _Nodes, links: Mapping[str, Link]) -> None:
        neighbours: dict[str, list[str]] = {}
        for link in links.values():
            neighbours.setdefault(link.a, []).append(link.b)
            neighbours.setdefault(link.b, []).append(link.a)
        self._place: dict[str, int] = {}
        for number, begin in enumerate(neighbours):
            if begin in self._place:
                continue
            waiting = deque([begin])
            self._place[begin] = number
            while waiting:
                for node in neighbours[waiting.popleft()]:
                    if node not in self._place:
                        self._place[node] = number
                        waiting.append(node)

    def has_way(self, a: str, b: str) -> bool:
        return self._place.get(a) == self._place.get(b) is not None


# ---------------------------------------------------------------- flows


def _read_flows(top: Table, nodes: _Nodes, reach: _Reach, folder: Path) -> dict[str, Flow]:
    found: dict[str, Flow] = {}
    for name, table in _named(top, "flows"):
        groups = [table.get(key, lambda value: _hosts(value, nodes)) for key in ("from", "to")]
        ends = _paired(table, *groups)
        own = table.get("copies", values.whole(1, COPIES_MOST), None)
        if own is not None:
            if len(ends) > 1:
                raise table.error("copies", "the hosts have copies, and each its flow: one of both")
            ends *= own
        stagger_ns = table.get("stagger", values.time_ns, 0)
        if stagger_ns and len(ends) == 1:
            raise table.error("stagger", "one flow alone: it is the time from one copy's start to the next's")
        made = _read_flow(name, table, folder)
        table.done()
        for number, (source, sink) in enumerate(ends, 1):
            if source == sink:
                raise table.error("to", f"{source} is at both ends")
            if not reach.has_way(source, sink):
                raise table.error("to", f"no links lead from {source} to {sink}")
            flow = dataclasses.replace(
                made,
                name=name if len(ends) == 1 else f"{name}{number}",
                source=source,
                sink=sink,
                start_ns=made.start_ns + (number - 1) * stagger_ns,
            )
            if flow.name in found:
                raise table.document.error(table.path, f"a flow of the name {flow.name} is there already")
            if len(found) >= FLOWS_MOST:
                raise table.document.error(table.path, f"more than {FLOWS_MOST} flows")
            found[flow.name] = flow
    if not found:
        raise top.document.error((), "no flows: [flows.NAME] for each, with from and to")
    return found


def _hosts(value: Any, nodes: _Nodes) -> list[str]:
    group = nodes.group(value)
    if group[0] in nodes.routers:
        raise ValueError(f"{value} is a router: flows have hosts at both ends")
    return group


def _read_flow(name: str, table: Table, folder: Path) -> Flow:
    start_ns = table.get("start", values.time_ns, 0)
    stop_ns = table.get("stop", values.some_time_ns, 0)
    if stop_ns and stop_ns <= start_ns:
        raise table.error("stop", "it is not after start")
    pattern = table.get("pattern", values.choice(*PATTERNS), "bulk")
    settings = {}
    for key, (setting, reader) in PATTERNS[pattern].items():
        if table.has(key) or key not in OPTIONAL:
            settings[setting] = table.get(key, reader)
    for other, keys in PATTERNS.items():
        for key in keys:
            if key not in PATTERNS[pattern] and table.has(key):
                raise table.error(key, f"only with pattern = '{other}'")
    if pattern == "requests" and table.has("size"):
        raise table.error("size", "requests have request, response and count instead")
    return Flow(
        name=name,
        source="",
        sink="",
        start_ns=start_ns,
        stop_ns=stop_ns,
        size=table.get("size", values.some_size_bytes, 0),
        cc=table.get("cc", lambda value: controls.located(value, folder), None),
        pattern=pattern,
        pattern_settings=settings,
    )


def _check_controls(document: Document, scenario: Scenario) -> None:
    """One name of a class for each: connections ask for a control by it."""
    specs: dict[str, str] = {}
    of_host = {host.name: host.cc for host in scenario.hosts}
    for flow in scenario.flows:
        for spec in (flow.cc, of_host[flow.source]):
            if spec is None or ":" not in spec:
                continue
            name = controls.load(spec)
            if specs.setdefault(name, spec) != spec:
                raise document.error(
                    ("flows", flow.name, "cc"), f"{spec} and {specs[name]} are both called {name!r}: give one another"
                )

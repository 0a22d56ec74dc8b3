# SPDX-License-Identifier: MIT
"""What a scenario file says of a link's two directions: settings, changes over time, blackouts, recorded rates.

A link's own keys are for both directions; `forward` and `backward` say otherwise for one, from its first end to its
second and back. A router's keys are those of the queues of every way that leaves it, unless the link says otherwise.

It must not: know of nodes and flows. Above: reading. Below: document, values, traces, scenario.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ustack.sim import traces, values
from ustack.sim.document import Table
from ustack.sim.scenario import Change, Trace, Way

MTU_LEAST, MTU_MOST = 68, 65535  # bytes of an IP packet (RFC 791)
LISTED_MOST = 100_000  # frames by number
CHANGES_MOST = 10_000
DIRECTIONS = ("forward", "backward")

# What a hop takes.
_rate = values.at_most(values.rate_bps, 1 << 44, "17 Tb/s")
_time = values.at_most(values.time_ns, 1 << 40, "18 minutes")
_some_time = values.at_most(values.some_time_ns, 1 << 40, "18 minutes")
_size = values.at_most(values.some_size_bytes, 1 << 31, "2 GiB")

# Key of a file: the setting of a hop (network.pyi), and who reads it. `buffer` is one of two settings.
QUEUE_KEYS: dict[str, tuple[str, values.Reader]] = {
    "queue": ("queue", values.choice("droptail", "codel", "red")),
    "mark": ("mark_bytes", _size),
    "ecn": ("ecn", values.boolean),
    "codel_target": ("codel_target_ns", _some_time),
    "codel_interval": ("codel_interval_ns", _some_time),
    "red_min": ("red_min_bytes", _size),
    "red_max": ("red_max_bytes", _size),
    "red_max_p": ("red_max_p", values.share),
}
WIRE_KEYS: dict[str, tuple[str, values.Reader]] = {
    "rate": ("rate_bps", _rate),
    "delay": ("delay_ns", _time),
    "jitter": ("jitter_ns", _time),
    "loss": ("loss", values.share),
    "loss_good": ("loss_good", values.share),
    "loss_bad": ("loss_bad", values.share),
    "good_to_bad": ("good_to_bad", values.share),
    "bad_to_good": ("bad_to_good", values.share),
    "reorder": ("reorder", values.share),
    "reorder_by": ("reorder_ns", _some_time),
    "duplicate": ("duplicate", values.share),
    "corrupt": ("corrupt", values.share),
    "mtu": ("mtu", values.whole(MTU_LEAST, MTU_MOST)),
    "silent": ("silent", values.boolean),
}
LIMITS = ("queue_bytes", "queue_frames")
KEY_OF = {setting: key for key, (setting, _) in {**QUEUE_KEYS, **WIRE_KEYS}.items()}


def read_queue(table: Table) -> dict[str, Any]:
    """Keys of a queue, of a router's table or of a link's."""
    found = {name: table.get(key, read) for key, (name, read) in QUEUE_KEYS.items() if table.has(key)}
    if table.has("buffer"):
        found |= table.get("buffer", values.limit)
    return found


def read_wire(table: Table) -> dict[str, Any]:
    """Keys of what lies behind the queue."""
    return {name: table.get(key, read) for key, (name, read) in WIRE_KEYS.items() if table.has(key)}


def read_ways(table: Table, queues: tuple[Mapping[str, Any], Mapping[str, Any]], folder: Path) -> tuple[Way, Way]:
    """Both directions of a link's table. queues: of the nodes that they leave. folder: where files of rates lie."""
    common = read_queue(table) | read_wire(table)
    changes = _read_changes(table) + _read_blackouts(table)
    lose, trace = _read_lose(table), _read_trace(table, folder)
    made = []
    for direction, queue in zip(DIRECTIONS, queues, strict=True):
        own = table.table(direction)
        settings = {**common, **read_queue(own), **read_wire(own)}
        mine = [change for which, change in changes if which in ("both", direction)]
        mine += [change for _, change in _read_changes(own, has_direction=False)]
        mine += [change for _, change in _read_blackouts(own, has_direction=False)]
        way = Way(
            settings,
            tuple(sorted(mine, key=lambda change: change.at_ns)),
            _read_lose(own) or lose,
            _read_trace(own, folder) or trace,
        )
        own.done()
        way = _with_queue_of_node(way, queue)
        _check(table, way)
        made.append(way)
    return made[0], made[1]


def _has_rate(way: Way) -> bool:
    every = [way.settings, *(change.settings for change in way.changes)]
    return way.trace is not None or any(settings.get("rate_bps") for settings in every)


def _with_queue_of_node(way: Way, queue: Mapping[str, Any]) -> Way:
    """The node's queue, where something can wait; of a link with a queue of its own kind only the node's limit."""
    if not _has_rate(way):
        return way
    inherited = dict(queue)
    if "queue" in way.settings:
        inherited = {name: value for name, value in queue.items() if name in LIMITS}
    if set(LIMITS) & set(way.settings):
        inherited = {name: value for name, value in inherited.items() if name not in LIMITS}
    return dataclasses.replace(way, settings={**inherited, **way.settings})


def _read_direction(table: Table, has_direction: bool) -> str:
    if not has_direction:
        return "both"
    direction: str = table.get("direction", values.choice("both", *DIRECTIONS), "both")
    return direction


def _read_changes(table: Table, *, has_direction: bool = True) -> list[tuple[str, Change]]:
    """`changes = [{ at = "5 s", rate = "1 Mb/s" }]`."""
    found = []
    for item in table.tables("changes", CHANGES_MOST):
        at_ns = item.get("at", values.time_ns)
        direction = _read_direction(item, has_direction)
        settings = read_queue(item) | read_wire(item)
        item.done()
        if not settings:
            raise item.document.error(item.path, "it changes nothing: such as rate = '1 Mb/s' is missing")
        found.append((direction, Change(at_ns, settings)))
    return found


def _read_blackouts(table: Table, *, has_direction: bool = True) -> list[tuple[str, Change]]:
    """`blackouts = [{ at = "5 s", for = "2 s", frames = "lost" }]`."""
    found: list[tuple[str, Change]] = []
    over_ns = dict.fromkeys(DIRECTIONS, 0)
    for item in table.tables("blackouts", CHANGES_MOST):
        at_ns = item.get("at", values.time_ns)
        for_ns = item.get("for", values.some_time_ns)
        setting = "cut" if item.get("frames", values.choice("wait", "lost"), "wait") == "lost" else "down"
        direction = _read_direction(item, has_direction)
        item.done()
        for each in DIRECTIONS if direction == "both" else (direction,):
            if at_ns < over_ns[each]:
                raise item.error("at", "the blackout before it is not over then: they come in order, each by itself")
            over_ns[each] = at_ns + for_ns
        found.append((direction, Change(at_ns, {setting: True})))
        found.append((direction, Change(at_ns + for_ns, {setting: False})))
    return found


def _read_lose(table: Table) -> tuple[int, ...]:
    """`lose = [5, 6, 7]`."""
    number = values.whole(1, 1 << 60)

    def read(value: Any) -> tuple[int, ...]:
        return tuple(sorted({number(item) for item in values.array(value, "numbers of frames", LISTED_MOST)}))

    found: tuple[int, ...] = table.get("lose", read, ())
    return found


def _read_trace(table: Table, folder: Path) -> Trace | None:
    """`trace = "cell.trace"`, beside the scenario file, and how it is read."""
    if not table.has("trace"):
        for key in ("trace_step", "trace_repeats"):
            if table.has(key):
                raise table.error(key, "there is no trace")
        return None
    step_ns = table.get("trace_step", values.some_time_ns, traces.STEP_NS)
    repeats = table.get("trace_repeats", values.boolean, True)

    def read(value: Any) -> Trace:
        return traces.read(folder / values.text(value), step_ns=step_ns, repeats=repeats)

    found: Trace = table.get("trace", read)
    return found


def _check(table: Table, way: Way) -> None:
    """What cannot be together, in one direction."""
    every = [way.settings, *(change.settings for change in way.changes)]
    given = {name for settings in every for name in settings}
    kinds = {settings["queue"] for settings in every if "queue" in settings} or {"droptail"}

    def needs(names: set[str], allowed: set[str], words: str) -> None:
        for name in sorted(names & given):
            if not allowed & kinds:
                raise table.error(KEY_OF[name], words)

    needs({"codel_target_ns", "codel_interval_ns"}, {"codel"}, "only with queue = 'codel'")
    needs({"red_min_bytes", "red_max_bytes", "red_max_p"}, {"red"}, "only with queue = 'red'")
    needs({"mark_bytes"}, {"droptail"}, "only with queue = 'droptail': codel and red mark where ecn = true")
    needs({"ecn"}, {"codel", "red"}, "only with queue = 'codel' or 'red': droptail has mark = '30 kB'")
    _check_red(table, every)
    if given & {"loss_good", "loss_bad", "bad_to_good"} and "good_to_bad" not in given:
        name = sorted(given & {"loss_good", "loss_bad", "bad_to_good"})[0]
        raise table.error(name, "a Gilbert-Elliott channel needs good_to_bad as well: how often the good state ends")
    if "good_to_bad" in given and not {"bad_to_good", "loss_bad"} <= given:
        raise table.error("good_to_bad", "a Gilbert-Elliott channel needs bad_to_good and loss_bad as well")
    if ("reorder" in given) != ("reorder_ns" in given):
        key = "reorder" if "reorder" in given else "reorder_by"
        raise table.error(key, "reorder (a share of the frames) and reorder_by (how much later) need each other")
    if way.trace is not None and "rate_bps" in given:
        raise table.error("rate", "the trace has the rates: one of both")
    if "silent" in given and "mtu" not in given:
        raise table.error("silent", "it is about packets beyond mtu, which is missing")
    limits = {"queue", "queue_bytes", "queue_frames", "mark_bytes"} & set(way.settings)
    if limits and not _has_rate(way):
        raise table.error(KEY_OF.get(min(limits), "buffer"), "without a rate nothing ever waits: rate is missing")


def _check_red(table: Table, every: list[Mapping[str, Any]]) -> None:
    """RED's marks at each time: both are known, and in their order."""
    known: dict[str, Any] = {}
    for settings in every:
        own = {name: settings[name] for name in ("red_min_bytes", "red_max_bytes") if name in settings}
        known |= own
        if len(known) == 1:
            raise table.error(KEY_OF[next(iter(known))], "red_min and red_max need each other")
        if own and known["red_min_bytes"] >= known["red_max_bytes"]:
            key = "red_max" if "red_max_bytes" in own else "red_min"
            raise table.error(key, f"red_min, {known['red_min_bytes']:,} bytes, is not less than red_max")

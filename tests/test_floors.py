# SPDX-License-Identifier: MIT
"""Who may import whom. Reads the import and cimport lines of every source file and fails on a breach.

A file imports from lower floors or from its own room; nothing calls upward. Relative imports are not used, so that
each line says where it goes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".pyx", ".pxd", ".pxi", ".pyi"}

# The building. The rooms of one floor do not see each other.
FLOORS = {
    "base": 0,  # scalar types, clock, wheel, generator
    "errors": 0,  # the exceptions' names
    "buf": 1,
    "wire": 1,
    "link": 2,
    "ip": 3,
    "tcp": 4,
    "udp": 4,
    "engine": 5,
    "config": 5,
    "driver": 5,
    "sockets": 5,
    "stack": 5,
    "streams": 5,
    "__init__": 6,  # the package's own face: names from below
    "aio": 6,
    "server": 7,
    "cli": 9,
}
# Rooms beside the stairs: what each may see. `tools` and `cli` look at everything below; nobody looks at them.
BESIDE = {
    "lab": set(),
    "obs": {"base", "buf", "wire", "link", "ip", "tcp", "udp"},
    "testing": {
        "base",
        "errors",
        "buf",
        "wire",
        "link",
        "ip",
        "tcp",
        "udp",
        "engine",
        "driver",
        "sockets",
        "stack",
        "aio",
        "__init__",
    },
    "tools": {*FLOORS, "lab", "obs", "testing"} - {"cli"},
}
SEES_BESIDE = {"cli": {"lab", "obs"}}
# The map, who drives it, and its Python face are one room.
ONE_ROOM = [{"engine", "config", "driver", "sockets", "stack", "streams"}]

# Inside tcp/: from the records up to the event files. `state`, `cc` and `rx_queue` come before `tcb`, because the
# record names a state's type, a control's table and a receive queue; they know nothing of the record (a control sees
# cc_view_t).
TCP_FLOORS = {
    "runs": -2,
    "rx_queue": -1,
    "state": 0,
    "cc": 0,
    "tcb": 1,
    "demux": 2,
    "rtt": 2,
    "path": 2,
    "emit": 2,
    "pressure": 2,
    "reassembly": 3,
    "throttle": 2,
    "ack": 3,
    "ending": 3,
    "syn_cache": 3,
    "opening": 4,
    "status": 3,
    "sack": 4,
    "rack": 3,
}
TCP_EVENTS = {"calls", "input", "soft_errors", "timers", "output"}

IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>[.\w]+)\s+c?import\s+(?P<names>\(?[\w ,*]*)|c?import\s+(?P<module>[.\w, ]+))",
    re.MULTILINE,
)
CIMPORT = re.compile(r"^\s*(?:from\s+([.\w]+)\s+cimport|cimport\s+([.\w]+))", re.MULTILINE)


def sources() -> list[Path]:
    found = [
        path for top in ("ustack", "server", "tools") for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES
    ]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def module_of(path: Path) -> tuple[str, ...]:
    """The dotted name's parts below ustack: ("tcp", "input"), ("server", "http"), ("engine",)."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1:] if parts[0] == "ustack" else parts


def imports_of(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports of ustack, as module_of gives it. `from ustack import x` counts as the module x."""
    for match in IMPORT.finditer(path.read_text()):
        source = match["source"]
        assert not (source or "").startswith("."), f"{path}: relative import {match.group().strip()!r}"
        if source == "ustack":
            names = [name.split(" as ")[0].strip(" (") for name in match["names"].split(",")]
            yield from ((name,) if (ROOT / "ustack" / name).exists() else ("__init__",) for name in names)
            continue
        for name in [source] if source else [one.split(" as ")[0].strip() for one in match["module"].split(",")]:
            parts = tuple(name.split("."))
            if parts[0] == "ustack":
                yield parts[1:] or ("__init__",)


def may_import(room: str, other: str) -> bool:
    if room == other or any({room, other} <= rooms for rooms in ONE_ROOM):
        return True
    if room in BESIDE:
        return other in BESIDE[room]
    if other in BESIDE:
        return other in SEES_BESIDE.get(room, set())
    return FLOORS[other] < FLOORS[room]


def tcp_may_import(part: str, other: str) -> bool:
    if part == other or part == "__init__":
        return True
    if other in TCP_EVENTS:
        return False
    return part in TCP_EVENTS or TCP_FLOORS[other] < TCP_FLOORS[part]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_lower_floors_only(path: Path) -> None:
    module = module_of(path)
    for other in imports_of(path):
        assert may_import(module[0], other[0]), f"{'.'.join(module)} may not import ustack.{'.'.join(other)}"
        if module[0] == other[0] == "tcp" and len(module) > 1 and len(other) > 1:
            assert tcp_may_import(module[1], other[1]), f"inside tcp: {module[1]} may not import {other[1]}"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sources()
        if path.parts[len(ROOT.parts)] in {"server", "tools"} and path.suffix in {".pyx", ".pxi"}
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_cython_outside_the_package_cimports_from_the_stack_only(path: Path) -> None:
    """server/ and tools/ are mapped to ustack.server and ustack.tools when installed: Cython finds no .pxd there."""
    for match in CIMPORT.finditer(path.read_text()):
        name = match[1] or match[2]
        assert not name.startswith((".", "ustack.server", "ustack.tools", "server", "tools")), name


def test_every_room_is_in_the_table() -> None:
    assert {module_of(path)[0] for path in sources()} <= FLOORS.keys() | BESIDE.keys()


def test_every_part_of_tcp_is_in_the_table() -> None:
    parts = {module_of(path)[1] for path in sources() if module_of(path)[0] == "tcp" and len(module_of(path)) > 1}
    assert parts - {"__init__"} <= TCP_FLOORS.keys() | TCP_EVENTS


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("tcp", "ip", True),
        ("ip", "tcp", False),
        ("wire", "buf", False),
        ("engine", "stack", True),
        ("server", "engine", True),
        ("engine", "server", False),
        ("lab", "base", False),
        ("cli", "lab", True),
        ("server", "lab", False),
        ("tools", "cli", False),
        ("testing", "stack", True),
        ("stack", "testing", False),
    ],
)
def test_the_rule_itself(room: str, other: str, allowed: bool) -> None:
    assert may_import(room, other) == allowed


def test_the_rule_inside_tcp() -> None:
    assert tcp_may_import("input", "ack")
    assert not tcp_may_import("input", "output")
    assert not tcp_may_import("ack", "input")
    assert not tcp_may_import("cc", "tcb")

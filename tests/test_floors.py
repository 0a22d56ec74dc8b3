# SPDX-License-Identifier: MIT
"""Who may import whom. Reads the import and cimport lines of every source file and fails on a breach.

A file imports from lower floors or from its own room; nothing calls upward. Relative imports are not used, so that
each line says where it goes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import ROOT, sources

# The building. The rooms of one floor do not see each other.
FLOORS = {
    "base": 0,  # scalar types, clock, wheel, generator
    "errors": 0,  # the exceptions' names
    "buf": 1,
    "wire": 1,
    "link": 2,
    "ip": 3,
    "bridge": 3,  # a wire between two links
    "tcp": 4,
    "application": 3,  # what an application and a transport are to each other
    "engine": 6,
    "kernel": 6,  # the other transport: over the kernel's sockets
    "blocking": 7,
    "__init__": 8,  # the package's own face: names from below
    "server": 9,
    "cli": 10,
}
# Rooms beside the stairs: what each may see. `tools` and `cli` look at everything below; nobody looks at them, but that
# `cli` has a command for what is a tool.
BESIDE = {
    "lab": set(),
    "obs": {"base", "buf", "wire", "link", "ip", "tcp"},
    "sim": {*FLOORS, "obs"} - {"server", "cli"},
    "testing": {
        "sim",
        "base",
        "errors",
        "buf",
        "wire",
        "link",
        "ip",
        "tcp",
        "application",
        "engine",
        "kernel",
        "blocking",
        "__init__",
    },
    "tools": {*FLOORS, "lab", "obs", "sim", "testing"} - {"cli"},
}
# `engine`: a Trace writes itself into a file (obs.tracefile, which knows no stack).
SEES_BESIDE = {"cli": {"lab", "obs", "sim", "tools"}, "engine": {"obs"}}

# Inside tcp/, rooms and files: a control sees cc_view_t and knows nothing of the record, so `cc` comes before
# `records`; the event files are on top, and never import each other.
TCP_FLOORS = {
    "cc": 0,
    "records": 1,
    "receive": 2,
    "recovery": 2,
    "emit": 2,
    "throttle": 2,
    "urgent": 2,
    "ending": 3,
    "status": 3,
    "tracing": 3,
    "cookies": 3,
    "admission": 3,
    "holders": 3,
    "options": 3,
    "opening": 4,
    "arrival": 5,  # the steps of input
    "send": 5,  # the steps of output
}
TCP_EVENTS = {"calls", "input", "network_errors", "timers", "output"}
# Inside ip/: what both families share, the families, the layer's face.
IP_FLOORS = {"family": 0, "neighbour": 0, "ranges": 0, "records": 1, "v4": 2, "layer": 3}

# Inside server/, every file. What is pure (bytes in, bytes or a decision out) comes first; then the records and who
# keeps them; on top the connection's life and the upcalls.
SERVER_FLOORS = {
    "response": 0,
    "host": 0,
    "beneath": 0,
    "grammar": 0,
    "numerals": 0,
    "dates": 0,
    "accesslog": 0,
    "files": 1,
    "chunks": 1,
    "headscan": 1,
    "logring": 1,
    "request": 1,
    "target": 2,
    "selection": 2,
    "records": 2,
    "ready": 3,
    "settings": 3,
    "headtable": 4,
    "refusals": 4,
    "filetable": 5,
    "exchange": 5,
    "fetching": 6,
    "statistics": 6,
    "loading": 7,
    "connection": 6,
    "sending": 7,
    "decide": 8,
    "plainheads": 9,
    "receiving": 10,
    "asking": 11,
    "tables": 10,
    "wallclock": 9,
    "upcalls": 12,
    "http": 13,
}

IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>[.\w]+)\s+c?import\s+(?P<names>\(?[\w ,*]*)|c?import\s+(?P<module>[.\w, ]+))",
    re.MULTILINE,
)
INCLUDE = re.compile(r"^\s*include\s+['\"]", re.MULTILINE)


def module_of(path: Path) -> tuple[str, ...]:
    """The dotted name's parts below ustack: ("tcp", "input"), ("server", "http"), ("engine",)."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1:] if parts[0] == "ustack" else parts


def source_folder(name: str) -> Path:
    """Where the sources of a package are that is installed as ustack.<...>."""
    parts = name.split(".")[1:]
    return ROOT.joinpath(*parts) if parts[0] in {"server", "tools"} else ROOT.joinpath("ustack", *parts)


def imports_of(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports of ustack, as module_of gives it. `from ustack import x` counts as the module x."""
    for match in IMPORT.finditer(path.read_text()):
        source = match["source"]
        assert not (source or "").startswith("."), f"{path}: relative import {match.group().strip()!r}"
        if source == "ustack":
            names = [name.split(" as ")[0].strip(" (") for name in match["names"].split(",")]
            yield from ((name,) if (ROOT / "ustack" / name).exists() else ("__init__",) for name in names)
            continue
        if source and source.startswith("ustack.") and match["names"]:
            # A module of a room, not a name that the room's __init__ has.
            folder = source_folder(source)
            names = [name.split(" as ")[0].strip(" (") for name in match["names"].split(",")]
            modules = [name for name in names if name and any(folder.glob(f"{name}.p*"))]
            if modules:
                yield from ((*source.split(".")[1:], name) for name in modules)
                continue
        for name in [source] if source else [one.split(" as ")[0].strip() for one in match["module"].split(",")]:
            parts = tuple(name.split("."))
            if parts[0] == "ustack":
                yield parts[1:] or ("__init__",)


def may_import(room: str, other: str) -> bool:
    if room == other:
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


def ip_may_import(part: str, other: str) -> bool:
    return part == other or part == "__init__" or IP_FLOORS[other] < IP_FLOORS[part]


def server_may_import(part: str, other: str) -> bool:
    return part == other or SERVER_FLOORS[other] < SERVER_FLOORS[part]


def circle_in(edges: dict[str, set[str]]) -> list[str]:
    """A way from a module back to itself, empty: there is none."""
    done: set[str] = set()

    def walk(at: str, way: list[str]) -> list[str]:
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return []
        for other in sorted(edges.get(at, ())):
            if found := walk(other, [*way, at]):
                return found
        done.add(at)
        return []

    for module in sorted(edges):
        if found := walk(module, []):
            return found
    return []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_lower_floors_only(path: Path) -> None:
    module = module_of(path)
    for other in imports_of(path):
        assert may_import(module[0], other[0]), f"{'.'.join(module)} may not import ustack.{'.'.join(other)}"
        if module[0] == other[0] == "tcp" and len(module) > 1 and len(other) > 1:
            assert tcp_may_import(module[1], other[1]), f"inside tcp: {module[1]} may not import {other[1]}"
        if module[0] == other[0] == "ip" and len(module) > 1 and len(other) > 1:
            assert ip_may_import(module[1], other[1]), f"inside ip: {module[1]} may not import {other[1]}"
        if module[0] == other[0] == "server" and len(module) > 1 and len(other) > 1:
            assert server_may_import(module[1], other[1]), f"inside server: {module[1]} may not import {other[1]}"


def test_no_module_comes_back_to_itself() -> None:
    edges: dict[str, set[str]] = {}
    for path in sources():
        module = ".".join(module_of(path)).removesuffix(".__init__")
        edges.setdefault(module, set()).update(".".join(other) for other in imports_of(path))
        edges[module].discard(module)  # a .pyx and its .pxd
    assert circle_in(edges) == []


def test_the_search_for_circles_finds_one() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_file(path: Path) -> None:
    """No `include`: what several modules need is declared in a .pxd, and each is built by itself."""
    assert path.suffix != ".pxi"
    assert not INCLUDE.findall(path.read_text())


def test_every_room_is_in_the_table() -> None:
    assert {module_of(path)[0] for path in sources()} == FLOORS.keys() | BESIDE.keys()


def test_every_part_of_tcp_is_in_the_table() -> None:
    parts = {module_of(path)[1] for path in sources() if module_of(path)[0] == "tcp" and len(module_of(path)) > 1}
    assert parts - {"__init__"} == TCP_FLOORS.keys() | TCP_EVENTS


def test_every_part_of_ip_is_in_the_table() -> None:
    parts = {module_of(path)[1] for path in sources() if module_of(path)[0] == "ip" and len(module_of(path)) > 1}
    assert parts - {"__init__"} == IP_FLOORS.keys()


def test_the_server_knows_no_transport() -> None:
    """It runs over application.pxd alone, whatever carries its bytes: the engine's TCP, a kernel's, one in memory."""
    seen = {other[0] for path in sources() if module_of(path)[0] == "server" for other in imports_of(path)}
    assert seen <= {"base", "buf", "application", "errors", "server"}


def test_every_file_of_server_is_in_the_table() -> None:
    parts = {module_of(path)[1] for path in sources() if module_of(path)[0] == "server"}
    assert parts - {"__init__"} == SERVER_FLOORS.keys()


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("tcp", "ip", True),
        ("ip", "tcp", False),
        ("wire", "buf", False),
        ("blocking", "engine", True),
        ("server", "engine", True),
        ("engine", "server", False),
        ("engine", "kernel", False),
        ("kernel", "engine", False),
        ("testing", "kernel", True),
        ("lab", "base", False),
        ("engine", "obs", True),
        ("engine", "lab", False),
        ("blocking", "obs", False),
        ("cli", "lab", True),
        ("cli", "tools", True),
        ("server", "lab", False),
        ("tools", "cli", False),
        ("testing", "blocking", True),
        ("blocking", "testing", False),
        ("sim", "blocking", True),
        ("testing", "sim", True),
        ("sim", "testing", False),
        ("sim", "server", False),
        ("blocking", "sim", False),
    ],
)
def test_the_rule_itself(room: str, other: str, allowed: bool) -> None:
    assert may_import(room, other) == allowed


def test_the_rule_inside_tcp() -> None:
    assert tcp_may_import("input", "recovery")
    assert not tcp_may_import("input", "output")
    assert not tcp_may_import("recovery", "input")
    assert not tcp_may_import("cc", "records")
    assert tcp_may_import("output", "send")
    assert not tcp_may_import("arrival", "send")


def test_the_search_for_includes_finds_one() -> None:
    assert INCLUDE.search('import os\n\ninclude "heads.pxi"\n')
    assert INCLUDE.search("    include 'a'\n")


def test_the_rule_inside_server() -> None:
    assert server_may_import("http", "records")
    assert not server_may_import("records", "http")
    assert not server_may_import("files", "chunks")
    assert server_may_import("receiving", "sending")
    assert not server_may_import("sending", "receiving")
    assert not server_may_import("connection", "http")


def test_the_blocking_sockets_know_no_transport() -> None:
    """All of the room but stack.pyx, which builds an engine: what they do goes through application.pxd, too."""
    seen = {
        ".".join(other[:2]) if other[0] == "link" else other[0]
        for path in sources()
        if module_of(path)[0] == "blocking" and module_of(path)[1:] != ("stack",)
        for other in imports_of(path)
    }
    assert seen <= {"base", "buf", "application", "errors", "blocking", "link.gate"}


# What an application's side may not name: it has a transport (application.pxd) for everything that TCP and IP do.
APPLICATIONS_SIDE = [
    *(path for path in sources() if module_of(path)[0] == "blocking"),
    ROOT / "ustack/application.pxd",
    ROOT / "ustack/application.pyx",
    ROOT / "ustack/testing/recorder.pyx",
    ROOT / "ustack/testing/memory_transport.pyx",
    *(path for path in sources() if module_of(path)[:2] == ("testing", "memory")),
    ROOT / "tools/connection_storm.pyx",
]
# Stack is what builds an engine, and counts and shows every connection that it has, whoever's application it is.
BUILDS_THINGS = {
    "ustack/blocking/stack.pyx": {"tcp.records.demux", "tcp.records.state", "tcp.records.tcb", "tcp.status"},
}


@pytest.mark.parametrize("path", APPLICATIONS_SIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_application_knows_its_transport_only(path: Path) -> None:
    known = {".".join(other) for other in imports_of(path) if other[0] in {"tcp", "ip"}}
    assert known == BUILDS_THINGS.get(str(path.relative_to(ROOT)), set())

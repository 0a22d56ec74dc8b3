# SPDX-License-Identifier: MIT
"""Who made which namespace and interface, so that a later start removes what a dead process left, and only that.

Each lab has a record, /run/ustack/lab-NAME.json (or elsewhere: places). An item is written to it before the thing
itself is made, and names it by place; the thing carries the record's random mark (an interface's alias). Something is
removed only if it is where the record says and carries the record's mark: never what was there before, never what was
made later under the same name. A record belongs to live processes (by pid and start time), or to nobody if it is to
last (`persistent`).

/run is emptied at boot, as are the things themselves. Above: lab. Below: namespace, links, ingress.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ustack.lab import claims, ingress, links, namespace, places
from ustack.lab.links import End
from ustack.lab.namespace import InUseError

STATE_DIR = places.directory("ustack")


@dataclass
class Record:
    """One lab: its owners (pid, start time in clock ticks), what was made for it in order, and its description."""

    name: str
    persistent: bool = False
    complete: bool = False
    owners: list[tuple[int, int]] = field(default_factory=list)
    mark: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    description: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = self.mark or f"ustack:{self.name}:{secrets.token_hex(8)}"

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return STATE_DIR / f"lab-{self.name}.json"

    def save(self) -> None:
        """Write the record; a reader sees the old or the new one, never a part."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(self.path)

    def own(self, *pids: int) -> None:
        """Make the record belong to these live processes."""
        starts = [(pid, start_time(pid)) for pid in pids]
        self.owners = [(pid, start) for pid, start in starts if start is not None]

    def is_alive(self) -> bool:
        """True while somebody needs what is recorded."""
        if self.persistent and self.complete:
            return True
        return any(start_time(pid) == start for pid, start in self.owners)

    def plan_namespace(self, name: str) -> None:
        """Announce a namespace that is about to be made."""
        self._plan({"kind": "namespace", "name": name})

    def plan_interface(self, end: End) -> None:
        """Announce an interface that is about to be made."""
        self._plan({"kind": "interface", **_place(end)})

    def claim(self, end: End, address: str) -> None:
        """Take an address on an interface for a stack of this lab. Raises InUseError if another stack has it."""
        item = {"kind": "claim", "address": address, **_place(end)}
        # The claim itself ends with its process, but a lab may be kept for the next one.
        for record in records():
            for other in record.items:
                if {**other, "netns": None} == {**item, "netns": None} and record.is_alive():
                    raise InUseError(f"address {address} is in use: lab {record.name} has it on {end}")
        claims.claim(end, address)
        self._plan(item)

    def plan_drop(self, end: End, address: str) -> None:
        """Announce an ingress drop for an address on an interface that is not ours."""
        place = _place(end)
        where = (place["home"], end.ifname)
        ours = any(
            item["kind"] == "drop" and not item["keep_qdisc"] and (item["home"], item["ifname"]) == where
            for record in records()
            for item in record.items
        )
        keep_qdisc = ingress.has_clsact(end) and not ours
        self._plan({"kind": "drop", "keep_qdisc": keep_qdisc, "address": address, **place})

    def undo(self) -> None:
        """Remove, last made first, what still stands and carries the mark; then the record."""
        for item in reversed(self.items):
            _UNDO[item["kind"]](self, item)
        self.path.unlink(missing_ok=True)

    def _plan(self, item: dict[str, Any]) -> None:
        self.items.append(item)
        self.save()

    def _undo_namespace(self, item: dict[str, Any]) -> None:
        name = item["name"]
        if namespace.is_mounted(name):
            loopback = links.find(End(name, "lo"))
            if loopback is None or loopback["alias"] != self.mark:
                return
        namespace.remove(name)

    def _undo_interface(self, item: dict[str, Any]) -> None:
        end = _end(item)
        if end is not None:
            links.remove(end, mark=self.mark)

    def _undo_drop(self, item: dict[str, Any]) -> None:
        end, address = _end(item), item.get("address")
        if end is not None:
            ingress.allow(end, ingress.CLSACT, address=address, remove_qdisc=not item["keep_qdisc"])
            ingress.allow(end, ingress.NFTABLES, address=address)

    def _undo_claim(self, item: dict[str, Any]) -> None:
        claims.release(tuple(item["home"]), item["ifname"], item["address"])


_UNDO = {
    "namespace": Record._undo_namespace,
    "interface": Record._undo_interface,
    "drop": Record._undo_drop,
    "claim": Record._undo_claim,
}


@contextmanager
def locked() -> Iterator[None]:
    """Hold the one lock of this machine's labs: nobody else makes, removes or sweeps meanwhile."""
    places.make(STATE_DIR)
    with (STATE_DIR / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load(name: str) -> Record | None:
    """The record of a lab, or None. A file that is not a record is None too and is left alone."""
    record = _read(STATE_DIR / f"lab-{namespace.check_name(name)}.json")
    return record if record is not None and record.name == name else None


def _read(path: Path) -> Record | None:
    try:
        fields = json.loads(path.read_text())
        fields["owners"] = [(int(pid), int(start)) for pid, start in fields["owners"]]
        record = Record(**fields)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, TypeError, KeyError):
        return None
    return record if record.path.name == path.name else None


def records(directory: Path | None = None) -> list[Record]:
    """Every record in a directory (default: where this user's are), by name."""
    place = directory or STATE_DIR
    if not places.is_safe(place) or (place.exists() and place.stat().st_uid not in (0, os.geteuid())):
        return []  # somebody else's, who could write anything there
    found = [_read(path) for path in sorted(place.glob("lab-*.json"))]
    return [record for record in found if record is not None]


def visible() -> list[Record]:
    """The records of this user, and root's where those are elsewhere: to look at, not to change."""
    shared = places.RUN / "ustack"
    kept_apart = places.own() / "ustack" == STATE_DIR
    return [*records(), *(records(shared) if kept_apart else [])]


def sweep() -> list[str]:
    """Remove what dead owners left. Call it with the lock held. Returns the names of the labs that were removed."""
    dead = [record for record in records() if not record.is_alive()]
    for record in dead:
        record.undo()
    return [record.name for record in dead]


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot: with its pid, a name for it alone. None: it is dead."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, in parentheses, may itself hold spaces and parentheses.
    fields = status.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else int(started)


def _place(end: End) -> dict[str, Any]:
    return {"netns": end.namespace, "ifname": end.ifname, "home": list(namespace.identity(end.namespace))}


def _end(item: dict[str, Any]) -> End | None:
    """The interface an item names, wherever the calling thread is now. None: its namespace is gone or was replaced."""
    home = tuple(item["home"])
    if item["netns"] is None:
        if namespace.identity() == home:
            return End(None, item["ifname"])
        path = namespace.find_by_identity(home)
        return End(path, item["ifname"]) if path else None
    if namespace.exists(item["netns"]) and namespace.identity(item["netns"]) == home:
        return End(item["netns"], item["ifname"])
    # A path such as /proc/PID/ns/net may end before its namespace does. A name that was given anew is another's.
    path = namespace.find_by_identity(home) if item["netns"].startswith("/") else None
    return End(path, item["ifname"]) if path else None

# SPDX-License-Identifier: MIT
"""What each core did during a run, and what one server's processes used: /proc/stat, /proc/PID.

On a veth pair the sender's system call runs the receiver's whole receive path, so that the time of one process says
little about its stack: the whole system's time by core goes beside every run, steal (what the hypervisor gave to
others while we wanted to run) with it.

It must not: start or judge anything. Above: runner, experiments.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class CoreTimes:
    """Clock ticks since boot, for each core: the fields of proc(5) by KINDS."""

    ticks: dict[int, tuple[int, ...]]

    @classmethod
    def parse(cls, text: str) -> CoreTimes:
        """The lines `cpuN` of /proc/stat."""
        found = {}
        for line in text.splitlines():
            name, _, rest = line.partition(" ")
            if name.startswith("cpu") and name[3:].isdigit():
                found[int(name[3:])] = tuple(int(word) for word in rest.split()[: len(KINDS)])
        return cls(found)

    @classmethod
    def now(cls) -> CoreTimes:
        """Read /proc/stat."""
        return cls.parse(Path("/proc/stat").read_text(encoding="ascii"))


@dataclass(frozen=True)
class SystemUse:
    """cores: shares of each core's time between two readings. busy_cores: how many cores' worth was used in all."""

    cores: list[dict[str, float]]
    busy_cores: float
    steal: float

    @classmethod
    def between(cls, before: CoreTimes, after: CoreTimes) -> SystemUse:
        """From one reading to the next. Idle includes waiting for a disk; stolen time is neither idle nor busy."""
        cores, busy, stolen, total = [], 0.0, 0, 0
        for core, late in sorted(after.ticks.items()):
            early = before.ticks.get(core, late)
            spent = {kind: late[index] - early[index] for index, kind in enumerate(KINDS)}
            every = sum(spent.values())
            if every <= 0:
                continue
            idle = spent["idle"] + spent["iowait"]
            shares = {
                "core": float(core),
                "user": (spent["user"] + spent["nice"]) / every,
                "system": spent["system"] / every,
                "irq": (spent["irq"] + spent["softirq"]) / every,
                "idle": idle / every,
                "steal": spent["steal"] / every,
            }
            cores.append({key: round(share, 4) for key, share in shares.items()})
            busy += 1 - (idle + spent["steal"]) / every
            stolen += spent["steal"]
            total += every
        return cls(cores, busy, stolen / total if total else 0.0)


def family(pid: int) -> list[int]:
    """A process, those of its session, and all that any of them has started, whatever session they are in."""
    parents, found = {}, {pid}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            one = int(entry.parent.name)
            parents[one] = int(fields[1])
            if int(fields[3]) == pid:
                found.add(one)
    grown = True
    while grown:
        more = {one for one, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found & parents.keys())


def cpu_ns(pids: list[int]) -> int:
    """Time that all threads of these processes have run, by their schedstat; those that ended are not counted."""
    spent = 0
    for pid in pids:
        for entry in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                spent += int(entry.read_text(encoding="ascii").split()[0])
    return spent


def memory_bytes(pids: list[int]) -> int:
    """Proportional set size of these processes together, without files: pages that several share are counted once.

    A process's share of a library's pages falls while somebody else maps them: a load client of our own at work made
    each of 100,000 connections of ours 34 bytes smaller than they were.
    """
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    found += int(line.split()[1]) * 1024
    return found


def slab_bytes() -> int:
    """What the kernel's slabs take in the whole machine, reclaimable ones (caches of names) left out."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("SUnreclaim:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Greatest:
    """The most memory that was seen, in bytes: of processes, and of them and the kernel's slabs together."""

    process: int = 0
    kernel: int = 0
    samples: int = 0

    def sample(self, pids: list[int]) -> None:
        """Look once."""
        process, kernel = memory_bytes(pids), slab_bytes()
        self.samples += 1
        if process + kernel > self.process + self.kernel:
            self.process, self.kernel = process, kernel


@contextlib.contextmanager
def watched(pids: Callable[[], list[int]], every_s: float = 0.5) -> Iterator[Greatest]:
    """Look at the memory of these processes again and again while the block lasts, in a thread of its own."""
    found, over = Greatest(), threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            found.sample(pids())

    thread = threading.Thread(target=look, name="ustack-bench-memory", daemon=True)
    found.sample(pids())
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()

# SPDX-License-Identifier: MIT
"""One measurement: a load generator on one core, and what the machine did meanwhile.

It starts wrk or curl inside a network namespace, reads what they report in a form for machines, and reads /proc/stat
around the run. It judges nothing: comparisons are in `compare`, processes under test in `servers`.

Why the processor's time is read for the whole system and not for a process: on a veth pair the sender's system call
runs the receiver's whole receive path, so the time of one process says little about the cost of its stack.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# wrk calls done() once at the end. No request() or response() is defined, so wrk stays on its fast path.
WRK_REPORT = """
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'USTACK {"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %.3f, "p99_us": %.3f, "max_us": %.3f, ' ..
        '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
        summary.requests, summary.duration, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency.max,
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""
# Requests that differ, made before each one is sent. `missing` asks for what is not there: a 404 is then what is
# wanted, and every other status is the error.
WRK_PATHS = {
    "distinct": """
local number = 0
request = function()
    number = (number + 7919) % 100000
    return wrk.format(nil, string.format("/distinct/%d/%d.bin", number % 100, number))
end
"""
    + WRK_REPORT,
    "missing": """
local number = 0
request = function()
    number = number + 1
    return wrk.format(nil, string.format("/missing/%d", number))
end
"""
    + WRK_REPORT.replace("errors.status,", "summary.requests - errors.status,"),
}
ERROR_KINDS = ("connect", "read", "write", "status", "timeout")


class LoadError(Exception):
    """A load generator could not be run at all."""


@dataclass(frozen=True)
class CpuTimes:
    """Clock ticks of all cores since boot, from the first line of /proc/stat."""

    total: int
    idle: int
    steal: int

    @classmethod
    def parse(cls, text: str) -> CpuTimes:
        """Fields by proc(5): user nice system idle iowait irq softirq steal guest guest_nice (guests are in user)."""
        ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
        return cls(total=sum(ticks), idle=ticks[3] + ticks[4], steal=ticks[7])

    @classmethod
    def now(cls) -> CpuTimes:
        """Read /proc/stat."""
        return cls.parse(Path("/proc/stat").read_text(encoding="ascii"))


@dataclass(frozen=True)
class CpuUse:
    """Shares of all cores' time, 0 to 1. Steal is time that the hypervisor gave to others while we wanted to run."""

    busy: float
    steal: float

    @classmethod
    def between(cls, before: CpuTimes, after: CpuTimes) -> CpuUse:
        """Use from one reading to the next."""
        total = after.total - before.total
        if total == 0:
            return cls(0.0, 0.0)
        steal = after.steal - before.steal
        busy = total - (after.idle - before.idle) - steal
        return cls(busy=busy / total, steal=steal / total)


@dataclass(frozen=True)
class Load:
    """What one run of a load generator found. A run with errors keeps its numbers, but they must not be counted."""

    requests: int = 0
    seconds: float = 0.0
    bytes: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    max_us: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def requests_per_second(self) -> float:
        """Completed responses per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def gigabits_per_second(self) -> float:
        """Bytes of HTTP received, heads included, in 10^9 bits per second."""
        return self.bytes * 8e-9 / self.seconds if self.seconds else 0.0


def parse_wrk(output: str) -> Load:
    """The line that WRK_REPORT prints, as a Load. Raises LoadError if it is not there."""
    for line in output.splitlines():
        if line.startswith("USTACK "):
            report = json.loads(line.removeprefix("USTACK "))
            errors = {kind: report[kind] for kind in ERROR_KINDS if report[kind]}
            if report["requests"] == 0:
                errors["no response"] = 1
            return Load(
                report["requests"],
                report["duration_us"] / 1e6,
                report["bytes"],
                report["p50_us"],
                report["p99_us"],
                report["max_us"],
                errors,
            )
    raise LoadError(f"wrk reported nothing: {output.strip()[-200:]!r}")


def inside(netns: str, core: int | None = None) -> list[str]:
    """The command prefix that runs a program in a network namespace, pinned. It execs: the pid is the program's."""
    prefix = ["nsenter", f"--net=/run/netns/{netns}"]
    return prefix if core is None else [*prefix, "taskset", "-c", str(core)]


def program_of(command: Sequence[str]) -> str:
    """What a command runs, without the prefix of inside()."""
    first = 0
    while command[first] in ("nsenter", "taskset"):
        first += 2 if command[first] == "nsenter" else 3
    return command[first]


def run(command: Sequence[str], timeout_s: float) -> str:
    """Run a command to its end and return its standard output. Raises LoadError with what it said when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError(f"{program_of(command)}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")[-300:]
        raise LoadError(f"{program_of(command)}: exit {done.returncode}: {said}")
    return done.stdout


def run_wrk(
    netns: str, url: str, *, connections: int, seconds: int, core: int, script: Path, close: bool = False
) -> Load:
    """One thread of wrk. `script` holds WRK_REPORT; `close` asks for a new connection for each request."""
    command = [*inside(netns, core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    if close:
        command += ["-H", "Connection: close"]
    return parse_wrk(run([*command, url], timeout_s=seconds + 30))


def run_curl(netns: str, url: str, *, core: int, expected_bytes: int) -> Load:
    """One download by curl. A status other than 200 or a short body is an error of the run."""
    words = "%{http_code} %{size_download} %{size_header} %{time_total}"
    output = run([*inside(netns, core), "curl", "-s", "-o", os.devnull, "-w", words, url], timeout_s=120)
    status, body_bytes, head_bytes, seconds = output.split()
    errors = {}
    if status != "200":
        errors["status"] = 1
    if int(body_bytes) != expected_bytes:
        errors["length"] = 1
    return Load(1, float(seconds), int(body_bytes) + int(head_bytes), errors=errors)

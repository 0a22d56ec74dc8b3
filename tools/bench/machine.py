# SPDX-License-Identifier: MIT
"""What figures depend on and a reader cannot see: the machine, its kernel, the settings of both ends.

It must not: change anything. Above: runner. Below: tools.report (kernel, processor), lab.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

from ustack.lab import inside
from ustack.tools import report
from ustack.tools.bench.contestants.base import version_of

SYSCTLS = (
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_sack",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv4/ip_local_port_range",
    "net/core/somaxconn",
    "net/core/busy_poll",
    "net/core/busy_read",
    "net/core/netdev_max_backlog",
    "net/core/default_qdisc",
)
OFFLOADS = ("tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-generic-segmentation", "rx-gro", "tx-scatter-gather")


def describe() -> dict[str, Any]:
    """The machine as a whole."""
    memory = next(line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal"))
    return {
        **report.machine(),
        "memory_gib": round(int(memory) / (1 << 20), 1),
        "hypervisor": " hypervisor" in _read("/proc/cpuinfo"),
        "mitigations": mitigations(),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
        "system": _read("/etc/os-release").partition('PRETTY_NAME="')[2].partition('"')[0],
        "architecture": platform.machine(),
        "congestion_control_of_host": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "curl": version_of("curl", "--version").partition("(")[0].strip(),
    }


def mitigations() -> dict[str, str]:
    """Of the processor's weaknesses, what the kernel does; those that this one does not have are left out."""
    found = {}
    for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*")):
        said = _read(path)
        if said and said != "Not affected":
            found[path.name] = said
    return found


def settings_of(netns: str) -> dict[str, str]:
    """The kernel's settings in a namespace, and the offloads of its links, as they are and not as they were asked."""
    with inside(netns):
        found = {name.replace("/", "."): _read(f"/proc/sys/{name}") for name in SYSCTLS}
        for ifname in _links():
            found[f"{ifname} offloads"] = offloads(ifname)
    return {name: value for name, value in found.items() if value}


def _links() -> list[str]:
    import socket

    return [name for _, name in socket.if_nameindex() if name != "lo"]


def offloads(ifname: str) -> str:
    """Those that matter here, of a link in this namespace: "tso on, gso on"; "" where the kernel does not say."""
    from pyroute2.ethtool import Ethtool

    with contextlib.suppress(Exception):
        tool = Ethtool()
        try:
            features = tool.get_features(ifname).features
            states = {name: features[name].enable for name in OFFLOADS if name in features}
            return ", ".join(f"{name} {'on' if state else 'off'}" for name, state in states.items())
        finally:
            tool.close()
    return ""


def pinning(client: int, server: int) -> str:
    """In words."""
    return f"server on core {server}, client on core {client}, of {os.cpu_count()}"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

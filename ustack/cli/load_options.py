# SPDX-License-Identifier: MIT
"""What `ustack load` is asked for, and what of it cannot work: refused before anything is made.

It must not: make or open anything but the files of paths and bodies that it reads. Above: load. Below: lab (the plan),
tools.load.
"""

import hashlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ustack.cli import quantities
from ustack.cli.recording import CONNECTIONS, check_trace
from ustack.cli.serve_options import DEFAULT_CC, DEFAULT_PROFILE
from ustack.lab import LabError, Plan, privilege
from ustack.lab.making import check as check_plan
from ustack.lab.making import needs, neighbour_of
from ustack.tools.load.questions import Target, bodies_of, parse_url, read_paths, requests_of
from ustack.tools.load.running import Load

MEMORY = "memory"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SLOW_WINDOW_BYTES = 16384  # a slow reader's window: what it has not read must not all be on its side
KEPT_BESIDE_BYTES = 9216  # most that memory for a window is larger: pages at both of its ends, their table, a record
RX_MEMORY_BYTES = 512 << 20  # of all connections, where they are not slow
RX_MEMORY_MOST_BYTES = (1 << 32) - 1
READ_STEP_MOST_BYTES = 1 << 28  # half of the largest window


@dataclass(frozen=True)
class Options:
    """The command line of `load`, as it was given: None where there is a default that depends on the rest."""

    url: str
    link: str = "veth"
    netns: str | None = None
    peer_netns: str | None = None
    address: str | None = None
    sources: str | None = None
    gateway: str | None = None
    connections: int = 1
    rate: float = 0.0
    poisson: bool = False
    duration: str = "10s"
    requests: int = 0
    close: bool = False
    ramp: str = "0"
    timeout: str = "10s"
    method: str = "GET"
    path_file: Path | None = None
    header: tuple[str, ...] = ()
    body: Path | None = None
    read_rate: str | None = None
    read_step: str | None = None
    status: int = 0
    any_length: bool = False
    files: Path | None = None
    hash_every: int = 64
    openings: int = 256
    seed: int | None = None
    trace: Path | None = None
    trace_connections: int = CONNECTIONS
    as_json: bool = False
    busy_poll: Literal["auto", "always", "never"] = "auto"
    ring: int | None = None
    user: str | None = None
    cc: str = DEFAULT_CC
    profile: str = DEFAULT_PROFILE
    settings: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> str:
        """Of the link."""
        return self.link.partition(":")[0]

    @property
    def behind_colon(self) -> str:
        """The interface, or the directory that is served in memory."""
        return self.link.partition(":")[2]


@dataclass(frozen=True)
class Checked:
    """What is to be done. plan: of the lab; None in memory."""

    target: Target
    requests: list[bytes]
    load: Load
    plan: Plan | None
    settings: dict[str, int]


def check(options: Options) -> Checked:
    """Raises LabError for what cannot work."""
    try:
        target = parse_url(options.url)
        paths = [target.path]
        if options.path_file is not None:
            paths = read_paths(options.path_file.read_text(encoding="utf-8"))
        body = options.body.read_bytes() if options.body is not None else b""
        requests = requests_of(
            target, paths, method=options.method, headers=options.header, body=body, keep_alive=not options.close
        )
        bodies = bodies_of(options.files, paths) if options.files is not None else None
    except (ValueError, OSError) as error:
        name = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise LabError(f"cannot load: {name}") from None
    if options.trace is not None:
        check_trace(options.trace)
    load = _load(options, bodies)
    settings = dict(options.settings)
    if load.read_bytes_per_second:
        _settle_readers(load, settings)
    return Checked(target, requests, load, _plan(options, target), settings)


def _settle_readers(load: Load, settings: dict[str, int]) -> None:
    """Slow readers fill their windows: these are small, and there is memory for all of them."""
    window = settings.setdefault("rcv_buffer_bytes", max(SLOW_WINDOW_BYTES, 2 * load.read_step_bytes))
    settings.setdefault("rcv_buffer_max_bytes", window)
    if load.read_step_bytes > window:
        raise LabError(f"--read-step {load.read_step_bytes}: more than the window (rcv_buffer_bytes), {window}")
    wanted = load.connections * (window + KEPT_BESIDE_BYTES)
    if wanted > settings.get("rx_memory_bytes", RX_MEMORY_MOST_BYTES):
        raise LabError(
            f"{load.connections:,} readers fill {window:,} bytes each: too much for one stack (rx_memory_bytes)."
            " Give them smaller windows: --set rcv_buffer_bytes=BYTES"
        )
    if wanted > RX_MEMORY_BYTES:
        settings.setdefault("rx_memory_bytes", wanted)


def _load(options: Options, bodies: list[tuple[int, int | None]] | None) -> Load:
    if options.poisson and not options.rate:
        raise LabError("--poisson is about a --rate")
    if options.requests and options.rate:
        raise LabError("--requests ends a closed loop; with --rate, --duration says how many there are")
    if options.read_step is not None and options.read_rate is None:
        raise LabError("--read-step is about a --read-rate")
    seed = int.from_bytes(os.urandom(8), "little") if options.seed is None else options.seed
    return Load(
        connections=options.connections,
        keep_alive=not options.close,
        rate=options.rate,
        poisson=options.poisson,
        duration_ns=None if options.requests else _time_ns(options.duration, "duration"),
        ramp_ns=_time_ns(options.ramp, "ramp"),
        timeout_ns=_time_ns(options.timeout, "timeout"),
        requests_most=options.requests,
        read_bytes_per_second=read_rate(options.read_rate) if options.read_rate is not None else 0.0,
        read_step_bytes=read_step(options.read_step) if options.read_step is not None else 0,
        to_head=options.method == "HEAD",
        status=options.status,
        any_length=options.any_length,
        bodies=bodies,
        hash_every=options.hash_every,
        openings=options.openings,
        seed=seed,
    )


def seed_of_boot(address: str) -> int | None:
    """For a stack with this address, the same until the machine is booted again: its timestamps and initial sequence
    numbers are by CLOCK_MONOTONIC and this, and go on from one run to the next, so that a server which still has an
    earlier run's connections in TIME-WAIT takes a new SYN at once (RFC 6191, section 2). None: it cannot be known."""
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int.from_bytes(hashlib.sha256(f"{boot} {address}".encode()).digest()[:8], "little")


def _time_ns(text: str, what: str) -> int:
    return quantities.time_ns(text if not text.replace(".", "").isdigit() else f"{text}s", what)


def read_rate(text: str) -> float:
    """`28.8k`, `28.8kbit`, `1mbit`, in bits per second as lines are sold; returns bytes per second."""
    text = text.lower()
    bits = quantities.rate_bps(f"{text}bit" if text[-1:] in ("k", "m", "g") else text)
    if bits < 8:
        raise LabError(f"bad --read-rate {text!r}: a byte per second at least")
    return bits / 8


def read_step(text: str) -> int:
    """`16KiB`, `15928`, in bytes."""
    step = quantities.size_bytes(text, "--read-step")
    if not 0 < step <= READ_STEP_MOST_BYTES:
        raise LabError(f"bad --read-step {text!r}: from a byte to {READ_STEP_MOST_BYTES:,}")
    return step


def _plan(options: Options, target: Target) -> Plan | None:
    kind, behind = options.kind, options.behind_colon
    if kind == MEMORY:
        _check_memory(options, target)
        return None
    if kind not in ("veth", "tap", "dev") or (kind == "dev") != bool(behind):
        raise LabError(f"bad link {options.link!r}: veth, tap, dev:IFNAME or memory:DIRECTORY")
    if kind == "dev":
        if options.peer_netns is not None:
            raise LabError("--peer-netns makes no sense with dev: the interface exists and has its peer")
        if options.address is None:
            raise LabError("--link dev needs --address ADDRESS/LENGTH: one that nobody else has on that network")
    elif ipaddress.IPv4Address(target.address) in (ipaddress.IPv4Address(0), ipaddress.IPv4Address(0xFFFFFFFF)):
        raise LabError(f"cannot load: {target.address} is no host's address")
    peer = f"{target.address}/{_prefix(options)}"
    address = options.address or neighbour_of(peer)
    if kind == "tap" and options.ring is not None:
        raise LabError("--ring makes no sense with tap: there the kernel keeps what waits")
    if address.partition("/")[0] == target.address:
        raise LabError(f"{target.address} is the server's address: the client's stack needs another")
    plan = Plan(
        name=f"load-{os.getpid()}",
        link=kind,
        netns=options.netns,
        peer_netns=options.peer_netns,
        ifname=behind or None,
        address=address,
        peer_address=peer,
    )
    check_plan(plan)
    privilege.require("ustack load", needs(plan))
    if options.user is not None:
        privilege.choose_user(options.user, Path.cwd().stat())
    return plan


def _prefix(options: Options) -> str:
    """The length of the network's prefix: --address says it, or it is 24."""
    return (options.address or "").partition("/")[2] or "24"


# What only a link of the kernel's can be asked for.
LINK_OPTIONS: dict[str, Any] = {
    "netns": None,
    "peer_netns": None,
    "address": None,
    "gateway": None,
    "ring": None,
    "busy_poll": "auto",
    "user": None,
}


def _check_memory(options: Options, target: Target) -> None:
    from ustack.tools.load.memory import MemoryWorld

    if not Path(options.behind_colon or "/nonexistent").is_dir():
        raise LabError(f"--link {options.link}: memory:DIRECTORY, which is served in this process")
    for name, unasked in LINK_OPTIONS.items():
        if getattr(options, name) != unasked:
            raise LabError(f"--{name.replace('_', '-')} makes no sense in memory")
    if (target.address, target.port) != (MemoryWorld.SERVER, 80):
        raise LabError(f"in memory the server is http://{MemoryWorld.SERVER}/")

# SPDX-License-Identifier: MIT
"""What `ustack serve` is asked for, and what of it cannot work: refused before anything is made.

It must not: make or open anything. Above: serve, demo, lab. Below: lab (the plan of namespaces and links).
"""

import ipaddress
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ustack.cli.recording import CONNECTIONS, check_trace
from ustack.kernel import strategies
from ustack.lab import LabError, Plan, privilege
from ustack.lab.making import check as check_plan
from ustack.lab.making import needs, neighbour_of

LINGER_S = 5.0  # for requests that are under way when the end is asked for
STANDARD_OUTPUT = Path("-")
DEFAULT_ADDRESS = "198.18.0.2/24"
DEFAULT_PEER_ADDRESS = "198.18.0.1/24"
DEFAULT_CC = "cubic"
DEFAULT_PROFILE = "rfc"
OWN_STACK = "ustack"
KERNEL = "kernel"
PROCESSES = "processes"  # one for each connection
PREFORK = "prefork"  # several processes that take from one listening socket, each with epoll-lt
REUSEPORT = "reuseport"  # the same, each with a listening socket of its own
WITH_WORKERS = (PREFORK, REUSEPORT)
DEFAULT_LISTEN = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    """The command line of `serve`, as it was given: None where there is a default that depends on the rest."""

    directory: Path
    link: str | None = "veth"
    netns: str | None = None
    peer_netns: str | None = None
    address: str = DEFAULT_ADDRESS
    peer_address: str | None = None
    gateway: str | None = None
    port: int = 80
    capture: Path | None = None
    trace: Path | None = None
    trace_connections: int = CONNECTIONS
    access_log: Path | None = None
    busy_poll: Literal["auto", "always", "never"] = "auto"
    ring: int | None = None
    json_stats: bool = False
    linger: float = LINGER_S
    user: str | None = None
    cc: str = DEFAULT_CC
    profile: str = DEFAULT_PROFILE
    settings: tuple[tuple[str, int], ...] = ()
    stack: str = OWN_STACK
    listen: str | None = None
    workers: int | None = None
    spin: int | None = None  # microseconds
    cork: bool = False
    sendfile: bool = False
    zerocopy: bool = False

    @property
    def url(self) -> str:
        """Where clients find the server."""
        address = self.address if self.stack == OWN_STACK else self.listening
        return f"http://{address.partition('/')[0]}:{self.port}/"

    @property
    def listening(self) -> str:
        """The address to listen on, with the kernel's sockets."""
        return DEFAULT_LISTEN if self.listen is None else self.listen

    @property
    def strategy(self) -> str:
        """Of the kernel's sockets; "" with this project's stack."""
        return self.stack.partition(":")[2]


def check(options: Options) -> Plan:
    """Raise LabError for what cannot work, before anything is made. Returns the lab to make."""
    _check_files(options)
    if options.workers is not None:
        raise LabError(f"--workers is for --stack {with_workers()}: a stack of ours is one process")
    if options.listen is not None:
        raise LabError(f"--listen is for --stack {KERNEL}:STRATEGY: this stack's own address is --address")
    if options.spin is not None:
        raise LabError(f"--spin is for --stack {KERNEL}:STRATEGY: how a stack of ours waits is --busy-poll")
    if options.cork:
        raise LabError(f"--cork is for --stack {KERNEL}:STRATEGY: a stack of ours sends what is queued whole")
    if options.sendfile:
        raise LabError(f"--sendfile is for --stack {KERNEL}:STRATEGY: a stack of ours builds its segments itself")
    if options.zerocopy:
        raise LabError(f"--zerocopy is for --stack {KERNEL}:STRATEGY: a stack of ours copies once, into the frame")
    kind, colon, ifname = (options.link or "").partition(":")
    if kind not in ("veth", "tap", "dev") or (kind == "dev") != bool(colon) or bool(colon) != bool(ifname):
        raise LabError(f"bad link {options.link!r}: veth, tap or dev:IFNAME")
    if kind == "dev" and (options.peer_netns or options.peer_address):
        raise LabError("--peer-netns and --peer-address make no sense with dev: the interface exists and has its peer")
    if kind == "tap" and options.ring is not None:
        raise LabError("--ring makes no sense with tap: there the kernel keeps what waits")
    _check_cc(options.cc)
    if options.capture == STANDARD_OUTPUT:
        _check_capture_to_stdout(options)
    plan = Plan(
        name=f"serve-{os.getpid()}",
        link=kind,
        netns=options.netns,
        peer_netns=options.peer_netns,
        ifname=ifname or None,
        address=options.address,
        peer_address=peer_address_for(options.address) if options.peer_address is None else options.peer_address,
    )
    check_plan(plan)
    if options.gateway is not None:
        _check_gateway(options.gateway, options.address)
    privilege.require("ustack serve", needs(plan))
    if options.user is not None:
        privilege.choose_user(options.user, options.directory.stat())
    return plan


# What only a stack on a link of its own can be asked for, with what it is when nobody asks.
LINK_OPTIONS: dict[str, Any] = {
    "link": None,
    "netns": None,
    "peer_netns": None,
    "address": DEFAULT_ADDRESS,
    "peer_address": None,
    "gateway": None,
    "capture": None,
    "trace": None,
    "trace_connections": CONNECTIONS,
    "ring": None,
    "busy_poll": "auto",
    "profile": DEFAULT_PROFILE,
    "settings": (),
}


def kernel_strategies() -> tuple[str, ...]:
    """What may stand behind `kernel:`."""
    return (*strategies.names(), *WITH_WORKERS)


def with_workers() -> str:
    """Those of several processes, for messages."""
    return " or ".join(f"{KERNEL}:{name}" for name in WITH_WORKERS)


def check_kernel(options: Options) -> None:
    """The same for a server on the kernel's sockets. The congestion control is the transport's to refuse."""
    _check_files(options)
    kind, _, strategy = options.stack.partition(":")
    if kind != KERNEL or strategy not in kernel_strategies():
        known = ", ".join(f"{KERNEL}:{name}" for name in kernel_strategies())
        raise LabError(f"no stack {options.stack!r}; there are: {OWN_STACK}, {known}")
    for name, unasked in LINK_OPTIONS.items():
        if getattr(options, name) != unasked:
            word = "set" if name == "settings" else name.replace("_", "-")
            hint = "; its address is --listen" if name == "address" else ""
            raise LabError(
                f"--{word} makes no sense with --stack {options.stack}: the kernel has no link of ours{hint}"
            )
    if options.workers is not None and strategy not in WITH_WORKERS:
        raise LabError(f"--workers is for --stack {with_workers()}: {options.stack} is one process")
    if options.spin and strategy not in (*strategies.in_one_thread(), *WITH_WORKERS):
        raise LabError(f"--spin makes no sense with --stack {options.stack}: who serves a connection sleeps in recv")
    if options.sendfile and strategy not in (*strategies.in_one_thread(), *WITH_WORKERS):
        raise LabError(
            f"--sendfile makes no sense with --stack {options.stack}: its sockets block, and so would sendfile"
        )
    if options.json_stats and strategy in (*WITH_WORKERS, PROCESSES):
        raise LabError(f"--json-stats makes no sense with --stack {options.stack}: each process has figures of its own")
    try:
        ipaddress.IPv4Address(options.listening)
    except ValueError:
        raise LabError(f"bad --listen {options.listen!r}: an IPv4 address of this machine") from None
    if options.user is not None:
        privilege.choose_user(options.user, options.directory.stat())


def _check_files(options: Options) -> None:
    _check_directory(options.directory)
    for what, path in (("capture", options.capture), ("access log", options.access_log)):
        if path is not None and path != STANDARD_OUTPUT and not path.absolute().parent.is_dir():
            raise LabError(f"no directory for the {what} {path}")
    if options.trace is not None:
        check_trace(options.trace)
    if math.isnan(options.linger):  # which is in every range
        raise LabError("bad --linger nan: a number of seconds")


def peer_address_for(address: str) -> str:
    """The peer's address where only the stack's is given."""
    return DEFAULT_PEER_ADDRESS if address == DEFAULT_ADDRESS else neighbour_of(address)


def _check_capture_to_stdout(options: Options) -> None:
    if options.json_stats:
        raise LabError("--capture - and --json-stats both want standard output: write the capture to a file")
    if sys.stdout.isatty():
        raise LabError("--capture - would write to a terminal: give it a pipe, or name a file")


def _check_cc(name: str) -> None:
    from ustack.tcp.cc.registry import names

    if name not in names():
        raise LabError(f"no congestion control {name!r}; there are: {', '.join(names())}")


def _check_directory(directory: Path) -> None:
    if not directory.exists():
        raise LabError(f"no directory {directory}")
    if not directory.is_dir():
        raise LabError(f"{directory} is not a directory")
    if not os.access(directory, os.R_OK | os.X_OK):
        raise LabError(f"directory {directory} cannot be read")


def _check_gateway(gateway: str, address: str) -> None:
    interface = ipaddress.IPv4Interface(address)
    try:
        router = ipaddress.IPv4Address(gateway)
    except ValueError:
        raise LabError(f"bad gateway {gateway!r}: an IPv4 address") from None
    if router not in interface.network or router == interface.ip:
        raise LabError(f"gateway {router} is not a neighbour in {interface.network}")

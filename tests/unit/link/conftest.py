# SPDX-License-Identifier: MIT
"""Real links for tests: a veth pair or a TAP device, with the kernel's own stack at the other end."""

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack.lab import namespace
from ustack.link.device import Link
from ustack.link.packet_mmap import PacketMmapLink
from ustack.link.tap import TapLink
from ustack.testing.parts.link_driver import LentFrame, LinkDriver

OURS = {4: "198.18.0.2", 6: "fd00::2"}
PEER = {4: "198.18.0.1", 6: "fd00::1"}


class Wire:
    """Our end of a link without any address, and the kernel as the peer, who knows our address already."""

    def __init__(self, kind: str, make_namespace: Callable[[], str]) -> None:
        self.kind = kind
        self.peer_ns = make_namespace()
        self.ours_ns = make_namespace() if kind == "veth" else self.peer_ns
        self.ours = "ours"
        self.peer = "peer" if kind == "veth" else "ours"
        self._open: list[Any] = []
        if kind == "veth":
            self.run(f"ip -n {self.ours_ns} link add ours type veth peer name peer netns {self.peer_ns}")
            self.run(f"ip -n {self.ours_ns} link set ours up addrgenmode none")
        else:
            self.run(f"ip -n {self.ours_ns} tuntap add ours mode tap")
        self.run(f"ip -n {self.peer_ns} link set {self.peer} up addrgenmode none")
        self.run(f"ip -n {self.peer_ns} address add {PEER[4]}/24 dev {self.peer}")
        listed = subprocess.run(
            ["ip", "-n", self.peer_ns, "-o", "link", "show", self.peer], check=True, capture_output=True, text=True
        ).stdout
        self.peer_mac = listed.split("link/ether ")[1].split()[0]

    @staticmethod
    def run(command: str) -> None:
        subprocess.run(command.split(), check=True)

    def open(self, **arguments: Any) -> LinkDriver:
        """Open our end; closed after the test."""
        with namespace.inside(self.ours_ns):
            link: Link = (
                PacketMmapLink(self.ours, **arguments) if self.kind == "veth" else TapLink(self.ours, **arguments)
            )
        self._open.append(link)
        self.introduce(link)
        self.await_queues()
        return LinkDriver(link)

    def await_queues(self) -> None:
        """Wait until both interfaces take frames. One that is up gets its carrier when the other end is opened, and a
        worker of the kernel's then gives it a queue (net/core/link_watch.c): until that has run, at any time on a busy
        machine, what is sent to it is dropped and nobody is told (its queueing discipline is `noop`)."""
        for name, interface in {(self.ours_ns, self.ours), (self.peer_ns, self.peer)}:
            for _ in range(10_000):
                shown = subprocess.run(
                    ["ip", "-n", name, "-o", "link", "show", interface], check=True, capture_output=True, text=True
                ).stdout
                if " qdisc noop " not in shown:
                    break
            else:
                raise AssertionError(f"{interface} has no queue: {shown}")

    def introduce(self, link: Link) -> None:
        """Tell the peer our addresses; it forgets them when its interface goes down."""
        self.run(f"ip -n {self.peer_ns} neighbour replace {OURS[4]} lladdr {link.mac} dev {self.peer} nud permanent")

    def add_ipv6(self, link: Link) -> None:
        """An IPv6 address for the peer. Only where it is needed: with it, the kernel multicasts whenever it likes."""
        self.run(f"ip -n {self.peer_ns} address add {PEER[6]}/64 dev {self.peer} nodad")
        self.run(f"ip -n {self.peer_ns} neighbour replace {OURS[6]} lladdr {link.mac} dev {self.peer} nud permanent")
        self.await_local_route()

    def await_local_route(self) -> None:
        """Wait until the peer takes packets to its IPv6 address. It may send from it at once; the route by which it
        delivers to itself is made by a worker of the kernel's (addrconf_dad_work), at any time on a busy machine, also
        where no duplicate is looked for. Until then it drops what is sent to it."""
        for _ in range(10_000):
            shown = subprocess.run(
                ["ip", "-n", self.peer_ns, "-6", "route", "show", "table", "local", PEER[6]],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            if shown.startswith("local"):
                return
        raise AssertionError(f"{PEER[6]} has no local route")

    def socket(self, family: int = 4, kind: int = socket.SOCK_DGRAM, port: int = 0) -> socket.socket:
        """A socket of the peer's kernel, bound to its address."""
        with namespace.inside(self.peer_ns):
            made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        made.bind((PEER[family], port))
        made.settimeout(10)
        self._open.append(made)
        return made

    def take_udp(self, driver: LinkDriver, count: int) -> list[LentFrame]:
        """Wait for `count` UDP frames; whatever else the kernel says is not counted."""
        frames: list[LentFrame] = []
        for _ in range(10_000):
            frames += [f for f in driver.take() if f.data[12:14] == b"\x08\x00" and f.data[23:24] == b"\x11"]
            if len(frames) >= count:
                break
            driver.wait(10_000_000)
        return frames

    def close(self) -> None:
        for made in reversed(self._open):
            with contextlib.suppress(OSError):
                made.close()


@pytest.fixture
def make_wire(make_namespace: Callable[[], str]) -> Iterator[Callable[[str], Wire]]:
    """Make wires of kind "veth" or "tap"."""
    made = []

    def make(kind: str = "veth") -> Wire:
        made.append(Wire(kind, make_namespace))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


@pytest.fixture
def veth(make_wire: Callable[[str], Wire]) -> Wire:
    return make_wire("veth")


@pytest.fixture
def tap(make_wire: Callable[[str], Wire]) -> Wire:
    return make_wire("tap")

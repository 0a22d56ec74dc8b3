# SPDX-License-Identifier: MIT
"""A stack is on the untagged network of its link, and on every kind of link it is the same frames."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from ustack.blocking.stack import Stack
from ustack.lab import namespace
from ustack.link.device import Link
from ustack.link.sim import SimNetwork

Wire = Any  # the class is in conftest

TAGS = {"none": [], "priority": [Dot1Q(vlan=0, prio=5)], "service priority": [Dot1AD(vlan=0)],
        "two priorities": [Dot1AD(vlan=0), Dot1Q(vlan=0)]}  # fmt: skip
FOREIGN = {"vlan 5": [Dot1Q(vlan=5)], "service vlan 7": [Dot1AD(vlan=7)], "reserved": [Dot1Q(vlan=4095)],
           "vlan 5 behind a priority": [Dot1Q(vlan=0), Dot1Q(vlan=5)]}  # fmt: skip


class Place:
    """A stack, and a way for frames to it."""

    def __init__(self, kind: str, make_wire: Callable[[str], Wire]) -> None:
        if kind == "sim":
            self.network: SimNetwork | None = SimNetwork()
            self.link: Link = self.network.a
            self.stack = Stack(self.link, "198.18.0.2/24", now_ns=0)
        else:
            self.network = None
            self.wire = make_wire(kind)
            self.link = self.wire.open().link
            self.stack = Stack(self.link, "198.18.0.2/24")
            self.wait_for_carrier()
        self.listener = self.stack.listen(80)

    def wait_for_carrier(self) -> None:
        """A device that has just come up loses what is sent until the kernel has noticed."""
        for _ in range(200):
            told = subprocess.run(
                ["ip", "-n", self.wire.peer_ns, "link", "show", self.wire.peer], check=True, capture_output=True
            )
            if b"state UP" in told.stdout:
                return
            self.stack.run(5_000_000)

    def syn(self, tags: list[Any]) -> None:
        headers: Any = Ether(src="02:00:00:00:00:99", dst=self.link.mac)
        for tag in tags:
            headers = headers / tag.copy()
        frame = bytes(headers / IP(src="198.18.0.9", dst="198.18.0.2") / TCP(sport=4000, dport=80, flags="S"))
        if self.network is not None:
            self.network.b.inject(frame)
            self.stack.poll(self.network.now_ns)
            return
        with namespace.inside(self.wire.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((self.wire.peer, 0))
            raw.send(frame)

    def waits_for(self, counter: str) -> bool:
        for _ in range(100):
            if self.stack.counters()[counter]:
                return True
            if self.network is None:
                self.stack.run(10_000_000)
        return False


@pytest.fixture(
    params=["sim", pytest.param("veth", marks=pytest.mark.root), pytest.param("tap", marks=pytest.mark.root)]
)
def place(request: pytest.FixtureRequest, make_wire: Callable[[str], Wire]) -> Iterator[Place]:
    made = Place(request.param, make_wire)
    yield made
    made.stack.close(linger=0.0)


@pytest.mark.parametrize("tags", TAGS)
def test_an_untagged_or_priority_tagged_syn_is_answered(place: Place, tags: str) -> None:
    place.syn(TAGS[tags])
    assert place.waits_for("segments_in")
    assert place.stack.counters()["drop_vlan"] == 0
    assert place.stack.leaks()["syns"] == 1


@pytest.mark.parametrize("tags", FOREIGN)
def test_another_networks_syn_is_dropped_and_counted(place: Place, tags: str) -> None:
    place.syn(FOREIGN[tags])
    assert place.waits_for("drop_vlan")
    assert place.stack.counters()["drop_vlan"] == 1
    assert place.stack.leaks()["syns"] == 0

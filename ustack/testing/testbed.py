# SPDX-License-Identifier: MIT
"""One stack, one simulated wire, a manual clock; the far end of the wire is free for scripted peers.

The testbed moves frames and time (sim.world), answers ARP for the peers' addresses, checks that everything the stack
sends is well formed, and sorts it to the peers. It knows nothing of TCP's rules: those are in the scripts that use it.

Read first: ustack/link/sim.pyi (the wire), ustack/blocking/stack.pyi. Above: peer, states, test suites. Below:
sim.world, blocking, link.sim.
"""

from __future__ import annotations

from typing import Any, Protocol

from ustack import Connection, Stack
from ustack.buf.lent import alive as lent_alive
from ustack.link.sim import SimNetwork
from ustack.sim.world import MICROSECOND, MILLISECOND, SECOND, TICK_NS, World
from ustack.testing.leaks import LeakChecked, assert_no_leaks, difference, drops
from ustack.testing.segment import Segment, build_arp, internet_checksum, ipv4_bytes, ipv4_text, parse_frame

__all__ = [
    "BROADCAST_MAC",
    "MICROSECOND",
    "MILLISECOND",
    "PEER_ADDRESS",
    "PEER_MAC",
    "SECOND",
    "STACK_ADDRESS",
    "START_NS",
    "TICK_NS",
    "Taker",
    "Testbed",
    "read_available",
]

STACK_ADDRESS = "198.18.0.2"
PEER_ADDRESS = "198.18.0.1"
PEER_MAC = "02:00:00:00:00:fe"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"

START_NS = 1_000 * SECOND
"""The manual clock's start: not zero, so that a time before it can be told from no time."""


class Taker(Protocol):
    """Whoever stands behind an address and port of the wire's other end (ScriptedPeer does)."""

    def take(self, segment: Segment) -> bool:
        """A segment for it has arrived. False: it is for nobody."""


class Testbed(LeakChecked, World):
    """A stack on one end of a SimNetwork, a script on the other.

    config: as Stack's.  network: keyword arguments of SimNetwork.  It is a context manager: leaving it without an
    exception closes the stack and asserts that nothing leaked.
    """

    finishes_turns = True
    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(
        self,
        *,
        seed: int = 1,
        now_ns: int = START_NS,
        address: str = STACK_ADDRESS + "/24",
        network: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        """Open the stack and take its announcement off the wire."""
        super().__init__(SimNetwork(seed, now_ns=now_ns, **(network or {})), now_ns=now_ns)
        self.stack = Stack(self.network.a, address, seed=seed, now_ns=now_ns, **config)
        self._lent_before = lent_alive()
        self.link = self.network.b
        self.stack_mac = self.network.a.mac
        self.stack_address = address.partition("/")[0]
        self.peers: dict[tuple[str, int], Taker] = {}
        self.answers_arp_for = {PEER_ADDRESS}
        self.frames: list[bytes] = []
        """Every frame that the stack sent, oldest first; tests may clear it."""
        self.icmp: list[bytes] = []
        """ICMP packets (from their IPv4 header on) that the stack sent."""
        self.strays: list[Segment] = []
        """Segments for which no peer is there."""
        self._before = self.stack.counters()
        self.pump()
        self.mark()

    def stacks(self) -> tuple[Stack, ...]:
        """The one under test."""
        return (self.stack,)

    # ------------------------------------------------------------ frames

    def inject(self, frame: bytes, *, pump: bool = True) -> None:
        """Send a frame to the stack. pump=False leaves it on the wire, so that several arrive in one burst."""
        self.link.inject(frame)
        if pump:
            self.pump()

    def collect(self) -> bool:
        """Sort what has arrived at the free end; True if there was something."""
        some = False
        while (frame := self.link.receive()) is not None:
            some = True
            self.frames.append(frame)
            if frame[12:14] == b"\x08\x06":
                self._answer_arp(frame)
                continue
            assert internet_checksum(frame[14:34]) == 0, f"the stack sent a bad IPv4 checksum: {frame.hex()}"
            segment = parse_frame(frame)
            if segment is None:
                self.icmp.append(frame[14:])
                continue
            assert segment.checksum_ok, f"the stack sent a bad checksum: {segment}"
            assert segment.src == self.stack_address, f"the stack sent from {segment.src}"
            peer = self.peers.get((segment.dst, segment.dport))
            if peer is None or not peer.take(segment):
                self.strays.append(segment)
        return some

    def _answer_arp(self, frame: bytes) -> None:
        target = ipv4_text(frame[38:42])
        if frame[20:22] != b"\x00\x01" or target not in self.answers_arp_for:
            return
        self.link.inject(
            build_arp(
                operation=2,
                sender_mac=PEER_MAC,
                sender=target,
                target_mac=self.stack_mac,
                target=ipv4_text(frame[28:32]),
                dst_mac=self.stack_mac,
            )
        )

    def introduce(self, address: str = PEER_ADDRESS) -> None:
        """Have the stack learn a peer's station address before the script starts, through an ARP request of ours."""
        self.answers_arp_for.add(address)
        ask = build_arp(
            operation=1, sender_mac=PEER_MAC, sender=address, target=self.stack_address, dst_mac=BROADCAST_MAC
        )
        self.inject(ask)
        assert any(f[12:14] == b"\x08\x06" and f[28:32] == ipv4_bytes(self.stack_address) for f in self.frames)
        self.mark()

    # ------------------------------------------------------------ counters

    def mark(self) -> None:
        """Count from here: see counted() and dropped()."""
        self._before = self.stack.counters()

    def counted(self) -> dict[str, int]:
        """Counters that changed since mark(), by how much."""
        return difference(self.stack.counters(), self._before)

    def dropped(self) -> dict[str, int]:
        """Drop reasons counted since mark()."""
        return drops(self.counted())

    # ------------------------------------------------------------ end

    def close(self) -> None:
        """Close the stack and assert that nothing leaked."""
        assert_no_leaks(self.stack, self._lent_before)
        self.network.a.close()
        self.network.b.close()


def read_available(connection: Connection) -> tuple[bytes, bool]:
    """What a connection has for its application now, without waiting: (bytes, whether the end was reached)."""
    data = b""
    while True:
        try:
            piece = connection.receive(65536, timeout=0)
        except BlockingIOError:
            return data, False
        if not piece:
            return data, True
        data += piece

# SPDX-License-Identifier: MIT
"""ECN with the kernel's TCP at the other end of a wire that marks: who opens, and who sends, in all four ways.

kernel, net.ipv4.tcp_ecn=1 ── veth ── [ wire: rate, delay, mark ] ── veth ── a Stack in this process
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.net.patience import PATIENT, make_patient
from tests.net.wires import running
from ustack import Stack, WouldBlock
from ustack.bridge.wire import Wire
from ustack.lab import inside
from ustack.lab.making import Made
from ustack.link.packet_mmap import PacketMmapLink
from ustack.testing.testbed import read_available

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

KERNEL, BESIDE, STACK = "198.18.0.1", "198.18.0.2", "198.18.0.3"
PORT = 7000
BYTES = 4 << 20
LIMIT_S = 60.0
PATH = {"rate_bps": 40_000_000, "delay_ns": 5_000_000, "queue_bytes": 4_000_000, "mark_bytes": 40_000}
TCPI_OPT_ECN, TCPI_OPT_ECN_SEEN = 8, 16
TCPI_TOTAL_RETRANS_AT = 100


class Ends:
    """A kernel, a stack, and the wire between them."""

    def __init__(self, netns: str, stack: Stack, wire: Wire) -> None:
        self.netns = netns
        self.stack = stack
        self.wire = wire

    def drive(self, holds: Callable[[], Any]) -> None:
        """Move the stack until something holds."""
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < deadline, (self.stack.connections("connection"), self.stack.counters())
            self.stack.run(1_000_000)

    def listen(self) -> socket.socket:
        """A socket of the kernel's that accepts."""
        with inside(self.netns):
            listener = socket.create_server((KERNEL, PORT))
        listener.setblocking(False)
        return listener

    def open(self, opener: str, resources: ExitStack) -> tuple[Any, socket.socket]:
        """(the stack's connection, the kernel's socket), opened by either."""
        if opener == "stack":
            listener = resources.enter_context(self.listen())
            connection = self.stack.connect(KERNEL, PORT, wait=False)
            self.drive(lambda: select.select([listener], [], [], 0)[0])
            kernel = resources.enter_context(listener.accept()[0])
        else:
            with inside(self.netns):
                kernel = resources.enter_context(socket.socket())
            ours = self.stack.listen(PORT)
            kernel.setblocking(False)
            kernel.connect_ex((STACK, PORT))
            self.drive(lambda: ours.pending)
            connection = ours.accept(timeout=0)
            ours.close()
        kernel.setblocking(False)
        kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        return connection, kernel


@contextmanager
def ends(make_lab: Callable[..., Made], *, kernel_ecn: int, **config: Any) -> Iterator[Ends]:
    """Both, joined by a wire that marks."""
    labs = [make_lab(link="veth", address=f"{BESIDE}/24", peer_address=f"{KERNEL}/24"),
            make_lab(link="veth", address=f"{KERNEL}/24", peer_address=f"{BESIDE}/24")]  # fmt: skip
    netns, ours = str(labs[0].peer_netns), str(labs[1].peer_netns)
    with inside(netns):
        Path("/proc/sys/net/ipv4/tcp_ecn").write_text(str(kernel_ecn))
    with ExitStack() as resources:
        links = []
        for lab in labs:
            with lab.inside():
                links.append(resources.enter_context(PacketMmapLink(lab.ifname, busy_poll="never")))
        wire = resources.enter_context(Wire(links[0], links[1], **PATH))
        with inside(ours):
            device = resources.enter_context(PacketMmapLink(labs[1].peer_ifname, busy_poll="never"))
        stack = resources.enter_context(Stack(device, f"{STACK}/24", **config))
        with running(wire):
            yield Ends(netns, stack, wire)


def kernel_info(sock: socket.socket) -> tuple[int, int]:
    """tcpi_options and tcpi_total_retrans of the kernel's connection."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    return info[5], struct.unpack_from("=I", info, TCPI_TOTAL_RETRANS_AT)[0]


def stream(both: Ends, connection: Any, kernel: socket.socket, sender: str) -> int:
    """BYTES from one to the other; how many have arrived."""
    data, sent, arrived = bytes(1 << 16), 0, 0

    def step() -> bool:
        nonlocal sent, arrived
        if sender == "stack":
            if sent < BYTES:
                with suppress(WouldBlock):
                    connection.send(data, timeout=0)
                    sent += len(data)
            with suppress(BlockingIOError):
                arrived += len(kernel.recv(1 << 20))
        else:
            if sent < BYTES:
                with suppress(BlockingIOError):
                    sent += kernel.send(data)
            arrived += len(read_available(connection)[0])
        return arrived >= BYTES

    both.drive(step)
    return arrived


@pytest.mark.parametrize("opener", ["kernel", "stack"])
@pytest.mark.parametrize("sender", ["kernel", "stack"])
def test_marks_slow_the_sender_and_nothing_is_lost(make_lab: Callable[..., Made], opener: str, sender: str) -> None:
    with ends(make_lab, kernel_ecn=1, ecn=1, **PATIENT) as both, ExitStack() as resources:
        make_patient(inside(both.netns))
        connection, kernel = both.open(opener, resources)
        assert both.stack.connections("connection")[0]["ecn"] == "classic"
        assert stream(both, connection, kernel, sender) >= BYTES
        options, retransmitted = kernel_info(kernel)
        assert options & TCPI_OPT_ECN
        counters, wire = both.stack.counters(), both.wire.counters()
        direction = wire["backward" if sender == "stack" else "forward"]
        assert direction["queue_dropped"] == direction["lost"] == 0
        assert direction["marked"] > 0
        if sender == "stack":
            assert options & TCPI_OPT_ECN_SEEN
            assert counters["ece_in"] >= counters["ecn_reductions"] > 0
            assert counters["cwr_out"] > 0
            assert counters["fast_retransmits"] == 0
        else:
            assert 0 < counters["ce_in"] <= direction["marked"]
            assert counters["cwr_in"] > 0
            assert retransmitted == 0
        assert counters["ecn_ignored_in"] == 0
        connection.abort()
        both.stack.run(1_000_000)


@pytest.mark.parametrize(("kernel_ecn", "ecn", "opener", "agreed"), [
    (2, 2, "kernel", False), (2, 2, "stack", False), (1, 2, "kernel", True), (2, 1, "stack", True),
    (1, 0, "kernel", False), (0, 1, "stack", False),
])  # fmt: skip
def test_both_ends_find_the_same_agreement(
    make_lab: Callable[..., Made], kernel_ecn: int, ecn: int, opener: str, agreed: bool
) -> None:
    with ends(make_lab, kernel_ecn=kernel_ecn, ecn=ecn) as both, ExitStack() as resources:
        connection, kernel = both.open(opener, resources)
        assert (both.stack.connections("connection")[0]["ecn"] == "classic") is agreed
        assert bool(kernel_info(kernel)[0] & TCPI_OPT_ECN) is agreed
        connection.abort()
        both.stack.run(1_000_000)

# SPDX-License-Identifier: MIT
"""A path of 1500 bytes between links of 9000, and nobody says so: the stack and a real kernel, through `ustack wire`.

Both handshakes offer segments of 8960 bytes. Each side finds out by itself what it may send.
"""

import hashlib
import json
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ustack import Connection, Listener, Stack, WouldBlock
from ustack.lab import inside
from ustack.lab.making import Made
from ustack.link.packet_mmap import PacketMmapLink
from ustack.testing.testbed import read_available

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

KERNEL, BESIDE, OURS = "198.18.0.1", "198.18.0.2", "198.18.0.3"
LINK_MTU, PATH_MTU = 9000, 1500
LIMIT_S = 60.0
STREAM = 6 << 20
GAP = 8


class Path9000:
    """The kernel's namespace, the stack at the other end, and the wire between them in a process of its own."""

    def __init__(self, make_lab: Callable[..., Made], resources: ExitStack, *words: str, **config: Any) -> None:
        labs = [
            make_lab(address=f"{other}/24", peer_address=f"{own}/24", mtu=LINK_MTU)
            for own, other in ((KERNEL, BESIDE), (BESIDE, KERNEL))
        ]
        self.netns = str(labs[0].peer_netns)
        with inside(self.netns):
            Path("/proc/sys/net/ipv4/tcp_mtu_probing").write_text("1")
            Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
        ends = [f"{lab.ifname}@{lab.netns}" for lab in labs]
        self.wire = subprocess.Popen(
            [sys.executable, "-m", "ustack.cli", "wire", *ends, "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        resources.callback(self._kill)
        assert self.wire.stdout is not None
        ready, _, _ = select.select([self.wire.stdout], [], [], LIMIT_S)
        assert ready
        assert self.wire.stdout.readline().startswith(b"ready ")
        with inside(str(labs[1].peer_netns)):
            assert labs[1].peer_ifname is not None
            self.device = resources.enter_context(PacketMmapLink(labs[1].peer_ifname))
        self.stack: Any = resources.enter_context(Stack(self.device, f"{OURS}/24", **config))

    def _kill(self) -> None:
        if self.wire.poll() is None:
            self.wire.kill()
        self.wire.communicate()

    def drive(self, holds: Callable[[], bool]) -> None:
        """Move the stack until `holds()`."""
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < deadline, (self.stack.connections("connection")[:2], self.stack.counters())
            self.stack.run(1_000_000)

    def figures(self) -> dict[str, dict[str, int]]:
        """End the wire; what became of the packets."""
        self.wire.send_signal(signal.SIGTERM)
        out, errors = self.wire.communicate(timeout=LIMIT_S)
        assert (self.wire.returncode, errors) == (0, b"")
        found: dict[str, dict[str, int]] = json.loads(out)
        return found


@pytest.fixture
def narrow(make_lab: Callable[..., Made]) -> Iterator[Callable[..., Path9000]]:
    """Make the path: narrow("--mtu", "1500", **settings of the stack)."""
    with ExitStack() as resources:
        yield lambda *words, **config: Path9000(make_lab, resources, *words, **config)


def accepted(path: Path9000, client: socket.socket, listener: Listener) -> Connection:
    """Our end of a connection that the kernel's `client` opens; that does not block from now on."""
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.connect((OURS, 7000))
    path.drive(lambda: listener.pending > 0)
    return listener.accept(timeout=0)


def test_the_stack_sends_through_it(narrow: Callable[..., Path9000]) -> None:
    path = narrow("--mtu", str(PATH_MTU), "--delay", "1ms", rto_initial_ns=100_000_000)
    listener = path.stack.listen(7000)
    with inside(path.netns):
        client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # a failure waits for a window of rounds
    with client:
        server = accepted(path, client, listener)
        assert path.stack.connections("connection")[0]["path_mtu"] == LINK_MTU
        data = random.Random(1).randbytes(1 << 16)
        sent, received, digests = 0, 0, [hashlib.sha256(), hashlib.sha256()]

        def step() -> bool:
            nonlocal sent, received
            found = PATH_MTU - GAP <= path.stack.connections("connection")[0]["path_mtu"] <= PATH_MTU
            if not found and sent - received < 1 << 20:
                piece = data[sent % len(data) :]
                with suppress(WouldBlock):
                    taken = server.send(piece, timeout=0)
                    digests[0].update(piece[:taken])
                    sent += taken
            with suppress(BlockingIOError):
                arrived = client.recv(1 << 20)
                digests[1].update(arrived)
                received += len(arrived)
            return found and received == sent

        path.drive(step)
        assert digests[0].digest() == digests[1].digest()
        server.abort()
        path.stack.run(1_000_000)
    counted = path.stack.counters()
    assert counted["black_holes"] == 1
    assert counted["mtu_probes"] >= 2
    lost = path.figures()["backward"]["beyond_mtu"]
    assert lost >= counted["mtu_probes_lost"] > 0


def test_the_kernel_sends_through_it(narrow: Callable[..., Path9000]) -> None:
    """The kernel's own search is the proof that the path is what it is meant to be, and that our ACKs let it go on."""
    path = narrow("--mtu", str(PATH_MTU), "--delay", "1ms")
    with inside(path.netns):
        listener = socket.create_server((KERNEL, 7000))
    listener.setblocking(False)
    with listener:
        client = path.stack.connect(KERNEL, 7000, wait=False)
        path.drive(lambda: client.state == "ESTABLISHED")
        ready, _, _ = select.select([listener], [], [], LIMIT_S)  # our ACK is still on the wire
        assert ready
        peer, _ = listener.accept()
        data = random.Random(2).randbytes(STREAM)
        sent, received = 0, bytearray()
        with peer:
            peer.setblocking(False)

            def step() -> bool:
                nonlocal sent
                if sent < len(data):
                    with suppress(BlockingIOError):
                        sent += peer.send(data[sent : sent + (1 << 18)])
                received.extend(read_available(client)[0])
                return len(received) == len(data)

            path.drive(step)
            assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
            client.abort()
            path.stack.run(1_000_000)
    assert path.figures()["forward"]["beyond_mtu"] > 0


def test_a_wide_path_needs_nothing(narrow: Callable[..., Path9000]) -> None:
    """The same without --mtu: no probe, no small segment."""
    path = narrow("--delay", "1ms")
    listener = path.stack.listen(7000)
    with inside(path.netns):
        client = socket.socket()
    with client:
        server = accepted(path, client, listener)
        assert server.send(bytes(1 << 18), timeout=0) == 1 << 18
        received = bytearray()

        def step() -> bool:
            with suppress(BlockingIOError):
                received.extend(client.recv(1 << 20))
            return len(received) == 1 << 18

        path.drive(step)
        assert path.stack.connections("connection")[0]["path_mtu"] == LINK_MTU
        server.abort()
        path.stack.run(1_000_000)
    assert path.stack.counters()["mtu_probes"] == 0
    assert path.figures()["backward"]["beyond_mtu"] == 0

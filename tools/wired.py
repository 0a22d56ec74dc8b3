# SPDX-License-Identifier: MIT
"""Two namespaces whose kernels are joined by `ustack wire`, and the servers that are compared over it.

    client's namespace ── veth ── [ ustack wire ] ── veth ── server's namespace

Each server has such a pair to itself, and the wire is started anew for each run, with the run's own path and seed: two
servers then see the same losses. The receiving kernel's buffers are opened wide, so that they never are the limit, and
what it has learnt about a path is forgotten with the connection.

It must not: measure anything. Above: bench_loss. Below: servers, load, lab.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ustack.lab import Lab, inside
from ustack.tools.generators import LoadError
from ustack.tools.generators import inside as prefix
from ustack.tools.pair import Pair
from ustack.tools.servers import STOP_TIMEOUT_S, WITH_US, Epoll, Ustack, build_epoll, ustack_command, ustack_info

CLIENT, KERNEL, USTACK = "198.18.0.1", "198.18.0.2", "198.18.0.3"
PREFIX_LENGTH = 24
# 1 Gb/s at 200 ms is 25 MB in flight, and twice that in a queue of one such product.
SETTINGS = {
    "tcp_rmem": "4096 131072 134217728",
    "tcp_wmem": "4096 131072 134217728",
    "tcp_no_metrics_save": "1",
}
READY_TIMEOUT_S = 30.0

_numbers = itertools.count()


@dataclass(frozen=True)
class WiredPair:
    """Two namespaces, the interface in the server's, and the two ends that a wire joins (client's first)."""

    client_netns: str
    server_netns: str
    server_ifname: str
    ends: tuple[str, str]

    @contextmanager
    def wire(self, settings: Sequence[str], core: int, figures: dict[str, Any]) -> Iterator[None]:
        """A wire for as long as the block lasts; then `figures` has what it counted. Raises LoadError."""
        words = [*WITH_US, "taskset", "-c", str(core), *_urgently(), *ustack_command(), "wire", *self.ends]
        process = subprocess.Popen(
            [*words, "--json", *settings], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT_S)
            if not ready or not process.stdout.readline().startswith(b"ready "):
                process.kill()
                raise LoadError(f"ustack wire: {process.communicate()[1].decode().strip() or 'not ready'}")
            yield
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=STOP_TIMEOUT_S)
            if process.returncode != 0:
                raise LoadError(f"ustack wire: ended with {process.returncode}: {errors.decode().strip()}")
            figures.update(json.loads(out))
        except subprocess.TimeoutExpired:
            raise LoadError("ustack wire: does not end") from None
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _urgently() -> list[str]:
    """A wire that waits for a processor changes the path that it is."""
    return ["chrt", "--fifo", "1"] if shutil.which("chrt") else []


@contextmanager
def wired_pair(name: str) -> Iterator[WiredPair]:
    """Make the two namespaces and the links; they are gone when the block ends."""
    name = f"{name}-{os.getpid()}-{next(_numbers)}"
    with ExitStack() as stack:
        labs = [
            stack.enter_context(
                Lab(
                    f"{name}-{side}",
                    peer_netns=f"{name}-{side}",
                    peer_address=f"{own}/{PREFIX_LENGTH}",
                    address=f"{other}/{PREFIX_LENGTH}",
                )
            )
            for side, own, other in (("c", CLIENT, KERNEL), ("s", KERNEL, CLIENT))
        ]
        for lab in labs:
            with inside(lab.peer_netns):
                for setting, value in SETTINGS.items():
                    Path(f"/proc/sys/net/ipv4/{setting}").write_text(value)
        client, server = labs
        assert client.peer_netns is not None
        assert server.peer_netns is not None
        assert server.peer_ifname is not None
        yield WiredPair(
            client.peer_netns,
            server.peer_netns,
            server.peer_ifname,
            (f"{client.ifname}@{client.netns}", f"{server.ifname}@{server.netns}"),
        )


class WiredServer:
    """What a server over a wire has beyond one on a bare link: its pair, and the congestion control asked for."""

    pair_of_wire: WiredPair
    address = ""
    cc = "cubic"
    bodies: dict[str, int]
    log: IO[bytes] | None = None


class WiredUstack(WiredServer, Ustack):
    """`ustack serve` beside the kernel's own address, on the interface at the wire's far end."""

    address = USTACK

    def prepare(self) -> None:
        """Ask what it is."""
        self.info = ustack_info()
        self.version = str(self.info.get("version", ""))
        self.client_netns = self.pair_of_wire.client_netns

    def command(self) -> list[str]:
        """Pinned as a whole."""
        pair = self.pair_of_wire
        words = ["taskset", "-c", str(self.core), *ustack_command(), "serve", str(self.site), "--cc", self.cc]
        words += ["--link", f"dev:{pair.server_ifname}", "--netns", pair.server_netns]
        return [*words, "--address", f"{self.address}/{PREFIX_LENGTH}"]


class WiredKernel(WiredServer, Epoll):
    """The kernel's own TCP under a bare epoll server."""

    name = "kernel"
    address = KERNEL

    def prepare(self) -> None:
        """Compile it."""
        pair = self.pair_of_wire
        self.use(Pair(pair.server_netns, pair.client_netns, self.address))
        self.program = build_epoll(self.work / "reference")

    def command(self) -> list[str]:
        """Bodies are given by their sizes, the control in the environment."""
        words = [*prefix(self.pair_of_wire.server_netns, self.core), "env", f"TCP_CONGESTION={self.cc}"]
        return [
            *words,
            str(self.program),
            self.address,
            "80",
            *(f"{name}={size}" for name, size in self.bodies.items()),
        ]


class WiredLoad(WiredKernel):
    """The kernel's server that fills a queue, beside whoever is measured: the same for all."""

    name = "load"


CONTESTANTS: dict[str, type[WiredUstack] | type[WiredKernel]] = {"ustack": WiredUstack, "kernel": WiredKernel}


@contextmanager
def contestants(names: Sequence[str], bodies: dict[str, int], cc: str, work: Path, core: int) -> Iterator[list[Any]]:
    """Servers that run, each at the far end of a pair of its own, and beside it the kernel's at KERNEL, for a load.

    Raises LoadError, LabError.
    """
    site = work / "site"
    site.mkdir()
    for name, size in bodies.items():
        with (site / name.lstrip("/")).open("wb") as out:
            out.write(os.urandom(min(size, 1 << 20)))
            out.truncate(size)  # the rest is a hole: nothing looks at what arrives
    with ExitStack() as stack:
        servers = []
        for name in names:
            pair = stack.enter_context(wired_pair(f"loss-{name[0]}"))
            measured = CONTESTANTS[name]
            for kind in [measured] if measured is WiredKernel else [measured, WiredLoad]:
                server = kind(work, site, core)
                server.pair_of_wire, server.bodies, server.cc = pair, bodies, cc
                stack.callback(server.stop)
                server.start()
                if kind is measured:
                    servers.append(server)
        yield servers

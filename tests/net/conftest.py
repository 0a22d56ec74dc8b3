# SPDX-License-Identifier: MIT
"""Real clients in namespaces: a site, a server as a user starts it, a stack in this process, programs at the other end.

    serving(link)    `ustack serve` in a process of its own: what a user runs. Its figures come through --json-stats.
    local(link)      a Stack in this process, moved by drive(): its counters and records can be seen, its times set.

In both, clients live in the peer's namespace: programs through run() and start(), sockets opened within inside().
Nothing here waits by sleeping: drive() moves the stack until something holds, until() reads the server's next figures.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ustack.lab import Plan, ingress, namespace
from ustack.lab.links import End, netlink
from ustack.lab.making import Made, down, up

ADDRESS = "198.18.0.2"
PEER_ADDRESS = "198.18.0.1"
MIB = 1 << 20
SIZES = {"big.bin": 100 * MIB, "ten.bin": 10 * MIB, "one.bin": MIB, "16k.bin": 16384, "512.bin": 512}
PAGES = 50  # small files, each with a body of its own: an answer to the wrong request shows
LIMIT_S = 60.0  # by then a test has failed; none waits for it

_numbers = itertools.count()


def _name() -> str:
    return f"nt{os.getpid():x}-{next(_numbers):x}"


# ---------------------------------------------------------------- what is served


@dataclass(frozen=True)
class Site:
    """A directory of seeded files."""

    path: Path
    digests: dict[str, str] = field(default_factory=dict)

    def body(self, name: str) -> bytes:
        """What a GET of `name` must bring."""
        return (self.path / name).read_bytes()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Seeded files of 512 bytes to 100 MiB, and small pages; removed at the end."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.path.chmod(0o755)  # the server is nobody by the time that it looks into it
    for name, size in SIZES.items():
        seeded, digest = random.Random(name), hashlib.sha256()
        with (site.path / name).open("wb") as out:
            for start in range(0, size, MIB):
                block = seeded.randbytes(min(MIB, size - start))
                digest.update(block)
                out.write(block)
        site.digests[name] = digest.hexdigest()
    (site.path / "pages").mkdir()
    for number in range(PAGES):
        (site.path / f"pages/{number}.txt").write_text(f"page {number}\n" * (1 + 37 * number))
    yield site
    shutil.rmtree(site.path)


@pytest.fixture(params=["veth", "tap"], scope="session")
def link(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it runs on both kinds of link."""
    return str(request.param)


# ---------------------------------------------------------------- the other end of a link


class Client:
    """A namespace in which programs and sockets of the kernel's stack live."""

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.started: list[subprocess.Popen[bytes]] = []
        self.sockets: list[socket.socket] = []

    def inside(self) -> Any:
        """Context: what is opened in it belongs to this namespace."""
        return namespace.inside(self.netns)

    def ifname(self) -> str:
        """Its one interface, but for the loopback."""
        with self.inside():
            return next(name for _, name in socket.if_nameindex() if name != "lo")

    def command(self, *words: str) -> list[str]:
        """It execs: the pid is the program's own."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", *words]

    def run(self, *words: str, timeout: float = LIMIT_S, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end, which must be a good one."""
        done = subprocess.run(self.command(*words), capture_output=True, timeout=timeout, check=False, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout[-500:], done.stderr[-500:])
        return done

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that is killed, if need be, when the test ends."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        self.started.append(subprocess.Popen(self.command(*words), **options))
        return self.started[-1]

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in this namespace that does not block; closed at the latest when the test ends."""
        with self.inside():
            self.sockets.append(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
        return self.sockets[-1]

    def connect(self, address: str = ADDRESS, port: int = 80, *, receive_buffer: int = 0) -> socket.socket:
        """A socket of the kernel's stack that does not block and is about to connect: see drive()."""
        client = self.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect_ex((address, port))
        return client

    def packet_socket(self, ifname: str) -> socket.socket:
        """Whole frames as they are on the wire at this end, both ways; not blocking."""
        wire = self.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        wire.bind((ifname, 0x0003))
        return wire

    def set_link(self, ifname: str, state: str) -> None:
        """Set an interface "up" or "down"."""
        with netlink(self.netns) as ip:
            ip.link("set", index=ip.link_lookup(ifname=ifname)[0], state=state)

    def remove_link(self, ifname: str) -> None:
        """Unplug it."""
        with netlink(self.netns) as ip:
            ip.link("del", index=ip.link_lookup(ifname=ifname)[0])

    def end(self) -> None:
        """Close the sockets and kill what still runs, by its pid."""
        for one in self.sockets:
            one.close()
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


# ---------------------------------------------------------------- a server as a user starts it


class Serving(Client):
    """`ustack serve` and its peer. process: the server. ready: the line that it printed."""

    address = ADDRESS

    def __init__(self, link: str, directory: Path, options: tuple[str, ...], log: Path) -> None:
        name = _name()
        super().__init__(f"{name}-b")
        self.link = link
        self.ours_netns = f"{name}-a"
        self.log = log
        self.figures: list[dict[str, Any]] = []
        self.ended = False
        self.changed = threading.Condition()
        words = [sys.executable, "-m", "ustack.cli", "serve", str(directory), "--link", link]
        words += ["--netns", self.ours_netns, "--peer-netns", self.netns, *options]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
        self.ready = self.process.stdout.readline().decode() if readable else ""
        self.reader = threading.Thread(target=self._read, name="figures", daemon=True)
        self.reader.start()

    def url(self, path: str) -> str:
        """Where a client finds a file."""
        return f"http://{ADDRESS}/{path}"

    def get(self, path: str, *options: str, timeout: float = LIMIT_S) -> bytes:
        """Standard output of curl for one path."""
        return self.run("curl", "-sS", *options, self.url(path), timeout=timeout).stdout

    def _read(self) -> None:
        """In a thread: the server must never wait for a reader of its figures."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.figures.append(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def until(self, holds: Callable[[dict[str, Any]], bool], timeout: float = LIMIT_S) -> dict[str, Any]:
        """The first figures, of those that are printed from now on, for which `holds` is true."""
        seen = len(self.figures)

        def found() -> dict[str, Any] | None:
            return next((one for one in self.figures[seen:] if holds(one)), None)

        with self.changed:
            self.changed.wait_for(lambda: found() or self.ended, timeout)
            figures = found()
        assert figures, (self.figures[-1:], self.said())
        return figures

    def resident_bytes(self) -> int:
        """Memory of the server's process that is in RAM and its own: the rings and mapped files are not."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024

    def said(self) -> str:
        """What it wrote to its standard error."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it as a user does; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def served(link: str, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One `ustack serve` for all tests of a module, for those that leave it as it was."""
    server = Serving(link, site.path, (), tmp_path_factory.mktemp("served") / "log")
    try:
        assert server.ready == f"ready http://{ADDRESS}:80/\n", server.said()
        yield server
    finally:
        server.end()
        status = server.stop()
    assert (status, server.said()) == (0, "")
    assert not namespace.exists(server.netns)
    assert not namespace.exists(server.ours_netns)


@pytest.fixture
def serving(site: Site, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Start servers: serving(link, *options, directory=...). All end well, in silence, and leave no namespace."""
    started: list[Serving] = []

    def start(link: str, *options: str, directory: Path | None = None) -> Serving:
        started.append(Serving(link, directory or site.path, options, tmp_path / f"log-{len(started)}"))
        assert started[-1].ready.startswith("ready "), started[-1].said()
        return started[-1]

    yield start
    for server in started:
        server.end()
    ended = [(server.process.poll() is None, server.stop(), server.said()) for server in started]
    for server, (ran, status, said) in zip(started, ended, strict=True):
        if ran:  # a test that ended it has looked at how it went
            assert (status, said) == (0, "")
        assert not namespace.exists(server.netns)
        assert not namespace.exists(server.ours_netns)


# ---------------------------------------------------------------- a stack in this process


class Local(Client):
    """A Stack on our end of a lab; the kernel, or another Local, is at the other."""

    def __init__(
        self, lab: Made, resources: ExitStack, gateway: str | None, capture: Path | None, config: dict[str, Any]
    ) -> None:
        from ustack.blocking.stack import Stack
        from ustack.link.packet_mmap import PacketMmapLink
        from ustack.link.tap import TapLink
        from ustack.link.tee import TeeLink

        assert lab.peer_netns is not None
        super().__init__(lab.peer_netns)
        self.lab = lab
        self.resources = resources
        with lab.inside():
            self.device = TapLink(lab.ifname, create=False) if lab.link == "tap" else PacketMmapLink(lab.ifname)
        resources.callback(self.device.close)
        self.tee = None if capture is None else TeeLink(self.device, capture)
        if self.tee is not None:
            resources.callback(self.tee.close)
        self.stack: Any = Stack(self.tee or self.device, lab.address, gateway, **config)
        self.server: Any = None

    @property
    def peer_ifname(self) -> str:
        """The interface at the other end."""
        assert self.lab.peer_ifname is not None
        return self.lab.peer_ifname

    def serve(self, directory: Path, *, backlog: int = 4096, **options: Any) -> Any:
        """The HTTP server on port 80. options: HttpServer's."""
        from ustack.server.http import HttpServer

        self.server = self.resources.enter_context(HttpServer(directory, **options))
        self.stack.listen(80, backlog=backlog, application=self.server)
        return self.server

    def drive(self, holds: Callable[[], Any], *, timeout: float = LIMIT_S) -> None:
        """Move the stack until `holds()` is true."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, (self.stack.connections("connection")[:4], self.stack.counters())
            self.stack.run(1_000_000)

    def run_for(self, milliseconds: int) -> None:
        """Let a stretch of the stack's time pass: timers expire, nothing else is waited for."""
        until = time.monotonic_ns() + milliseconds * 1_000_000
        self.drive(lambda: time.monotonic_ns() >= until)

    def finish(self, process: subprocess.Popen[bytes], *, timeout: float = LIMIT_S) -> tuple[int, bytes]:
        """Move the stack until a started program has ended; its status and output (a pipe's worth of it, at most)."""
        self.drive(lambda: process.poll() is not None, timeout=timeout)
        return process.returncode, process.communicate()[0]

    def counter(self, name: str) -> int:
        """One of the stack's counters."""
        return int(self.stack.counters()[name])

    def read(self, client: socket.socket, most: int = 65536) -> bytes | None:
        """What a non-blocking socket of the kernel has; None: nothing now; b"": the end."""
        try:
            return client.recv(most)
        except BlockingIOError:
            return None

    def read_all(self, client: socket.socket, length: int, most: int = 262144) -> bytes:
        """`length` bytes from the kernel's socket, the stack moving meanwhile."""
        out = bytearray()

        def step() -> bool:
            piece = self.read(client, min(most, length - len(out)))
            assert piece != b"", f"the end after {len(out)} of {length} bytes"
            out.extend(piece or b"")
            return len(out) == length

        self.drive(step)
        return bytes(out)

    def established(self, client: socket.socket) -> bool:
        """Whether the kernel's side of a connection is up."""
        return bool(select.select([], [client], [], 0)[1]) and not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def ask(self, path: str, **options: Any) -> socket.socket:
        """A connection of the kernel's over which a GET has been sent."""
        client = self.connect(**options)
        self.drive(lambda: self.established(client))
        client.send(f"GET /{path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode())
        return client

    def read_head(self, client: socket.socket) -> dict[str, str]:
        """Status (under "") and header fields of the response that comes; the body is left in the socket."""
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            head += self.read_all(client, 1)
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        return {"": lines[0].split()[1], **fields}


@pytest.fixture
def local() -> Iterator[Callable[..., Local]]:
    """Make stacks in this process: local(link, gateway=..., capture=..., **config). Closed, each must hold nothing."""
    made: list[Local] = []
    resources = ExitStack()

    def make(
        link: str,
        *,
        gateway: str | None = None,
        capture: Path | None = None,
        at_peer_of: Local | None = None,
        **config: Any,
    ) -> Local:
        lab = _lab_at_peer_of(at_peer_of) if at_peer_of is not None else _lab(link, resources)
        made.append(Local(lab, resources, gateway, capture, config))
        return made[-1]

    with resources:
        yield make
        for one in made:
            one.end()
        for one in made:
            with contextlib.suppress(OSError):
                one.stack.close(linger=1.0)
            # What is lent belongs to files that the server keeps mapped: counted once that has gone.
            held = {pool: count for pool, count in one.stack.leaks().items() if count and pool != "lent"}
            assert not held, f"the stack still holds {held}"
    from ustack.buf.lent import alive

    assert alive() == 0


def _lab(link: str, resources: ExitStack) -> Made:
    name = _name()
    lab = up(Plan(name, link=link, netns=f"{name}-a", peer_netns=f"{name}-b"))
    resources.callback(down, name)
    return lab


def _lab_at_peer_of(one: Local) -> Made:
    """The other end of a veth pair as a place for a stack, the kernel kept off it as well."""
    ingress.drop(End(one.netns, one.peer_ifname))
    lab = one.lab
    return Made(
        f"{lab.name}-peer", "veth", lab.peer_netns, one.peer_ifname, lab.netns, lab.ifname,
        "198.18.0.3/24", lab.address, None,
    )  # fmt: skip

# SPDX-License-Identifier: MIT
"""The servers that are compared, each alone in a pair of namespaces of its own: ustack, nginx, a bare epoll server.

A server is started with an explicit command, pinned to one core, waited for until it answers, and stopped by its pid,
whatever happens. All of them run at the same time: a server that waits costs nothing (the idle use of ustack, which
could spin, is measured), and runs can alternate without a restart between them.

The references get what their users would give them. nginx: one worker, no access log, sendfile, tcp_nopush, open files
remembered (ustack keeps files mapped as well), as many requests on a connection as the client likes.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from ustack.lab import inside as in_namespace
from ustack.tools.compare import DISTINCT_FILES, DISTINCT_FOLDERS, SITE
from ustack.tools.generators import LoadError, inside, run
from ustack.tools.pair import Pair, veth_pair

# The kernel ends the server if this process is killed; the pid stays the server's, for setpriv executes it.
WITH_US = ("setpriv", "--pdeathsig", "TERM")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
EPOLL_SOURCE = Path(__file__).parent / "reference" / "epoll_server.c"

NGINX_CONFIGURATION = """
worker_processes 1;
daemon off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_rlimit_nofile 65536;
events {{
    worker_connections 16384;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=64 inactive=1h;
    open_file_cache_valid 1h;
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {address}:80 backlog=4096;
        root {site};
    }}
}}
"""


def make_site(site: Path) -> None:
    """Write the files of SITE, of bytes that do not compress."""
    site.mkdir()
    for name, size in SITE.items():
        block = hashlib.shake_128(name.encode()).digest(min(size, 1 << 20))
        with (site / name.lstrip("/")).open("wb") as out:
            for start in range(0, size, len(block)):
                out.write(block[: size - start])


def make_distinct(site: Path) -> None:
    """Write the files that the load `distinct` asks for."""
    for folder in range(DISTINCT_FOLDERS):
        (site / "distinct" / str(folder)).mkdir(parents=True)
    for number in range(DISTINCT_FILES):
        path = site / "distinct" / str(number % DISTINCT_FOLDERS) / f"{number}.bin"
        path.write_bytes(number.to_bytes(4, "big") * 128)


def build_epoll(directory: Path) -> Path:
    """Compile the reference server with the system's compiler; returns the program."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise LoadError("no C compiler: install gcc, or leave the server `epoll` out with --servers")
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "epoll_server"
    run([compiler, "-O2", "-o", str(program), str(EPOLL_SOURCE)], timeout_s=120)
    return program


class Server:
    """A running server. Subclasses give the command; start() and stop() are for all.

    work: a directory for its files, which the caller removes. site: what to serve. core: where to run.
    """

    name = ""
    version = ""
    reads_files = True  # by their names, as a request gives them

    def __init__(self, work: Path, site: Path, core: int) -> None:
        """Nothing runs before start()."""
        self.work = work
        self.site = site
        self.core = core
        self.client_netns = ""
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.log: IO[bytes] | None = None
        self.stack = ExitStack()

    def start(self) -> None:
        """Make the namespaces, start the program and wait until it serves. Undoes everything when that fails."""
        try:
            self.prepare()
            self.log = self.stack.enter_context((self.work / f"{self.name}.log").open("w+b"))
            self.process = subprocess.Popen(
                [*WITH_US, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self.log,
                start_new_session=True,
            )
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def prepare(self) -> None:
        """Make what the command needs: here, a pair of namespaces."""
        pair = self.stack.enter_context(veth_pair(self.name))
        self.use(pair)

    def use(self, pair: Pair) -> None:
        """Serve at the far end of a pair."""
        self.pair = pair
        self.client_netns = pair.client_netns
        self.url = f"http://{pair.server_address}"

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def wait_ready(self) -> None:
        """Ask for the smallest file until it comes: for servers that do not say when they are ready."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            self.fail_if_dead()
            try:
                run(
                    [
                        *inside(self.client_netns),
                        "curl",
                        "-sf",
                        "-o",
                        os.devnull,
                        "--max-time",
                        "1",
                        self.url + "/512.bin",
                    ],
                    timeout_s=5,
                )
                return
            except LoadError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def wait_line(self) -> str:
        """The one line that the server prints when it serves."""
        process = self.process
        assert process is not None
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline().decode() if ready else ""
        if not line.startswith("ready "):
            self.fail_if_dead(wait_s=1.0)
            raise LoadError(f"{self.name}: not ready after {START_TIMEOUT_S:.0f} s, said {line!r}")
        return line

    @property
    def host(self) -> str:
        """The address that it serves."""
        return self.url.removeprefix("http://").partition(":")[0]

    def client_ifname(self) -> str:
        """The client's end of the link."""
        with in_namespace(self.client_netns):
            return next(name for _, name in socket.if_nameindex() if name != "lo")

    def fail_if_dead(self, wait_s: float = 0.0) -> None:
        """Raise LoadError with the end of the log if the program has ended."""
        assert self.process is not None
        try:
            status = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return
        raise LoadError(f"{self.name}: ended with {status}: {self.said()}")

    def how_it_is(self) -> str:
        """Empty while the program runs; how it ended, if it did."""
        try:
            self.fail_if_dead()
        except LoadError as error:
            return str(error)
        return ""

    def said(self) -> str:
        """The end of what the program wrote to its standard error."""
        if self.log is None:
            return ""
        self.log.seek(0)
        return self.log.read()[-500:].decode(errors="replace").strip()

    def check(self) -> None:
        """Fetch every file once and compare it with the one on disk: a fast wrong answer is not worth a measurement."""
        for name in SITE:
            fetched = self.work / "fetched"
            run(
                [*inside(self.client_netns), "curl", "-sf", "--max-time", "60", "-o", str(fetched), self.url + name],
                timeout_s=70,
            )
            if self.expected(name) != (fetched.stat().st_size, hashlib.sha256(fetched.read_bytes()).hexdigest()):
                raise LoadError(f"{self.name}: {name} arrived changed")
            fetched.unlink()

    def expected(self, name: str) -> tuple[int, str]:
        """Size and SHA-256 of one file."""
        body = (self.site / name.lstrip("/")).read_bytes()
        return len(body), hashlib.sha256(body).hexdigest()

    def cpu_seconds(self) -> float:
        """Processor time that the process (with all its threads) has used; proc(5), fields 14 and 15."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the program by its pid (first politely), then its namespaces. May be called twice."""
        process, self.process = self.process, None
        try:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        finally:
            self.stack.close()


class Nginx(Server):
    """The server that people run."""

    name = "nginx"

    def prepare(self) -> None:
        """Write the configuration."""
        super().prepare()
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
        self.version = (said.stderr or said.stdout).strip().rpartition("/")[2]
        directory = self.work / "nginx"
        directory.mkdir()
        self.configuration = directory / "nginx.conf"
        self.configuration.write_text(
            NGINX_CONFIGURATION.format(directory=directory, address=self.pair.server_address, site=self.site)
        )

    def command(self) -> list[str]:
        """The worker inherits the core from the master process."""
        errors = self.configuration.with_name("error.log")
        return [*inside(self.pair.server_netns, self.core), "nginx", "-e", str(errors), "-c", str(self.configuration)]


class Epoll(Server):
    """The kernel's stack with an application that costs next to nothing."""

    name = "epoll"
    reads_files = False

    def prepare(self) -> None:
        """Compile it."""
        super().prepare()
        self.program = build_epoll(self.work / "reference")

    def command(self) -> list[str]:
        """Bodies are given by their sizes: it reads no files."""
        bodies = [f"{name}={size}" for name, size in SITE.items()]
        return [*inside(self.pair.server_netns, self.core), str(self.program), self.pair.server_address, "80", *bodies]

    def wait_ready(self) -> None:
        """It says so."""
        self.wait_line()

    def expected(self, name: str) -> tuple[int, str]:
        """Its bodies are made of one letter."""
        return SITE[name], hashlib.sha256(b"x" * SITE[name]).hexdigest()


class Ustack(Server):
    """The userspace stack. It makes its namespaces and its link itself, as for any user."""

    name = "ustack"
    link = "veth"

    def prepare(self) -> None:
        """Name the namespaces."""
        self.info = ustack_info()
        self.version = str(self.info.get("version", ""))
        self.netns = f"bench-ustack-{os.getpid()}-s"
        self.client_netns = f"bench-ustack-{os.getpid()}-c"

    def command(self) -> list[str]:
        """`ustack serve`, pinned as a whole."""
        return [
            "taskset",
            "-c",
            str(self.core),
            *ustack_command(),
            "serve",
            str(self.site),
            "--link",
            self.link,
            "--netns",
            self.netns,
            "--peer-netns",
            self.client_netns,
        ]

    def wait_ready(self) -> None:
        """It prints `ready http://ADDRESS:PORT/`."""
        self.url = self.wait_line().split()[1].rstrip("/")


def ustack_command() -> list[str]:
    """The installed program of this interpreter, or its module."""
    program = Path(sys.executable).with_name("ustack")
    return [str(program)] if program.exists() else [sys.executable, "-c", "from ustack.cli import main; main()"]


def ustack_info() -> dict[str, object]:
    """What `ustack info` prints. Raises LoadError when it does not run."""
    info = json.loads(run([*ustack_command(), "info"], timeout_s=60))
    assert isinstance(info, dict)
    return info


SERVERS: dict[str, type[Server]] = {cls.name: cls for cls in (Ustack, Nginx, Epoll)}

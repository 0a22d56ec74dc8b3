# SPDX-License-Identifier: MIT
"""`ustack load` against servers on the kernel's stack, in a namespace: what it claims, the server has counted."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ustack.lab import Lab, inside
from ustack.obs.tracefile import read
from ustack.obs.tracesummary import summaries

pytestmark = pytest.mark.root

SERVER = "198.18.0.2"
URL = f"http://{SERVER}/512.bin"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "512.bin").write_bytes(bytes(range(256)) * 2)
    return tmp_path


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace for the server; a lab brings it, and its link is of no use."""
    name = f"load-{os.getpid()}"
    with Lab(f"{name}-home", netns=f"{name}-x", peer_netns=name, address="198.19.7.2/24", peer_address="198.19.7.1/24"):
        yield name


@contextmanager
def kernel_server(namespace: str, site: Path, *options: str) -> Iterator[list[dict[str, Any]]]:
    """`ustack serve` on the kernel's sockets. At the end the list has what it has said each second, and at last."""
    command = [sys.executable, "-m", "ustack.cli", "serve", str(site), "--stack", "kernel:epoll-et"]
    said: list[dict[str, Any]] = []
    server = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", *command, "--listen", "0.0.0.0", "--json-stats", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline().startswith("ready")
        yield said
        said += [json.loads(server.stdout.readline()) for _ in range(2)]
        while said[-1]["http"]["requests"] != said[-2]["http"]["requests"] or not said[-1]["http"]["requests"]:
            said.append(json.loads(server.stdout.readline()))
    finally:
        server.terminate()
        server.communicate(timeout=20)


def load(namespace: str, *options: str, status: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "ustack.cli", "load", URL, "--link", "veth", "--peer-netns", namespace, "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def counted(said: list[dict[str, Any]]) -> tuple[int, int]:
    """Requests that were answered with what they asked for, and connections, by the server's own figures."""
    return said[-1]["http"]["responses_2xx"], said[-1]["http"]["connections"]


def test_a_trace_has_what_the_first_connections_asked(namespace: str, site: Path, tmp_path: Path) -> None:
    """Written by an ordinary user, beside files of root's, into a directory of root's."""
    folder = tmp_path / "roots"
    folder.mkdir(mode=0o755)
    file = folder / "run.qlog"
    with kernel_server(namespace, site):
        load(namespace, "-n", "400", "-c", "4", "--user", "nobody", "--trace", str(file), "--trace-connections", "2")
    one, other = summaries(read(file))
    assert one.remote == other.remote == f"{SERVER}:80"
    assert one.received_bytes > 50 * 512
    assert one.sent_bytes == one.acked_bytes
    assert os.listdir(folder) == ["run.qlog"]


def test_the_server_has_counted_what_is_claimed(namespace: str, site: Path) -> None:
    with kernel_server(namespace, site) as said:
        found = load(namespace, "-n", "3000", "-c", "32", "--files", str(site), "--hash-every", "10")
    assert found["all"]["outcomes"] == {"ok": 3000}
    assert found["hashed"] == 300
    assert counted(said) == (3000, 32)


def test_a_connection_for_each_request(namespace: str, site: Path) -> None:
    with kernel_server(namespace, site) as said:
        found = load(namespace, "-n", "700", "-c", "16", "--close")
    assert found["all"]["outcomes"] == {"ok": 700}
    assert counted(said) == (700, 700)


def test_an_open_loop_asks_what_is_due(namespace: str, site: Path) -> None:
    with kernel_server(namespace, site) as said:
        found = load(namespace, "--rate", "2000", "-d", "500ms", "-c", "16")
    assert found["all"]["requests"] == 1000
    assert found["all"]["outcomes"] == {"ok": 1000}
    assert counted(said) == (1000, 16)
    assert 0 < found["latency_us"]["min"] <= found["latency_us"]["p50"] <= found["latency_us"]["p99.99"]


NGINX = """
daemon off;
worker_processes 1;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format counted "$status $body_bytes_sent $connection $connection_requests";
    access_log {directory}/requests.log counted;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{ listen 80; root {site}; }}
}}
"""


@contextmanager
def nginx(namespace: str, site: Path, directory: Path) -> Iterator[Path]:
    """nginx with a line in a log for each request; at the end it has written all of them."""
    directory.mkdir()
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, site=site))
    command = ["nginx", "-e", str(directory / "error.log"), "-c", str(directory / "nginx.conf")]
    server = subprocess.Popen(["nsenter", f"--net=/run/netns/{namespace}", *command])
    try:
        yield directory / "requests.log"
    finally:
        server.send_signal(signal.SIGQUIT)  # once everything is served
        server.wait(timeout=20)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
@pytest.mark.parametrize(("options", "connections"), [((), 32), (("--close",), 2000)], ids=["kept", "one each"])
def test_nginx_has_counted_what_is_claimed(
    namespace: str, site: Path, options: tuple[str, ...], connections: int
) -> None:
    with nginx(namespace, site, site / "nginx") as log:
        # Whoever comes before it listens is refused, and counts as such.
        found = load(namespace, "-n", "2000", "-c", "32", "--files", str(site), *options)
    outcomes = found["all"]["outcomes"]
    assert outcomes.pop("refused", 0) < 2000
    assert outcomes == {"ok": 2000}
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [(status, size) for status, size, *_ in lines] == [("200", "512")] * 2000
    assert len({connection for *_, connection, _ in lines}) == connections == found["all"]["opened"]
    assert max(int(requests) for *_, requests in lines) >= 2000 // connections


def test_the_userspace_server_has_counted_what_is_claimed(site: Path) -> None:
    """Stack against stack, over a veth pair."""
    name = f"load-{os.getpid()}"
    command = [sys.executable, "-m", "ustack.cli", "serve", str(site), "--link", "veth", "--json-stats"]
    server = subprocess.Popen(
        [*command, "--netns", f"{name}-s", "--peer-netns", f"{name}-c"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline().startswith("ready")
        with inside(f"{name}-c"):
            ifname = next(one for _, one in socket.if_nameindex() if one != "lo")
        words = [sys.executable, "-m", "ustack.cli", "load", URL, "--link", f"dev:{ifname}", "--netns", f"{name}-c"]
        words += ["--address", "198.18.0.77/24", "-n", "3000", "-c", "32", "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        said = [json.loads(server.stdout.readline()) for _ in range(2)]
        while said[-1]["http"]["requests"] != said[-2]["http"]["requests"] or not said[-1]["http"]["requests"]:
            said.append(json.loads(server.stdout.readline()))
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert json.loads(done.stdout)["all"]["outcomes"] == {"ok": 3000}
    assert counted(said) == (3000, 32)


def test_connections_come_from_every_source(namespace: str, site: Path) -> None:
    """The kernel asks for each of them by ARP, and its server sees them all."""
    log = site / "log"
    with kernel_server(namespace, site, "--access-log", str(log)):
        found = load(namespace, "-n", "100", "-c", "20", "--sources", "198.18.0.100-198.18.0.109")
    assert found["all"]["outcomes"] == {"ok": 100}
    peers = {line.split()[0] for line in log.read_text().splitlines()}
    assert peers == {f"198.18.0.{number}" for number in range(100, 110)}


def test_nobody_listens(namespace: str) -> None:
    found = load(namespace, "-d", "300ms", "-c", "2", status=1)
    assert set(found["all"]["outcomes"]) == {"refused"}
    assert found["good"] == 0

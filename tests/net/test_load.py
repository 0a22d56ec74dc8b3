# SPDX-License-Identifier: MIT
"""`ustack load` against servers on the kernel's stack, in a namespace: what it claims, the server has counted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ustack.lab import Lab

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

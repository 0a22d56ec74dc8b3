# SPDX-License-Identifier: MIT
"""servers: the references, started and asked for real; what is left when one cannot start."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ustack.lab import inside
from ustack.lab.namespace import names
from ustack.tools.compare import SITE
from ustack.tools.generators import LoadError
from ustack.tools.servers import EPOLL_SOURCE, Epoll, Nginx, Server, build_epoll, make_site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces"),
    pytest.mark.skipif(shutil.which("cc") is None or shutil.which("curl") is None, reason="needs cc and curl"),
]
CORE = max(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("servers") / "site"
    make_site(made)
    return made


@pytest.fixture(scope="module")
def epoll(site: Path) -> Iterator[Server]:
    server = Epoll(site.parent, site, CORE)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server: Server, octets: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes over a new connection and return everything until the server closes it."""
    with inside(server.client_netns):
        conn = socket.create_connection((server.url.removeprefix("http://"), 80), timeout=20)
    with conn:
        conn.sendall(octets)
        if half_close:
            conn.shutdown(socket.SHUT_WR)
        received = []
        while part := conn.recv(1 << 16):
            received.append(part)
        return b"".join(received)


def statuses(answer: bytes) -> list[str]:
    return [line.split()[1].decode() for line in answer.split(b"\r\n") if line.lstrip(b"x").startswith(b"HTTP/1.1 ")]


def get(path: str, *fields: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: a", *fields, "", ""]).encode()


def test_the_site_has_the_sizes_it_should_have(site: Path):
    assert {f"/{path.name}": path.stat().st_size for path in site.iterdir()} == SITE


def test_a_source_that_does_not_compile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert build_epoll(tmp_path / "build").exists()
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LoadError, match="no C compiler"):
        build_epoll(tmp_path / "build")


def test_the_epoll_server_compiles_without_a_warning(tmp_path: Path):
    flags = ["-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
    assert os.spawnlp(os.P_WAIT, "cc", "cc", *flags, "-o", str(tmp_path / "x"), str(EPOLL_SOURCE)) == 0


@pytest.fixture
def alone(make_namespace: Callable[[], str]) -> str:
    """A namespace where every port is free and stays so."""
    return make_namespace()


@pytest.mark.parametrize("control", ["reno", pytest.param("cubic", marks=pytest.mark.root)])
def test_the_epoll_server_s_connections_have_the_control_asked_for(tmp_path: Path, control: str, alone: str):
    there = ["nsenter", f"--net=/run/netns/{alone}"]
    command = [*there, "env", f"TCP_CONGESTION={control}", str(build_epoll(tmp_path)), "127.0.0.1", "80", "/x=5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            with inside(alone):
                client = socket.create_connection(("127.0.0.1", 80), timeout=20)
            with client:
                client.sendall(get("/x"))
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
                seen = subprocess.run([*there, "ss", "-tinH", "sport = :80"], capture_output=True, check=True).stdout
        finally:
            process.kill()
    assert f"\t {control} ".encode() in seen


def test_a_control_that_the_kernel_has_not_ends_the_epoll_server(tmp_path: Path, alone: str):
    words = ["TCP_CONGESTION=nosuch", str(build_epoll(tmp_path)), "127.0.0.1", "80", "/x=5"]
    command = ["nsenter", f"--net=/run/netns/{alone}", "env", *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert (done.returncode != 0, done.stdout) == (True, b"")
    assert b"nosuch" in done.stderr


def test_the_epoll_server_sends_every_file(epoll: Server):
    epoll.check()


def test_pipelined_requests_are_answered_in_order_until_one_says_close(epoll: Server):
    answer = ask(epoll, get("/512.bin") * 40 + get("/1m.bin", "Connection: close") + get("/512.bin"))
    assert statuses(answer) == ["200"] * 41
    assert answer.count(b"Connection: close") == 1
    assert len(answer) > 40 * 512 + (1 << 20)


def test_a_head_in_two_parts_is_one_request(epoll: Server):
    with inside(epoll.client_netns):
        conn = socket.create_connection((epoll.url.removeprefix("http://"), 80), timeout=20)
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sendall(b"GET /512.bin HT")
        conn.sendall(b"TP/1.1\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: conn.recv(4096), b""))
    assert received.endswith(b"\r\n\r\n" + b"x" * 512)


def test_what_a_client_sent_before_its_fin_is_answered(epoll: Server):
    assert statuses(ask(epoll, get("/512.bin") * 3, half_close=True)) == ["200"] * 3


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (get("/nothing"), "404"),
        (get("/512.bin", version="2.0"), "400"),
        (b"GET /512.bin\r\n\r\n", "400"),
        (b"GET \r\n\r\n", "400"),
        (b"\r\n\r\n", "405"),
        (b"POST /512.bin HTTP/1.1\r\n\r\n", "405"),
        (get("/512.bin", version="1.0"), "200"),
        (get("/512.bin", "connection:CLOSE"), "200"),
        (b"GET /" + b"a" * 8187, "431"),
    ],
)
def test_the_last_answer_ends_the_connection(epoll: Server, request_octets: bytes, status: str):
    assert statuses(ask(epoll, request_octets)) == [status]


def test_processor_time_never_goes_back(epoll: Server):
    before = epoll.cpu_seconds()
    epoll.check()
    assert epoll.cpu_seconds() >= before >= 0


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_sends_every_file_and_goes_with_its_namespaces(site: Path):
    server = Nginx(site.parent, site, CORE)
    server.start()
    try:
        server.check()
        assert server.version
        assert server.pair.client_netns in names()
    finally:
        server.stop()
        server.stop()
    assert not {server.pair.client_netns, server.pair.server_netns} & set(names())


def test_nothing_is_left_of_a_server_that_cannot_start(site: Path, monkeypatch: pytest.MonkeyPatch):
    server = Epoll(site.parent, site, CORE)
    monkeypatch.setattr(server, "command", lambda: ["sh", "-c", "echo sorry >&2; exit 7"])
    with pytest.raises(LoadError, match="ended with 7: sorry"):
        server.start()
    assert server.process is None
    assert not {server.pair.client_netns, server.pair.server_netns} & set(names())


def test_a_server_that_does_not_listen_to_sigterm_is_ended(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ustack.tools.servers.STOP_TIMEOUT_S", 0.1)
    server = Epoll(site.parent, site, CORE)
    stubborn = "trap '' TERM; echo ready http://198.18.0.2/; while :; do sleep 60; done"
    monkeypatch.setattr(server, "command", lambda: ["sh", "-c", stubborn])
    server.start()
    process = server.process
    assert process is not None
    server.stop()
    assert process.returncode == -signal.SIGKILL

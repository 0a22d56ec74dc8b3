# SPDX-License-Identifier: MIT
"""`ustack serve --stack kernel:STRATEGY` in a process of its own: serves files, says what it does, ends when told."""

import http.client
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from ustack.cli.serve_options import WITH_WORKERS, kernel_strategies
from ustack.cli.signals import StopSignals
from ustack.cli.workers import Bell, Workers

BODY = bytes(range(256)) * 4096
Answer = tuple[int, bytes]
SERVE = [sys.executable, "-m", "ustack.cli", "serve"]


def free_port() -> int:
    """Below those that the kernel chooses: somebody's connection could be given one of them before a server has it."""
    chosen_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(chosen_from // 2, chosen_from)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that is ready, and its port. It is told to end, and must do so as it should."""
    port = free_port()
    process = subprocess.Popen([*SERVE, *arguments, "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://127.0.0.1:{port}/\n"
        yield process, port
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("home")
    (site / "big").write_bytes(BODY)
    for path in (tmp_path, site, *site.iterdir()):
        path.chmod(0o755)
    for parent in tmp_path.parents[:2]:  # pytest's own, which the server's user may not enter otherwise
        parent.chmod(0o755)
    return site


def get(port: int, path: str) -> bytes:
    client = http.client.HTTPConnection("127.0.0.1", port)
    try:
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        client.close()


@pytest.mark.parametrize("strategy", kernel_strategies())
def test_a_directory_is_served(site: Path, strategy: str) -> None:
    with served(str(site), "--stack", f"kernel:{strategy}") as (_, port):
        assert get(port, "/") == b"home"
        assert get(port, "/big") == BODY


REQUEST = "GET {} HTTP/1.1\r\nHost: h\r\n{}\r\n"


def answers(port: int, *pieces: bytes, methods: tuple[str, ...] = ("GET",), half_closed: bool = False) -> list[Answer]:
    """What comes back on one connection for these bytes, sent one after the other, a response for each method."""
    found = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        stream = client.makefile("rb")
        for method in methods:
            response = http.client.HTTPResponse(Canned(stream), method=method)  # type: ignore[arg-type]
            response.begin()
            found.append((response.status, response.read()))
        if half_closed or b"close" in b"".join(pieces):
            assert stream.read() == b""
    return found


class Canned:
    """A socket whose bytes have one reader, whatever HTTPResponse closes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def makefile(self, _: str) -> "Canned":
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("strategy", kernel_strategies())
def test_each_strategy_serves_http_in_a_process_of_its_own(site: Path, strategy: str) -> None:
    """In the kernel's time, and from outside: for processes, which have no other one, this is the HTTP suite."""
    plain = REQUEST.format("/", "").encode()
    closing = REQUEST.format("/", "Connection: close\r\n").encode()
    big = REQUEST.format("/big", "").encode()
    with served(str(site), "--stack", f"kernel:{strategy}") as (_, port):
        assert answers(port, plain, plain, plain, methods=("GET",) * 3) == [(200, b"home")] * 3
        assert answers(port, plain * 50 + closing, methods=("GET",) * 51) == [(200, b"home")] * 51
        assert answers(port, *(plain[at : at + 1] for at in range(len(plain)))) == [(200, b"home")]
        assert answers(port, big + big + closing, methods=("GET",) * 3) == [(200, BODY), (200, BODY), (200, b"home")]
        assert answers(port, plain, half_closed=True) == [(200, b"home")]
        assert answers(port, big, half_closed=True) == [(200, BODY)]
        assert answers(port, plain.replace(b"GET", b"HEAD") + plain, methods=("HEAD", "GET")) == [
            (200, b""),
            (200, b"home"),
        ]
        ranged = REQUEST.format("/big", "Range: bytes=256-511\r\n").encode()
        assert answers(port, ranged) == [(206, bytes(range(256)))]
        [(status, _)] = answers(port, REQUEST.format("/missing", "").encode())
        assert status == 404
        [(status, _)] = answers(port, b"NONSENSE\r\n\r\n")
        assert status == 400
        [(status, _)] = answers(port, plain.replace(b"GET", b"BREW"))
        assert status in (405, 501)
        body = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        assert [status for status, _ in answers(port, body + plain, methods=("POST", "GET"))] == [405, 200]


@pytest.mark.parametrize("strategy", kernel_strategies())
def test_many_clients_at_once_are_served_by_each_strategy(site: Path, strategy: str) -> None:
    locked_most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    initial = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    if strategy == "io_uring-zc" and 0 <= locked_most < 64 << 20 and not (initial and os.geteuid() == 0):
        pytest.skip(f"RLIMIT_MEMLOCK is {locked_most} bytes: what 40 clients are sent without a copy is locked memory")
    with served(str(site), "--stack", f"kernel:{strategy}") as (_, port), ExitStack() as clients:
        connections = [clients.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(40)]
        for each in connections:
            each.sendall(REQUEST.format("/big", "Connection: close\r\n").encode())
        for each in connections:
            received = b""
            while part := each.recv(1 << 20):
                received += part
            assert received.endswith(BODY)


@pytest.mark.parametrize("strategy", ["epoll-et", "aio", "prefork"])
@pytest.mark.parametrize("how", ["--sendfile", "--zerocopy"])
def test_files_go_out_as_they_are_asked_to(site: Path, strategy: str, how: str) -> None:
    with served(str(site), "--stack", f"kernel:{strategy}", how) as (_, port):
        assert get(port, "/big") == BODY
        assert get(port, "/") == b"home"


def test_each_connection_has_a_process_and_no_longer(site: Path) -> None:
    with served(str(site), "--stack", "kernel:processes") as (process, port):
        assert children_of(process.pid) == []
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for client in clients:
            client.sendall(REQUEST.format("/", "").encode())
            assert client.recv(65536).endswith(b"home")
        children = children_of(process.pid)
        assert len(children) == 5
        for child in children:
            assert listening(child, port) == set()
        for client in clients[:3]:
            client.close()
        while len(children_of(process.pid)) > 2:
            os.sched_yield()
        os.kill(children_of(process.pid)[0], signal.SIGKILL)  # nobody else is harmed
        while len(children_of(process.pid)) > 1:
            os.sched_yield()
        assert get(port, "/") == b"home"
        for client in clients[3:]:
            client.close()


def test_children_that_idle_end_at_once_and_others_with_their_response(site: Path) -> None:
    with served(str(site), "--stack", "kernel:processes", "--linger", "3600") as (process, port), ExitStack() as ends:
        idle, busy = (ends.enter_context(socket.socket()) for _ in range(2))
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for client in (idle, busy):
            client.connect(("127.0.0.1", port))
        idle.sendall(REQUEST.format("/", "").encode())
        assert idle.recv(65536).endswith(b"home")
        busy.sendall(REQUEST.format("/big", "").encode())
        received = busy.recv(64)
        children = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert idle.recv(64) == b""
        idle.close()
        while part := busy.recv(65536):
            received += part
        assert received.endswith(BODY)
        busy.close()
        process.wait()
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_the_log_of_children_is_whole_when_they_have_ended(site: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(str(site), "--stack", "kernel:processes", "--access-log", str(log)) as (_, port):
        for _ in range(5):
            assert get(port, "/") == b"home"
    assert log.read_text().count('"GET / HTTP/1.1" 200 4') == 5


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("strategy", WITH_WORKERS)
def test_several_processes_share_a_port(site: Path, strategy: str) -> None:
    """Prefork: one listening socket. Reuseport: each has one, and the kernel chooses by the client's port."""
    with served(str(site), "--stack", f"kernel:{strategy}", "--workers", "3") as (process, port):
        workers = children_of(process.pid)
        assert len(workers) == 3
        for _ in range(20):
            assert get(port, "/") == b"home"
        for worker in workers:
            assert "CapEff:\t0000000000000000" in Path(f"/proc/{worker}/status").read_text()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def listening(pid: int, port: int) -> set[str]:
    """Sockets of this process that listen on the port, by their inodes."""
    there = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[1].endswith(f":{port:04X}"):
            there.add(words[9])
    held = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    return {inode for inode in there if f"socket:[{inode}]" in held}


@pytest.mark.parametrize(("strategy", "sockets"), [("prefork", 1), ("reuseport", 3)])
def test_workers_have_one_listening_socket_or_one_each(site: Path, strategy: str, sockets: int) -> None:
    """And the first process none, once they serve."""
    with served(str(site), "--stack", f"kernel:{strategy}", "--workers", "3") as (process, port):
        held = [listening(worker, port) for worker in children_of(process.pid)]
        assert [len(each) for each in held] == [1, 1, 1]
        assert len(set.union(*held)) == sockets
        assert listening(process.pid, port) == set()


def test_each_preforked_worker_takes_connections(site: Path, tmp_path: Path) -> None:
    """While one cannot come, the kernel wakes another one."""
    with served(str(site), "--stack", "kernel:prefork", "--workers", "2") as (process, port):
        workers = children_of(process.pid)
        before = {worker: sockets_of(worker) for worker in workers}
        stopped: list[int] = []
        clients: list[socket.socket] = []
        try:
            while workers:
                clients.append(socket.create_connection(("127.0.0.1", port)))
                while not (busy := [worker for worker in workers if sockets_of(worker) > before[worker]]):
                    pass
                os.kill(busy[0], signal.SIGSTOP)
                stopped.append(busy[0])
                while state_of(busy[0]) != "T":  # it may still be asleep in epoll_wait, and be the one that is woken
                    pass
                workers.remove(busy[0])
        finally:
            for worker in stopped:
                os.kill(worker, signal.SIGCONT)
            for client in clients:
                client.close()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def sockets_of(pid: int) -> int:
    held = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held += os.readlink(path).startswith("socket:")
    return held


def test_a_signal_right_before_the_sleep_ends_it() -> None:
    """Nor does what has rung before end the next one."""
    with Bell() as bell:
        signal.raise_signal(signal.SIGCHLD)
        bell.wait()
        assert select.select([bell.heard], [], [], 0)[0] == []
        signal.raise_signal(signal.SIGCHLD)
        assert select.select([bell.heard], [], [], 0)[0] == [bell.heard]
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_who_looks_after_workers_sleeps_in_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where a signal ends the sleep that comes before it: each is passed on, and the last one ends them."""

    def work(ready: Callable[[], None]) -> int:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        ready()
        while True:
            signal.pause()

    rings: list[list[int]] = []

    def ring_before_the_sleep(self: Bell) -> None:
        if not rings:
            os.kill(os.getpid(), signal.SIGTERM)
        rings.append(select.select([self.heard], [], [], 0)[0])
        wait(self)

    waits: list[int] = []

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        waits.append(options)
        return real_waitpid(pid, options)

    wait, real_waitpid = Bell.wait, os.waitpid
    monkeypatch.setattr(Bell, "wait", ring_before_the_sleep)
    monkeypatch.setattr(os, "waitpid", waitpid)
    workers = Workers(3, work)
    with StopSignals() as signals:
        workers.start()
        assert workers.wait(signals) == 0
    assert rings[0] != []
    assert set(waits) == {os.WNOHANG}
    assert workers.alive == set()


@pytest.mark.parametrize("strategy", WITH_WORKERS)
def test_a_second_server_on_the_port_is_refused(site: Path, strategy: str) -> None:
    """With SO_REUSEPORT alone it would get every other connection, and nobody would know."""
    with served(str(site), "--stack", f"kernel:{strategy}", "--workers", "2") as (_, port):
        arguments = [*SERVE, str(site), "--stack", "kernel:reuseport", "--workers", "2", "--port", str(port)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, f"ustack: cannot serve: port {port} is in use\n")
        assert get(port, "/") == b"home"


def test_workers_that_are_told_to_end_while_they_start_leave_nothing(site: Path) -> None:
    """Whenever the signal comes: the exit status is 0, and no process is left."""
    for delay in range(12):
        arguments = [*SERVE, str(site), "--stack", "kernel:reuseport", "--workers", "3", "--port", str(free_port())]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            seen: set[int] = set()
            while len(seen) <= delay % 4 and process.poll() is None:  # as many workers as that have begun
                seen.update(children_of(process.pid))
                if delay % 4 == 3 and len(seen) == 3:
                    break
            os.kill(process.pid, signal.SIGTERM)
            _, said = process.communicate()
        assert (process.returncode, said) == (0, "")
        assert not any(Path(f"/proc/{worker}").exists() for worker in seen)


@pytest.mark.users
@pytest.mark.parametrize("strategy", WITH_WORKERS)
def test_what_no_worker_can_is_said_once(site: Path, strategy: str) -> None:
    site.chmod(0o700)
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    port = str(free_port())
    arguments = [*SERVE, str(site), "--stack", f"kernel:{strategy}", "--workers", "3", "--port", port]
    done = subprocess.run([*arguments, "--user", "nobody"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("nobody may not enter") == done.stderr.count("\n") == 1


def test_the_log_of_several_processes_is_opened_again(site: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    logs.chmod(0o777)  # for the server's user
    log, old = logs / "log", logs / "log.1"
    arguments = [str(site), "--stack", "kernel:reuseport", "--workers", "2", "--access-log", str(log)]
    with served(*arguments) as (process, port):
        workers = children_of(process.pid)
        log.rename(old)
        process.send_signal(signal.SIGUSR1)
        requests = 0
        while not log.exists():
            assert get(port, "/") == b"home"
            requests += 1
            assert requests < 20_000
        assert children_of(process.pid) == workers
    assert log.stat().st_size + old.stat().st_size >= requests * len('"GET / HTTP/1.1" 200 4')


def test_the_others_end_when_a_worker_does(site: Path) -> None:
    port = str(free_port())
    arguments = [*SERVE, str(site), "--stack", "kernel:reuseport", "--workers", "2", "--port", port]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == 1
    assert said.endswith("has ended: the others are ended, too\n")


@pytest.mark.parametrize("strategy", WITH_WORKERS)
def test_workers_that_cannot_serve_say_so(site: Path, strategy: str) -> None:
    """Once, and not as many times as there are workers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = [*SERVE, str(site), "--stack", f"kernel:{strategy}", "--workers", "2", "--port", port]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count(f"port {port} is in use") == done.stderr.count("\n") == 1


def test_responses_under_way_are_finished(site: Path) -> None:
    """What the kernel's buffers do not hold waits in the server when it is told to end."""
    with served(str(site), "--stack", "kernel:epoll-lt") as (process, port), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        received = client.recv(64)
        process.send_signal(signal.SIGTERM)
        while part := client.recv(65536):
            received += part
        assert received.endswith(BODY)


def test_figures_come_as_json(site: Path) -> None:
    with served(str(site), "--stack", "kernel:poll", "--json-stats") as (process, port):
        get(port, "/")
        assert process.stdout is not None
        while not (said := json.loads(process.stdout.readline()))["http"]["requests"]:
            pass  # of a second before it was asked
        assert said["counters"]["accepted_connections"] == 1
        assert said["http"]["requests"] == 1
        assert said["link"]["tx_bytes"] == said["counters"]["bytes_sent"] > 0


def test_the_access_log_is_written(site: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(str(site), "--stack", "kernel:epoll-et", "--access-log", str(log)) as (_, port):
        get(port, "/")
    assert '"GET / HTTP/1.1" 200 4' in log.read_text()


def test_a_port_that_is_taken_is_one_line(site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*SERVE, str(site), "--stack", "kernel:epoll-lt", "--port", port],
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {port} is in use" in done.stderr


@pytest.mark.users
def test_it_serves_as_an_ordinary_user(site: Path) -> None:
    with served(str(site), "--stack", "kernel:epoll-lt") as (process, _):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        if os.geteuid() == 0:
            assert f"Uid:\t{65534}" in status

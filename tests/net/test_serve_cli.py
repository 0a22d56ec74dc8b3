# SPDX-License-Identifier: MIT
"""`ustack serve` as a user runs it: what it prints, what it answers, how it ends, and that nothing is left."""

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import pytest
from scapy.utils import rdpcap

from ustack.netns import labs, links, namespace, ownership, sweep
from ustack.netns.links import End

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-m", "ustack.cli"]
BODY = bytes(range(256)) * 2


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "512.bin").write_bytes(BODY)
    (directory / "index.html").write_text("<p>hello</p>")
    return directory


class Server:
    """A running `ustack serve` with both ends in namespaces of its own."""

    def __init__(self, process: subprocess.Popen[str], ours: str, peer: str) -> None:
        self.process = process
        self.ours = ours
        self.peer = peer
        self.url = ""

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["ip", "netns", "exec", self.peer, "curl", "-sS", "--max-time", "30", *arguments]
        return subprocess.run(command, capture_output=True, check=True)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def serve(site: Path, unique: Callable[[str], str]) -> Start:
    @contextmanager
    def start(*arguments: str, link: str = "veth", directory: Path = site) -> Iterator[Server]:
        name = unique("sv")
        ours, peer = f"{name}-a", f"{name}-b"
        command = [*COMMAND, "serve", str(directory), "--link", link, "--netns", ours, "--peer-netns", peer, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server = Server(process, ours, peer)
        try:
            ready = server.stdout.readline()
            assert ready.startswith("ready http://"), process.stderr.read() if process.stderr else ""
            server.url = ready.split()[1]
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=60)

    return start


def nothing_left(server: Server) -> bool:
    pids = {server.process.pid}
    return not (
        namespace.exists(server.ours)
        or namespace.exists(server.peer)
        or any(record for record in ownership.records() if pids & {pid for pid, _ in record.owners})
    )


@pytest.mark.parametrize("link", ["veth", "tap"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_curl_and_a_signal_ends_it(serve: Start, link: str, number: signal.Signals) -> None:
    with serve(link=link) as server:
        assert server.url == "http://198.18.0.2:80/"
        assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.curl(server.url).stdout == b"<p>hello</p>"
        assert server.end(number) == 0
        assert server.stdout.read() == ""
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""
        assert nothing_left(server)


def client_inside(netns: str, script: str) -> subprocess.Popen[bytes]:
    """A Python client in the peer's namespace; it prints a line when it has begun."""
    command = ["ip", "netns", "exec", netns, sys.executable, "-u", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


IDLE_CLIENT = """
import http.client
connection = http.client.HTTPConnection("198.18.0.2", 80)
connection.request("GET", "/512.bin")
print(len(connection.getresponse().read()))
print(connection.sock.recv(1))
"""


def test_an_idle_client_sees_the_end_as_an_end_and_not_as_an_error(serve: Start) -> None:
    with serve() as server, client_inside(server.peer, IDLE_CLIENT) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"512\n"
        assert server.end() == 0
        assert client.communicate(timeout=30)[0] == b"b''\n"


STOPPED_CLIENT = """
import socket
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
client.connect(("198.18.0.2", 80))
client.sendall(b"GET /large.bin HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
size = len(client.recv(1000))
print("begun")
input()
while piece := client.recv(65536):
    size += len(piece)
print(size)
"""


def test_a_response_under_way_ends_whole(serve: Start, site: Path) -> None:
    size = 1 << 20
    (site / "large.bin").write_bytes(bytes(size))
    with serve("--linger", "30") as server:
        command = ["ip", "netns", "exec", server.peer, sys.executable, "-u", "-c", STOPPED_CLIENT]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begun\n"
            server.process.send_signal(signal.SIGTERM)
            received = int(client.communicate(b"\n", timeout=30)[0])
        assert received > size
        assert server.process.wait(60) == 0


def test_a_second_signal_waits_for_nobody(serve: Start, site: Path) -> None:
    (site / "large.bin").write_bytes(bytes(1 << 20))
    with serve("--linger", "3600") as server:
        command = ["ip", "netns", "exec", server.peer, sys.executable, "-u", "-c", STOPPED_CLIENT]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begun\n"
            server.process.send_signal(signal.SIGTERM)
            # The first has been handled when new connections are refused.
            while (
                subprocess.run(
                    ["ip", "netns", "exec", server.peer, "curl", "-s", "-o", os.devnull, "--max-time", "5", server.url],
                    check=False,
                ).returncode
                == 0
            ):
                pass
            assert server.end() == 0
            client.kill()


def test_address_and_port_are_the_users(serve: Start) -> None:
    arguments = ["--address", "198.18.9.7/28", "--peer-address", "198.18.9.1/28", "--port", "8080"]
    with serve(*arguments, "--gateway", "198.18.9.1", "--busy-poll", "never") as server:
        assert server.url == "http://198.18.9.7:8080/"
        assert server.curl(server.url + "512.bin").stdout == BODY


def test_the_peers_end_may_be_here(site: Path, unique: Callable[[str], str]) -> None:
    """Without namespaces named, the caller's own curl reaches the server."""
    command = [*COMMAND, "serve", str(site), "--link", "veth"]
    command += ["--address", "198.19.233.2/30", "--peer-address", "198.19.233.1/30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        made = next(lab for lab in labs() if lab.name == f"serve-{process.pid}")
        body = subprocess.run(["curl", "-sS", "--max-time", "30", url + "512.bin"], check=True, capture_output=True)
        assert body.stdout == BODY
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert made.netns is not None
    assert not namespace.exists(made.netns)
    assert links.find(End(None, made.peer_ifname or "")) is None


def test_dev_takes_an_interface_that_exists_and_leaves_it(
    site: Path, make_namespace: Callable[[], str], unique: Callable[[str], str]
) -> None:
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="theirs")
    links.configure(ours, ipv6=False)
    links.configure(peer, address="198.18.0.1/24", ipv6=False)
    command = [*COMMAND, "serve", str(site), "--link", "dev:x0", "--netns", str(ours.namespace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        client = ["ip", "netns", "exec", str(peer.namespace), "curl", "-sS", "--max-time", "30", url + "512.bin"]
        assert subprocess.run(client, check=True, capture_output=True).stdout == BODY
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert links.find(ours) is not None
    assert namespace.exists(str(ours.namespace))


def test_json_stats_are_one_object_a_line(serve: Start) -> None:
    with serve("--json-stats") as server:
        server.curl(*[server.url + "512.bin"] * 10, "-o", "/dev/null")
        while True:
            figures = json.loads(server.stdout.readline())
            if figures["http"]["requests"] >= 10:
                break
        assert figures["drops"] == {}
        assert figures["counters"]["connections_accepted"] >= 1
        assert figures["link"]["rx_frames"] > 10
        assert figures["link"]["rx_frames"] == figures["counters"]["frames_in"]


def test_the_access_log_and_the_capture_are_written(serve: Start, tmp_path: Path) -> None:
    log, capture = tmp_path / "access.log", tmp_path / "run.pcapng"
    with serve("--access-log", str(log), "--capture", str(capture)) as server:
        server.curl(server.url + "512.bin", "-o", "/dev/null")
        assert server.end() == 0
    assert '"GET /512.bin HTTP/1.1" 200 512' in log.read_text()
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert BODY[:64] in capture.read_bytes()


def test_a_full_disk_under_capture_and_log_is_reported(serve: Start, tmp_path: Path) -> None:
    """Once each on standard error, and in every line of figures; requests are answered as before."""
    log, capture = tmp_path / "access.log", tmp_path / "run.pcapng"
    with serve("--access-log", str(log), "--capture", str(capture), "--json-stats") as server:
        # No file of the server grows beyond this, as on a full disk.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        server.curl(*[server.url + "512.bin"] * 20, "-o", "/dev/null")
        while True:
            figures = json.loads(server.stdout.readline())
            if figures["http"]["log_lost"] and figures["capture"]["error"]:
                break
        assert figures["http"]["log_error"] == "File too large"
        assert figures["capture"]["error"] == "File too large"
        assert figures["capture"]["missed"] > 0
        assert server.curl(server.url + "512.bin").stdout == BODY
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=60)
    assert errors.count("ustack: the capture ended: File too large") == 1
    assert errors.count("ustack: the access log cannot be written: File too large") == 1
    assert log.read_bytes().endswith(b"\n")
    assert len(rdpcap(str(capture))) == figures["capture"]["recorded"] > 0


def test_the_server_has_given_its_capabilities_up(serve: Start) -> None:
    with serve() as server:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
        assert not effective & (1 << 12 | 1 << 13 | 1 << 21)


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0]
    finally:
        os.close(descriptor)


def keeper_of(server: Server) -> int:
    record = ownership.load(f"serve-{server.process.pid}")
    assert record is not None
    return next(pid for pid, _ in record.owners if pid != server.process.pid)


def test_a_killed_server_is_cleaned_up_by_its_keeper(serve: Start) -> None:
    with serve() as server:
        keeper = keeper_of(server)
        server.end(signal.SIGKILL)
        wait_for_end(keeper)
        assert nothing_left(server)


def test_when_both_are_killed_the_next_start_cleans(serve: Start) -> None:
    with serve() as dead:
        keeper = keeper_of(dead)
        os.kill(keeper, signal.SIGKILL)
        dead.end(signal.SIGKILL)
        wait_for_end(keeper)
        assert namespace.exists(dead.ours)
        with serve():
            assert nothing_left(dead)


def test_two_servers_do_not_touch_each_other(serve: Start) -> None:
    with serve() as one, serve() as two:
        assert one.end() == 0
        sweep()
        assert two.curl(two.url + "512.bin").stdout == BODY


def test_a_signal_during_the_start_leaves_nothing(site: Path, unique: Callable[[str], str]) -> None:
    """At any moment: the signal comes when the lab's record appears, long before the server is ready."""
    name = unique("sv")
    command = [*COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not namespace.exists(f"{name}-a") and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""
    assert output in ("", "ready http://198.18.0.2:80/\n")
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")


# ---------------------------------------------------------------- what it refuses


def refused(*arguments: str, **keywords: object) -> str:
    result = subprocess.run(
        [*COMMAND, "serve", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("ustack: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'DIRECTORY'"),
        (["SITE"], "Missing option '--link'"),
        (["/no/such/directory", "--link", "veth"], "no directory /no/such/directory"),
        (["SITE/512.bin", "--link", "veth"], "is not a directory"),
        (["SITE", "--link", "wire"], "bad link 'wire'"),
        (["SITE", "--link", "dev"], "bad link 'dev'"),
        (["SITE", "--link", "veth:x"], "bad link 'veth:x'"),
        (["SITE", "--link", "dev:no-such0"], "no interface no-such0"),
        (["SITE", "--link", "dev:lo", "--peer-netns", "x"], "make no sense"),
        (["SITE", "--link", "veth", "--port", "0"], "not in the range"),
        (["SITE", "--link", "veth", "--port", "65536"], "not in the range"),
        (["SITE", "--link", "veth", "--address", "198.18.0.2"], "prefix length"),
        (["SITE", "--link", "veth", "--address", "::1/64"], "bad address"),
        (["SITE", "--link", "veth", "--peer-address", "198.18.1.1/24"], "different networks"),
        (["SITE", "--link", "veth", "--gateway", "10.0.0.1"], "is not a neighbour"),
        (["SITE", "--link", "veth", "--gateway", "x"], "bad gateway"),
        (["SITE", "--link", "veth", "--netns", "a/b"], "bad name"),
        (["SITE", "--link", "veth", "--busy-poll", "often"], "'often' is not one of"),
        (["SITE", "--link", "veth", "--capture", "/no/such/x.pcapng"], "no directory for the capture"),
        (["SITE", "--link", "veth", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(site: Path, arguments: list[str], message: str) -> None:
    before = namespace.names()
    assert message in refused(*(argument.replace("SITE", str(site)) for argument in arguments))
    assert not [name for name in namespace.names() if name not in before and name.startswith("ustack-serve")]


def test_an_address_in_use_is_refused(serve: Start, site: Path) -> None:
    with serve() as server:
        message = refused(str(site), "--link", "veth", "--peer-netns", server.peer)
        assert "address 198.18.0.1 is in use" in message
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize("where", ["capture", "access-log"])
def test_a_file_that_cannot_be_written_leaves_nothing(site: Path, unique: Callable[[str], str], where: str) -> None:
    name = unique("sv")
    names = ["--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    assert "cannot serve" in refused(str(site), "--link", "veth", *names, f"--{where}", str(site))
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")


def test_without_privileges_one_line_says_what_is_needed(site: Path) -> None:
    command = ["setpriv", "--reuid", "65534", "--clear-groups", *COMMAND, "serve", "/usr", "--link", "veth"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "ustack serve needs root" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_cap_net_raw_alone(site: Path) -> None:
    command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *COMMAND, "serve", str(site)]
    result = subprocess.run([*command, "--link", "veth"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "ustack: ustack serve needs root, or CAP_NET_RAW: run it with sudo\n"


def test_a_reader_of_the_figures_that_goes_away_does_not_end_it(serve: Start) -> None:
    with serve("--json-stats") as server:
        server.stdout.readline()
        server.stdout.close()
        for _ in range(3):
            assert server.curl(server.url + "512.bin").stdout == BODY
        server.process.stdout = None
        assert server.end() == 0


def test_an_idle_server_sleeps(serve: Start) -> None:
    """Less than 1 % of a core, by the server's own figure over whole seconds; the first may still hold the start."""
    with serve("--json-stats") as server:
        figures = [json.loads(server.stdout.readline())["cpu"] for _ in range(4)]
        assert min(figures[1:]) < 0.01


def test_info_says_what_it_must() -> None:
    result = subprocess.run([*COMMAND, "info"], capture_output=True, text=True, check=True)
    figures = json.loads(result.stdout)
    assert {"version", "build", "compiler", "kernel", "links"} <= figures.keys()
    assert figures["tcb_bytes"] + figures["flow_bytes"] <= 256
    assert figures["time_wait_bytes"] > 0
    assert figures["syn_received_bytes"] > 0
    assert figures["links"]["packet_vnet_hdr"]


def test_a_thousand_connections_while_the_figures_go_out(serve: Start) -> None:
    """The second's housekeeping takes nothing from those who are being served."""
    with serve("--json-stats") as server:
        answers: list[bytes] = []

        def client() -> None:
            with namespace.inside(server.peer):
                for _ in range(250):
                    with socket.create_connection(("198.18.0.2", 80), timeout=30) as one:
                        one.sendall(b"GET /512.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        answer = b"".join(iter(lambda: one.recv(65536), b""))
                        answers.append(answer[-512:])

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [BODY] * 1000

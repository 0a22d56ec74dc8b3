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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest
from scapy.utils import rdpcap

from ustack.lab import ingress, labs, links, namespace, ownership, sweep
from ustack.lab.links import End

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


def test_two_servers_share_an_interface_but_no_address(site: Path, make_namespace: Callable[[], str]) -> None:
    """A second one with the same address is refused; one with another keeps what is its own when the first one ends."""
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="theirs")
    links.configure(ours, ipv6=False)
    links.configure(peer, address="198.18.0.1/24", ipv6=False)
    command = [*COMMAND, "serve", str(site), "--link", "dev:x0", "--netns", str(ours.namespace), "--address"]

    def fetch(address: str) -> bytes:
        client = ["ip", "netns", "exec", str(peer.namespace), "curl", "-sS", "--max-time", "30"]
        return subprocess.run([*client, f"http://{address}/512.bin"], check=True, capture_output=True).stdout

    with ExitStack() as ending:
        servers = []
        for address in ("198.18.0.2", "198.18.0.3"):
            process = subprocess.Popen([*command, f"{address}/24"], stdout=subprocess.PIPE, text=True)
            ending.callback(process.communicate)
            ending.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready")
            servers.append(process)
        refused = subprocess.run([*command, "198.18.0.2/24"], check=False, capture_output=True, text=True, timeout=60)
        assert refused.returncode != 0
        assert refused.stdout == ""
        assert refused.stderr.count("\n") == 1
        assert "address 198.18.0.2 is in use" in refused.stderr
        assert fetch("198.18.0.2") == fetch("198.18.0.3") == BODY
        servers[0].send_signal(signal.SIGTERM)
        assert servers[0].wait(60) == 0
        assert ingress.has_clsact(ours)
        assert fetch("198.18.0.3") == BODY
    assert not ingress.has_clsact(ours)


@pytest.mark.parametrize("mode", ["tun", "lo"])
def test_a_link_without_ethernet_is_refused_in_one_line(
    site: Path, make_namespace: Callable[[], str], mode: str
) -> None:
    where = make_namespace()
    if mode == "tun":
        subprocess.run(["ip", "-n", where, "tuntap", "add", "tun", "mode", "tun"], check=True)
    subprocess.run(["ip", "-n", where, "link", "set", mode, "up"], check=True)
    command = [*COMMAND, "serve", str(site), "--link", f"dev:{mode}", "--netns", where]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert f"interface {mode} in {where} is not Ethernet" in refused.stderr


def test_the_ring_has_the_frames_that_were_asked_for(serve: Start) -> None:
    def smallest_ring(server: Server) -> int:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
        ranges = [line.split()[0].split("-") for line in maps if "socket:" in line]
        return min(int(end, 16) - int(start, 16) for start, end in ranges)

    with serve("--ring", "64") as server:
        assert 64 * 1600 < smallest_ring(server) < 64 * 2048
        assert server.curl(server.url + "512.bin").stdout == BODY
    with serve() as server:
        assert 2048 * 1600 < smallest_ring(server) <= 2048 * 2048


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
    with serve("--access-log", str(log), "--capture", str(capture), "--json-stats", "--user", "root") as server:
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
        (["SITE", "--link", "tap", "--ring", "100"], "--ring makes no sense with tap"),
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
        (["", "--link", "veth"], "'DIRECTORY': it is empty (an unset variable?)"),
        (["SITE", "--link", "veth", "--access-log", ""], "it is empty"),
        (["SITE", "--link", "veth", "--capture", ""], "it is empty"),
        (["SITE", "--link", "veth", "--netns", "/proc/self/ns/mnt"], "/proc/self/ns/mnt is not a network namespace"),
        (["SITE", "--link", "veth", "--netns", "/no/such/ns"], "no namespace /no/such/ns"),
        (["SITE", "--link", "veth", "--address", "::1/64"], "IPv6 is not supported yet"),
        (["SITE", "--link", "veth", "--address", "127.0.0.1/8"], "loopback"),
        (["SITE", "--link", "dev:an-interface-with-a-long-name"], "bad interface name 'an-interface-with-a-long-name'"),
        (["SITE", "--link", "veth", "--user", "no-such-user"], "--user no-such-user: there is no such user"),
        (["SITE", "--link", "veth", "--user", "nobody:x y"], "there is no such user or group"),
        (["SITE", "--link", "veth", "--user", "4294967295"], "no uid 4294967295"),
        (["SITE", "--link", "veth", "--capture", "-", "--json-stats"], "both want standard output"),
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
    said = refused(str(site), "--link", "veth", *names, f"--{where}", str(site))
    assert "cannot serve: " in said
    assert said.endswith(f"{site}: Is a directory\n")
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")


def test_without_privileges_one_line_says_what_is_needed(as_others_see_it: list[str]) -> None:
    user = [*as_others_see_it, "setpriv", "--reuid", "65534", "--clear-groups"]
    command = [*user, *COMMAND, "serve", "/usr", "--link", "veth"]
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


# ---------------------------------------------------------------- whom it serves as


def status_of(pid: int) -> list[dict[str, str]]:
    """/proc/PID/status of each thread."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


def test_no_thread_keeps_a_capability_or_a_way_to_one(serve: Start) -> None:
    with serve("--capture", "/dev/null") as server:
        server.curl(server.url)
        for status in status_of(server.process.pid):
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0, (status["Name"], name)
            assert status["NoNewPrivs"] == "1"
            assert status["Uid"].split() == ["65534"] * 4
            assert set(status["Gid"].split()) == {"65534"}
            assert status["Groups"] == ""


def test_it_serves_as_the_owner_of_the_directory(serve: Start, site: Path) -> None:
    os.chown(site, 4711, 4712)
    site.chmod(0o700)
    with serve() as server:
        (status,) = status_of(server.process.pid)
        assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("4711", "4712")
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [("root", "0", "0"), ("4711", "4711", "4711"), ("4711:13", "4711", "13"), ("daemon:root", "1", "0")],
)
def test_the_user_is_chosen(serve: Start, user: str, uid: str, gid: str) -> None:
    with serve("--user", user) as server:
        (status,) = status_of(server.process.pid)
        assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({uid}, {gid})
        assert int(status["CapEff"], 16) == 0
        assert server.curl(server.url + "512.bin").stdout == BODY


def test_what_the_user_may_not_read_is_forbidden(serve: Start, site: Path) -> None:
    """As with any server that has given up root: a file of mode 0000, another's file, and below another's directory."""
    (site / "none.txt").write_text("x")
    (site / "none.txt").chmod(0)
    (site / "roots.txt").write_text("x")
    (site / "roots.txt").chmod(0o600)
    (site / "private").mkdir(mode=0o700)
    (site / "private" / "inside.txt").write_text("x")
    with serve() as server:
        for path in ("none.txt", "roots.txt", "private/inside.txt"):
            answer = server.curl(server.url + path, "-o", "/dev/null", "-w", "%{http_code}").stdout
            assert (path, answer) == (path, b"403")


def test_a_directory_that_the_user_may_not_enter_is_refused(site: Path, unique: Callable[[str], str]) -> None:
    site.chmod(0o700)
    name = unique("sv")
    said = refused(str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b")
    assert f"nobody may not enter {site} (mode 0700, owner 0)" in said
    assert "--user" in said
    assert not namespace.exists(f"{name}-a")


def test_below_a_private_home_files_are_served_and_a_release_is_switched(serve: Start, tmp_path: Path) -> None:
    """The path cannot be walked by who serves; what is behind it is known by its descriptor, and the keeper follows."""
    home = tmp_path / "home"
    for release in ("one", "two"):
        (home / release).mkdir(parents=True)
        (home / release / "index.html").write_text(release)
    (home / "current").symlink_to("one")
    log = home / "log"
    home.chmod(0o700)
    with serve("--access-log", str(log), directory=home / "current") as server:
        assert server.curl(server.url).stdout == b"one"
        (home / "next").symlink_to("two")
        (home / "next").replace(home / "current")
        log.rename(home / "log.1")
        server.process.send_signal(signal.SIGUSR1)
        while not log.exists():
            assert server.process.poll() is None
            os.sched_yield()
        while server.curl(server.url).stdout != b"two":
            assert server.process.poll() is None
        assert server.end() == 0
    assert '"GET / HTTP/1.1" 200 3' in (home / "log.1").read_text()
    assert '"GET / HTTP/1.1" 200 3' in log.read_text()


# ---------------------------------------------------------------- signals, and how it was started


def test_usr1_opens_the_log_again(serve: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serve("--access-log", str(log)) as server:
        server.curl(server.url + "512.bin", "-o", "/dev/null")
        log.rename(tmp_path / "access.log.1")
        server.process.send_signal(signal.SIGUSR1)
        while not log.exists():
            assert server.process.poll() is None
            os.sched_yield()
        server.curl(server.url + "index.html", "-o", "/dev/null")
        assert server.end() == 0
    assert "GET /512.bin" in (tmp_path / "access.log.1").read_text()
    assert "GET /index.html" in log.read_text()
    assert "GET /512.bin" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_log_on_standard_output_is_this_process_own(serve: Start) -> None:
    """Not the keeper's, to whom that name means another file."""
    with serve("--access-log", "/dev/stdout") as server:
        server.curl(server.url + "512.bin", "-o", "/dev/null")
        server.process.send_signal(signal.SIGUSR1)
        assert '"GET /512.bin HTTP/1.1" 200 512' in server.stdout.readline()


def test_the_current_directory_is_this_process_own(serve: Start, site: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(site)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with serve(directory=Path("/proc/self/cwd")) as server:
            server.process.send_signal(signal.SIGUSR1)
            assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO]
)
def test_signals_that_are_not_for_ending_do_not_end_it(serve: Start, number: signal.Signals) -> None:
    with serve() as server:
        server.process.send_signal(number)
        assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.end() == 0


def test_under_nohup_a_hangup_does_not_end_it(site: Path, unique: Callable[[str], str]) -> None:
    name = unique("sv")
    command = ["nohup", *COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a"]
    command += ["--peer-netns", f"{name}-b"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        server = Server(process, f"{name}-a", f"{name}-b")
        server.url = server.stdout.readline().split()[1]
        process.send_signal(signal.SIGHUP)
        assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.end() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams_it_serves(site: Path, unique: Callable[[str], str], closed: str) -> None:
    """As daemons and cron start programs. No descriptor of ours takes the place of what is missing."""
    name = unique("sv")
    command = [*COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    with subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *command], stdout=subprocess.DEVNULL) as process:
        server = Server(process, f"{name}-a", f"{name}-b")  # type: ignore[arg-type]
        while True:
            assert process.poll() is None
            links_there = [lab for lab in labs() if lab.name == f"serve-{process.pid}"]
            if links_there:
                break
        url = "http://198.18.0.2/512.bin"
        answer = server.curl("--retry", "20", "--retry-connrefused", "--retry-delay", "1", url)
        assert answer.stdout == BODY
        for number in range(3):
            assert not os.readlink(f"/proc/{process.pid}/fd/{number}").startswith(("socket:", "anon_inode:"))
        assert server.end() == 0


@pytest.mark.parametrize("limit", [6, 10, 14, 31])
def test_too_few_descriptors_are_one_line(site: Path, limit: int) -> None:
    command = [*COMMAND, "serve", str(site), "--link", "veth"]
    result = subprocess.run(
        ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr == f"ustack: {limit} open files are too few (ulimit -n): 32 are needed\n"


def test_32_descriptors_are_enough(serve: Start) -> None:
    with serve() as server:
        opened = {name for name in os.listdir(f"/proc/{server.process.pid}/fd") if int(name) >= 32}
        assert not opened
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize("module", ["click.core", "ustack.lab", "ustack.cli.serve"])
def test_an_interrupt_during_the_imports_leaves_no_traceback(module: str) -> None:
    """Whatever has just been imported when it comes."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {module}"):
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130) or output  # or it was already done
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors


# ---------------------------------------------------------------- less than root


def nothing_but(*capabilities: str) -> list[str]:
    """The beginning of a command that runs as an ordinary user with these capabilities, and can get no others."""
    names = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    user = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "--no-new-privs"]
    return [*user, f"--bounding-set={names}", f"--inh-caps={names}", f"--ambient-caps={names}"]


@contextmanager
def device(
    make_namespace: Callable[[], str], as_others_see_it: list[str], capabilities: tuple[str, ...], *arguments: str
) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """`serve --link dev:x0` where x0 is, with these capabilities alone."""
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="theirs")
    links.configure(ours, ipv6=False)
    links.configure(peer, address="198.18.0.1/24", ipv6=False)
    site = Path(__file__).parents[2] / "ustack" / "site"
    command = [*COMMAND, "serve", str(site), "--link", "dev:x0", *arguments]
    command = [*as_others_see_it, *nothing_but(*capabilities), *command]
    with namespace.inside(ours.namespace):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = Server(process, str(ours.namespace), str(peer.namespace))
    try:
        ready = server.stdout.readline()
        assert ready.startswith("ready http://"), process.communicate(timeout=60)[1]
        server.url = ready.split()[1]
        yield server, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def resets_from(wire: socket.socket, address: str) -> int:
    """TCP RSTs from this address among the frames that are there."""
    found = 0
    while True:
        try:
            frame = wire.recv(65536)
        except BlockingIOError:
            return found
        if frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[26:30] == socket.inet_aton(address):
            found += bool(frame[14 + (frame[14] & 15) * 4 + 13] & 4)


def test_with_cap_net_raw_alone_it_serves_and_the_kernel_is_silent(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    """Without a filter at ingress: the address is none of the kernel's, which drops what it sees, and sends no RST."""
    with device(make_namespace, as_others_see_it, ("net_raw",)) as (server, process):
        with namespace.inside(server.peer):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        with wire:
            wire.bind(("x1", 3))
            for _ in range(3):
                assert len(server.curl(server.url + "16k.bin").stdout) == 16384
            assert resets_from(wire, "198.18.0.2") == 0
        (status,) = status_of(process.pid)
        assert (status["Uid"].split()[0], int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("4711", 0, 0)
        assert server.end() == 0
        assert process.stderr is not None
        assert process.stderr.read() == (
            "ustack: no CAP_NET_ADMIN to keep the kernel off x0: it sees what is for 198.18.0.2 too, and drops it "
            "without an answer, because the address is not its own\n"
        )


def test_without_a_filter_a_kernel_that_forwards_is_named(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    forwarding = 'test 1 = $(sysctl -n -w net.ipv4.conf.all.forwarding=1) && exec "$@"'
    command = ["sh", "-c", forwarding, "sh", *as_others_see_it]
    with device(make_namespace, command, ("net_raw",)) as (server, process):
        assert server.end() == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert "net.ipv4.conf.x0.forwarding=1" in said
        assert said.count("\n") == 1


def test_with_cap_net_admin_the_kernel_is_kept_off_without_cap_sys_admin(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    with device(make_namespace, as_others_see_it, ("net_raw", "net_admin")) as (server, process):
        assert len(server.curl(server.url + "16k.bin").stdout) == 16384
        assert server.end() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def in_a_user_namespace(*options: str) -> list[str]:
    """The beginning of a command that runs as root of namespaces that an ordinary user made."""
    return ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "unshare", *options]


@pytest.mark.parametrize("options", [["-Urnm"], ["-Urn"]])
def test_root_of_a_user_namespace_serves_or_is_refused_in_one_line(
    as_others_see_it: list[str], options: list[str]
) -> None:
    """What an ordinary user has in a rootless container. Without a mount namespace no namespace can have a name."""
    probe = [*as_others_see_it, *in_a_user_namespace("-Urn"), "ip", "link", "set", "lo", "up"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no ordinary user be root of a user namespace")
    site = Path(__file__).parents[2] / "ustack" / "site"
    words = [*as_others_see_it, *in_a_user_namespace(*options), *COMMAND, "serve", str(site), "--link", "veth"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if ready:
            client = ["nsenter", "-t", str(process.pid), "-U", "-n", "curl", "-sS", "--max-time", "30"]
            body = subprocess.run([*client, ready.split()[1] + "512.bin"], capture_output=True, check=True).stdout
            assert len(body) == 512
            (status,) = status_of(process.pid)
            assert int(status["CapEff"], 16) == 0
            process.terminate()
        _, errors = process.communicate(timeout=60)
    if "m" in options[0]:
        assert (ready, process.returncode, errors) == ("ready http://198.18.0.2:80/\n", 0, "")
    else:
        assert (process.returncode, errors.count("\n")) == (2, 1), errors
        assert errors.startswith("ustack: ")


@pytest.mark.parametrize(
    "setting",
    ["mount -t tmpfs -o ro none /run", "mount -t tmpfs none /run; mkdir /run/netns; echo > /run/ustack"],
    ids=["read-only", "a-file"],
)
@pytest.mark.parametrize("command", [["serve", "SITE", "--link", "veth"], ["lab", "up", "x"], ["lab", "list"]])
def test_a_run_that_cannot_be_written_is_at_most_one_line(site: Path, setting: str, command: list[str]) -> None:
    words = [*COMMAND, *(str(site) if word == "SITE" else word for word in command)]
    script = f'mount --make-rprivate /; {setting}; exec "$@"'
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if "serve" in command and process.stdout.readline().startswith("ready"):
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 2)
    assert errors.count("\n") == (1 if process.returncode else 0), errors
    assert "Traceback" not in errors


# ---------------------------------------------------------------- what is convenient


def test_a_namespace_may_be_a_path(site: Path, make_namespace: Callable[[], str], unique: Callable[[str], str]) -> None:
    """/proc/PID/ns/net, as of a container."""
    peer = make_namespace()
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as container:
        while os.stat(f"/proc/{container.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            os.sched_yield()
        where = f"/proc/{container.pid}/ns/net"
        command = [
            *COMMAND,
            "serve",
            str(site),
            "--link",
            "veth",
            "--netns",
            where,
            "--peer-netns",
            f"/run/netns/{peer}",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            server = Server(process, "", peer)
            server.url = server.stdout.readline().split()[1]
            assert server.curl(server.url + "512.bin").stdout == BODY
            with namespace.inside(where):
                assert "ustack0" in [name for _, name in socket.if_nameindex()]
            assert server.end() == 0
        with namespace.inside(where):
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
        container.communicate()


def test_an_address_alone_is_enough(serve: Start) -> None:
    with serve("--address", "198.18.77.1/24") as server:
        assert server.curl(server.url + "512.bin").stdout == BODY
        (made,) = [lab for lab in labs() if lab.name == f"serve-{server.process.pid}"]
        assert made.peer_address == "198.18.77.2/24"


def test_a_capture_goes_to_a_pipe_with_nothing_else(site: Path, unique: Callable[[str], str]) -> None:
    name = unique("sv")
    command = [*COMMAND, "serve", str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    with subprocess.Popen([*command, "--capture", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready http://198.18.0.2:80/\n"
        client = ["ip", "netns", "exec", f"{name}-b", "curl", "-sS", "--max-time", "30", "http://198.18.0.2/512.bin"]
        assert subprocess.run(client, check=True, capture_output=True).stdout == BODY
        process.send_signal(signal.SIGTERM)
        capture, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert capture[:4] == b"\x0a\x0d\x0d\x0a"
    at = 0
    while at < len(capture):  # every block is whole, and nothing stands between them
        length = int.from_bytes(capture[at + 4 : at + 8], sys.byteorder)
        assert int.from_bytes(capture[at + length - 4 : at + length], sys.byteorder) == length
        at += length
    assert BODY[:64] in capture


def test_a_reader_of_standard_error_that_is_gone_does_not_end_the_server(serve: Start) -> None:
    """What cannot be written (here the log) is said to nobody, once a second at first and again at the end."""
    with serve("--access-log", "/dev/full") as server:
        assert server.process.stderr is not None
        server.process.stderr.close()
        for _ in range(2):
            assert server.curl(server.url + "512.bin").stdout == BODY
        assert server.end() == 0


def test_a_capture_follows_no_link_of_another_user_to_a_file_that_is_not_theirs(
    site: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    theirs, precious = tmp_path / "theirs", tmp_path / "precious"
    theirs.mkdir()
    precious.write_text("kept")
    (theirs / "capture").symlink_to(precious)
    for path in (theirs, theirs / "capture"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    where = ("--link", "veth", "--peer-netns", unique("peer"))
    said = refused(str(site), *where, "--capture", str(theirs / "capture"))
    assert said.startswith(f"ustack: cannot serve: {theirs / 'capture'}: user 65534 made it lead to")
    assert precious.read_text() == "kept"

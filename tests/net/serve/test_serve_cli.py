# SPDX-License-Identifier: MIT
"""`ustack serve` as a user runs it: what it prints, what it answers, how it ends, and that nothing is left."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.utils import rdpcap

from tests.children import wait_for_end
from tests.net.serve.running import BODY, COMMAND, Server, Start, nothing_left, refused
from ustack.cli.recording import part_of
from ustack.lab import ingress, labs, links, namespace, ownership, sweep
from ustack.lab.links import End
from ustack.obs.tracefile import read
from ustack.obs.tracesummary import summaries

pytestmark = pytest.mark.root


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


@pytest.mark.bpf
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


@pytest.mark.parametrize("mode", [pytest.param("tun", marks=pytest.mark.tap), "lo"])
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
        assert 4096 * 1600 < smallest_ring(server) <= 4096 * 2048


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


@pytest.mark.parametrize("suffix", [".parquet", ".qlog"])
def test_a_trace_has_the_first_connections_from_their_opening_to_their_end(
    serve: Start, tmp_path: Path, suffix: str
) -> None:
    """Written by an ordinary user into a file that root has opened; Ctrl-C finishes it."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"run{suffix}"
    with serve("--trace", str(file), "--trace-connections", "2") as server:
        for _ in range(3):
            server.curl(*[server.url + "512.bin"] * 5, "-o", "/dev/null")
        assert server.end(signal.SIGINT) == 0
    one, other = summaries(read(file))
    assert {one.end, other.end} == {"normal"}
    assert one.acked_bytes == one.sent_bytes > 5 * 512
    assert one.remote.startswith("198.18.0.1:")
    assert not part_of(file).exists()


def test_a_trace_whose_server_was_killed_is_read_from_its_part(serve: Start, tmp_path: Path) -> None:
    file = tmp_path / "run.qlog"
    with serve("--trace", str(file)) as server:
        server.curl(*[server.url + "512.bin"] * 5, "-o", "/dev/null")
        while not summaries(read(part_of(file))):
            server.curl(server.url + "512.bin")  # each takes a while; ten times per second it is written
        server.end(signal.SIGKILL)
    assert file.read_bytes() == b""
    recorded = read(part_of(file))
    assert summaries(recorded)[0].sent_bytes > 5 * 512
    assert recorded.connections[0]["remote"][0] == "198.18.0.1"


def test_a_trace_that_cannot_be_written_ends_and_the_server_goes_on(serve: Start, tmp_path: Path) -> None:
    with serve("--trace", str(tmp_path / "run.qlog"), "--user", "root") as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        for _ in range(2):
            server.curl(*[server.url + "512.bin"] * 20, "-o", "/dev/null")
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert errors == "ustack: the trace ended: it cannot be written: File too large\n"


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


@pytest.mark.users
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

# SPDX-License-Identifier: MIT
"""Clients that stall, die and vanish, and strangers that flood: service goes on, and nothing is left behind.

Mostly with a stack in this process, so that records and counters can be looked at, and time limits be short.
"""

import hashlib
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ustack.lab import namespace
from ustack.lab.links import End, configure, make_veth, netlink

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MS = 1_000_000
ADDRESS, PEER = "198.18.0.2", "198.18.0.1"
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
# Repetition and probing in milliseconds instead of seconds.
HASTY = {"rto_initial_ns": 100 * MS, "rto_min_ns": 20 * MS, "rto_max_ns": 200 * MS}


def checksum(data: bytes) -> int:
    """RFC 1071, the slow way and on its own: the stack's is what is under test."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def download(one: Any, path: str) -> subprocess.Popen[bytes]:
    """curl in the peer's namespace; its output is the SHA-256 of what came, when it came whole."""
    script = "set -o pipefail; curl -sS --fail --max-time 60 $0 | sha256sum"
    process: subprocess.Popen[bytes] = one.start("bash", "-c", script, f"http://{ADDRESS}/{path}")
    return process


def assert_serves(one: Any, site: Any, path: str = "one.bin") -> None:
    """A newcomer is served."""
    status, said = one.finish(download(one, path))
    assert (status, said.split()[0].decode()) == (0, site.digests[path])


def read_body(one: Any, client: socket.socket) -> bytes:
    """The response's head and body, from a socket that has asked."""
    fields = one.read_head(client)
    return bytes(one.read_all(client, int(fields["content-length"])))


# ---------------------------------------------------------------- a slow reader


def test_slow_reader_gets_all_and_holds_nobody_up(local: Callable[..., Any], link: str, site: Any) -> None:
    """A receive buffer of a few KiB, read 1 KiB at a time, now and then not at all until its window has been probed."""
    one = local(link, **HASTY)
    one.serve(site.path)
    slow = one.ask("ten.bin", receive_buffer=8192)
    fields = one.read_head(slow)
    received = hashlib.sha256()
    left = int(fields["content-length"])
    for stop in (left, left // 2, left // 4):
        while left > stop:
            piece = one.read(slow, 1024)
            assert piece != b""
            received.update(piece or b"")
            left -= len(piece or b"")
            one.stack.poll()
        probes = one.counter("window_probes_out")
        one.drive(lambda before=probes: one.counter("window_probes_out") >= before + 3)
        assert_serves(one, site)
        assert_serves(one, site, "ten.bin")
    received.update(one.read_all(slow, left))
    slow.close()
    assert received.hexdigest() == site.digests["ten.bin"]
    assert one.counter("connections_reset") == 0
    assert one.counter("connections_timed_out") == 0, "a closed window that answers probes is no dead peer"


def test_reader_that_never_reads_is_given_up(local: Callable[..., Any], link: str, site: Any) -> None:
    """Its window stays shut but it answers probes: TCP keeps such a connection for ever, the HTTP server does not."""
    one = local(link, **HASTY)
    server = one.serve(site.path, send_timeout_s=1.0)
    with one.ask("big.bin", receive_buffer=8192):
        one.drive(lambda: server.stats()["stalled_aborted"] == 1)  # the handshake may not be over when it asks
        one.drive(lambda: one.stack.established == 0)
    assert one.counter("window_probes_out") > 0
    assert_serves(one, site)


# ---------------------------------------------------------------- a client killed


def test_client_killed_in_mid_transfer(local: Callable[..., Any], link: str, site: Any) -> None:
    one = local(link, **HASTY)
    server = one.serve(site.path)
    killed = one.start("curl", "-sS", "--limit-rate", "10M", "-o", "/dev/null", f"http://{ADDRESS}/big.bin")
    other = download(one, "big.bin")
    one.drive(lambda: server.stats()["requests"] == 2 and one.counter("bytes_out") > 1_000_000)
    killed.send_signal(signal.SIGKILL)
    assert one.finish(killed)[0] == -signal.SIGKILL
    status, said = one.finish(other)
    assert (status, said.split()[0].decode()) == (0, site.digests["big.bin"])
    one.drive(lambda: one.stack.established == 0)
    assert one.counter("connections_reset") == 1
    assert_serves(one, site)


def test_20_clients_killed_under_ustack_serve(serving: Callable[..., Any], link: str, site: Any) -> None:
    server = serving(link, "--json-stats")
    clients = [
        server.start("curl", "-sS", "--limit-rate", "1M", server.url("big.bin"), stdout=subprocess.DEVNULL)
        for _ in range(20)
    ]
    server.until(lambda now: now["connections"] == 20)
    for client in clients:
        client.kill()
    idle = server.until(lambda now: now["connections"] == 0)
    assert idle["http"]["connections_open"] == 0
    assert idle["http"]["connections_busy"] == 0
    assert hashlib.sha256(server.get("one.bin")).hexdigest() == site.digests["one.bin"]


# ---------------------------------------------------------------- a client that vanishes


def run_through(one: Any, milliseconds: int) -> None:
    """Let time pass on a link that may report, once, that it went down."""
    with suppress(OSError):
        one.run_for(milliseconds)


def test_interface_goes_down_and_comes_back(local: Callable[..., Any], link: str, site: Any) -> None:
    """Nothing is lost but time."""
    one = local(link, **HASTY)
    one.serve(site.path)
    client = one.ask("ten.bin", receive_buffer=65536)
    length = int(one.read_head(client)["content-length"])
    first = one.read_all(client, 1_000_000)
    one.set_link(one.peer_ifname, "down")
    for _ in range(4):
        run_through(one, 100)
    one.set_link(one.peer_ifname, "up")
    run_through(one, 1)
    rest = one.read_all(client, length - len(first))
    client.close()
    assert hashlib.sha256(first + rest).hexdigest() == site.digests["ten.bin"]
    assert one.counter("connections_timed_out") == 0
    assert_serves(one, site)


def test_interface_stays_down_until_the_user_timeout(local: Callable[..., Any], link: str, site: Any) -> None:
    """The connection is reported as timed out; when the interface is back, service is as before."""
    one = local(link, user_timeout_ns=500 * MS, **HASTY)
    one.serve(site.path)
    client = one.ask("big.bin", receive_buffer=65536)
    one.read_head(client)
    one.set_link(one.peer_ifname, "down")
    for _ in range(20):
        run_through(one, 100)
        if not one.stack.connections("connection"):
            break
    assert one.stack.connections("connection") == []
    assert one.counter("connections_timed_out") == 1
    client.close()
    one.set_link(one.peer_ifname, "up")
    run_through(one, 1)
    assert_serves(one, site)


def sent_again(figures: dict[str, Any]) -> int:
    """What a connection sends to a peer that has gone silent."""
    return int(figures["counters"]["segments_retransmitted"] + figures["counters"]["window_probes_out"])


def test_interface_of_a_running_server_goes_down_and_up(serving: Callable[..., Any], link: str, site: Any) -> None:
    server = serving(link, "--json-stats")
    curl = server.start("curl", "-sS", "--max-time", "60", server.url("big.bin"))
    received = hashlib.sha256(curl.stdout.read(1_000_000))  # and it waits now, its pipe full
    server.set_link("ustack0", "down")
    before = sent_again(server.until(lambda now: True))
    server.until(lambda now: sent_again(now) > before)
    server.set_link("ustack0", "up")
    while piece := curl.stdout.read(1 << 20):
        received.update(piece)
    assert (curl.wait(60), received.hexdigest()) == (0, site.digests["big.bin"])
    assert hashlib.sha256(server.get("one.bin")).hexdigest() == site.digests["one.bin"]


def test_link_of_a_running_server_is_unplugged(serving: Callable[..., Any], link: str) -> None:
    """There is nothing left to serve on: one line, exit 1, nothing left behind (the fixture looks)."""
    server = serving(link)
    curl = server.start("curl", "-sS", "--limit-rate", "1M", "--max-time", "60", server.url("big.bin"))
    assert curl.stdout.read(100_000)
    server.remove_link("ustack0")
    assert server.process.wait(60) == 1
    assert server.said().startswith("ustack: the link failed: ")
    assert server.said().count("\n") == 1


def test_link_of_a_stack_is_unplugged(local: Callable[..., Any], link: str, site: Any) -> None:
    """run() raises; close() still gives back all that connections held."""
    one = local(link)
    one.serve(site.path)
    client = one.ask("big.bin")
    one.read_head(client)
    one.remove_link(one.peer_ifname)
    with pytest.raises(OSError, match=r"device|link|address"):
        one.drive(lambda: False, timeout=30)
    client.close()


class Elsewhere:
    """A client behind the peer, which routes: it can vanish without the stack's own link noticing."""

    def __init__(self, one: Any, netns: str) -> None:
        self.one = one
        self.netns = netns
        with one.inside():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self.router, self.own = End(one.netns, "router0"), End(netns, "far0")
        make_veth(self.router, self.own, mark="test")
        configure(self.router, address="198.19.0.1/24", ipv6=False)
        configure(self.own, address="198.19.0.2/24", ipv6=False)
        with netlink(netns) as ip:
            ip.route("add", dst="default", gateway="198.19.0.1")

    def ask(self, path: str) -> socket.socket:
        """A connection from there over which a GET has been sent."""
        with namespace.inside(self.netns):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.connect_ex((ADDRESS, 80))
        self.one.drive(lambda: self.one.established(client))
        client.send(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client


def test_routed_client_vanishes_and_others_go_on(
    local: Callable[..., Any], link: str, site: Any, make_namespace: Callable[[], str]
) -> None:
    """Its router says that it is unreachable: a soft error (RFC 1122 section 4.2.3.9), so the end comes by timeout, for
    the reason that the router gave."""
    one = local(link, gateway=PEER, user_timeout_ns=1500 * MS, **HASTY)
    one.serve(site.path)
    elsewhere = Elsewhere(one, make_namespace())
    vanishing = elsewhere.ask("big.bin")
    one.read_head(vanishing)
    staying = one.ask("ten.bin")
    one.remove_link("router0")
    assert hashlib.sha256(read_body(one, staying)).hexdigest() == site.digests["ten.bin"]
    assert len(one.stack.connections("connection")) == 2, "unreachable is no reason to give up at once"
    assert_serves(one, site, "ten.bin")
    one.drive(lambda: one.counter("connections_unreachable") == 1)
    one.drive(lambda: one.stack.established == 1)
    vanishing.close()
    staying.close()
    one.drive(lambda: one.stack.connections("connection") == [])


# ---------------------------------------------------------------- forged segments


class Forger:
    """Builds whole frames as a host behind the peer's interface would send them, and sends them there."""

    def __init__(self, one: Any, seed: int) -> None:
        self.one = one
        self.random = random.Random(seed)
        self.out = one.packet_socket(one.peer_ifname)
        self.ethernet = bytes.fromhex(one.device.mac.replace(":", "")) + self.out.getsockname()[4] + b"\x08\x00"

    def frame(self, source: tuple[str, int], flags: int, seq: int, ack: int = 0, port: int = 80) -> bytes:
        """One segment without data, its checksums right."""
        addresses = socket.inet_aton(source[0]) + socket.inet_aton(ADDRESS)
        tcp = struct.pack("!HHIIBBHHH", source[1], port, seq, ack, 5 << 4, flags, 1000, 0, 0)
        check = checksum(addresses + struct.pack("!HH", 6, len(tcp)) + tcp)
        tcp = tcp[:16] + struct.pack("!H", check) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
        return self.ethernet + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp

    def send(self, frames: list[bytes], burst: int = 100) -> None:
        """All of them, the stack moving in between, so that none is lost on the way."""
        for start in range(0, len(frames), burst):
            target = self.one.counter("frames_in") + len(frames[start : start + burst])
            for frame in frames[start : start + burst]:
                self.out.send(frame)
            self.one.drive(lambda due=target: self.one.counter("frames_in") >= due)


def test_rst_storm_resets_nobody(local: Callable[..., Any], link: str, site: Any) -> None:
    """20,000 RSTs and SYN,RSTs at random sequence numbers, into a transfer and at its port from elsewhere."""
    one = local(link)
    one.serve(site.path)
    client = one.ask("ten.bin", receive_buffer=65536)
    length = int(one.read_head(client)["content-length"])
    half = one.read_all(client, length // 2)
    victim = (PEER, client.getsockname()[1])
    forger = Forger(one, seed=1)
    draw = forger.random.getrandbits
    before = one.stack.counters()
    frames = [
        forger.frame(
            victim if number % 4 else (PEER, 1024 + draw(15)),
            (RST, RST | ACK, RST | SYN, RST | SYN | ACK)[draw(2)],
            draw(32),
            draw(32),
        )
        for number in range(20_000)
    ]
    forger.send(frames)
    after = one.stack.counters()
    rest = one.read_all(client, length - len(half))
    client.close()
    assert hashlib.sha256(half + rest).hexdigest() == site.digests["ten.bin"]
    assert after["connections_reset"] == 0
    assert after["resets_out"] == before["resets_out"], "a RST is never answered with a RST"
    assert after["connections_accepted"] == before["connections_accepted"]
    dropped = sum(after[name] - before[name] for name in after if name.startswith("drop_"))
    assert dropped == len(frames), "each has been counted under a reason"
    assert one.device.counters()["rx_dropped"] == 0
    assert_serves(one, site)


def test_storm_of_every_flag_at_a_transfer(local: Callable[..., Any], link: str, site: Any) -> None:
    """Blind segments without RST: at most a rationed challenge ACK answers them (RFC 5961 sections 4, 5 and 7)."""
    one = local(link)
    one.serve(site.path)
    client = one.ask("ten.bin", receive_buffer=65536)
    length = int(one.read_head(client)["content-length"])
    half = one.read_all(client, length // 2)
    forger = Forger(one, seed=2)
    draw = forger.random.getrandbits
    victim = (PEER, client.getsockname()[1])
    forger.send([forger.frame(victim, draw(6) & ~RST, draw(32), draw(32)) for _ in range(5_000)])
    rest = one.read_all(client, length - len(half))
    client.close()
    assert hashlib.sha256(half + rest).hexdigest() == site.digests["ten.bin"]
    assert one.counter("connections_reset") == 0


# ---------------------------------------------------------------- SYN floods


def flood(one: Any, ifname: str, *options: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "ustack.tools.synflood", "--netns", one.netns, "--ifname", ifname]
    process: subprocess.Popen[bytes] = one.start(*words, "--target", ADDRESS, *options)
    return process


@pytest.mark.parametrize("sources", ["198.19.0.0/16", "198.18.0.0/24"], ids=["routed", "neighbours"])
def test_syn_flood_of_100_000_leaves_service_intact(
    serving: Callable[..., Any], link: str, site: Any, sources: str
) -> None:
    server = serving(link, "--json-stats", "--gateway", PEER)
    server.get("one.bin")
    before = server.resident_bytes()
    attack = flood(server, "ustack0", "--count", "100000", "--sources", sources, "--seconds", "30")
    answered = 0
    while attack.poll() is None:
        # Its SYN may be lost in the crowd, or its half-open record recycled before its ACK: it comes again.
        body = server.get("512.bin", "--retry", "10", "--retry-all-errors", "--retry-max-time", "50")
        assert body == site.body("512.bin")
        answered += 1
    assert attack.returncode == 0, attack.communicate()
    assert answered >= 1
    assert hashlib.sha256(server.get("ten.bin")).hexdigest() == site.digests["ten.bin"]
    server.run("ab", "-q", "-n", "500", "-c", "50", server.url("512.bin"))
    figures = server.until(lambda now: now["connections"] == 0)
    assert figures["counters"]["syn_cookies_sent"] + figures["link"]["rx_dropped"] > 0
    assert server.resident_bytes() - before < 32 << 20


def test_syn_flood_holds_no_more_than_its_queue(local: Callable[..., Any], link: str, site: Any) -> None:
    """100,000 against a queue of 256, in the middle of a transfer."""
    one = local(link, gateway=PEER, syn_queue=256)
    one.serve(site.path)
    client = one.ask("ten.bin", receive_buffer=65536)
    length = int(one.read_head(client)["content-length"])
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, one.stack.leaks()["syns"])
        return attack.poll() is not None

    attack = flood(one, one.peer_ifname, "--count", "100000", "--sources", "198.19.0.0/16", "--seconds", "30")
    first = one.read_all(client, length // 2)
    one.drive(look)
    assert attack.returncode == 0, attack.communicate()
    assert 0 < most <= 256
    assert one.counter("syn_cookies_sent") > 256
    rest = one.read_all(client, length - len(first))
    client.close()
    assert hashlib.sha256(first + rest).hexdigest() == site.digests["ten.bin"]
    assert one.counter("connections_accepted") == 1
    assert_serves(one, site)


def test_half_open_connections_end_by_themselves(local: Callable[..., Any], link: str, site: Any) -> None:
    """SYNs whose senders never answer: the SYN,ACKs are repeated, then the records go."""
    one = local(link, gateway=PEER, syn_ack_timeout_ns=500 * MS, **HASTY)
    one.serve(site.path)
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, one.stack.leaks()["syns"])
        return attack.poll() is not None

    attack = flood(one, one.peer_ifname, "--count", "100", "--sources", "198.19.0.0/16")
    one.drive(look)  # on a busy machine the program ends later than the records
    assert attack.returncode == 0, attack.communicate()
    assert most > 0
    one.drive(lambda: one.stack.leaks()["syns"] == 0)
    assert one.counter("segments_retransmitted") > 0
    assert one.counter("connections_accepted") == 0

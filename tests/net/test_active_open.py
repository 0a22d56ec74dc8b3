# SPDX-License-Identifier: MIT
"""Stack.connect() against servers of the kernel's stack: a few lines of Python, nginx, nobody. Over veth and TAP."""

import hashlib
import os
import random
import select
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ustack.errors import (
    ConnectionAborted,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimeout,
    StackError,
    Unreachable,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

TEN_MIB = 10 << 20
PEER = "198.18.0.1"

# Each listens on a free port of the peer's address, says which, and serves one connection called `c`.
LISTEN = """
import hashlib, random, socket, struct, sys, threading
l = socket.create_server(("198.18.0.1", 0))
print(l.getsockname()[1], flush=True)
c, _ = l.accept()
"""
ECHO = """
while data := c.recv(65536):
    c.sendall(data)
c.close()
"""
# Sends 10 MiB of its own while it takes what comes; then says what came.
BOTH_WAYS = """
sender = threading.Thread(target=lambda: (c.sendall(random.Random("peer").randbytes(10 << 20)), c.shutdown(1)))
sender.start()
digest = hashlib.sha256()
while data := c.recv(65536):
    digest.update(data)
sender.join()
c.close()
print(digest.hexdigest(), flush=True)
"""
# Answers only when it has seen our end: its digest, and 1 MiB.
AFTER_OUR_FIN = """
digest = hashlib.sha256()
while data := c.recv(65536):
    digest.update(data)
c.sendall(digest.hexdigest().encode() + random.Random("late").randbytes(1 << 20))
c.close()
"""
# Ends its side first, then takes all that we have.
AFTER_ITS_FIN = """
c.sendall(b"that is all")
c.shutdown(socket.SHUT_WR)
digest = hashlib.sha256()
while data := c.recv(65536):
    digest.update(data)
print(digest.hexdigest(), flush=True)
"""
# An abortive close in the middle of our data.
RESET = """
c.recv(1000)
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
c.close()
"""
# Asks before it sends, and reads little at a time: many small segments each way.
DIALOGUE = """
with c.makefile("rwb") as stream:
    for line in stream:
        stream.write(line.upper())
        stream.flush()
"""


@pytest.fixture
def kernel_server(local: Callable[..., Any], link: str) -> Callable[[str], tuple[Any, Any, int]]:
    """kernel_server(script) -> our stack, the server's process, its port."""

    def start(script: str) -> tuple[Any, Any, int]:
        one = local(link)
        process = one.start(sys.executable, "-c", LISTEN + script)
        return one, process, int(line_of(one, process))

    return start


def line_of(one: Any, process: Any) -> str:
    """The next line that a program writes, the stack moving meanwhile."""
    one.drive(lambda: select.select([process.stdout], [], [], 0)[0])
    return str(process.stdout.readline().decode().strip())


def read_to_the_end(connection: Any) -> bytes:
    """Everything up to the peer's FIN."""
    out = bytearray()
    while piece := connection.receive(1 << 20, timeout=60):
        out += piece
    return bytes(out)


def test_echo_10_mib(kernel_server: Any) -> None:
    one, process, port = kernel_server(ECHO)
    data = random.Random("echo").randbytes(TEN_MIB)
    with one.stack.connect(PEER, port, timeout=30) as connection:
        connection.send(data)
        connection.shutdown()
        assert hashlib.sha256(read_to_the_end(connection)).digest() == hashlib.sha256(data).digest()
    assert one.finish(process)[0] == 0
    assert one.counter("connections_opened") == 1


def test_10_mib_both_ways_at_once(kernel_server: Any) -> None:
    one, process, port = kernel_server(BOTH_WAYS)
    ours, theirs = random.Random("ours").randbytes(TEN_MIB), random.Random("peer").randbytes(TEN_MIB)
    with one.stack.connect(PEER, port, timeout=30) as connection:
        connection.send(ours)
        connection.shutdown()
        assert read_to_the_end(connection) == theirs
        assert line_of(one, process) == hashlib.sha256(ours).hexdigest()
    assert one.finish(process)[0] == 0


def test_our_half_close(kernel_server: Any) -> None:
    """Our FIN ends our side only: what the peer sends after it still arrives."""
    one, process, port = kernel_server(AFTER_OUR_FIN)
    data = random.Random("half").randbytes(TEN_MIB)
    connection = one.stack.connect(PEER, port, timeout=30)
    connection.send(data)
    connection.shutdown()
    assert connection.state in ("FIN-WAIT-1", "FIN-WAIT-2")
    with pytest.raises(StackError):
        connection.send(b"more")
    answer = read_to_the_end(connection)
    assert answer == hashlib.sha256(data).hexdigest().encode() + random.Random("late").randbytes(1 << 20)
    connection.close()
    assert one.finish(process)[0] == 0


def test_the_peers_half_close(kernel_server: Any) -> None:
    """After the peer's FIN we still send, in CLOSE-WAIT."""
    one, process, port = kernel_server(AFTER_ITS_FIN)
    data = random.Random("rest").randbytes(TEN_MIB)
    connection = one.stack.connect(PEER, port, timeout=30)
    assert read_to_the_end(connection) == b"that is all"
    assert connection.state == "CLOSE-WAIT"
    connection.send(data)
    connection.close()
    assert line_of(one, process) == hashlib.sha256(data).hexdigest()
    assert one.finish(process)[0] == 0


def test_1000_small_questions(kernel_server: Any) -> None:
    one, _, port = kernel_server(DIALOGUE)
    with one.stack.connect(PEER, port, timeout=30) as connection:
        connection.nodelay = True
        for number in range(1000):
            connection.send(f"question {number}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += connection.receive(timeout=30)
            assert answer == f"QUESTION {number}\n".encode()


def test_100_connections_one_after_the_other(local: Callable[..., Any], link: str) -> None:
    """Each has a port of its own, though the ones before are in TIME-WAIT."""
    one = local(link)
    script = LISTEN + "\nwhile True:\n    c.sendall(c.recv(100)); c.close(); c, _ = l.accept()"
    port = int(line_of(one, one.start(sys.executable, "-c", script)))
    used = set()
    for number in range(100):
        with one.stack.connect(PEER, port, timeout=30) as connection:
            used.add(connection.local)
            connection.send(str(number).encode())
            connection.shutdown()
            assert read_to_the_end(connection) == str(number).encode()
    assert len(used) == 100


def test_reset_by_the_peer(kernel_server: Any) -> None:
    one, process, port = kernel_server(RESET)
    connection = one.stack.connect(PEER, port, timeout=30)
    connection.send(bytes(TEN_MIB))
    with pytest.raises(ConnectionReset) as caught:
        connection.receive(timeout=30)
    assert caught.value.reason == "reset"
    assert connection.state == "CLOSED"
    assert one.finish(process)[0] == 0
    assert one.counter("connections_reset") == 1


def test_abort_reaches_the_peer_as_a_reset(kernel_server: Any) -> None:
    script = "try:\n    c.recv(1)\nexcept ConnectionResetError:\n    print('reset', flush=True)"
    one, process, port = kernel_server(script)
    connection = one.stack.connect(PEER, port, timeout=30)
    connection.abort()
    assert line_of(one, process) == "reset"
    with pytest.raises(ConnectionAborted):
        connection.receive(timeout=1)


def test_refused(local: Callable[..., Any], link: str) -> None:
    one = local(link)
    for port in (1, 9, 65535):
        with pytest.raises(ConnectionRefused) as caught:
            one.stack.connect(PEER, port, timeout=30)
        assert caught.value.reason == "refused"
    assert one.stack.connections("connection") == []


def test_nobody_has_the_address(local: Callable[..., Any], link: str) -> None:
    """On our own network: ARP is never answered."""
    one = local(link, syn_timeout_ns=500_000_000, neighbour_retry_ns=50_000_000, rto_initial_ns=100_000_000)
    with pytest.raises((Unreachable, ConnectionTimeout)):
        one.stack.connect("198.18.0.77", 80, timeout=60)
    assert one.counter("arp_requests_out") > 0
    assert one.stack.connections("connection") == []


def test_nobody_answers(local: Callable[..., Any], link: str) -> None:
    """A router takes our SYNs and they vanish behind it: R2 for a SYN ends the attempt."""
    one = local(link, gateway=PEER, syn_timeout_ns=1_000_000_000, rto_initial_ns=100_000_000)
    with pytest.raises(ConnectionTimeout) as caught:
        one.stack.connect("198.19.0.77", 80, timeout=60)
    assert caught.value.reason == "timeout"
    assert one.counter("segments_retransmitted") > 0
    assert one.stack.connections("connection") == []


def test_a_router_says_unreachable(local: Callable[..., Any], link: str) -> None:
    """ICMP is a soft error while the handshake goes on (RFC 1122 section 4.2.3.9): it is the reason once R2 is over."""
    one = local(link, gateway=PEER, syn_timeout_ns=1_000_000_000, rto_initial_ns=100_000_000)
    with one.inside():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with pytest.raises((Unreachable, ConnectionTimeout)):
        one.stack.connect("198.19.0.77", 80, timeout=60)
    assert one.stack.connections("connection") == []


def test_the_callers_patience_ends_first(local: Callable[..., Any], link: str) -> None:
    one = local(link, gateway=PEER)
    with pytest.raises(TimeoutError, match=r"0\.1 s"):
        one.stack.connect("198.19.0.77", 80, timeout=0.1)
    one.drive(lambda: one.stack.connections("connection") == [])


def test_no_route(local: Callable[..., Any], link: str) -> None:
    one = local(link)
    with pytest.raises(Unreachable) as caught:
        one.stack.connect("198.19.0.77", 80)
    assert caught.value.reason == "net_unreachable"


# ---------------------------------------------------------------- nginx

NGINX = """
worker_processes 1;
daemon off;
user root;
pid {work}/pid;
error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
    server {{ listen 198.18.0.1:8080; root {site}; }}
}}
"""


@pytest.fixture
def nginx(local: Callable[..., Any], link: str, site: Any, tmp_path: Path) -> Iterator[Any]:
    """nginx at the other end of our stack's link. It is given its listening socket: nobody has to wait for it."""
    one = local(link)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(work=tmp_path, site=site.path))
    with one.inside():
        listener = socket.create_server((PEER, 8080), backlog=128)
    with listener:
        descriptor = listener.fileno()
        master = one.start(
            *("nginx", "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(configuration)),
            pass_fds=[descriptor],
            env={**os.environ, "NGINX": f"{descriptor};"},
        )
    yield one
    master.terminate()  # its worker ends with it
    master.wait(30)


def get(connection: Any, path: str) -> bytes:
    """The body of one response; the connection stays."""
    connection.send(f"GET /{path} HTTP/1.1\r\nHost: {PEER}\r\n\r\n".encode())
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += connection.receive(timeout=30)
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    pieces, length = [body], len(body)
    while length < int(fields[b"content-length"]):
        pieces.append(connection.receive(1 << 20, timeout=30))
        assert pieces[-1], f"the end after {length} bytes"
        length += len(pieces[-1])
    return b"".join(pieces)


def test_get_from_nginx(nginx: Any, site: Any) -> None:
    with nginx.stack.connect(PEER, 8080, timeout=30) as connection:
        for path in ("512.bin", "one.bin", "pages/3.txt", "ten.bin"):
            assert get(connection, path) == site.body(path)


def test_get_100_mib_from_nginx(nginx: Any, site: Any) -> None:
    with nginx.stack.connect(PEER, 8080, timeout=30) as connection:
        assert hashlib.sha256(get(connection, "big.bin")).hexdigest() == site.digests["big.bin"]
    assert nginx.counter("drop_tcp_checksum") == 0


def test_20_connections_to_nginx_at_once(nginx: Any, site: Any) -> None:
    """All opened without waiting, all asked before the first is read."""
    connections = [nginx.stack.connect(PEER, 8080, wait=False) for _ in range(20)]
    nginx.drive(lambda: all(connection.established for connection in connections))
    for connection in connections:
        connection.send(b"GET /one.bin HTTP/1.0\r\n\r\n")
    for connection in connections:
        head, _, body = read_to_the_end(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == site.body("one.bin")
        connection.close()

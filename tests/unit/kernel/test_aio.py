# SPDX-License-Identifier: MIT
"""POSIX AIO as it can fail: no thread is to be had, signals are lost, the transport goes while it reads."""

import errno
import http.client
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.buf import lent
from ustack.kernel.transport import KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.parts.failing import Failing

SIGNAL = signal.SIGRTMIN + 3
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"
BIG = bytes(range(251)) * 4000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(200):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number * 100)
    (tmp_path / "big").write_bytes(BIG)
    return tmp_path


def answer(loopback: Loopback, end: LoopbackEnd) -> bytes:
    loopback.settle()
    found = b""
    while True:
        try:
            part = end.receive()
        except BlockingIOError:
            return found
        found += part
        loopback.settle()


def in_a_child(holds: Callable[[], bool]) -> None:
    """It is so in a copy of this process."""
    child = os.fork()
    if child == 0:
        os._exit(0 if holds() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_more_than_there_are_places_for_are_read(root: Path) -> None:
    alive = lent.alive()
    server = HttpServer(root)
    loopback = Loopback(server, "aio")
    ends = [loopback.open() for _ in range(200)]
    loopback.settle()
    for number, end in enumerate(ends):
        end.send(GET % b"f%d" % number)
    for number, end in enumerate(ends):
        assert answer(loopback, end).endswith(b"\r\n\r\n" + b"%d" % number * 100)
    counted = loopback.transport.counters()
    assert (counted["file_reads"], counted["file_reads_refused"], server.stats()["loads"]) == (200, 0, 200)
    server.close()
    loopback.close()
    assert lent.alive() == alive


@pytest.mark.parametrize(("path", "body"), [(b"f7", b"7" * 100), (b"big", BIG)])
def test_where_no_thread_is_to_be_had_a_file_is_read_at_once(root: Path, path: bytes, body: bytes) -> None:
    server = HttpServer(root)
    loopback = Loopback(server, "aio")
    end = loopback.open()
    with Failing("ustack.kernel.aio", "aio_read", errno.EAGAIN):
        end.send(GET % path)
        assert answer(loopback, end).endswith(b"\r\n\r\n" + body)
    assert loopback.transport.counters()["file_reads"] == 0
    assert loopback.transport.counters()["file_reads_refused"] > 0
    server.close()
    loopback.close()


@pytest.mark.parametrize("path", [b"f7", b"big"])
def test_a_transport_that_goes_waits_for_what_it_reads(root: Path, path: bytes) -> None:
    alive = lent.alive()
    descriptors = len(os.listdir("/proc/self/fd"))
    server = HttpServer(root)
    loopback = Loopback(server, "aio")
    end = loopback.open()
    loopback.settle()
    end.send(GET % path)
    while not server.stats()["loads"]:
        loopback.poll()
    loopback.transport.close()
    server.close()
    end.close()
    loopback.close()
    assert lent.alive() == alive
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_child_of_fork_leaves_the_reads_to_its_parent(root: Path) -> None:
    server = HttpServer(root)
    loopback = Loopback(server, "aio")
    end = loopback.open()
    loopback.settle()
    end.send(GET % b"big")
    while not server.stats()["loads"]:
        loopback.poll()
    in_a_child(lambda: not loopback.transport.alive)
    assert answer(loopback, end).endswith(b"\r\n\r\n" + BIG)
    server.close()
    loopback.close()


def test_a_child_of_fork_has_no_threads_and_reads_at_once(root: Path) -> None:
    """Its parent has read: the library takes the threads of then for its own."""
    with HttpServer(root) as server:
        loopback = Loopback(server, "aio")
        end = loopback.open()
        end.send(GET % b"f7")
        assert answer(loopback, end).endswith(b"7" * 100)

        def reads_without_threads() -> bool:
            own = Loopback(HttpServer(root), "aio")
            one = own.open()
            one.send(GET % b"f8")
            return answer(own, one).endswith(b"8" * 100) and own.transport.counters()["file_reads"] == 0

        in_a_child(reads_without_threads)
        loopback.close()


def test_a_signal_that_somebody_sends_is_nobodys(root: Path) -> None:
    """It carries no pointer of ours."""
    with HttpServer(root) as server:
        loopback = Loopback(server, "aio")
        end = loopback.open()
        end.send(GET % b"f7")
        assert answer(loopback, end).endswith(b"7" * 100)

        def goes_on() -> bool:
            os.kill(os.getpid(), SIGNAL)
            return True

        in_a_child(goes_on)
        loopback.close()


def fetch(transport: KernelTransport, port: int, paths: list[str]) -> list[bytes]:
    """By a client in another thread, while this one serves in real time."""
    found: list[bytes] = []

    def client() -> None:
        connection = http.client.HTTPConnection(ADDRESS, port, timeout=20)
        for path in paths:
            connection.request("GET", path)
            found.append(connection.getresponse().read())
        connection.close()
        transport.stop()

    thread = threading.Thread(target=client)
    thread.start()
    transport.run()
    thread.join()
    return found


def test_the_signal_wakes_who_sleeps(root: Path) -> None:
    with HttpServer(root) as server, KernelTransport("aio") as transport:
        listener = transport.listen(0, application=server, address=ADDRESS)
        found = fetch(transport, listener.port, [f"/f{number}" for number in range(20)] + ["/big"])
        assert found == [b"%d" % number * 100 for number in range(20)] + [BIG]
        counted = transport.counters()
    assert counted["file_reads"] == 20 + -(-len(BIG) // (1 << 17))
    assert counted["file_reads_untold"] <= 1  # a look that came just before its signal


def test_a_signal_that_is_lost_is_made_up_for(root: Path) -> None:
    """Its memory and its eventfd stay: a signal that came yet would touch them."""
    descriptors = len(os.listdir("/proc/self/fd"))
    with HttpServer(root) as server, KernelTransport("aio") as transport:
        listener = transport.listen(0, application=server, address=ADDRESS)
        before = signal.signal(SIGNAL, signal.SIG_IGN)
        try:
            assert fetch(transport, listener.port, ["/f1", "/f2"]) == [b"1" * 100, b"2" * 100]
        finally:
            signal.signal(SIGNAL, before or signal.SIG_IGN)
        assert transport.counters()["file_reads_untold"] == 2
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1

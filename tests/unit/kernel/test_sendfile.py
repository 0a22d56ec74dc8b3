# SPDX-License-Identifier: MIT
"""Bodies of files that go out by their descriptors, with the strategies that can."""

import errno
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.kernel import strategies
from ustack.kernel.transport import KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.parts.failing import Failing
from ustack.testing.recorder import Recorder

Make = Callable[..., Loopback]
BIG = bytes(range(251)) * 8000
MIDDLE = bytes(range(253)) * 60  # less than a segment of loopback, with its head
DATA_SEGS_IN = 152  # offset of tcpi_data_segs_in in the kernel's struct tcp_info

THOSE_THAT_CAN = [name for name in strategies.in_one_thread() if "uring" not in name]
pytestmark = pytest.mark.parametrize("strategy", THOSE_THAT_CAN)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "big").write_bytes(BIG)
    (tmp_path / "middle").write_bytes(MIDDLE)
    (tmp_path / "small").write_bytes(b"small")
    return tmp_path


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET /{path} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


def receive(loopback: Loopback, end: LoopbackEnd, length: int) -> bytes:
    """A response with a body of so many bytes: the body."""
    found = b""
    while len(found.partition(b"\r\n\r\n")[2]) < length:
        loopback.settle()
        try:
            found += end.receive(1 << 20)
        except BlockingIOError:
            os.sched_yield()
    return found.partition(b"\r\n\r\n")[2]


def test_the_body_of_a_large_file_goes_by_its_descriptor(make: Make, root: Path) -> None:
    with HttpServer(root) as server:
        loopback = make(server, sendfile=True, sndbuf_bytes=1 << 16)
        end = loopback.open(receive_bytes=1 << 16)
        for path, body, range_ in (("big", BIG, ""), ("small", b"small", ""), ("big", BIG[70_000:], "bytes=70000-")):
            before = loopback.transport.counters()["sendfiles"]
            end.send(get(path, *([f"Range: {range_}"] if range_ else [])))
            assert receive(loopback, end, len(body)) == body
            assert (loopback.transport.counters()["sendfiles"] > before) == (path == "big")
        loopback.settle()


def test_head_and_file_share_a_segment(make: Make, root: Path) -> None:
    with HttpServer(root, small_file_bytes=1000) as server:
        loopback = make(server, sendfile=True)
        end = loopback.open()
        end.send(get("middle"))
        assert receive(loopback, end, len(MIDDLE)) == MIDDLE
        counted = loopback.transport.counters()
        assert (counted["sends"], counted["sendfiles"]) == (2, 1)
        info = end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        assert struct.unpack_from("I", info, DATA_SEGS_IN) == (1,)
        loopback.settle()


def test_files_keep_a_quarter_of_the_descriptors_at_most(make: Make, tmp_path: Path) -> None:
    for number in range(130):
        (tmp_path / f"f{number}").write_bytes(MIDDLE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with HttpServer(tmp_path, small_file_bytes=1000) as server:
        loopback = make(server, sendfile=True)
        end = loopback.open()
        loopback.settle()
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        try:
            descriptors = len(os.listdir("/proc/self/fd"))
            for number in range(130):
                end.send(get(f"f{number}"))
                assert receive(loopback, end, len(MIDDLE)) == MIDDLE
            assert len(os.listdir("/proc/self/fd")) == descriptors + 100
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert loopback.transport.counters()["sendfiles"] == 100
        end.close()
        while loopback.transport.established:  # its FIN may still be on its way
            os.sched_yield()
            loopback.settle()
    assert len(os.listdir("/proc/self/fd")) < descriptors


def test_a_file_that_is_cut_short_ends_the_connection(make: Make, root: Path) -> None:
    server = HttpServer(root, revalidate_s=3600.0)
    loopback = make(server, sendfile=True, sndbuf_bytes=1 << 14)
    end = loopback.open(receive_bytes=1 << 14)
    end.send(get("big"))
    loopback.settle()
    os.truncate(root / "big", 4096)
    received, was_reset = b"", False
    while not was_reset:
        loopback.settle()
        try:
            received += end.receive()
        except BlockingIOError:
            continue
        except ConnectionResetError:
            was_reset = True
    assert len(received) < len(BIG)
    assert loopback.transport.counters()["damaged_aborted"] == 1
    loopback.settle()
    server.close()


def test_descriptors_are_given_back(strategy: str, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    server = HttpServer(root)
    loopback = Loopback(server, strategy, sendfile=True)
    end = loopback.open()
    end.send(get("big"))
    assert receive(loopback, end, len(BIG)) == BIG
    server.close()
    end.close()
    loopback.settle()
    loopback.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_descriptor_left_the_mapping_is_sent(make: Make, root: Path) -> None:
    with HttpServer(root) as server:
        loopback = make(server, sendfile=True)
        end = loopback.open()
        loopback.settle()
        end.send(get("big"))
        with Failing("ustack.buf.lent", "fcntl", errno.EMFILE):
            assert receive(loopback, end, len(BIG)) == BIG
        assert loopback.transport.counters()["sendfiles"] == 0
        loopback.settle()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("io_uring", "io_uring sends by requests of its own"),
        ("io_uring-zc", "io_uring-zc sends by requests of its own"),
        ("threads", "with threads sockets block"),
        ("processes", "with processes sockets block"),
    ],
)
def test_who_cannot_says_so(strategy: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"sendfile=True: {said}"):
        KernelTransport(name, sendfile=True)


def reset_before_sendfile(make: Make, root: Path) -> None:
    """A peer that has sent its FIN resets its connection between the moment when there was room in its buffer and the
    sendfile(2) that fills it: the kernel answers with EPIPE, and a SIGPIPE."""
    recorder = Recorder()
    with HttpServer(root) as server:
        loopback = make(server, sendfile=True, sndbuf_bytes=1 << 16)
        listener = loopback.transport.listen(0, application=recorder, address=ADDRESS)
        end, other = loopback.open(receive_bytes=1 << 16), LoopbackEnd(listener.port)
        recorder.on("data", lambda port: end.abort())
        end.send(get("big"))
        end.shutdown()
        loopback.settle()
        found = 0
        while found < 1 << 17:  # more than the server's kernel has room for
            try:
                found += len(end.receive())
            except BlockingIOError:
                os.sched_yield()
        other.send(b"x")
        before = loopback.transport.counters()
        loopback.poll()
        after = loopback.transport.counters()
        assert after["sendfiles"] == before["sendfiles"] + 1
        assert after["reset_connections"] == before["reset_connections"] + 1
        assert recorder.names()[-1] == "data"
        other.close()
        loopback.settle()


def test_a_connection_that_is_gone_raises_no_signal(make: Make, root: Path) -> None:
    """sendfile(2) has no MSG_NOSIGNAL. Whatever the program does with SIGPIPE, and whenever it has begun to."""
    handled: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, frame: handled.append(number))
    try:
        reset_before_sendfile(make, root)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert handled == []


@pytest.mark.parametrize("pending", [False, True])
def test_one_that_somebody_waits_for_is_left_to_him(make: Make, root: Path, pending: bool) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        if pending:
            signal.pthread_kill(threading.get_ident(), signal.SIGPIPE)
        reset_before_sendfile(make, root)
        assert (signal.SIGPIPE in signal.sigpending()) is pending
        assert signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.sigtimedwait({signal.SIGPIPE}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

# SPDX-License-Identifier: MIT
"""POSIX AIO as it can fail: no thread is to be had, signals are lost, the transport goes while it reads."""

import errno
import http.client
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ustack.buf import lent
from ustack.kernel.transport import KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.parts.failing import Failing
from ustack.testing.recorder import Recorder

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


# ---------------------------------------------------------------- a disk that does not answer


def is_being_read(descriptor: int) -> bool:
    """A thread of this process sleeps in read(2): one that the library has not begun can be taken back."""
    begins = [f"{number} {descriptor:#x} " for number in (0, 63)]  # of the call: x86-64, AArch64
    for task in Path("/proc/self/task").glob("*/syscall"):
        with suppress(OSError):  # it has ended
            if task.read_text().startswith(tuple(begins)):
                return True
    return False


class Hung:
    """A transport with reads that do not end before somebody writes: of pipes, which the C library reads as it reads
    files (it falls back to read(2) where pread(2) is refused)."""

    def __init__(self, now_ns: int | None = None) -> None:
        self.alive = lent.alive()
        self.descriptors = set(os.listdir("/proc/self/fd"))
        self.recorder = Recorder()
        self.transport = KernelTransport("aio", now_ns=now_ns)
        self.transport.listen(0, application=self.recorder, address=ADDRESS)
        self.pipes: list[tuple[int, int]] = []

    def read(self) -> None:
        self.pipes.append(os.pipe())
        assert self.recorder.read_file(self.pipes[-1][0], 100) == 0
        while not is_being_read(self.pipes[-1][0]):
            os.sched_yield()

    def told(self) -> list[tuple[Any, ...]]:
        """What the application has been told of its reads: a descriptor, and bytes or an error, each."""
        return [entry[1:] for entry in self.recorder.log if entry[0] == "file_read"]

    def close(self) -> int:
        """How many waits there were that found nothing."""
        with Failing("ustack.kernel.aio", "aio_suspend", errno.EAGAIN) as looks:
            self.transport.close()
        return looks.failed

    def answer(self) -> None:
        """The disk is there again: everything goes when the next transport begins, or ends."""
        for _, writer in self.pipes:
            os.write(writer, b"x" * 100)
            os.close(writer)
        for _ in range(10_000):
            KernelTransport("aio").close()
            if lent.alive() == self.alive:
                break
            os.sched_yield()
        assert (lent.alive(), set(os.listdir("/proc/self/fd"))) == (self.alive, self.descriptors)


def test_a_transport_that_goes_gives_up_a_disk_that_does_not_answer() -> None:
    """What the kernel may write into, and read from, stays until it has."""
    hung = Hung()
    hung.read()
    hung.read()
    with pytest.warns(RuntimeWarning, match="2 reads of files have not ended"):
        assert hung.close() == 200
    assert hung.told() == [(-1, -errno.ECANCELED)] * 2
    assert hung.transport.counters()["file_reads_given_up"] == 2
    assert lent.alive() == hung.alive + 2
    for reader, _ in hung.pipes:
        os.fstat(reader)
    hung.answer()


def test_what_has_not_been_begun_is_taken_back(root: Path) -> None:
    """The library has twenty threads, and those are busy. The others are told at once, with their descriptors."""
    hung = Hung()
    for _ in range(20):
        hung.read()
    descriptor = os.open(root / "f7", os.O_RDONLY)
    assert hung.recorder.read_file(descriptor, 100) == 0
    with pytest.warns(RuntimeWarning, match="20 reads of files have not ended"):
        hung.close()
    assert hung.told() == [(descriptor, -errno.ECANCELED)] + [(-1, -errno.ECANCELED)] * 20
    os.close(descriptor)
    hung.answer()


@pytest.mark.parametrize("signals", [0, 1000])
def test_what_ends_while_it_is_waited_for_is_told(signals: int) -> None:
    """signals: that interrupt the wait before it. A program that is profiled has a thousand per second."""
    hung = Hung()
    hung.read()
    reader, writer = hung.pipes.pop()
    late = threading.Timer(0, os.write, (writer, b"y" * 100))
    late.start()
    with Failing("ustack.kernel.aio", "aio_suspend", errno.EINTR, times=signals):
        hung.transport.close()
    late.join()
    assert hung.told() == [(reader, b"y" * 100)]
    os.close(reader)
    os.close(writer)
    hung.answer()


@pytest.mark.parametrize("signals", [0, 1000])
def test_a_turn_with_a_manual_clock_goes_on_without_it(signals: int) -> None:
    """After a minute. It is waited for again in the next turn. signals: that interrupt that wait."""
    hung = Hung(now_ns=0)
    hung.read()
    with Failing("ustack.kernel.aio", "aio_suspend", errno.EAGAIN) as looks:
        hung.transport.poll(1)
    assert looks.failed == 600
    assert (hung.told(), hung.transport.counters()["file_reads_late"]) == ([], 1)
    reader, writer = hung.pipes.pop()
    late = threading.Timer(0, os.write, (writer, b"y" * 100))
    late.start()
    with Failing("ustack.kernel.aio", "aio_suspend", errno.EINTR, times=signals):
        hung.transport.poll(2)
    late.join()
    assert (hung.told(), hung.transport.counters()["file_reads_late"]) == ([(reader, b"y" * 100)], 1)
    os.close(reader)
    os.close(writer)
    hung.transport.close()
    hung.answer()


def test_a_transport_that_is_forgotten_gives_up_as_well() -> None:
    hung = Hung()
    hung.read()
    with (
        Failing("ustack.kernel.aio", "aio_suspend", errno.EAGAIN) as looks,
        pytest.warns(ResourceWarning, match="unclosed"),
        pytest.warns(RuntimeWarning, match="1 reads of files have not ended"),
    ):
        del hung.transport
    assert looks.failed == 200
    assert lent.alive() == hung.alive + 1
    hung.answer()


def test_a_child_of_fork_takes_none_of_them_over() -> None:
    """They are its parent's, as is what they read into: its own copies go."""
    hung = Hung()
    hung.read()
    with pytest.warns(RuntimeWarning):
        hung.close()

    def has_none() -> bool:
        KernelTransport("aio").close()
        return lent.alive() == hung.alive

    in_a_child(has_none)
    hung.answer()


def test_a_child_of_fork_closes_no_descriptor_for_them() -> None:
    """Since the fork their numbers may have become somebody else's."""
    hung = Hung()
    hung.read()
    with pytest.warns(RuntimeWarning):
        hung.close()

    def keeps_its_own() -> bool:
        os.closerange(3, 64)
        own = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
        KernelTransport("aio").close()
        return all(os.fstat(descriptor) for descriptor in own)

    in_a_child(keeps_its_own)
    hung.answer()

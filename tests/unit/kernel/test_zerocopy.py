# SPDX-License-Identifier: MIT
"""Sends without a copy, with the strategies that hear when one is over: what was lent is kept until then."""

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.buf import lent
from ustack.kernel.transport import KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.parts.failing import Failing
from ustack.testing.recorder import Recorder

SECOND = 1_000_000_000
LONG = bytes(range(251)) * 4000
THOSE_THAT_CAN = ["epoll-lt", "epoll-et", "poll", "aio"]
Make = Callable[..., Loopback]
pytestmark = pytest.mark.parametrize("strategy", THOSE_THAT_CAN)


def read(loopback: Loopback, end: LoopbackEnd, length: int) -> bytes:
    found = b""
    while len(found) < length:
        loopback.settle()
        try:
            found += end.receive(1 << 20)
        except BlockingIOError:
            os.sched_yield()
    return found


def until(loopback: Loopback, what: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if what():
            return
        loopback.settle()
        os.sched_yield()
    raise AssertionError("it does not come")


def held(loopback: Loopback) -> int:
    return loopback.transport.leaks()["pieces"]


def test_what_is_sent_is_kept_until_it_has_arrived(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20)
    end = loopback.open(receive_bytes=1 << 16)
    loopback.settle()
    alive = lent.alive()
    for _ in range(3):
        recorder.act(end.port, ("send", LONG))
        loopback.settle()
        assert lent.alive() == alive + 1
        assert read(loopback, end, len(LONG)) == LONG
        until(loopback, lambda: held(loopback) == 0)
        assert lent.alive() == alive
    counted = loopback.transport.counters()
    assert counted["zerocopies"] >= 3
    assert recorder.queued(end.port) == 0


def test_short_sends_are_copied(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True)
    end = loopback.open()
    loopback.settle()
    recorder.act(end.port, ("send", b"short"))
    assert read(loopback, end, 5) == b"short"
    assert loopback.transport.counters()["zerocopies"] == 0
    assert held(loopback) == 0


def test_where_the_kernel_has_no_memory_for_it_it_copies(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True)
    end = loopback.open()
    loopback.settle()
    recorder.act(end.port, ("send", LONG))
    with Failing("ustack.kernel.sockets", "sendmsg", errno.ENOBUFS, times=1):
        loopback.poll()
    assert read(loopback, end, len(LONG)) == LONG
    assert loopback.transport.counters()["zerocopies_declined"] == 1


@pytest.mark.parametrize("ended", ["close", "abort"])
def test_a_connection_that_ends_first_leaves_its_socket_open_for_it(make: Make, ended: str) -> None:
    """A reset takes back what was not delivered, so that nothing is held any more; a close goes on delivering it."""
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20)
    end = loopback.open(receive_bytes=1 << 16)
    loopback.settle()
    alive = lent.alive()
    recorder.act(end.port, ("send", LONG))
    loopback.settle()
    in_the_kernel = recorder.queued(end.port) == 0
    recorder.act(end.port, ended)
    loopback.settle()
    if ended == "abort":
        assert (recorder.names()[-1], lent.alive()) == ("closed", alive)
        return
    end.shutdown()
    loopback.settle()
    if in_the_kernel:
        assert (recorder.names()[-1], loopback.transport.closing_connections()) == ("closed", 1)
        assert (lent.alive(), loopback.transport.counters()["zerocopies_orphaned"]) == (alive + 1, 1)
    assert read(loopback, end, len(LONG)) == LONG
    until(loopback, lambda: held(loopback) == 0)
    assert (lent.alive(), loopback.transport.closing_connections()) == (alive, 0)


def test_a_transport_that_goes_lets_them_finish_first(strategy: str, tmp_path: Path) -> None:
    """The client has sent its FIN, so that its connection ends when the last byte is with the kernel."""
    body = LONG[:300_000]
    (tmp_path / "big").write_bytes(body)
    found = b""
    going = threading.Event()

    def client() -> None:
        nonlocal found
        with socket.socket() as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            end.connect((ADDRESS, listener.port))
            end.settimeout(20)
            end.sendall(b"GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            end.shutdown(socket.SHUT_WR)
            end.recv(1, socket.MSG_PEEK)
            transport.stop()
            going.wait(20)
            while part := end.recv(1 << 16):
                found += part

    with HttpServer(tmp_path) as server:
        transport = KernelTransport(strategy, zerocopy=True, sndbuf_bytes=1 << 20)
        listener = transport.listen(0, application=server, address=ADDRESS)
        thread = threading.Thread(target=client)
        thread.start()
        transport.run()
        server.finish(transport)
        for _ in range(10_000):
            if server.finished:
                break
            transport.poll()
        assert transport.closing_connections() == 1
        going.set()
        transport.close(linger=20)
        thread.join()
    assert found.partition(b"\r\n\r\n")[2] == body


def test_so_many_are_looked_at_in_a_turn(make: Make) -> None:
    """However many there are, and each of them in some turn."""
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 17)
    ends = [loopback.open(receive_bytes=1 << 12) for _ in range(300)]
    loopback.settle()
    for end in ends:
        recorder.act(end.port, ("send", LONG[: 1 << 16]))
    loopback.settle()
    for end in ends:
        end.shutdown()
        recorder.act(end.port, "close")
    loopback.settle()
    assert loopback.transport.closing_connections() == len(ends)
    for turns in (1, 5):
        with Failing("ustack.kernel.zerocopy", "recvmsg", errno.EAGAIN) as looks:
            for _ in range(turns):
                loopback.poll()
        assert looks.failed == 256 * turns
    for end in ends:
        end.abort()
    until(loopback, lambda: loopback.transport.closing_connections() == 0)


def test_a_peer_that_never_reads_is_reset_in_the_end(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20)
    end = loopback.open(receive_bytes=1 << 14)
    loopback.settle()
    alive = lent.alive()
    recorder.act(end.port, ("send", LONG[:300_000]))
    loopback.settle()
    assert recorder.queued(end.port) == 0
    end.shutdown()
    recorder.act(end.port, "close")
    loopback.settle()
    assert (recorder.names()[-1], lent.alive()) == ("closed", alive + 1)
    loopback.advance(59 * SECOND)
    assert lent.alive() == alive + 1
    loopback.advance(2 * SECOND)
    assert (lent.alive(), held(loopback)) == (alive, 0)


def test_a_peer_that_reads_slowly_is_not_reset(make: Make) -> None:
    """Its time begins again with each byte that it acknowledges, though the one send that all of them were is not over:
    and no sooner, nor later."""
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20)
    end = loopback.open(receive_bytes=1 << 14)
    loopback.settle()
    alive = lent.alive()
    body = LONG[:300_000]
    recorder.act(end.port, ("send", body))
    loopback.settle()
    end.shutdown()
    recorder.act(end.port, "close")
    loopback.settle()
    assert (recorder.names()[-1], lent.alive()) == ("closed", alive + 1)
    found = b""
    for _ in range(4):
        loopback.advance(59 * SECOND)
        found += read(loopback, end, 50_000)
        loopback.settle()
    assert (lent.alive(), loopback.transport.closing_connections()) == (alive + 1, 1)
    loopback.advance(59 * SECOND)
    assert lent.alive() == alive + 1
    loopback.advance(2 * SECOND)
    assert lent.alive() == alive
    assert body.startswith(found)


def test_sockets_that_outlive_their_connections_count_as_such(make: Make) -> None:
    """Else who never reads could use up descriptors, one connection after the other."""
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20, max_connections=2)
    ends = []
    for number in range(3):
        ends.append(loopback.open(receive_bytes=1 << 14))
        loopback.settle()
        assert loopback.transport.counters()["accepted_connections"] == min(number + 1, 2)
        if number < 2:
            recorder.act(ends[-1].port, ("send", LONG[:300_000]))
            loopback.settle()
            ends[-1].shutdown()
            recorder.act(ends[-1].port, "close")
            loopback.settle()
    assert (loopback.transport.established, loopback.transport.counters()["zerocopies_orphaned"]) == (0, 2)
    ends[0].abort()
    until(loopback, lambda: loopback.transport.counters()["accepted_connections"] == 3)


def test_a_transport_that_goes_gives_everything_back(strategy: str) -> None:
    alive = lent.alive()
    descriptors = len(os.listdir("/proc/self/fd"))
    recorder = Recorder()
    loopback = Loopback(recorder, strategy, zerocopy=True, sndbuf_bytes=1 << 20)
    ends = [loopback.open(receive_bytes=1 << 14) for _ in range(10)]
    loopback.settle()
    for end in ends:
        recorder.act(end.port, ("send", LONG[:300_000]))
    loopback.settle()
    for end in ends[:5]:
        end.shutdown()
        recorder.act(end.port, "close")
    loopback.settle()
    assert loopback.transport.counters()["zerocopies_orphaned"] == 5
    loopback.transport.close()
    for end in ends:
        end.close()
    loopback.close()
    assert lent.alive() == alive
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_child_of_fork_leaves_it_to_its_parent(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, zerocopy=True, sndbuf_bytes=1 << 20)
    end = loopback.open(receive_bytes=1 << 16)
    loopback.settle()
    recorder.act(end.port, ("send", LONG))
    loopback.settle()
    child = os.fork()
    if child == 0:
        os._exit(0 if not loopback.transport.alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(loopback, end, len(LONG)) == LONG
    until(loopback, lambda: held(loopback) == 0)


def test_a_server_sends_its_files_so(make: Make, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(LONG)
    with HttpServer(tmp_path) as server:
        loopback = make(server, zerocopy=True)
        end = loopback.open()
        for _ in range(3):
            end.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
            found = b""
            while len(found.partition(b"\r\n\r\n")[2]) < len(LONG):
                found += read(loopback, end, 1)
            assert found.partition(b"\r\n\r\n")[2] == LONG
        assert loopback.transport.counters()["zerocopies"] >= 3
        until(loopback, lambda: held(loopback) == 0)


@pytest.mark.parametrize("name", ["select", "rtsig", "threads", "processes", "io_uring", "io_uring-zc"])
def test_who_would_not_hear_of_the_end_is_refused(strategy: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"zerocopy=True: with {name} nobody would hear that a send is over"):
        KernelTransport(name, zerocopy=True)

# SPDX-License-Identifier: MIT
"""What io_uring alone can meet: registered buffers that are all in use, a kernel that forbids it, requests that are in
the kernel when their connection ends."""

import errno
import os
import socket
import threading
from contextlib import nullcontext

import pytest

from ustack.buf import lent
from ustack.kernel.transport import KernelTransport
from ustack.testing.loopback import ADDRESS, Loopback
from ustack.testing.parts.failing import Failing
from ustack.testing.recorder import Recorder

NAMES = ["io_uring", "io_uring-zc"]


def find_buffers_free(loopback: Loopback, recorder: Recorder) -> None:
    """Nobody keeps the buffers that all share, so newcomers are heard at once."""
    assert loopback.transport.leaks()["receive_buffers"] == 0
    for _ in range(20):
        before = loopback.transport.counters()["readiness_shortages"]
        end = loopback.open()
        loopback.settle()
        end.send(b"y" * 4000)
        loopback.settle()
        assert recorder.received[end.port] == b"y" * 4000
        assert loopback.transport.counters()["readiness_shortages"] == before


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (errno.EPERM, r"io_uring: io_uring is forbidden here: by the sysctl kernel\.io_uring_disabled"),
        (errno.ENOSYS, "io_uring: this kernel has no io_uring"),
        (errno.EINVAL, r"io_uring: this kernel's io_uring is too old: Linux 6\.1 is needed"),
    ],
)
def test_a_kernel_that_does_not_let_us_is_named_with_its_reason(lacking: int, said: str) -> None:
    with Failing("ustack.kernel.uring.ring", "syscall", lacking), pytest.raises(OSError, match=said) as caught:
        KernelTransport("io_uring")
    assert caught.value.errno == lacking


def test_nothing_is_lost_where_every_buffer_is_in_use() -> None:
    """256 of 4 KiB at first: what has no place stays in the sockets."""
    recorder = Recorder()
    loopback = Loopback(recorder, "io_uring")
    ends = [loopback.open() for _ in range(40)]
    loopback.settle()
    content = {end.port: bytes([number]) * 60_000 for number, end in enumerate(ends)}
    for end in ends:
        end.send(content[end.port])
    loopback.settle()
    assert loopback.transport.counters()["readiness_shortages"] > 0
    assert recorder.received == content
    loopback.close()
    assert recorder.errors == []


def test_readers_that_have_stopped_keep_no_buffers() -> None:
    recorder = Recorder()
    recorder.consume = 0
    loopback = Loopback(recorder, "io_uring")
    stopped = [loopback.open() for _ in range(60)]
    loopback.settle()
    for end in stopped:
        end.send(b"x" * 60_000)
    loopback.settle()
    recorder.consume = None
    find_buffers_free(loopback, recorder)
    for end in stopped:
        recorder.act(end.port, "resume")
    loopback.settle()
    assert [recorder.received[end.port] for end in stopped] == [b"x" * 60_000] * 60
    loopback.close()
    assert recorder.errors == []


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_come_while_a_reader_stops_keep_no_buffers(name: str) -> None:
    """They are in the socket before its receive can be taken back: what that still brings is copied as well. It brings
    something if the kernel is called once more before it is asked for that: connections that end in the same turn have
    filled the ring with what they ask for."""
    recorder = Recorder()
    recorder.consume = 0
    loopback = Loopback(recorder, name)
    ends = {end.port: end for end in (loopback.open() for _ in range(60))}
    ending = [loopback.open() for _ in range(600)]
    loopback.settle()
    recorder.on("data", lambda port: ends[port].send(b"x" * 60_000))
    for end in ends.values():
        end.send(b"x")
    for end in ending:
        recorder.act(end.port, "abort")
    loopback.settle()
    recorder.on("data")
    recorder.consume = None
    find_buffers_free(loopback, recorder)
    for port in ends:
        recorder.act(port, "resume")
    loopback.settle()
    assert {recorder.received[port] for port in ends} == {b"x" * 60_001}
    loopback.close()
    assert recorder.errors == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("after", [0, 2])
def test_behind_bytes_that_there_was_no_memory_for_nothing_is_told(name: str, after: int) -> None:
    """A stream with a hole is none. More has come than its reader took when it stopped: it is copied, and one copy
    fails, while there is more to come."""
    content = b"".join(b"%07d " % number for number in range(25_000))
    recorder = Recorder()
    recorder.consume = 0
    loopback = Loopback(recorder, name)
    end = loopback.open()
    loopback.settle()
    end.send(content)
    with Failing("ustack.kernel.uring.slots", "malloc", errno.ENOMEM, after=after, times=1) as calls:
        loopback.settle()
    assert calls.failed == 1
    recorder.consume = None
    recorder.act(end.port, "resume")
    loopback.settle()
    assert content.startswith(recorder.received[end.port])
    assert recorder.names()[-1] == "closed"
    loopback.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_piece_that_there_was_no_memory_for_is_the_last(name: str) -> None:
    """Those behind it come with the same wait, and there is memory for them again: they are no stream without it. Who
    was accepted has had a record of the same kind, so that the first one is wanted where we have connected."""
    recorder = Recorder()
    loopback = Loopback(recorder, name)
    with socket.create_server((ADDRESS, 0)) as server:
        recorder.connect(ADDRESS, server.getsockname()[1])
        with server.accept()[0] as peer:
            loopback.settle()
            assert recorder.names() == ["connected"]
            with Failing("ustack.buf.slab", "mprotect", errno.ENOMEM, times=1) as calls:
                peer.sendall(b"".join(b"%07d " % number for number in range(7_500)))
                for _ in range(1000):
                    loopback.poll()
                    if recorder.names()[-1] == "closed":
                        break
                    os.sched_yield()
    assert calls.failed == 1
    assert (recorder.received, recorder.names()) == ({}, ["connected", "closed"])
    loopback.close()
    assert recorder.errors == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("forgetful", [False, True])
def test_who_closes_in_another_thread_leaves_no_descriptor(name: str, forgetful: bool) -> None:
    """forgetful: there is no new ring for it, either."""
    before = len(os.listdir("/proc/self/fd"))
    recorder = Recorder()
    loopback = Loopback(recorder, name)
    ends = [loopback.open() for _ in range(20)]
    thread = threading.Thread(target=loopback.settle)
    thread.start()
    thread.join()
    assert recorder.names().count("accept") == 20
    with Failing("ustack.kernel.uring.ring", "mmap", errno.ENOMEM) if forgetful else nullcontext():
        loopback.transport.close()
    for end in ends:
        end.close()
    loopback.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ended", ["abort", "close"])
def test_who_ends_with_a_send_in_the_kernel_gives_everything_back(name: str, ended: str) -> None:
    """The peer does not read: its sends wait in the kernel when the connection, or the transport, goes."""
    alive = lent.alive()
    content = b"z" * (1 << 20)
    recorder = Recorder()
    loopback = Loopback(recorder, name, sndbuf_bytes=1 << 14)
    ends = [loopback.open(receive_bytes=1 << 14) for _ in range(20)]
    loopback.settle()
    for end in ends:
        recorder.act(end.port, ("send", content))
    loopback.settle()
    assert all(recorder.queued(end.port) > 0 for end in ends)
    for end in ends[:10]:
        recorder.act(end.port, ended)
    loopback.settle()
    loopback.transport.close()
    assert set(loopback.transport.leaks().values()) == {0}
    assert recorder.names().count("closed") == 20
    loopback.close()
    assert recorder.errors == []
    assert lent.alive() == alive

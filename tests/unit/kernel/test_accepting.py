# SPDX-License-Identifier: MIT
"""Who wants in when there is no room: descriptors, backlog, connections, what select can watch, memory."""

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ustack.errors import AddressInUse
from ustack.kernel import strategies
from ustack.kernel.transport import KernelTransport
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.parts.failing import Failing
from ustack.testing.recorder import Recorder

SECOND = 1_000_000_000
Make = Callable[..., Loopback]


@contextmanager
def descriptors_up_to(most: int) -> Iterator[None]:
    """No descriptor of that number or above can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def next_descriptor() -> int:
    """The number that the kernel would give next."""
    found = os.dup(0)
    os.close(found)
    return found


def completes(loopback: Loopback) -> bool:
    """Does the kernel accept by itself, instead of saying that somebody is there?"""
    return loopback.transport.strategy.startswith("io_uring")


def was_reset(end: LoopbackEnd) -> bool:
    try:
        end.receive()
    except ConnectionResetError:
        return True
    except BlockingIOError:
        pass
    return False


def test_without_a_descriptor_left_connections_are_reset_and_counted(make: Make) -> None:
    """Else the listening socket would stay ready, and the server would turn in circles."""
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(5)]
    with descriptors_up_to(next_descriptor()):
        loopback.settle()
    counters = loopback.transport.counters()
    assert counters["refused_without_descriptor"] == 5
    assert counters["accepted_connections"] == 0
    assert [was_reset(end) for end in ends] == [True] * 5
    assert recorder.names() == []
    late = loopback.open()
    late.send(b"late")
    loopback.settle()
    assert recorder.received == {late.port: b"late"}


forks: list[int] = []  # times that this process was about to make a child
os.register_at_fork(before=lambda: forks.append(1))


def test_without_a_descriptor_for_the_child_none_is_made() -> None:
    """Its pidfd is one in the parent: found out before the fork, which copies a whole process."""
    recorder = Recorder()
    with KernelTransport("processes") as transport:
        port = transport.listen(0, application=recorder, address=ADDRESS).port
        ends = [LoopbackEnd(port) for _ in range(3)]
        before = len(forks)
        with descriptors_up_to(next_descriptor() + 1):  # the socket that is accepted
            while transport.counters()["refused_by_strategy"] < 3:
                transport.poll()
        assert len(forks) == before
        assert all(was_reset(end) for end in ends)
        assert (transport.established, transport.counters()["accepted_connections"]) == (0, 0)
        end = LoopbackEnd(port)
        while transport.established == 0:
            transport.poll()
        assert len(forks) == before + 1
        for each in (*ends, end):
            each.close()


def test_where_even_the_reserve_is_lost_the_listener_rests(make: Make) -> None:
    """Nobody is accepted for a tenth of a second, instead of turn after turn in vain."""
    recorder = Recorder()
    loopback = make(recorder)
    loopback.open()
    with (
        descriptors_up_to(next_descriptor()),  # for those who do not call accept4
        Failing("ustack.kernel.accepting", "accept4", errno.EMFILE, result=-1) as failing,
    ):
        loopback.settle()
        for _ in range(20):
            assert loopback.poll() == 0
        assert loopback.transport.next_deadline_ns == loopback.now_ns + SECOND // 10
    assert failing.failed == (1 if completes(loopback) else 2)
    assert loopback.transport.counters()["accepts_failed"] == 1
    loopback.advance(SECOND // 10)
    assert recorder.names() == ["accept"]


@pytest.mark.parametrize("lacking", [errno.ENOBUFS, errno.ENOMEM])
def test_a_listener_rests_where_the_kernel_lacks_memory(make: Make, lacking: int) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    calls = "ustack.kernel.accepting"
    if completes(loopback):  # it calls accept4 for a while when its own request has failed
        calls = "ustack.kernel.uring.strategy"
        loopback.open()
        with descriptors_up_to(next_descriptor()):
            loopback.settle()
    loopback.open()
    with Failing(calls, "accept4", lacking, result=-1) as failing:
        loopback.settle()
        for _ in range(20):
            assert loopback.poll() == 0
        assert loopback.transport.next_deadline_ns == loopback.now_ns + SECOND // 10
    assert failing.failed == 1
    loopback.advance(SECOND // 10)
    assert recorder.names() == ["accept"]


def test_a_full_transport_takes_nobody_until_one_has_gone(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, max_connections=3)
    ends = [loopback.open() for _ in range(5)]
    loopback.settle()
    assert len(recorder.ports) == 3
    assert loopback.transport.counters()["listeners_held"] >= 1
    waiting = [end for end in ends if end.port not in recorder.ports]
    loopback.poll()  # what is told of those that were accepted last
    before = loopback.transport.counters()["events_told"]
    for _ in range(10):
        loopback.poll()
    assert loopback.transport.counters()["events_told"] == before
    recorder.act(recorder.ports[0], "abort")
    loopback.settle()
    assert sum(end.port in recorder.ports for end in waiting) == 1


def test_those_that_wait_for_the_application_count_against_the_backlog(make: Make) -> None:
    recorder = Recorder()
    recorder.on("accept", "wait")
    loopback = make(recorder)
    listener = loopback.transport.listen(0, application=recorder, address=ADDRESS, backlog=2)
    ends = [LoopbackEnd(listener.port) for _ in range(3)]
    loopback.ends += ends
    loopback.settle()
    assert len(recorder.ports) == 2
    recorder.act(recorder.ports[0], "take")
    loopback.settle()
    assert len(recorder.ports) == 3
    recorder.act(recorder.ports[1], "abort")  # one that waits may also end
    loopback.settle()
    loopback.ends.append(LoopbackEnd(listener.port))
    loopback.settle()
    assert len(recorder.ports) == 3


def test_a_listener_that_is_closed_takes_nobody(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    while "accept" not in recorder.names():
        os.sched_yield()
        loopback.settle()
    loopback.listener.close()
    loopback.listener.close()
    with pytest.raises(ConnectionRefusedError):
        loopback.open()
    end.send(b"still here")
    loopback.settle()
    assert recorder.received == {end.port: b"still here"}


def test_a_port_has_one_listener_unless_it_is_shared(strategy: str) -> None:
    with KernelTransport(strategy) as one, KernelTransport(strategy) as other:
        port = one.listen(0, application=Recorder(), address=ADDRESS).port
        with pytest.raises(AddressInUse):
            other.listen(port, application=Recorder(), address=ADDRESS)
    with KernelTransport(strategy, reuse_port=True) as one, KernelTransport(strategy, reuse_port=True) as other:
        port = one.listen(0, application=Recorder(), address=ADDRESS).port
        assert other.listen(port, application=Recorder(), address=ADDRESS).port == port


def test_a_socket_that_listens_already_is_shared(strategy: str) -> None:
    """As forked workers share it: each takes one connection in a turn, so that the others get some."""
    with socket.create_server((ADDRESS, 0)) as port, KernelTransport(strategy, now_ns=0) as transport:
        recorder = Recorder()
        listener = transport.listen_shared(port.fileno(), application=recorder)
        assert listener.port == port.getsockname()[1]
        ends = [LoopbackEnd(listener.port) for _ in range(3)]
        while not recorder.ports:
            transport.poll(0)
        assert len(recorder.ports) == 1
        ours, _ = port.accept()  # who else takes from it
        ours.close()
        while len(recorder.ports) < 2:
            transport.poll(0)
        transport.poll(0)
        assert len(recorder.ports) == 2
        listener.close()
        ends.append(LoopbackEnd(port.getsockname()[1]))  # the socket is not ours to close
        for end in ends:
            end.abort()


def test_what_does_not_listen_is_no_listener(strategy: str) -> None:
    with KernelTransport(strategy) as transport:
        for unfit in (socket.socket(), socket.create_server(("::1", 0), family=socket.AF_INET6)):
            with unfit, pytest.raises(OSError, match="is no IPv4 socket that listens"):
                transport.listen_shared(unfit.fileno(), application=Recorder())


@pytest.mark.parametrize("strategy", strategies.in_one_thread())  # else threads do both at once
def test_who_is_established_comes_before_who_wants_in(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    early = loopback.open()
    loopback.settle()
    recorder.clear()
    late = loopback.open()
    early.send(b"x")
    while early.under_way():
        os.sched_yield()
    loopback.settle()
    assert [entry[:2] for entry in recorder.log if entry[0] in ("accept", "data")] == [
        ("data", early.port),
        ("accept", late.port),
    ]


@pytest.mark.parametrize("strategy", strategies.in_one_thread())  # else a turn is one connection's
def test_connections_that_use_up_every_turn_keep_nobody_out(make: Make) -> None:
    """A listener has a small share of a turn in any case."""
    recorder = Recorder()
    recorder.charge = 100_000
    loopback = make(recorder)
    busy = loopback.open()
    loopback.settle()
    busy.send(b"x" * 50)  # each byte costs a turn
    ends = [loopback.open() for _ in range(20)]
    for _ in range(10):
        loopback.poll()
    assert {end.port for end in ends} <= set(recorder.ports)
    assert len(recorder.received[busy.port]) < 50


def test_an_address_that_is_not_ours_is_refused(strategy: str) -> None:
    with KernelTransport(strategy) as transport, pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"):
        transport.listen(0, application=Recorder(), address="192.0.2.1")


def test_select_resets_whom_it_cannot_watch() -> None:
    """A descriptor beyond FD_SETSIZE would be written beside its set."""
    recorder = Recorder()
    loopback = Loopback(recorder, "select")
    taken = []
    try:
        while (found := os.dup(0)) < 1023:
            taken.append(found)
        taken.append(found)
        end = loopback.open()  # of 1024 and above, as what is accepted for it
        loopback.settle()
        assert loopback.transport.counters()["refused_by_strategy"] == 1
        assert was_reset(end)
        assert recorder.names() == []
    finally:
        for descriptor in taken:
            os.close(descriptor)
        loopback.close()
    assert set(loopback.transport.leaks().values()) == {0}


def test_what_is_left_unread_is_bounded_for_all_connections(make: Make) -> None:
    """A rest costs its length, in steps of 64 bytes. Two such steps are allowed: the third connection is reset."""
    recorder = Recorder()
    recorder.consume = 0
    loopback = make(recorder, max_unread_bytes=2 * 64)
    ends = [loopback.open() for _ in range(3)]
    loopback.settle()
    for end in ends:
        end.send(b"left")
        loopback.settle()
    assert loopback.transport.counters()["unread_refused"] == 1
    assert recorder.log[-2] == ("closed", ends[2].port, "no_memory")
    assert was_reset(ends[2])
    recorder.act(ends[0].port, "abort")
    loopback.settle()
    assert loopback.transport.leaks()["unread_bytes"] == 64


def test_what_is_consumed_of_a_rest_costs_nothing_any_more(make: Make) -> None:
    recorder = Recorder()
    recorder.consume = 0
    loopback = make(recorder, max_unread_bytes=16384)
    end = loopback.open()
    end.send(b"x" * 10_000 + b"last")
    loopback.settle()
    assert loopback.transport.leaks()["unread_bytes"] == 10_048
    assert recorder.read(end.port, 10_000) == b"x" * 10_000
    assert loopback.transport.leaks()["unread_bytes"] == 64
    assert recorder.peek(end.port) == b"last"
    assert recorder.read(end.port, 4) == b"last"
    assert loopback.transport.leaks()["unread_bytes"] == 0

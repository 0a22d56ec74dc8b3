# SPDX-License-Identifier: MIT
"""What each strategy must see to: many connections, descriptors that come and go, what is told again and again."""

import http.client
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ustack.kernel import strategies
from ustack.kernel.strategies import names
from ustack.kernel.transport import KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.recorder import Recorder

Make = Callable[..., Loopback]


def test_there_are_these() -> None:
    assert names() == (
        "epoll-lt",
        "epoll-et",
        "poll",
        "select",
        "rtsig",
        "aio",
        "io_uring",
        "io_uring-zc",
        "threads",
        "processes",
    )
    assert strategies.in_one_process() == names()[:9]
    assert strategies.in_one_thread() == names()[:8]


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no strategy 'kqueue'; there are: epoll-lt"):
        KernelTransport("kqueue")


def test_each_of_many_connections_is_told_apart(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(300)]
    loopback.settle()
    for end in ends:
        end.send(str(end.port).encode())
    loopback.settle()
    assert recorder.received == {end.port: str(end.port).encode() for end in ends}
    assert loopback.transport.established == 300


@pytest.mark.parametrize("strategy", strategies.in_one_thread())  # else a turn is one connection's
def test_a_turn_serves_no_more_than_it_pays_for_and_the_next_one_the_rest(make: Make) -> None:
    recorder = Recorder()
    recorder.charge = 200
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(64)]
    loopback.settle()
    for end in ends:
        end.send(b"x")
    recorder.clear()
    loopback.poll()
    served = recorder.names().count("data")
    assert 1 <= served < 64
    assert loopback.transport.next_deadline_ns == loopback.now_ns
    loopback.settle()
    assert recorder.names().count("data") == 64


def test_who_is_ended_by_another_in_the_same_turn_hears_nothing_more(make: Make) -> None:
    """Both have bytes waiting when the turn begins."""
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(20)]
    loopback.settle()
    recorder.on("data", lambda port: [recorder.act(other, "abort") for other in recorder.ports if other != port])
    for end in ends:
        end.send(b"x")
    loopback.settle()
    assert recorder.names().count("data") == 1
    assert recorder.names().count("closed") == 19
    [left] = recorder.ports
    assert recorder.received == {left: b"x"}


def test_a_descriptor_that_is_used_again_belongs_to_the_new_connection(make: Make) -> None:
    """The kernel gives the lowest number that is free, so that each of them has the one before's."""
    recorder = Recorder()
    loopback = make(recorder)
    for number in range(50):
        end = loopback.open()
        loopback.settle()
        end.send(b"%d" % number)
        loopback.settle()
        assert recorder.received[end.port] == b"%d" % number
        if number % 2:
            end.abort()
        else:
            recorder.act(end.port, "abort")
        loopback.settle()
        assert recorder.ports == []
    assert loopback.transport.leaks()["connections"] == 0


def test_a_connection_that_hangs_up_while_it_is_paused_costs_nothing(make: Make) -> None:
    """Both directions have ended, and bytes are left: level-triggered strategies would tell it in every call."""
    recorder = Recorder()
    recorder.consume = 0
    loopback = make(recorder)
    end = loopback.open()
    end.send(b"left")
    loopback.settle()
    recorder.act(end.port, "shutdown")
    loopback.settle()
    end.shutdown()
    loopback.settle()
    before = loopback.transport.counters()["events_told"]
    for _ in range(20):
        assert loopback.poll() == 0
    assert loopback.transport.counters()["events_told"] - before <= 1
    assert recorder.names() == ["accept", "data"]
    recorder.consume = None
    recorder.act(end.port, "resume")
    loopback.settle()
    assert recorder.names() == ["accept", "data", "data", "eof", "closed"]


def test_a_reader_that_stops_is_asked_about_nothing(make: Make) -> None:
    """What has come stays in the kernel's buffer, and its window closes."""
    recorder = Recorder()
    recorder.consume = 0
    loopback = make(recorder)
    end = loopback.open()
    end.send(b"x" * 5000)
    loopback.settle()
    before = loopback.transport.counters()
    end.send(b"y" * 5000)
    for _ in range(20):
        loopback.poll()
    after = loopback.transport.counters()
    assert after["receives"] == before["receives"]
    assert after["upcalls"] == before["upcalls"]
    assert recorder.receivable(end.port) == 10000
    assert loopback.transport.leaks()["unread_bytes"] == 5056


def test_a_slow_reader_gets_everything_in_order_by_and_by(make: Make) -> None:
    content = bytes(range(256)) * 2048
    recorder = Recorder()
    loopback = make(recorder, sndbuf_bytes=8192, send_queue_bytes=1 << 20)
    end = loopback.open(receive_bytes=8192)
    loopback.settle()
    assert recorder.act(end.port, ("send", content)) == len(content)
    recorder.act(end.port, "close")
    received = b""
    while True:
        loopback.settle()
        try:
            found = end.receive(4096)
        except BlockingIOError:
            continue
        if not found:
            break
        received += found
    assert received == content
    counters = loopback.transport.counters()
    assert counters["sends_short"] > 10
    assert counters["bytes_sent"] == len(content)
    end.shutdown()
    loopback.settle()
    assert recorder.log[-2] == ("closed", end.port, "normal")


def test_edge_triggered_readers_go_on_until_nothing_is_left(make: Make) -> None:
    """More than is read at once, with the end right behind it: told once."""
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    end.send(b"x" * 200_000)
    end.shutdown()
    loopback.settle()
    assert recorder.received[end.port] == b"x" * 200_000
    assert recorder.names()[-1] == "eof"


def test_the_end_right_behind_a_few_bytes_is_seen(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(10)]
    loopback.settle()
    for end in ends:
        end.send(b"bytes")
        end.shutdown()
    loopback.settle()
    assert recorder.names().count("eof") == 10


def test_select_says_what_it_cannot_watch() -> None:
    with pytest.raises(ValueError, match=r"select cannot watch descriptors of 1024 and above \(FD_SETSIZE\)"):
        KernelTransport("select", max_connections=1025)


@contextmanager
def crowd_of_lost_signals() -> Iterator[tuple[Recorder, Loopback, list[LoopbackEnd]]]:
    """300 connections that have sent a byte each, while the kernel keeps two real-time signals for us and no more."""
    recorder = Recorder()
    loopback = Loopback(recorder, "rtsig")
    ends = [loopback.open() for _ in range(300)]
    loopback.settle()
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (2, hard))
    try:
        for end in ends:
            end.send(b"x")
        yield recorder, loopback, ends
    finally:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft, hard))
    loopback.close()


def test_signals_that_were_lost_are_made_up_for() -> None:
    """The kernel keeps so many and no more; for the others it says SIGIO, once, and poll finds who is meant."""
    with crowd_of_lost_signals() as (recorder, loopback, ends):
        loopback.settle()
        assert loopback.transport.counters()["readiness_overflows"] >= 1
        assert recorder.received == {end.port: b"x" for end in ends}
    assert recorder.errors == []


def test_signals_that_are_lost_again_and_again_leave_nobody_out() -> None:
    """A sweep asks about 256 descriptors at a time; it goes on where it was, and does not begin anew each time."""
    with crowd_of_lost_signals() as (recorder, loopback, ends):
        for _ in range(10):
            for end in ends[:250]:
                end.send(b"x")
            loopback.poll()
        assert set(recorder.received) == {end.port for end in ends}


def test_an_urgent_byte_stays_among_the_others(make: Make) -> None:
    """RFC 6093 section 6. A read ends in front of it: nobody may take that for the end of what can be read."""
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    end.send(b"before")
    end.socket.send(b"!", socket.MSG_OOB)
    end.send(b"after")
    loopback.settle()
    assert recorder.received == {end.port: b"before!after"}


def test_a_transport_that_goes_leaves_the_others_what_was_lost() -> None:
    """SIGIO says not whose signals were lost, and all transports of a thread share it."""
    recorder = Recorder()
    loopback, other = Loopback(recorder, "rtsig"), Loopback(Recorder(), "rtsig")
    end = loopback.open()
    loopback.settle()
    other.settle()
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, hard))
    try:
        end.send(b"x")
        while end.under_way():
            os.sched_yield()
        other.close()
        loopback.settle()
    finally:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft, hard))
    assert recorder.received == {end.port: b"x"}
    loopback.close()


def exchange(transport: KernelTransport, port: int, enough: Callable[[dict[str, int]], bool]) -> None:
    """A byte there and back, again and again, until the counters say that it is enough; then the end."""
    with socket.create_connection((ADDRESS, port)) as client:
        for _ in range(1_000_000):
            client.sendall(b"x")
            assert client.recv(1) == b"y"
            if enough(transport.counters()):
                break
    transport.stop()


@pytest.mark.parametrize("strategy", strategies.in_one_thread())
@pytest.mark.parametrize("spin_ns", [0, 10_000_000])
def test_after_short_sleeps_a_wait_asks_again_and_again_before_it_sleeps(strategy: str, spin_ns: int) -> None:
    """The window of the links (spin_adapt): it opens when sleeps are short, so that the next event is met awake."""
    recorder = Recorder()
    recorder.on("data", ("send", b"y"))
    with KernelTransport(strategy, spin_ns=spin_ns) as transport:
        port = transport.listen(0, application=recorder, address=ADDRESS).port
        least = 10 if spin_ns else 0  # of some: where others want the processor, most are in vain

        def enough(counters: dict[str, int]) -> bool:
            return counters["upcalls"] > 100 and counters["spins"] - counters["spins_in_vain"] >= least

        client = threading.Thread(target=exchange, args=(transport, port, enough))
        client.start()
        transport.run()
        client.join()
        counters = transport.counters()
        assert enough(counters)
        assert (counters["spins"] > 0) == (spin_ns > 0)
    assert recorder.errors == []


def test_who_sleeps_in_recv_asks_nobody() -> None:
    with pytest.raises(ValueError, match="spin_ns=1: with threads, who serves a connection asks nobody"):
        KernelTransport("threads", spin_ns=1)


def test_processes_have_the_kernels_time() -> None:
    with pytest.raises(ValueError, match="a process for each connection has the kernel's time"):
        KernelTransport("processes", now_ns=0)


def test_what_children_have_counted_is_added_up(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("home")
    with HttpServer(tmp_path) as server, KernelTransport("processes") as transport:
        port = transport.listen(0, application=server, address=ADDRESS).port

        def client() -> None:
            for _ in range(3):
                connection = http.client.HTTPConnection(ADDRESS, port)
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"home"
                connection.sock.shutdown(socket.SHUT_WR)  # the child has a copy of this end: closing ours says nothing
                connection.close()
            while transport.counters()["closed_connections"] < 3:
                os.sched_yield()
            transport.stop()

        thread = threading.Thread(target=client)
        thread.start()
        transport.run()
        thread.join()
        while transport.established:  # a child adds one counter after the other, and is reaped when it has ended
            transport.poll()
        counters = transport.counters()
        assert (counters["accepted_connections"], counters["closed_connections"]) == (3, 3)
        assert counters["bytes_received"] > 3 * len("GET / HTTP/1.1")
        assert transport.established == 0


def threads_of_this_process() -> set[str]:
    """By their numbers: those of an earlier test may still be ending."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


def test_each_connection_has_a_thread_and_no_longer() -> None:
    """Which sleeps in recv: the first one waits for listeners alone."""
    before = threads_of_this_process()
    recorder = Recorder()
    loopback = Loopback(recorder, "threads")
    ends = [loopback.open() for _ in range(20)]
    loopback.settle()
    ours = threads_of_this_process() - before
    assert len(ours) == 20
    for end in ends[:10]:
        end.abort()
    loopback.settle()
    assert recorder.names().count("closed") == 10
    loopback.close()
    assert recorder.names().count("closed") == 20
    for _ in range(10_000):  # it has nothing to do with us any more, but the kernel has
        if not ours & threads_of_this_process():
            break
        os.sched_yield()
    assert not ours & threads_of_this_process()
    assert recorder.errors == []


def test_more_threads_than_one_turn_of_the_end_takes_are_all_told() -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        recorder = Recorder()
        loopback = Loopback(recorder, "threads")
        for _ in range(530):
            loopback.open()
        loopback.settle()
        loopback.transport.close()
        loopback.close()
        assert recorder.names().count("closed") == 530
        assert recorder.errors == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_a_thread_does_not_block_what_is_its_own_doing() -> None:
    """A fault while SIGBUS is blocked ends the process, whoever would handle it (sigprocmask(2))."""
    there = set(Path("/proc/self/task").iterdir())
    loopback = Loopback(Recorder(), "threads")
    loopback.open()
    loopback.settle()
    (thread,) = set(Path("/proc/self/task").iterdir()) - there
    (line,) = [line for line in (thread / "status").read_text().splitlines() if line.startswith("SigBlk:")]
    blocked = int(line.split()[1], 16)
    for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL):
        assert not blocked >> (number - 1) & 1
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        assert blocked >> (number - 1) & 1
    loopback.close()


def test_threads_share_one_server_without_losing_a_count(tmp_path: Path) -> None:
    """Clients in threads of their own, all at once: the server's counters and tables are touched under one lock."""
    (tmp_path / "index.html").write_text("home")
    server = HttpServer(tmp_path)
    with server, KernelTransport("threads") as transport:
        port = transport.listen(0, application=server, address=ADDRESS).port

        def client(number: int, failed: list[object]) -> None:
            try:
                connection = http.client.HTTPConnection(ADDRESS, port)
                for step in range(200):
                    connection.request("GET", "/" if step % 2 else f"/missing-{number}-{step}")
                    answer = connection.getresponse()
                    answer.read()
                    assert answer.status == (200 if step % 2 else 404)
                connection.close()
            except BaseException as error:
                failed.append(error)

        def clients() -> None:
            all_of_them = [threading.Thread(target=client, args=(number, failed)) for number in range(16)]
            for each in all_of_them:
                each.start()
            for each in all_of_them:
                each.join()
            transport.stop()

        failed: list[object] = []
        crowd = threading.Thread(target=clients)
        crowd.start()
        transport.run()
        crowd.join()
        assert failed == []
        assert server.stats()["requests"] == 16 * 200
        assert (server.stats()["responses_2xx"], server.stats()["responses_4xx"]) == (1600, 1600)


def test_how_many_threads_there_can_be_is_known() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1000, hard))
    try:
        with KernelTransport("threads") as transport:
            assert transport.bound == "RLIMIT_NPROC: 750"
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


def test_a_control_group_bounds_what_is_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tmp_path / "cgroup"
    (groups / "above" / "own").mkdir(parents=True)
    (groups / "above" / "own" / "pids.max").write_text("max\n")
    (groups / "above" / "pids.max").write_text("40\n")
    (tmp_path / "pids.max").write_text("4\n")  # nobody's group
    said = tmp_path / "said"
    said.write_text("0::/above/own\n")
    monkeypatch.setattr("ustack.kernel.threads.CGROUP_FILE", said)
    monkeypatch.setattr("ustack.kernel.threads.CGROUPS", groups)
    for name in ("threads", "processes"):
        with KernelTransport(name) as transport:
            assert transport.bound == "pids.max: 30"


def test_descriptors_bound_threads_and_processes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        for name in ("threads", "processes"):
            with KernelTransport(name) as transport:
                assert transport.bound == "RLIMIT_NOFILE: 300"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_another_thread_may_go_on(make: Make) -> None:
    """Signals go to one thread; who waits next has them, those that the other had not taken among them."""
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    for number in range(4):
        end.send(b"%d" % number)
        if number % 2:
            thread = threading.Thread(target=loopback.settle)
            thread.start()
            thread.join()
        else:
            loopback.settle()
    assert recorder.received == {end.port: b"0123"}

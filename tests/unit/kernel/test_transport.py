# SPDX-License-Identifier: MIT
"""The transport over the kernel's sockets: its own clock, opening, options, the end. What every transport promises is
in tests/unit/testing/test_transports.py."""

import gc
import mmap
import os
import select
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ustack.errors import OwnershipError
from ustack.kernel import strategies
from ustack.kernel.transport import KernelListener, KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.recorder import Recorder

Make = Callable[..., Loopback]
OPTION_CC = 6
CALL_STATE = -4
SECOND = 1_000_000_000


def test_the_application_serves_in_real_time_until_it_is_stopped(strategy: str) -> None:
    recorder = Recorder()
    with KernelTransport(strategy) as transport:
        listener = transport.listen(0, application=recorder, address=ADDRESS)
        end = LoopbackEnd(listener.port)
        end.send(b"question")
        recorder.on("data", ("send", b"answer"), "close", lambda _: transport.stop())
        transport.run()
        end.socket.setblocking(True)
        assert end.receive() == b"answer"
        end.shutdown()
        recorder.on("closed", lambda _: transport.stop())
        transport.run()
        assert recorder.names() == ["accept", "data", "closed"]
        end.close()
    assert recorder.errors == []


def test_timeouts_end_the_sleep(strategy: str) -> None:
    """Nobody else wakes it: run() would not return."""
    recorder = Recorder()
    with KernelTransport(strategy) as transport:
        listener = transport.listen(0, application=recorder, address=ADDRESS)
        recorder.on("accept", ("timeout", 1))
        recorder.on("timeout", lambda _: transport.stop())
        end = LoopbackEnd(listener.port)
        transport.run()
        assert recorder.names() == ["accept", "timeout"]
        end.close()


def test_many_timeouts_come_in_their_order(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(100)]
    loopback.settle()
    for number, end in enumerate(ends):
        recorder.act(end.port, ("timeout", (number * 37 % 100 + 1) * SECOND))
    loopback.advance(50 * SECOND + SECOND // 2)
    assert recorder.names().count("timeout") == 50
    loopback.advance(50 * SECOND)
    told = [entry[1] for entry in recorder.log if entry[0] == "timeout"]
    assert told == [ends[number].port for number in sorted(range(100), key=lambda number: number * 37 % 100)]


def test_a_connection_can_be_opened(make: Make) -> None:
    server, opener = Recorder(), Recorder()
    loopback = make(server)
    client = make(opener)
    opener.on("connected", ("send", b"hello"))
    opener.connect(ADDRESS, loopback.listener.port)
    for _ in range(5):
        client.settle()
        loopback.settle()
    assert opener.names() == ["connected"]
    assert list(server.received.values()) == [b"hello"]
    assert client.transport.counters()["opened_connections"] == 1
    server.act(server.ports[0], "abort")
    loopback.settle()
    client.settle()
    assert opener.log[-2] == ("closed", loopback.listener.port, "reset")


def test_who_refuses_is_told(make: Make) -> None:
    opener = Recorder()
    client = make(opener)
    with socket.socket() as unused:
        unused.bind((ADDRESS, 0))
        port = unused.getsockname()[1]
        opener.connect(ADDRESS, port)
        client.settle()
    assert opener.names() == ["closed"]
    assert opener.log[-2] == ("closed", port, "refused")


def controls() -> list[str]:
    return Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


def test_the_congestion_control_is_chosen_by_name(make: Make) -> None:
    """Every one that this kernel has, for a transport; another one for a connection by its number."""
    for number, name in enumerate(controls()):
        recorder = Recorder()
        loopback = make(recorder, cc=name)
        end = loopback.open()
        loopback.settle()
        assert recorder.option(end.port, OPTION_CC) == number
    other = (number + 1) % len(controls())
    assert recorder.act(end.port, ("option", (OPTION_CC, other))) == 0
    assert recorder.option(end.port, OPTION_CC) == other
    assert recorder.act(end.port, ("option", (OPTION_CC, 99))) < 0


def test_a_control_that_this_kernel_has_not_is_refused(strategy: str) -> None:
    with pytest.raises(ValueError, match="no congestion control 'bogus'; this kernel has: "):
        KernelTransport(strategy, cc="bogus")


def test_close_resets_who_is_there_and_tells_the_application(strategy: str) -> None:
    recorder = Recorder()
    loopback = Loopback(recorder, strategy)
    end = loopback.open()
    loopback.settle()
    loopback.transport.close()
    loopback.transport.close()
    assert recorder.log[-2][0::2] == ("closed", "aborted")
    with pytest.raises(ConnectionResetError):
        end.receive()
    assert not recorder.attached
    with pytest.raises(ValueError, match="closed"):
        loopback.transport.poll(loopback.now_ns)
    assert loopback.transport.next_deadline_ns is None
    loopback.close()


def test_it_cannot_be_used_from_inside(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder)
    told: list[str] = []

    def again(_: int) -> None:
        try:
            loopback.poll()
        except OwnershipError as error:
            told.append(error.reason)

    recorder.on("accept", again)
    loopback.open()
    loopback.settle()
    assert told == ["reentered"]


def test_time_is_told_to_a_manual_clock_alone(strategy: str) -> None:
    with KernelTransport(strategy, now_ns=5) as transport:
        with pytest.raises(ValueError, match="exactly when"):
            transport.poll()
        with pytest.raises(ValueError, match="now_ns"):
            transport.poll(4)
        with pytest.raises(ValueError, match="driven by poll"):
            transport.run()
    with KernelTransport(strategy) as transport, pytest.raises(ValueError, match="exactly when"):
        transport.poll(1)


def test_a_transport_that_is_dropped_says_so_and_closes_everything(strategy: str) -> None:
    recorder = Recorder()
    transport = KernelTransport(strategy)
    end = LoopbackEnd(transport.listen(0, application=recorder, address=ADDRESS).port)
    transport.poll()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del transport
        gc.collect()
    assert [str(warning.category.__name__) for warning in said] == ["ResourceWarning"]
    assert recorder.names() == ["accept", "closed"]
    with pytest.raises(ConnectionResetError):
        end.receive()
    end.close()


def test_a_listener_is_made_by_its_transport() -> None:
    with pytest.raises(TypeError, match=r"KernelTransport\.listen"):
        KernelListener()


def test_a_file_that_is_cut_short_is_not_sent_as_zeros(make: Make, tmp_path: Path) -> None:
    """The system call that reads the mapping fails, instead of a signal."""
    (tmp_path / "big").write_bytes(b"x" * (1 << 20))
    server = HttpServer(tmp_path, revalidate_s=3600.0)
    loopback = make(server, sndbuf_bytes=1 << 14)
    end = loopback.open(receive_bytes=1 << 14)
    end.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    loopback.settle()
    os.truncate(tmp_path / "big", 4096)
    in_the_kernel = loopback.transport.counters()["bytes_sent"]
    received, was_reset = b"", False
    while not was_reset:
        loopback.settle()
        try:
            received += end.receive()
        except BlockingIOError:
            continue
        except ConnectionResetError:
            was_reset = True
    assert len(received) <= in_the_kernel
    if loopback.transport.strategy != "io_uring-zc":  # its pages are the file's, also in the kernel's buffer
        assert b"\0" not in received
    assert loopback.transport.counters()["damaged_aborted"] == 1
    loopback.settle()
    server.close()


def test_a_child_of_fork_leaves_the_connections_to_its_parent(strategy: str) -> None:
    recorder = Recorder()
    loopback = Loopback(recorder, strategy)
    end = loopback.open()
    loopback.settle()
    recorder.act(end.port, ("send", b"queued "))
    child = os.fork()
    if child == 0:
        try:
            gone = not loopback.transport.alive
            loopback.transport.close()
            del loopback, recorder
            gc.collect()
        finally:
            os._exit(0 if gone else 1)
    assert os.waitpid(child, 0)[1] == 0
    recorder.act(end.port, ("send", b"and after"))
    loopback.settle()
    assert end.receive() == b"queued and after"
    end.send(b"more")
    loopback.settle()
    assert recorder.received == {end.port: b"more"}
    loopback.close()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port whose queue is full: the kernel does not answer its SYNs."""
    with socket.socket() as full, socket.socket() as first:
        full.bind((ADDRESS, 0))
        full.listen(0)
        first.connect(full.getsockname())
        select.select([full], [], [])
        yield full.getsockname()[1]


def test_who_is_not_answered_is_not_taken_for_connected(make: Make) -> None:
    """A timeout and a wish to write have the connection looked at in SYN-SENT, where SO_ERROR is 0."""
    opener = Recorder()
    client = make(opener)
    with silent_port() as port:
        opener.connect(ADDRESS, port)
        opener.act(port, "want_writable")
        client.settle()
        assert opener.names() == []
        opener.act(port, ("timeout", SECOND))
        client.advance(2 * SECOND)
        assert opener.names() == ["timeout"]
        assert client.transport.counters()["opened_connections"] == 0


@pytest.mark.parametrize("ended", ["close", "shutdown"])
def test_who_gives_up_in_syn_sent_is_ended(make: Make, ended: str) -> None:
    """RFC 9293 section 3.10.4: the TCB is deleted."""
    opener = Recorder()
    client = make(opener)
    with silent_port() as port:
        opener.connect(ADDRESS, port)
        opener.act(port, ended)
        client.settle()
    assert opener.names() == ["closed"]
    assert opener.log[-2] == ("closed", port, "aborted")
    assert client.transport.closing_connections() == 0


def test_a_greeting_that_comes_with_the_handshake_is_read(make: Make) -> None:
    """Connection and bytes are told at once."""
    opener = Recorder()
    client = make(opener)
    with socket.socket() as server:
        server.bind((ADDRESS, 0))
        server.listen()
        opener.connect(ADDRESS, server.getsockname()[1])
        accepted, _ = server.accept()
        with accepted:
            accepted.send(b"220 ready")
            for _ in range(1000):
                client.settle()
                if opener.received:
                    break
                os.sched_yield()
            assert list(opener.received.values()) == [b"220 ready"]


def test_a_closed_connection_waits_a_minute_for_the_end_of_its_peer(make: Make) -> None:
    """As the engine does in FIN-WAIT-2. The peer is not reset: it may have something to read yet."""
    recorder = Recorder()
    recorder.on("data", ("send", b"answer"), "close")
    loopback = make(recorder)
    end = loopback.open()
    end.send(b"question")
    loopback.settle()
    loopback.advance(59 * SECOND)
    assert loopback.transport.closing_connections() == 1
    loopback.advance(2 * SECOND)
    assert recorder.log[-2] == ("closed", end.port, "timeout")
    assert loopback.transport.closing_connections() == 0
    assert loopback.transport.next_deadline_ns is None
    assert end.receive() == b"answer"
    assert end.receive() == b""


@pytest.mark.parametrize("after", ["close", ("timeout", 1000 * SECOND)])
def test_a_timeout_that_was_due_is_not_told_once_it_is_off(make: Make, after: str | tuple[str, int]) -> None:
    """The bytes are told first, in the same turn."""
    recorder = Recorder()
    recorder.on("accept", ("timeout", SECOND))
    recorder.on("data", ("send", b"answer"), after)
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    end.send(b"question")
    while end.under_way():
        os.sched_yield()
    loopback.now_ns += 2 * SECOND
    loopback.settle()
    assert recorder.names() == ["accept", "data"]
    assert end.receive() == b"answer"
    loopback.advance(50 * SECOND)
    assert recorder.names() == ["accept", "data"]


@pytest.mark.parametrize("strategy", strategies.in_one_thread())  # else a turn is one connection's
def test_many_small_pieces_are_sent_in_several_turns(make: Make) -> None:
    """A system call takes 64 of them; a turn pays for some 800."""
    pieces = 54_000
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    for number in range(pieces):
        recorder.act(end.port, ("send", b"%c" % (number & 255)))
    loopback.poll()
    assert loopback.transport.counters()["sends"] < 830
    assert recorder.queued(end.port) > 0
    received = b""
    while len(received) < pieces:
        loopback.settle()
        received += end.receive()
    assert received == bytes(number & 255 for number in range(pieces))


def test_a_mapping_that_ends_early_ends_the_connection(make: Make, tmp_path: Path) -> None:
    """The system call takes what there is, though there is room for more: no READY_OUT follows by itself."""
    (tmp_path / "short").write_bytes(b"x" * 65536)
    with (tmp_path / "short").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 65536, prot=mmap.PROT_READ)
        os.truncate(tmp_path / "short", 8192)
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    recorder.act(end.port, ("send", mapped))
    loopback.settle()
    assert recorder.log[-2] == ("closed", end.port, "aborted")
    assert loopback.transport.counters()["damaged_aborted"] == 1


def test_nothing_is_opened_while_the_transport_goes(strategy: str) -> None:
    """Else it would be left behind, with its descriptor."""
    recorder = Recorder()
    loopback = Loopback(recorder, strategy)
    end = loopback.open()
    loopback.settle()
    port = loopback.listener.port
    recorder.on("closed", lambda _: recorder.connect(ADDRESS, port))
    loopback.transport.close()
    assert recorder.names() == ["accept", "closed"]
    assert recorder.log[-2][:2] == ("closed", end.port)
    assert len(recorder.errors) == 1
    assert set(loopback.transport.leaks().values()) == {0}
    loopback.close()


def test_a_thread_of_a_connection_cannot_listen(make: Make) -> None:
    """The first thread may be asleep in what it asked the listeners; everybody else is the first thread."""
    recorder = Recorder()
    loopback = make(recorder)
    end = loopback.open()
    loopback.settle()
    answered: list[int] = []
    recorder.on("data", lambda port: answered.append(recorder.listen(0)))
    end.send(b"x")
    loopback.settle()
    assert answered == [CALL_STATE if loopback.transport.strategy == "threads" else 0]


def test_a_process_for_each_connection_opens_none() -> None:
    """The child would go on behind the call, in the middle of its parent's work; nor has it listeners."""
    recorder = Recorder()
    with KernelTransport("processes") as transport:
        port = transport.listen(0, application=recorder, address=ADDRESS).port

        def status() -> int:
            try:
                recorder.connect(ADDRESS, port)
            except OSError as error:
                return int(error.errno or 0)
            return 0

        def tell(peer: int) -> None:
            recorder.act(peer, ("send", f"{status()} {recorder.listen(0)}".encode()))

        assert status() == CALL_STATE
        recorder.on("data", tell)
        end = LoopbackEnd(port)
        end.send(b"x")
        told = b""
        while not told:
            transport.poll()
            with suppress(BlockingIOError):
                told = end.receive()
        assert told == b"%d %d" % (CALL_STATE, CALL_STATE)
        assert transport.established == 1
        end.close()


def test_a_time_that_cannot_be_lingered_closes_nothing(strategy: str) -> None:
    with KernelTransport(strategy) as transport:
        port = transport.listen(0, application=Recorder(), address=ADDRESS).port
        with pytest.raises(ValueError, match=r"timeout -1\.0: must be 0 or more seconds"):
            transport.close(linger=-1)
        socket.create_connection((ADDRESS, port)).close()
        transport.close(linger=None)
    assert not transport.alive


@pytest.mark.parametrize("strategy", strategies.in_one_thread())  # else the child would be a thread of another's
def test_a_fork_inside_an_upcall_leaves_both_whole(make: Make) -> None:
    """The child's turn goes on to its end, and finds nothing to do; the connections stay the parent's."""
    recorder = Recorder()
    loopback = make(recorder)
    ends = [loopback.open() for _ in range(3)]
    loopback.settle()
    children: list[int] = []

    def forks(port: int) -> None:
        recorder.on("data")
        children.append(os.fork())

    recorder.on("data", forks)
    for end in ends:
        end.send(b"x")
    loopback.poll()
    if children == [0]:
        os._exit(0 if not loopback.transport.alive and len(recorder.log) < 20 else 1)
    assert os.waitpid(children[0], 0)[1] == 0
    for end in ends:
        end.send(b"y")
    loopback.settle()
    assert recorder.received == {end.port: b"xy" for end in ends}


@pytest.mark.parametrize("strategy", [name for name in strategies.in_one_process() if "uring" not in name])
def test_a_corked_response_ends_with_its_last_byte(make: Make) -> None:
    recorder = Recorder()
    loopback = make(recorder, cork=True, sndbuf_bytes=8192)
    end = loopback.open()
    loopback.settle()
    for number in range(1, 4):
        recorder.act(end.port, ("send", b"z" * 100_000))
        received = b""
        while len(received) < 100_000:
            loopback.settle()
            with suppress(BlockingIOError):
                received += end.receive()
        loopback.settle()
        assert loopback.transport.counters()["corks"] == number
    assert loopback.transport.counters()["sends"] > 3


@pytest.mark.parametrize("strategy", [name for name in strategies.in_one_thread() if "uring" not in name])
def test_whoever_uses_a_turn_up_is_not_left_corked(make: Make) -> None:
    """A turn has 8,192 units. Each of these costs 27, a segment less than full: the 304th is the last that it pays."""
    recorder = Recorder()
    loopback = make(recorder, cork=True, sndbuf_bytes=1 << 16)
    ends = [loopback.open() for _ in range(400)]
    loopback.settle()
    for end in ends:
        recorder.act(end.port, ("send", b"z" * 16001))
    loopback.settle()
    for end in ends:
        for _ in range(1000):  # the kernel may need the processor first
            if select.select([end.socket], [], [], 0)[0]:
                break
            os.sched_yield()
        assert end.receive() == b"z" * 16001


def test_who_sends_by_requests_of_its_own_has_no_cork() -> None:
    with pytest.raises(ValueError, match="cork=True: io_uring sends by requests of its own"):
        KernelTransport("io_uring", cork=True)

# SPDX-License-Identifier: MIT
"""The transport over the kernel's sockets: its own clock, opening, options, the end. What every transport promises is
in tests/unit/testing/test_transports.py."""

import gc
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.errors import OwnershipError
from ustack.kernel.transport import KernelListener, KernelTransport
from ustack.server.http import HttpServer
from ustack.testing.loopback import ADDRESS, Loopback, LoopbackEnd
from ustack.testing.recorder import Recorder

Make = Callable[..., Loopback]
OPTION_CC = 6
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
    received, was_reset = b"", False
    while not was_reset:
        loopback.settle()
        try:
            received += end.receive()
        except BlockingIOError:
            continue
        except ConnectionResetError:
            was_reset = True
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

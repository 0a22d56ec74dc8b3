# SPDX-License-Identifier: MIT
"""One owner at a time: threads, destructors, callbacks and signal handlers get an exception, never the records.

The threads are bounded by counts, not by time. What could end the process is tried in a process of its own.
"""

import gc
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

from ustack import (
    AddressInUse,
    Connection,
    ConnectionAborted,
    Listener,
    OwnershipError,
    SimNetwork,
    Stack,
    StackError,
)
from ustack.buf.lent import alive as lent_alive
from ustack.link.tee import TeeLink
from ustack.server.http import HttpServer
from ustack.testing.pair import Pair
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS

MakeStack = Callable[..., Any]


class Running:
    """A stack that is inside run() in a thread of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.thread = threading.Thread(target=stack.run, name="runner")

    def __enter__(self) -> "Running":
        self.thread.start()
        while True:  # until it is inside: another call is refused then
            try:
                self.stack.closing_connections()
            except OwnershipError:
                return self

    def __exit__(self, *exc: object) -> None:
        while self.thread.is_alive():
            self.stack.stop()
            self.thread.join(0.01)


@pytest.fixture
def scene(make_stack: MakeStack) -> tuple[Stack, Listener, Connection]:
    """A stack on a real clock, a listener, and a connection that is being opened."""
    stack = make_stack(SimNetwork().a)
    return stack, stack.listen(80), stack.connect(PEER_ADDRESS, 80, wait=False)


CALLS: dict[str, Callable[[Stack, Listener, Connection], object]] = {
    "poll": lambda stack, listener, connection: stack.poll(),
    "run": lambda stack, listener, connection: stack.run(1),
    "listen": lambda stack, listener, connection: stack.listen(81),
    "connect": lambda stack, listener, connection: stack.connect(PEER_ADDRESS, 81, wait=False),
    "connections": lambda stack, listener, connection: stack.connections("connection"),
    "closing_connections": lambda stack, listener, connection: stack.closing_connections(),
    "next_deadline_ns": lambda stack, listener, connection: stack.next_deadline_ns,
    "close": lambda stack, listener, connection: stack.close(),
    "close the link": lambda stack, listener, connection: stack.link.close(),
    "accept": lambda stack, listener, connection: listener.accept(timeout=0),
    "close a listener": lambda stack, listener, connection: listener.close(),
    "send": lambda stack, listener, connection: connection.send(b"x", timeout=0),
    "receive": lambda stack, listener, connection: connection.receive(1, timeout=0),
    "recv_into": lambda stack, listener, connection: connection.recv_into(bytearray(1)),
    "shutdown": lambda stack, listener, connection: connection.shutdown(),
    "close a connection": lambda stack, listener, connection: connection.close(),
    "abort": lambda stack, listener, connection: connection.abort(),
    "info": lambda stack, listener, connection: connection.info(),
    "nodelay": lambda stack, listener, connection: setattr(connection, "nodelay", True),
    "keepalive": lambda stack, listener, connection: setattr(connection, "keepalive", True),
    "set_low_water": lambda stack, listener, connection: connection.set_low_water(1),
    "set_unsent_low_water": lambda stack, listener, connection: connection.set_unsent_low_water(1),
    "set_tos": lambda stack, listener, connection: connection.set_tos(0),
    "set_ttl": lambda stack, listener, connection: connection.set_ttl(1),
    "register": lambda stack, listener, connection: stack.poller().register(connection, 1),
    "poll a poller": lambda stack, listener, connection: stack.poller().poll(0),
    "close a poller": lambda stack, listener, connection: stack.poller().close(),
    "set_user_timeout": lambda stack, listener, connection: connection.set_user_timeout(1),
}


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("call", CALLS)
def test_a_second_thread_is_told_who_is_inside(scene: tuple[Stack, Listener, Connection], call: str) -> None:
    with Running(scene[0]), pytest.raises(OwnershipError, match=r"inside run\(\) in thread 'runner'") as raised:
        CALLS[call](*scene)
    assert raised.value.reason == "thread"


def test_what_a_second_thread_may_do(scene: tuple[Stack, Listener, Connection]) -> None:
    stack, listener, connection = scene
    with Running(stack):
        assert stack.counters()["frames_in"] == 0
        assert stack.leaks()["tcbs"] == 1
        assert (connection.state, connection.reason, listener.pending) == ("SYN-SENT", None, 0)
        assert "SYN-SENT" in repr(connection)
        assert "LISTEN" in repr(listener)
        assert "198.18.0.2/24" in repr(stack)
        stack.stop()


def test_a_stack_passes_from_thread_to_thread_between_calls(scene: tuple[Stack, Listener, Connection]) -> None:
    stack = scene[0]
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(10):
                stack.poll()
                stack.connections("connection")
        except BaseException as error:
            failures.append(error)

    for _ in range(5):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        stack.poll()
    assert not failures


def test_both_ends_of_a_simulated_wire_have_one_owner(make_stack: MakeStack) -> None:
    """What one end sends, the other end's thread would read."""
    network = SimNetwork()
    first, second = make_stack(network.a), make_stack(network.b, PEER_ADDRESS + "/24")
    with Running(first):
        for use in (
            second.poll,
            second.close,
            network.close,
            lambda: network.advance(1 << 62),
            lambda: network.b.inject(b""),
        ):
            with pytest.raises(OwnershipError):
                use()


def test_a_recorded_link_is_not_closed_under_its_stack(make_stack: MakeStack, tmp_path: Any) -> None:
    tee = TeeLink(SimNetwork().a, tmp_path / "x.pcapng")
    stack = make_stack(tee)
    with Running(stack):
        for use in (tee.close, tee.flush, tee.inner.close):
            with pytest.raises(OwnershipError):
                use()
    stack.close()
    tee.close()


def test_threads_that_hammer_one_stack_get_exceptions_and_nothing_else(make_stack: MakeStack) -> None:
    """Two stacks on one wire, data both ways, connections dropped, in eight threads at once."""
    network = SimNetwork()
    server = make_stack(network.a)
    client = make_stack(network.b, PEER_ADDRESS + "/24")
    listener = server.listen(80, backlog=1000)
    refused, unexpected, done = [0] * 8, [], [0] * 8
    allowed = (OwnershipError, BlockingIOError, BrokenPipeError, ConnectionError, TimeoutError)
    held: list[list[Connection]] = [[] for _ in range(8)]

    def hammer(number: int) -> None:
        mine = held[number]

        def close_last() -> None:
            mine[-1].close()

        for turn in range(400):
            for act in (
                lambda: server.run(100_000),
                client.poll,
                lambda: mine.append(client.connect(STACK_ADDRESS, 80, wait=False)),
                lambda: mine.append(listener.accept(timeout=0)),
                lambda: mine[-1].send(bytearray(1000), timeout=0),
                lambda: mine[-1].receive(100, timeout=0),
                close_last,
                server.connections,
                lambda: mine.pop(0) and None,
            ):
                try:
                    act()
                    done[number] += 1
                except OwnershipError:
                    refused[number] += 1
                except IndexError:
                    pass
                except allowed:
                    pass
                except BaseException as error:
                    unexpected.append(error)
            if turn % 50 == 0:
                gc.collect()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not unexpected
    assert sum(refused) > 0
    assert sum(done) > 0
    for mine in held:
        mine.clear()
    gc.collect()
    server.close(linger=0)
    client.close(linger=0)
    assert not any(server.leaks().values())
    assert not any(client.leaks().values())


def test_a_connection_dropped_by_another_thread_is_closed_by_the_owner(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a)
    box = [stack.connect(PEER_ADDRESS, 80, wait=False)]
    with Running(stack):
        box.clear()
    assert stack.connections("connection") == []


@pytest.mark.parametrize("call", ["housekeeping", "close", "decide"])
def test_a_server_is_not_touched_while_its_stack_runs(make_stack: MakeStack, tmp_path: Path, call: str) -> None:
    """Its tables are the upcalls' as well."""
    with HttpServer(tmp_path) as server:
        stack = make_stack(SimNetwork().a)
        stack.listen(80, application=server)
        with Running(stack), pytest.raises(OwnershipError, match=rf"HttpServer\.{call}\(\)"):
            getattr(server, call)(*([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] if call == "decide" else []))
        server.housekeeping()
        stack.close()


def test_a_clock_that_uses_its_server_is_refused(make_stack: MakeStack, tmp_path: Path) -> None:
    """A server that serves no stack has one owner at a time as well, and finds the same gate when it leaves."""
    refused: list[str] = []
    uses: list[Callable[[], object]] = []

    def clock() -> int:
        for use in uses:
            with pytest.raises(OwnershipError) as caught:
                use()
            refused.append(caught.value.reason)
        return 10**18

    stack = make_stack(SimNetwork().a)
    with HttpServer(tmp_path, access_log=tmp_path / "log", wall_clock=clock) as server:
        uses += [server.close, server.housekeeping, lambda: stack.listen(80, application=server)]
        server.housekeeping(now_ns=1)
        assert refused == ["reentered"] * 3
        uses.clear()
        stack.listen(80, application=server)
        stack.close()
        server.housekeeping()


# ---------------------------------------------------------------- destructors


class Tells(bytearray):
    """A buffer that uses the stack when it is given back."""

    use: Callable[[], object]
    said: list[BaseException | None]

    def __del__(self) -> None:
        try:
            self.use()
            self.said.append(None)
        except BaseException as error:
            self.said.append(error)


TOLD: dict[tuple[str, str], type] = {
    ("acknowledged", "poll"): OwnershipError,
    ("acknowledged", "close"): OwnershipError,
    ("acknowledged", "abort"): OwnershipError,
    ("acknowledged", "send"): OwnershipError,
    ("acknowledged", "stop"): NoneType,
    ("aborted", "poll"): OwnershipError,
    ("aborted", "close"): OwnershipError,
    ("aborted", "abort"): NoneType,
    ("aborted", "send"): ConnectionAborted,
    ("aborted", "stop"): NoneType,
    ("stack closed", "poll"): ValueError,
    ("stack closed", "close"): NoneType,
    ("stack closed", "abort"): NoneType,
    ("stack closed", "send"): ConnectionAborted,
    ("stack closed", "stop"): NoneType,
}
"""What a destructor is told, by when it runs and what it calls. What has ended may be ended again."""


@pytest.mark.parametrize("use", ["poll", "close", "abort", "send", "stop"])
@pytest.mark.parametrize("when", ["acknowledged", "aborted", "stack closed"])
def test_what_a_lent_object_does_at_its_end_is_refused(use: str, when: str) -> None:
    with Pair() as pair:
        opener, accepter = pair.connect()
        said: list[BaseException | None] = []
        data = Tells(b"q" * 1000)
        data.said = said
        uses: dict[str, Callable[[], object]] = {
            "poll": lambda: pair.b.poll(pair.now_ns),
            "close": pair.b.close,
            "abort": opener.abort,
            "send": lambda: opener.send(b"again"),
            "stop": pair.b.stop,
        }
        data.use = uses[use]
        opener.send(data)
        del data
        if when == "acknowledged":
            pair.advance(50 * MILLISECOND)
            assert accepter.receive() == b"q" * 1000
        elif when == "aborted":
            opener.abort()
            pair.advance(50 * MILLISECOND)
        else:
            pair.b.close()
        assert len(said) == 1
        assert type(said[0]) is TOLD[when, use]
        if isinstance(said[0], OwnershipError):
            assert said[0].reason == "reentered"


def test_lent_objects_are_given_back_between_turns_in_the_order_they_came() -> None:
    before = lent_alive()
    ended: list[int] = []

    class Numbered(bytearray):
        number: int

        def __del__(self) -> None:
            ended.append(self.number)

    with Pair() as pair:
        opener, _accepter = pair.connect()
        for number in range(5):
            data = Numbered(b"x" * 100)
            data.number = number
            opener.send(data)
        del data
        pair.advance(100 * MILLISECOND)
        assert ended == list(range(5))
        assert lent_alive() == before


def test_an_exporter_that_uses_the_connection_is_asked_before_it_is_entered() -> None:
    """bytes(memoryview) of a Python exporter may run anything; numpy's and array's do not, a class's may."""
    with Pair() as pair:
        opener, accepter = pair.connect()
        calls: list[int] = []

        class Exporter(bytearray):
            def __len__(self) -> int:
                calls.append(1)
                opener.nodelay = True
                return super().__len__()

        opener.sendall(Exporter(b"hello"))
        pair.advance(50 * MILLISECOND)
        assert accepter.receive() == b"hello"


# ---------------------------------------------------------------- callbacks and signals


def test_an_upcall_that_uses_the_stack_is_refused() -> None:
    with Pair() as pair:
        said: list[BaseException] = []
        recorder = Recorder()

        def use(port: int) -> None:
            try:
                pair.a.connections("connection")
            except OwnershipError as error:
                said.append(error)

        recorder.on("accept", use)
        pair.a.listen(80, application=recorder)
        opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
        pair.advance(50 * MILLISECOND)
        assert [error.reason for error in said] == ["reentered"]  # type: ignore[attr-defined]
        opener.abort()


class Stopped(SystemExit):
    """What a program's signal handler raises."""


def test_what_ends_a_program_is_raised_from_poll_and_not_lost_in_an_upcall() -> None:
    with Pair() as pair:
        recorder = Recorder()

        def stop(port: int) -> None:
            raise Stopped

        recorder.on("accept", stop)
        pair.a.listen(80, application=recorder)
        opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
        with pytest.raises(Stopped):
            pair.advance(50 * MILLISECOND)
        pair.advance(50 * MILLISECOND)
        assert (opener.state, recorder.errors) == ("ESTABLISHED", [])
        opener.abort()


def test_a_filter_that_uses_the_network_or_a_stack_is_refused() -> None:
    said: list[type[BaseException]] = []
    with Pair() as pair:

        def watch(frame: bytes, index: int) -> None:
            for use in (pair.network.close, pair.a.connections, lambda: pair.network.a.inject(b"x" * 60)):
                try:
                    use()
                except OwnershipError as error:
                    said.append(type(error))

        pair.network.filter_ba = watch
        opener = pair.b.connect(STACK_ADDRESS, 81, wait=False)
        pair.advance(50 * MILLISECOND)
        assert opener.reason == "refused"
        pair.network.filter_ba = None
    assert said
    assert set(said) == {OwnershipError}


def test_what_a_filter_raises_is_raised_from_poll() -> None:
    class Odd(Exception):
        pass

    def watch(frame: bytes, index: int) -> None:
        raise Odd

    with Pair() as pair:
        pair.network.filter_ba = watch
        connection = pair.b.connect(STACK_ADDRESS, 81, wait=False)
        with pytest.raises(Odd):
            pair.b.poll(pair.now_ns)
        pair.network.filter_ba = None
        connection.abort()


@pytest.mark.parametrize("call", ["run", "accept", "poll"])
def test_a_signal_handler_may_only_stop(make_stack: MakeStack, call: str) -> None:
    """Its exception, that of the refused call, comes out of the call that was interrupted."""
    stack = make_stack(SimNetwork().a)
    listener = stack.listen(80)
    before = signal.signal(signal.SIGVTALRM, lambda number, frame: stack.connections("connection"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
    try:
        with pytest.raises(OwnershipError) as raised:
            {
                "run": lambda: stack.run(30 * SECOND),
                "accept": lambda: listener.accept(timeout=30),
                "poll": lambda: stack.poller().poll(30),
            }[call]()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert raised.value.reason == "reentered"


def test_stop_from_a_signal_handler_ends_run(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a)
    before = signal.signal(signal.SIGVTALRM, lambda number, frame: stack.stop())
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
    try:
        stack.run()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_the_gate_is_open_again_after_every_kind_of_failure(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    listener = stack.listen(80)
    failures: list[tuple[Callable[[], object], type[Exception]]] = [
        (stack.poll, ValueError),
        (lambda: stack.run(1), ValueError),
        (lambda: stack.connect("198.18.0.255", 80), StackError),
        (lambda: stack.listen(80), AddressInUse),
        (lambda: listener.accept(timeout=1), BlockingIOError),
    ]
    for fails, error in failures:
        with pytest.raises(error):
            fails()
        assert stack.connections("connection") == []

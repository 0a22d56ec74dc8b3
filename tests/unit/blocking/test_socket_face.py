# SPDX-License-Identifier: MIT
"""A Connection under a socket's names: programs written for sockets work on it, and its errors are a socket's."""

import errno
import http.client
import inspect
import io
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ustack
from ustack import (
    CallTimeout,
    Connection,
    PacketMmapLink,
    SendAfterEnd,
    SimNetwork,
    Stack,
    StackError,
    TapLink,
    Unreachable,
    WouldBlock,
)
from ustack.lab import namespace
from ustack.lab.making import Made
from ustack.link.tee import TeeLink
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, Testbed

ROOT = Path(__file__).parents[3]
TURN = 50 * MILLISECOND


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(msl_ns=0) as made:
        yield made


# ---------------------------------------------------------------- calls


def test_sendall_and_recv(pair: Pair) -> None:
    opener, accepter = pair.connect()
    opener.sendall(b"hello, world")
    pair.advance(TURN)
    assert (accepter.recv(5), accepter.recv(0), accepter.recv(100)) == (b"hello", b"", b", world")


def test_recv_into_fills_a_buffer(pair: Pair) -> None:
    opener, accepter = pair.connect()
    opener.sendall(b"0123456789")
    pair.advance(TURN)
    room = bytearray(b"." * 6)
    assert (accepter.recv_into(room, 4), bytes(room)) == (4, b"0123..")
    assert (accepter.recv_into(memoryview(room)[1:]), bytes(room)) == (5, b"045678")
    assert (accepter.recv_into(room), bytes(room[:1])) == (1, b"9")
    opener.shutdown()
    pair.advance(TURN)
    assert accepter.recv_into(room) == 0


def test_recv_into_refuses_what_cannot_be_written_to(pair: Pair) -> None:
    _opener, accepter = pair.connect()
    with pytest.raises(BufferError):
        accepter.recv_into(b"fixed")
    with pytest.raises(ValueError, match="nbytes 9"):
        accepter.recv_into(bytearray(8), 9)


def test_recv_into_gives_what_came_before_the_end(pair: Pair) -> None:
    opener, accepter = pair.connect()
    opener.sendall(b"last")
    opener.shutdown()
    accepter.shutdown()
    pair.advance(SECOND)
    assert accepter.reason == "normal"
    room = bytearray(3)
    assert (accepter.recv_into(room), bytes(room)) == (3, b"las")
    assert (accepter.recv_into(room), bytes(room[:1])) == (1, b"t")
    assert accepter.recv_into(room) == 0


@pytest.mark.parametrize("call", ["recv", "recv_into", "sendall"])
def test_flags_are_refused(pair: Pair, call: str) -> None:
    opener, _ = pair.connect()
    arguments: dict[str, tuple[Any, ...]] = {
        "recv": (1, socket.MSG_TRUNC),
        "recv_into": (bytearray(1), 1, socket.MSG_MORE),
        "sendall": (b"x", socket.MSG_PEEK),
    }
    with pytest.raises(StackError) as raised:
        getattr(opener, call)(*arguments[call])
    assert raised.value.errno == errno.EOPNOTSUPP


def test_sendall_that_may_not_wait_says_how_much_it_queued() -> None:
    with Pair(snd_queue_bytes=1000) as pair:
        opener, _ = pair.connect()
        with pytest.raises(BlockingIOError) as raised:
            opener.sendall(b"x" * 1500)
        assert raised.value.characters_written == 1000


def test_names_of_both_ends(pair: Pair) -> None:
    opener, accepter = pair.connect()
    assert accepter.getsockname() == (STACK_ADDRESS, 80) == opener.getpeername()


def test_timeouts_are_remembered_and_used(pair: Pair) -> None:
    opener, _ = pair.connect()
    assert opener.gettimeout() is None
    opener.settimeout(1)
    assert opener.gettimeout() == 1.0
    opener.setblocking(True)
    assert opener.gettimeout() is None
    opener.setblocking(False)
    with pytest.raises(BlockingIOError):
        opener.recv(1)


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan")])
def test_a_timeout_must_be_a_time(pair: Pair, timeout: float) -> None:
    opener, _ = pair.connect()
    for call in (opener.settimeout, lambda timeout: pair.a.connect(PEER_ADDRESS, 9, timeout=timeout)):
        with pytest.raises(ValueError, match="timeout"):
            call(timeout)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_shutdown_takes_a_sockets_words(pair: Pair, how: int) -> None:
    opener, accepter = pair.connect()
    opener.shutdown(socket.SHUT_RD)
    assert opener.state == "ESTABLISHED"
    opener.shutdown(how)
    pair.advance(TURN)
    assert accepter.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        opener.send(b"x")
    with pytest.raises(ValueError, match="how 3"):
        opener.shutdown(3)


def test_there_is_no_descriptor_and_the_words_say_so(pair: Pair) -> None:
    opener, _ = pair.connect()
    for call in (opener.fileno, opener.detach):
        with pytest.raises(io.UnsupportedOperation, match=r"Link\.fileno\(\)"):
            call()


# ---------------------------------------------------------------- files


def test_a_file_reads_lines_and_writes(pair: Pair) -> None:
    opener, accepter = pair.connect()
    with opener.makefile("w", encoding="utf-8", newline="\n") as out:
        out.write("one\ntwo\n")
    opener.shutdown()
    pair.advance(TURN)
    with accepter.makefile("r", encoding="utf-8") as lines:
        assert list(lines) == ["one\n", "two\n"]


def test_what_was_written_through_a_file_does_not_change_with_its_buffer(pair: Pair) -> None:
    opener, accepter = pair.connect()
    out = opener.makefile("wb", buffering=0)
    data = bytearray(b"before")
    assert out.write(data) == 6
    data[:] = b"after!"
    pair.advance(TURN)
    assert accepter.recv(100) == b"before"
    out.close()


def test_a_connection_is_closed_with_the_last_of_its_files(pair: Pair) -> None:
    opener, accepter = pair.connect()
    first, second = opener.makefile("rb"), opener.makefile("rwb")
    opener.close()
    first.close()
    assert opener.state == "ESTABLISHED"
    with pytest.raises(StackError):
        opener.makefile()
    second.close()
    pair.advance(TURN)
    assert (opener.state, accepter.recv(1)) == ("FIN-WAIT-2", b"")
    accepter.close()


@pytest.mark.parametrize("mode", ["x", "a", "r+"])
def test_a_file_has_a_sockets_modes(pair: Pair, mode: str) -> None:
    opener, _ = pair.connect()
    with pytest.raises(ValueError, match="mode"):
        opener.makefile(mode)
    opener.close()
    pair.advance(TURN)
    assert opener.state != "ESTABLISHED"


def test_a_file_has_no_descriptor_and_knows_its_mode(pair: Pair) -> None:
    opener, _ = pair.connect()
    with opener.makefile("rb", buffering=0) as raw:
        assert (raw.readable(), raw.writable(), raw.mode) == (True, False, "rb")
        assert PEER_ADDRESS in raw.name
        for call in (raw.fileno, lambda: raw.write(b"x")):
            with pytest.raises(io.UnsupportedOperation):
                call()
        assert raw.read(1) is None  # nothing there yet: io.RawIOBase.read


@pytest.mark.root
def test_http_client_works_on_a_connection(make_lab: Callable[..., Made], make_stack: Callable[..., Any]) -> None:
    """The standard library's client through this stack, a kernel's socket behind it: one response that is ended by the
    connection's end (the client closes it before the body is read), one with a length."""
    lab = make_lab()
    with namespace.inside(lab.peer_netns):
        server = socket.create_server(("198.18.0.1", 8080))
    answers = [b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]
    server.settimeout(60)

    def serve() -> None:
        for answer in answers:
            peer, _ = server.accept()
            with peer:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += peer.recv(65536)
                peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with lab.inside():
            link = PacketMmapLink(lab.ifname)
        with link:
            stack = make_stack(link, STACK_ADDRESS + "/24")
            got = []
            for _ in answers:
                client = http.client.HTTPConnection("198.18.0.1", 8080)
                client.sock = stack.connect("198.18.0.1", 8080, timeout=60)
                client.sock.settimeout(60)
                client.request("GET", "/")
                got.append(client.getresponse().read())
                client.close()
            stack.close()
    finally:
        thread.join(60)
        server.close()
    assert got == [b"x" * 100_000, b"hello"]


# ---------------------------------------------------------------- names


def test_a_host_name_is_looked_up_for_ipv4_alone(
    make_stack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getaddrinfo(*arguments: Any) -> list[Any]:
        asked.append(arguments)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PEER_ADDRESS, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    stack = make_stack(SimNetwork().a, now_ns=0)
    connection = stack.connect("server.example", 80, wait=False)
    assert connection.remote == (PEER_ADDRESS, 80)
    assert asked == [("server.example", 80, socket.AF_INET, socket.SOCK_STREAM)]
    stack.connect(PEER_ADDRESS, 81, wait=False).close()
    assert len(asked) == 1


def test_an_unknown_name_is_named(make_stack: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    stack = make_stack(SimNetwork().a, now_ns=0)
    with pytest.raises(socket.gaierror, match=r"nowhere\.example: Name or service not known"):
        stack.connect("nowhere.example", 80)


# ---------------------------------------------------------------- who it is


def test_a_repr_says_who_and_in_which_state(pair: Pair) -> None:
    opener, accepter = pair.connect()
    port = opener.local[1]
    assert repr(accepter) == f"<Connection {STACK_ADDRESS}:80 to {PEER_ADDRESS}:{port}, ESTABLISHED>"
    opener.abort()
    pair.advance(TURN)
    assert repr(accepter) == f"<Connection {STACK_ADDRESS}:80 to {PEER_ADDRESS}:{port}, CLOSED (reset)>"
    listener = pair.a.listen(81)
    assert repr(listener) == "<Listener *:81 LISTEN, 0 waiting>"
    listener.close()
    assert repr(listener) == "<Listener *:81 closed, 0 waiting>"
    assert repr(pair.a) == f"<Stack {STACK_ADDRESS}/24, 0 connections>"


def test_a_repr_of_what_nobody_made_is_one_too() -> None:
    for kind in (Connection, ustack.Listener, Stack):
        assert "that" in repr(kind.__new__(kind))


# ---------------------------------------------------------------- errors


def test_errors_have_a_sockets_numbers(pair: Pair) -> None:
    opener, accepter = pair.connect()
    with pytest.raises(WouldBlock, match=rf"receive\(\) from {PEER_ADDRESS}:\d+: nothing came") as would_block:
        accepter.receive(1, timeout=0)
    assert would_block.value.errno == errno.EAGAIN
    listener = pair.a.listen(80)
    with pytest.raises(ustack.AddressInUse, match=r"listen\(\) on \*:80") as in_use:
        pair.a.listen(80)
    assert in_use.value.errno == errno.EADDRINUSE
    with pytest.raises(StackError, match=r"connect\(\) to 198\.18\.0\.255:80: not an address") as bad:
        pair.a.connect("198.18.0.255", 80)
    assert bad.value.errno == errno.EADDRNOTAVAIL
    opener.abort()
    pair.advance(TURN)
    with pytest.raises(ConnectionResetError, match=rf"{PEER_ADDRESS}:\d+: connection reset by the peer") as reset:
        accepter.receive()
    assert (reset.value.errno, reset.value.reason) == (errno.ECONNRESET, "reset")  # type: ignore[attr-defined]
    listener.close()


def test_sending_after_the_end_is_a_broken_pipe(pair: Pair) -> None:
    opener, accepter = pair.connect()
    opener.shutdown()
    with pytest.raises(SendAfterEnd, match=r"send\(\) to .*: the connection is closing or closed") as raised:
        opener.send(b"x")
    assert isinstance(raised.value, BrokenPipeError)
    assert raised.value.errno == errno.EPIPE
    accepter.close()


def test_a_call_that_waited_says_for_what(make_stack: Callable[..., Any]) -> None:
    stack = make_stack(SimNetwork().a)
    with (
        stack.listen(80) as listener,
        pytest.raises(CallTimeout, match=r"accept\(\) on port 80: no connection came within 0\.001 s") as raised,
    ):
        listener.accept(timeout=0.001)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(CallTimeout, match=r"connect\(\) to 198\.18\.0\.1:80: no answer within 0\.001 s"):
        stack.connect(PEER_ADDRESS, 80, timeout=0.001)


@pytest.mark.parametrize(
    "error",
    [
        ustack.ConnectionReset("reset", "gone", errno.ECONNRESET),
        StackError("state", "no number"),
        ustack.OwnershipError("thread", "in use"),
        WouldBlock("would_block", "nothing", errno.EAGAIN),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: StackError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.reason, str(again), again.errno) == (
        type(error),
        error.reason,
        str(error),
        error.errno,
    )


@pytest.mark.parametrize("value", [-1, 1 << 64, 1 << 200])
def test_numbers_beyond_their_bounds_are_value_errors(make_stack: Callable[..., Any], value: int) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    real = make_stack(SimNetwork().a)
    calls: list[Callable[[], Any]] = [
        lambda: stack.poll(value),
        lambda: real.run(value),
        lambda: stack.listen(value),
        lambda: stack.listen(80, backlog=value),
        lambda: stack.connect(PEER_ADDRESS, value),
        lambda: stack.connect(PEER_ADDRESS, 80, local_port=value),
        lambda: connection.receive(value),
        lambda: connection.recv(value),
        lambda: connection.set_low_water(value),
        lambda: connection.set_unsent_low_water(value),
        lambda: connection.set_tos(value),
        lambda: connection.set_ttl(value),
        lambda: connection.set_user_timeout(value),
        lambda: connection.shutdown(value),
        lambda: Stack(SimNetwork().a, now_ns=value),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=str(value)):
            call()


# ---------------------------------------------------------------- nobody there


def test_connecting_to_nobody_fails_when_arp_has_been_tried_enough() -> None:
    """Three questions, a second apart; Linux's EHOSTUNREACH. Not R2 for a SYN, which is three minutes."""
    with Testbed() as bed:
        bed.answers_arp_for.clear()
        connection = bed.stack.connect(PEER_ADDRESS, 80, wait=False)
        took = bed.run_until(lambda: connection.reason is not None, 10 * SECOND)
        assert connection.reason == "host_unreachable"
        assert 3 * SECOND <= took <= 3 * SECOND + 10 * MILLISECOND
        with pytest.raises(Unreachable, match=f"{PEER_ADDRESS}:80: the peer cannot be reached") as raised:
            connection.receive()
        assert raised.value.errno == errno.EHOSTUNREACH


def test_many_connections_to_nobody_all_fail() -> None:
    """More than the neighbour's queue holds."""
    with Testbed() as bed:
        bed.answers_arp_for.clear()
        opened = [bed.stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(100)]
        bed.run_until(lambda: all(connection.reason for connection in opened), 5 * SECOND)
        assert {connection.reason for connection in opened} == {"host_unreachable"}


def test_connections_to_nobody_one_after_the_other_fail_too() -> None:
    """Each asks anew, so that the neighbour is hardly ever known to be gone when a SYN is due again."""
    with Testbed() as bed:
        bed.answers_arp_for.clear()
        opened = []
        for _ in range(20):
            opened.append(bed.stack.connect(PEER_ADDRESS, 80, wait=False))
            bed.advance(500 * MILLISECOND)
        bed.advance(7 * SECOND)
        assert {connection.reason for connection in opened} == {"host_unreachable"}


def test_a_silent_gateway_is_nobody_as_well() -> None:
    network = SimNetwork()
    with Stack(network.a, "198.18.0.2/24", "198.18.0.1", now_ns=0) as stack:
        connection = stack.connect("10.0.0.1", 80, wait=False)
        for tick in range(40):
            stack.poll(tick * 100 * MILLISECOND)
        assert connection.reason == "host_unreachable"


def test_an_open_connection_outlives_its_neighbours_silence() -> None:
    """RFC 9293 section 3.9.2.2, MUST-56: what has been opened is ended by R2 alone; the neighbour may come back."""
    with Testbed(neighbour_reachable_ns=SECOND) as bed:
        bed.introduce()
        connection = bed.stack.connect(PEER_ADDRESS, 80, wait=False)
        peer = ScriptedPeer(bed, port=80, stack_port=connection.local[1])
        bed.pump()
        peer.expect("S")
        peer.send("SA", ack=1)
        peer.expect("A")
        bed.answers_arp_for.clear()
        bed.advance(5 * SECOND)
        connection.send(b"x")
        bed.advance(20 * SECOND)
        assert connection.state == "ESTABLISHED"
        bed.answers_arp_for.add(PEER_ADDRESS)
        bed.advance(60 * SECOND)
        peer.drain()
        connection.abort()


# ---------------------------------------------------------------- the backlog


def test_connections_reset_before_accept_are_not_handed_out() -> None:
    """Nor do they stay: the backlog is what waits and lives, whatever a client does."""
    with Testbed() as bed:
        bed.introduce()
        with bed.stack.listen(80, backlog=4) as listener:
            for number in range(200):
                peer = ScriptedPeer(bed, port=1024 + number)
                peer.send("S", options={"mss": 1460})
                peer.expect("SA")
                peer.send("A")
                assert listener.pending == 1
                peer.send("PA", payload=b"data goes with its connection")
                peer.send("R")
                assert listener.pending == 0
            assert listener.lost == 200
            honest = ScriptedPeer(bed, port=9000)
            honest.send("S", options={"mss": 1460})
            honest.expect("SA")
            honest.send("A")
            accepted = listener.accept(timeout=0)
            assert accepted.remote[1] == 9000
            honest.send("R")
        assert accepted.reason == "reset"


def test_a_listener_opened_again_counts_its_own_connections_alone() -> None:
    """Those of the listener before, still on their way out, are not taken from the new one's backlog."""
    with Testbed() as bed:
        bed.introduce()

        def opens(port: int) -> ScriptedPeer:
            peer = ScriptedPeer(bed, port=port)
            peer.send("S", options={"mss": 1460})
            peer.expect("SA")
            peer.send("A")
            return peer

        first = bed.stack.listen(80, backlog=1)
        opens(1000)
        first.close()
        with bed.stack.listen(80, backlog=1) as second:
            opens(1001)
            bed.advance(SECOND)
            assert second.pending == 1
            late = ScriptedPeer(bed, port=1002)
            late.send("S", options={"mss": 1460})
            assert late.drain() == []  # the backlog is full


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("kind", [Stack, PacketMmapLink, TapLink, TeeLink, SimNetwork], ids=lambda kind: kind.__name__)
def test_a_class_shows_the_signature_that_it_has(kind: type) -> None:
    """What help() prints is the stub's constructor: names, order, defaults, and where the keywords begin."""
    stub = (ROOT / (kind.__module__.replace(".", "/") + ".pyi")).read_text()
    names: dict[str, Any] = {}
    header = stub.split(f"class {kind.__name__}", 1)[1].split("def __init__(", 1)[1].split(") -> None", 1)[0]
    exec("from __future__ import annotations\nfrom typing import *\ndef init(" + header + "): ...", names)
    wanted = [p.replace(annotation=p.empty) for p in inspect.signature(names["init"]).parameters.values()][1:]
    assert list(inspect.signature(kind).parameters.values()) == wanted


@pytest.mark.parametrize("method", ["listen", "connect", "close", "poll", "run"])
def test_a_method_shows_the_signature_that_it_has(method: str) -> None:
    signature = inspect.signature(getattr(Stack, method))
    assert next(iter(signature.parameters)) == "self"
    assert not (getattr(Stack, method).__doc__ or "").startswith(("Stack.", method + "("))
    if method == "connect":
        assert signature.parameters["local_port"].kind is inspect.Parameter.KEYWORD_ONLY

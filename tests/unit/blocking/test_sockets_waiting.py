# SPDX-License-Identifier: MIT
"""Calls that wait, with the kernel's sockets at the other end of a veth."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ustack import (
    ConnectionRefused,
    ConnectionReset,
    PacketMmapLink,
    Stack,
)
from ustack.lab import namespace
from ustack.lab.making import Made
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.testbed import PEER_ADDRESS, SECOND, STACK_ADDRESS


@contextmanager
def peer_thread(lab: Made, body: Callable[[socket.socket], None]) -> Iterator[None]:
    """Run `body` with a socket of the peer's kernel beside the test; what it raises fails the test."""
    failures: list[BaseException] = []
    with namespace.inside(lab.peer_netns):
        peer = socket.socket()
    peer.settimeout(60)

    def run() -> None:
        try:
            body(peer)
        except BaseException as failure:
            failures.append(failure)
        finally:
            peer.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert failures == []


@pytest.fixture
def blocking(make_lab: Callable[..., Made], make_stack: Callable[..., Stack]) -> Iterator[tuple[Stack, Made]]:
    """A stack with the real clock on a veth pair, and the lab around it."""
    lab = make_lab()
    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with link:
        stack = make_stack(link, STACK_ADDRESS + "/24")
        yield stack, lab
        stack.close()


@pytest.mark.root
def test_accept_waits_for_a_client(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        assert peer.makefile("rb").read() == b"answer"

    with peer_thread(lab, client):
        with listener.accept(timeout=60) as connection:
            assert connection.remote[0] == PEER_ADDRESS
            assert connection.receive(timeout=60) == b"question"
            assert connection.receive(timeout=60) == b""
            connection.send(b"answer", timeout=60)
        stack.close(linger=60)


@pytest.mark.root
def test_connect_waits_for_the_handshake_and_send_for_room(
    make_lab: Callable[..., Made], make_stack: Callable[..., Stack]
) -> None:
    lab = make_lab()
    data = bytes(range(256)) * 20_000
    received = bytearray()
    ready = threading.Event()

    def server(peer: socket.socket) -> None:
        peer.bind((PEER_ADDRESS, 8080))
        peer.listen()
        ready.set()
        accepted = peer.accept()[0]
        with accepted:
            accepted.settimeout(60)
            while piece := accepted.recv(65536):
                received.extend(piece)
            accepted.sendall(b"done")

    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with link:
        stack = make_stack(link, STACK_ADDRESS + "/24", snd_queue_bytes=100_000)
        with peer_thread(lab, server):
            assert ready.wait(60)
            with stack.connect(PEER_ADDRESS, 8080, timeout=60) as connection:
                assert connection.established
                assert connection.send(data, timeout=60) == len(data)
                connection.shutdown()
                assert connection.receive(timeout=60) == b"done"
        assert bytes(received) == data
        stack.close()


@pytest.mark.root
def test_waits_end_with_their_timeouts(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)
    with pytest.raises(TimeoutError):
        listener.accept(timeout=0.001)
    connected, done = threading.Event(), threading.Event()

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        connected.set()
        assert done.wait(60)

    with peer_thread(lab, client):
        connection = listener.accept(timeout=60)
        with pytest.raises(TimeoutError):
            connection.receive(timeout=0.001)
        with pytest.raises(BlockingIOError):
            connection.receive(timeout=0)
        assert connected.wait(60)
        connection.abort()
        done.set()


@pytest.mark.root
def test_a_refused_connect_raises(blocking: tuple[Stack, Made]) -> None:
    stack, _ = blocking
    with pytest.raises(ConnectionRefused) as raised:
        stack.connect(PEER_ADDRESS, 9, timeout=60)
    assert raised.value.reason == "refused"
    assert stack.connections("connection") == []


@pytest.mark.root
def test_a_reset_ends_a_wait(blocking: tuple[Stack, Made]) -> None:
    stack, lab = blocking
    listener = stack.listen(80)

    accepted = threading.Event()

    def client(peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.connect((STACK_ADDRESS, 80))
        assert accepted.wait(60)

    with peer_thread(lab, client):
        connection = listener.accept(timeout=60)
        accepted.set()
        with pytest.raises(ConnectionReset):
            connection.receive(timeout=60)


@pytest.mark.root
@pytest.mark.parametrize("again", [False, True])
def test_a_hand_over_that_a_turn_leaves_is_made_in_the_next_without_a_sleep(
    blocking: tuple[Stack, Made], again: bool
) -> None:
    """The turn's output ends the connection, after the turn's hand-over: run() goes on at once, and tells."""
    stack, lab = blocking
    recorder = EventRecorder()
    recorder.reset = True
    recorder.ask_again = again
    stack.listen(80, application=recorder)
    seen: list[tuple[str, int, int]] = []

    def told(port: int, names: tuple[str, ...]) -> None:
        seen.append((names[-1], stack.link.counters()["waits"], stack.turns()["turns"]))
        if names[-1] == "closed":
            stack.stop()

    recorder.told = told

    def client(peer: socket.socket) -> None:
        peer.connect((STACK_ADDRESS, 80))
        peer.sendall(b"data")
        with pytest.raises(ConnectionResetError):
            peer.recv(1)

    with peer_thread(lab, client):
        stack.run(60 * SECOND)
    assert [name for name, _, _ in seen][-2:] == ["data", "closed"]
    (_, waits, turns), (_, waits_after, turns_after) = seen[-2:]
    assert (waits_after, turns_after) == (waits, turns + 1)
    assert recorder.errors == []


@pytest.mark.root
def test_a_link_that_goes_away_ends_a_wait(blocking: tuple[Stack, Made]) -> None:
    stack, _ = blocking
    listener = stack.listen(80)
    stack.link.close()
    with pytest.raises(OSError, match="link"):
        listener.accept(timeout=60)

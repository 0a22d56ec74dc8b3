# SPDX-License-Identifier: MIT
"""Urgent data between this stack and the kernel's, both ways, over veth and TAP.

Linux takes the pointer as RFC 9293 has it, for the byte behind (net.ipv4.tcp_stdurg = 0), and calls the one byte before
it urgent. Its mark (SIOCATMARK) is in front of that byte, where a read ends.
"""

import array
import fcntl
import os
import select
import signal
import socket
import termios
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SIOCATMARK = 0x8905
PORT = 7000
BIG = 300_000


@pytest.fixture
def ends(local: Callable[..., Any], link: str) -> Callable[..., tuple[Any, Any, socket.socket]]:
    """ends(**config) -> our stack in a Local, its connection, the kernel's socket."""

    def make(*, receive_buffer: int = 0, **config: Any) -> tuple[Any, Any, socket.socket]:
        one = local(link, **config)
        listener = one.stack.listen(PORT)
        client = one.connect(port=PORT, receive_buffer=receive_buffer)
        one.drive(lambda: one.established(client))
        connection = listener.accept(timeout=30)
        one.resources.callback(listener.close)
        one.resources.callback(connection.abort)
        one.resources.callback(client.close)
        return one, connection, client

    return make


def at_mark(client: socket.socket) -> bool:
    """Whether the kernel's socket is at its urgent byte."""
    answer = array.array("i", [0])
    fcntl.ioctl(client, SIOCATMARK, answer)
    return bool(answer[0])


def unread(client: socket.socket) -> int:
    """Bytes in the kernel's receive queue."""
    answer = array.array("i", [0])
    fcntl.ioctl(client, termios.FIONREAD, answer)
    return answer[0]


def has_urgent(client: socket.socket) -> bool:
    """Whether the kernel tells of urgent data (POLLPRI)."""
    return bool(select.select([], [], [client], 0)[2])


def test_the_kernels_pointer_is_the_byte_behind_the_urgent_one(
    ends: Callable[..., tuple[Any, Any, socket.socket]],
) -> None:
    one, connection, client = ends()
    told: list[int] = []
    connection.on_urgent = lambda conn: told.append(conn.urgent_bytes)
    assert client.send(b"work, ") == 6
    assert client.send(b"stop!", socket.MSG_OOB) == 5
    assert client.send(b" go on") == 6
    one.drive(lambda: connection.receivable_bytes == 17)
    assert told
    assert connection.urgent_bytes == 11
    assert connection.recv(100) == b"work, stop!"
    assert connection.urgent_bytes == 0
    assert connection.recv(100) == b" go on"


def test_each_urgent_byte_of_the_kernels_is_told(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    one, connection, client = ends()
    told: list[int] = []
    connection.on_urgent = lambda conn: told.append(conn.urgent_bytes)
    for number in range(1, 6):
        assert client.send(b"!", socket.MSG_OOB) == 1
        one.drive(lambda number=number: connection.receivable_bytes == number)
    assert told == [1, 2, 3, 4, 5]
    assert connection.recv(100) == b"!!!!!"


def test_the_kernel_finds_our_last_urgent_byte(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    """Out of band, which is its default: the byte before our pointer, and no other (MUST-62)."""
    one, connection, client = ends()
    connection.send(b"stop!", flags=socket.MSG_OOB)
    connection.send(b" go on")
    one.drive(lambda: has_urgent(client) and unread(client) == 4)
    assert client.recv(1, socket.MSG_OOB) == b"!"
    assert client.recv(100) == b"stop"
    assert at_mark(client)
    assert one.read_all(client, 6) == b" go on"


def test_the_kernel_reads_in_line_up_to_its_mark(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    one, connection, client = ends()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    connection.send(b"stop!", flags=socket.MSG_OOB)
    connection.send(b" go on")
    one.drive(lambda: has_urgent(client) and unread(client) == 11)
    assert client.recv(100) == b"stop"
    assert at_mark(client)
    assert client.recv(100) == b"! go on"


def test_urgent_data_of_any_length_reaches_the_kernel(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    """MUST-31. Its mark is where ours ends, though the first pointers could not say so."""
    one, connection, client = ends(receive_buffer=1 << 20, snd_queue_bytes=1 << 20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    data = bytes(range(250)) * (BIG // 250)
    assert connection.send(data, flags=socket.MSG_OOB) == BIG
    connection.send(b"plain")
    assert one.read_all(client, BIG - 1) == data[:-1]
    one.drive(lambda: at_mark(client))
    assert one.read_all(client, 6) == data[-1:] + b"plain"


def test_urgent_data_passes_the_kernels_closed_window(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    """MUST-66 of the kernel, which says so with SIGURG alone until the byte is there."""
    told: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: told.append(number))
    one, connection, client = ends(receive_buffer=4096, snd_queue_bytes=1 << 20)
    one.resources.callback(signal.signal, signal.SIGURG, before)
    fcntl.fcntl(client, fcntl.F_SETOWN, os.getpid())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    connection.send(bytes(BIG))
    one.drive(lambda: "persist" in connection.info().timers)
    assert told == []
    connection.send(b"!", flags=socket.MSG_OOB)
    one.drive(lambda: told)
    assert unread(client) < 65_536
    assert not has_urgent(client)


def test_the_kernels_urgent_data_passes_our_closed_window(ends: Callable[..., tuple[Any, Any, socket.socket]]) -> None:
    """MUST-66: its probe of the window says it, at the latest."""
    one, connection, client = ends(rcv_buffer_bytes=4096, rcv_buffer_max_bytes=4096)
    told: list[int] = []
    connection.on_urgent = lambda conn: told.append(conn.urgent_bytes)
    client.setblocking(False)
    client.send(bytes(8000))
    one.drive(lambda: connection.info().rcv_wnd_bytes == 0)
    held = connection.receivable_bytes
    assert told == []
    client.send(b"!", socket.MSG_OOB)
    one.drive(lambda: told)
    assert connection.receivable_bytes == held
    assert told[0] == connection.urgent_bytes == 8001
    read = b""
    while connection.urgent_bytes:
        read += connection.receive(timeout=30)
    assert read == bytes(8000) + b"!"

# SPDX-License-Identifier: MIT
"""A Poller on a link with the kernel's clients at the other end: the README's echo server, as it is printed."""

import re
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

README = Path(__file__).parents[2] / "README.md"
PORT = 7
LIMIT_S = 30
TEXT = bytes(range(256)) * 600  # more than its queue holds, which a small window keeps full
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def echo() -> Any:
    """The README's program: runs where `stack` is, until its poller is closed."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (shown,) = (block for block in blocks if "stack.poller()" in block)
    return compile(shown, "README.md", "exec")


def asked(client: socket.socket, text: bytes) -> bytes:
    """What comes back of a text."""
    sender = threading.Thread(target=client.sendall, args=(text,))
    sender.start()
    back = b""
    try:
        while len(back) < len(text) and (piece := client.recv(len(text) - len(back))):
            back += piece
    finally:
        sender.join()
    return back


def test_the_readmes_echo_server_serves_and_outlives_its_clients(
    local: Callable[..., Any], link: str, echo: Any
) -> None:
    one = local(link, snd_queue_bytes=100_000)
    names = {"stack": one.stack}
    answers: list[bytes] = []
    failures: list[BaseException] = []

    def visit() -> None:
        clients = [one.connect(port=PORT, receive_buffer=size) for size in (0, 4096, 0)]
        try:
            for client in clients:
                client.setblocking(True)
                client.settimeout(LIMIT_S)
            answers.extend(asked(client, b"all") for client in clients)
            clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            clients[0].close()
            answers.append(asked(clients[1], TEXT))
            clients[1].shutdown(socket.SHUT_WR)
            answers.append(clients[1].recv(1))
            answers.append(asked(clients[2], b"still there"))
        except BaseException as failure:
            failures.append(failure)
        finally:
            for client in clients:
                client.close()
            one.stack.call_soon_threadsafe(names["poller"].close)

    visitor = threading.Thread(target=visit)
    one.stack.call_soon_threadsafe(visitor.start)  # at the first turn, when it listens
    try:
        with pytest.raises(ValueError, match="the poller is closed"):
            exec(echo, names)
    finally:
        if visitor.ident is not None:
            visitor.join()
    names["listener"].close()
    assert not failures
    assert answers == [b"all"] * 3 + [TEXT, b"", b"still there"]

# SPDX-License-Identifier: MIT
"""PyTCP's asyncio fork serves a folder over a TAP device: pytcp_files.py DIRECTORY DEVICE ADDRESS PORT.

Stack and server are one event loop, as its documentation has it: a frame is read, parsed and acted on in a callback,
and a connection is a coroutine. Small files are read once and kept. Its log and Nagle's algorithm are off; CUBIC is its
own choice.

Two of its limits are moved: a SYN beyond 128 half-open ones is dropped without a word, and each SYN looks through all
connections, those in TIME-WAIT too, which therefore last one second.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from pmd_net_addr import Ip4IfAddr, MacAddress
from pmd_pytcp import socket, stack
from pmd_pytcp.protocols.tcp import tcp__constants

KEPT_FILES = 4096
KEPT_BYTES = 1 << 20
HEAD_MOST_BYTES = 8192
BACKLOG = 4096
TIME_WAIT_MS = 1000
ROOT = Path(sys.argv[1]).resolve()
HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%b\r\n"
LAST = b"Connection: close\r\n"


@lru_cache(KEPT_FILES)
def small(path: str) -> bytes | None:
    """The bytes of a small file; None for one that is large. Raises OSError."""
    file = (ROOT / path.lstrip("/")).resolve()
    if not file.is_relative_to(ROOT) or not file.is_file():
        raise FileNotFoundError(path)
    return file.read_bytes() if file.stat().st_size <= KEPT_BYTES else None


def answer(head: bytes) -> tuple[bytes, bool]:
    """A whole response, and whether it is the last of its connection."""
    words = head.partition(b"\r\n")[0].split()
    if len(words) != 3 or words[0] != b"GET":
        return HEAD % (b"400 Bad Request", 0, LAST), True
    last = b"connection: close" in head.lower()
    path, status = words[1].decode("latin-1"), b"200 OK"
    try:
        body = small(path)
        if body is None:
            body = (ROOT / path.lstrip("/")).read_bytes()
    except OSError:
        body, status = b"", b"404 Not Found"
    return HEAD % (status, len(body), LAST if last else b"") + body, last


async def serve_one(connection: Any) -> None:
    """One connection, until either end has enough."""
    rest, last = b"", False
    try:
        while not last and (data := await connection.recv()):
            *heads, rest = (rest + data).split(b"\r\n\r\n")
            if len(rest) > HEAD_MOST_BYTES:
                heads.append(b"")
            answers = []
            for head in heads:
                response, last = answer(head)
                answers.append(response)
                if last:
                    break
            if answers:
                await connection.send(b"".join(answers))
    except OSError:
        pass
    finally:
        connection.close()


async def serve() -> None:
    """Until it is killed."""
    _, _, device, address, port = sys.argv
    tcp__constants.TCP__SYN_BACKLOG__MAX_COUNT = BACKLOG
    stack.init(sysctls={"tcp.time_wait.delay_ms": TIME_WAIT_MS})
    found = stack.initialize_interface__tap(device, mac_address=MacAddress("02:00:00:70:79:01"))
    interface = stack.add_interface(**found, ip6_support=False)
    await stack.start()
    # Given at the start, it would be probed for 5 to 9 s first.
    stack.address.interface(interface).add(ifaddr=Ip4IfAddr(f"{address}/24"))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((address, int(port)))
    listener.listen(backlog=BACKLOG)
    print(f"ready http://{address}:{port}/", flush=True)
    tasks = set()
    while True:
        connection, _ = await listener.accept()
        task = asyncio.create_task(serve_one(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    logging.getLogger("pmd_pytcp").setLevel(logging.ERROR)
    asyncio.run(serve())

# SPDX-License-Identifier: MIT
"""The kernel as a client over a wire: one long download, or many short ones, each with an end in time.

Sockets of the client's namespace, in this process, without blocking. It judges nothing: `loss_cells` does.
Above: bench_loss. Below: lab.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field

from ustack.lab import inside

BLOCK_BYTES = 1 << 18
PORT = 80
GRACE_S = 20.0  # for short responses under way when the time is over; a minute of silence would be a failure too
PIPELINED = 64


@dataclass
class Download:
    """A long one. `series`: bytes in each tenth of a second. failure: why it ended before its time, or began late."""

    bytes: int = 0
    seconds: float = 0.0
    series: list[int] = field(default_factory=list)
    failure: str = ""

    @property
    def megabits_per_second(self) -> float:
        """Goodput, HTTP heads included, from the first SYN."""
        return self.bytes * 8e-6 / self.seconds if self.seconds else 0.0


@dataclass
class Responses:
    """Short ones: how long each took, from the SYN to the last byte."""

    times_ms: list[float] = field(default_factory=list)
    load_bytes: int = 0  # that came in beside them
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Count one that did not come."""
        self.failures[why] = self.failures.get(why, 0) + 1


class _Exchange:
    """One connection: a request goes out when it is open, a response comes in."""

    def __init__(self, netns: str, address: str, request: bytes, selector: selectors.BaseSelector) -> None:
        with inside(netns):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.began_s = time.monotonic()
        self.request = request
        self.received = 0
        self.selector = selector
        status = self.socket.connect_ex((address, PORT))
        if status not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(status, os.strerror(status))
        selector.register(self.socket, selectors.EVENT_WRITE, self)

    def proceed(self, buffer: bytearray) -> bool:
        """Do what can be done; False at the end of the response. Raises OSError."""
        if self.request:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            sent = self.socket.send(self.request)
            self.request = self.request[sent:]
            if not self.request:
                self.selector.modify(self.socket, selectors.EVENT_READ, self)
            return True
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return True
        if count and not self.received and not buffer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise OSError(errno.EPROTO, f"not a 200: {bytes(buffer[: min(count, 40)])!r}")
        self.received += count
        return count > 0

    def close(self, *, reset: bool) -> None:
        """Let it go; with a RST, so that the server sends no more."""
        self.selector.unregister(self.socket)
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def request(path: str, *, close: bool) -> bytes:
    """A GET."""
    return f"GET {path} HTTP/1.1\r\nHost: wire\r\n{'Connection: close' if close else 'Accept: */*'}\r\n\r\n".encode()


def download(netns: str, address: str, path: str, seconds: float) -> Download:
    """Ask for a long body again and again on one connection, and look how much comes in `seconds`."""
    found = Download()
    buffer = bytearray(BLOCK_BYTES)
    with selectors.DefaultSelector() as selector:
        exchange = _Exchange(netns, address, request(path, close=False) * PIPELINED, selector)
        until_s = exchange.began_s + seconds
        try:
            while (now := time.monotonic()) < until_s and not found.failure:
                for _ in selector.select(min(until_s - now, 0.1)):
                    if not exchange.proceed(buffer):
                        found.failure = "the server closed the connection"
                tenth = int((time.monotonic() - exchange.began_s) * 10)
                found.series += [0] * (tenth + 1 - len(found.series))
                found.series[tenth] += exchange.received - found.bytes
                found.bytes = exchange.received
        except OSError as error:
            found.failure = error.strerror or str(error)
        found.seconds = time.monotonic() - exchange.began_s
        exchange.close(reset=True)
    if not found.bytes and not found.failure:
        found.failure = f"no byte came in {seconds:g} s"
    return found


def responses(
    netns: str,
    address: str,
    path: str,
    body_bytes: int,
    *,
    at_once: int,
    seconds: float,
    load: tuple[str, str] | None = None,
) -> Responses:
    """Short responses, `at_once` at a time, a connection for each. load: address and path of a long body that is asked
    for beside them, to fill the queue; they begin when it has had half of `seconds` for that."""
    found = Responses()
    buffer = bytearray(BLOCK_BYTES)
    with selectors.DefaultSelector() as selector:
        began_s = time.monotonic()
        filler = _Exchange(netns, load[0], request(load[1], close=False) * PIPELINED, selector) if load else None
        start_s = began_s + (seconds / 2 if filler else 0)
        until_s = start_s + seconds
        give_up_s = until_s + GRACE_S
        running: set[_Exchange] = set()

        def begin() -> None:
            try:
                running.add(_Exchange(netns, address, request(path, close=True), selector))
            except OSError as error:
                found.fail(error.strerror or str(error))

        try:
            while (now := time.monotonic()) < (give_up_s if running else until_s):
                while start_s <= now < until_s and len(running) < at_once and not found.failures:
                    begin()
                for key, _ in selector.select(0.05):
                    _step(key.data, running, found, buffer, body_bytes, filler)
                if found.failures:
                    break
            for _ in running:
                found.fail("unfinished")
            found.load_bytes = filler.received if filler else 0
        finally:
            for exchange in [*running, *([filler] if filler else [])]:
                exchange.close(reset=True)
    return found


def _step(
    exchange: _Exchange,
    running: set[_Exchange],
    found: Responses,
    buffer: bytearray,
    body_bytes: int,
    filler: _Exchange | None,
) -> None:
    failure = ""
    try:
        if exchange.proceed(buffer):
            return
        if exchange.received <= body_bytes or exchange is filler:
            failure = "the server closed the connection"
    except OSError as error:
        failure = error.strerror or str(error)
    if failure:
        found.fail(failure if exchange is not filler else f"the load beside: {failure}")
    if exchange is not filler:
        running.discard(exchange)
        exchange.close(reset=False)
        if not failure:
            found.times_ms.append((time.monotonic() - exchange.began_s) * 1000)

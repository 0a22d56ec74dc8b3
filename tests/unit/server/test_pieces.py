# SPDX-License-Identifier: MIT
"""Requests that arrive in pieces, and what runs out or changes while a rest is awaited: server/receiving.

On a transport in memory: each send() is one segment, and a send queue of some bytes takes a part of a response.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ustack.buf import lent
from ustack.server import request as requests
from ustack.server import response as responses
from ustack.server.http import HttpServer
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.parts.failing import Failing

SECOND = 1_000_000_000
WALL_S = 1_700_000_000
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
WITH_BODY = b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n"
EXPECTING = WITH_BODY[:-2] + b"Expect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Served:
    """A server of one file, its transport, and clients."""

    def __init__(
        self, root: Path, *, send_queue_bytes: int = 1 << 20, low_water_bytes: int = 1, **options: Any
    ) -> None:
        self.transport = MemoryTransport(send_queue_bytes=send_queue_bytes, low_water_bytes=low_water_bytes)
        self.server = HttpServer(
            root, hash_key=b"0123456789abcdef", wall_clock=lambda: WALL_S * SECOND + self.transport.now_ns, **options
        )
        self.transport.listen(80, self.server)
        self.clients: list[Any] = []
        self.expected_errors = 0

    def client(self, **options: Any) -> Any:
        self.clients.append(self.transport.open(80, **options))
        self.transport.settle()
        return self.clients[-1]

    def send(self, client: Any, *pieces: bytes) -> bytes:
        """Send each piece by itself. What has come back by then, since the client was opened."""
        for piece in pieces:
            client.send(piece)
            self.transport.settle()
        return bytes(client.received)

    def count(self, name: str) -> int:
        return int(self.server.stats()[name])

    def close(self) -> None:
        for client in self.clients:
            client.abort()
        self.transport.advance(100 * SECOND)
        assert self.count("internal_errors") == self.expected_errors
        assert self.count("connections_open") == self.count("connections_busy") == self.count("request_bytes") == 0
        self.server.close()
        self.transport.close()


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "long").write_bytes(bytes(range(200)) * 20)
    return tmp_path


@pytest.fixture
def make(root: Path) -> Iterator[Callable[..., Served]]:
    alive = lent.alive()
    made: list[Served] = []

    def one(**options: Any) -> Served:
        made.append(Served(root, **options))
        return made[-1]

    yield one
    for served in made:
        served.close()
    assert lent.alive() == alive


@pytest.fixture
def served(make: Callable[..., Served]) -> Served:
    return make()


# ---------------------------------------------------------------- empty lines (RFC 9112 section 2.2)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"\r", b"\n", GET),
        (b"\r", b"\n" + GET),
        (b"\r", b"\n" + GET[:9], GET[9:]),
        (b"\r", b"\n\r", b"\n\r\n" + GET),
        (b"\r", b"\n", b"\r", b"\n" + GET),
    ],
)
def test_an_empty_line_in_two_parts_is_passed_over(served: Served, pieces: tuple[bytes, ...]) -> None:
    client = served.client()
    assert statuses(served.send(client, *pieces)) == [200]
    assert served.count("requests") == 1
    assert served.count("connections_busy") == 0


@pytest.mark.parametrize("second", [b"X", b"\r", b"\r\n" + GET, GET])
def test_a_carriage_return_alone_begins_no_request(served: Served, second: bytes) -> None:
    client = served.client()
    assert statuses(served.send(client, b"\r", second)) == [400]
    client.close()


@pytest.mark.parametrize("rest", [b"X: a\rb\r\n\r\n", b"X: a\nY: b\r\n\r\n", b"X: a\0\r\n\r\n"])
def test_a_head_that_breaks_off_in_its_second_part_is_refused(served: Served, rest: bytes) -> None:
    assert statuses(served.send(served.client(), GET[:-2], rest)) == [400]


# ---------------------------------------------------------------- limits


def test_a_whole_head_beyond_the_limit_is_refused_as_one_in_parts(make: Callable[..., Served]) -> None:
    served = make(max_head_bytes=200, max_request_line_bytes=100)
    head = GET[:-2] + b"X: " + b"x" * 200 + b"\r\n\r\n"
    assert statuses(served.send(served.client(), head)) == [431]
    assert statuses(served.send(served.client(), head[:150], head[150:])) == [431]


@pytest.mark.parametrize("begun", [GET[:9], WITH_BODY], ids=["head", "body"])
def test_no_record_for_what_is_awaited_ends_the_connection(make: Callable[..., Served], begun: bytes) -> None:
    """One record, and who came first keeps it."""
    served = make(max_busy=1)
    holder, late = served.client(), served.client()
    served.send(holder, GET[:9])
    assert served.send(late, begun) == b""
    assert late.ended
    assert served.count("busy_refused") == 1
    assert statuses(served.send(holder, GET[9:])) == [200]


def test_no_record_for_the_rest_of_a_response_ends_the_connection(make: Callable[..., Served]) -> None:
    served = make(max_busy=1, send_queue_bytes=100)
    holder, late = served.client(), served.client(window_bytes=0)
    served.send(holder, GET[:9])
    served.send(late, GET)
    assert late.ended
    assert served.count("busy_refused") == 1


def test_whoever_has_half_a_100_is_ended_for_others_requests(make: Callable[..., Served]) -> None:
    """Nothing can follow a part of an interim response: no 503 either."""
    served = make(send_queue_bytes=10, max_head_bytes=1000, max_request_line_bytes=200, max_request_bytes=2048)
    first = served.client(window_bytes=0)
    assert served.send(first, EXPECTING) == b""
    others = [served.client() for _ in range(4)]
    for other in others:
        served.send(other, GET[:9])
    assert first.ended
    assert served.count("requests_displaced") == 1
    assert bytes(first.received) == CONTINUE[: len(first.received)]


def test_a_half_closed_client_that_waits_for_100_is_not_waited_for(make: Callable[..., Served]) -> None:
    """Its body can never come: once the 100 is out the connection ends."""
    served = make(send_queue_bytes=10)
    client = served.client(window_bytes=5)
    served.send(client, EXPECTING)
    client.shutdown()
    served.transport.settle()
    client.window_bytes = 1 << 20
    served.transport.advance(SECOND)
    received = bytes(client.received)
    assert received == CONTINUE
    assert served.count("connections_busy") == 0


# ---------------------------------------------------------------- files that change while a body comes


def test_a_file_that_changes_while_the_body_comes_is_answered_as_it_is_then(
    make: Callable[..., Served], root: Path
) -> None:
    served = make(revalidate_s=0.0)
    client = served.client()
    assert served.send(client, WITH_BODY, b"ab") == b""
    (root / "index.html").write_text("another home")
    served.transport.advance(2 * SECOND)
    received = served.send(client, b"cd")
    assert statuses(received) == [200]
    assert received.endswith(b"\r\n\r\nanother home")
    assert statuses(served.send(client, GET)) == [200, 200]


def test_a_file_that_goes_while_the_body_comes_is_not_found(make: Callable[..., Served], root: Path) -> None:
    served = make(revalidate_s=0.0)
    client = served.client()
    served.send(client, WITH_BODY, b"ab")
    (root / "index.html").unlink()
    served.transport.advance(2 * SECOND)
    assert statuses(served.send(client, b"cd"))[0] in (403, 404)


def test_no_memory_to_decide_again_ends_the_connection(
    make: Callable[..., Served], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make(revalidate_s=0.0)
    client = served.client()
    served.send(client, WITH_BODY, b"ab")
    (root / "index.html").write_text("another home")
    served.transport.advance(2 * SECOND)
    monkeypatch.setattr(requests, "parse", without_memory)
    assert served.send(client, b"cd") == b""
    assert client.ended


# ---------------------------------------------------------------- no memory


def without_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_no_memory_to_decide_ends_the_connection(make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    served = make(max_header_sections=0)
    client, other = served.client(), served.client()
    with monkeypatch.context() as patch:
        patch.setattr(requests, "parse", without_memory)
        assert served.send(client, GET) == b""
    assert client.ended
    assert statuses(served.send(other, GET)) == [200]


def test_no_memory_to_refuse_ends_the_connection(make: Callable[..., Served]) -> None:
    served = make()
    whole, parts, other = (served.client() for _ in range(3))
    with Failing("ustack.server.refusals", "calloc", errno.ENOMEM, times=None):
        assert served.send(whole, b"\0\r\n\r\n") == b""
        assert served.send(parts, b"GE", b"T\0") == b""
    assert whole.ended
    assert parts.ended
    assert statuses(served.send(other, b"\0\r\n\r\n")) == [400]


def test_a_signal_handler_that_raises_in_a_refusal_does_not_change_it(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes Python. It is raised from the call in progress, and the refusal is made again; but not for
    ever."""
    served = make()
    client, unlucky = served.client(), served.client()
    original = responses.response_head
    raises = [KeyboardInterrupt]

    def interrupted(*arguments: Any) -> Any:
        if raises:
            raise raises.pop()
        return original(*arguments)

    monkeypatch.setattr(responses, "response_head", interrupted)
    client.send(b"PUT / HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(KeyboardInterrupt):
        served.transport.settle()
    served.transport.settle()
    assert statuses(bytes(client.received)) == [405]
    raises.extend([KeyboardInterrupt] * 100)
    monkeypatch.setattr(responses, "shared_index", lambda _: interrupted())
    unlucky.send(b"PUT /unlucky HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(KeyboardInterrupt):
        served.transport.settle()
    raises.clear()
    monkeypatch.undo()
    served.transport.settle()
    assert unlucky.ended
    assert unlucky.received == b""


@pytest.mark.parametrize("after", [0, 1])
def test_no_memory_for_a_head_in_parts_ends_the_connection(served: Served, after: int) -> None:
    """The first part, or a later one that needs more room."""
    client = served.client()
    with Failing("ustack.server.receiving", "realloc", errno.ENOMEM, after=after) as calls:
        served.send(client, GET[:9])
        if not client.ended:
            served.send(client, GET[9:-2] + b"X: " + b"x" * 600)
    assert calls.failed == 1
    assert client.ended
    assert client.received == b""


@pytest.mark.parametrize("path", [b"/", b"/long"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_transport_without_memory_for_a_response_ends_the_connection(
    make: Callable[..., Served], path: bytes, after: int
) -> None:
    """Whether it takes nothing of it, or not the body behind the head, or not the rest of the first part."""
    served = make(send_queue_bytes=100)
    client = served.client(window_bytes=50)
    with Failing("ustack.testing.memory.downcalls", "calloc", errno.ENOMEM, after=after) as calls:
        served.send(client, GET.replace(b"/ ", path + b" "))
        client.window_bytes = 1 << 20
        served.transport.advance(SECOND)
    assert calls.failed >= 1
    assert client.ended
    other = served.client()
    served.send(other, GET)
    served.transport.advance(SECOND)
    assert statuses(bytes(other.received)) == [200]


def test_a_transport_without_memory_for_a_body_ends_the_connection(make: Callable[..., Served], root: Path) -> None:
    """Its head has been taken whole, and promises it."""
    (root / "two").write_bytes(bytes(40_000))
    served = make()
    client = served.client()
    served.send(client, GET.replace(b"/ ", b"/two "))
    client.received.clear()
    with Failing("ustack.testing.memory.downcalls", "calloc", errno.ENOMEM, after=1, times=1) as calls:
        served.send(client, GET.replace(b"/ ", b"/two "))
    assert calls.failed == 1
    assert client.ended


def test_a_client_that_asks_faster_than_it_reads_is_left_to_its_window(make: Callable[..., Served]) -> None:
    """What it has asked is read when it has taken what waits for it."""
    served = make(max_queued_bytes=4096)
    client = served.client(window_bytes=0)
    served.send(client, GET * 100)
    assert 0 < served.count("requests") < 50
    client.window_bytes = 1 << 20
    served.transport.settle()
    assert statuses(bytes(client.received)) == [200] * 100


def test_lines_of_a_log_that_cannot_be_written_go_with_the_server(make: Callable[..., Served]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    served = make(access_log=writer)
    client = served.client()
    assert statuses(served.send(client, GET * 3)) == [200] * 3
    client.abort()
    served.transport.settle()
    served.server.close()
    assert (served.count("log_lines"), served.count("log_lost")) == (0, 0)
    os.close(reader)
    os.close(writer)


# ---------------------------------------------------------------- files that are cut while they are sent


@pytest.fixture
def mapped(root: Path) -> Path:
    """A file that is lent as it is, not copied."""
    path = root / "mapped"
    path.write_bytes(bytes(range(256)) * 2048)
    return path


@pytest.mark.parametrize("taken", ["a part", "all but acknowledged", "all, and the next request comes"])
def test_a_response_from_a_file_that_was_cut_does_not_end_like_a_whole_one(
    make: Callable[..., Served], mapped: Path, taken: str
) -> None:
    """The length is promised already: a reset is the only way to say that it was not kept."""
    served = make(revalidate_s=0.0, send_queue_bytes=1 << 16 if taken == "a part" else 1 << 22)
    client = served.client(window_bytes=100_000)
    received = served.send(client, GET.replace(b"/ ", b"/mapped "))
    assert statuses(received) == [200]
    os.truncate(mapped, 1000)
    served.transport.advance(SECOND)
    if taken.endswith("comes"):
        client.send(GET)
        served.transport.settle()
    client.window_bytes = 1 << 22
    served.transport.advance(SECOND)
    assert client.ended
    assert served.count("damaged_aborted") == 1
    assert statuses(bytes(client.received)) == [200]
    client.received.clear()
    with pytest.raises(ConnectionResetError):
        client.receive()


def test_a_request_behind_a_file_that_was_cut_is_not_answered(make: Callable[..., Served], mapped: Path) -> None:
    """It comes when most of the file has been acknowledged, and the rest may be made up."""
    served = make(revalidate_s=0.0, send_queue_bytes=1 << 22, low_water_bytes=1 << 17)
    client = served.client(window_bytes=450_000)
    assert statuses(served.send(client, GET.replace(b"/ ", b"/mapped "))) == [200]
    os.truncate(mapped, 1000)
    served.transport.advance(SECOND // 1000)
    served.send(client, GET)
    assert client.ended
    assert served.count("damaged_aborted") == 1
    assert served.count("requests") == 1

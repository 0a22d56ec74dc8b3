# SPDX-License-Identifier: MIT
"""Response heads as bytes, and the refusals that stand for an error response.

Every head has its Date field in the same place, right behind the status line, so that a ready-made response can be
dated again without being built again. This file opens nothing, parses nothing and reads no clock.

Read first: RFC 9110 section 6.6.1 (Date), 8.6 (Content-Length), 15 (status codes); RFC 9112 section 4 and 9.6.
Above: selection.py, target.py, request.py, decide.pyx. Below: nothing.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from http import HTTPStatus

Fields = Sequence[tuple[bytes, bytes]]

# IMF-fixdate is always 29 bytes (RFC 9110 section 5.6.7); this one is replaced before the head is sent.
DATE_PLACEHOLDER = b"Thu, 01 Jan 1970 00:00:00 GMT"

# How a head ends the exchange: HTTP/1.1 stays open silently, an HTTP/1.0 client is told so, or it ends here.
PERSIST, PERSIST_ANNOUNCED, CLOSE = 0, 1, 2
_CONNECTION: dict[int, Fields] = {
    PERSIST: (),
    PERSIST_ANNOUNCED: ((b"Connection", b"keep-alive"),),
    CLOSE: ((b"Connection", b"close"),),
}

# Refusals whose response is the same for everybody: whoever refuses with one of them gives it no fields but the Allow
# of a 204 or 405. decide.pyx has one response of each made.
SHARED_REFUSALS = (204, 400, 403, 404, 405, 408, 413, 414, 417, 431, 500, 501, 503, 505)

# Of these, what a connection ends with that sent no complete, well-formed head, or for which there was no memory. Their
# responses are made when the server is, so that no Python runs for them (refusals.pyx).
ENDING_REFUSALS = (400, 408, 413, 414, 431, 500, 501, 503, 505)

ALLOWED_METHODS = b"GET, HEAD, OPTIONS"


class Refusal(Exception):
    """A request that ends in something else than a file. `close`: the connection cannot be used any further."""

    def __init__(self, status: int, fields: Fields = (), *, close: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.fields = fields
        self.close = close


def shared_index(status: int) -> int:
    """Where a status stands among SHARED_REFUSALS; -1: nowhere."""
    return _SHARED_INDEX.get(status, -1)


_SHARED_INDEX = {status: index for index, status in enumerate(SHARED_REFUSALS)}


@cache
def status_line(status: int) -> bytes:
    """Status line of an HTTP/1.1 response, with its line end."""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@cache
def date_offset(status: int) -> int:
    """Where the 29 bytes of the date lie in a head made by `response_head`."""
    return len(status_line(status)) + len(b"Date: ")


@cache
def _start(status: int) -> bytes:
    """A head up to the server's name."""
    return status_line(status) + b"Date: " + DATE_PLACEHOLDER + b"\r\nServer: "


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]], connection: int, server_name: bytes) -> bytes:
    """A whole head, empty line included, with a placeholder for the date."""
    parts = [_start(status), server_name, b"\r\n"]
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    for name, value in _CONNECTION[connection]:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def refusal_body(status: int) -> bytes:
    """A short page that says what the status line says. A 204 and a 304 have none (RFC 9110 section 15.3.5, 15.4.5)."""
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return b""
    text = f"{status} {HTTPStatus(status).phrase}"
    return f"<!doctype html>\n<title>{text}</title>\n<h1>{text}</h1>\n".encode()


def refusal_fields(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """What describes such a page."""
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return []  # nor a Content-Length (section 8.6)
    return [(b"Content-Type", b"text/html; charset=utf-8"), (b"Content-Length", b"%d" % len(body))]

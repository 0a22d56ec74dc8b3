# SPDX-License-Identifier: MIT
"""Response heads as octets, and the refusals that stand for an error response.

Every head has its Date field in the same place, right behind the status line, so that a ready-made response can be
dated again without being built again. This file opens nothing, parses nothing and reads no clock.

Read first: RFC 9110 section 6.6.1 (Date), 8.6 (Content-Length), 15 (status codes); RFC 9112 section 4 and 9.6.
Above: request.py, http.pyx. Below: nothing.
"""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

Fields = Sequence[tuple[bytes, bytes]]

# IMF-fixdate is always 29 octets (RFC 9110 section 5.6.7); this one is replaced before the head is sent.
DATE_PLACEHOLDER = b"Thu, 01 Jan 1970 00:00:00 GMT"

# How a head ends the exchange: HTTP/1.1 stays open silently, an HTTP/1.0 client is told so, or it ends here.
PERSIST, PERSIST_ANNOUNCED, CLOSE = 0, 1, 2
_CONNECTION: dict[int, Fields] = {
    PERSIST: (),
    PERSIST_ANNOUNCED: ((b"Connection", b"keep-alive"),),
    CLOSE: ((b"Connection", b"close"),),
}

ALLOWED_METHODS = b"GET, HEAD"


class Refusal(Exception):
    """A request that ends in something else than a file. `close`: the connection cannot be used any further."""

    def __init__(self, status: int, fields: Fields = (), *, close: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.fields = fields
        self.close = close


def status_line(status: int) -> bytes:
    """Status line of an HTTP/1.1 response, with its line end."""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def date_offset(status: int) -> int:
    """Where the 29 octets of the date lie in a head made by `response_head`."""
    return len(status_line(status)) + len(b"Date: ")


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]], connection: int, server_name: bytes) -> bytes:
    """A whole head, empty line included, with a placeholder for the date."""
    lines = [(b"Date", DATE_PLACEHOLDER), (b"Server", server_name), *fields, *_CONNECTION[connection]]
    return status_line(status) + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"


def refusal_body(status: int) -> bytes:
    """A short page that says what the status line says. A 304 has none (RFC 9110 section 15.4.5)."""
    if status == HTTPStatus.NOT_MODIFIED:
        return b""
    text = f"{status} {HTTPStatus(status).phrase}"
    return f"<!doctype html>\n<title>{text}</title>\n<h1>{text}</h1>\n".encode()


def refusal_fields(status: int, body: bytes) -> list[tuple[bytes, bytes]]:
    """What describes such a page."""
    if status == HTTPStatus.NOT_MODIFIED:
        return []
    return [(b"Content-Type", b"text/html; charset=utf-8"), (b"Content-Length", b"%d" % len(body))]

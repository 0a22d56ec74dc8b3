# SPDX-License-Identifier: MIT
"""From the bytes of a request head to a Request: its method, its target, its fields, and how its body is framed.

`parse` has llhttp take the head apart and then judges what llhttp leaves to its user. Pure: no file, no socket, no
clock. Which file the target names is target.py's, and what the request gets of it selection.py's.

Read first: RFC 9112 section 2.2, 3, 6 and 9.3; RFC 9110 section 7.2 (Host), 10.1.1 (Expect).
Above: selection.py, target.py, decide.pyx, plainheads.pyx. Below: host.py, response.py.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import httptools

from ustack.server.host import is_host
from ustack.server.response import CLOSE, PERSIST, PERSIST_ANNOUNCED, Refusal

# The registered methods that people send (RFC 9110 section 9, RFC 5789): known, but no file allows them. Every other
# method is not implemented.
_KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
# Longer than every method that is registered: nothing is waited for behind so many characters (RFC 9112 section 3).
MAX_METHOD_BYTES = 32
_LONG_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{33}")
CONDITIONS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"))
# What else makes more of a request for a file than its path, Accept-Encoding and Connection do.
_NOT_PLAIN = CONDITIONS | {b"range", b"if-range", b"expect"}
# Lists that are longer mean nothing to anybody, and taking them apart costs time for each member.
MAX_LIST_BYTES = 1024
# A header section is remembered up to here: 256 of them are at most 512 KB.
MAX_SECTION_BYTES = 2048
_SLASH = 0x2F


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask the server to hold or to read."""

    max_head_bytes: int = 16384
    max_request_line_bytes: int = 8192
    max_header_count: int = 100
    max_body_bytes: int = 65536


@dataclass(slots=True)
class Request:
    """One parsed head. Field names are in lower case; values are stripped."""

    method: bytes
    target: bytes
    minor: int
    fields: dict[bytes, list[bytes]]
    content_length: int = 0
    chunked: bool = False

    def one(self, name: bytes) -> bytes | None:
        """The value of a field that must not be repeated; None when it is absent or repeated."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else None

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list field, over all its lines (RFC 9110 section 5.6.1).

        Raises Refusal(431) for a list that is longer than any honest one.
        """
        values = self.fields.get(name)
        if values is None:
            return []
        if sum(map(len, values)) > MAX_LIST_BYTES:
            raise Refusal(431, close=True)
        return [part for value in values for part in (p.strip(b" \t") for p in value.split(b",")) if part]

    @property
    def has_body(self) -> bool:
        """Bytes follow the head."""
        return self.chunked or self.content_length > 0

    @property
    def connection(self) -> int:
        """How the exchange ends (RFC 9112 section 9.3)."""
        if b"connection" not in self.fields and self.minor >= 1 and self.method != b"CONNECT":
            return PERSIST
        options = {option.lower() for option in self.members(b"connection")}  # parse has bounded it
        if b"close" in options or self.method == b"CONNECT":
            return CLOSE
        if self.minor >= 1:
            return PERSIST
        return PERSIST_ANNOUNCED if b"keep-alive" in options else CLOSE


class _Head:
    """Receives llhttp's events."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[bytes, list[bytes]] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line."""
        self.fields.setdefault(name.lower(), []).append(value.strip(b" \t"))


def parse(head: bytes, limits: Limits) -> Request:
    """Take one complete head apart (up to and including its empty line) and check its framing and its Host.

    Raises Refusal, with close=True wherever the end of the request is not known for sure. The work is bounded by the
    head's length: what would cost more for each byte (many fields, long lists) is refused first.
    """
    line = _REQUEST_LINE.match(head)
    if line is None or line.end() - 2 > limits.max_request_line_bytes or len(head) > limits.max_head_bytes:
        raise _unfit(head, limits)
    method, target, major, digit = line.groups()
    minor = int(digit)
    if len(method) > MAX_METHOD_BYTES:
        raise Refusal(501, close=True)
    if major != b"1":
        raise Refusal(505, close=True)
    if minor > 1:
        # A higher minor version is served as the highest one known (RFC 9110 section 2.5), which llhttp is not told.
        head = b"%b %b HTTP/1.1%b" % (method, target, head[line.end() - 2 :])
        minor = 1
    if method not in _KNOWN_METHODS:
        raise Refusal(501, close=True)
    if target[0] == _SLASH and method in (b"GET", b"HEAD") and len(head) - line.end() <= MAX_SECTION_BYTES:
        shared = _fields_behind_a_path(head[line.end() :], minor, limits.max_header_count)
        if shared is not None:
            return Request(method, target, minor, shared)
    fields = _fields(head, limits.max_header_count)
    request = Request(method, target, minor, fields)
    request.members(b"connection")
    if b"content-length" in fields or b"transfer-encoding" in fields:
        _check_framing(request, limits)
    _check_host(request)
    return request


@lru_cache(maxsize=256)
def _fields_behind_a_path(tail: bytes, minor: int, max_header_count: int) -> dict[bytes, list[bytes]] | None:
    """The fields of a GET or HEAD of a path without a body, by what follows the request line: a client asks for one
    path after the other with the same fields. They are checked, and must not be changed. None: there may be a body.
    """
    fields = _fields(b"GET / HTTP/1.%d\r\n%b" % (minor, tail), max_header_count)
    if b"content-length" in fields or b"transfer-encoding" in fields:
        return None
    request = Request(b"GET", b"/", minor, fields)
    request.members(b"connection")
    _check_host(request)
    return fields


def plain_request(section: bytes, minor: int, limits: Limits) -> Request | None:
    """A GET of any path in normal form with this header section (all that follows the request line), if nothing in it
    needs a decision for each path: it gets the whole file, by `connection` and `accepts_gzip`, or a 404. None if not.

    So does a HEAD, without the body. It is `parse` that says what is legal: what is refused is None as well.
    """
    if len(section) > MAX_SECTION_BYTES:
        return None
    try:
        fields = _fields_behind_a_path(section, minor, limits.max_header_count)
    except Refusal:
        return None
    if fields is None or not _NOT_PLAIN.isdisjoint(fields):
        return None
    return Request(b"GET", b"/", minor, fields)


def _unfit(head: bytes, limits: Limits) -> Refusal:
    """What is wrong with a head that is too long, or whose first line is no request line."""
    if _LONG_METHOD.match(head):
        return Refusal(501, close=True)  # RFC 9112 section 3: a method longer than any that is implemented
    if head.find(b"\r\n") > limits.max_request_line_bytes:
        return Refusal(414, close=True)
    return Refusal(431 if len(head) > limits.max_head_bytes else 400, close=True)


def _fields(head: bytes, max_header_count: int) -> dict[bytes, list[bytes]]:
    # Counted before each becomes a call: the request line and the empty line are no fields.
    if head.count(b"\n") - 2 > max_header_count:
        raise Refusal(431, close=True)
    events = _Head()
    try:
        httptools.HttpRequestParser(events).feed_data(head)
    except httptools.HttpParserInvalidMethodError:
        raise Refusal(501, close=True) from None
    except httptools.HttpParserUpgrade:
        pass  # an offer to switch protocols may be ignored (RFC 9110 section 7.8)
    except httptools.HttpParserCallbackError as error:
        # No fault of the head: what a signal handler raised in on_header, or a lack of memory.
        raise error.__context__ or error from None
    except httptools.HttpParserError:
        # llhttp stops at a transfer coding that is not chunked; the field has been seen by then.
        if any(coding != b"chunked" for coding in _codings(events.fields)):
            raise Refusal(501, close=True) from None
        raise Refusal(400, close=True) from None
    return events.fields


def _codings(fields: dict[bytes, list[bytes]]) -> list[bytes]:
    values = b",".join(fields.get(b"transfer-encoding", ()))
    return [coding for coding in (part.split(b";")[0].strip(b" \t").lower() for part in values.split(b",")) if coding]


def _check_framing(request: Request, limits: Limits) -> None:
    """RFC 9112 section 6. llhttp has refused a repeated or malformed length, and a length beside a transfer coding."""
    if b"transfer-encoding" in request.fields:
        codings = _codings(request.fields)
        if request.minor == 0:
            raise Refusal(400, close=True)  # section 6.1: faulty framing
        if codings != [b"chunked"]:
            raise Refusal(501 if b"chunked" not in codings[:-1] and codings else 400, close=True)
        request.chunked = True
    length = request.one(b"content-length")
    if length is not None:
        request.content_length = int(length)
    if request.content_length > limits.max_body_bytes:
        raise Refusal(413, close=True)


def _check_host(request: Request) -> None:
    """RFC 9112 section 3.2: exactly one, and well-formed.

    An empty one is well-formed, and right where the target has no authority (`OPTIONS *`) or brings its own. Behind a
    path it would make a target URI without a host, which http does not have (RFC 9110 section 4.2.1); section 3.3 lets
    a server refuse it, or fall back to a default, and nothing here could check a default.
    """
    hosts = request.fields.get(b"host")
    if hosts is None:
        if request.minor >= 1:
            raise Refusal(400, close=True)
        return
    if len(hosts) > 1:
        raise Refusal(400, close=True)
    if not (is_host(hosts[0]) if hosts[0] else not request.target.startswith(b"/")):
        raise Refusal(400, close=True)


def check_expectation(request: Request) -> None:
    """RFC 9110 section 10.1.1: only 100-continue can be met. Raises Refusal(417)."""
    if b"expect" not in request.fields:
        return
    if request.minor >= 1 and {member.lower() for member in request.members(b"expect")} - {b"100-continue"}:
        raise Refusal(417)


def waits_for_continue(request: Request) -> bool:
    """The client wants to see 100 before it sends the body."""
    return request.minor >= 1 and request.has_body and b"expect" in request.fields

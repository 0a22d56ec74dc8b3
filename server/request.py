# SPDX-License-Identifier: MIT
"""From the octets of a request head to a decision: what is answered, and how the connection goes on.

`parse` has llhttp take the head apart and then judges what llhttp leaves to its user; `decide` applies the conditions
of RFC 9110 section 13.2.2, in that order, to a resource. Both are pure: no file, no socket, no clock. Only unseen heads
come here; http.pyx remembers the outcome.

Read first: RFC 9112 section 2.2, 3 and 6; RFC 9110 section 7.2 (Host), 10.1.1 (Expect), 13 (conditions), 14 (ranges).
Above: http.pyx. Below: files.py, response.py.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import unquote_to_bytes

import httptools

from ustack.server.files import Resource, Variant
from ustack.server.response import ALLOWED_METHODS, CLOSE, PERSIST, PERSIST_ANNOUNCED, Refusal

# The registered methods that people send (RFC 9110 section 9, RFC 5789): known, but no file allows them. Every other
# method is not implemented.
_KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
# uri-host [":" port] (RFC 3986 section 3.2.2); empty is allowed (RFC 9112 section 3.2).
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN_SEPARATOR = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

_FAR = 10**18  # a position beyond every file


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
        """The members of a list field, over all its lines (RFC 9110 section 5.6.1)."""
        return [
            part for value in self.fields.get(name, ()) for part in (p.strip(b" \t") for p in value.split(b",")) if part
        ]

    @property
    def has_body(self) -> bool:
        """Octets follow the head."""
        return self.chunked or self.content_length > 0

    @property
    def connection(self) -> int:
        """How the exchange ends (RFC 9112 section 9.3)."""
        options = {option.lower() for option in self.members(b"connection")}
        if b"close" in options or self.method == b"CONNECT":
            return CLOSE
        if self.minor >= 1:
            return PERSIST
        return PERSIST_ANNOUNCED if b"keep-alive" in options else CLOSE


@dataclass(slots=True)
class Decision:
    """What a request gets: octets [offset, offset + length) of a variant under a status, with these fields."""

    status: int
    variant: Variant | None
    offset: int = 0
    length: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    lasting: bool = True  # the same head gets the same answer until the resource changes

    @property
    def whole(self) -> bool:
        """The variant as it is."""
        return self.status == 200


class _Head:
    """Receives llhttp's events."""

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line."""
        self.lines.append((name.lower(), value.strip(b" \t")))


def parse(head: bytes, limits: Limits) -> Request:
    """Take one complete head apart (up to and including its empty line) and check its framing and its Host.

    Raises Refusal, with close=True wherever the end of the request is not known for sure.
    """
    line = _REQUEST_LINE.match(head)
    if head.find(b"\r\n") > limits.max_request_line_bytes:
        raise Refusal(414, close=True)
    if len(head) > limits.max_head_bytes:
        raise Refusal(431, close=True)
    if line is None:
        raise Refusal(400, close=True)
    method, target, major, minor = line.group(1), line.group(2), int(line.group(3)), int(line.group(4))
    if major != 1:
        raise Refusal(505, close=True)
    if minor > 1:
        # A higher minor version is served as the highest one known (RFC 9110 section 2.5), which llhttp is not told.
        head = b"%b %b HTTP/1.1%b" % (method, target, head[line.end() - 2 :])
        minor = 1
    fields = _fields(head, method, limits)
    request = Request(method, target, minor, fields)
    _check_framing(request, limits)
    _check_host(request)
    return request


def _fields(head: bytes, method: bytes, limits: Limits) -> dict[bytes, list[bytes]]:
    events = _Head()
    try:
        httptools.HttpRequestParser(events).feed_data(head)
    except httptools.HttpParserInvalidMethodError:
        raise Refusal(501, close=True) from None
    except httptools.HttpParserUpgrade:
        pass  # an offer to switch protocols may be ignored (RFC 9110 section 7.8)
    except httptools.HttpParserError:
        # llhttp stops at a transfer coding that is not chunked; the field has been seen by then.
        if _unknown_coding(events.lines):
            raise Refusal(501, close=True) from None
        raise Refusal(400, close=True) from None
    if len(events.lines) > limits.max_header_count:
        raise Refusal(431, close=True)
    if method not in _KNOWN_METHODS:
        raise Refusal(501, close=True)
    fields: dict[bytes, list[bytes]] = {}
    for name, value in events.lines:
        fields.setdefault(name, []).append(value)
    return fields


def _codings(lines: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    values = b",".join(value for name, value in lines if name == b"transfer-encoding")
    return [coding for coding in (part.split(b";")[0].strip(b" \t").lower() for part in values.split(b",")) if coding]


def _unknown_coding(lines: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(coding != b"chunked" for coding in _codings(lines))


def _check_framing(request: Request, limits: Limits) -> None:
    """RFC 9112 section 6. llhttp has refused a repeated or malformed length, and a length beside a transfer coding."""
    if b"transfer-encoding" in request.fields:
        codings = _codings((b"transfer-encoding", value) for value in request.fields[b"transfer-encoding"])
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
    """RFC 9112 section 3.2: exactly one, and well-formed."""
    hosts = request.fields.get(b"host", [])
    if len(hosts) > 1 or (not hosts and request.minor >= 1):
        raise Refusal(400, close=True)
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refusal(400, close=True)


def check_expectation(request: Request) -> None:
    """RFC 9110 section 10.1.1: only 100-continue can be met. Raises Refusal(417)."""
    if request.minor >= 1 and {member.lower() for member in request.members(b"expect")} - {b"100-continue"}:
        raise Refusal(417)


def waits_for_continue(request: Request) -> bool:
    """The client wants to see 100 before it sends the body."""
    return request.minor >= 1 and request.has_body and b"expect" in request.fields


def locate(request: Request) -> bytes:
    """The path below the root that the request names: decoded once, relative, without dot or empty segments.

    Raises Refusal: 400 for what is no target, 404 for what no path may contain, 405 for a method no file allows.
    """
    path = _origin_form(request).partition(b"?")[0]
    if b"#" in path or _BAD_PERCENT.search(path):
        raise Refusal(400)
    if _HIDDEN_SEPARATOR.search(path):
        raise Refusal(404)
    path = unquote_to_bytes(path)
    if _CONTROL.search(path):
        raise Refusal(400)
    if request.method not in (b"GET", b"HEAD"):
        raise Refusal(405, [(b"Allow", ALLOWED_METHODS)])
    *segments, last = path[1:].split(b"/")
    if any(segment in (b"", b".", b"..") for segment in segments) or last in (b".", b".."):
        raise Refusal(404)
    return path[1:]


def _origin_form(request: Request) -> bytes:
    """The four forms of RFC 9112 section 3.2, as path and query."""
    target = request.target
    if target.startswith(b"/"):
        return target
    if (target == b"*" and request.method == b"OPTIONS") or request.method == b"CONNECT":
        raise Refusal(405, [(b"Allow", ALLOWED_METHODS)])
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute.group(1)) or absolute.group(1).startswith(b":"):
        raise Refusal(400)
    rest = absolute.group(2)
    return rest if rest.startswith(b"/") else b"/" + rest


def with_slash(request: Request) -> bytes:
    """Where a directory named without its final slash is: a path, so that it holds on every host and scheme."""
    path, mark, query = _origin_form(request).partition(b"?")
    return path + b"/" + mark + query


def accepts_gzip(request: Request) -> bool:
    """Prefer gzip? RFC 9110 section 12.5.3: acceptable, and not less than sending the file as it is."""
    quality: dict[bytes, float] = {}
    for member in request.members(b"accept-encoding"):
        coding, _, parameter = member.partition(b";")
        name, _, value = parameter.partition(b"=")
        weight = value.strip(b" \t")
        if parameter and (name.strip(b" \t").lower() != b"q" or not _QUALITY.fullmatch(weight)):
            continue
        quality[coding.strip(b" \t").lower()] = float(weight) if parameter else 1.0
    anything = quality.get(b"*", 0.0)
    gzip = quality.get(b"gzip", quality.get(b"x-gzip", anything))
    return gzip > 0 and gzip >= quality.get(b"identity", 0.0)


def decide(request: Request, resource: Resource, now_s: int) -> Decision:
    """What a GET or HEAD of `resource` gets. now_s: wall clock, for the age of a date used as a strong validator."""
    variant = resource.gzip if resource.gzip is not None and accepts_gzip(request) else resource.plain
    validators = [(b"ETag", variant.etag), (b"Last-Modified", resource.last_modified)]
    if resource.gzip is not None:
        validators.append((b"Vary", b"Accept-Encoding"))
    status = _precondition(request, resource, variant)
    if status:
        return Decision(status, None, fields=validators)
    described = [(b"Content-Type", resource.content_type), *validators, (b"Accept-Ranges", b"bytes")]
    if variant.coding:
        described.append((b"Content-Encoding", variant.coding))
    decision = Decision(200, variant, 0, variant.size)
    if request.method == b"GET" and b"range" in request.fields:
        _apply_range(request, resource, decision, now_s)
    if decision.status == 416:
        return Decision(416, None, fields=[*validators, (b"Content-Range", b"bytes */%d" % variant.size)])
    if decision.status == 206:
        last = decision.offset + decision.length - 1
        described.append((b"Content-Range", b"bytes %d-%d/%d" % (decision.offset, last, variant.size)))
    decision.fields = [*described, (b"Content-Length", b"%d" % decision.length)]
    return decision


def _precondition(request: Request, resource: Resource, variant: Variant) -> int:
    """RFC 9110 section 13.2.2, steps 1 to 4: 412, 304, or 0 to go on."""
    if b"if-match" in request.fields:
        if not _matches(request.fields[b"if-match"], variant.etag, weak=False):
            return 412
    elif b"if-unmodified-since" in request.fields:
        date = parse_date(request.one(b"if-unmodified-since"))
        if date is not None and resource.last_modified_s > date:
            return 412
    if b"if-none-match" in request.fields:
        return 304 if _matches(request.fields[b"if-none-match"], variant.etag, weak=True) else 0
    date = parse_date(request.one(b"if-modified-since"))
    return 304 if date is not None and resource.last_modified_s <= date else 0


def _matches(values: list[bytes], etag: bytes, *, weak: bool) -> bool:
    """RFC 9110 section 8.8.3.2. A tag may hold a comma, so the list is not split: its tags are found."""
    value = b",".join(values)
    if value == b"*":
        return True
    return any(tag.removeprefix(b"W/") == etag if weak else tag == etag for tag in _ENTITY_TAG.findall(value))


def parse_date(value: bytes | None) -> int | None:
    """Seconds since 1970 of an HTTP-date in any of its three forms; None if it is not one."""
    if not value:
        return None
    try:
        parts = parsedate_tz(value.decode("ascii"))
        return None if parts is None else mktime_tz(parts)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _range_holds(request: Request, resource: Resource, decision: Decision, now_s: int) -> bool:
    """If-Range (RFC 9110 section 13.1.5): a strong tag, or a date that can stand for one."""
    if b"if-range" not in request.fields:
        return True
    condition = request.one(b"if-range")
    if condition is None or decision.variant is None:
        return False
    if condition.startswith((b'"', b"W/")):
        return condition == decision.variant.etag
    if now_s - resource.last_modified_s < 1:
        decision.lasting = False  # strong in a second (section 8.8.2.2)
        return False
    return parse_date(condition) == resource.last_modified_s


def _apply_range(request: Request, resource: Resource, decision: Decision, now_s: int) -> None:
    """Narrow a 200 to a 206, or turn it into a 416. Several ranges, or what is no range, get the whole file."""
    wanted = request.one(b"range")
    match = _RANGE.fullmatch(wanted) if wanted is not None else None
    if match is None or not _range_holds(request, resource, decision, now_s):
        return
    size = decision.length
    if match.group(3) is not None:
        suffix = _position(match.group(3))
        if suffix and not size:
            return  # satisfied by an empty file, which no Content-Range can say
        first, last = max(size - suffix, 0), size - 1 if suffix else -1
    else:
        first = _position(match.group(1))
        last = _position(match.group(2)) if match.group(2) else _FAR
        if last < first:
            return
    if first >= size or last < 0:
        decision.status, decision.length = 416, 0
        return
    decision.status, decision.offset = 206, first
    decision.length = min(last, size - 1) - first + 1


def _position(digits: bytes) -> int:
    return _FAR if len(digits) > 18 else int(digits)


class ChunkedBody:
    """Reads a chunked body for its end; llhttp does. What it carries is discarded.

    `limit`: octets of the body, framing and trailers included. Ends in Refusal(413) or Refusal(400).
    """

    _HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._complete = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self._HEAD)

    def on_message_complete(self) -> None:
        """Last octet seen (an event of llhttp)."""
        self._complete = True

    def feed(self, data: bytes) -> tuple[int, bool]:
        """Octets of `data` that belong to the body, and whether it has ended with them.

        llhttp does not say where a message ended. A chunked one always ends with a line feed, so feeding up to each
        line feed finds the place.
        """
        used = 0
        while used < len(data):
            end = data.find(b"\n", used) + 1 or len(data)
            self._left -= end - used
            if self._left < 0:
                raise Refusal(413, close=True)
            try:
                self._parser.feed_data(data[used:end])
            except httptools.HttpParserError:
                raise Refusal(400, close=True) from None
            used = end
            if self._complete:
                return used, True
        return used, False

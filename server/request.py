# SPDX-License-Identifier: MIT
"""From the bytes of a request head to a decision: what is answered, and how the connection goes on.

`parse` has llhttp take the head apart and then judges what llhttp leaves to its user; `decide` applies the conditions
of RFC 9110 section 13.2.2, in that order, to a resource. Both are pure: no file, no socket, no clock. Only unseen heads
come here; headtable.pyx remembers the outcome.

Read first: RFC 9112 section 2.2, 3 and 6; RFC 9110 section 7.2 (Host), 10.1.1 (Expect), 13 (conditions), 14 (ranges).
Above: decide.pyx, plainheads.pyx. Below: files.py, response.py.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

import httptools

from ustack.server.files import NOTHING, Identity, Resource, Variant, describe
from ustack.server.response import ALLOWED_METHODS, CLOSE, PERSIST, PERSIST_ANNOUNCED, Refusal, response_head

# The registered methods that people send (RFC 9110 section 9, RFC 5789): known, but no file allows them. Every other
# method is not implemented.
_KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
# Longer than every method that is registered: nothing is waited for behind so many characters (RFC 9112 section 3).
MAX_METHOD_BYTES = 32
_LONG_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{33}")
# uri-host [":" port]. RFC 3986 section 3.2.2 lets a registered name be looked up in the DNS, whose labels are never
# empty (RFC 1034 section 3.5; a final dot is the root's): "..", ".a" and "a..b" name nothing. Empty as a whole is
# another matter, see _check_host.
_LABEL = rb"(?:[A-Za-z0-9_~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_HOST = re.compile(rb"(?:\[([^\]]*)\]|" + _LABEL + rb"(?:\." + _LABEL + rb")*\.?)(?::[0-9]*)?")
_IP_FUTURE = re.compile(rb"[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+")
_IPV6 = re.compile(rb"[0-9A-Fa-f:.]+")
_AUTHORITY_FORM = re.compile(rb".+:[0-9]+")
# A path that is in its normal form as it is, which nearly all are.
_SEGMENT = rb"[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*"
_NORMAL_PATH = re.compile(rb"/(?:" + _SEGMENT + rb"/)*(?:" + _SEGMENT + rb")?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN_SEPARATOR = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_CONDITIONS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"))
# What else makes more of a request for a file than its path, Accept-Encoding and Connection do.
_NOT_PLAIN = _CONDITIONS | {b"range", b"if-range", b"expect"}
# Lists and dates that are longer mean nothing to anybody, and taking them apart costs time for each member.
_MAX_LIST_BYTES = 1024
_MAX_DATE_BYTES = 64
# A header section is remembered up to here: 256 of them are at most 512 KB.
MAX_SECTION_BYTES = 2048
_SLASH = 0x2F

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
        """The members of a list field, over all its lines (RFC 9110 section 5.6.1).

        Raises Refusal(431) for a list that is longer than any honest one.
        """
        values = self.fields.get(name)
        if values is None:
            return []
        if sum(map(len, values)) > _MAX_LIST_BYTES:
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


@dataclass(slots=True)
class Decision:
    """What a request gets: bytes [offset, offset + length) of a variant under a status, with these fields."""

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


def normal_path_bytes() -> bytes:
    """For each byte: may a segment of a path in normal form begin with it (1), may it stand in one (2)?"""
    return bytes(
        (1 if _NORMAL_PATH.fullmatch(b"/%c" % byte) else 0) | (2 if _NORMAL_PATH.fullmatch(b"/a%c" % byte) else 0)
        if byte != _SLASH
        else 0
        for byte in range(256)
    )


def head_in_parts(extension: bytes, connection: int, server_name: bytes) -> list[bytes]:
    """The head of a 200 to a plain request for a file without a .gz, in four parts: between them belong its ETag,
    Last-Modified and Content-Length.

    extension: of the file's name, with its dot; empty for none.
    """
    resource = describe(b"x" + extension, Identity(1, 0x1C0FFEE1, 98_765_432_109_876, 10**18, 0), NOTHING)
    rest = response_head(200, decide(Request(b"GET", b"/", 1, {}), resource, 0).fields, connection, server_name)
    parts = []
    for name, value in (
        (b"ETag", resource.plain.etag),
        (b"Last-Modified", resource.last_modified),
        (b"Content-Length", b"%d" % resource.plain.size),
    ):
        before, found, rest = rest.partition(b"\r\n%b: %b\r\n" % (name, value))
        assert found, f"{name!r} is out of its place"
        parts.append(before + b"\r\n" + name + b": ")
        rest = b"\r\n" + rest
    return [*parts, rest]


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
    if not (_is_host(hosts[0]) if hosts[0] else not request.target.startswith(b"/")):
        raise Refusal(400, close=True)


def _is_host(value: bytes) -> bool:
    """Is it a non-empty uri-host with an optional port?"""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    literal = match.group(1)
    if literal is None or _IP_FUTURE.fullmatch(literal):
        return True
    if not _IPV6.fullmatch(literal):
        return False
    try:
        ipaddress.IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True


def check_expectation(request: Request) -> None:
    """RFC 9110 section 10.1.1: only 100-continue can be met. Raises Refusal(417)."""
    if b"expect" not in request.fields:
        return
    if request.minor >= 1 and {member.lower() for member in request.members(b"expect")} - {b"100-continue"}:
        raise Refusal(417)


def waits_for_continue(request: Request) -> bool:
    """The client wants to see 100 before it sends the body."""
    return request.minor >= 1 and request.has_body and b"expect" in request.fields


def locate(request: Request) -> bytes:
    """The path below the root that the request names: decoded once, relative, without dot or empty segments.

    Raises Refusal: 204 for OPTIONS, 400 for what is no target, 404 for what no path may contain, 405 for a method that
    no file allows.
    """
    target = request.target
    path = target.partition(b"?")[0] if b"?" in target else target
    if request.method in (b"GET", b"HEAD") and b"#" not in target and _NORMAL_PATH.fullmatch(path):
        return path[1:]
    path = _origin_form(request)
    if b"#" in target or _BAD_PERCENT.search(path):
        raise Refusal(400)
    if _HIDDEN_SEPARATOR.search(path):
        raise Refusal(404)
    path = unquote_to_bytes(path)
    if _CONTROL.search(path):
        raise Refusal(400)
    if request.method == b"OPTIONS":
        # RFC 9110 section 9.3.7. What may be done is the same for every path, so the disk is not asked.
        raise Refusal(204, [(b"Allow", ALLOWED_METHODS)])
    if request.method not in (b"GET", b"HEAD"):
        raise Refusal(405, [(b"Allow", ALLOWED_METHODS)])
    return _normalize(path)


def _normalize(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 6.2.2.3 and 5.2.4) and, as file systems do, empty ones.

    Percent-encoding was undone before: %2e is a dot (section 6.2.2.2). What would lead above the root stays there,
    as section 5.2.4 has it.
    """
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    if kept and segments[-1] in (b"", b".", b".."):
        kept.append(b"")
    return b"/".join(kept)


def _origin_form(request: Request) -> bytes:
    """The path of the target in any of the four forms of RFC 9112 section 3.2, still percent-encoded."""
    target = request.target
    if target.startswith(b"/"):
        return target.partition(b"?")[0]
    if request.method == b"CONNECT":
        if not _AUTHORITY_FORM.fullmatch(target) or not _is_host(target):
            raise Refusal(400)
        raise Refusal(405, [(b"Allow", ALLOWED_METHODS)])
    if target == b"*" and request.method == b"OPTIONS":
        return b"/"
    # A userinfo before the host is refused (RFC 9110 section 4.2.4: it hides who is asked), and so are other schemes.
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _is_host(absolute.group(1)):
        raise Refusal(400)
    path = absolute.group(2).partition(b"?")[0]
    return path if path.startswith(b"/") else b"/" + path


def with_slash(request: Request, path: bytes) -> bytes:
    """The Location of a directory that was named without its final slash.

    path: as `locate` gives it. The Location is relative (RFC 9110 section 10.2.2: a URI-reference), a path and no host,
    so that it holds on every name, port and scheme that leads here. It is made from the normal path: of `//host/x`
    as it came, a client would make another host.
    """
    _, mark, query = request.target.partition(b"?")
    return b"/" + quote(path, safe="/~!$&'()*+,;=:@").encode("ascii") + b"/" + mark + query


def accepts_gzip(request: Request) -> bool:
    """Prefer gzip? RFC 9110 section 12.5.3: acceptable, and not less than sending the file as it is."""
    quality: dict[bytes, float] = {}
    if sum(map(len, request.fields.get(b"accept-encoding", ()))) > _MAX_LIST_BYTES:
        return False
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
    variant = resource.plain
    if resource.gzip is not None and accepts_gzip(request):
        variant = resource.gzip
    validators = [(b"ETag", variant.etag), (b"Last-Modified", resource.last_modified)]
    if resource.gzip is not None:
        validators.append((b"Vary", b"Accept-Encoding"))
    status = 0 if _CONDITIONS.isdisjoint(request.fields) else _precondition(request, resource, variant)
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
    if not value or len(value) > _MAX_DATE_BYTES:
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

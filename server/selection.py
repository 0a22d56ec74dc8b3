# SPDX-License-Identifier: MIT
"""What a GET or HEAD gets of the resource that it names: which variant, whether at all, which bytes of it.

`decide` chooses the variant (content negotiation), applies the conditions of RFC 9110 section 13.2.2, in that order,
and then the range. Pure: no file, no socket, no clock. Only unseen heads come here; headtable.pyx remembers the
outcome.

Read first: RFC 9110 section 12.5.3 (Accept-Encoding), 13 (conditions), 14 (ranges).
Above: decide.pyx, plainheads.pyx. Below: request.py, files.py, response.py.
"""

import re
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz

from ustack.server.files import NOTHING, Identity, Resource, Variant, describe
from ustack.server.request import CONDITIONS, MAX_LIST_BYTES, Request
from ustack.server.response import response_head

_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MAX_DATE_BYTES = 64  # one that is longer means nothing to anybody
_FAR = 10**18  # a position beyond every file


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


def decide(request: Request, resource: Resource, now_s: int) -> Decision:
    """What a GET or HEAD of `resource` gets. now_s: wall clock, for the age of a date used as a strong validator."""
    variant = resource.plain
    if resource.gzip is not None and accepts_gzip(request):
        variant = resource.gzip
    validators = [(b"ETag", variant.etag), (b"Last-Modified", resource.last_modified)]
    if resource.gzip is not None:
        validators.append((b"Vary", b"Accept-Encoding"))
    status = 0 if CONDITIONS.isdisjoint(request.fields) else _precondition(request, resource, variant)
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


def accepts_gzip(request: Request) -> bool:
    """Prefer gzip? RFC 9110 section 12.5.3: acceptable, and not less than sending the file as it is."""
    quality: dict[bytes, float] = {}
    if sum(map(len, request.fields.get(b"accept-encoding", ()))) > MAX_LIST_BYTES:
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

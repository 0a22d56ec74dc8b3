# SPDX-License-Identifier: MIT
"""Request heads as text, what is parsed of them, and a resource for which they may ask."""

from email.utils import formatdate

from ustack.server import request as requests
from ustack.server.files import Identity, Resource, Variant

LIMITS = requests.Limits()
MODIFIED_S = 1_700_000_000
NOW_S = MODIFIED_S + 1000
SIZE = 1000


def head(line: str = "GET /a HTTP/1.1", *fields: str, host: str | None = "h") -> bytes:
    lines = [line, *([f"Host: {host}"] if host is not None else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def parse(line: str = "GET /a HTTP/1.1", *fields: str, host: str | None = "h") -> requests.Request:
    return requests.parse(head(line, *fields, host=host), LIMITS)


def resource(*, gzip: bool = False, size: int = SIZE) -> Resource:
    identity = Identity(1, 2, size, MODIFIED_S * 10**9, 5)
    packed = Variant(b"a.gz", Identity(1, 3, 100, MODIFIED_S * 10**9, 5), b"gzip", b'"zip"') if gzip else None
    return Resource(
        plain=Variant(b"a", identity, b"", b'"tag"'),
        gzip=packed,
        gzip_identity=packed.identity if packed else Identity(),
        content_type=b"text/plain; charset=utf-8",
        last_modified_s=MODIFIED_S,
        last_modified=formatdate(MODIFIED_S, usegmt=True).encode(),
    )

# SPDX-License-Identifier: MIT
"""What a request names: from its target to a path below the root, and back to a Location.

    /a/%2e%2e/b?c   ──locate──▶   b   ──with_slash──▶   /b/?c

Pure: whether there is such a file is not asked here. A path that is in its normal form is taken as it is; any other is
decoded once, then rid of dot segments and empty ones, so that none leads above the root.

Read first: RFC 9112 section 3.2 (the four forms of a target); RFC 3986 section 5.2.4, 6.2.2.
Above: decide.pyx, plainheads.pyx. Below: request.py, host.py, response.py.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from ustack.server.host import is_host
from ustack.server.request import Request
from ustack.server.response import ALLOWED_METHODS, Refusal

_AUTHORITY_FORM = re.compile(rb".+:[0-9]+")
# A path that is in its normal form as it is, which nearly all are.
_SEGMENT = rb"[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*"
_NORMAL_PATH = re.compile(rb"/(?:" + _SEGMENT + rb"/)*(?:" + _SEGMENT + rb")?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN_SEPARATOR = re.compile(rb"%2f|%5c|\\", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def normal_path_bytes() -> bytes:
    """For each byte: may a segment of a path in normal form begin with it (1), may it stand in one (2)?"""
    return bytes(
        (1 if _NORMAL_PATH.fullmatch(b"/%c" % byte) else 0) | (2 if _NORMAL_PATH.fullmatch(b"/a%c" % byte) else 0)
        if byte != ord("/")
        else 0
        for byte in range(256)
    )


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
        if not _AUTHORITY_FORM.fullmatch(target) or not is_host(target):
            raise Refusal(400)
        raise Refusal(405, [(b"Allow", ALLOWED_METHODS)])
    if target == b"*" and request.method == b"OPTIONS":
        return b"/"
    # A userinfo before the host is refused (RFC 9110 section 4.2.4: it hides who is asked), and so are other schemes.
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not is_host(absolute.group(1)):
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

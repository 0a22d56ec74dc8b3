# SPDX-License-Identifier: MIT
"""What to ask: a URL, and with it more paths, a method, header fields, as the bytes of whole requests.

It must not: open anything but the files that it is told to read. Above: running, the command line. Below: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
PRINTABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
TARGET = re.compile(r"/[\x21-\x7e]*", re.ASCII)
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
PATHS_MOST = 1 << 20


@dataclass(frozen=True)
class Target:
    """Where the server is, and the path of the URL. host: as in the URL, for the Host field."""

    host: str
    address: str
    port: int
    path: str

    @property
    def host_field(self) -> str:
        """RFC 9110 section 7.2: the port, too, unless it is the scheme's own."""
        return self.host if self.port == 80 else f"{self.host}:{self.port}"


def parse_url(url: str) -> Target:
    """http://ADDRESS[:PORT]/PATH. Raises ValueError for what is none: this stack has no resolver and no TLS."""
    if not PRINTABLE.fullmatch(url):  # the standard library would take some of these out in silence
        raise ValueError(f"bad URL {url!r}: letters, digits and signs without spaces (write %20)")
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"{url}: must begin with http://")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"{url}: no user and no fragment")
    host = parts.hostname or ""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", host, re.ASCII) or any(int(part) > 255 for part in host.split(".")):
        raise ValueError(f"{url}: the host must be an IPv4 address")
    port = parts.port or 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, host, port, checked_path(path))


def checked_path(path: str) -> str:
    """A request target in origin form (RFC 9112 section 3.2.1). Raises ValueError for what is none."""
    if not TARGET.fullmatch(path):
        raise ValueError(f"bad path {path!r}: it begins with / and has no space (write %20)")
    return path


def read_paths(text: str) -> list[str]:
    """A path each line; empty lines and those that begin with # are none. Raises ValueError."""
    paths = [checked_path(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not 0 < len(paths) <= PATHS_MOST:
        raise ValueError(f"{len(paths)} paths: 1 to {PATHS_MOST:,}")
    return paths


def checked_header(line: str) -> tuple[str, str]:
    """`Name: value`. Raises ValueError for what would not be one field of a head."""
    name, colon, value = line.partition(":")
    value = value.strip()
    if not colon or not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
        raise ValueError(f"bad header {line!r}: NAME: VALUE")
    return name, value


def requests_of(
    target: Target,
    paths: Sequence[str],
    *,
    method: str = "GET",
    headers: Iterable[str] = (),
    body: bytes = b"",
    keep_alive: bool = True,
) -> list[bytes]:
    """The bytes of one request for each path."""
    if not TOKEN.fullmatch(method):
        raise ValueError(f"bad method {method!r}")
    given = [checked_header(line) for line in headers]
    names = {name.lower() for name, _ in given}
    fields = [] if "host" in names else [("Host", target.host_field)]
    fields += given
    if "connection" not in names and not keep_alive:
        fields.append(("Connection", "close"))
    if (body or method in ("POST", "PUT", "PATCH")) and not names & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(body))))
    tail = "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return [f"{method} {path} HTTP/1.1\r\n{tail}".encode("latin-1") + body for path in paths]


def bodies_of(directory: Path, paths: Iterable[str]) -> list[tuple[int, int | None]]:
    """Length and hash of the file below `directory` that each path names. Raises OSError."""
    from ustack.tools.load.responses import hash_of

    found: dict[str, tuple[int, int]] = {}
    for path in paths:
        if path not in found:
            octets = (directory / unquote(path.partition("?")[0]).lstrip("/")).read_bytes()
            found[path] = len(octets), hash_of(octets)
    return [found[path] for path in paths]

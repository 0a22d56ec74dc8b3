# SPDX-License-Identifier: MIT
"""Which path a request names: the four forms of a target (RFC 9112 section 3.2), decoded once and in normal form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.server.heads import parse
from ustack.server.response import Refusal
from ustack.server.target import locate, with_slash


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", b""),
        ("/a/b.txt", b"a/b.txt"),
        ("/a/", b"a/"),
        ("/a?b=/../c%zz", b"a"),
        ("/%41%20b", b"A b"),
        ("/%252e%252e/x", b"%2e%2e/x"),
        ("/caf%C3%A9", "café".encode()),
        ("/..a/...", b"..a/..."),
        ("http://h/x?y", b"x"),
        ("HTTPS://h:443", b""),
        ("http://h?q", b""),
        ("/../etc/passwd", b"etc/passwd"),
        ("/a/../../x", b"x"),
        ("/a/..", b""),
        ("/a/b/..", b"a/"),
        ("/./a", b"a"),
        ("/a/.", b"a/"),
        ("/.", b""),
        ("/..", b""),
        ("/%2e%2e/etc/passwd", b"etc/passwd"),
        ("/a/%2E./x", b"x"),
        ("/a/.%2e/x/", b"x/"),
        ("//h/x", b"h/x"),
        ("/a//b", b"a/b"),
        ("/a//", b"a/"),
        ("//", b""),
        ("/a//../b", b"b"),
        ("/a/b/c/./../../g", b"a/g"),
        ("/.../..a", b".../..a"),
        ("http://h/../x", b"x"),
    ],
)
def test_targets(target: str, path: bytes) -> None:
    assert locate(parse(f"GET {target} HTTP/1.1")) == path


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/a%2fb", 404),
        ("/..%2f..%2fetc/passwd", 404),
        ("/%2e%2e%2fetc/passwd", 404),
        ("/..%5c..%5cx", 404),
        ("/a%5cb", 404),
        ("/a\\b", 404),
        ("/a%00.txt", 400),
        ("/a%0d%0ab", 400),
        ("/a%7f", 400),
        ("/%zz", 400),
        ("/a%4", 400),
        ("/a#b", 400),
        ("/a?b#c", 400),
        ("*", 400),
        ("ftp://h/x", 400),
        ("http://u@h/x", 400),
        ("http://u:p@h:80/x", 400),
        ("http://@h/x", 400),
        ("http://../x", 400),
        ("http:///x", 400),
        ("rtsp://h/x", 400),
        ("http://:80/x", 400),
    ],
)
def test_targets_that_name_no_file(target: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        locate(parse(f"GET {target} HTTP/1.1"))
    assert (caught.value.status, caught.value.close) == (status, False)


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "", "..."]), max_size=8), st.booleans())
def test_no_path_leads_above_the_root(segments: list[str], encoded: bool) -> None:
    """The oracle is a walk that knows no rule but that `..` from the root is the root."""
    text = "/" + "/".join(segments)
    place: list[str] = []
    for segment in segments:
        if segment == "..":
            place = place[:-1]
        elif segment not in ("", "."):
            place = [*place, segment]
    is_directory = not segments or segments[-1] in ("", ".", "..")
    expected = "/".join(place) + ("/" if place and is_directory else "")
    target = text.replace(".", "%2E") if encoded else text
    assert locate(parse(f"GET {target} HTTP/1.1")) == expected.encode()


def refusal_of(line: str, *, host: str = "h") -> Refusal:
    with pytest.raises(Refusal) as caught:
        locate(parse(f"{line} HTTP/1.1", host=host))
    return caught.value


@pytest.mark.parametrize("line", ["POST /a", "PUT /a", "DELETE /a", "TRACE /a", "CONNECT h:80", "POST /./a"])
def test_methods_that_no_file_allows(line: str) -> None:
    assert (refusal_of(line).status, refusal_of(line).fields) == (405, [(b"Allow", b"GET, HEAD, OPTIONS")])


@pytest.mark.parametrize("line", ["OPTIONS *", "OPTIONS /", "OPTIONS /a?b", "OPTIONS http://h", "OPTIONS http://h/a"])
def test_options_are_told(line: str) -> None:
    """RFC 9110 section 9.3.7."""
    assert (refusal_of(line).status, refusal_of(line).fields) == (204, [(b"Allow", b"GET, HEAD, OPTIONS")])


@pytest.mark.parametrize(
    "line", ["CONNECT u@h:80", "CONNECT h", "CONNECT /a", "CONNECT :80", "OPTIONS **", "GET *", "GET h"]
)
def test_targets_that_have_none_of_the_four_forms(line: str) -> None:
    assert refusal_of(line).status == (405 if line == "CONNECT /a" else 400)


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/a%20b?c=d", b"/a%20b/?c=d"),
        ("http://h/a", b"/a/"),
        ("//evil.example/a", b"/evil.example/a/"),
        ("/./x/../a?//b", b"/a/?//b"),
        ("/%c3%a9", b"/%C3%A9/"),
    ],
)
def test_a_redirect_is_a_path_and_never_another_host(target: str, location: bytes) -> None:
    request = parse(f"GET {target} HTTP/1.1")
    assert with_slash(request, locate(request)) == location

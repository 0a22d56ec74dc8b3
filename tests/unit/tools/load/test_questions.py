# SPDX-License-Identifier: MIT
"""What goes on the wire, and what is refused before it does."""

from pathlib import Path

import pytest

from ustack.tools.load.questions import bodies_of, checked_header, parse_url, read_paths, requests_of
from ustack.tools.load.responses import hash_of

TARGET = parse_url("http://198.18.0.2/a?b=c")


def test_a_url_is_taken_apart() -> None:
    assert (TARGET.address, TARGET.port, TARGET.path, TARGET.host_field) == ("198.18.0.2", 80, "/a?b=c", "198.18.0.2")
    other = parse_url("http://10.0.0.1:8080")
    assert (other.port, other.path, other.host_field) == (8080, "/", "10.0.0.1:8080")


@pytest.mark.parametrize(
    "url",
    ["https://198.18.0.2/", "http://example.org/", "http://[::1]/", "http://u@198.18.0.2/", "http://198.18.0.2/a b",
     "http://198.18.0.256/", "198.18.0.2/", "http://198.18.0.2/#x", "http://198.18.0.2/\r\nX: y"],
)  # fmt: skip
def test_what_is_no_url_for_this_client_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(url)


def test_a_request_is_whole() -> None:
    assert requests_of(TARGET, ["/a", "/b"]) == [
        b"GET /a HTTP/1.1\r\nHost: 198.18.0.2\r\n\r\n",
        b"GET /b HTTP/1.1\r\nHost: 198.18.0.2\r\n\r\n",
    ]
    assert requests_of(TARGET, ["/"], method="POST", body=b"x=1", headers=["X-A:  b "], keep_alive=False) == [
        b"POST / HTTP/1.1\r\nHost: 198.18.0.2\r\nX-A: b\r\nConnection: close\r\nContent-Length: 3\r\n\r\nx=1"
    ]
    assert requests_of(TARGET, ["/"], headers=["host: other", "Connection: x"], keep_alive=False) == [
        b"GET / HTTP/1.1\r\nhost: other\r\nConnection: x\r\n\r\n"
    ]


@pytest.mark.parametrize("line", ["nonsense", ": x", "a b: c", "A: b\r\nC: d", "A\r\n: b", "A: \x00"])
def test_a_header_is_one_field(line: str) -> None:
    with pytest.raises(ValueError, match="bad header"):
        checked_header(line)


def test_a_method_is_a_token() -> None:
    with pytest.raises(ValueError, match="bad method"):
        requests_of(TARGET, ["/"], method="GET /x HTTP/1.1\r\n")


def test_paths_come_from_a_file() -> None:
    assert read_paths("# mine\n/a\n\n /b \n") == ["/a", "/b"]
    for text in ("", "a", "/a b"):
        with pytest.raises(ValueError, match=r"."):
            read_paths(text)


def test_bodies_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"hello")
    assert bodies_of(tmp_path, ["/a%20b?x", "/a%20b"]) == [(5, hash_of(b"hello"))] * 2
    with pytest.raises(OSError, match="none"):
        bodies_of(tmp_path, ["/none"])

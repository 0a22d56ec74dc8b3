# SPDX-License-Identifier: MIT
"""Programs that nobody here wrote, against `ustack serve` over veth and TAP: right answers are asserted, no speed."""

import contextlib
import hashlib
import http.client
import re
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ustack.tools.generators import WRK_REPORT, parse_wrk

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PAGES = 50


# ---------------------------------------------------------------- curl


def test_curl_gets_100_mib_intact(served: Any, site: Any) -> None:
    curl = served.start("curl", "-sS", served.url("big.bin"))
    received = hashlib.sha256()
    while piece := curl.stdout.read(1 << 20):
        received.update(piece)
    assert (curl.wait(60), received.hexdigest()) == (0, site.digests["big.bin"])


def test_curl_gets_two_large_files_at_once_over_one_connection_each(served: Any, site: Any) -> None:
    curls = [served.start("curl", "-sS", served.url("big.bin")) for _ in range(2)]
    digests = [hashlib.sha256() for _ in curls]
    open_pipes = dict(zip((curl.stdout for curl in curls), digests, strict=True))
    while open_pipes:
        for pipe in select.select(list(open_pipes), [], [], 60)[0]:
            piece = pipe.read1(1 << 20)
            if piece:
                open_pipes[pipe].update(piece)
            else:
                del open_pipes[pipe]
    assert [digest.hexdigest() for digest in digests] == [site.digests["big.bin"]] * 2
    assert [curl.wait(60) for curl in curls] == [0, 0]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        ("0-99", 0, 99),
        ("1000-", 1000, 10485759),
        ("-500", 10485260, 10485759),
        ("5000000-6999999", 5000000, 6999999),
        ("10485759-10485759", 10485759, 10485759),
        ("10485000-99999999", 10485000, 10485759),
    ],
)
def test_curl_range(served: Any, site: Any, asked: str, first: int, last: int) -> None:
    output = served.get("ten.bin", "-r", asked, "-i")
    head, _, body = output.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert f"content-range: bytes {first}-{last}/10485760".encode() in head.lower()
    assert body == site.body("ten.bin")[first : last + 1]


def test_curl_range_beyond_the_end_is_not_satisfiable(served: Any) -> None:
    output = served.get("512.bin", "-r", "512-", "-i").lower()
    assert output.startswith(b"http/1.1 416 ")
    assert b"content-range: bytes */512\r\n" in output


def test_curl_resumes_a_partial_file(served: Any, site: Any, tmp_path: Any) -> None:
    part = tmp_path / "ten.bin"
    part.write_bytes(site.body("ten.bin")[:3_000_001])
    served.get("ten.bin", "-C", "-", "-o", str(part))
    assert hashlib.sha256(part.read_bytes()).hexdigest() == site.digests["ten.bin"]


def _fields(served: Any, path: str) -> dict[str, str]:
    lines = served.get(path, "-I").decode().split("\r\n")
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}


@pytest.mark.parametrize("path", ["512.bin", "one.bin"])
def test_curl_condition_is_answered_with_304(served: Any, path: str) -> None:
    fields = _fields(served, path)
    for condition in (f"If-None-Match: {fields['etag']}", f"If-Modified-Since: {fields['last-modified']}"):
        output = served.get(path, "-i", "-H", condition)
        assert output.startswith(b"HTTP/1.1 304 "), condition
        assert output.endswith(b"\r\n\r\n"), "a 304 has no body"


def test_curl_condition_that_fails_brings_the_file(served: Any, site: Any) -> None:
    for condition in ('If-None-Match: "another"', "If-Modified-Since: Thu, 01 Jan 1998 00:00:00 GMT"):
        assert served.get("512.bin", "-H", condition) == site.body("512.bin")


def test_curl_head_has_the_length_and_no_body(served: Any) -> None:
    output = served.get("big.bin", "-I")
    assert output.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 104857600\r\n" in output.lower()


def test_curl_reuses_one_connection(served: Any, site: Any) -> None:
    words = [served.url(f"pages/{number}.txt") for number in range(PAGES)]
    report = served.run("curl", "-sS", "-w", "%{stderr}%{num_connects} ", *words)
    assert report.stderr.split() == [b"1"] + [b"0"] * (PAGES - 1)
    assert report.stdout == b"".join(site.body(f"pages/{number}.txt") for number in range(PAGES))


def test_curl_1000_transfers_in_parallel(served: Any, tmp_path: Any, site: Any) -> None:
    """curl keeps at most 300 of them going at once; ab and the test after it have all 1,000 open."""
    served.run(
        *("curl", "-sS", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "1000"),
        *("-o", str(tmp_path / "#1"), served.url("16k.bin?[1-1000]")),
    )
    bodies = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 1000
    assert bodies == {site.body("16k.bin")}


def test_1000_connections_at_once(served: Any, site: Any) -> None:
    """All are established before the first asks, all have asked before the first answer is read."""
    body = site.body("16k.bin")
    with contextlib.ExitStack() as sockets:
        with served.inside():
            clients = [
                sockets.enter_context(socket.create_connection((served.address, 80), timeout=60)) for _ in range(1000)
            ]
        for client in clients:
            client.sendall(b"GET /16k.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            with client.makefile("rb") as stream:
                assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
                assert stream.read().endswith(b"\r\n\r\n" + body)


# ---------------------------------------------------------------- pipelining


def _pipeline() -> bytes:
    return b"".join(f"GET /pages/{number}.txt HTTP/1.1\r\nHost: x\r\n\r\n".encode() for number in range(PAGES))


@pytest.fixture
def stream(served: Any) -> Iterator[socket.socket]:
    with served.inside():
        client = socket.create_connection((served.address, 80), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client:
        yield client


def _expect_pages(client: socket.socket, site: Any) -> None:
    with client.makefile("rb") as responses:
        for number in range(PAGES):
            assert responses.readline() == b"HTTP/1.1 200 OK\r\n"
            fields = http.client.parse_headers(responses)
            assert responses.read(int(fields["Content-Length"])) == site.body(f"pages/{number}.txt"), number


def test_50_pipelined_requests_in_one_write(stream: socket.socket, site: Any) -> None:
    stream.sendall(_pipeline())
    _expect_pages(stream, site)


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_50_pipelined_requests_cut_anywhere(stream: socket.socket, site: Any, step: int) -> None:
    requests = _pipeline()
    for start in range(0, len(requests), step):
        stream.sendall(requests[start : start + step])
    _expect_pages(stream, site)


def test_half_a_head_waits_for_its_rest(stream: socket.socket, site: Any) -> None:
    """The answers to the whole requests come before the half one is finished."""
    requests = _pipeline()
    cut = requests.index(b"GET /pages/49.txt") + 10
    stream.sendall(requests[:cut])
    with stream.makefile("rb") as responses:
        for number in range(PAGES - 1):
            responses.readline()
            assert len(responses.read(int(http.client.parse_headers(responses)["Content-Length"]))) == len(
                site.body(f"pages/{number}.txt")
            )
        stream.sendall(requests[cut:])
        assert responses.readline() == b"HTTP/1.1 200 OK\r\n"


def test_pipelined_requests_with_a_half_close_are_all_answered(stream: socket.socket, site: Any) -> None:
    stream.sendall(_pipeline())
    stream.shutdown(socket.SHUT_WR)
    _expect_pages(stream, site)
    assert stream.recv(1) == b""


# ---------------------------------------------------------------- http.client


@pytest.fixture
def client(served: Any) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(served.address, timeout=60)
    with served.inside():
        connection.connect()
    yield connection
    connection.close()


def test_http_client_keeps_its_connection(client: http.client.HTTPConnection, site: Any) -> None:
    port = client.sock.getsockname()[1]
    for path in ["512.bin", "one.bin", "pages/7.txt"] * 20:
        client.request("GET", f"/{path}")
        response = client.getresponse()
        assert (response.status, response.read()) == (200, site.body(path))
        assert not response.will_close
    assert client.sock.getsockname()[1] == port


def test_http_client_head_then_get_on_one_connection(client: http.client.HTTPConnection, site: Any) -> None:
    for path in ("512.bin", "one.bin"):
        client.request("HEAD", f"/{path}")
        head = client.getresponse()
        assert (head.status, head.read()) == (200, b"")
        client.request("GET", f"/{path}")
        response = client.getresponse()
        assert head.getheader("Content-Length") == response.getheader("Content-Length")
        assert response.read() == site.body(path)


def test_http_client_goes_on_after_an_error(client: http.client.HTTPConnection, site: Any) -> None:
    for path, status in (("/nothing-there", 404), ("/pages/../../etc/passwd", 404), ("/512.bin", 200)):
        client.request("GET", path)
        response = client.getresponse()
        response.read()
        assert response.status == status, path


def test_http_client_asks_for_close(client: http.client.HTTPConnection, site: Any) -> None:
    client.request("GET", "/one.bin", headers={"Connection": "close"})
    response = client.getresponse()
    assert response.will_close
    assert response.read() == site.body("one.bin")


# ---------------------------------------------------------------- load generators, for their verdict on the answers


@pytest.mark.parametrize(("path", "connections"), [("512.bin", 64), ("one.bin", 8)])
@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
def test_wrk_finds_no_error(served: Any, tmp_path: Any, path: str, connections: int, close: bool) -> None:
    script = tmp_path / "report.lua"
    script.write_text(WRK_REPORT)
    words = ["wrk", "-t1", f"-c{connections}", "-d1s", "--timeout", "20s", "-s", str(script)]
    words += ["-H", "Connection: close"] * close
    output = served.run(*words, served.url(path)).stdout.decode()
    assert not parse_wrk(output).errors
    assert "Socket errors" not in output
    assert "Non-2xx" not in output


@pytest.mark.parametrize(
    ("options", "requests"),
    [(("-k", "-c", "50"), 5000), (("-c", "50"), 2000), (("-c", "1000"), 2000), (("-k", "-c", "1000"), 5000)],
)
def test_ab_finds_no_error(served: Any, options: tuple[str, ...], requests: int) -> None:
    report = served.run("ab", "-q", "-r", "-s", "60", "-n", str(requests), *options, served.url("512.bin"))
    found = dict(re.findall(r"^([A-Za-z0-9 -]+):\s+(\S+)", report.stdout.decode(), re.MULTILINE))
    assert found["Complete requests"] == str(requests)
    assert found["Failed requests"] == "0"
    assert "Non-2xx responses" not in found
    assert found["HTML transferred"] == str(512 * requests)
    if "-k" in options:
        assert found["Keep-Alive requests"] == str(requests)


def test_python_in_a_process_of_its_own(served: Any, site: Any) -> None:
    """urllib as a script would use it: nothing of this process is involved."""
    script = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())"
    assert served.run(sys.executable, "-c", script, served.url("one.bin")).stdout == site.body("one.bin")

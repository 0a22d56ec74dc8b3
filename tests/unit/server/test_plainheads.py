# SPDX-License-Identifier: MIT
"""Heads that are decided without Python get, byte for byte, what decide.pyx decides for them."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ustack.buf import lent
from ustack.server import request as requests
from ustack.server.http import HttpServer
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, STACK_ADDRESS

WALL_S = 1_700_000_000
NAMES = {
    "index.html": 4,
    "text.txt": 4,
    "no-extension": 9,
    "empty.css": 0,
    "inline.js": 4096,  # the largest that is copied behind its head
    "lent.js": 4097,
    "copied.bin": 49152,  # the largest that is copied at all
    "mapped.bin": 49153,
    "UPPER.TXT": 5,
    "a.tar.gz": 7,
    "odd~!$&'()*+,;=:@-_.svg": 6,
    "long.extension-of-many-characters": 3,
    ".hidden": 3,
    "..a": 3,
    "a..": 3,
    "sub/index.html": 11,
    "sub/deep/x.html": 12,
    "packed.css": 400,
    "stale.css": 401,
}


def fill(root: Path) -> None:
    for number, (name, size) in enumerate(NAMES.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(at * 7 + number & 0xFF for at in range(size)))
        os.utime(path, ns=(0, (number * 40_000_003 if number % 3 else WALL_S) * SECOND + number))
    for name, age_s in (("packed.css", 0), ("stale.css", 3600)):
        path = root / f"{name}.gz"
        path.write_bytes(gzip.compress(b"a {}" * 50))
        modified_ns = (root / name).stat().st_mtime_ns
        os.utime(path, ns=(0, modified_ns - age_s * SECOND))
    os.utime(root / "text.txt", ns=(0, -SECOND))
    (root / "bare").mkdir()
    (root / "inside").symlink_to("text.txt")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nothing")
    os.mkfifo(root / "pipe")


class Way:
    """A server, and a client that asks one request after the other, on one connection as long as it lasts."""

    def __init__(self, root: Path, log: Path, pair: Pair | None = None, **options: Any) -> None:
        self.pair = pair or Pair()
        start_ns = self.pair.now_ns
        self.log = log
        self.server = HttpServer(
            root,
            access_log=log,
            hash_key=b"0123456789abcdef",
            wall_clock=lambda: WALL_S * SECOND + self.pair.now_ns - start_ns,
            **options,
        )
        self.pair.a.listen(80, application=self.server)
        self.connection: Any = None
        self.expected_errors = 0

    def ask(self, head: bytes) -> bytes:
        """All that comes back at once, and `|` if the connection ended with it."""
        if self.connection is None:
            self.connection = self.pair.b.connect(STACK_ADDRESS, 80, wait=False)
            self.pair.pump()
        self.connection.send(head)
        self.pair.pump()
        received = b""
        try:
            while part := self.connection.receive(1 << 20, timeout=0):
                received += part
                self.pair.pump()
        except BlockingIOError:
            return received
        except OSError as error:
            received += type(error).__name__.encode()
        self.leave()
        return received + b"|"

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            self.pair.pump()

    def plain(self) -> int:
        return int(self.server.stats()["heads_plain"])

    def finish(self) -> None:
        self.leave()
        self.pair.advance(100 * SECOND)
        counts = self.server.stats()
        self.server.close()
        assert counts["internal_errors"] == self.expected_errors
        assert counts["connections_open"] == 0

    def close(self) -> None:
        self.finish()
        self.pair.close()


class Both:
    """The same requests for two servers of the same files: one may decide plain heads without Python, one may not."""

    def __init__(self, root: Path, logs: Path, **options: Any) -> None:
        pairs = [Pair(), Pair()]  # before any server: each looks for what the process has leaked since
        self.ways = [
            Way(root, logs / f"log-{sections}", pair, max_header_sections=sections, **options)
            for sections, pair in zip((256, 0), pairs, strict=True)
        ]
        self.in_step = True
        """Both have been asked the same. Not so where a time limit cut a test off between the two: one has counted a
        request more then, which is no difference between the ways."""

    def ask(self, head: bytes) -> bytes:
        self.in_step = False
        first, second = (way.ask(head) for way in self.ways)
        self.in_step = True
        assert first == second, head
        return first

    def ask_plain(self, target: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
        """Ask for one target with a header section that is known by then; it must be decided without Python."""
        section = "".join(f"{field}\r\n" for field in ("Host: h", *fields)) + "\r\n"
        before = self.ways[0].plain()
        found = b""
        for number, asked in enumerate(("/text.txt?a", "/text.txt?b", target, f"{target}?again")):
            known = self.ways[0].plain()
            found = self.ask(f"{method} {asked} HTTP/{version}\r\n{section}".encode())
            if number == 3:
                assert self.ways[0].plain() == known + 1, target
        assert self.ways[0].plain() > before
        return found

    def check(self) -> None:
        """What the servers counted and hold is the same, and so are their logs."""
        counts = [way.server.stats() for way in self.ways]
        assert counts[1]["heads_plain"] == 0
        assert counts[0]["heads_asked"] <= counts[1]["heads_asked"]
        for found in counts:
            for name in ("heads_plain", "heads_asked", "hand_overs", "gil_taken"):
                del found[name]
        assert counts[0] == counts[1]
        logs = []
        for way in self.ways:
            way.server.housekeeping()
            logs.append(way.log.read_bytes())
        assert logs[0] == logs[1]

    def close(self) -> None:
        try:
            if self.in_step:
                self.check()
        finally:
            for way in self.ways:
                way.finish()
            for way in self.ways:
                way.pair.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    fill(root)
    return root


@pytest.fixture
def make_both(root: Path, tmp_path: Path) -> Iterator[Callable[..., Both]]:
    alive = lent.alive()
    made: list[Both] = []

    def make(**options: Any) -> Both:
        made.append(Both(root, tmp_path, **options))
        return made[-1]

    yield make
    for both in made:
        both.close()
    assert lent.alive() == alive


@pytest.fixture
def both(make_both: Callable[..., Both]) -> Both:
    return make_both()


# ---------------------------------------------------------------- one by one


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ["", "sub/", *NAMES, "missing", "bare", "inside"])
def test_every_kind_of_file(both: Both, name: str, method: str) -> None:
    slowly = {".hidden", "..a", "text.txt", "inside", "long.extension-of-many-characters", "mapped.bin", "bare"}
    if name in slowly:  # no normal path, a time before 1970, too long, a directory: the general way
        section = b"Host: h\r\nAccept: */*\r\n\r\n"
        for number in range(4):
            both.ask(b"%b /%b?%d HTTP/1.1\r\n%b" % (method.encode(), name.encode(), number, section))
    else:
        found = both.ask_plain(f"/{name}", "Accept: */*", method=method)
        assert found.startswith(b"HTTP/1.1 404" if name == "missing" else b"HTTP/1.1 200")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("name", ["packed.css", "stale.css", "inline.js", "missing"])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Accept-Encoding: gzip",),
        ("Accept-Encoding: gzip;q=0",),
        ("Connection: keep-alive",),
        ("Connection: close",),
        ("Connection: x, Close", "Accept-Encoding: *"),
        ("Referer: http://h/\\\x22\xe9", "User-Agent: " + "a" * 1500),
    ],
)
def test_fields_that_a_section_is_remembered_for(both: Both, name: str, fields: tuple[str, ...], version: str) -> None:
    section = "".join(f"{field}\r\n" for field in ("Host: h", *fields)).encode("latin-1") + b"\r\n"
    for number in range(5):
        found = both.ask(b"GET /%b?%d HTTP/%b\r\n%b" % (name.encode(), number, version.encode(), section))
    assert both.ways[0].plain() > 0
    assert (b"Content-Encoding: gzip" in found) == (
        name == "packed.css" and any(field.endswith(("gzip", "*")) for field in fields)
    )
    assert (b"Vary: Accept-Encoding" in found) == (name == "packed.css")


@pytest.mark.parametrize(
    "field",
    [
        "If-None-Match: *",
        'If-Match: "x"',
        "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT",
        "If-Unmodified-Since: Tue, 14 Nov 2017 22:13:20 GMT",
        "Range: bytes=0-1",
        "If-Range: x",
        "Expect: 100-continue",
        "Expect: x",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Host: again",
        "X: \x01",
        "X : y",
        " folded",
        "Connection: " + "a," * 600,
    ],
)
def test_sections_that_decide_more_are_never_plain(both: Both, field: str) -> None:
    for number in range(4):
        both.ask(f"GET /inline.js?{number} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n".encode("latin-1"))
        for way in both.ways:
            way.leave()
    assert both.ways[0].plain() == 0


@pytest.mark.parametrize("host", [b"Host: ", b"Host: ..", b"Host: [::1", b"Host: [::1]:80", b"Host: h:80", b"X: h"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_host_decides_as_ever(both: Both, host: bytes, version: bytes) -> None:
    statuses = {
        both.ask(b"GET /inline.js?%d HTTP/%b\r\n%b\r\n\r\n" % (number, version, host)).split(b" ")[1]
        for number in range(4)
    }
    legal = host in (b"Host: [::1]:80", b"Host: h:80") or (host == b"X: h" and version == b"1.0")
    assert statuses == {b"200" if legal else b"400"}
    assert (both.ways[0].plain() > 0) == legal


@pytest.mark.parametrize(
    "line",
    [
        b"GET //a HTTP/1.1",
        b"GET /./a HTTP/1.1",
        b"GET /a/../text.txt HTTP/1.1",
        b"GET /%74ext.txt HTTP/1.1",
        b"GET /text.txt#x HTTP/1.1",
        b"GET /text.txt?#x HTTP/1.1",
        b"GET /a\\b HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET http://h/text.txt HTTP/1.1",
        b"GET text.txt HTTP/1.1",
        b"GET  /text.txt HTTP/1.1",
        b"GET /text.txt  HTTP/1.1",
        b"GET /text.txt HTTP/1.2",
        b"GET /text.txt HTTP/2.0",
        b"GET /text.txt HTTP/1.1 ",
        b"GET /text.txt",
        b"get /text.txt HTTP/1.1",
        b"GET\t/text.txt HTTP/1.1",
        b"PUT /text.txt HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1",
        b"GET /" + b"a/" * 2500 + b" HTTP/1.1",
        b"GET /outside HTTP/1.1",
        b"GET /dangling HTTP/1.1",
        b"GET /pipe HTTP/1.1",
        b"GET /sub HTTP/1.1",
        b"GET /bare/ HTTP/1.1",
        b"GET /missing/ HTTP/1.1",
    ],
)
def test_request_lines_that_are_not_plain(both: Both, line: bytes) -> None:
    for number in range(3):
        both.ask(b"GET /inline.js?%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
    before = both.ways[0].plain()
    assert before > 0
    both.ask(line + b"\r\nHost: h\r\n\r\n")
    assert line.startswith(b"GET /dangling") or both.ways[0].plain() == before


@pytest.mark.parametrize("query", [b"?", b"?a=b&c/d?e", b'?"', b"?\\", b"?%", b"?" + b"q" * 1200])
def test_queries_decide_nothing_and_are_logged_alike(both: Both, query: bytes) -> None:
    for number in range(3):
        assert both.ask(b"GET /inline.js%b%d HTTP/1.1\r\nHost: h\r\n\r\n" % (query, number)).startswith(b"HTTP/1.1 200")


def test_changes_on_the_disk_are_seen_alike(make_both: Callable[..., Both], root: Path) -> None:
    both = make_both()
    path = root / "changing.txt"
    number = 0

    def ask() -> bytes:
        nonlocal number
        number += 1
        for way in both.ways:
            way.pair.advance(MILLISECOND)
        return both.ask(b"GET /changing.txt?%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)

    try:
        for _ in range(3):
            assert ask().startswith(b"HTTP/1.1 404")
        path.write_bytes(b"first")
        assert ask().endswith(b"first")
        path.write_bytes(b"second")
        assert ask().endswith(b"second")
        (root / "changing.txt.gz").write_bytes(gzip.compress(b"second"))
        assert b"Vary" in ask()
        (root / "changing.txt.gz").unlink()
        assert b"Vary" not in ask()
        path.unlink()
        assert ask().startswith(b"HTTP/1.1 404")
        assert both.ways[0].plain() > 3
    finally:
        path.unlink(missing_ok=True)
        (root / "changing.txt.gz").unlink(missing_ok=True)


# ---------------------------------------------------------------- bounds


def test_a_section_is_learned_when_it_comes_again(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    original = requests.plain_request

    def counted(section: bytes, *rest: Any) -> Any:
        learned.append(section)
        return original(section, *rest)

    monkeypatch.setattr(requests, "plain_request", counted)
    for number in range(100):
        both.ask(b"GET /inline.js HTTP/1.1\r\nHost: h\r\nX: %d\r\n\r\n" % number)
    assert learned == []
    for number in range(100):
        both.ask(b"GET /inline.js?%d HTTP/1.1\r\nHost: h\r\nX: again\r\n\r\n" % number)
    assert learned == [b"Host: h\r\nX: again\r\n\r\n"]
    assert both.ways[0].plain() == 99


def test_sections_take_turns_in_a_bounded_table(root: Path, tmp_path: Path) -> None:
    """With one slot, the last section that came twice has it; the others are decided by decide.pyx."""
    way = Way(root, tmp_path / "log", max_header_sections=1)
    number = 0
    for section, plain in ((b"A: 1", [0, 1, 1]), (b"A: 2", [0, 1, 1]), (b"A: 1", [0, 1]), (b"A: 1", [1])):
        for expected in plain:
            number += 1
            before = way.plain()
            way.ask(b"GET /inline.js?%d HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % (number, section))
            assert way.plain() - before == expected
    way.close()


def test_heads_of_responses_are_kept_for_a_bounded_number_of_types(make_both: Callable[..., Both], root: Path) -> None:
    both = make_both(max_files=2, max_heads=8)
    names = [f"kind.{number}x" for number in range(100)]
    for name in names:
        (root / name).write_text(name)
    try:
        for _ in range(2):
            for name in names:
                assert both.ask_plain(f"/{name}").endswith(name.encode())
    finally:
        for name in names:
            (root / name).unlink()


def test_a_server_name_that_is_too_long_for_it_is_served_the_general_way(make_both: Callable[..., Both]) -> None:
    both = make_both(server_name="x" * 1100)
    for plain in (0, 3):
        for name in ("inline.js", "lent.js", "empty.css"):
            both.ask(b"GET /%b?%d HTTP/1.1\r\nHost: h\r\n\r\n" % (name.encode(), plain))
        assert both.ways[0].plain() == plain  # the second time, their responses are made


def test_tables_that_are_full_are_full_alike(make_both: Callable[..., Both]) -> None:
    both = make_both(max_files=3, max_heads=5, max_held_bytes=60_000, max_copied_bytes=50_000)
    for _ in range(2):
        for name in NAMES:
            both.ask(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % name.encode())
            both.check()
    assert both.ways[0].plain() > 0


def test_a_file_that_is_asked_for_all_the_time_stays(make_both: Callable[..., Both], root: Path) -> None:
    """Also under ever new heads: what goes is a file that was not asked for since the clock hand came by."""
    both = make_both(max_files=4, checks_per_second=0, revalidate_s=1000)
    hot = root / "hot.txt"
    hot.write_bytes(b"first")
    for number in range(30):
        (root / f"cold{number}.txt").write_bytes(b"c")
    try:
        for number in range(30):
            assert both.ask(b"GET /hot.txt?%d HTTP/1.1\r\nHost: h\r\n\r\n" % number).endswith(b"first")
            both.ask(b"GET /cold%d.txt HTTP/1.1\r\nHost: h\r\n\r\n" % number)
            if number == 9:  # the hand has been round
                hot.write_bytes(b"again")  # seen by nobody who does not open it
        assert both.ways[0].plain() > 50
    finally:
        hot.unlink()
        for number in range(30):
            (root / f"cold{number}.txt").unlink()


@pytest.mark.parametrize("name", ["small.js", "mapped.js"])
@pytest.mark.parametrize(
    ("modified_s", "said"),
    [(15_000_000_000, b"Fri, 11 Apr 2262 23:47:15 GMT"), (-15_000_000_000, b"Tue, 21 Sep 1677 00:12:44 GMT")],
)
def test_a_time_that_nanoseconds_cannot_hold_is_the_last_that_they_can(
    make_both: Callable[..., Both], root: Path, name: str, modified_s: int, said: bytes
) -> None:
    both = make_both()
    path = root / name
    path.write_bytes(b"x" * (10 if name == "small.js" else 60_000))
    try:
        os.utime(path, (0, modified_s))
        if abs(path.stat().st_mtime_ns) < 1 << 63:
            pytest.skip("the file system cannot hold it either")
        for number in range(3):
            found = both.ask(b"GET /%b?%d HTTP/1.1\r\nHost: h\r\n\r\n" % (name.encode(), number))
            assert found.startswith(b"HTTP/1.1 200")
            assert b"Last-Modified: %b\r\n" % said in found
        assert both.ways[0].plain() > 0
    finally:
        path.unlink()


def test_a_line_that_the_log_has_no_room_for_is_counted_each_time(make_both: Callable[..., Both]) -> None:
    both = make_both(max_response_bytes=1 << 20, max_heads=1000, max_heads_bytes=1 << 24)
    head = b"GET /inline.js?%d" + b"q" * 900 + b" HTTP/1.1\r\nHost: h\r\nReferer: " + b"r" * 700 + b"\r\n\r\n"
    number = 0
    while both.ways[0].server.stats()["log_lost"] == 0:
        number += 1
        both.ask(head % number)
    for _ in range(10):
        both.ask(head % number)
    for way in both.ways:
        way.server.housekeeping()
        counts = way.server.stats()
        assert counts["log_lost"] == 11
        assert counts["log_lines"] + counts["log_lost"] == counts["requests"] == number + 10
    assert both.ways[0].plain() > number


def test_no_memory_for_responses_is_refused_alike(make_both: Callable[..., Both], root: Path) -> None:
    both = make_both(max_response_bytes=1 << 20, max_files=1024, max_heads=0)
    for number in range(300):
        (root / f"filling{number}.js").write_bytes(b"f" * 4096)
    try:
        for number in range(300):
            both.ask(b"GET /filling%d.js HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        both.check()
        assert both.ways[0].plain() > 250
    finally:
        for number in range(300):
            (root / f"filling{number}.js").unlink()


def test_what_a_signal_handler_raises_while_a_section_is_learned_is_not_lost(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(root, tmp_path / "log")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    head = b"GET /inline.js?%d HTTP/1.1\r\nHost: h\r\n\r\n"
    way.ask(head % 0)
    with monkeypatch.context() as patch:
        patch.setattr(requests, "plain_request", interrupted)
        with pytest.raises(KeyboardInterrupt):
            way.ask(head % 1)
    way.pair.pump()
    assert way.connection.receive(1 << 20, timeout=0).startswith(b"HTTP/1.1 200")
    assert way.plain() == 0
    way.ask(head % 2)
    assert way.plain() == 1
    way.close()


@pytest.mark.parametrize(("part", "before"), [("request.plain_request", 1), ("selection.head_in_parts", 2)])
@pytest.mark.parametrize(("error", "counted"), [(AssertionError, 1), (MemoryError, 0)])
def test_a_fault_of_what_prepares_plain_answers_is_counted_and_logged(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    before: int,
    error: type[Exception],
    counted: int,
) -> None:
    """The client is answered the other way and notices nothing; whoever runs the server does."""
    way = Way(root, tmp_path / "log")

    def broken(*_: object) -> None:
        raise error("what must not be")

    head = b"GET /%s?%d HTTP/1.1\r\nHost: h\r\n\r\n"
    for number in range(before):
        way.ask(head % (b"inline.js", number))
    plain = way.plain()
    with monkeypatch.context() as patch:
        patch.setattr(f"ustack.server.{part}", broken)
        assert way.ask(head % (b"index.html", 0)).startswith(b"HTTP/1.1 200")
    assert way.plain() == plain
    assert way.server.stats()["internal_errors"] == counted
    assert caplog.text.count("could not be prepared") == counted
    way.expected_errors = counted
    way.ask(head % (b"index.html", 1))
    assert way.plain() == plain + 1
    way.close()


# ---------------------------------------------------------------- any head

SEGMENTS = st.one_of(
    st.sampled_from(
        [*NAMES, "", ".", "..", "sub", "deep", "missing", "%74ext.txt", "%2e%2e", "bare", "pipe", "outside"]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=4),
)
TARGETS = st.builds(
    lambda segments, query: "/" + "/".join(segments) + query,
    st.lists(SEGMENTS, max_size=3),
    st.one_of(st.just(""), st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=5).map("?".__add__)),
)
FIELDS = st.sampled_from(
    [
        "Accept: */*",
        "Accept-Encoding: gzip, br;q=0.1",
        "Accept-Encoding: gzip;q=0",
        "Connection: close",
        "Connection: keep-alive",
        "User-Agent: wrk",
        "User-Agent: \x80\\",
        "Referer: x",
        "Host: other",
        "Range: bytes=1-2",
        "If-None-Match: *",
        "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT",
        "Expect: 100-continue",
        "Content-Length: 0",
        "Upgrade: h2c",
        "X:",
        "X : y",
        "X: \x00",
    ]
)
HEADS = st.builds(
    lambda method, target, version, fields: (f"{method} {target} HTTP/{version}\r\n", fields),
    st.sampled_from(["GET"] * 6 + ["HEAD"] * 2 + ["OPTIONS", "PUT", "BREW", "get"]),
    st.one_of(TARGETS, st.sampled_from(["*", "http://h/text.txt", "text.txt", ""])),
    st.sampled_from(["1.1"] * 6 + ["1.0"] * 2 + ["1.2", "2.0", "1.x", "1.1 "]),
    st.lists(FIELDS, max_size=2),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    heads=st.lists(HEADS, min_size=1, max_size=12),
    noise=st.one_of(st.just(b""), st.binary(max_size=2)),
    at=st.integers(0, 60),
    small=st.booleans(),
)
def test_any_head_is_decided_alike(
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    heads: list[tuple[str, list[str]]],
    noise: bytes,
    at: int,
    small: bool,
) -> None:
    """Each with its section known, and unknown: whole responses, counts, and the log."""
    options = {"max_files": 2, "max_heads": 2, "revalidate_s": 0.0} if small else {}
    both = Both(root, tmp_path_factory.mktemp("logs"), **options)
    try:
        for number, (line, fields) in enumerate(heads):
            section = "".join(f"{field}\r\n" for field in ("Host: h", *fields)).encode("latin-1") + b"\r\n"
            for known in range(3):
                both.ask(b"GET /inline.js?%d-%d HTTP/1.1\r\n%b" % (number, known, section))
            head = line.encode("latin-1") + section
            both.ask(head)
            both.ask(head[:at] + noise + head[at:])
            for way in both.ways:
                way.leave()
    finally:
        both.close()

# SPDX-License-Identifier: MIT
"""Files that change under the HTTP application, and the access log."""

import gzip
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.server.website import BIG, GET, Site, get
from ustack.testing.testbed import MILLISECOND, SECOND

# ---------------------------------------------------------------- files that change


@pytest.mark.parametrize("name", ["text.txt", "big"])
def test_changed_file_is_served_anew(site: Site, name: str) -> None:
    path = site.root / name
    before = site.ask(get(f"/{name}"))
    new = path.with_suffix(".new")
    new.write_bytes(b"changed" * (1 if name == "text.txt" else 20_000))
    new.rename(path)
    site.pass_time(1100 * MILLISECOND)
    after = site.ask(get(f"/{name}"))
    assert after[2] == path.read_bytes()
    assert after[1]["ETag"] != before[1]["ETag"]
    path.unlink()
    site.pass_time(1100 * MILLISECOND)
    assert site.ask(get(f"/{name}"))[0] == 404


def test_quiet_server_sees_a_change_at_once(site: Site) -> None:
    for number in range(5):
        (site.root / "text.txt").write_text(f"version {number}" + "." * number)
        assert site.ask(get("/text.txt"))[2] == (site.root / "text.txt").read_bytes()


def test_busy_server_looks_at_the_disk_within_its_budget(make_site: Callable[..., Site]) -> None:
    site = make_site(checks_per_second=0)
    assert site.ask(get("/text.txt"))[2] == b"text"
    (site.root / "text.txt").write_text("changed")
    assert site.ask(get("/text.txt"))[2] == b"text"
    site.pass_time(SECOND)
    assert site.ask(get("/text.txt"))[2] == b"changed"


def test_new_precompressed_file_is_noticed(site: Site) -> None:
    assert "Vary" not in site.ask(get("/text.txt", "Accept-Encoding: gzip"))[1]
    (site.root / "text.txt.gz").write_bytes(gzip.compress(b"text"))
    site.pass_time(1100 * MILLISECOND)
    assert site.ask(get("/text.txt", "Accept-Encoding: gzip"))[1]["Content-Encoding"] == "gzip"


def test_housekeeping_lets_go_of_deleted_files(site: Site) -> None:
    site.ask(get("/big"))
    assert len(BIG) < site.stats()["held_bytes"] < len(BIG) + 1000
    (site.root / "big").unlink()
    site.server.housekeeping()
    assert (site.stats()["files_open"], site.stats()["held_bytes"]) == (0, 0)


def test_replaced_root_is_followed(site: Site) -> None:
    site.ask(get("/text.txt"))
    site.root.rename(site.root.parent / "old")
    site.root.mkdir()
    (site.root / "text.txt").write_text("new root")
    site.server.housekeeping()
    assert site.ask(get("/text.txt"))[2] == b"new root"


@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
@pytest.mark.parametrize("left", [0, 4096, 100_000, len(BIG) - 1])
def test_file_cut_under_a_response_never_looks_complete(site: Site, fields: tuple[str, ...], left: int) -> None:
    client = site.client()
    client.connection.send(get("/big", *fields))
    site.settle()
    os.truncate(site.root / "big", left)
    site.pass_time(1100 * MILLISECOND)
    client.read_until(len(BIG))
    site.pass_time(200 * SECOND)
    client.read()
    assert client.ended == "ConnectionReset"
    assert len(site.ask(get("/big"))[2]) == left  # and the server lives on


def test_file_cut_before_its_first_byte_is_sent_is_seen_while_it_is_copied(make_site: Callable[..., Site]) -> None:
    """Between two looks at the disk. Its head is in the segment already: neither goes out, and the connection ends."""
    site = make_site(checks_per_second=0, revalidate_s=1000)
    site.ask(get("/big"))
    os.truncate(site.root / "big", 0)
    client = site.client()
    client.send(get("/big"))
    site.pass_time(SECOND)
    client.read()
    assert (client.received, client.ended) == (b"", "ConnectionReset")
    site.server.housekeeping()
    assert site.ask(get("/big"))[2] == b""


def test_table_of_files_is_bounded(make_site: Callable[..., Site]) -> None:
    site = make_site(max_files=4)
    for number in range(20):
        (site.root / f"f{number}").write_text(str(number))
    for _ in range(2):
        for number in range(20):
            assert site.ask(get(f"/f{number}"))[2] == str(number).encode()
    assert site.stats()["files_open"] == 4


def test_held_bytes_are_bounded(make_site: Callable[..., Site]) -> None:
    site = make_site(max_held_bytes=len(BIG) + 1000)
    for _ in range(3):
        for path in ("/big", "/middle", "/text.txt"):
            assert site.ask(get(path))[0] == 200
            assert site.stats()["held_bytes"] <= len(BIG) + 2000


# ---------------------------------------------------------------- access log

LINE = re.compile(rb'198\.18\.0\.1 - - \[14/Nov/2023:22:13:\d\d \+0000\] "(.*?)" (\d+) (\d+) "(.*?)" "(.*?)"\n')


def test_access_log_in_combined_format(make_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    site = make_site(access_log=path)
    site.ask(get("/", "Referer: http://x/", 'User-Agent: a"b'))
    site.ask(get("/big"))
    site.ask(get("/", method="HEAD"))
    site.ask(b"\x16\x03\n")
    site.ask(get("/missing"))
    assert path.read_bytes() == b""  # nothing is written on the data path
    site.server.housekeeping()
    assert LINE.findall(path.read_bytes()) == [
        (b"GET / HTTP/1.1", b"200", b"4", b"http://x/", b"a\\x22b"),
        (b"GET /big HTTP/1.1", b"200", b"%d" % len(BIG), b"-", b"-"),
        (b"HEAD / HTTP/1.1", b"200", b"0", b"-", b"-"),
        (b"\\x16\\x03\\x0A", b"400", b"72", b"-", b"-"),
        (b"GET /missing HTTP/1.1", b"404", b"68", b"-", b"-"),
    ]
    assert site.stats()["log_lines"] == 5


def test_log_ring_overflow_is_counted(make_site: Callable[..., Site]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    site = make_site(access_log=writer, log_lines=4)
    for _ in range(10):
        assert site.ask(GET)[0] == 200  # a reader that stands still holds nobody up
    site.server.housekeeping()
    assert (site.stats()["log_lines"], site.stats()["log_lost"]) == (0, 6)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("limit_bytes", [700, 717, 745])
def test_a_full_disk_leaves_whole_lines_in_the_log(
    make_site: Callable[..., Site], tmp_path: Path, limit_bytes: int
) -> None:
    """No line is joined to the rest of another when there is room again."""
    path = tmp_path / "access.log"
    site = make_site(access_log=path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(20):
        site.ask(GET)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        site.server.housekeeping()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = len(path.read_bytes().splitlines())
    assert 0 < kept < 20
    assert site.stats()["log_error"] == "File too large"
    assert (site.stats()["log_lines"], site.stats()["log_lost"]) == (kept, 20 - kept)
    site.ask(GET)
    site.server.housekeeping()
    lines = path.read_bytes().splitlines(keepends=True)
    assert [bool(LINE.fullmatch(line)) for line in lines] == [True] * (kept + 1)
    assert site.stats()["log_error"] is None

# SPDX-License-Identifier: MIT
"""The document root: what it opens, what it refuses, what it says about a file."""

import errno
import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ustack.server import files
from ustack.server.response import Refusal


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("home")
    (site / "a.txt").write_text("text")
    (site / "sub").mkdir()
    (site / "sub" / "index.html").write_text("sub")
    (site / "empty").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "site2").mkdir()
    (tmp_path / "site2" / "index.html").write_text("other")
    return site


@pytest.fixture(params=["openat2", "walk"])
def root(site: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[files.DocumentRoot]:
    if request.param == "walk":

        def missing(directory_fd: int, path: bytes, flags: int) -> int:
            raise OSError(errno.ENOSYS, "no openat2")

        monkeypatch.setattr(files, "open_beneath", missing)
    made = files.DocumentRoot(site)
    yield made
    made.close()


def read(root: files.DocumentRoot, path: bytes) -> bytes:
    with root.open(path) as opened:
        return os.read(opened.fd, 100)


def refused(root: files.DocumentRoot, path: bytes) -> int:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refusal) as caught:
        root.open(path)
    assert len(os.listdir("/proc/self/fd")) == before
    return caught.value.status


def test_files_and_indexes(root: files.DocumentRoot) -> None:
    assert read(root, b"a.txt") == b"text"
    assert read(root, b"") == b"home"
    assert read(root, b"sub/") == b"sub"
    assert read(root, b"sub/index.html") == b"sub"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"missing", 404),
        (b"missing/", 404),
        (b"a.txt/", 404),
        (b"a.txt/b", 404),
        (b"x" * 300, 404),
        (b"sub", 301),
        (b"empty/", 403),
        (b"../secret", 404),
        (b"sub/../../secret", 404),
        (b"\xff\xfe", 404),
    ],
)
def test_refusals(root: files.DocumentRoot, path: bytes, status: int) -> None:
    assert refused(root, path) == status


def test_links_inside_are_followed_and_links_out_are_not(root: files.DocumentRoot, site: Path) -> None:
    (site / "inside").symlink_to("a.txt")
    (site / "absolute").symlink_to(site / "a.txt")
    (site / "sub" / "up").symlink_to("../a.txt")
    (site / "out").symlink_to("../secret")
    (site / "out-absolute").symlink_to(site.parent / "secret")
    (site / "out-directory").symlink_to("..")
    (site / "sibling").symlink_to("../site2")
    (site / "loop").symlink_to("loop")
    (site / "proc").symlink_to("/proc/self/root/etc/passwd")
    for name in (b"inside", b"absolute", b"sub/up"):
        assert read(root, name) == b"text"
    for name in (
        b"out",
        b"out-absolute",
        b"out-directory/secret",
        b"sibling/",
        b"sibling/index.html",
        b"loop",
        b"proc",
    ):
        assert refused(root, name) == 404


def test_special_files_are_refused_without_waiting(root: files.DocumentRoot, site: Path) -> None:
    os.mkfifo(site / "fifo")
    assert refused(root, b"fifo") == 403
    os.mkfifo(site / "a.txt.gz")
    with root.open(b"a.txt") as opened:
        assert opened.resource.gzip is None


@pytest.mark.root
def test_devices_are_refused(root: files.DocumentRoot, site: Path) -> None:
    try:
        os.mknod(site / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no device nodes may be made here")
    assert refused(root, b"zero") == 403


def test_unreadable_is_forbidden(root: files.DocumentRoot, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(name: bytes) -> int:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(root, "_open_file", denied)
    assert refused(root, b"a.txt") == 403
    assert refused(root, b"sub/") == 403


def test_index_that_is_a_directory_is_forbidden(root: files.DocumentRoot, site: Path) -> None:
    (site / "empty" / "index.html").mkdir()
    assert refused(root, b"empty/") == 403


def test_precompressed_neighbour(root: files.DocumentRoot, site: Path) -> None:
    packed = site / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"text"))
    with root.open(b"a.txt") as opened:
        assert opened.resource.gzip is not None
        assert opened.resource.gzip.coding == b"gzip"
        assert opened.resource.gzip.etag != opened.resource.plain.etag
        assert opened.gzip_fd >= 0
    before = os.stat(site / "a.txt").st_mtime_ns
    os.utime(packed, ns=(before - 10**10, before - 10**10))
    with root.open(b"a.txt") as opened:  # the original was edited since
        assert opened.resource.gzip is None
        assert opened.resource.gzip_identity.inode == os.stat(packed).st_ino


def test_entity_tag_changes_with_the_file(root: files.DocumentRoot, site: Path) -> None:
    with root.open(b"a.txt") as opened:
        first = opened.resource.plain.etag
    (site / "a.txt").write_text("longer text")
    with root.open(b"a.txt") as opened:
        assert opened.resource.plain.etag != first
    assert first.startswith(b'"')
    assert first.endswith(b'"')


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a.html", b"text/html; charset=utf-8"),
        (b"A.HTML", b"text/html; charset=utf-8"),
        (b"a.css", b"text/css; charset=utf-8"),
        (b"a.js", b"text/javascript; charset=utf-8"),
        (b"a.json", b"application/json"),
        (b"a.png", b"image/png"),
        (b"a.svg", b"image/svg+xml"),
        (b"a.wasm", b"application/wasm"),
        (b"a.tar.gz", b"application/gzip"),
        (b"a", b"application/octet-stream"),
        (b"a.\xff", b"application/octet-stream"),
        (b"http:a.txt", b"text/plain; charset=utf-8"),
    ],
)
def test_content_types(name: bytes, kind: bytes) -> None:
    assert files.content_type(name) == kind


def test_replaced_root_is_followed(root: files.DocumentRoot, site: Path) -> None:
    assert not root.replaced()
    site.rename(site.parent / "old")
    assert not root.replaced()  # nothing there: what was opened stays
    assert read(root, b"a.txt") == b"text"
    site.mkdir()
    (site / "a.txt").write_text("new")
    assert root.replaced()
    assert read(root, b"a.txt") == b"new"


def test_root_must_be_a_directory(site: Path) -> None:
    with pytest.raises(NotADirectoryError):
        files.DocumentRoot(site / "a.txt")
    with pytest.raises(FileNotFoundError):
        files.DocumentRoot(site / "missing")

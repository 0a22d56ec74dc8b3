# SPDX-License-Identifier: MIT
"""Lent buffers: references, owners, and mapped files that are cut short while they are read."""

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ustack.buf.lent import Lent, alive

PAGE = mmap.PAGESIZE


@pytest.fixture(autouse=True)
def _everything_is_released() -> Iterator[None]:
    before = alive()
    yield
    gc.collect()
    assert alive() == before


def lend_file(path: Path) -> Lent:
    fd = os.open(path, os.O_RDONLY)
    try:
        return Lent("file", fd)
    finally:
        os.close(fd)


def pattern(length: int) -> bytes:
    return bytes(i % 251 + 1 for i in range(251)) * (length // 251) + bytes(range(1, length % 251 + 1))


# -- copies and objects


@pytest.mark.parametrize("length", [0, 1, 63, 64, 5000])
def test_a_copy_is_private(length: int) -> None:
    source = bytearray(pattern(length))
    lent = Lent("copy", source)
    source[:] = bytes(length)
    assert lent.length == length
    assert lent.read(0, length) == pattern(length)
    assert not lent.damaged


def test_the_last_reference_releases() -> None:
    before = alive()
    lent = Lent("copy", b"abc")
    lent.ref()
    lent.ref()
    for _ in range(2):
        lent.unref()
        assert alive() == before + 1
    lent.unref()
    assert alive() == before


class Watched(bytearray):
    """A buffer whose end can be seen."""

    gone: list[str]

    def __del__(self) -> None:
        self.gone.append("gone")


def test_an_object_is_borrowed_not_copied_and_lives_until_release() -> None:
    gone: list[str] = []
    source = Watched(b"0123456789")
    source.gone = gone
    lent = Lent("object", source)
    del source
    gc.collect()
    assert gone == []
    assert lent.read(3, 4) == b"3456"
    lent.unref()
    assert gone == ["gone"]


def test_a_lent_bytearray_cannot_be_resized() -> None:
    source = bytearray(b"abc")
    lent = Lent("object", source)
    with pytest.raises(BufferError):
        source.append(1)
    lent.unref()
    source.append(1)


def test_an_empty_object() -> None:
    lent = Lent("object", b"")
    assert lent.length == 0
    assert lent.read(0, 0) == b""


@pytest.mark.parametrize("source", [3, "text", memoryview(b"abcdef")[::2]], ids=["int", "str", "strided"])
def test_what_has_no_contiguous_buffer_is_refused(source: object) -> None:
    with pytest.raises((TypeError, BufferError)):
        Lent("object", source)  # type: ignore[arg-type]


# -- files


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 100_000, 5 * 1024 * 1024 + 3])
def test_a_file_is_mapped_whole(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(length))
    lent = lend_file(path)
    assert lent.length == length
    assert lent.read(0, length) == pattern(length)
    assert not lent.damaged


def test_an_empty_file_has_length_zero(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    lent = lend_file(tmp_path / "empty")
    assert lent.length == 0
    assert lent.read(0, 0) == b""


def test_an_unlinked_file_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(10_000))
    lent = lend_file(path)
    path.unlink()
    assert lent.read(0, 10_000) == pattern(10_000)


def test_a_closed_descriptor_raises() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Lent("file", fd)


def test_only_regular_files_are_mapped(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            Lent("file", fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kept", [0, 1, PAGE, 3 * PAGE + 7])
@pytest.mark.parametrize("length", [8 * PAGE, 8 * PAGE + 100, 6 * 1024 * 1024])
def test_a_file_cut_short_reads_as_zeros_and_is_damaged(tmp_path: Path, kept: int, length: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(length))
    lent = lend_file(path)
    assert lent.read(0, length) == pattern(length)
    os.truncate(path, kept)
    assert lent.read(0, length) == pattern(length)[:kept] + bytes(length - kept)
    assert lent.damaged


def test_pages_before_the_cut_stay_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(8 * PAGE))
    lent = lend_file(path)
    os.truncate(path, 4 * PAGE)
    assert lent.read(0, 4 * PAGE) == pattern(4 * PAGE)
    assert not lent.damaged
    assert lent.read(6 * PAGE, 10) == bytes(10)
    assert lent.damaged
    # A second fault, below the first: 4 and 5 were lost as well, 6 and 7 have been replaced already.
    assert lent.read(4 * PAGE, 4 * PAGE) == bytes(4 * PAGE)
    assert lent.read(0, 4 * PAGE) == pattern(4 * PAGE)


def test_only_the_lent_that_faulted_is_damaged(tmp_path: Path) -> None:
    lents = []
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(pattern(3 * PAGE))
        lents.append(lend_file(tmp_path / name))
    os.truncate(tmp_path / "b", 0)
    assert lents[1].read(0, 3 * PAGE) == bytes(3 * PAGE)
    assert [lent.damaged for lent in lents] == [False, True, False]
    assert lents[0].read(0, 3 * PAGE) == pattern(3 * PAGE)
    assert lents[2].read(0, 3 * PAGE) == pattern(3 * PAGE)


def test_a_damaged_lent_stays_damaged_when_the_file_grows_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(4 * PAGE))
    lent = lend_file(path)
    os.truncate(path, 0)
    assert lent.read(0, 4 * PAGE) == bytes(4 * PAGE)
    path.write_bytes(pattern(4 * PAGE))
    assert lent.read(0, 4 * PAGE) == bytes(4 * PAGE)
    assert lent.damaged


def test_more_files_than_a_block_of_the_registry_holds(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(2 * PAGE))
    lents = [lend_file(path) for _ in range(400)]
    for lent in lents[::2]:
        lent.unref()
    lents = lents[1::2] + [lend_file(path) for _ in range(200)]
    os.truncate(path, 0)
    for lent in lents:
        assert lent.read(PAGE, 10) == bytes(10)
        assert lent.damaged


def test_threads_fault_while_others_register_and_release(tmp_path: Path) -> None:
    def work(name: str) -> None:
        try:
            path = tmp_path / name
            for _ in range(30):
                path.write_bytes(pattern(4 * PAGE))
                lents = [lend_file(path) for _ in range(5)]
                os.truncate(path, PAGE)
                for lent in lents:
                    wrong.extend([name] * (lent.read(0, 4 * PAGE) != pattern(PAGE) + bytes(3 * PAGE)))
                    wrong.extend([name] * (not lent.damaged))
                path.unlink()
        except BaseException as error:
            wrong.append(repr(error))
            raise

    wrong: list[str] = []
    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- SIGBUS that is not ours

CHILD = """
import faulthandler, mmap, os, signal, sys, tempfile
from ustack.buf.lent import Lent

def make(directory, name):
    fd = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 4 * mmap.PAGESIZE)
    return fd

def ours_still_survives():
    with tempfile.TemporaryDirectory() as directory:
        fd = make(directory, "ours")
        lent = Lent("file", fd)
        os.ftruncate(fd, 0)
        assert lent.read(0, lent.length) == bytes(lent.length) and lent.damaged

def foreign_fault():
    directory = tempfile.mkdtemp()
    fd = make(directory, "foreign")
    view = mmap.mmap(fd, 4 * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    os.ftruncate(fd, 0)
    os.unlink(os.path.join(directory, "foreign"))
    os.rmdir(directory)
    print("before", flush=True)
    view[0]
    print("after", flush=True)
"""


def run_child(code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    sanitizer = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "handle_sigbus=0"]))
    return subprocess.run(
        [sys.executable, *options, "-c", CHILD + code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "ASAN_OPTIONS": sanitizer},
        cwd="/",  # or the working directory's modules would come first
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_foreign_fault_still_kills() -> None:
    child = run_child("ours_still_survives(); foreign_fault()")
    assert child.returncode == -signal.SIGBUS
    assert child.stdout == "before\n"


def test_a_sent_sigbus_still_kills() -> None:
    child = run_child("ours_still_survives(); os.kill(os.getpid(), signal.SIGBUS); print('after')")
    assert child.returncode == -signal.SIGBUS
    assert child.stdout == ""


def test_a_foreign_fault_reaches_the_previous_handler_and_then_kills() -> None:
    child = run_child("ours_still_survives(); foreign_fault()", "-X", "faulthandler")
    assert child.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in child.stderr
    assert "in foreign_fault" in child.stderr


def test_a_sent_sigbus_reaches_the_previous_python_handler() -> None:
    code = """
signal.signal(signal.SIGBUS, lambda number, frame: print("handled", number))
ours_still_survives()
os.kill(os.getpid(), signal.SIGBUS)
ours_still_survives()
"""
    child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert child.stdout == f"handled {int(signal.SIGBUS)}\n"


def test_an_ignored_sigbus_stays_ignored_when_sent_but_not_when_it_is_a_fault() -> None:
    code = """
signal.signal(signal.SIGBUS, signal.SIG_IGN)
ours_still_survives()
os.kill(os.getpid(), signal.SIGBUS)
foreign_fault()
"""
    child = run_child(code)
    assert child.returncode == -signal.SIGBUS
    assert child.stdout == "before\n"


# -- somebody else takes the handler's place


@pytest.mark.parametrize(
    "other",
    [
        "faulthandler.enable()",
        "signal.signal(signal.SIGBUS, lambda number, frame: print('theirs'))",
        "signal.signal(signal.SIGBUS, signal.SIG_DFL)",
        "faulthandler.enable(); faulthandler.disable()",
    ],
)
def test_a_handler_that_takes_our_place_is_moved_below_ours(other: str) -> None:
    """faulthandler.enable() in a program that serves files already: a file that is cut must still not end it."""
    code = f"""
from ustack.buf.lent import sigbus_repairs
with tempfile.TemporaryDirectory() as directory:
    fd = make(directory, "ours")
    lent = Lent("file", fd)
    assert sigbus_repairs() == 0
    {other}
    os.ftruncate(fd, 0)
    assert lent.read(0, lent.length) == bytes(lent.length) and lent.damaged
    print(sigbus_repairs())
ours_still_survives()
print(sigbus_repairs())
"""
    child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert child.stdout == ("0\n0\n" if "disable" in other else "1\n1\n")


def test_a_foreign_fault_reaches_a_handler_that_was_moved_below_ours() -> None:
    """faulthandler reports, gives up its place to ours, and raises the signal again: then the process ends."""
    child = run_child("ours_still_survives(); faulthandler.enable(); ours_still_survives(); foreign_fault()")
    assert child.returncode == -signal.SIGBUS
    assert child.stderr.count("Fatal Python error: Bus error") == 1
    assert "in foreign_fault" in child.stderr


def test_a_foreign_fault_with_a_disabled_handler_below_ours_still_kills() -> None:
    """A handler that returns without having done anything is not called for ever."""
    code = "faulthandler.enable(); ours_still_survives(); faulthandler.enable(); faulthandler.disable()\n"
    child = run_child("ours_still_survives()\n" + code + "ours_still_survives(); foreign_fault()")
    assert child.returncode == -signal.SIGBUS
    assert child.stdout == "before\n"


def test_a_handler_is_put_back_in_each_turn_that_reads_a_mapping() -> None:
    """By the send path: a stack serves a mapped file, faulthandler is enabled, the file is cut under a response."""
    code = """
from pathlib import Path
from ustack.buf.lent import sigbus_repairs
from ustack.server.http import HttpServer
from ustack.testing.pair import Pair
with tempfile.TemporaryDirectory() as directory, Pair() as pair:
    path = Path(directory, "file")
    path.write_bytes(b"x" * 4_000_000)
    with HttpServer(directory, wall_clock=lambda: 0) as server:
        pair.a.listen(80, application=server)
        client = pair.b.connect("198.18.0.2", 80, wait=False)
        pair.advance(1_000_000)
        client.send(b"GET /file HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
        pair.advance(1_000_000)
        client.receive()
        faulthandler.enable()
        os.truncate(path, 0)
        pair.advance(1_000_000_000)
        print(sigbus_repairs() > 0)
        client.abort()
        pair.advance(1_000_000)
"""
    child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert child.stdout == "True\n"

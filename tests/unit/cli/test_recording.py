# SPDX-License-Identifier: MIT
"""The trace of a running stack, from its ring to its file (ustack/cli/recording.py)."""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ustack import Connection
from ustack.cli import recording as recordings
from ustack.cli.recording import Recording, Whole, open_part, open_recording, part_of
from ustack.cli.signals import StopSignals
from ustack.cli.tables import print_rows
from ustack.cli.trace import trace as trace_command
from ustack.lab import LabError
from ustack.obs.qlog import read_qlog
from ustack.obs.recorded import Recorded
from ustack.obs.spool import Spool
from ustack.obs.tracefile import read
from ustack.obs.tracesummary import summaries
from ustack.testing.pair import Pair
from ustack.testing.testbed import SECOND

try:
    import pyarrow
except ImportError:
    pyarrow = None

SUFFIXES = [
    pytest.param(".parquet", marks=pytest.mark.skipif(pyarrow is None, reason="Parquet needs pyarrow")),
    ".qlog",
]


class Full(io.FileIO):
    """A disk that takes so many writes, and a part of the next one."""

    writes = 0
    takes = 1

    def write(self, data: Any, /) -> int:
        self.writes += 1
        if self.writes > self.takes + 1:
            raise OSError(28, "No space left on device")
        return super().write(data if self.writes <= self.takes else memoryview(data)[:5])


class Stuck(io.FileIO):
    """A disk that makes a write of records wait until it is released."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self.begun, self.released = threading.Event(), threading.Event()

    def write(self, data: Any, /) -> int:
        if len(data) % 64 == 0:
            self.begun.set()
            assert self.released.wait(60)
        return super().write(data)


@contextmanager
def recorded(path: Path, part: io.FileIO | None = None) -> Iterator[Recording]:
    with path.open("wb") as file, part or part_of(path).open("w+b", buffering=0) as raw:
        recording = Recording(path, file, raw, part_of(path).unlink)
        yield recording
        recording.close()


def talk(pair: Pair, sender: Connection, receiver: Connection, times: int) -> None:
    """Two records each: sent, and acked."""
    for _ in range(times):
        sender.send(b"word")
        pair.advance(SECOND)
        assert receiver.receive() == b"word"


def end(pair: Pair, client: Connection, server: Connection) -> None:
    client.abort()
    server.abort()
    pair.advance(SECOND)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_happens_until_the_stack_is_closed_is_in_the_file(tmp_path: Path, suffix: str) -> None:
    """The same records as another trace of the same has in its ring, and who the connections were as it ends."""
    path = tmp_path / f"out{suffix}"
    with recorded(path) as recording:
        pair = Pair()
        recording.begin(pair.a, 2)
        client, server = pair.connect()
        for _ in range(3):
            talk(pair, server, client, 1)
            recording.drain()
        pair.close()
        recording.close()
        assert not part_of(path).exists()
        recording.close()
    (found,) = summaries(read(path))
    assert found.sent_bytes == found.acked_bytes == 12
    assert found.end == "aborted"
    assert read(path).missed == 0


def test_the_file_has_what_a_trace_in_memory_has(tmp_path: Path) -> None:
    """Two runs of the same simulation, one recorded, one not."""
    wanted = None
    path = tmp_path / "out.qlog"
    for records in (False, True):
        with recorded(path) as recording:
            pair = Pair(seed=9)
            if records:
                recording.begin(pair.a, 2)
            else:
                trace = pair.a.trace(connections=2)
            for _ in range(2):
                client, server = pair.connect()
                talk(pair, server, client, 20)
                recording.drain()
                end(pair, client, server)
            pair.close()
            if not records:
                wanted = (trace.take(), trace.connections)
    assert wanted == (read(path).records, read(path).connections)


def test_a_part_that_cannot_be_written_ends_the_trace_and_not_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written whole is in the file, and the rest is counted."""
    path = tmp_path / "out.qlog"
    part = Full(part_of(path), "w+b")
    part.takes = 5  # the head; who the connection is; records
    with Pair() as pair, recorded(path, part) as recording:
        recording.begin(pair.a, 2)
        client, server = pair.connect()
        recording.drain()
        assert recording._thread is not None
        recording._thread.wait()
        talk(pair, server, client, 2)
        recording.drain()
        recording._thread.wait()
        recording.drain()
        assert pair.a.trace().active  # the one before has been stopped
        end(pair, client, server)
        recording.close()
    said = capsys.readouterr().err
    assert said == "ustack: the trace ended: it cannot be written: No space left on device\n"
    found = read(path)
    kept = len(found.records) // 64
    assert (kept, found.missed) == (1, 4)  # opened; two words, and the trace is stopped
    assert not part_of(path).exists()


def test_a_disk_that_is_slow_makes_records_missing_and_nobody_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "RECORDS", 64)
    path = tmp_path / "out.qlog"
    part = Stuck(part_of(path))
    with Pair() as pair, recorded(path, part) as recording:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        talk(pair, server, client, 10)
        recording.drain()
        assert part.begun.wait(60)
        for _ in range(4):  # while it hangs in write()
            talk(pair, server, client, 10)
            recording.drain()
        trace = recording._trace
        assert (trace.written, trace.missed) == (64, 1 + 5 * 20 - 64)
        part.released.set()
        assert recording._thread is not None
        recording._thread.wait()
        recording.drain()
        talk(pair, server, client, 1)
        end(pair, client, server)
        recording.close()
    found = read(path)
    assert found.missed == 37
    seqs = [one.partition('"seq":')[2].partition(",")[0] for one in path.read_text().split("\x1e") if ":sent" in one]
    lacking = range(1 + 4 * 32, 1 + 4 * 50, 4)
    assert [int(seq) for seq in seqs] == [seq for seq in range(1, 1 + 4 * 51, 4) if seq not in lacking]
    lines = [one for one in path.read_text().split("\x1e") if "records_missed" in one or ":sent" in one]
    assert "records_missed" in lines[-2]  # where they are missing
    assert "the trace lacks 37 records" in capsys.readouterr().err


def test_while_it_runs_and_after_it_was_killed_the_part_is_there(tmp_path: Path) -> None:
    path = tmp_path / "out.qlog"
    with Pair() as pair, recorded(path) as recording:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        talk(pair, server, client, 3)
        recording.drain()
        assert recording._thread is not None
        recording._thread.wait()
        found = read(part_of(path))
        assert len(found.records) // 64 == recording._trace.written
        assert found.connections == recording._trace.connections
        said = CliRunner().invoke(trace_command, [str(path)])
        assert said.exit_code == 1
        assert f"ustack trace {part_of(path)} --out {path}" in said.output
        copied = tmp_path / "copied.sqlog"
        assert CliRunner().invoke(trace_command, [str(part_of(path)), "--out", str(copied)]).exit_code == 0
        assert read(copied) == found
        end(pair, client, server)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_end_does_not_wait_for_a_file_that_nobody_waits_for(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more stop signal while FILE is written: it is left empty, and all is in FILE.part."""
    path = tmp_path / f"out{suffix}"
    asked = 0

    def ended() -> bool:
        nonlocal asked
        asked += 1
        return True

    with recorded(path) as recording:
        with Pair() as pair:
            recording.begin(pair.a, 1)
            client, server = pair.connect()
            talk(pair, server, client, 3)
            end(pair, client, server)
        recording.close(ended)
    part = part_of(path)
    assert asked == 1
    assert path.read_bytes() == b""
    assert summaries(read(part))[0].acked_bytes == 12
    said = capsys.readouterr().err
    assert said == f"ustack: {path} is not finished; its records are in {part}: ustack trace {part} --out FILE\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_cannot_be_written_in_the_end_leaves_the_part(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"out{suffix}"
    file = Full(path, "wb")
    file.takes = 0
    with file, part_of(path).open("w+b", buffering=0) as raw:
        recording = Recording(path, file, raw, part_of(path).unlink)
        recording.close()
    assert part_of(path).exists()
    assert f"{path} cannot be written: No space left on device; its records are in" in capsys.readouterr().err


def test_a_part_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    """Neither is FILE, which that process will write or is writing."""
    path = tmp_path / "out.qlog"
    with ExitStack() as first, ExitStack() as second:
        open_part(part_of(path), first).write(b"of the first")
        path.write_text("its own")
        with pytest.raises(LabError, match=r"out\.qlog\.part: another process is writing it"):
            open_recording(path, part_of(path).unlink, StopSignals(), second)
        assert (path.read_text(), part_of(path).read_text()) == ("its own", "of the first")
        first.close()
        open_recording(path, part_of(path).unlink, StopSignals(), second)
    assert read(path).records == b""


OTHER = 65534


@pytest.fixture
def common(tmp_path: Path) -> Path:
    """A directory as /tmp is: everybody may make files there, and remove their own."""
    place = tmp_path / "common"
    place.mkdir()
    place.chmod(0o1777)
    return place


def refused(path: Path, why: str) -> None:
    with ExitStack() as resources, pytest.raises(LabError, match=why):
        open_recording(path, part_of(path).unlink, StopSignals(), resources)


def laid(path: Path, owner: int = OTHER) -> Path:
    """What somebody else has put there, open to everybody."""
    path.write_text("before")
    path.chmod(0o666)
    os.chown(path, owner, owner)
    return path


@pytest.mark.root
@pytest.mark.users
def test_a_part_that_somebody_else_has_laid_is_refused(common: Path, tmp_path: Path) -> None:
    """Its owner could read what is recorded, and change it before FILE is written from it."""
    for place in (common, tmp_path):
        path = place / "out.qlog"
        part = laid(part_of(path))
        refused(path, rf"{part}: it is user {OTHER}'s")
        assert (part.read_text(), path.exists()) == ("before", False)


@pytest.mark.root
@pytest.mark.users
def test_a_file_that_somebody_else_has_laid_is_refused(common: Path) -> None:
    """Nor does that empty the part of an earlier trace, which is all that is left of it."""
    path = laid(common / "out.qlog")
    part_of(path).write_text("of an earlier one")
    refused(path, rf"{path}: it is user {OTHER}'s, in a directory where everybody may write")
    assert (path.read_text(), part_of(path).read_text()) == ("before", "of an earlier one")
    path.unlink()
    os.mkfifo(path)
    os.chown(path, OTHER, OTHER)
    refused(path, rf"{path}: it is user {OTHER}'s")


@pytest.mark.root
@pytest.mark.users
def test_a_file_of_the_directorys_owner_is_written(common: Path) -> None:
    """As one who runs a server with sudo has it."""
    os.chown(common, OTHER, OTHER)
    path = laid(common / "out.qlog")
    with ExitStack() as resources:
        open_recording(path, part_of(path).unlink, StopSignals(), resources)
    assert read(path).records == b""
    assert path.stat().st_uid == OTHER


def test_a_part_that_is_a_link_or_has_another_name_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "out.qlog", tmp_path / "other"
    other.write_text("before")
    part_of(path).symlink_to(other)
    refused(path, r"out\.qlog\.part: it is a symbolic link")
    part_of(path).unlink()
    os.link(other, part_of(path))
    refused(path, r"out\.qlog\.part: the file has another name as well")
    assert (other.read_text(), path.exists()) == ("before", False)


def test_a_part_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    """Somebody may have put it there, and writing into it would not end."""
    path = tmp_path / "out.qlog"
    os.mkfifo(part_of(path))
    with ExitStack() as resources, pytest.raises(LabError, match=r"out\.qlog\.part: it is no regular file"):
        open_recording(path, part_of(path).unlink, StopSignals(), resources)


def test_want_of_memory_ends_the_trace_as_a_full_disk_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.qlog"

    def introduce(*_: object) -> None:
        raise MemoryError

    with Pair() as pair, recorded(path) as recording:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "introduce", introduce)
            recording.drain()
            assert recording._thread is not None
            assert recording._thread._done.wait(60)
        recording.drain()
        end(pair, client, server)
        recording.close()
    assert "the trace ended: it cannot be written: Cannot allocate memory" in capsys.readouterr().err
    assert read(path).missed == 1


def test_a_file_whose_writing_was_killed_is_not_taken_for_whole(tmp_path: Path) -> None:
    """A qlog file can be read up to where it ends; FILE.part says how many records there are."""
    path, other = tmp_path / "out.qlog", tmp_path / "other.qlog"
    kept = tmp_path / "kept"
    with recorded(path) as recording, Pair() as pair:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        talk(pair, server, client, 3)
        end(pair, client, server)
        recording._remove = lambda: part_of(path).rename(kept)  # type: ignore[assignment, return-value]
    kept.rename(part_of(path))
    assert CliRunner().invoke(trace_command, [str(path)]).exit_code == 0
    content = path.read_bytes()
    for some in (content.rpartition(b"\x1e")[0], content[:100]):
        path.write_bytes(some)
        for more in ([], ["--out", str(other)]):
            said = CliRunner().invoke(trace_command, [str(path), *more])
            assert said.exit_code == 1
            assert f"{path} is not finished" in said.output
    assert not other.exists()


@pytest.mark.parametrize("more", [[], ["--out"]])
def test_a_file_with_its_part_beside_it_is_read_once(
    tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "out.qlog", tmp_path / "other.qlog"
    with recorded(path) as recording, Pair() as pair:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        end(pair, client, server)
        recording._remove = lambda: None  # type: ignore[assignment, return-value]
    assert part_of(path).exists()
    times: list[Path] = []

    def counted(file: Path) -> Recorded:
        times.append(file)
        return read_qlog(file)

    monkeypatch.setattr("ustack.obs.qlog.read_qlog", counted)
    said = CliRunner().invoke(trace_command, [str(path), *more, *([str(other)] if more else [])])
    assert (said.exit_code, times) == (0, [path])
    if more:
        assert read(other).records == read(path).records


def test_what_a_file_says_does_no_harm_to_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another's making: not to be put out, styled, or obeyed."""
    path = tmp_path / "out.qlog"
    with recorded(path) as recording, Pair() as pair:
        recording.begin(pair.a, 1)
        client, server = pair.connect()
        end(pair, client, server)
    content = path.read_bytes()
    for cc, shown in (("\\ud800", "\\ud800"), ("\\u001b[2J", "\\x1b[2J"), ("[/]", "[/]")):
        path.write_bytes(content.replace(b'"cc":"cubic"', f'"cc":"{cc}"'.encode()))
        said = CliRunner().invoke(trace_command, [str(path)])
        assert (said.exit_code, said.output.split("\t")[2]) == (0, shown)
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stream)
    print_rows(["cc"], [["[/]"]])
    assert "[/]" in stream.getvalue()


def test_a_file_that_takes_a_part_gets_the_rest(tmp_path: Path) -> None:
    """As write(2) may do, and a raw file does not hide."""

    class Slow(io.BytesIO):
        def write(self, data: Any, /) -> int:
            return super().write(memoryview(data)[:7])

    file = Slow()
    Whole(file).write(b"more than seven bytes")
    assert file.getvalue() == b"more than seven bytes"


def test_nothing_that_was_traced_is_a_whole_file(tmp_path: Path) -> None:
    """The server could not start: what was opened is finished all the same."""
    path = tmp_path / "out.qlog"
    with recorded(path):
        pass
    assert read(path).records == b""
    assert not part_of(path).exists()

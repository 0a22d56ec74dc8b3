# SPDX-License-Identifier: MIT
"""The trace of a running server, from its stack to its file (ustack/cli/recording.py)."""

import io
from pathlib import Path
from typing import Any

import pytest

from ustack.cli.recording import Recording, Whole
from ustack.obs.tracefile import read
from ustack.obs.tracesummary import summaries
from ustack.testing.pair import Pair
from ustack.testing.testbed import SECOND


class Full(io.BytesIO):
    """A device without room, from the second write on."""

    writes = 0

    def write(self, data: Any, /) -> int:
        self.writes += 1
        if self.writes > 1:
            raise OSError(28, "No space left on device")
        return len(data)


def test_what_happens_until_the_stack_is_closed_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.qlog"
    with path.open("wb") as file:
        recording = Recording(file, "qlog")
        pair = Pair()
        recording.begin(pair.a, 2)
        client, server = pair.connect()
        for _ in range(3):
            server.send(b"word")
            pair.advance(SECOND)
            recording.drain()
        del client
        pair.close()
        recording.close()
        recording.close()
    (found,) = summaries(read(path))
    assert found.sent_bytes == found.acked_bytes == 12
    assert found.end == "aborted"


def test_a_file_without_room_ends_the_trace_and_not_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    recording = Recording(Full(), "qlog")
    with Pair() as pair:
        recording.begin(pair.a, 2)
        client, server = pair.connect()
        recording.drain()
        recording.drain()
        assert pair.a.trace().active  # the one before has been stopped
        recording.close()
        client.abort()
        server.abort()
        pair.advance(SECOND)
    said = capsys.readouterr().err
    assert said == "ustack: the trace ended: it cannot be written: No space left on device\n"


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
    with (tmp_path / "out.qlog").open("wb") as file:
        Recording(file, "qlog").close()
    assert read(tmp_path / "out.qlog").records == b""

# SPDX-License-Identifier: MIT
"""A raw trace: what is written is read, whatever part of it there is, and what others have put there is refused."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.obs import spool
from ustack.obs.columns import first_unknown
from ustack.obs.recorded import Recorded
from ustack.obs.spool import BLOCK, END, HEAD_BYTES, PEOPLE, RECORDS, Spool, contents, parts
from ustack.obs.tracefile import convert, read, write
from ustack.tcp.tracing import CAUSES, CONNECTIONS_MAX, EVENTS, FIELDS, FORMAT, REASONS, REPAIRS, STATES

NUMBERS = {name: number for number, name in EVENTS.items()}


def record(time_ns: int = 5, **fields: int) -> bytes:
    values = {**dict.fromkeys(FIELDS, 0), "time_ns": time_ns, "connection": 1, "event": 1, **fields}
    return struct.pack(FORMAT, *(values[name] for name in FIELDS))


def person(port: int) -> dict[str, Any]:
    return {
        "local": ("198.18.0.2", 80),
        "remote": ("198.18.0.1", port),
        "active": False,
        "began_ns": 7,
        "iss": 1,
        "irs": 2,
        "smss": 1460,
        "cc": "cubic",
    }


OPENED = NUMBERS["opened"]
FOUR = [record(1, event=OPENED), record(2), record(3), record(4, connection=2, event=OPENED)]


def whole() -> bytes:
    """Two blocks of records, three missing between them, two more at the end."""
    file = io.BytesIO()
    writer = Spool(file)
    writer.introduce(0, [person(1)])
    writer.add([FOUR[0], FOUR[1] + FOUR[2]], 0)
    writer.introduce(1, [person(2)])
    writer.add([FOUR[3]], 3)
    writer.introduce(0, [person(1), {**person(2), "irs": 9}])
    writer.finish(5)
    return file.getvalue()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(whole())
    assert read(path) == Recorded(b"".join(FOUR), [person(1), {**person(2), "irs": 9}], 5)
    with path.open("rb") as file:
        found = contents(file)
        assert (found.records, found.missed, found.whole) == (4, 5, True)
        assert [missed for _, missed in parts(file)] == [0, 3]


def test_records_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PART_BYTES", 128)
    file = io.BytesIO()
    Spool(file).add([record(time) for time in range(5)], 0)
    assert [len(part) // 64 for part, _ in parts(file)] == [2, 2, 1]
    assert b"".join(part for part, _ in parts(file)) == b"".join(record(time) for time in range(5))


def test_many_connections_are_told_in_blocks_that_are_read() -> None:
    file = io.BytesIO()
    people = [person(port) for port in range(5000)]
    Spool(file).introduce(0, people)
    assert contents(file).connections == people


def test_wherever_it_ends_what_is_whole_is_read() -> None:
    """Killed at any byte, or a disk that was full there."""
    content = whole()
    seen = []
    for end in range(len(HEAD_BYTES), len(content)):
        file = io.BytesIO(content[:end])
        found = contents(file)
        kept = b"".join(part for part, _ in parts(file))
        assert not found.whole
        assert len(kept) % 64 == 0
        assert kept == b"".join(FOUR[: len(kept) // 64])
        seen.append(len(kept) // 64)
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (HEAD_BYTES[:20], "not a raw trace"),
        (HEAD_BYTES[:8] + b"\x02" + HEAD_BYTES[9:], "another build"),
        (HEAD_BYTES[:-1] + bytes([HEAD_BYTES[-1] ^ 1]), "another build"),
        (HEAD_BYTES + BLOCK.pack(4, 0, 0), "byte 32 is no part"),
        (HEAD_BYTES + BLOCK.pack(RECORDS, 63, 0) + bytes(63), "no part"),
        (HEAD_BYTES + BLOCK.pack(PEOPLE, (1 << 20) + 1, 0) + bytes((1 << 20) + 1), "no part"),
        (HEAD_BYTES + BLOCK.pack(END, 0, 0) + BLOCK.pack(END, 0, 0), "no part"),
        (HEAD_BYTES + BLOCK.pack(RECORDS, 0, 5) + BLOCK.pack(RECORDS, 0, 4), "no part"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "in.part"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"in.part: .*{why}"):
        read(path)


@pytest.mark.parametrize(
    "told",
    [
        b"nonsense",
        b"[0]",
        b"[0, 1]",
        b"[1, []]",
        b"[-1, []]",
        b"[0.0, []]",
        b"[true, []]",
        b"[0, [7]]",
        b"[0, [{}]]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        json.dumps([0, [{**person(1), "local": ["a", "b"]}]]).encode(),
        json.dumps([0, [{**person(1), "remote": [1]}]]).encode(),
        json.dumps([0, [{**person(1), "cc": 1}]]).encode(),
        json.dumps([0, [{**person(1), "cc": "\ud800"}]]).encode(),
        json.dumps([0, [{**person(1), "cc": "\x1b[31m"}]]).encode(),
        json.dumps([0, [{**person(1), "local": ["\udc80", 80]}]]).encode(),
        json.dumps([0, [{**person(1), "remote": ["198.18.0.1\n", 80]}]]).encode(),
    ],
)
def test_what_it_says_about_connections_is_not_believed(tmp_path: Path, told: bytes) -> None:
    content = HEAD_BYTES + BLOCK.pack(PEOPLE, len(told), 0) + told
    with pytest.raises(ValueError, match="connections"):
        contents(io.BytesIO(content))
    path, out = tmp_path / "in.part", tmp_path / "out.qlog"
    path.write_bytes(content)
    out.write_text("as it was")
    with pytest.raises(ValueError, match=r"in\.part: .*connections"):
        convert(path, out)
    assert out.read_text() == "as it was"


@pytest.mark.parametrize(
    "fields",
    [
        {"event": 0},
        {"event": len(EVENTS) + 1},
        {"event": 255},
        {"cause": len(CAUSES)},
        {"repair": len(REPAIRS)},
        {"state": len(STATES)},
        {"connection": 0},
        {"connection": CONNECTIONS_MAX + 1},
        {"event": NUMBERS["state"], "detail": len(STATES)},
        {"event": NUMBERS["closed"], "detail": len(REASONS)},
        {"event": NUMBERS["closed"], "detail": 2**32 - 1},
    ],
)
def test_a_record_with_a_number_that_has_no_name_is_refused(tmp_path: Path, fields: dict[str, int]) -> None:
    path, out = tmp_path / "in.part", tmp_path / "out.qlog"
    out.write_text("as it was")
    with path.open("wb") as file:
        Spool(file).add([record(), record(**fields)], 0)
    with pytest.raises(ValueError, match="a record that no trace has"):
        read(path)
    with pytest.raises(ValueError, match="a record that no trace has"):
        convert(path, out)
    assert out.read_text() == "as it was"


def test_every_number_that_has_a_name_is_taken() -> None:
    known = [record(event=event) for event in EVENTS]
    known += [record(cause=cause) for cause in CAUSES]
    known += [record(state=state) for state in STATES] + [record(repair=repair) for repair in REPAIRS]
    known += [record(event=NUMBERS["state"], detail=state) for state in STATES]
    known += [record(event=NUMBERS["closed"], detail=reason) for reason in REASONS]
    known += [record(connection=CONNECTIONS_MAX), record(event=NUMBERS["sent"], detail=2**32 - 1)]
    assert first_unknown(b"".join(known)) == -1
    assert first_unknown(b"".join(known) + record(event=0)) == len(known)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_was_changed_it_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    file = io.BytesIO(content[:end])

    class Sink:
        records = 0

        def add(self, records: bytes, connections: Any, missed: int) -> None:
            self.records += len(records)

        def finish(self) -> None:
            assert self.records <= len(content)

    try:
        for _ in spool.copy(file, Sink()):
            pass
    except ValueError:
        pass


@pytest.mark.parametrize("suffix", [".parquet", ".qlog"])
def test_converted_it_is_what_the_same_records_are_when_they_are_written_at_once(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path, out, direct = tmp_path / "in.part", tmp_path / f"out{suffix}", tmp_path / f"direct{suffix}"
    path.write_bytes(whole())
    convert(path, out)
    recorded = read(path)
    assert read(out) == recorded
    write(direct, recorded.records, recorded.connections, recorded.missed)
    assert read(direct) == recorded
    again = tmp_path / f"again{suffix}"
    convert(out, again)
    assert read(again) == recorded


def test_it_is_not_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "in.qlog"
    path.write_bytes(whole())
    with pytest.raises(ValueError, match="written over what it is made of"):
        convert(path, path)
    assert path.read_bytes() == whole()


def test_what_could_not_be_written_whole_is_not_there() -> None:
    class Full(io.BytesIO):
        room = 10**6

        def write(self, data: Any, /) -> int:
            taken = super().write(memoryview(data)[: self.room])
            self.room -= taken
            if taken == 0:
                raise OSError(28, "No space left on device")
            return taken

    file = Full()
    writer = Spool(file)
    writer.add([record(1)], 0)
    before = file.getvalue()
    file.room = 100
    with pytest.raises(OSError, match="No space"):
        writer.add([record(2), record(3)], 0)
    assert file.getvalue() == before
    assert writer.records == 1
    file.room = 10**6
    writer.finish(2)
    assert contents(file).missed == 2

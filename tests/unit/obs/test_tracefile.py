# SPDX-License-Identifier: MIT
"""Files of traces: what is read is what was written, and others can read it, too."""

import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack import Connection
from ustack.engine.trace import unpack
from ustack.obs import tracefile
from ustack.obs.recorded import Recorded
from ustack.obs.tracefile import read, write
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT, REASONS, REPAIRS, STATES
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND

try:
    import pyarrow.parquet as pq
except ImportError:
    pq = None

needs_pyarrow = pytest.mark.skipif(pq is None, reason="Parquet needs pyarrow (the extra `trace`)")
SUFFIXES = [pytest.param(".parquet", marks=needs_pyarrow), ".qlog", ".sqlog"]


def all_acknowledged(connection: Connection) -> bool:
    return connection.info().queued_bytes == 0


def traced() -> tuple[bytes, list[dict[str, Any]]]:
    """Two connections with losses, from their opening to their end."""
    with Pair(seed=3, network={"loss": 0.05, "delay_ns": 10 * MILLISECOND}, msl_ns=0) as pair:
        trace = pair.a.trace(connections=2)
        for _ in range(2):
            client, server = pair.connect()
            server.send(bytes(60_000))
            pair.run_until(partial(all_acknowledged, server), 60 * SECOND)
            client.abort()
            server.abort()
            pair.advance(SECOND)
        assert not trace.active
        return trace.take(), trace.connections


@pytest.fixture(scope="module")
def records() -> tuple[bytes, list[dict[str, Any]]]:
    return traced()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(
    suffix: str, tmp_path: Path, records: tuple[bytes, list[dict[str, Any]]]
) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, *records, 7)
    recorded = read(path)
    assert recorded.records == records[0]
    assert recorded.connections == records[1]
    assert recorded.missed == 7


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_trace_of_nothing_is_a_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, b"", [])
    assert read(path) == Recorded()


u8, u32, u64 = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)
NAMED = {"event": EVENTS, "cause": CAUSES, "state": STATES, "repair": REPAIRS}


@st.composite
def any_record(draw: st.DrawFn) -> bytes:
    values = {name: draw(u32) for name in FIELDS}
    values.update({name: draw(st.sampled_from(list(names))) for name, names in NAMED.items()})
    values["time_ns"] = draw(u64)
    values["pacing_rate"] = draw(st.integers(0, 2**60))
    values["connection"] = draw(st.integers(1, 3))
    kind = EVENTS[values["event"]]
    if kind in ("lost", "recovery", "recovered", "undone", "opened"):
        values["detail"] = 0
    elif kind == "state":
        values["detail"] = draw(st.sampled_from(list(STATES)))
    elif kind == "closed":
        values["detail"] = draw(st.sampled_from(list(REASONS)))
    return struct.pack(FORMAT, *(values[name] for name in FIELDS))


@pytest.mark.parametrize("suffix", [pytest.param(".parquet", marks=needs_pyarrow), ".qlog"])
@given(found=st.lists(any_record(), max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_value_of_every_field_comes_back(suffix: str, tmp_path_factory: Any, found: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("any") / f"out{suffix}"
    write(path, b"".join(found), [])
    assert read(path).records == b"".join(found)


@needs_pyarrow
def test_parquet_has_a_column_for_each_field(tmp_path: Path, records: tuple[bytes, list[dict[str, Any]]]) -> None:
    path = tmp_path / "out.parquet"
    write(path, *records)
    table = pq.read_table(path)
    assert tuple(table.column_names) == FIELDS
    assert {str(table.schema.field(name).type) for name in ("time_ns", "pacing_rate")} == {"uint64"}
    assert str(table.schema.field("cwnd").type) == "uint32"
    assert "string" in str(table.schema.field("event").type)
    assert table.to_pylist() == unpack(records[0])
    metadata = pq.read_metadata(path).metadata
    assert json.loads(metadata[b"ustack.connections"])[1]["local"] == ["198.18.0.2", 80]


@needs_pyarrow
def test_parquet_is_written_in_whole_groups(tmp_path: Path) -> None:
    from ustack.obs.parquet import GROUP_BYTES

    path = tmp_path / "out.parquet"
    one = struct.pack(FORMAT, 5, 1, 1, *([0] * 14))
    with path.open("wb") as file:
        writer = tracefile.open_writer("parquet", file)
        for _ in range(10):
            writer.add(one * (GROUP_BYTES // 64 // 4), [], 0)
        writer.finish()
    assert pq.read_metadata(path).num_row_groups == 3
    assert len(read(path).records) == 10 * GROUP_BYTES // 4


def test_qlog_is_a_json_text_sequence_with_the_drafts_head(
    tmp_path: Path, records: tuple[bytes, list[dict[str, Any]]]
) -> None:
    """RFC 7464 section 2.2: a record separator before each text, a line feed behind it."""
    path = tmp_path / "out.sqlog"
    write(path, *records)
    content = path.read_bytes()
    texts = content.split(b"\x1e")
    assert texts[0] == b""
    assert all(text.endswith(b"\n") and b"\n" not in text[:-1] for text in texts[1:])
    head, *events = [json.loads(text) for text in texts[1:]]
    assert head["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert head["serialization_format"] == "application/qlog+json-seq"
    assert head["trace"]["common_fields"]["reference_time"] == {"clock_type": "monotonic", "epoch": "unknown"}
    assert all({"time", "name", "data"} <= event.keys() for event in events)
    assert {event["name"].partition(":")[0] for event in events} == {"ustack-tcp"}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert {event["group_id"] for event in events} == {"1", "2"}


def test_qlog_tells_metrics_where_they_change(tmp_path: Path, records: tuple[bytes, list[dict[str, Any]]]) -> None:
    path = tmp_path / "out.sqlog"
    write(path, *records)
    events = [json.loads(text) for text in path.read_bytes().split(b"\x1e")[2:]]
    known: dict[str, dict[str, Any]] = {"1": {}, "2": {}}
    for event in events:
        if event["name"] == "ustack-tcp:metrics_updated":
            before = known[event["group_id"]]
            assert all(before.get(name) != value for name, value in event["data"].items())
            before.update(event["data"])
    last = [one for one in unpack(records[0]) if one["connection"] == 2][-1]
    assert known["2"]["congestion_window"] == last["cwnd"]
    assert known["2"]["smoothed_rtt"] == last["srtt_us"] / 1000


def test_a_sequence_that_was_cut_short_is_read_up_to_there(
    tmp_path: Path, records: tuple[bytes, list[dict[str, Any]]]
) -> None:
    path = tmp_path / "out.sqlog"
    write(path, *records)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    recorded = read(path)
    assert 0 < len(recorded.records) < len(records[0])
    assert records[0].startswith(recorded.records)


def test_records_that_were_missed_are_told_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "out.qlog"
    one = struct.pack(FORMAT, 5, 1, 1, *([0] * 14))
    with path.open("wb") as file:
        writer = tracefile.open_writer("qlog", file)
        writer.add(one, [], 0)
        writer.add(one, [], 3)
        writer.add(one, [], 5)
        writer.finish()
    names = [json.loads(text)["name"] for text in path.read_bytes().split(b"\x1e")[2:]]
    assert [name.partition(":")[2] for name in names] == [
        "metrics_updated",
        "sent",
        "records_missed",
        "sent",
        "records_missed",
        "sent",
    ]
    assert read(path).missed == 5


@pytest.mark.parametrize("name", ["out", "out.txt", "out.pcapng", ".parquet"])
def test_a_name_tells_the_format_or_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends in"):
        write(tmp_path / name, b"", [])
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1e{}\n", b"\x1e[1]\n", b"\x1enonsense\n", b'{"file_schema": 1}', b"PAR1"],
)
@pytest.mark.parametrize("suffix", [pytest.param(".parquet", marks=needs_pyarrow), ".qlog"])
def test_a_file_that_is_none_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="in"):
        read(path)


@needs_pyarrow
def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"time_ns": [1]}), path)
    with pytest.raises(ValueError, match="not of a trace"):
        read(path)


def test_without_pyarrow_parquet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'ustack\[trace\]'"):
        write(tmp_path / "out.parquet", b"", [])
    assert not (tmp_path / "out.parquet").exists()
    write(tmp_path / "out.qlog", b"", [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_trace_writes_itself_and_keeps_its_records(suffix: str, tmp_path: Path) -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace()
        client.send(b"word")
        pair.advance(SECOND)
        trace.write(tmp_path / f"out{suffix}")
        assert unpack(read(tmp_path / f"out{suffix}").records) == trace.records()
        assert len(trace.records()) == trace.written
        client.abort()
        server.abort()
        pair.advance(SECOND)

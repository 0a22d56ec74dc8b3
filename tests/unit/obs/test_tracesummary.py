# SPDX-License-Identifier: MIT
"""What a trace comes to: counted by hand from few records, and from a connection that was simulated."""

import struct
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ustack.cli.trace import trace as command
from ustack.obs.recorded import Recorded
from ustack.obs.tracefile import read, write
from ustack.obs.traceplot import plot, rows_of, thresholds
from ustack.obs.tracesummary import summaries
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND

EVENT = {name: number for number, name in EVENTS.items()}
CAUSE = {name: number for number, name in CAUSES.items()}


def record(event: str, cause: str = "none", **fields: int) -> bytes:
    values = {"connection": 1, **fields, "event": EVENT[event], "cause": CAUSE[cause]}
    return struct.pack(FORMAT, *(values.get(name, 0) for name in FIELDS))


def of(*records: bytes) -> Any:
    (found,) = summaries(Recorded(b"".join(records)))
    return found


def test_bytes_are_summed_by_what_became_of_them() -> None:
    found = of(
        record("sent", length=100, detail=1, time_ns=SECOND),
        record("sent", length=50, detail=41),
        record("acked", length=120, detail=900),
        record("acked", length=0),
        record("lost", "rto", length=30),
        record("ack_sent", detail=61, time_ns=3 * SECOND),
    )
    assert (found.sent_bytes, found.acked_bytes, found.lost_bytes, found.received_bytes) == (150, 120, 30, 61)
    assert (found.records, found.duration_s) == (6, 2.0)


def test_retransmissions_are_counted_by_cause() -> None:
    causes = ["fast", "fast", "rack", "probe", "rto", "size", "fast"]
    found = of(*(record("retransmitted", cause, length=10) for cause in causes))
    assert found.retransmitted == {"fast": 3, "rack": 1, "probe": 1, "rto": 1, "size": 1}
    assert found.retransmitted_bytes == 70


def test_the_round_trip_is_that_of_acks_that_measure() -> None:
    samples = [400, 0, 100, 300]
    found = of(*(record("acked", detail=sample, length=1) for sample in samples), record("sent", detail=5))
    assert found.rtt_us == (100, 300, 400)
    assert of(record("sent")).rtt_us is None


def test_repairs_timeouts_and_marks_are_counted() -> None:
    kinds = ["recovery", "recovered", "recovery", "undone", "timeout", "marked", "window", "opened", "state"]
    found = of(*(record(kind, cwnd=at) for at, kind in enumerate(kinds)))
    assert (found.recoveries, found.undone, found.timeouts, found.marks) == (2, 1, 1, 1)
    assert (found.max_cwnd, found.end) == (8, None)


def test_connections_are_told_apart_and_named() -> None:
    known = {"local": ("198.18.0.2", 80), "remote": ("198.18.0.1", 40000), "cc": "cubic"}
    records = record("sent", length=1) + record("sent", connection=2, length=2) + record("closed", detail=1)
    one, other = summaries(Recorded(records, [known]))
    assert (one.remote, one.sent_bytes, one.end) == ("198.18.0.1:40000", 1, "reset")
    assert (other.remote, other.sent_bytes, other.end) == ("", 2, None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "out.qlog"
    with Pair(seed=3, network={"loss": 0.15, "delay_ns": 10 * MILLISECOND}, msl_ns=0) as pair:
        trace = pair.a.trace(connections=1)
        client, server = pair.connect()
        server.send(bytes(60_000))
        pair.run_until(lambda: server.info().queued_bytes == 0, 60 * SECOND)
        client.abort()
        server.abort()
        pair.advance(SECOND)
        write(path, trace.take(), trace.connections)
    return path


def test_a_simulated_connection_adds_up(file: Path) -> None:
    (found,) = summaries(read(file))
    assert found.sent_bytes == found.acked_bytes == 60_000
    assert sum(found.retransmitted.values()) > 0
    assert found.rtt_us is not None
    assert found.rtt_us[0] >= 20_000
    assert found.end in ("reset", "aborted")


def test_the_command_prints_a_row_for_each_connection(file: Path) -> None:
    done = CliRunner().invoke(command, [str(file)])
    assert done.exit_code == 0, done.output
    cells = done.output.strip().split("\t")
    assert cells[0] == "1"
    assert cells[2] == "cubic"
    assert cells[4:6] == ["60,000", "60,000"]


def test_the_command_prints_json(file: Path) -> None:
    import json

    done = CliRunner().invoke(command, [str(file), "--json"])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.output)["connections"]
    assert one["sent_bytes"] == 60_000
    assert one["retransmitted"]


def test_the_command_draws(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = CliRunner().invoke(command, [str(file), "--plot", str(tmp_path / "out.svg")])
    assert done.exit_code == 0, done.output
    first = (tmp_path / "out.svg").read_text()
    assert "<svg" in first
    assert "198.18." in first  # whose connection it is
    assert "prefers-color-scheme: dark" in first
    CliRunner().invoke(command, [str(file), "--plot", str(tmp_path / "again.svg")])
    assert (tmp_path / "again.svg").read_text() == first, "the same records give the same bytes"
    done = CliRunner().invoke(command, [str(file), "--plot", str(tmp_path / "out.png")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(command, [str(file), "--plot", str(tmp_path / "out.nothing")])
    assert done.exit_code != 0
    assert len(done.output.strip().splitlines()) == 1


def test_a_threshold_before_the_first_loss_is_not_drawn(file: Path) -> None:
    """It would make the windows a line at the bottom."""
    rows = rows_of(read(file), 1)
    limits = thresholds(rows)
    assert isnan(limits[0])
    lost = next(at for at, row in enumerate(rows) if row[FIELDS.index("event")] == EVENT["recovery"])
    assert 0 < limits[lost] < 1_000_000


def test_a_connection_that_is_not_there_is_not_drawn(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="no records of it"):
        plot(read(file), 2, tmp_path / "out.svg")
    done = CliRunner().invoke(command, [str(file), "--plot", str(tmp_path / "out.svg"), "--connection", "2"])
    assert done.exit_code != 0
    assert "no records of it" in done.output


@pytest.mark.parametrize("name", ["in.qlog", "in.txt"])
def test_a_file_that_is_no_trace_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("nonsense")
    done = CliRunner().invoke(command, [str(tmp_path / name)])
    assert done.exit_code != 0
    assert len(done.output.strip().splitlines()) == 1

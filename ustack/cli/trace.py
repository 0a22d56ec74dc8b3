# SPDX-License-Identifier: MIT
"""`ustack trace`: what a trace that serve, load or a program has written comes to, as a table, JSON, or a picture; and
as another file.

Above: cli. Below: obs (tracefile, spool, tracesummary, traceplot), recording (where an unfinished one is), tables.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click

from ustack.cli.recording import part_of
from ustack.cli.tables import print_rows
from ustack.obs.recorded import Recorded
from ustack.obs.spool import RECORD_BYTES, contents
from ustack.obs.tracefile import convert, read, write
from ustack.obs.tracesummary import Summary, summaries

COLUMNS = (
    "#", "remote", "cc", "seconds", "sent", "acked", "received", "sent again", "rtt min/median/max ms", "max cwnd",
    "recoveries", "timeouts", "end",
)  # fmt: skip


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", "-o", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path),
              help="Write it as another file, .parquet or .qlog, and sum up nothing.")  # fmt: skip
@click.option("--plot", "picture", metavar="OUT.svg", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw one connection's windows, round trips and sequence numbers (needs matplotlib).")  # fmt: skip
@click.option("--connection", metavar="N", type=click.IntRange(1), help="Which one to draw.  [default: the first]")
@click.option("--json", "as_json", is_flag=True, help="JSON, with plain numbers: bytes, nanoseconds, microseconds.")
def trace(file: Path, out: Path | None, picture: Path | None, connection: int | None, as_json: bool) -> None:
    """Sum up FILE, a trace in Parquet or qlog, or the .part of one that was not finished: a row for each connection.

    Bytes are sequence numbers: a SYN and a FIN count one each. `sent again` says how many segments went again and why:
    fast (three duplicates, or as many SACKed), rack (time), probe (of the tail), rto (the timer), size (path MTU).
    """
    try:
        recorded = _read_finished(file)
        if out is not None:
            if recorded is None:
                convert(file, out)
            else:
                write(out, recorded.records, recorded.connections, recorded.missed)
            return
        recorded = recorded or read(file)
        found = summaries(recorded)
        if picture is not None:
            _draw(recorded, connection or (found[0].number if found else 1), picture)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or out or file}: {error.strerror or error}") from None
    if as_json:
        rows = [{**asdict(one), "duration_s": one.duration_s} for one in found]
        click.echo(json.dumps({"missed": recorded.missed, "connections": rows}, indent=2))
        return
    print_rows(COLUMNS, [_cells(one) for one in found])
    if recorded.missed:
        click.echo(f"{recorded.missed:,} records are missing: they were displaced before they were written", err=True)


def _read_finished(file: Path) -> Recorded | None:
    """Where its .part is there: what it has, which must be all that is in that. None: it was not read."""
    part = part_of(file)
    if not part.is_file():
        return None
    wanted, recorded = 0, None
    with suppress(OSError, ValueError), part.open("rb") as spool:
        wanted = contents(spool).records
    with suppress(ValueError):
        recorded = read(file)
    if recorded is None or len(recorded.records) // RECORD_BYTES < wanted:
        raise ValueError(f"{file} is not finished; its records are in {part}: ustack trace {part} --out {file}")
    return recorded


def _draw(recorded: Recorded, number: int, picture: Path) -> None:
    from ustack.obs.traceplot import plot

    plot(recorded, number, picture)


def _plain(text: object) -> str:
    """What a file says, which may come from anybody, as a terminal bears it."""
    return ascii(str(text))[1:-1]


def _cells(one: Summary) -> tuple[str, ...]:
    again = " ".join(f"{cause} {count}" for cause, count in sorted(one.retransmitted.items())) or "-"
    rtt = "/".join(f"{sample / 1000:.2f}" for sample in one.rtt_us) if one.rtt_us else "-"
    return (
        str(one.number),
        _plain(one.remote) or "?",
        _plain(one.cc) or "?",
        f"{one.duration_s:.3f}",
        f"{one.sent_bytes:,}",
        f"{one.acked_bytes:,}",
        f"{one.received_bytes:,}",
        again,
        rtt,
        f"{one.max_cwnd:,}",
        str(one.recoveries),
        str(one.timeouts),
        one.end or one.state,
    )

# SPDX-License-Identifier: MIT
"""Files of traces: Parquet for tables, qlog for the tools that read JSON, by the name's end; and what a stack's records
are kept in until then (spool), by how it begins.

    write("out.parquet", trace.take(), trace.connections)
    recorded = read("out.parquet")

All hold the same: every field of every record (tcp/records/trace.pxd), who the connections were, and how many records
are missing. Records travel as Trace.take() gives them, 64 bytes each, so nothing here makes an object of each but
the qlog side, which has to. It must not: know a stack.

Above: engine.trace (Trace.write), cli. Below: parquet, qlog, spool, recorded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ustack.obs.recorded import Recorded
from ustack.obs.spool import contents, copy, is_spool, parts, read_spool

PARQUET, QLOG = "parquet", "qlog"
SUFFIXES = {".parquet": PARQUET, ".qlog": QLOG, ".sqlog": QLOG}


class Writer(Protocol):
    """A file that is being written. Whoever opened it closes the file."""

    def add(self, records: bytes, connections: Sequence[dict[str, Any]], missed: int) -> None:
        """More records. connections, missed: all so far, before these. Raises OSError."""

    def finish(self) -> None:
        """Write what is still to be written, once. Raises OSError."""


def kind_of(path: Path) -> str:
    """The format that a name asks for. Raises ValueError."""
    kind = SUFFIXES.get(path.suffix)
    if kind is None:
        raise ValueError(f"{path}: a trace is written to a file that ends in {', '.join(SUFFIXES)}")
    return kind


def ensure_can(kind: str) -> None:
    """Raise ValueError where what writes and reads this format is not installed."""
    if kind == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError("Parquet needs pyarrow: pip install 'ustack[trace]'") from None


def open_writer(kind: str, file: BinaryIO) -> Writer:
    """Begin to write a format into an open file. Raises ValueError (see ensure_can), OSError."""
    ensure_can(kind)
    if kind == PARQUET:
        from ustack.obs.parquet import ParquetFile

        return ParquetFile(file)
    from ustack.obs.qlog import QlogFile

    return QlogFile(file)


def write(path: Path, records: bytes, connections: Sequence[dict[str, Any]], missed: int = 0) -> None:
    """Write a whole trace. Raises ValueError for a name or a format that cannot be, OSError."""
    kind = kind_of(path)
    ensure_can(kind)
    with path.open("wb") as file:
        writer = open_writer(kind, file)
        writer.add(records, connections, missed)
        writer.finish()


def convert(source: Path, path: Path) -> None:
    """Write a trace that a file has into another one, which is made or emptied; a spool without having the whole in
    memory. Raises ValueError, OSError."""
    kind = kind_of(path)
    ensure_can(kind)
    if not is_spool(source):
        recorded = read(source)
        write(path, recorded.records, recorded.connections, recorded.missed)
        return
    with source.open("rb") as spool:
        try:
            contents(spool)  # before anything is emptied
            for _ in parts(spool):
                pass
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        if path.exists() and path.samefile(source):
            raise ValueError(f"{path}: it would be written over what it is made of")
        with path.open("wb") as file:
            for _ in copy(spool, open_writer(kind, file)):
                pass


def read(path: Path) -> Recorded:
    """Read a whole trace. Raises ValueError for what is none, OSError."""
    if is_spool(path):
        return read_spool(path)
    kind = kind_of(path)
    ensure_can(kind)
    if kind == PARQUET:
        from ustack.obs.parquet import read_parquet

        return read_parquet(path)
    from ustack.obs.qlog import read_qlog

    return read_qlog(path)

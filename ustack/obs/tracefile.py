# SPDX-License-Identifier: MIT
"""Files of traces: Parquet for tables, qlog for the tools that read JSON, by the name's end.

    write("out.parquet", trace.take(), trace.connections)
    recorded = read("out.parquet")

Both hold the same: every field of every record (tcp/records/trace.pxd), who the connections were, and how many records
are missing. Records travel as Trace.take() gives them, 64 bytes each, so nothing here makes an object of each but
the qlog side, which has to. It must not: know a stack.

Above: engine.trace (Trace.write), cli. Below: parquet, qlog, recorded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ustack.obs.recorded import Recorded

PARQUET, QLOG = "parquet", "qlog"
SUFFIXES = {".parquet": PARQUET, ".qlog": QLOG, ".sqlog": QLOG}


class Writer(Protocol):
    """A file that is being written. Whoever opened it closes the file."""

    def add(self, records: bytes, connections: Sequence[dict[str, Any]], missed: int) -> None:
        """More records. connections, missed: all so far. Raises OSError."""

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


def read(path: Path) -> Recorded:
    """Read a whole trace. Raises ValueError for what is none, OSError."""
    kind = kind_of(path)
    ensure_can(kind)
    if kind == PARQUET:
        from ustack.obs.parquet import read_parquet

        return read_parquet(path)
    from ustack.obs.qlog import read_qlog

    return read_qlog(path)

# SPDX-License-Identifier: MIT
"""A trace as Parquet, through pyarrow: a column for each field of a record, names for its numbers.

No record becomes a Python object on its way (columns), so that a million of them take a tenth of a second. Who the
connections were is in the file's metadata: JSON under `ustack.connections`, and `ustack.missed`.

Above: tracefile. Below: pyarrow, columns, recorded, tcp.tracing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ustack.obs.columns import columns
from ustack.obs.recorded import Recorded
from ustack.tcp.tracing import CAUSES, EVENTS, FIELDS, FORMAT, REPAIRS, STATES

RECORD_BYTES = 64
GROUP_BYTES = (1 << 17) * RECORD_BYTES  # so many records make a row group
CONNECTIONS, MISSED = b"ustack.connections", b"ustack.missed"
NAMED = {"event": EVENTS, "cause": CAUSES, "state": STATES, "repair": REPAIRS}
Code = Literal["Q", "I", "B"]
TYPES = {"Q": pa.uint64(), "I": pa.uint32()}
BYTES: dict[Code, int] = {"Q": 8, "I": 4, "B": 1}


def _layout() -> list[tuple[str, Code, int]]:
    """(name, code of `struct`, offset) of each field."""
    codes = ""
    count = ""
    for letter in FORMAT[1:]:
        if letter.isdigit():
            count += letter
            continue
        codes += letter * int(count or 1)
        count = ""
    found: list[tuple[str, Code, int]] = []
    at = 0
    for name, letter in zip(FIELDS, codes, strict=True):
        code = cast(Code, letter)
        found.append((name, code, at))
        at += BYTES[code]
    return found


LAYOUT = _layout()


def _names(name: str) -> list[str]:
    """What each number of this field is called; "" for one that is nothing."""
    names = NAMED[name]
    return [names.get(number, "") for number in range(max(names) + 1)]


def _schema() -> pa.Schema:
    fields = []
    for name, code, _ in LAYOUT:
        fields.append(pa.field(name, TYPES[code] if code in TYPES else pa.dictionary(pa.int8(), pa.string())))
    return pa.schema(fields)


SCHEMA = _schema()


def table_of(records: bytes) -> pa.Table:
    """The records as a table, without copying more than once."""
    count = len(records) // RECORD_BYTES
    arrays = []
    for (name, code, _), column in zip(LAYOUT, columns(records), strict=True):
        buffers = [None, pa.py_buffer(column)]
        if code in TYPES:
            arrays.append(pa.Array.from_buffers(TYPES[code], count, buffers))
        else:
            numbers = pa.Array.from_buffers(pa.int8(), count, buffers)
            arrays.append(pa.DictionaryArray.from_arrays(numbers, pa.array(_names(name))))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


class ParquetFile:
    """A Parquet file that is being written: tracefile.Writer. It can be read when it is finished, not before."""

    def __init__(self, file: BinaryIO) -> None:
        # What is written while a server serves must cost little: no dictionaries of numbers, no statistics.
        self._writer = pq.ParquetWriter(
            file, SCHEMA, compression="lz4", use_dictionary=list(NAMED), write_statistics=False
        )
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._connections: Sequence[dict[str, Any]] = []
        self._missed = 0

    def add(self, records: bytes, connections: Sequence[dict[str, Any]], missed: int) -> None:
        """As Writer's. Whole row groups are written, the rest waits."""
        self._connections, self._missed = connections, missed
        self._waiting.append(records)
        self._waiting_bytes += len(records)
        if self._waiting_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if any(waiting):
            self._writer.write_table(table_of(b"".join(waiting)))

    def finish(self) -> None:
        """As Writer's: the rest, and the footer."""
        self._flush()
        self._writer.add_key_value_metadata(
            {CONNECTIONS.decode(): json.dumps(list(self._connections)), MISSED.decode(): str(self._missed)}
        )
        self._writer.close()


def read_parquet(path: Path) -> Recorded:
    """A whole file. Raises ValueError if it is no trace."""
    try:
        table = pq.read_table(path)
        metadata = pq.read_metadata(path).metadata or {}
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {error}") from None
    if not set(FIELDS) <= set(table.column_names) or CONNECTIONS not in metadata:
        raise ValueError(f"{path}: a Parquet file, but not of a trace")
    connections = json.loads(metadata[CONNECTIONS])
    for one in connections:
        one["local"], one["remote"] = tuple(one["local"]), tuple(one["remote"])
    return Recorded(_records_of(table), connections, int(metadata[MISSED]))


def _records_of(table: pa.Table) -> bytes:
    records = bytearray(table.num_rows * RECORD_BYTES)
    for name, code, offset in LAYOUT:
        size = BYTES[code]
        column = table.column(name).combine_chunks()
        if code not in TYPES:
            numbers = {text: number for number, text in NAMED[name].items()}
            values = bytes(numbers[text] for text in column.to_pylist())
        else:
            start = column.offset * size
            values = column.buffers()[1].to_pybytes()[start : start + len(column) * size] if len(column) else b""
        place = memoryview(records).cast(code)[offset // size :: RECORD_BYTES // size]
        place[:] = memoryview(values).cast(code)
    return bytes(records)

# SPDX-License-Identifier: MIT
"""A trace as it is written while its stack works: the records as they are, so that writing them costs a copy.

    file      head, then blocks
    head      32 bytes: MAGIC, VERSION, bytes of a record, a digest of what records mean (of their layout and of every
              name); a file of a build where one of them is another is refused
    block     16 bytes: kind, bytes that follow, records that were missed before these; then
    RECORDS   ... records
    PEOPLE    ... JSON: [number of the first, [connection, ...]], as Trace.connections has them. What comes later about
              the same number is what counts
    END       ... nothing: the trace is whole

Whoever writes it may end in the middle, and so may the file: what is whole of its last block counts. Nothing else that
it says is believed: lengths are bounded, and records have numbers only that have names. Numbers are the machine's own.

It must not: know a stack. Above: cli.recording, tracefile. Below: columns, recorded, tcp.tracing.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ustack.obs.columns import first_unknown
from ustack.obs.recorded import Recorded
from ustack.tcp.tracing import CAUSES, CONNECTIONS_MAX, EVENTS, FIELDS, FORMAT, REASONS, REPAIRS, STATES

MAGIC = b"\xf5ustrace"  # no UTF-8
VERSION = 1
RECORD_BYTES = struct.calcsize(FORMAT)
HEAD = struct.Struct("=8sII16s")
BLOCK = struct.Struct("=IIQ")
RECORDS, PEOPLE, END = 1, 2, 3
PART_BYTES = 1 << 20  # of records, read at once
PEOPLE_BYTES_MAX = 1 << 20
PEOPLE_AT_ONCE = 1024  # in one block
KEYS = {"local": list, "remote": list, "active": bool, "began_ns": int, "iss": int, "irs": int, "smss": int, "cc": str}


def _meaning() -> bytes:
    names = (FORMAT, FIELDS, EVENTS, CAUSES, STATES, REPAIRS, REASONS, sys.byteorder)
    return hashlib.sha256(repr(names).encode()).digest()[:16]


HEAD_BYTES = HEAD.pack(MAGIC, VERSION, RECORD_BYTES, _meaning())


class Spool:
    """One that is being written. Whoever opened it closes the file, which is raw and can be cut."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises OSError."""
        self._file = file
        self._end = 0  # of what is whole
        self.records = 0
        self._put(HEAD_BYTES)

    def add(self, pieces: Sequence[memoryview | bytes], missed: int) -> None:
        """Records, whole ones in each piece. missed: as many as are missing before them. Raises OSError, and then
        nothing of them is there."""
        octets = sum(len(piece) for piece in pieces)
        self._put(BLOCK.pack(RECORDS, octets, missed), *pieces)
        self.records += octets // RECORD_BYTES

    def introduce(self, first: int, connections: Sequence[dict[str, Any]]) -> None:
        """Who the connections from this number on are. Raises OSError."""
        for at in range(0, len(connections), PEOPLE_AT_ONCE):
            text = json.dumps([first + at, connections[at : at + PEOPLE_AT_ONCE]], separators=(",", ":")).encode()
            self._put(BLOCK.pack(PEOPLE, len(text), 0), text)

    def finish(self, missed: int) -> None:
        """The trace is whole, but for so many records. Raises OSError."""
        self._put(BLOCK.pack(END, 0, missed))

    def _put(self, *pieces: memoryview | bytes) -> None:
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[self._file.write(view) :]
        except (OSError, MemoryError):
            with suppress(OSError):  # a reader bears with a block that is cut short
                self._file.seek(self._end)
                self._file.truncate()
            raise
        self._end += sum(len(piece) for piece in pieces)


# ---------------------------------------------------------------- reading


@dataclass
class Contents:
    """What a spool has, but the records. missed: in all, as far as it says. whole: it was finished."""

    records: int = 0
    missed: int = 0
    whole: bool = False
    connections: list[dict[str, Any]] = field(default_factory=list)


class Writer(Protocol):
    """Of tracefile."""

    def add(self, records: bytes, connections: Sequence[dict[str, Any]], missed: int) -> None:
        """As there."""

    def finish(self) -> None:
        """As there."""


def is_spool(path: Path) -> bool:
    """Whether the file begins as one. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def contents(file: BinaryIO) -> Contents:
    """Look through a whole file. Raises ValueError for what is none, or of another build."""
    found = Contents()
    for kind, octets, missed in _blocks(file):
        found.missed = missed if kind != PEOPLE else found.missed
        if kind == RECORDS:
            found.records += octets // RECORD_BYTES
        elif kind == PEOPLE:
            _learn(file.read(octets), found.connections)
        else:
            found.whole = True
    return found


def parts(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The records in parts of PART_BYTES at most, and how many were missed before each. Raises ValueError."""
    for kind, octets, missed in _blocks(file):
        left = octets if kind == RECORDS else 0
        while left >= RECORD_BYTES:
            part = file.read(min(left, PART_BYTES))
            part = part[: len(part) - len(part) % RECORD_BYTES]
            if not part:
                return  # it has become shorter meanwhile
            unknown = first_unknown(part)
            if unknown >= 0:
                raise ValueError(f"a record that no trace has, before byte {file.tell()}")
            yield part, missed
            left -= len(part)


def copy(file: BinaryIO, writer: Writer, missed: int = 0) -> Iterator[int]:
    """Write what it has with a Writer, finish() included. Yields how many records are written, now and then; whoever
    goes on no more has a file that is not finished. missed: in all, if it is more than the file could be told. Raises
    ValueError, OSError."""
    found = contents(file)
    done = 0
    for part, before in parts(file):
        writer.add(part, found.connections, before)
        done += len(part) // RECORD_BYTES
        yield done
    writer.add(b"", found.connections, max(missed, found.missed))
    writer.finish()


def read_spool(path: Path) -> Recorded:
    """A whole file, finished or not. Raises ValueError."""
    try:
        with path.open("rb") as file:
            found = contents(file)
            records = b"".join(part for part, _ in parts(file))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Recorded(records, found.connections, found.missed)


def _blocks(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(kind, bytes, missed) of each block, with the file at its content; fewer bytes than it says where the file ends
    before it does."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD.size)
    if not head.startswith(MAGIC) or len(head) < HEAD.size:
        raise ValueError("not a raw trace")
    if head != HEAD_BYTES:
        raise ValueError("a raw trace of another build of ustack: only that one can read it")
    at, before = HEAD.size, 0
    while at + BLOCK.size <= size:
        file.seek(at)
        kind, octets, missed = BLOCK.unpack(file.read(BLOCK.size))
        at += BLOCK.size
        present = min(octets, size - at)
        if kind == RECORDS and octets % RECORD_BYTES == 0 and missed >= before:
            before = missed
        elif kind == PEOPLE and octets <= PEOPLE_BYTES_MAX:
            if present < octets:
                return
        elif kind != END or octets or missed < before or at != size:
            raise ValueError(f"what is at byte {at - BLOCK.size} is no part of a raw trace")
        yield kind, present, missed
        at += octets


def _learn(text: bytes, connections: list[dict[str, Any]]) -> None:
    """Put what a block says about connections in its place."""
    try:
        first, told = json.loads(text)
        told = [_person(one) for one in told]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("what it says about connections is none of that") from None
    if type(first) is not int or not 0 <= first <= len(connections) or first + len(told) > CONNECTIONS_MAX:
        raise ValueError("connections without those before them")
    connections[first : first + len(told)] = told


def _person(one: dict[str, Any]) -> dict[str, Any]:
    values = {key: one[key] for key in KEYS}
    if any(type(values[key]) is not kind for key, kind in KEYS.items()):
        raise ValueError
    for end in ("local", "remote"):
        address, port = values[end]
        if type(address) is not str or type(port) is not int:
            raise ValueError
        values[end] = (address, port)
    for text in (values["local"][0], values["remote"][0], values["cc"]):
        if not text.isascii() or not text.isprintable():
            raise ValueError
    return values

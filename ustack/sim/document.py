# SPDX-License-Identifier: MIT
"""A scenario file as tables whose keys are asked for one by one, and where each of them stands.

    document = Document.load(Path("two.toml"))
    table = document.table(("flows", "f0"))
    cc = table.get("cc", values.text, None)
    table.done()                               # ScenarioError: two.toml:12: flows.f0.ccc: there is no such key ...

Whatever is wrong raises ScenarioError: file, line, key, what it is and what would be right. Files are bounded in bytes,
so that no error and no look for a word takes long.

It must not: know what a key means. Above: reading, ways. Below: toml, places, values.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ustack.sim import places, toml, values

BYTES_MOST = 1 << 20
# Dotted keys of many parts take parsers a time that grows with their square.
LONG_KEY = re.compile(r"(?:\.[ \t]*[\w\"'-]{1,60}[ \t]*){64}")
GIVEN_SHOWN = 3
REQUIRED: Any = object()


class ScenarioError(ValueError):
    """A scenario that cannot be, in one line."""


class Document:
    """One file, or one variant of it: see with_values()."""

    def __init__(self, file: str, tree: dict[str, Any], lines: dict[places.Path, int]) -> None:
        """tree: as the parser made it.  lines: of its keys."""
        self.file = file
        self.tree = tree
        self._lines = lines
        self._given: dict[places.Path, str] = {}  # by the caller instead of the file: the words that he gave

    @classmethod
    def load(cls, path: Path) -> Document:
        """Raises ScenarioError, OSError."""
        with path.open("rb") as stream:
            raw = stream.read(BYTES_MOST + 1)
        return cls.parse(raw, str(path))

    @classmethod
    def parse(cls, raw: bytes, file: str) -> Document:
        """From the bytes of a file of that name. Raises ScenarioError."""
        if len(raw) > BYTES_MOST:
            raise ScenarioError(f"{file}: larger than {BYTES_MOST >> 20} MiB: rates that were recorded have a file")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise ScenarioError(f"{file}:{line}: no text in UTF-8") from None
        # A document's line ends as the parser sees them.
        text = text.replace("\r\n", "\n")
        if found := LONG_KEY.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise ScenarioError(f"{file}:{line}: a key of more parts than any has")
        try:
            return cls(file, toml.loads(text), places.lines_of(text))
        except RecursionError:
            raise ScenarioError(f"{file}: nested too deeply") from None
        except toml.TOMLDecodeError as error:
            raise ScenarioError(f"{file}{_at(str(error), text)}") from None
        except ValueError:
            raise ScenarioError(f"{file}: a number of more digits than any key takes") from None

    def error(self, path: places.Path, message: str) -> ScenarioError:
        """About the key at this path, at its line or that of what it would lie in."""
        dotted = ".".join(str(part) if len(str(part)) <= 60 else f"{str(part)[:60]}..." for part in path)
        given = list(dict.fromkeys(self._given.values()))[:GIVEN_SHOWN]
        beside = f" (with {', '.join(given)})" if given else ""  # the file alone may be right
        for length in range(len(path), 0, -1):
            if path[:length] in self._given:
                return ScenarioError(f"{self._given[path[:length]]}: {dotted}: {message}")
            if path[:length] in self._lines:
                return ScenarioError(f"{self.file}:{self._lines[path[:length]]}: {dotted}: {message}{beside}")
        return ScenarioError(f"{self.file}: {dotted}: {message}{beside}" if path else f"{self.file}: {message}{beside}")

    def table(self, path: places.Path) -> Table:
        """The table there. Raises ScenarioError: it is none, or missing."""
        value: Any = self.tree
        for part in path:
            value = value.get(part, {}) if isinstance(value, dict) else value[part]
        if not isinstance(value, dict):
            raise self.error(path, f"{values.shown(value)}: a table is needed")
        return Table(self, path, value)

    def with_values(self, given: Iterable[tuple[places.Path, Any, str]]) -> Document:
        """A copy with other values at some paths. Each: path, value, the words by which errors name it.

        A `*` in a path stands for every key of that table, a number for an item of an array. What a path names must be
        there, down to the second key (a link, a flow); the keys of that may be new. Of two paths to one value the later
        must have fewer stars. Raises ScenarioError.
        """
        made = Document(self.file, copy.deepcopy(self.tree), self._lines)
        made._given = dict(self._given)
        before: dict[places.Path, tuple[places.Path, str]] = {}
        for path, value, words in given:
            found = False
            for concrete in _expanded(made.tree, path):
                placed = made._put(concrete, value, words)
                earlier, its_words = before.get(placed, (None, ""))
                if earlier is not None and path.count("*") >= earlier.count("*"):
                    raise ScenarioError(f"{words}: {_dotted(placed)} is given by {its_words} already")
                before[placed] = (path, words)
                found = True
            if not found:
                raise ScenarioError(f"{words}: nothing there has such a name")
        return made

    def _put(self, path: places.Path, value: Any, words: str) -> places.Path:
        """Where it is now: the path with the numbers of items as numbers."""
        at: Any = self.tree
        placed: places.Path = ()
        for depth, part in enumerate(path):
            step = _step(at, part, placed, words)
            placed = (*placed, step)
            if depth == len(path) - 1:
                at[step] = value
            elif isinstance(at, dict) and step not in at:
                if depth < 2:
                    raise ScenarioError(f"{words}: there is no {_dotted(placed)}{values.nearest(str(part), at)}")
                if _number(path[depth + 1]) is not None:
                    where = _dotted(placed)
                    raise ScenarioError(
                        f"{words}: there is no array {where}: it can be given as a whole, {where}=[...]"
                    )
                at[step] = {}
                self._given[placed] = words
            at = at[step]
        self._given[placed] = words
        return placed


def _step(at: Any, part: str | int, placed: places.Path, words: str) -> str | int:
    """The key or the index that a part of a path is, in what lies at `placed`. Raises ScenarioError."""
    if isinstance(at, list):
        number = _item(at, part)
        if number is None:
            have = f"items 0 to {len(at) - 1}" if at else "no items"
            raise ScenarioError(f"{words}: {_dotted(placed)} is an array with {have}, not {part}")
        return number
    if not isinstance(at, dict):
        raise ScenarioError(f"{words}: {_dotted(placed)} is no table")
    return part


def _dotted(path: places.Path) -> str:
    return ".".join(map(str, path))


def _number(part: str | int) -> int | None:
    """A part of a path as the number of an item."""
    if isinstance(part, str) and part.isascii() and part.isdigit() and len(part) < 10:
        return int(part)
    return part if isinstance(part, int) else None


def _item(array: list[Any], part: str | int) -> int | None:
    number = _number(part)
    return number if number is not None and number < len(array) else None


def _expanded(tree: Any, path: places.Path) -> Iterator[places.Path]:
    """The paths that one with stars stands for."""
    at: Any = tree
    for depth, part in enumerate(path):
        if part == "*":
            names = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else []
            for name in names:
                yield from _expanded(tree, (*path[:depth], name, *path[depth + 1 :]))
            return
        if isinstance(at, list):
            number = _item(at, part)
            at = None if number is None else at[number]
        else:
            at = at.get(part) if isinstance(at, dict) else None
    yield path


def _at(message: str, text: str) -> str:
    """A parser's message, its place before it: `:3: what it is`."""
    words, _, place = message.rpartition(" (at ")
    if not words:
        return f": {message}"
    number = place.removeprefix("line ").partition(",")[0]
    if not number.isdigit():  # the end of the document
        number = str(text.count("\n") + 1)
    return f":{number}: {words[:1].lower()}{words[1:][:200]}"


class Table:
    """One table: what is asked for is known, anything else in it is an error at done()."""

    def __init__(self, document: Document, path: places.Path, tree: dict[str, Any]) -> None:
        """tree: the table itself."""
        self.document = document
        self.path = path
        self.tree = tree
        self._asked: dict[str, None] = {}

    def has(self, key: str) -> bool:
        """Is it there?"""
        self._asked[key] = None
        return key in self.tree

    def get(self, key: str, read: values.Reader, default: Any = REQUIRED) -> Any:
        """What read makes of the value; default, where there is none. Raises ScenarioError."""
        self._asked[key] = None
        if key not in self.tree:
            if default is REQUIRED:
                raise self.document.error(self.path, f"{key} is missing")
            return default
        try:
            return read(self.tree[key])
        except ScenarioError:
            raise
        except ValueError as error:
            raise self.error(key, str(error)) from None

    def table(self, key: str) -> Table:
        """The table of that key, an empty one where there is none."""
        self._asked[key] = None
        return self.document.table((*self.path, key))

    def tables(self, key: str, most: int) -> list[Table]:
        """An array of tables."""
        items = self.get(key, lambda value: values.array(value, "tables", most), [])
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.document.error((*self.path, key, number), f"{values.shown(item)}: a table is needed")
        return [Table(self.document, (*self.path, key, number), item) for number, item in enumerate(items)]

    def error(self, key: str, message: str) -> ScenarioError:
        """About one of its keys."""
        return self.document.error((*self.path, key), message)

    def done(self) -> None:
        """Every key was asked for, or it is one that nobody knows. Raises ScenarioError."""
        for key in self.tree:
            if key not in self._asked:
                known = ", ".join(self._asked) if len(self._asked) <= 16 else f"{len(self._asked)} others"
                near = values.nearest(key, self._asked) or f" (there are {known})"
                raise self.error(key, f"there is no such key{near}")

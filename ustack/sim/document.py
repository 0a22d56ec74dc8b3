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
        for length in range(len(path), 0, -1):
            if path[:length] in self._given:
                return ScenarioError(f"{self._given[path[:length]]}: {dotted}: {message}")
            if path[:length] in self._lines:
                return ScenarioError(f"{self.file}:{self._lines[path[:length]]}: {dotted}: {message}")
        return ScenarioError(f"{self.file}: {dotted}: {message}" if path else f"{self.file}: {message}")

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

        A `*` in a path stands for every key of that table. What a path names must be there, down to the second key
        (a link, a flow); the keys of that may be new. Raises ScenarioError.
        """
        made = Document(self.file, copy.deepcopy(self.tree), self._lines)
        made._given = dict(self._given)
        for path, value, words in given:
            found = False
            for concrete in _expanded(made.tree, path):
                made._put(concrete, value, words)
                found = True
            if not found:
                raise ScenarioError(f"{words}: nothing there has such a name")
        return made

    def _put(self, path: places.Path, value: Any, words: str) -> None:
        at: Any = self.tree
        for depth, part in enumerate(path):
            is_last = depth == len(path) - 1
            if isinstance(at, list):
                if not isinstance(part, int) or part >= len(at):
                    raise ScenarioError(f"{words}: there is no item {part}")
            elif not isinstance(at, dict):
                raise ScenarioError(f"{words}: {'.'.join(map(str, path[:depth]))} is no table")
            elif part not in at and not is_last:
                if depth < 2:
                    near = values.nearest(str(part), at)
                    raise ScenarioError(f"{words}: there is no {'.'.join(map(str, path[: depth + 1]))}{near}")
                at[part] = {}
            if is_last:
                at[part] = value
            else:
                at = at[part]
        self._given[path] = words


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
            at = at[part] if isinstance(part, int) and part < len(at) else None
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

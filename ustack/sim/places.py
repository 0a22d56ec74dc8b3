# SPDX-License-Identifier: MIT
"""The line of every key in a TOML document that a TOML parser has accepted: what tomllib does not tell.

    lines_of("[links.a-b]\\nrate = '1 Mb/s'\\n")     # {("links",): 1, ("links", "a-b"): 1, ("links", "a-b", "rate"): 2}

A path is the keys from the top, and numbers where there are arrays, of tables or of values. It must not: judge, or keep
a value; what is no TOML never comes here. Read first: toml.io/en/v1.0.0. Above: reading.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any

from ustack.sim.toml import loads

Path = tuple[str | int, ...]

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
BARE_VALUE = re.compile(r"[^,\]}#\n]*")
# The whole of a string, by what it begins with; the longest beginning first.
STRINGS = {
    '"""': re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL),
    "'''": re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL),
    '"': re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    "'": re.compile(r"'[^'\n]*'"),
}


def lines_of(text: str) -> dict[Path, int]:
    """From path to line, from 1. Raises RecursionError for what is nested too deeply."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of arrays of tables, by their path

    def run(self) -> dict[Path, int]:
        self._blank()
        table: Path = ()
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                self._at += 2
                table = self._header(is_array=True)
                self._at += 2
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._header(is_array=False)
                self._at += 1
            else:
                self._pair(table)
            self._blank()
        return self._lines

    def _blank(self) -> None:
        match = BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _note(self, path: Path, at: int) -> None:
        """The first time that it is named is its place; so is that of what it lies in."""
        line = bisect_right(self._starts, at)
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _header(self, *, is_array: bool) -> Path:
        at = self._at
        keys = self._key()
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if number == len(keys) - 1 and is_array:
                self._note(path, at)
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        self._note(path, at)
        return path

    def _pair(self, table: Path) -> None:
        at = self._at
        path = (*table, *self._key())
        self._note(path, at)
        self._at += 1  # the equals sign
        self._blank()
        self._value(path)

    def _key(self) -> list[str]:
        """A dotted one; the place is behind it, and what is blank."""
        keys = []
        while True:
            self._blank()
            keys.append(self._simple_key())
            self._blank()
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _simple_key(self) -> str:
        quote = self._text[self._at]
        match = STRINGS.get(quote, BARE_KEY).match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        if quote not in STRINGS:
            return match[0]
        found: Any = loads(f"key = {match[0]}")["key"]
        return str(found)

    def _value(self, path: Path) -> None:
        begin = self._text[self._at : self._at + 3]
        opening = next((quote for quote in STRINGS if begin.startswith(quote)), None)
        if opening is not None:
            match = STRINGS[opening].match(self._text, self._at)
            assert match is not None
            self._at = match.end()
        elif begin.startswith("["):
            self._items("]", path)
        elif begin.startswith("{"):
            self._items("}", path)
        else:
            match = BARE_VALUE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()

    def _items(self, closing: str, path: Path) -> None:
        """Of an array, or of an inline table."""
        self._at += 1
        number = 0
        self._blank()
        while not self._text.startswith(closing, self._at):
            if closing == "]":
                self._note((*path, number), self._at)
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
            self._blank()
            if self._text.startswith(",", self._at):
                self._at += 1
                self._blank()
        self._at += 1

# SPDX-License-Identifier: MIT
"""A value of a scenario file as a number, a word or a list: what each kind of key takes.

Each reader takes what a TOML parser has made of the value, and raises ValueError with what is wrong and what would be
right. Above: reading, ways. Below: base.quantities.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ustack.base import quantities

Reader = Callable[[Any], Any]
_T = TypeVar("_T")

NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
NAME_RULE = "1 to 40 letters, digits, - and _"
KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    (list, "an array"),
    (dict, "a table"),
)


def kind_of(value: Any) -> str:
    """What a message calls it."""
    return next((word for kind, word in KINDS if isinstance(value, kind)), "a date or a time")


def shown(value: Any) -> str:
    """As a message quotes it: numbers and words themselves, of anything else what it is."""
    if isinstance(value, str):
        return quantities.shown(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        text = f"{value}" if isinstance(value, float) or abs(value) < 10**20 else "a number of more than 20 digits"
        return text
    return kind_of(value)


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing."""
    close = difflib.get_close_matches(word[:60], list(words), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def text(value: Any) -> str:
    """Any words."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no text: put it in quotes")
    return value


def boolean(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)}: true or false is needed")
    return value


def whole(low: int, high: int) -> Reader:
    """A reader of whole numbers."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)}: a whole number from {low} to {high} is needed")
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is not from {low} to {high}")
        return value

    return read


def at_most(read: Reader, most: int, words: str) -> Reader:
    """The same reader, of what is not beyond that."""

    def reading(value: Any) -> Any:
        found = read(value)
        if found > most:
            raise ValueError(f"{shown(value)} is too much: at most {words}")
        return found

    return reading


def time_ns(value: Any) -> int:
    """`"40 ms"`; 0 needs no unit."""
    return _quantity(value, quantities.time_ns, "time", "40 ms")


def some_time_ns(value: Any) -> int:
    """The same, and not nothing."""
    found = time_ns(value)
    if found == 0:
        raise ValueError("0 is too short: a time such as '40 ms' is needed")
    return found


def rate_bps(value: Any) -> int:
    """`"100 Mb/s"`; 0 needs no unit."""
    return _quantity(value, quantities.rate_bps, "rate", "100 Mb/s")


def size_bytes(value: Any) -> int:
    """`"20 MB"`, or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= quantities.MOST:
        return value
    return _quantity(value, quantities.size_bytes, "size", "20 MB")


def some_size_bytes(value: Any) -> int:
    """The same, and not nothing."""
    found = size_bytes(value)
    if found == 0:
        raise ValueError("0 is too small: a size such as '20 MB' is needed")
    return found


def share(value: Any) -> float:
    """`"0.1 %"`, or a number from 0 to 1."""
    if isinstance(value, str):
        return quantities.share(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{shown(value)} is no share: '0.1 %', or a number from 0 to 1")
    return float(value)


def limit(value: Any) -> dict[str, int]:
    """What may wait: `"250 kB"`, or `"100 packets"`, as the setting of a hop that it is."""
    found = quantities.queue(value, "limit") if isinstance(value, str) else {"queue_bytes": some_size_bytes(value)}
    if found.get("queue_bytes", 0) > 1 << 40:
        raise ValueError(f"{shown(value)} is too much: at most 1 TiB")
    return found


def choice(*words: str) -> Reader:
    """A reader of one of these words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            near = nearest(value, words) if isinstance(value, str) else ""
            raise ValueError(f"{shown(value)} is none of {', '.join(words)}{near}")
        return value

    return read


def name(value: Any) -> str:
    """Of a node, a link, a flow."""
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ValueError(f"{shown(value)} is no name: {NAME_RULE}")
    return value


def array(value: Any, what: str, most: int) -> list[Any]:
    """Of at most so many items."""
    if not isinstance(value, list):
        raise ValueError(f"{shown(value)}: an array of {what} is needed")
    if len(value) > most:
        raise ValueError(f"{len(value)} {what}: at most {most}")
    return value


def _quantity(value: Any, read: Callable[[str, str], int], what: str, example: str) -> int:
    if isinstance(value, str):
        return read(value, what)
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    raise ValueError(f"{shown(value)} is no {what}: a number with its unit in quotes, such as '{example}'")

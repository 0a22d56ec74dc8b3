# SPDX-License-Identifier: MIT
"""Settings of a stack as people write them: `rto_min_ns` is 40 ms, `rcv_buffer_bytes` is 64 KiB, `ttl` is 64.

Neighbours: info prints settings, serve reads them (`--set NAME=VALUE`). Below: engine.settings, which has their table.
"""

import re
from collections.abc import Iterable

import click

TIMES = {"d": 86400 * 10**9, "h": 3600 * 10**9, "min": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
SIZES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "bytes": 1}
AMOUNT = re.compile(r"([0-9]{1,20})(?: ?([A-Za-z]+))?", re.ASCII)


def units(name: str) -> dict[str, int]:
    """Units in which the setting `name` may be written, largest first."""
    return TIMES if name.endswith("_ns") else SIZES if name.endswith("_bytes") else {}


def amount(name: str, value: int) -> str:
    """A setting's value in the largest unit that it is a whole number of: 40000000 of rto_min_ns is 40 ms."""
    for unit, size in units(name).items():
        if value and value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def number(name: str, text: str) -> int:
    """What amount() has written, with or without the space. A number without a unit is in the smallest one.

    Raises ValueError for what is no such amount.
    """
    found = AMOUNT.fullmatch(text)
    sizes = {"": 1, **units(name)}
    unit = found[2] or "" if found else None
    if found is None or unit not in sizes:
        example = f" (one of {', '.join(units(name))} may follow)" if units(name) else ""
        raise ValueError(f"bad {name} {text!r}: a whole number{example}")
    return int(found[1]) * sizes[unit]


def setting(word: str) -> tuple[str, int]:
    """NAME=VALUE as (name, number). Raises ValueError for what no stack would take: which settings, which values."""
    from ustack.engine.settings import settings

    name, equals, text = word.partition("=")
    rows = settings()
    if not equals or name not in rows:
        raise ValueError(f"{word!r}: not NAME=VALUE of a setting (ustack info --settings lists them)")
    wanted, row = number(name, text), rows[name]
    if not row.low <= wanted <= row.high:
        bounds = f"{amount(name, row.low)} to {amount(name, row.high)}"
        raise ValueError(f"{name} is from {bounds}, not {amount(name, wanted)}")
    return name, wanted


def read_settings(context: click.Context, option: click.Parameter, words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """The callback of an option that may be given again for each setting."""
    try:
        return tuple(setting(word) for word in words)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None

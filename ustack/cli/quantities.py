# SPDX-License-Identifier: MIT
"""Rates, times, sizes and shares as people write them: `100mbit`, `10ms`, `250kB`, `1%`. Text in, numbers out.

What cannot be read raises LabError with what was expected, and an example. Above: wire. Below: nothing.
"""

import re
from fractions import Fraction

from ustack.lab import LabError

NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z/%]*)", re.ASCII)
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
TIMES_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
MOST = 2**60  # of anything: what the records of a wire hold


def rate_bps(text: str) -> int:
    """`100mbit`, `1.5gbit`, `64kbit`, in bits per second; `/s` may follow. `0`: none."""
    return _integer("rate", text.lower().removesuffix("/s").removesuffix("ps"), RATES, "bit", "100mbit")


def time_ns(text: str, what: str = "time") -> int:
    """`10ms`, `0.5s`, `250us`, in nanoseconds."""
    return _integer(what, text.lower(), TIMES_NS, "", "10ms")


def size_bytes(text: str, what: str = "size") -> int:
    """`250kB`, `1MiB`, `3000`, in bytes."""
    return _integer(what, text.lower(), SIZES, "b", "250kB")


def queue(text: str) -> dict[str, int]:
    """A limit in bytes, or in packets (`100p`): the setting of a wire that it is."""
    found = re.fullmatch(r"([0-9]+)p(ackets)?", text.strip().lower(), re.ASCII)
    if found is None:
        limit = size_bytes(text, "queue")
        if limit == 0:
            raise LabError("bad queue '0': the packet that is on the wire counts, so that nothing would pass")
        return {"queue_bytes": limit}
    if not 1 <= int(found[1]) <= 1 << 24:
        raise LabError(f"bad queue {text!r}: 1p to {1 << 24}p")
    return {"queue_frames": int(found[1])}


def share(text: str, what: str = "share") -> float:
    """`1%`, `0.1 %` or a number from 0 to 1, as that number."""
    found = NUMBER.fullmatch(text.strip())
    if found is None or found[2] not in ("", "%"):
        raise LabError(f"bad {what} {text!r}: a share of the packets, such as 1%")
    value = Fraction(found[1].rstrip(".")) / (100 if found[2] else 1)
    if value > 1:
        raise LabError(f"bad {what} {text!r}: at most 100% (or 1)")
    return float(value)


def _integer(what: str, text: str, units: dict[str, int], default: str, example: str) -> int:
    found = NUMBER.fullmatch(text.strip())
    unit = (found[2] or default) if found else ""
    if found is not None and not unit and not Fraction(found[1].rstrip(".")):
        return 0  # nothing is nothing in any unit
    if found is None or unit not in units:
        names = ", ".join(units)
        raise LabError(f"bad {what} {text!r}: a number with its unit ({names}), such as {example}")
    value = Fraction(found[1].rstrip(".")) * units[unit]
    if value > MOST:
        raise LabError(f"bad {what} {text!r}: that is too much")
    return round(value)

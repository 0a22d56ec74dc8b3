# SPDX-License-Identifier: MIT
"""Rates, times, sizes and shares as people write them: `100 Mb/s`, `10ms`, `250kB`, `1%`. Text in, numbers out.

What cannot be read raises ValueError with what was expected, and an example. Above: cli.quantities, sim.values.
"""

import re
from fractions import Fraction

NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z/%]*)", re.ASCII)
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
BITS_PER_SECOND = {"b/s": "bit", "kb/s": "kbit", "mb/s": "mbit", "gb/s": "gbit"}
TIMES_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
MOST = 2**60  # of anything: what the records of a wire hold
TEXT_MOST = 80  # characters: no number of ours is longer, and fractions of many digits take their time


def rate_bps(text: str, what: str = "rate") -> int:
    """`100mbit`, `1.5 Gb/s`, `64kbit`, in bits per second; `/s` or `ps` may end it. `0`: none."""
    if re.search(r"B(?:/s|ps)?\s*$", text):
        raise ValueError(f"bad {what} {shown(text)}: rates are in bits, such as 100mbit or 100 Mb/s")
    found = re.fullmatch(r"([0-9.]+)\s*([kmg]?b)(?:/s|ps)", text.strip().lower(), re.ASCII)
    plain = f"{found[1]}{BITS_PER_SECOND[found[2] + '/s']}" if found else text.lower().removesuffix("/s")
    return _integer(what, plain.removesuffix("ps"), RATES, "bit", "100mbit or 100 Mb/s", text)


def time_ns(text: str, what: str = "time") -> int:
    """`10ms`, `0.5s`, `250us`, in nanoseconds."""
    return _integer(what, text.lower(), TIMES_NS, "", "10ms", text)


def size_bytes(text: str, what: str = "size") -> int:
    """`250kB`, `1MiB`, `3000`, in bytes."""
    return _integer(what, text.lower(), SIZES, "b", "250kB", text)


def queue(text: str, what: str = "queue") -> dict[str, int]:
    """A limit in bytes, or in packets (`100p`, `100 packets`): the setting of a wire that it is."""
    found = re.fullmatch(r"([0-9]{1,20})\s*p(ackets)?", text.strip().lower(), re.ASCII)
    if found is None:
        limit = size_bytes(text, what)
        if limit == 0:
            raise ValueError(f"bad {what} '0': the packet that is on the wire counts, so that nothing would pass")
        return {"queue_bytes": limit}
    if not 1 <= int(found[1]) <= 1 << 24:
        raise ValueError(f"bad {what} {text!r}: 1p to {1 << 24}p")
    return {"queue_frames": int(found[1])}


def share(text: str, what: str = "share") -> float:
    """`1%`, `0.1 %` or a number from 0 to 1, as that number."""
    found = NUMBER.fullmatch(text.strip()) if len(text) <= TEXT_MOST else None
    if found is None or found[2] not in ("", "%"):
        raise ValueError(f"bad {what} {shown(text)}: a share of the packets, such as 1%")
    value = Fraction(found[1].rstrip(".")) / (100 if found[2] else 1)
    if value > 1:
        raise ValueError(f"bad {what} {text!r}: at most 100% (or 1)")
    return float(value)


def shown(text: str) -> str:
    """As a message quotes it: in quotes, and not longer than a line."""
    return repr(text if len(text) <= TEXT_MOST else f"{text[:TEXT_MOST]}...")


def _integer(what: str, text: str, units: dict[str, int], default: str, example: str, given: str) -> int:
    found = NUMBER.fullmatch(text.strip()) if len(text) <= TEXT_MOST else None
    unit = (found[2] or default) if found else ""
    if found is not None and not unit and not Fraction(found[1].rstrip(".")):
        return 0  # nothing is nothing in any unit
    if found is None or unit not in units:
        names = ", ".join(units)
        raise ValueError(f"bad {what} {shown(given)}: a number with its unit ({names}), such as {example}")
    value = Fraction(found[1].rstrip(".")) * units[unit]
    if value > MOST:
        raise ValueError(f"bad {what} {given!r}: that is too much")
    return round(value)

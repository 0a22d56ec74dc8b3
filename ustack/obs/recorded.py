# SPDX-License-Identifier: MIT
"""What a file of a trace holds. Plain data. Above: tracefile and its formats, summaries, plots."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Recorded:
    """records: 64 bytes each, as Trace.take(). connections: as Trace.connections. missed: how many are not in it."""

    records: bytes = b""
    connections: list[dict[str, Any]] = field(default_factory=list)
    missed: int = 0

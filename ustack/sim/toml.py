# SPDX-License-Identifier: MIT
"""TOML by the standard library (from Python 3.11 on), or by tomli, which it came from: one name for both.

Above: reading, places. Below: nothing.
"""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # the extra `sim` brings it
    import tomli as tomllib

TOMLDecodeError = tomllib.TOMLDecodeError


def loads(text: str) -> dict[str, Any]:
    """The document. Raises TOMLDecodeError, ValueError for numbers that Python refuses, RecursionError."""
    found: dict[str, Any] = tomllib.loads(text)
    return found

# SPDX-License-Identifier: MIT
"""Rates, times, sizes and shares of the command line, as base.quantities reads them.

What cannot be read raises LabError, which ends a command as one line. Above: wire, load. Below: base.quantities.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ustack.base import quantities
from ustack.lab import LabError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _refusing(read: Callable[_P, _T]) -> Callable[_P, _T]:
    @wraps(read)
    def reading(*arguments: _P.args, **named: _P.kwargs) -> _T:
        try:
            return read(*arguments, **named)
        except ValueError as error:
            raise LabError(str(error)) from None

    return reading


rate_bps = _refusing(quantities.rate_bps)
time_ns = _refusing(quantities.time_ns)
size_bytes = _refusing(quantities.size_bytes)
queue = _refusing(quantities.queue)
share = _refusing(quantities.share)

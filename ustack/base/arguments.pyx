# SPDX-License-Identifier: MIT
"""Arguments of public calls: numbers within bounds, times in seconds."""

import math
import operator

from libc.stdint cimport UINT64_MAX, uint64_t


cdef object whole(str name, object value, object low, object high):
    number = operator.index(value)          # TypeError for what is no integer
    if not low <= number <= high:
        raise ValueError(f"{name} {number}: must be from {low} to {high}")
    return number


cdef uint64_t timeout_ns(object seconds) except? 0:
    if seconds is None:
        return UINT64_MAX
    number = float(seconds)
    if math.isnan(number) or number < 0:
        raise ValueError(f"timeout {seconds!r}: must be 0 or more seconds, or None to wait for ever")
    if number >= 1e9:                       # thirty years
        return UINT64_MAX
    return <uint64_t>(<double>number * 1e9)

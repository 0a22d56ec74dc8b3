# SPDX-License-Identifier: MIT
# Arguments of public calls: numbers within bounds, times in seconds. Above: every Python face. Below: nothing.

from libc.stdint cimport uint64_t

# `value` as an integer from low to high. Raises TypeError for what is none, ValueError beyond the bounds, with `name`.
cdef object whole(str name, object value, object low, object high)
# Seconds to nanoseconds; None, and what is longer than a clock counts, is UINT64_MAX. Raises ValueError, TypeError.
cdef uint64_t timeout_ns(object seconds) except? 0

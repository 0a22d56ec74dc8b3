# SPDX-License-Identifier: MIT
"""Python face of the sequence arithmetic in seq.pxd, for tests: everything else inlines it."""

from libc.stdint cimport uint32_t


def relations(uint32_t a, uint32_t b) -> dict:
    """Every comparison of `a` with `b`, by its name."""
    return {
        "seq_lt": bool(seq_lt(a, b)),
        "seq_le": bool(seq_le(a, b)),
        "seq_gt": bool(seq_gt(a, b)),
        "seq_ge": bool(seq_ge(a, b)),
        "seq_diff": seq_diff(a, b),
        "seq_max": seq_max(a, b),
        "seq_min": seq_min(a, b),
    }


def between(uint32_t seq, uint32_t low, uint32_t high) -> bool:
    """low =< seq < high."""
    return bool(seq_between(seq, low, high))

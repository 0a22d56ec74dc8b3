# SPDX-License-Identifier: MIT
"""Assertions that every test's end makes: what was taken from a pool has come back, and every frame is accounted for.

Read first: DESIGN.md, "Memory"; ustack/base/counters.pxd. Above: testbed, pair, tests. Below: ustack.stack.
"""

from __future__ import annotations

from collections.abc import Mapping

from ustack.stack import Stack


def assert_no_leaks(stack: Stack) -> None:
    """Close the stack (idempotent) and fail if a record, a chunk, a timer or a lent buffer is still out."""
    stack.close()
    left = {pool: count for pool, count in stack.leaks().items() if count}
    assert not left, f"leaked: {left}"


def holds_nothing(stack: Stack) -> bool:
    """Whether no connection, mini-record, buffer or timer is left in a stack that is still open."""
    return not any(stack.leaks().values())


def drops(counters: Mapping[str, int]) -> dict[str, int]:
    """The drop reasons that are not zero."""
    return {name: count for name, count in counters.items() if name.startswith("drop_") and count}


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What changed between two snapshots of the counters."""
    return {name: count - before[name] for name, count in after.items() if count != before[name]}

# SPDX-License-Identifier: MIT
"""Assertions that every test's end makes: what was taken from a pool has come back, and every frame is accounted for.

Read first: ARCHITECTURE.md, "Memory"; ustack/base/counters.pxd. Above: testbed, pair, tests. Below: blocking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

from ustack import Stack
from ustack.buf.lent import alive as lent_alive

OUTPUT_DROPS = frozenset({"drop_no_route", "drop_neighbour_unresolved"})
"""Reasons that tell of what we wanted to send, not of a frame that came."""


def assert_no_leaks(stack: Stack, lent_before: int | None = None) -> None:
    """Close the stack (idempotent) and fail if a record, a chunk, a timer or a lent buffer is still out.

    lent_before: buffers that the whole process had lent before the stack was made (ustack.buf.lent.alive), if nobody
    else lends meanwhile: then what an application lent to itself is checked as well.
    """
    stack.close()
    left = {pool: count for pool, count in stack.leaks().items() if count}
    assert not left, f"leaked: {left}"
    if lent_before is not None:
        left_out = lent_alive() - lent_before  # less than 0: what others had lent before, in objects collected since
        assert left_out <= 0, f"leaked: {left_out} lent buffers"


def holds_nothing(stack: Stack) -> bool:
    """Whether no connection, mini-record, buffer or timer is left in a stack that is still open."""
    return not any(stack.leaks().values())


def drops(counters: Mapping[str, int]) -> dict[str, int]:
    """The drop reasons that are not zero."""
    return {name: count for name, count in counters.items() if name.startswith("drop_") and count}


def refusals(counters: Mapping[str, int]) -> dict[str, int]:
    """The reasons for which received frames were dropped: of these, each frame has at most one."""
    return {name: count for name, count in drops(counters).items() if name not in OUTPUT_DROPS}


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What changed between two snapshots of the counters."""
    return {name: count - before[name] for name, count in after.items() if count != before[name]}


_World = TypeVar("_World")


class _Stacks(Protocol):
    def close(self) -> None: ...
    def stacks(self) -> Sequence[Stack]: ...


class LeakChecked:
    """A world whose close() asserts that nothing leaked, as a context."""

    def __enter__(self: _World) -> _World:
        """Return self."""
        return self

    def __exit__(
        self: _Stacks, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception without the leak check, which would hide it."""
        if kind is None:
            self.close()
        else:
            for stack in self.stacks():
                stack.close()

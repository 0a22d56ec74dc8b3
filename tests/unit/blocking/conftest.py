# SPDX-License-Identifier: MIT
"""What the tests of sockets begin with. A file that wants another one names its own the same."""

from collections.abc import Iterator

import pytest

from ustack import Connection
from ustack.testing.pair import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(msl_ns=0) as made:
        yield made


@pytest.fixture
def ends(pair: Pair) -> tuple[Connection, Connection]:
    """Both ends of an established connection: the opener's (stack b), the accepter's (stack a)."""
    return pair.connect()

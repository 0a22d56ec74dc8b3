# SPDX-License-Identifier: MIT
"""One connection between the two stacks of a pair, on its way or there."""

from ustack import Connection
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, STACK_ADDRESS

TURN = 50 * MILLISECOND


def opened(pair: Pair, port: int = 80) -> Connection:
    connection = pair.b.connect(STACK_ADDRESS, port, wait=False)
    pair.advance(TURN)
    return connection

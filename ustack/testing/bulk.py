# SPDX-License-Identifier: MIT
"""One connection of a Pair that has always more to send, and what of it arrives in virtual time.

Above: test suites, tools.bench_paths. Below: pair. For several connections beside each other: shares.
"""

from __future__ import annotations

from contextlib import suppress

from ustack import Connection, WouldBlock
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

PIECE = bytes(1 << 20)
STEP_NS = 20 * MILLISECOND


def pour(pair: Pair, sender: Connection, reader: Connection, seconds: int, ahead_bytes: int) -> int:
    """Bytes that arrive in `seconds`. The sender is called at every event, and kept `ahead_bytes` before the reader."""
    received = sent = 0

    def turn() -> None:
        nonlocal received, sent
        while sent < received + ahead_bytes:
            sent += sender.send(PIECE)
        while True:
            try:
                received += len(reader.receive(len(PIECE), timeout=0))
            except BlockingIOError:
                return

    end_ns = pair.now_ns + seconds * SECOND
    turn()
    pair.run_until(lambda: pair.now_ns >= end_ns, (seconds + 1) * SECOND, turn=turn)
    return received


def steady_bps(pair: Pair, sender: Connection, reader: Connection, seconds: int) -> float:
    """Bits per second from the second second on. Both ends are looked after every STEP_NS; the queue is the limit."""
    begin_ns, arrived, at_first = pair.now_ns, 0, 0
    while pair.now_ns - begin_ns < seconds * SECOND:
        with suppress(WouldBlock):
            sender.send(PIECE[: 1 << 18], timeout=0)
        pair.advance(STEP_NS)
        arrived += len(read_available(reader)[0])
        if pair.now_ns - begin_ns <= SECOND:
            at_first = arrived
    return (arrived - at_first) * 8 / (seconds - 1)

# SPDX-License-Identifier: MIT
"""A control that paces, in a stack: BBR over a bottleneck, in virtual time."""

from contextlib import suppress
from typing import Any

import pytest

from ustack import WouldBlock
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

RATE_BPS = 20_000_000
GOODPUT_BPS = RATE_BPS * 1448 / 1514  # what headers leave


def bulk(cc: str, seconds: int, **network: Any) -> float:
    """Bits per second from the second second on."""
    wire = {"rate_bps": RATE_BPS, "delay_ns": 10 * MILLISECOND, "queue_frames": 100, "mtu": 1500} | network
    options = {"cc": cc, "rcv_buffer_bytes": 4_000_000}
    pair = Pair(seed=3, network=wire, a=options, b=options)
    sender, receiver = pair.connect()
    begin_ns, arrived, at_first = pair.now_ns, 0, 0
    while pair.now_ns - begin_ns < seconds * SECOND:
        with suppress(WouldBlock):
            sender.send(bytes(1 << 18), timeout=0)
        pair.advance(20 * MILLISECOND)
        arrived += len(read_available(receiver)[0])
        if pair.now_ns - begin_ns <= SECOND:
            at_first = arrived
    sender.abort()
    pair.pump()
    pair.close()
    return (arrived - at_first) * 8 / (seconds - 1)


def test_bbr_fills_a_bottleneck() -> None:
    rate = bulk("bbr", 8)
    assert rate >= 0.95 * GOODPUT_BPS


@pytest.mark.parametrize(("loss", "at_least"), [(0.001, 0.9), (0.01, 0.7)])
def test_bbr_bears_random_losses(loss: float, at_least: float) -> None:
    rate = bulk("bbr", 8, loss=loss)
    assert rate >= at_least * GOODPUT_BPS

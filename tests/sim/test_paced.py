# SPDX-License-Identifier: MIT
"""A control that paces, in a stack: BBR over a bottleneck, in virtual time."""

from typing import Any

import pytest

from ustack.testing.bulk import steady_bps
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND

RATE_BPS = 20_000_000
GOODPUT_BPS = RATE_BPS * 1448 / 1514  # what headers leave


def bulk(cc: str, seconds: int, **network: Any) -> float:
    """Bits per second from the second second on."""
    wire = {"rate_bps": RATE_BPS, "delay_ns": 10 * MILLISECOND, "queue_frames": 100, "mtu": 1500} | network
    options = {"cc": cc, "rcv_buffer_bytes": 4_000_000}
    pair = Pair(seed=3, network=wire, a=options, b=options)
    sender, receiver = pair.connect()
    bps = steady_bps(pair, sender, receiver, seconds)
    sender.abort()
    pair.pump()
    pair.close()
    return bps


def test_bbr_fills_a_bottleneck() -> None:
    rate = bulk("bbr", 8)
    assert rate >= 0.95 * GOODPUT_BPS


@pytest.mark.parametrize(("loss", "at_least"), [(0.001, 0.9), (0.01, 0.7)])
def test_bbr_bears_random_losses(loss: float, at_least: float) -> None:
    rate = bulk("bbr", 8, loss=loss)
    assert rate >= at_least * GOODPUT_BPS

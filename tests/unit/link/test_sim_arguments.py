# SPDX-License-Identifier: MIT
"""What a simulated wire is told, and says again."""

import pytest

from ustack import SimNetwork


def test_filters_can_be_read_back() -> None:
    network = SimNetwork(1, now_ns=0)

    def keep(_frame: bytes, _index: int) -> None:
        return None

    assert network.filter_ab is None
    assert network.filter_ba is None
    network.filter_ab = keep
    assert network.filter_ab is keep
    assert network.filter_ba is None
    network.close()


def test_a_frame_is_not_longer_than_it_was_on_the_wire() -> None:
    network = SimNetwork(1, now_ns=0)
    with pytest.raises(ValueError, match="must not be less than"):
        network.b.inject(bytes(60), wire_length=59)
    network.close()


def test_a_filter_that_returns_an_endless_frame_is_told() -> None:
    network = SimNetwork(1, now_ns=0)
    network.filter_ba = lambda _frame, _index: bytes(1 << 22)
    with pytest.raises(ValueError, match="returned a frame of more than"):
        network.b.inject(bytes(60))
    network.filter_ba = None
    network.close()

# SPDX-License-Identifier: MIT
"""Goodput over a path of 66 ms that delivers some frames late, in virtual time: reordering must not look like loss."""

import pytest

from ustack.testing.bulk import pour
from ustack.testing.pair import Pair
from ustack.tools.bench_paths import AHEAD_BYTES, Path, transfer

SECONDS = 8


def goodput(reorder: float, late_ms: int, seed: int) -> float:
    path = Path("reorders", round_trip_ms=66, queue_bdp=1, reorder=reorder, late_ms=late_ms)
    return transfer(path, "cubic", SECONDS, seed).megabits_per_second


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundredth_of_frames_five_milliseconds_late_costs_nothing(seed: int) -> None:
    """The queue overflows now and then, too: that is answered as it is without reordering."""
    assert goodput(0.01, 5, seed) >= 0.97 * goodput(0, 5, seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_twentieth_of_frames_twenty_milliseconds_late_costs_nothing_beyond_real_losses(seed: int) -> None:
    """Late segments are older than a retransmission that overtakes them. By PAWS (RFC 7323 section 5.3 R1) its peer
    discards them then, unless both were sent in one tick of the timestamp clock (section 5.4: up to a second)."""
    path = Path("reorders", round_trip_ms=66, queue_bdp=1, reorder=0.05, late_ms=20)
    with Pair(seed=seed, network=path.network()) as pair:
        sender, reader = pair.connect()
        received = pour(pair, sender, reader, SECONDS, AHEAD_BYTES)
        sent, arrived = pair.b.counters(), pair.a.counters()
        frames = pair.network.stats()["ba"]
        sender.abort()
        reader.abort()
        pair.pump()
    assert frames["reordered"] >= 0.04 * frames["sent"] > 1000
    assert received * 8 / SECONDS / 1e6 >= 85
    assert sent["segments_retransmitted"] <= frames["queue_dropped"] + 20
    assert arrived["drop_tcp_paws"] <= 20
    assert sent["retransmit_timeouts"] == 0

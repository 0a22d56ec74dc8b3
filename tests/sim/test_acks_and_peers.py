# SPDX-License-Identifier: MIT
"""Bulk transfer in virtual time where ACKs are lost or frames come late, and to peers that lack SACK or timestamps."""

from typing import Any

import pytest

from ustack.testing.bulk import pour
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND

AHEAD_BYTES = 8 << 20
SECONDS = 4
ROUND_TRIP_MS = 20
NETWORK = {
    "rate_bps": 20_000_000,
    "delay_ns": ROUND_TRIP_MS * MILLISECOND // 2,
    "mtu": 1500,
    "queue_frames": 66,  # two bandwidth-delay products
}


def transfer(
    network: dict[str, Any] | None = None, acks_lost: float = 0.0, **config: Any
) -> tuple[float, dict[str, int], dict[str, dict[str, int]]]:
    """Mb/s from `b` to `a`, the sender's counters, and what became of the frames. acks_lost: from the handshake on."""
    with Pair(seed=5, network={**NETWORK, **(network or {})}, cc="cubic", **config) as pair:
        sender, reader = pair.connect()
        pair.network.impair(loss=(acks_lost, 0.0))
        received = pour(pair, sender, reader, SECONDS, AHEAD_BYTES)
        counters, frames = pair.b.counters(), pair.network.stats()
        sender.abort()
        reader.abort()
        pair.pump()
    return received * 8 / SECONDS / 1e6, counters, frames


def half_of(frames: dict[str, int]) -> bool:
    """So many have been lost, of many."""
    return frames["sent"] > 1000 and 0.4 * frames["sent"] < frames["lost"] < 0.6 * frames["sent"]


def test_half_of_all_acks_lost() -> None:
    """What one ACK said the next one says, too (RFC 2018 section 4: as many blocks as fit). What the last ones of a
    flight said is asked for by a probe, or a timeout."""
    goodput, counters, frames = transfer(acks_lost=0.5)
    assert half_of(frames["ab"])
    assert goodput >= 0.9 * transfer()[0]
    assert counters["retransmit_timeouts"] <= 1


def under_way(seed: int, cc: str, loss: float) -> float:
    """Mb/s from `b` to `a` in two seconds, from two seconds on; for the last three so many ACKs are lost."""
    with Pair(seed=seed, network=NETWORK, cc=cc) as pair:
        sender, reader = pair.connect()
        pour(pair, sender, reader, 1, AHEAD_BYTES)
        pair.network.impair(loss=(loss, 0.0))
        before = pair.network.stats()["ab"]
        pour(pair, sender, reader, 1, AHEAD_BYTES)
        received = pour(pair, sender, reader, SECONDS // 2, AHEAD_BYTES)
        after = pair.network.stats()["ab"]
        sender.abort()
        reader.abort()
        pair.pump()
    assert half_of({name: after[name] - before[name] for name in before}) == (loss == 0.5)
    return received * 8 / (SECONDS // 2) / 1e6


@pytest.mark.parametrize("seed", [5, 6, 7])
@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
def test_a_transfer_under_way_does_not_feel_the_loss_of_acks(cc: str, seed: int) -> None:
    """Bytes are counted, not ACKs (RFC 3465, RFC 9438 section 4.2): with half of them lost it is as fast as without."""
    assert under_way(seed, cc, 0.5) >= 0.97 * under_way(seed, cc, 0.0)


@pytest.mark.parametrize(
    ("peer", "at_least"),
    [({"timestamps": False}, 0.98), ({"sack": False}, 0.6), ({"sack": False, "timestamps": False}, 0.6)],
    ids=["SACK without timestamps", "no SACK", "neither"],
)
def test_peers_that_lack_an_option(peer: dict[str, bool], at_least: float) -> None:
    """A queue that overflows in slow start is repaired all the same: without SACK a segment each round trip (RFC 6582),
    which takes a second of the four."""
    goodput, counters, _ = transfer(a=peer)
    assert goodput >= at_least * transfer()[0]
    assert counters["segments_retransmitted"] > 0


@pytest.mark.parametrize("late_segs", [3, 30, 300])
def test_frames_that_come_so_many_segments_late(late_segs: int) -> None:
    """One frame of a thousand, and a round trip that is four times as long as what it is late by: a quarter of it is
    what RACK waits for once it has seen that (RFC 8985 section 6.2)."""
    late_ns = late_segs * 1514 * 8 * SECOND // 100_000_000
    network = {
        "rate_bps": 100_000_000,
        "delay_ns": max(10 * MILLISECOND, 2 * late_ns + MILLISECOND),
        "queue_frames": 4000,
        "reorder_ns": late_ns,
    }
    goodput, counters, frames = transfer({**network, "reorder": (0.0, 0.001)})
    plain, _, _ = transfer(network)
    assert frames["ba"]["reordered"] >= 10
    assert goodput >= 0.97 * plain
    assert counters["fast_retransmits"] - counters["repairs_undone"] <= 2
    assert counters["retransmit_timeouts"] == 0

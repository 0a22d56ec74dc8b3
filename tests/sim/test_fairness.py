# SPDX-License-Identifier: MIT
"""What connections get beside each other, and what a control leaves in the queue: one bottleneck, in virtual time.

All of one round trip, through one queue that drops what it cannot hold. Who begins first changes what is dropped, so
two controls are tried in both orders; bounds are those of the sources named, not points.
"""

from statistics import mean

import pytest

from ustack.testing.shares import Bottleneck, Shares, jain, shares
from ustack.testing.testbed import MILLISECOND, SECOND


def test_the_index_is_jain_s() -> None:
    """Jain, Chiu, Hawe 1984: k of n equals that share everything have k / n."""
    assert jain([5, 5, 5, 5]) == pytest.approx(1)
    assert jain([8, 8, 0, 0]) == pytest.approx(0.5)
    assert jain([3, 1]) == pytest.approx(0.8)


# ---------------------------------------------------------------- equals


@pytest.mark.parametrize(("cc", "seed"), [("newreno", 1), ("cubic", 1), ("bbr", 1), ("bbr", 2)])
def test_four_equals_get_equal_shares_of_a_full_path(cc: str, seed: int) -> None:
    """Jain's index over forty seconds. Only BBR draws lots (when it probes), and so has a seed."""
    got = shares([cc] * 4, settle=20, seconds=40, seed=seed)
    assert got.jain() >= 0.95, got.rates
    assert got.utilisation() >= 0.95


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_a_newcomer_gets_his_share(cc: str) -> None:
    """One that begins when another has had the path for twenty seconds: half a minute later, over forty seconds."""
    way = Bottleneck(rate_bps=20_000_000, round_trip_ms=40, queue_bdp=1)
    way.add(cc)
    way.run(20 * SECOND)
    way.add(cc)
    way.run(30 * SECOND)
    before = way.got()
    way.run(40 * SECOND)
    assert jain([after - earlier for after, earlier in zip(way.got(), before, strict=True)]) >= 0.9
    way.close()


# ---------------------------------------------------------------- CUBIC beside others


def shares_of_first(first: str, second: str, **path: float) -> list[float]:
    """Of two, over forty seconds, with each order of beginning."""
    one = shares([first, second], settle=20, seconds=40, **path)  # type: ignore[arg-type]
    other = shares([second, first], settle=20, seconds=40, **path)  # type: ignore[arg-type]
    return [one.share(0), other.share(1)]


def test_cubic_beside_reno_where_reno_would_be_faster() -> None:
    """RFC 9438 section 4.3, the Reno-friendly region: 10 ms and a window of some 25 segments. "Approximately the same":
    W_est has the mean window of Reno (section 4.3, the reasoning for alpha_cubic). Two senders without any noise fall
    into step, and then one of them meets more of the drops (0.36 to 0.58 of such a path): the mean of three paths."""
    found = [
        share
        for rtt_ms in (8, 10, 12)
        for share in shares_of_first("cubic", "newreno", rate_bps=20_000_000, round_trip_ms=rtt_ms)
    ]
    assert 0.4 <= mean(found) <= 0.65, found


def test_cubic_beside_reno_on_a_long_path() -> None:
    """Section 5.3: beyond that region it uses what Reno leaves, and more than Reno does, without starving it."""
    found = shares_of_first("cubic", "newreno", rate_bps=30_000_000, round_trip_ms=100)
    assert 0.5 <= mean(found) <= 0.9, found


@pytest.mark.parametrize(("queue_bdp", "least", "most"), [(1, 0.2, 0.85), (8, 0.02, 0.5)])
def test_bbr_beside_cubic(queue_bdp: float, least: float, most: float) -> None:
    """As published for versions 2 and 3 (Song et al. 2021, Zeynali et al. 2024): both live in a queue of one product;
    in a deep one, which CUBIC fills and BBR does not want, CUBIC gets more than half, and BBR is not starved."""
    found = shares_of_first("bbr", "cubic", queue_bdp=queue_bdp)
    assert least <= mean(found) <= most, found


# ---------------------------------------------------------------- the queue


@pytest.mark.parametrize("queue_bdp", [1, 4])
@pytest.mark.parametrize(("rate_bps", "round_trip_ms"), [(20_000_000, 40), (50_000_000, 40), (100_000_000, 20)])
def test_bbr_has_the_rate_without_a_standing_queue(rate_bps: int, round_trip_ms: int, queue_bdp: float) -> None:
    """draft-ietf-ccwg-bbr section 3: "high throughput with low queueing": 95 % of the rate, never a product standing in
    the queue, where CUBIC fills whatever there is."""
    product = rate_bps / 8 * round_trip_ms / 1000
    path = {"rate_bps": rate_bps, "round_trip_ms": round_trip_ms, "queue_bdp": queue_bdp, "settle": 5, "seconds": 15}
    got: Shares = shares(["bbr"], **path)  # type: ignore[arg-type]
    assert got.utilisation() >= 0.95
    assert got.standing_queue_bytes() <= product
    assert got.mean_queue_bytes() <= product
    if queue_bdp > 1:
        assert shares(["cubic"], **path).mean_queue_bytes() > 2 * got.mean_queue_bytes()  # type: ignore[arg-type]


# ---------------------------------------------------------------- pacing by the window


def bursts(cc: str, pacing: int, begin_ms: int, end_ms: int) -> tuple[int, float]:
    """Of a connection alone: the most frames that reach the queue in one millisecond of that time, and its goodput
    then in bits per second."""
    way = Bottleneck(rate_bps=50_000_000, round_trip_ms=40, queue_bdp=1, pacing=pacing)
    way.add(cc)
    way.run(begin_ms * MILLISECOND)
    before, sent, most = sum(way.got()), int(way.pair.network.stats()["ba"]["sent"]), 0
    for _ in range(begin_ms, end_ms):
        way.run(MILLISECOND)
        now = int(way.pair.network.stats()["ba"]["sent"])
        most, sent = max(most, now - sent), now
    goodput = (sum(way.got()) - before) * 8 * 1000 / (end_ms - begin_ms)
    way.close()
    return most, goodput


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_paced_by_its_window_bursts_are_no_larger_and_the_goodput_no_smaller(cc: str) -> None:
    """The setting `pacing`. At 50 Mb/s a millisecond is four frames; 1.2 times that is five, and one that is late
    (recovery/pacing.pxd). Once the queue stands ACKs pace, too: little is left to win."""
    burst, goodput = bursts(cc, 0, 5_000, 9_000)
    paced_burst, paced_goodput = bursts(cc, 2, 5_000, 9_000)
    assert paced_burst <= 6
    assert paced_burst <= burst
    assert paced_goodput >= 0.99 * goodput


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_paced_slow_start_sends_no_flight_at_once(cc: str) -> None:
    """The initial window is spread over half a round trip, because the SYN has measured it; unpaced it goes at once."""
    burst, _ = bursts(cc, 0, 0, 100)
    paced_burst, _ = bursts(cc, 2, 0, 100)
    assert burst >= 10
    assert paced_burst <= 5

# SPDX-License-Identifier: MIT
"""How many round trips a repair takes, in virtual time: what is lost of one window, and of what is sent again for it.

RACK finds every loss of a window when a segment that was sent later is SACKed (RFC 8985 section 3.1), and PRR lets as
much go as has arrived (RFC 9937): so one round trip more is enough for any number of losses up to half of the window,
and one for each time that what is sent again is lost as well. No timer is waited for.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import pytest

from ustack.testing.pair import Pair
from ustack.testing.segment import SEQUENCE_MASK, parse_frame
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

WINDOW = 40
ROUND_TRIP = 40 * MILLISECOND


class Losses:
    """Frames of a stream that do not arrive: the segment at this place, so many times."""

    def __init__(self, times: dict[int, int], mss: int) -> None:
        """Places count from where the first segment with data begins."""
        self.times = Counter(times)
        self.mss = mss
        self.made = 0
        self.base: int | None = None

    def __call__(self, frame: bytes, index: int) -> Literal["drop"] | None:
        """A filter of the network."""
        segment = parse_frame(frame)
        if segment is None or not segment.payload:
            return None
        if self.base is None:
            self.base = segment.seq
        place = ((segment.seq - self.base) & SEQUENCE_MASK) // self.mss
        if self.times[place] == 0:
            return None
        self.times[place] -= 1
        self.made += 1
        return "drop"


def round_trips(
    times: dict[int, int], *, windows: int = 1, cc: str = "cubic", timestamps: int = 1
) -> tuple[float, dict[str, int]]:
    """From when `windows` windows were queued until all of the first has arrived; and the sender's counters."""
    network = {"delay_ns": ROUND_TRIP // 2, "mtu": 1500, "rate_bps": 1_000_000_000}
    config = {"initial_window_segments": WINDOW, "pacing": 0, "rcv_buffer_bytes": 1 << 20, "timestamps": timestamps}
    with Pair(network=network, cc=cc, **config) as pair:
        for end in pair.connect():  # whose SYN has waited for an answer to ARP
            end.abort()
        sender, reader = pair.connect()
        pair.advance(SECOND // 10)
        mss = int(pair.b.connections("connection")[0]["smss"])
        losses = Losses(times, mss)
        pair.network.filter_ba = losses
        arrived = 0

        def done() -> bool:
            nonlocal arrived
            arrived += len(read_available(reader)[0])
            return arrived >= WINDOW * mss

        sender.send(bytes(windows * WINDOW * mss))
        took = pair.run_until(done, 60 * SECOND)
        assert losses.made == sum(times.values())
        counters = pair.b.counters()
        sender.abort()
        pair.pump()
    return took / ROUND_TRIP, counters


def every_second(count: int) -> Iterable[int]:
    return range(0, 2 * count, 2)


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
@pytest.mark.parametrize("place", [every_second, range], ids=["apart", "side by side"])
@pytest.mark.parametrize("count", [1, 2, 5, 10, 18])
def test_any_number_of_losses_in_a_window_takes_one_round_trip(count: int, place: type[range], cc: str) -> None:
    """Half a round trip there, one for the SACK and what is sent again for it. What arrives last is behind the holes:
    three segments at least, so that nothing is waited for."""
    took, counters = round_trips(dict.fromkeys(place(count), 1), cc=cc)
    assert took == pytest.approx(1.5, abs=0.05)
    assert counters["retransmit_timeouts"] == 0
    assert counters["segments_retransmitted"] == count


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
@pytest.mark.parametrize("again", [1, 2, 4])
def test_each_loss_of_what_is_sent_again_takes_one_more(again: int, cc: str) -> None:
    """Something has been sent after it each time: new data."""
    took, counters = round_trips({3: 1 + again, 9: 1}, windows=8, cc=cc)
    assert took == pytest.approx(1.5 + again, abs=0.05)
    assert counters["retransmit_timeouts"] == 0
    assert counters["retransmits_lost"] == again
    assert counters["segments_retransmitted"] == 2 + again


@pytest.mark.parametrize("timestamps", [0, 1])
def test_nor_is_new_data_needed_where_something_else_was_sent_again_behind_it(timestamps: int) -> None:
    """The SACK of that echoes what came before the hole (RFC 7323 section 4.3, case B), and counts all the same."""
    took, counters = round_trips({3: 2, 9: 1}, timestamps=timestamps)
    assert took == pytest.approx(2.5, abs=0.05)
    assert counters["retransmit_timeouts"] == 0


@pytest.mark.parametrize("timestamps", [0, 1])
@pytest.mark.parametrize("count", [2, 3])
def test_a_lost_tail_takes_the_probe_and_one_more(count: int, timestamps: int) -> None:
    """The first ACKs come after one round trip, the probe two later (RFC 8985 section 7.2: PTO), its SACK one later,
    and half a round trip there. PRR sends one segment for the one that has arrived, and then two."""
    took, counters = round_trips({WINDOW - place: 1 for place in range(1, 1 + count)}, timestamps=timestamps)
    assert took == pytest.approx(4.5 + (count - 2), abs=0.05)
    assert counters["retransmit_timeouts"] == 0
    assert (counters["tail_probes_out"], counters["segments_retransmitted"]) == (1, count)

# SPDX-License-Identifier: MIT
"""What is under way never exceeds the window by which it was sent, in virtual time (RFC 5681 section 3.1, RFC 6675).

Where nothing is lost there is no exception to that: no limited transmit, no probe, no retransmission.
"""

import pytest

from ustack.testing.pair import Pair
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.testbed import MILLISECOND, read_available

STEP_NS = MILLISECOND // 4
QUEUED = 200_000


@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
@pytest.mark.parametrize("pacing", [0, 2])
def test_what_is_under_way_is_within_the_window(cc: str, pacing: int) -> None:
    network = {"rate_bps": 50_000_000, "delay_ns": 10 * MILLISECOND, "queue_frames": 3000, "mtu": 1500}
    with Pair(network=network, cc=cc, pacing=pacing, rcv_buffer_bytes=4 << 20) as pair:
        sender, reader = pair.connect()
        grew = filled = 0
        [before] = pair.b.connections("connection")
        for _ in range(6000):
            if before["snd_unsent_bytes"] < QUEUED:
                sender.send(bytes(QUEUED))
            pair.advance(STEP_NS)
            read_available(reader)
            [after] = pair.b.connections("connection")
            if after["snd_nxt"] != before["snd_nxt"]:
                under_way = (after["snd_nxt"] - after["snd_una"]) & SEQUENCE_MASK
                window = max(before["cwnd"], after["cwnd"])  # it may shrink within a step, after the sending
                assert under_way <= window
                grew += 1
                filled += under_way + after["smss"] > window
            before = after
        assert grew > 1000
        assert filled > 0
        assert pair.b.counters()["segments_retransmitted"] == 0
        sender.abort()
        pair.pump()

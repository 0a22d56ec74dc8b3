# SPDX-License-Identifier: MIT
"""A path that reorders all the time: what it must not cost. Plain numbers; whole transfers are in tests/sim."""

import pytest

from ustack.testing.parts.recovery import Sender

K = 1000
"""A segment."""
MS = 1_000_000
ROUND_TRIP = 20 * MS


def warm(frames: int) -> Sender:
    """CUBIC; a sender that knows its round trip, with `frames` segments out, which is all of its window."""
    made = Sender(mss=K, cwnd=frames * K, timestamps=True, cc="cubic")
    made.send(1)
    made.now_ns += ROUND_TRIP
    made.ack(K, ecr=made.timestamp - 20)
    made.send(frames)
    made.now_ns += ROUND_TRIP
    return made


def number(made: Sender, name: str) -> int:
    value = made.state[name]
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize("holes", [1, 5, 15])
def test_holes_that_close_again_leave_flight_size_whole(holes: int) -> None:
    """There is always one: the next segment is late before the last one has come. When something is lost at last,
    FlightSize is what is in flight (RFC 5681 section 3.1, equation 4), not what was at the first hole."""
    made = warm(40)
    for hole in range(holes):
        una = 2 * hole + 1
        made.ack(una * K, sack=[((una + 1) * K, (una + 2) * K)], ecr=made.timestamp - 20)
        made.send(40 - number(made, "pipe") // K)
        made.now_ns += MS // 10
    una = 2 * holes + 1
    made.ack(una * K, sack=[((una + 1) * K, (una + 3) * K)], ecr=made.timestamp - 20)
    made.send(40 - number(made, "pipe") // K)
    made.now_ns += ROUND_TRIP // 2
    made.reordering_timeout()
    assert made.state["repair"] == "fast"
    # Half of it, not CUBIC's 0.7: only one segment had been acknowledged before, so that the window is not validated
    # (RFC 7661 section 4.4.1).
    assert 36 * K <= 2 * number(made, "ssthresh") <= 40 * K


def test_what_limited_transmit_adds_is_no_flight_size() -> None:
    """RFC 5681 section 3.1: data sent in response to duplicates MUST NOT count."""
    made = warm(20)
    for right in (3, 4):
        made.ack(K, sack=[(2 * K, right * K)], ecr=made.timestamp - 20)
        made.send(1)
    made.ack(K, sack=[(2 * K, 5 * K)], ecr=made.timestamp - 20)
    assert made.state["repair"] == "fast"
    assert number(made, "ssthresh") == 14 * K


def test_a_repair_that_is_taken_back_before_the_window_has_shrunk_leaves_ssthresh() -> None:
    """PRR begins with what is in flight: the window is no smaller yet, ssthresh is (RFC 9438 section 4.9.2 restores
    both unless the window has grown beyond the old one since)."""
    made = warm(20)
    before = made.state
    assert before["cwnd"] == 20 * K
    made.ack(K, sack=[(2 * K, 3 * K)], ecr=made.timestamp - 20)
    made.send(1)
    made.now_ns += ROUND_TRIP // 2
    made.reordering_timeout()
    assert made.state["repair"] == "fast"
    assert number(made, "cwnd") >= 20 * K
    assert number(made, "ssthresh") < 20 * K
    stamp = made.timestamp
    assert made.resend() == [(K, 2 * K)]
    made.ack(3 * K, ecr=stamp - 30)
    assert made.counted()["repairs_undone"] == 1
    assert made.state["ssthresh"] == before["ssthresh"]
    assert number(made, "cwnd") >= 20 * K

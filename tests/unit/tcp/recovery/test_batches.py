# SPDX-License-Identifier: MIT
"""ACKs that are taken in one turn, before output has sent what the first of them let go: they must count as if it had.

Plain numbers. What the wire does with it is in tools/bench_loss.
"""

import pytest

from ustack.testing.parts.recovery import Sender

K = 1000
"""A segment."""
ROUND_TRIP = 20_000_000
WINDOW = 40
BACKLOG = 1 << 20


def number(made: Sender, name: str) -> int:
    value = made.state.get(name, 0)  # nothing is in flight
    assert isinstance(value, int)
    return value


def fill(made: Sender) -> None:
    """What output does: as many whole segments as the window has room for."""
    made.send((number(made, "cwnd") - number(made, "pipe")) // K)


def repaired(cc: str) -> tuple[Sender, int]:
    """In congestion avoidance, the window full and much more to send; and how many segments are acknowledged."""
    made = Sender(mss=K, cwnd=2 * WINDOW * K, cc=cc)
    made.queue(BACKLOG)
    made.send(2 * WINDOW)
    made.now_ns += ROUND_TRIP
    made.ack(0, sack=[(K, 2 * WINDOW * K)])
    assert made.resend(1) == [(0, K)]
    made.now_ns += ROUND_TRIP
    made.ack(2 * WINDOW * K)
    assert made.state["repair"] == "none"
    fill(made)
    made.now_ns += ROUND_TRIP
    return made, 2 * WINDOW


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
@pytest.mark.parametrize("at_once", [2, 5, 13])
def test_a_window_grows_by_every_ack_of_a_turn(cc: str, at_once: int) -> None:
    """Four windows in congestion avoidance, ACKs of two segments each."""
    windows = []
    for turn in (1, at_once):
        made, una = repaired(cc)
        for count in range(1, 4 * 26 + 1):
            una += 2
            made.now_ns += ROUND_TRIP // 26
            made.ack(una * K)
            if count % turn == 0:
                fill(made)
        windows.append(number(made, "cwnd"))
    assert windows[0] > number(repaired(cc)[0], "cwnd") + K
    assert abs(windows[1] - windows[0]) <= K // 2


@pytest.mark.parametrize("at_once", [1, 5, 13])
def test_a_loss_among_the_acks_of_a_turn_is_answered_by_the_whole_flight(at_once: int) -> None:
    """RFC 5681 section 3.1, equation (4); RFC 9438 section 4.6."""
    made, una = repaired("newreno")
    before = number(made, "cwnd")
    for _ in range(at_once - 1):
        una += 1
        made.ack(una * K)
    made.ack(una * K, sack=[((una + 1) * K, (una + 5) * K)])
    assert made.state["repair"] == "fast"
    assert abs(2 * number(made, "ssthresh") - before) <= 2 * K


def test_an_application_that_has_no_more_to_send_grows_no_window() -> None:
    """RFC 9293 section 3.8.2, RFC 7661: only what is used of it. And FlightSize is what is out."""
    made = Sender(mss=K, cwnd=WINDOW * K)
    made.send(WINDOW)
    made.now_ns += ROUND_TRIP
    made.ack(0, sack=[(K, WINDOW * K)])
    made.resend(1)
    made.now_ns += ROUND_TRIP
    made.ack(WINDOW * K)
    fill(made)
    made.now_ns += ROUND_TRIP
    before, out = number(made, "cwnd"), number(made, "pipe") // K
    for una in range(WINDOW + 2, WINDOW + out - 5, 2):
        made.ack(una * K)
    assert number(made, "cwnd") - before < K
    left = number(made, "pipe")
    una = WINDOW + out - left // K
    made.ack(una * K, sack=[((una + 1) * K, (una + 4) * K)])
    assert made.state["repair"] == "fast"
    assert 2 * number(made, "ssthresh") <= max(left, 4 * K)

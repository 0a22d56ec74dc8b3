# SPDX-License-Identifier: MIT
"""Counts of a connection beyond 32 bits, and its age, with plain numbers."""

import pytest

from ustack.testing.parts.tally import Tally

GIB = 1 << 30
ROUND = 1 << 32


@pytest.mark.parametrize("irs", [0, 1, 12345, ROUND // 2, ROUND - 51, ROUND - 2, ROUND - 1])
def test_what_was_received_is_counted_beyond_32_bits(irs: int) -> None:
    tally = Tally(irs)
    total = 0
    for length in [1, 50, 51, *[GIB - 1] * 40, 7]:
        tally.receive(length)
        total += length
        assert tally.received == total
    tally.end()
    assert tally.histories == 0


@pytest.mark.parametrize("irs", [0, ROUND - 51, ROUND - 1])
def test_the_first_time_round_needs_no_record(irs: int) -> None:
    tally = Tally(irs)
    for _ in range(3):
        tally.receive(GIB)
    assert (tally.received, tally.histories) == (3 * GIB, 0)


@pytest.mark.parametrize("irs", [0, 100, ROUND - 51, ROUND - 1])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_what_could_not_be_kept_is_taken_back(irs: int, rounds: int) -> None:
    tally = Tally(irs)
    for _ in range(4 * rounds):
        tally.receive(GIB)
    for length in (1, 40, 60, 200, 1000):
        before = tally.received
        tally.receive(length)
        tally.lose(length)
        assert tally.received == before
        tally.receive(length)
        assert tally.received == before + length


def test_what_was_delivered_is_counted_and_taken_back_beyond_32_bits() -> None:
    tally = Tally(5)
    for number in range(1, 10):
        tally.deliver(GIB)
        tally.renege(GIB)
        tally.deliver(GIB)
        assert tally.delivered == number * GIB
    assert tally.histories == 1


def test_without_a_record_a_count_is_less_than_it_was_and_nothing_else_happens() -> None:
    tally = Tally(0, records=0)
    for _ in range(12):
        tally.receive(GIB)
        tally.deliver(GIB)
    assert (tally.received, tally.delivered) == (ROUND, 0)


@pytest.mark.parametrize("opened_ns", [0, 10**9, 2**56 - 1])
@pytest.mark.parametrize("age_ns", [0, 10**9, 86_400 * 10**9, 600 * 86_400 * 10**9])
def test_the_age_is_right_to_34_ms_for_two_years(opened_ns: int, age_ns: int) -> None:
    tally = Tally(0, now_ns=opened_ns)
    assert abs(tally.age_ns(opened_ns + age_ns) - age_ns) <= 34_000_000


def test_an_age_survives_that_the_count_of_bytes_has_come_round() -> None:
    tally = Tally(ROUND - 1)
    tally.receive(10)
    assert tally.age_ns(10**9) > 0.9 * 10**9

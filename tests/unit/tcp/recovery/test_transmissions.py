# SPDX-License-Identifier: MIT
"""The record of transmissions and the SACK scoreboard, with plain numbers: what is kept, and at what cost."""

import math
import random

import pytest

from ustack.testing.parts.recovery import Sender

MSS = 1000
MS = 1_000_000


def sender(frames: int, length: int = 0, **more: int) -> Sender:
    made = Sender(mss=MSS, **more)  # type: ignore[arg-type]
    assert made.send(frames, length) == frames
    made.now_ns += 20 * MS
    return made


def where(made: Sender) -> list[str]:
    return [record[2] for record in made.records()]


def test_an_idle_connection_has_no_record() -> None:
    made = sender(3)
    assert made.held == (1, 2)
    made.ack(3 * MSS)
    assert (made.held, made.records()) == ((0, 0), [])


def test_a_small_response_costs_one_record() -> None:
    made = sender(1, 500)
    assert made.held == (1, 0)
    made.ack(500)
    assert made.held == (0, 0)


def test_the_record_in_the_flight_is_used_again() -> None:
    made = sender(2)
    made.ack(MSS)
    made.send(1)
    assert made.held == (1, 1)


def test_frames_are_neighbours_in_the_order_of_their_numbers() -> None:
    made = sender(4)
    assert made.records() == [(MSS * n, MSS * (n + 1), "sent", 1) for n in range(4)]


def test_part_of_a_frame_can_be_acknowledged() -> None:
    made = sender(2)
    made.ack(300)
    assert made.records()[0] == (300, MSS, "sent", 1)
    assert made.state["pipe"] == 2 * MSS - 300


# ---------------------------------------------------------------- SACK


def test_sacked_neighbours_become_one_record() -> None:
    made = sender(10)
    for left in (4, 6, 5, 8, 3, 7):
        made.ack(0, sack=[(left * MSS, (left + 1) * MSS)])
    sacked = [record for record in made.records() if record[2] == "sacked"]
    assert [record[:2] for record in sacked] == [(3 * MSS, 9 * MSS)]
    assert made.state["sacked"] == 6 * MSS


def test_a_super_frame_is_split_at_segments_and_edges_are_rounded_inward() -> None:
    """A receiver that lies cannot make more records than there are segments."""
    made = sender(1, 10 * MSS)
    made.ack(0, sack=[(2500, 7999)])
    assert [record[:2] for record in made.records()] == [(0, 3 * MSS), (3 * MSS, 7 * MSS), (7 * MSS, 10 * MSS)]
    assert where(made)[1] == "sacked"


def test_a_block_within_one_segment_marks_nothing() -> None:
    made = sender(1, 10 * MSS)
    made.ack(0, sack=[(2100, 2900)])
    assert where(made) == ["sent"]


def test_the_short_end_of_a_frame_counts_whole() -> None:
    made = sender(1, 3 * MSS + 100)
    made.ack(0, sack=[(3 * MSS, 3 * MSS + 100)])
    assert made.records()[-1][:3] == (3 * MSS, 3 * MSS + 100, "sacked")


@pytest.mark.parametrize(
    "block", [(5 * MSS, 5 * MSS), (5 * MSS, 4 * MSS), (9 * MSS, 11 * MSS), (0x80000000, 0x80001000), (11_000, 12_000)]
)
def test_a_block_of_what_was_never_sent_is_ignored(block: tuple[int, int]) -> None:
    made = sender(10)
    made.ack(0, sack=[block])
    assert where(made) == ["sent"] * 10
    assert made.counted()["sack_blocks_ignored"] == 1


def test_a_block_below_the_acknowledgment_is_a_duplicate_report() -> None:
    """RFC 2883 section 4."""
    made = sender(10)
    made.ack(5 * MSS, sack=[(2 * MSS, 3 * MSS)])
    assert made.counted()["dsacks_in"] == 1
    made.ack(5 * MSS, sack=[(7 * MSS, 8 * MSS), (6 * MSS, 9 * MSS)])
    assert made.counted()["dsacks_in"] == 2
    assert made.state["sacked"] == 3 * MSS


def test_an_ack_that_was_overtaken_still_tells_what_it_has_sacked() -> None:
    made = sender(10)
    made.ack(3 * MSS)
    made.ack(2 * MSS, sack=[(6 * MSS, 8 * MSS)])
    assert made.state["sacked"] == 2 * MSS


# ---------------------------------------------------------------- bounds and costs


@pytest.mark.parametrize("order", ["up", "down", "inside out", "random"])
def test_a_hostile_order_of_blocks_costs_logarithmic_steps(order: str) -> None:
    """16 MiB in flight in segments; every second one is SACKed, one in each ACK."""
    frames = 11_000
    made = sender(frames)
    blocks = list(range(1, frames - 1, 2))
    if order == "down":
        blocks.reverse()
    elif order == "inside out":
        half = len(blocks) // 2
        blocks = [block for pair in zip(blocks[half:], blocks[half - 1 :: -1], strict=False) for block in pair]
    elif order == "random":
        random.Random(7).shuffle(blocks)
    before = made.steps
    worst = 0
    for block in blocks:
        worst = max(worst, made.ack(0, sack=[(block * MSS, (block + 1) * MSS)], check=False))
    made.check()
    assert (made.steps - before) / len(blocks) <= 6 * math.log2(frames)
    assert made.state["sacked"] == len(blocks) * MSS


def test_a_block_that_is_repeated_costs_one_search() -> None:
    made = sender(4000)
    made.ack(0, sack=[(MSS, 3999 * MSS)])
    for _ in range(10):
        assert made.ack(0, sack=[(MSS, 3999 * MSS)], check=False) <= 60
    assert len(made.records()) == 3


def test_splits_are_bounded_by_segments() -> None:
    made = sender(100, 40 * MSS)
    generator = random.Random(3)
    for _ in range(3000):
        left = generator.randrange(100 * 40 * MSS - 10)
        made.ack(0, sack=[(left, left + generator.randrange(1, 5000))], check=False)
    made.check()
    assert len(made.records()) <= 100 * 40


def test_without_a_record_for_a_frame_new_data_waits() -> None:
    made = Sender(mss=MSS, transmissions=3)
    assert made.send(10) == 4
    assert made.counted()["transmissions_refused"] == 1
    made.now_ns += 20 * MS
    made.ack(2 * MSS)
    assert made.send(10) == 2


def test_without_a_record_for_a_part_what_is_sacked_goes_unnoticed() -> None:
    made = Sender(mss=MSS, transmissions=0)
    made.send(1, 10 * MSS)
    made.now_ns += 20 * MS
    made.ack(0, sack=[(4 * MSS, 5 * MSS)])
    assert where(made) == ["sent"]
    made.ack(10 * MSS)
    assert made.held == (0, 0)


def test_without_a_flight_nothing_is_recorded() -> None:
    made = Sender(mss=MSS, flights=0)
    assert made.send(1) == 0
    assert made.counted()["transmissions_refused"] == 1


def test_any_sequence_of_events_keeps_the_sums() -> None:
    for seed in range(60):
        generator = random.Random(seed)
        made = Sender(
            mss=MSS,
            sack=seed % 4 != 0,
            timestamps=bool(generator.randrange(2)),
            transmissions=generator.choice((5, 50, 5000)),
        )
        una = sent = 0
        for _ in range(300):
            event = generator.randrange(10)
            if event < 3:
                length = generator.choice((0, 0, 10, 2500, 5000))
                sent += made.send(generator.randrange(1, 5), length) * (length or MSS)
            elif event < 8 and sent > una:
                if generator.random() < 0.5:
                    una = generator.choice((una, generator.randrange(una, sent + 1)))
                blocks = []
                for _ in range(generator.randrange(4) if seed % 4 else 0):
                    left = generator.randrange(0, sent)
                    blocks.append((left, left + generator.randrange(0, 4000)))
                made.ack(una, sack=blocks, ecr=(made.timestamp - generator.randrange(100)) & 0xFFFFFFFF)
            elif event == 8 and made.records():
                made.rto()
            made.resend(generator.randrange(4))
            made.now_ns += generator.randrange(30 * MS)
            if made.state.get("reordering_timer") and generator.random() < 0.3:
                made.reordering_timeout()
        made.ack(sent)
        assert made.held == (0, 0)

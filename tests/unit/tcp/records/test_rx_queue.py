# SPDX-License-Identifier: MIT
"""The receive queue with plain numbers: what is kept, what it costs in steps and in memory, and who gives up first."""

import itertools
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.testing.parts.receive import Receivers

CIRCLE = 1 << 32
START = 0xFFFFFF00
PAGE = 4096
KB = 1024
STREAM = random.Random(5).randbytes(1 << 20)


def seq(offset: int) -> int:
    """Sequence number of a byte of STREAM."""
    return (START + offset) % CIRCLE


def runs_of(held: set[int]) -> list[tuple[int, int]]:
    """Maximal runs of a set of offsets, as SACK blocks."""
    lefts = sorted(offset for offset in held if offset - 1 not in held)
    rights = sorted(offset + 1 for offset in held if offset + 1 not in held)
    return [(seq(left), seq(right)) for left, right in zip(lefts, rights, strict=True)]


# ---------------------------------------------------------------- the same as an oracle

segments = st.tuples(
    st.sampled_from(["insert", "next", "straight", "read"]), st.integers(0, 19_000), st.integers(1, 3000)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(segments, max_size=60))
def test_every_byte_is_kept_once_wherever_it_comes(steps: list[tuple[str, int, int]]) -> None:
    """Against a set of offsets: 20,000 bytes around the wrap, small pieces and large, in any order."""
    receivers = Receivers(rcv_nxt=START)
    beyond: set[int] = set()
    nxt = read = 0
    for kind, offset, length in steps:
        if kind == "insert":
            left, right = max(nxt + 1, offset), max(nxt + 1, offset) + length
            assert receivers.insert(1, seq(left), STREAM[left:right])
            beyond |= set(range(left, right))
        elif kind == "read":
            got = receivers.read(1, length)
            assert got == STREAM[read : min(nxt, read + length)]
            read += len(got)
        else:
            data = STREAM[nxt : nxt + length]
            if kind == "next" or read < nxt:
                assert receivers.append(1, data) == (length, False)
            else:
                used = offset % (length + 1)
                receivers.straight(1, data, used)
                read += used
            nxt += length
            beyond -= set(range(nxt))
            while nxt in beyond:
                beyond.remove(nxt)
                nxt += 1
        assert receivers.rcv_nxt(1) == seq(nxt)
        assert sorted(receivers.sack(1, 8)) == sorted(runs_of(beyond)) or len(runs_of(beyond)) > 8
        status = receivers.status(1)
        assert (status["queued_bytes"], status["ooo_bytes"]) == (nxt - read, len(beyond))
        assert status["runs"] == len(runs_of(beyond))
        top = max(beyond, default=nxt)
        assert status["held_bytes"] <= top - read + 2 * PAGE + 512 * (2 + status["runs"] // 32)
    assert receivers.read(1) == STREAM[read:nxt]
    receivers.close()
    assert (receivers.held_bytes, receivers.chunks, receivers.queues) == (0, 0, 0)


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(12)), st.integers(0, 11), st.integers(1, 900))
def test_a_fin_beyond_a_hole_waits_for_its_place(order: list[int], last: int, length: int) -> None:
    """Whatever arrives before or after it, the FIN is taken once, right behind the last byte."""
    receivers = Receivers(rcv_nxt=START)
    for number in order:
        if number <= last and number:
            piece = STREAM[number * length : (number + 1) * length]
            assert receivers.insert(1, seq(number * length), piece, fin=number == last)
    kept, fin = receivers.append(1, STREAM[:length])
    assert (kept, fin) == (length, last > 0)
    assert receivers.read(1) == STREAM[: (last + 1) * length]
    receivers.close()


def test_a_fin_below_held_data_is_ignored() -> None:
    receivers = Receivers(rcv_nxt=START)
    receivers.insert(1, seq(500), STREAM[500:600])
    receivers.insert(1, seq(100), STREAM[100:200], fin=True)
    assert receivers.append(1, STREAM[:100]) == (100, False)
    assert receivers.rcv_nxt(1) == seq(200)
    receivers.close()


# ---------------------------------------------------------------- steps

COUNT = 8192


def orders() -> dict[str, list[int]]:
    ascending = list(range(1, COUNT + 1))
    shuffled = ascending[:]
    random.Random(11).shuffle(shuffled)
    return {
        "ascending": ascending,
        "descending": ascending[::-1],
        "random": shuffled,
        "interleaved": ascending[1::2] + ascending[::2],
        "from both ends": list(itertools.chain(*zip(ascending, ascending[::-1], strict=True)))[:COUNT],
        "bits reversed": sorted(ascending, key=lambda number: int(f"{number:014b}"[::-1], 2)),
        "near, far, near": [n // 2 + 1 if n % 2 else COUNT - n // 2 for n in range(COUNT)],
    }


def arrivals(kind: str, order: list[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) of segments. islands: a hole between all; touching: no hole; overlapping; repeated: far ones."""
    for number in order:
        if kind == "islands":
            yield 64 * number, 1
        elif kind == "touching":
            yield 64 * number, 64
        elif kind == "overlapping":
            yield 64 * number, 100
        else:
            yield 64 * number, 1
            yield 64 * order[0], 1
            yield 64 * COUNT, 1


@pytest.mark.parametrize("kind", ["islands", "touching", "overlapping", "repeated"])
@pytest.mark.parametrize("order", orders().keys())
def test_a_segment_costs_a_logarithm_of_steps_in_every_order(kind: str, order: str) -> None:
    """Its own insertion and the four SACK blocks of its ACK, among thousands of runs."""
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=1 << 20)
    most = 0
    for offset, length in arrivals(kind, orders()[order]):
        before = receivers.steps
        assert receivers.insert(1, seq(offset), STREAM[offset : offset + length])
        receivers.sack(1)
        most = max(most, receivers.steps - before)
    # Up to thirteen searches: the run before and behind, each again for a join, the FIN's, four blocks and four more.
    assert most <= 13 * 4 * math.log(COUNT)
    assert receivers.steps / COUNT <= 3 * 13 * 2 * math.log(COUNT)
    receivers.close()


def test_what_becomes_in_order_costs_a_logarithm_of_steps() -> None:
    """One run at a time, each hole closed from below, with thousands beyond."""
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=1 << 20)
    for number in range(COUNT):
        receivers.insert(1, seq(64 * number + 32), STREAM[64 * number + 32 : 64 * number + 64])
    most = 0
    for number in range(COUNT):
        before = receivers.steps
        assert receivers.append(1, STREAM[64 * number : 64 * number + 32]) == (32, False)
        most = max(most, receivers.steps - before)
        assert receivers.read(1) == STREAM[64 * number : 64 * number + 64]
    assert most <= 6 * 4 * math.log(COUNT)
    assert receivers.queues == 0


def test_one_segment_over_all_runs_is_paid_for_by_those_who_made_them() -> None:
    receivers = Receivers(rcv_nxt=START)
    count = 4096
    for number in range(count):
        receivers.insert(1, seq(8 * number + 8), STREAM[8 * number + 8 : 8 * number + 12])
    before = receivers.steps
    assert receivers.insert(1, seq(1), STREAM[1 : 8 * count + 100])
    assert receivers.steps - before <= count * 3 * 2 * math.log(count)
    assert receivers.status(1)["runs"] == 1
    assert receivers.sack(1) == [(seq(1), seq(8 * count + 100))]
    receivers.append(1, STREAM[:1])
    assert receivers.read(1) == STREAM[: 8 * count + 100]
    receivers.close()


# ---------------------------------------------------------------- memory of one connection


@pytest.mark.parametrize("length", [1, 7, 64, 536, 1460])
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_touching_segments_cost_what_their_bytes_cost(length: int, order: str) -> None:
    """64 KB in segments of any size, beyond one hole, are one run: nothing is refused and little is added."""
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=1 << 20)
    offsets = list(range(1, 64 * KB, length))
    if order == "descending":
        offsets.reverse()
    elif order == "random":
        random.Random(2).shuffle(offsets)
    for offset in offsets:
        assert receivers.insert(1, seq(offset), STREAM[offset : offset + length])
    status = receivers.status(1)
    assert status["runs"] == 1
    runs_at_most = len(offsets) // 4 + 1000 if order == "random" else 1  # an island each, before they touch
    assert status["held_bytes"] <= status["ooo_bytes"] + 3 * PAGE + 16 * runs_at_most
    receivers.append(1, STREAM[:1])
    assert receivers.status(1)["held_bytes"] <= 64 * KB + 3 * PAGE
    assert receivers.read(1) == STREAM[: max(offsets) + length]
    receivers.close()


def test_what_the_window_admits_is_kept_when_every_second_small_segment_is_lost() -> None:
    """SHLD-31. 512 KB in segments of 64 bytes: 4,096 runs, all kept, all whole after the second half has come."""
    receivers = Receivers(rcv_nxt=START)
    window = 512 * KB
    for offset in range(64, window, 128):
        assert receivers.insert(1, seq(offset), STREAM[offset : offset + 64])
    assert receivers.status(1)["runs"] == 4096
    assert receivers.status(1)["held_bytes"] <= window + window // 5
    for offset in range(0, window, 128):
        if offset == 0:
            receivers.append(1, STREAM[:64])
        elif receivers.rcv_nxt(1) == seq(offset):
            assert receivers.append(1, STREAM[offset : offset + 64])[0] == 64
    assert receivers.read(1) == STREAM[:window]
    receivers.close()


def test_a_run_too_many_is_refused_and_a_touching_segment_is_not() -> None:
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=64 * KB)
    taken = 0
    while receivers.insert(1, seq(2 + 2 * taken), b"x"):
        taken += 1
    assert taken == 1024
    assert not receivers.insert(1, seq(60_000), b"x")
    assert receivers.insert(1, seq(3), b"x" * 101)
    assert receivers.insert(1, seq(60_000), b"x")
    assert receivers.status(1)["held_bytes"] <= 64 * KB + 16 * 1024 + 3 * PAGE
    receivers.close()


def test_single_bytes_far_apart_cost_at_most_their_window() -> None:
    """Memory counts with all that lies around a byte: blocks, tables, runs."""
    receivers = Receivers(rcv_nxt=START)
    for offset in range(4095, 512 * KB, 4096):
        receivers.insert(1, seq(offset), STREAM[offset : offset + 1])
    status = receivers.status(1)
    assert status["held_bytes"] <= 512 * KB + 3 * PAGE
    assert receivers.held_bytes >= status["held_bytes"]
    assert receivers.held_bytes <= status["held_bytes"] + 2 * PAGE
    receivers.close()


def test_a_few_bytes_cost_a_small_chunk() -> None:
    receivers = Receivers(rcv_nxt=START)
    receivers.append(1, b"GET / HT")
    assert receivers.status(1)["held_bytes"] == 512
    receivers.append(1, STREAM[8:600])
    assert receivers.status(1)["held_bytes"] == 4096
    assert receivers.read(1) == b"GET / HT" + STREAM[8:600]
    assert receivers.chunks == 0


def test_a_byte_at_the_far_end_of_the_largest_buffer_is_kept() -> None:
    """The table of blocks grows with the distance: 2^29 bytes are half a megabyte of it, counted."""
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=1 << 29)
    receivers.insert(1, seq(5), b"x")
    receivers.insert(1, seq((1 << 29) - 1), b"y")
    assert sorted(receivers.sack(1)) == sorted([(seq(5), seq(6)), (seq((1 << 29) - 1), seq(1 << 29))])
    assert receivers.status(1)["held_bytes"] <= (1 << 19) + 3 * PAGE
    receivers.append(1, b"abcde")
    assert receivers.read(1) == b"abcdex"
    receivers.close()
    assert receivers.held_bytes == 0


# ---------------------------------------------------------------- SACK


def test_as_many_blocks_as_fit_are_named_when_recent_ones_have_merged() -> None:
    """RFC 2018 section 4: six islands, two of which merge; the room that this leaves is filled."""
    receivers = Receivers(rcv_nxt=START)
    for number in (1, 2, 3, 4, 5, 6):
        receivers.insert(1, seq(100 * number), STREAM[100 * number : 100 * number + 50])
    assert [left for left, _ in receivers.sack(1)] == [seq(100 * number) for number in (6, 5, 4, 3)]
    receivers.insert(1, seq(550), STREAM[550:600])
    assert receivers.sack(1) == [
        (seq(500), seq(650)),
        (seq(400), seq(450)),
        (seq(300), seq(350)),
        (seq(100), seq(150)),
    ]
    receivers.close()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 200)), min_size=1, max_size=80), st.integers(1, 4))
def test_blocks_are_distinct_whole_and_as_many_as_there_are(pieces: list[tuple[int, int]], most: int) -> None:
    receivers = Receivers(rcv_nxt=START)
    held: set[int] = set()
    for offset, length in pieces:
        receivers.insert(1, seq(offset), STREAM[offset : offset + length])
        held |= set(range(offset, offset + length))
        runs = runs_of(held)
        blocks = receivers.sack(1, most)
        assert len(blocks) == len(set(blocks)) == min(most, len(runs))
        assert set(blocks) <= set(runs)
        assert (seq(offset) - blocks[0][0]) % CIRCLE < (blocks[0][1] - blocks[0][0]) % CIRCLE
    receivers.close()


# ---------------------------------------------------------------- memory of all


def hoard(receivers: Receivers, conn: int, most: int) -> int:
    """In-order data that nobody reads, in segments of 1,460 bytes, until one is refused; how much was kept."""
    total = 0
    while total < most:
        kept, _ = receivers.append(conn, STREAM[:1460])
        total += kept
        if kept < 1460:
            return total
    return total


def test_many_who_read_nothing_leave_memory_for_one_who_does() -> None:
    """Two hundred hoarders with half a megabyte each would take all 32 MB three times."""
    receivers = Receivers(201, rx_memory_bytes=32 << 20)
    kept = [hoard(receivers, conn, 512 * KB) for conn in range(1, 201)]
    assert sum(kept) <= receivers.held_bytes <= 31 << 20
    assert min(kept) >= 4000
    for _ in range(50):
        receivers.wait(100)
        assert receivers.append(201, STREAM[:4000])[0] == 4000
        assert receivers.read(201) == STREAM[:4000]
    assert receivers.memory_aborts == 0
    receivers.close()
    assert receivers.held_bytes == 0


def test_more_than_the_memory_has_room_for_are_ended_one_by_one_for_those_who_come() -> None:
    """Two thousand hoarders; then a hundred newcomers that read: a second later each of them finds memory."""
    receivers = Receivers(2100, rx_memory_bytes=8 << 20)
    for conn in range(1, 2001):
        hoard(receivers, conn, 512 * KB)
    assert receivers.held_bytes == 8 << 20
    receivers.wait(1000)
    for conn in range(2001, 2101):
        assert receivers.append(conn, STREAM[:4000])[0] == 4000
        assert receivers.read(conn) == STREAM[:4000]
    assert 1 <= receivers.memory_aborts <= 3
    assert sum(receivers.aborted(conn) for conn in range(1, 9)) == receivers.memory_aborts  # the largest
    receivers.close()


def test_those_who_come_early_do_not_take_all() -> None:
    """Once half is gone, a connection holds at most a sixteenth of what is free and not set aside for floors."""
    receivers = Receivers(64, rx_memory_bytes=8 << 20, rcv_buffer_bytes=1 << 20)
    for conn in range(1, 65):
        hoard(receivers, conn, 1 << 20)
        if receivers.held_bytes > (9 << 20) // 2:
            free = (8 << 20) - receivers.held_bytes - (512 << 10)
            assert receivers.status(conn)["held_bytes"] <= max(free / 16 + 1 * PAGE, 8192) * 17 / 16
    assert (8 << 20) - receivers.held_bytes >= 512 * KB
    receivers.close()


def test_islands_never_take_the_last_eighth() -> None:
    receivers = Receivers(200, rx_memory_bytes=1 << 20, rcv_buffer_bytes=64 * KB)
    for conn in range(1, 201):
        for offset in range(1, 60_000, 4096):
            receivers.insert(conn, seq(offset), STREAM[offset : offset + 4000])
    assert receivers.held_bytes <= (1 << 20) * 7 // 8
    assert hoard(receivers, 200, 4096) >= 4096
    receivers.close()


def full_of_islands_and_data() -> tuple[Receivers, int]:
    """A memory without a free page: connection 1 holds islands, 2 the most in order, the others a floor each."""
    receivers = Receivers(400, rx_memory_bytes=1 << 20, rcv_buffer_bytes=128 * KB)
    for offset in range(1, 60_000, 4096):
        receivers.insert(1, seq(offset), STREAM[offset : offset + 4000])
    hoard(receivers, 2, 128 * KB)
    conn = 3
    while (1 << 20) - receivers.held_bytes >= PAGE:
        assert receivers.append(conn, STREAM[:4096])[0] == 4096
        conn += 1
    assert conn < 390
    return receivers, conn


def test_data_beyond_a_hole_is_given_up_first() -> None:
    """RFC 2018 section 8: a receiver MAY discard what it has reported; its sender has it still."""
    receivers, conn = full_of_islands_and_data()
    assert receivers.status(1)["ooo_bytes"] > 50_000
    assert receivers.append(conn + 1, STREAM[:4000])[0] == 4000
    assert receivers.reneged == 1
    assert receivers.status(1)["held_bytes"] == 0
    assert receivers.sack(1) == []
    assert receivers.memory_aborts == 0
    receivers.close()


def test_the_largest_holder_that_reads_nothing_is_ended_last() -> None:
    receivers, conn = full_of_islands_and_data()
    while receivers.reneged == 0 or (1 << 20) - receivers.held_bytes >= PAGE:
        assert receivers.append(conn, STREAM[:4096])[0] == 4096
        conn += 1
    assert receivers.append(conn + 1, STREAM[:4000])[0] == 0
    assert receivers.memory_aborts == 0
    receivers.wait(999)
    assert receivers.append(conn + 1, STREAM[:4000])[0] == 0
    receivers.wait(1)
    assert receivers.append(conn + 1, STREAM[:4000])[0] == 4000
    assert receivers.memory_aborts == 1
    assert receivers.aborted(2)
    assert receivers.status(2)["held_bytes"] == 0
    receivers.close()


@pytest.mark.parametrize("reads", [True, False])
def test_one_who_reads_is_not_ended_for_its_memory(reads: bool) -> None:
    """An eighth of what it holds within the patience; a byte now and then is no reading."""
    receivers, conn = full_of_islands_and_data()
    while receivers.reneged == 0 or (1 << 20) - receivers.held_bytes >= PAGE:
        assert receivers.append(conn, STREAM[:4096])[0] == 4096
        conn += 1
    for _ in range(60):
        receivers.wait(900)
        assert receivers.read(2, 1)
    if reads:
        for _ in range(16):
            assert receivers.read(2, receivers.status(2)["queued_bytes"] // 100)
    while (1 << 20) - receivers.held_bytes >= PAGE:  # what that gave back is taken
        assert receivers.append(conn, STREAM[:4096])[0] == 4096
        conn += 1
    assert receivers.append(conn + 1, STREAM[:4000])[0] == 4000
    assert receivers.memory_aborts == 1
    assert receivers.aborted(2) is not reads
    receivers.close()


def test_a_connection_gives_up_its_own_islands_for_what_closes_its_hole() -> None:
    """Its share is used up by data beyond the hole: the byte that closes it must not be refused for that."""
    receivers = Receivers(100, rx_memory_bytes=2 << 20, rcv_buffer_bytes=128 * KB)
    for conn in range(2, 101):
        hoard(receivers, conn, 16 * KB)
    offset = 5000
    while receivers.insert(1, seq(offset), STREAM[offset : offset + 1400]):
        offset += 1400
    assert receivers.append(1, STREAM[:4096])[0] == 4096
    assert receivers.append(1, STREAM[4096:5000])[0] == 904
    assert receivers.read(1)[:5000] == STREAM[:5000]
    receivers.close()


@pytest.mark.parametrize("used", [0, 1000, 7999])
@pytest.mark.parametrize("islands", [False, True])
def test_what_cannot_be_kept_was_not_received(used: int, islands: bool) -> None:
    """rcv_nxt goes back to what the application used; nothing has acknowledged the rest."""
    receivers = Receivers(2, rx_memory_bytes=16 * KB, rcv_buffer_bytes=64 * KB)
    hoard(receivers, 2, 64 * KB)
    if islands:
        receivers.insert(1, seq(8000), STREAM[8000:8001])
    receivers.straight(1, STREAM[:8000], used)
    kept = (receivers.rcv_nxt(1) - START) % CIRCLE
    assert used <= kept <= 8001
    assert receivers.read(1) == STREAM[used:kept]
    receivers.close()


def test_held_and_windows_follow_what_is_free() -> None:
    """A window does not grow beyond a sixty-fourth of what is free, nor below two segments for one who reads."""
    receivers = Receivers(65, rx_memory_bytes=8 << 20, rcv_buffer_bytes=256 * KB)
    receivers.advertise(65, seq(1000))
    assert receivers.window(65) == 65535
    for conn in range(1, 65):
        hoard(receivers, conn, 256 * KB)
    free = (8 << 20) - receivers.held_bytes
    assert receivers.window(65) == max(free // 64, 2 * 1460)
    receivers.advertise(65, seq(60_000))
    assert receivers.window(65) == 60_000  # SHLD-14: what was promised is not taken back
    receivers.close()


# ---------------------------------------------------------------- the window's edge


@pytest.mark.parametrize(("buffer", "shift"), [(65535, 0), (512 * KB, 4), (8 << 20, 8), (128 << 20, 12), (1 << 29, 14)])
@pytest.mark.parametrize("step", [1460, 2920, 65160])
def test_the_right_edge_never_moves_left(buffer: int, shift: int, step: int) -> None:
    """SHLD-14, while a buffer fills that nobody reads, at every ACK; the edge is what the scaled field says."""
    receivers = Receivers(rcv_nxt=START, rcv_buffer_bytes=buffer, rx_memory_bytes=1 << 30)
    receivers.scale(1, shift)
    edge = START + min(buffer, 65535)
    queued = 0
    closest = buffer
    overdraft = buffer + buffer // 8 - (1 << shift)
    while queued < min(buffer, 24 << 20):
        field = receivers.window(1) >> shift
        assert field <= 0xFFFF
        announced = START + queued + (field << shift)
        if announced < edge:
            assert edge > START + overdraft  # RFC 7323 section 2.4: only where it would promise far beyond the buffer
        edge = max(edge, announced)
        receivers.advertise(1, edge % CIRCLE)
        length = min(step, edge - START - queued)
        if length == 0:
            break
        receivers.append(1, STREAM[:length])
        queued += length
        closest = min(closest, edge - START - queued)
    assert edge <= START + buffer + buffer // 8
    receivers.close()

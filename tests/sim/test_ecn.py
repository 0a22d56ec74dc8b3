# SPDX-License-Identifier: MIT
"""A bottleneck that marks what it would otherwise drop, in virtual time (RFC 3168, RFC 8511, RFC 9768)."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from ustack import WouldBlock
from ustack.testing.bulk import steady_bps
from ustack.testing.pair import Pair
from ustack.testing.segment import internet_checksum
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

RATE_BPS = 50_000_000
GOODPUT_BPS = RATE_BPS * 1448 / 1514  # what headers leave
BDP_BYTES = RATE_BPS * 20 // 8 // 1000
MARKED = {"rate_bps": RATE_BPS, "delay_ns": 10 * MILLISECOND, "queue_frames": 1000, "mark_bytes": BDP_BYTES // 2}
DROPPED = {"rate_bps": RATE_BPS, "delay_ns": 10 * MILLISECOND, "queue_frames": BDP_BYTES // 2 // 1514}
SECONDS = 8


class Bulk(NamedTuple):
    """What became of a stream of SECONDS."""

    bps: float  # goodput from the second second on
    sender: dict[str, int]
    receiver: dict[str, int]
    wire: dict[str, int]
    ecn: str


def bulk(network: dict[str, Any], *, up: bool = True, **config: Any) -> Bulk:
    """The opener sends to the accepter (up), or the other way round, as fast as it may."""
    pair = Pair(seed=5, network=network, rcv_buffer_bytes=4_000_000, **config)
    opener, accepter = pair.connect()
    sender, receiver = (opener, accepter) if up else (accepter, opener)
    bps = steady_bps(pair, sender, receiver, SECONDS)
    ecn = pair.a.connections("connection")[0]["ecn"]
    stacks = (pair.b, pair.a) if up else (pair.a, pair.b)
    found = Bulk(
        bps,
        stacks[0].counters(),
        stacks[1].counters(),
        pair.network.stats()["ba" if up else "ab"],
        ecn,
    )
    sender.abort()
    pair.pump()
    pair.close()
    return found


@pytest.mark.parametrize("up", [True, False], ids=["opener", "accepter"])
@pytest.mark.parametrize(("cc", "at_least"), [("newreno", 0.9), ("cubic", 0.93), ("bbr", 0.9)])
def test_a_queue_that_marks_loses_nothing(cc: str, at_least: float, up: bool) -> None:
    found = bulk(MARKED, cc=cc, ecn=1, up=up)
    assert found.ecn == "classic"
    assert found.wire["queue_dropped"] == 0
    assert found.sender["segments_retransmitted"] == 0
    assert found.receiver["ce_in"] > 0
    assert 0 <= found.wire["marked"] - found.receiver["ce_in"] <= 2 * BDP_BYTES // 1514  # still travelling
    assert found.sender["ecn_reductions"] > 0
    assert 0 <= found.sender["ecn_reductions"] - found.sender["cwr_out"] <= 1
    assert 0 <= found.sender["cwr_out"] - found.receiver["cwr_in"] <= 1
    assert found.bps >= at_least * GOODPUT_BPS


@pytest.mark.parametrize("up", [True, False], ids=["opener", "accepter"])
@pytest.mark.parametrize(("cc", "at_least"), [("newreno", 0.9), ("cubic", 0.93), ("bbr", 0.9)])
def test_every_mark_is_counted_by_both_ends(cc: str, at_least: float, up: bool) -> None:
    """RFC 9768: what the receiver has counted the sender knows, but for what still travels; as much goodput as with RFC
    3168's feedback, and nothing is lost."""
    found = bulk(MARKED, cc=cc, ecn=3, up=up)
    assert found.ecn == "accurate"
    assert found.wire["queue_dropped"] == 0
    assert found.sender["segments_retransmitted"] == 0
    assert found.receiver["ce_in"] > 0
    assert 0 <= found.wire["marked"] - found.receiver["ce_in"] <= 2 * BDP_BYTES // 1514  # still travelling
    assert abs(found.receiver["ce_in"] - found.sender["accecn_marks_in"]) <= 2 * BDP_BYTES // 1514
    assert found.sender["ecn_reductions"] > 0
    assert found.sender["cwr_out"] == found.sender["ece_in"] == 0
    assert found.sender["accecn_stopped"] == found.receiver["accecn_stopped"] == 0
    assert found.bps >= at_least * GOODPUT_BPS


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_marks_cost_no_more_than_drops_at_the_same_length(cc: str) -> None:
    """The same queue, once marking and once dropping: as much goodput or more, and nothing is sent twice."""
    marked = bulk(MARKED, cc=cc, ecn=1)
    dropped = bulk(DROPPED, cc=cc, ecn=1)
    assert dropped.wire["queue_dropped"] > 0
    assert dropped.sender["segments_retransmitted"] > 0
    assert marked.bps >= 0.98 * dropped.bps


@pytest.mark.parametrize("config", [{"ecn": 0}, {"ecn": 2}, {"a": {"ecn": 0}, "b": {"ecn": 1}}])
def test_without_an_agreement_nothing_is_marked(config: dict[str, Any]) -> None:
    found = bulk({**MARKED, "queue_frames": BDP_BYTES // 1514}, cc="cubic", **config)
    assert found.ecn == "none"
    assert found.wire["marked"] == 0
    assert found.receiver["ce_in"] == found.sender["ece_in"] == found.sender["cwr_out"] == 0


def test_one_reduction_per_round_trip_at_most() -> None:
    """A queue that marks everything: the window falls once per round trip (20 ms and what the queue adds)."""
    found = bulk({**MARKED, "mark_bytes": 1}, cc="newreno", ecn=1)
    assert found.sender["segments_retransmitted"] == 0
    assert 20 < found.sender["ecn_reductions"] <= SECONDS * 1000 // 20
    assert found.sender["ece_in"] > found.sender["ecn_reductions"]


@pytest.mark.parametrize("ecn", [1, 3])
def test_marks_and_losses_together_end_where_they_should(ecn: int) -> None:
    """Loss, reordering and duplicates beside marks: all bytes arrive, and the books agree (debug builds ask them)."""
    network = {**MARKED, "loss": 0.005, "reorder": 0.01, "duplicate": 0.01, "mark_bytes": 3000}
    found = bulk(network, cc="cubic", ecn=ecn)
    assert found.sender["ecn_reductions"] > 0
    assert found.sender["fast_retransmits"] > 0
    assert found.bps > 0


def test_super_frames_are_marked_whole_and_cwr_goes_on_a_segment_of_its_own() -> None:
    seen: list[int] = []

    def look(frame: bytes, _index: int) -> None:
        if len(frame) > 54 and frame[23] == 6 and frame[47] & 0x80 and not frame[47] & 0x02:
            seen.append(len(frame))

    pair = Pair(seed=5, network={**MARKED, "segmentation_offload": True}, rcv_buffer_bytes=4_000_000, ecn=1)
    pair.network.filter_ba = look
    sender, receiver = pair.connect()
    for _ in range(200):
        with suppress(WouldBlock):
            sender.send(bytes(1 << 18), timeout=0)
        pair.advance(20 * MILLISECOND)
        read_available(receiver)
    assert seen
    assert max(seen) <= 1514
    assert len(seen) == pair.b.counters()["cwr_out"]
    assert pair.b.counters()["segments_retransmitted"] == 0
    sender.abort()
    pair.pump()
    pair.close()


def test_super_frames_go_only_while_the_counter_has_no_cwr() -> None:
    """Both ways at once: a device may leave CWR on the first segment of a frame alone, and ACE would be wrong on the
    others."""
    wide: list[int] = []

    def look(frame: bytes, _index: int) -> None:
        if len(frame) > 1514 and frame[23] == 6:
            wide.append(frame[47] & 0x80)

    pair = Pair(seed=5, network={**MARKED, "segmentation_offload": True, "mark_bytes": 20_000},
                rcv_buffer_bytes=4_000_000, ecn=3)  # fmt: skip
    pair.network.filter_ab = pair.network.filter_ba = look
    ends = pair.connect()
    for _ in range(150):
        for end in ends:
            with suppress(WouldBlock):
                end.send(bytes(1 << 16), timeout=0)
        pair.advance(20 * MILLISECOND)
        for end in ends:
            read_available(end)
    assert wide
    assert not any(wide)
    for stack, other in ((pair.a, pair.b), (pair.b, pair.a)):
        assert stack.counters()["ce_in"] > 20
        assert other.counters()["accecn_stopped"] == 0
    for end in ends:
        end.abort()
    pair.pump()
    pair.close()


def vandal(seed: int) -> Callable[[bytes, int], bytes | None]:
    """Who draws lots for the IP header's ECN bits of every second frame, and behind the handshake for AE, ECE, CWR."""
    lots = random.Random(seed)

    def change(frame: bytes, _index: int) -> bytes | None:
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6 or lots.random() < 0.5:
            return None
        out = bytearray(frame)
        out[15] = out[15] & 0xFC | lots.randrange(4)
        out[24:26] = bytes(2)
        out[24:26] = internet_checksum(bytes(out[14:34])).to_bytes(2, "big")
        if not out[47] & 0x02:
            out[46] = out[46] & 0xFE | lots.randrange(2)
            out[47] = out[47] & 0x3F | lots.randrange(4) << 6
            end = 14 + int.from_bytes(out[16:18], "big")
            out[50:52] = bytes(2)
            pseudo = bytes(out[26:34]) + b"\0\x06" + (end - 34).to_bytes(2, "big")
            out[50:52] = internet_checksum(pseudo + bytes(out[34:end])).to_bytes(2, "big")
        return bytes(out)

    return change


@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
@pytest.mark.parametrize(("ecn", "agreed"), [(1, "classic"), (0, "none"), (3, "accurate")])
def test_streams_survive_who_changes_every_bit_of_ecn(cc: str, ecn: int, agreed: str) -> None:
    """Both ways at once, through loss and reordering: every byte arrives, in its order, and nothing is left over."""
    network = {**MARKED, "loss": 0.01, "reorder": 0.02, "duplicate": 0.01, "mark_bytes": 3000}
    pair = Pair(seed=9, network=network, cc=cc, ecn=ecn)
    pair.network.filter_ab, pair.network.filter_ba = vandal(1), vandal(2)
    ends = pair.connect()
    assert pair.a.connections("connection")[0]["ecn"] == agreed
    streams = [random.Random(index).randbytes(1_500_000) for index in range(2)]
    for end, stream in zip(ends, streams, strict=True):
        end.send(stream)
        end.shutdown()
    got = [bytearray(), bytearray()]

    def step() -> bool:
        for index in range(2):
            got[index] += read_available(ends[1 - index])[0]
        return all(len(got[index]) == len(streams[index]) for index in range(2))

    pair.run_until(step, 600 * SECOND)
    assert [bytes(stream) for stream in got] == streams
    for stack in (pair.a, pair.b):
        counters = stack.counters()
        assert (counters["ecn_ignored_in"] > 0) is (agreed != "accurate")
        assert (counters["ce_in"] > 0) is (agreed != "none")
        assert (counters["ecn_reductions"] > 0) is (agreed != "none")
    for end in ends:
        end.close()
    pair.run_until(pair.at_rest, 300 * SECOND)
    pair.close()

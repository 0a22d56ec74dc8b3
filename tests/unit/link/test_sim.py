# SPDX-License-Identifier: MIT
"""The simulated network: one impairment at a time, the same bytes for the same seed, and the link contract."""

import gc
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.link.sim import SimNetwork
from ustack.link.sim_end import SimLink
from ustack.obs.info import build_mode
from ustack.testing.parts.link_driver import LinkDriver
from ustack.testing.segment import Segment, build_frame, internet_checksum

FRAME = bytes(range(60))
MAC = "02:00:00:00:00:01"


def frames_of(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * 16 for number in range(count)]


def carry(network: SimNetwork, frames: list[bytes], step_ns: int = 0) -> list[bytes]:
    """Send from a, one each step_ns; what b has got when nothing travels towards it any more."""
    got = []
    for frame in frames:
        network.a.inject(frame)
        network.advance(network.now_ns + step_ns)
        got += network.b.receive_all()
    while (when := network.b.next_event_ns) is not None:
        network.advance(max(when, network.now_ns))
        got += network.b.receive_all()
    return got


def test_a_clean_wire_carries_every_frame_at_once_and_in_order() -> None:
    with SimNetwork() as network:
        assert carry(network, frames_of(100)) == frames_of(100)
        assert network.now_ns == 0


def test_both_directions_are_separate() -> None:
    with SimNetwork() as network:
        network.a.inject(b"to b")
        network.b.inject(b"to a")
        assert network.a.receive_all() == [b"to a"]
        assert network.b.receive_all() == [b"to b"]


def test_a_frame_arrives_after_the_delay_of_its_direction_and_not_before() -> None:
    with SimNetwork(delay_ns=(1000, 50), now_ns=7) as network:
        network.a.inject(FRAME)
        network.b.inject(FRAME)
        assert network.b.next_event_ns == 1007
        assert network.a.next_event_ns == 57
        assert network.next_event_ns == 57
        network.advance(1006)
        assert network.b.receive() is None
        network.advance(1007)
        assert network.b.receive() == FRAME


def test_a_rate_spaces_frames_by_their_length() -> None:
    with SimNetwork(rate_bps=8_000_000, delay_ns=100) as network:  # one byte a microsecond
        network.a.inject(bytes(1000))
        network.a.inject(bytes(500))
        due = []
        while (when := network.next_event_ns) is not None:
            network.advance(when)
            frame = network.b.receive_frame()
            assert frame is not None
            due.append(frame.due_ns)
        assert due == [1_000_100, 1_500_100]


def test_the_queue_in_front_of_a_slow_wire_drops_its_tail() -> None:
    with SimNetwork(rate_bps=8_000_000, queue_frames=3) as network:
        assert carry(network, frames_of(5)) == frames_of(5)[:3]
        assert network.stats()["ab"]["queue_dropped"] == 2
        assert carry(network, frames_of(3)) == frames_of(3)


def test_what_finds_too_much_waiting_is_marked_if_it_says_that_it_may_be() -> None:
    """RFC 3168 section 5: ECT(0) and ECT(1) become CE, not-ECT stays. The header's checksum follows."""
    ends = Segment("198.18.0.1", "198.18.0.2", 1, 2, 3, payload=bytes(946))
    sent = [build_frame(replace(ends, tos=tos), src_mac=MAC, dst_mac=MAC) for tos in (2, 0, 0xB9, 0xBA, 3)]
    assert {len(frame) for frame in sent} == {1000}
    with SimNetwork(rate_bps=8_000_000, mark_bytes=999) as network:
        got = carry(network, [*sent, FRAME])
        assert [frame[15] for frame in got[:5]] == [2, 0, 0xBB, 0xBB, 3]
        assert [internet_checksum(frame[14:34]) for frame in got[:5]] == [0] * 5
        assert got[5] == FRAME
        assert network.stats()["ab"]["marked"] == 3
    with SimNetwork(rate_bps=8_000_000) as network:
        assert carry(network, sent) == sent
        assert network.stats()["ab"]["marked"] == 0


def test_loss_takes_about_its_share_and_counts_it() -> None:
    with SimNetwork(seed=1, loss=0.25) as network:
        got = carry(network, frames_of(2000))
        lost = network.stats()["ab"]["lost"]
        assert len(got) == 2000 - lost
        assert 400 < lost < 600


def test_certain_loss_loses_all_and_no_loss_none() -> None:
    with SimNetwork(loss=(1.0, 0.0)) as network:
        assert carry(network, frames_of(50)) == []
        for frame in frames_of(50):
            network.b.inject(frame)
        assert network.a.receive_all() == frames_of(50)


def test_a_held_back_frame_is_overtaken_and_none_is_missing() -> None:
    with SimNetwork(seed=3, reorder=0.2, reorder_ns=10_000) as network:
        got = carry(network, frames_of(500), step_ns=1000)
        assert got != frames_of(500)
        assert sorted(got) == frames_of(500)
        assert network.stats()["ab"]["reordered"] > 50


def test_a_duplicated_frame_comes_twice() -> None:
    with SimNetwork(duplicate=1.0) as network:
        assert carry(network, frames_of(3)) == [frame for frame in frames_of(3) for _ in range(2)]
        assert network.stats()["ab"]["duplicated"] == 3


def test_corruption_flips_one_bit_of_the_frame() -> None:
    with SimNetwork(seed=5, corrupt=1.0) as network:
        flipped = set()
        for frame in carry(network, [FRAME] * 6000):
            difference = int.from_bytes(frame, "big") ^ int.from_bytes(FRAME, "big")
            assert difference.bit_count() == 1
            flipped.add(difference.bit_length())
        assert len(flipped) == 60 * 8


def test_a_corrupted_frame_keeps_no_promise_about_its_checksum() -> None:
    with SimNetwork(corrupt=1.0, checksum_offload=True) as network:
        network.a.inject(FRAME, checksum="verified")
        frame = network.b.receive_frame()
        assert frame is not None
        assert frame.checksum == "unknown"


def test_a_narrow_path_swallows_what_is_longer_and_counts_it() -> None:
    """By the IP packet, without its Ethernet header; the link's own MTU is another matter."""
    with SimNetwork(mtu=9000, path_mtu=(1500, 0)) as network:
        for length in (60, 1514, 1515, 9014):
            network.a.inject(bytes(length))
            network.b.inject(bytes(length))
        assert [len(frame) for frame in drain(network.b)] == [60, 1514]
        assert len(drain(network.a)) == 4
        assert [network.stats()[way]["beyond_mtu"] for way in ("ab", "ba")] == [2, 0]
        network.impair(path_mtu=1280)
        network.a.inject(bytes(1294))
        network.a.inject(bytes(1295))
        assert [len(frame) for frame in drain(network.b)] == [1294]


@pytest.mark.parametrize(("path", "arrives"), [(1500, True), (1499, False)])
def test_a_super_frame_is_too_long_for_a_path_if_its_segments_are(path: int, arrives: bool) -> None:
    """Headers of 54 bytes and 1460 in each segment are packets of 1500."""
    frame = bytearray(54 + 5 * 1460)
    frame[14], frame[46] = 0x45, 0x50
    with SimNetwork(segmentation_offload=True, path_mtu=path) as network:
        network.a.inject(bytes(frame), gso_size=1460)
        assert (network.b.receive() is not None) is arrives


def drain(end: SimLink) -> list[bytes]:
    return list(iter(end.receive, None))


IMPAIRED = {
    "loss": 0.1, "reorder": 0.2, "duplicate": 0.1, "corrupt": 0.1, "delay_ns": 5_000, "rate_bps": 10**9,
    "queue_frames": 20,
}  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**64 - 1))
def test_the_same_seed_gives_the_same_bytes(seed: int) -> None:
    runs = []
    for _ in range(2):
        with SimNetwork(seed, **IMPAIRED) as network:  # type: ignore[arg-type]
            runs.append((carry(network, frames_of(100), step_ns=300), network.stats()))
    assert runs[0] == runs[1]


def test_another_seed_gives_others() -> None:
    runs = []
    for seed in range(2):
        with SimNetwork(seed, **IMPAIRED) as network:  # type: ignore[arg-type]
            runs.append(carry(network, frames_of(100), step_ns=300))
    assert runs[0] != runs[1]


def test_traffic_in_one_direction_does_not_change_the_fate_of_the_other() -> None:
    runs = []
    for back in (0, 7):
        with SimNetwork(9, **IMPAIRED) as network:  # type: ignore[arg-type]
            for _ in range(back):
                network.b.inject(FRAME)
            runs.append(carry(network, frames_of(100), step_ns=300))
    assert runs[0] == runs[1]


def test_impairments_can_change_on_the_way() -> None:
    with SimNetwork() as network:
        network.impair(loss=(1.0, 0.0))
        assert carry(network, frames_of(2)) == []
        network.impair(loss=0.0, delay_ns=10)
        assert carry(network, frames_of(2)) == frames_of(2)
        assert network.now_ns == 10


def test_a_filter_decides_frame_by_frame() -> None:
    verdicts: list[Any] = [None, "drop", "duplicate", b"instead", 500]
    seen = []

    def script(frame: bytes, index: int) -> Any:
        seen.append((frame, index))
        return verdicts[index]

    with SimNetwork() as network:
        network.filter_ab = script
        frames = frames_of(5)
        for frame in frames:
            network.a.inject(frame)
        assert network.b.receive_all() == [frames[0], frames[2], frames[2], b"instead"]
        assert network.next_event_ns == 500
        network.advance(500)
        assert network.b.receive_all() == [frames[4]]
        assert seen == list(zip(frames, range(5), strict=True))
        assert network.stats()["ab"]["filtered"] == 1
        network.filter_ab = None
        assert carry(network, frames) == frames


@pytest.mark.parametrize(("verdict", "error"), [("lose", ValueError), (-1, TypeError), (2.5, TypeError)])
def test_a_filter_that_returns_nonsense_is_named_by_the_next_call(verdict: Any, error: type[Exception]) -> None:
    with SimNetwork() as network:
        network.filter_ab = lambda frame, index: verdict
        with pytest.raises(error, match="filter"):
            network.a.inject(FRAME)
        assert network.b.receive() is None


def test_what_a_filter_raises_reaches_the_driver_once() -> None:
    def broken(frame: bytes, index: int) -> None:
        raise KeyError("script")

    with SimNetwork() as network:
        network.filter_ab = broken
        sender = LinkDriver(network.a)
        assert sender.send(FRAME)
        assert sender.submit() == 0
        with pytest.raises(KeyError, match="script"):
            network.advance(1)
        network.advance(2)


def test_the_clock_never_goes_back_and_follows_a_stack() -> None:
    with SimNetwork(delay_ns=100) as network:
        sender = LinkDriver(network.a)
        sender.now_ns = 5000
        sender.send(FRAME)
        sender.submit()
        assert network.now_ns == 5000
        assert network.next_event_ns == 5100
        with pytest.raises(ValueError, match="never goes back"):
            network.advance(4999)


def test_frames_stay_where_they_are_until_they_are_released() -> None:
    with SimNetwork() as network:
        receiver = LinkDriver(network.b)
        for frame in frames_of(10):
            network.a.inject(frame)
        assert [frame.data for frame in receiver.burst(4)] == frames_of(10)[:4]
        assert [frame.data for frame in receiver.burst(4)] == frames_of(10)[4:8]
        for _ in range(100):
            network.a.inject(FRAME)
        assert [frame.data for frame in receiver.lent()] == frames_of(10)[:8]
        receiver.release(3)
        assert [frame.data for frame in receiver.lent()] == frames_of(10)[3:8]
        with pytest.raises(RuntimeError, match="lent"):
            network.b.receive()
        receiver.release()
        assert network.b.receive() == frames_of(10)[8]


def test_a_full_receive_ring_drops_and_the_wire_counts_it_too() -> None:
    with SimNetwork(rx_slots=4) as network:
        receiver = LinkDriver(network.b)
        for frame in frames_of(6):
            network.a.inject(frame)
        assert network.stats()["ab"]["ring_dropped"] == 2
        assert network.b.counters()["rx_dropped"] == 2
        assert [frame.data for frame in receiver.take()] == frames_of(4)


def test_a_super_frame_arrives_whole_and_unfilled() -> None:
    with SimNetwork(segmentation_offload=True) as network:
        sender, receiver = LinkDriver(network.a), LinkDriver(network.b)
        assert network.a.caps["max_frame"] == 14 + 65535
        frame = bytes(14 + 65535)
        assert sender.send(frame, csum_start=34, csum_offset=16, gso_size=1460, header_length=54, gso_family=4)
        sender.submit()
        (got,) = receiver.take()
        assert got == (frame, len(frame), 1460, "partial")


@pytest.mark.parametrize(
    ("arguments", "length", "offload"),
    [
        ({}, 100, {"csum_start": 34, "csum_offset": 16}),
        ({"checksum_offload": True}, 1000, {"csum_start": 34, "csum_offset": 16, "gso_size": 100, "header_length": 54}),
        ({"segmentation_offload": True}, 1515, {}),
        ({"segmentation_offload": True}, 1515, {"gso_size": 1460, "header_length": 54}),
        ({"checksum_offload": True}, 100, {"csum_start": 90, "csum_offset": 16}),
    ],
)
def test_what_the_capabilities_do_not_cover_is_refused(
    arguments: dict[str, bool], length: int, offload: dict[str, int]
) -> None:
    with SimNetwork(**arguments) as network:
        sender = LinkDriver(network.a)
        assert sender.send(bytes(length), **offload)
        sender.submit()
        assert network.a.counters()["tx_dropped"] == 1
        assert network.b.receive() is None


def test_an_injected_frame_says_what_it_is_told_to_say() -> None:
    with SimNetwork() as network:
        receiver = LinkDriver(network.b)
        network.a.inject(FRAME, checksum="partial", gso_size=1000, wire_length=99)
        assert receiver.take() == [(FRAME, 99, 1000, "partial")]
        assert network.b.counters()["rx_truncated"] == 1


def test_an_empty_frame_passes_every_impairment() -> None:
    with SimNetwork(corrupt=1.0, duplicate=1.0, reorder=1.0) as network:
        assert carry(network, [b""]) == [b"", b""]


def test_closing_leaves_nothing_and_can_be_repeated() -> None:
    network = SimNetwork(delay_ns=1000, duplicate=0.5)
    sender, receiver = LinkDriver(network.a), LinkDriver(network.b)
    for frame in frames_of(20):
        sender.send(frame)
    sender.submit()
    network.advance(1000)
    receiver.burst(3)
    sender.send(FRAME)
    sender.reserve(100)
    network.b.inject(FRAME)
    assert network.live_frames > 20
    network.close()
    network.close()
    assert network.live_frames == 0
    assert network.next_event_ns is None


def test_a_closed_end_does_nothing_and_does_not_crash() -> None:
    network = SimNetwork()
    driver = LinkDriver(network.a)
    network.b.inject(FRAME)
    network.a.close()
    assert network.a.closed
    assert driver.burst() == []
    driver.release()
    assert not driver.reserve(60)
    assert driver.submit() < 0
    assert driver.wait(10**12) < 0
    with pytest.raises(OSError, match="closed"):
        network.a.inject(FRAME)
    network.b.inject(FRAME)
    assert network.stats()["ba"]["ring_dropped"] == 1
    network.close()


def test_waiting_returns_at_once() -> None:
    with SimNetwork() as network:
        assert LinkDriver(network.a).wait(10**15) == 0


def test_ends_outlive_their_network_object() -> None:
    network = SimNetwork(delay_ns=0)
    a, b = network.a, network.b
    del network
    a.inject(FRAME)
    assert b.receive() == FRAME


def test_an_end_is_made_by_its_network_alone() -> None:
    with pytest.raises(TypeError):
        SimLink()


@pytest.mark.parametrize(
    "arguments",
    [
        {"mtu": 67}, {"mtu": 65536}, {"rx_slots": 0}, {"tx_slots": 0}, {"now_ns": -1}, {"loss": 1.1}, {"loss": -0.1},
        {"corrupt": 2}, {"reorder": 2}, {"duplicate": 2}, {"delay_ns": -1}, {"rate_bps": -1}, {"queue_frames": 0},
        {"reorder_ns": 0}, {"delay_ns": 1.5}, {"loss": (0.1, 0.2, 0.3)},
    ],
)  # fmt: skip
def test_impossible_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SimNetwork(**arguments)


def test_an_unknown_impairment_is_named_and_none_is_changed() -> None:
    with SimNetwork() as network:
        with pytest.raises(ValueError, match="jitter"):
            network.impair(loss=1.0, jitter=3)
        assert carry(network, [FRAME]) == [FRAME]
        with pytest.raises(ValueError, match="checksum"):
            network.a.inject(FRAME, checksum="good")
        with pytest.raises(ValueError, match="gso_size"):
            network.a.inject(FRAME, gso_size=65536)
        with pytest.raises(ValueError, match="at most"):
            network.a.inject(bytes(200_000))


# ---------------------------------------------------------------- Python that comes in between


not_traced = pytest.mark.skipif(
    build_mode() == "trace", reason="where lines are traced, Python comes in at places where it else cannot"
)


@not_traced
@pytest.mark.parametrize("what", ["close", "receive"])
def test_a_profiler_may_use_an_end_while_a_frame_is_taken_from_it(what: str) -> None:
    """Making a SimFrame runs Python: the end must be whole by then."""
    with SimNetwork() as network:
        for frame in frames_of(3):
            network.a.inject(frame)
        network.advance(0)
        inner: list[Any] = []

        def profile(*_event: object) -> None:
            sys.setprofile(None)
            inner.append(getattr(network.b, what)())

        sys.setprofile(profile)
        try:
            outer = network.b.receive()
        finally:
            sys.setprofile(None)
        assert outer == frames_of(3)[0]
        assert inner == ([frames_of(3)[1]] if what == "receive" else [None])
    assert network.live_frames == 0


@not_traced
def test_a_collection_may_use_an_end_while_a_frame_is_taken_from_it() -> None:
    with SimNetwork() as network:
        for frame in frames_of(200):
            network.a.inject(frame)
        network.advance(0)
        got: list[bytes | None] = []

        class Cycle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                got.append(network.b.receive())

        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(60):
                Cycle()
                got.append(network.b.receive())
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert sorted(frame for frame in got if frame is not None) == frames_of(len(got))
    assert network.live_frames == 0


def test_a_network_that_nobody_initialised_carries_nothing() -> None:
    network = SimNetwork.__new__(SimNetwork)
    network.advance(5)
    network.impair(loss=0.5)
    network.filter_ab = None
    assert (network.now_ns, network.next_event_ns, network.live_frames) == (5, None, 0)
    assert network.stats()["ab"]["sent"] == 0
    network.close()

# SPDX-License-Identifier: MIT
"""The path's MTU without ICMP, rule by rule: RFC 4821 sections 7.1 to 7.7, against a scripted receiver behind a path
that drops large packets and tells nobody (RFC 2923 section 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register
from ustack.testing.parts.recovery import path_black_hole_size, path_probe_wait, path_search_size
from ustack.testing.segment import Segment
from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MICROSECOND, MILLISECOND, SECOND

MSS = 1460
BASE = 1024
FLOOR = 552
HEADERS = 40
SACK = {"mss": MSS, "sack_permitted": True}
ROUND_TRIP = 20 * MILLISECOND
EXPIRES = 600 * SECOND
GAP = 8


# ---------------------------------------------------------------- in plain numbers


def test_the_middle_of_what_is_left_rounded_up() -> None:
    assert path_search_size(1024, 1500) == 1262
    assert path_search_size(1024, 1033) == 1029


@pytest.mark.parametrize("high", range(1016, 1033))
def test_a_range_of_eight_bytes_is_not_worth_a_probe(high: int) -> None:
    """Section 7.3: "further probing is no longer worth its cost"."""
    assert path_search_size(1024, high) == 0


def test_the_top_is_tried_first_and_however_near_it_is() -> None:
    assert path_search_size(1024, 9000, top_first=True) == 9000
    assert path_search_size(1024, 1025, top_first=True) == 1025
    assert path_search_size(1024, 1024, top_first=True) == 0


@pytest.mark.parametrize("path", [552, 600, 1023, 1024, 1280, 1400, 1492, 1500, 4352, 8999, 9000])
@pytest.mark.parametrize("low", [552, 1024])
def test_the_search_ends_below_the_path_and_near_it(low: int, path: int) -> None:
    """In as many steps as halving takes, whatever the answer is."""
    if low > path:
        return
    high, top_first, probes = 9000, True, 0
    while size := path_search_size(low, high, top_first):
        assert low < size <= high
        if size <= path:
            low = size
        else:
            high = size - 1
        top_first = False
        probes += 1
    assert path - GAP <= low <= path
    assert probes <= 12


def test_what_to_send_into_a_black_hole() -> None:
    """Section 7.7: the initial search_low; at further timeouts half of it, down to the floor."""
    assert path_black_hole_size(9000, BASE) == BASE
    assert path_black_hole_size(1025, BASE) == BASE
    assert path_black_hole_size(BASE, BASE) == 552
    assert path_black_hole_size(BASE, 4000) == 552
    assert path_black_hole_size(4000, 4000) == 2000
    assert path_black_hole_size(552, BASE) == 552


def test_a_failure_waits_for_as_long_as_congestion_would_take_to_come() -> None:
    """Section 7.6.2: "the same number of round trips as the current congestion window in packets", and one."""
    assert path_probe_wait(100_000, 1000, 20_000) == 101 * 20 * MILLISECOND
    assert path_probe_wait(1000, 1000, 20_000) == 2 * 20 * MILLISECOND


@pytest.mark.parametrize("segments", [1000, 10_000, 100_000, 2_000_000])
def test_or_for_as_long_as_cubic_takes_to_come_back(segments: int) -> None:
    """RFC 9438 section 4.2, figure 2: K = cbrt(W * 0.3 / 0.4) seconds."""
    k_ns = (segments * 0.75) ** (1 / 3) * SECOND
    assert abs(path_probe_wait(segments * 500, 500, 100_000_000) - k_ns) <= 0.001 * k_ns


# ---------------------------------------------------------------- a receiver behind a narrow path


class Receiver:
    """Takes what the path carries, acknowledges each segment, SACKs what lies beyond a hole.

    path: IP bytes that arrive.  drop: says of a segment whether it is lost on the way.
    """

    def __init__(self, scene: Scene, path: int = 65535) -> None:
        self.scene = scene
        self.path = path
        self.drop: Callable[[Segment], bool] = lambda segment: False
        self.sizes: list[int] = []
        """IP lengths of everything that was sent with data, whether it arrived or not."""
        self.held: list[tuple[int, int]] = []
        self.next = 1

    def arrive(self, segment: Segment) -> None:
        """One segment comes to the path's narrow place."""
        self.sizes.append(size_of(segment))
        if self.sizes[-1] > self.path or self.drop(segment):
            return
        start = self.scene.peer.relative(segment)[0]
        merged: list[tuple[int, int]] = []
        for left, right in sorted([*self.held, (start, start + len(segment.payload))]):
            if merged and left <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], right))
            else:
                merged.append((left, right))
        while merged and merged[0][0] <= self.next:
            self.next = max(self.next, merged.pop(0)[1])
        self.held = merged

    def answer(self, **more: Any) -> None:
        """One ACK of what has arrived."""
        iss = self.scene.peer.iss or 0
        edges = [((iss + left) & 0xFFFFFFFF, (iss + right) & 0xFFFFFFFF) for left, right in self.held[:3]]
        sacks = edges and self.scene.info()["options"] & 2
        self.scene.peer.send("A", ack=self.next, options={"sack": edges} if sacks else None, **more)

    def round(self) -> list[int]:
        """A round trip later: what waits arrives, a segment after the other, and each is acknowledged. IP lengths of
        what that was."""
        self.scene.testbed.advance(ROUND_TRIP)
        taken = [segment for segment in self.scene.peer.drain() if segment.payload]
        for segment in taken:
            self.scene.testbed.advance(100 * MICROSECOND)
            self.arrive(segment)
            self.answer()
        return [size_of(segment) for segment in taken]

    def until(self, done: Callable[[], bool], rounds: int = 2000) -> int:
        """Rounds, with the sender's timers where nothing is on its way; how many."""
        for index in range(rounds):
            if done():
                return index
            if not self.scene.peer.queue and self.scene.info()["snd_nxt"] != self.scene.info()["snd_una"]:
                self.scene.peer.wait(130 * SECOND)
            self.round()
        raise AssertionError(f"not within {rounds} rounds: {self.scene.info()}")


def size_of(segment: Segment) -> int:
    """Bytes of the IP packet."""
    return len(segment.payload) + HEADERS + (12 if "timestamps" in segment.options else 0)


def small_window(config: dict[str, Any]) -> dict[str, Any]:
    """A peer whose window holds eight segments, so that a failure does not make the next probe wait for long."""
    options = config.get("options", SACK)
    return {"options": options, "wnd": 12_000 >> options.get("wscale", 0)} | config


def searching(octets: int = 1 << 20, *, path: int = 65535, **config: Any) -> tuple[Scene, Receiver]:
    """A connection that searches from its first segment; the first flight waits to arrive."""
    scene = established(**(small_window(config) | {"mtu_probing": 2}))
    scene.send(bytes(octets))
    return scene, Receiver(scene, path)


def probing(**config: Any) -> tuple[Scene, Receiver, int]:
    """As searching, and the first probe is on its way: with its index in what waits to arrive."""
    scene, receiver = searching(**config)
    for _ in range(10):
        if scene.testbed.counted().get("mtu_probes"):
            sizes = [size_of(segment) for segment in scene.peer.queue]
            return scene, receiver, sizes.index(max(sizes))
        receiver.round()
    raise AssertionError("no probe was sent")


def stalled(octets: int = 40 * MSS, *, path: int = 65535, **config: Any) -> tuple[Scene, Receiver]:
    """Full segments do not arrive, and the sender has not noticed yet."""
    scene = established(**small_window(config))
    scene.send(bytes(octets))
    return scene, Receiver(scene, path)


def timeouts(scene: Scene) -> int:
    return scene.testbed.counted().get("retransmit_timeouts", 0)


def time_out(scene: Scene, times: int = 1) -> None:
    """Nothing arrives, not even a tail loss probe, until the retransmission timer has fired; what it sends waits."""
    wanted = timeouts(scene) + times
    while timeouts(scene) < wanted:
        scene.peer.drain()
        scene.peer.wait(130 * SECOND)


# ---------------------------------------------------------------- finding a black hole (section 7.7)


def test_a_full_segment_that_was_sent_again_three_times_is_in_a_black_hole() -> None:
    """R1 is three retransmissions (RFC 9293 SHLD-10). What is lost goes again in small segments, with DF."""
    scene, _ = stalled()
    with scene:
        time_out(scene, 3)
        assert scene.info()["path_mtu"] == 1500
        time_out(scene)
        assert scene.info()["path_mtu"] == BASE
        assert scene.testbed.counted()["black_holes"] == 1
        first = scene.peer.queue[0]
        assert scene.peer.relative(first)[0] == 1
        assert size_of(first) == BASE
        assert first.dont_fragment
        scene.abort()


@pytest.mark.parametrize(
    ("octets", "size"),
    [
        (MSS - 1, BASE),
        (BASE - HEADERS + 1, BASE),
        (BASE - HEADERS, FLOOR),
        (700, FLOOR),
        (FLOOR - HEADERS + 1, FLOOR),
    ],
)
def test_what_is_in_a_black_hole_need_not_be_a_full_segment(octets: int, size: int) -> None:
    """The end of a write, or of a stream, say: what is no larger than the base is halved, down to the floor, or it
    would never arrive. The tail loss probe was one of the times that it was sent."""
    scene, _ = stalled(octets)
    with scene:
        time_out(scene, 2)
        assert scene.info()["path_mtu"] == 1500
        time_out(scene)
        assert scene.info()["path_mtu"] == size
        assert scene.peer.relative(scene.peer.queue[0])[0] == 1
        assert size_of(scene.peer.queue[0]) == size
        scene.abort()


def test_a_window_of_less_than_a_segment_hides_no_black_hole() -> None:
    scene, _ = stalled(octets=1 << 16, wnd=1300)
    with scene:
        time_out(scene, 3)
        assert scene.info()["path_mtu"] == BASE
        scene.abort()


@pytest.mark.parametrize("octets", [1, 500, FLOOR - HEADERS])
def test_a_short_segment_that_does_not_arrive_says_nothing_of_the_size(octets: int) -> None:
    scene, _ = stalled(octets)
    with scene:
        time_out(scene, 7)
        assert scene.info()["smss"] == MSS
        assert scene.testbed.counted().get("black_holes", 0) == 0
        assert scene.is_plain()
        scene.abort()


def test_without_probing_nothing_is_found() -> None:
    scene, _ = stalled(mtu_probing=0)
    with scene:
        time_out(scene, 8)
        assert scene.info()["smss"] == MSS
        scene.abort()


def test_segments_that_arrive_at_last_are_in_no_black_hole() -> None:
    """Each is lost twice, and then comes through, with a measurement: never three in a row."""
    scene, receiver = stalled(20 * MSS, options=ALL_OPTIONS)
    with scene:
        lost: dict[int, int] = {}

        def drop(segment: Segment) -> bool:
            lost[segment.seq] = lost.get(segment.seq, 0) + 1
            return lost[segment.seq] <= 2

        receiver.drop = drop
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert timeouts(scene) >= 3
        assert scene.info()["smss"] == MSS - 12
        assert scene.testbed.counted().get("black_holes", 0) == 0


def test_a_closed_window_is_no_black_hole() -> None:
    scene, _ = stalled()
    with scene:
        scene.peer.drain()
        scene.peer.send("A", ack=1, wnd=0)
        for _ in range(8):
            scene.peer.wait(100 * SECOND)
            scene.peer.drain()
            scene.peer.send("A", ack=1, wnd=0)
        assert scene.info()["smss"] == MSS
        scene.abort()


def test_a_router_that_has_said_why_is_believed_and_nothing_is_guessed() -> None:
    """Section 7.7: "and there was not an ICMP message indicating a reason". The claim waits for the first timeout."""
    scene, receiver = stalled()
    with scene:
        receiver.round()
        claim(scene, 1400, receiver.next)
        assert scene.info()["path_mtu"] == 1500
        time_out(scene)
        assert scene.info()["path_mtu"] == 1400
        assert scene.testbed.counted().get("black_holes", 0) == 0
        scene.abort()


def test_further_timeouts_halve_the_size_down_to_the_floor() -> None:
    scene, _ = stalled()
    with scene:
        found = []
        for _ in range(9):
            time_out(scene)
            found.append(scene.info()["path_mtu"])
        assert found == [1500] * 3 + [BASE] + [552] * 5
        assert scene.testbed.counted()["black_holes"] == 2
        assert all(segment.dont_fragment for segment in scene.peer.queue)
        scene.abort()


@pytest.mark.parametrize(("base", "first"), [(552, 552), (800, 800), (1500, 750), (9000, 750)])
def test_the_base_can_be_set(base: int, first: int) -> None:
    scene, _ = stalled(mtu_probe_base_bytes=base)
    with scene:
        time_out(scene, 4)
        assert scene.info()["path_mtu"] == first
        scene.abort()


@pytest.mark.parametrize(("mss", "left"), [(400, 440), (512, 552), (536, 552)])
def test_a_peer_with_small_segments_gets_none_that_are_smaller_than_the_floor(mss: int, left: int) -> None:
    scene, _ = stalled(options={"mss": mss})
    with scene:
        time_out(scene, 8)
        assert scene.info()["path_mtu"] == left
        scene.abort()


def test_without_a_record_segments_stay_as_they_are() -> None:
    scene, _ = stalled(extra_records=0)
    with scene:
        time_out(scene, 6)
        assert scene.info()["smss"] == MSS
        assert scene.testbed.dropped()["drop_no_memory"] >= 1
        scene.abort()


def test_without_a_record_of_transmissions_it_is_found_as_well() -> None:
    scene, _ = stalled(flights=0)
    with scene:
        time_out(scene, 4)
        assert scene.info()["path_mtu"] == BASE
        scene.abort()


def test_everything_arrives_and_the_size_is_found() -> None:
    scene, receiver = stalled(3 << 20, path=1400)
    with scene:
        receiver.until(lambda: scene.info()["path_mtu"] >= 1400 - GAP)
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert scene.info()["path_mtu"] <= 1400
        assert receiver.next == 1 + (3 << 20)
        assert timeouts(scene) == 4


def test_an_outage_costs_one_probe() -> None:
    """It looks like a black hole; the first probe has the size from before, and then nothing is left of it."""
    scene, receiver = stalled(1 << 20)
    with scene:
        receiver.drop = lambda segment: True
        receiver.until(lambda: scene.info()["path_mtu"] == 552)
        receiver.drop = lambda segment: False
        receiver.until(lambda: scene.info()["path_mtu"] == 1500)
        counted = scene.testbed.counted()
        assert (counted["mtu_probes"], counted.get("mtu_probes_lost", 0)) == (1, 0)
        assert scene.is_plain()
        scene.abort()


# ---------------------------------------------------------------- when a probe is sent (section 7.4), and how (7.5)


def test_a_connection_that_always_searches_begins_with_the_base_and_its_window_in_segments() -> None:
    scene, _ = searching()
    with scene:
        assert scene.info()["path_mtu"] == BASE
        assert scene.info()["cwnd"] == 10 * (BASE - HEADERS)
        assert {size_of(segment) for segment in scene.peer.drain()} == {1500, BASE}
        scene.abort()


@pytest.mark.parametrize("octets", [1, 984, 4000])
def test_what_is_little_goes_in_small_segments(octets: int) -> None:
    """No probe without something behind it; and nothing that is not known to arrive."""
    scene, receiver = searching(octets)
    with scene:
        while scene.info()["snd_queued_bytes"]:
            assert all(size <= BASE for size in receiver.round())
        assert scene.testbed.counted().get("mtu_probes", 0) == 0


def test_a_response_of_five_segments_has_room_for_a_probe() -> None:
    """It is the first of them: otherwise a server of small files would never come back from an outage."""
    scene, receiver = searching(MSS + 3 * (BASE - HEADERS))
    with scene:
        assert [size_of(segment) for segment in scene.peer.queue] == [1500, BASE, BASE, BASE]
        receiver.round()
        assert scene.info()["path_mtu"] == 1500


def test_the_first_probe_has_the_links_mtu_and_is_one_segment() -> None:
    scene, receiver, index = probing()
    with scene:
        sizes = [size_of(segment) for segment in scene.peer.queue]
        assert sizes[index] == 1500
        assert set(sizes[:index] + sizes[index + 1 :]) <= {BASE}
        assert scene.peer.queue[index].dont_fragment
        receiver.round()
        assert scene.info()["path_mtu"] == 1500
        assert scene.testbed.stack.leaks()["extras"] == 0  # nothing is left to search
        scene.abort()


def test_options_count() -> None:
    """Section 5.1: the size is the whole packet's."""
    scene, receiver, index = probing(options=ALL_OPTIONS)
    with scene:
        assert size_of(scene.peer.queue[index]) == 1500
        assert len(scene.peer.queue[index].payload) == MSS - 12
        receiver.round()
        assert scene.info()["smss"] == MSS - 12
        scene.abort()


def test_one_probe_at_a_time() -> None:
    scene, receiver, _ = probing()
    with scene:
        scene.peer.drain()
        for _ in range(5):
            scene.peer.send("A", ack=receiver.next)
            scene.testbed.advance(MILLISECOND)
        assert scene.testbed.counted()["mtu_probes"] == 1
        scene.abort()


@pytest.mark.parametrize(("missing", "probes"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("before", [0, 3])
def test_only_with_enough_data_behind_it(before: int, missing: int, probes: int) -> None:
    """Three segments follow, by which its loss would be found without a timeout; at the beginning of a flight or in
    it."""
    scene, _ = searching(before * (BASE - HEADERS))
    with scene:
        scene.send(bytes(MSS + 3 * (BASE - HEADERS) - missing))
        assert scene.testbed.counted().get("mtu_probes", 0) == probes
        scene.abort()


@pytest.mark.parametrize(("wnd", "probes"), [(MSS + 3 * (BASE - HEADERS), 1), (MSS + 3 * (BASE - HEADERS) - 1, 0)])
def test_only_where_the_peers_window_has_room_for_it(wnd: int, probes: int) -> None:
    scene = established(options=SACK, mtu_probing=2, wnd=wnd)
    with scene:
        scene.send(bytes(1 << 16))
        receiver = Receiver(scene)
        for _ in range(4):
            receiver.round()
        assert min(1, scene.testbed.counted().get("mtu_probes", 0)) == probes
        scene.abort()


def test_not_while_a_loss_is_being_repaired() -> None:
    scene, receiver = searching(4 * (BASE - HEADERS))
    with scene:
        lost: list[int] = []

        def drop(segment: Segment) -> bool:
            lost.append(segment.seq)
            return len(lost) == 1

        receiver.drop = drop
        receiver.round()
        assert scene.testbed.counted()["fast_retransmits"] == 1
        scene.send(bytes(1 << 16))
        assert scene.testbed.counted().get("mtu_probes", 0) == 0
        receiver.until(lambda: scene.testbed.counted().get("mtu_probes", 0) == 1)
        scene.abort()


# ---------------------------------------------------------------- what becomes of it (section 7.6)


def test_a_probe_that_alone_is_lost_is_no_sign_of_congestion() -> None:
    """Section 7.6.2. It goes again in segments that arrive; no recovery, no reduction, no PRR; the middle is next."""
    scene, receiver, _ = probing(path=1400)
    with scene:
        before = scene.info()
        receiver.round()
        receiver.round()
        counted = scene.testbed.counted()
        assert counted["mtu_probes_lost"] == 1
        assert counted.get("fast_retransmits", 0) == 0
        assert timeouts(scene) == 0
        assert 0 < counted["segments_retransmitted"] <= 2
        assert scene.info()["ssthresh"] == before["ssthresh"]
        assert scene.info()["cwnd"] >= before["cwnd"]
        assert scene.info()["smss"] == BASE - HEADERS
        receiver.until(lambda: scene.testbed.counted()["mtu_probes"] == 2)
        sizes = [size_of(segment) for segment in scene.peer.queue]
        assert max(sizes) == path_search_size(BASE, 1499)
        scene.abort()


class Written(CongestionControl):
    """Writes down what it is told of losses."""

    name = "written"
    told: ClassVar[list[str]] = []

    def on_ack(self, window: Window, ack: Ack) -> None:
        if ack.newly_lost or ack.in_recovery:
            self.told.append("ack")

    def on_loss(self, window: Window, flight: int) -> None:
        self.told.append("loss")

    def on_timeout(self, window: Window, flight: int, first: bool) -> None:
        self.told.append("timeout")


def test_the_control_hears_nothing_of_a_probe_that_is_lost() -> None:
    register(Written)
    Written.told.clear()
    scene, receiver = searching(path=1400, cc="written")
    with scene:
        receiver.until(lambda: scene.testbed.counted().get("mtu_probes_lost", 0) == 3)
        for _ in range(4):
            receiver.round()
        assert Written.told == []
        scene.abort()


def test_after_a_failure_the_next_one_waits_for_a_window_of_round_trips() -> None:
    scene, receiver, _ = probing(path=1400, octets=4 << 20)
    with scene:
        receiver.until(lambda: scene.testbed.counted().get("mtu_probes_lost", 0) == 1)
        rounds = receiver.until(lambda: scene.testbed.counted()["mtu_probes"] == 2)
        assert rounds >= 10  # the window when it failed has at least so many segments
        scene.abort()


def test_a_probe_that_arrives_raises_the_size_and_not_the_window() -> None:
    """Section 7.3: "rescaled so as not to raise the window size in bytes"."""
    scene, receiver, index = probing()
    with scene:
        waiting = scene.peer.drain()
        scene.testbed.advance(ROUND_TRIP)
        for segment in waiting[: index + 1]:
            receiver.arrive(segment)
        before = scene.info()["cwnd"]
        receiver.answer()
        assert scene.info()["smss"] == MSS
        grown = scene.info()["cwnd"] - before
        assert 0 <= grown <= 2 * MSS  # what one ACK adds in slow start (RFC 3465)
        scene.abort()


def test_other_losses_beside_it_say_nothing_of_the_size() -> None:
    """Section 7.6.4: the bounds stay, and the same size is tried again; the losses are congestion's."""
    scene, receiver, index = probing(path=1400)
    with scene:
        before = scene.info()["ssthresh"]
        waiting = [segment for segment in scene.peer.drain() if segment.payload]
        after = scene.peer.relative(waiting[index])[0] + len(waiting[index].payload)
        once: list[int] = []

        def drop(segment: Segment) -> bool:
            if scene.peer.relative(segment)[0] == after and not once:
                once.append(1)
                return True
            return False

        receiver.drop = drop
        scene.testbed.advance(ROUND_TRIP)
        for segment in waiting:
            scene.testbed.advance(100 * MICROSECOND)
            receiver.arrive(segment)
            receiver.answer()
        receiver.until(lambda: scene.testbed.counted().get("fast_retransmits", 0) == 1)
        assert scene.info()["ssthresh"] < before
        receiver.path = 65535
        receiver.until(lambda: scene.testbed.counted()["mtu_probes"] == 2)
        assert max(size_of(segment) for segment in scene.peer.queue) == 1500
        receiver.until(lambda: scene.info()["path_mtu"] == 1500)
        scene.abort()


def test_a_size_that_has_no_answer_three_times_is_too_large() -> None:
    """RFC 8899 section 5.1.2: MAX_PROBES. A timeout each time says nothing about the size by itself (section 7.6.4)."""
    scene, receiver = searching(4 << 20, path=1400)
    with scene:
        top: list[int] = []
        for probes in range(1, 5):
            receiver.until(lambda least=probes: scene.testbed.counted().get("mtu_probes", 0) >= least)  # type: ignore[misc]
            top.append(max(size_of(segment) for segment in scene.peer.queue))
            time_out(scene)
        assert top == [1500, 1500, 1500, path_search_size(BASE, 1499)]
        scene.abort()


def test_a_timeout_with_a_probe_out_is_answered_as_any_other() -> None:
    """Section 7.6.3: the loss that a timeout finds is congestion; what the probe carried goes again in small ones."""
    scene, receiver, _ = probing()
    with scene:
        time_out(scene)
        assert scene.info()["cwnd"] == BASE - HEADERS
        assert max(size_of(segment) for segment in scene.peer.queue) == BASE
        receiver.until(lambda: scene.info()["path_mtu"] == 1500)
        scene.abort()


def test_a_piece_of_a_probe_that_is_lost_after_its_answer_is_not_waited_for_says_nothing_of_the_size() -> None:
    """A timeout has sent its first half again, so no ACK can tell (section 7.6.4). The second half is lost once more,
    which RACK finds: a loss as any other, and the next probe has the same size."""
    scene, receiver, index = probing()
    with scene:
        assert index == 0
        behind = list(scene.peer.queue)[1:]
        time_out(scene)
        (half,) = scene.peer.drain()
        for segment in [*behind, half]:
            receiver.arrive(segment)
        rest = 1 + len(half.payload)
        lost: list[Segment] = []

        def once(segment: Segment) -> bool:
            if scene.peer.relative(segment)[0] != rest or lost:
                return False
            lost.append(segment)
            return True

        receiver.drop = once
        receiver.answer()
        receiver.until(lambda: bool(scene.testbed.counted().get("retransmits_lost")))
        assert len(lost) == 1
        assert scene.testbed.counted()["mtu_probes"] == 1
        receiver.until(lambda: scene.info()["path_mtu"] == 1500)
        counted = scene.testbed.counted()
        assert counted["mtu_probes"] == 2
        assert "mtu_probes_lost" not in counted
        scene.abort()


def test_without_sack_three_duplicates_find_it_and_no_more_than_it_goes_again() -> None:
    scene, receiver, _ = probing(path=1400, octets=4 << 20, options={"mss": MSS})
    with scene:
        before = scene.info()
        for _ in range(4):
            receiver.round()
        counted = scene.testbed.counted()
        assert counted["mtu_probes_lost"] == 1
        assert counted.get("fast_retransmits", 0) == 0
        assert counted["segments_retransmitted"] == 2
        assert scene.info()["ssthresh"] == before["ssthresh"]
        assert timeouts(scene) == 0
        receiver.until(lambda: scene.info()["path_mtu"] >= 1400 - GAP)
        scene.abort()


@pytest.mark.parametrize("options", [{"mss": MSS}, SACK, ALL_OPTIONS], ids=["plain", "sack", "all"])
@pytest.mark.parametrize("path", [1400, 1280])
def test_the_size_is_found_whatever_the_peer_speaks(options: dict[str, Any], path: int) -> None:
    scene, receiver = searching(4 << 20, path=path, options=options)
    with scene:
        receiver.until(lambda: scene.info()["path_mtu"] >= path - GAP)
        assert scene.info()["path_mtu"] <= path
        assert timeouts(scene) == 0
        assert scene.testbed.counted().get("fast_retransmits", 0) == 0
        scene.abort()


# ---------------------------------------------------------------- the search rests (section 7.3)


def test_after_ten_minutes_a_wider_path_is_found_with_one_probe() -> None:
    scene, receiver = searching(2 << 20, path=1400)
    with scene:
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert 1400 - GAP <= scene.info()["path_mtu"] <= 1400
        probes = scene.testbed.counted()["mtu_probes"]
        receiver.path = 65535
        scene.testbed.advance(EXPIRES - 100 * SECOND)
        scene.send(bytes(1 << 17))
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert scene.testbed.counted()["mtu_probes"] == probes
        scene.testbed.advance(100 * SECOND)
        scene.send(bytes(1 << 17))
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert scene.testbed.counted()["mtu_probes"] == probes + 1
        assert scene.info()["path_mtu"] == 1500
        assert scene.is_plain()


def test_a_path_that_becomes_narrower_is_found_again() -> None:
    scene, receiver = searching(6 << 20, path=1400)
    with scene:
        receiver.until(lambda: scene.info()["path_mtu"] >= 1400 - GAP)
        for _ in range(20):
            receiver.round()
        receiver.path = 1280
        receiver.until(lambda: scene.testbed.counted().get("black_holes", 0) == 1)
        receiver.until(lambda: 1280 - GAP <= scene.info()["path_mtu"] <= 1280)
        scene.abort()


# ---------------------------------------------------------------- what routers say meanwhile (section 7.6.2)


def claim(scene: Scene, mtu: int, seq: int, octets: int = MSS) -> None:
    """A router says that the datagram at seq was too big."""
    scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=seq, payload=bytes(octets)), mtu=mtu)


def test_a_plausible_claim_about_a_lost_probe_is_the_next_size() -> None:
    """RFC 8899 section 4.6.2. It is tried, not believed; nothing is sent for the message itself."""
    scene, receiver, index = probing(path=1400)
    with scene:
        waiting = len(scene.peer.queue)
        claim(scene, 1400, scene.peer.relative(scene.peer.queue[index])[0])
        assert len(scene.peer.queue) == waiting
        assert scene.info()["path_mtu"] == BASE
        receiver.until(lambda: scene.testbed.counted()["mtu_probes"] == 2)
        assert max(size_of(segment) for segment in scene.peer.queue) == 1400
        receiver.until(lambda: scene.info()["path_mtu"] == 1400)
        for _ in range(100):
            receiver.round()
        assert scene.testbed.counted()["mtu_probes"] == 2  # what the router said is all there is
        scene.abort()


@pytest.mark.parametrize("mtu", [1024, 1100, 1499])
def test_a_probe_that_arrives_refutes_what_was_claimed_of_it(mtu: int) -> None:
    """RFC 5927 section 7.2: progress is proof. Forged, then."""
    scene, receiver, index = probing()
    with scene:
        claim(scene, mtu, scene.peer.relative(scene.peer.queue[index])[0])
        receiver.round()
        assert scene.info()["path_mtu"] == 1500
        assert scene.testbed.stack.leaks()["extras"] == 0
        scene.abort()


@pytest.mark.parametrize("mtu", [1500, 4000, 65535])
def test_a_claim_that_a_probe_fits_is_refused(mtu: int) -> None:
    scene, _, index = probing()
    with scene:
        claim(scene, mtu, scene.peer.relative(scene.peer.queue[index])[0])
        assert scene.testbed.dropped() == {"drop_icmp_path_mtu": 1}
        scene.abort()


@pytest.mark.parametrize("mtu", [68, 600, 1023])
def test_a_claim_below_what_arrives_waits_for_a_timeout_as_ever(mtu: int) -> None:
    """A segment of the present size has been acknowledged: a forged message that quotes a probe does no more."""
    scene, receiver = searching(3 * (BASE - HEADERS))
    with scene:
        receiver.round()
        scene.send(bytes(1 << 16))
        assert size_of(scene.peer.queue[0]) == 1500
        claim(scene, mtu, receiver.next)
        assert scene.info()["path_mtu"] == BASE
        assert scene.testbed.counted()["path_mtu_deferred"] == 1
        receiver.round()
        assert scene.info()["path_mtu"] == 1500
        scene.abort()


@pytest.mark.parametrize("mtu", [600, 1023])
def test_a_claim_below_what_arrives_counts_at_the_timeout(mtu: int) -> None:
    """The path has become narrow, with a probe out: what the router says is the size, and there is no guessing."""
    scene, receiver = searching(3 * (BASE - HEADERS))
    with scene:
        receiver.round()
        scene.send(bytes(1 << 16))
        claim(scene, mtu, receiver.next)
        time_out(scene)
        assert scene.info()["path_mtu"] == mtu
        assert max(size_of(segment) for segment in scene.peer.queue) <= mtu
        scene.abort()


# ---------------------------------------------------------------- peers that lie


def test_half_of_a_probe_is_none_of_it() -> None:
    """A SACK of a part of it splits nothing; it cannot have arrived in part."""
    scene, receiver, index = probing()
    with scene:
        start = scene.peer.relative(scene.peer.queue[index])[0]
        iss = scene.peer.iss or 0
        scene.peer.drain()
        scene.testbed.advance(ROUND_TRIP)
        block = ((iss + start + 700) & 0xFFFFFFFF, (iss + start + MSS) & 0xFFFFFFFF)
        scene.peer.send("A", ack=receiver.next, options={"sack": [block]})
        assert scene.info()["path_mtu"] == BASE
        scene.peer.send("A", ack=start + 700)
        assert scene.info()["path_mtu"] == BASE
        scene.abort()


def test_a_peer_that_acknowledges_a_probe_it_has_not_got_hurts_itself() -> None:
    """Full segments then vanish, the timer finds out, and small ones go again: the connection lives."""
    scene, receiver, index = probing(path=1400, octets=2 << 20)
    with scene:
        end = scene.peer.relative(scene.peer.queue[index])[0] + MSS
        for segment in scene.peer.drain():
            receiver.arrive(segment)
        receiver.held = []
        receiver.next = end
        receiver.answer()
        assert scene.info()["path_mtu"] == 1500
        receiver.until(lambda: scene.testbed.counted().get("black_holes", 0) == 1)
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0)
        assert 1400 - GAP <= scene.info()["path_mtu"] <= 1400


def test_a_peer_that_never_gets_a_probe_costs_a_dozen_of_them_in_ten_minutes() -> None:
    scene, receiver = searching(12 << 20, path=BASE, snd_queue_bytes=1 << 28)
    with scene:
        receiver.until(lambda: scene.info()["snd_queued_bytes"] == 0, rounds=20_000)
        counted = scene.testbed.counted()
        assert counted["mtu_probes"] == counted["mtu_probes_lost"] <= 12
        assert scene.info()["path_mtu"] == BASE
        assert counted["segments_retransmitted"] <= 2 * counted["mtu_probes"]


def test_an_echo_that_comes_twice_raises_once() -> None:
    scene, receiver, _ = probing()
    with scene:
        receiver.round()
        for _ in range(3):
            receiver.answer()
        assert scene.testbed.counted()["path_mtu_raised"] == 1
        scene.abort()


@pytest.mark.parametrize("config", [{"extra_records": 0}, {"options": {"mss": 536}}])
def test_no_search_without_memory_for_it_or_below_where_it_would_begin(config: dict[str, Any]) -> None:
    """From the first segment on (mtu_probing=2): segments are what they would be without it."""
    mss = config.get("options", SACK)["mss"]
    with established(measured=True, mtu_probing=2, **{"options": SACK, **config}) as scene:
        for _ in range(3):
            scene.send(bytes(10 * mss))
            assert {len(segment.payload) for segment in scene.peer.queue} == {mss}
            scene.peer.catch_up()
            scene.peer.send("A")
        assert scene.testbed.counted().get("mtu_probes", 0) == 0
        assert scene.info()["smss"] == mss
        scene.abort()


def test_a_probe_that_cannot_be_recorded_waits_until_it_can() -> None:
    """Its answer could not be told from any other. The one record that a flight has of its own is in use."""
    with established(measured=True, mtu_probing=2, transmissions=0, options=SACK) as scene:
        scene.send(bytes(500))
        assert len(scene.peer.catch_up()) == 500
        scene.send(bytes(30_000))
        scene.peer.expect_nothing()
        assert scene.testbed.counted().get("mtu_probes", 0) == 0
        assert scene.testbed.counted()["transmissions_refused"] > 0
        scene.peer.send("A")
        assert [len(segment.payload) for segment in scene.peer.drain()] != []
        assert scene.testbed.counted()["mtu_probes"] == 1
        scene.abort()


def test_a_probe_that_is_the_first_of_a_paced_flight_paces_what_follows() -> None:
    with established(measured=True, mtu_probing=2, pacing=1, options=SACK) as scene:
        scene.testbed.advance(SECOND)
        scene.send(bytes(30_000))
        sizes = [len(segment.payload) for segment in scene.peer.queue]
        assert scene.testbed.counted()["mtu_probes"] == 1
        assert len(set(sizes)) == 2
        assert max(sizes) > scene.info()["smss"]
        scene.abort()

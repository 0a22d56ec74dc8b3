# SPDX-License-Identifier: MIT
"""The setting `measure`: what ConnectionInfo has of segments, rates and waits, and has not without it."""

from typing import Any

import pytest

from ustack import ConnectionInfo, PollEvents
from ustack.sim.network import Network
from ustack.testing.pair import Pair
from ustack.testing.states import SYN_OPTIONS, Scene, established, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
MEASURED = (
    "segs_in", "segs_out", "data_segs_in", "data_segs_out", "rcv_mss_bytes", "last_data_sent_ms", "last_data_recv_ms",
    "delivery_rate", "busy_time_us", "rwnd_limited_us", "sndbuf_limited_us",
)  # fmt: skip


def measured(**settings: Any) -> Scene:
    return established(measured=True, measure=1, **settings)


def info(scene: Scene) -> ConnectionInfo:
    return scene.conn.info()


def segments(scene: Scene) -> tuple[int | None, ...]:
    found = info(scene)
    return found.segs_in, found.segs_out, found.data_segs_in, found.data_segs_out


def test_without_it_nothing_is_known() -> None:
    with established() as scene:
        scene.peer.send("PA", payload=b"data")
        assert {getattr(info(scene), name) for name in MEASURED} == {None}


def test_what_has_not_happened_yet_is_not_known() -> None:
    with measured() as scene:
        found = info(scene)
        assert segments(scene) == (1, 0, 0, 0)  # the end of the handshake
        assert found.rcv_mss_bytes is found.last_data_sent_ms is found.last_data_recv_ms is found.delivery_rate is None
        assert (found.busy_time_us, found.rwnd_limited_us, found.sndbuf_limited_us) == (0, 0, 0)


# ---------------------------------------------------------------- segments


def test_segments_are_counted_both_ways_with_and_without_data() -> None:
    with measured() as scene:
        scene.peer.send("A", payload=bytes(MSS))
        scene.peer.send("PA", payload=bytes(MSS))  # two are acknowledged at once
        assert segments(scene) == (3, 1, 2, 0)
        assert info(scene).rcv_mss_bytes == MSS
        scene.send(bytes(3 * MSS))
        assert segments(scene) == (3, 4, 2, 3)
        scene.peer.send("A", ack=1 + 3 * MSS)
        assert segments(scene) == (4, 4, 2, 3)


def test_what_is_refused_has_come_and_what_goes_again_has_gone() -> None:
    with measured() as scene:
        scene.peer.send("A", seq=-5000, payload=b"old")
        assert segments(scene) == (2, 1, 1, 0)  # and its ACK
        scene.send(b"lost")
        scene.testbed.advance(250 * MILLISECOND)
        assert segments(scene) == (2, 3, 1, 2)
        assert info(scene).total_retrans_segs == 1
        scene.abort()


def test_a_syn_counts_as_often_as_it_goes() -> None:
    with syn_sent(measure=1) as scene:
        assert segments(scene) == (0, 1, 0, 0)
        scene.peer.expect_after(SECOND, "S", seq=0)
        assert segments(scene) == (0, 2, 0, 0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        assert segments(scene) == (1, 3, 0, 0)


@pytest.mark.parametrize("offload", [True, False])
def test_segments_of_a_super_frame_count_each(offload: bool) -> None:
    """At both ends, whoever cuts it."""
    with Pair(network={"segmentation_offload": offload}, measure=1) as pair:
        sender, receiver = pair.connect()
        sender.send(bytes(10 * 1448 + 1))
        pair.advance(SECOND)
        assert receiver.receivable_bytes == 10 * 1448 + 1
        ours, theirs = pair.b.connections("connection")[0], pair.a.connections("connection")[0]
        assert ours["data_segs_out"] == theirs["data_segs_in"] == 11
        # SYN and SYN-ACK are the half-open record's at the end that was called.
        assert (ours["segs_in"], ours["segs_out"]) == (theirs["segs_out"] + 1, theirs["segs_in"] + 1)
        assert theirs["rcv_mss"] == 1448


# ---------------------------------------------------------------- times


def test_how_long_ago_data_went_and_came() -> None:
    with measured() as scene:
        scene.peer.send("PA", payload=b"data")
        scene.testbed.advance(70 * MILLISECOND)
        scene.send(b"answer")
        scene.testbed.advance(30 * MILLISECOND)
        found = info(scene)
        assert (found.last_data_sent_ms, found.last_data_recv_ms) == (30, 100)
        scene.peer.send("A", ack=7)
        assert info(scene).last_data_recv_ms == 100
        scene.abort()


def test_the_network_and_the_congestion_window_are_busy_time() -> None:
    with measured(pacing=0) as scene:
        scene.testbed.advance(SECOND)
        scene.send(bytes(20 * MSS))  # the window has ten
        scene.testbed.advance(50 * MILLISECOND)
        found = info(scene)
        assert (found.busy_time_us, found.rwnd_limited_us, found.sndbuf_limited_us) == (50_000, 0, 0)
        scene.peer.send("A", ack=1 + 10 * MSS)
        scene.peer.send("A", ack=1 + 20 * MSS)
        scene.testbed.advance(SECOND)
        assert info(scene).busy_time_us == 50_000


def test_a_peers_window_is_a_limit_as_long_as_the_next_segment_does_not_fit() -> None:
    with measured(wnd=2 * MSS) as scene:
        scene.send(bytes(3 * MSS))
        scene.testbed.advance(50 * MILLISECOND)
        assert (info(scene).busy_time_us, info(scene).rwnd_limited_us) == (50_000, 50_000)
        scene.peer.send("A", ack=1 + 2 * MSS, wnd=5 * MSS)
        scene.testbed.advance(20 * MILLISECOND)
        assert (info(scene).busy_time_us, info(scene).rwnd_limited_us) == (70_000, 50_000)
        scene.abort()


def test_an_application_that_waits_for_room_is_a_limit_where_the_window_has_more() -> None:
    with measured(wnd=65535, snd_queue_bytes=2 * MSS) as scene, scene.testbed.stack.poller() as poller:
        scene.send(bytes(2 * MSS))
        poller.register(scene.conn, PollEvents.EPOLLOUT)
        scene.testbed.advance(50 * MILLISECOND)
        found = info(scene)
        assert found.notsent_bytes == 0
        assert found.busy_time_us == found.sndbuf_limited_us == pytest.approx(50_000, abs=1000)
        assert found.rwnd_limited_us == 0
        scene.peer.send("A", ack=1 + 2 * MSS)
        scene.testbed.advance(SECOND)
        assert info(scene).sndbuf_limited_us == found.sndbuf_limited_us


# ---------------------------------------------------------------- rates


def test_a_lone_response_gives_the_rate_of_its_round_trip() -> None:
    with measured() as scene:
        scene.send(bytes(1000))
        scene.testbed.advance(40 * MILLISECOND)
        scene.peer.send("A", ack=1001)
        assert info(scene).delivery_rate == 25_000


def test_an_application_that_sends_little_does_not_slow_the_path() -> None:
    """draft-ietf-ccwg-bbr section 4.1.2.4, and Linux: what it sent says no more than that the path carries that."""
    with measured() as scene:
        at = 1
        for size, rate in ((1000, 25_000), (100, 25_000), (1400, 35_000)):
            scene.send(bytes(size))
            scene.testbed.advance(40 * MILLISECOND)
            at += size
            scene.peer.send("A", ack=at)
            assert info(scene).delivery_rate == rate


def test_a_flight_is_measured_from_when_it_was_sent_to_when_it_has_arrived() -> None:
    with measured() as scene:
        scene.send(bytes(8 * MSS))
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", ack=1 + 8 * MSS)
        assert info(scene).delivery_rate == 8 * MSS * 10


@pytest.mark.parametrize("cc", ["cubic", "bbr"])
def test_behind_a_bottleneck_it_is_the_bottlenecks(cc: str) -> None:
    with Network(3) as network:
        network.host("a", measure=1, cc=cc)
        network.host("b")
        network.connect("a", "b", rate_bps=10_000_000, delay_ns=10 * MILLISECOND, queue_frames=50)
        network.flow("f", source="a", sink="b")
        network.run(5 * SECOND)
        [row] = network.stack("a").connections("connection")
        assert row["delivery_rate"] * 8 == pytest.approx(10_000_000 * 1448 / 1514, rel=0.15)
        assert row["busy_time_us"] > 4_900_000

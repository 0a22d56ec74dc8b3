# SPDX-License-Identifier: MIT
"""Steps of RFC 8985, 5682, 3522, 6298, 7765 and 9937 of which a summary of the algorithm would say nothing.

Each test names the step and fails without it.
"""

from ustack.testing.parts.recovery import Sender
from ustack.testing.states import SYN_OPTIONS, Scene, established, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

MSS = 1460
WINDOW = 65535
SACK = {**SYN_OPTIONS, "sack_permitted": True}
RTT = 50 * MILLISECOND
K = 1000
"""A segment of a Sender."""
MS = 1_000_000


def seq_of(index: int, first: int = 1) -> int:
    return first + MSS * index


def starts(scene: Scene) -> list[int]:
    """Relative sequence numbers of the data segments that have arrived; takes them."""
    return [scene.peer.relative(segment)[0] for segment in scene.peer.drain() if segment.payload]


def answered(scene: Scene, octets: int = MSS) -> None:
    """An exchange of one round trip."""
    scene.send(bytes(octets))
    scene.testbed.advance(RTT)
    scene.peer.catch_up()
    scene.peer.send("A")


def sack(scene: Scene, ack: int, *blocks: tuple[int, int]) -> None:
    """A duplicate ACK with blocks of relative sequence numbers."""
    iss = scene.peer.iss or 0
    wide = tuple(((iss + left) & 0xFFFFFFFF, (iss + right) & 0xFFFFFFFF) for left, right in blocks)
    scene.peer.send("A", ack=ack, options={"nop": 2, "sack": wide})


def warm(*, frames: int = 1, **more: bool) -> Sender:
    """A sender that knows its round trip, 20 ms; then `frames` segments are out for as long."""
    made = Sender(mss=K, cwnd=1 << 20, window=1 << 24, **more)
    made.send(1)
    made.now_ns += 20 * MS
    made.ack(K)
    made.send(frames)
    made.now_ns += 20 * MS
    return made


def number(made: Sender, name: str) -> int:
    value = made.state[name]
    assert isinstance(value, int)
    return value


def where(made: Sender) -> list[str]:
    return [record[2] for record in made.records()]


# ---------------------------------------------------------------- RACK


def test_what_one_ack_delivers_was_not_reordered() -> None:
    """RFC 8985 section 6.2 step 3: below RACK.fack, as it was. The order of blocks in an option is none of delivery."""
    made = warm(frames=8)
    made.ack(3 * K, sack=[(7 * K, 8 * K), (5 * K, 6 * K)])
    assert not made.state["reordered"]
    made.ack(3 * K, sack=[(4 * K, 6 * K)])
    assert made.state["reordered"]


def test_small_segments_count_as_segments() -> None:
    """RFC 8985 section 6.2 step 4: RACK.segs_sacked counts them, whatever their size."""
    made = warm(frames=0)
    made.send(5, 100)
    made.now_ns += 20 * MS
    made.ack(K, sack=[(K + 100, K + 200)])
    made.ack(K, sack=[(K + 100, K + 300)])
    assert made.state["repair"] == "none"
    made.ack(K, sack=[(K + 100, K + 400)])
    assert (made.state["repair"], where(made)) == ("fast", ["lost", "sacked", "sent"])


def test_recoveries_by_timeout_make_the_reordering_window_fade_too() -> None:
    """RFC 8985 section 6.2 step 4: exiting Fast or RTO recovery."""
    made = warm(frames=2)
    made.ack(K, sack=[(0, K)])
    assert number(made, "multiplier") == 2
    made.ack(3 * K)
    for n in range(3, 3 + 2 * 16, 2):
        assert number(made, "multiplier") == 2
        made.send(2)
        made.now_ns += 1000 * MS
        made.rto()
        made.resend()
        made.now_ns += 20 * MS
        made.ack((n + 2) * K)
    assert number(made, "multiplier") == 1


def test_timeout_of_a_young_flight_spares_what_was_sent_a_moment_ago() -> None:
    """RFC 8985 section 6.3: RACK.rtt is the connection's, also where nothing of this flight has been delivered."""
    made = warm()
    made.now_ns += 170 * MS
    made.send(1)
    made.now_ns += 10 * MS
    made.rto()
    assert where(made) == ["lost", "sent"]


def test_timeout_without_sack_means_everything() -> None:
    """RFC 8985 section 4: RACK MUST have SACK. Without it nothing would find the others lost but further timeouts."""
    made = warm(frames=3, sack=False)
    made.ack(2 * K)
    made.now_ns += 170 * MS
    made.send(1)
    made.now_ns += 10 * MS
    made.rto()
    assert where(made) == ["lost"] * 3


def test_what_is_sacked_beyond_a_repair_is_remembered() -> None:
    """RFC 6675 section 5 (A): what lies beyond RecoveryPoint SHOULD NOT be cleared at the end of loss recovery."""
    made = warm(frames=4)
    made.ack(K, sack=[(2 * K, 5 * K)])
    made.resend()
    made.send(3)
    made.now_ns += 20 * MS
    made.ack(5 * K, sack=[(6 * K, 8 * K)])
    assert (made.state["repair"], made.state["sacked"]) == ("none", 2 * K)
    made.ack(5 * K)
    assert (made.state["sacked"], where(made)) == (2 * K, ["sent", "sacked"])


def test_each_episode_of_prr_begins_from_nothing() -> None:
    """RFC 9937 section 6.1: what the one before has delivered and sent counts no more."""
    made = warm(frames=20)
    for una, room in ((K, 1500), (21 * K, K)):  # of 20 and 10 three arrive: 3 * 10 / 20, and the first goes anyway
        made.ack(una, sack=[(una + K, una + 4 * K)])
        assert (made.state["repair"], number(made, "cwnd") - number(made, "pipe")) == ("fast", room)
        assert len(made.resend()) == 1
        made.send(20)
        made.now_ns += 20 * MS
        made.ack(una + 20 * K)
        assert made.state["repair"] == "none"


# ---------------------------------------------------------------- TLP


def probed(segments: int) -> Scene:
    """`segments` in flight, and the probe that repeats the last of them."""
    scene = established(options=SACK, wnd=WINDOW, initial_window_segments=segments, cc="newreno")
    answered(scene)
    scene.send(bytes(segments * MSS))
    assert len(starts(scene)) == segments
    scene.peer.wait(SECOND)
    assert starts(scene) == [seq_of(segments)]
    return scene


def test_a_recovery_after_a_probe_is_the_answer_to_the_loss() -> None:
    """RFC 8985 section 7.1: TLP.end_seq is reset at fast recovery, or the same loss would be answered twice."""
    with probed(10) as scene:
        scene.testbed.advance(RTT)
        sack(scene, seq_of(1), (seq_of(10), seq_of(11)))
        assert len(starts(scene)) > 0
        ssthresh = scene.info()["ssthresh"]
        assert ssthresh == 5 * MSS
        scene.testbed.advance(RTT)
        scene.peer.drain()
        scene.peer.send("A", ack=seq_of(11))
        scene.send(bytes(MSS))
        scene.testbed.advance(RTT)
        scene.peer.drain()
        scene.peer.send("A", ack=seq_of(12))
        assert scene.info()["ssthresh"] == ssthresh
        assert scene.testbed.counted().get("tail_probe_repairs", 0) == 0
        scene.abort()


def test_no_second_probe_before_a_round_trip_was_measured() -> None:
    """RFC 8985 section 7.3, condition 2. A path that has become slow would be probed for each segment, and no probe's
    ACK would say so (Karn)."""
    with probed(1) as scene:
        scene.testbed.advance(RTT)
        scene.peer.send("A", ack=seq_of(2))
        scene.send(bytes(MSS))
        scene.peer.drain()
        scene.peer.wait(SECOND)
        assert starts(scene) == [seq_of(2)]
        counted = scene.testbed.counted()
        assert (counted["tail_probes_out"], counted.get("retransmit_timeouts", 0)) == (1, 1)
        scene.peer.send("A", ack=seq_of(3))
        scene.send(bytes(MSS))
        scene.testbed.advance(RTT)
        scene.peer.send("A", ack=seq_of(4))  # this one measures
        scene.send(bytes(MSS))
        scene.peer.drain()
        scene.peer.wait(SECOND)
        assert scene.testbed.counted()["tail_probes_out"] == 2
        scene.abort()


def test_after_a_probe_it_is_the_retransmission_timers_turn() -> None:
    """RFC 8985 section 7.3: the RTO's timer is armed anew by the probe (MUST), and no second probe comes before it."""
    with probed(4) as scene:
        scene.peer.expect_after(scene.info()["rto_ns"], "A", seq=seq_of(1), payload=bytes(MSS))
        counted = scene.testbed.counted()
        assert (counted["tail_probes_out"], counted["retransmit_timeouts"]) == (1, 1)
        scene.abort()


# ---------------------------------------------------------------- F-RTO and Eifel


def flooded(segments: int = 20) -> Scene:
    """A long transfer, of which `segments` are in flight."""
    scene = established(options=SACK, wnd=WINDOW, initial_window_segments=segments)
    answered(scene)
    scene.send(bytes(200 * MSS))
    assert len(starts(scene)) >= segments
    return scene


def time_out(scene: Scene) -> None:
    """Let time pass to the retransmission timeout."""
    while not scene.testbed.counted().get("retransmit_timeouts", 0):
        scene.peer.wait(SECOND)
        scene.peer.drain()
    scene.testbed.advance(RTT)


def test_a_duplicate_after_the_timeout_decides_nothing() -> None:
    """RFC 5682 section 3.1 step 2: stay in step 2 and wait for the next new acknowledgment."""
    with flooded() as scene:
        before = scene.info()["cwnd"]
        time_out(scene)
        sack(scene, seq_of(1), (seq_of(4), seq_of(5)))
        assert starts(scene) == []
        scene.peer.send("A", ack=seq_of(3))
        assert all(start >= seq_of(21) for start in starts(scene))
        scene.peer.send("A", ack=seq_of(7))
        assert scene.testbed.counted()["timeouts_undone"] == 1
        assert scene.info()["cwnd"] >= before
        scene.abort()


def test_a_second_timeout_is_believed() -> None:
    """RFC 5682 section 2.1: it starts anew at step 1, which goes no further with `recover` at or above SND.UNA."""
    with flooded() as scene:
        time_out(scene)
        scene.testbed.run_until(lambda: scene.testbed.counted()["retransmit_timeouts"] == 2, 10 * SECOND)
        scene.testbed.advance(RTT)
        scene.peer.drain()
        sent = scene.info()["snd_nxt"]
        scene.peer.send("A", ack=seq_of(2))
        assert starts(scene)[0] == seq_of(2)
        assert scene.info()["snd_nxt"] == sent
        scene.abort()


def test_a_timeout_within_a_recovery_is_believed() -> None:
    """RFC 5682 section 3.1 step 1: with RecoveryPoint at or above SND.UNA, do not enter step 2."""
    with flooded() as scene:
        scene.testbed.advance(RTT)
        sack(scene, seq_of(1), (seq_of(2), seq_of(5)))
        assert starts(scene)[0] == seq_of(1)
        sent = scene.info()["snd_nxt"]
        time_out(scene)
        scene.peer.send("A", ack=seq_of(5))
        assert starts(scene)[0] == seq_of(5)
        assert scene.info()["snd_nxt"] == sent
        scene.abort()


def eifel(segments: int, acked: int, *blocks: tuple[int, int]) -> int:
    """Repairs undone when `acked` of `segments` answer the original transmission after a timeout."""
    made = Sender(mss=K, cwnd=1 << 20, timestamps=True)
    made.send(segments)
    first = made.timestamp
    made.now_ns += 1000 * MS
    made.rto()
    made.resend(1)
    made.now_ns += 20 * MS
    made.ack(acked * K, ecr=first, sack=blocks)
    return made.counted()["repairs_undone"]


def test_eifel_believes_an_old_echo() -> None:
    assert eifel(4, 2) == 1


def test_eifel_does_not_take_the_loss_of_all_acks_for_a_spurious_timeout() -> None:
    """RFC 3522 section 3.2 step (5), section 3.3: the ACK of a second copy may echo the first one's timestamp, too."""
    assert eifel(4, 4) == 0
    assert eifel(2, 2) == 0


def test_a_duplicate_from_before_the_repair_says_nothing_of_it() -> None:
    """RFC 3708: only what this repair has sent again counts."""
    made = warm(frames=4)
    made.ack(K, sack=[(2 * K, 5 * K)])
    assert made.state["repair"] == "fast"
    assert made.resend() == [(K, 2 * K)]
    made.now_ns += 20 * MS
    made.ack(K, sack=[(0, K), (2 * K, 5 * K)])
    assert made.counted()["repairs_undone"] == 0
    made.send(1)
    made.ack(5 * K, sack=[(K, 2 * K)])
    assert made.counted()["repairs_undone"] == 1


def test_a_timeout_that_was_none_is_no_measurement() -> None:
    """RFC 6298 section 5: only a measurement ends the back-off (Karn), and the timer that runs is backed off, too. RFC
    4015 section 3 makes the RTO anew with the first sample, and restarts the timer then."""
    made = Sender(mss=K, cwnd=1 << 20)
    made.queue(1 << 20)
    made.send(4)
    made.now_ns += 1000 * MS
    made.rto()
    assert made.resend(1) == [(0, K)]
    made.now_ns += 20 * MS
    made.ack(K)
    made.ack(K, sack=[(0, K), (2 * K, 3 * K)])
    assert made.counted()["timeouts_undone"] == 1
    backoff = [made.state["backoff"]]
    made.ack(4 * K)
    assert [*backoff, made.state["backoff"]] == [1, 0]


# ---------------------------------------------------------------- RTO


def test_after_a_lost_syn_the_first_measurement_is_the_first() -> None:
    """RFC 6298 (5.7) sets the RTO, not SRTT: (2.2) holds for the first measurement."""
    with syn_sent() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A", seq=1, ack=1)
        assert scene.info()["rto_ns"] == 3 * SECOND
        answered(scene)
        assert (scene.info()["srtt_us"], scene.info()["rttvar_us"]) == (50_000, 25_000)
        scene.abort()


def test_after_a_lost_syn_the_echo_of_the_second_one_measures() -> None:
    """RFC 6298 section 3: with timestamps a sample of what was sent again is safe, and (2.2) makes an RTO of it."""
    with syn_sent() as scene:
        again = scene.peer.expect_after(SECOND, "S", seq=0)
        scene.testbed.advance(RTT)
        scene.peer.timestamps = True
        scene.peer.send("SA", options={"mss": 1460, "nop": 2, "timestamps": (7, again.options["timestamps"][0])})
        info = scene.info()
        assert RTT // 1000 <= info["srtt_us"] <= RTT // 1000 + 1000
        assert info["rto_ns"] == max(200 * MS, info["srtt_us"] * 3000)
        scene.abort()


def test_an_echo_of_the_first_syn_says_that_the_path_is_slow() -> None:
    """RFC 6298 (5.7): the round trip is longer than the initial RTO; three seconds until data has been measured."""
    with syn_sent() as scene:
        first = scene.peer.ts_recent
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.timestamps = True
        scene.peer.send("SA", options={"mss": 1460, "nop": 2, "timestamps": (7, first)})
        assert (scene.info()["srtt_us"], scene.info()["rto_ns"]) == (0, 3 * SECOND)
        scene.abort()


def test_many_small_segments_are_not_few() -> None:
    """RFC 7765 section 4: rrthresh counts segments. With four the timer restarts from the ACK (RFC 6298 (5.3))."""
    with established(rto_min_ns=SECOND, rto_initial_ns=2 * SECOND) as scene:
        scene.conn.nodelay = True
        for _ in range(6):
            scene.send(bytes(10))
        scene.peer.drain()
        scene.testbed.advance(600 * MILLISECOND)
        scene.peer.send("A", ack=11)
        rto_ns = scene.info()["rto_ns"]
        scene.peer.expect_after(rto_ns, "A", seq=11, payload=bytes(50))
        scene.abort()


# ---------------------------------------------------------------- PRR


def test_without_sack_duplicates_deliver_no_more_than_was_out() -> None:
    """RFC 9937 section 6.2: DeliveredData of an episode does not exceed RecoverFS."""
    made = Sender(mss=K, cwnd=10 * K, sack=False)
    made.send(10)
    made.now_ns += 20 * MS
    sent = 0
    for _ in range(100):
        made.ack(0)
        made.resend()
        while made.state["repair"] == "fast" and number(made, "pipe") + K <= number(made, "cwnd"):
            sent += made.send(1)
    assert 0 < sent < 10

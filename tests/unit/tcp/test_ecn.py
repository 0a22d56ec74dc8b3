# SPDX-License-Identifier: MIT
"""Explicit Congestion Notification, rule by rule against a scripted peer: RFC 3168 section 6.1, RFC 8511."""

from collections.abc import Mapping
from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer, length, one_of
from ustack.testing.segment import Segment, with_reserved_bits
from ustack.testing.states import (
    ALL_OPTIONS,
    PEER_SERVICE,
    SYN_OPTIONS,
    Scene,
    established,
    fly,
    listen,
    syn_sent,
)
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
OFF, OFFER, ACCEPT = 0, 1, 2
MSS = 1460
ROUND_TRIP = 20 * MILLISECOND
both_roles = pytest.mark.parametrize("role", ["passive", "active"])


def agreed(*, role: str = "passive", options: Mapping[str, Any] = SYN_OPTIONS, **config: Any) -> Scene:
    """ESTABLISHED, with ECN agreed on. A passive handshake measures nothing (Karn): the SYN comes twice."""
    if role == "passive":
        scene = listen(**config)
        for _ in range(2):
            scene.peer.send("SEC", seq=0, options=options)
            scene.peer.expect("SAE", seq=0, ack=1)
        scene.peer.snd_nxt = 1
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A")
        scene.accept()
    else:
        scene = offered(**config)
        scene.peer.send("SAE", options=options)
        scene.peer.expect("A", seq=1, ack=1)
        scene.peer.timestamps = "timestamps" in options
    scene.peer.expect_nothing()
    assert scene.info()["ecn"] == "classic"
    scene.testbed.mark()
    return scene


def offered(**config: Any) -> Scene:
    """SYN-SENT, with an ECN-setup SYN, which the script has expected."""
    scene = listen(ecn=OFFER, **config)
    assert scene.listener is not None
    scene.listener.close()
    scene.listener = None
    scene.peer = ScriptedPeer(scene.testbed, port=PEER_SERVICE, stack_port=None)
    scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
    scene.testbed.pump()
    assert scene.peer.expect("SEC", seq=0).tos == NOT_ECT
    scene.testbed.mark()
    return scene


def flying(segments: int, *, total: int = 0, **config: Any) -> Scene:
    """So many segments of `total` in flight, a round trip measured; the clock is one round trip later."""
    scene = agreed(options=config.pop("options", SYN_OPTIONS), initial_window_segments=segments, **config)
    fly(scene, segments, mss=MSS, tos=ECT0, round_trip_ns=ROUND_TRIP, total=total)
    return scene


def seq_of(index: int) -> int:
    """Relative sequence number of the index-th full segment, from 0."""
    return 1 + MSS * index


def data_of(segments: list[Segment]) -> list[Segment]:
    """Those that carry data."""
    return [segment for segment in segments if segment.payload]


# ---------------------------------------------------------------- negotiation (section 6.1.1)


@pytest.mark.parametrize(("setting", "answer", "ecn"), [(OFF, "SA", "none"), (OFFER, "SAE", "classic"),
                                                        (ACCEPT, "SAE", "classic")])  # fmt: skip
def test_a_listener_answers_an_offer_by_its_setting(setting: int, answer: str, ecn: str) -> None:
    with listen(ecn=setting) as scene:
        scene.peer.send("SEC", options=SYN_OPTIONS)
        assert scene.peer.expect(answer).tos == NOT_ECT  # "MUST NOT set ECT on SYN or SYN-ACK packets"
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == ecn
        assert scene.testbed.counted().get("ecn_agreed", 0) == (ecn == "classic")
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == (ECT0 if ecn == "classic" else NOT_ECT)
        scene.abort()


@pytest.mark.parametrize("flags", ["S", "SE", "SC"])
def test_a_syn_with_one_flag_or_none_is_no_offer(flags: str) -> None:
    """RFC 3168: "Otherwise, it MUST NOT send an ECN-setup SYN-ACK packet"."""
    with listen(ecn=OFFER) as scene:
        scene.peer.send(flags, options=SYN_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "none"


@pytest.mark.parametrize(("setting", "flags"), [(OFF, "S"), (OFFER, "SEC"), (ACCEPT, "S")])
def test_a_syn_offers_by_the_setting(setting: int, flags: str) -> None:
    with listen(ecn=setting) as scene:
        peer = ScriptedPeer(scene.testbed, port=PEER_SERVICE, stack_port=None)
        scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
        scene.testbed.pump()
        assert peer.expect(flags).tos == NOT_ECT
        scene.conn.abort()


@pytest.mark.parametrize(("answer", "ecn"), [("SAE", "classic"), ("SA", "none"), ("SAC", "none"), ("SAEC", "none")])
def test_an_offer_is_taken_by_ece_alone(answer: str, ecn: str) -> None:
    """Both flags are a reflection of ours (section 6.1.1.2)."""
    with offered() as scene:
        scene.peer.send(answer, options=SYN_OPTIONS)
        assert scene.peer.expect("A").tos == NOT_ECT
        assert scene.info()["ecn"] == ecn
        scene.send(b"x")
        assert scene.peer.expect("PA", payload=b"x").tos == (ECT0 if ecn == "classic" else NOT_ECT)
        assert scene.testbed.counted().get("ece_in", 0) == 0  # of the SYN-ACK: no echo
        scene.abort()


def test_an_offer_of_accurate_feedback_is_one_of_this_too() -> None:
    """RFC 9768 section 3.1.2: who answers with ECE alone has the three flags of the SYN for those of RFC 3168."""
    with listen() as scene:
        syn = scene.peer.segment("SEC", options=SYN_OPTIONS)
        scene.peer.snd_nxt += 1
        scene.testbed.inject(with_reserved_bits(scene.peer.frame(syn), 1))
        scene.peer.expect("SAE", seq=0, ack=1)
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "classic"


def test_an_answer_that_was_not_asked_for_agrees_on_nothing() -> None:
    with syn_sent(ecn=ACCEPT) as scene:
        scene.peer.send("SAE", options=SYN_OPTIONS)
        scene.peer.expect("A")
        assert scene.info()["ecn"] == "none"


def test_a_syn_that_goes_again_offers_nothing() -> None:
    """Section 6.1.1.1: "MAY resend the SYN and any subsequent SYN retransmissions with CWR and ECE cleared"."""
    with offered() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.expect_after(2 * SECOND, "S", seq=0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A")
        assert scene.info()["ecn"] == "none"


def test_an_answer_to_the_first_of_two_syns_lets_us_report_marks_and_not_ask_for_them() -> None:
    """To have "sent no non-ECN-setup SYN" is a condition of ECT; "the commitment to respond appropriately to incoming
    packets with the CE codepoint set remains"."""
    with offered() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        scene.peer.send("SAE", options=SYN_OPTIONS)
        scene.peer.expect("A")
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == NOT_ECT
        scene.peer.send("A", payload=b"y", tos=CE)
        scene.peer.expect("AE", ack=2)
        scene.peer.send("AE")  # no mark of ours can there be
        assert (scene.testbed.counted()["ecn_ignored_in"], scene.testbed.counted().get("ecn_reductions", 0)) == (1, 0)


def test_a_syn_that_comes_again_without_the_offer_takes_it_back() -> None:
    """Section 6.1.1.1, the example: "(4) Host B: Sends a non-ECN-setup SYN/ACK"; neither may set ECT."""
    with listen() as scene:
        scene.peer.send("SEC", seq=0, options=SYN_OPTIONS)
        scene.peer.expect("SAE")
        scene.testbed.advance(SECOND // 2)
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.expect_after(SECOND // 2, "SA")  # the timer's, too
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "none"
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == NOT_ECT
        scene.abort()


def test_a_syn_ack_that_goes_again_says_the_same() -> None:
    with listen() as scene:
        scene.peer.send("SEC", options=SYN_OPTIONS)
        scene.peer.expect("SAE")
        scene.peer.expect_after(SECOND, "SAE")
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "classic"


@pytest.mark.parametrize(("syn", "answer", "syn_ack", "ecn"), [
    ("SEC", "SAE", "SAE", "classic"), ("S", "SA", "SA", "none"), ("SEC", "SAE", "SA", "none"),
])  # fmt: skip
def test_a_simultaneous_open_agrees_where_both_offer_and_both_confirm(
    syn: str, answer: str, syn_ack: str, ecn: str
) -> None:
    """Who "has received at least one non-ECN-setup SYN or non-ECN-setup SYN-ACK packet ... SHOULD NOT set ECT"."""
    with offered() as scene:
        scene.peer.send(syn, options=SYN_OPTIONS)
        assert scene.peer.expect(answer, seq=0, ack=1).tos == NOT_ECT
        scene.peer.send(syn_ack, seq=0, options=SYN_OPTIONS)
        scene.peer.drain()
        assert scene.state == "ESTABLISHED"
        assert scene.info()["ecn"] == ecn
        assert scene.testbed.counted().get("ecn_agreed", 0) == (ecn == "classic")
        scene.send(b"x")
        assert scene.peer.expect("PA", payload=b"x").tos == (ECT0 if ecn == "classic" else NOT_ECT)
        assert scene.testbed.counted().get("ece_in", 0) == 0
        scene.abort()


@pytest.mark.parametrize(("options", "ecn"), [(ALL_OPTIONS, "classic"), (SYN_OPTIONS, "none")])
def test_a_cookie_remembers_the_agreement_in_the_timestamp(options: Mapping[str, Any], ecn: str) -> None:
    """What the SYN-ACK says, the connection does: without timestamps neither."""
    with listen(syn_cookies=2) as scene:
        scene.peer.send("SEC", options=options)
        scene.peer.expect("SAE" if ecn == "classic" else "SA")
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A")
        scene.accept()
        assert scene.testbed.counted()["syn_cookies_accepted"] == 1
        assert scene.info()["ecn"] == ecn
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == (ECT0 if ecn == "classic" else NOT_ECT)
        scene.abort()


def test_a_cookie_of_a_peer_without_ecn_remembers_none() -> None:
    with listen(syn_cookies=2) as scene:
        scene.peer.send("S", options=ALL_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.timestamps = True
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "none"


# ---------------------------------------------------------------- what may be marked (sections 6.1.2, 6.1.4 to 6.1.6)


@both_roles
def test_new_data_alone_is_ect0(role: str) -> None:
    with agreed(role=role) as scene:
        scene.peer.send("A", payload=b"x")
        assert scene.peer.expect_after(40 * MILLISECOND, "A", ack=2).tos == NOT_ECT  # a pure ACK
        scene.send(bytes(2 * MSS))
        for _ in range(2):
            assert scene.peer.expect(payload=length(MSS)).tos == ECT0
        scene.peer.send("A")
        scene.shutdown()
        assert scene.peer.expect("FA").tos == NOT_ECT  # a FIN without data
        scene.peer.send("R", seq=scene.peer.snd_nxt)


def test_a_fin_with_data_is_ect0() -> None:
    with agreed() as scene:
        scene.conn.send(b"x")
        scene.shutdown()
        assert scene.peer.expect("FPA", payload=b"x").tos == ECT0
        scene.peer.send("R")


def test_what_goes_again_cannot_be_marked() -> None:
    """Section 6.1.5: MUST NOT. By fast retransmit, by the timer, and as a tail loss probe."""
    with flying(6, options={"mss": MSS, "sack_permitted": True}) as scene:
        assert scene.peer.iss is not None
        edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (2, 5))
        scene.peer.send("A", ack=seq_of(1), options={"sack": [edges]})
        assert scene.peer.expect(seq=seq_of(1), payload=length(MSS)).tos == NOT_ECT
        scene.peer.send("A", ack=seq_of(7))
        scene.send(bytes(2 * MSS))
        assert [segment.tos for segment in scene.peer.drain()] == [ECT0, ECT0]
        for _ in range(2):  # the probe, the timer
            scene.peer.wait(3 * SECOND)
            assert [segment.tos for segment in scene.peer.drain()] == [NOT_ECT]
        counted = scene.testbed.counted()
        assert counted["fast_retransmits"] == counted["tail_probes_out"] == 1
        assert counted["retransmit_timeouts"] == 1
        scene.abort()


def test_a_window_probe_cannot_be_marked_and_says_no_cwr() -> None:
    """Section 6.1.6: MUST NOT."""
    with agreed() as scene:
        scene.peer.send("A", wnd=0)
        scene.send(b"xy")
        scene.peer.wait(3 * SECOND)
        probe = scene.peer.expect("A", payload=b"x")
        assert probe.tos == NOT_ECT
        scene.abort()


def test_a_reset_cannot_be_marked() -> None:
    with agreed() as scene:
        scene.abort()
        assert scene.peer.expect("RA").tos == NOT_ECT


def test_the_application_cannot_reach_the_two_bits() -> None:
    with agreed() as scene:
        scene.conn.set_tos(0xB9)
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == 0xB8 | ECT0
        assert scene.info()["tos"] == 0xB8
        scene.peer.send("A")
    with established() as scene:
        scene.conn.set_tos(0xBB)
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").tos == 0xB8
        scene.peer.send("A")


# ---------------------------------------------------------------- the receiver (section 6.1.3)


@both_roles
def test_a_mark_is_echoed_at_once_and_until_cwr(role: str) -> None:
    with agreed(role=role) as scene:
        scene.peer.send("A", payload=b"1", tos=ECT0)
        scene.peer.expect_nothing()  # an ACK that waits for company
        scene.peer.send("A", payload=b"2", tos=CE)
        scene.peer.expect("AE", ack=3)
        scene.peer.send("A", payload=b"3", tos=ECT0)
        scene.peer.expect_after(40 * MILLISECOND, "AE", ack=4)
        scene.send(b"x")
        scene.peer.expect("PAE", payload=b"x")  # data acknowledges, too
        scene.peer.send("A", payload=b"4", tos=CE)
        scene.peer.expect_after(40 * MILLISECOND, "AE", ack=5)
        scene.peer.send("AC", payload=b"5", tos=ECT0)
        scene.peer.expect("A", ack=6)  # at once: its window may be one segment
        scene.peer.send("A", payload=b"6", tos=ECT0)
        scene.peer.expect_after(40 * MILLISECOND, "A", ack=7)
        counted = scene.testbed.counted()
        assert (counted["ce_in"], counted["cwr_in"], counted.get("ecn_ignored_in", 0)) == (2, 1, 0)
        scene.read()


def test_an_ack_of_two_segments_says_ece_if_either_was_marked() -> None:
    for marks in ((CE, ECT0), (ECT0, CE)):
        with agreed() as scene:
            scene.peer.send("A", payload=b"1", tos=marks[0], pump=False)
            scene.peer.send("A", payload=b"2", tos=marks[1])
            scene.peer.expect("AE", ack=3)
            scene.peer.expect_nothing()
            scene.read()


def test_a_segment_with_cwr_that_was_marked_itself_begins_anew() -> None:
    with agreed() as scene:
        scene.peer.send("A", payload=b"1", tos=CE)
        scene.peer.expect("AE")
        scene.peer.send("AC", payload=b"2", tos=CE)
        scene.peer.expect("AE", ack=3)
        scene.read()


def test_a_mark_beyond_a_hole_is_echoed() -> None:
    with agreed() as scene:
        scene.peer.send("A", seq=2, payload=b"2", tos=CE)
        scene.peer.expect("AE", ack=1)
        scene.peer.send("A", payload=b"1", tos=ECT0)
        scene.peer.expect("AE", ack=3)
        scene.read()


def test_a_marked_window_probe_is_echoed() -> None:
    """Section 6.1.6: SHOULD respond."""
    with agreed(rcv_buffer_bytes=2000) as scene:
        scene.peer.send("A", payload=bytes(2000), tos=ECT0)
        scene.peer.drain()
        scene.peer.send("A", payload=b"p", seq=2001, tos=CE)
        scene.peer.expect("AE", ack=2001, wnd=0)
        scene.read()


@pytest.mark.parametrize("seq", [-5000, 200_000])
def test_a_mark_outside_of_the_window_is_not_heard(seq: int) -> None:
    """Section 6.1.5: SHOULD ignore."""
    with agreed() as scene:
        scene.peer.send("A", seq=seq, payload=b"forged", tos=CE)
        scene.peer.expect("A", ack=1)
        assert scene.testbed.counted().get("ce_in", 0) == 0


def test_a_marked_pure_ack_says_nothing() -> None:
    """Section 6.1.4: none can be."""
    with agreed() as scene:
        scene.peer.send("A", tos=CE)
        scene.peer.send("AC", tos=ECT0)
        scene.peer.expect_nothing()
        assert scene.testbed.counted()["ecn_ignored_in"] == 2


@pytest.mark.parametrize("tos", [NOT_ECT, ECT1, ECT0])
def test_a_peer_that_changes_its_codepoint_is_taken_as_it_is(tos: int) -> None:
    with agreed() as scene:
        scene.peer.send("A", payload=b"1", tos=tos)
        scene.peer.send("A", payload=b"2", tos=(tos + 1) % 3)
        scene.testbed.advance(50 * MILLISECOND)
        assert all(segment.flags == "A" for segment in scene.peer.drain())
        assert scene.read() == b"12"


# ---------------------------------------------------------------- the sender (section 6.1.2)


@pytest.mark.parametrize(("cc", "tenths"), [("newreno", 8.0), ("cubic", 8.5)])
def test_an_echo_shrinks_the_window_once_by_the_factor_of_rfc_8511(cc: str, tenths: float) -> None:
    """Section 3.1 there: 0.8 for Reno, 0.85 for CUBIC. Echoes of the same window change nothing more."""
    with flying(20, total=40, cc=cc) as scene:
        before = scene.info()["cwnd"]
        scene.peer.send("AE", ack=seq_of(2))
        after = scene.info()["cwnd"]
        assert after <= 20 * MSS * tenths / 10 < after + MSS
        assert after < before
        assert scene.info()["ssthresh"] == after
        assert data_of(scene.peer.drain()) == []
        for index in range(3, 21):
            scene.peer.send("AE", ack=seq_of(index))
            assert scene.info()["cwnd"] == after  # "SHOULD NOT increase"
        counted = scene.testbed.counted()
        assert (counted["ecn_reductions"], counted["ece_in"]) == (1, 19)
        assert counted.get("segments_retransmitted", 0) == 0
        scene.abort()


@pytest.mark.parametrize("at_once", [1, 5, 13])
def test_an_echo_among_the_acks_of_a_turn_is_answered_by_the_whole_flight(at_once: int) -> None:
    """RFC 8511 section 3 takes FlightSize as RFC 5681 does: what was in flight when output last came by, not what the
    ACKs of the turn have left of it."""
    with flying(40, total=200, cc="newreno", pacing=0) as scene:
        for index in range(1, at_once):
            scene.peer.send("A", ack=seq_of(index + 1), pump=False)
        scene.peer.send("AE", ack=seq_of(at_once + 1))
        assert scene.testbed.counted()["ecn_reductions"] == 1
        assert scene.info()["cwnd"] == 40 * MSS * 8 // 10
        scene.abort()


def test_cwr_is_on_the_first_new_data_alone() -> None:
    with flying(10, total=30, cc="newreno") as scene:
        scene.peer.send("AE", ack=seq_of(5))
        fresh = data_of(scene.peer.drain())
        assert fresh
        assert [segment.flags for segment in fresh] == ["AC", *["A"] * (len(fresh) - 1)]
        assert all(segment.tos == ECT0 for segment in fresh)
        scene.peer.send("AE", ack=seq_of(7))
        assert all("C" not in segment.flags for segment in scene.peer.drain())
        assert scene.testbed.counted()["cwr_out"] == 1
        scene.abort()


def test_the_next_window_may_shrink_again() -> None:
    """Once more than what was out at the reduction is acknowledged: the data with CWR has arrived."""
    with flying(10, total=40, cc="newreno") as scene:
        scene.peer.send("AE", ack=seq_of(6))
        first = scene.info()["cwnd"]
        assert data_of(scene.peer.drain())[0].flags == "AC"
        scene.peer.send("AE", ack=seq_of(11))  # all that was out then: CWR was sent right behind it
        assert scene.testbed.counted()["ecn_reductions"] == 1
        assert scene.info()["cwnd"] == first
        scene.peer.send("AE", ack=seq_of(12))
        assert scene.testbed.counted()["ecn_reductions"] == 2
        assert scene.info()["cwnd"] < first
        scene.abort()


def test_echoes_of_a_flight_that_is_over_are_no_news_in_the_next() -> None:
    with flying(10, cc="newreno") as scene:
        scene.peer.send("AE", ack=seq_of(11))
        assert scene.testbed.counted()["ecn_reductions"] == 1
        scene.send(bytes(3 * MSS))
        assert [segment.flags for segment in scene.peer.drain()] == ["AC", "A", "PA"]
        scene.peer.send("AE", ack=seq_of(11), payload=b"x")  # sent before CWR could arrive
        assert scene.testbed.counted()["ecn_reductions"] == 1
        scene.peer.send("A", ack=seq_of(14))
        scene.read()


def test_after_a_quiet_window_growth_goes_on() -> None:
    with flying(10, total=60, cc="newreno") as scene:
        scene.peer.send("AE", ack=seq_of(4))
        small = scene.info()["cwnd"]
        acked = 4
        for _ in range(40):
            acked += len(data_of(scene.peer.drain())) or 1
            scene.peer.send("A", ack=min(seq_of(acked), scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF))
        assert scene.info()["cwnd"] > small
        scene.abort()


def test_a_loss_in_a_window_that_a_mark_has_shrunk_shrinks_nothing_again() -> None:
    """It is "reduced only once in response to a series of dropped and/or CE packets from a single window of data"."""
    with flying(20, cc="newreno", options={"mss": MSS, "sack_permitted": True}) as scene:
        assert scene.peer.iss is not None
        scene.peer.send("AE", ack=seq_of(2))
        after = scene.info()["ssthresh"]
        edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (3, 20))
        scene.peer.send("AE", ack=seq_of(2), options={"sack": [edges]})
        assert scene.testbed.counted()["fast_retransmits"] == 1
        assert scene.info()["ssthresh"] == after
        assert scene.peer.expect(seq=seq_of(2), payload=length(MSS)).tos == NOT_ECT
        scene.abort()


def test_an_echo_while_a_loss_is_repaired_shrinks_nothing_again() -> None:
    with flying(20, total=40, cc="newreno", options={"mss": MSS, "sack_permitted": True}) as scene:
        assert scene.peer.iss is not None
        edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (2, 20))
        scene.peer.send("AE", ack=seq_of(1), options={"sack": [edges]})
        counted = scene.testbed.counted()
        assert counted["fast_retransmits"] == 1
        ssthresh = scene.info()["ssthresh"]
        scene.peer.drain()
        scene.peer.send("AE", ack=seq_of(21))  # everything: the repair is over
        assert scene.info()["ssthresh"] == ssthresh
        scene.peer.send("AE", ack=seq_of(21), payload=b"x")
        assert scene.info()["ssthresh"] == ssthresh
        scene.abort()


def test_cwr_follows_a_fast_retransmit_and_a_timeout() -> None:
    """Section 6.1.2: after a reduction "for any reason"; not on what goes again."""
    with flying(6, total=30, cc="newreno", options={"mss": MSS, "sack_permitted": True}) as scene:
        assert scene.peer.iss is not None
        edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (2, 7))
        scene.peer.send("A", ack=seq_of(1), options={"sack": [edges]})
        sent = data_of(scene.peer.drain())
        assert scene.peer.relative(sent[0])[0] == seq_of(1)
        assert "C" not in sent[0].flags
        scene.peer.send("A", ack=seq_of(7))
        fresh = sent[1:] + data_of(scene.peer.drain())
        assert [("C" in segment.flags, segment.tos) for segment in fresh][:2] == [(True, ECT0), (False, ECT0)]
        scene.testbed.advance(2 * SECOND)  # nothing is acknowledged any more
        assert all("C" not in segment.flags for segment in scene.peer.drain())
        assert scene.testbed.counted()["retransmit_timeouts"] >= 1
        scene.peer.send("A", ack=(scene.info()["snd_nxt"] - scene.peer.iss) & 0xFFFFFFFF)
        assert [("C" in segment.flags) for segment in data_of(scene.peer.drain())][:2] == [True, False]
        scene.abort()


def test_a_mark_during_a_repair_keeps_the_window_from_coming_back() -> None:
    """The repair turns out to be none (RFC 3522), but the mark stands."""
    for flags, restored in (("A", True), ("AE", False)):
        with flying(20, cc="newreno", options={**ALL_OPTIONS, "mss": 1472}, network={"mtu": 1512}) as scene:
            assert scene.peer.iss is not None
            before = scene.info()["cwnd"]
            stamp = scene.peer.ts_recent  # of what was sent first
            edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (2, 16))
            scene.peer.send("A", ack=seq_of(1), options={"timestamps": (scene.peer.ts_now, stamp), "sack": [edges]})
            assert scene.testbed.counted()["fast_retransmits"] == 1
            scene.testbed.advance(2 * MILLISECOND)
            scene.peer.drain()
            scene.peer.send(flags, ack=seq_of(16), options={"timestamps": (scene.peer.ts_now, stamp)})
            assert scene.testbed.counted()["repairs_undone"] == 1
            assert (scene.info()["cwnd"] >= before) is restored
            scene.abort()


def test_a_mark_in_a_flight_of_one_segment_waits_for_the_timer() -> None:
    """Section 6.1.2: "able to send a new packet only when the retransmit timer expires"."""
    with agreed(cc="cubic", initial_window_segments=1) as scene:
        scene.send(bytes(MSS))
        scene.testbed.advance(ROUND_TRIP)
        scene.peer.expect(payload=length(MSS))
        scene.peer.send("A")
        scene.conn.send(bytes(20 * MSS))
        scene.testbed.pump()
        scene.testbed.advance(3 * SECOND)  # a timeout: the window is one segment
        scene.peer.drain()
        scene.testbed.mark()
        window = scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF
        scene.peer.send("A", ack=window)
        rest = data_of(scene.peer.drain())
        assert rest
        for _ in range(6):  # echoes of each window: smaller and smaller
            scene.peer.send("AE", ack=scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF)
            if scene.info()["cwnd"] == 0:
                break
            scene.peer.drain()
        assert scene.info()["cwnd"] == 0
        scene.peer.expect_nothing()
        waited = scene.peer.wait(3 * SECOND)
        assert waited >= 190 * MILLISECOND
        segment = scene.peer.expect(payload=one_of(bytes(MSS)))
        assert (segment.flags.replace("P", ""), segment.tos) == ("AC", ECT0)
        scene.peer.expect_nothing()
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0
        scene.abort()


# ---------------------------------------------------------------- hostile peers


def test_echoes_of_a_peer_that_never_agreed_are_counted_and_nothing_else() -> None:
    with established(cc="newreno") as scene:
        scene.send(bytes(10 * MSS))
        scene.peer.drain()
        before = scene.info()["cwnd"]
        for index in range(1, 11):
            scene.peer.send("AEC", ack=seq_of(index), payload=b"x", tos=CE)
        assert all(segment.flags.replace("P", "") == "A" for segment in scene.peer.drain())
        assert scene.info()["cwnd"] > before
        counted = scene.testbed.counted()
        assert counted["ecn_ignored_in"] == 10
        assert not {"ce_in", "ece_in", "cwr_in", "ecn_reductions"} & {name for name, n in counted.items() if n}
        scene.read()


def test_echoes_without_end_leave_the_least_window_and_no_work() -> None:
    """One reduction for each window of data, down to what the control has at least; data flows all the same."""
    with flying(10, total=200, cc="newreno") as scene:
        for _ in range(60):
            scene.peer.send("AE", ack=scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF)
            scene.peer.drain()
        assert scene.info()["cwnd"] == 2 * MSS
        assert scene.testbed.counted().get("segments_retransmitted", 0) == 0
        scene.abort()


def test_a_storm_of_cwr_and_marks_is_answered_segment_by_segment_at_most() -> None:
    with agreed() as scene:
        for index in range(300):
            scene.peer.send("AC", payload=b"x", tos=CE if index % 2 else ECT0)
            assert len(scene.peer.drain()) <= 1
        assert scene.read() == b"x" * 300
        assert scene.testbed.counted()["cwr_in"] == 300


def test_an_old_ack_with_an_echo_is_not_heard() -> None:
    with flying(10, total=20, cc="newreno") as scene:
        scene.peer.send("A", ack=seq_of(8))
        scene.peer.drain()
        before = scene.info()["cwnd"]
        scene.peer.send("AE", ack=seq_of(3))
        assert scene.info()["cwnd"] == before
        assert scene.testbed.counted().get("ecn_reductions", 0) == 0
        scene.abort()


@pytest.mark.parametrize("flights", [0, 100])
@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
def test_echoes_in_duplicates_do_not_put_the_timer_off(cc: str, flights: int) -> None:
    """A peer that acknowledges nothing and says ECE more often than the timer fires: R2 ends it all the same."""
    with agreed(cc=cc, flights=flights, user_timeout_ns=100 * SECOND) as scene:
        scene.send(bytes(40 * MSS))
        for _ in range(2000):
            scene.testbed.advance(100 * MILLISECOND)
            scene.peer.drain()
            if scene.state == "CLOSED":
                break
            scene.peer.send("AE", ack=1)
        assert scene.state == "CLOSED"
        assert scene.testbed.counted()["retransmit_timeouts"] >= 5


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_another_control_may_follow_a_mark_in_a_flight_of_one_segment(cc: str) -> None:
    """The window is nothing until the timer fires (section 6.1.2), whoever counts it then."""
    with flying(1, total=30, cc=cc) as scene:
        for other in ("bbr", "newreno", "cubic", "bbr"):
            scene.peer.send("AE", ack=scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF)
            scene.conn.cc = other
            scene.testbed.pump()
            scene.peer.wait(2 * SECOND)
            scene.peer.drain()
        scene.abort()

# SPDX-License-Identifier: MIT
"""Accurate ECN feedback, rule by rule against a scripted peer: RFC 9768."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer, length
from ustack.testing.segment import Segment
from ustack.testing.states import ALL_OPTIONS, PEER_SERVICE, SYN_OPTIONS, Scene, fly, listen
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, Testbed

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
OFF, OFFER, ACCEPT, ACCURATE, ACCURATE_CLASSIC, ACCURATE_ACCEPT = range(6)
MSS = 1460
ROUND_TRIP = 20 * MILLISECOND
FIRST = 5  # section 3.2.1: r.cep and s.cep
SACK_OPTIONS: Mapping[str, Any] = {"mss": MSS, "sack_permitted": True}
both_roles = pytest.mark.parametrize("role", ["passive", "active"])


def ace(value: int) -> str:
    """The flag letters of an ACE field: AE, CWR, ECE."""
    return "".join(letter for bit, letter in ((1, "E"), (2, "C"), (4, "N")) if value & 7 & bit)


def ace_in(segment: Segment) -> int:
    """The other way round."""
    return sum(value for value, letter in ((1, "E"), (2, "C"), (4, "N")) if letter in segment.flags)


OFFERED = "S" + ace(7)
NOT_ECT_ARRIVED, ECT1_ARRIVED, ECT0_ARRIVED, CE_ARRIVED = 2, 3, 4, 6


def offered(setting: int = ACCURATE, **config: Any) -> Scene:
    """SYN-SENT; the script has expected the SYN."""
    scene = listen(ecn=setting, **config)
    assert scene.listener is not None
    scene.listener.close()
    scene.listener = None
    scene.peer = ScriptedPeer(scene.testbed, port=PEER_SERVICE, stack_port=None)
    scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
    scene.testbed.pump()
    assert scene.peer.expect("S" + {ACCURATE: ace(7), OFFER: ace(3), ACCURATE_CLASSIC: ace(3)}.get(setting, ""),
                             seq=0).tos == NOT_ECT  # fmt: skip
    scene.testbed.mark()
    return scene


def agreed(*, role: str = "passive", options: Mapping[str, Any] = SYN_OPTIONS, **config: Any) -> Scene:
    """ESTABLISHED, in the mode, nothing mangled. A passive handshake measures nothing (Karn): the SYN comes twice."""
    if role == "passive":
        scene = listen(ecn=ACCURATE_ACCEPT, **config)
        for _ in range(2):
            scene.peer.send(OFFERED, seq=0, options=options)
            scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED), seq=0, ack=1)
        scene.peer.snd_nxt = 1
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
    else:
        scene = offered(**config)
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=options)
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED), seq=1, ack=1)
        scene.peer.timestamps = "timestamps" in options
    scene.peer.expect_nothing()
    assert scene.info()["ecn"] == "accurate"
    scene.testbed.mark()
    return scene


def flying(segments: int, *, total: int = 0, **config: Any) -> Scene:
    """So many segments of `total` in flight, a round trip measured; the clock is one round trip later."""
    scene = agreed(options=config.pop("options", SYN_OPTIONS), initial_window_segments=segments, **config)
    fly(scene, segments, mss=MSS, tos=ECT0, round_trip_ns=ROUND_TRIP, total=total, flags="A" + ace(FIRST))
    return scene


def seq_of(index: int) -> int:
    """Relative sequence number of the index-th full segment, from 0."""
    return 1 + MSS * index


def counted(scene: Scene, name: str) -> int:
    """A counter since the scene's mark."""
    return scene.testbed.counted().get(name, 0)


def counters(scene: Scene, *names: str) -> tuple[int, ...]:
    """Some of the connection's counters."""
    return tuple(scene.info()["accecn"][name] for name in names)


def next_tos(scene: Scene) -> int:
    """What the next new data says of ECN."""
    scene.send(b"data")
    return scene.peer.expect(payload=b"data").tos


# ---------------------------------------------------------------- negotiation (section 3.1, table 2)


@pytest.mark.parametrize(("setting", "flags"), [
    (OFF, 0), (OFFER, 3), (ACCEPT, 0), (ACCURATE, 7), (ACCURATE_CLASSIC, 3), (ACCURATE_ACCEPT, 0),
])  # fmt: skip
def test_a_syn_offers_by_the_setting(setting: int, flags: int) -> None:
    """As Linux numbers net.ipv4.tcp_ecn."""
    with listen(ecn=setting) as scene:
        peer = ScriptedPeer(scene.testbed, port=PEER_SERVICE, stack_port=None)
        scene.connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False)
        scene.testbed.pump()
        syn = peer.expect("S" + ace(flags))
        assert syn.tos == NOT_ECT
        assert "accecn" not in syn.options  # section 3.2.3.2.1: MUST NOT
        scene.conn.abort()


@pytest.mark.parametrize(("flags", "mode", "tos"), [
    (0, "none", NOT_ECT), (1, "classic", ECT0), (2, "accurate", ECT0), (3, "accurate", NOT_ECT),
    (4, "accurate", NOT_ECT), (5, "accurate", ECT0), (6, "accurate", NOT_ECT), (7, "none", NOT_ECT),
])  # fmt: skip
def test_what_a_syn_ack_agrees_on(flags: int, mode: str, tos: int) -> None:
    """Blocks 1, 2 and 4; the reserved (1,0,1) counts as a SYN that has arrived unchanged (section 3.1.3). Our SYN was
    Not-ECT: if it is said to have arrived otherwise, our data does not ask for marks (section 3.2.2.3)."""
    with offered() as scene:
        scene.peer.send("SA" + ace(flags), options=SYN_OPTIONS)
        answer = NOT_ECT_ARRIVED if mode == "accurate" else 0
        assert scene.peer.expect("A" + ace(answer), ack=1).tos == NOT_ECT
        assert scene.info()["ecn"] == mode
        assert counted(scene, "ecn_agreed") == (mode != "none")
        assert counted(scene, "accecn_agreed") == (mode == "accurate")
        assert counted(scene, "accecn_stopped") == (mode == "accurate" and tos == NOT_ECT)
        scene.send(b"x")
        data = scene.peer.expect(payload=b"x")
        assert data.tos == tos
        assert ace_in(data) == (FIRST if mode == "accurate" else 0)
        scene.abort()


@pytest.mark.parametrize("setting", [OFFER, ACCEPT, ACCURATE, ACCURATE_CLASSIC, ACCURATE_ACCEPT])
@pytest.mark.parametrize("flags", range(8))
def test_what_a_listener_answers(setting: int, flags: int) -> None:
    """Blocks 1 and 3, and section 3.1.3: any other flags than none and RFC 3168's mean all three."""
    accurate = setting >= ACCURATE and flags not in {0, 3}
    classic = not accurate and flags & 3 == 3
    with listen(ecn=setting) as scene:
        scene.peer.send("S" + ace(flags), options=SYN_OPTIONS)
        expected = NOT_ECT_ARRIVED if accurate else 1 if classic else 0
        assert scene.peer.expect("SA" + ace(expected)).tos == NOT_ECT
        scene.peer.send("A" + (ace(NOT_ECT_ARRIVED) if accurate else ""))
        scene.accept()
        assert scene.info()["ecn"] == ("accurate" if accurate else "classic" if classic else "none")
        assert next_tos(scene) == (ECT0 if accurate or classic else NOT_ECT)
        scene.abort()


@pytest.mark.parametrize(("tos", "flags"), [
    (NOT_ECT, NOT_ECT_ARRIVED), (ECT1, ECT1_ARRIVED), (ECT0, ECT0_ARRIVED), (CE, CE_ARRIVED),
])  # fmt: skip
def test_a_syn_ack_says_how_the_latest_syn_arrived(tos: int, flags: int) -> None:
    """Table 2, block 1; section 3.1.5: "on the latest valid SYN". A mark of a SYN is not in r.cep (section 3.2.2.2)."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS, tos=(tos + 1) % 4)
        scene.peer.expect("SA" + ace({0: 2, 1: 3, 2: 4, 3: 6}[(tos + 1) % 4]))
        scene.peer.send(OFFERED, seq=0, options=SYN_OPTIONS, tos=tos)
        scene.peer.expect("SA" + ace(flags))
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
        assert counters(scene, "r_cep", "s_cep") == (FIRST, FIRST)
        assert next_tos(scene) == ECT0  # only what we sent has been tested: the peer has to judge this
        scene.abort()


@pytest.mark.parametrize(("tos", "flags", "cep"), [
    (NOT_ECT, NOT_ECT_ARRIVED, FIRST), (ECT1, ECT1_ARRIVED, FIRST), (ECT0, ECT0_ARRIVED, FIRST),
    (CE, CE_ARRIVED, FIRST + 1),
])  # fmt: skip
def test_the_ack_of_a_syn_ack_says_how_that_arrived(tos: int, flags: int, cep: int) -> None:
    """Table 3. A mark of it is in r.cep as well, and once."""
    with offered() as scene:
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS, tos=tos)
        scene.peer.expect("A" + ace(flags), ack=1)
        for _ in range(2):  # it comes again: "MUST also use the handshake encoding"
            scene.testbed.advance(2 * SECOND)
            scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), seq=0, options=SYN_OPTIONS, tos=tos)
            scene.peer.expect("A" + ace(flags), ack=1)
        assert counters(scene, "r_cep") == (cep,)
        scene.send(b"x")
        assert ace_in(scene.peer.expect(payload=b"x")) == cep
        scene.abort()


def test_a_mark_of_a_syn_ack_that_comes_again_is_one_segment() -> None:
    """Section 3.2.2.1: the handshake encoding is of the latest SYN-ACK; r.cep counts the first marked one."""
    with offered() as scene:
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS)
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED), ack=1)
        for tos, said in ((CE, CE_ARRIVED), (CE, CE_ARRIVED), (ECT0, ECT0_ARRIVED)):
            scene.testbed.advance(2 * SECOND)
            scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), seq=0, options=SYN_OPTIONS, tos=tos)
            scene.peer.expect("A" + ace(said), ack=1)
            assert counters(scene, "r_cep") == (FIRST + 1,)
        scene.abort()


@pytest.mark.parametrize("flags", [0, 1, 7])
def test_a_syn_ack_that_comes_again_without_the_mode_is_answered_with_the_counter(flags: int) -> None:
    """Section 3.2.2.1: "that confirms that the TCP Server supports AccECN"; another one does not."""
    with offered() as scene:
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS)
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED), ack=1)
        scene.testbed.advance(2 * SECOND)
        scene.peer.send("SA" + ace(flags), seq=0, options=SYN_OPTIONS, tos=CE)
        scene.peer.expect("A" + ace(FIRST), ack=1)
        assert counters(scene, "r_cep") == (FIRST,)
        scene.abort()


def test_data_does_not_go_before_the_ack_of_the_syn_ack() -> None:
    """Section 3.2.2.1: "it SHOULD first send a pure ACK"."""
    with offered() as scene:
        scene.send(b"hello")
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS)
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED), seq=1, ack=1)
        assert ace_in(scene.peer.expect(seq=1, payload=b"hello")) == FIRST
        scene.abort()


@pytest.mark.parametrize(("flags", "cep", "tos", "deaf"), [
    (0, FIRST, NOT_ECT, True), (1, FIRST, ECT0, False), (2, FIRST, ECT0, False), (3, FIRST, NOT_ECT, False),
    (4, FIRST, NOT_ECT, False), (5, FIRST, ECT0, False), (6, FIRST + 1, NOT_ECT, False), (7, FIRST, ECT0, False),
])  # fmt: skip
def test_what_the_ack_of_our_syn_ack_says(flags: int, cep: int, tos: int, deaf: bool) -> None:
    """Table 4. Our SYN-ACK was Not-ECT: arrived otherwise, it was mangled (section 3.2.2.3), marked that is congestion
    as well. Zero: no ECT, no answer to feedback (note 1), and our own feedback goes on."""
    with listen(ecn=ACCURATE_ACCEPT, cc="newreno") as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED))
        scene.peer.send("A" + ace(flags))
        scene.accept()
        assert scene.info()["ecn"] == "accurate"
        assert counters(scene, "s_cep") == (cep,)
        assert scene.info()["cwnd"] == (MSS if flags == 6 else 10 * MSS)
        assert next_tos(scene) == tos
        scene.peer.send("A" + ace(cep), payload=b"y", tos=CE)
        assert ace_in(scene.peer.expect("A" + ace(FIRST + 1), ack=2)) == FIRST + 1
        scene.send(bytes(4 * MSS))
        scene.peer.drain()
        scene.peer.send("A" + ace(cep + 1), ack=seq_of(1))
        assert counted(scene, "ecn_reductions") == (not deaf)
        scene.abort()


def test_a_mark_at_the_handshake_is_one_segment_to_begin_with() -> None:
    """Section 3.2.2.2: the client "still triggers the congestion control actions", and s.cep stays."""
    with offered() as scene:
        scene.peer.send("SA" + ace(CE_ARRIVED), options=SYN_OPTIONS)
        assert scene.info()["cwnd"] == MSS
        assert counters(scene, "s_cep") == (FIRST,)
        scene.abort()


def test_the_first_ack_with_data_has_a_counter() -> None:
    """The encoding of table 4 is of "a pure ACK with no SACK blocks"; any other segment has ACE."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED))
        scene.peer.send("A" + ace(FIRST + 1), payload=b"x")
        scene.accept()
        assert counters(scene, "s_cep") == (FIRST + 1,)
        assert next_tos(scene) == ECT0
        scene.abort()


def test_a_syn_offers_once_more_and_then_no_longer() -> None:
    """Section 3.1.4.1."""
    with offered() as scene:
        scene.peer.expect_after(SECOND, OFFERED, seq=0)
        scene.peer.expect_after(2 * SECOND, "S", seq=0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        scene.peer.expect("A")
        assert scene.info()["ecn"] == "none"


def test_an_answer_to_the_first_of_three_syns_is_the_mode() -> None:
    """Sections 3.1.4.1 and 3.1.5: "it is still allowed to set ECT", unlike a server."""
    with offered() as scene:
        scene.peer.expect_after(SECOND, OFFERED, seq=0)
        scene.peer.expect_after(2 * SECOND, "S", seq=0)
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS)
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED))
        assert scene.info()["ecn"] == "accurate"
        assert next_tos(scene) == ECT0
        scene.abort()


def test_a_syn_that_comes_again_without_the_offer_changes_no_mode() -> None:
    """Section 3.1.5: "SHOULD acknowledge ... by emitting an AccECN SYN/ACK", and MUST NOT set ECT."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED))
        scene.peer.send("S", seq=0, options=SYN_OPTIONS, tos=CE)
        scene.peer.expect("SA" + ace(CE_ARRIVED))
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
        assert scene.info()["ecn"] == "accurate"
        assert next_tos(scene) == NOT_ECT
        scene.peer.send("A" + ace(FIRST), payload=b"y", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 1))
        scene.abort()


def test_a_peer_without_ecn_stays_one() -> None:
    """Section 3.1.5: "An AccECN-capable TCP Server already in Not ECN mode"."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.send(OFFERED, seq=0, options=SYN_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.send("A")
        scene.accept()
        assert scene.info()["ecn"] == "none"


@pytest.mark.parametrize(("first", "second"), [(7, 3), (3, 7)])
def test_two_kinds_of_offers_in_one_handshake_reset_it(first: int, second: int) -> None:
    """Section 3.1.5: MUST."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send("S" + ace(first), options=SYN_OPTIONS)
        scene.peer.drain()
        scene.peer.send("S" + ace(second), seq=0, options=SYN_OPTIONS)
        scene.peer.expect("RA", ack=1)
        assert scene.state == "CLOSED"
        assert counted(scene, "accecn_mixed_resets") == 1


def test_a_syn_ack_that_goes_again_falls_back() -> None:
    """Section 3.2.3.2.2: without the option, then without anything; "but it remains in AccECN feedback mode". Having
    said nothing once, it sets no ECT (section 3.1.5)."""
    with listen(ecn=ACCURATE_ACCEPT) as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        assert scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED)).options["accecn"] == (172, (1, 0, 1))
        assert "accecn" not in scene.peer.expect_after(SECOND, "SA" + ace(NOT_ECT_ARRIVED)).options
        assert "accecn" not in scene.peer.expect_after(2 * SECOND, "SA").options
        scene.peer.expect_after(4 * SECOND, "SA")
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
        assert scene.info()["ecn"] == "accurate"
        assert next_tos(scene) == NOT_ECT
        scene.abort()


def test_a_large_mss_is_cut_where_its_bits_say_how_the_syn_arrived() -> None:
    with listen(ecn=ACCURATE_ACCEPT, network={"mtu": 40_000}) as scene:
        scene.peer.send(OFFERED, options={"mss": 39_960}, tos=CE)
        scene.peer.expect("SA" + ace(CE_ARRIVED))
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
        assert scene.info()["smss"] == (1 << 14) - 1


@pytest.mark.parametrize(("tos", "expected"), [(NOT_ECT, NOT_ECT_ARRIVED), (ECT0, ECT0_ARRIVED), (CE, CE_ARRIVED)])
def test_a_simultaneous_open_answers_as_a_listener(tos: int, expected: int) -> None:
    """Section 3.1.2: "the same SYN/ACK as it would have sent had it been a responding host"."""
    with offered() as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS, tos=tos)
        scene.peer.expect("SA" + ace(expected), seq=0, ack=1)
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), seq=0, options=SYN_OPTIONS)
        scene.peer.drain()
        assert scene.state == "ESTABLISHED"
        assert scene.info()["ecn"] == "accurate"
        assert counters(scene, "r_cep", "s_cep") == (FIRST, FIRST)
        assert next_tos(scene) == ECT0
        scene.abort()


@pytest.mark.parametrize(("flags", "answer", "mode"), [(0, "SA", "none"), (3, "SAE", "classic")])
def test_a_simultaneous_open_with_a_peer_that_knows_less(flags: int, answer: str, mode: str) -> None:
    with offered() as scene:
        scene.peer.send("S" + ace(flags), options=SYN_OPTIONS)
        scene.peer.expect(answer, seq=0, ack=1)
        scene.peer.send("SA" + ("E" if mode == "classic" else ""), seq=0, options=SYN_OPTIONS)
        scene.peer.drain()
        assert scene.info()["ecn"] == mode
        scene.abort()


def test_a_simultaneous_open_of_two_minds_is_reset() -> None:
    """Section 3.1.5: a classic SYN-ACK, and a SYN for accurate feedback."""
    with offered() as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED), seq=0, ack=1)
        scene.peer.send("SAE", seq=0, options=SYN_OPTIONS)
        assert "R" in scene.peer.drain()[-1].flags
        assert counted(scene, "accecn_mixed_resets") == 1


# ---------------------------------------------------------------- cookies (section 5.1), records


@pytest.mark.parametrize("options", [SYN_OPTIONS, ALL_OPTIONS])
@pytest.mark.parametrize("tos", [NOT_ECT, CE])
def test_a_cookie_remembers_the_mode_without_a_bit(options: Mapping[str, Any], tos: int) -> None:
    with listen(ecn=ACCURATE_ACCEPT, syn_cookies=2) as scene:
        scene.peer.send(OFFERED, options=options, tos=tos)
        scene.peer.expect("SA" + ace(CE_ARRIVED if tos == CE else NOT_ECT_ARRIVED))
        scene.peer.timestamps = "timestamps" in options
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
        assert counted(scene, "syn_cookies_accepted") == 1
        assert scene.info()["ecn"] == "accurate"
        assert next_tos(scene) == ECT0
        scene.abort()


@pytest.mark.parametrize(("offer", "answer", "ack", "mode"), [
    (7, NOT_ECT_ARRIVED, 0, "none"), (7, NOT_ECT_ARRIVED, 1, "none"), (7, NOT_ECT_ARRIVED, FIRST, "accurate"),
    (3, 1, 0, "classic"), (0, 0, 0, "none"),
])  # fmt: skip
def test_the_third_segment_tells_a_cookie_the_mode(offer: int, answer: int, ack: int, mode: str) -> None:
    """ACE from 2 to 7, 0 and 1 are no mode of the server's (note 3 of table 4)."""
    with listen(ecn=ACCURATE_ACCEPT, syn_cookies=2) as scene:
        scene.peer.send("S" + ace(offer), options=ALL_OPTIONS)
        scene.peer.expect("SA" + ace(answer))
        scene.peer.timestamps = True
        scene.peer.send("A" + ace(ack))
        scene.accept()
        assert scene.info()["ecn"] == mode
        scene.abort()


@both_roles
def test_without_a_record_there_is_no_feedback_and_no_mark_is_asked_for(role: str) -> None:
    """An ACE of zero says so to the peer (note 1 of table 4, section 3.2.2.4)."""
    if role == "passive":
        scene = listen(ecn=ACCURATE_ACCEPT, extra_records=0)
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED))
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED))
        scene.accept()
    else:
        scene = offered(extra_records=0)
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options=SYN_OPTIONS)
        scene.peer.expect("A")
    with scene:
        assert scene.info()["ecn"] == "none"
        assert counted(scene, "accecn_no_record") == 1
        scene.peer.send("A" + ace(FIRST), payload=b"x", tos=CE)
        assert ace_in(scene.peer.expect_after(40 * MILLISECOND, "A")) == 0
        assert next_tos(scene) == NOT_ECT
        scene.abort()


def test_a_record_goes_with_its_connection() -> None:
    with agreed() as scene:
        assert scene.testbed.stack.leaks()["accecns"] == 1
        scene.peer.send("RA" + ace(FIRST))
        scene.connection = None
        scene.testbed.pump()
        assert scene.testbed.stack.leaks()["accecns"] == 0


def test_marks_of_its_own_and_the_mode_do_not_disturb_each_other() -> None:
    with agreed() as scene:
        scene.conn.set_low_water(5000)
        scene.conn.set_low_water(128 * 1024)
        scene.testbed.pump()
        assert scene.testbed.stack.leaks()["extras"] == 1
        scene.peer.send("A" + ace(FIRST), payload=b"x", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 1))
        scene.abort()


# ---------------------------------------------------------------- the receiver (sections 3.2.2, 3.2.2.5.1)


@both_roles
def test_every_segment_says_the_counter(role: str) -> None:
    """Data, ACKs, a FIN, a RST, and what answers from TIME-WAIT."""
    with agreed(role=role) as scene:
        scene.peer.send("A" + ace(FIRST), payload=b"1", tos=CE)
        scene.peer.expect("A" + ace(6), ack=2)
        scene.peer.send("A" + ace(FIRST), payload=b"2", tos=CE)
        scene.peer.send("A" + ace(FIRST), payload=b"3", tos=CE)
        scene.peer.expect("A" + ace(0), ack=4)  # two for one ACK, and the third bit is the last
        scene.send(b"x")
        assert ace_in(scene.peer.expect(payload=b"x")) == 0
        assert scene.read() == b"123"
        scene.close()
        scene.peer.expect("FA" + ace(0))
        scene.peer.send("FA" + ace(FIRST), tos=CE)
        scene.peer.expect("A" + ace(1))
        assert scene.state == "TIME-WAIT"
        scene.peer.send("FA" + ace(FIRST), seq=4)
        scene.peer.expect("A" + ace(1))


def test_a_reset_says_the_counter() -> None:
    with agreed() as scene:
        scene.abort()
        scene.peer.expect("RA" + ace(FIRST))


def test_the_first_mark_is_acknowledged_at_once_and_then_every_second() -> None:
    """Change-triggered and increment-triggered ACKs."""
    with agreed() as scene:
        scene.peer.send("A" + ace(FIRST), payload=b"1", tos=ECT0)
        scene.peer.expect_nothing()
        scene.peer.send("A" + ace(FIRST), payload=b"2", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 1), ack=3)
        scene.peer.send("A" + ace(FIRST), payload=b"3", tos=CE)
        scene.peer.expect_nothing()
        scene.peer.send("A" + ace(FIRST), payload=b"4", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 3), ack=5)
        scene.peer.send("A" + ace(FIRST), payload=b"5", tos=ECT0)
        scene.peer.expect_nothing()
        scene.peer.send("A" + ace(FIRST), payload=b"6", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 4), ack=7)
        assert counted(scene, "ce_in") == 4
        scene.read()


def test_marks_of_acks_are_counted_and_every_third_is_acknowledged() -> None:
    """ "If there is no unacknowledged data at the receiver, 'n' ... MUST be no less than 3"; those ACKs have no SACK
    blocks."""
    with agreed() as scene:
        for _ in range(2):
            scene.peer.send("A" + ace(FIRST), tos=CE)
            scene.peer.expect_nothing()
        scene.peer.send("A" + ace(FIRST), tos=CE)
        ack = scene.peer.expect("A" + ace(FIRST + 3), ack=1)
        assert "sack" not in ack.options


def test_a_burst_is_one_ack() -> None:
    with agreed() as scene:
        for _ in range(9):
            scene.peer.send("A" + ace(FIRST), payload=b"x", tos=CE, pump=False)
        scene.testbed.pump()
        scene.peer.expect("A" + ace(FIRST + 9), ack=10)
        scene.peer.expect_nothing()
        scene.read()


@pytest.mark.parametrize("seq", [-5000, 200_000])
def test_a_mark_outside_of_the_window_is_not_counted(seq: int) -> None:
    """Section 3.2: "every Acceptable packet"."""
    with agreed() as scene:
        scene.peer.send("A" + ace(FIRST), seq=seq, payload=b"forged", tos=CE)
        scene.peer.expect("A" + ace(FIRST), ack=1)
        assert counters(scene, "r_cep", "r_ceb") == (FIRST, 0)


def test_bytes_are_counted_by_what_their_header_says() -> None:
    """What is sent again counts as well."""
    with agreed(rcv_buffer_bytes=100_000) as scene:
        scene.peer.send("A" + ace(FIRST), payload=bytes(1000), tos=ECT0)
        scene.peer.send("A" + ace(FIRST), payload=bytes(300), tos=ECT1)
        scene.peer.send("A" + ace(FIRST), payload=bytes(20), tos=CE)
        scene.peer.send("A" + ace(FIRST), payload=bytes(7), tos=NOT_ECT)
        scene.peer.send("A" + ace(FIRST), seq=1301, payload=bytes(27), tos=CE)
        scene.peer.send("A" + ace(FIRST), seq=1301, payload=bytes(30), tos=CE)
        assert counters(scene, "r_e0b", "r_e1b", "r_ceb", "r_cep") == (1001, 301, 50, FIRST + 2)
        scene.read()


def test_segments_that_a_device_has_merged_are_counted_by_the_mss_that_was_asked_for() -> None:
    """A marked super-frame is so many marked segments: what the peer may send at most is `mss`, where that is smaller
    than the link's."""
    with agreed(mss=500, rcv_buffer_bytes=100_000) as scene:
        scene.peer.send("A" + ace(FIRST), payload=bytes(1400), tos=CE)
        assert counters(scene, "r_cep", "r_ceb") == (FIRST + 3, 1400)
        scene.read()


def test_marks_before_a_simultaneous_open_has_ended_shrink_no_window() -> None:
    """Section 3.2.2.5: they are counted; there is no window yet."""
    with offered() as scene:
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED), seq=0, ack=1)
        scene.peer.send("A" + ace(FIRST + 2), seq=1, ack=1)
        scene.peer.drain()
        assert scene.state == "ESTABLISHED"
        assert counters(scene, "s_cep") == (FIRST + 2,)
        assert (scene.info()["cwnd"], counted(scene, "ecn_reductions")) == (10 * MSS, 0)
        scene.abort()


# ---------------------------------------------------------------- the sender


@pytest.mark.parametrize(("cc", "tenths"), [("newreno", 8.0), ("cubic", 8.5)])
def test_marks_shrink_the_window_once_per_round_trip(cc: str, tenths: float) -> None:
    """By the factors of RFC 8511, as RFC 3168's echo does (section 3.1.5)."""
    with flying(20, total=60, cc=cc) as scene:
        before = scene.info()["cwnd"]
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(2))
        after = scene.info()["cwnd"]
        assert after <= 20 * MSS * tenths / 10 < after + MSS
        assert after < before
        assert scene.info()["ssthresh"] == after
        for index in range(2, 10):
            scene.peer.send("A" + ace(FIRST + index), ack=seq_of(2 * index))
            assert scene.info()["cwnd"] == after  # an ACK with marks makes no window larger
        assert counted(scene, "ecn_reductions") == 1
        assert counted(scene, "accecn_marks_in") == 9
        assert all(not segment.payload or ace_in(segment) == FIRST for segment in scene.peer.drain())  # no CWR
        scene.peer.send("A" + ace(FIRST + 10), ack=seq_of(22))
        assert counted(scene, "ecn_reductions") == 2
        scene.abort()


def test_without_marks_the_window_grows() -> None:
    with flying(10, total=40, cc="newreno") as scene:
        before = scene.info()["cwnd"]
        for index in range(1, 11):
            scene.peer.send("A" + ace(FIRST), ack=seq_of(index))
        assert scene.info()["cwnd"] > before
        assert counters(scene, "s_cep") == (FIRST,)
        scene.abort()


def test_new_data_alone_asks_for_marks() -> None:
    """RFC 9768 changes nothing in RFC 3168 sections 6.1.4 to 6.1.6: not ACKs, nor what goes again, probes, a FIN
    alone."""
    with flying(6, options=SACK_OPTIONS) as scene:
        assert scene.peer.iss is not None
        edges = tuple((scene.peer.iss + seq_of(index)) & 0xFFFFFFFF for index in (2, 5))
        scene.peer.send("A" + ace(FIRST), ack=seq_of(1), options={"sack": [edges]})
        assert scene.peer.expect(seq=seq_of(1), payload=length(MSS)).tos == NOT_ECT
        scene.peer.send("A" + ace(FIRST), ack=seq_of(7), payload=b"x")
        assert scene.peer.expect_after(40 * MILLISECOND, "A" + ace(FIRST)).tos == NOT_ECT
        scene.shutdown()
        assert scene.peer.expect("FA" + ace(FIRST)).tos == NOT_ECT
        scene.abort()


@pytest.mark.parametrize("lost", [7, 8, 9, 16])
def test_an_ack_of_many_segments_is_read_for_the_worst(lost: int) -> None:
    """Section 3.2.2.5.2 and appendix A.2.1, without the option: 8 marks look like none."""
    with flying(20, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(lost))
        assert counters(scene, "s_cep") == (FIRST + (lost - 1) // 8 * 8,)
        assert counted(scene, "ecn_reductions") == (lost > 8)
        scene.abort()


def test_where_acks_of_many_segments_are_usual_they_are_not() -> None:
    """Appendix A.2.1: "leading to a false high marking rate and poor performance"."""
    with flying(100, total=200, cc="newreno", rcv_buffer_bytes=1 << 20, options={**SYN_OPTIONS, "nop": 1, "wscale": 7}
                ) as scene:  # fmt: skip
        for index in range(1, 15):
            scene.peer.send("A" + ace(FIRST), ack=seq_of(1 + 6 * index))
        assert counters(scene, "s_cep") == (FIRST,)
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(100))
        assert counters(scene, "s_cep") == (FIRST + 1,)
        scene.abort()


def test_an_ack_of_more_segments_than_eight_bits_can_say_is_one_of_255() -> None:
    """The average of what ACKs acknowledge has eight bits for each; this one's marks are read for all its segments."""
    with flying(300, total=300, cc="newreno", snd_queue_bytes=1 << 20, options={**SYN_OPTIONS, "nop": 1, "wscale": 7},
                ) as scene:  # fmt: skip
        scene.peer.send("A" + ace(FIRST), ack=seq_of(300))
        assert counters(scene, "s_cep") == (FIRST + 296,)  # the most that is 0 modulo 8 (appendix A.2.1)
        scene.abort()


def test_an_older_ack_is_not_heard() -> None:
    """Section 3.2.2.2: superseded."""
    with flying(10, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(4))
        scene.peer.send("A" + ace(FIRST - 1), ack=seq_of(2))
        scene.peer.send("A" + ace(FIRST - 1), ack=seq_of(4), wnd=60_000)
        assert counters(scene, "s_cep") == (FIRST,)
        scene.abort()


def test_timestamps_tell_which_of_two_acks_is_the_newer() -> None:
    """Appendix A.1: newlyAckedT."""
    with flying(10, cc="newreno", options={**ALL_OPTIONS, "mss": 1472}, network={"mtu": 1512}) as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(2))
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(2))  # in the same millisecond
        assert counters(scene, "s_cep") == (FIRST,)
        scene.testbed.advance(2 * MILLISECOND)
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(2))
        assert counters(scene, "s_cep") == (FIRST + 1,)
        assert counted(scene, "ecn_reductions") == 1
        scene.abort()


def test_marks_of_more_segments_than_are_acknowledged_are_believed() -> None:
    """Section 3.2.2.5.2: "SHOULD consider the ACE counter to be correct": it counts control packets, too."""
    with flying(10, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST + 6), ack=seq_of(2))
        assert counters(scene, "s_cep") == (FIRST + 6,)
        scene.abort()


@both_roles
def test_a_counter_that_begins_with_zero_is_none(role: str) -> None:
    """Section 3.2.2.4: no ECT, no answer; what arrives is reported all the same."""
    with agreed(role=role, cc="newreno") as scene:
        scene.send(bytes(4 * MSS))
        scene.peer.drain()
        scene.peer.send("A", ack=seq_of(1))
        for index in (2, 3):
            scene.peer.send("A" + ace(index), ack=seq_of(index))
        assert counted(scene, "accecn_stopped") == 1
        assert counted(scene, "ecn_reductions") == 0
        scene.peer.send("A", ack=seq_of(4))
        assert next_tos(scene) == NOT_ECT
        scene.peer.send("A" + ace(1), payload=b"x", tos=CE)
        scene.peer.expect("A" + ace(FIRST + 1))
        scene.abort()


def test_a_peer_that_says_everything_was_marked_from_the_beginning_is_not_believed() -> None:
    """Section 3.2.2.3: "the first three or four rounds"; then "non-ECN-capable packets", and no answer."""
    with agreed(cc="newreno") as scene:
        cep = FIRST
        acked = 0
        for _ in range(5):
            scene.send(bytes(2 * MSS))
            got = [segment for segment in scene.peer.drain() if segment.payload]
            for segment in got:
                acked += len(segment.payload)
                cep += 1
                scene.peer.send("A" + ace(cep), ack=1 + acked)
        assert counted(scene, "accecn_stopped") == 1
        assert counted(scene, "ecn_reductions") == 4
        assert next_tos(scene) == NOT_ECT
        scene.abort()


# ---------------------------------------------------------------- hostile peers


def test_marks_without_end_leave_the_least_window_and_no_work() -> None:
    with flying(10, total=200, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(1))
        for index in range(60):
            everything = scene.info()["snd_nxt"] - (scene.peer.iss or 0) & 0xFFFFFFFF
            scene.peer.send("A" + ace(FIRST + 7 * index), ack=everything)
            scene.peer.drain()
        assert scene.info()["cwnd"] == 2 * MSS
        assert counted(scene, "segments_retransmitted") == 0
        scene.abort()


@pytest.mark.parametrize("flights", [0, 100])
@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
def test_marks_in_duplicates_do_not_put_the_timer_off(cc: str, flights: int) -> None:
    """A peer that acknowledges nothing and counts on, with ever newer timestamps: R2 ends it all the same."""
    with agreed(cc=cc, flights=flights, user_timeout_ns=100 * SECOND, options=ALL_OPTIONS) as scene:
        scene.send(bytes(40 * MSS))
        for index in range(2000):
            scene.testbed.advance(100 * MILLISECOND)
            scene.peer.drain()
            if scene.state == "CLOSED":
                break
            scene.peer.send("A" + ace(FIRST + index), ack=1)
        assert scene.state == "CLOSED"
        assert counted(scene, "retransmit_timeouts") >= 5


def test_a_storm_of_marks_is_answered_segment_by_segment_at_most() -> None:
    with agreed() as scene:
        for index in range(300):
            scene.peer.send("A" + ace(index), payload=b"x", tos=CE if index % 2 else ECT0)
            assert len(scene.peer.drain()) <= 1
        assert scene.read() == b"x" * 300
        assert counters(scene, "r_cep", "r_ceb") == (FIRST + 150, 150)


# ---------------------------------------------------------------- the option (section 3.2.3): what we send

BOTH: Mapping[str, Any] = {**ALL_OPTIONS, "mss": 1472}


def option_of(segment: Segment) -> Any:
    """The AccECN option of a segment, or None."""
    return segment.options.get("accecn")


def test_the_handshake_tests_the_path() -> None:
    """Section 3.2.3.2.1: on the SYN-ACK, on the ACK of it, on the client's first data; not on a SYN."""
    with offered() as scene:
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options={**SYN_OPTIONS, "accecn": (172, (1, 0, 1))})
        assert option_of(scene.peer.expect("A" + ace(NOT_ECT_ARRIVED))) == (172, (1, 0, 1))
        assert scene.info()["accecn"]["options_come"]
        scene.send(b"x")
        assert option_of(scene.peer.expect(payload=b"x")) == (172, (1, 0, 1))
        scene.peer.send("A" + ace(FIRST))
        scene.send(b"y")
        assert option_of(scene.peer.expect(payload=b"y")) is None  # nothing has changed
        scene.abort()


@pytest.mark.parametrize(("marks", "expected"), [
    ((ECT0,), (172, (101,))), ((ECT1,), (174, (101,))), ((CE,), (172, (1, 100))),
    ((ECT0, CE), (172, (101, 100))), ((ECT1, CE), (174, (101, 100))), ((ECT0, ECT1), (172, (101, 0, 101))),
    ((ECT1, CE, ECT0), (172, (101, 100, 101))), ((NOT_ECT,), None),
])  # fmt: skip
def test_an_ack_has_every_counter_that_has_changed(marks: tuple[int, ...], expected: Any) -> None:
    """Section 3.2.3.3, "recommended simple scheme", in the order that is shorter (table 5)."""
    with agreed() as scene:
        for tos in marks:
            scene.peer.send("A" + ace(FIRST), payload=bytes(100), tos=tos, pump=False)
        scene.testbed.pump()
        scene.testbed.advance(50 * MILLISECOND)
        assert option_of(scene.peer.expect(ack=1 + 100 * len(marks))) == expected
        scene.peer.send("A" + ace(FIRST), payload=b"z")
        assert option_of(scene.peer.expect_after(40 * MILLISECOND)) is None  # no counter has incremented since
        scene.read()


def test_counters_that_have_changed_once_come_with_those_that_change_now() -> None:
    with agreed() as scene:
        scene.peer.send("A" + ace(FIRST), payload=bytes(100), tos=CE)
        assert option_of(scene.peer.expect()) == (172, (1, 100))
        scene.peer.send("A" + ace(FIRST), payload=bytes(50), tos=ECT0)
        assert option_of(scene.peer.expect_after(40 * MILLISECOND)) == (172, (51, 100))
        scene.read()


@pytest.mark.parametrize(("size", "there"), [(10, True), (MSS - 8, True), (MSS - 7, False), (MSS, False)])
def test_data_has_the_option_where_smss_leaves_room(size: int, there: bool) -> None:
    """ "If there is insufficient space ... the entire AccECN TCP option MUST be omitted"."""
    with agreed() as scene:
        scene.peer.send("A" + ace(FIRST), payload=b"x", tos=ECT0)
        scene.send(bytes(size))
        data = scene.peer.expect(payload=length(size), ack=2)
        assert option_of(data) == ((172, (2,)) if there else None)
        assert ace_in(data) == FIRST
        scene.peer.send("A" + ace(FIRST))
        scene.testbed.advance(SECOND)
        scene.peer.expect_nothing()
        scene.read()


def test_what_goes_again_has_no_option() -> None:
    """Section 3.2.3.2.2."""
    with agreed() as scene:
        scene.peer.send("A" + ace(FIRST), payload=b"x", tos=ECT0)
        scene.send(b"data")
        assert option_of(scene.peer.expect(payload=b"data")) == (172, (2,))
        scene.peer.wait(3 * SECOND)
        assert option_of(scene.peer.expect(payload=b"data")) is None
        scene.abort()


@pytest.mark.parametrize(("options", "holes", "blocks", "fields"), [
    (BOTH, 1, 1, 2), (BOTH, 2, 2, 2), (BOTH, 3, 2, 2), (SACK_OPTIONS, 3, 3, 2), (SACK_OPTIONS, 4, 3, 2),
])  # fmt: skip
def test_two_sack_blocks_come_before_the_option_and_it_before_a_third(
    options: Mapping[str, Any], holes: int, blocks: int, fields: int
) -> None:
    """Section 3.2.3.3, "Importance of Congestion Control"."""
    with agreed(options=options) as scene:
        for index in range(holes):
            scene.peer.send("A" + ace(FIRST), seq=11 + 20 * index, payload=bytes(10), tos=CE if index == 0 else ECT0,
                            pump=False)  # fmt: skip
        scene.testbed.pump()
        ack = scene.peer.expect(ack=1)
        assert len(ack.options["sack"]) == blocks
        assert option_of(ack) == (172, (1 + 10 * (holes - 1), 10)[:fields])
        scene.peer.drain()
        scene.abort()


def test_where_all_three_have_changed_and_sack_leaves_room_for_two_there_is_none() -> None:
    with agreed(options=BOTH) as scene:
        for index, tos in enumerate((CE, ECT0, ECT1)):
            scene.peer.send("A" + ace(FIRST), seq=11 + 20 * index, payload=bytes(10), tos=tos, pump=False)
        scene.testbed.pump()
        ack = scene.peer.expect(ack=1)
        assert option_of(ack) is None
        assert len(ack.options["sack"]) == 3
        scene.peer.drain()
        scene.abort()


@pytest.mark.parametrize(("now", "expected"), [
    ((ECT1, ECT1), (174, (31,))), ((ECT1, CE), (174, (21, 10))), ((ECT0, ECT0), (172, (31,))),
    ((ECT0, CE), (172, (21, 10))), ((CE, CE), (172, (11, 20))), ((ECT0, ECT1), None),
])  # fmt: skip
def test_where_sack_leaves_room_for_two_counters_those_that_have_changed_are_told(
    now: tuple[int, int], expected: Any
) -> None:
    """Section 3.2.3.3: all that ever changed, or those that have since the last option, or no option at all."""
    with agreed(options=BOTH) as scene:
        for tos in (ECT0, ECT1):
            scene.peer.send("A" + ace(FIRST), payload=bytes(10), tos=tos, pump=False)
        scene.testbed.pump()
        scene.testbed.advance(50 * MILLISECOND)
        assert option_of(scene.peer.drain()[-1]) == (172, (11, 0, 11))
        for index, tos in enumerate(now):
            scene.peer.send("A" + ace(FIRST), seq=41 + 20 * index, payload=bytes(10), tos=tos, pump=False)
        scene.testbed.pump()
        ack = scene.peer.expect(ack=21)
        assert option_of(ack) == expected
        assert len(ack.options["sack"]) == 2
        scene.peer.drain()
        scene.abort()


def test_counters_are_told_every_two_megabytes_where_full_segments_carry_all_acks() -> None:
    """ "at least once for every 2^22 bytes"."""
    with flying(4, total=4000, options={**SYN_OPTIONS, "nop": 1, "wscale": 7}, rcv_buffer_bytes=1 << 20) as scene:
        told = []
        sent = 0
        for index in range(1, 1600):
            scene.peer.send("A" + ace(FIRST), ack=seq_of(min(index, 3900)), payload=bytes(1400), tos=ECT0)
            sent += 1400
            scene.read()
            for segment in scene.peer.drain():
                if option_of(segment) is not None:
                    told.append(option_of(segment)[1][0])
            scene.peer.rcv_nxt = seq_of(index)
        assert told
        assert all(later - earlier <= 1 << 22 for earlier, later in pairwise(told))
        assert sent - told[-1] <= 1 << 22
        scene.abort()


def test_where_acks_with_the_option_never_arrive_there_are_no_more() -> None:
    """Section 3.2.3.2.2: "detecting whether the acknowledged data always reappears as a retransmission"."""
    with agreed() as scene:
        for index in range(5):
            scene.peer.send("A" + ace(FIRST), seq=1 + index, payload=b"x", tos=ECT0)
            first = option_of(scene.peer.expect_after(40 * MILLISECOND))
            assert (first is not None) == (index < 3)
            scene.testbed.advance(SECOND)
            scene.peer.send("A" + ace(FIRST), seq=1 + index, payload=b"x")
            assert option_of(scene.peer.expect()) is None
        assert counted(scene, "accecn_options_ended") == 1
        scene.read()


def test_a_repetition_now_and_then_ends_nothing() -> None:
    with agreed() as scene:
        for index in range(12):
            scene.peer.send("A" + ace(FIRST), seq=1 + index, payload=b"x", tos=ECT0)
            assert option_of(scene.peer.expect_after(40 * MILLISECOND)) is not None
            if index % 3:
                scene.testbed.advance(SECOND)
                scene.peer.send("A" + ace(FIRST), seq=1 + index, payload=b"x")
                scene.peer.expect()
        assert counted(scene, "accecn_options_ended") == 0
        scene.read()


# ---------------------------------------------------------------- ... and what we read


def test_both_orders_and_all_lengths_are_read() -> None:
    """Table 5, across the end of the 24 bits."""
    with flying(8, cc="newreno") as scene:
        steps: list[tuple[tuple[int, tuple[int, ...]], tuple[int, int, int]]] = [
            ((172, ()), (1, 0, 1)), ((172, (1461,)), (1461, 0, 1)), ((172, (2921, 1460)), (2921, 1460, 1)),
            ((174, (31, 1460, 2921)), (2921, 1460, 31)), ((174, (41,)), (2921, 1460, 41)),
            ((172, (0x7FFFFF, 1460)), (0x7FFFFF, 1460, 41)), ((172, (0xFFFFF0,)), (0xFFFFF0, 1460, 41)),
            ((172, (3,)), (0x1000003, 1460, 41)),
        ]  # fmt: skip
        for index, (option, expected) in enumerate(steps):
            scene.peer.send("A" + ace(FIRST + (index > 1)), ack=seq_of(2 + index), options={"accecn": option})
            assert counters(scene, "s_e0b", "s_ceb", "s_e1b") == expected
        assert counted(scene, "accecn_stopped") == 0
        scene.abort()


@pytest.mark.parametrize(("ceb", "marks"), [(0, 0), (8 * MSS, 8), (4 * MSS, 8)])
def test_the_option_tells_whether_three_bits_have_come_round(ceb: int, marks: int) -> None:
    """Appendix A.2.2: with the option, an ACK of ten segments is not read for the worst."""
    with flying(20, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(1), options={"accecn": (172, (1,))})
        scene.peer.send("A" + ace(FIRST), ack=seq_of(11), options={"accecn": (172, (1, ceb))})
        assert counters(scene, "s_cep") == (FIRST + marks,)
        scene.abort()


@pytest.mark.parametrize("option", [(172, (0, 0, 1)), (172, (1, 0, 0)), (174, (0,))])
@both_roles
def test_a_first_option_that_is_zeroed_is_the_last_that_is_read(role: str, option: Any) -> None:
    """Section 3.2.3.2.4."""
    if role == "active":
        scene = offered(cc="newreno")
        scene.peer.send("SA" + ace(NOT_ECT_ARRIVED), options={**SYN_OPTIONS, "accecn": option})
        scene.peer.expect("A" + ace(NOT_ECT_ARRIVED))
    else:
        scene = listen(ecn=ACCURATE_ACCEPT, cc="newreno")
        scene.peer.send(OFFERED, options=SYN_OPTIONS)
        scene.peer.expect("SA" + ace(NOT_ECT_ARRIVED))
        scene.peer.send("A" + ace(NOT_ECT_ARRIVED), options={"accecn": option})
        scene.accept()
    with scene:
        assert counted(scene, "accecn_options_ignored_in") == 1
        scene.send(b"x")
        scene.peer.drain()
        scene.peer.send("A" + ace(FIRST), ack=2, options={"accecn": (172, (100, 100, 100))})
        assert counters(scene, "s_e0b", "s_ceb", "s_e1b") == (1, 0, 1)
        assert not scene.info()["accecn"]["options_come"]
        scene.abort()


def test_counters_that_go_back_are_not_taken() -> None:
    with flying(8, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(2), options={"accecn": (172, (5000, 0))})
        scene.peer.send("A" + ace(FIRST), ack=seq_of(3), options={"accecn": (172, (4999, 0))})
        scene.peer.send("A" + ace(FIRST), ack=seq_of(4), options={"accecn": (172, (6000, 0xFFFFFF))})
        assert counters(scene, "s_e0b", "s_ceb") == (5000, 0)
        assert counted(scene, "accecn_options_ignored_in") == 2
        scene.abort()


def test_marked_bytes_in_no_marked_segment_are_mangled_feedback() -> None:
    """Section 3.2.3.2.5: "the Data Sender MUST disable sending ECN-capable packets"."""
    with flying(8, cc="newreno") as scene:
        scene.peer.send("A" + ace(FIRST), ack=seq_of(2), options={"accecn": (172, (1, 0))})
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(3))
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(4), options={"accecn": (172, (1, MSS))})  # of the ACK before
        assert counted(scene, "accecn_stopped") == 0
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(5), options={"accecn": (172, (1, 2 * MSS))})
        assert counted(scene, "accecn_stopped") == 1
        scene.peer.send("A" + ace(FIRST + 1), ack=seq_of(9))
        assert next_tos(scene) == NOT_ECT
        scene.abort()


# ---------------------------------------------------------------- each ACK once


def bare(scene: Scene) -> int:
    """Segments without data that have come; takes everything."""
    return sum(not segment.payload for segment in scene.peer.drain())


@pytest.mark.parametrize("ecn", [0, 3])
@pytest.mark.parametrize("slots", [2, 64])
def test_a_full_ring_loses_no_ack_of_a_syn_ack(slots: int, ecn: int) -> None:
    """Six handshakes complete in one burst; what does not fit goes with the next room."""
    with Testbed(seed=1, ecn=ecn, network={"tx_slots": slots}) as bed:
        bed.introduce()
        peers, connections = [], []
        for number in range(6):
            peers.append(ScriptedPeer(bed, port=2000 + number, stack_port=None))
            connections.append(bed.stack.connect(PEER_ADDRESS, 2000 + number, wait=False))
            bed.pump()
            peers[-1].expect(lambda flags: True)
        for peer in peers:
            peer.send("SA" + (ace(2) if ecn else ""), options={"mss": MSS}, pump=False)
        bed.pump()
        bed.advance(50 * MILLISECOND)
        assert [len(peer.drain()) for peer in peers] == [1] * 6
        for connection in connections:
            connection.abort()
        bed.pump()


@pytest.mark.parametrize("again", [False, True])
@both_roles
def test_behind_a_hole_bare_acks_are_not_answered(role: str, again: bool) -> None:
    """A SYN-ACK that comes again is owed one ACK with the handshake's encoding (RFC 9768 section 3.2.2.1), by who has
    opened; not one for every ACK that comes while SACK blocks leave that no place."""
    scene = agreed(role=role, options=SACK_OPTIONS, initial_window_segments=10)
    with scene:
        scene.send(bytes(40 * MSS))
        scene.peer.send("A" + ace(FIRST), seq=scene.peer.snd_nxt + 3000, payload=b"x")
        scene.peer.drain()
        if again:
            scene.testbed.advance(10 * MILLISECOND)
            scene.peer.send("SA" + ace(2), seq=scene.peer.snd_nxt - 1, ack=1, options={"mss": MSS})
            assert bare(scene) <= 2
        for _ in range(20):
            scene.testbed.advance(MILLISECOND)
            scene.peer.send("A" + ace(FIRST), ack=1)
        assert bare(scene) == 0
        scene.abort()

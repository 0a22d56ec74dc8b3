# SPDX-License-Identifier: MIT
"""What a profile changes on the wire: each difference of `linux` from the defaults, by the same script to both.

That Linux does so is asked of the machine's kernel in tests/net/test_kernel_profile.py. Which setting makes which
difference shows where a single one overrides its profile.
"""

import re
from itertools import pairwise
from typing import Any

import pytest

from tests.tree import ROOT
from ustack import Stack
from ustack.engine.profiles import PROFILES, profile_settings
from ustack.engine.settings import settings
from ustack.link.sim import SimNetwork
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, established, listen, syn_received, syn_sent
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, TICK_NS, Testbed, read_available

LINUX = {"profile": "linux"}
RFC: dict[str, Any] = {}
STAMP = "........"  # a timestamp's value, or its echo


def syn_bytes(testbed: Testbed) -> tuple[int, str]:
    """Window and options of the only SYN that the stack has sent, as they are on the wire."""
    (frame,) = (frame for frame in testbed.frames if frame[12:14] == b"\x08\x00" and frame[47] & 2)
    return int.from_bytes(frame[48:50], "big"), frame[54 : 34 + (frame[46] >> 4) * 4].hex()


# ---------------------------------------------------------------- SYN


@pytest.mark.parametrize(
    ("offered", "window", "options"),
    [
        (ALL_OPTIONS, (65535, 65160), f"020405b40402080a{STAMP}ffffff00010303"),
        ({"mss": 1460}, (65535, 64240), "020405b4"),
        ({"mss": 536, "nop": 1, "wscale": 2}, (65535, 64240), "020405b4010303"),
        ({"mss": 1460, "sack_permitted": True}, (65535, 64240), "020405b401010402"),
        ({"mss": 1460, "timestamps": (1, 0)}, (65535, 65160), f"020405b40101080a{STAMP}00000001"),
    ],
    ids=["all", "mss", "wscale", "sack", "timestamps"],
)
@pytest.mark.parametrize("profile", ["rfc", "linux"])
def test_a_syn_ack(profile: str, offered: dict[str, Any], window: tuple[int, int], options: str) -> None:
    """The order of options is the same in both. A window of whole segments, 12 bytes shorter with timestamps."""
    linux = profile == "linux"
    if "wscale" in offered:
        options += "07" if linux else "09"
    with listen(profile=profile) as scene:
        scene.testbed.frames.clear()
        scene.peer.send("S", options=offered)
        found = syn_bytes(scene.testbed)
        assert found[0] == window[linux]
        assert re.fullmatch(options, found[1]), found[1]
        scene.peer.expect("SA")
        scene.peer.send("R", seq=1)


@pytest.mark.parametrize(("profile", "window", "wscale"), [("rfc", 65535, "09"), ("linux", 64240, "07")])
def test_a_syn(profile: str, window: int, wscale: str) -> None:
    with syn_sent(profile=profile) as scene:
        found = syn_bytes(scene.testbed)
        assert found[0] == window
        assert re.fullmatch(f"020405b40402080a{STAMP}00000000010303{wscale}", found[1]), found[1]
        scene.abort()


def test_the_window_goes_on_where_the_syn_ended() -> None:
    """Rounded up to the scale's unit, 128 bytes: 502 of them to a server, as any Linux client says; 510 to a client."""
    with syn_sent(**LINUX) as scene:
        scene.peer.send("SA", options=ALL_OPTIONS)
        scene.peer.expect("A", wnd=502)
        scene.peer.timestamps = True
        scene.abort()
        scene.peer.drain()
    with established(options=ALL_OPTIONS, **LINUX) as scene:
        scene.peer.send("A", payload=b"x" * 100)
        scene.peer.expect("A", wnd=510)
        scene.read()


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"rcv_buffer_bytes": 270_000}, 65535),  # more than the field can say, whole segments or not
        ({"rcv_buffer_bytes": 10_000}, 6 * 1460),
        ({"rcv_buffer_bytes": 1000}, 1000),  # less than a segment
        ({"mss": 1000}, 65000),
        ({"whole_first_window": 0}, 65535),
    ],
    ids=repr,
)
def test_a_first_window_of_whole_segments(config: dict[str, int], window: int) -> None:
    with listen(**{**LINUX, **config}) as scene:
        scene.testbed.frames.clear()
        scene.peer.send("S", options=SYN_OPTIONS)
        assert syn_bytes(scene.testbed)[0] == window
        scene.peer.send("R", seq=1)


def test_a_peer_that_fills_the_first_window_is_taken() -> None:
    """The edge that is accepted is the one that was said."""
    with established(**LINUX) as scene:
        for at in range(0, 64240, 1460):
            scene.peer.send("A", seq=1 + at, payload=bytes(1460))
        assert len(scene.read()) == 64240
        assert scene.testbed.dropped() == {}
        scene.peer.drain()


# ---------------------------------------------------------------- ACKs


def acknowledged_at_once(scene: Scene, segments: int) -> list[bool]:
    """Segments of 500 bytes, each when the one before has been acknowledged: was it, without a delay?"""
    at_once = []
    for _ in range(segments):
        scene.peer.send("A", payload=b"d" * 500)
        at_once.append(bool(scene.peer.queue))
        if not scene.peer.queue:
            assert abs(scene.peer.wait(SECOND) - 40 * MILLISECOND) <= 2 * TICK_NS
        scene.peer.expect("A", ack=scene.peer.snd_nxt)
    scene.read()
    return at_once


@pytest.mark.parametrize(("config", "quick"), [(RFC, 0), (LINUX, 16), ({**LINUX, "quick_acks": 3}, 3)])
@pytest.mark.parametrize("role", ["passive", "active"])
def test_the_first_acks_do_not_wait(role: str, config: dict[str, Any], quick: int) -> None:
    with established(role=role, options=ALL_OPTIONS, **config) as scene:
        assert acknowledged_at_once(scene, 20) == [True] * quick + [False] * (20 - quick)
        scene.peer.send("R")


@pytest.mark.parametrize(("pause_ms", "quick"), [(100, 0), (500, 16)])
@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_acks_after_a_pause_do_not_wait_again(config: dict[str, Any], pause_ms: int, quick: int) -> None:
    """A pause is longer than the retransmission timeout, 200 ms here."""
    quick = quick if config else 0
    with established(options=ALL_OPTIONS, measured=True, **config) as scene:
        acknowledged_at_once(scene, 20)
        scene.testbed.advance(pause_ms * MILLISECOND)
        assert acknowledged_at_once(scene, 20) == [True] * quick + [False] * (20 - quick)
        scene.peer.send("R")


@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_acks_after_old_data_do_not_wait_again(config: dict[str, Any]) -> None:
    """The peer has missed one of ours."""
    with established(options=ALL_OPTIONS, measured=True, **config) as scene:
        acknowledged_at_once(scene, 20)
        scene.peer.send("A", seq=1, payload=b"d" * 500)
        scene.peer.expect("A")
        assert acknowledged_at_once(scene, 20) == ([True] * 16 if config else [False] * 16) + [False] * 4
        scene.peer.send("R")


def test_an_ack_waits_for_company_once_we_have_answered() -> None:
    """The first request's ACK goes at once; from the first answer on an answer carries it."""
    with established(options=ALL_OPTIONS, **LINUX) as scene:
        scene.peer.send("PA", payload=b"ask")
        scene.peer.expect("A", ack=4)
        scene.send(b"answer")
        scene.peer.expect("PA", ack=4, payload=b"answer")
        scene.peer.send("PA", payload=b"ask")
        scene.peer.expect_nothing()
        scene.send(b"answer")
        scene.peer.expect("PA", ack=7, payload=b"answer")
        scene.peer.send("A")
        assert acknowledged_at_once(scene, 2) == [False, False]
        scene.peer.send("R")


@pytest.mark.parametrize(
    ("config", "read", "at_once"),
    [
        (RFC, True, [False, False, False, False]),
        (LINUX, True, [False, True, False, True]),
        ({**LINUX, "ack_second_segment": 0}, True, [False, False, False, False]),
        (LINUX, False, [False, False, False, False]),
    ],
)
def test_every_second_segment_is_acknowledged_once_it_is_read(
    config: dict[str, Any], read: bool, at_once: list[bool]
) -> None:
    """Whatever its size. A read alone, of one segment, brings no ACK."""
    with established(options={"mss": 1460}, measured=True, **{**config, "quick_acks": 0}) as scene:
        seen = []
        for _ in at_once:
            scene.peer.send("A", payload=b"d" * 100)
            if read:
                scene.read()
                scene.testbed.pump()
                scene.testbed.pump()
            seen.append(bool(scene.peer.drain()))
        assert seen == at_once
        scene.read()
        scene.peer.send("R")


def test_a_second_segment_that_waits_is_acknowledged_with_the_read() -> None:
    with established(options={"mss": 1460}, measured=True, **{**LINUX, "quick_acks": 0}) as scene:
        for _ in range(2):
            scene.peer.send("A", payload=b"d" * 100)
        scene.peer.expect_nothing()
        scene.read()
        scene.testbed.pump()
        scene.peer.expect("A", ack=201)
        scene.peer.send("A", payload=b"d" * 100)
        scene.peer.expect_nothing()  # it is the first again
        scene.read()
        scene.peer.send("R")


# ---------------------------------------------------------------- the window's growth


def window_after(written: list[int], acked: int, **config: Any) -> int:
    """In segments, after writes of so many; an ACK for each `acked` of them, the last for what is left."""
    with established(options={"mss": 1000}, measured=True, pacing=0, **config) as scene:
        before = 0
        for segments in written:
            scene.send(bytes(segments * 1000))
            for last in range(acked, segments + acked, acked):
                scene.peer.send("A", ack=1 + (before + min(last, segments)) * 1000)
            before += segments
        scene.peer.drain()
        window: int = scene.info()["cwnd"] // 1000
        scene.peer.send("R", seq=1)
        return window


@pytest.mark.parametrize(
    ("written", "acked", "rfc", "linux"),
    [
        ([10], 2, 14, 20),
        ([9], 2, 14, 18),
        ([5], 1, 11, 10),
        ([6, 6, 6], 2, 14, 12),
        ([1, 1, 1], 1, 10, 10),
    ],
)
@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_how_far_a_slow_start_grows(written: list[int], acked: int, rfc: int, linux: int, cc: str) -> None:
    """To twice the flight, where all its ACKs count by what was in flight when it was sent."""
    assert window_after(written, acked, cc=cc) == rfc
    assert window_after(written, acked, cc=cc, **LINUX) == linux
    assert window_after(written, acked, cc=cc, **{**LINUX, "window_growth": 0}) == rfc


@pytest.mark.parametrize(("config", "grown"), [(RFC, 3), (LINUX, 1)], ids=["rfc", "linux"])
@pytest.mark.parametrize("sack", [True, False])
def test_what_was_told_of_before_it_was_acknowledged(config: dict[str, Any], grown: int, sack: bool) -> None:
    """Two duplicate ACKs, and then one for three segments."""
    options: dict[str, Any] = {"mss": 1000, "sack_permitted": True} if sack else {"mss": 1000}
    with syn_received(options=options, pacing=0, **config) as scene:
        scene.testbed.advance(40 * MILLISECOND)  # so long a path that what comes 1 ms later is not late
        scene.peer.send("A")
        scene.accept()
        scene.send(bytes(20_000))
        scene.testbed.advance(40 * MILLISECOND)
        iss = scene.peer.iss or 0
        for last in (2001, 3001):
            block = ((iss + 1001) & 0xFFFFFFFF, (iss + last) & 0xFFFFFFFF)
            scene.testbed.advance(MILLISECOND)
            scene.peer.send("A", ack=1, options={"nop": 2, "sack": [block]} if sack else {})
        before = scene.info()["cwnd"]
        scene.peer.send("A", ack=3001)
        assert scene.info()["cwnd"] - before == grown * 1000
        scene.peer.drain()
        scene.peer.send("R", seq=1)


# ---------------------------------------------------------------- PSH


def frames_of_a_write(octets: int, **config: Any) -> list[tuple[int, bool]]:
    """Data and PSH of each frame that one write becomes, where the link segments."""
    seen: list[tuple[int, bool]] = []

    def note(frame: bytes, _index: int) -> bool:
        if frame[12:14] == b"\x08\x00" and not frame[47] & 2 and len(frame) > 14 + 20 + 32:  # data
            seen.append((len(frame) - 14 - 20 - 32, bool(frame[47] & 8)))
        return True

    with Pair(network={"segmentation_offload": True, "delay_ns": MILLISECOND}, pacing=0, **config) as pair:
        pair.network.filter_ab = note
        client, server = pair.connect()
        server.send(bytes(octets))
        got = bytearray()

        def arrived() -> bool:
            got.extend(read_available(client)[0])
            return len(got) == octets

        pair.run_until(arrived, 10 * SECOND)
        client.close()
        server.close()
        pair.run_until(pair.at_rest, 300 * SECOND)
    return seen


@pytest.mark.parametrize(("config", "pushed"), [(RFC, [False, True]), (LINUX, [True, True])], ids=["rfc", "linux"])
def test_what_ends_with_a_push(config: dict[str, Any], pushed: list[bool]) -> None:
    """A write that the window cuts in two: the first frame has several segments, and ends nothing that was written."""
    frames = frames_of_a_write(4 * 1448 + 700, initial_window_segments=4, **config)
    assert frames == [(4 * 1448, pushed[0]), (700, pushed[1])]


@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_single_segments_of_a_write_end_it_alone_with_a_push(config: dict[str, Any]) -> None:
    with established(options=ALL_OPTIONS, pacing=0, **config) as scene:
        scene.send(bytes(3 * 1448 + 700))
        assert ["P" in segment.flags for segment in scene.peer.drain()] == [False, False, False, True]
        scene.peer.send("A", ack=1 + 3 * 1448 + 700)


@pytest.mark.parametrize(("config", "pushed"), [(RFC, False), (LINUX, True)], ids=["rfc", "linux"])
def test_what_goes_at_once_in_several_segments_ends_with_a_push(config: dict[str, Any], pushed: bool) -> None:
    """Where the link does not segment: four of a write of seven, then the next as the window opens, one by one."""
    with established(options=ALL_OPTIONS, measured=True, pacing=0, initial_window_segments=4, **config) as scene:
        scene.send(bytes(7 * 1448))
        assert ["P" in segment.flags for segment in scene.peer.drain()] == [False, pushed, False, pushed]
        for number in range(1, 4):
            scene.peer.wnd = 4 * 1448 // 128 + 1  # in units of its scale
            scene.peer.send("A", ack=1 + number * 1448)
            assert ["P" in segment.flags for segment in scene.peer.drain()] == [number == 3]
        scene.peer.send("R")


@pytest.mark.parametrize(
    ("distance_ms", "window", "every"),
    [
        (0, 40, 5),  # half of what goes at once
        (0, 7, 3),  # half of the largest window
        (0, 3, 2),  # but two
        (40, 40, 2),  # what the rate brings in a millisecond, two at least
    ],
)
@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_how_often_a_long_write_is_pushed(config: dict[str, Any], distance_ms: int, window: int, every: int) -> None:
    """The first flight of a write of twenty segments; its last one is alone in a window of seven or three."""
    with syn_received(options={"mss": 1000}, wnd=window * 1000, pacing=0, **config) as scene:
        scene.testbed.advance(distance_ms * MILLISECOND)
        scene.peer.send("A")
        scene.accept()
        scene.send(bytes(20_000))
        flight = min(window, 10)
        pushed = [number for number, segment in enumerate(scene.peer.drain(), 1) if "P" in segment.flags]
        assert pushed == ([*range(every, flight + 1, every)] if config else [])
        scene.peer.send("R", seq=1)


@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_a_single_segment_of_a_write_is_not_pushed(config: dict[str, Any]) -> None:
    """Half of a window of two is one."""
    with established(options={"mss": 1000}, pacing=0, initial_window_segments=2, **config) as scene:
        scene.send(bytes(4000))
        assert ["P" in segment.flags for segment in scene.peer.drain()] == [False, False]
        scene.peer.send("R", seq=1)


# ---------------------------------------------------------------- probes


def behind_a_closed_window(**config: Any) -> Scene:
    """Ten bytes were acknowledged, and ten more wait: SND.UNA is 11."""
    scene = established(options=ALL_OPTIONS, measured=True, **config)
    scene.send(b"a" * 10)
    scene.peer.expect("PA", payload=b"a" * 10)
    scene.peer.wnd = 0
    scene.peer.send("A")
    scene.send(b"b" * 10)
    scene.peer.expect_nothing()
    return scene


@pytest.mark.parametrize(
    ("config", "seq", "payload"),
    [(RFC, 11, b"b"), (LINUX, 10, b""), ({**LINUX, "window_probe_bytes": 1}, 11, b"b")],
)
def test_what_probes_a_closed_window(config: dict[str, Any], seq: int, payload: bytes) -> None:
    with behind_a_closed_window(**config) as scene:
        for _ in range(3):
            scene.peer.wait(SECOND)
            scene.peer.expect("A", seq=seq, payload=payload)
            scene.peer.send("A", ack=11)
        assert scene.testbed.counted()["window_probes_out"] == 3
        scene.peer.wnd = 100
        scene.peer.rcv_nxt = 11
        scene.peer.send("A")
        scene.peer.expect("PA", seq=11, payload=b"b" * 10)
        scene.peer.send("A")
        scene.peer.expect_nothing()


def test_a_window_that_closes_over_what_is_in_flight_is_probed_with_its_first_byte() -> None:
    """It has to go again in any case, and an empty probe repairs nothing."""
    with established(options=ALL_OPTIONS, measured=True, **LINUX) as scene:
        scene.send(b"a" * 10)
        scene.peer.expect("PA", payload=b"a" * 10)
        scene.peer.send("A", ack=1, wnd=0)
        scene.peer.wait(SECOND)
        scene.peer.expect("A", seq=1, payload=b"a")
        scene.peer.send("A", ack=11)


@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_a_fin_behind_a_closed_window_is_delivered(config: dict[str, Any]) -> None:
    with behind_a_closed_window(**config) as scene:
        scene.shutdown()
        scene.peer.wait(SECOND)
        scene.peer.drain()
        scene.peer.wnd = 100
        scene.peer.rcv_nxt = 11
        scene.peer.send("A", ack=11)
        scene.peer.expect("FPA", seq=11, payload=b"b" * 10)
        scene.peer.send("R")


@pytest.mark.parametrize(("config", "longest_s"), [(RFC, 60), (LINUX, 120)], ids=["rfc", "linux"])
def test_probes_and_timeouts_back_off_to(config: dict[str, Any], longest_s: int) -> None:
    with behind_a_closed_window(**config) as scene:
        waited = []
        for _ in range(14):
            waited.append(scene.peer.wait(200 * SECOND))
            scene.peer.drain()
            scene.peer.send("A", ack=11)
        assert [round(one / SECOND) for one in waited[-3:]] == [longest_s] * 3
        scene.abort()
        scene.peer.drain()


@pytest.mark.parametrize("config", [RFC, LINUX], ids=["rfc", "linux"])
def test_a_keepalive_is_one_before_snd_una_in_both(config: dict[str, Any]) -> None:
    with established(options=ALL_OPTIONS, keepalive_idle_ns=SECOND, **config) as scene:
        scene.conn.keepalive = True
        scene.peer.wait(2 * SECOND)
        scene.peer.expect("A", seq=0)
        scene.peer.send("R")


# ---------------------------------------------------------------- the retransmission timeout


@pytest.mark.parametrize(
    ("config", "rtt_ms", "timeout_ms"),
    [
        (RFC, 1, 200),
        (LINUX, 1, 201),
        (RFC, 100, 200),
        (LINUX, 100, 300),
        ({**LINUX, "rto_variance_min_ns": 0}, 100, 200),
        ({"rto_variance_min_ns": 150 * MILLISECOND}, 150, 300),
    ],
)
def test_the_timeout_of_a_steady_path(config: dict[str, Any], rtt_ms: int, timeout_ms: int) -> None:
    """After so many equal round trips that RTTVAR is next to nothing."""
    with established(options=ALL_OPTIONS, measured=True, tail_probe_min_ns=60 * SECOND, **config) as scene:
        for _ in range(60):
            scene.send(b"x")
            scene.peer.expect("PA", payload=b"x")
            scene.testbed.advance(rtt_ms * MILLISECOND)
            scene.peer.send("A")
        scene.send(b"y")
        scene.peer.expect("PA", payload=b"y")
        assert abs(scene.peer.wait(10 * SECOND) - timeout_ms * MILLISECOND) <= 2 * MILLISECOND
        scene.peer.send("R")


# ---------------------------------------------------------------- backlog


@pytest.mark.parametrize(("config", "taken"), [(RFC, 2), (LINUX, 3), ({**LINUX, "backlog_extra": 0}, 2)])
def test_how_many_a_backlog_of_two_holds(config: dict[str, Any], taken: int) -> None:
    with listen(**config) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=2)
        peers = [ScriptedPeer(scene.testbed, port=5000 + index) for index in range(5)]
        answered = 0
        for peer in peers:
            peer.send("S", options=SYN_OPTIONS)
            if peer.queue:
                answered += 1
                peer.expect("SA")
                peer.send("A")
        assert answered == taken
        assert scene.testbed.dropped() == {"drop_tcp_syn_queue": 5 - taken}
        for peer in peers[:taken]:
            peer.send("R")


# ---------------------------------------------------------------- corrective ACKs


def answers(scene: Scene, *, seconds: int, every_ms: int, **segment: Any) -> list[int]:
    """Send the same segment again and again: when it was answered, in milliseconds."""
    at = []
    for now in range(0, seconds * 1000, every_ms):
        scene.peer.send("A", **segment)
        if scene.peer.drain():
            at.append(now)
        scene.testbed.advance(every_ms * MILLISECOND)
    return at


@pytest.mark.parametrize(
    ("config", "kind", "most"),
    [
        (RFC, "junk", 4),
        (LINUX, "junk", 4),
        (RFC, "keepalive", 200),
        (LINUX, "keepalive", 4),
        ({**LINUX, "probe_answers_limited": 0}, "keepalive", 200),
        (RFC, "old data", 200),
        (LINUX, "old data", 200),
        ({**LINUX, "corrective_interval_ns": 0}, "junk", 200),
        ({**LINUX, "corrective_interval_ns": 0}, "keepalive", 200),
        ({**LINUX, "corrective_interval_ns": SECOND}, "junk", 2),
    ],
)
def test_how_often_a_connection_is_corrected_in_two_seconds(config: dict[str, Any], kind: str, most: int) -> None:
    segment: dict[str, dict[str, Any]] = {
        "junk": {"seq": 0x30000000},
        "keepalive": {"seq": 0},
        "old data": {"seq": 0, "payload": b"x"},
    }
    with established(options=ALL_OPTIONS, **config) as scene:
        at = answers(scene, seconds=2, every_ms=10, **segment[kind])
        assert len(at) == most
        if most < 200:
            gap = config.get("corrective_interval_ns", 500 * MILLISECOND) // MILLISECOND
            assert all(gap <= later - before <= gap + 50 for before, later in pairwise(at))
        scene.peer.send("R")


@pytest.mark.parametrize(("config", "all_are"), [(RFC, False), (LINUX, True)], ids=["rfc", "linux"])
def test_whether_all_connections_together_have_a_limit(config: dict[str, Any], all_are: bool) -> None:
    """300 of one peer's are more than the eighth of 500 to 1,500 in a second that one peer may have."""
    with listen(**config) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=400)
        peers = [ScriptedPeer(scene.testbed, port=5000 + index) for index in range(300)]
        for peer in peers:
            peer.send("S", options=SYN_OPTIONS)
            peer.expect("SA")
            peer.send("A")
            peer.send("R", seq=peer.snd_nxt + 5)
        assert all(peer.queue for peer in peers) is all_are
        for peer in peers:
            peer.send("R")


# ---------------------------------------------------------------- the table


def test_a_profile_is_made_of_settings_within_their_bounds() -> None:
    table = settings()
    for profile, values in PROFILES.items():
        for name, value in values.items():
            assert table[name].low <= value <= table[name].high, (profile, name)


def test_rfc_is_the_defaults_themselves() -> None:
    assert profile_settings("rfc") == {}


@pytest.mark.parametrize("name", ["", "Linux", "bsd"])
def test_a_profile_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"profile {name!r}: there is none; there are: rfc, linux"):
        Stack(SimNetwork().a, now_ns=0, profile=name)


def test_a_receive_buffer_that_is_set_stays_whatever_the_profile_says_of_the_largest() -> None:
    """The scale of a SYN is that of the largest window: 0 for one of 20,000 bytes."""
    for buffer, wscale in ((20_000, 0), (16 << 20, 9)):
        with Testbed(profile="linux", rcv_buffer_bytes=buffer) as testbed:
            peer = ScriptedPeer(testbed, port=7777, stack_port=None)
            connection = testbed.stack.connect(PEER_ADDRESS, 7777, wait=False)
            testbed.pump()
            peer.expect("S", options={"wscale": wscale})
            connection.abort()
            testbed.pump()


def test_the_readme_has_a_row_for_each_setting_of_the_profile() -> None:
    text = (ROOT / "README.md").read_text().split("### A Linux profile", 1)[1].split("\n#", 1)[0]
    named = set(re.findall(r"`(\w+)`", "".join(line for line in text.splitlines() if line.startswith("|"))))
    assert named == PROFILES["linux"].keys()

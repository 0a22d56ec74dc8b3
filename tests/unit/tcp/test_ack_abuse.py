# SPDX-License-Identifier: MIT
"""Receivers that acknowledge for gain: in pieces, before the data is there, what was never sent, and again and again.

Savage et al., "TCP Congestion Control with a Misbehaving Receiver" (1999): ACK division, optimistic ACKs, duplicate ACK
spoofing. RFC 3465 (bytes are counted, not ACKs) and RFC 5961 section 5.2 (what was never sent) are the defences.
"""

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

BY_WINDOW = ("newreno", "cubic")
CONTROLS = (*BY_WINDOW, "bbr")
SMSS = 1460
FIRST_WINDOW = 10 * SMSS


def sending(cc: str, octets: int = 4_000_000) -> Scene:
    """A connection whose application sends much to a peer with a large window: its first flight is on the wire."""
    scene = established(cc=cc, options={"mss": SMSS, "nop": 1, "wscale": 9})
    scene.peer.send("A", wnd=16384)  # 8 MB
    scene.send(bytes(octets))
    return scene


def flown(peer: ScriptedPeer) -> int:
    """The end of what has been sent, relative; what has arrived is taken."""
    return max((peer.relative(segment)[0] + segment.length for segment in peer.drain()), default=0)


def acknowledge(scene: Scene, start: int, end: int, step: int) -> None:
    """From start to end by ACKs of `step` bytes each."""
    for ack in range(start + step, end + step, step):
        scene.peer.send("A", ack=min(ack, end), wnd=16384)


@pytest.mark.parametrize("cc", BY_WINDOW)
@pytest.mark.parametrize("pieces", [2, 10, 100])
def test_in_slow_start_an_ack_in_pieces_opens_the_window_no_further_than_a_whole_one(cc: str, pieces: int) -> None:
    """By the bytes that are acknowledged (RFC 3465 section 2.2), and never by ACKs: 1,000 of them cover one flight."""
    windows = []
    for step in (SMSS, SMSS // pieces):
        with sending(cc) as scene:
            end = flown(scene.peer)
            assert end == 1 + FIRST_WINDOW
            scene.testbed.advance(20 * MILLISECOND)
            acknowledge(scene, 1, end, step)
            windows.append(scene.info()["cwnd"])
            assert windows[-1] <= FIRST_WINDOW + (end - 1)
            scene.abort()
    assert windows[1] <= windows[0]


@pytest.mark.parametrize("cc", BY_WINDOW)
def test_in_congestion_avoidance_a_window_acknowledged_byte_by_byte_opens_it_by_a_segment(cc: str) -> None:
    """RFC 5681 section 3.1, equation (3), by bytes (RFC 3465 section 2.1). Byte by byte: thousands of ACKs."""
    with sending(cc) as scene:
        end = flown(scene.peer)
        scene.peer.wait(5 * SECOND)  # nothing was acknowledged: a timeout ends slow start at half of what was in flight
        scene.testbed.advance(10 * MILLISECOND)
        while scene.info()["cwnd"] <= scene.info()["ssthresh"]:
            end = max(end, flown(scene.peer))
            acknowledge(scene, end - 1, end, 1)
            scene.testbed.advance(20 * MILLISECOND)
        acknowledge(scene, end - 1, max(end, flown(scene.peer)), SMSS)
        before = scene.info()
        end = max(before["snd_una"], flown(scene.peer))
        una = (before["snd_una"] - (scene.peer.iss or 0)) & 0xFFFFFFFF
        flight = before["snd_max"] - before["snd_una"] & 0xFFFFFFFF
        assert flight >= 2 * SMSS
        acknowledge(scene, una, una + flight, 7)
        after = scene.info()
        assert before["cwnd"] <= after["cwnd"] <= before["cwnd"] + 2 * SMSS
        scene.abort()


@pytest.mark.parametrize("cc", CONTROLS)
@pytest.mark.parametrize("beyond", [1, SMSS, 100_000, 1 << 30])
def test_what_was_never_sent_cannot_be_acknowledged(cc: str, beyond: int) -> None:
    """RFC 5961 section 5.2: it is not taken, and challenged."""
    with sending(cc) as scene:
        end = flown(scene.peer)
        before = scene.info()
        scene.peer.send("A", ack=end + beyond)
        after = scene.info()
        assert {name: after[name] for name in ("cwnd", "snd_una", "snd_nxt")} == {
            name: before[name] for name in ("cwnd", "snd_una", "snd_nxt")
        }
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}
        assert scene.testbed.counted()["challenge_acks_out"] == 1
        scene.abort()


@pytest.mark.parametrize("cc", CONTROLS)
def test_acks_ahead_of_the_data_open_the_window_by_what_was_sent_and_no_faster(cc: str) -> None:
    """Optimistic ACKs: everything is acknowledged the instant it is sent. What is in flight never exceeds the window,
    and that grows by what was sent: the same as an honest receiver with a shorter round trip would make of it."""
    with sending(cc) as scene:
        acked = 1
        for _ in range(6):
            end = flown(scene.peer)
            info = scene.info()
            assert end - acked <= info["cwnd"]
            scene.peer.send("A", ack=end, wnd=16384)
            acked = end
            assert scene.info()["cwnd"] <= FIRST_WINDOW + (acked - 1)
        scene.abort()


@pytest.mark.parametrize("cc", CONTROLS)
def test_duplicates_that_no_segment_can_have_caused_send_no_more_than_those_that_one_has(cc: str) -> None:
    """Each segment in flight is good for one duplicate, a round trip after it was sent: ten were. A thousand duplicates
    at one instant release no more new data than ten segments and the three of limited transmit and of its entry (RFC
    5681 section 3.2, RFC 6582)."""
    with sending(cc) as scene:
        end = flown(scene.peer)
        scene.testbed.advance(20 * MILLISECOND)
        for _ in range(1000):
            scene.peer.send("A", ack=1, wnd=16384)
        sent = max(end, flown(scene.peer)) - end
        assert sent <= FIRST_WINDOW + 3 * SMSS
        assert scene.info()["cwnd"] <= 2 * FIRST_WINDOW + 3 * SMSS
        scene.abort()

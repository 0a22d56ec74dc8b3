# SPDX-License-Identifier: MIT
"""Rules of RFC 7323 about single segments: what is ignored, what is echoed, what comes first.

Negotiation and PAWS itself: test_negotiation.py. The clock behind TSval: records/test_timestamps.py.
"""

import pytest

from ustack.testing.states import ALL_OPTIONS, established, listen, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

SCALED = {"mss": 1460, "nop": 1, "wscale": 7}


def test_a_window_scale_outside_of_a_syn_is_ignored() -> None:
    """Section 2.2: MUST be ignored, and the segment is processed as any other."""
    with established(options=SCALED, wnd=1000) as scene:
        scene.peer.send("A", payload=b"x", options={"nop": 1, "wscale": 2})
        assert scene.info()["snd_wnd"] == 1000 << 7
        assert scene.read() == b"x"


@pytest.mark.parametrize("wscale", [0, 14])
def test_the_window_of_our_syn_is_not_scaled(wscale: int) -> None:
    """Section 2.2: MUST NOT. Our own shift is 5 here: scaled, 2,000 bytes would be 62."""
    sizes = {"rcv_buffer_bytes": 2000, "rcv_buffer_max_bytes": 1 << 20}
    with listen(**sizes) as scene:
        scene.peer.send("S", options={"mss": 1460, "nop": 1, "wscale": wscale})
        scene.peer.expect("SA", wnd=2000, options={"wscale": 5})
    with syn_sent(**sizes) as scene:
        scene.peer.expect_after(SECOND, "S", wnd=2000, options={"wscale": 5})


def test_the_echo_of_a_syn_is_zero() -> None:
    """Section 3.2: without an ACK there is nothing to echo."""
    with syn_sent() as scene:
        syn = scene.peer.expect_after(SECOND, "S")
        assert syn.options["timestamps"][1] == 0


def test_the_echo_in_a_syn_is_ignored() -> None:
    """Section 3.2: TSecr of a segment without ACK MUST be ignored; here it would be a round trip of 40 ms."""
    with listen() as scene:
        scene.peer.send("S", options=ALL_OPTIONS)
        answer = scene.peer.expect("SA", seq=0, ack=1)
        now = answer.options["timestamps"][0]
        scene.testbed.advance(40 * MILLISECOND)
        scene.peer.send("S", seq=0, options={**ALL_OPTIONS, "timestamps": (scene.peer.ts_now, now)})
        scene.peer.expect("SA", seq=0, ack=1)
        scene.peer.send("A", options={"nop": 2, "timestamps": (scene.peer.ts_now, 0)})
        scene.accept()
        assert scene.info()["srtt_us"] == 0


def test_timestamps_that_were_not_agreed_on_are_ignored() -> None:
    """Section 3.2: ignored, and the segment is processed as any other, however old it says that it is."""
    with established() as scene:
        for stamp, octet in ((5000, b"a"), (4000, b"b"), (0x90000000, b"c"), (1, b"d")):
            scene.peer.send("A", payload=octet, options={"nop": 2, "timestamps": (stamp, 77)})
        scene.testbed.advance(SECOND)
        assert scene.read() == b"abcd"
        assert scene.testbed.dropped() == {}
        assert all("timestamps" not in segment.options for segment in scene.peer.drain())


def test_what_fills_a_hole_is_echoed() -> None:
    """Section 4.3, case C: the timestamp of the segment that fills the hole and advances the window MUST be echoed."""
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(10 * MILLISECOND)
        scene.peer.send("A", seq=1449, payload=b"y" * 100)
        scene.peer.expect("A", ack=1)
        scene.testbed.advance(30 * MILLISECOND)
        filler = scene.peer.send("A", seq=1, payload=b"x" * 1448)
        answer = scene.peer.expect("A", ack=1549)
        assert answer.options["timestamps"][1] == filler.options["timestamps"][0]
        assert len(scene.read()) == 1548


def test_age_is_asked_at_the_arrival_and_not_again() -> None:
    """Section 5.3: what waits beyond a hole was new when it came, whatever is newer when it becomes in order."""
    with established(options=ALL_OPTIONS) as scene:
        scene.peer.send("A", seq=2, payload=b"b")
        scene.testbed.advance(10 * SECOND)
        scene.peer.send("A", seq=1, payload=b"a")
        assert scene.read() == b"ab"
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("seq", [-100, 1 << 29])
def test_age_is_asked_before_the_sequence_number(seq: int) -> None:
    """Section 5.3: PAWS MUST take precedence over the acceptability check."""
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", payload=b"x")
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.testbed.mark()
        old = {"nop": 2, "timestamps": ((scene.peer.ts_now - 5000) & 0xFFFFFFFF, scene.peer.ts_recent)}
        scene.peer.send("A", seq=seq, payload=b"old", options=old)
        scene.peer.expect("A", seq=1, ack=2)
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}

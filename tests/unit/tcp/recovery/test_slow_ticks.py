# SPDX-License-Identifier: MIT
"""The round trip of who tells time by ticks of half a second: their echo does not say which sending it answers."""

import pytest

from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MILLISECOND

MSS = 1448
ROUNDS = 12


def reorder(scene: Scene) -> int:
    """Three segments, the last SACKed before the others are acknowledged; the end of what is acknowledged then."""
    scene.send(bytes(3 * MSS))
    segments = scene.peer.drain()
    ends = [scene.peer.relative(segment)[0] + len(segment.payload) for segment in segments]
    assert len(ends) == 3
    scene.testbed.advance(40 * MILLISECOND)
    edges = tuple(((scene.peer.iss or 0) + at) & 0xFFFFFFFF for at in ends[1:])
    echo = (scene.peer.ts_now, scene.peer.ts_recent)
    scene.peer.send("A", ack=1, options={"nop": 2, "timestamps": echo, "sack": [edges]})
    for end in (ends[0], ends[2]):  # what comes late is the first sending: so says the echo
        scene.peer.send("A", ack=end, options={"nop": 2, "timestamps": echo})
    scene.peer.drain()
    return ends[2]


def exchange(scene: Scene, ack: int, rtt_ms: int) -> int:
    """One segment, whose first sending is acknowledged rtt_ms later, with its timestamp; how often it went again."""
    scene.send(bytes(100))
    stamp = scene.peer.drain()[0].options["timestamps"][0]
    again = 0
    for _ in range(rtt_ms // 5):
        scene.testbed.advance(5 * MILLISECOND)
        again += len([segment for segment in scene.peer.drain() if segment.payload])
    scene.peer.send("A", ack=ack, options={"nop": 2, "timestamps": (scene.peer.ts_now, stamp)})
    scene.peer.drain()
    return again


@pytest.mark.parametrize("phase_ms", range(0, 512, 96))
def test_a_longer_round_trip_is_learnt(phase_ms: int) -> None:
    """Karn's rule (RFC 9293 MUST-18): what was sent again is measured only where its ACK tells which sending it is
    for. Else a path that has become longer than the RTO would time out each time."""
    with established(options=ALL_OPTIONS, seed=3) as scene:
        ack = reorder(scene)
        for _ in range(8):
            ack += 100
            assert exchange(scene, ack, 40) == 0
            scene.testbed.advance(100 * MILLISECOND)
        scene.testbed.advance(phase_ms * MILLISECOND)
        again = []
        for _ in range(ROUNDS):
            ack += 100
            again.append(exchange(scene, ack, 260))
            scene.testbed.advance(764 * MILLISECOND)
        assert again[0] > 0
        assert sum(again[ROUNDS // 2 :]) == 0
        scene.abort()

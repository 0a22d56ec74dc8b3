# SPDX-License-Identifier: MIT
"""Well-formed segments that make no sense: random flags, numbers near the edges of both windows, random user calls.

No expectation about each answer, but what must hold always: nothing crashes (the asan build looks closer), every frame
has at most one drop reason, RFC 9293's variables stay in order, what was acknowledged stays acknowledged, a RST is
never answered, and at the end nothing leaks.
"""

import random
from typing import Any

import pytest

from ustack import StackError
from ustack.testing import states
from ustack.testing.leaks import difference, refusals
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene
from ustack.testing.testbed import MILLISECOND, SECOND

BUILDERS = {
    "listen": states.listen,
    "syn_sent": states.syn_sent,
    "syn_received": states.syn_received,
    "established": states.established,
    "fin_wait_1": states.fin_wait_1,
    "fin_wait_2": states.fin_wait_2,
    "close_wait": states.close_wait,
    "closing": states.closing,
    "last_ack": states.last_ack,
    "time_wait": states.time_wait,
}
EDGES = (-70_000, -1500, -2, -1, 0, 0, 0, 0, 1, 2, 100, 1459, 1460, 2047, 2048, 65_534, 65_535, 65_536, 1 << 31)
FLAGS = ("A", "A", "A", "PA", "FA", "S", "SA", "R", "RA", "F", "", "UA", "SF", "SR", "FPU", "SAFR", "AEC")
SIZES = (0, 0, 0, 1, 2, 100, 1460)
WINDOWS = (0, 0, 1, 100, 1460, 8192, 65_535)


def random_options(generator: random.Random, scene: Scene) -> dict[str, Any]:
    """Sometimes options, sometimes out of place."""
    kind = generator.randrange(8)
    if kind == 0:
        return {"timestamps": (scene.peer.ts_now + generator.choice(EDGES), generator.getrandbits(32))}
    if kind == 1:
        left = scene.peer.isn + generator.randrange(5000)
        return {"nop": 2, "sack": [(left, left + generator.randrange(-10, 3000))]}
    if kind == 2:
        return {"mss": generator.choice((0, 1, 536, 65_535)), "nop": 1, "wscale": generator.randrange(256)}
    return {}


def random_segment(generator: random.Random, scene: Scene) -> None:
    """Send one, near where the connection is."""
    peer = scene.peer
    flags = generator.choice(FLAGS)
    peer.drain()
    before = scene.testbed.stack.counters()
    scene.testbed.frames.clear()
    peer.send(
        flags,
        seq=peer.snd_nxt + generator.choice(EDGES),
        ack=peer.rcv_nxt + generator.choice(EDGES),
        wnd=generator.choice(WINDOWS),
        payload=bytes(generator.choice(SIZES)),
        options=random_options(generator, scene),
        urgent=generator.randrange(65_536),
    )
    counted = difference(scene.testbed.stack.counters(), before)
    assert sum(refusals(counted).values()) <= 1, counted
    answers = [segment for segment in peer.drain() if "R" in segment.flags]
    assert not ("R" in flags and answers), f"{flags} was answered with {answers[0]}"
    assert len(answers) <= 1


def random_call(generator: random.Random, scene: Scene) -> None:
    """The application does something, sensible or not."""
    conn = scene.connection
    if conn is None:
        if scene.listener is not None and scene.listener.pending:
            scene.accept()
        return
    call = generator.randrange(8)
    try:
        if call == 0:
            conn.send(bytes(generator.choice((0, 1, 100, 5000, 100_000))))
        elif call < 4:
            conn.receive(generator.choice((1, 100, 65_536)), timeout=0)
        elif call == 4 and generator.random() < 0.2:
            conn.shutdown()
        elif call == 5 and generator.random() < 0.1:
            conn.close()
        elif call == 6 and generator.random() < 0.05:
            conn.abort()
        elif call == 7:
            conn.nodelay = not conn.nodelay
    except (StackError, BlockingIOError):
        pass
    scene.testbed.pump()


def check_variables(scene: Scene, before: dict[str, Any] | None) -> dict[str, Any] | None:
    """SND.UNA <= SND.NXT <= SND.MAX; RCV.NXT and SND.UNA never move back."""
    rows = scene.testbed.stack.connections("connection")
    if not rows:
        return None
    assert len(rows) == 1
    row = rows[0]
    assert (row["snd_nxt"] - row["snd_una"]) & SEQUENCE_MASK < 1 << 31
    assert (row["snd_max"] - row["snd_nxt"]) & SEQUENCE_MASK < 1 << 31
    assert row["rcv_wnd"] < 1 << 30
    if before is not None and row["state"] not in ("SYN-SENT", "SYN-RECEIVED") and before["state"] == row["state"]:
        assert (row["snd_una"] - before["snd_una"]) & SEQUENCE_MASK < 1 << 31
        assert (row["rcv_nxt"] - before["rcv_nxt"]) & SEQUENCE_MASK < 1 << 31
    return row


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("state", BUILDERS)
def test_random_segments_and_calls(state: str, seed: int) -> None:
    generator = random.Random(f"{state} {seed}")
    parameters: dict[str, Any] = {"rcv_buffer_bytes": generator.choice((2048, 20_000, 512 * 1024))}
    if state not in ("listen", "syn_sent"):
        parameters["options"] = generator.choice((SYN_OPTIONS, ALL_OPTIONS))
    with BUILDERS[state](**parameters) as scene:
        row = None
        for _ in range(60):
            random_segment(generator, scene)
            if generator.random() < 0.4:
                random_call(generator, scene)
            if generator.random() < 0.1:
                scene.testbed.advance(generator.choice((MILLISECOND, 50 * MILLISECOND, SECOND, 100 * SECOND)))
            row = check_variables(scene, row)
        scene.peer.drain()

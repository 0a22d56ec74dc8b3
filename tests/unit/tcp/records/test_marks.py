# SPDX-License-Identifier: MIT
"""Low-water marks of a connection: when on_writable comes, what may be queued, and the record that keeps them."""

from collections.abc import Iterator
from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import PEER_ADDRESS, SECOND, Testbed

MSS = 1000
PEER_PORT = 40000
QUEUE_BYTES = 20000
LOW_WATER_BYTES = 10000
CALL_NO_MEMORY = -2
CALL_STATE = -4


class Scene:
    """A stack with a Recorder at port 80, and peers that offer as little window as a test wants."""

    def __init__(self, **config: Any) -> None:
        settings = {"msl_ns": 0, "snd_queue_bytes": QUEUE_BYTES, "snd_low_water_bytes": LOW_WATER_BYTES, **config}
        self.bed = Testbed(**settings)
        self.bed.introduce()
        self.recorder = Recorder()
        self.bed.stack.listen(80, application=self.recorder)

    def open(self, port: int = PEER_PORT, *, wnd: int = 65535) -> ScriptedPeer:
        peer = ScriptedPeer(self.bed, port=port)
        peer.wnd = wnd
        peer.send("S", options={"mss": MSS})
        peer.expect("SA")
        peer.send("A")
        return peer

    def act(self, action: Any, port: int = PEER_PORT) -> int:
        return self.recorder.act(port, action)

    def turn(self) -> None:
        """One turn, at the present time."""
        self.bed.network.advance(self.bed.now_ns)
        self.bed.stack.poll(self.bed.now_ns)
        self.bed.network.advance(self.bed.now_ns)

    def is_due(self) -> bool:
        """Will run() make a turn now, without waiting for a frame?"""
        at = self.bed.stack.next_deadline_ns
        return at is not None and at <= self.bed.now_ns

    def writable(self, port: int = PEER_PORT) -> int:
        return self.recorder.names(port).count("writable")

    def extras(self) -> int:
        return self.bed.stack.leaks()["extras"]


def made(**config: Any) -> Iterator[Scene]:
    scene = Scene(**config)
    with scene.bed:
        yield scene
        for port in scene.recorder.ports:
            scene.act("abort", port)
        scene.bed.pump()
        assert scene.recorder.errors == []
        assert scene.extras() == 0


@pytest.fixture
def scene() -> Iterator[Scene]:
    yield from made()


# ---------------------------------------------------------------- bytes that were never sent


def test_the_unsent_mark_is_reached_by_sending_and_told_in_the_next_turn(scene: Scene) -> None:
    peer = scene.open(wnd=2 * MSS)
    assert scene.act(("unsent_low_water", MSS)) == 0
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    scene.bed.pump()
    peer.catch_up()
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (3 * MSS, 0)
    assert not scene.is_due()
    peer.send("A", pump=False)
    scene.turn()
    # Output has sent two segments more, after this turn's upcalls.
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (MSS, 0)
    assert scene.is_due()
    scene.turn()
    assert scene.writable() == 1
    assert not scene.is_due()


def test_it_waits_for_the_other_mark_too(scene: Scene) -> None:
    peer = scene.open()
    scene.act(("low_water", MSS))
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    scene.bed.pump()
    peer.catch_up()
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (0, 0)
    peer.send("A", ack=1 + 4 * MSS - 1)
    assert scene.writable() == 0
    peer.send("A", ack=1 + 4 * MSS)
    assert scene.writable() == 1


def test_what_is_sent_again_is_not_sent_for_the_first_time(scene: Scene) -> None:
    peer = scene.open(wnd=2 * MSS)
    scene.act(("unsent_low_water", 2 * MSS))
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    scene.bed.pump()
    for _ in range(3):
        peer.drain()
        peer.wait(5 * SECOND)
    assert scene.bed.counted()["segments_retransmitted"] >= 3
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (3 * MSS, 0)
    peer.drain()
    peer.send("A", ack=1 + MSS)
    scene.bed.pump()
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (2 * MSS, 1)


def test_a_window_probe_sends_its_byte_for_the_first_time(scene: Scene) -> None:
    peer = scene.open(wnd=0)
    scene.act(("unsent_low_water", 0))
    scene.act(("send", b"x"))
    scene.act("want_writable")
    scene.bed.pump()
    peer.expect_nothing()
    assert scene.writable() == 0
    peer.wait(2 * SECOND)
    scene.bed.pump()
    assert scene.bed.counted()["window_probes_out"] >= 1
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (0, 1)


def test_nothing_is_queued_while_more_than_the_mark_is_unsent(scene: Scene) -> None:
    peer = scene.open(wnd=2 * MSS)
    scene.act(("unsent_low_water", MSS))
    assert scene.recorder.room(PEER_PORT) == QUEUE_BYTES
    assert scene.act(("send", b"x" * 5 * MSS)) == 5 * MSS  # one range may exceed it
    assert (scene.recorder.room(PEER_PORT), scene.act(("send", b"y"))) == (0, 0)
    scene.bed.pump()
    assert (scene.recorder.unsent(PEER_PORT), scene.act(("send", b"y"))) == (3 * MSS, 0)
    peer.catch_up()
    peer.send("A")
    assert scene.recorder.unsent(PEER_PORT) == MSS
    assert scene.recorder.room(PEER_PORT) == QUEUE_BYTES - 3 * MSS
    assert scene.act(("send", b"y")) == 1


def test_a_mark_of_zero_lets_one_range_at_a_time_through(scene: Scene) -> None:
    """A writable connection takes something, or an application would be called for ever."""
    peer = scene.open(wnd=2 * MSS)
    scene.act(("unsent_low_water", 0))
    calls: list[tuple[int, int]] = []

    def produce(port: int) -> None:
        calls.append((scene.recorder.unsent(port), scene.act(("send", b"x" * 3 * MSS))))
        scene.act("want_writable")

    scene.recorder.on("writable", produce)
    scene.act("want_writable")
    received = 0
    for _ in range(12):
        scene.bed.pump()
        received += len(peer.catch_up())
        assert 0 < scene.recorder.unsent(PEER_PORT) <= 3 * MSS
        peer.send("A")
    assert received == 12 * 2 * MSS
    assert calls == [(0, 3 * MSS)] * (12 * 2 // 3 + 1)
    scene.recorder.on("writable")


def test_the_stack_wide_mark_is_everybodys_who_has_none(scene: Scene) -> None:
    with Testbed(msl_ns=0, snd_unsent_low_water_bytes=MSS) as bed:
        bed.introduce()
        recorder = Recorder()
        bed.stack.listen(80, application=recorder)
        peer = ScriptedPeer(bed, port=PEER_PORT)
        peer.wnd = 2 * MSS
        peer.send("S", options={"mss": MSS})
        peer.expect("SA")
        peer.send("A")
        recorder.act(PEER_PORT, ("send", b"x" * 4 * MSS))
        recorder.act(PEER_PORT, "want_writable")
        bed.pump()
        peer.catch_up()
        assert (recorder.names(), recorder.room(PEER_PORT)) == (["accept"], 0)
        peer.send("A", ack=1 + MSS)
        bed.pump()
        assert recorder.names() == ["accept", "writable"]
        assert bed.stack.leaks()["extras"] == 0
        recorder.act(PEER_PORT, "abort")
        bed.pump()


# ---------------------------------------------------------------- what a mark may be


@pytest.mark.parametrize(
    ("wanted", "low", "unsent"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (QUEUE_BYTES - 1, QUEUE_BYTES - 1, QUEUE_BYTES - 1),
        (QUEUE_BYTES, QUEUE_BYTES // 2, QUEUE_BYTES),
        (QUEUE_BYTES + 1, QUEUE_BYTES // 2, QUEUE_BYTES),
        (0x7FFFFFFF, QUEUE_BYTES // 2, QUEUE_BYTES),
        (0x80000000, QUEUE_BYTES // 2, QUEUE_BYTES),
        (0xFFFFFFFF, QUEUE_BYTES // 2, QUEUE_BYTES),
    ],
)
def test_a_mark_stays_below_what_would_call_a_full_queue_writable(
    scene: Scene, wanted: int, low: int, unsent: int
) -> None:
    scene.open()
    assert scene.recorder.marks(PEER_PORT) == (LOW_WATER_BYTES, QUEUE_BYTES)
    assert scene.act(("low_water", wanted)) == 0
    assert scene.recorder.marks(PEER_PORT) == (low, QUEUE_BYTES)
    assert scene.act(("unsent_low_water", wanted)) == 0
    assert scene.recorder.marks(PEER_PORT) == (low, unsent)


def test_a_full_queue_is_not_writable_however_large_the_marks_are(scene: Scene) -> None:
    peer = scene.open()
    scene.act(("low_water", 0xFFFFFFFF))
    scene.act(("unsent_low_water", 0xFFFFFFFF))
    assert scene.act(("send", b"x" * 2 * QUEUE_BYTES)) == QUEUE_BYTES
    scene.act("want_writable")
    scene.bed.pump()
    assert scene.writable() == 0
    peer.drain()
    peer.send("A", ack=1 + MSS)
    assert scene.writable() == 0
    peer.drain()
    peer.send("A", ack=1 + QUEUE_BYTES // 2)
    assert scene.writable() == 1


def test_the_lowest_mark_waits_for_the_last_acknowledgment(scene: Scene) -> None:
    peer = scene.open()
    scene.act(("low_water", 0))
    scene.act(("send", b"x" * MSS))
    scene.act("want_writable")
    scene.bed.pump()
    peer.send("A", ack=MSS)
    assert scene.writable() == 0
    peer.send("A", ack=1 + MSS)
    assert scene.writable() == 1


# ---------------------------------------------------------------- changed while a wish waits


@pytest.mark.parametrize("mark", ["low_water", "unsent_low_water"])
def test_raising_a_mark_may_make_the_wish_due(scene: Scene, mark: str) -> None:
    scene.open(wnd=MSS)
    scene.act((mark, MSS))
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    scene.bed.pump()
    scene.act((mark, 2 * MSS))
    assert not scene.is_due()
    scene.act((mark, 5 * MSS))
    assert scene.writable() == 0  # never from inside a downcall
    assert scene.is_due()
    scene.turn()
    assert scene.writable() == 1
    scene.turn()
    assert scene.writable() == 1


@pytest.mark.parametrize("mark", ["low_water", "unsent_low_water"])
def test_lowering_a_mark_puts_the_wish_off(scene: Scene, mark: str) -> None:
    """Even one that was due and has not been told yet."""
    peer = scene.open(wnd=MSS)
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    scene.act((mark, MSS))
    scene.bed.pump()
    assert scene.writable() == 0
    for acked in range(1, 4):
        peer.drain()
        peer.send("A", ack=1 + acked * MSS)
        scene.bed.pump()
        assert scene.writable() == (mark == "unsent_low_water" and acked == 3)
    peer.drain()
    peer.send("A", ack=1 + 4 * MSS)
    scene.bed.pump()
    assert scene.writable() == 1


def test_what_is_queued_after_the_wish_counts(scene: Scene) -> None:
    peer = scene.open()
    scene.act("want_writable")
    scene.act(("send", b"x" * (LOW_WATER_BYTES + 1)))
    scene.bed.pump()
    assert scene.writable() == 0
    peer.send("A", ack=2)
    assert scene.writable() == 1


@pytest.mark.parametrize("early", [b"", b"early"])
def test_a_wish_from_before_the_connection_is_established_waits_for_on_accept(scene: Scene, early: bytes) -> None:
    peer = ScriptedPeer(scene.bed, port=7, stack_port=None)
    scene.recorder.connect(PEER_ADDRESS, 7)
    assert scene.act(("unsent_low_water", 0), 7) == 0
    assert scene.act(("send", early), 7) == len(early)  # before its SYN is sent: nothing is unsent but this
    assert scene.recorder.unsent(7) == len(early)
    scene.act("want_writable", 7)
    scene.bed.pump()
    scene.act(("low_water", MSS), 7)
    scene.bed.pump()
    assert scene.recorder.names() == []
    peer.expect("S")
    peer.send("SA", options={"mss": MSS})
    scene.bed.pump()
    assert scene.recorder.names() == ["connected", "writable"]


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("ending", ["close", "abort"])
@pytest.mark.parametrize("mark", ["low_water", "unsent_low_water"])
@pytest.mark.parametrize("due", [False, True], ids=["waiting", "due"])
def test_after_close_and_abort_nobody_is_told(scene: Scene, ending: str, mark: str, due: bool) -> None:
    peer = scene.open(wnd=MSS)
    scene.act((mark, 5 * MSS if due else MSS))
    scene.act(("send", b"x" * 5 * MSS))
    scene.act("want_writable")
    assert scene.is_due()  # to send, or to tell
    scene.act(ending)
    scene.act((mark, 4 * MSS))
    scene.bed.pump()
    while peer.queue and ending == "close":
        peer.catch_up()
        peer.send("A")
    assert scene.recorder.names() == ["accept"] + ["closed"] * (ending == "abort")


def test_after_shutdown_the_rest_of_the_queue_is_still_told(scene: Scene) -> None:
    peer = scene.open()
    scene.act(("low_water", 0))
    scene.act(("send", b"x" * MSS))
    scene.act("want_writable")
    scene.act("shutdown")
    scene.bed.pump()
    peer.catch_up()
    assert (scene.recorder.unsent(PEER_PORT), scene.writable()) == (0, 0)
    peer.send("A")
    assert scene.writable() == 1
    scene.act("want_writable")
    scene.bed.pump()
    assert scene.writable() == 2


def test_on_closed_is_too_late_for_a_mark(scene: Scene) -> None:
    answers: list[int] = []
    scene.open()
    scene.recorder.on(
        "closed",
        lambda port: answers.append(scene.act(("low_water", 1), port)),
        lambda port: answers.append(scene.act(("unsent_low_water", 1), port)),
    )
    scene.act("abort")
    scene.bed.pump()
    assert answers == [CALL_STATE, CALL_STATE]


# ---------------------------------------------------------------- the record


def test_only_a_connection_with_marks_of_its_own_has_a_record(scene: Scene) -> None:
    scene.open(1000)
    scene.open(1001)
    assert scene.extras() == 0
    scene.act(("low_water", LOW_WATER_BYTES), 1000)  # what it has already
    scene.act(("unsent_low_water", 1 << 30), 1000)
    assert scene.extras() == 0
    scene.act(("low_water", 5), 1000)
    scene.act(("unsent_low_water", 6), 1000)
    assert scene.extras() == 1
    assert [scene.recorder.marks(port) for port in (1000, 1001)] == [(5, 6), (LOW_WATER_BYTES, QUEUE_BYTES)]
    scene.act(("low_water", LOW_WATER_BYTES), 1000)
    assert scene.extras() == 1
    scene.act(("unsent_low_water", QUEUE_BYTES), 1000)
    assert scene.extras() == 0
    scene.act(("low_water", 5), 1001)
    scene.act("abort", 1001)
    scene.bed.pump()
    assert scene.extras() == 0


def test_without_a_record_the_marks_stay_as_they_were() -> None:
    for scene in made(extra_records=1):
        scene.open(1000)
        scene.open(1001)
        assert scene.act(("low_water", 5), 1000) == 0
        for mark in ("low_water", "unsent_low_water"):
            assert scene.act((mark, 5), 1001) == CALL_NO_MEMORY
        assert scene.act(("low_water", LOW_WATER_BYTES), 1001) == 0
        assert scene.recorder.marks(1001) == (LOW_WATER_BYTES, QUEUE_BYTES)
        scene.act("abort", 1000)
        scene.bed.pump()
        assert scene.act(("low_water", 5), 1001) == 0
        assert scene.recorder.marks(1001) == (5, QUEUE_BYTES)


def test_marks_and_a_path_share_the_record(scene: Scene) -> None:
    """Neither goes with the other: the path MTU is forgotten after a while, marks are taken back."""
    peer = scene.open(wnd=65535)
    scene.act(("send", b"x" * 2 * MSS))
    scene.bed.pump()
    first = peer.drain()[0]
    scene.act(("low_water", 5))
    peer.send_icmp_error(3, 4, first, mtu=600)
    [row] = scene.bed.stack.connections("connection")
    assert row["smss"] == 600 - 40
    assert (scene.recorder.marks(PEER_PORT), scene.extras()) == ((5, QUEUE_BYTES), 1)
    scene.act(("low_water", LOW_WATER_BYTES))
    assert scene.extras() == 1  # the path's
    scene.act(("unsent_low_water", 5))
    peer.drain()
    peer.rcv_nxt = 1 + 2 * MSS
    peer.send("A")
    scene.bed.advance(601 * SECOND)
    scene.act(("send", b"x"))
    scene.bed.pump()
    [row] = scene.bed.stack.connections("connection")
    assert (row["smss"], scene.recorder.marks(PEER_PORT)) == (MSS, (LOW_WATER_BYTES, 5))
    assert scene.extras() == 1
    scene.act(("unsent_low_water", QUEUE_BYTES))
    held = scene.bed.stack.leaks()
    assert (held["extras"], held["sockopts"], held["histories"]) == (1, 0, 1)  # what was sent again is remembered
    scene.act("abort")
    scene.bed.pump()
    assert scene.extras() == 0


# ---------------------------------------------------------------- what waits costs nothing


@pytest.mark.parametrize("waiting", ["paused", "writable", "unsent"])
def test_a_connection_that_waits_costs_nothing_in_a_thousand_turns(scene: Scene, waiting: str) -> None:
    """No upcall, no look at it, no unit of work: turns with another connection's work are as if it were not there."""
    idle = scene.open(1000, wnd=MSS)
    busy = scene.open(1001)
    for warming in range(3):
        busy.send("A", payload=b"x")
        assert scene.recorder.names(1001).count("data") == warming + 1
    if waiting == "paused":
        scene.recorder.consume = 0
        idle.send("A", payload=b"x" * 10)
        scene.recorder.consume = None
    else:
        scene.act(("unsent_low_water" if waiting == "unsent" else "low_water", MSS), 1000)
        scene.act(("send", b"x" * 5 * MSS), 1000)
        scene.act("want_writable", 1000)
        scene.bed.pump()
    idle.drain()
    upcalls = len(scene.recorder.names(1000))
    before = scene.bed.stack.turns()
    for _ in range(1000):
        busy.send("A", payload=b"x", pump=False)
        scene.turn()
    after = scene.bed.stack.turns()
    assert {name: after[name] - before[name] for name in after} == {**dict.fromkeys(after, 0), "turns": 1000}
    assert after["connections_max"] == 1
    assert scene.recorder.names(1001).count("data") == 1003
    assert len(scene.recorder.names(1000)) == upcalls
    # The proof that it would have been seen: with work for both, a turn looks at two.
    wakes = {"paused": "resume", "writable": ("low_water", 5 * MSS), "unsent": ("unsent_low_water", 4 * MSS)}
    scene.act(wakes[waiting], 1000)
    busy.send("A", payload=b"x", pump=False)
    scene.turn()
    assert scene.bed.stack.turns()["connections_max"] == 2

# SPDX-License-Identifier: MIT
"""A congestion control written in Python, in a connection: its events, its end, its errors."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any, ClassVar

import pytest

from ustack.tcp.cc.registry import names
from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register
from ustack.testing.parts.controls import Control
from ustack.testing.states import established
from ustack.testing.testbed import MILLISECOND, SECOND

SMSS = 1000
IW = 10 * SMSS
MSS = 1460


class Written(CongestionControl):
    """Additive increase by a quarter of a segment, a fifth less at a loss; writes down what it is told."""

    name = "written"
    made: ClassVar[weakref.WeakSet[Written]] = weakref.WeakSet()

    def __init__(self, window: Window) -> None:
        self.calls: list[tuple[Any, ...]] = [("init", window.cwnd)]
        self.made.add(self)

    def on_ack(self, window: Window, ack: Ack) -> None:
        self.calls.append(("ack", ack.acked, ack.flight))
        if not ack.in_recovery:
            window.cwnd += window.smss * ack.acked // (4 * window.cwnd)

    def on_loss(self, window: Window, flight: int) -> None:
        self.calls.append(("loss", flight))
        window.cwnd = window.ssthresh = flight * 4 // 5


class Broken(CongestionControl):
    """Raises what it is told to, in the event it is told."""

    name = "written"
    event = ""
    error: BaseException = ValueError("on purpose")

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).event:
            raise type(self).error
        return super().__getattribute__(name)


class Hasty(CongestionControl):
    """Four segments per second with the first ACK, four thousand with the next ones."""

    name = "written"

    def __init__(self, window: Window) -> None:
        self.acks = 0

    def on_ack(self, window: Window, ack: Ack) -> None:
        self.acks += 1
        window.pacing_rate = 4 * MSS if self.acks == 1 else 4000 * MSS


@pytest.fixture(autouse=True)
def registered() -> None:
    register(Written)
    Broken.event, Broken.error = "", ValueError("on purpose")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    caught: list[BaseException] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_value))
    return caught


def test_it_is_chosen_by_name_like_any_other() -> None:
    assert "written" in names()
    with established(cc="written") as scene:
        assert scene.conn.cc == "written"
        scene.send(bytes(20 * MSS))
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.info()["cwnd"] == 10 * MSS + MSS // 4
        (control,) = list(Written.made)
        assert control.calls == [("init", 10 * MSS), ("ack", 10 * MSS, 10 * MSS)]
        scene.abort()


def test_a_connection_takes_it_while_it_lives_and_lets_it_go() -> None:
    """Hot-swapped both ways: from the window that the other one has left."""
    with established(cc="newreno") as scene:
        scene.send(bytes(10 * MSS))
        scene.peer.catch_up()
        scene.peer.send("A")
        window = scene.info()["cwnd"]
        scene.conn.cc = "written"
        (control,) = list(Written.made)
        assert control.calls == [("init", window)]
        del control
        scene.conn.cc = "cubic"
        gc.collect()
        assert list(Written.made) == []
        assert scene.info()["cwnd"] == window
        scene.abort()


def test_a_faster_rate_brings_forward_what_waits_for_a_slow_one() -> None:
    """The next frame goes when it may at the new rate, not when the timer of the old one comes."""
    register(Hasty)
    with established(cc="written", wnd=65535) as scene:
        scene.send(bytes(40 * MSS))
        assert len(scene.peer.catch_up()) == 10 * MSS
        scene.peer.send("A", ack=1 + 8 * MSS)
        at_once = len(scene.peer.catch_up())
        assert at_once <= 2 * MSS
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.expect_nothing()
        scene.peer.send("A", ack=1 + 9 * MSS)
        scene.testbed.advance(4 * MILLISECOND)
        assert at_once + len(scene.peer.catch_up()) == 9 * MSS
        scene.abort()


def test_the_object_goes_with_the_connection() -> None:
    with established(cc="written") as scene:
        scene.send(b"x")
        assert len(Written.made) == 1
        scene.abort()
    gc.collect()
    assert list(Written.made) == []


def test_what_it_does_not_say_is_as_rfc_5681_asks() -> None:
    made, bare = Control("written", SMSS, IW), Control("newreno", SMSS, IW)
    for event in ("on_rto", "on_idle"):
        for control in (made, bare):
            control.window = (50 * SMSS, 60 * SMSS)
            getattr(control, event)(40 * SMSS)
        assert made.window == bare.window
    made.window = (50 * SMSS, 60 * SMSS)
    made.on_ecn(40 * SMSS)
    assert made.window == (32 * SMSS, 32 * SMSS)  # its own on_loss
    made.on_spurious(50 * SMSS, 60 * SMSS)
    assert made.window == (50 * SMSS, 60 * SMSS)
    made.on_mtu(SMSS // 2)
    assert made.window == (25 * SMSS, 60 * SMSS)
    made.release()


@pytest.mark.parametrize("event", ["on_ack", "on_loss", "on_ecn", "on_timeout", "on_spurious", "on_idle", "on_mtu"])
def test_after_an_error_the_connection_has_newreno_and_the_error_is_told(
    event: str, reports: list[BaseException]
) -> None:
    register(Broken)
    made, newreno = Control("written", SMSS, IW), Control("newreno", SMSS, IW)
    Broken.event = event
    for control in (made, newreno):
        control.window = (20 * SMSS, 0x7FFFFFFF)
        if event == "on_ack":
            control.on_ack(SMSS, 20 * SMSS)
        elif event == "on_timeout":
            control.on_rto(20 * SMSS)
        elif event == "on_spurious":
            control.on_spurious(30 * SMSS, 30 * SMSS)
        elif event == "on_mtu":
            control.on_mtu(SMSS // 2)
        else:
            getattr(control, event)(20 * SMSS)
    assert [str(report) for report in reports] == ["on purpose"]
    assert made.window == newreno.window
    for control in (made, newreno):  # and so it goes on, without another word
        for _ in range(50):
            control.on_ack(SMSS, control.window[0])
        control.on_loss(30 * SMSS)
    assert (made.window, len(reports)) == (newreno.window, 1)
    made.release()


def test_one_that_cannot_be_made_is_newreno_from_the_start(reports: list[BaseException]) -> None:
    Broken.event = "__class__"

    class Unmade(CongestionControl):
        name = "written"

        def __init__(self, window: Window) -> None:
            raise OSError("no such thing")

    register(Unmade)
    with established(cc="written") as scene:
        scene.send(bytes(20 * MSS))
        scene.peer.catch_up()
        scene.peer.send("A")
        assert (scene.info()["cwnd"], [type(report) for report in reports]) == (20 * MSS, [OSError])
        scene.abort()


@pytest.mark.parametrize("value", [-1, 0x40000001, 1.5, None, "much"])
def test_a_window_that_cannot_be_is_an_error(value: Any, reports: list[BaseException]) -> None:
    class Wild(CongestionControl):
        name = "written"

        def on_ack(self, window: Window, ack: Ack) -> None:
            window.cwnd = value

    register(Wild)
    made = Control("written", SMSS, IW)
    made.on_ack(SMSS, IW)
    assert made.window == (IW + SMSS, 0x7FFFFFFF)  # NewReno's answer to the same ACK
    assert [type(report) for report in reports] == [ValueError]
    made.release()


def test_the_stack_refuses_to_be_called_from_an_event(reports: list[BaseException]) -> None:
    class Curious(CongestionControl):
        name = "written"
        stack: Any = None

        def on_ack(self, window: Window, ack: Ack) -> None:
            self.stack.connections("connection")

    register(Curious)
    with established(cc="written") as scene:
        Curious.stack = scene.testbed.stack
        scene.send(bytes(100))
        scene.peer.catch_up()
        scene.peer.send("A")
        assert [type(report).__name__ for report in reports] == ["OwnershipError"]
        scene.testbed.advance(SECOND)
        Curious.stack = None
        scene.abort()


def test_an_interrupt_is_not_the_controls_fault(reports: list[BaseException]) -> None:
    register(Broken)
    Broken.event, Broken.error = "on_ack", KeyboardInterrupt()
    made = Control("written", SMSS, IW)

    def three_acks() -> None:
        for _ in range(3):
            made.on_ack(SMSS, IW)

    with pytest.raises(KeyboardInterrupt):
        three_acks()
    Broken.event = ""
    made.on_ack(SMSS, IW)
    assert (reports, made.window[0]) == ([], IW)  # its own on_ack, which does not grow
    made.release()


def test_an_interrupt_of_a_controls_beginning_is_the_callers(reports: list[BaseException]) -> None:
    class Begins(CongestionControl):
        name = "written"

        def __init__(self, window: Window) -> None:
            raise KeyboardInterrupt

    register(Begins)

    def begin() -> None:
        Control("written", SMSS, IW).on_ack(SMSS, IW)

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert reports == []


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "new\0reno", "newreno", "cubic"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    class Named(CongestionControl):
        pass

    Named.name = name
    with pytest.raises(ValueError, match="name="):
        register(Named)


@pytest.mark.parametrize("thing", [None, object, Control, "written"])
def test_what_is_no_control_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="CongestionControl"):
        register(thing)

# SPDX-License-Identifier: MIT
"""What ends the sleep of run() on a real link, besides frames: stop() and calls from other threads, and descriptors."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack import OwnershipError, Stack
from ustack.link.device import Link
from ustack.testing.parts.endless_link import EndlessLink

pytestmark = pytest.mark.root

Wire = Any  # the class is in conftest
JOIN_S = 60.0


class Sleeper:
    """A stack on a silent link, and a thread that is inside its run()."""

    def __init__(self, wire: Wire) -> None:
        self.link = self.over(wire.open(busy_poll="never").link)
        self.stack = Stack(self.link, "198.18.0.2/24")
        self.failure: BaseException | None = None
        self.running = threading.Event()
        self.stack.call_soon_threadsafe(self.running.set)
        self.thread = threading.Thread(target=self.run)

    def over(self, link: Link) -> Link:
        """What the stack sees of the link."""
        return link

    def run(self) -> None:
        try:
            self.stack.run()
        except BaseException as error:
            self.failure = error

    def start(self) -> None:
        self.thread.start()
        assert self.running.wait(JOIN_S)

    def join(self) -> None:
        self.thread.join(JOIN_S)
        assert not self.thread.is_alive()

    def close(self) -> None:
        if self.thread.is_alive():
            self.stack.stop()
            self.join()
        self.stack.close()


@pytest.fixture(params=["veth", "tap"])
def sleeper(request: pytest.FixtureRequest, make_wire: Callable[[str], Wire]) -> Iterator[Sleeper]:
    sleeper = Sleeper(make_wire(request.param))
    yield sleeper
    sleeper.close()


def test_stop_ends_a_sleep(sleeper: Sleeper) -> None:
    sleeper.start()
    sleeper.stack.stop()
    sleeper.join()
    assert sleeper.failure is None


def test_a_call_is_made_in_the_thread_of_run_and_may_use_the_stack(sleeper: Sleeper) -> None:
    sleeper.start()
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def call(number: int) -> None:
        seen.append((number, threading.get_ident()))
        sleeper.stack.connections("connection")
        if number == 3:
            done.set()

    with pytest.raises(OwnershipError):
        sleeper.stack.connections("connection")
    for number in (1, 2, 3):
        sleeper.stack.call_soon_threadsafe(call, number)
    assert done.wait(JOIN_S)
    assert [number for number, _ in seen] == [1, 2, 3]
    assert {ident for _, ident in seen} == {sleeper.thread.ident}
    assert 1 <= sleeper.stack.wakeups <= 4


def test_what_a_call_raises_comes_out_of_run_and_the_rest_is_kept(sleeper: Sleeper) -> None:
    sleeper.start()
    kept: list[int] = []

    def fail() -> None:
        sleeper.stack.call_soon_threadsafe(kept.append, 1)
        raise ZeroDivisionError

    sleeper.stack.call_soon_threadsafe(fail)
    sleeper.join()
    assert isinstance(sleeper.failure, ZeroDivisionError)
    assert kept == []
    sleeper.stack.run(0)
    sleeper.stack.call_soon_threadsafe(sleeper.stack.stop)
    sleeper.stack.run()
    assert kept == [1]


def test_a_descriptor_that_can_be_read_ends_a_sleep(sleeper: Sleeper) -> None:
    reading, writing = os.pipe()
    got: list[bytes] = []

    def take(size: int) -> None:
        got.append(os.read(reading, size))
        if got[-1] == b"end":
            assert sleeper.stack.remove_reader(reading)
            sleeper.stack.stop()

    try:
        sleeper.stack.add_reader(reading, take, 100)
        sleeper.start()
        os.write(writing, b"end")
        sleeper.join()
        assert sleeper.failure is None
        assert got == [b"end"]
        assert not sleeper.stack.remove_reader(reading)
    finally:
        os.close(reading)
        os.close(writing)


def test_what_cannot_be_watched_is_refused(sleeper: Sleeper) -> None:
    with pytest.raises(ValueError, match="fd -1: must be from 0"):
        sleeper.stack.add_reader(-1, print)
    with pytest.raises(OSError, match="descriptor"):
        sleeper.stack.add_reader(0x7FFFFFFF, print)
    assert not sleeper.stack.remove_reader(0x7FFFFFFF)


@pytest.mark.tap
def test_a_closed_stack_takes_no_calls_and_holds_no_descriptors(make_wire: Callable[[str], Wire]) -> None:
    link = make_wire("tap").open().link
    before = len(os.listdir("/proc/self/fd"))
    stack = Stack(link, "198.18.0.2/24")
    stack.run(0)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    stack.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="closed"):
        stack.call_soon_threadsafe(print)


# ---------------------------------------------------------------- without a deadline


class EndlessSleeper(Sleeper):
    """A Sleeper whose engine never comes up by itself: a sleep that nobody ends hangs the test."""

    def over(self, link: Link) -> Link:
        self.asleep = os.eventfd(0, os.EFD_CLOEXEC)
        self.endless = EndlessLink(link, self.asleep)
        return self.endless

    def wait_asleep(self, sleeps: int) -> None:
        """Until the engine has decided to sleep: nothing but what the test does next can end it."""
        assert select.select([self.asleep], [], [], JOIN_S)[0]
        os.eventfd_read(self.asleep)
        assert self.endless.sleeps == sleeps

    def close(self) -> None:
        super().close()
        os.close(self.asleep)


@pytest.fixture(params=["veth", "tap"])
def endless(request: pytest.FixtureRequest, make_wire: Callable[[str], Wire]) -> Iterator[EndlessSleeper]:
    sleeper = EndlessSleeper(make_wire(request.param))
    yield sleeper
    sleeper.close()


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_wait_without_a_deadline_ends_by_the_wake_descriptor(make_wire: Callable[[str], Wire], kind: str) -> None:
    driver = make_wire(kind).open(busy_poll="never")
    reading, writing = os.pipe()
    before = driver.link.counters()["waits"]
    try:
        os.write(writing, b"x")
        assert driver.sleep(reading) == 0
        assert driver.take() == []
        assert driver.link.counters()["waits"] == before + 1
    finally:
        os.close(reading)
        os.close(writing)


def test_stop_itself_ends_the_sleep(endless: EndlessSleeper) -> None:
    endless.thread.start()
    endless.wait_asleep(1)
    endless.stack.stop()
    endless.join()
    assert endless.failure is None
    assert (endless.endless.sleeps, endless.endless.woken) == (1, 1)


def test_each_call_itself_ends_a_sleep(endless: EndlessSleeper) -> None:
    endless.thread.start()
    made: list[int] = []
    for number in (1, 2, 3):
        endless.wait_asleep(number)
        assert made == list(range(1, number))
        endless.stack.call_soon_threadsafe(made.append, number)
    endless.wait_asleep(4)
    assert made == [1, 2, 3]
    assert endless.stack.wakeups == endless.endless.woken == 3


def test_a_readable_descriptor_itself_ends_the_sleep(endless: EndlessSleeper) -> None:
    reading, writing = os.pipe()
    got: list[bytes] = []
    try:
        endless.stack.add_reader(reading, lambda: got.append(os.read(reading, 100)))
        endless.thread.start()
        endless.wait_asleep(1)
        os.write(writing, b"some")
        endless.wait_asleep(2)
        assert got == [b"some"]
        assert endless.endless.woken == 1
        assert endless.stack.wakeups == 0  # nobody rang: it was the descriptor
    finally:
        endless.stack.stop()
        endless.join()
        os.close(reading)
        os.close(writing)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("call", ["run", "accept"])
def test_what_another_thread_drops_ends_the_sleep(endless: EndlessSleeper, call: str) -> None:
    """A finalizer cannot wait for the owner, so the owner must not sleep over what it left."""
    dropped = [endless.stack.listen(80)]
    listener = endless.stack.listen(81)

    def accept() -> None:
        with pytest.raises(ValueError, match="the listener is closed"):
            listener.accept()

    if call == "accept":
        endless.thread = threading.Thread(target=accept)
    endless.stack.call_soon_threadsafe(lambda: None)
    endless.thread.start()
    endless.wait_asleep(1)
    dropped.clear()
    endless.wait_asleep(2)
    assert endless.stack.wakeups == endless.endless.woken == 1
    endless.stack.call_soon_threadsafe(listener.close)
    endless.stack.stop()
    endless.join()
    with endless.stack.listen(80):  # the port is free
        pass

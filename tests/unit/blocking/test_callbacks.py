# SPDX-License-Identifier: MIT
"""A blocking call makes other threads' calls between its turns, as run() does."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ustack import CallTimeout, OwnershipError, SimNetwork, Stack
from ustack.testing.testbed import PEER_ADDRESS

MakeStack = Callable[..., Any]
LONG_S = 60.0


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """On a real clock, and a wire on which nothing comes."""
    made: Stack = make_stack(SimNetwork().a)
    return made


class Ended(Exception):
    """What a callback raises."""


WAITS: dict[str, Callable[[Stack], object]] = {
    "accept": lambda stack: stack.listen(80).accept(timeout=LONG_S),
    "connect": lambda stack: stack.connect(PEER_ADDRESS, 80, timeout=LONG_S),
    "poll": lambda stack: stack.poller().poll(LONG_S),
    "receive": lambda stack: stack.connect(PEER_ADDRESS, 80, wait=False).receive(timeout=LONG_S),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("wait", WAITS)
def test_a_call_is_made_in_the_thread_that_waits_and_may_use_the_stack(stack: Stack, wait: str) -> None:
    seen: list[int] = []

    def call() -> None:
        seen.append(threading.get_ident())
        stack.connections("connection")
        if len(seen) == 3:
            raise Ended

    for _ in range(4):
        stack.call_soon_threadsafe(call)
    with pytest.raises(Ended):
        WAITS[wait](stack)
    assert seen == [threading.get_ident()] * 3
    stack.connections("connection")  # the gate is open


@contextmanager
def beside(body: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        thread.join(LONG_S)
    assert not thread.is_alive()


def test_another_threads_call_ends_a_wait(stack: Stack) -> None:
    """It closes what the call waits on."""
    listener = stack.listen(80)

    def ask() -> None:
        stack.call_soon_threadsafe(listener.close)

    with beside(ask), pytest.raises(ValueError, match="the listener is closed"):
        listener.accept(timeout=LONG_S)


def test_a_stack_that_a_call_has_closed_ends_a_wait(stack: Stack) -> None:
    listener = stack.listen(80)
    stack.call_soon_threadsafe(stack.close)
    with pytest.raises(ValueError, match="closed"):
        listener.accept(timeout=LONG_S)
    assert not any(stack.leaks().values())


def test_a_call_that_closes_a_stack_that_is_being_closed(stack: Stack) -> None:
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    connection.close()
    stack.call_soon_threadsafe(stack.close)
    stack.close(linger=0.01)
    assert not any(stack.leaks().values())


def test_a_descriptor_is_served_while_a_call_waits(stack: Stack) -> None:
    reading, writing = os.pipe()
    got: list[bytes] = []

    def take() -> None:
        got.append(os.read(reading, 10))
        raise Ended

    stack.add_reader(reading, take)
    os.write(writing, b"word")
    try:
        with pytest.raises(Ended):
            stack.listen(80).accept(timeout=LONG_S)
    finally:
        stack.remove_reader(reading)
        os.close(reading)
        os.close(writing)
    assert got == [b"word"]


def test_a_call_may_wait_itself(stack: Stack) -> None:
    """Inside, and calls are made there as well."""
    listener = stack.listen(80)
    order: list[str] = []

    def inner() -> None:
        order.append("inner begins")
        stack.call_soon_threadsafe(lambda: order.append("made inside"))
        with pytest.raises(CallTimeout):
            listener.accept(timeout=0.001)
        stack.run(0)
        order.append("inner ends")

    stack.call_soon_threadsafe(inner)
    with pytest.raises(CallTimeout):
        listener.accept(timeout=0.002)
    assert order == ["inner begins", "made inside", "inner ends"]


def test_a_thread_that_enters_while_a_call_is_made_keeps_the_gate(stack: Stack) -> None:
    """Who waited is told that the stack is another's, and does not open the gate under it."""
    listener = stack.listen(80)
    thread = threading.Thread(target=stack.run, name="other")

    def let_in() -> None:
        thread.start()
        while True:
            try:
                stack.connections("connection")
            except OwnershipError:
                return

    stack.call_soon_threadsafe(let_in)
    try:
        with pytest.raises(OwnershipError, match="other"):
            listener.accept(timeout=LONG_S)
        with pytest.raises(OwnershipError, match="other"):
            stack.connections("connection")
    finally:
        while thread.is_alive():
            stack.stop()
            thread.join(0.01)
    stack.connections("connection")


def test_a_manual_clock_makes_no_calls() -> None:
    with Stack(SimNetwork(now_ns=1).a, now_ns=1) as stack, stack.listen(80) as listener:
        made: list[int] = []
        stack.call_soon_threadsafe(made.append, 1)
        with pytest.raises(BlockingIOError):
            listener.accept()
        stack.poll(2)
        assert made == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_call_that_waits_itself_makes_those_behind_it(stack: Stack) -> None:
    """When it returns nothing is left to be called, and the turn goes on."""
    seen: list[str] = []

    def end() -> None:
        seen.append("second")
        raise Ended

    def wait() -> None:
        with pytest.raises(Ended):
            WAITS["accept"](stack)
        seen.append("first")
        stack.stop()

    stack.call_soon_threadsafe(wait)
    stack.call_soon_threadsafe(end)
    stack.run()
    assert seen == ["second", "first"]

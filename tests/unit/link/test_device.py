# SPDX-License-Identifier: MIT
"""A link is driven by one stack at a time: a second one would take the first one's frames."""

import gc
import io
import weakref

import pytest

from ustack.blocking.stack import Stack
from ustack.link.sim import SimNetwork
from ustack.link.tee import TeeLink


def test_a_second_stack_on_a_link_is_refused_until_the_first_is_closed() -> None:
    with SimNetwork() as network:
        first = Stack(network.a, "198.18.0.2/24", now_ns=0)
        with pytest.raises(ValueError, match="in use"):
            Stack(network.a, "198.18.0.3/24", now_ns=0)
        first.poll(0)
        first.close()
        with Stack(network.a, "198.18.0.3/24", now_ns=0) as second:
            second.poll(0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_stack_that_nobody_closed_frees_its_link() -> None:
    class Kept:
        """Something that makes the stack part of a cycle."""

    with SimNetwork() as network:
        stack = Stack(network.a, "198.18.0.2/24", now_ns=0)
        cycle = Kept()
        cycle.stack, cycle.listener, cycle.myself = stack, stack.listen(80), cycle  # type: ignore[attr-defined]
        gone = weakref.ref(cycle)
        del stack, cycle
        gc.collect()
        assert gone() is None
        Stack(network.a, "198.18.0.2/24", now_ns=0).close()


def test_a_stack_that_could_not_be_made_leaves_the_link_free() -> None:
    with SimNetwork() as network:
        with pytest.raises(ValueError, match="host"):
            Stack(network.a, "127.0.0.1/8", now_ns=0)
        Stack(network.a, "198.18.0.2/24", now_ns=0).close()


def test_a_recorded_link_is_its_captures() -> None:
    """The stack is on the capture; one beside it on the link would take frames that are never recorded."""
    with SimNetwork() as network:
        tee = TeeLink(network.a, io.BytesIO(), epoch_ns=0)
        with pytest.raises(ValueError, match="in use"):
            Stack(network.a, "198.18.0.2/24", now_ns=0)
        with pytest.raises(ValueError, match="in use"):
            TeeLink(network.a, io.BytesIO(), epoch_ns=0)
        with Stack(tee, "198.18.0.2/24", now_ns=0), pytest.raises(ValueError, match="in use"):
            Stack(tee, "198.18.0.3/24", now_ns=0)
        tee.close()


def test_a_link_under_a_stack_is_not_recorded_behind_its_back() -> None:
    with SimNetwork() as network, Stack(network.a, "198.18.0.2/24", now_ns=0):
        file = io.BytesIO()
        with pytest.raises(ValueError, match="in use"):
            TeeLink(network.a, file, epoch_ns=0)
        assert file.getvalue() == b""

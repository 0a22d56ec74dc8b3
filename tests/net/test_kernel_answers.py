# SPDX-License-Identifier: MIT
"""The kernel's stack is asked what ours is asked: by the same builders and scripted peers, at the end of a TAP device.

On a kernel whose answers are kept they must be those; on another one every script must come to its end.
"""

import os

import pytest

from tests.tree import ROOT
from ustack.testing import states
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.testbed import SECOND
from ustack.tools.conformance import answers
from ustack.tools.conformance.kernelbed import Kernel
from ustack.tools.conformance.questions import QUESTIONS, ask, policy
from ustack.tools.conformance.questions.record import Question

pytestmark = [pytest.mark.root, pytest.mark.tap]

KEPT = answers.folder(ROOT) / f"{answers.running()}.tsv"
POLICY = answers.folder(ROOT, answers.POLICY) / KEPT.name
ATTEMPTS = 8


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("one", QUESTIONS, ids=lambda one: one.name)
def test_the_kernel_answers_as_it_did(one: Question) -> None:
    before = descriptors()
    said = ask(Kernel(), one)
    assert descriptors() == before, "the namespace lives as long as one of them"
    assert not said.startswith("cannot be asked")
    if KEPT.exists():
        assert said == answers.read(KEPT).answers[one.name][1]


@pytest.mark.parametrize("one", policy.QUESTIONS, ids=lambda one: one.name)
def test_the_kernels_policy_is_what_it_was(one: Question) -> None:
    """Its timers go on while this process waits for a processor: one run that was not held up is enough."""
    kept = answers.read(POLICY, answers.POLICY).answers[one.name][2] if POLICY.exists() else None
    seen = []
    for _ in range(ATTEMPTS):
        seen.append(ask(Kernel(policy.SYSCTLS), one))
        if seen[-1] == kept or (kept is None and not seen[-1].startswith("cannot be asked")):
            return
    pytest.fail(f"kept: {kept}; seen: {seen}")


@pytest.mark.parametrize("role", ["passive", "active"])
def test_bytes_go_both_ways(role: str) -> None:
    with states.established(subject=Kernel(), role=role, measured=role == "passive") as scene:
        scene.send(b"hello")
        scene.peer.expect("A", seq=1, ack=1, payload=b"hello")
        scene.peer.send("PA", payload=b"world")
        assert scene.read() == b"world"
        scene.peer.send("FA")
        queue, end = scene.peer.queue, (scene.peer.isn + 7) & SEQUENCE_MASK
        scene.testbed.run_until(lambda: bool(queue) and queue[-1].ack == end, SECOND // 2)
        assert (scene.at_eof(), scene.state) == (True, "CLOSE-WAIT")


def test_what_a_timer_sends_is_waited_for() -> None:
    with states.syn_sent(subject=Kernel()) as scene:
        scene.peer.expect_nothing()
        scene.peer.wait(2 * SECOND)
        scene.peer.expect("S", seq=0)


def test_a_script_that_expects_something_else_fails() -> None:
    with states.established(subject=Kernel(), measured=True) as scene:
        scene.peer.send("R", seq=11)
        with pytest.raises(AssertionError, match="expected 'R', got 'A'"):
            scene.peer.expect("R", seq=1)


def test_it_is_in_no_namespace_of_the_callers() -> None:
    with states.established(subject=Kernel(), measured=True):
        assert "tap0" not in os.listdir("/sys/class/net")

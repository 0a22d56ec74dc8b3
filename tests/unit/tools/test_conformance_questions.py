# SPDX-License-Identifier: MIT
"""The questions that are put to both stacks: our answers, and the table that the document is made of.

The kernel is asked in tests/net/test_kernel_answers.py.
"""

from pathlib import Path

import pytest

from tests.tree import ROOT
from ustack.testing.states import SIMULATED, Scene, Subject, established
from ustack.tools.conformance import answers
from ustack.tools.conformance.questions import OURS, QUESTIONS, ask, policy
from ustack.tools.conformance.questions.record import Question, answer

KEPT = answers.latest(ROOT)
POLICY = answers.latest(ROOT, answers.POLICY)


@pytest.mark.parametrize("one", QUESTIONS, ids=lambda one: one.name)
def test_our_answer_is_the_rfcs_and_the_one_that_is_kept(one: Question) -> None:
    """Else: sudo make conformance ARGS=--kernel."""
    ours = ask(SIMULATED, one)
    assert one.name in OURS or not one.right or ours in one.right
    assert KEPT is not None
    assert KEPT.answers[one.name][0] == ours


def test_where_our_answer_is_another_it_is_said_why() -> None:
    assert KEPT is not None
    other = {one.name for one in QUESTIONS if one.right and KEPT.answers[one.name][0] not in one.right}
    assert other == set(OURS)


def test_every_question_has_a_name_of_its_own_and_its_answers() -> None:
    names = [one.name for one in QUESTIONS]
    assert len(names) == len(set(names))
    assert KEPT is not None
    assert set(KEPT.answers) == set(names)
    assert not any(said.startswith("cannot be asked") for both in KEPT.answers.values() for said in both)


@pytest.mark.parametrize("one", policy.QUESTIONS, ids=lambda one: one.name)
def test_our_policies_are_those_that_are_kept(one: Question) -> None:
    """Of the defaults and of the profile. Else: sudo make conformance ARGS=--kernel."""
    assert POLICY is not None
    assert POLICY.answers[one.name][:2] == (ask(SIMULATED, one), ask(policy.Profiled(), one))


def test_where_the_profile_is_not_linux_it_is_said_why() -> None:
    assert POLICY is not None
    assert set(POLICY.answers) == {one.name for one in policy.QUESTIONS}
    assert {name for name, (_, linux, kernel) in POLICY.answers.items() if linux != kernel} == set(policy.OURS)
    assert not any(said.startswith("cannot be asked") for three in POLICY.answers.values() for said in three)


def test_an_answer_says_what_came_where_it_leads_and_what_was_read() -> None:
    with established() as scene:
        assert answer(scene) == "nothing; ESTABLISHED"
        scene.peer.send("FA", payload=b"x")
        assert answer(scene, read=True) == "A seq=1 ack=3; CLOSE-WAIT; read b'x'"
        scene.send(b"more")
        assert answer(scene) == "A seq=1 ack=3 len=4; CLOSE-WAIT"
        scene.abort()


def test_a_script_that_cannot_go_on_says_so() -> None:
    def script(subject: Subject) -> str:
        with established(subject=subject) as scene:
            scene.peer.expect("SA")
        return "never"

    assert ask(SIMULATED, Question("q", "", "", (), script)).startswith("cannot be asked: expected <CTL=SA>")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "tests/data").mkdir(parents=True)
    given = {"one": ("nothing; CLOSED", "R seq=1; CLOSED"), "two": ("read b'x'", "read b''")}
    path = answers.write(tmp_path, given)
    assert path.stem == answers.running()
    assert answers.read(path).answers == given
    path.rename(path.with_name("linux-6.9.tsv"))
    answers.write(tmp_path, {}).rename(path.with_name("linux-6.18.tsv"))
    found = answers.latest(tmp_path)
    assert found is not None
    assert (found.kernel, found.answers) == ("Linux 6.18", {})


def test_scenes_of_the_questions_are_scenes_of_the_builders() -> None:
    """A subject is a parameter of every builder, and its scene what they return."""

    class Counted:
        opened = 0

        def open(self, role: str, seed: int, **config: object) -> Scene:
            self.opened += 1
            return SIMULATED.open(role, seed, **config)

    subject = Counted()
    with established(subject=subject), established(subject=subject, role="active"):
        assert subject.opened == 2

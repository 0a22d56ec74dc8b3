# SPDX-License-Identifier: MIT
"""Sweeps: what KEY=VALUE means, every combination once, any executor, and never more waiting than is said."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pickle import PicklingError
from threading import Lock
from typing import Any

import pytest

from ustack.sim import running
from ustack.sim.document import Document, ScenarioError
from ustack.sim.running import Outcome, run
from ustack.sim.scenario import Scenario
from ustack.sim.sweep import count, given, points, sweep

TEXT = b"""\
duration = "1 s"
seed = 5
hosts = ["a", "b"]
[links.a-b]
rate = "10 Mb/s"
delay = "5 ms"
[flows.f]
from = "a"
to = "b"
"""
DOCUMENT = Document.parse(TEXT, "x.toml")


class Late(Executor):
    """Does nothing until its result is asked for, and remembers how many waited."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.cancelled = 0

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        late = self

        class OnDemand(Future):  # type: ignore[type-arg]
            def result(self, timeout: float | None = None) -> Any:
                late.waiting -= 1
                return call(*arguments, **named)

            def cancel(self) -> bool:
                late.cancelled += 1
                return super().cancel()

        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return OnDemand()


def seen(scenario: Scenario) -> Outcome:
    return Outcome(scenario.name, scenario.seed, scenario.point)


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("seed=7", ("seed",), [("7", 7)]),
        ("flows.f.cc=cubic,bbr", ("flows", "f", "cc"), [("cubic", "cubic"), ("bbr", "bbr")]),
        ("links.a-b.loss=0,0.1 %, 1 %", ("links", "a-b", "loss"), [("0", 0), ("0.1 %", "0.1 %"), ("1 %", "1 %")]),
        ('links.a-b.rate="1 Mb/s"', ("links", "a-b", "rate"), [('"1 Mb/s"', "1 Mb/s")]),
        ("links.a-b.lose=[1,2],[3]", ("links", "a-b", "lose"), [("[1,2]", [1, 2]), ("[3]", [3])]),
        ("links.a-b.ecn=true", ("links", "a-b", "ecn"), [("true", True)]),
        ("links.a-b.delay=10..30/10 ms", ("links", "a-b", "delay"), [(f"{n} ms", f"{n} ms") for n in (10, 20, 30)]),
        ("seed=1..3,9", ("seed",), [("1", 1), ("2", 2), ("3", 3), ("9", 9)]),
        ("links.7.changes.0.at=1 s", ("links", "7", "changes", "0", "at"), [("1 s", "1 s")]),
        ("name=a\nseed = 3", ("name",), [("a\nseed = 3", "a\nseed = 3")]),
    ],
)
def test_values_are_tomls_or_the_text_itself(text: str, path: tuple[Any, ...], values: list[tuple[str, Any]]) -> None:
    found = given(text)
    assert (found.path, list(found.values)) == (path, values)


@pytest.mark.parametrize(
    "text",
    ["", "seed", "seed=", "=7", "a..b=1", "seed=3..1", "seed=1..9/0", "seed=0..999999999", "seed=1,2,1", "seed=1..3,2"],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"is needed|is no range|is there twice"):
        given(text)


def test_every_combination_has_every_seed() -> None:
    sets = [given("flows.f.cc=cubic,bbr"), given("links.a-b.loss=0,0.1"), given("duration=2 s")]
    made = list(points(DOCUMENT, sets, seeds=2))
    assert len(made) == count(sets, 2) == 8
    assert [(dict(one.point), one.seed) for one in made[:3]] == [
        ({"flows.f.cc": "cubic", "links.a-b.loss": "0"}, 5),
        ({"flows.f.cc": "cubic", "links.a-b.loss": "0"}, 6),
        ({"flows.f.cc": "cubic", "links.a-b.loss": "0.1"}, 5),
    ]
    assert made[-1].flows[0].cc == "bbr"
    assert made[-1].links[0].there.settings["loss"] == 0.1
    assert {one.duration_ns for one in made} == {2_000_000_000}


def test_a_value_that_cannot_be_is_named_by_its_word() -> None:
    with pytest.raises(ScenarioError, match=r"^--set links\.a-b\.loss=7: links\.a-b\.loss: 7 is no share"):
        list(points(DOCUMENT, [given("links.a-b.loss=0,7")]))


def test_any_executor_gives_what_one_run_gives() -> None:
    scenarios = list(points(DOCUMENT, [given("links.a-b.loss=0,1 %")], seeds=2))
    alone = [run(scenario) for scenario in scenarios]
    with ThreadPoolExecutor(2) as threads:
        assert list(sweep(scenarios, threads)) == alone
    with ProcessPoolExecutor(2, get_context("forkserver")) as processes:
        assert list(sweep(scenarios, processes)) == alone


def test_no_more_wait_than_is_said_and_outcomes_come_in_order() -> None:
    late = Late()
    outcomes = sweep(points(DOCUMENT, seeds=50), late, run=seen, ahead=3)
    assert [outcome.seed for outcome in outcomes] == list(range(5, 55))
    assert (late.most, late.cancelled) == (4, 0)


def test_scenarios_are_made_as_they_are_handed_over() -> None:
    made = []

    def scenarios() -> Iterator[Scenario]:
        for scenario in points(DOCUMENT, seeds=50):
            made.append(scenario.seed)
            yield scenario

    late = Late()
    outcomes = sweep(scenarios(), late, run=seen, ahead=3)
    next(outcomes)
    assert len(made) == 4
    outcomes.close()  # type: ignore[attr-defined]
    assert late.cancelled == 3


def test_a_run_that_fails_is_an_outcome_and_the_others_go_on() -> None:
    broken = Scenario((), (), (), duration_ns=-1, point={"x": "1"})
    with ThreadPoolExecutor(1) as threads:
        [first, second] = list(sweep([broken, *points(DOCUMENT)], threads))
    assert first.error.startswith("ValueError: duration_ns")
    assert first.point == {"x": "1"}
    assert second.error == ""


# ---------------------------------------------------------------- executors that fail


class Scripted(Executor):
    """Its n-th future (from 0) has what `results` says: an exception, CancelledError for one that is cancelled, and
    seen()'s outcome of all others. An exception in `refuses` is what submit() raises."""

    def __init__(self, results: dict[int, BaseException], refuses: dict[int, Exception] | None = None) -> None:
        self.results = results
        self.refuses = refuses or {}
        self.futures: list[Future[Any]] = []

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        number = len(self.futures)
        if number in self.refuses:
            raise self.refuses[number]
        future: Future[Any] = Future()
        self.futures.append(future)
        if number not in self.results:
            future.set_result(call(*arguments, **named))
        elif isinstance(self.results[number], CancelledError):
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(self.results[number], Exception):
            future.set_exception(self.results[number])
        return future  # any other never comes


@pytest.mark.parametrize("error", [BrokenProcessPool("gone"), CancelledError(), TypeError("cannot pickle")])
def test_what_a_future_raises_comes_in_its_place_and_is_the_end(error: Exception) -> None:
    executor = Scripted({2: error, **{number: KeyboardInterrupt() for number in range(3, 9)}})
    outcomes = sweep(points(DOCUMENT, seeds=50), executor, run=seen, ahead=5)
    assert [next(outcomes).seed for _ in range(2)] == [5, 6]
    with pytest.raises(type(error)):
        next(outcomes)
    assert len(executor.futures) == 8  # none is handed over any more
    assert all(future.cancelled() for future in executor.futures[3:])
    assert list(outcomes) == []


def test_what_submit_raises_comes_at_once() -> None:
    executor = Scripted({1: KeyboardInterrupt()}, {3: RuntimeError("cannot schedule new futures after shutdown")})
    with pytest.raises(RuntimeError, match="cannot schedule"):
        next(sweep(points(DOCUMENT, seeds=50), executor, run=seen, ahead=5))
    assert executor.futures[1].cancelled()


def test_who_is_interrupted_while_waiting_leaves_nothing_to_do() -> None:
    class Interrupted(Future):  # type: ignore[type-arg]
        def result(self, timeout: float | None = None) -> Any:
            raise KeyboardInterrupt

    futures: list[Future[Any]] = []

    class Waiting(Executor):
        def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
            futures.append(Interrupted())
            return futures[-1]

    with pytest.raises(KeyboardInterrupt):
        list(sweep(points(DOCUMENT, seeds=50), Waiting(), run=seen, ahead=5))
    assert [future.cancelled() for future in futures] == [True] * 6


def test_outcomes_are_in_order_whatever_their_executors_is() -> None:
    calls: list[Callable[[], None]] = []

    class Backwards(Executor):
        """The last one of four is the first to be done."""

        def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
            future: Future[Any] = Future()
            calls.append(lambda: future.set_result(call(*arguments, **named)))
            if len(calls) == 4:
                while calls:
                    calls.pop()()
            return future

    outcomes = sweep(points(DOCUMENT, seeds=40), Backwards(), run=seen, ahead=3)
    assert [outcome.seed for outcome in outcomes] == list(range(5, 45))


def test_what_cannot_come_back_from_a_process_is_told() -> None:
    with ProcessPoolExecutor(1, get_context("forkserver")) as processes:
        with pytest.raises((TypeError, AttributeError, PicklingError), match="pickle"):
            list(sweep(points(DOCUMENT, seeds=3), processes, run=unpicklable))
        assert [outcome.seed for outcome in sweep(points(DOCUMENT, seeds=2), processes, run=seen)] == [5, 6]


def unpicklable(scenario: Scenario) -> Outcome:
    return Outcome(scenario.name, scenario.seed, scenario.point, series={"lock": Lock()})


def test_whatever_a_run_raises_is_its_own_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(scenario: Scenario) -> Outcome:
        raise KeyError(scenario.seed)

    monkeypatch.setattr(running, "run", raises)
    assert [outcome.error for outcome in sweep(points(DOCUMENT, seeds=2), Scripted({}))] == [
        "KeyError: 5",
        "KeyError: 6",
    ]

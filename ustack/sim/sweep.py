# SPDX-License-Identifier: MIT
"""Many scenarios: the points of a sweep, and their outcomes from any executor.

    document = Document.load(Path("two.toml"))
    scenarios = points(document, [given("flows.f0.cc=cubic,bbr"), given("links.a-b.loss=0,0.1 %,1 %")], seeds=10)
    with ProcessPoolExecutor() as executor:
        for outcome in sweep(scenarios, executor):
            print(outcome.point, outcome.seed, outcome.goodput_bps)

An executor is any concurrent.futures.Executor: processes here, or a cluster's. Scenarios are made as they are handed
over, and so many wait at it at most, so that a sweep may be as long as it wants.

It must not: start a process. Above: cli, examples. Below: running, reading.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from ustack.sim import places, toml, values
from ustack.sim.document import Document, ScenarioError
from ustack.sim.reading import scenario_of
from ustack.sim.running import Outcome, run_or_say
from ustack.sim.scenario import Scenario

AHEAD = 64
VALUES_MOST = 100_000
RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})(?:/([0-9]{1,6}))?(\s*[A-Za-z%].*)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Given:
    """A key of a scenario file and the values that it has in turn: (as written, as TOML has it)."""

    key: str
    path: places.Path
    values: tuple[tuple[str, Any], ...]


def given(text: str) -> Given:
    """`links.a-b.loss=0,0.1 %,1 %`, `flows.*.cc=cubic,bbr`, `links.a-b.delay=10..100/10 ms`. Raises ScenarioError.

    A value is TOML's (`true`, `7`, `[5, 6]`, `"100 Mb/s"`), or the text itself; commas within brackets and quotes
    belong to it. A range goes from one whole number to another, by a step if one is there; its unit is each one's.
    """
    key, equals, rest = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or not rest.strip():
        raise ScenarioError(f"{values.shown(text)}: KEY=VALUE is needed, such as links.a-b.loss=0.01")
    words = [word for part in _split(rest) for word in _range(part.strip(), text)]
    if len(words) > VALUES_MOST:
        raise ScenarioError(f"{values.shown(text)}: more than {VALUES_MOST:,} values")
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ScenarioError(f"{values.shown(text)}: {twice} is there twice")
    return Given(".".join(parts), tuple(parts), tuple((word, _value(word)) for word in words))


def _split(text: str) -> Iterator[str]:
    """At commas that are in no bracket and no quotes."""
    depth, quote, begin = 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]


def _range(text: str, whole: str) -> Iterable[str]:
    found = RANGE.fullmatch(text)
    if found is None:
        return [text]
    first, last, step, unit = int(found[1]), int(found[2]), int(found[3] or 1), found[4] or ""
    if last < first or step == 0 or (last - first) // step >= VALUES_MOST:
        raise ScenarioError(f"{values.shown(whole)}: {text} is no range: from a number to a larger one")
    return [f"{number}{unit}" for number in range(first, last + 1, step)]


def _value(word: str) -> Any:
    try:
        found = toml.loads(f"value = {word}\n")
    except (ValueError, RecursionError):
        return word
    return found["value"] if len(found) == 1 else word


def count(sets: Sequence[Given], seeds: int) -> int:
    """How many scenarios points() makes."""
    number = seeds
    for each in sets:
        number *= len(each.values)
    return number


def points(document: Document, sets: Sequence[Given] = (), *, seeds: int = 1) -> Iterator[Scenario]:
    """Every combination of the values, each with so many seeds, from the file's on.

    A scenario's point has the values of the keys that have several. Raises ScenarioError.
    """
    for chosen in itertools.product(*(each.values for each in sets)):
        pairs = list(zip(sets, chosen, strict=True))
        changed = document.with_values(
            [(each.path, value, f"--set {each.key}={word}") for each, (word, value) in pairs]
        )
        made = scenario_of(changed)
        point = {each.key: word for each, (word, _) in pairs if len(each.values) > 1}
        for number in range(seeds):
            yield dataclasses.replace(made, seed=made.seed + number, point=point)


def sweep(
    scenarios: Iterable[Scenario],
    executor: Executor,
    *,
    run: Callable[[Scenario], Outcome] = run_or_say,
    ahead: int = AHEAD,
) -> Iterator[Outcome]:
    """The outcomes in the order of the scenarios, as they come.

    run: what an executor's worker does with each.  ahead: how many are handed over beyond the one that is waited for.

    A scenario that fails is an outcome with an error (run_or_say). Raises what making a scenario or handing it over
    raises, at once; and in place of an outcome what its future raises: CancelledError, BrokenExecutor where a worker
    has died, what cannot be pickled. That is the end of it, then as when the iterator is closed: what was handed over
    and not taken is cancelled. The executor stays the caller's.
    """
    waiting: deque[Future[Outcome]] = deque()
    try:
        for scenario in scenarios:
            waiting.append(executor.submit(run, scenario))
            if len(waiting) > ahead:
                yield _taken(waiting)
        while waiting:
            yield _taken(waiting)
    finally:
        for future in waiting:
            future.cancel()


def _taken(waiting: deque[Future[Outcome]]) -> Outcome:
    """The first one's, which is one of those that wait until it is there."""
    outcome = waiting[0].result()
    waiting.popleft()
    return outcome

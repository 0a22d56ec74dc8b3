# SPDX-License-Identifier: MIT
"""Who is measured when: rounds, in each every experiment, in each of its points every contestant, one after another.

The order of the contestants turns from round to round, so that nobody always follows the same. All of them run all the
time: one that waits costs next to nothing (`idlecpu` measures it). Where that is too much, for the longest of many
waits, the others are stopped meanwhile (`Experiment.alone`). What goes wrong with one contestant is its own matter. It
is in its run's `errors`, the others go on, and one that has died is started again at its next turn, MOST_STARTS times.

It must not: know a server or an experiment by name. Above: command. Below: experiments, contestants, records.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ustack.lab import LabError
from ustack.tools.bench.contestants.base import Absent, Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome
from ustack.tools.bench.machine import settings_of
from ustack.tools.bench.processor import CoreTimes, SystemUse
from ustack.tools.bench.records import Run, Writer
from ustack.tools.benchmark import prepare_client
from ustack.tools.generators import Load, LoadError

MOST_STARTS = 3
NO_TIME = "no time was left"
Failures = (LoadError, LabError, OSError, subprocess.TimeoutExpired)


@dataclass
class Turn:
    """One measurement that is to be made."""

    round: int
    experiment: Experiment
    point: str
    contestant: Contestant


@dataclass
class Runner:
    """A bench that runs. say: called with a line before each measurement, and the seconds that it is thought to take.

    absent: why contestants take no part. until_s: of the monotonic clock: nothing is begun later, and what the first
    round has not asked by then says so.
    """

    bench: Bench
    experiments: list[Experiment]
    writer: Writer
    explicit: bool = False  # contestants were named: all of them take part everywhere
    say: Callable[[str, float], None] = lambda _line, _seconds: None
    absent: dict[str, str] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    skipped: set[tuple[str, str, str]] = field(default_factory=set)
    until_s: float = math.inf

    def start(self, names: Sequence[str], kinds: dict[str, type[Contestant]]) -> None:
        """Start those, check that each answers right. One that cannot is written down with the reason."""
        for name in names:
            self.say(f"starting {name}", 0.0)
            contestant = kinds[name](self.bench.work, self.bench.site, self.bench.server_core)
            why, found = "", dict[str, object]()
            try:
                self.bring_up(contestant)
                found = contestant.describe()
                settings = {} if contestant.special else {"client": settings_of(contestant.client_netns)}
                pair = getattr(contestant, "pair", None)
                if pair is not None and not pair.device:
                    settings["server"] = settings_of(pair.server_netns)
                found["settings"] = settings
                self.bench.contestants[name] = contestant
            except Failures as error:
                why = str(error)
                self.absent[name] = why
                self.end(contestant.stop, name)
            except BaseException:  # Ctrl-C: nobody else knows of it yet
                self.end(contestant.stop, name)
                raise
            basic = {"title": contestant.title or name, "kind": contestant.kind, "version": contestant.version}
            found = {**basic, "install": contestant.install, **found}
            self.writer.write("contestant", name=name, **found, absent=why)

    def bring_up(self, contestant: Contestant) -> None:
        """Start one, and see that it serves what it should. Raises what a start raises."""
        self.starts[contestant.name] = self.starts.get(contestant.name, 0) + 1
        contestant.start()
        if contestant.special:
            return
        prepare_client(contestant.client_netns)
        asked = {path for one in self.experiments for path in (*one.checks, *one.files)}
        contestant.check_files({path: wanted for path, wanted in self.bench.hashes.items() if path in asked})

    def takes_part(self, contestant: Contestant, experiment: Experiment) -> bool:
        """Is it asked in this experiment?"""
        if experiment.only is not None or contestant.special:
            return contestant.name in (experiment.only or ())
        return self.explicit or contestant.main or experiment.everybody

    def turns(self, number: int) -> Iterator[Turn]:
        """Everything of one round, in order."""
        for experiment in self.experiments:
            if number > experiment.most_rounds:
                continue
            able = [one for one in self.bench.contestants.values() if self.takes_part(one, experiment)]
            shift = (number - 1) % len(able) if able else 0
            order = able[shift:] + able[:shift]
            for point in experiment.points_of(quick=self.bench.quick):
                for contestant in order if number % 2 else reversed(order):
                    yield Turn(number, experiment, point, contestant)

    def planned_s(self, number: int = 1) -> float:
        """What a round is thought to take."""
        return sum(self.seconds_of(turn) for turn in self.turns(number))

    def seconds_of(self, turn: Turn) -> float:
        """What a measurement is thought to take; none where it is not made."""
        if turn.experiment.unfit(turn.contestant, turn.point):
            return 0.0
        return self.bench.seconds + turn.experiment.beside_s

    def run_round(self, number: int) -> None:
        """Measure everything once, as far as there is time: a later round ends before a point, so that whoever is
        asked there has been paired with all others."""
        begun: tuple[str, str] | None = None
        for turn in self.turns(number):
            key = (turn.experiment.name, turn.point, turn.contestant.name)
            if why := turn.experiment.unfit(turn.contestant, turn.point):
                if key not in self.skipped:
                    self.skipped.add(key)
                    self.writer.write_run(Run(number, *key, value=None, errors={why: 1}, started_s=time.time()))
                continue
            if time.monotonic() >= self.until_s and begun != key[:2]:
                if number > 1:
                    return
                self.writer.write_run(Run(number, *key, value=None, errors={NO_TIME: 1}, started_s=time.time()))
                continue
            if number > 1:
                begun = key[:2]
            self.say(f"round {number}  {turn.experiment.name}  {turn.point}  {key[2]}", self.seconds_of(turn))
            self.writer.write_run(self.measure(turn))

    def measure(self, turn: Turn) -> Run:
        """One contestant at one point: what it came to, or why it does not count."""
        started_s, before = time.time(), CoreTimes.now()
        contestant = turn.contestant
        try:
            self.wake(contestant)
            with ExitStack() as stack:
                for other in self.bench.contestants.values() if turn.experiment.alone else ():
                    if other is not contestant:
                        stack.enter_context(other.stopped())
                before = CoreTimes.now()
                outcome = turn.experiment.measure(self.bench, contestant, turn.point)
        except Failures as error:
            outcome = Outcome(None, errors={self.how_it_is(contestant) or str(error): 1})
        use = SystemUse.between(before, CoreTimes.now())
        errors = dict(outcome.errors)
        if died := self.how_it_is(contestant):
            errors = {died: 1}
        elif not errors:
            errors = self.check_after(turn)
        load = outcome.load
        return Run(
            round=turn.round,
            experiment=turn.experiment.name,
            point=turn.point,
            contestant=contestant.name,
            value=None if errors else outcome.value,
            errors=errors,
            p50_us=load.p50_us or None,
            p99_us=load.p99_us or None,
            requests=load.requests,
            seconds=load.seconds,
            cpu_us_per_request=cpu_us(use, load),
            cores=use.cores,
            steal=round(use.steal, 4),
            command=outcome.command,
            started_s=round(started_s, 3),
            details=outcome.details if not errors else {**outcome.details, "not counted": outcome.value},
        )

    def wake(self, contestant: Contestant) -> None:
        """Start a contestant again that has died, unless it has too often. Raises what a start raises."""
        if contestant.special or (contestant.process is not None and not contestant.how_it_is()):
            return
        if self.starts.get(contestant.name, 0) >= MOST_STARTS:
            raise Absent(f"{contestant.name}: has died {MOST_STARTS} times")
        contestant.stop()
        self.bring_up(contestant)

    def how_it_is(self, contestant: Contestant) -> str:
        """How it ended; "" while it runs, or where there is no process of its own."""
        return contestant.how_it_is() if contestant.process is not None else ""

    def check_after(self, turn: Turn) -> dict[str, int]:
        """After a run nobody presses: the right bytes come, or what was counted is worth nothing."""
        try:
            for path in turn.experiment.checks:
                turn.contestant.check_file(path, self.bench.hashes[path])
        except Failures as error:
            return {f"after the run: {error}": 1}
        return {}

    def stop(self) -> None:
        """All of them: one that cannot be stopped is no reason to leave the others running."""
        for name, contestant in self.bench.contestants.items():
            self.end(contestant.stop, name)
        for experiment in self.experiments:
            self.end(experiment.finish, experiment.name)

    def end(self, how: Callable[[], None], name: str) -> None:
        """Stop or finish one; what goes wrong is said."""
        try:
            how()
        except Failures as error:
            self.say(f"{name} could not be ended: {error}", 0.0)


def cpu_us(use: SystemUse, load: Load) -> float | None:
    """Both ends' processor time for one request, system-wide; None where there was no request."""
    return round(use.busy_cores * load.seconds * 1e6 / load.requests, 3) if load.requests else None

# SPDX-License-Identifier: MIT
"""bench_turns: every phase ends what it began, and no turn of any does more than its budget."""

import json

import pytest
from click.testing import CliRunner

from ustack import Stack
from ustack.tools.bench_turns import least, main, measure
from ustack.tools.connection_storm import ConnectionStorm, IdleServer

SECOND = 1_000_000_000
CONNECTIONS = 6000
STAGE_UNITS = 8192
UPCALL_UNITS = 512


@pytest.fixture(scope="module")
def result():
    return measure(CONNECTIONS)


def test_every_phase_is_measured(result):
    assert [phase.name for phase in result.phases] == ["open", "idle", "forget", "leave", "end"]
    for phase in result.phases:
        assert 0 < phase.median_us <= phase.p99_us <= phase.longest_us
        assert phase.turns > 5


def test_no_turn_does_more_than_its_budget(result):
    """Opening, six thousand timers of one tick, closing, resetting: in work, not in time."""
    work = result.phases[-1].work
    assert work["frames_max"] == 64
    assert work["units_max"] <= 2 * (STAGE_UNITS + UPCALL_UNITS)
    assert work["connections_max"] <= STAGE_UNITS // 8
    assert work["timers_max"] <= 2 * 1024
    assert work["moves_max"] <= 4096 + 16 * 1024


def test_a_mass_of_timers_really_was_due_in_one_tick(result):
    assert result.phases[1].work["timers_max"] == 1024
    assert result.phases[2].turns >= CONNECTIONS // 1024


def test_ending_takes_turns(result):
    assert result.phases[4].turns >= CONNECTIONS // 512


def test_every_connection_is_opened_and_ended():
    storm = ConnectionStorm(1000)
    with Stack(storm, "198.18.0.2/24", "198.18.0.1", seed=1, now_ns=storm.now_ns) as stack:
        stack.listen(80, application=IdleServer(10 * SECOND), backlog=1024)
        storm.open(stack)
        assert (storm.established, stack.established) == (1000, 1000)
        storm.idle(stack, 11 * SECOND)
        assert (storm.ended, stack.established, stack.leaks()["time_waits"]) == (1000, 0, 1000)
        storm.forget(stack, 61 * SECOND)
        storm.open(stack)
        storm.leave(stack)
        storm.open(stack)
        storm.end(stack)
        assert (storm.established, storm.ended) == (3000, 3000)
        assert not any(count for pool, count in stack.leaks().items() if pool != "lent")


def test_a_stack_that_does_not_answer_is_an_error():
    storm = ConnectionStorm(10)
    with (
        Stack(storm, "198.18.0.2/24", "198.18.0.1", seed=1, now_ns=storm.now_ns) as stack,
        pytest.raises(RuntimeError, match="0 opened, 10 ended"),
    ):
        storm.open(stack)  # nobody listens: ten RSTs


def test_the_command_prints_every_phase_and_the_longest_turn():
    shown = CliRunner().invoke(main, ["--connections", "500", "--runs", "2"])
    assert shown.exit_code == 0
    assert "longest turn" in shown.output
    runs = json.loads(CliRunner().invoke(main, ["--connections", "500", "--runs", "2", "--json"]).output)
    assert [len(run["phases"]) for run in runs] == [5, 5]


def test_the_run_with_the_shortest_longest_turn_is_shown():
    runs = [measure(200) for _ in range(3)]
    assert least(runs).longest_us == min(run.longest_us for run in runs)

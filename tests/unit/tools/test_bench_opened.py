# SPDX-License-Identifier: MIT
"""Experiments in an open loop, with a generator whose answers are made up: what is goodput, what is an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments import opened
from ustack.tools.bench.experiments.base import Bench
from ustack.tools.bench.experiments.opened import KeepAliveOpen, Modems, ModemsMany, Overload
from ustack.tools.bench.generators import SEED, Shape, UstackLoad, Wrk, beside
from ustack.tools.generators import LoadError


def answer(good: int, errors: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    """What `ustack load --json` prints, as far as it is read."""
    found = {
        "good": good,
        "good_in_time": good,
        "seconds": 2.0,
        "received_bytes": 700 * good,
        "latency_us": {"p50": 10.0, "p99": 20.0, "max": 30.0},
        "errors": errors or {},
    }
    return {**found, **more}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path, Wrk(tmp_path, 0), 2, 0, 1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contestant:
    made = Contestant(tmp_path, tmp_path, 1)
    made.url, made.client_netns = "http://198.18.0.2:80", "nowhere"
    monkeypatch.setattr(Contestant, "client_ifname", lambda _: "veth0")
    monkeypatch.setattr(Contestant, "pids", lambda _: [])
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """What is answered next; what was asked."""
    given: list[dict[str, Any]] = []
    asked: list[list[str]] = []

    def ask(_: UstackLoad, command: list[str], seconds: float) -> dict[str, Any]:
        asked.append(command)
        return given.pop(0)

    monkeypatch.setattr(UstackLoad, "ask", ask)
    return given, asked


def test_goodput_is_a_share_of_the_capacity_just_before(bench: Bench, server: Contestant, answers: Any):
    given, asked = answers
    given += [answer(1000), answer(800, {"unsent": 1000, "reset": 5})]
    found = Overload().measure(bench, server, "1 x")
    assert (found.value, found.errors) == (80.0, {})
    assert found.details["capacity_per_second"] == 500
    assert asked[1][asked[1].index("--rate") + 1] == "500"
    assert "--poisson" in asked[1]
    assert "--close" in asked[0]


def test_a_wrong_answer_under_overload_is_an_error(bench: Bench, server: Contestant, answers: Any):
    answers[0].extend([answer(1000), answer(4000, {"status": 3, "timeout": 9})])
    assert Overload().measure(bench, server, "4 x").errors == {"status": 3}


def test_without_a_capacity_there_is_no_share(bench: Bench, server: Contestant, answers: Any):
    answers[0].append(answer(0, {"refused": 7}))
    found = Overload().measure(bench, server, "1 x")
    assert found.value is None
    assert found.errors == {"capacity: refused": 7, "capacity: no response": 1}


def test_a_capacity_run_that_stood_still_is_none(bench: Bench, server: Contestant, answers: Any):
    answers[0].append(answer(1000, latency_us={"p50": 10.0, "p99": 20.0, "max": 1.02e6}))
    found = Overload().measure(bench, server, "4 x")
    assert (found.value, found.errors) == (None, {"capacity: a response took 1.02 s": 1})
    answers[0].append(answer(5, good_in_time=0))
    assert Overload().measure(bench, server, "4 x").errors == {"capacity: no good response in time": 1}


def test_nothing_good_under_overload_is_nothing_and_no_failure(bench: Bench, server: Contestant, answers: Any):
    answers[0].extend([answer(1000), answer(0, {"timeout": 900})])
    found = Overload().measure(bench, server, "4 x")
    assert (found.value, found.errors) == (0.0, {})


def test_slow_readers_are_served_at_their_rate_or_not(bench: Bench, server: Contestant, answers: Any):
    at_their_rate = 10_000 * Modems.rate_bps // 8 * 2
    answers[0].append(answer(0, received_bytes=at_their_rate, most_open=10_000))
    assert Modems().measure(bench, server, "10,000 readers").value == pytest.approx(100)
    answers[0].append(answer(0, {"cut": 3}, received_bytes=at_their_rate // 2, most_open=900))
    found = Modems().measure(bench, server, "10,000 readers")
    assert found.value == pytest.approx(50)
    assert found.errors == {"cut": 3, "only 900 of 10000 were connected": 1}


def test_a_hundred_thousand_read_in_large_steps_and_how_evenly_is_kept(
    bench: Bench, server: Contestant, answers: Any
) -> None:
    given, asked = answers
    readers = {"served": 99_990, "fairness": 0.997}
    given += [answer(0, received_bytes=1, most_open=100_000, readers=readers), answer(0, received_bytes=1)]
    found = ModemsMany().measure(bench, server, "100,000 readers")
    assert found.details["readers"] == readers
    step = int(asked[0][asked[0].index("--read-step") + 1])
    assert (step, step % opened.SEGMENT_BYTES) == (15_928, 0)
    Modems().measure(bench, server, "1,000 readers")
    assert "--read-step" not in asked[1]


def test_who_can_hold_few_is_not_asked(server: Contestant):
    assert Overload().unfit(server, "1 x") == ""
    server.at_most, server.why_at_most = 100, "so it is"
    assert "so it is" in Overload().unfit(server, "1 x")
    assert "so it is" in Modems().unfit(server, "10,000 readers")


def test_ustack_load_asks_from_an_address_that_nobody_has(server: Contestant, tmp_path: Path):
    words = UstackLoad(tmp_path, 0).command(server, Shape(connections=7, close=True), 3)
    assert words[words.index("--address") + 1] == "198.18.0.77/24"
    assert words[words.index("--link") + 1] == "dev:veth0"
    assert words[words.index("-d") + 1] == "3s"
    assert words[words.index("--files") + 1] == str(tmp_path)
    assert words[words.index("--seed") + 1] == str(SEED)
    assert beside("10.1.2.3") == "10.1.2.77"


@pytest.mark.parametrize("shape", [Shape(depth=16), Shape(paths="distinct")])
def test_what_ustack_load_cannot_do_is_refused(server: Contestant, tmp_path: Path, shape: Shape):
    with pytest.raises(LoadError, match="neither pipelines"):
        UstackLoad(tmp_path, 0).command(server, shape, 1)


def test_what_it_prints_is_read_and_what_it_says_is_kept(tmp_path: Path):
    generator = UstackLoad(tmp_path, 0)
    load = generator.load_of(generator.ask(["echo", json.dumps(answer(100))], 1))
    assert (load.requests, load.requests_per_second, load.p99_us, load.errors) == (100, 50.0, 20.0, {})
    with pytest.raises(LoadError, match="exit 2: no luck"):
        generator.ask(["sh", "-c", "echo no luck >&2; exit 2"], 1)
    with pytest.raises(LoadError, match="ustack load: "):
        generator.ask(["/no/such/program"], 1)


def test_errors_that_an_overload_may_have_are_named_as_the_client_names_them():
    text = (Path(__file__).parents[3] / "docs" / "load.md").read_text()
    assert all(kind in text for kind in opened.EXPECTED)


def test_many_connections_come_from_many_addresses(server: Contestant, tmp_path: Path):
    words = UstackLoad(tmp_path, 0).command(server, Shape(connections=28_000), 1)
    assert "--sources" not in words
    words = UstackLoad(tmp_path, 0).command(server, Shape(connections=100_000), 1)
    assert words[words.index("--sources") + 1] == "198.18.0.100-198.18.0.103"
    with pytest.raises(LoadError, match="want 179 addresses"):
        UstackLoad(tmp_path, 0).command(server, Shape(connections=5_000_000), 1)


def test_more_connections_than_descriptors_are_not_asked_for(server: Contestant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (20_000, 20_000))
    assert "a process may have 20000 descriptors" in ModemsMany().unfit(server, "100,000 readers")
    server.kind = "ustack"
    assert ModemsMany().unfit(server, "100,000 readers") == ""


def test_an_open_loop_counts_what_was_late_in_its_percentile(bench: Bench, server: Contestant, answers: Any):
    given, asked = answers
    given += [answer(900, {"unanswered": 100}), answer(900, {"length": 1})]
    found = KeepAliveOpen().measure(bench, server, "20,000/s")
    assert (found.value, found.errors) == (20.0, {})
    assert found.details["good_per_second"] == 450
    assert asked[0][asked[0].index("--rate") + 1] == "20000"
    assert KeepAliveOpen().measure(bench, server, "20,000/s").errors == {"length": 1}

# SPDX-License-Identifier: MIT
"""A scenario becomes a network and runs: settings reach their hops, the same seed gives the same bytes."""

import hashlib
import pickle
from pathlib import Path

import pytest

from ustack.sim.building import build
from ustack.sim.document import Document
from ustack.sim.reading import scenario_of
from ustack.sim.running import Outcome, run, run_or_say
from ustack.sim.scenario import SECOND, Change, Flow, Host, Link, Router, Scenario, Trace, Way

TEXT = """\
duration = "5 s"
hosts = ["a", "b"]
routers = ["r"]
[links.a-r]
rate = "100 Mb/s"
[links.r-b]
rate = "10 Mb/s"
delay = "10 ms"
buffer = "60 kB"
[flows.one]
from = "a"
to = "b"
cc = "newreno"
[flows.two]
from = "a"
to = "b"
cc = "bbr"
start = "1 s"
"""
LINK = 'buffer = "60 kB"\n'


def scenario(words: str = "", text: str = TEXT, seed: int = 1) -> Scenario:
    whole = f"seed = {seed}\n" + text.replace(LINK, LINK + words)
    return scenario_of(Document.parse(whole.encode(), "x.toml"))


def captured(made: Scenario, path: Path, **how: int) -> str:
    run(made, captures={"r->b": path}, **how)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_flows_and_hops_tell_what_came_of_them() -> None:
    outcome = run(scenario())
    assert list(outcome.flows) == ["one", "two"]
    assert [flow["cc"] for flow in outcome.flows.values()] == ["newreno", "bbr"]
    assert list(outcome.hops) == ["a->r", "r->a", "r->b", "b->r"]
    assert outcome.ran_ns == 5 * SECOND
    assert 8_000_000 < outcome.goodput_bps < 10_000_000
    assert outcome.flows["two"]["start_ns"] == SECOND
    assert outcome.series is None
    assert outcome.events > 10_000
    assert 0.5 < (outcome.fairness or 0) < 1


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    made = scenario("loss = 0.01\njitter = '1 ms'\nreorder = 0.01\nreorder_by = '3 ms'\nduplicate = 0.01\n")
    first = captured(made, tmp_path / "1")
    assert captured(pickle.loads(pickle.dumps(made)), tmp_path / "2") == first
    assert captured(made, tmp_path / "3", slices=7) == first
    assert captured(scenario("loss = 0.01\n", seed=2), tmp_path / "4") != first
    assert (tmp_path / "1").stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("words", "counter"),
    [
        ("loss = 0.01\n", "lost"),
        ("good_to_bad = 0.01\nbad_to_good = 0.3\nloss_bad = 0.5\n", "lost"),
        ("forward.lose = [20, 30]\n", "lost"),
        ("blackouts = [{ at = '2 s', for = '300 ms', frames = 'lost' }]\n", "lost"),
        ("queue = 'codel'\n", "early_dropped"),
        ("queue = 'red'\nred_min = 6000\nred_max = 20000\n", "early_dropped"),
        ("", "tail_dropped"),
        ("reorder = 0.01\nreorder_by = '3 ms'\n", "reordered"),
        ("duplicate = 0.01\n", "duplicated"),
        ("corrupt = 0.01\n", "corrupted"),
        ("mtu = 1000\n", "beyond_mtu"),
    ],
)
def test_what_a_link_does_is_counted_at_its_hop(words: str, counter: str) -> None:
    assert run(scenario(words)).hops["r->b"][counter] > 0
    untroubled = TEXT.replace(LINK, "").replace("10 Mb/s", "200 Mb/s")
    assert run(scenario(text=untroubled)).hops["r->b"][counter] == 0


def test_marks_come_in_place_of_drops() -> None:
    text = TEXT.replace('hosts = ["a", "b"]', "hosts.a.ecn = 1\nhosts.b.ecn = 1")
    for words in ("mark = '20 kB'\n", "queue = 'codel'\necn = true\n"):
        assert run(scenario(words, text)).hops["r->b"]["marked"] > 0


def test_each_frame_that_a_list_names_is_lost_once() -> None:
    assert run(scenario("forward.lose = [20, 30, 31]\n")).hops["r->b"]["lost"] == 3


def test_rates_change_and_traces_begin_again() -> None:
    """A tenth of the rate from the third second on; or 2 and 10 Mb/s in turn: 6 on average."""
    slower = run(scenario("changes = [{ at = '2 s', rate = '1 Mb/s' }]\n"))
    assert slower.hops["r->b"]["delivered_bytes"] * 8 < 10_000_000 * 2 + 1_000_000 * 3 + 500_000
    link = Link(
        "a-b",
        "a",
        "b",
        there=Way({"delay_ns": 1_000_000}, trace=Trace(((0, 2_000_000), (SECOND // 2, 10_000_000)), SECOND)),
    )
    made = Scenario((Host("a"), Host("b")), (link,), (Flow("f", "a", "b", cc="bbr"),), 4 * SECOND)
    assert 0.8 * 24_000_000 < run(made).hops["a->b"]["delivered_bytes"] * 8 <= 24_000_000


def test_a_blackout_keeps_frames_that_wait() -> None:
    way = Way({"rate_bps": 10_000_000}, (Change(SECOND, {"down": True}), Change(2 * SECOND, {"down": False})))
    made = Scenario((Host("a"), Host("b")), (Link("a-b", "a", "b", way, way),), (Flow("f", "a", "b"),), 3 * SECOND)
    outcome = run(made, series=True)
    assert outcome.series is not None
    sent = dict(zip(outcome.series["times_ns"], outcome.series["hops"]["a->b"]["sent_bytes"], strict=True))
    assert sent[990_000_000] > 0
    assert sent[1_500_000_000] == sent[1_990_000_000]
    assert sent[2_990_000_000] > sent[1_990_000_000]
    assert outcome.hops["a->b"]["lost"] == 0


def test_it_is_over_when_all_flows_with_an_end_have_ended() -> None:
    text = TEXT.replace('cc = "newreno"', "size = 500_000").replace('cc = "bbr"', "size = 100_000")
    outcome = run(scenario(text=text), slices=10)
    assert all(flow["end_ns"] is not None for flow in outcome.flows.values())
    assert [flow["received_bytes"] for flow in outcome.flows.values()] == [500_000, 100_000]
    assert SECOND < outcome.ran_ns < 3 * SECOND
    endless = run(scenario(text=text.replace("size = 100_000", "")))
    assert endless.ran_ns == 5 * SECOND


def test_slices_tell_of_progress() -> None:
    steps: list[int] = []
    assert run(scenario(), slices=7, progress=steps.append).ran_ns == 5 * SECOND
    assert steps == [1] * 7


def test_series_have_a_value_for_every_sample() -> None:
    outcome = run(scenario(), series=True)
    series = outcome.series
    assert series is not None
    assert list(series["times_ns"][:3]) == [0, 10_000_000, 20_000_000]
    assert series["times_ns"][-1] == 5 * SECOND
    columns = [column for kind in ("flows", "hops") for each in series[kind].values() for column in each.values()]
    assert {len(column) for column in columns} == {501}


def test_series_are_bounded_in_memory() -> None:
    made = scenario(text=TEXT.replace('"5 s"', '"5 s"\nsample = "5 us"'))
    with pytest.raises(ValueError, match="too much memory: sample less often"):
        run(made, series=True)


def test_a_control_of_a_hosts_is_its_flows() -> None:
    text = TEXT.replace('hosts = ["a", "b"]', 'hosts.a.cc = "bbr"\nhosts.b = {}').replace('cc = "newreno"\n', "")
    assert run(scenario(text=text)).flows["one"]["cc"] == "bbr"


def test_a_control_in_python_runs(tmp_path: Path) -> None:
    """It never grows its window beyond two segments, so that the round trip bounds the rate."""
    (tmp_path / "small.py").write_text(
        "from ustack.tcp.cc.scripted import CongestionControl\n"
        "class Small(CongestionControl):\n    name = 'written'\n"
        "    def on_ack(self, window, ack):\n        window.cwnd = 2 * window.smss\n"
    )
    text = TEXT.replace('"newreno"', f'"{tmp_path}/small.py:Small"').replace('start = "1 s"', 'start = "4 s"')
    outcome = run(scenario(text=text))
    assert outcome.flows["one"]["cc"] == "written"
    assert 0 < outcome.flows["one"]["goodput_bps"] < 2 * 1460 * 8 / 0.020


def test_what_no_network_takes_closes_what_was_made() -> None:
    made = Scenario((Host("a"),), (), (Flow("f", "a", "nobody"),), SECOND)
    with pytest.raises(ValueError, match="nobody"):
        build(made)
    outcome = run_or_say(made)
    assert outcome.error.startswith("ValueError: 'nobody'")
    assert outcome.as_json()["error"] == outcome.error
    with pytest.raises(ValueError, match="loss"):
        build(Scenario((Host("a"),), (Link("a-r", "a", "r", Way({"loss": 7.0})),), (), SECOND, (Router("r"),)))


def test_an_outcome_without_flows_has_no_fairness() -> None:
    empty = Outcome("x", 1, {})
    assert (empty.goodput_bps, empty.fairness, empty.retransmitted) == (0, None, 0.0)


def test_a_buffer_is_bounded_as_it_says() -> None:
    """By bytes alone, by frames alone, and from one to the other."""
    flood = TEXT.replace('cc = "newreno"', 'cc = "newreno"\ncopies = 20')
    of_bytes = run(scenario(text=flood.replace('"60 kB"', '"4 MB"'))).hops["r->b"]
    assert of_bytes["most_frames"] > 1000
    of_frames = run(scenario(text=flood.replace('"60 kB"', '"7 packets"'))).hops["r->b"]
    assert of_frames["most_frames"] == 7
    changed = run(scenario("changes = [{ at = '2500 ms', buffer = '3000 packets' }]\n", flood)).hops["r->b"]
    assert changed["most_bytes"] > 60_000


def test_a_profile_changes_what_goes_over_the_wire(tmp_path: Path) -> None:
    text = TEXT.replace('hosts = ["a", "b"]', 'hosts.a.profile = "PROFILE"\nhosts.b = {}')
    rfc = captured(scenario(), tmp_path / "1")
    assert captured(scenario(text=text.replace("PROFILE", "rfc")), tmp_path / "2") == rfc
    assert captured(scenario(text=text.replace("PROFILE", "linux")), tmp_path / "3") != rfc

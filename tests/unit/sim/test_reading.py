# SPDX-License-Identifier: MIT
"""Scenario files: what each key comes to, and that anything else is refused with file, line and key."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from ustack.sim.document import BYTES_MOST, Document, ScenarioError
from ustack.sim.reading import NODES_MOST, read, scenario_of
from ustack.sim.scenario import SECOND, Change, Scenario, Trace, Way

MS = 1_000_000
BASE = """\
duration = "30 s"
hosts = ["a", "b"]
[routers.r]
[links.a-r]
rate = "100 Mb/s"
[links.r-b]
delay = "20 ms"
[flows.f0]
from = "a"
to = "b"
"""


def scenario(text: str, file: str = "x.toml") -> Scenario:
    return scenario_of(Document.parse(text.encode(), file))


def refused(text: str | bytes) -> str:
    """The words, without a line that is not its own."""
    with pytest.raises(ScenarioError) as caught:
        scenario_of(Document.parse(text.encode() if isinstance(text, str) else text, "x.toml"))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def with_link(words: str) -> str:
    """BASE with these keys in its first link: they begin at line 6."""
    return BASE.replace('rate = "100 Mb/s"\n', f'rate = "100 Mb/s"\n{words}\n')


def there(words: str) -> Way:
    return scenario(with_link(words)).links[0].there


# ---------------------------------------------------------------- what a file says


def test_the_smallest_scenario_has_the_defaults_of_the_rest() -> None:
    made = scenario(BASE, "some/where/two hosts.toml")
    assert (made.name, made.seed, made.duration_ns, made.sample_ns) == ("two-hosts", 1, 30 * SECOND, 10 * MS)
    assert [host.name for host in made.hosts] == ["a", "b"]
    assert [(link.name, link.a, link.b) for link in made.links] == [("a-r", "a", "r"), ("r-b", "r", "b")]
    assert made.links[0].there == made.links[0].back == Way({"rate_bps": 100_000_000})
    assert made.links[1].there == made.links[1].back == Way({"delay_ns": 20 * MS})
    [flow] = made.flows
    assert (flow.name, flow.source, flow.sink, flow.size, flow.cc, flow.pattern) == ("f0", "a", "b", 0, None, "bulk")
    assert not made.ends_by_itself


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ('delay = "40 ms"', {"delay_ns": 40 * MS}),
        ("delay = 0", {"delay_ns": 0}),
        ('jitter = "2.5ms"', {"jitter_ns": 2_500_000}),
        ('buffer = "250 kB"', {"queue_bytes": 250_000}),
        ("buffer = 3000", {"queue_bytes": 3000}),
        ('buffer = "100 packets"', {"queue_frames": 100}),
        ('mark = "30 kB"', {"mark_bytes": 30_000}),
        (
            'queue = "codel"\necn = true\ncodel_target = "5 ms"\ncodel_interval = "100 ms"',
            {"queue": "codel", "ecn": True, "codel_target_ns": 5 * MS, "codel_interval_ns": 100 * MS},
        ),
        (
            'queue = "red"\nred_min = "30 kB"\nred_max = "90 kB"\nred_max_p = 0.1',
            {"queue": "red", "red_min_bytes": 30_000, "red_max_bytes": 90_000, "red_max_p": 0.1},
        ),
        ('loss = "0.1 %"', {"loss": 0.001}),
        ("loss = 1", {"loss": 1.0}),
        (
            'good_to_bad = "1 %"\nbad_to_good = "25 %"\nloss_bad = 0.5\nloss_good = 0',
            {"good_to_bad": 0.01, "bad_to_good": 0.25, "loss_bad": 0.5, "loss_good": 0.0},
        ),
        ('reorder = "1 %"\nreorder_by = "3 ms"', {"reorder": 0.01, "reorder_ns": 3 * MS}),
        ('duplicate = "1 %"\ncorrupt = "2 %"', {"duplicate": 0.01, "corrupt": 0.02}),
        ("mtu = 1400\nsilent = true", {"mtu": 1400, "silent": True}),
    ],
)
def test_a_links_keys_are_settings_of_both_ways(words: str, settings: dict[str, Any]) -> None:
    link = scenario(with_link(words)).links[0]
    assert link.there == link.back == Way({"rate_bps": 100_000_000, **settings})


def test_a_direction_may_be_otherwise() -> None:
    link = scenario(
        with_link('loss = 0.1\nforward.loss = 0.2\nbackward = { rate = "1 Mb/s", lose = [3, 1, 3] }')
    ).links[0]
    assert link.there == Way({"rate_bps": 100_000_000, "loss": 0.2})
    assert link.back == Way({"rate_bps": 1_000_000, "loss": 0.1}, lose=(1, 3))


def test_changes_and_blackouts_are_changes_in_the_order_of_time() -> None:
    way = there(
        'changes = [{ at = "9 s", rate = "1 Mb/s" }, { at = "2 s", loss = 0.5, direction = "backward" }]\n'
        'blackouts = [{ at = "4 s", for = "500 ms" }, { at = "6 s", for = "1 s", frames = "lost" }]'
    )
    assert way.changes == (
        Change(4 * SECOND, {"down": True}),
        Change(4 * SECOND + 500 * MS, {"down": False}),
        Change(6 * SECOND, {"cut": True}),
        Change(7 * SECOND, {"cut": False}),
        Change(9 * SECOND, {"rate_bps": 1_000_000}),
    )


def test_a_router_has_the_queues_of_what_leaves_it() -> None:
    """Where something can wait; a link's own keys come first."""
    text = BASE.replace("[routers.r]", '[routers.r]\nqueue = "codel"\ncodel_target = "9 ms"\nbuffer = "50 kB"')
    links = scenario(text).links
    assert links[0].there == Way({"rate_bps": 100_000_000})
    assert links[0].back.settings == {
        "rate_bps": 100_000_000,
        "queue": "codel",
        "codel_target_ns": 9 * MS,
        "queue_bytes": 50_000,
    }
    assert links[1].there == Way({"delay_ns": 20 * MS})
    own = scenario(text.replace('rate = "100 Mb/s"', 'rate = "1 Mb/s"\nqueue = "droptail"')).links[0].back
    assert own.settings == {"rate_bps": 1_000_000, "queue": "droptail", "queue_bytes": 50_000}
    limited = scenario(text.replace('rate = "100 Mb/s"', 'rate = "1 Mb/s"\nbuffer = "9 packets"')).links[0].back
    assert limited.settings["queue_frames"] == 9
    assert "queue_bytes" not in limited.settings


def test_a_host_has_a_control_and_settings_with_or_without_their_unit() -> None:
    text = BASE.replace(
        'hosts = ["a", "b"]',
        '[hosts.a]\ncc = "bbr"\nrto_min = "200 ms"\nsnd_queue_bytes = "1 MB"\nttl = 9\n'
        '[hosts.b]\nmtu = 9000\nprofile = "linux"',
    )
    [a, b] = scenario(text).hosts
    assert (a.cc, a.settings) == ("bbr", {"rto_min_ns": 200 * MS, "snd_queue_bytes": 1_000_000, "ttl": 9})
    assert (b.cc, b.settings) == (None, {"mtu": 9000, "profile": "linux"})


@pytest.mark.parametrize(
    ("words", "pattern", "settings"),
    [
        ('size = "20 MB"', "bulk", {}),
        (
            'pattern = "chunks"\nchunk = "64 kB"\nevery = "100 ms"',
            "chunks",
            {"chunk_bytes": 64_000, "every_ns": 100 * MS},
        ),
        (
            'pattern = "requests"\nrequest = 300\nresponse = "64 KiB"\nthink = "1 s"\ncount = 7',
            "requests",
            {"request_bytes": 300, "response_bytes": 65536, "think_ns": SECOND, "count": 7},
        ),
        ('pattern = "requests"\nrequest = 300\nresponse = 1', "requests", {"request_bytes": 300, "response_bytes": 1}),
    ],
)
def test_a_flow_has_a_pattern(words: str, pattern: str, settings: dict[str, int]) -> None:
    made = scenario(BASE + words + '\nstart = "1 s"\nstop = "9 s"\ncc = "newreno"\n')
    [flow] = made.flows
    assert (flow.pattern, flow.pattern_settings) == (pattern, settings)
    assert (flow.start_ns, flow.stop_ns, flow.cc) == (SECOND, 9 * SECOND, "newreno")
    assert made.ends_by_itself is ("size" in words or "count" in words)


def test_copies_of_a_host_have_a_link_and_a_flow_each() -> None:
    made = scenario(
        'duration = "1 s"\nhosts.w.copies = 3\nhosts.sink = {}\nrouters = ["r"]\n[links.w-r]\n[links.r-sink]\n'
        '[flows.f]\nfrom = "w"\nto = "sink"\nstart = "1 ms"\nstagger = "2 ms"\n'
    )
    assert [host.name for host in made.hosts] == ["w1", "w2", "w3", "sink"]
    assert [(link.name, link.a, link.b) for link in made.links] == [
        ("w-r1", "w1", "r"),
        ("w-r2", "w2", "r"),
        ("w-r3", "w3", "r"),
        ("r-sink", "r", "sink"),
    ]
    assert [(flow.name, flow.source, flow.sink, flow.start_ns) for flow in made.flows] == [
        ("f1", "w1", "sink", 1 * MS),
        ("f2", "w2", "sink", 3 * MS),
        ("f3", "w3", "sink", 5 * MS),
    ]


def test_copies_at_both_ends_are_pairs_and_one_pair_may_have_several_flows() -> None:
    pairs = scenario(
        'duration = "1 s"\nhosts.s.copies = 2\nhosts.d.copies = 2\nrouters = ["r"]\n[links.s-r]\n[links.r-d]\n'
        '[flows.f]\nfrom = "s"\nto = "d"\n[flows.one]\nfrom = "s2"\nto = "d1"\n'
    )
    assert [(flow.name, flow.source, flow.sink) for flow in pairs.flows] == [
        ("f1", "s1", "d1"),
        ("f2", "s2", "d2"),
        ("one", "s2", "d1"),
    ]
    several = scenario(BASE + "copies = 2\n")
    assert [(flow.name, flow.source, flow.sink) for flow in several.flows] == [("f01", "a", "b"), ("f02", "a", "b")]


def test_ends_may_be_said_and_names_may_have_dashes() -> None:
    text = 'duration = "1 s"\nhosts = ["left-host", "b"]\n[links.left-host-b]\nflows.f'
    text = text.replace("\nflows.f", '\n[flows.f]\nfrom = "b"\nto = "left-host"\n')
    assert [(link.a, link.b) for link in scenario(text).links] == [("left-host", "b")]
    said = text.replace("[links.left-host-b]", '[links.wire]\nends = ["b", "left-host"]')
    assert [(link.name, link.a, link.b) for link in scenario(said).links] == [("wire", "b", "left-host")]


def test_a_recorded_rate_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cell.trace").write_text("0 5\n0.5 2\n1.0 5\n")
    file = tmp_path / "cell.toml"
    file.write_text(BASE.replace('rate = "100 Mb/s"', 'forward.trace = "cell.trace"\nforward.trace_repeats = false'))
    link = read(file).links[0]
    assert link.there.trace == Trace(((0, 5_000_000), (SECOND // 2, 2_000_000), (SECOND, 5_000_000)), 0)
    assert link.back.trace is None


def test_a_scenario_can_go_to_another_process() -> None:
    made = scenario(with_link('loss = 0.1\nchanges = [{ at = "9 s", rate = "1 Mb/s" }]'))
    assert pickle.loads(pickle.dumps(made)) == made


# ---------------------------------------------------------------- what is refused, and where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.toml: duration is missing"),
        ('duration = "1 s"\n', "x.toml: no hosts: [hosts.NAME] for each, or hosts = ['a', 'b']"),
        ('duration = "1 s"\nduration = "1 s"\n', "x.toml:2: "),
        ("a = [1,\n2", "x.toml:2: "),
        ("= 1", "x.toml:1: "),
        ("[flows\n", "x.toml:1: "),
        (b"a = '\xff'", "x.toml:1: no text in UTF-8"),
        (b"a = 1\n\nb = '\xff'", "x.toml:3: no text in UTF-8"),
        ("a = " + "[" * 50_000, "x.toml: nested too deeply"),
        ("a = " + "{a=" * 50_000, "x.toml: nested too deeply"),
        ("a = " + "9" * 5000, "x.toml: a number of more digits than any key takes"),
        ("a = 1\n" + "a." * 100_000 + "a = 1", "x.toml:2: a key of more parts than any has"),
        (b"#" * (BYTES_MOST + 1), "x.toml: larger than 1 MiB"),
        (
            BASE.replace('"30 s"', "30"),
            "x.toml:1: duration: 30 is no time: a number with its unit in quotes, such as '40 ms'",
        ),
        (BASE.replace('"30 s"', "nan"), "x.toml:1: duration: nan is no time"),
        (BASE.replace('"30 s"', "true"), "x.toml:1: duration: true is no time"),
        (BASE.replace('"30 s"', "1979-05-27"), "x.toml:1: duration: a date or a time is no time"),
        (BASE.replace('"30 s"', '"0s"'), "x.toml:1: duration: 0 is too short"),
        (BASE.replace('"30 s"', '"31 s 2"'), "x.toml:1: duration: bad time '31 s 2'"),
        (BASE.replace('"30 s"', '"99999999 s"'), "x.toml:1: duration: at most 30 days"),
        (BASE.replace('"30 s"', '"30 s"\nsample = "1 ns"'), "x.toml:2: sample: more than 1,048,576 samples"),
        (BASE.replace('"30 s"', '"30 s"\nseed = -1'), "x.toml:2: seed: -1 is not from 0 to"),
        (
            BASE.replace('"30 s"', '"30 s"\nseed = ' + "9" * 4000),
            "x.toml:2: seed: a number of more than 20 digits is not",
        ),
        (BASE.replace('"30 s"', '"30 s"\nseed = 1.0'), "x.toml:2: seed: 1.0: a whole number"),
        (BASE.replace('"30 s"', '"30 s"\nname = "a/b"'), "x.toml:2: name: 'a/b' is no name: 1 to 40 letters"),
        (BASE.replace('"30 s"', '"30 s"\nabout = 3'), "x.toml:2: about: 3 is no text: put it in quotes"),
        (BASE.replace('"30 s"', '"30 s"\nsede = 1'), "x.toml:2: sede: there is no such key (did you mean seed?)"),
        (
            BASE.replace('"30 s"', '"30 s"\n"' + "k" * 1000 + '" = 1'),
            "x.toml:2: " + "k" * 60 + "...: there is no such key",
        ),
    ],
    ids=lambda value: str(value[:40]),
)
def test_what_is_no_scenario_is_refused_at_its_line(text: str | bytes, message: str) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["a", "b"]', "7", "x.toml:2: hosts: 7: a table is needed"),
        ('["a", "b"]', '["a", "a"]', "x.toml:2: hosts: a name is there twice"),
        ('["a", "b"]', '["a", 3]', "x.toml:2: hosts: 3 is no name"),
        ('["a", "b"]', '["a", "b", "c.d"]', "x.toml:2: hosts: 'c.d' is no name"),
        ('["a", "b"]', '["a", "b", "r"]', "x.toml:3: routers.r: a node of the name r is there already"),
        ('["a", "b"]', '["a", "b", "c"]', "x.toml:2: hosts.c: the host c has no link"),
        ('["a", "b"]', '{ a = {}, b = { ccc = "bbr" } }', "x.toml:2: hosts.b.ccc: no setting of a stack is called so"),
        (
            '["a", "b"]',
            '{ a = {}, b = { cc = "bbbr" } }',
            "x.toml:2: hosts.b.cc: no control is called 'bbbr' (did you mean bbr?)",
        ),
        ('["a", "b"]', "{ a = {}, b = { profile = 'bsd' } }", "x.toml:2: hosts.b.profile: 'bsd' is none of"),
        ('["a", "b"]', "{ a = {}, b = { ttl = 0 } }", "x.toml:2: hosts.b.ttl: 0 is not from 1 to 255"),
        ('["a", "b"]', '{ a = {}, b = { rto_min = "0" } }', "x.toml:2: hosts.b.rto_min: '0' is not from"),
        ('["a", "b"]', "{ a = {}, b = { rto_min = 7 } }", "x.toml:2: hosts.b.rto_min: 7 is no time"),
        (
            '["a", "b"]',
            '{ a = {}, b = { rto_min = "1s", rto_min_ns = "1s" } }',
            "x.toml:2: hosts.b.rto_min_ns: it is there twice",
        ),
        ('["a", "b"]', "{ a = {}, b = { copies = 1001 } }", "x.toml:2: hosts.b.copies: 1001 is not from 1 to 1000"),
        (
            '["a", "b"]',
            "{ a = { copies = 3 }, b = { copies = 2 } }",
            "x.toml:8: flows.f0: 3 copies at one end, 2 at the other",
        ),
        ("[routers.r]", "[routers.r]\nrate = 1", "x.toml:4: routers.r.rate: there is no such key"),
        ("[routers.r]", "[routers.s]", "x.toml:4: links.a-r: no ends"),
        (
            "[links.a-r]",
            '[links.wire]\nends = ["a", "rr"]',
            "x.toml:5: links.wire.ends: no host or router is called 'rr'",
        ),
        ("[links.a-r]", '[links.wire]\nends = ["a"]', "x.toml:5: links.wire.ends: two ends are needed"),
        ("[links.a-r]", '[links.wire]\nends = "a r"', "x.toml:5: links.wire.ends: 'a r': an array of ends is needed"),
        ("[links.a-r]", '[links.wire]\nends = ["a", "a"]', "x.toml:5: links.wire.ends: both ends are the same"),
        ("[links.a-r]", "[links.r-a]\n[links.a-r]", "x.toml:5: links.a-r: a and r have a link already: r-a"),
        ("[links.r-b]", "[links.a-b]", "x.toml:6: links.a-b: the host a has a link already, a-r: a router forwards"),
        ("[links.r-b]", '[links."r b"]', "x.toml:6: links.r b: 'r b' is no name"),
        ("[links.r-b]", "[routers.q]\n[links.q-b]", "x.toml:11: flows.f0.to: no links lead from a to b"),
        ('"100 Mb/s"', '"100 MB/s"', "x.toml:5: links.a-r.rate: bad rate '100 MB/s': rates are in bits"),
        ('"100 Mb/s"', "100", "x.toml:5: links.a-r.rate: 100 is no rate"),
        ('"100 Mb/s"', "1e400", "x.toml:5: links.a-r.rate: inf is no rate"),
        (
            '"100 Mb/s"',
            '"9999999999999 Gb/s"',
            "x.toml:5: links.a-r.rate: bad rate '9999999999999 Gb/s': that is too much",
        ),
        ('"100 Mb/s"', '"' + "9" * 100_000 + '"', "x.toml:5: links.a-r.rate: bad rate '999"),
        ('from = "a"', 'from = "r"', "x.toml:9: flows.f0.from: r is a router: flows have hosts at both ends"),
        ('from = "a"', 'from = "b"', "x.toml:10: flows.f0.to: b is at both ends"),
        ('from = "a"', "", "x.toml:8: flows.f0: from is missing"),
        ('from = "a"', 'from = "aa"', "x.toml:9: flows.f0.from: no host or router is called 'aa' (did you mean a?)"),
        ("[flows.f0]", "[[flows.f0]]", "x.toml:8: flows.f0: an array: a table is needed"),
        ("[flows.f0]", "[flows]", "x.toml:9: flows.from: 'a': a table is needed"),
        ('from = "a"\nto = "b"\n', "", "x.toml:8: flows.f0: from is missing"),
        ('[flows.f0]\nfrom = "a"\nto = "b"\n', "", "x.toml: no flows"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_nodes_links_and_flows_that_cannot_be(old: str, new: str, message: str) -> None:
    assert old in BASE
    assert refused(BASE.replace(old, new)).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("loss = 1.5", "x.toml:6: links.a-r.loss: 1.5 is no share: '0.1 %', or a number from 0 to 1"),
        ('delay = "20 min"', "x.toml:6: links.a-r.delay: '20 min' is too much: at most 18 minutes"),
        ('backward.rate = "18 Tb/s"', "x.toml:6: links.a-r.backward.rate: bad rate"),
        (
            'backward.rate = "18000 Gb/s"',
            "x.toml:6: links.a-r.backward.rate: '18000 Gb/s' is too much: at most 17 Tb/s",
        ),
        ('buffer = "2000 GB"', "x.toml:6: links.a-r.buffer: '2000 GB' is too much: at most 1 TiB"),
        ("loss = nan", "x.toml:6: links.a-r.loss: nan is no share"),
        ("loss = -0.1", "x.toml:6: links.a-r.loss: -0.1 is no share"),
        ('loss = "1 ms"', "x.toml:6: links.a-r.loss: bad share '1 ms'"),
        ("loss = [1]", "x.toml:6: links.a-r.loss: an array is no share"),
        ("losss = 1", "x.toml:6: links.a-r.losss: there is no such key (did you mean loss?)"),
        ("forward.losss = 1", "x.toml:6: links.a-r.forward.losss: there is no such key (did you mean loss?)"),
        ("forward = 1", "x.toml:6: links.a-r.forward: 1: a table is needed"),
        ('queue = "fifo"', "x.toml:6: links.a-r.queue: 'fifo' is none of droptail, codel, red"),
        ('codel_target = "5 ms"', "x.toml:6: links.a-r.codel_target: only with queue = 'codel'"),
        ('queue = "codel"\nred_max_p = 0.1', "x.toml:7: links.a-r.red_max_p: only with queue = 'red'"),
        ('queue = "red"\nmark = 9000', "x.toml:7: links.a-r.mark: only with queue = 'droptail'"),
        ("ecn = true", "x.toml:6: links.a-r.ecn: only with queue = 'codel' or 'red'"),
        ("ecn = 1", "x.toml:6: links.a-r.ecn: 1: true or false is needed"),
        ('queue = "red"\nred_min = 9\nred_max = 9', "x.toml:8: links.a-r.red_max: red_min, 9 bytes, is not less"),
        ('queue = "red"\nred_min = 9', "x.toml:7: links.a-r.red_min: red_min and red_max need each other"),
        (
            'queue = "red"\nred_min = 9\nred_max = 99\nchanges = [{ at = 0, red_min = "1 kB" }]',
            "x.toml:7: links.a-r.red_min: red_min, 1,000 bytes, is not less than red_max",
        ),
        ("loss_bad = 1", "x.toml:6: links.a-r.loss_bad: a Gilbert-Elliott channel needs good_to_bad as well"),
        (
            "good_to_bad = 1",
            "x.toml:6: links.a-r.good_to_bad: a Gilbert-Elliott channel needs bad_to_good and loss_bad",
        ),
        ("reorder = 1", "x.toml:6: links.a-r.reorder: reorder (a share of the frames) and reorder_by"),
        ('reorder_by = "1 ms"', "x.toml:6: links.a-r.reorder_by: reorder (a share of the frames) and reorder_by"),
        ("mtu = 67", "x.toml:6: links.a-r.mtu: 67 is not from 68 to 65535"),
        ("silent = true", "x.toml:6: links.a-r.silent: it is about packets beyond mtu"),
        ("buffer = 0", "x.toml:6: links.a-r.buffer: 0 is too small"),
        ('buffer = "0 packets"', "x.toml:6: links.a-r.buffer: bad limit '0 packets': 1p to 16777216p"),
        ("buffer = true", "x.toml:6: links.a-r.buffer: true is no size"),
        ("lose = [0]", "x.toml:6: links.a-r.lose: 0 is not from 1 to"),
        ("lose = 3", "x.toml:6: links.a-r.lose: 3: an array of numbers of frames is needed"),
        (f"lose = [{'1,' * 100_001}]", "x.toml:6: links.a-r.lose: 100001 numbers of frames: at most 100000"),
        ("changes = [1]", "x.toml:6: links.a-r.changes.0: 1: a table is needed"),
        ("changes = [{ loss = 0 }]", "x.toml:6: links.a-r.changes.0: at is missing"),
        ('changes = [\n{ at = "1 s" }]', "x.toml:7: links.a-r.changes.0: it changes nothing"),
        ('changes = [{ at = "1 s", rate = 0, to = 1 }]', "x.toml:6: links.a-r.changes.0.to: there is no such key"),
        (
            'changes = [{ at = "1 s", rate = 0, direction = "up" }]',
            "x.toml:6: links.a-r.changes.0.direction: 'up' is none of",
        ),
        ('blackouts = [{ at = "1 s" }]', "x.toml:6: links.a-r.blackouts.0: for is missing"),
        ('blackouts = [{ at = "1 s", for = 0 }]', "x.toml:6: links.a-r.blackouts.0.for: 0 is too short"),
        (
            'blackouts = [{ at = "1 s", for = "2 s" }, { at = "2 s", for = "2 s" }]',
            "x.toml:6: links.a-r.blackouts.1.at: the blackout before it is not over then",
        ),
        ('trace = "no/where"', "x.toml:5: links.a-r.rate: the trace has the rates: one of both"),
        ('trace_step = "1 s"', "x.toml:6: links.a-r.trace_step: there is no trace"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_a_links_keys_that_cannot_be(words: str, message: str, tmp_path: Path) -> None:
    if "no/where" in words:
        (tmp_path / "t").write_text("0 1\n")
        words = words.replace("no/where", str(tmp_path / "t"))
    assert refused(with_link(words)).startswith(message)


def test_a_queue_needs_a_rate() -> None:
    text = BASE.replace('delay = "20 ms"', 'delay = "20 ms"\nbuffer = "9 kB"')
    assert refused(text) == "x.toml:8: links.r-b.buffer: without a rate nothing ever waits: rate is missing"
    scenario(text.replace("buffer", 'changes = [{ at = "1 s", rate = "1 Mb/s" }]\nbuffer'))


def test_a_trace_that_is_not_there_is_refused_at_its_line() -> None:
    text = BASE.replace('rate = "100 Mb/s"', 'trace = "no/where"')
    assert refused(text) == "x.toml:5: links.a-r.trace: no/where: No such file or directory"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("size = 0", "x.toml:11: flows.f0.size: 0 is too small"),
        ("size = -1", "x.toml:11: flows.f0.size: -1 is no size"),
        ("size = 1.5", "x.toml:11: flows.f0.size: 1.5 is no size"),
        ('start = "5 s"\nstop = "5 s"', "x.toml:12: flows.f0.stop: it is not after start"),
        (
            'pattern = "bulky"',
            "x.toml:11: flows.f0.pattern: 'bulky' is none of bulk, chunks, requests (did you mean bulk?)",
        ),
        ('pattern = "chunks"\nchunk = 9', "x.toml:8: flows.f0: every is missing"),
        ("chunk = 9", "x.toml:11: flows.f0.chunk: only with pattern = 'chunks'"),
        ("count = 9", "x.toml:11: flows.f0.count: only with pattern = 'requests'"),
        (
            'pattern = "requests"\nrequest = 1\nresponse = 1\nsize = 1',
            "x.toml:14: flows.f0.size: requests have request",
        ),
        ('stagger = "1 s"', "x.toml:11: flows.f0.stagger: one flow alone"),
        ("copies = 2\n[flows.f01]\nfrom='a'\nto='b'", "x.toml:12: flows.f01: a flow of the name f01 is there already"),
        ('cc = "reno"', "x.toml:11: flows.f0.cc: no control is called 'reno'"),
        ("cc = 3", "x.toml:11: flows.f0.cc: 3 is no text"),
        ('cc = "no_such.py:Mine"', "x.toml:11: flows.f0.cc: cannot load '"),
        ('cc = "no.such.module:Mine"', "x.toml:11: flows.f0.cc: cannot load 'no.such.module': ModuleNotFoundError"),
        ('cc = ":"', "x.toml:11: flows.f0.cc: cannot load ''"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_a_flows_keys_that_cannot_be(words: str, message: str) -> None:
    assert refused(BASE + words + "\n").startswith(message)


def test_a_cycle_of_routers_is_a_way() -> None:
    text = BASE.replace("[routers.r]", "[routers.r]\n[routers.s]\n[routers.t]\n[links.r-s]\n[links.s-t]\n[links.t-r]")
    assert len(scenario(text).links) == 5


def test_nodes_are_bounded() -> None:
    text = 'duration = "1 s"\nhosts.a.copies = 1000\nhosts.b.copies = 25\nrouters = ["r"]\n[links.a-r]\n[links.b-r]\n'
    assert refused(text) == f"x.toml:3: hosts.b: more than {NODES_MOST} nodes"


@pytest.mark.parametrize(
    "text",
    [
        "a = '" + "x" * (BYTES_MOST - 10) + "'",
        'a = "' + "\\n" * (BYTES_MOST // 2 - 10) + '"',
        "a = [" + "[]," * (BYTES_MOST // 3 - 10) + "]",
        "".join(f"k{number} = 1\n" for number in range(80_000)),
        "[hosts]\n" + "".join(f"k{number} = {{}}\n" for number in range(50_000)),
        "".join(f"[links.k{number}]\n" for number in range(50_000)),
        "a." * 60 + "a = 1",
        ".".join("a" * 20_000) + " = 1",
    ],
    ids=lambda text: text[:20],
)
def test_a_large_file_of_one_kind_is_refused_in_a_line(text: str) -> None:
    assert re.match(r"x\.toml(:\d+)?: ", refused('duration = "1 s"\n' + text))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.toml")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


# ---------------------------------------------------------------- values that are given beside the file


def varied(*given: tuple[tuple[str | int, ...], Any]) -> Scenario:
    document = Document.parse(BASE.encode(), "x.toml")
    return scenario_of(
        document.with_values((path, value, f"--set {'.'.join(map(str, path))}") for path, value in given)
    )


def test_given_values_take_the_place_of_the_files() -> None:
    made = varied((("seed",), 7), (("links", "a-r", "rate"), "1 Mb/s"), (("links", "r-b", "forward", "loss"), 0.5))
    assert made.seed == 7
    assert made.links[0].there.settings == {"rate_bps": 1_000_000}
    assert made.links[1].there.settings == {"delay_ns": 20 * MS, "loss": 0.5}
    assert scenario(BASE).seed == 1


def test_a_star_stands_for_every_name() -> None:
    made = varied((("links", "*", "loss"), 0.25))
    assert [link.back.settings["loss"] for link in made.links] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("links", "a-r", "loss"), 2, "--set links.a-r.loss: links.a-r.loss: 2 is no share"),
        (
            ("links", "a-r", "losss"),
            0,
            "--set links.a-r.losss: links.a-r.losss: there is no such key (did you mean loss?)",
        ),
        (("links", "a-q", "loss"), 0, "--set links.a-q.loss: there is no links.a-q (did you mean a-r?)"),
        (("link", "a-r", "loss"), 0, "--set link.a-r.loss: there is no link (did you mean links?)"),
        (("duration", "x"), 0, "--set duration.x: duration is no table"),
        (
            ("links", "a-r", "changes", "0", "at"),
            0,
            "--set links.a-r.changes.0.at: there is no array links.a-r.changes: it can be given as a whole",
        ),
        (("links", "a-r", "lose", 0), 5, "--set links.a-r.lose.0: there is no array links.a-r.lose"),
        (
            ("links", "a-r", "changes", "at"),
            0,
            "--set links.a-r.changes.at: links.a-r.changes: a table: an array of tables",
        ),
        (("links", "a-r", "loss", "x"), 0, "--set links.a-r.loss.x: links.a-r.loss: a table is no share"),
        (("hosts", "5"), "c", "--set hosts.5: hosts is an array with items 0 to 1, not 5"),
        (("hosts", "a", "cc"), "bbr", "--set hosts.a.cc: hosts is an array with items 0 to 1, not a"),
        (("hosts", "1"), "c", "x.toml:6: links.r-b: no ends: "),
        (("flows", "f0", "*"), 0, "--set flows.f0.*: flows.f0.from: 0 is no name"),
        (("flows", "f0", "from", "*"), 0, "--set flows.f0.from.*: nothing there has such a name"),
    ],
)
def test_given_values_that_cannot_be_are_named(path: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        varied((path, value))
    assert str(caught.value).startswith(message)
    assert f"--set {'.'.join(map(str, path))}" in str(
        caught.value
    )  # though the file's key may be the one that is wrong


def test_items_of_an_array_have_numbers() -> None:
    document = Document.parse(f'{BASE}\n[links.s]\nends = ["r", "q"]\n'.encode(), "x.toml")
    changed = document.with_values([(("links", "s", "ends", "1"), "b", "one"), (("hosts", 0), "c", "two")])
    assert (changed.tree["links"]["s"]["ends"], changed.tree["hosts"]) == (["r", "b"], ["c", "b"])
    assert str(changed.error(("links", "s", "ends", 1), "it is so")) == "one: links.s.ends.1: it is so"


def test_a_value_is_given_once_but_for_all_and_then_for_one() -> None:
    every, one = ("links", "*", "loss"), ("links", "a-r", "loss")
    assert [link.there.settings["loss"] for link in varied((every, 0.25), (one, 0.5)).links] == [0.5, 0.25]
    for first, second in ((one, every), (one, one), (every, every)):
        with pytest.raises(ScenarioError) as caught:
            varied((first, 0.25), (second, 0.5))
        said = f"--set {'.'.join(second)}: links.a-r.loss is given by --set {'.'.join(first)} already"
        assert str(caught.value) == said

# SPDX-License-Identifier: MIT
"""Experiments of many connections, a round that has no more time, memory that is watched, offloads that go and come."""

import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tools.test_bench_runner import Count, Second, Still
from ustack.lab import Lab, inside
from ustack.tools.bench import offloads, processor, runner
from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments import many
from ustack.tools.bench.experiments.base import Bench
from ustack.tools.bench.generators import UstackLoad, Wrk
from ustack.tools.bench.machine import OFFLOADS
from ustack.tools.bench.machine import offloads as offloads_now
from ustack.tools.bench.offloads import turned, without_offloads
from ustack.tools.bench.records import Writer
from ustack.tools.bench.runner import NO_TIME, Runner


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path, Wrk(tmp_path, 0), 1, 0, 1, {"/512.bin": ""})


def test_what_has_no_time_is_said_in_the_first_round_and_not_begun_later(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "prepare_client", lambda _netns: None)
    monkeypatch.setattr(runner, "settings_of", lambda _netns: {})
    clock = [0.0]
    monkeypatch.setattr("ustack.tools.bench.runner.time.monotonic", lambda: clock[0])

    class Slow(Count):
        def measure(self, *asked: Any) -> Any:
            clock[0] += 1.0
            return super().measure(*asked)

    made = Runner(bench, [Slow()], Writer(io.StringIO()), until_s=3.0)
    made.start(["still", "second"], {"still": Still, "second": Second})
    made.run_round(1)
    assert clock == [3.0]
    made.run_round(2)
    made.until_s = 3.5  # over within the first point of the third round, which is asked to its end
    made.run_round(3)
    assert [(run.point, run.round) for run in made.writer.results.runs[4:]] == [("one", 3), ("one", 3)]
    del made.writer.results.runs[4:]
    found = [(run.point, run.contestant, run.errors) for run in made.writer.results.runs]
    assert found == [
        ("one", "still", {}),
        ("one", "second", {}),
        ("two", "still", {}),
        ("two", "second", {NO_TIME: 1}),
    ]


def found_by_load(**more: Any) -> dict[str, Any]:
    found = {"good": 100_000, "most_open": 100_000, "seconds": 5.0, "received_bytes": 1, "opened_in_s": 2.0}
    return {**found, "all": {"outcomes": {"ok": 100_000}}, **more}


@pytest.mark.parametrize(
    ("more", "errors"),
    [
        ({}, {}),
        ({"most_open": 99_999}, {"only 99,999 were open at once": 1}),
        ({"good": 99_999}, {"only 99,999 were answered": 1}),
        ({"all": {"outcomes": {"ok": 1, "reset": 7}}}, {"reset": 7}),
    ],
)
def test_a_connection_that_is_lost_or_silent_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], errors: dict[str, int]
):
    server = Still(bench.work, bench.site, 1)
    server.url, server.client_netns = "http://198.18.0.2:80", "nowhere"
    monkeypatch.setattr(many, "prepare_client", lambda _: None)
    monkeypatch.setattr(many, "SETTLE_S", 0.0)
    monkeypatch.setattr(Contestant, "client_ifname", lambda _: "veth0")
    monkeypatch.setattr(Still, "pids", lambda _: [], raising=False)
    readings = [100_000_000, 500_000_000, 500_000_000]
    monkeypatch.setattr(many, "memory_bytes", lambda _: readings.pop(0))
    monkeypatch.setattr(processor, "memory_bytes", lambda _: 500_000_000)
    monkeypatch.setattr(many, "slab_bytes", lambda: 0)
    monkeypatch.setattr(processor, "slab_bytes", lambda: 30_000_000)
    monkeypatch.setattr(UstackLoad, "ask", lambda *_: found_by_load(**more))
    found = many.IdleMany().measure(bench, server, "100,000 connections")
    assert found.errors == errors
    assert found.value == pytest.approx(4300)
    assert (found.details["process_bytes"], found.details["kernel_bytes"]) == (4000, 300)


def test_the_greatest_is_kept(monkeypatch: pytest.MonkeyPatch):
    process, kernel = [5, 9, 1], [1, 1, 8]
    monkeypatch.setattr(processor, "memory_bytes", lambda _: process.pop(0))
    monkeypatch.setattr(processor, "slab_bytes", lambda: kernel.pop(0))
    found = processor.Greatest()
    for _ in range(3):
        found.sample([])
    assert (found.process, found.kernel, found.samples) == (9, 1, 3)


@pytest.mark.root
def test_offloads_are_off_meanwhile_and_as_they_were_afterwards():
    name = f"offloads-{os.getpid()}"
    with Lab(name, netns=f"{name}-a", peer_netns=f"{name}-b"):
        with inside(f"{name}-a"):
            ifname = next(one for _, one in socket.if_nameindex() if one != "lo")
        turned(f"{name}-a", ifname, {"tx-tcp-segmentation": False})
        before = offloads_of(f"{name}-a", ifname), offloads_of(f"{name}-b", ifname)
        assert before[0] != before[1]
        with without_offloads(f"{name}-a", f"{name}-b") as found:
            assert len(found) == 2
            for text in (offloads_of(f"{name}-a", ifname), offloads_of(f"{name}-b", ifname)):
                assert text.count(" off") == len(OFFLOADS) - len(offloads.KEPT)
        assert (offloads_of(f"{name}-a", ifname), offloads_of(f"{name}-b", ifname)) == before


def offloads_of(netns: str, ifname: str) -> str:
    with inside(netns):
        return offloads_now(ifname)

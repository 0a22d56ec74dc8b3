# SPDX-License-Identifier: MIT
"""What a dead owner left is removed; what was there before, lives, or came later is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.lab import ingress, links, namespace, ownership
from ustack.lab.links import End
from ustack.lab.ownership import Record

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ownership, "STATE_DIR", tmp_path)
    return tmp_path


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def abandoned(name: str) -> Record:
    """A record whose owner is dead: this pid, at a time when it was somebody else's."""
    record = Record(name)
    record.owners = [(os.getpid(), 0)]
    record.save()
    return record


def test_a_process_is_known_by_pid_and_start_time(dead_pid: int) -> None:
    mine = ownership.start_time(os.getpid())
    assert mine is not None
    assert mine > 0
    assert ownership.start_time(dead_pid) is None


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert ownership.start_time(process.pid) is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ownership.start_time(process.pid) is None
    process.wait()


def test_a_record_survives_being_written_and_read() -> None:
    record = Record("r1")
    record.own(os.getpid())
    record.plan_namespace("some-name")
    assert ownership.load("r1") == record
    assert record.is_alive()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"owners": 3}', '{"owners": [], "name": "other"}'])
def test_a_file_that_is_no_record_is_ignored_and_left(state_dir: Path, text: str) -> None:
    path = state_dir / "lab-odd.json"
    path.write_text(text)
    assert ownership.load("odd") is None
    assert ownership.sweep() == []
    assert path.read_text() == text


def test_sweep_removes_what_a_dead_owner_left(unique: Callable[[str], str]) -> None:
    record = abandoned("r1")
    ours, peer = unique("ns"), unique("ns")
    for name in (ours, peer):
        record.plan_namespace(name)
        namespace.create(name, mark=record.mark)
    end = End(ours, "x0")
    record.plan_interface(end)
    links.make_veth(end, End(peer, "x1"), mark=record.mark)
    assert ownership.sweep() == ["r1"]
    assert not namespace.exists(ours)
    assert not namespace.exists(peer)
    assert not record.path.exists()
    assert ownership.sweep() == []


def test_sweep_leaves_the_living(make_namespace: Callable[[], str]) -> None:
    record = Record("r1")
    record.own(os.getpid())
    record.save()
    assert ownership.sweep() == []
    assert record.path.exists()


def test_sweep_leaves_a_lab_that_is_to_last_but_not_one_that_was_never_finished() -> None:
    lasting, unfinished = Record("r1", persistent=True, complete=True), Record("r2", persistent=True)
    lasting.save()
    unfinished.save()
    assert ownership.sweep() == ["r2"]


def test_one_living_owner_is_enough(dead_pid: int) -> None:
    record = Record("r1")
    record.own(os.getpid())
    record.owners.append((dead_pid, 1))
    assert record.is_alive()


def test_a_namespace_of_the_same_name_made_by_somebody_else_is_left(make_namespace: Callable[[], str]) -> None:
    """The owner died between announcing it and making it."""
    name = make_namespace()
    record = abandoned("r1")
    record.plan_namespace(name)
    ownership.sweep()
    assert namespace.exists(name)


def test_an_interface_of_the_same_name_made_by_somebody_else_is_left(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "x0")
    record = abandoned("r1")
    record.plan_interface(end)
    links.make_veth(end, End(make_namespace(), "x0"), mark="theirs")
    ownership.sweep()
    assert links.find(end) is not None


def test_a_stray_file_that_was_never_mounted_is_removed(unique: Callable[[str], str]) -> None:
    """The owner died between making the file and mounting the namespace on it."""
    path = namespace.RUN_DIR / unique("ns")
    record = abandoned("r1")
    record.plan_namespace(path.name)
    path.touch()
    ownership.sweep()
    assert not path.exists()


def test_an_interface_is_found_from_another_namespace(
    make_namespace: Callable[[], str], unique: Callable[[str], str]
) -> None:
    """ "The caller's" is remembered by identity: a sweep from elsewhere finds it through a process that lives there."""
    here, elsewhere = End(None, unique("v")), make_namespace()
    record = abandoned("r1")
    record.plan_interface(here)
    links.make_veth(here, End(make_namespace(), "x0"), mark=record.mark)
    # A process that lives there; this thread does not, for a moment.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE), namespace.inside(elsewhere):
        ownership.sweep()
    assert links.find(here) is None


def test_what_lived_in_a_namespace_that_was_replaced_is_gone(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "x0")
    record = abandoned("r1")
    record.plan_interface(end)
    record.items[0]["home"] = [0, 1]
    links.make_veth(end, End(make_namespace(), "x0"), mark=record.mark)
    record.save()
    ownership.sweep()
    assert links.find(end) is not None


@pytest.mark.parametrize("had_qdisc", [False, True])
def test_a_drop_on_somebody_elses_interface_is_undone(make_namespace: Callable[[], str], had_qdisc: bool) -> None:
    end = End(make_namespace(), "x0")
    links.make_veth(end, End(make_namespace(), "x0"), mark="theirs")
    if had_qdisc:
        with links.netlink(end.namespace) as ip:
            ip.tc("add", "clsact", ip.link_lookup(ifname=end.ifname)[0])
    record = abandoned("r1")
    record.plan_drop(end, "198.18.6.2")
    ingress.drop(end, address="198.18.6.2")
    ownership.sweep()
    assert links.find(end) is not None
    assert ingress.has_clsact(end) == had_qdisc


def test_a_save_replaces_the_file_whole(state_dir: Path) -> None:
    record = Record("r1")
    record.save()
    record.description = {"x": 1}
    record.save()
    assert json.loads((state_dir / "lab-r1.json").read_text())["description"] == {"x": 1}
    assert [path.name for path in state_dir.iterdir()] == ["lab-r1.json"]

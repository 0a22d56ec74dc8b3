# SPDX-License-Identifier: MIT
"""The keeper removes the lab however its owner ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.children import wait_for_end
from ustack.lab import InUseError, Lab, LabError, Plan, namespace, ownership, sweep
from ustack.lab import keeper as keeping
from ustack.lab.keeper import DIRECTORY, LOG, PART, Keeper

pytestmark = pytest.mark.root

OWNER = """
import os, sys, json
from ustack.lab import Lab
with Lab(**json.loads(sys.argv[1])) as lab:
    print(lab.ifname, flush=True)
    sys.stdin.read()
"""


def plan_of(name: str) -> Plan:
    return Plan(name, netns=f"{name}-a", peer_netns=f"{name}-b")


def start_owner(name: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, json.dumps(asdict(plan_of(name)))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ustack0\n"
    return process


def keeper_of(name: str, owner: int) -> int:
    record = ownership.load(name)
    assert record is not None
    return next(pid for pid, _ in record.owners if pid != owner)


def test_the_lab_lasts_as_long_as_the_block(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with Lab(**asdict(plan_of(name))) as lab:
        with lab.inside():
            assert namespace.identity() == namespace.identity(f"{name}-a")
        assert ownership.load(name) is not None
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")
    assert ownership.load(name) is None


def test_an_exception_in_the_block_passes_and_the_lab_goes(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with pytest.raises(ZeroDivisionError), Lab(**asdict(plan_of(name))):
        _ = 1 / 0
    assert not namespace.exists(f"{name}-a")


def test_what_up_refuses_is_refused_here(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with Lab(**asdict(plan_of(name))):
        with pytest.raises(InUseError, match="is up already"), Lab(name):
            pass
        assert namespace.exists(f"{name}-a")
    with pytest.raises(LabError, match="bad link"), Lab(name, link="wire"):
        pass


def test_a_killed_owner_is_cleaned_up_after(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with start_owner(name) as owner:
        keeper = keeper_of(name, owner.pid)
        owner.kill()
        wait_for_end(keeper)
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")
    assert ownership.load(name) is None


def test_when_both_are_killed_the_next_sweep_cleans(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with start_owner(name) as owner:
        keeper = keeper_of(name, owner.pid)
        with ownership.locked():  # the next sweep could be that of another command on this machine
            os.kill(keeper, signal.SIGKILL)
            owner.kill()
            wait_for_end(keeper)
            assert namespace.exists(f"{name}-a")
    sweep()
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")


def test_a_lab_whose_keeper_died_belongs_to_its_owner_until_that_ends(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with start_owner(name) as owner:
        keeper = keeper_of(name, owner.pid)
        os.kill(keeper, signal.SIGKILL)
        wait_for_end(keeper)
        sweep()
        assert namespace.exists(f"{name}-a")
        owner.kill()
    sweep()
    assert not namespace.exists(f"{name}-a")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_keeper_ends_with_its_owner_and_not_before(number: signal.Signals, unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with start_owner(name) as owner:
        keeper = keeper_of(name, owner.pid)
        os.kill(keeper, number)
        assert ownership.start_time(keeper) is not None
        assert owner.stdin is not None
        owner.stdin.close()
        assert owner.wait(30) == 0
    assert not namespace.exists(f"{name}-a")


@pytest.mark.users
def test_the_servers_user_cannot_point_the_log_or_the_directory_elsewhere(
    unique: Callable[[str], str], tmp_path: Path
) -> None:
    theirs, private = tmp_path / "theirs", tmp_path / "private"
    theirs.mkdir()
    (private / "public").mkdir(parents=True)
    private.chmod(0o700)
    (theirs / "log").symlink_to(private / "log")
    (theirs / "site").symlink_to(private / "public")
    for path in (theirs, theirs / "log", theirs / "site"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    with Keeper(plan_of(unique("lab")), {LOG: theirs / "log", DIRECTORY: theirs / "site"}) as keeper:
        for kind in (LOG, DIRECTORY):
            with pytest.raises(PermissionError, match="user 65534 made it lead to"):
                keeper.open(kind)
        (theirs / "log").unlink()
        os.close(keeper.open(LOG))
    assert os.listdir(private) == ["public"]
    assert (theirs / "log").read_bytes() == b""


def test_it_removes_the_part_and_nothing_else(tmp_path: Path, unique: Callable[[str], str]) -> None:
    part, log = tmp_path / "out.qlog.part", tmp_path / "log"
    part.write_text("records")
    log.write_text("line\n")
    with Keeper(plan_of(unique("lab")), {PART: part, LOG: log}) as keeper:
        with pytest.raises(PermissionError, match="no such file is to be removed"):
            keeper.remove(LOG)
        with pytest.raises(OSError, match="no such file is kept"):
            keeper.open(PART)
        keeper.remove(PART)
        assert os.listdir(tmp_path) == ["log"]
        with pytest.raises(FileNotFoundError):
            keeper.remove(PART)
        os.close(keeper.open(LOG))


@pytest.mark.parametrize("said", [b"[]\n", b"{}\n", b"1\n", b"\xff\n", b"[" * 60000 + b"\n", b'{"open": {"a": 1}}\n'])
def test_nonsense_from_the_owner_ends_the_lab_as_its_end_does(said: bytes, unique: Callable[[str], str]) -> None:
    name = unique("lab")
    with Keeper(plan_of(name)) as keeper:
        pid = keeper_of(name, os.getpid())
        keeper._channel.sendall(said)
        if b"open" in said:
            assert keeper._receive() == ({"error": "no such file is kept", "errno": 0}, [])
        else:
            wait_for_end(pid)
    assert not namespace.exists(f"{name}-a")
    assert ownership.load(name) is None


def test_a_keeper_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, unique: Callable[[str], str]
) -> None:
    """Instead of a keeper: a process that neither answers nor ends before its input does."""
    monkeypatch.setattr(keeping, "GRACE_S", 0.01)
    ours, theirs = socket.socketpair()
    keeper = Keeper(plan_of(unique("lab")))
    with (
        theirs,
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as mute,
    ):
        keeper._process, keeper._channel = mute, ours
        assert "has not removed the lab within 0.01 s" in keeper._finish()


def test_what_keeps_it_is_said_with_its_place() -> None:
    before = signal.getsignal(signal.SIGALRM)
    reader, writer = os.pipe()
    try:
        with (
            pytest.raises(
                LabError,
                match=r"no end after 0\.01 s, in test_what_keeps_it_is_said_with_its_place .*test_keeper\.py:\d+",
            ),
            keeping.limited(0.01),
        ):
            os.read(reader, 1)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) == before
    finally:
        os.close(reader)
        os.close(writer)

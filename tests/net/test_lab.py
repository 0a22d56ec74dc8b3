# SPDX-License-Identifier: MIT
"""`ustack lab` as a user runs it: one process for each command, the kernel's own tools to look at what it did."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack.lab import namespace

pytestmark = pytest.mark.root


def ustack(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ustack.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def lab(unique: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    name = unique("lab")
    made = ustack("lab", "up", name, "--peer-netns", f"{name}-peer")
    assert made.returncode == 0, made.stderr
    yield json.loads(made.stdout)
    ustack("lab", "down", name)


def test_up_list_exec_down(lab: dict[str, Any]) -> None:
    name = lab["name"]
    assert lab["netns"] == f"ustack-{name}"
    listed = [json.loads(line) for line in ustack("lab", "list", "--json").stdout.splitlines()]
    assert lab in listed
    assert any(line.startswith(f"{name}\tveth\t") for line in ustack("lab", "list").stdout.splitlines())

    ours = ustack("lab", "exec", name, "ip", "-json", "address")
    assert [one["ifname"] for one in json.loads(ours.stdout)] == ["lo", lab["ifname"]]
    peer = ustack("lab", "exec", "--peer", name, "ip", "-json", "address", "show", "dev", lab["peer_ifname"])
    assert [one["local"] for one in json.loads(peer.stdout)[0]["addr_info"]] == ["198.18.0.1"]

    gone = ustack("lab", "down", name)
    assert (gone.returncode, gone.stdout, gone.stderr) == (0, "", "")
    assert not namespace.exists(lab["netns"])
    assert not namespace.exists(lab["peer_netns"])


def test_the_address_of_the_stack_answers_nobody(lab: dict[str, Any]) -> None:
    """The kernel is kept off: not even its ARP answers. The failed question shows as FAILED or INCOMPLETE."""
    ustack("lab", "exec", "--peer", lab["name"], "ping", "-c", "1", "-W", "1", "198.18.0.2")
    shown = ustack("lab", "exec", "--peer", lab["name"], "ip", "neighbour", "show", "198.18.0.2")
    assert "lladdr" not in shown.stdout


def test_exec_takes_two_dashes_before_the_command(lab: dict[str, Any]) -> None:
    assert ustack("lab", "exec", lab["name"], "--", "echo", "--", "-x").stdout == "-- -x\n"
    assert ustack("lab", "exec", "--peer", lab["name"], "--", "true").returncode == 0
    empty = ustack("lab", "exec", lab["name"], "--")
    assert (empty.returncode, empty.stderr) == (2, "ustack: Missing argument 'COMMAND...'.\n")


def test_exec_passes_arguments_and_status_on(lab: dict[str, Any]) -> None:
    result = ustack("lab", "exec", lab["name"], "sh", "-c", "echo $0 $1; exit 7", "--peer", "-x")
    assert (result.returncode, result.stdout) == (7, "--peer -x\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lab", "down", "no-such-lab"], "no lab no-such-lab"),
        (["lab", "exec", "no-such-lab", "true"], "no lab no-such-lab"),
        (["lab", "up", "a/b"], "bad name 'a/b'"),
        (["lab", "up", "x", "--link", "wire"], "'wire' is not one of"),
        (["lab", "up", "x", "--address", "1.2.3.4"], "prefix length"),
        (["lab", "sideways"], "No such command"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], message: str) -> None:
    result = ustack(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("ustack: ")
    assert result.stderr.count("\n") == 1


def test_up_twice_is_refused_and_the_first_stays(lab: dict[str, Any]) -> None:
    again = ustack("lab", "up", lab["name"])
    assert again.returncode == 2
    assert "is up already" in again.stderr
    assert namespace.exists(lab["netns"])


def test_a_command_that_does_not_exist(lab: dict[str, Any]) -> None:
    result = ustack("lab", "exec", lab["name"], "no-such-command")
    assert result.returncode == 2
    assert result.stderr == "ustack: cannot run no-such-command: No such file or directory\n"


def test_without_privileges_one_line_says_what_is_needed(as_others_see_it: list[str]) -> None:
    user = [*as_others_see_it, "setpriv", "--reuid", "65534", "--clear-groups"]
    command = [*user, sys.executable, "-m", "ustack.cli", "lab", "up", "x"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "needs root" in result.stderr
    assert result.stderr.count("\n") == 1

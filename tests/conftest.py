# SPDX-License-Identifier: MIT
"""Fixtures that every tier shares: names of this run's own, namespaces that go away, stacks that must not leak."""

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ustack.lab import ingress, namespace, privilege
from ustack.lab.making import Made, Plan, down, up

_numbers = itertools.count()

# What Hypothesis says of its own (with CI set: no new examples in each run), without what it says of this machine: that
# an example took 200 ms, or the making of some a second, is no failure of what is tested.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the random machines of tests/fuzz go on."""
    parser.addoption("--fuzz-examples", type=int, default=60, help="examples of each stateful fuzz test (default: 60)")


def pytest_configure() -> None:
    """Heed signals as at a terminal: a background job ignores SIGINT, nohup SIGHUP, and children inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `root` where there are no capabilities for it, and what root of a user namespace lacks."""
    if item.get_closest_marker("root") is not None:
        missing = sorted(set(privilege.CAPABILITIES) - privilege.effective())
        if missing:
            pytest.skip(f"needs {', '.join(missing)}: run as root")
    used = set(getattr(item, "fixturenames", ()))
    values = {value for value in _parameters(item) if isinstance(value, str)}
    if (item.get_closest_marker("tap") is not None or "tap" in values | used) and (said := _no_tap()):
        pytest.skip(said)
    if (item.get_closest_marker("bpf") is not None or ingress.CLSACT in values) and (said := _no_bpf()):
        pytest.skip(said)
    others = used & {"as_others_see_it", "squatted"}
    if (item.get_closest_marker("users") is not None or others) and (said := _no_users()):
        pytest.skip(said)


def _parameters(item: pytest.Item) -> list[object]:
    callspec = getattr(item, "callspec", None)
    return list(callspec.params.values()) if callspec is not None else []


@functools.cache
def _no_tap() -> str:
    """Why there can be no TAP devices; "": there can."""
    if not privilege.effective() >= {"CAP_NET_ADMIN"}:
        return ""  # said by the mark `root`
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"no TAP devices: /dev/net/tun: {error.strerror}"
    return ""


@functools.cache
def _no_bpf() -> str:
    """Why no filter program can be loaded; "": it can. The other way to keep the kernel off is nftables."""
    said = ingress.probe()[ingress.CLSACT]
    return f"no {ingress.CLSACT}: {said}: a program for the kernel takes root of the machine" if said else ""


@functools.cache
def _no_users() -> str:
    """Why nobody can become another user; "": somebody can."""
    said = privilege.cannot_become(privilege.User(4711, 4711, "4711"))
    return f"cannot become another user: {said}" if said else ""


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Names that no other test and no other run on this machine uses at the same time; at most 15 characters."""

    def name(word: str = "t") -> str:
        return f"{word[:4]}{os.getpid():x}-{next(_numbers):x}"

    return name


# Makes this tree and its interpreter reachable for every user, in a mount namespace of its own, and runs a program
# there: a clone may lie below a home that others may not enter. Arguments: those directories, --, the program.
_REACHABLE = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /mnt
number=0
wanted=
while [ "$1" != -- ]; do
    number=$((number + 1))
    mkdir /mnt/$number
    mount --rbind "$1" /mnt/$number
    wanted="$wanted $1"
    shift
done
shift
number=0
for directory in $wanted; do
    number=$((number + 1))
    above=
    for part in $(dirname "$directory" | tr / " "); do
        above="$above/$part"
        [ -d "$above" ] || break
        case $(stat -c %A "$above") in
            *x|*t) ;;
            *) mount -t tmpfs -o mode=755 none "$above"; break ;;
        esac
    done
    if [ ! -d "$directory" ] || [ -n "$(find "$directory" -maxdepth 0 -empty)" ]; then
        mkdir -p "$directory"
        mount --rbind /mnt/$number "$directory"
    fi
done
umount -l /mnt
exec "$@"
"""


@pytest.fixture
def as_others_see_it() -> list[str]:
    """The beginning of a command that is to run as another user: what follows can reach this tree and its Python."""
    needed: list[str] = []
    for place in (Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix)):
        if str(place) not in needed and place != Path("/usr"):
            needed.append(str(place))
    return ["unshare", "--mount", "sh", "-c", _REACHABLE, "reachable", *needed, "--"]


@pytest.fixture
def make_namespace(unique: Callable[[str], str]) -> Iterator[Callable[[], str]]:
    """Make named network namespaces, removed after the test."""
    made = []

    def make() -> str:
        name = unique("ns")
        namespace.create(name)
        made.append(name)
        return name

    yield make
    for name in made:
        namespace.remove(name)


@pytest.fixture
def make_lab(unique: Callable[[str], str]) -> Iterator[Callable[..., Made]]:
    """Make labs (fields of ustack.lab.Plan), both ends in namespaces of their own; removed after the test."""
    made = []

    def make(**fields: Any) -> Made:
        name = unique("lab")
        fields.setdefault("netns", f"{name}-a")
        fields.setdefault("peer_netns", f"{name}-b")
        lab = up(Plan(name, **fields))
        made.append(name)
        return lab

    yield make
    for name in made:
        down(name)


@pytest.fixture
def make_stack() -> Iterator[Callable[..., Any]]:
    """Make stacks (ustack.blocking.stack.Stack's arguments); after the test each is closed and must hold nothing."""
    made: list[Any] = []

    def make(*args: Any, **fields: Any) -> Any:
        from ustack.blocking.stack import Stack

        made.append(Stack(*args, **fields))
        return made[-1]

    yield make
    for stack in made:
        stack.close()
    for stack in made:
        held = {name: count for name, count in stack.leaks().items() if count}
        assert not held, f"the stack still holds {held}"

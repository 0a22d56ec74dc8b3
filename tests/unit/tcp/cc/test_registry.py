# SPDX-License-Identifier: MIT
"""The registry of congestion controls: names, numbers, bounds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ustack import SimNetwork, Stack
from ustack.tcp.cc.registry import names, state_bytes
from ustack.testing.parts import controls

ROOM = Path(__file__).parents[4] / "ustack" / "tcp" / "cc"
# One for each file that is a control; the others are parts of some.
PARTS = {"bbr_model", "bbr_phases", "defaults", "hystart", "registry", "scripted", "validation"}
SHIPPED = {path.stem for path in ROOM.glob("*.pyx")} - PARTS
CC_MAX = 8


def in_a_fresh_process(code: str) -> Any:
    """What the code prints as JSON, where no test has registered anything yet: what is registered stays."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json\nfrom ustack.tcp.cc.registry import names\n{code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_newreno_is_the_first_one() -> None:
    assert names()[0] == "newreno"


def test_every_control_of_the_room_is_there_and_nothing_else_until_somebody_registers_it() -> None:
    there = in_a_fresh_process("print(json.dumps(names()))")
    assert (there[0], sorted(there)) == ("newreno", sorted(SHIPPED))


def test_what_is_registered_has_a_name_and_a_record() -> None:
    for name in controls.register():
        assert name in names()
    assert [state_bytes(name) for name in ("newreno", "bare", "fixed", "aimd")] == [28, 0, 0, 32]


def test_registering_again_changes_nothing() -> None:
    controls.register()
    before = names()
    controls.register()
    assert names() == before


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        (b"newreno", 0, "taken"),
        (b"", 0, "bad"),
        (None, 0, "bad"),
        (b"sixteen-letters-", 0, "bad"),
        (b"large", controls.STATE_BYTES_MAX + 1, "bad"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: bytes | None, size: int, why: str) -> None:
    before = names()
    assert controls.REFUSALS[controls.register_spare(name, size)] == why
    assert names() == before


def test_it_holds_eight_and_refuses_the_ninth() -> None:
    code = (
        "from ustack.testing.parts.controls import REFUSALS, STATE_BYTES_MAX, register_spare\n"
        "before = names()\n"
        f"free = range(len(before), {CC_MAX} + 1)\n"
        "numbers = [register_spare(b'fifteen-letter%d' % n, STATE_BYTES_MAX) for n in free]\n"
        "print(json.dumps([before, numbers[:-1], REFUSALS[numbers[-1]], names()]))"
    )
    before, numbers, ninth, there = in_a_fresh_process(code)
    assert (numbers, ninth) == (list(range(len(before), CC_MAX)), "full")
    assert there == [*before, *(f"fifteen-letter{n}" for n in range(len(before), CC_MAX))]


@pytest.mark.parametrize("name", ["bogus", "", "NewReno", "newreno ", "newreno\0", "\udc80", "é"])
def test_a_name_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="no such congestion control; there are: newreno"):
        state_bytes(name)


@pytest.mark.parametrize("name", [None, 0, b"newreno"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="cc is a name: newreno"):
        Stack(SimNetwork().a, now_ns=0, cc=name)


def test_the_bound_on_controls_written_in_python_is_said() -> None:
    """A control's number has three bits in the record of a connection. Four are for classes; the fifth is refused."""
    code = """
from ustack.tcp.cc.scripted import CongestionControl, register
from ustack.testing.parts import controls
told = []
for name in ("one", "two", "three", "four", "five"):
    try:
        register(type("Named", (CongestionControl,), {"name": name}))
    except ValueError as error:
        told.append(str(error))
print(json.dumps([names(), told]))
"""
    there, told = in_a_fresh_process(code)
    assert there[3:] == ["one", "two", "three", "four"]
    assert told == ["4 controls written in Python are registered: one, two, three, four"]


def test_the_bound_on_all_controls_is_said() -> None:
    code = """
from ustack.tcp.cc.scripted import CongestionControl, register
from ustack.testing.parts import controls
controls.register()
register(type("Named", (CongestionControl,), {"name": "one"}))
try:
    register(type("Named", (CongestionControl,), {"name": "two"}))
except ValueError as error:
    print(json.dumps([names(), str(error)]))
"""
    there, told = in_a_fresh_process(code)
    assert len(there) == CC_MAX
    assert told == f"no more than {CC_MAX} controls can be registered; there are: {', '.join(there)}"

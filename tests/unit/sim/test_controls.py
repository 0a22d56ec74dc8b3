# SPDX-License-Identifier: MIT
"""Controls that a scenario names: the stack's own, and classes of files and modules."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.sim.controls import load, located
from ustack.sim.document import ScenarioError
from ustack.sim.reading import read
from ustack.tcp.cc.registry import names
from ustack.tcp.cc.scripted import CongestionControl

HEAD = "from ustack.tcp.cc.scripted import CongestionControl\n"
STILL = HEAD + 'class Still(CongestionControl):\n    name = "written"\n'


@pytest.fixture
def control(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "mycc.py"
        path.write_text(text)
        return path

    return write


class OfModule(CongestionControl):
    """One that a module has."""

    name = "written"


def test_a_name_of_the_stacks_is_itself(tmp_path: Path) -> None:
    assert located("cubic", tmp_path) == load("cubic") == "cubic"


def test_a_class_of_a_file_lies_beside_the_scenario(control: Callable[[str], Path], tmp_path: Path) -> None:
    path = control(STILL)
    spec = located("mycc.py:Still", tmp_path)
    assert spec == f"{path}:Still"
    assert load(spec) == "written"
    assert "written" in names()


def test_a_changed_file_is_loaded_again(control: Callable[[str], Path], tmp_path: Path) -> None:
    path = control(STILL)
    assert located("mycc.py:Still", tmp_path) == f"{path}:Still"
    control(STILL.replace("class Still", "class Other"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match="has no class 'Still'"):
        located("mycc.py:Still", tmp_path)


def test_a_class_of_a_module_is_imported(tmp_path: Path) -> None:
    assert located(f"{__name__}:OfModule", tmp_path) == f"{__name__}:OfModule"
    assert load(f"{__name__}:OfModule") == "written"


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("class Mine: pass", "mycc.py:Mine", "is no subclass of CongestionControl"),
        (HEAD, "mycc.py:CongestionControl", "is no subclass of CongestionControl"),
        (STILL, "mycc.py:Stil", r"has no class 'Stil' \(did you mean Still\?\)"),
        ("1 +", "mycc.py:Mine", "SyntaxError"),
        ("import sys; sys.exit(3)", "mycc.py:Mine", "SystemExit: 3"),
        ("raise ValueError", "mycc.py:Mine", "ValueError: no reason given"),
        (STILL.replace("written", "cubic"), "mycc.py:Still", "cubic"),
        (STILL, "other.py:Still", "No such file"),
        (STILL, "my\0cc.py:Still", "null byte"),
        (STILL, "nothing:Still", "No module named"),
        (STILL, "bbbr", r"no control is called 'bbbr' \(did you mean bbr\?\)"),
    ],
)
def test_what_is_no_control_is_refused(
    control: Callable[[str], Path], tmp_path: Path, text: str, spec: str, message: str
) -> None:
    control(text)
    with pytest.raises(ValueError, match=message):
        located(spec, tmp_path)


def test_two_classes_of_one_name_are_not_for_one_scenario(control: Callable[[str], Path], tmp_path: Path) -> None:
    control(STILL)
    (tmp_path / "x.toml").write_text(
        'duration = "1 s"\nhosts = ["a", "b"]\n[links.a-b]\n'
        '[flows.f]\nfrom = "a"\nto = "b"\ncc = "mycc.py:Still"\n'
        f'[flows.g]\nfrom = "a"\nto = "b"\ncc = "{__name__}:OfModule"\n'
    )
    with pytest.raises(ScenarioError, match=r"x\.toml:11: flows\.g\.cc: .* are both called 'written'"):
        read(tmp_path / "x.toml")

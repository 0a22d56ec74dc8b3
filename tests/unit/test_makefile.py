# SPDX-License-Identifier: MIT
"""What make does again, and what not, with a shell that writes commands down instead of building."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Runs what looks at files or stamps; of the rest only the words are kept. $EDITED changes during one of them, a tick of
# the file system's clock after its beginning: two files of one tick bear the same time, and neither is newer.
SHELL = """#!/bin/bash
printf '%s\\n' "${@: -1}" >> "$MADE"
case "${@: -1}" in
    *stamps/place*|find*|touch*|mv*|*"python3 -V"*|id*) exec /bin/bash "$@" ;;
    *"$DURING"*) until [ "$EDITED" -nt build/stamps/*.begun ]; do touch "$EDITED"; done ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    tree = tmp_path / "a clone"
    for name in ("ustack", "server", "tools/fuzz", "build/stamps"):
        (tree / name).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy2(ROOT / name, tree / name)
    (tree / "ustack" / "one.pyx").touch()
    return tree


def made(tree: Path, goal: str = "locked-build", edited: str = "", during: str = "no command") -> str:
    """The commands of `make build`'s inner part in this tree. edited: a file that changes during one of such words."""
    shell, log = tree.parent / "shell", tree.parent / "made"
    shell.write_text(SHELL)
    shell.chmod(0o755)
    log.write_text("")
    subprocess.run(
        ["make", f"SHELL={shell}", goal],
        cwd=tree,
        env={"MADE": str(log), "EDITED": edited, "DURING": during, "PATH": "/usr/bin:/bin"},
        check=True,
    )
    return log.read_text()


def test_what_is_up_to_date_is_not_done_again(clone: Path) -> None:
    first = made(clone)
    assert "-m venv" in first
    assert "build_ext" in first
    again = made(clone)
    assert "-m venv" not in again
    assert "build_ext" not in again


@pytest.mark.parametrize(
    ("goal", "edited", "during"),
    [
        ("locked-build", "ustack/one.pyx", "build_ext"),
        ("locked-asan", "ustack/one.pyx", "USTACK_BUILD=asan"),
        ("locked-asan", "ustack/one.py", "USTACK_BUILD=asan"),
        ("locked-fuzz", "ustack/one.pyx", "USTACK_BUILD=fuzz"),
        ("locked-fuzz", "tools/fuzz/one.py", "USTACK_BUILD=fuzz"),
        ("locked-build", "pyproject.toml", "USTACK_ONLY=none"),
    ],
)
def test_what_changes_while_a_build_runs_is_built_by_the_next(clone: Path, goal: str, edited: str, during: str) -> None:
    assert during in made(clone, goal, edited, during)
    assert during in made(clone, goal)
    assert during not in made(clone, goal)


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_clone_at_another_place_gets_an_environment_of_its_own(clone: Path, how: str) -> None:
    """The old one's scripts name the old place, and its editable install runs the code that is there."""
    made(clone)
    there = clone.parent / "another"
    if how == "renamed":
        clone.rename(there)
    else:
        shutil.copytree(clone, there, copy_function=shutil.copy2)
    commands = made(there)
    assert "-m venv --clear" in commands
    assert "pip install" in commands
    assert "build_ext" in commands
    assert "-m venv" not in made(there)

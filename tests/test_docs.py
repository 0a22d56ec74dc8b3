# SPDX-License-Identifier: MIT
"""What the documents, and the words in the sources, point to exists."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.tree import ROOT, TOPS, sources

DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
POINTER = re.compile(r"`((?:tests|ustack|server|tools|vagrant|\.ci)/[\w./*-]+|[A-Z]+\.md)`")
# Short ones, below ustack/: `tcp/output.pyx`.
SHORT = re.compile(r"`((?:[a-z_0-9]+/)+[\w*]+\.(?:pyx|pxd|pyi|py))`")
# A file named in a comment or docstring.
FILE = re.compile(r"(?<![\w./*{}-])((?:[\w.]+/)*\w+\.(?:pyx|pxd|pxi|pyi|py|md))\b")


@cache
def tree() -> list[Path]:
    """Files that words can point to, from the root."""
    found = [path for top in (*TOPS, "tests", "vagrant", ".ci") for path in (ROOT / top).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT) for path in [*ROOT.glob("*.*"), *found] if "__pycache__" not in path.parts]


def is_there(name: str) -> bool:
    """A file of this tree is named so: from the root, from ustack/, or by the end of its path."""
    return any(path.as_posix() == name or path.as_posix().endswith(f"/{name}") for path in tree())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = POINTER.findall(text)
    assert named
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_short_path_that_a_document_names_exists(name: str) -> None:
    named = [path for path in SHORT.findall((ROOT / name).read_text()) if not POINTER.match(f"`{path}`")]
    missing = [path for path in named if not list((ROOT / "ustack").glob(path))]
    assert not missing


def test_every_test_that_the_readme_names_exists() -> None:
    """Short names in the table stand beside a full one, in the same folder or below it."""
    rows = [row for row in (ROOT / "README.md").read_text().splitlines() if row.startswith("|") and "tests/" in row]
    assert rows
    for row in rows:
        folder = re.search(r"`(tests/[\w/]+)/", row)
        assert folder is not None, row
        for short in re.findall(r"`(test_[\w*]+\.py)`", row):
            assert list((ROOT / folder[1]).rglob(short)), f"{folder[1]}/{short}"


def test_the_one_test_that_contributing_runs_is_there() -> None:
    """As it stands there, without the build: a word that picks no test would end with pytest's status 5."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [arguments] = re.findall(r"^    make build && \.venv/bin/python -m (pytest .*)$", text, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", *arguments.split(), "--collect-only"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_every_file_that_a_source_names_exists() -> None:
    """In comments and docstrings, and in strings. Outside of the tree there is nothing to read."""
    missing = {}
    for path in sources():
        lost = [name for name in FILE.findall(path.read_text()) if not is_there(name)]
        if lost:
            missing[str(path.relative_to(ROOT))] = lost
    assert missing == {}

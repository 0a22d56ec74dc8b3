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
TOPICS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
POINTER = re.compile(r"`((?:tests|ustack|server|tools|vagrant|docs|examples|\.ci)/[\w./*-]+|[A-Z]+\.md)`")
# Short ones, below ustack/: `tcp/output.pyx`.
SHORT = re.compile(r"`((?:[a-z_0-9]+/)+[\w*]+\.(?:pyx|pxd|pyi|py))`")
# A name of several words: `rx_behind`, `TCB_ACK_NOW`. What it ends with may stand for any (`test_state_*`).
NAME = re.compile(r"(?<![\w<>.-])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![\w*])")
# A file named in a comment or docstring.
FILE = re.compile(r"(?<![\w./*{}-])((?:[\w.]+/)*\w+\.(?:pyx|pxd|pxi|pyi|py|md))\b")


@cache
def tree() -> list[Path]:
    """Files that words can point to, from the root."""
    tops = (*TOPS, "tests", "docs", "vagrant", ".ci")
    found = [path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()]
    return [path.relative_to(ROOT) for path in [*ROOT.glob("*.*"), *found] if "__pycache__" not in path.parts]


def is_there(name: str) -> bool:
    """A file of this tree is named so: from the root, from ustack/, or by the end of its path."""
    return any(path.as_posix() == name or path.as_posix().endswith(f"/{name}") for path in tree())


@pytest.mark.parametrize("name", [*DOCUMENTS, *TOPICS])
def test_every_path_that_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = POINTER.findall(text)
    assert named or name in TOPICS
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("name", [*DOCUMENTS, *TOPICS])
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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_name_that_a_document_names_is_somewhere(name: str) -> None:
    """Of a function, a field, a setting or a file; counters are written in small letters."""
    words = {path.stem for path in tree()}
    for path in [*sources(), *(ROOT / "tests").rglob("*.py"), ROOT / "setup.py"]:
        words.update(re.findall(r"\w+", path.read_text()))
    quoted = re.findall(r"`([^`\n]+)`", (ROOT / name).read_text())
    named = {word for text in quoted for word in NAME.findall(text)}
    assert named
    assert {word for word in named if not {word, word.upper()} & words} == set()


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = [path.name for path in (ROOT / "ustack").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`ustack/{room}/`" not in text] == []


def test_every_file_of_the_server_is_in_the_architecture() -> None:
    [words] = re.findall(r"^Inside `server/`.*?(?=\n\n)", (ROOT / "ARCHITECTURE.md").read_text(), re.M | re.S)
    files = {path.stem for path in sources() if path.parent == ROOT / "server"} - {"__init__"}
    assert files - set(re.findall(r"`(\w+)`", words)) == set()


def test_every_file_that_a_source_names_exists() -> None:
    """In comments and docstrings, and in strings. Outside of the tree there is nothing to read."""
    missing = {}
    for path in sources():
        lost = [name for name in FILE.findall(path.read_text()) if not is_there(name)]
        if lost:
            missing[str(path.relative_to(ROOT))] = lost
    assert missing == {}

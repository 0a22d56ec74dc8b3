# SPDX-License-Identifier: MIT
"""What the documents point to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
POINTER = re.compile(r"`((?:tests|ustack|server|tools|vagrant|\.ci)/[\w./*-]+|[A-Z]+\.md)`")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    named = POINTER.findall(text)
    assert named
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
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

# SPDX-License-Identifier: MIT
"""One word per idea: what CONTRIBUTING asks of words, where a machine can see it."""

import re
from pathlib import Path

import pytest

from tests.tree import ROOT, sources

WORDS = {
    r"\b[Oo]ctets?\b(?!-stream)": "bytes (octets only where an RFC is quoted)",
    r"\b(?:requests|frames|segments|connections|checks|times|object) a second\b": "per second",
    r"\bcheck[s]?_a_second\b": "per_second",
}
QUOTED = re.compile(r'"[^"]*"|`[^`]*`')


def prose(path: Path) -> list[tuple[int, str]]:
    """Lines of documents, comments and docstrings, without what they quote."""
    lines = []
    inside = path.suffix == ".md"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for index, part in enumerate(line.split('"""')):
            inside ^= index > 0
            words = part if inside else part.partition("#")[2]
            if words:
                lines.append((number, QUOTED.sub("", words)))
    return lines


def read() -> list[Path]:
    found = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    return [*found, *(ROOT / "docs").glob("*.md"), *sources(), *(ROOT / "tests").rglob("*.py")]


def test_prose_is_documents_comments_and_docstrings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('code = 1  # one\n"""two\nthree "four"\n"""\ncode = """five"""\n')
    assert [words.strip() for _, words in prose(tmp_path / "a.py")] == ["one", "two", "three", "five"]
    (tmp_path / "a.md").write_text("one `two`\n")
    assert prose(tmp_path / "a.md") == [(1, "one ")]


@pytest.mark.parametrize("pattern", WORDS)
def test_the_house_speaks_one_language(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {WORDS[pattern]}"
        for path in read()
        for number, line in prose(path)
        if re.search(pattern, line) and "RFC" not in line and path.name != "CONTRIBUTING.md"
    ]
    assert found == []

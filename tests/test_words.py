# SPDX-License-Identifier: MIT
"""One word per idea: what CONTRIBUTING asks of words, where a machine can see it."""

import re
from pathlib import Path

import pytest

from tests.tree import ROOT, sources

WORDS = {
    r"\b[Oo]ctets?\b": "bytes (octets only where an RFC is quoted)",
    r"\b(?:requests|frames|segments|connections|checks|times|object) a second\b": "per second",
    r"\bcheck[s]?_a_second\b": "per_second",
}
QUOTED = re.compile(r'"[^"]*"|`[^`]*`')


def prose(path: Path) -> list[tuple[int, str]]:
    """Lines of comments and documents, without what they quote."""
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if path.suffix == ".md":
            lines.append((number, QUOTED.sub("", line)))
        elif "#" in line:
            lines.append((number, QUOTED.sub("", line.partition("#")[2])))
    return lines


def read() -> list[Path]:
    found = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    return [*found, *sources()]


@pytest.mark.parametrize("pattern", WORDS)
def test_the_house_speaks_one_language(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {WORDS[pattern]}"
        for path in read()
        for number, line in prose(path)
        if re.search(pattern, line) and "RFC" not in line and path.name != "CONTRIBUTING.md"
    ]
    assert found == []

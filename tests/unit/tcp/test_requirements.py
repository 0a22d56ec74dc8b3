# SPDX-License-Identifier: MIT
"""The requirements of RFC 9293 appendix B, each with the test that shows it or the reason why there is none.

The table is tests/data/rfc9293_requirements.tsv. Its last column names tests as file::function, seen from this folder,
or begins with "not": not supported, not applicable, not used.
"""

import ast
import csv
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "data" / "rfc9293_requirements.tsv"
REASONS = ("not supported: ", "not applicable: ", "not used: ")


def rows() -> list[dict[str, str]]:
    """The table."""
    with TABLE.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@cache
def functions_in(path: Path) -> frozenset[str]:
    """Names of the test functions in a file."""
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def named_tests(shown_by: str) -> list[str]:
    """The words of a cell that name tests."""
    return [word for word in shown_by.replace(";", " ").replace(",", " ").split() if "::" in word]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["id"])
def test_requirement_has_a_test_that_exists_or_a_reason(row: dict[str, str]) -> None:
    shown_by = row["shown_by"]
    assert named_tests(shown_by) or shown_by.startswith(REASONS)
    for name in named_tests(shown_by):
        file, _, function = name.partition("::")
        assert function in functions_in((HERE / file).resolve()), f"{name} does not exist"


def test_only_what_is_documented_is_missing_of_the_musts() -> None:
    missing = {row["id"] for row in rows() if row["level"].startswith("MUST") and row["shown_by"].startswith("not")}
    assert missing == {"MUST-32", "MUST-33", "MUST-44", "MUST-51", "MUST-52", "MUST-53", "MUST-62"}


def test_every_label_is_there_once() -> None:
    labels = [row["id"] for row in rows()]
    assert len(labels) == len(set(labels))
    assert {f"MUST-{number}" for number in range(1, 70)} <= set(labels)
    assert {f"SHLD-{number}" for number in range(1, 32)} <= set(labels)

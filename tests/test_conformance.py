# SPDX-License-Identifier: MIT
"""The tables of requirements: every row has tests that exist or a reason, and docs/conformance.md is what they make.

Whether a test asserts what its row says is for readers; that it is there, and that nothing is missing, is seen here.
"""

import ast
from functools import cache

import pytest

from tests.tree import ROOT
from ustack.tools.conformance import tables
from ustack.tools.conformance.document import document
from ustack.tools.conformance.tables import DEPARTS, HELD, LEVELS, NOT_APPLICABLE, STATUSES, Requirement

EVERY = tables.read_all(ROOT)
ROWS = [(name, row) for name, rows in EVERY.items() for row in rows]


@cache
def functions_in(path: str) -> frozenset[str]:
    """Names of the functions in a file of tests."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def exists(test: str) -> bool:
    """There is such a test: "tests/test_docs.py::test_..."."""
    path, _, function = test.partition("::")
    is_there = path.startswith("tests/") and (ROOT / path).is_file()
    return is_there and function.startswith("test_") and function in functions_in(path)


def faults(row: Requirement) -> list[str]:
    """What is wrong with a row by itself."""
    wrong = [f"{test} does not exist" for test in row.tests if not exists(test)]
    if row.level not in LEVELS or row.status not in STATUSES:
        wrong.append(f"{row.level}, {row.status}: not among the words")
    if not row.id or not row.section or not row.requirement:
        wrong.append("a cell is empty")
    if row.status == HELD and not row.tests:
        wrong.append("held, and no test shows it")
    if row.status in {DEPARTS, NOT_APPLICABLE} and not row.reason:
        wrong.append("no reason")
    return wrong


@pytest.mark.parametrize("name", EVERY)
def test_every_row_has_tests_that_exist_or_a_reason(name: str) -> None:
    assert {row.id: faults(row) for row in EVERY[name] if faults(row)} == {}


@pytest.mark.parametrize("name", EVERY)
def test_every_label_is_there_once(name: str) -> None:
    labels = [row.id for row in EVERY[name]]
    assert len(labels) == len(set(labels))


def test_every_label_of_rfc_9293_is_there() -> None:
    """Those of its appendix B."""
    labels = {row.id for row in EVERY["rfc9293"]}
    wanted = {
        f"{word}-{number}" for word, last in (("MUST", 69), ("SHLD", 31), ("MAY", 18)) for number in range(1, last + 1)
    }
    assert labels == wanted | {"REC-1"}


def test_only_what_is_said_here_departs_from_a_must() -> None:
    """So that nobody departs from one more in silence."""
    departs = {f"{name} {row.id}" for name, row in ROWS if row.status == DEPARTS and row.level.startswith("MUST")}
    assert departs == DEPARTURES


DEPARTURES = {
    # Source routes, advice to the IP layer at R1.
    *(f"rfc9293 MUST-{number}" for number in (20, 51, 52, 53)),
    # Replaced by RFC 6928 and RFC 9937.
    *(f"rfc5681 {row}" for row in ("3.1-2", "3.1-3", "3.1-4", "3.1-5", "3.1-7", "3.2-10", "4.3-5")),
    # An RTO of 200 ms.
    "rfc6298 1-1",
    # SACKs are kept at a timeout unless the receiver is seen to renege; what finds no room is not reported.
    "rfc2018 5.1-2",
    "rfc2018 8-1",
    "rfc2018 8-2",
    "rfc6675 5.1-2",
    # Replaced by RFC 8511, and by the row after it.
    "rfc3168 5-2",
    "rfc6928 2-2",
    # Growth by the segments of an ACK; congestion avoidance where cwnd is ssthresh.
    "rfc9438 4.4-1",
    "rfc9438 4.5-1",
    "rfc9438 4.10-1",
}


def test_no_table_is_forgotten() -> None:
    files = {path.stem for path in tables.folder(ROOT).iterdir()}
    assert files == set(EVERY)


def test_the_document_is_what_the_tables_make() -> None:
    """Else: make conformance."""
    assert (ROOT / "docs" / "conformance.md").read_text() == document(ROOT)


def test_a_row_with_a_fault_is_found() -> None:
    good = EVERY["rfc9293"][0]
    assert faults(good) == []
    fields = vars(good)
    assert faults(Requirement(**{**fields, "shown_by": good.tests[0] + "_not"})) != []
    assert faults(Requirement(**{**fields, "shown_by": good.tests[0].replace("tests/", "tests/no/")})) != []
    assert faults(Requirement(**{**fields, "shown_by": ""})) == ["held, and no test shows it"]
    assert faults(Requirement(**{**fields, "status": DEPARTS, "reason": ""})) == ["no reason"]
    assert faults(Requirement(**{**fields, "status": "perhaps"})) != []
    assert faults(Requirement(**{**fields, "requirement": ""})) == ["a cell is empty"]

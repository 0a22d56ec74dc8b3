# SPDX-License-Identifier: MIT
"""The requirements of the RFCs, as tests/data/requirements has them: one table for each, one row for each requirement.

    id           the RFC's own label, or section and number
    level        MUST, MUST NOT, SHOULD, SHOULD NOT, RECOMMENDED, MAY (where it is used); "step": an algorithm's
    section      of the RFC
    requirement  in words of this project
    status       held, departs, not applicable
    shown_by     the tests that show it, as pytest names them
    reason       why there is none, why we depart, or what else there is to know

It reads files and knows nothing of stacks. Above: document, the command, tests/test_conformance.py.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

HELD = "held"
DEPARTS = "departs"
NOT_APPLICABLE = "not applicable"
STATUSES = (HELD, DEPARTS, NOT_APPLICABLE)
LEVELS = ("MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "RECOMMENDED", "NOT RECOMMENDED", "MAY", "step")

TITLES = {
    "rfc9293": "Transmission Control Protocol",
    "rfc5961": "Blind in-window attacks",
    "rfc7323": "Extensions for high performance: window scale, timestamps, PAWS",
    "rfc8985": "RACK-TLP loss detection",
    "rfc5681": "Congestion control",
    "rfc6298": "Retransmission timer",
    "rfc2018": "Selective acknowledgment",
    "rfc2883": "Duplicate selective acknowledgment",
    "rfc6675": "Loss recovery based on SACK",
    "rfc9937": "Proportional Rate Reduction (replaces RFC 6937)",
    "rfc9438": "CUBIC",
    "rfc9406": "HyStart++",
    "rfc5682": "Forward RTO-Recovery",
    "rfc3168": "Explicit Congestion Notification",
    "rfc6928": "Initial window",
    "rfc7661": "Congestion window validation",
}
"""The tables, in the order of the document."""

NOTES = {
    "rfc2883": "It has one capital word; the rules of its section 4 are in small letters.",
    "rfc6675": "RACK-TLP takes its place, and forbids to use both (RFC 8985 section 9.2).",
    "rfc9937": "Most of it are steps: it has few capital words.",
    "rfc9438": "Windows of this tree are in bytes, which its section 4.1 allows.",
    "rfc3168": "What it asks of routers and tunnels is one row each.",
}
"""What there is to say of a table as a whole."""


@dataclass(frozen=True)
class Requirement:
    """One row. Its fields are the columns of the table."""

    id: str
    level: str
    section: str
    requirement: str
    status: str
    shown_by: str
    reason: str

    @property
    def tests(self) -> list[str]:
        """The names of tests in it: "tests/unit/tcp/test_open.py::test_two_stacks_open_and_talk"."""
        return self.shown_by.split()


def folder(root: Path) -> Path:
    """Where the tables are, below the project's root."""
    return root / "tests" / "data" / "requirements"


def read(root: Path, name: str) -> list[Requirement]:
    """One table: "rfc9293"."""
    with (folder(root) / f"{name}.tsv").open(newline="", encoding="utf-8") as lines:
        return [Requirement(**row) for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def read_all(root: Path) -> dict[str, list[Requirement]]:
    """Every table that is there, in the order of TITLES."""
    return {name: read(root, name) for name in TITLES if (folder(root) / f"{name}.tsv").exists()}

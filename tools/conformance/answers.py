# SPDX-License-Identifier: MIT
"""Answers to the questions, ours and the kernel's, as tests/data/kernel keeps them: a table for each release of Linux.

Those of policy, of two of our profiles and the kernel, are in a folder below.

Above: document, the command, tests. Below: the standard library.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("question", "ours", "kernel")
POLICY = ("question", "default", "linux", "kernel")


@dataclass(frozen=True)
class Answers:
    """kernel: "Linux 6.18".  answers: (ours, the kernel's) by the question's name; of policy three."""

    kernel: str
    answers: Mapping[str, tuple[str, ...]]


def folder(root: Path, columns: Sequence[str] = COLUMNS) -> Path:
    """Where the tables with these columns are."""
    path = root / "tests" / "data" / "kernel"
    return path / "policy" if columns == POLICY else path


def running() -> str:
    """The kernel of this machine, by its first two numbers: "linux-6.18"."""
    system, _, release, _, _ = os.uname()
    return f"{system.lower()}-{'.'.join(release.split('.')[:2])}"


def read(path: Path, columns: Sequence[str] = COLUMNS) -> Answers:
    """One table."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    system, _, release = path.stem.partition("-")
    answers = {row[columns[0]]: tuple(row[column] for column in columns[1:]) for row in rows}
    return Answers(f"{system.capitalize()} {release}", answers)


def write(root: Path, answers: Mapping[str, Sequence[str]], columns: Sequence[str] = COLUMNS) -> Path:
    """The table of the kernel of this machine; where it is."""
    path = folder(root, columns) / f"{running()}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns), *("\t".join((name, *said)) for name, said in answers.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def latest(root: Path, columns: Sequence[str] = COLUMNS) -> Answers | None:
    """That of the highest release; None: nobody has asked."""

    def release(path: Path) -> list[int]:
        return [int(part) for part in path.stem.partition("-")[2].split(".")]

    paths = sorted(folder(root, columns).glob("*.tsv"), key=release)
    return read(paths[-1], columns) if paths else None

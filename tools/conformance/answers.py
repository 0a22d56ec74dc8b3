# SPDX-License-Identifier: MIT
"""Answers to the questions, ours and the kernel's, as tests/data/kernel keeps them: a table for each release of Linux.

Above: document, the command, tests. Below: the standard library.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("question", "ours", "kernel")


@dataclass(frozen=True)
class Answers:
    """kernel: "Linux 6.18".  answers: (ours, the kernel's) by the question's name."""

    kernel: str
    answers: Mapping[str, tuple[str, str]]


def folder(root: Path) -> Path:
    """Where the tables are."""
    return root / "tests" / "data" / "kernel"


def running() -> str:
    """The kernel of this machine, by its first two numbers: "linux-6.18"."""
    system, _, release, _, _ = os.uname()
    return f"{system.lower()}-{'.'.join(release.split('.')[:2])}"


def read(path: Path) -> Answers:
    """One table."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    system, _, release = path.stem.partition("-")
    return Answers(f"{system.capitalize()} {release}", {row["question"]: (row["ours"], row["kernel"]) for row in rows})


def write(root: Path, answers: Mapping[str, tuple[str, str]]) -> Path:
    """The table of the kernel of this machine; where it is."""
    path = folder(root) / f"{running()}.tsv"
    path.parent.mkdir(exist_ok=True)
    lines = ["\t".join(COLUMNS), *("\t".join((name, *both)) for name, both in answers.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def latest(root: Path) -> Answers | None:
    """That of the highest release; None: nobody has asked."""

    def release(path: Path) -> list[int]:
        return [int(part) for part in path.stem.partition("-")[2].split(".")]

    paths = sorted(folder(root).glob("*.tsv"), key=release)
    return read(paths[-1]) if paths else None

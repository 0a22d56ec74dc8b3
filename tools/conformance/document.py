# SPDX-License-Identifier: MIT
"""docs/conformance.md, made of the tables and of the answers. The same data give the same bytes.

Above: the command. Below: tables, answers, questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ustack.tools.conformance import answers, tables
from ustack.tools.conformance.answers import Answers
from ustack.tools.conformance.questions import OURS, QUESTIONS, policy
from ustack.tools.conformance.questions.record import Question
from ustack.tools.conformance.tables import NOTES, STATUSES, TITLES, Requirement

HEAD = (
    "# Conformance\n\n"
    "What the RFCs ask of a TCP, requirement by requirement, with the tests that show it or the reason why there is "
    "none. This page is made by `make conformance` from the tables in `tests/data/requirements/`; "
    "`tests/test_conformance.py` fails when a named test is not there, when a row has neither test nor reason, or when "
    "this page is not what the tables make.\n\n"
    "*held*: the tests named show it. *departs*: we do otherwise, the row says why, and its tests show what we do. "
    "*not applicable*: there is no occasion, or a MAY is not used. Words are the project's, not the RFC's; numbers are "
    'RFC 9293\'s own labels, elsewhere the section and the place within it. "step" is a step of an algorithm that '
    "the RFC gives without one of its capital words; what it says twice is one row. A test is named by its function: "
    "`.venv/bin/python -m pytest -k NAME` runs it.\n"
)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _test(name: str) -> str:
    """The function's name, as -k takes it; the link goes to its file."""
    path, _, function = name.partition("::")
    return f"[`{function.removeprefix('test_')}`](../{path})"


def _row(row: Requirement) -> str:
    shown = "; ".join(map(_test, row.tests))
    why = _cell(row.reason)
    cells = (row.id, row.level, _cell(row.requirement), row.status, ". ".join(part for part in (why, shown) if part))
    return f"| {' | '.join(cells)} |"


def summary(every: Mapping[str, Sequence[Requirement]]) -> Iterator[str]:
    """One line for each table, and their sum."""
    yield "| RFC | what | held | departs | not applicable |"
    yield "| --- | --- | --- | --- | --- |"
    total: Counter[str] = Counter()
    for name, rows in every.items():
        counts = Counter(row.status for row in rows)
        total.update(counts)
        numbers = " | ".join(str(counts[status]) for status in STATUSES)
        yield f"| [{name.removeprefix('rfc')}](#{_anchor(name)}) | {TITLES[name]} | {numbers} |"
    yield f"| | all | {' | '.join(str(total[status]) for status in STATUSES)} |"


def _heading(name: str) -> str:
    return f"RFC {name.removeprefix('rfc')}"


def _anchor(name: str) -> str:
    return _heading(name).lower().replace(" ", "-")


def table(name: str, rows: Sequence[Requirement]) -> Iterator[str]:
    """The chapter of one RFC."""
    yield f"## {_heading(name)}"
    yield ""
    yield " ".join([f"{TITLES[name]}.", *([NOTES[name]] if name in NOTES else [])])
    yield ""
    yield "| | level | what is asked | | why, and what shows it |"
    yield "| --- | --- | --- | --- | --- |"
    yield from map(_row, rows)


def _judged(one: Question, ours: str, kernels: str) -> str:
    """Whose answer is the RFC's."""
    if not one.right:
        return "left open"
    right = [name for name, said in (("ours", ours), ("Linux", kernels)) if said in one.right]
    return " and ".join(right) if right else "neither"


def beside(given: Answers) -> Iterator[str]:
    """The chapter about the kernel: the questions to which the answers differ, or of which one is not the RFC's."""
    rows = []
    alike = 0
    for one in QUESTIONS:
        ours, kernels = given.answers[one.name]
        judged = _judged(one, ours, kernels)
        alike += ours == kernels
        if ours != kernels or judged == "neither":
            why = f". {OURS[one.name]}" if one.name in OURS else ""
            cells = (_cell(one.name), f"{one.section}: {one.word}", f"`{ours}`", f"`{kernels}`", judged + why)
            rows.append(f"| {' | '.join(cells)} |")
    yield "## Beside the kernel's stack"
    yield ""
    yield (
        f"The same {len(QUESTIONS)} scripts (`tools/conformance/questions/`) were put to this stack on a simulated "
        f"wire and to that of {given.kernel} at the end of a TAP device, in a namespace of its own, with its settings "
        f"as they come. {alike} were answered alike. The table has those that were not, and those that neither answers "
        "as the RFC has it. An answer is the segments that came (flags, relative numbers), the state after it (CLOSED "
        "for LISTEN, too), and what the application has read; a SHOULD counts as the RFC's word. "
        "`sudo make conformance ARGS=--kernel` asks again. What takes minutes (the whole of a back-off, keep-alives, 2 "
        "MSL) is asked in virtual time alone, by the tests above."
    )
    yield ""
    yield "| question | what the RFC says | ours | Linux | whose answer is the RFC's |"
    yield "| --- | --- | --- | --- | --- |"
    yield from rows


def policies(given: Answers) -> Iterator[str]:
    """The chapter about policy: every question, and why where the profile does not answer as the kernel does."""
    alike = sum(given.answers[one.name][1] == given.answers[one.name][2] for one in policy.QUESTIONS)
    yield "## Policy beside the kernel's"
    yield ""
    yield (
        f"What no RFC decides, or leaves room for: {len(policy.QUESTIONS)} scripts in the manner of those that Linux's "
        "own tests have for packetdrill (`tools/conformance/questions/policy.py`, which says how to read an answer), "
        f"put to this stack with its defaults and with `profile=\"linux\"`, and to {given.kernel}. The profile answers "
        f"{alike} of them as the kernel does."
    )
    yield ""
    yield "| question | where an RFC speaks of it | default | profile linux | Linux | why the profile is not Linux |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in policy.QUESTIONS:
        default, linux, kernel = given.answers[one.name]
        why = policy.OURS.get(one.name, "") if linux != kernel else ""
        cells = (_cell(one.name), one.section, *(f"`{said}`" for said in (default, linux, kernel)), why)
        yield f"| {' | '.join(cells)} |"


def document(root: Path) -> str:
    """The whole page."""
    every = tables.read_all(root)
    lines = [HEAD, *summary(every)]
    for name, rows in every.items():
        lines += ["", *table(name, rows)]
    if (given := answers.latest(root)) is not None:
        lines += ["", *beside(given)]
    if (given := answers.latest(root, answers.POLICY)) is not None:
        lines += ["", *policies(given)]
    return "\n".join(lines) + "\n"

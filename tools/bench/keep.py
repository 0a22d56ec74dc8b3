# SPDX-License-Identifier: MIT
"""Keep a bench: its file in the folder of results, the main plot and table beside it, and both in the README.

    NAME.jsonl     all runs, as they were written down
    NAME + .md     the main table
    main.svg       the main plot, of the bench that was kept last
    the index      a line in its table of files
    the README     plot, machine, table and links, between two comments

All but the first are made of the first: the same command on a kept file makes them again, byte for byte.

It must not: compute a figure. Above: command. Below: plot, records, summary.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ustack.tools.bench import plot, summary
from ustack.tools.bench.records import ROOT, Results, parse, without_folder

BEGIN = "<!-- figures of `ustack bench keep`: begin -->"
END = "<!-- figures of `ustack bench keep`: end -->"
PLOT = "main.svg"
INDEX = "README.md"
HEAD_OF_INDEX = "| file | machine | what |\n|---|---|---|\n"


class NoPlace(Exception):
    """A file that was to be changed has no place for it."""


def keep(file: Path, folder: Path, readme: Path | None, name: str = "", note: str = "") -> list[Path]:
    """Everything above. name: of the kept file; "": by machine and day. note: what a reader must know first; it goes
    into the file's first record. readme: None changes none. Returns what was written. Raises RecordsError, NoLibraries,
    NoPlace, OSError; ValueError if no run was good."""
    text = without_folder(file.read_text(encoding="utf-8"), ROOT)
    if note:
        text = with_note(text, note)
    results = parse(text.splitlines(keepends=True), str(file))
    name = name or name_of(results)
    drawing, table = plot.svg(results), summary.table(results)
    kept, index = folder / f"{name}.jsonl", folder / INDEX
    written = {kept: text, folder / f"{name}.md": page(results, name, table), folder / PLOT: drawing}
    if index.exists():
        written[index] = with_line(index.read_text(encoding="utf-8"), name, results)
    if readme is not None:
        where = folder.relative_to(readme.parent).as_posix() if folder.is_relative_to(readme.parent) else str(folder)
        written[readme] = with_block(readme.read_text(encoding="utf-8"), block(results, name, table, where))
    folder.mkdir(parents=True, exist_ok=True)
    for path, what in written.items():  # nothing is written before everything is made
        path.write_text(what, encoding="utf-8")
    return list(written)


def with_note(text: str, note: str) -> str:
    """The file with a note in the record of the bench."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        record = json.loads(line)
        if record.get("type") == "bench":
            lines[number] = json.dumps({**record, "note": note}) + "\n"
            break
    return "".join(lines)


def note_of(results: Results) -> str:
    """A paragraph of its own, or nothing."""
    note = summary.plain(str(results.bench.get("note", "")))
    return f"**{note}**\n\n" if note else ""


def name_of(results: Results) -> str:
    """Machine and day, for a file: epyc-2-cores-2026-11-26."""
    machine = results.bench.get("machine", {})
    cpu = re.sub(r"\(.*?\)|@.*|\b(cpu|processor|with|core)\b", " ", str(machine.get("cpu", "")).lower())
    words = [word for word in re.findall(r"[a-z0-9]+", cpu) if word not in ("amd", "intel", "unknown")][:3]
    return "-".join([*(words or ["machine"]), f"{machine.get('cores', 0)}-cores", str(results.bench["began"])[:10]])


def explanation() -> str:
    """How to read the table."""
    return (
        "Median (least to greatest run); ratios are medians of the ratios within a round, with their interval by order "
        "statistics; a star where the sign test is sure (p < 0.05) and neither failed in a round. "
        "*Best of all others* is chosen for each point, after the fact, among all that did not fail there."
    )


def page(results: Results, name: str, table: str) -> str:
    """The table by itself."""
    return (
        f"# {name}\n\nMade from [{name}.jsonl]({name}.jsonl) by `ustack bench keep`. "
        f"{summary.machine_line(results)}.\n\n{note_of(results)}"
        f"    {summary.plain(str(results.bench.get('command', '')))}\n\n{explanation()}\n\n{table}"
    )


def block(results: Results, name: str, table: str, where: str) -> str:
    """What the README shows."""
    link = f"[{name}.jsonl]({where}/{name}.jsonl)"
    return (
        f"![ours and the best of the others, experiment by experiment]({where}/{PLOT})\n\n{note_of(results)}"
        f"{summary.machine_line(results)}. All runs, failed ones included: {link}; "
        f"`ustack bench report {where}/{name}.jsonl --html report.html` makes the whole report of them.\n\n"
        f"{table}\n{explanation()}\n"
    )


def with_block(text: str, made: str) -> str:
    """A README with this between its two comments. Raises NoPlace."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"no place for the figures: the file needs {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{made}{END}{after}"


def with_line(text: str, name: str, results: Results) -> str:
    """The index with this file in its table, once. Raises NoPlace."""
    machine = results.bench.get("machine", {})
    about = f"{machine.get('cpu')}, {machine.get('cores')} cores, Linux {machine.get('kernel')}"
    what = f"{', '.join(results.experiments)}; {len(results.contestants)} contestants"
    line = summary.line_of([about, what])
    lines = [one for one in text.splitlines(keepends=True) if not one.startswith(f"| [{name}.jsonl]")]
    before, head, after = "".join(lines).partition(HEAD_OF_INDEX)
    if not head:
        raise NoPlace("no table of files: the index needs its head, " + HEAD_OF_INDEX.partition("\n")[0])
    return f"{before}{head}| [{name}.jsonl]({name}.jsonl), [table]({name}.md) {line}\n{after}"

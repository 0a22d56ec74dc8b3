# SPDX-License-Identifier: MIT
"""Two benches side by side: two machines, or two versions on one.

Their runs were not made in turns, so there are no pairs: medians stand beside each other with their spreads, and the
ratio is of the two medians, marked where the spreads do not even touch. What can be compared across is what each bench
says of itself: one contestant by another, ratios by pairs, which the last columns show to the reference that both have.

It must not: run or read anything. Above: command. Below: figures, tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from ustack.tools.bench import figures, tables
from ustack.tools.bench.figures import Cell
from ustack.tools.bench.records import Results


def apart(one: Cell, other: Cell) -> bool:
    """Do the runs of one all lie above or below those of the other, and has none failed?"""
    if one.failed or other.failed or None in (one.least, one.most, other.least, other.most):
        return False
    assert one.least is not None
    assert one.most is not None
    assert other.least is not None
    assert other.most is not None
    return one.least > other.most or one.most < other.least


def change(one: Cell | None, other: Cell | None) -> str:
    """The second by the first, by medians; "" if one of them has none."""
    if one is None or other is None or not one.median or other.median is None:
        return ""
    return f"{other.median / one.median:.2f}{' apart' if apart(one, other) else ''}"


def differences(one: Results, other: Results) -> list[tuple[str, str, str]]:
    """What the benches say of their machines and settings that is not the same: name, of one, of the other."""
    sides = [
        {**result.bench.get("machine", {}), **{key: result.bench.get(key) for key in SETTINGS}}
        for result in (one, other)
    ]
    names = [name for name in {**sides[0], **sides[1]} if sides[0].get(name) != sides[1].get(name)]
    return [(name, str(sides[0].get(name, "")), str(sides[1].get(name, ""))) for name in names]


SETTINGS = ("ustack", "seconds", "congestion_control", "generator", "pinning", "client_settings")


def table(one: Results, other: Results, first: str, second: str) -> Iterator[Table]:
    """What differs between the two, then a table for each experiment that both have."""
    about = Table(title="what differs", title_justify="left")
    for heading in ("", first, second):
        about.add_column(heading)
    for words in differences(one, other):
        about.add_row(*(Text(word) for word in words))
    yield about
    cells = tables.all_cells(one), tables.all_cells(other)
    for name in one.experiments:
        if name in other.experiments:
            yield experiment_table(one, other, name, cells)


def experiment_table(
    one: Results, other: Results, name: str, cells: tuple[dict[tuple[str, str, str], Cell], ...]
) -> Table:
    """Contestants and points that both have."""
    unit = one.experiments[name]["unit"]
    references = [str(result.bench.get("reference", "")) for result in (one, other)]
    made = Table(title=f"{name}: {one.experiments[name]['title']} ({unit})", title_justify="left")
    for heading in ("point", "contestant"):
        made.add_column(heading)
    for heading in ("first", "second", "second / first", "first / reference", "second / reference"):
        made.add_column(heading, justify="right")
    theirs = set(tables.contestants_of(other, name))
    for point in tables.points_of(one, name):
        for contestant in tables.contestants_of(one, name):
            if contestant not in theirs:
                continue
            pair = [found.get((name, point, contestant)) for found in cells]
            if None in pair:
                continue
            by_pairs = [
                tables.ratio(figures.ratio(result.runs, name, point, contestant, reference))
                if contestant != reference
                else ""
                for result, reference in zip((one, other), references, strict=True)
            ]
            words = [point, contestant, *(tables.cell_text(cell, unit) for cell in pair), change(*pair), *by_pairs]
            made.add_row(*(Text(word) for word in words))
    return made

# SPDX-License-Identifier: MIT
"""Rows for people on a terminal, and a line each, with tabs, for a pipe. Above: info, lab."""

import sys
from collections.abc import Iterable, Sequence

import click


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], *, sparse: bool = False) -> None:
    """A table with a head on a terminal; else the rows alone, their cells separated by tabs.

    sparse: a terminal has more room if columns without a value are left out.
    """
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = list(rows)
    kept = [at for at in range(len(columns)) if not sparse or any(row[at] for row in rows)]
    table = Table(*(columns[at] for at in kept))
    for row in rows:
        table.add_row(*(escape(row[at]) for at in kept))
    Console().print(table)

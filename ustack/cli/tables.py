# SPDX-License-Identifier: MIT
"""Rows for people on a terminal, and a line each, with tabs, for a pipe. Above: info, lab."""

import sys
from collections.abc import Iterable, Sequence

import click


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a head on a terminal; else the rows alone, their cells separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

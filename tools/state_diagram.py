# SPDX-License-Identifier: MIT
"""Draw the states of a connection from the stack's own table of legal moves.

    python -m ustack.tools.state_diagram              in ASCII, as ARCHITECTURE.md has it
    python -m ustack.tools.state_diagram --mermaid    for whoever renders mermaid
    python -m ustack.tools.state_diagram --words      each move with the sentence of RFC 9293 that allows it

Above: nobody. Below: tcp/records/state.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import groupby

from ustack.tcp.records.state import MOVES, Move, state_name


def ascii_diagram(moves: Iterable[Move] = MOVES) -> str:
    """One fan for each state: the moves that leave it, what makes them, and where they lead."""
    moves = list(moves)
    widest_state = max(len(state_name(move.before)) for move in moves)
    widest_event = max(len(move.event) for move in moves)
    lines: list[str] = []
    for before, leaving in groupby(moves, key=lambda move: move.before):
        fan = list(leaving)
        for at, move in enumerate(fan):
            name = state_name(before).ljust(widest_state) if at == 0 else " " * widest_state
            dashes = "-" * (widest_event - len(move.event) + 2)
            lines.append(f"{name} {'--' if at == 0 else '  '}+-- {move.event} {dashes}> {state_name(move.after)}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def mermaid_diagram(moves: Iterable[Move] = MOVES) -> str:
    """The same as a stateDiagram-v2 of mermaid."""

    def lines() -> Iterator[str]:
        yield "stateDiagram-v2"
        for move in moves:
            before, after = (state_name(state).replace("-", "_") for state in (move.before, move.after))
            yield f"    {before} --> {after}: {move.event}"

    return "\n".join(lines()) + "\n"


def words(moves: Iterable[Move] = MOVES) -> str:
    """Each move with its section of RFC 9293 and the sentence there."""
    return "".join(
        f"{state_name(move.before)} -> {state_name(move.after)}, section {move.section}\n    {move.words}\n"
        for move in moves
    )


def main(arguments: list[str] | None = None) -> None:
    """Print one of the forms."""
    parser = argparse.ArgumentParser(prog="python -m ustack.tools.state_diagram", description=__doc__.split("\n")[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--mermaid", action="store_true", help="a stateDiagram-v2")
    form.add_argument("--words", action="store_true", help="the RFC's sentence for each move")
    options = parser.parse_args(arguments)
    print(mermaid_diagram() if options.mermaid else words() if options.words else ascii_diagram(), end="")


if __name__ == "__main__":
    main()

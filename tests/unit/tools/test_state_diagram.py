# SPDX-License-Identifier: MIT
"""The drawing of the states, and that ARCHITECTURE.md has the one which the table gives."""

import re
from pathlib import Path

import pytest

from ustack.tcp.records.state import MOVES, state_name
from ustack.tools.state_diagram import ascii_diagram, main, mermaid_diagram, words

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"
BEGIN = "<!-- made by python -m ustack.tools.state_diagram -->"
END = "<!-- end of what was made -->"
BETWEEN = re.compile(rf"{BEGIN}\n```text\n(.*?)```\n{END}", re.DOTALL)


def test_architecture_holds_the_diagram_of_the_table() -> None:
    found = BETWEEN.findall(ARCHITECTURE.read_text())
    assert found == [ascii_diagram()], "python -m ustack.tools.state_diagram"


def test_the_diagram_follows_the_table() -> None:
    assert ascii_diagram(MOVES[1:]) != ascii_diagram()
    assert ascii_diagram().count("+--") == len(MOVES)


def test_every_move_is_in_the_other_forms() -> None:
    for move in MOVES:
        before, after = state_name(move.before), state_name(move.after)
        assert f"{before} -> {after}, section {move.section}\n    {move.words}\n" in words()
        assert f"    {before.replace('-', '_')} --> {after.replace('-', '_')}: {move.event}\n" in mermaid_diagram()


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == ascii_diagram()
    main(["--mermaid"])
    assert capsys.readouterr().out.startswith("stateDiagram-v2")

# SPDX-License-Identifier: MIT
"""The control of README.md, as it stands there: it runs, is exchanged for CUBIC's while data flows, and is drawn."""

import inspect
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.tree import ROOT
from ustack.tools import steady
from ustack.tools.steady import EXCHANGED_S, Steady, drawing

RATE = steady.RATE_BPS * 1448 / 1514  # what headers leave


def in_readme() -> str:
    """The block of code with the class."""
    [block] = re.findall(r"```python\n((?:(?!```).)*class Steady.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(block)


def test_what_readme_shows_is_what_runs() -> None:
    assert inspect.getsource(Steady).rstrip() in in_readme()


# In a process of its own: what is registered stays, and there are only eight places for the whole test run.
RUN = """
import json, sys
from ustack.tcp.cc.registry import names
from ustack.tools import steady
exec(compile(sys.stdin.read(), "README.md", "exec"), {})
alone = [steady.course(cc, cc, 20) for cc in ("steady", "cubic")]
both = steady.course("both", "cubic", 2 * steady.EXCHANGED_S + 10, "steady")
shown = [[one.goodput_bps, one.mean_queue_ms, one.points] for one in (*alone, both)]
steady.main(["--svg", sys.argv[1]], standalone_mode=False)
print(json.dumps([names(), shown]))
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steady") / "made.svg"


@pytest.fixture(scope="module")
def run(drawn: Path) -> Any:
    """README's code, three courses and the drawing: [names, [[goodput, queue in ms, points], ...]]."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(drawn)], check=True, capture_output=True, text=True, input=in_readme(), cwd=ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_readme_s_code_registers_it_and_it_fills_the_path_with_less_in_the_queue(run: Any) -> None:
    """As published for delay-based controls: the rate of CUBIC, without its queue."""
    registered, [[goodput, queue_ms, _], [_, cubic_queue_ms, _], _] = run
    assert "steady" in registered
    assert goodput >= 0.95 * RATE
    assert queue_ms < 8
    assert cubic_queue_ms > 5 * queue_ms


def test_exchanged_while_data_flows_it_empties_the_queue(run: Any) -> None:
    goodput, queue_ms, points = run[1][2]
    before = max(segments for at_s, segments in points if at_s < EXCHANGED_S)
    after = max(segments for at_s, segments in points if at_s > EXCHANGED_S + 5)
    assert after < before / 2
    assert goodput >= 0.95 * RATE
    assert queue_ms < 8


@pytest.mark.usefixtures("run")
def test_one_command_draws_what_is_in_the_documents(drawn: Path) -> None:
    """The same courses, whatever their last segment: the figures are the stack's of that day."""
    titles = re.compile(r">([A-Z][^:<]*):")
    assert titles.findall(drawn.read_text()) == titles.findall((ROOT / "docs" / "steady.svg").read_text())
    assert drawn.stat().st_size < 60_000
    assert "docs/steady.svg" in (ROOT / "README.md").read_text()


def test_a_drawing_has_a_line_for_each() -> None:
    one = steady.Course("one", [(0.0, 10.0), (1.0, 20.0)], 1e6, 2.0)
    root = ElementTree.fromstring(drawing([one, one], 4))
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2


@pytest.mark.parametrize("arguments", [["--seconds", "1"], ["--seconds", "x"]])
def test_wrong_words_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(steady.main, arguments).exit_code == 2

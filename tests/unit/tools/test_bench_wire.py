# SPDX-License-Identifier: MIT
"""bench_wire: one short run for real, and what is refused."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from ustack.lab.namespace import names
from ustack.tools.bench_wire import LOADS, cell, main


@pytest.mark.root
@pytest.mark.timeout(120)
def test_each_load_has_a_line() -> None:
    words = [sys.executable, "-m", "ustack.tools.bench_wire", "--rounds", "1", "--duration", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    rows = {line.split()[1]: line.split("│")[2].split()[0] for line in out.splitlines() if line.startswith("│")}
    assert set(rows) == set(LOADS)
    assert all(int(packets.replace(",", "")) > 0 for packets in rows.values())
    assert [name for name in names() if f"-{process.pid}-" in name] == []


def test_an_unknown_load_is_refused() -> None:
    result = CliRunner().invoke(main, ["--only", "huge"])
    assert result.exit_code == 2
    assert "no such load" in result.output


def test_a_cell_has_the_median_and_the_spread() -> None:
    assert cell("Gb/s", [1.0, 3.0, 2.0]) == "2.00 (1.00 - 3.00)"
    assert cell("packets/s", [1000.4]) == "1,000 (1,000 - 1,000)"

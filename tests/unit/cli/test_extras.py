# SPDX-License-Identifier: MIT
"""The command line without the packages of the extras: what needs one says so, all else works."""

import subprocess
import sys

import pytest

from tests.tree import ROOT

# A package that is not installed, for a process in which it is.
WITHOUT = """
import sys
absent = {"hdrh", "jinja2", "matplotlib", "numpy", "plotly", "aiohttp", "uvicorn", "uvloop", "scapy", "hypothesis"}
absent.add("pytest")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from ustack.cli.commands import cli, run_command
sys.exit(run_command(cli, sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["info"], 0, "version"),
        (["serve", "--help"], 0, "--link"),
        (["load", "--help"], 0, "--rate"),
        (["sim", "check", "examples/shared.toml"], 0, "4 hosts"),
        (["sim", "run", "examples/shared.toml", "--set", "duration=1 s"], 0, "left->right"),
        (["sim", "run", "examples/shared.toml", "--plot"], 2, "pip install 'ustack[sim]'"),
        (["load", "http://198.18.0.2/", "--link", "memory:/"], 2, "pip install 'ustack[load]'"),
    ],
)
def test_a_command_starts_without_them(words: list[str], status: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == status, done.stderr
    assert says in done.stdout + done.stderr

# SPDX-License-Identifier: MIT
"""Capabilities are looked at, asked for, and given up for good."""

import subprocess
import sys
from pathlib import Path

import pytest

from ustack.lab import privilege
from ustack.lab.namespace import LabError

pytestmark = pytest.mark.root

DROPPED = """
import errno, os, socket
from ustack.lab import privilege
kept = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
privilege.drop()
assert privilege.effective() == set(), privilege.effective()
kept.bind(("lo", 3))
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except PermissionError:
    pass
else:
    raise SystemExit("an AF_PACKET socket was opened without CAP_NET_RAW")
os.execv("/bin/sh", ["sh", "-c", "grep ^CapEff /proc/self/status"])
"""


def test_root_misses_nothing() -> None:
    privilege.require("this test")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective", lambda: {"CAP_NET_RAW", "CAP_SYS_ADMIN"})
    with pytest.raises(LabError, match="ustack serve needs root, or CAP_NET_ADMIN: run it with sudo"):
        privilege.require("ustack serve")


def test_a_dropped_capability_is_gone_even_for_a_new_program() -> None:
    root = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", DROPPED], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    bits = int(result.stdout.split()[1], 16)
    assert not any(bits >> bit & 1 for bit in privilege.CAPABILITIES.values())

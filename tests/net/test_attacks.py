# SPDX-License-Identifier: MIT
"""Every attack of ustack.tools.attacks against a server on a real link, which goes on serving."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ustack.tools.attacks import ATTACKS

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ADDRESS, ATTACKER = "198.18.0.2", "198.18.0.77"
SECONDS = 0.5


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_newcomer_is_served_during_and_after_an_attack(attack: str, serving: Callable[..., Any], site: Any) -> None:
    server = serving("veth")
    hostile = server.start(
        sys.executable, "-m", "ustack.tools.attacks", attack, "--ifname", server.ifname(), "--target", ADDRESS,
        "--source", ATTACKER, "--rate", "10000", "--seconds", str(SECONDS),
    )  # fmt: skip
    assert hostile.stdout.readline() == b"ready\n"
    assert server.get("one.bin") == site.body("one.bin")
    said, _ = hostile.communicate(timeout=60)
    assert hostile.returncode == 0
    assert json.loads(said)["sent"] > 0
    assert server.get("one.bin") == site.body("one.bin")

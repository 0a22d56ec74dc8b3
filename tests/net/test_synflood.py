# SPDX-License-Identifier: MIT
"""A flood of SYNs, and honest clients whose third segments come when it has turned the queue over many times."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

QUEUE = 20


def flooded(serving: Callable[..., Any], cookies: int) -> tuple[dict[str, Any], dict[str, int]]:
    """What `flooded` reports, and the server's counters at the end. The queue is full long before a client comes."""
    settings = ["--set", f"syn_queue={QUEUE}", "--set", f"syn_cookies={cookies}"]
    server = serving("veth", "--gateway", "198.18.0.1", "--json-stats", *settings)
    flood = [
        "--ifname",
        server.ifname(),
        "--target",
        server.address,
        "--source",
        "198.18.0.77",
        "--rate",
        "2000",
        "--seconds",
        "0.5",
        "--delay",
        "200",
        "--clients",
        "100",
    ]
    done = server.run(sys.executable, "-m", "ustack.tools.flooded", *flood)
    counters = server.until(lambda now: True)["counters"]
    assert server.stop() == 0
    return json.loads(done.stdout), counters


def test_every_honest_client_is_served_with_cookies(serving: Callable[..., Any]) -> None:
    report, counters = flooded(serving, cookies=1)
    assert report["clients"] == report["served"] >= 49
    assert counters["syn_cookies_accepted"] == report["served"]
    assert counters["syn_cookies_sent"] > 500


def test_without_cookies_the_flood_pushes_them_out(serving: Callable[..., Any]) -> None:
    """The count can fail: 20 half-open connections of 2,000 a second are kept for 10 ms."""
    report, counters = flooded(serving, cookies=0)
    assert report["served"] == counters["syn_cookies_sent"] == 0
    assert report["clients"] >= 49

# SPDX-License-Identifier: MIT
"""The flood in virtual time: what it counts, not how long it takes."""

import pytest
from click.testing import CliRunner

from ustack.tools.bench_synflood import main, measure


@pytest.mark.parametrize("cookies", [1, 2])
def test_every_honest_handshake_is_served_with_cookies(cookies: int) -> None:
    """20,000 SYNs per second and a queue for 0.1 s of them: as 200,000 and the usual one, a tenth as long."""
    flood = measure(rate=20_000, seconds=1, delay_ms=600, clients_per_second=100, cookies=cookies, syn_queue=1638)
    assert (flood.clients, flood.served) == (100, 100)
    assert flood.syns > 50_000


def test_without_cookies_the_oldest_makes_room_and_nobody_is_served() -> None:
    """The third segment comes after the queue has been turned over seven times: the count can fail."""
    flood = measure(rate=20_000, seconds=1, delay_ms=600, clients_per_second=100, cookies=0, syn_queue=1638)
    assert flood.served == 0


def test_without_cookies_a_near_client_is_served() -> None:
    flood = measure(rate=20_000, seconds=0.5, delay_ms=20, clients_per_second=100, cookies=0, syn_queue=1638)
    assert flood.share == 1


def test_the_command_prints_a_row_for_each_setting() -> None:
    result = CliRunner().invoke(main, ["--rate", "20000", "--seconds", "0.2", "--delay", "100", "--clients", "50"])
    assert result.exit_code == 0
    assert [word for word in ("never", "under pressure", "always") if word in result.output] == [
        "never", "under pressure", "always",
    ]  # fmt: skip

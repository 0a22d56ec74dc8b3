# SPDX-License-Identifier: MIT
"""flooded: what it refuses to flood, and what its figures mean."""

import pytest
from click.testing import CliRunner

from ustack.tools.flooded import Outcome, main


@pytest.mark.parametrize("option", ["--target", "--source"])
@pytest.mark.parametrize("address", ["192.0.2.1", "198.18.0.0/24", "2001:2::1", "nobody"])
def test_nothing_but_one_address_of_the_benchmarking_ranges_is_used(option: str, address: str) -> None:
    words = {"--ifname": "lo", "--target": "198.18.0.2", "--source": "198.18.0.77", option: address}
    result = CliRunner().invoke(main, [word for pair in words.items() for word in pair])
    assert result.exit_code == 2
    assert address in result.output


def test_shares_and_rates() -> None:
    outcome = Outcome(clients=200, served=150, at_once=100, syns=1000, seconds=2.0)
    assert (outcome.share, outcome.syns_per_second) == (0.75, 500)
    assert (Outcome(0, 0, 0, 0, 0.0).share, Outcome(0, 0, 0, 0, 0.0).syns_per_second) == (1, 0)

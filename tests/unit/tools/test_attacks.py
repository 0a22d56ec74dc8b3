# SPDX-License-Identifier: MIT
"""attacks: what it refuses, and how bench_attacks reckons. What the frames do is in tests/net/test_attacks.py."""

import pytest
from click.testing import CliRunner

from ustack.tools.attacks import main, nobody_beside
from ustack.tools.bench_attacks import Run, kept

GOOD = {"--ifname": "lo", "--target": "198.18.0.2", "--source": "198.18.0.77"}


@pytest.mark.parametrize(
    "wrong",
    [{"--target": "10.0.0.1"}, {"--source": "127.0.0.1"}, {"--target": "198.18.0.0/24"}, {"--target": "2001:2::1"}],
)
def test_only_single_addresses_of_the_benchmarking_ranges(wrong: dict[str, str]) -> None:
    words = [word for pair in {**GOOD, **wrong}.items() for word in pair]
    done = CliRunner().invoke(main, ["noise", *words])
    assert done.exit_code == 2
    assert done.output.startswith("attacks: ")
    assert done.output.count("\n") == 1


def test_an_attack_that_is_not_there() -> None:
    done = CliRunner().invoke(main, ["teardrop", *(word for pair in GOOD.items() for word in pair)])
    assert done.exit_code == 2


def run(number: int, attack: str, rate: float, error: str = "") -> Run:
    return Run(number, "ustack", attack, rate, 0.0, 10_000.0, 0.0, error)


def test_shares_are_of_the_same_round() -> None:
    runs = [run(1, "alone", 100.0), run(1, "junk", 90.0), run(2, "alone", 50.0), run(2, "junk", 40.0)]
    assert kept(runs, "ustack", "junk") == [0.9, 0.8]
    assert kept(runs, "ustack", "alone", "junk") == [100 / 90, 50 / 40]


def test_a_run_with_an_error_counts_neither_as_nothing_nor_as_good() -> None:
    runs = [
        run(1, "alone", 100.0),
        run(1, "junk", 0.0, "reset"),
        run(2, "alone", 50.0, "timeout"),
        run(2, "junk", 40.0),
    ]
    assert kept(runs, "ustack", "junk") == []


def test_the_attacker_lives_on_the_servers_network() -> None:
    assert nobody_beside("198.18.7.2") == "198.18.7.77"

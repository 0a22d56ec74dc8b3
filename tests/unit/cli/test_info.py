# SPDX-License-Identifier: MIT
"""`ustack info`: the settings of a stack come from the one table that the stack reads."""

import json

import pytest
from click.testing import CliRunner

from ustack import Stack
from ustack.cli.info import amount, info


def test_settings_are_those_of_the_stack() -> None:
    result = CliRunner().invoke(info, ["--settings", "--json"])
    assert result.exit_code == 0
    assert {row["name"]: row for row in json.loads(result.output)} == {
        name: setting._asdict() for name, setting in Stack.settings().items()
    }


def test_settings_are_a_line_each_in_a_pipe() -> None:
    lines = CliRunner().invoke(info, ["--settings"]).output.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(Stack.settings())
    assert all(len(line.split("\t")) == 5 for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("delayed_ack_ns", 40_000_000, "40 ms"),
        ("rto_initial_ns", 1_000_000_000, "1 s"),
        ("keepalive_idle_ns", 7_200_000_000_000, "2 h"),
        ("rto_max_ns", 86_400_000_000_000, "1 d"),
        ("delayed_ack_ns", 499_999_999, "499999999 ns"),
        ("delayed_ack_ns", 0, "0"),
        ("rcv_buffer_bytes", 524_288, "512 KiB"),
        ("rx_memory_bytes", 0xFFFFFFFF, "4294967295 bytes"),
        ("ttl", 64, "64"),
    ],
)
def test_amounts_have_the_largest_unit_that_divides_them(name: str, value: int, text: str) -> None:
    assert amount(name, value) == text


def test_the_congestion_controls_that_a_stack_may_have_are_listed() -> None:
    assert json.loads(CliRunner().invoke(info, []).output)["congestion_controls"][0] == "newreno"

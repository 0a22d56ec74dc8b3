# SPDX-License-Identifier: MIT
"""`ustack info`: the settings of a stack come from the one table that the stack reads."""

import json

import pytest
from click.testing import CliRunner

from ustack import Stack
from ustack.cli.amounts import amount, number
from ustack.cli.info import info


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
    assert number(name, text) == number(name, text.replace(" ", "")) == number(name, str(value)) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("rto_min_ns", text) for text in ("", "s", "-1 s", "1.5 s", "1  s", "1 KiB", "1 S", "0x10", "1_0", "\u0661")),
        *(("ttl", text) for text in ("64 s", "64 bytes", "yes", "64 ")),
        *(("rcv_buffer_bytes", text) for text in ("1 s", "64 kB", "9" * 21)),
    ],
)
def test_what_is_no_amount_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"bad {name}"):
        number(name, text)


def test_the_congestion_controls_that_a_stack_may_have_are_listed() -> None:
    assert json.loads(CliRunner().invoke(info, []).output)["congestion_controls"][0] == "newreno"

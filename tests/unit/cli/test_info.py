# SPDX-License-Identifier: MIT
"""`ustack info`: the settings of a stack come from the one table that the stack reads."""

import json

import pytest
from click.testing import CliRunner

from ustack import Stack
from ustack.cli.amounts import amount, number
from ustack.cli.info import info
from ustack.engine.profiles import PROFILES


def test_settings_are_those_of_the_stack() -> None:
    result = CliRunner().invoke(info, ["--settings", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.output)}
    of_profiles = {name: row.pop("profiles") for name, row in rows.items()}
    assert rows == {name: setting._asdict() for name, setting in Stack.settings().items()}
    assert {name: values["linux"] for name, values in of_profiles.items() if values} == PROFILES["linux"]


def test_settings_are_a_line_each_in_a_pipe() -> None:
    lines = CliRunner().invoke(info, ["--settings"]).output.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(Stack.settings())
    cells = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert all(len(line) == 6 for line in cells.values())
    assert cells["window_probe_bytes"][1:5] == ["1 bytes", "0", "0", "1 bytes"]
    assert cells["ttl"][1:5] == ["64", "", "1", "255"]


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


def test_the_profiles_are_listed() -> None:
    assert json.loads(CliRunner().invoke(info, []).output)["profiles"] == ["rfc", "linux"]


def test_the_congestion_controls_that_a_stack_may_have_are_listed() -> None:
    assert json.loads(CliRunner().invoke(info, []).output)["congestion_controls"][0] == "newreno"

# SPDX-License-Identifier: MIT
"""What `ustack wire` makes of its arguments, and which it refuses before it opens anything."""

from typing import Any

import pytest

from ustack.cli import main
from ustack.cli.wire import WireEnd, overrides, pairs
from ustack.lab import LabError, privilege
from ustack.lab.links import End


@pytest.fixture(autouse=True)
def all_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective", lambda: set(privilege.CAPABILITIES))


@pytest.mark.parametrize(
    ("text", "is_tap", "end"),
    [
        ("veth7", False, End(None, "veth7")),
        ("eth0.5", False, End(None, "eth0.5")),
        ("veth7@blue", False, End("blue", "veth7")),
        ("tap:t0", True, End(None, "t0")),
        ("tap:t0@blue", True, End("blue", "t0")),
    ],
)
def test_an_end_is_an_interface_and_its_place(text: str, is_tap: bool, end: End) -> None:
    assert WireEnd.parse(text) == WireEnd(is_tap, end)


@pytest.mark.parametrize("text", ["", "@blue", "veth7@", "tun:t0", "tap:", ":t0", "a-name-that-is-too-long", "a@b c"])
def test_an_end_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        WireEnd.parse(text)


def test_a_setting_is_for_both_directions_or_one() -> None:
    both = {"rate": "100mbit", "delay": "10ms", "loss": "1%"}
    made = pairs(both, overrides("--forward", "loss=5%, delay=1ms"), overrides("--backward", "duplicate=2%"))
    assert made == {
        "rate_bps": (100_000_000, 100_000_000),
        "delay_ns": (1_000_000, 10_000_000),
        "loss": (0.05, 0.01),
        "duplicate": (0.0, 0.02),
    }


def test_a_queue_has_one_limit_in_each_direction() -> None:
    made = pairs({"rate": "1mbit", "queue": "10p"}, {"queue": "3000"}, {})
    assert made["queue_bytes"] == (3000, (1 << 64) - 1)
    assert made["queue_frames"] == (1 << 24, 10)
    assert pairs({"rate": "1mbit", "queue": "3000"}, {}, {})["queue_bytes"] == (3000, 3000)
    assert pairs({"rate": "1mbit"}, {}, {}) == {"rate_bps": (1_000_000, 1_000_000)}


def test_reordering_says_how_late() -> None:
    assert pairs({"reorder": "1%:5ms"}, {}, {}) == {"reorder": (0.01, 0.01), "reorder_ns": (5_000_000, 5_000_000)}
    made = pairs({}, {"reorder": "1%:5ms"}, {})
    assert made == {"reorder": (0.01, 0.0), "reorder_ns": (5_000_000, 1)}


def test_a_narrow_path_has_an_mtu() -> None:
    assert pairs({"mtu": "1500"}, {"mtu": "1280"}, {}) == {"path_mtu": (1280, 1500)}
    assert pairs({}, {}, {"mtu": "68"}) == {"path_mtu": (0, 68)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "--mtu", "67"], "bad mtu '67'"),
        (["a", "b", "--mtu", "65536"], "bad mtu '65536'"),
        (["a", "b", "--mtu", "1k"], "bad mtu '1k'"),
        (["a"], "Missing argument 'B'"),
        (["a", "a"], "both ends are a"),
        (["a", "b", "--rate", "fast"], "bad rate 'fast'"),
        (["a", "b", "--delay", "10"], "bad delay '10'"),
        (["a", "b", "--loss", "2"], "bad loss '2'"),
        (["a", "b", "--reorder", "1%"], "bad reorder '1%'"),
        (["a", "b", "--reorder", "1%:0"], "later by nothing"),
        (["a", "b", "--queue", "9kB"], "a queue without a rate"),
        (["a", "b", "--mark", "9kB"], "a mark without a rate"),
        (["a", "b", "--queue", "60", "--rate", "1mbit"], "no packet would ever fit"),
        (["a", "b", "--forward", "loss"], "bad --forward 'loss': NAME=VALUE"),
        (["a", "b", "--backward", "speed=1"], "bad --backward 'speed=1'"),
        (["a", "b", "--forward", "loss=1%,loss=2%"], "loss is there twice"),
        (["a", "b", "--forward", ""], "bad --forward ''"),
        (["a", "b", "--duration", "soon"], "bad duration 'soon'"),
        (["a", "b", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wire", *words]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "missing"), [(["a", "b"], "CAP_NET_RAW"), (["a@/proc/self/ns/net", "b"], "CAP_SYS_ADMIN")]
)
def test_what_privilege_is_missing_is_said(
    words: list[str], missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[Any]
) -> None:
    monkeypatch.setattr(privilege, "effective", set)
    assert main(["wire", *words]) == 2
    assert missing in capsys.readouterr().err

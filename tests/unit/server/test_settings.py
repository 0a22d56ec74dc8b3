# SPDX-License-Identifier: MIT
"""Every limit and time of a server has bounds, and what is beyond them is refused by its name."""

import os
import re
from pathlib import Path

import pytest

from ustack.server.http import HttpServer

STUB = (Path(__file__).parents[3] / "server/http.pyi").read_text()
NUMBERS = sorted(re.findall(r"^        (\w+): (?:int|float) = ", STUB, re.MULTILINE))
AT_LEAST_ONE = {
    *("idle_timeout_s", "head_timeout_s", "send_timeout_s", "linger_s"),
    *("max_head_bytes", "max_request_line_bytes", "max_files", "max_busy", "max_response_bytes", "log_lines"),
}


def test_the_settings_are_found() -> None:
    assert len(NUMBERS) == 22
    assert set(NUMBERS) > AT_LEAST_ONE


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, 2**70, float("nan")])
def test_a_value_beyond_the_bounds_is_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match=f"{name}=.* is out of its range"):
        HttpServer(tmp_path, **{name: value})
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", sorted(AT_LEAST_ONE))
def test_none_at_all_is_refused_where_nothing_would_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0 is out of its range"):
        HttpServer(tmp_path, **{name: 0})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_request_line_bytes": 16385}, "a head holds its request line"),
        ({"max_request_bytes": 32767}, "two heads"),
        ({"log_lines": 3}, "power of two"),
    ],
)
def test_settings_have_to_fit_each_other(tmp_path: Path, given: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        HttpServer(tmp_path, **given)


def test_the_least_of_everything_is_a_server(tmp_path: Path) -> None:
    least = {
        **{name: 0 for name in NUMBERS if name not in AT_LEAST_ONE},
        **{name: 1e-9 for name in AT_LEAST_ONE if name.endswith("_s")},
        **{"max_head_bytes": 1, "max_request_line_bytes": 1, "max_request_bytes": 2, "max_files": 1, "max_busy": 1},
        **{"max_response_bytes": 1 << 20, "log_lines": 2},
    }
    with HttpServer(tmp_path, **least) as server:
        assert server.limits.max_head_bytes == 1

# SPDX-License-Identifier: MIT
"""bench_heads: every case gets the status that it says it measures, and a run prints all of them."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ustack.server.http import HttpServer
from ustack.tools import bench_heads


def test_a_run_prints_every_case() -> None:
    done = CliRunner().invoke(bench_heads.main, ["--runs", "1", "--heads", "3"], terminal_width=120)
    assert done.exit_code == 0, done.output
    for case in bench_heads.CASES:
        assert case in done.output


def test_another_status_than_expected_is_no_measurement(tmp_path: Path) -> None:
    with HttpServer(tmp_path) as server, pytest.raises(RuntimeError, match="got 404, not 200"):
        bench_heads.measure(server, "a known file, another query", 0, 1)


def test_a_closed_server_decides_nothing(tmp_path: Path) -> None:
    server = HttpServer(tmp_path)
    server.close()
    with pytest.raises(ValueError, match="closed"):
        server.decide(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")

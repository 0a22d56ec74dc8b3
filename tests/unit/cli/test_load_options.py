# SPDX-License-Identifier: MIT
"""What `ustack load` refuses before it makes anything, and what it makes of its words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ustack.cli import load_options
from ustack.cli.commands import run_command
from ustack.cli.load import load
from ustack.cli.load_options import KEPT_BESIDE_BYTES, Options, check, read_rate, seed_of_boot
from ustack.cli.recording import part_of
from ustack.lab import LabError
from ustack.obs.tracefile import read
from ustack.obs.tracesummary import summaries

URL = "http://198.18.0.2/512.bin"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "512.bin").write_bytes(bytes(512))
    return tmp_path


def refused(**words: Any) -> str:
    with pytest.raises(LabError) as info:
        check(Options(**{"url": URL, "link": "veth", **words}))
    return str(info.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"url": "https://198.18.0.2/"}, "must begin with http://"),
        ({"url": "http://localhost/"}, "IPv4 address"),
        ({"link": "eth0"}, "bad link"),
        ({"link": "dev:eth0"}, "needs --address"),
        ({"link": "dev:eth0", "address": "198.18.0.9/24", "peer_netns": "x"}, "makes no sense with dev"),
        ({"address": "198.18.0.2/24"}, "the server's address"),
        ({"link": "memory:/nonexistent"}, "memory:DIRECTORY"),
        ({"poisson": True}, "about a --rate"),
        ({"requests": 5, "rate": 9.0}, "closed loop"),
        ({"duration": "1 year"}, "bad duration"),
        ({"header": ("nonsense",)}, "bad header"),
        ({"method": "G T"}, "bad method"),
        ({"path_file": Path("/nonexistent")}, "/nonexistent"),
        ({"files": Path("/nonexistent")}, "/nonexistent"),
    ],
)
def test_what_cannot_work_is_refused(words: dict[str, Any], said: str) -> None:
    assert said in refused(**words)


def test_memory_has_no_interface(site: Path) -> None:
    assert "makes no sense in memory" in refused(link=f"memory:{site}", netns="x")
    assert "http://198.18.0.2/" in refused(link=f"memory:{site}", url="http://198.18.0.3/")


@pytest.mark.parametrize(
    ("text", "bytes_per_second"), [("28.8k", 3600), ("28.8kbit", 3600), ("1m", 125_000), ("1mbit/s", 125_000)]
)
def test_rates_of_readers_are_in_bits(text: str, bytes_per_second: int) -> None:
    assert read_rate(text) == bytes_per_second


@pytest.mark.parametrize("text", ["", "k", "0", "7", "fast"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_rate(text)


def test_slow_readers_have_small_windows(site: Path) -> None:
    options = Options(url=URL, link=f"memory:{site}", read_rate="28.8k")
    assert check(options).settings == {"rcv_buffer_bytes": 16384, "rcv_buffer_max_bytes": 16384}
    wider = Options(url=URL, link=f"memory:{site}", read_rate="28.8k", settings=(("rcv_buffer_bytes", 65536),))
    assert check(wider).settings == {"rcv_buffer_bytes": 65536, "rcv_buffer_max_bytes": 65536}


def test_a_window_has_room_for_two_steps_and_memory_for_all_windows(site: Path) -> None:
    options = Options(url=URL, link=f"memory:{site}", read_rate="28.8k", read_step="15928")
    assert check(options).settings == {"rcv_buffer_bytes": 31856, "rcv_buffer_max_bytes": 31856}
    assert check(options).load.read_step_bytes == 15928
    many = check(replace(options, connections=100_000)).settings
    assert many["rx_memory_bytes"] == 100_000 * (31856 + KEPT_BESIDE_BYTES) < 1 << 32


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"read_step": "1KiB"}, "about a --read-rate"),
        ({"read_rate": "28.8k", "read_step": "0"}, "bad --read-step"),
        ({"read_rate": "28.8k", "read_step": "10", "settings": (("rcv_buffer_bytes", 9),)}, "more than the window"),
        ({"read_rate": "28.8k", "connections": 1_000_000}, "too much for one stack"),
        ({"read_rate": "28.8k", "connections": 9, "settings": (("rx_memory_bytes", 9999),)}, "too much for one stack"),
    ],
)
def test_readers_that_cannot_be_are_refused(site: Path, more: dict[str, Any], why: str) -> None:
    with pytest.raises(LabError, match=why):
        check(Options(url=URL, link=f"memory:{site}", **more))


def test_a_run_in_memory_from_the_command_line(site: Path) -> None:
    done = CliRunner().invoke(
        load,
        [URL, "--link", f"memory:{site}", "-c", "4", "-n", "100", "--json", "--files", str(site)],
        standalone_mode=False,
    )
    assert done.return_value == 0, done.output
    found = json.loads(done.stdout)
    assert found["all"]["outcomes"] == {"ok": 100}
    assert found["requests_per_second"] > 0
    shown = CliRunner().invoke(
        load, [URL, "--link", f"memory:{site}", "-n", "10", "--sources", "198.18.9.1-198.18.9.4"], standalone_mode=False
    )
    assert "good responses per second" in shown.stdout
    assert "p99.99" in shown.stdout


def test_a_run_is_traced(site: Path, tmp_path: Path) -> None:
    """The client's connections, from their SYN to their end; as many requests as were sent have left."""
    file = tmp_path / "run.qlog"
    words = [URL, "--link", f"memory:{site}", "-c", "4", "-n", "200", "--json"]
    done = CliRunner().invoke(load, [*words, "--trace", str(file), "--trace-connections", "3"], standalone_mode=False)
    assert done.return_value == 0, done.output
    recorded = read(file)
    assert [one["active"] for one in recorded.connections] == [True] * 3
    assert {one["remote"] for one in recorded.connections} == {("198.18.0.2", 80)}
    found = summaries(recorded)
    assert [one.number for one in found] == [1, 2, 3]
    assert all(one.end is not None and one.acked_bytes > 40 * 30 for one in found)
    assert recorded.missed == 0
    assert not part_of(file).exists()


@pytest.mark.parametrize(("name", "why"), [("run.txt", "ends in"), ("none/run.qlog", "no directory for the trace")])
def test_a_trace_that_cannot_be_is_refused(site: Path, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        check(Options(url=URL, link=f"memory:{site}", trace=tmp_path / name))
    assert not (tmp_path / name).exists()


def test_no_good_response_is_a_failure(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["http://198.18.0.2/none", "--link", f"memory:{site}", "-n", "3"]
    assert run_command(load, words) == 1
    assert "error: status" in capfd.readouterr().out


def test_a_later_run_of_one_boot_has_the_same_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(load_options, "BOOT_ID", boot)
    assert seed_of_boot("198.18.0.1/24") is None
    boot.write_text("4e3a5c0e-6cf1-4a0e-9c4c-0a1b2c3d4e5f\n")
    first = seed_of_boot("198.18.0.1/24")
    assert first is not None
    assert 0 <= first < 2**64
    assert seed_of_boot("198.18.0.1/24") == first
    assert seed_of_boot("198.18.0.2/24") != first
    boot.write_text("5e3a5c0e-6cf1-4a0e-9c4c-0a1b2c3d4e5f\n")
    assert seed_of_boot("198.18.0.1/24") != first

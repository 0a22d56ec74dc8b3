# SPDX-License-Identifier: MIT
"""Counters in, rates out: plain numbers."""

import json

import pytest

from ustack.obs.snapshot import Snapshot, as_json, drops, rates

BEFORE = Snapshot(
    now_ns=1_000_000_000,
    stack={"frames_in": 10, "drop_ip_checksum": 1, "drop_tcp_paws": 0},
    link={"rx_frames": 10, "tx_frames": 5, "rx_bytes": 1000, "tx_bytes": 0, "rx_dropped": 0},
    application={"requests": 100},
    cpu_ns=0,
)
AFTER = Snapshot(
    now_ns=3_000_000_000,
    stack={"frames_in": 30, "drop_ip_checksum": 1, "drop_tcp_paws": 4},
    link={"rx_frames": 30, "tx_frames": 45, "rx_bytes": 1000, "tx_bytes": 250_000_000, "rx_dropped": 2},
    application={"requests": 300, "responses_2xx": 300},
    connections=7,
    cpu_ns=500_000_000,
)


def test_rates_are_per_second_of_the_interval() -> None:
    found = rates(BEFORE, AFTER)
    assert found.interval_s == 2.0
    assert found.requests_per_s == 100.0
    assert (found.frames_in_per_s, found.frames_out_per_s) == (10.0, 20.0)
    assert (found.gbit_in_per_s, found.gbit_out_per_s) == (0.0, 1.0)
    assert found.drops == 6
    assert found.cpu == 0.25
    assert found.connections == 7


def test_drops_names_every_reason_that_was_counted() -> None:
    assert drops(AFTER) == {"drop_ip_checksum": 1, "drop_tcp_paws": 4, "link_rx_dropped": 2}


def test_no_interval_and_no_counters_divide_by_nothing() -> None:
    empty = Snapshot(now_ns=5)
    assert rates(empty, empty).requests_per_s == 0.0


@pytest.mark.parametrize(("before", "after"), [(BEFORE, AFTER), (AFTER, AFTER), (Snapshot(0), Snapshot(1))])
def test_the_json_object_is_one_line(before: Snapshot, after: Snapshot) -> None:
    text = json.dumps(as_json(before, after))
    assert "\n" not in text
    assert json.loads(text)["connections"] == after.connections


def test_the_json_object_says_each_drop_once() -> None:
    figures = as_json(BEFORE, AFTER)
    assert figures["drops"] == {"drop_ip_checksum": 1, "drop_tcp_paws": 4, "link_rx_dropped": 2}
    assert figures["counters"] == {"frames_in": 30}

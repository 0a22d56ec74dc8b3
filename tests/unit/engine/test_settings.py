# SPDX-License-Identifier: MIT
"""Settings by name: each within its bounds, each with its effect, nothing else accepted."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ustack import SimNetwork, Stack, StackError
from ustack.engine import settings
from ustack.testing.peer import ScriptedPeer
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

ROOT = Path(__file__).parents[3]
DAY_NS = 86_400 * SECOND
LARGEST_INDEX = 1 << 28

BOUNDS = {
    "max_connections": (1, LARGEST_INDEX),
    "syn_queue": (1, LARGEST_INDEX),
    "syn_cookies": (0, 2),
    "mtu_probing": (0, 2),
    "mtu_probe_base_bytes": (552, 65535),
    "challenge_acks_per_second": (1, 1 << 24),
    "holder_bytes_per_second": (0, 1 << 20),
    "holder_interval_ns": (MILLISECOND, DAY_NS),
    "admission_frames": (0, 1 << 20),
    "admission": (0, 2),
    "time_wait_limit": (1, LARGEST_INDEX),
    "rcv_buffer_bytes": (1, 1 << 29),
    "whole_first_window": (0, 1),
    "rto_variance_min_ns": (0, DAY_NS),
    "quick_acks": (0, 255),
    "window_probe_bytes": (0, 1),
    "corrective_interval_ns": (0, 60 * SECOND),
    "probe_answers_limited": (0, 1),
    "backlog_extra": (0, 1 << 16),
    "window_growth": (0, 1),
    "ack_second_segment": (0, 1),
    "measure": (0, 1),
    "push_frames": (0, 1),
    "rcv_buffer_max_bytes": (1, 1 << 29),
    "rx_memory_bytes": (1, 0xFFFFFFFF),
    "snd_queue_bytes": (1, 1 << 30),
    "snd_low_water_bytes": (0, 1 << 30),
    "snd_unsent_low_water_bytes": (0, 1 << 30),
    "initial_window_segments": (1, 1000),
    "mss": (64, 65495),
    "cc_records": (0, LARGEST_INDEX),
    "pacing": (0, 2),
    "extra_records": (0, LARGEST_INDEX),
    "flights": (0, LARGEST_INDEX),
    "transmissions": (0, LARGEST_INDEX),
    "rto_initial_ns": (MILLISECOND, DAY_NS),
    "rto_min_ns": (MILLISECOND, DAY_NS),
    "rto_max_ns": (MILLISECOND, DAY_NS),
    "tail_probe_min_ns": (0, DAY_NS),
    "delayed_ack_ns": (0, 499_999_999),
    "msl_ns": (0, DAY_NS),
    "user_timeout_ns": (MILLISECOND, 5 * DAY_NS),
    "syn_timeout_ns": (MILLISECOND, 5 * DAY_NS),
    "syn_ack_timeout_ns": (MILLISECOND, DAY_NS),
    "fin_wait_2_timeout_ns": (MILLISECOND, DAY_NS),
    "path_mtu_expires_ns": (300 * SECOND, DAY_NS),
    "orphan_timeout_ns": (MILLISECOND, 5 * DAY_NS),
    "max_orphans": (0, LARGEST_INDEX),
    "keepalive_idle_ns": (MILLISECOND, 5 * DAY_NS),
    "keepalive_interval_ns": (MILLISECOND, DAY_NS),
    "keepalive_probes": (1, 255),
    "ttl": (1, 255),
    "timestamps": (0, 1),
    "sack": (0, 1),
    "window_scaling": (0, 1),
    "ecn": (0, 5),
    "neighbour_reachable_ns": (MILLISECOND, DAY_NS),
    "neighbour_retry_ns": (MILLISECOND, DAY_NS),
    "neighbour_tries": (1, 255),
    "neighbour_queue": (1, 255),
    "neighbour_limit": (2, 65534),
}

DEFAULTS_OUT_OF_BOUNDS = {"mss": 0}  # 0: from the link's MTU, which nobody can ask for in another way

RTO_RANGE = ["rto_min_ns", "rto_max_ns"]  # neither goes beyond the other


def settings_of(struct: str, path: str) -> set[str]:
    """Field names of a struct in a .pxd file."""
    body = (ROOT / path).read_text().split(f"ctypedef struct {struct}:", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^    \w+ (\w+)", body, re.MULTILINE))


def test_every_setting_of_the_structs_can_be_set_and_nothing_else() -> None:
    fields = settings_of("tcp_config_t", "ustack/tcp/records/configuration.pxd")
    fields |= settings_of("ip_config_t", "ustack/ip/records.pxd")
    assert fields - {"cc", "address", "prefix_length", "gateway", "ranges", "range_count"} == BOUNDS.keys()


def test_settings_gives_the_table_to_python() -> None:
    table = Stack.settings()
    assert {name: (setting.low, setting.high) for name, setting in table.items()} == BOUNDS
    for name, setting in table.items():
        assert setting.name == name
        assert len(setting.text) > 10
        assert setting.default == DEFAULTS_OUT_OF_BOUNDS.get(name, setting.default)
        assert setting.low <= setting.default <= setting.high or name in DEFAULTS_OUT_OF_BOUNDS


def test_the_defaults_are_those_that_a_stack_works_with() -> None:
    table = Stack.settings()
    assert (table["ttl"].default, table["rto_initial_ns"].default, table["sack"].default) == (64, SECOND, 1)


def test_help_explains_every_setting() -> None:
    text = settings.__doc__
    assert text is not None
    for name, setting in Stack.settings().items():
        assert f"{name} = {setting.default}" in text
        assert setting.text in text


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("which", [0, 1], ids=["lowest", "highest"])
def test_a_value_at_its_bound_is_taken(make_stack: Callable[..., Stack], name: str, which: int) -> None:
    value = BOUNDS[name][which]
    values = dict.fromkeys(RTO_RANGE if name in RTO_RANGE else [name], value)
    stack = make_stack(SimNetwork().a, now_ns=0, **values)
    assert stack.poll(0) == 0


def test_the_smallest_timeout_is_not_larger_than_the_largest() -> None:
    with pytest.raises(ValueError, match="rto_min_ns"):
        Stack(SimNetwork().a, now_ns=0, rto_min_ns=2 * SECOND, rto_max_ns=SECOND)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("beyond", [-1, 1], ids=["below", "above"])
def test_a_value_beyond_its_bound_is_refused(name: str, beyond: int) -> None:
    value = BOUNDS[name][beyond > 0] + beyond
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Stack(SimNetwork().a, now_ns=0, **{name: value})


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [None, "1", 1.0, b"1", [], 2**64, 2**200, -(2**64)], ids=repr)
def test_what_is_not_a_whole_number_of_any_use_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Stack(SimNetwork().a, now_ns=0, **{name: value})


@pytest.mark.parametrize("name", ["bogus", "MSS", "mss ", "", "cc", "prefix_length", "now", "__class__"])
def test_a_name_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no such setting"):
        Stack(SimNetwork().a, now_ns=0, **{name: 1})


@pytest.mark.parametrize("name", ["timestamps", "sack", "window_scaling"])
@pytest.mark.parametrize("on", [False, True])
def test_a_switch_takes_a_truth_value(name: str, on: bool) -> None:
    option = {"timestamps": "timestamps", "sack": "sack_permitted", "window_scaling": "wscale"}[name]
    with Testbed(**{name: on}) as bed:
        bed.introduce()
        connection = bed.stack.connect("198.18.0.1", 80, wait=False)
        peer = ScriptedPeer(bed, port=80, stack_port=connection.local[1])
        bed.pump()
        assert (option in peer.expect("S").options) == on


@pytest.mark.parametrize("mss", [64, 500, 1400])
def test_mss_is_what_a_syn_offers(mss: int) -> None:
    with Testbed(mss=mss) as bed:
        bed.introduce()
        connection = bed.stack.connect("198.18.0.1", 80, wait=False)
        peer = ScriptedPeer(bed, port=80, stack_port=connection.local[1])
        bed.pump()
        peer.expect("S", options={"mss": mss})


@pytest.mark.parametrize("ttl", [1, 255])
def test_ttl_is_in_the_header_of_every_packet(ttl: int) -> None:
    with Testbed(ttl=ttl) as bed:
        bed.introduce()
        connection = bed.stack.connect("198.18.0.1", 80, wait=False)
        bed.pump()
        assert (bed.frames[-1][22], connection.state) == (ttl, "SYN-SENT")


def test_the_initial_timeout_is_the_configured_one() -> None:
    with Testbed(rto_initial_ns=300 * MILLISECOND, rto_min_ns=100 * MILLISECOND) as bed:
        bed.introduce()
        connection = bed.stack.connect("198.18.0.1", 80, wait=False)
        peer = ScriptedPeer(bed, port=80, stack_port=connection.local[1])
        bed.pump()
        peer.expect("S")
        peer.expect_after(300 * MILLISECOND, "S")


def test_the_connection_limit_is_the_configured_one(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0, max_connections=1)
    first = stack.connect("198.18.0.1", 80, wait=False)
    with pytest.raises(StackError) as raised:
        stack.connect("198.18.0.1", 80, wait=False)
    assert (raised.value.reason, first.state) == ("no_memory", "SYN-SENT")


def test_a_failed_setting_leaves_the_link_usable(make_stack: Callable[..., Stack]) -> None:
    network = SimNetwork()
    with pytest.raises(ValueError, match="mss"):
        Stack(network.a, now_ns=0, mss=1)
    make_stack(network.a, now_ns=0).poll(0)

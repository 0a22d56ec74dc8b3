# SPDX-License-Identifier: MIT
"""synflood: what it refuses; and a flood of a kernel's stack in namespaces."""

import json
import os
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from ustack.lab import inside
from ustack.tools.pair import Pair, veth_pair
from ustack.tools.synflood import FloodError, check_range, find_mac, flood, main, parse_mac

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and packet sockets")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with veth_pair("synflood") as made:
        yield made


@pytest.mark.parametrize("text", ["198.18.0.0", "198.19.255.255", "198.18.0.0/15", "2001:2::1", "2001:2:0:ffff::/64"])
def test_the_benchmarking_ranges_may_be_used(text: str):
    assert str(check_range("target", text)).startswith(text.partition("/")[0])


@pytest.mark.parametrize(
    "text",
    [
        "198.17.255.255",
        "198.20.0.0",
        "198.18.0.0/14",
        "127.0.0.1",
        "0.0.0.0/0",
        "2001:2:1::",
        "2001:2::/47",
        "::1",
        "::ffff:198.18.0.1",
        "198.18.0.1/24",
        "x",
        "",
    ],
)
def test_everything_else_is_refused(text: str):
    with pytest.raises(FloodError):
        check_range("target", text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "10.0.0.1"},
        {"target": "198.18.0.0/24"},
        {"sources": "10.0.0.0/8"},
        {"count": 0},
        {"count": 100_000_001},
        {"seconds": 61.0},
        {"seconds": 0.0},
    ],
)
def test_nothing_is_opened_for_what_may_not_be_sent(wrong: dict[str, object]):
    arguments: dict[str, object] = {"ifname": "no-such-device", "target": "198.18.0.2", **wrong}
    with pytest.raises(FloodError):
        flood(**arguments)  # type: ignore[arg-type]


def test_a_mac_address_is_read():
    assert parse_mac("02:00:00:00:0a:Ff") == bytes.fromhex("020000000aff")


@pytest.mark.parametrize("text", ["02:00:00:00:00", "02:00:00:00:00:0g", "020000000001", ""])
def test_a_bad_mac_address_is_refused(text: str):
    with pytest.raises(FloodError):
        parse_mac(text)


def test_the_command_says_in_one_line_why_it_does_not_start():
    done = CliRunner().invoke(main, ["--ifname", "x", "--target", "192.0.2.1"])
    assert done.exit_code == 2
    assert done.output.startswith("synflood: target: 192.0.2.1 is outside of the benchmarking ranges")
    assert done.output.count("\n") == 1


@needs_root
@pytest.mark.root
def test_a_kernel_takes_every_syn_and_finds_no_error_in_it(pair: Pair):
    before = tcp_counters(pair.server_netns)
    with inside(pair.client_netns):
        done = flood(ifname="ustack0", target=pair.server_address, count=5000, sources="198.18.0.0/24")
    after = tcp_counters(pair.server_netns)
    assert (done.sent, done.refused) == (5000, 0)
    assert after["InSegs"] - before["InSegs"] == 5000
    assert after["InErrs"] == before["InErrs"]
    assert after["OutRsts"] - before["OutRsts"] == 5000


@needs_root
@pytest.mark.root
def test_the_command_floods_in_a_namespace(pair: Pair):
    done = CliRunner().invoke(
        main, ["--netns", pair.client_netns, "--ifname", "ustack0", "--target", pair.server_address, "--count", "300"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["sent"] == 300


@needs_root
@pytest.mark.root
def test_a_target_that_nobody_is_has_no_mac_address(pair: Pair):
    with inside(pair.client_netns), pytest.raises(FloodError, match="nobody on ustack0"):
        find_mac("ustack0", "198.18.0.99", timeout_s=0.1)


@needs_root
@pytest.mark.root
def test_an_interface_that_is_not_there_is_one_line(pair: Pair):
    done = CliRunner().invoke(main, ["--netns", pair.client_netns, "--ifname", "nix", "--target", "198.18.0.2"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


def tcp_counters(netns: str) -> dict[str, int]:
    """The Tcp line of /proc/net/snmp in a namespace."""
    with inside(netns), open("/proc/thread-self/net/snmp", encoding="ascii") as counters:
        names, values = (line.split()[1:] for line in counters if line.startswith("Tcp:"))
    return dict(zip(names, map(int, values), strict=True))

# SPDX-License-Identifier: MIT
"""What others ask the layer about addresses, and its life."""

import pytest

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer


@pytest.mark.parametrize(
    ("address", "valid"),
    [
        ("198.18.0.1", True),
        ("198.18.0.0", True),
        ("203.0.113.255", True),
        ("1.0.0.1", True),
        ("240.0.0.1", True),
        ("198.18.0.2", False),
        ("198.18.0.255", False),
        ("0.0.0.0", False),
        ("0.255.255.255", False),
        ("127.0.0.1", False),
        ("224.0.0.0", False),
        ("239.255.255.255", False),
        ("255.255.255.255", False),
    ],
)
def test_whom_a_connection_may_be_opened_to(address: str, valid: bool) -> None:
    assert IpLayer(MemoryLink(), "198.18.0.2/24").is_valid_remote(address) is valid


def test_our_address_is_local_and_no_other() -> None:
    ip = IpLayer(MemoryLink(), "198.18.0.2/24")
    assert ip.is_local("198.18.0.2")
    assert not ip.is_local("198.18.0.1")
    assert not ip.is_local("198.18.0.255")


def test_a_layer_at_rest_has_nothing_to_do() -> None:
    ip = IpLayer(MemoryLink(), "198.18.0.2/24")
    assert ip.timers(0) is None
    assert ip.counters() == {}


@pytest.mark.parametrize("hint", [0, 1, 1024, 1025, 65535])
def test_a_confirmation_of_nobody_is_nothing(hint: int) -> None:
    ip = IpLayer(MemoryLink(), "198.18.0.2/24")
    ip.confirm(hint, 1)
    assert ip.neighbours() == {}

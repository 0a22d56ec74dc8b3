# SPDX-License-Identifier: MIT
"""What is compiled in, and the probes: they leave no descriptor open."""

import os

import pytest

from ustack.obs import info


def test_the_build_names_itself() -> None:
    assert info.build_mode() in {"release", "debug", "trace", "asan", "fuzz"}
    assert info.compiler().split()[0] in {"gcc", "clang"}
    assert os.uname().release in info.kernel()


def test_every_capability_is_probed_and_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    found = info.link_capabilities()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert {"af_packet", "packet_ring", "packet_vnet_hdr", "tap", "tap_vnet_hdr", "af_xdp"} <= found.keys()


@pytest.mark.root
def test_root_may_open_a_packet_socket() -> None:
    assert info.link_capabilities()["af_packet"] == ""

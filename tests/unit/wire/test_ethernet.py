# SPDX-License-Identifier: MIT
"""Ethernet headers against scapy, and at every length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from ustack.base.counters import counter_t
from ustack.wire import ethernet

MAC = st.binary(min_size=6, max_size=6)


def text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


@settings(deadline=None, max_examples=50)
@given(MAC, MAC, st.integers(0, 0xFFFF), st.binary(max_size=40))
def test_what_is_emitted_is_parsed(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> None:
    frame = ethernet.emit(destination, source, ethertype) + payload
    assert ethernet.parse(frame) == {"destination": destination, "source": source, "ethertype": ethertype}


@settings(deadline=None, max_examples=50)
@given(MAC, MAC, st.integers(0x600, 0xFFFF))
def test_scapy_emits_what_we_emit(destination: bytes, source: bytes, ethertype: int) -> None:
    oracle = bytes(Ether(dst=text(destination), src=text(source), type=ethertype))
    assert ethernet.emit(destination, source, ethertype) == oracle


@settings(deadline=None, max_examples=50)
@given(MAC, MAC, st.integers(0x600, 0xFFFF))
def test_scapy_parses_what_we_emit(destination: bytes, source: bytes, ethertype: int) -> None:
    oracle = Ether(ethernet.emit(destination, source, ethertype))
    assert (oracle.dst, oracle.src, oracle.type) == (text(destination), text(source), ethertype)


@pytest.mark.parametrize("length", range(14))
def test_a_runt_is_dropped(length: int) -> None:
    assert ethernet.parse(bytes(length)) == counter_t.DROP_FRAME_TRUNCATED

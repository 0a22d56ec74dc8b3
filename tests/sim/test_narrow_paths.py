# SPDX-License-Identifier: MIT
"""Paths that drop large packets and tell nobody (RFC 2923 section 2.1), in virtual time: what is sent arrives, and the
size is found.

The link's MTU is 9000 or 1500, the path's is less in both directions; no ICMP.
"""

from contextlib import suppress
from typing import Any

import pytest

from ustack import WouldBlock
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

GAP = 8


class Transfer:
    """`a` sends to `b`, or as much as it may for some time; what arrives is compared."""

    def __init__(self, *, mtu: int = 9000, seed: int = 3, a: dict[str, Any] | None = None, **network: Any) -> None:
        wire = {"rate_bps": 20_000_000, "delay_ns": 10 * MILLISECOND, "queue_frames": 50, "mtu": mtu} | network
        options = {"mtu_probing": 1, "rcv_buffer_bytes": 1 << 20} | (a or {})
        self.pair = Pair(seed=seed, network=wire, a=options, b={"rcv_buffer_bytes": 1 << 20})
        receiver, self.sender = self.pair.connect()
        self.receiver = receiver
        self.queued = self.arrived = 0

    def run(self, seconds: float) -> int:
        """Bytes that arrive in that time, while the sender always has more."""
        before, until_ns = self.arrived, self.pair.now_ns + int(seconds * SECOND)
        while self.pair.now_ns < until_ns:
            with suppress(WouldBlock):
                self.queued += self.sender.send(block(self.queued), timeout=0)
            self.pair.advance(20 * MILLISECOND)
            data = read_available(self.receiver)[0]
            assert data == pattern(self.arrived, len(data))
            self.arrived += len(data)
        return self.arrived - before

    def info(self) -> dict[str, Any]:
        """The sender's view."""
        return self.pair.a.connections("connection")[0]

    def counters(self) -> dict[str, int]:
        return self.pair.a.counters()

    def find(self, path: int, seconds: int = 120) -> None:
        """Go on until the sender knows the path's MTU, to the search's gap."""
        for _ in range(seconds // 5):
            self.run(5)
            if path - GAP <= self.info()["path_mtu"] <= path:
                return
        raise AssertionError(f"{self.info()['path_mtu']} is not {path}")

    def end(self) -> None:
        self.sender.abort()
        self.pair.pump()
        self.pair.close()


def pattern(start: int, length: int) -> bytes:
    """Bytes of a stream that has no period of any segment's size."""
    first = start // 251
    return b"".join(bytes([(n * 7) & 0xFF]) * 251 for n in range(first, (start + length) // 251 + 1))[
        start - first * 251 :
    ][:length]


def block(start: int) -> bytes:
    return pattern(start, 1 << 18)


PATHS = [(9000, 1500), (9000, 4000), (1500, 1400), (1500, 1280), (1500, 600), (9000, 600)]


@pytest.mark.parametrize(("mtu", "path"), PATHS)
def test_a_black_hole_is_found_and_the_size_behind_it(mtu: int, path: int) -> None:
    """The handshake fits, full segments do not: RFC 4821 section 7.7, then the search of section 7.3."""
    transfer = Transfer(mtu=mtu, path_mtu=path)
    transfer.find(path)
    counted = transfer.counters()
    assert counted["black_holes"] == (2 if path < 1024 else 1)
    assert counted["mtu_probes"] == counted["mtu_probes_lost"] + counted["path_mtu_raised"]
    assert counted["retransmit_timeouts"] == 3 + counted["black_holes"]  # none after it was found
    transfer.end()


@pytest.mark.parametrize("cc", ["newreno", "cubic", "bbr"])
def test_whatever_the_control(cc: str) -> None:
    transfer = Transfer(path_mtu=1500, a={"cc": cc})
    transfer.find(1500)
    before = transfer.counters()
    rate = transfer.run(20) * 8 / 20
    assert rate >= 0.8 * 20_000_000 * 1446 / 1512
    assert transfer.counters()["black_holes"] == before["black_holes"]
    transfer.end()


@pytest.mark.parametrize("path", [1500, 4000])
def test_a_probe_is_never_part_of_a_super_frame(path: int) -> None:
    """Cut into segments that arrive anyway, it would prove what is not true."""
    transfer = Transfer(path_mtu=path, segmentation_offload=True)
    transfer.find(path)
    beyond = transfer.pair.network.stats()["ab"]["beyond_mtu"]
    transfer.run(5)
    counted = transfer.counters()
    assert transfer.pair.network.stats()["ab"]["beyond_mtu"] - beyond <= counted["mtu_probes_lost"]
    assert counted["retransmit_timeouts"] == 4
    transfer.end()


@pytest.mark.parametrize("path", [1500, 1280])
def test_without_waiting_for_a_black_hole_nothing_stands_still(path: int) -> None:
    transfer = Transfer(path_mtu=path, a={"mtu_probing": 2})
    assert transfer.run(1) > 100_000
    transfer.find(path)
    assert transfer.counters()["black_holes"] == 0
    assert transfer.counters()["retransmit_timeouts"] == 0
    transfer.end()


def test_without_a_search_nothing_ever_arrives() -> None:
    """What the default is for."""
    transfer = Transfer(path_mtu=1500, a={"mtu_probing": 0})
    assert transfer.run(60) == 0
    transfer.end()


@pytest.mark.parametrize("seed", range(4))
def test_losses_beside_it_do_not_mislead_the_search_for_long(seed: int) -> None:
    """One packet of a hundred is lost both ways. The size never exceeds the path, and most of it is found."""
    transfer = Transfer(path_mtu=1500, loss=0.01, seed=seed, a={"mtu_probing": 2})
    transfer.run(120)
    assert 1280 <= transfer.info()["path_mtu"] <= 1500
    counted = transfer.counters()
    assert counted["mtu_probes"] <= 60
    transfer.end()


def test_a_path_that_becomes_narrower_and_wide_again() -> None:
    """In mid connection: a black hole for 1280 bytes; ten minutes after the search the full size, with one probe."""
    transfer = Transfer(mtu=1500, path_mtu=0)
    transfer.run(5)
    assert transfer.info()["path_mtu"] == 1500
    transfer.pair.network.impair(path_mtu=1280)
    transfer.find(1280)
    assert transfer.counters()["black_holes"] == 1
    transfer.pair.network.impair(path_mtu=0)
    probes = transfer.counters()["mtu_probes"]
    transfer.pair.advance(590 * SECOND)
    transfer.run(2)
    assert transfer.counters()["mtu_probes"] - probes in (0, 1)  # the search may have had one probe left
    transfer.pair.advance(20 * SECOND)
    transfer.run(5)
    assert transfer.info()["path_mtu"] == 1500
    assert transfer.counters()["mtu_probes"] - probes <= 2
    transfer.end()


def test_an_outage_is_over_with_the_first_probe_that_is_answered() -> None:
    """Others may be lost in the queue, beside other frames: they say nothing, three times at most."""
    transfer = Transfer()
    transfer.run(5)
    transfer.pair.network.impair(loss=1.0)
    transfer.run(60)
    assert transfer.info()["path_mtu"] < 9000
    transfer.pair.network.impair(loss=0.0)
    probes = transfer.counters()["mtu_probes"]
    transfer.run(90)
    assert transfer.info()["path_mtu"] == 9000
    assert 1 <= transfer.counters()["mtu_probes"] - probes <= 3
    transfer.end()

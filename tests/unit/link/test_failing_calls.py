# SPDX-License-Identifier: MIT
"""System calls that fail under a link: while it is opened, each in turn, and while it is used."""

import errno
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ustack.lab import namespace
from ustack.link.device import Link
from ustack.link.packet_mmap import PacketMmapLink
from ustack.link.tap import TapLink
from ustack.testing.parts.failing import Failing
from ustack.testing.parts.link_driver import LinkDriver

pytestmark = pytest.mark.root

Wire = Any  # the class is in conftest
SO_SNDBUFFORCE = 32
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + bytes(50)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def may_force_buffers() -> bool:
    """Root of a user namespace may not go beyond the machine's limits."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 65536)
        except PermissionError:
            return False
    return True


def fail_each(module: str, function: str, error: int, make: Callable[[], Link]) -> tuple[int, int]:
    """Open the link with the first, the second, ... call failing, until none fails. (places, refusals)"""
    refused = 0
    said: int | None = error
    for place in itertools.count():
        before = open_files()
        with Failing(module, function, error, after=place, times=1) as calls:
            try:
                make().close()
            except MemoryError:
                refused += 1
            except OSError as raised:
                refused += 1
                said = raised.errno
        assert open_files() == before
        assert said == error
        if calls.failed == 0:
            return place, refused
    raise AssertionError


@pytest.mark.parametrize(
    ("module", "function", "error", "places", "survived"),
    [
        ("ustack.link.packet_ring", "socket", errno.EMFILE, 3, 0),
        ("ustack.link.packet_ring", "setsockopt", errno.ENOPROTOOPT, 24, 10),
        ("ustack.link.packet_ring", "setsockopt", errno.ENOMEM, 24, 10),
        ("ustack.link.packet_ring", "getsockopt", errno.ENOPROTOOPT, 1, 1),
        ("ustack.link.packet_ring", "mmap", errno.ENOMEM, 2, 0),
        ("ustack.link.packet_ring", "bind", errno.ENETDOWN, 3, 0),
        ("ustack.link.packet_ring", "calloc", errno.ENOMEM, 5, 0),
        ("ustack.link.interface", "socket", errno.EMFILE, 1, 0),
        ("ustack.link.interface", "ioctl", errno.EIO, 6, 4),
        ("ustack.link.interface", "send", errno.ENOBUFS, 1, 2),
        ("ustack.link.interface", "recv", errno.ENOBUFS, 1, 4),
    ],
)
def test_a_packet_ring_is_opened_whole_or_not_at_all(
    veth: Wire, module: str, function: str, error: int, places: int, survived: int
) -> None:
    """survived: what is asked for speed alone (a larger send buffer, past the queueing discipline, segmentation, one
    look at each frame for both rings)."""

    def make() -> Link:
        with namespace.inside(veth.ours_ns):
            return PacketMmapLink("ours", rx_slots=16, tx_slots=16, rx_small_slots=16)

    found, refused = fail_each(module, function, error, make)
    assert found >= places
    if function == "setsockopt" and not may_force_buffers():
        survived += 3  # of each of three sockets: a buffer beyond the machine's limit, then one within it
    assert found - refused <= survived
    make().close()


@pytest.mark.parametrize(
    ("module", "function", "error", "places"),
    [
        ("ustack.link.tap", "socket", errno.EMFILE, 1),
        ("ustack.link.tap", "open", errno.ENOENT, 1),
        ("ustack.link.tap", "open", errno.EMFILE, 1),
        ("ustack.link.tap", "ioctl", errno.EMFILE, 3),
        ("ustack.link.tap", "malloc", errno.ENOMEM, 1),
        ("ustack.link.tap", "calloc", errno.ENOMEM, 1),
        ("ustack.link.interface", "ioctl", errno.EIO, 9),
    ],
)
def test_a_tap_device_is_opened_whole_or_not_at_all(
    tap: Wire, module: str, function: str, error: int, places: int
) -> None:
    def make() -> Link:
        with namespace.inside(tap.ours_ns):
            return TapLink("ours")

    found, refused = fail_each(module, function, error, make)
    assert (found >= places, found - refused) == (True, 0)
    make().close()


# ---------------------------------------------------------------- reading and writing a TAP device


def test_a_read_that_a_signal_interrupts_is_done_again(tap: Wire) -> None:
    driver = tap.open()
    with Failing("ustack.link.tap", "read", errno.EINTR, times=3) as calls:
        driver.take()
    assert calls.failed == 3
    assert driver.wait(0) == 0


@pytest.mark.parametrize(("error", "gone"), [(errno.EIO, False), (errno.EBADFD, True)])
def test_a_device_that_cannot_be_read_is_gone_only_if_it_says_so(tap: Wire, error: int, gone: bool) -> None:
    driver = tap.open()
    with Failing("ustack.link.tap", "read", error) as calls:
        assert driver.take() == []
    assert calls.failed == 1
    assert driver.wait(0) == (-errno.ENXIO if gone else 0)


def test_a_frame_shorter_than_its_header_is_dropped_and_counted(tap: Wire) -> None:
    driver = tap.open()
    before = driver.link.counters()["rx_dropped"]
    with Failing("ustack.link.tap", "read", 0, times=2, result=5) as calls:
        driver.take()
    assert calls.failed == 2
    assert driver.link.counters()["rx_dropped"] == before + 2


def test_a_frame_that_fills_the_buffer_was_cut_and_is_counted(tap: Wire) -> None:
    """read() does not say that there was more of it."""
    driver = tap.open()
    driver.take()
    buffer_bytes = 66576 - 8
    for length, beyond in ((buffer_bytes - 1, 0), (buffer_bytes, 1)):
        with Failing("ustack.link.tap", "read", 0, times=1, result=length):
            [frame] = driver.take(1)
        assert frame.wire_length == len(frame.data) + beyond
    assert driver.link.counters()["rx_truncated"] == 1


@pytest.mark.parametrize(
    ("error", "status", "gone"),
    [(errno.EIO, -errno.ENETDOWN, 0), (errno.EBADFD, -errno.ENXIO, 1), (errno.EINVAL, 0, 0)],
)
def test_a_write_that_fails_loses_a_frame_and_says_why_if_it_is_the_device(
    tap: Wire, error: int, status: int, gone: int
) -> None:
    driver = tap.open()
    with Failing("ustack.link.tap", "write", error):
        assert driver.send(FRAME)
        assert driver.submit() == status
    assert driver.submit() == 0
    assert driver.link.counters()["tx_dropped"] == 1
    assert (driver.wait(0) == -errno.ENXIO) == bool(gone)


# ---------------------------------------------------------------- waiting


@pytest.mark.parametrize("kind", ["veth", "tap"])
@pytest.mark.parametrize("spin_ns", [0, 1_000_000])
def test_a_wait_that_the_kernel_refuses_is_reported(make_wire: Callable[[str], Wire], kind: str, spin_ns: int) -> None:
    driver: LinkDriver = make_wire(kind).open()
    driver.take()
    driver.spin_ns = spin_ns
    with Failing("ustack.link.interface", "ppoll", errno.ENOMEM) as calls:
        assert driver.wait(10_000_000) == -errno.ENOMEM
    assert calls.failed == 1
    assert driver.wait(0) == 0


# ---------------------------------------------------------------- what a face says


def test_closed_links_have_no_descriptor_and_keep_their_counts(veth: Wire) -> None:
    with namespace.inside(veth.ours_ns):
        one, two = (PacketMmapLink("ours", rx_small_slots=slots) for slots in (0, 16))
    assert {os.readlink(f"/proc/self/fd/{link.fileno()}").partition(":")[0] for link in (one, two)} == {
        "socket",
        "anon_inode",
    }
    for link in (one, two):
        assert min(link.ring_slots) > 0
        link.close()
        assert link.ring_slots == link.ring_drops == (0, 0)
        with pytest.raises(OSError, match="closed"):
            link.fileno()


@pytest.mark.parametrize("kind", [PacketMmapLink, TapLink])
def test_an_interface_name_is_a_string(kind: Callable[..., Link]) -> None:
    with pytest.raises(TypeError, match="expected str"):
        kind(b"ours")

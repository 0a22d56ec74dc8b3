# SPDX-License-Identifier: MIT
"""What the links to an interface of the kernel's share beyond the contract: packet rings on veth, and a TAP device."""

import errno
import mmap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ustack.link.interface_link import InterfaceLink
from ustack.testing.parts.failing import Failing
from ustack.testing.parts.link_driver import LinkDriver

pytestmark = pytest.mark.root

Wire = Any  # the class is in conftest


@pytest.fixture(params=["veth", "tap"])
def wire(request: pytest.FixtureRequest, make_wire: Callable[[str], Wire]) -> Wire:
    return make_wire(request.param)


def numbered(count: int, length: int = 100) -> list[bytes]:
    return [number.to_bytes(4, "big") * (length // 4) for number in range(count)]


def udp(wire: Wire, driver: LinkDriver, payload: bytes) -> bytes:
    headers: Any = IP(src="198.18.0.2", dst="198.18.0.1", id=0)
    headers /= UDP(sport=4000, dport=9)
    return bytes(Ether(src=driver.link.mac, dst=wire.peer_mac) / headers / payload)


# ---------------------------------------------------------------- opening
def test_the_station_address_can_be_given(wire: Wire) -> None:
    assert wire.open(mac="02:00:00:00:00:77").link.mac == "02:00:00:00:00:77"


def test_it_is_opened_once(wire: Wire) -> None:
    link: Any = wire.open().link
    assert isinstance(link, InterfaceLink)
    assert link.ifname == "ours"
    with pytest.raises(ValueError, match="once"):
        link.__init__("ours")  # type: ignore[misc]
    link.close()
    with pytest.raises(ValueError, match="once"):
        link.__init__("ours")  # type: ignore[misc]


# ---------------------------------------------------------------- frames
def test_frames_come_in_order_with_what_the_kernel_left_open(wire: Wire) -> None:
    driver = wire.open()
    sender = wire.socket()
    for payload in numbered(100):
        sender.sendto(payload, ("198.18.0.2", 9))
    frames = wire.take_udp(driver, 100)
    assert [frame.data[42:] for frame in frames] == numbered(100)
    assert {(frame.gso_size, frame.checksum, len(frame.data)) for frame in frames} == {(0, "partial", 142)}
    assert driver.link.counters()["rx_dropped"] == 0


def test_the_kernel_fills_in_a_checksum(wire: Wire) -> None:
    driver = wire.open()
    receiver = wire.socket(port=9)
    frame = bytearray(udp(wire, driver, b"unfilled"))
    pseudo = frame[26:34] + bytes([0, 17]) + frame[38:40]
    total = sum(int.from_bytes(pseudo[i : i + 2], "big") for i in range(0, 12, 2))
    frame[40:42] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
    driver.send(bytes(frame), csum_start=34, csum_offset=6)
    driver.submit()
    assert receiver.recv(100) == b"unfilled"


def test_a_removed_interface_is_reported_for_good(wire: Wire) -> None:
    driver = wire.open()
    wire.run(f"ip -n {wire.ours_ns} link delete ours")
    assert driver.wait(10**10) == -errno.ENXIO
    assert driver.wait(10**10) == -errno.ENXIO
    assert driver.send(bytes(60))
    assert driver.submit() == -errno.ENXIO
    assert driver.burst() == []


# ---------------------------------------------------------------- waiting
@pytest.mark.parametrize("busy_poll", ["auto", "always", "never"])
def test_a_frame_ends_the_wait(wire: Wire, busy_poll: str) -> None:
    driver = wire.open(busy_poll=busy_poll)
    sender = wire.socket()
    late = threading.Timer(0.01, sender.sendto, (b"late", ("198.18.0.2", 9)))
    late.start()
    try:
        assert len(wire.take_udp(driver, 1)) == 1
    finally:
        late.join()


@pytest.mark.parametrize(("busy_poll", "waits"), [("auto", 1), ("always", 0), ("never", 1)])
def test_the_deadline_ends_the_wait(wire: Wire, busy_poll: str, waits: int) -> None:
    driver = wire.open(busy_poll=busy_poll)
    driver.take()
    start_ns = time.monotonic_ns()
    assert driver.wait(5_000_000) == 0
    assert time.monotonic_ns() - start_ns >= 5_000_000
    assert driver.link.counters()["waits"] == waits


# ---------------------------------------------------------------- frames in pieces
def test_a_frame_in_pieces_goes_out_behind_those_that_were_committed(wire: Wire) -> None:
    driver = wire.open()
    receiver = wire.socket(port=9)
    payloads = numbered(20, 1200)
    for number, payload in enumerate(payloads):
        frame = udp(wire, driver, payload)
        assert driver.reserve(len(frame))
        if number % 3:
            driver.commit(frame)
        else:
            assert driver.gather(frame[:42], *(frame[at : at + 100] for at in range(42, len(frame), 100))) == 0
    assert driver.submit() == 0
    assert [receiver.recv(2000) for _ in payloads] == payloads
    assert driver.link.counters()["tx_frames"] >= len(payloads)
    assert driver.link.counters()["tx_dropped"] == 0


def test_pieces_of_a_file_that_was_cut_are_refused_and_the_reservation_stands(wire: Wire, tmp_path: Path) -> None:
    driver = wire.open()
    receiver = wire.socket(port=9)
    frame = udp(wire, driver, bytes(1000))
    (tmp_path / "file").write_bytes(bytes(8192))
    before = driver.link.counters()
    with (tmp_path / "file").open("r+b") as file, mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_READ) as mapped:
        file.truncate(0)
        assert driver.reserve(len(frame))
        with memoryview(mapped) as view, view[4096 : 4096 + len(frame) - 42] as lost:
            assert driver.gather(frame[:42], lost) == -errno.EFAULT
    after = driver.link.counters()
    assert (after["tx_frames"], after["tx_dropped"]) == (before["tx_frames"], before["tx_dropped"])
    driver.commit(frame)
    assert driver.submit() == 0
    assert receiver.recv(2000) == bytes(1000)


def test_a_packet_ring_sends_what_its_other_socket_refuses(veth: Wire) -> None:
    """No memory for a frame in one piece, or a device that wants none: it goes through the ring, which knows."""
    driver = veth.open()
    frame = udp(veth, driver, bytes(1000))
    assert driver.reserve(len(frame))
    with Failing("ustack.link.packet_transmit", "sendmsg", errno.ENOBUFS) as calls:
        assert driver.gather(frame[:42], frame[42:]) == -errno.ENOBUFS
        assert driver.gather(frame[:42], frame[42:]) == -errno.EAGAIN  # not asked again at once
    assert calls.failed == 1
    driver.commit(frame)
    assert driver.submit() == 0
    assert driver.link.counters()["tx_frames"] == 1
    driver.now_ns = 10**9
    assert driver.reserve(len(frame))
    assert driver.gather(frame[:42], frame[42:]) == 0

# SPDX-License-Identifier: MIT
"""The TAP link, against the kernel behind it."""

import errno
import io
import os
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ustack.lab import links, namespace, privilege
from ustack.link.tap import TapLink
from ustack.link.tee import TeeLink
from ustack.testing.parts.link_driver import LinkDriver

pytestmark = [pytest.mark.root, pytest.mark.tap]

Wire = Any  # the class is in conftest


def udp(wire: Wire, driver: LinkDriver, payload: bytes) -> bytes:
    headers: Any = IP(src="198.18.0.2", dst="198.18.0.1", id=0)
    headers /= UDP(sport=4000, dport=9)
    return bytes(Ether(src=driver.link.mac, dst=wire.peer_mac) / headers / payload)


def numbered(count: int, length: int = 100) -> list[bytes]:
    return [number.to_bytes(4, "big") * (length // 4) for number in range(count)]


# ---------------------------------------------------------------- opening
def test_it_describes_the_device_and_has_an_address_of_its_own(tap: Wire) -> None:
    tap.run(f"ip -n {tap.ours_ns} link set ours mtu 4000 address 10:00:00:00:00:40")
    link = tap.open().link
    assert link.mac == "12:00:00:00:00:41"
    assert link.caps == {
        "mtu": 4000, "max_frame": 65549, "tx_checksum": True, "tx_segmentation": True, "rx_checksum": True
    }  # fmt: skip


def test_a_device_that_it_makes_is_up_and_goes_away_with_it(make_namespace: Callable[[], str]) -> None:
    name = make_namespace()
    with namespace.inside(name):
        link = TapLink("made")
    found = links.find(links.End(name, "made"))
    assert found is not None
    assert found["up"]
    link.close()
    link.close()
    assert links.find(links.End(name, "made")) is None


def test_its_descriptor_is_also_that_of_a_link_around_it(make_namespace: Callable[[], str]) -> None:
    with namespace.inside(make_namespace()):
        link = TapLink("made")
    with TeeLink(link, io.BytesIO(), epoch_ns=0) as tee:
        assert tee.fileno() == link.fileno()
        assert os.readlink(f"/proc/self/fd/{link.fileno()}") == "/dev/net/tun"


def test_it_makes_none_when_it_is_told_so(make_namespace: Callable[[], str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with namespace.inside(make_namespace()), pytest.raises(OSError, match="no interface made") as raised:
        TapLink("made", create=False)
    assert raised.value.errno == errno.ENODEV
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_device_in_use_and_one_that_is_no_tap_are_refused(tap: Wire) -> None:
    tap.open()
    before = len(os.listdir("/proc/self/fd"))
    with namespace.inside(tap.ours_ns):
        with pytest.raises(OSError, match="in use"):
            TapLink("ours")
        with pytest.raises(OSError, match="not a TAP"):
            TapLink("lo")
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_cap_net_admin_it_says_so(tap: Wire) -> None:
    def unprivileged() -> None:
        namespace.enter(tap.ours_ns)
        privilege.drop()
        with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
            TapLink("made")

    namespace.in_thread(unprivileged)


@pytest.mark.parametrize(
    ("ifname", "arguments", "what"),
    [("", {}, "interface name"), ("x" * 16, {}, "name"), ("t", {"busy_poll": "-"}, "busy"), ("t", {"mac": ""}, "MAC")],
)
def test_a_bad_argument_is_named(ifname: str, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        TapLink(ifname, **arguments)


# ---------------------------------------------------------------- frames
def test_lent_frames_are_not_overwritten(tap: Wire) -> None:
    driver = tap.open()
    sender = tap.socket()
    for payload in numbered(100):
        sender.sendto(payload, ("198.18.0.2", 9))
    first = driver.burst(10)
    assert len(first) == 10
    assert len(driver.burst(1000)) == 54
    assert driver.burst() == []
    assert driver.lent()[:10] == first
    driver.release(20)
    assert len(driver.burst(1000)) == 20
    driver.release()
    assert len(tap.take_udp(driver, 16)) >= 16


def test_the_kernel_takes_frames_in_order(tap: Wire) -> None:
    driver = tap.open()
    receiver = tap.socket(port=9)
    for payload in numbered(100):
        assert driver.send(udp(tap, driver, payload))
    assert driver.submit() == 0
    assert [receiver.recv(2000) for _ in range(100)] == numbered(100)
    assert driver.link.counters()["tx_frames"] == 100


def test_the_kernel_takes_a_checksum_that_is_not_filled_in(tap: Wire) -> None:
    driver = tap.open()
    receiver = tap.socket(port=9)
    frame = bytearray(udp(tap, driver, b"unfilled"))
    frame[40:42] = b"\x12\x34"
    driver.send(bytes(frame), csum_start=34, csum_offset=6)
    driver.submit()
    assert receiver.recv(100) == b"unfilled"


def test_a_frame_with_an_impossible_offload_is_lost_and_counted(tap: Wire) -> None:
    driver = tap.open()
    receiver = tap.socket(port=9)
    driver.send(udp(tap, driver, b"bad"), csum_start=5000, csum_offset=6)
    driver.send(udp(tap, driver, b"good"))
    assert driver.submit() == 0
    assert receiver.recv(100) == b"good"
    assert driver.link.counters()["tx_dropped"] == 1


# ---------------------------------------------------------------- a link that comes and goes
def test_an_interface_that_goes_down_and_up_works_again(tap: Wire) -> None:
    driver = tap.open()
    tap.run(f"ip -n {tap.ours_ns} link set ours down")
    driver.send(udp(tap, driver, b"lost"))
    assert driver.submit() == -errno.ENETDOWN
    assert driver.submit() == 0
    assert driver.link.counters()["tx_dropped"] == 1
    tap.run(f"ip -n {tap.ours_ns} link set ours up")
    tap.await_queues()
    tap.introduce(driver.link)
    receiver = tap.socket(port=9)
    driver.send(udp(tap, driver, b"back"))
    assert driver.submit() == 0
    assert receiver.recv(100) == b"back"
    receiver.sendto(b"hello", ("198.18.0.2", 9))
    assert tap.take_udp(driver, 1)[0].data[42:47] == b"hello"

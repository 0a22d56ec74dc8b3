# SPDX-License-Identifier: MIT
"""The AF_PACKET link on a veth pair, against the kernel at its other end."""

import contextlib
import errno
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from ustack import OwnershipError, Stack
from ustack.lab import namespace, privilege
from ustack.link.interface import spin_windows
from ustack.link.packet_mmap import PacketMmapLink
from ustack.testing.parts.link_driver import LinkDriver

pytestmark = pytest.mark.root

Wire = Any  # the class is in conftest


def udp(wire: Wire, driver: LinkDriver, payload: bytes, port: int = 9) -> bytes:
    """A complete frame from us to the peer."""
    headers: Any = IP(src="198.18.0.2", dst="198.18.0.1", id=0)
    headers /= UDP(sport=4000, dport=port)
    return bytes(Ether(src=driver.link.mac, dst=wire.peer_mac) / headers / payload)


def numbered(count: int, length: int = 100) -> list[bytes]:
    return [number.to_bytes(4, "big") * (length // 4) for number in range(count)]


def open_things() -> tuple[int, int]:
    """Descriptors and ring mappings of this process."""
    return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("socket:")


# ---------------------------------------------------------------- opening
def test_it_describes_the_interface(veth: Wire) -> None:
    veth.run(f"ip -n {veth.ours_ns} link set ours mtu 9000 address 02:00:00:00:00:55")
    link = veth.open().link
    assert link.mac == "02:00:00:00:00:55"
    assert link.caps == {
        "mtu": 9000, "max_frame": 65535, "tx_checksum": True, "tx_segmentation": True, "rx_checksum": True
    }  # fmt: skip
    assert link.fileno() > 2


@pytest.mark.parametrize(
    ("ifname", "arguments", "what"),
    [
        ("", {}, "interface name"), ("a" * 16, {}, "interface name"), ("a/b", {}, "interface name"),
        ("a b", {}, "interface name"), ("ours", {"rx_slots": 0}, "rx_slots"), ("ours", {"tx_slots": -1}, "tx_slots"),
        ("ours", {"slot_bytes": 1000}, "slot_bytes"), ("ours", {"slot_bytes": 65536}, "super-frames"),
        ("ours", {"slot_bytes": 2048, "peer_frame_bytes": 2000}, "super-frames"),
        ("ours", {"rx_small_slots": -1}, "rx_small_slots"), ("ours", {"rx_small_slots": 65537}, "rx_small_slots"),
        ("ours", {"rx_slots": 65536}, "together"), ("ours", {"slot_bytes": 16}, "slot_bytes"),
        ("ours", {"busy_poll": "yes"}, "busy_poll"), ("ours", {"mac": "1:2:3"}, "MAC"),
        ("ours", {"mac": "01:00:5e:00:00:01"}, "unicast"), ("ours", {"mac": "02:00:00:00:00:0g"}, "MAC"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named(ifname: Any, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PacketMmapLink(ifname, **arguments)


def test_an_interface_that_does_not_exist_leaves_nothing_open() -> None:
    before = open_things()
    with pytest.raises(OSError, match="no interface nosuch0") as raised:
        PacketMmapLink("nosuch0")
    assert raised.value.errno == errno.ENODEV
    assert open_things() == before


def test_an_interface_that_is_not_ethernet_is_refused() -> None:
    before = open_things()
    with pytest.raises(OSError, match="not Ethernet"):
        PacketMmapLink("lo")
    assert open_things() == before


def test_without_cap_net_raw_it_says_so(veth: Wire) -> None:
    def unprivileged() -> None:
        namespace.enter(veth.ours_ns)
        privilege.drop(["CAP_NET_RAW"])
        with pytest.raises(PermissionError, match="CAP_NET_RAW"):
            PacketMmapLink("ours")

    namespace.in_thread(unprivileged)


def test_an_open_link_works_without_capabilities(veth: Wire) -> None:
    driver = veth.open()
    receiver = veth.socket(port=9)

    def unprivileged() -> None:
        privilege.drop()
        driver.send(udp(veth, driver, b"still here"))
        assert driver.submit() == 0

    namespace.in_thread(unprivileged)
    assert receiver.recv(100) == b"still here"


def test_closing_frees_the_rings_and_can_be_repeated(veth: Wire) -> None:
    before = open_things()
    with namespace.inside(veth.ours_ns):
        link = PacketMmapLink("ours")
    assert open_things() == (before[0] + 4, before[1] + 2)  # three packet sockets, and one to ask about the interface
    link.close()
    link.close()
    assert open_things() == before
    with pytest.raises(OSError, match="closed"):
        link.fileno()


def test_a_link_is_not_closed_while_another_thread_is_inside(veth: Wire) -> None:
    """Closing what watches the rings lets other threads run: none of them may come in then."""
    for _ in range(5):
        link = veth.open(rx_slots=4, tx_slots=4).link
        link.fileno()
        stack = Stack(link, "198.18.0.2/24")

        def poll(stack: Stack = stack) -> None:
            for _ in range(500):
                with contextlib.suppress(OwnershipError):
                    stack.poll()

        thread = threading.Thread(target=poll)
        thread.start()
        while True:
            try:
                link.close()
                break
            except OwnershipError:
                continue
        thread.join()
        stack.close(linger=0)


def test_small_rings_are_one_small_block(veth: Wire) -> None:
    link = veth.open(rx_slots=3, tx_slots=2).link
    assert isinstance(link, PacketMmapLink)
    assert link.ring_slots == (3, 2)


# ---------------------------------------------------------------- receive
def test_the_ring_goes_round_over_several_blocks(veth: Wire) -> None:
    driver = veth.open(rx_slots=126, rx_small_slots=0)
    sender = veth.socket()
    for _ in range(4):
        for payload in numbered(120):
            sender.sendto(payload, ("198.18.0.2", 9))
        assert [frame.data[42:] for frame in veth.take_udp(driver, 120)] == numbered(120)


def test_a_frame_that_does_not_fit_is_cut_and_says_so(veth: Wire) -> None:
    driver = veth.open(slot_bytes=512, peer_frame_bytes=400, rx_small_slots=0)
    sender = veth.socket()
    sender.sendto(bytes(1000), ("198.18.0.2", 9))
    (frame,) = veth.take_udp(driver, 1)
    assert frame.wire_length == 1042
    assert 300 < len(frame.data) < 512
    assert driver.link.counters()["rx_truncated"] == 1
    assert driver.link.caps["max_frame"] < 512


def peer_sends(wire: Wire, frames: list[bytes]) -> None:
    """Frames out of the peer's interface as they are, past its stack."""
    with namespace.inside(wire.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((wire.peer, 0))
        for frame in frames:
            raw.send(frame)


def tagged(vlan: int, payload: bytes) -> bytes:
    header: Any = Ether(dst="ff:ff:ff:ff:ff:ff")
    return bytes(header / Dot1Q(vlan=vlan, type=0x88B5) / payload)


def plain(payload: bytes) -> bytes:
    return bytes(Ether(dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / payload)


def test_frames_of_a_vlan_are_marked(veth: Wire) -> None:
    """The kernel takes the tag out of the frame: without the mark they would look like ours."""
    driver = veth.open(rx_slots=8)
    driver.take()
    for number in range(20):
        payload = b"%050d" % number
        peer_sends(veth, [tagged(7, payload), plain(payload), tagged(0xFFF, payload)])
        assert [frame.data[14:] for frame in driver.burst()] == [payload] * 3
        assert driver.vlan_ids() == [7, 0, 0xFFF]
        driver.release()


def test_a_priority_tag_does_not_make_a_vlan(veth: Wire) -> None:
    driver = veth.open()
    driver.take()
    peer_sends(veth, [tagged(0, bytes(50))])
    assert [frame.data[12:] for frame in driver.burst()] == [b"\x88\xb5" + bytes(50)]
    assert driver.vlan_ids() == [0]


def test_our_own_frames_do_not_come_back(veth: Wire) -> None:
    driver = veth.open()
    receiver = veth.socket(port=9)
    driver.send(udp(veth, driver, b"out"))
    driver.submit()
    assert receiver.recv(100) == b"out"
    assert driver.burst() == []


# ---------------------------------------------------------------- transmit
def test_a_burst_goes_out_in_order_with_one_call(veth: Wire) -> None:
    driver = veth.open()
    receiver = veth.socket(port=9)
    for payload in numbered(50):
        assert driver.send(udp(veth, driver, payload))
    assert driver.submit() == 0
    assert [receiver.recv(2000) for _ in range(50)] == numbered(50)
    assert driver.link.counters()["tx_submits"] == 1
    assert driver.link.counters()["tx_frames"] == 50


# ---------------------------------------------------------------- a link that comes and goes
def test_an_interface_that_goes_down_and_up_works_again(veth: Wire) -> None:
    driver = veth.open()
    receiver = veth.socket(port=9)
    veth.run(f"ip -n {veth.ours_ns} link set ours down")
    assert driver.wait(10**10) == -errno.ENETDOWN
    driver.send(udp(veth, driver, b"lost"))
    assert driver.submit() == -errno.ENETDOWN
    assert driver.link.counters()["tx_dropped"] == 1
    veth.run(f"ip -n {veth.ours_ns} link set ours up")
    veth.await_queues()
    driver.send(udp(veth, driver, b"back"))
    assert driver.submit() == 0
    assert receiver.recv(100) == b"back"
    veth.socket().sendto(b"hello", ("198.18.0.2", 9))
    assert veth.take_udp(driver, 1)[0].data[42:47] == b"hello"


def test_a_lost_carrier_drops_what_waits_for_too_long(veth: Wire) -> None:
    driver = veth.open(tx_slots=4)
    receiver = veth.socket(port=9)
    veth.run(f"ip -n {veth.peer_ns} link set peer down")
    for _ in range(4):
        assert driver.send(udp(veth, driver, b"lost"))
    assert not driver.send(udp(veth, driver, b"lost"))
    for _ in range(1000):
        assert driver.submit() == 0
        if driver.link.counters()["tx_dropped"]:
            break
        driver.wait(10**9)  # comes back within a millisecond while frames wait
    assert driver.link.counters()["tx_dropped"] == 4
    veth.run(f"ip -n {veth.peer_ns} link set peer up")
    veth.await_queues()
    for payload in numbered(4):
        assert driver.send(udp(veth, driver, payload))
    assert driver.submit() == 0
    assert [receiver.recv(2000) for _ in range(4)] == numbered(4)


# ---------------------------------------------------------------- waiting
@pytest.mark.parametrize("busy_poll", ["auto", "always"])
def test_a_signal_ends_the_wait(veth: Wire, busy_poll: str) -> None:
    driver = veth.open(busy_poll=busy_poll)
    caught: list[int] = []
    done = threading.Event()
    main = threading.get_ident()

    def interrupt() -> None:
        while not done.wait(0.005):
            signal.pthread_kill(main, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
    thread = threading.Thread(target=interrupt)
    start_ns = time.monotonic_ns()
    thread.start()
    try:
        while not caught:  # "always" comes back now and then by itself
            assert driver.wait(60 * 10**9) == 0
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, previous)
    assert time.monotonic_ns() - start_ns < 30 * 10**9


def test_a_wait_for_nothing_is_a_sleep(veth: Wire) -> None:
    """One for each call, in which the processor is given up."""
    driver = veth.open()
    driver.take()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(20):
        assert driver.wait(10_000_000) == 0
    assert driver.link.counters()["waits"] == 20
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before >= 20


def test_spinning_follows_the_traffic() -> None:
    assert spin_windows(50_000, [(20_000, True)] * 5) == [10_000, 20_000, 40_000, 50_000, 50_000]
    assert spin_windows(50_000, [(20_000, True)] * 3 + [(60_000, True)] * 3)[2:] == [40_000, 20_000, 10_000, 0]
    assert spin_windows(50_000, [(10**9, False), (20_000, False)]) == [0, 0]


def test_two_links_on_two_ends_reach_each_other(make_wire: Callable[[str], Wire]) -> None:
    wire = make_wire("veth")
    ours = wire.open()
    with namespace.inside(wire.peer_ns):
        other_link = PacketMmapLink("peer", rx_slots=16, tx_slots=16)
    with other_link:
        other = LinkDriver(other_link)
        frame = bytes(Ether(src=ours.link.mac, dst=other_link.mac, type=0x88B5) / bytes(range(50)))
        ours.send(frame)
        ours.submit()
        got = [f for f in other.wait_frames(1) if f.data[12:14] == b"\x88\xb5"]
        assert [f.data for f in got] == [frame]
        assert got[0].checksum == "unknown"

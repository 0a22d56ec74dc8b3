# SPDX-License-Identifier: MIT
"""The ingress drop: the kernel behind it hears nothing, a packet socket in front of it hears everything."""

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from ustack.lab import ingress, links
from ustack.lab.links import End
from ustack.lab.namespace import LabError, inside

pytestmark = pytest.mark.root

METHODS = [ingress.CLSACT, ingress.NFTABLES]
OURS, PEER = "198.18.5.2", "198.18.5.1"
ETH_P_ALL = 3


@pytest.fixture
def ends(make_namespace: Callable[[], str]) -> tuple[End, End]:
    """A veth pair that is up. The kernel has OURS at our end, which the stack's own address would not be."""
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="m")
    links.configure(ours, address=f"{OURS}/24", ipv6=False)
    links.configure(peer, address=f"{PEER}/24", ipv6=False)
    return ours, peer


@contextmanager
def udp(end: End, address: str) -> Iterator[socket.socket]:
    with inside(end.namespace):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with one:
        one.bind((address, 9999))
        yield one


@contextmanager
def packet(end: End) -> Iterator[socket.socket]:
    with inside(end.namespace):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with one:
        one.bind((end.ifname, ETH_P_ALL))
        one.settimeout(5)
        yield one


def neighbour_mac(end: End) -> bytes:
    found = links.find(end)
    assert found is not None
    return bytes.fromhex(found["mac"].replace(":", ""))


def send(peer: End, ours: End, frame: bytes) -> None:
    """Send a frame from peer to ours; return when ours has dealt with it: a second frame behind it has been heard."""
    fence = neighbour_mac(ours) + neighbour_mac(peer) + b"\x88\xb5" + b"fence".ljust(46)
    with packet(peer) as wire, packet(ours) as ring:
        wire.send(frame)
        wire.send(fence)
        while ring.recv(2000) != fence:
            pass


def udp_frame(peer: End, ours: End, destination: str) -> bytes:
    """One UDP datagram to port 9999, to be put straight onto the wire: no ARP is needed."""
    payload = b"hello"
    udp_header = struct.pack("!HHHH", 9998, 9999, 8 + len(payload), 0)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, socket.inet_aton(PEER), socket.inet_aton(destination)),
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return neighbour_mac(ours) + neighbour_mac(peer) + b"\x08\x00" + header + udp_header + payload


def hears_udp(kernel: socket.socket, peer: End, ours: End, destination: str) -> bool:
    """Whether the kernel at our end takes a datagram."""
    send(peer, ours, udp_frame(peer, ours, destination))
    kernel.setblocking(False)
    try:
        return kernel.recv(100) == b"hello"
    except BlockingIOError:
        return False


def answers_arp(peer: End, ours: End, target: str) -> bool:
    """Whether the kernel at our end answers a request for `target`."""
    mac = neighbour_mac(peer)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    body += mac + socket.inet_aton(PEER) + b"\0" * 6 + socket.inet_aton(target)
    with packet(peer) as wire:
        send(peer, ours, b"\xff" * 6 + mac + b"\x08\x06" + body)
        wire.setblocking(False)
        frames = []
        with suppress(BlockingIOError):
            while True:
                frames.append(wire.recv(2000))
    reply = b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    return any(frame[12:22] == reply for frame in frames)


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_dropped_but_the_tap_hears_it(ends: tuple[End, End], method: str) -> None:
    ours, peer = ends
    with udp(ours, OURS) as kernel, packet(ours) as ring:
        assert hears_udp(kernel, peer, ours, OURS), "the frame is good: without the drop the kernel takes it"
        assert ingress.drop(ours, method=method) == method
        assert not hears_udp(kernel, peer, ours, OURS)
        heard = [ring.recv(2000) for _ in range(4)]
        assert heard.count(udp_frame(peer, ours, OURS)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_the_kernel_answers_no_arp_behind_it(ends: tuple[End, End], method: str) -> None:
    ours, peer = ends
    assert answers_arp(peer, ours, OURS)
    ingress.drop(ours, method=method)
    assert not answers_arp(peer, ours, OURS)


@pytest.mark.parametrize("method", METHODS)
def test_with_an_address_only_what_is_for_it_is_dropped(ends: tuple[End, End], method: str) -> None:
    ours, peer = ends
    stack_address = "198.18.5.3"
    # The kernel has the stack's address here, which it must not have in use: it would answer, if it heard.
    links.configure(ours, address=f"{stack_address}/24")
    ingress.drop(ours, address=stack_address, method=method)
    with udp(ours, "0.0.0.0") as kernel:
        assert hears_udp(kernel, peer, ours, OURS)
        assert not hears_udp(kernel, peer, ours, stack_address)
    assert answers_arp(peer, ours, OURS)
    assert not answers_arp(peer, ours, stack_address)


@pytest.mark.parametrize("method", METHODS)
def test_allow_undoes_it_and_may_be_repeated(ends: tuple[End, End], method: str) -> None:
    ours, peer = ends
    ingress.drop(ours, method=method)
    ingress.allow(ours, method)
    ingress.allow(ours, method)
    with udp(ours, OURS) as kernel:
        assert hears_udp(kernel, peer, ours, OURS)
    assert not ingress.has_clsact(ours)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [0, 1])
def test_the_end_of_one_drop_leaves_the_others_alone(ends: tuple[End, End], method: str, first: int) -> None:
    ours, peer = ends
    addresses = ["198.18.5.3", "198.18.5.4"]
    for address in addresses:
        links.configure(ours, address=f"{address}/24")
        ingress.drop(ours, address=address, method=method)
    gone, stays = addresses[first], addresses[1 - first]
    ingress.allow(ours, method, address=gone)
    with udp(ours, "0.0.0.0") as kernel:
        assert hears_udp(kernel, peer, ours, gone)
        assert not hears_udp(kernel, peer, ours, stays)
        ingress.allow(ours, method, address=stays)
        assert hears_udp(kernel, peer, ours, stays)
    assert not ingress.has_clsact(ours)


@pytest.mark.bpf
def test_a_drop_that_a_crash_left_behind_is_taken_over(ends: tuple[End, End]) -> None:
    ours, _ = ends
    for _ in range(2):
        assert ingress.drop(ours, address="198.18.5.3", method=ingress.CLSACT) == ingress.CLSACT
    ingress.allow(ours, ingress.CLSACT, address="198.18.5.3")
    assert not ingress.has_clsact(ours)


@pytest.mark.bpf
def test_the_same_address_on_a_vlan_is_somebody_elses(ends: tuple[End, End]) -> None:
    """A bridge behind the drop hears the tagged frame and not the untagged one."""
    ours, peer = ends
    for command in ("link add br0 type bridge", f"link set {ours.ifname} master br0", "link set br0 up"):
        subprocess.run(["ip", "-n", str(ours.namespace), *command.split()], check=True)
    ingress.drop(ours, address="198.18.6.3", method=ingress.CLSACT)
    ethernet = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x99"
    packet_of = [bytes(16) + socket.inet_aton("198.18.6.3") + word for word in (b"untagged", b"tagged  ")]
    with packet(End(ours.namespace, "br0")) as behind, packet(peer) as wire:
        wire.send(ethernet + b"\x08\x00" + packet_of[0] + bytes(20))
        wire.send(ethernet + b"\x81\x00\x00\x05\x08\x00" + packet_of[1] + bytes(20))
        while b"tagged  " not in (frame := behind.recv(2000)):
            assert b"untagged" not in frame


@pytest.mark.bpf
def test_allow_keeps_a_qdisc_that_was_there(ends: tuple[End, End]) -> None:
    ours, _ = ends
    with links.netlink(ours.namespace) as ip:
        ip.tc("add", "clsact", ip.link_lookup(ifname=ours.ifname)[0])
    ingress.drop(ours, method=ingress.CLSACT)
    ingress.allow(ours, ingress.CLSACT, remove_qdisc=False)
    assert ingress.has_clsact(ours)


def test_without_either_way_it_says_what_failed(ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(ingress, "_drop_clsact", refuse)
    monkeypatch.setattr(ingress, "_drop_nftables", refuse)
    with pytest.raises(
        LabError, match=r"cannot keep the kernel off x0 .*clsact\+bpf: Operation not supported; nftables"
    ):
        ingress.drop(ends[0])


def test_clsact_missing_falls_back_to_nftables(ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(ingress, "_drop_clsact", refuse)
    assert ingress.drop(ends[0]) == ingress.NFTABLES

# SPDX-License-Identifier: MIT
"""Interfaces: veth pairs across two namespaces, persistent TAP devices, addresses, MTU, up, and who made them.

Every function names an interface by (namespace, name); namespace None is where the calling thread is. Interfaces are
marked with an alias, and are removed only by somebody who knows the mark.

An interface is made and marked in a namespace without a name, in a thread of its own, and then moved to its place: a
process that dies before that takes the interface with it. The devices' offloads stay on: the stack speaks
virtio-net headers and wants the peer's super-frames.

Read first: veth(4), rtnetlink(7). Above: lab. Below: namespace.
"""

import errno
import ipaddress
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ustack.lab import libc
from ustack.lab.namespace import OWN, InUseError, LabError, in_thread, inside

IFNAME_MAX = 15
ADDR_GEN_MODE_NONE = 1
ARPHRD_ETHER = 1
SUPER_FRAME_BYTES = 65536  # what every link of ours takes (link/packet_mmap.pyx), and the kernel's own default
IFLA_GSO_IPV4_MAX_SIZE = 63
RTM_NEWLINK = 16
NLM_F_REQUEST = 1
NLM_F_ACK = 4
ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
RTN_LOCAL = 2


class End(NamedTuple):
    """One interface: the namespace it lives in (None: the calling thread's) and its name there."""

    namespace: str | None
    ifname: str

    def __str__(self) -> str:
        return f"{self.ifname} in {self.namespace or 'this namespace'}"


@contextmanager
def netlink(namespace: str | None) -> Iterator[Any]:
    """A pyroute2 IPRoute that speaks for `namespace`; the thread is elsewhere again before the block runs."""
    from pyroute2 import IPRoute

    with inside(namespace):
        ip = IPRoute()
    with ip:
        yield ip


def find(end: End) -> dict[str, Any] | None:
    """index, mac, mtu, alias, up, kind and ethernet of an interface, or None if there is no such one."""
    from pyroute2.netlink.exceptions import NetlinkError

    with netlink(end.namespace) as ip:
        try:
            message = ip.link("get", ifname=end.ifname)[0]
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise
        info = message.get_attr("IFLA_LINKINFO")
        return {
            "index": message["index"],
            "mac": message.get_attr("IFLA_ADDRESS"),
            "mtu": message.get_attr("IFLA_MTU"),
            "alias": message.get_attr("IFLA_IFALIAS") or "",
            "up": bool(message["flags"] & 1),
            "ethernet": message["ifi_type"] == ARPHRD_ETHER,
            "kind": info.get_attr("IFLA_INFO_KIND") if info else "",
        }


def make_veth(ours: End, peer: End, *, mark: str, mtu: int = 1500) -> None:
    """Make a veth pair with one end at each place, both marked, both down.

    Raises InUseError if a name is taken; then nothing is left.
    """
    for end in (ours, peer):
        _check_free(end)
    spare = "ustack-peer"

    def make(ip: Any) -> list[str]:
        ip.link("add", kind="veth", ifname=ours.ifname, mtu=mtu, peer={"ifname": spare, "mtu": mtu})
        return [ours.ifname, spare]

    _make_and_move(make, [ours, peer], mark)


def make_tap(end: End, *, mark: str, mtu: int = 1500) -> None:
    """Make a persistent TAP device, marked, down. Whoever opens /dev/net/tun with its name becomes its other end."""
    _check_free(end)
    if not Path("/dev/net/tun").exists():
        raise LabError("no /dev/net/tun: this kernel or container has no TAP devices")

    def make(ip: Any) -> list[str]:
        ip.link("add", ifname=end.ifname, kind="tuntap", mode="tap")
        ip.link("set", index=ip.link_lookup(ifname=end.ifname)[0], mtu=mtu)
        return [end.ifname]

    _make_and_move(make, [end], mark)


def _make_and_move(make: Callable[[Any], list[str]], ends: list[End], mark: str) -> None:
    """Make interfaces in a namespace without a name, mark them, move them to `ends`. All or nothing."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    homes = [_namespace_descriptor(end.namespace) for end in ends]

    def body() -> None:
        libc.unshare_net()
        with IPRoute() as ip:
            indexes = [ip.link_lookup(ifname=name)[0] for name in make(ip)]
            try:
                for index in indexes:
                    ip.link("set", index=index, ifalias=mark)
                for index, end, home in zip(indexes, ends, homes, strict=True):
                    # Only now, when the ends before it have left, is the name surely free here.
                    ip.link("set", index=index, ifname=end.ifname)
                    ip.link("set", index=index, net_ns_fd=home)
            except NetlinkError:
                # Not left to the namespace's own end, which comes some time later.
                ip.link("del", index=indexes[-1])
                raise

    what = " and ".join(str(end) for end in ends)
    try:
        in_thread(body)
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise InUseError(f"interface {what}: the name is taken") from None
        raise LabError(f"cannot make {what}: {os.strerror(error.code)}") from None
    finally:
        for home in homes:
            os.close(home)


def configure(end: End, *, address: str | None = None, ipv6: bool = True) -> None:
    """Give an interface an address ("198.18.0.1/24") and bring it up.

    ipv6 False: the kernel makes no link-local address on it and so sends no router solicitations and MLD reports.
    """
    with netlink(end.namespace) as ip:
        index = ip.link_lookup(ifname=end.ifname)[0]
        if not ipv6:
            _silence_ipv6(ip, end, index)
        if address is not None:
            interface = ipaddress.ip_interface(address)
            ip.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
        ip.link("set", index=index, state="up")


def limit_super_frames(end: End, size_bytes: int = SUPER_FRAME_BYTES) -> None:
    """Bound the IPv4 super-frames, with their headers, that the kernel sends out of an interface (gso_ipv4_max_size).

    A receiver whose slots hold less would lose each longer one, again and again. On a kernel without such a limit
    (before 6.3) there are none beyond 64 KB, and nothing is done. pyroute2 has no name for the attribute yet.
    """
    with inside(end.namespace):
        index = socket.if_nametoindex(end.ifname)
        wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with wire:
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
        body += struct.pack("=HHI", 8, IFLA_GSO_IPV4_MAX_SIZE, size_bytes)
        wire.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        (error,) = struct.unpack_from("=i", wire.recv(8192), 16)
    if error not in (0, -errno.EOPNOTSUPP, -errno.EINVAL):
        raise LabError(f"cannot limit the frames of {end}: {os.strerror(-error)}")


def remove(end: End, *, mark: str) -> bool:
    """Remove an interface (a veth's other end goes with it) if it carries `mark`. True if it did."""
    try:
        found = find(end)
        if found is None or found["alias"] != mark:
            return False
        with netlink(end.namespace) as ip:
            ip.link("del", index=found["index"])
    except LabError:
        return False
    return True


def addresses(namespace: str | None) -> list[tuple[str, ipaddress.IPv4Interface | ipaddress.IPv6Interface]]:
    """Every (interface name, address with prefix) that the kernel has in a namespace, loopback's own left out."""
    found = []
    with netlink(namespace) as ip:
        by_index = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        for message in ip.get_addr():
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            interface = ipaddress.ip_interface(f"{address}/{message['prefixlen']}")
            if not interface.ip.is_loopback:
                found.append((by_index.get(message["index"], "?"), interface))
    return found


def check_address_free(namespace: str | None, address: str, *, overlap: bool = False) -> None:
    """Raise InUseError if the kernel has this address in the namespace or, with `overlap`, a network that meets it."""
    wanted = ipaddress.ip_interface(address)
    where = f"namespace {namespace}" if namespace else "this namespace"
    for ifname, interface in addresses(namespace):
        if interface.ip == wanted.ip:
            raise InUseError(f"address {wanted.ip} is in use: {ifname} in {where} has it")
        if overlap and interface.version == wanted.version and interface.network.overlaps(wanted.network):
            raise InUseError(f"network {wanted.network} is in use: {ifname} in {where} has {interface}")


def is_local(end: End, address: str) -> bool:
    """True if the kernel takes packets for this address as its own, be it by an address or by a route."""
    from pyroute2.netlink.exceptions import NetlinkError

    with netlink(end.namespace) as ip:
        try:
            return any(route["type"] == RTN_LOCAL for route in ip.route("get", dst=address))
        except NetlinkError:
            return False  # no route to it at all


def forwards(end: End) -> bool:
    """True if the kernel forwards what comes in there: it then answers for addresses that it cannot reach (ICMP)."""
    try:
        with inside(end.namespace):
            return Path(f"/proc/sys/net/ipv4/conf/{end.ifname}/forwarding").read_text()[:1] == "1"
    except OSError:
        return False


def answers_arp(end: End, address: str, wait_s: float = 0.3) -> str | None:
    """Ask the other stations on the link for an address (a probe: RFC 5227 section 2.1.1): the MAC of who has it."""
    found = find(end)
    if found is None:
        raise LabError(f"no interface {end}")
    mac, target = bytes.fromhex(found["mac"].replace(":", "")), ipaddress.IPv4Address(address).packed
    with inside(end.namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with wire:
        wire.bind((end.ifname, ETH_P_ALL))  # not ETH_P_ARP: a tap that a drop at ingress does not starve
        probe = struct.pack("!HHBBH6s4s6s4s", 1, ETH_P_IP, 6, 4, 1, mac, b"\0" * 4, b"\0" * 6, target)
        wire.send(b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP) + probe)
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
            frame = wire.recv(2048)
            # Sender's protocol address, in a request as in a reply: it is in use either way.
            is_arp = len(frame) >= 42 and frame[12:14] == struct.pack("!H", ETH_P_ARP)
            if is_arp and frame[28:32] == target and frame[22:28] != mac:
                return frame[22:28].hex(":")
    return None


def _check_free(end: End) -> None:
    if not end.ifname or len(end.ifname) > IFNAME_MAX or "/" in end.ifname or end.ifname.strip() != end.ifname:
        raise LabError(f"bad interface name {end.ifname!r}: at most {IFNAME_MAX} characters")
    if find(end) is not None:
        raise InUseError(f"interface {end} exists")


def _namespace_descriptor(namespace: str | None) -> int:
    with inside(namespace):
        return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


def _silence_ipv6(ip: Any, end: End, index: int) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE]]}
    try:
        ip.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", mode]]})
        with inside(end.namespace):
            Path(f"/proc/sys/net/ipv6/conf/{end.ifname}/disable_ipv6").write_text("1")
    except (NetlinkError, OSError):
        pass  # a kernel without IPv6, or /proc/sys mounted read-only: a little chatter that the stack drops and counts

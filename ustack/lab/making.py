# SPDX-License-Identifier: MIT
"""A lab: two places, a link between them, the kernel kept off one end. Made whole or not at all; removed whole.

    veth   our end (an AF_PACKET ring opens it) in a namespace, the other end, with the peer's address, in another
    tap    a TAP device, with the peer's address; our end is the descriptor that opens it, and lives nowhere
    dev    an interface that exists; only what is for the stack's address is kept from the kernel, and without
           CAP_NET_ADMIN nothing is: as the address is none of the kernel's own, it drops such packets without an
           answer, unless it forwards (links.forwards)

Read first: ownership's opening. Above: keeper, cli. Below: ownership, ingress, links, namespace, privilege.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ustack.lab import ingress, links, namespace, ownership, privilege
from ustack.lab.links import End
from ustack.lab.namespace import InUseError, LabError

LINKS = ("veth", "tap", "dev")


@dataclass(frozen=True)
class Plan:
    """What to make. Addresses have their prefix; netns None: a private name; peer_netns None: the caller's."""

    name: str
    link: str = "veth"
    netns: str | None = None
    peer_netns: str | None = None
    ifname: str | None = None
    address: str = "198.18.0.2/24"
    peer_address: str = "198.18.0.1/24"
    mtu: int = 1500


@dataclass(frozen=True)
class Made:
    """What was made. A link opens `ifname` in `netns` (None: the caller's); `drop` is how the kernel is kept off it."""

    name: str
    link: str
    netns: str | None
    ifname: str
    peer_netns: str | None
    peer_ifname: str | None
    address: str
    peer_address: str | None
    drop: str | None

    def inside(self) -> Any:
        """Context in which the link can be opened (see namespace.inside)."""
        return namespace.inside(self.netns)


def up(plan: Plan, *, persistent: bool = False, owners: tuple[int, ...] = ()) -> Made:
    """Make what `plan` says, after removing what dead owners left.

    persistent: it lasts until `down`; else it lasts as long as one of `owners` (default: this process) lives and nobody
    calls `down`. Raises LabError with nothing left behind.
    """
    check(plan)
    privilege.require("making namespaces and links", needs(plan))
    with ownership.locked(), _plain_errors():
        ownership.sweep()
        if ownership.load(plan.name) is not None:
            raise InUseError(f"lab {plan.name} is up already")
        record = ownership.Record(plan.name, persistent=persistent)
        record.own(os.getpid(), *owners)
        record.save()
        try:
            lab = {"veth": _veth, "tap": _tap, "dev": _dev}[plan.link](plan, record)
            record.description = asdict(lab)
            record.complete = True
            record.save()
        except BaseException:
            record.undo()
            raise
        return lab


def down(name: str) -> None:
    """Remove a lab. Raises LabError if there is none."""
    with ownership.locked(), _plain_errors():
        record = ownership.load(name)
        if record is None:
            raise LabError(f"no lab {name}")
        record.undo()


def labs() -> list[Made]:
    """The labs that are up and whose owners live."""
    return [Made(**record.description) for record in ownership.visible() if record.complete and record.is_alive()]


def find(name: str) -> Made:
    """One of them. Raises LabError if there is none of that name."""
    for lab in labs():
        if lab.name == name:
            return lab
    raise LabError(f"no lab {name}")


def sweep() -> list[str]:
    """Remove what dead owners left; return the names of their labs."""
    with ownership.locked(), _plain_errors():
        return ownership.sweep()


def needs(plan: Plan) -> list[str]:
    """The capabilities without which `plan` cannot be made.

    An interface that exists takes CAP_NET_RAW; with CAP_NET_ADMIN, where it is to be had, the kernel is kept off it as
    well; and CAP_SYS_ADMIN only to open it in another namespace.
    """
    if plan.link != "dev":
        return sorted(privilege.CAPABILITIES)
    return ["CAP_NET_RAW"] if plan.netns is None else ["CAP_NET_RAW", "CAP_SYS_ADMIN"]


def check(plan: Plan) -> None:
    """Raise LabError for a plan that cannot work, before anything is touched."""
    namespace.check_name(plan.name)
    if plan.link not in LINKS:
        raise LabError(f"bad link {plan.link!r}: one of {', '.join(LINKS)}")
    for name in (plan.netns, plan.peer_netns):
        if name is not None:
            namespace.check_reference(name)
    ours, peer = interface("address", plan.address), interface("peer address", plan.peer_address)
    if plan.link == "dev":
        if not plan.ifname:
            raise LabError("no interface named: dev:IFNAME")
        if len(plan.ifname.encode()) > links.IFNAME_MAX:
            raise LabError(f"bad interface name {plan.ifname!r}: at most {links.IFNAME_MAX} characters")
        return
    if ours.ip == peer.ip:
        raise LabError(f"both ends have the address {ours.ip}")
    if ours.network != peer.network:
        raise LabError(f"address {ours} and peer address {peer} are in different networks")
    if not 576 <= plan.mtu <= 65535:
        raise LabError(f"bad MTU {plan.mtu}: 576 to 65535")


# ---------------------------------------------------------------- one function for each kind of link


def _veth(plan: Plan, record: ownership.Record) -> Made:
    ours_in = _ensure_namespace(plan.netns or _private_name(plan.name), record)
    peer_in = _ensure_namespace(plan.peer_netns, record)
    links.check_address_free(ours_in, plan.address)
    _check_peer(plan, peer_in)
    ours = End(ours_in, _free_ifname(ours_in))
    peer = End(peer_in, _free_ifname(peer_in, avoid=ours if ours_in == peer_in else None))
    record.plan_interface(peer)
    record.plan_interface(ours)
    links.make_veth(ours, peer, mark=record.mark, mtu=plan.mtu)
    # The drop comes before the first frame can.
    method = ingress.drop(ours)
    links.configure(ours, ipv6=False)
    links.limit_super_frames(peer)
    links.configure(peer, address=plan.peer_address, ipv6=False)
    return Made(
        plan.name,
        "veth",
        ours.namespace,
        ours.ifname,
        peer.namespace,
        peer.ifname,
        plan.address,
        plan.peer_address,
        method,
    )


def _tap(plan: Plan, record: ownership.Record) -> Made:
    if plan.netns is not None and plan.netns != plan.peer_netns:
        # Our end is a descriptor; a namespace for it would stay empty. Made all the same, because it was asked for.
        _ensure_namespace(plan.netns, record)
    peer_in = _ensure_namespace(plan.peer_netns, record)
    _check_peer(plan, peer_in)
    tap = End(peer_in, _free_ifname(peer_in))
    record.plan_interface(tap)
    links.make_tap(tap, mark=record.mark, mtu=plan.mtu)
    links.limit_super_frames(tap)
    links.configure(tap, address=plan.peer_address, ipv6=False)
    return Made(plan.name, "tap", peer_in, tap.ifname, peer_in, tap.ifname, plan.address, plan.peer_address, None)


def _dev(plan: Plan, record: ownership.Record) -> Made:
    if plan.netns is not None and not namespace.exists(plan.netns):
        raise LabError(f"no namespace {plan.netns}")
    end = End(plan.netns, plan.ifname or "")
    found = links.find(end)
    if found is None:
        raise LabError(f"no interface {end}")
    if not found["ethernet"]:
        raise LabError(f"interface {end} is not Ethernet: tun, WireGuard and loopback devices carry no Ethernet frames")
    if not found["up"]:
        raise LabError(f"interface {end} is down")
    links.check_address_free(plan.netns, plan.address)
    address = plan.address.partition("/")[0]
    holder = links.answers_arp(end, address)
    if holder is not None:
        raise InUseError(f"address {address} is in use: {holder} answers for it on {end}")
    if links.is_local(end, address):
        raise InUseError(f"address {address} is in use: a route makes it one of the kernel's own, which would answer")
    # Before a drop is written down: undoing what another stack holds would take its filter away.
    record.claim(end, address)
    method = None
    if "CAP_NET_ADMIN" in privilege.effective():
        record.plan_drop(end, address)
        method = ingress.drop(end, address=address)
    return Made(plan.name, "dev", plan.netns, end.ifname, None, None, plan.address, None, method)


def _ensure_namespace(name: str | None, record: ownership.Record) -> str | None:
    if name is not None and not namespace.exists(name):
        record.plan_namespace(name)
        namespace.create(name, mark=record.mark)
    return name


def _private_name(lab: str) -> str:
    name, number = f"ustack-{lab}", 0
    while namespace.exists(name):
        number += 1
        name = f"ustack-{lab}-{number}"
    return name


def _free_ifname(where: str | None, avoid: End | None = None) -> str:
    """The first of ustack0, ustack1, ... that is free. The lock keeps it free among labs."""
    with namespace.inside(where):
        taken = {name for _, name in socket.if_nameindex()}
    if avoid is not None:
        taken.add(avoid.ifname)
    return next(name for number in range(len(taken) + 1) if (name := f"ustack{number}") not in taken)


def _check_peer(plan: Plan, where: str | None) -> None:
    links.check_address_free(where, plan.address)
    links.check_address_free(where, plan.peer_address, overlap=True)


def interface(what: str, text: str) -> ipaddress.IPv4Interface:
    """An address that a host can have, with its network. Raises LabError, naming `what`."""
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError:
        not_yet = "; IPv6 is not supported yet" if ":" in text else ""
        raise LabError(
            f"bad {what} {text!r}: an IPv4 address with its prefix, such as 198.18.0.2/24{not_yet}"
        ) from None
    if "/" not in text or found.network.prefixlen > 30:
        raise LabError(f"bad {what} {text!r}: a prefix length of at most 30 is needed, such as 198.18.0.2/24")
    if found.ip in (found.network.network_address, found.network.broadcast_address):
        raise LabError(
            f"bad {what} {text!r}: no host may have that address, it is the network's or the broadcast address"
        )
    if found.ip.is_multicast or found.ip.is_loopback or found.ip.is_unspecified:
        raise LabError(f"bad {what} {text!r}: no host on a link can have it (multicast, loopback or unspecified)")
    return found


def neighbour_of(address: str) -> str:
    """The peer's address where only the stack's is given: the first other host of the same network."""
    ours = interface("address", address)
    return next(f"{host}/{ours.network.prefixlen}" for host in ours.network.hosts() if host != ours.ip)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what the kernel refuses into one line."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise LabError(f"the system refused: {where}{error.strerror or error}") from error
    except NetlinkError as error:
        raise LabError(f"the kernel refused: {os.strerror(error.code)}") from error

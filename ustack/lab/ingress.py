# SPDX-License-Identifier: MIT
"""Keeping the kernel's stack off an interface: everything, or what is for one address, is dropped at ingress.

The drop runs after the packet taps, so that an AF_PACKET ring still gets every frame, and before IP and ARP, so that
the kernel neither answers ARP for the stack's address nor resets its connections.

Two ways, tried in this order: a `clsact` qdisc with a bpf filter in direct-action mode, its program loaded with bpf(2);
a netdev-family nftables chain. The name of the one that worked is returned and is what `allow` needs to undo it. Each
address has a filter (or a table) of its own, so that the end of one stack leaves the others' alone; the qdisc goes with
the last of them.

Read first: tc-bpf(8), bpf(2), nft(8) (netdev family). Above: lab. Below: links, libc.
"""

import ctypes
import errno
import ipaddress
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ustack.lab import libc
from ustack.lab.links import End, netlink
from ustack.lab.namespace import LabError, in_thread, inside

CLSACT = "clsact+bpf"
NFTABLES = "nftables"

FILTER_NAME = "ustack-drop"
FILTER_PRIORITY = 49150
FILTER_HANDLE = 1
INGRESS_PARENT = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
EGRESS_PARENT = 0xFFFFFFF3
MISSING = (
    errno.ENOENT,
    errno.EINVAL,
    errno.ENODEV,
)  # what the kernel says of a filter, qdisc or interface that is gone
SKB_VLAN_TCI = 24  # offset in struct __sk_buff (linux/bpf.h)

BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SCHED_CLS = 3
TC_ACT_SHOT = 2
TC_ACT_UNSPEC = -1  # go on as if there were no filter

NFPROTO_NETDEV = 5
NF_NETDEV_INGRESS = 0
NF_DROP = 0
NF_ACCEPT = 1


def drop(end: End, *, address: str | None = None, method: str | None = None) -> str:
    """Drop at `end`'s ingress everything, or with `address` ("198.18.0.2") only IPv4 and ARP for that address.

    method: CLSACT or NFTABLES to try only that one. Returns the method that took hold. Raises LabError if none did.
    """
    failures = []
    for name, install in ((CLSACT, _drop_clsact), (NFTABLES, _drop_nftables)):
        if method not in (None, name):
            continue
        try:
            install(end, address)
        except OSError as error:
            failures.append(f"{name}: {error.strerror or error}")
        else:
            return name
    raise LabError(f"cannot keep the kernel off {end} ({'; '.join(failures)})")


def allow(end: End, method: str, *, address: str | None = None, remove_qdisc: bool = True) -> None:
    """Undo `drop` for the same address. Does nothing if it is undone already.

    remove_qdisc: the clsact qdisc was made by a drop, and goes unless somebody's filter is in it. False: it had been
    there before.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        if method == NFTABLES:
            with _nftables(end) as nft:
                nft.table("del", name=_table(end, address))
            return
        with netlink(end.namespace) as ip:
            for index in ip.link_lookup(ifname=end.ifname):
                with suppress_missing():
                    ip.tc("del-filter", "bpf", index, _handle(address), parent=INGRESS_PARENT, prio=FILTER_PRIORITY)
                if remove_qdisc and not _has_filters(ip, index):
                    ip.tc("del", "clsact", index)
    except NetlinkError as error:
        if error.code not in MISSING:
            raise
    except LabError:
        pass


@contextmanager
def suppress_missing() -> Iterator[None]:
    """Whatever is gone need not be removed."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in MISSING:
            raise


def _has_filters(ip: Any, index: int) -> bool:
    return any(len(ip.get_filters(index=index, parent=parent)) for parent in (INGRESS_PARENT, EGRESS_PARENT))


def _handle(address: str | None) -> int:
    """The filter's number: the address itself, which no other drop has."""
    return int(ipaddress.IPv4Address(address)) if address else FILTER_HANDLE


def has_clsact(end: End) -> bool:
    """True if the interface has a clsact qdisc already."""
    with netlink(end.namespace) as ip:
        for index in ip.link_lookup(ifname=end.ifname):
            return any(
                qdisc["index"] == index and qdisc.get_attr("TCA_KIND") == "clsact"
                for qdisc in ip.get_qdiscs(index=index)
            )
    return False


def probe() -> dict[str, str]:
    """Try both ways in a namespace that ends with the attempt. Way to "" where it works, else to the reason why not."""

    def body() -> dict[str, str]:
        libc.unshare_net()
        return {name: _attempt(install) for name, install in ((CLSACT, _drop_clsact), (NFTABLES, _drop_nftables))}

    try:
        return in_thread(body)
    except OSError as error:
        return dict.fromkeys((CLSACT, NFTABLES), error.strerror or str(error))


def _attempt(install: Callable[[End, str | None], None]) -> str:
    try:
        install(End(None, "lo"), None)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _drop_clsact(end: End, address: str | None) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    program = _load(program_for(address) if address else program_all())
    try:
        with netlink(end.namespace) as ip:
            index = ip.link_lookup(ifname=end.ifname)[0]
            made = False
            try:
                if not has_clsact(end):
                    ip.tc("add", "clsact", index)
                    made = True
                ip.tc(
                    "replace-filter",  # one that a crash left behind: nobody else holds the address (claims)
                    "bpf",
                    index,
                    _handle(address),
                    fd=program,
                    name=FILTER_NAME,
                    parent=INGRESS_PARENT,
                    prio=FILTER_PRIORITY,
                    classid=1,
                    direct_action=True,
                )
            except NetlinkError as error:
                if made:
                    ip.tc("del", "clsact", index)
                raise OSError(error.code, os.strerror(error.code)) from None
    finally:
        os.close(program)


# ---------------------------------------------------------------- the program


def program_all() -> bytes:
    """Two instructions: r0 = TC_ACT_SHOT; exit."""
    return _instruction(0xB7, dst=0, imm=TC_ACT_SHOT) + _instruction(0x95)


def program_for(address: str) -> bytes:
    """Drop IPv4 for `address` and ARP that asks for it on the untagged network; let everything else pass.

    A frame of a VLAN is for somebody else, who may have the same address there: the kernel, on a VLAN interface.
    A load by absolute offset (BPF_LD | BPF_ABS) ends the program with 0, TC_ACT_OK, if the packet is shorter.
    """
    target = struct.unpack("!i", ipaddress.IPv4Address(address).packed)[0]
    # fmt: off
    return b"".join(
        (
            _instruction(0xBF, dst=6, src=1),                  # 0   r6 = the packet
            _instruction(0x61, dst=0, src=6, off=SKB_VLAN_TCI),  # 1   r0 = the tag that was taken out, 0: none
            _instruction(0x57, dst=0, imm=0x0FFF),             # 2   r0 = its VID
            _instruction(0x55, dst=0, off=8, imm=0),           # 3   a VLAN: go to 12
            _instruction(0x28, imm=12),                        # 4   r0 = EtherType
            _instruction(0x15, dst=0, off=3, imm=0x0806),      # 5   ARP: go to 9
            _instruction(0x55, dst=0, off=5, imm=0x0800),      # 6   not IPv4: go to 12
            _instruction(0x20, imm=14 + 16),                   # 7   r0 = IPv4 destination
            _instruction(0x05, off=1),                         # 8   go to 10
            _instruction(0x20, imm=14 + 24),                   # 9   r0 = ARP target protocol address
            _instruction(0x56, dst=0, off=1, imm=target),      # 10  another address, 32 bits compared: go to 12
            _instruction(0x05, off=2),                         # 11  go to 14
            _instruction(0xB7, dst=0, imm=TC_ACT_UNSPEC),      # 12
            _instruction(0x95),                                # 13
            _instruction(0xB7, dst=0, imm=TC_ACT_SHOT),        # 14
            _instruction(0x95),                                # 15
        )
    )
    # fmt: on


def _instruction(code: int, *, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, off, imm)


def _load(program: bytes) -> int:
    """Load a classifier; return its descriptor."""
    instructions = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"MIT")
    # union bpf_attr of BPF_PROG_LOAD: type, instruction count, instructions, licence; the rest is zero.
    attributes = struct.pack(
        "=IIQQ",
        BPF_PROG_TYPE_SCHED_CLS,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
    )
    return libc.bpf(BPF_PROG_LOAD, attributes.ljust(72, b"\0"))


# ---------------------------------------------------------------- nftables


def _table(end: End, address: str | None) -> str:
    return f"ustack-{end.ifname}-{address}" if address else f"ustack-{end.ifname}"


def _nftables(end: End) -> Any:
    from pyroute2.nftables.main import NFTables

    with inside(end.namespace):
        return NFTables(nfgen_family=NFPROTO_NETDEV)


def _drop_nftables(end: End, address: str | None) -> None:
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_NEWCHAIN, nft_chain_msg

    hook = [
        ["NFTA_HOOK_HOOKNUM", NF_NETDEV_INGRESS],
        ["NFTA_HOOK_PRIORITY", -500],
        ["NFTA_HOOK_DEV", end.ifname],
    ]
    with _nftables(end) as nft:
        table = _table(end, address)
        try:
            nft.table("create", name=table)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from None
        try:
            # Not nft.chain(): it knows the hooks of the IP families only.
            policy = NF_ACCEPT if address else NF_DROP
            chain = {"table": table, "name": "ingress", "hook": {"attrs": hook}, "type": "filter", "policy": policy}
            nft._command(nft_chain_msg, {"add": NFT_MSG_NEWCHAIN}, "add", chain)
            if address:
                # EtherType, then the offset of the address within the network header.
                for ethertype, offset in ((0x0800, 16), (0x0806, 24)):
                    nft.rule("add", table=table, chain="ingress", expressions=[_match(ethertype, offset, address)])
        except NetlinkError as error:
            nft.table("del", name=table)
            raise OSError(error.code, os.strerror(error.code)) from None


def _match(ethertype: int, offset: int, address: str) -> list[dict[str, Any]]:
    """Expressions of one rule: meta protocol == ethertype, network header[offset:4] == address, drop."""
    from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta, Regs
    from pyroute2.nftables.expressions import genex, verdict

    def compare(value: bytes) -> dict[str, Any]:
        data = {"attrs": [("NFTA_DATA_VALUE", value)]}
        return dict(genex("cmp", {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_EQ, "data": data}))

    network_header = 1
    return [
        genex("meta", {"key": Meta.NFT_META_PROTOCOL, "dreg": Regs.NFT_REG_1}),
        compare(struct.pack("!H", ethertype)),
        genex("payload", {"dreg": Regs.NFT_REG_1, "base": network_header, "offset": offset, "len": 4}),
        compare(ipaddress.IPv4Address(address).packed),
        *verdict(code=NF_DROP),
    ]

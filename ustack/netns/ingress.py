# SPDX-License-Identifier: MIT
"""Keeping the kernel's stack off an interface: everything, or what is for one address, is dropped at ingress.

The drop runs after the packet taps, so that an AF_PACKET ring still gets every frame, and before IP and ARP, so that
the kernel neither answers ARP for the stack's address nor resets its connections.

Two ways, tried in this order: a `clsact` qdisc with a bpf filter in direct-action mode, its program loaded with bpf(2);
a netdev-family nftables chain. The name of the one that worked is returned and is what `allow` needs to undo it.

Read first: tc-bpf(8), bpf(2), nft(8) (netdev family). Above: lab. Below: links, libc.
"""

import ctypes
import errno
import ipaddress
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

from ustack.netns import libc
from ustack.netns.links import End, netlink
from ustack.netns.namespace import LabError, in_thread, inside

CLSACT = "clsact+bpf"
NFTABLES = "nftables"

FILTER_NAME = "ustack-drop"
FILTER_PRIORITY = 49150
FILTER_HANDLE = 1
INGRESS_PARENT = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)

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


def allow(end: End, method: str, *, remove_qdisc: bool = True) -> None:
    """Undo `drop`. remove_qdisc False: the clsact qdisc had been there before. Does nothing if it is gone already."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        if method == NFTABLES:
            with _nftables(end) as nft:
                nft.table("del", name=_table(end))
            return
        with netlink(end.namespace) as ip:
            for index in ip.link_lookup(ifname=end.ifname):
                if remove_qdisc:
                    ip.tc("del", "clsact", index)
                else:
                    ip.tc("del-filter", "bpf", index, FILTER_HANDLE, parent=INGRESS_PARENT, prio=FILTER_PRIORITY)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            raise
    except LabError:
        pass


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
                    "add-filter",
                    "bpf",
                    index,
                    FILTER_HANDLE,
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
    """Drop IPv4 for `address` and ARP that asks for it; let everything else pass.

    A load by absolute offset (BPF_LD | BPF_ABS) ends the program with 0, TC_ACT_OK, if the packet is shorter.
    """
    target = struct.unpack("!i", ipaddress.IPv4Address(address).packed)[0]
    # fmt: off
    return b"".join(
        (
            _instruction(0xBF, dst=6, src=1),                  # 0   r6 = the packet
            _instruction(0x28, imm=12),                        # 1   r0 = EtherType
            _instruction(0x15, dst=0, off=3, imm=0x0806),      # 2   ARP: go to 6
            _instruction(0x55, dst=0, off=5, imm=0x0800),      # 3   not IPv4: go to 9
            _instruction(0x20, imm=14 + 16),                   # 4   r0 = IPv4 destination
            _instruction(0x05, off=1),                         # 5   go to 7
            _instruction(0x20, imm=14 + 24),                   # 6   r0 = ARP target protocol address
            _instruction(0x56, dst=0, off=1, imm=target),      # 7   another address, 32 bits compared: go to 9
            _instruction(0x05, off=2),                         # 8   go to 11
            _instruction(0xB7, dst=0, imm=TC_ACT_UNSPEC),      # 9
            _instruction(0x95),                                # 10
            _instruction(0xB7, dst=0, imm=TC_ACT_SHOT),        # 11
            _instruction(0x95),                                # 12
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


def _table(end: End) -> str:
    return f"ustack-{end.ifname}"


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
        table = _table(end)
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

# SPDX-License-Identifier: MIT
"""Who has which address on which interface: one stack each. Two would answer and reset each other's clients.

A claim is the name of a Unix socket in the abstract namespace of the interface's network namespace: seen by every
process there, whatever its /run is, and given back by the kernel when its holder ends, however that is. (Asking on the
wire, as for other hosts, does not work: what one packet socket sends another one on the same interface does not hear.)

Read first: unix(7), "abstract". Above: lab. Below: links, namespace.
"""

import errno
import socket

from ustack.lab import namespace
from ustack.lab.links import End
from ustack.lab.namespace import InUseError, LabError

_held: dict[tuple[tuple[int, ...], str, str], socket.socket] = {}  # by network namespace, interface and address


def claim(end: End, address: str) -> None:
    """Hold `address` ("198.18.0.2") on an interface until `release`, or this process's end.

    Raises InUseError if somebody holds it.
    """
    with namespace.inside(end.namespace):
        try:
            index = socket.if_nametoindex(end.ifname)  # which does not change when the interface is renamed
        except OSError:
            raise LabError(f"no interface {end}") from None
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0ustack/{index}/{address}")
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise InUseError(f"address {address} is in use: another stack has it on {end}") from None
        raise
    _held[tuple(namespace.identity(end.namespace)), end.ifname, address] = holder


def release(home: tuple[int, ...], ifname: str, address: str) -> None:
    """Give back what this process holds of it, if anything. home: the network namespace's identity.

    Another process's claim ends with that process.
    """
    holder = _held.pop((home, ifname, address), None)
    if holder is not None:
        holder.close()

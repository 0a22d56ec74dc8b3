# SPDX-License-Identifier: MIT
"""What was compiled in, and what this machine's kernel offers to the links. Leaves nothing open and changes nothing.

The kernel's numbers come from its own headers. Above: cli. Below: the declarations in base/posix and link/packet_abi.
Read first: packet(7), tun.rst of Linux.
"""

import errno
import fcntl
import os
import platform
import socket
import struct

from ustack.base.posix cimport AF_XDP, SOL_PACKET
from ustack.link.packet_abi cimport (
    IFF_VNET_HDR, PACKET_IGNORE_OUTGOING, PACKET_QDISC_BYPASS, PACKET_VERSION, PACKET_VNET_HDR, TPACKET_V2,
    TUNGETFEATURES)


cdef extern from *:
    """
    #ifndef USTACK_BUILD_MODE
    #define USTACK_BUILD_MODE "unknown"
    #endif
    #if defined(__clang__)
    #define USTACK_COMPILER "clang " __VERSION__
    #elif defined(__GNUC__)
    #define USTACK_COMPILER "gcc " __VERSION__
    #else
    #define USTACK_COMPILER "unknown"
    #endif
    """
    const char *USTACK_BUILD_MODE
    const char *USTACK_COMPILER


def build_mode() -> str:
    """The build mode that was compiled in: release, debug, trace, asan or fuzz."""
    return USTACK_BUILD_MODE.decode()


def compiler() -> str:
    """The compiler's name and version."""
    return USTACK_COMPILER.decode()


def kernel() -> str:
    """The running kernel's name, release and machine."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def link_capabilities() -> dict[str, str]:
    """What the links can use here. Name to "" where it works, else to the reason why not."""
    found = {
        "af_packet": _attempt(_packet_option, 0, 0),
        "packet_ring": _attempt(_packet_option, PACKET_VERSION, TPACKET_V2),
        "packet_vnet_hdr": _attempt(_packet_option, PACKET_VNET_HDR, 1),
        "packet_qdisc_bypass": _attempt(_packet_option, PACKET_QDISC_BYPASS, 1),
        "packet_ignore_outgoing": _attempt(_packet_option, PACKET_IGNORE_OUTGOING, 1),
        "tap": _attempt(_tap_features, 0),
        "tap_vnet_hdr": _attempt(_tap_features, IFF_VNET_HDR),
        "af_xdp": _attempt(_xdp_socket),
    }
    return found


def _attempt(probe: object, *arguments: int) -> str:
    try:
        probe(*arguments)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return ""


def _packet_option(option: int, value: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        if option:
            probe.setsockopt(SOL_PACKET, option, value)


def _tap_features(wanted: int) -> None:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        features, = struct.unpack("I", fcntl.ioctl(descriptor, TUNGETFEATURES, b"\0" * 4))
        if features & wanted != wanted:
            raise OSError(errno.EOPNOTSUPP, "feature missing")
    finally:
        os.close(descriptor)


def _xdp_socket() -> None:
    socket.socket(AF_XDP, socket.SOCK_RAW, 0).close()

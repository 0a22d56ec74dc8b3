# SPDX-License-Identifier: MIT
"""The few system calls that Python (3.10) has no name for: setns, unshare, mount, umount2, bpf, capset, prctl.

Nothing here decides anything: each function is one system call and raises OSError with its errno.
Numbers are the kernel's ABI (linux/sched.h, linux/mount.h, asm/unistd.h), which Python offers no header for.

Read first: setns(2), unshare(2), mount(2), bpf(2), capset(2). Above: namespace, ingress, privilege.
"""

import ctypes
import os
import platform

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 1 << 20
MNT_DETACH = 2

# System call numbers that the C library has no function for. The generic table serves every newer architecture.
_BPF = {"x86_64": 321, "i386": 357, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_BPF_GENERIC = 280

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def setns(descriptor: int) -> None:
    """Move the calling thread, and no other, into the network namespace behind `descriptor`."""
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def unshare_net() -> None:
    """Give the calling thread a network namespace of its own."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def mount(source: str, target: str, flags: int) -> None:
    """mount(2) without a file system type, as bind mounts and changes of propagation want it."""
    _check(_libc.mount(source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None), target)


def unmount(target: str) -> None:
    """umount2(2) with MNT_DETACH: the name goes at once, the rest when its last user goes."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), target)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2). `attributes` is the whole union bpf_attr of the command. Returns what the command returns."""
    number = _BPF.get(platform.machine(), _BPF_GENERIC)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _check(_libc.syscall(ctypes.c_long(number), ctypes.c_int(command), buffer, len(attributes)), "bpf")


def capget() -> bytes:
    """The calling thread's capability sets: two times (effective, permitted, inheritable) of 32 bits."""
    header = _capability_header()
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    return data.raw


def capset(sets: bytes) -> None:
    """Set what capget returned, changed."""
    _check(_libc.capset(_capability_header(), ctypes.create_string_buffer(sets, 24)), "capset")


def prctl(option: int, argument: int) -> int:
    """prctl(2) with one argument; the others are 0."""
    zero = ctypes.c_ulong(0)
    return _check(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero), "prctl")


def _capability_header() -> ctypes.Array[ctypes.c_uint32]:
    version_3 = 0x20080522
    return (ctypes.c_uint32 * 2)(version_3, 0)

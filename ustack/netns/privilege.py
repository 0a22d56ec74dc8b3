# SPDX-License-Identifier: MIT
"""Capabilities: what is missing before the work begins, and giving up what is not needed any more.

Read first: capabilities(7). Above: lab, cli. Below: libc.
"""

import struct
from collections.abc import Iterable
from contextlib import suppress

from ustack.netns import libc
from ustack.netns.namespace import LabError

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38


def effective() -> set[str]:
    """Those of CAPABILITIES that the calling thread has now."""
    low, _, _, high, _, _ = struct.unpack("=6I", libc.capget())
    bits = low | high << 32
    return {name for name, bit in CAPABILITIES.items() if bits >> bit & 1}


def require(what: str, names: Iterable[str] = CAPABILITIES) -> None:
    """Raise LabError, naming what is missing, unless the thread has all of `names`."""
    missing = sorted(set(names) - effective())
    if missing:
        raise LabError(f"{what} needs root, or {', '.join(missing)}: run it with sudo")


def drop(names: Iterable[str] = CAPABILITIES) -> None:
    """Give capabilities up for good, in the calling thread and those it will start; a new program cannot regain them.

    Open descriptors keep working: an AF_PACKET ring needs no capability once it is bound.
    """
    names = list(names)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    for name in names:
        with suppress(PermissionError):  # without CAP_SETPCAP; no_new_privs bars a new program from regaining anything
            libc.prctl(PR_CAPBSET_DROP, CAPABILITIES[name])
    keep = ~sum(1 << CAPABILITIES[name] for name in names)
    sets = struct.unpack("=6I", libc.capget())
    libc.capset(
        struct.pack(
            "=6I",
            *(word & (keep >> shift) & 0xFFFFFFFF for word, shift in zip(sets, (0, 0, 0, 32, 32, 32), strict=True)),
        )
    )

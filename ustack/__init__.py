# SPDX-License-Identifier: MIT
"""A userspace TCP stack server over raw packet rings.

The names here are the whole of the everyday API: open a link, put a Stack on it, listen or connect.
"""

from ustack.blocking.connection import Connection
from ustack.blocking.info import ConnectionInfo
from ustack.blocking.listener import Listener
from ustack.blocking.poller import Poller
from ustack.blocking.readiness import PollEvents
from ustack.blocking.stack import Stack
from ustack.engine.trace import Trace
from ustack.errors import (
    AddressInUse,
    AlreadyRegistered,
    CallTimeout,
    ConnectionAborted,
    ConnectionRefused,
    ConnectionReset,
    ConnectionTimeout,
    NotRegistered,
    OwnershipError,
    SendAfterEnd,
    StackError,
    Unreachable,
    WouldBlock,
)
from ustack.link.packet_mmap import PacketMmapLink
from ustack.link.sim import SimNetwork
from ustack.link.tap import TapLink
from ustack.link.tee import TeeLink

__version__ = "0.1.0"

__all__ = [
    "AddressInUse",
    "AlreadyRegistered",
    "CallTimeout",
    "Connection",
    "ConnectionAborted",
    "ConnectionInfo",
    "ConnectionRefused",
    "ConnectionReset",
    "ConnectionTimeout",
    "Listener",
    "NotRegistered",
    "OwnershipError",
    "PacketMmapLink",
    "PollEvents",
    "Poller",
    "SendAfterEnd",
    "SimNetwork",
    "Stack",
    "StackError",
    "TapLink",
    "TeeLink",
    "Trace",
    "Unreachable",
    "WouldBlock",
]

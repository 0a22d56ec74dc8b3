# SPDX-License-Identifier: MIT
"""Exceptions of the Python face. Each carries `reason`, the stack's own word for what happened."""

from __future__ import annotations

import errno


class StackError(OSError):
    """Something that the stack refused or a connection that failed. `reason` names it in the stack's words; `errno` is
    what Linux's sockets give for it, None where they have nothing like it."""

    reason: str

    def __init__(self, reason: str, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.errno = code


class AddressInUse(StackError):
    """The port, or the pair of addresses and ports, is taken."""


class ConnectionRefused(StackError, ConnectionRefusedError):
    """The peer answered our SYN with a RST."""


class ConnectionReset(StackError, ConnectionResetError):
    """The peer sent a RST (MUST-12)."""


class ConnectionAborted(StackError, ConnectionAbortedError):
    """We sent a RST: the application asked for it, or the peer sent data after our close."""


class ConnectionTimeout(StackError, TimeoutError):
    """No answer to data, to a SYN or to keep-alive probes within the limit (R2)."""


class Unreachable(StackError):
    """The network has no way to the peer, or says so (ICMP)."""


# How a connection ends, by reason_name of close_reason_t: exception, errno, what a user reads. What ICMP says has the
# errno that Linux gives the same code (icmp_err_convert in net/ipv4/icmp.c).
KINDS: dict[str, tuple[type[StackError], int, str]] = {
    "reset": (ConnectionReset, errno.ECONNRESET, "connection reset by the peer"),
    "refused": (ConnectionRefused, errno.ECONNREFUSED, "connection refused by the peer"),
    "timeout": (ConnectionTimeout, errno.ETIMEDOUT, "the peer did not answer in time"),
    "keepalive": (ConnectionTimeout, errno.ETIMEDOUT, "the peer did not answer keep-alive probes"),
    "aborted": (ConnectionAborted, errno.ECONNABORTED, "the connection was aborted on our side"),
    "no_memory": (StackError, errno.ENOBUFS, "a memory limit of the stack was reached"),
    "net_unreachable": (Unreachable, errno.ENETUNREACH, "the peer's network cannot be reached"),
    "host_unreachable": (Unreachable, errno.EHOSTUNREACH, "the peer cannot be reached"),
    "protocol_unreachable": (Unreachable, errno.ENOPROTOOPT, "the peer says that it has no TCP"),
    "source_route_failed": (Unreachable, errno.EOPNOTSUPP, "a router says that a source route failed"),
    "host_down": (Unreachable, errno.EHOSTDOWN, "a router says that the peer does not exist or is down"),
    "host_isolated": (Unreachable, errno.ENONET, "a router says that we are isolated from the network"),
    "net_prohibited": (Unreachable, errno.ENETUNREACH, "a filter on the way prohibits the peer's network"),
    "prohibited": (Unreachable, errno.EHOSTUNREACH, "a filter on the way prohibits the connection"),
    "time_exceeded": (Unreachable, errno.EHOSTUNREACH, "packets to the peer exceed their time to live"),
    "parameter_problem": (Unreachable, errno.EPROTO, "a host on the way cannot use our packets' headers"),
}


def error_of(reason: str) -> StackError:
    """The exception for a connection that ended for `reason` (reason_name of close_reason_t)."""
    if reason not in KINDS:
        return StackError(reason, f"the connection has ended: {reason}")
    kind, code, message = KINDS[reason]
    return kind(reason, message, code)

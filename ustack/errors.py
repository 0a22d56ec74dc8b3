# SPDX-License-Identifier: MIT
"""Exceptions of the Python face. Each carries `reason`, the stack's own word for what happened."""

from __future__ import annotations


class StackError(OSError):
    """Something that the stack refused or a connection that failed. `reason` names it in the stack's words."""

    reason: str

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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


def error_of(reason: str) -> StackError:
    """The exception for a connection that ended for `reason` (reason_name of close_reason_t)."""
    kinds: dict[str, tuple[type[StackError], str]] = {
        "reset": (ConnectionReset, "connection reset by the peer"),
        "refused": (ConnectionRefused, "connection refused by the peer"),
        "timeout": (ConnectionTimeout, "the peer did not answer in time"),
        "keepalive": (ConnectionTimeout, "the peer did not answer keep-alive probes"),
        "unreachable": (Unreachable, "the peer cannot be reached"),
        "aborted": (ConnectionAborted, "the connection was aborted on our side"),
        "no_memory": (StackError, "a memory limit of the stack was reached"),
    }
    kind, message = kinds.get(reason, (StackError, f"the connection has ended: {reason}"))
    return kind(reason, message)

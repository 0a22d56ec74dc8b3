# SPDX-License-Identifier: MIT
"""Exceptions of the Python face.

Every one is an OSError with the `errno` that a kernel's socket would give, so that code written for sockets works
unchanged (`except ConnectionResetError`, `error.errno == errno.EHOSTUNREACH`), and carries `reason`, the stack's own
word for what happened.
"""

from __future__ import annotations

import errno
import signal


class StackError(OSError):
    """Something that the stack refused or a connection that failed. `reason` names it in the stack's words; `errno` is
    what Linux's sockets give for it, None where they have nothing like it."""

    reason: str

    def __init__(self, reason: str, message: str, number: int | None = None) -> None:
        """number: the errno; None: there is none that says it."""
        if number is None:
            super().__init__(message)
        else:
            super().__init__(number, message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[StackError], tuple[str, str, int | None]]:
        """As it was made: OSError's own would take `reason` for the number."""
        return type(self), (self.reason, self.strerror or str(self), self.errno)


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


class SendAfterEnd(StackError, BrokenPipeError):
    """Data, or a question about the connection, after its end or after shutdown()."""


class CallTimeout(StackError, TimeoutError):
    """A call waited as long as it was told to. The connection goes on."""


class WouldBlock(StackError, BlockingIOError):
    """A call that was told not to wait would have to."""


class AlreadyRegistered(StackError, FileExistsError):
    """A poller watches it already."""


class NotRegistered(StackError, FileNotFoundError):
    """A poller does not watch it: it never did, or close() was called on it."""


class OwnershipError(StackError, RuntimeError):
    """The stack is in use. `reason` is "thread" or "reentered".

    One thread at a time may be inside a stack, and Python that the stack itself runs (a destructor, a signal handler,
    a callback) may not call it again. The call did nothing. stop() is always allowed.
    """


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


def error_of(reason: str, where: str = "") -> StackError:
    """The exception for a connection that ended for `reason` (reason_name of close_reason_t). where: its peer."""
    unknown = (StackError, errno.EIO, f"the connection has ended: {reason}")
    kind, number, message = KINDS.get(reason, unknown)
    return kind(reason, f"{where}: {message}" if where else message, number)


def is_interruption(error: BaseException) -> bool:
    """Whether `error` is no failure of the code that it was raised in: what ends programs, or a signal handler's.

    Python runs signal handlers in whatever code is executing, so their exceptions pass through code that has nothing to
    do with them. A handler's own frame is in the traceback then.
    """
    if not isinstance(error, Exception):
        return True
    handlers = set()
    for number in signal.valid_signals():
        code = getattr(signal.getsignal(number), "__code__", None)
        if code is not None:
            handlers.add(code)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False

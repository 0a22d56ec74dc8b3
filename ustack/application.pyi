from enum import IntEnum

class close_reason_t(IntEnum):
    CLOSE_NORMAL = 0
    CLOSE_RESET = 1
    CLOSE_REFUSED = 2
    CLOSE_TIMEOUT = 3
    CLOSE_KEEPALIVE = 4
    CLOSE_NET_UNREACHABLE = 5
    CLOSE_ABORTED = 6
    CLOSE_NO_MEMORY = 7
    CLOSE_HOST_UNREACHABLE = 8
    CLOSE_PROTOCOL_UNREACHABLE = 9
    CLOSE_SOURCE_ROUTE_FAILED = 10
    CLOSE_HOST_DOWN = 11
    CLOSE_HOST_ISOLATED = 12
    CLOSE_NET_PROHIBITED = 13
    CLOSE_PROHIBITED = 14
    CLOSE_TIME_EXCEEDED = 15
    CLOSE_PARAMETER_PROBLEM = 16

def reason_name(reason: int) -> str: ...

class Transport:
    """Base class of transports: owner of a table of downcalls (application.pxd)."""

    @property
    def alive(self) -> bool: ...
    @property
    def manual_clock(self) -> bool: ...

class Application:
    """Base class of applications written in Cython: a table of nogil upcalls (application.pxd)."""

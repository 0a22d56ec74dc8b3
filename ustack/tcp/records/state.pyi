from enum import IntEnum
from typing import NamedTuple

class tcp_state_t(IntEnum):
    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10

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

class Move(NamedTuple):
    before: tcp_state_t
    after: tcp_state_t
    event: str
    section: str
    words: str

RESET: str
RESET_WORDS: str
MOVES: tuple[Move, ...]

def state_name(state: int) -> str: ...
def reason_name(reason: int) -> str: ...

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

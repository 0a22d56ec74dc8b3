# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Options of connections and listeners under Linux's names: one table for setting, asking, errors and documents.

A line says what an option is called, where it belongs, its bounds and its unit. Connection and Listener set and ask by
it (set_option, option, setsockopt, getsockopt); `ustack info --options` prints it. What an option does is the
transport's matter (application.pxd, conn_option_t). It must not: touch a connection. Above: endpoint, connection,
listener, cli. Below: application's numbers.
"""

from ustack.application cimport (
    OPTION_CC, OPTION_CORK, OPTION_DEFER_ACCEPT_S, OPTION_FIN_WAIT_2_S, OPTION_KEEPALIVE, OPTION_KEEPALIVE_IDLE_S,
    OPTION_KEEPALIVE_INTERVAL_S, OPTION_KEEPALIVE_PROBES, OPTION_MAY_FRAGMENT, OPTION_MSS, OPTION_NODELAY,
    OPTION_QUICKACK, OPTION_RECEIVE_BUFFER, OPTION_SEND_BUFFER, OPTION_TOS, OPTION_TTL, OPTION_UNSENT_LOW_WATER,
    OPTION_USER_TIMEOUT_MS)

import errno
from typing import NamedTuple

from ustack.errors import StackError


cdef enum:
    OF_CONNECTION = 1
    OF_LISTENER = 2                         # what it accepts begins with it
    READ_ONLY = 4
    BEFORE_SYN = 8


class SocketOption(NamedTuple):
    """One option: whole numbers from `low` to `high` in `unit`, or "name" for a name, "linger" for seconds or None."""

    name: str
    level: str
    number: int
    unit: str
    low: int
    high: int
    on: str
    text: str


cdef dict OPTIONS = {}                      # name -> SocketOption
cdef dict CODES = {}                        # name -> conn_option_t; 0: the Python face's own
cdef dict PLACES = {}                       # name -> OF_... bits
cdef dict NUMBERS = {}                      # (level, number) -> name
cdef dict LEVELS = {"SOL_SOCKET": 1, "IPPROTO_IP": 0, "IPPROTO_TCP": 6}
cdef str ACCEPT_FILTERS = (
    "there are no accept filters (they are FreeBSD's): TCP_DEFER_ACCEPT on the listener waits for the first data, and "
    "an Application in Cython sees a request before Python does")
cdef dict REFUSED = {
    "SO_ACCEPTFILTER": ACCEPT_FILTERS,
    "SO_ATTACH_FILTER": "there are no socket filters: frames are filtered before they reach the link",
    "SO_ATTACH_BPF": "there are no socket filters: frames are filtered before they reach the link",
    "TCP_FASTOPEN": "TCP Fast Open is not supported",
    "TCP_MD5SIG": "TCP MD5 signatures are not supported",
}
cdef dict REFUSED_NUMBERS = {               # as Linux numbers them; FreeBSD's SO_ACCEPTFILTER
    (1, 26): "SO_ATTACH_FILTER",
    (1, 50): "SO_ATTACH_BPF",
    (1, 10): "SO_OOBINLINE",
    (6, 14): "TCP_MD5SIG",
    (6, 23): "TCP_FASTOPEN",
    (0xFFFF, 0x1000): "SO_ACCEPTFILTER",
}


cdef void add(str level, str name, int number, int code, int places, str unit, long low, long high, str text) except *:
    on = {OF_CONNECTION: "connection", OF_LISTENER: "listener"}.get(places & 3, "both")
    if places & READ_ONLY:
        on = "read"
    OPTIONS[name] = SocketOption(name, level, number, unit, low, high, on, text)
    CODES[name] = code
    PLACES[name] = places
    NUMBERS[LEVELS[level], number] = name


cdef void fill_table() except *:
    cdef int both = OF_CONNECTION | OF_LISTENER
    add("SOL_SOCKET", "SO_ERROR", 4, 0, OF_CONNECTION | READ_ONLY, "errno", 0, 0,
        "The error that ended the connection; 0: none. (Not cleared by being asked for.)")
    add("SOL_SOCKET", "SO_SNDBUF", 7, OPTION_SEND_BUFFER, both, "bytes", 1, 1 << 30,
        "Most bytes that are queued and not acknowledged. Not doubled, as Linux does; at most snd_queue_bytes.")
    add("SOL_SOCKET", "SO_RCVBUF", 8, OPTION_RECEIVE_BUFFER, both, "bytes", 2048, 1 << 30,
        "Bytes held unread: the window, which does not grow any more. Not doubled; the first window, on SYN or "
        "SYN-ACK, is the stack's.")
    add("SOL_SOCKET", "SO_KEEPALIVE", 9, OPTION_KEEPALIVE, both, "flag", 0, 1,
        "Probes when the connection is idle (MUST-24).")
    add("SOL_SOCKET", "SO_OOBINLINE", 10, 0, OF_CONNECTION, "number", 1, 1,
        "Urgent data (MSG_OOB) is always in line; urgent_bytes says how much.")
    add("SOL_SOCKET", "SO_LINGER", 13, 0, both, "linger", 0, 65535,
        "close() waits so many seconds until all is acknowledged; 0: it resets; None: it returns at once.")
    add("IPPROTO_IP", "IP_TOS", 1, OPTION_TOS, both, "number", 0, 255,
        "The byte of DiffServ bits (MUST-48); the two of ECN are not looked at.")
    add("IPPROTO_IP", "IP_TTL", 2, OPTION_TTL, both, "number", 1, 255, "Time to live (MUST-49).")
    add("IPPROTO_IP", "IP_MTU_DISCOVER", 10, OPTION_MAY_FRAGMENT, both, "number", 0, 2,
        "0 (IP_PMTUDISC_DONT): DF is clear; 1 and 2: it is set.")
    add("IPPROTO_IP", "IP_MTU", 14, 0, OF_CONNECTION | READ_ONLY, "bytes", 0, 0, "The largest packet that is sent.")
    add("IPPROTO_TCP", "TCP_NODELAY", 1, OPTION_NODELAY, both, "flag", 0, 1, "Nagle's algorithm is off (MUST-17).")
    add("IPPROTO_TCP", "TCP_MAXSEG", 2, OPTION_MSS, both | BEFORE_SYN, "bytes", 88, 32767,
        "Most bytes in a segment, of either end. Before connect(), or on the listener; then it says what is used.")
    add("IPPROTO_TCP", "TCP_CORK", 3, OPTION_CORK, both, "flag", 0, 1,
        "Only whole segments go; what is left goes after 200 ms, or when it is off again. MSG_MORE is the same once.")
    add("IPPROTO_TCP", "TCP_KEEPIDLE", 4, OPTION_KEEPALIVE_IDLE_S, both, "seconds", 1, 32767,
        "Silence before the first keep-alive probe (MUST-28).")
    add("IPPROTO_TCP", "TCP_KEEPINTVL", 5, OPTION_KEEPALIVE_INTERVAL_S, both, "seconds", 1, 32767,
        "Time between two keep-alive probes.")
    add("IPPROTO_TCP", "TCP_KEEPCNT", 6, OPTION_KEEPALIVE_PROBES, both, "number", 1, 127,
        "Probes without an answer; then the connection ends.")
    add("IPPROTO_TCP", "TCP_LINGER2", 8, OPTION_FIN_WAIT_2_S, both, "seconds", 1, 65535,
        "How long a connection that was closed waits in FIN-WAIT-2.")
    add("IPPROTO_TCP", "TCP_DEFER_ACCEPT", 9, OPTION_DEFER_ACCEPT_S, OF_LISTENER, "seconds", 0, 65535,
        "A connection is there with its first data, or with the first ACK after this long (rounded up to the next "
        "SYN-ACK that is sent again); 0: at the end of its handshake. Connections by SYN cookies do not wait.")
    add("IPPROTO_TCP", "TCP_INFO", 11, 0, OF_CONNECTION | READ_ONLY, "ConnectionInfo", 0, 0, "info().")
    add("IPPROTO_TCP", "TCP_QUICKACK", 12, OPTION_QUICKACK, both, "flag", 0, 1,
        "No ACK is delayed. It stays so, where Linux forgets it.")
    add("IPPROTO_TCP", "TCP_CONGESTION", 13, OPTION_CC, both, "name", 0, 0, "The congestion control.")
    add("IPPROTO_TCP", "TCP_USER_TIMEOUT", 18, OPTION_USER_TIMEOUT_MS, both, "milliseconds", 0, 0x7FFFFFFF,
        "Give up after this long without an answer to data or probes (R2, MUST-21); 0: the stack's default.")
    add("IPPROTO_TCP", "TCP_NOTSENT_LOWAT", 25, OPTION_UNSENT_LOW_WATER, both, "bytes", 0, 1 << 30,
        "send() takes nothing while more was never sent.")


fill_table()


def options() -> dict[str, SocketOption]:
    """Every option by its name."""
    return dict(OPTIONS)


cdef str option_name(str call, object level, object number):
    """Of setsockopt's two numbers."""
    cdef object name = NUMBERS.get((level, number))
    if name is None:
        refused = REFUSED_NUMBERS.get((level, number))
        if refused is not None:
            raise StackError("unsupported", f"{call}: {REFUSED[refused]}", errno.ENOPROTOOPT)
        raise StackError("unsupported", f"{call}: no option {number!r} at level {level!r}; ustack info --options has "
                         "those there are", errno.ENOPROTOOPT)
    return name


cdef int ensure_option(str call, object name, bint listener, bint setting) except -1:
    cdef int places
    if name in REFUSED:
        raise StackError("unsupported", f"{call}: {REFUSED[name]}", errno.ENOPROTOOPT)
    if not isinstance(name, str) or name not in OPTIONS:
        raise StackError("unsupported", f"{call}: there is no option {name!r}; there are: {', '.join(OPTIONS)}",
                         errno.ENOPROTOOPT)
    places = PLACES[name]
    if setting and places & READ_ONLY:
        raise StackError("unsupported", f"{call}: {name} can be read alone", errno.ENOPROTOOPT)
    if not places & (OF_LISTENER if listener else OF_CONNECTION):
        raise StackError("unsupported", f"{call}: {name} is an option of {'connections' if listener else 'listeners'}",
                         errno.ENOPROTOOPT)
    return 0


cdef int option_code(str name) except -1:
    return CODES[name]


cdef long option_number(str call, str name, object value) except -1:
    """A value that is a whole number, within its bounds."""
    line = OPTIONS[name]
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int):
        raise TypeError(f"{call}: {name} is a whole number ({line.unit}), not {type(value).__name__}")
    if line.unit == "flag":
        return value != 0
    if not line.low <= value <= line.high:
        raise ValueError(f"{call}: {name}={value}: must be from {line.low} to {line.high} ({line.unit})")
    return value

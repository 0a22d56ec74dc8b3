# SPDX-License-Identifier: MIT
"""The events of a Poller, under epoll's names and with its numbers: those of the `select` module serve as well.

It must not: say when one happens; that is endpoint.pyx's and backlog.pyx's (events_now). Above: poller, users. Below:
nothing.
"""

from enum import IntFlag


class PollEvents(IntFlag):
    """What Poller.register() asks for, and what poll() reports (epoll_ctl(2))."""

    EPOLLIN = 0x001
    """There is something to read, or the end of the stream; a connection waits for accept()."""
    EPOLLPRI = 0x002
    """There is urgent data to read, which the peer has told of and which may still be on its way (urgent_bytes)."""
    EPOLLOUT = 0x004
    """The connection is established, and send() takes something: see Poller."""
    EPOLLERR = 0x008
    """The connection has ended with an error: SO_ERROR and `error` say which. Reported whether it was asked for or
    not."""
    EPOLLHUP = 0x010
    """Both directions have ended. Reported whether it was asked for or not."""
    EPOLLRDHUP = 0x2000
    """The peer has closed its side, or the connection has ended."""
    EPOLLONESHOT = 1 << 30
    """Not an event: once something was reported, nothing is until modify()."""
    EPOLLET = 1 << 31
    """Not an event: edge-triggered. What holds is reported once for each thing that happens, instead of as long as it
    holds."""

# SPDX-License-Identifier: MIT
"""A Poller against the kernel's epoll: the same script on sockets of the loopback interface and on two stacks on a
simulated wire, and after every step the same events.

A script is a list of steps. After each the world comes to rest (what was sent has arrived and is acknowledged), and is
polled once; so a step's name says what happens before a poll, and "look" says nothing happens. Each script runs level-
and edge-triggered. Where this stack differs, and why, is in DIFFERENCES, with both masks.

Linux's own words: epoll(7); tcp_poll in net/ipv4/tcp.c; ep_poll_callback and ep_send_events in fs/eventpoll.c.
"""

import array
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ustack import Connection, Listener, PollEvents
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, STACK_ADDRESS

IN, PRI, OUT, ERR, HUP, RDHUP = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000
ALL = IN | OUT | RDHUP
ET = 1 << 31
ONESHOT = 1 << 30
ENDED = IN | OUT | RDHUP | HUP

ADDRESS = "127.0.0.1"
REST = 60 * MILLISECOND  # beyond a delayed ACK
YIELDS = 10_000_000
SEND_BUFFER = 1 << 16
# TCP_INFO's tcpi_state
ESTABLISHED, FIN_WAIT_2, CLOSED, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 5, 7, 8, 9, 11
# Places in the kernel's struct tcp_info: tcpi_unacked (of a listener: the length of its queue), tcpi_snd_wnd
UNACKED, SND_WND = 24, 228

Step = tuple[Any, ...]


class Kernel:
    """The kernel's sockets, and select.epoll."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SEND_BUFFER)
        self.listener.bind((ADDRESS, 0))
        self.listener.listen(16)
        self.listener.setblocking(False)
        self.subject: socket.socket = self.listener
        self.peers: list[socket.socket] = []
        self.accepted: list[socket.socket] = []

    def close(self) -> None:
        self.epoll.close()
        for each in (self.listener, self.subject, *self.peers, *self.accepted):
            each.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Give the processor up until the kernel has delivered what is on its way."""
        for _ in range(YIELDS):
            if condition():
                return
            os.sched_yield()
        raise AssertionError("the kernel does not come to rest")

    @staticmethod
    def state(end: socket.socket) -> int:
        return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0]

    @staticmethod
    def amount(end: socket.socket, which: int) -> int:
        found = array.array("i", [0])
        fcntl.ioctl(end.fileno(), which, found)
        return found[0]

    @staticmethod
    def number(end: socket.socket, place: int) -> int:
        info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, place + 4)
        return int.from_bytes(info[place:], sys.byteorder)

    def waiting(self) -> int:
        """Connections that nobody has accepted yet."""
        return self.number(self.listener, UNACKED)

    def poll(self) -> int:
        found = self.epoll.poll(0)
        assert len(found) < 2
        return found[0][1] if found else 0

    # what happens

    def opens(self) -> None:
        self.subject = socket.socket()
        self.subject.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER // 2)
        self.subject.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # as ours is
        self.subject.setblocking(False)
        assert self.subject.connect_ex(self.listener.getsockname()) == errno.EINPROGRESS
        self.until(lambda: self.state(self.subject) == ESTABLISHED)
        self.until(lambda: bool(select.select([self.listener], [], [], 0)[0]))
        self.peers.append(self.listener.accept()[0])
        self.peers[0].setblocking(False)

    def is_refused(self) -> None:
        self.listener.close()
        self.subject = socket.socket()
        self.subject.setblocking(False)
        with socket.socket() as unused:
            unused.bind((ADDRESS, 0))
            port = unused.getsockname()[1]
            assert self.subject.connect_ex((ADDRESS, port)) == errno.EINPROGRESS
            self.until(lambda: self.state(self.subject) == CLOSED)

    def registers(self, events: int) -> None:
        self.epoll.register(self.subject, events)

    def modifies(self, events: int) -> None:
        self.epoll.modify(self.subject, events)

    def unregisters(self) -> None:
        self.epoll.unregister(self.subject)

    def look(self) -> None:
        pass

    def peer_sends(self, count: int, flags: int = 0) -> None:
        before = self.amount(self.subject, termios.FIONREAD)
        self.peers[0].send(bytes(count), flags)
        self.until(lambda: self.amount(self.subject, termios.FIONREAD) == before + count)

    def reads(self, count: int) -> None:
        while count:  # a read ends at the mark of urgent data, here in front of it
            count -= len(self.subject.recv(count))

    def sends(self, count: int) -> None:
        assert self.subject.send(bytes(count)) == count
        self.until(lambda: self.amount(self.subject, termios.TIOCOUTQ) == 0)

    def fills(self) -> None:
        self.until(self.is_full)

    def is_full(self) -> bool:
        """Once the window is closed and nothing is in flight, no late ACK makes room again behind what is sent then."""
        closed = self.number(self.subject, SND_WND) == self.number(self.subject, UNACKED) == 0
        with suppress(BlockingIOError):
            while True:
                self.subject.send(bytes(4096))
        return closed

    def peer_drains(self) -> None:
        while self.amount(self.subject, termios.TIOCOUTQ) or self.amount(self.peers[0], termios.FIONREAD):
            with suppress(BlockingIOError):
                self.peers[0].recv(1 << 20)

    def shuts(self, how: int = socket.SHUT_WR) -> None:
        self.subject.shutdown(how)
        if how != socket.SHUT_RD:
            self.until(lambda: self.state(self.subject) in {FIN_WAIT_2, CLOSED})

    def peer_shuts(self) -> None:
        self.peers[0].shutdown(socket.SHUT_WR)
        self.until(lambda: self.state(self.subject) in {CLOSE_WAIT, LAST_ACK, CLOSING, CLOSED})

    def peer_closes(self) -> None:
        unread = self.amount(self.peers[0], termios.FIONREAD)
        self.peers[0].close()
        self.until(lambda: self.state(self.subject) in ({CLOSED} if unread else {CLOSE_WAIT, CLOSED}))

    def peer_resets(self) -> None:
        self.peers[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peers[0].close()
        if self.subject is not self.listener:
            self.until(lambda: self.state(self.subject) == CLOSED)

    def asks_error(self) -> None:
        self.subject.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def closes(self) -> None:
        self.subject.close()

    # of listeners

    def client_comes(self) -> None:
        waiting = self.waiting()
        self.peers.append(socket.socket())
        self.peers[-1].connect(self.listener.getsockname())
        self.until(lambda: self.waiting() > waiting)  # the ACK of its handshake may still be on its way

    def accepts(self) -> None:
        self.accepted.append(self.listener.accept()[0])


class Ours:
    """Two stacks; the subject is of stack b, but for a listener."""

    def __init__(self) -> None:
        self.pair = Pair(msl_ns=0)
        self.listener: Listener = self.pair.a.listen(80, options={"SO_RCVBUF": SEND_BUFFER})
        self.poller = self.pair.a.poller()
        self.subject: Connection | Listener = self.listener
        self.peers: list[Connection] = []
        self.accepted: list[Connection] = []

    def close(self) -> None:
        for each in (*self.peers, *self.accepted):
            each.abort()
        if isinstance(self.subject, Connection):
            self.subject.abort()
        self.listener.close()
        self.poller.close()
        self.rest()
        self.pair.close()

    def rest(self) -> None:
        self.pair.advance(REST)

    @property
    def connection(self) -> Connection:
        assert isinstance(self.subject, Connection)
        return self.subject

    def poll(self) -> int:
        self.rest()
        found = self.poller.poll(0)
        assert len(found) < 2
        return int(found[0][1]) if found else 0

    # what happens

    def opens(self) -> None:
        self.poller = self.pair.b.poller()
        self.subject = self.pair.b.connect(STACK_ADDRESS, 80, wait=False, options={"SO_SNDBUF": SEND_BUFFER})
        self.subject.setblocking(False)
        self.rest()
        self.peers.append(self.listener.accept(timeout=0))
        self.peers[0].setblocking(False)

    def is_refused(self) -> None:
        self.poller = self.pair.b.poller()
        self.subject = self.pair.b.connect(STACK_ADDRESS, 81, wait=False)
        self.rest()

    def registers(self, events: int) -> None:
        self.poller.register(self.subject, events)

    def modifies(self, events: int) -> None:
        self.poller.modify(self.subject, events)

    def unregisters(self) -> None:
        self.poller.unregister(self.subject)

    def look(self) -> None:
        pass

    def peer_sends(self, count: int, flags: int = 0) -> None:
        assert self.peers[0].send(bytes(count), flags=flags) == count

    def reads(self, count: int) -> None:
        while count:  # ... and here behind it
            count -= len(self.connection.recv(count))

    def sends(self, count: int) -> None:
        assert self.connection.send(bytes(count)) == count

    def fills(self) -> None:
        taken = 1
        while taken:
            taken = 0
            with suppress(BlockingIOError):
                while True:
                    taken += self.connection.send(bytes(4096))
            self.rest()

    def peer_drains(self) -> None:
        while self.connection.unacked_bytes or self.peers[0].receivable_bytes:
            with suppress(BlockingIOError):
                self.peers[0].recv(1 << 20)
            self.rest()

    def shuts(self, how: int = socket.SHUT_WR) -> None:
        self.connection.shutdown(how)

    def peer_shuts(self) -> None:
        self.peers[0].shutdown()

    def peer_closes(self) -> None:
        self.peers[0].close()

    def peer_resets(self) -> None:
        self.peers[0].abort()

    def asks_error(self) -> None:
        self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def closes(self) -> None:
        self.connection.close()

    # of listeners

    def client_comes(self) -> None:
        self.peers.append(self.pair.b.connect(STACK_ADDRESS, 80, wait=False))

    def accepts(self) -> None:
        self.rest()
        self.accepted.append(self.listener.accept(timeout=0))


# What both do alike. "+" stands for the trigger of the run: 0, or EPOLLET.
SCRIPTS: dict[str, list[Step]] = {
    "nothing but room": [("opens",), ("registers", "+", ALL), ("look",), ("sends", 100), ("look",)],
    "data comes and is read in parts": [
        ("opens",),
        ("registers", "+", IN | RDHUP),
        ("look",),
        ("peer_sends", 10),
        ("look",),
        ("reads", 4),
        ("look",),
        ("reads", 6),
        ("look",),
        ("peer_sends", 1),
        ("look",),
    ],
    "data behind unread data is an edge": [
        ("opens",),
        ("registers", "+", IN),
        ("peer_sends", 10),
        ("look",),
        ("peer_sends", 10),
        ("look",),
        ("reads", 10),
        ("peer_sends", 10),
        ("reads", 20),
        ("look",),
    ],
    "data is no news for who waits for room": [
        ("opens",),
        ("registers", "+", OUT),
        ("look",),
        ("peer_sends", 10),
        ("reads", 10),
        ("look",),
    ],
    "all that holds is told with what is new": [("opens",), ("registers", "+", ALL), ("peer_sends", 1), ("look",)],
    "urgent data": [
        ("opens",),
        ("registers", "+", IN | PRI),
        ("peer_sends", 1, socket.MSG_OOB),
        ("look",),
        ("reads", 1),
        ("look",),
        ("peer_sends", 3),
        ("peer_sends", 2, socket.MSG_OOB),
        ("look",),
        ("reads", 4),
        ("look",),
        ("reads", 1),
        ("look",),
        ("peer_sends", 1),
        ("look",),
    ],
    "urgent data alone": [
        ("opens",),
        ("registers", "+", PRI),
        ("peer_sends", 5),
        ("peer_sends", 1, socket.MSG_OOB),
        ("look",),
        ("peer_sends", 5),
        ("reads", 6),
        ("look",),
    ],
    "what is there already is told once": [
        ("opens",),
        ("peer_sends", 5),
        ("registers", "+", ALL),
        ("look",),
        ("look",),
    ],
    "room after full": [
        ("opens",),
        ("registers", "+", OUT),
        ("look",),
        ("fills",),
        ("look",),
        ("peer_drains",),
        ("look",),
        ("fills",),
        ("peer_drains",),
        ("look",),
    ],
    "registered while full": [
        ("opens",),
        ("fills",),
        ("registers", "+", ALL),
        ("look",),
        ("peer_drains",),
        ("look",),
        ("peer_sends", 3),
        ("look",),
    ],
    "full, and data comes": [
        ("opens",),
        ("registers", "+", ALL),
        ("fills",),
        ("peer_sends", 5),
        ("look",),
        ("reads", 5),
        ("look",),
        ("peer_drains",),
        ("look",),
    ],
    "the peer's FIN": [
        ("opens",),
        ("registers", "+", ALL),
        ("look",),
        ("peer_shuts",),
        ("look",),
        ("sends", 10),
        ("look",),
    ],
    "the peer's FIN behind unread data": [
        ("opens",),
        ("registers", "+", IN | RDHUP),
        ("peer_sends", 7),
        ("look",),
        ("peer_shuts",),
        ("look",),
        ("reads", 7),
        ("look",),
        ("reads", 0),
        ("look",),
    ],
    "RDHUP alone": [
        ("opens",),
        ("registers", "+", RDHUP),
        ("look",),
        ("peer_sends", 7),
        ("look",),
        ("peer_shuts",),
        ("look",),
    ],
    "the peer's FIN for who waits for room": [
        ("opens",),
        ("registers", "+", OUT),
        ("look",),
        ("peer_shuts",),
        ("look",),
    ],
    "our FIN, then the peer's": [
        ("opens",),
        ("registers", "+", ALL),
        ("look",),
        ("shuts",),
        ("look",),
        ("peer_sends", 3),
        ("look",),
        ("reads", 3),
        ("peer_shuts",),
        ("look",),
    ],
    "the peer's FIN, then ours": [
        ("opens",),
        ("registers", "+", ALL),
        ("peer_shuts",),
        ("look",),
        ("shuts",),
        ("look",),
    ],
    "our FIN when nobody asked for anything": [
        ("opens",),
        ("registers", "+", 0),
        ("look",),
        ("peer_sends", 3),
        ("peer_shuts",),
        ("look",),
        ("shuts",),
        ("look",),
    ],
    "our FIN twice": [("opens",), ("registers", "+", ALL), ("shuts",), ("look",), ("shuts",), ("look",)],
    "a reset": [("opens",), ("registers", "+", ALL), ("look",), ("peer_resets",), ("look",), ("look",)],
    "a reset with unread data": [
        ("opens",),
        ("registers", "+", ALL),
        ("peer_sends", 5),
        ("peer_resets",),
        ("look",),
    ],
    "a reset when nobody asked for anything": [("opens",), ("registers", "+", 0), ("peer_resets",), ("look",)],
    "a reset before it is registered": [("opens",), ("peer_resets",), ("registers", "+", IN), ("look",)],
    "a close of the peer": [("opens",), ("registers", "+", ALL), ("look",), ("peer_closes",), ("look",)],
    "a close of the peer that left something unread": [
        ("opens",),
        ("registers", "+", ALL),
        ("sends", 10),
        ("peer_closes",),
        ("look",),
    ],
    "refused": [("is_refused",), ("registers", "+", ALL), ("look",)],
    "refused, for who waits for room": [("is_refused",), ("registers", "+", OUT), ("look",)],
    "modified": [
        ("opens",),
        ("registers", "+", IN),
        ("look",),
        ("modifies", "+", OUT),
        ("look",),
        ("modifies", "+", OUT),
        ("look",),
        ("peer_sends", 5),
        ("modifies", "+", IN),
        ("look",),
        ("modifies", "+", 0),
        ("look",),
    ],
    "once, until it is modified": [
        ("opens",),
        ("registers", "+", IN | ONESHOT),
        ("peer_sends", 5),
        ("look",),
        ("peer_sends", 5),
        ("look",),
        ("modifies", "+", IN | ONESHOT),
        ("look",),
        ("reads", 10),
        ("modifies", "+", IN | ONESHOT),
        ("peer_shuts",),
        ("look",),
    ],
    "disarmed, even for the end": [
        ("opens",),
        ("registers", "+", ALL | ONESHOT),
        ("look",),
        ("peer_resets",),
        ("look",),
        ("modifies", "+", 0),
        ("look",),
    ],
    "unregistered": [
        ("opens",),
        ("registers", "+", ALL),
        ("unregisters",),
        ("peer_sends", 5),
        ("look",),
        ("registers", "+", IN),
        ("look",),
    ],
    "closed": [("opens",), ("registers", "+", ALL), ("peer_sends", 5), ("closes",), ("look",)],
    "a listener": [
        ("registers", "+", IN),
        ("look",),
        ("client_comes",),
        ("look",),
        ("client_comes",),
        ("look",),
        ("accepts",),
        ("look",),
        ("accepts",),
        ("look",),
        ("client_comes",),
        ("accepts",),
        ("look",),
    ],
    "a listener with clients already": [
        ("client_comes",),
        ("client_comes",),
        ("registers", "+", IN | OUT | RDHUP),
        ("look",),
        ("accepts",),
        ("accepts",),
        ("look",),
    ],
    "a listener that is armed once": [
        ("registers", "+", IN | ONESHOT),
        ("client_comes",),
        ("client_comes",),
        ("look",),
        ("modifies", "+", IN | ONESHOT),
        ("look",),
    ],
}

# What Linux does otherwise, and why we do not: (script, kernel's last mask, ours), level-triggered.
DIFFERENCES: dict[str, tuple[list[Step], int, int]] = {
    # Its SO_ERROR is cleared by being asked for. Ours says for ever what ended the connection, so that it can be asked
    # for by whoever comes later; EPOLLERR stays with it.
    "SO_ERROR has been asked for": (
        [("opens",), ("registers", ALL), ("peer_resets",), ("asks_error",)],
        ENDED,
        ENDED | ERR,
    ),
    # SHUT_RD closes nothing that TCP knows: nobody is told, and data still comes. There it only makes read() return 0.
    "SHUT_RD": ([("opens",), ("registers", ALL), ("shuts", socket.SHUT_RD)], IN | OUT | RDHUP, OUT),
    "SHUT_RDWR": ([("opens",), ("registers", ALL), ("shuts", socket.SHUT_RDWR)], ENDED, OUT),
    # A reset flushes all queues (RFC 9293 section 3.10.7.4); there the mark of urgent data stays.
    "a reset with urgent data unread": (
        [("opens",), ("registers", ALL | PRI), ("peer_sends", 9, socket.MSG_OOB), ("peer_resets",)],
        ENDED | ERR | PRI,
        ENDED | ERR,
    ),
    # A connection that was reset before accept() is not handed out here (Listener.lost).
    "a reset before accept()": ([("registers", IN), ("client_comes",), ("peer_resets",)], IN, 0),
}


def run(world: Kernel | Ours, script: list[Step], trigger: int) -> list[tuple[Step, str]]:
    """What poll() says after each step."""
    said = []
    for step in script:
        name, *arguments = step
        if "+" in arguments:
            arguments = [trigger | arguments[-1]]
        getattr(world, name)(*arguments)
        said.append((step, str(PollEvents(world.poll()))))
    return said


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


@pytest.fixture
def ours() -> Iterator[Ours]:
    made = Ours()
    yield made
    made.close()


@pytest.mark.parametrize("trigger", [0, ET], ids=["level", "edge"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_every_step_has_epolls_events(kernel: Kernel, ours: Ours, script: list[Step], trigger: int) -> None:
    assert run(ours, script, trigger) == run(kernel, script, trigger)


@pytest.mark.parametrize("case", DIFFERENCES.values(), ids=DIFFERENCES)
def test_where_it_differs_it_does_as_said(kernel: Kernel, ours: Ours, case: tuple[list[Step], int, int]) -> None:
    script, kernels, own = case
    assert run(kernel, script, 0)[-1][1] == str(PollEvents(kernels))
    assert run(ours, script, 0)[-1][1] == str(PollEvents(own))


def test_numbers_are_epolls() -> None:
    assert {each.name: each.value for each in PollEvents} == {
        each.name: getattr(select, str(each.name)) for each in PollEvents
    }

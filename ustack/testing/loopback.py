# SPDX-License-Identifier: MIT
"""A transport over the kernel's sockets with clients in the same process, over the loopback interface.

    loopback = Loopback(HttpServer("site"), strategy="poll")
    end = loopback.open()
    end.send(b"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
    loopback.settle()
    end.receive()

The transport's clock is manual, the kernel's is not: applications' timeouts come in advance(), retransmissions do not.
On loopback a segment is in its receiver's queue when the sender's system call returns, or as soon as the kernel's
softirq thread has had the processor: settle() asks the kernel what has not arrived yet, and gives the processor up.

It must not: sleep, or look at a clock. Above: tests. Below: kernel.
"""

import array
import errno
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress

from ustack.application import Application
from ustack.errors import WouldBlock, error_of
from ustack.kernel.transport import KernelTransport

ADDRESS = "127.0.0.1"
YIELDS = 200  # a reader that has stopped, or a window that is full, never acknowledges
SETTLE_TURNS = 100_000
TCP_UNACKED = 24  # offset of tcpi_unacked in the kernel's struct tcp_info


class LoopbackEnd:
    """A client's end: a kernel's socket with the calls of the other kinds of clients (memory, Connection)."""

    def __init__(self, port: int, receive_bytes: int = 0) -> None:
        """receive_bytes: of its receive buffer, which the kernel doubles; 0: as the kernel chooses."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            self.socket.connect((ADDRESS, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.socket.getsockname()[1]
        self._unsent = b""
        self._fin_wanted = False

    def send(self, octets: bytes) -> int:
        """As much as the kernel takes now; the rest goes as it takes more."""
        if self.socket.fileno() < 0 or self._fin_wanted:
            raise error_of("aborted", "send() after the end")
        self._unsent += octets
        self.push()
        return len(octets)

    def push(self) -> int:
        """What waits to be sent. The number of bytes that went."""
        sent = 0
        try:
            while self._unsent:
                step = self.socket.send(self._unsent)
                self._unsent = self._unsent[step:]
                sent += step
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # receive() tells
        if self._fin_wanted and not self._unsent and self.socket.fileno() >= 0:
            self._fin_wanted = False
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
        return sent

    def receive(self, max_bytes: int = 65536, timeout: float | None = 0) -> bytes:
        """What has come, b"" at the end. Raises WouldBlock, or the connection's end if it was a reset."""
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            raise WouldBlock("would_block", "receive(): nothing came", errno.EAGAIN) from None
        except ConnectionResetError:
            raise error_of("reset", "loopback") from None

    def shutdown(self) -> None:
        """No more data from here: a FIN behind what waits to be sent."""
        self._fin_wanted = True
        self.push()

    def close(self) -> None:
        """Done with both directions."""
        self.socket.close()

    def abort(self) -> None:
        """Reset the connection. Idempotent."""
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()

    def under_way(self) -> int:
        """Bytes and FINs that the kernel has not delivered to the other end."""
        if self.socket.fileno() < 0:
            return 0
        waiting = array.array("i", [0])
        fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, waiting)
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return waiting[0] + int(struct.unpack_from("I", info, TCP_UNACKED)[0])


class Loopback:
    """An application behind a KernelTransport on 127.0.0.1, a port that the kernel chooses, and a manual clock."""

    def __init__(self, application: Application, strategy: str = "epoll-lt", **options: int) -> None:
        """options: KernelTransport's."""
        options.setdefault("now_ns", 1_000_000_000)
        self.now_ns = options["now_ns"]
        self.transport = KernelTransport(strategy, **options)  # type: ignore[arg-type]
        self.listener = self.transport.listen(0, application=application, address=ADDRESS)
        self.ends: list[LoopbackEnd] = []

    def open(self, receive_bytes: int = 0) -> LoopbackEnd:
        """A client's end of a new connection; on_accept comes with the next turn."""
        self.ends.append(LoopbackEnd(self.listener.port, receive_bytes))
        return self.ends[-1]

    def poll(self) -> int:
        """One turn, without time passing."""
        return self.transport.poll(self.now_ns)

    def settle(self) -> None:
        """Turns, without time passing, until nothing happens any more and nothing is on its way to the server."""
        yields = 0
        for _ in range(SETTLE_TURNS):
            if self.poll() + sum(end.push() for end in self.ends):
                continue
            if yields == YIELDS or not any(end.under_way() for end in self.ends):
                return
            yields += 1
            os.sched_yield()
        raise AssertionError("the application does not come to rest")

    def advance(self, duration_ns: int) -> None:
        """Let time pass from timeout to timeout."""
        until = self.now_ns + duration_ns
        self.settle()
        while (at := self.transport.next_deadline_ns) is not None and at <= until:
            self.now_ns = max(at, self.now_ns)
            self.settle()
        self.now_ns = until
        self.settle()

    def close(self) -> None:
        """Everything, and what it has opened. Idempotent."""
        for end in self.ends:
            end.abort()
        self.ends.clear()
        self.transport.close()

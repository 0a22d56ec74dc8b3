# SPDX-License-Identifier: MIT
"""A client's end of a connection in memory: what test code sends, has received, and how it ended.

It must not: reach into the transport. Everything here is seen by the next turn. Below: errors. Above: memory_transport.
"""

import errno

from ustack.errors import WouldBlock, error_of


cdef class MemoryClient:
    """A client's end of a connection, made by MemoryTransport.open(). What it does, the application sees in the next
    turn (poll, settle).

    received: bytes that came and were not yet received. window_bytes: the most of them; more stays with the sender.
    segment_bytes: what send() is given is split into segments of at most so many bytes; 0: not at all.
    """

    def __init__(self):
        raise TypeError("use MemoryTransport.open()")

    def send(self, *segments: bytes) -> int:
        """Each argument arrives as a segment of its own: on_data is called for each of them. The number of bytes."""
        self.raise_failure()
        if self.fin_sent:
            raise error_of("aborted", "send() after shutdown()")
        for segment in segments:
            step = self.segment_bytes or len(segment)
            for at in range(0, len(segment), step or 1):
                self.segments.append(bytes(segment[at:at + step]))
        return sum(map(len, segments))

    def receive(self, max_bytes: int = 65536, timeout: float | None = 0) -> bytes:
        """What has come, at most max_bytes; b"" at the end. BlockingIOError: nothing is there now. Raises the
        connection's end if it was a reset."""
        if not self.received:
            if self.fin_received:
                return b""
            self.raise_failure()
            raise WouldBlock("would_block", "receive(): nothing came", errno.EAGAIN)
        found = bytes(self.received[:max_bytes])
        del self.received[:max_bytes]
        return found

    def shutdown(self) -> None:
        """No more data from here: the application sees the end behind what was sent."""
        self.fin_sent = True

    def close(self) -> None:
        """Done with both directions: what still comes is answered with a reset."""
        self.fin_sent = True
        if self.received:
            self.abort()

    def abort(self) -> None:
        """Reset the connection. Idempotent."""
        self.wants_reset = True

    @property
    def ended(self) -> bool:
        """The application has heard of the end (on_closed)."""
        return self.gone

    cdef int raise_failure(self) except -1:
        if self.failure is not None:
            raise self.failure
        return 0

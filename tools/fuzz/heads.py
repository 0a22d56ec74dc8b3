# SPDX-License-Identifier: MIT
"""HTTP conversations of one client, split anywhere: heads, bodies, chunks, whatever comes.

An input: a byte that says how it is split (split_by), one of what else is done (DOES), then what the client sends. The
server has it twice, in one piece and in pieces, and must say the same, byte for byte. Nothing may end in a 500, stay
lent, or raise. Two things may differ: 100 Continue is sent only if the body has not come yet (RFC 9110 section 10.1.1),
and of a request with several faults the one that is seen first gives the status of the refusal that ends it all.
"""

from __future__ import annotations

from pathlib import Path

import ustack
from ustack.buf import lent
from ustack.server.http import HttpServer
from ustack.testing.memory_transport import MemoryTransport
from ustack.tools.fuzz.target import Target

SECOND_NS = 1_000_000_000
WALL_NS = 1_700_000_000 * SECOND_NS
SEGMENT_BYTES = 16384
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TURNS_MAX = 2000
PIECES_MAX = 40
# Bits of the second byte.
ENDS_FIRST = 1  # the client's FIN follows what it sends
READS_LITTLE = 2  # ... and it takes a response in small parts
GREETS_FIRST = 4  # an ordinary request before it, on the same server: its head and file are remembered
IS_SENT_TWICE = 8
HOLDS_LITTLE = 16  # the server's own limits are small


def split_by(how: int, text: bytes) -> list[bytes]:
    """Up to 63: into segments of so many bytes and one more. Beyond: by a row of numbers that begins with it. What is
    left behind PIECES_MAX comes in one piece."""
    pieces: list[bytes] = []
    at, state = 0, how
    while at < len(text):
        if how >= 64:
            state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        size = 1 + (how if how < 64 else (state >> 16) % (how - 62))
        if len(pieces) == PIECES_MAX:
            size = len(text)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def without_refusal(said: bytes) -> tuple[bytes, bool]:
    """What comes before a refusal that ends the conversation; whether there is one."""
    at = said.rfind(b"HTTP/1.1 ")
    head = said[at:].partition(b"\r\n\r\n")[0] if at >= 0 else b""
    if head[9:10] in (b"4", b"5") and b"\r\nConnection: close" in head:
        return said[:at], True
    return said, False


class Heads(Target):
    """HTTP conversations."""

    def __init__(self) -> None:
        self.site = Path(ustack.__file__).parent / "site"

    def one(self, data: bytes) -> None:
        """See the module."""
        if len(data) < 3:
            return
        how, does, text = data[0], data[1], data[2:]
        if does & IS_SENT_TWICE:
            text = text * 2
        whole = [text[at : at + SEGMENT_BYTES] for at in range(0, len(text), SEGMENT_BYTES)]
        first = self.conversation(whole, does)
        second = self.conversation(split_by(how, text), does)
        assert without_refusal(first) == without_refusal(second), f"split by {how}:\n{second!r}\nat once:\n{first!r}"
        assert b"HTTP/1.1 500" not in first + second

    def conversation(self, pieces: list[bytes], does: int) -> bytes:
        """What the server says."""
        alive = lent.alive()
        transport = MemoryTransport(send_queue_bytes=4096 if does & READS_LITTLE else 1 << 20, low_water_bytes=1)
        small = {"max_head_bytes": 300, "max_request_line_bytes": 100, "max_header_count": 5, "max_body_bytes": 200}
        with HttpServer(
            self.site,
            hash_key=b"0123456789abcdef",
            wall_clock=lambda: WALL_NS + transport.now_ns,
            max_heads=16,
            max_files=16,
            log_lines=16,
            max_header_sections=4,
            **(small if does & HOLDS_LITTLE else {}),  # type: ignore[arg-type]
        ) as server:
            transport.listen(80, server)
            if does & GREETS_FIRST:
                talk(transport, [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"] * 3, 0)
            said = talk(transport, pieces, does)
            transport.close()
        assert lent.alive() == alive, "something stays lent"
        return said.replace(CONTINUE, b"")


def talk(transport: MemoryTransport, pieces: list[bytes], does: int) -> bytes:
    """One client's conversation, to its end."""
    client = transport.open(80, window_bytes=700 if does & READS_LITTLE else 1 << 20)
    said = bytearray()
    transport.settle()
    for piece in pieces:
        if client.ended:
            break
        client.send(piece)
        transport.settle()
        said += drained(client)
    if does & ENDS_FIRST and not client.ended:
        client.shutdown()
    for _ in range(TURNS_MAX):
        transport.settle()
        some = drained(client)
        said += some
        if not some:
            break
    else:
        raise AssertionError("a response does not end")
    transport.advance(100 * SECOND_NS)  # beyond every timeout
    said += drained(client)
    client.close()
    transport.settle()
    transport.advance(100 * SECOND_NS)
    assert client.ended, "a connection outlives its client and its timeouts"
    return bytes(said)


def drained(client: object) -> bytes:
    """What has come, taken."""
    received: bytearray = client.received  # type: ignore[attr-defined]
    some = bytes(received)
    received.clear()
    return some

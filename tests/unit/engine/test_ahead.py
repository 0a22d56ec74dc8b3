# SPDX-License-Identifier: MIT
"""A look ahead over a burst changes nothing: what comes out is what comes out when each frame is a burst of its own."""

import random

import pytest

from ustack import Stack
from ustack.link.memory import MemoryLink
from ustack.wire import ipv4, tcp

OURS = bytes([10, 0, 0, 2])
MAC, FAR_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
FLOWS = 1200  # some of which end: more than AHEAD_FLOWS_MIN
SYN, ACK, RST = 0x02, 0x10, 0x04


def packet(source: bytes, port: int, seq: int, ack: int, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
    """An IPv4 packet for port 80, its transport checksum left to the device."""
    segment = tcp.emit(port, 80, seq, ack, flags, 1000) + data
    length = 20 + len(options) + len(segment)
    header = ipv4.emit(source, OURS, tos=0, ttl=64, protocol=6, total_length=length, identification=1, fragment=0)
    if options:
        header = with_options(header, options)
    return header + segment


def with_options(header: bytes, options: bytes) -> bytes:
    """The header with its length and checksum set anew."""
    longer = bytearray(header + options)
    longer[0] = 0x40 | len(longer) // 4
    longer[10:12] = b"\0\0"
    total = sum(int.from_bytes(longer[i : i + 2], "big") for i in range(0, len(longer), 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    longer[10:12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(longer)


def frame(payload: bytes, ethertype: int = 0x0800) -> bytes:
    return MAC + FAR_MAC + ethertype.to_bytes(2, "big") + payload


def source_of(number: int) -> bytes:
    return bytes([10, 1, 0, 3 + number % 200])


def frames_of_every_kind(seed: int) -> list[bytes]:
    """Segments of half-open connections and of nobody, between frames that are cut, tagged, or of other protocols."""
    rng = random.Random(seed)
    frames = []
    for _ in range(400):
        number = rng.randrange(FLOWS + 50)
        numbers = rng.choice((1, 2, 77)), rng.randrange(2**32)
        plain = packet(source_of(number), 2000 + number, *numbers, rng.choice((ACK, RST, SYN)))
        frames.append(
            rng.choice(
                (
                    frame(plain),
                    frame(plain),
                    frame(plain)[: rng.randrange(60)],
                    frame(plain, 0x86DD),
                    frame(b"\0\0\x08\0" + plain, 0x8100),
                    frame(packet(source_of(number), 2000 + number, 1, 1, ACK, options=b"\1\1\1\1")),
                    frame(packet(source_of(number), 2000 + number, 1, 1, ACK)[:20] + bytes(rng.randrange(20))),
                    frame(b"\x45" + bytes(59)),
                )
            )
        )
    return frames


def outcome(frames: list[bytes], burst: int) -> tuple[dict[str, int], list[bytes]]:
    """Counters and answers of a stack with FLOWS half-open connections that gets so many frames in each poll."""
    now_ns = 0
    with MemoryLink() as link, Stack(link, "10.0.0.2/24", "10.0.0.1", seed=1, now_ns=now_ns) as stack:
        stack.listen(80, backlog=4096)
        for first in range(0, FLOWS, 50):
            for number in range(first, first + 50):
                link.inject(frame(packet(source_of(number), 2000 + number, 0, 0, SYN)), checksum="verified")
            stack.poll(now_ns)
            assert link.receive_packet() is None or first  # the gateway is asked for, and answers
            link.receive_all()
        assert stack.counters()["syn_queue_evicted"] == 0
        answers = []
        for first in range(0, len(frames), burst):
            for one in frames[first : first + burst]:
                assert link.inject(one, checksum="verified")
            stack.poll(now_ns)
            answers += link.receive_all()
        counters = stack.counters()
    return counters, answers


@pytest.mark.parametrize("seed", range(4))
def test_bursts_of_any_frames_are_processed_as_single_frames_are(seed: int):
    frames = frames_of_every_kind(seed)
    counters, answers = outcome(frames, 64)
    assert (counters, sorted(answers)) == ((alone := outcome(frames, 1))[0], sorted(alone[1]))
    assert counters["frames_in"] == FLOWS + len(frames) + 1  # the gateway's answer
    assert answers

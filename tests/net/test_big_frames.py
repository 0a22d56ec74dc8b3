# SPDX-License-Identifier: MIT
"""Super-frames beyond 64 KB (IPv4 BIG TCP), which a local peer sends only if somebody has allowed it."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ustack.lab.links import End, limit_super_frames

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ROOM = 1 << 22
DATA = bytes(range(251)) * 100_000


def upload(one: Any, until: Callable[[], bool]) -> bytes:
    """Send DATA from the kernel to the stack until something holds; what has arrived by then."""
    listener = one.stack.listen(9)
    client = one.connect(port=9)
    one.drive(lambda: one.established(client))
    connection = listener.accept()
    client.setblocking(False)
    sent, got = 0, bytearray()

    def step() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += client.send(DATA[sent : sent + (1 << 20)])
        with contextlib.suppress(TimeoutError):
            while piece := connection.receive(1 << 20, timeout=0.0005):
                got.extend(piece)
        return until() or len(got) == len(DATA)

    one.drive(step)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    return bytes(got)


def test_a_frame_that_no_slot_holds_is_dropped_whole_and_counted(local: Callable[..., Any]) -> None:
    one = local("veth", rcv_buffer_bytes=ROOM)
    limit_super_frames(End(one.netns, one.peer_ifname), 200_000)
    got = upload(one, lambda: one.device.counters()["rx_truncated"] > 0)
    assert one.device.counters()["rx_truncated"] > 0
    assert one.counter("drop_frame_truncated") == one.device.counters()["rx_truncated"]
    assert got == DATA[: len(got)]


def test_a_lab_keeps_its_peer_to_what_the_slots_hold(local: Callable[..., Any]) -> None:
    one = local("veth", rcv_buffer_bytes=ROOM)
    got = upload(one, lambda: False)
    assert got == DATA
    assert one.device.counters()["rx_truncated"] == 0

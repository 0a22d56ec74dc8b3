# SPDX-License-Identifier: MIT
"""What the setting `measure` counts, beside what the kernel's TCP_INFO says of the other end of the same connection."""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from ustack.testing.testbed import read_available

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

BYTES = 1 << 20
ROOM = 1 << 16  # what is in flight finds room in any ring
# struct tcp_info of <linux/tcp.h>: offset and format.
KERNELS = {
    "segs_out": (136, "I"), "segs_in": (140, "I"), "data_segs_in": (152, "I"), "data_segs_out": (156, "I"),
    "rwnd_limited": (176, "Q"), "bytes_sent": (200, "Q"), "bytes_retrans": (208, "Q"),
}  # fmt: skip


def kernels(client: socket.socket) -> dict[str, int]:
    told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return {name: struct.unpack_from("=" + form, told, at)[0] for name, (at, form) in KERNELS.items()}


def opened(one: Any, **options: Any) -> tuple[Any, socket.socket]:
    """A connection that the kernel opens: our end, and its."""
    with one.stack.listen(80) as listener:
        client = one.connect(**options)
        one.drive(lambda: listener.pending)
        connection = listener.accept(timeout=0)
    one.drive(lambda: one.established(client))
    return connection, client


def push(one: Any, client: socket.socket, connection: Any) -> None:
    """Bytes from the kernel."""
    left, size = memoryview(bytes(BYTES)), 0

    def step() -> bool:
        nonlocal left, size
        with suppress(BlockingIOError):
            left = left[client.send(left) :]
        size += len(read_available(connection)[0])
        return size == BYTES

    one.drive(step)


def test_segments_are_those_that_the_kernel_counts(local: Callable[..., Any], link: str) -> None:
    """Data both ways, in frames of many segments where the link has them: what one end sends the other receives."""
    one = local(link, measure=1, snd_queue_bytes=BYTES, rcv_buffer_bytes=ROOM, rcv_buffer_max_bytes=ROOM)
    connection, client = opened(one, receive_buffer=BYTES)
    push(one, client, connection)
    connection.send(bytes(BYTES))
    assert one.read_all(client, BYTES) == bytes(BYTES)
    one.drive(lambda: connection.unacked_bytes == 0)
    # An ACK may still be on its way. The SYN and the SYN-ACK are counted by the kernel, who has opened.
    one.drive(lambda: connection.info().segs_in == kernels(client)["segs_out"] - 1)
    ours, theirs = connection.info(), kernels(client)
    assert ours.data_segs_in == theirs["data_segs_out"]
    assert ours.segs_out - ours.data_segs_out == theirs["segs_in"] - theirs["data_segs_in"] - 1
    # To the kernel a frame of ours that no device has cut may be one segment, however large: through TAP it is.
    assert -(-BYTES // 65536) <= theirs["data_segs_in"] <= ours.data_segs_out
    assert ours.data_segs_out >= -(-BYTES // 1448)
    assert ours.bytes_sent - ours.bytes_retrans == BYTES
    assert theirs["bytes_sent"] - theirs["bytes_retrans"] == BYTES
    assert ours.rcv_mss_bytes == ours.snd_mss_bytes
    assert ours.delivery_rate
    connection.abort()


def test_a_kernel_that_does_not_read_limits_by_its_window_and_so_do_we(local: Callable[..., Any], link: str) -> None:
    """Each end in turn is the one that does not read: who sends says that it waits for a window."""
    one = local(link, measure=1, snd_queue_bytes=BYTES, rcv_buffer_bytes=8192, rcv_buffer_max_bytes=8192)
    connection, client = opened(one, receive_buffer=8192)
    connection.send(bytes(BYTES))
    one.drive(lambda: connection.info().rwnd_limited_us >= 50_000)
    assert connection.info().busy_time_us >= connection.info().rwnd_limited_us
    with suppress(BlockingIOError):
        client.send(bytes(BYTES))
    one.drive(lambda: kernels(client)["rwnd_limited"] >= 50_000)
    connection.abort()

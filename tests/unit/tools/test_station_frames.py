# SPDX-License-Identifier: MIT
"""station_frames: segments, read by scapy; what is sent and what is heard, over a socket pair of packets."""

import random
import socket

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from ustack.testing.segment import flags_to_int
from ustack.tools.station_frames import SegmentMaker, hear, hear_only, send_frames

OURS = bytes.fromhex("020000000001")
THEIRS = bytes.fromhex("020000000002")


def maker(**changed: object) -> SegmentMaker:
    fields = {"source": "198.18.0.77", "target": "198.18.0.2", "port": 80, "mss": 1400, **changed}
    return SegmentMaker(OURS, THEIRS, **fields)  # type: ignore[arg-type]


def test_a_segment_has_what_was_asked_for() -> None:
    frame = Ether(maker().frame(1234, 2**32 + 5, -1, flags_to_int("PA"), 77, b"payload"))
    assert (frame.src, frame.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    assert (frame[IP].src, frame[IP].dst, frame[IP].len) == ("198.18.0.77", "198.18.0.2", 47)
    found = frame[TCP]
    assert (found.sport, found.dport, found.seq, found.ack, found.window) == (1234, 80, 5, 2**32 - 1, 77)
    assert found.flags == "PA"
    assert bytes(found.payload) == b"payload"


def test_a_syn_offers_what_a_client_offers() -> None:
    frame = Ether(maker().frame(1, 2, 0, flags_to_int("S"), 65535))
    assert dict(frame[TCP].options) == {"MSS": 1400, "NOP": None, "SAckOK": b"", "WScale": 7}


def test_the_checksums_are_what_scapy_computes() -> None:
    generator = random.Random(3)
    for length in (0, 1, 2, 33, 1459, 1460):
        made = maker().frame(
            generator.randrange(65536), generator.getrandbits(32), generator.getrandbits(32), 0x10,
            generator.randrange(65536), generator.randbytes(length),
        )  # fmt: skip
        frame = Ether(made)
        del frame[TCP].chksum
        del frame[IP].chksum
        assert bytes(Ether(bytes(frame))) == made


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"port": 65536}, {"source": "198.18.0"}, {"target": "2001:2::1"}, {"mss": 70_000}]
)
def test_what_cannot_be_a_segment(wrong: dict[str, object]) -> None:
    with pytest.raises((ValueError, OverflowError, OSError)):
        maker(**wrong)


def test_a_payload_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="1460"):
        maker().frame(1, 2, 3, 0x10, 4, bytes(1461))


def test_frames_go_whole_in_order_and_until_there_is_no_room() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        frames = [b"%d" % number * 40 for number in range(1000)]
        went = send_frames(near.fileno(), frames)
        assert 0 < went < 1000
        assert [far.recv(4096) for _ in range(went)] == frames[:went]
        assert send_frames(near.fileno(), []) == 0


def test_what_is_no_frame() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, pytest.raises(TypeError):
        send_frames(near.fileno(), [b"good", "bad"])  # type: ignore[list-item]


def test_sending_through_what_is_no_socket() -> None:
    with pytest.raises(OSError, match="Bad file"):
        send_frames(-1, [b"x"])


def test_only_arp_and_our_own_frames_are_heard() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        hear_only(far.fileno(), OURS)
        ours = OURS + THEIRS + b"\x08\x00" + b"ours"
        arp = b"\xff" * 6 + THEIRS + b"\x08\x06" + b"arp"
        almost = [OURS[:5] + b"\x09" + THEIRS + b"\x08\x00", b"\x06" + OURS[1:] + THEIRS + b"\x08\x00", b"short"]
        for frame in [THEIRS + OURS + b"\x08\x00" + b"theirs", ours, *almost, arp]:
            near.send(frame)
        assert [far.recv(4096), far.recv(4096)] == [ours, arp]
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(4096)


def test_what_is_heard() -> None:
    segment = maker().frame(4321, 2**32 - 2, 9, 0x18, 5, b"four")
    arp = b"\xff" * 6 + THEIRS + b"\x08\x06" + b"arp"
    broken = [segment[:40], segment[:-1], b"\x08", OURS + THEIRS + b"\x88\xb5" + bytes(60), segment[:14] + bytes(40)]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        assert hear(far.fileno()) == []
        send_frames(near.fileno(), [*broken, segment, arp])
        assert hear(far.fileno()) == [(80, 2**32 - 2, 0x18, 4), arp]
        assert hear(far.fileno()) == []
    with pytest.raises(OSError, match="Bad file"):
        hear(-1)


def test_a_mac_address_has_six_bytes() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, pytest.raises(ValueError, match="6 bytes"):
        hear_only(near.fileno(), b"short")

# SPDX-License-Identifier: MIT
"""Every truncation and the single-byte mutations of a set of valid frames, against a listener and a live connection.

Each byte of each frame is replaced by: itself with one bit flipped (eight values), 0x00, 0xFF and two seeded values;
all 255 others for every byte would be twenty times as many frames. Each mutation is sent twice: as it is, so that
mostly a checksum catches it, and with the IPv4, ICMP and TCP checksums made right again, so that the code behind them
sees it.

Every frame must be used or counted under exactly one drop reason, must not be answered wrongly (see check_answers) and
must not break anything: the connection that was there works afterwards, or was ended by a frame that may do so.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ustack.testing.leaks import difference, refusals
from ustack.testing.segment import (
    PROTOCOL_ICMP,
    PROTOCOL_TCP,
    build_arp,
    build_frame,
    build_icmp,
    build_icmp_error,
    flags_to_int,
    internet_checksum,
    ipv4_bytes,
    ipv4_header,
    mac_bytes,
)
from ustack.testing.states import ALL_OPTIONS, PEER_PORT, STACK_PORT, SYN_OPTIONS, Scene, established
from ustack.testing.testbed import BROADCAST_MAC, PEER_ADDRESS, PEER_MAC, STACK_ADDRESS

NEW_PORT = PEER_PORT + 1
CLOSED_PORT = 81


def scene_for_fuzz() -> Scene:
    """A listener and an established connection with data in flight, so that ICMP errors about it are credible."""
    scene = established(options=ALL_OPTIONS)
    scene.send(b"in flight")
    scene.peer.catch_up()
    scene.peer.rcv_nxt = 1
    scene.testbed.frames.clear()
    return scene


# ---------------------------------------------------------------- the valid frames


def arp_request(scene: Scene) -> bytes:
    return build_arp(operation=1, sender_mac=PEER_MAC, sender=PEER_ADDRESS, target=STACK_ADDRESS, dst_mac=BROADCAST_MAC)


def arp_reply(scene: Scene) -> bytes:
    mac = scene.testbed.stack_mac
    return build_arp(
        operation=2, sender_mac=PEER_MAC, sender=PEER_ADDRESS, target=STACK_ADDRESS, target_mac=mac, dst_mac=mac
    )


def echo_request(scene: Scene) -> bytes:
    return build_icmp(
        8, 0, b"\x12\x34\x00\x01", b"payload of a ping", src=PEER_ADDRESS, dst=STACK_ADDRESS,
        src_mac=PEER_MAC, dst_mac=scene.testbed.stack_mac,
    )  # fmt: skip


def icmp_error(icmp_type: int, code: int, mtu: int = 0) -> Callable[[Scene], bytes]:
    def build(scene: Scene) -> bytes:
        quoted = scene.peer.from_stack("PA", seq=1, payload=b"in flight")
        quoted = replace(quoted, options={"nop": 2, "timestamps": (1, 1)})
        return build_icmp_error(
            icmp_type, code, build_frame(quoted, src_mac=scene.testbed.stack_mac, dst_mac=PEER_MAC), mtu=mtu,
            src=PEER_ADDRESS, dst=STACK_ADDRESS, src_mac=PEER_MAC, dst_mac=scene.testbed.stack_mac,
        )  # fmt: skip

    return build


def segment_of_connection(flags: str, **fields: object) -> Callable[[Scene], bytes]:
    def build(scene: Scene) -> bytes:
        return scene.peer.frame(scene.peer.segment(flags, **fields))  # type: ignore[arg-type]

    return build


def syn(port: int, options: dict[str, object]) -> Callable[[Scene], bytes]:
    def build(scene: Scene) -> bytes:
        segment = scene.peer.segment("S", options=options, dport=port)
        return scene.peer.frame(replace(segment, sport=NEW_PORT))

    return build


def with_ip_options(scene: Scene) -> bytes:
    return scene.peer.frame(scene.peer.segment("A", payload=b"x"), ip_options=b"\x07\x07\x04\0\0\0\0\0")


def udp(scene: Scene) -> bytes:
    datagram = b"\x12\x34\x00\x35\x00\x0c\x00\x00" + b"data"
    ip = ipv4_header(ipv4_bytes(PEER_ADDRESS), ipv4_bytes(STACK_ADDRESS), len(datagram), 17)
    return mac_bytes(scene.testbed.stack_mac) + mac_bytes(PEER_MAC) + b"\x08\x00" + ip + datagram


SACK = {"sack": [(100, 200), (300, 400)]}
FRAMES: dict[str, Callable[[Scene], bytes]] = {
    "arp_request": arp_request,
    "arp_reply": arp_reply,
    "echo_request": echo_request,
    "icmp_port_unreachable": icmp_error(3, 3),
    "icmp_fragmentation_needed": icmp_error(3, 4, 1000),
    "icmp_time_exceeded": icmp_error(11, 0),
    "syn_all_options": syn(STACK_PORT, dict(ALL_OPTIONS)),
    "syn_to_closed_port": syn(CLOSED_PORT, dict(SYN_OPTIONS)),
    "ack_with_data": segment_of_connection("PA", payload=b"some data here"),
    "ack_with_sack": segment_of_connection("A", options=SACK),
    "out_of_order": segment_of_connection("A", seq=500, payload=b"later"),
    "fin": segment_of_connection("FA"),
    "rst": segment_of_connection("R"),
    "urgent": segment_of_connection("UPA", payload=b"urgent", urgent=3),
    "ip_options": with_ip_options,
    "udp": udp,
}


# ---------------------------------------------------------------- mutations


def truncations(frame: bytes) -> Iterator[bytes]:
    """Every proper prefix."""
    for length in range(len(frame)):
        yield frame[:length]


def mutations(frame: bytes, seed: int) -> Iterator[bytes]:
    """Every byte replaced; see the module's docstring."""
    generator = random.Random(seed)
    for at, octet in enumerate(frame):
        values = {octet ^ (1 << bit) for bit in range(8)} | {0x00, 0xFF}
        values |= {generator.randrange(256) for _ in range(2)}
        for value in sorted(values - {octet}):
            yield frame[:at] + bytes([value]) + frame[at + 1 :]


def repaired(frame: bytes) -> bytes:
    """The frame with its checksums made right, as far as its lengths make sense."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return frame
    header = (frame[14] & 0xF) * 4
    if header < 20 or 14 + header > len(frame):
        return frame
    ip = frame[14:24] + b"\0\0" + frame[26 : 14 + header]
    ip = ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:]
    total = int.from_bytes(ip[2:4], "big")
    if total < header or 14 + total > len(frame):
        return frame[:14] + ip + frame[14 + header :]
    body = frame[14 + header : 14 + total]
    at, pseudo = {1: (2, b""), 6: (16, ip[12:20] + b"\0\x06" + len(body).to_bytes(2, "big"))}.get(ip[9], (0, b""))
    if at and len(body) >= at + 2:
        blank = body[:at] + b"\0\0" + body[at + 2 :]
        body = body[:at] + internet_checksum(pseudo + blank).to_bytes(2, "big") + body[at + 2 :]
    return frame[:14] + ip + body + frame[14 + total :]


# ---------------------------------------------------------------- what may be said in answer


def sums_are_right(frame: bytes) -> bool:
    """Whether every checksum of an IPv4 frame holds (True for other frames: they have none)."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return True
    return repaired(frame) == frame


def check_answers(frame: bytes, answers: list[bytes], scene: Scene) -> None:
    """What no frame may provoke, whatever it is."""
    to_us = frame[:6] == mac_bytes(scene.testbed.stack_mac)
    for answer in answers:
        assert len(frame) >= 34, "a fragment of a frame was answered"
        assert to_us or frame[0] & 1, "another station's frame was answered"
        assert sums_are_right(frame), "a frame with a bad checksum was answered"
        if answer[12:14] == b"\x08\x06":
            continue
        assert frame[12:14] == b"\x08\x00", "an IPv4 packet in answer to something else"
        assert to_us, "a broadcast frame was answered"
        assert frame[30:34] == answer[26:30], "answered from an address that was not asked"
        if answer[23] == PROTOCOL_ICMP:
            check_icmp_answer(frame, answer)
        else:
            check_tcp_answer(frame, answer)


def check_icmp_answer(frame: bytes, answer: bytes) -> None:
    """RFC 1122 section 3.2.2: an echo's reply, or unreachable: the port for UDP, the protocol for others.

    Never about an ICMP error. A host without UDP may also say that UDP is unreachable (section 3.2.2.1).
    """
    assert answer[30:34] == frame[26:30], "answered to somebody else"
    if answer[34] == 0:
        assert frame[23] == PROTOCOL_ICMP
        assert frame[14 + (frame[14] & 0xF) * 4] == 8, "an echo reply without an echo request"
    else:
        assert answer[34] == 3
        assert answer[35] == (3 if frame[23] == 17 else 2)
        assert frame[23] not in (PROTOCOL_ICMP, PROTOCOL_TCP), "an ICMP error about ICMP or TCP"


def check_tcp_answer(frame: bytes, answer: bytes) -> None:
    """A RST never answers a RST, nor anything that is no segment."""
    reset = answer[47] & flags_to_int("R")
    if frame[23] != PROTOCOL_TCP:
        assert not reset, "a RST in answer to what is no segment"
        return
    flags = frame[14 + (frame[14] & 0xF) * 4 + 13]
    assert not (reset and flags & flags_to_int("R")), "a RST was answered with a RST"


def fingerprint(scene: Scene) -> tuple[object, ...]:
    """What a frame can change: as long as it stays the same, the scene can be used for the next frame."""
    leaks = scene.testbed.stack.leaks()
    held = (leaks["tcbs"], leaks["syns"], leaks["time_waits"], leaks["rx_chunks"])
    if leaks["tcbs"] != 1:
        return held
    info = scene.info()
    return (*held, *(info[name] for name in ("state", "rcv_nxt", "snd_una", "snd_wnd", "cwnd", "smss", "ts_recent")))


def feed(name: str, variants: Callable[[bytes], Iterator[bytes]]) -> None:
    """Send every variant of a frame and check it."""
    scene = scene_for_fuzz()
    original = FRAMES[name](scene)
    untouched = fingerprint(scene)
    for variant in variants(original):
        if fingerprint(scene) != untouched:
            scene.testbed.close()
            scene = scene_for_fuzz()
            assert FRAMES[name](scene) == original, "scenes are not alike"
        testbed = scene.testbed
        before = testbed.stack.counters()
        testbed.frames.clear()
        testbed.inject(variant)
        counted = difference(testbed.stack.counters(), before)
        own = 1 + counted.get("arp_requests_out", 0)  # the testbed answers each question
        assert 1 <= counted.get("frames_in", 0) <= own, f"{variant.hex()}: {counted}"
        assert sum(refusals(counted).values()) <= 1, f"{variant.hex()}: {counted}"
        check_answers(variant, testbed.frames, scene)
        if not sums_are_right(variant):
            assert sum(refusals(counted).values()) == 1, f"{variant.hex()}: a bad checksum was not dropped: {counted}"
    if fingerprint(scene) == untouched:
        scene.peer.send("PA", payload=b"still here")
        assert scene.read() == b"still here"
    scene.testbed.close()


@pytest.mark.parametrize("name", FRAMES)
def test_the_frames_are_valid(name: str) -> None:
    """Unchanged, each is used (or refused for what it says, not for how it looks)."""
    scene = scene_for_fuzz()
    with scene:
        before = scene.testbed.stack.counters()
        frame = FRAMES[name](scene)
        assert sums_are_right(frame)
        scene.testbed.inject(frame)
        dropped = refusals(difference(scene.testbed.stack.counters(), before))
        expected = {
            "syn_to_closed_port": {"drop_tcp_no_listener": 1},
            "udp": {"drop_ip_protocol": 1},
            "rst": {"drop_tcp_rst": 1},
        }
        assert dropped == expected.get(name, {})


@pytest.mark.parametrize("name", FRAMES)
def test_every_truncation_is_counted(name: str) -> None:
    feed(name, truncations)


@pytest.mark.parametrize("name", FRAMES)
def test_truncations_with_the_lengths_made_right_are_survived(name: str) -> None:
    """The IPv4 total length says what is there, and the checksums are right: only the layers above can notice."""

    def shortened(frame: bytes) -> Iterator[bytes]:
        for short in truncations(frame):
            if len(short) >= 34 and short[12:14] == b"\x08\x00":
                yield repaired(short[:16] + (len(short) - 14).to_bytes(2, "big") + short[18:])

    feed(name, shortened)


@pytest.mark.parametrize("name", FRAMES)
def test_every_mutated_octet_is_counted(name: str) -> None:
    feed(name, lambda frame: mutations(frame, seed=len(name)))


@pytest.mark.parametrize("name", FRAMES)
def test_every_mutated_octet_with_right_checksums_is_survived(name: str) -> None:
    feed(name, lambda frame: map(repaired, mutations(frame, seed=len(name))))


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_survived(seed: int) -> None:
    """Random bytes behind right addresses and right checksums."""
    generator = random.Random(seed)
    scene = scene_for_fuzz()
    template = FRAMES["ack_with_data"](scene)
    for _ in range(300):
        body = generator.randbytes(generator.randrange(0, 120))
        total = (20 + len(body)).to_bytes(2, "big")
        protocol = generator.choice((1, 6, 6, 6)).to_bytes(1, "big")
        ports = template[34:38] if generator.random() < 0.7 else b""
        frame = template[:16] + total + template[18:23] + protocol + template[24:34] + (ports + body)[: len(body)]
        before = scene.testbed.stack.counters()
        scene.testbed.frames.clear()
        scene.testbed.inject(repaired(frame))
        assert sum(refusals(difference(scene.testbed.stack.counters(), before)).values()) <= 1
        check_answers(repaired(frame), scene.testbed.frames, scene)
    scene.testbed.close()


@pytest.mark.parametrize("padding", [1, 6, 18, 46])
def test_ethernet_padding_is_ignored(padding: int) -> None:
    scene = scene_for_fuzz()
    with scene:
        scene.testbed.inject(FRAMES["ack_with_data"](scene) + b"\xaa" * padding)
        assert scene.read() == b"some data here"

# SPDX-License-Identifier: MIT
"""What is on the wire: only what our stack sends, once; and captures of which Wireshark does not complain."""

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.net.patience import PATIENT, make_patient

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ADDRESS, PEER = "198.18.0.2", "198.18.0.1"
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
FIN, SYN, RST = 0x01, 0x02, 0x04


@pytest.fixture(autouse=True)
def one_processor() -> Iterator[None]:
    """All on one processor: from two at once the peer's kernel hands a connection's frames to veth out of order."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


# ---------------------------------------------------------------- the kernel at our end is silent


class Wire:
    """Frames that arrive at the peer's end of the link, from the moment it is made."""

    def __init__(self, one: Any) -> None:
        self.one = one
        self.tap = one.packet_socket(one.peer_ifname)
        self.tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self.sent_before = one.device.counters()["tx_frames"]
        self.frames: list[bytes] = []

    def read(self) -> list[bytes]:
        """Take what has arrived; all of it so far."""
        while True:
            try:
                frame, (_, _, kind, _, _) = self.tap.recvfrom(1 << 17)
            except BlockingIOError:
                return self.frames
            if kind != PACKET_OUTGOING:
                self.frames.append(frame)

    @property
    def sent(self) -> int:
        """Frames that our stack has given to its link in the same time."""
        return int(self.one.device.counters()["tx_frames"]) - self.sent_before


def kind_of(frame: bytes) -> str:
    """A frame's protocol in a word; a RST by itself."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype != 0x0800:
        return {0x0806: "arp", 0x86DD: "ipv6"}.get(ethertype, hex(ethertype))
    protocol = frame[23]
    if protocol == socket.IPPROTO_TCP:
        return "rst" if frame[14 + (frame[14] & 15) * 4 + 13] & RST else "tcp"
    return "icmp" if protocol == socket.IPPROTO_ICMP else str(protocol)


def from_us(wire: Wire) -> Counter[str]:
    """Kinds of all frames; each must be ours and have been sent by our stack exactly once."""
    frames = wire.read()
    ours = bytes.fromhex(wire.one.device.mac.replace(":", ""))
    assert {frame[6:12] for frame in frames} == {ours}
    assert len(frames) == wire.sent
    return Counter(kind_of(frame) for frame in frames)


def test_kernel_at_our_end_adds_nothing(local: Callable[..., Any], link: str, site: Any) -> None:
    """Downloads, a connection that nobody listens for, a ping, a datagram: each is answered by our stack alone."""
    one = local(link)
    one.serve(site.path)
    wire = Wire(one)
    for path in ("512.bin", "one.bin", "ten.bin"):
        assert one.finish(one.start("curl", "-sS", "-o", "/dev/null", f"http://{ADDRESS}/{path}"))[0] == 0
    one.drive(lambda: one.stack.established == 0)
    kinds = from_us(wire)
    assert set(kinds) <= {"tcp", "arp"}, kinds

    refused = one.connect(port=81)
    one.drive(lambda: refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    resets = one.counter("resets_out")  # one for each SYN: after a second the kernel asks again
    assert from_us(wire)["rst"] == resets >= 1

    assert one.finish(one.start("ping", "-c", "3", "-i", "0.01", "-W", "5", ADDRESS))[0] == 0
    assert from_us(wire)["icmp"] == one.counter("icmp_echoes_answered") == 3

    one.open_socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"anybody?", (ADDRESS, 9))
    one.drive(lambda: one.counter("drop_ip_protocol") == 1)
    assert from_us(wire)["icmp"] == 3 + one.counter("icmp_errors_out")


def test_kernel_at_our_end_adds_nothing_to_an_active_open(local: Callable[..., Any], link: str) -> None:
    """The kernel knows nothing of our connections: left alone it would reset them."""
    one = local(link)
    with one.inside():
        listener = socket.create_server((PEER, 0))
    with listener:
        wire = Wire(one)
        connection = one.stack.connect(PEER, listener.getsockname()[1], timeout=30)
        accepted, _ = listener.accept()
        with accepted:
            connection.send(b"x" * 100_000)
            accepted.setblocking(False)
            assert one.read_all(accepted, 100_000) == b"x" * 100_000
        assert connection.receive(timeout=30) == b""
        connection.close()
        one.drive(lambda: one.stack.connections("connection") == [])
    assert set(from_us(wire)) <= {"tcp", "arp"}


# ---------------------------------------------------------------- captures


# What Wireshark says of a connection that had to repair something or was held up by a window.
TROUBLE = [
    f"tcp.analysis.{name}"
    for name in (
        *("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment", "rto"),
        *("ack_lost_segment", "duplicate_ack", "zero_window", "zero_window_probe", "keep_alive", "reused_ports"),
    )
]
FIELDS = (
    *("frame.number", "ip.src", "ip.dst", "ip.len", "ip.hdr_len", "ip.checksum.status", "ip.proto"),
    *("tcp.len", "tcp.flags", "tcp.checksum", "tcp.checksum.status", "_ws.malformed"),
    *TROUBLE,
)
BAD = "0"


@pytest.fixture(scope="module")
def tshark() -> Callable[[Path], list[dict[str, str]]]:
    """tshark(file): FIELDS of every IPv4 frame; those that it does not have are empty."""
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed: nobody else to read the capture")

    def read(capture: Path) -> list[dict[str, str]]:
        words = [program, "-n", "-r", str(capture), "-Y", "ip", "-T", "fields"]
        words += ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
        for name in FIELDS:
            words += ["-e", name]
        done = subprocess.run(words, capture_output=True, timeout=100, check=True)
        lines = done.stdout.decode().split("\n")[:-1]
        return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines]

    return read


def partial_checksum(length: int, source: str, destination: str) -> int:
    """What stands in a TCP header whose checksum is left to the device: the pseudo-header's sum, not inverted."""
    data = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", 6, length)
    total: int = sum(struct.unpack("!6H", data))
    return (total & 0xFFFF) + (total >> 16)


def assert_clean(frames: list[dict[str, str]]) -> None:
    """No repair, nothing malformed, no RST, no ICMP; every checksum right or left to the device."""
    for frame in frames:
        trouble = [name for name in (*TROUBLE, "_ws.malformed") if frame[name]]
        assert not trouble, f"{trouble} in {frame}"
        assert frame["ip.proto"] == str(socket.IPPROTO_TCP), frame
        assert not int(frame["tcp.flags"], 16) & RST, frame
        assert frame["ip.checksum.status"] != BAD, frame
        if frame["tcp.checksum.status"] == BAD:
            length = int(frame["ip.len"]) - int(frame["ip.hdr_len"])
            expected = partial_checksum(length, frame["ip.src"], frame["ip.dst"])
            assert int(frame["tcp.checksum"], 16) == expected, frame


def payload_octets(frames: list[dict[str, str]], source: str) -> int:
    """Bytes of TCP payload from one side."""
    return sum(int(frame["tcp.len"]) for frame in frames if frame["ip.src"] == source)


def with_flag(frames: list[dict[str, str]], flag: int) -> list[str]:
    """Who sent the segments that have `flag`, in order."""
    return [frame["ip.src"] for frame in frames if int(frame["tcp.flags"], 16) & flag]


def test_capture_of_a_clean_download(
    serving: Callable[..., Any], link: str, site: Any, tmp_path: Path, tshark: Callable[..., Any]
) -> None:
    capture = tmp_path / "served.pcapng"
    patience = [word for name, value in PATIENT.items() for word in ("--set", f"{name}={value}")]
    server = serving(link, "--capture", str(capture), *patience)
    make_patient(server.inside())
    assert server.get("ten.bin") == site.body("ten.bin")
    head = server.get("ten.bin", "-I")
    assert server.stop() == 0
    frames = tshark(capture)
    assert_clean(frames)
    assert payload_octets(frames, ADDRESS) == (10 << 20) + 2 * len(head)
    assert with_flag(frames, SYN) == [PEER, ADDRESS] * 2
    assert sorted(with_flag(frames, FIN)) == [PEER] * 2 + [ADDRESS] * 2


UPLOAD = """
import socket
l = socket.create_server(("198.18.0.1", 0))
print(l.getsockname()[1], flush=True)
c, _ = l.accept()
data = bytearray()
while piece := c.recv(65536):
    data += piece
c.sendall(data)
c.close()
"""


def test_capture_of_a_clean_upload_and_download(
    local: Callable[..., Any], link: str, tmp_path: Path, tshark: Callable[..., Any]
) -> None:
    """Our active open; 10 MiB each way, one after the other: the receiving half is looked at as well."""
    capture = tmp_path / "opened.pcapng"
    one = local(link, capture=capture, **PATIENT)
    make_patient(one.inside())
    port = int(one.start(sys.executable, "-c", UPLOAD).stdout.readline())
    data = random.Random("capture").randbytes(10 << 20)
    received = bytearray()
    with one.stack.connect(PEER, port, timeout=30) as connection:
        connection.send(data)
        connection.shutdown()
        while piece := connection.receive(1 << 20, timeout=30):
            received += piece
    assert received == data
    one.drive(lambda: one.stack.connections("connection") == [])
    one.tee.flush()
    assert one.tee.missed == 0
    frames = tshark(capture)
    assert_clean(frames)
    assert [payload_octets(frames, side) for side in (ADDRESS, PEER)] == [10 << 20] * 2
    assert with_flag(frames, SYN) == [ADDRESS, PEER]
    assert with_flag(frames, FIN) == [ADDRESS, PEER]


def test_capture_has_every_segment_that_was_counted(
    serving: Callable[..., Any], tmp_path: Path, tshark: Callable[..., Any]
) -> None:
    capture = tmp_path / "counted.pcapng"
    server = serving("veth", "--capture", str(capture), "--json-stats")
    server.run("ab", "-q", "-n", "300", "-c", "20", server.url("512.bin"))
    counted = server.until(lambda now: now["connections"] == 0 and now["frames_in_per_s"] == 0)["counters"]
    assert server.stop() == 0
    seen = Counter(frame["ip.src"] for frame in tshark(capture))
    assert seen == {PEER: counted["segments_in"], ADDRESS: counted["segments_out"]}

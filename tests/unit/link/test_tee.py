# SPDX-License-Identifier: MIT
"""Captures: what the file says, read by two readers that are not ours, and what happens when it cannot be written."""

import io
import os
import resource
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader, rdpcap

from tests.children import in_a_child
from ustack.link.sim import SimNetwork
from ustack.link.tee import TeeLink
from ustack.testing.parts.link_driver import LinkDriver

ISS = 2**32 - 3


def segment(number: int, length: int = 0, outbound: bool = True) -> bytes:
    ends = ("198.18.0.1", "198.18.0.2") if outbound else ("198.18.0.2", "198.18.0.1")
    headers: Any = IP(src=ends[0], dst=ends[1])
    headers /= TCP(sport=1024, dport=80, seq=(ISS + number) % 2**32, flags="A")
    return bytes(Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / headers / bytes(length))


def exchange(network: SimNetwork, file: Any, count: int = 20, **arguments: Any) -> tuple[list[bytes], TeeLink]:
    """Frames out and in through a tee on end a; returned in the order in which they passed it."""
    tee = TeeLink(network.a, file, epoch_ns=1_000_000_000, **arguments)
    driver = LinkDriver(tee)
    passed = []
    for number in range(count):
        driver.now_ns = network.now_ns + 1001
        out = segment(number, number)
        assert driver.send(out)
        assert driver.submit() == 0
        network.b.receive()
        network.b.inject(segment(number, 2 * number, outbound=False))
        passed += [out, *(frame.data for frame in driver.take())]
    return passed, tee


def packets_of(octets: bytes) -> list[tuple[bytes, Any]]:
    """Every frame of a capture with its metadata. Raises for a capture that does not end behind a whole block."""
    reader = RawPcapNgReader(io.BytesIO(octets))
    at = 0
    while at < len(octets):
        length = int.from_bytes(octets[at + 4 : at + 8], "little")
        assert octets[at + length - 4 : at + length] == octets[at + 4 : at + 8]
        at += length
    assert at == len(octets)
    return list(reader)


def frames_of(octets: bytes) -> list[bytes]:
    return [frame for frame, _ in packets_of(octets)]


def test_scapy_reads_the_frames_and_their_times(tmp_path: Path) -> None:
    with SimNetwork() as network:
        passed, tee = exchange(network, tmp_path / "a.pcapng")
        tee.close()
    packets = rdpcap(str(tmp_path / "a.pcapng"))
    assert [bytes(packet) for packet in packets] == passed
    assert packets[0].time == pytest.approx(1.000001001, abs=1e-9)


def test_every_frame_has_its_direction_and_nanoseconds() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        passed, tee = exchange(network, stream, interface_name="end a")
        tee.close()
    packets = packets_of(stream.getvalue())
    assert [frame for frame, _ in packets] == passed
    assert [about.direction for _, about in packets] == [2, 1] * 20
    assert [about.tshigh << 32 | about.tslow for _, about in packets[::2]] == [
        1_000_000_000 + 1001 * (number + 1) for number in range(20)
    ]
    assert {about.tsresol for _, about in packets} == {10**9}
    assert {about.ifname for _, about in packets} == {b"end a"}
    assert {about.linktype for _, about in packets} == {1}


@pytest.mark.parametrize("name", ["", "abcd", "end of a", "Ω", "x" * 70_000])
def test_any_interface_name_leaves_a_readable_file(name: str) -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        passed, tee = exchange(network, stream, count=1, interface_name=name)
        tee.close()
    packets = packets_of(stream.getvalue())
    assert [frame for frame, _ in packets] == passed
    assert {about.ifname or b"" for _, about in packets} == {name.encode()[:65535]}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_it_without_complaint(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with SimNetwork() as network:
        passed, tee = exchange(network, path)
        tee.close()
    fields = ["frame.time_epoch", "frame.packet_flags_direction", "frame.len", "tcp.seq_raw", "tcp.checksum.status"]
    told = subprocess.run(
        ["tshark", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-T", "fields", *(f"-e{name}" for name in fields)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in told.stdout.splitlines()]
    assert [int(row[2]) for row in rows] == [len(frame) for frame in passed]
    assert [int(row[1], 16) for row in rows] == [2, 1] * 20
    assert rows[0][0] == "1.000001001"
    assert [int(row[3]) for row in rows] == [(ISS + index // 2) % 2**32 for index in range(40)]
    assert {row[4] for row in rows} == {"1"}


def test_a_cut_frame_says_how_long_it_was() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        tee = TeeLink(network.a, stream, epoch_ns=0)
        network.b.inject(segment(0), wire_length=9000)
        LinkDriver(tee).take()
        tee.close()
    ((frame, about),) = packets_of(stream.getvalue())
    assert (len(frame), about.wirelen) == (54, 9000)


def test_a_super_frame_is_recorded_whole_and_unfilled(tmp_path: Path) -> None:
    frame = segment(0, 65_000)
    with SimNetwork(segmentation_offload=True) as network:
        tee = TeeLink(network.a, tmp_path / "a.pcapng", epoch_ns=0, buffer_bytes=262144)
        driver = LinkDriver(tee)
        assert tee.caps == network.a.caps
        assert tee.mac == network.a.mac
        for _ in range(10):  # more than the buffer holds
            assert driver.send(frame, csum_start=34, csum_offset=16, gso_size=1460, header_length=54, gso_family=4)
        driver.submit()
        taken = network.b.receive_frame()
        assert taken is not None
        assert (taken.data, taken.gso_size, taken.checksum) == (frame, 1460, "partial")
        assert tee.recorded == 10
        tee.close()
    reader = RawPcapNgReader(str(tmp_path / "a.pcapng"))
    assert [packet for packet, _ in reader] == [frame] * 10
    reader.close()


def test_the_same_seed_gives_the_same_file() -> None:
    files = []
    for buffer_bytes in (262144, 4194304):
        stream = io.BytesIO()
        with SimNetwork(4, corrupt=0.3, duplicate=0.3) as network:
            _, tee = exchange(network, stream, count=200, buffer_bytes=buffer_bytes)
            tee.close()
        files.append(stream.getvalue())
    assert files[0] == files[1]


def test_a_reserved_frame_that_is_not_committed_is_not_recorded() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        tee = TeeLink(network.a, stream, epoch_ns=0)
        assert LinkDriver(tee).reserve(60)
        tee.close()
    assert frames_of(stream.getvalue()) == []


def test_counters_are_those_of_the_inner_link() -> None:
    with SimNetwork() as network:
        _, tee = exchange(network, io.BytesIO(), count=7)
        assert tee.counters() == network.a.counters()
        assert tee.counters()["rx_frames"] == 7
        tee.close()
        assert tee.counters()["rx_frames"] == 7


def test_closing_closes_the_inner_link_and_leaves_the_callers_stream_open() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        tee = TeeLink(network.a, stream, epoch_ns=0)
        driver = LinkDriver(tee)
        tee.close()
        tee.close()
        assert network.a.closed
        assert not stream.closed
        assert driver.burst() == []
        assert not driver.reserve(60)
        assert driver.submit() < 0
        assert driver.wait(0) < 0
        with pytest.raises(OSError, match="closed"):
            tee.fileno()


def test_waiting_writes_what_is_buffered() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        passed, tee = exchange(network, stream, count=1)
        driver = LinkDriver(tee)
        assert frames_of(stream.getvalue()) == []
        driver.wait(10**10)
        assert frames_of(stream.getvalue()) == passed
        tee.close()


class FailingStream(io.RawIOBase):
    """Takes so many bytes, then raises."""

    def __init__(self, room: int, error: BaseException) -> None:
        self.room, self.error = room, error

    def write(self, octets: Any) -> int:
        if self.room < len(octets):
            raise self.error
        self.room -= len(octets)
        return len(octets)


def test_a_stream_that_fails_ends_the_capture_and_not_the_traffic() -> None:
    with SimNetwork() as network:
        passed, tee = exchange(network, FailingStream(200, OSError(28, "No space left on device")), count=3)
        tee.flush()
        assert tee.error == "[Errno 28] No space left on device"
        assert (tee.recorded, tee.missed) == (0, 6)
        driver = LinkDriver(tee)
        assert driver.send(passed[0])
        assert driver.submit() == 0
        assert network.b.receive() == passed[0]
        assert tee.missed == 7
        tee.close()


def test_an_interrupt_in_the_stream_is_not_swallowed() -> None:
    with SimNetwork() as network:
        _, tee = exchange(network, FailingStream(200, KeyboardInterrupt()), count=3)
        with pytest.raises(KeyboardInterrupt):
            tee.flush()
        assert tee.missed == 6
        tee.close()


def test_a_full_disk_ends_the_capture_and_not_the_traffic() -> None:
    with SimNetwork() as network:
        with pytest.raises(OSError, match="No space left"):
            TeeLink(network.a, "/dev/full")
        assert not network.a.closed


def test_a_disk_that_fills_up_ends_the_capture_and_not_the_traffic() -> None:
    read_end, write_end = os.pipe()
    with SimNetwork() as network:
        passed, tee = exchange(network, f"/dev/fd/{write_end}", count=3)
        os.close(write_end)
        os.close(read_end)  # from here on the file is a broken pipe
        tee.flush()
        assert tee.error == "Broken pipe"
        assert (tee.recorded, tee.missed) == (0, 6)
        driver = LinkDriver(tee)
        driver.send(passed[0])
        driver.submit()
        assert network.b.receive() == passed[0]
        tee.close()


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    """No file grows beyond this, as on a full disk: a write stops in the middle, the next one is refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("by", ["path", "descriptor", "raw file"])
@pytest.mark.parametrize("limit_bytes", [500, 501, 601, 700, 801])
def test_a_full_disk_leaves_whole_packets(tmp_path: Path, by: str, limit_bytes: int) -> None:
    path = tmp_path / "a.pcapng"
    with SimNetwork() as network, path.open("wb", buffering=0) as raw:
        file = {"path": path, "descriptor": raw.fileno(), "raw file": raw}[by]
        passed, tee = exchange(network, file, count=10)
        with largest_file(limit_bytes):
            tee.flush()
        assert tee.error == "File too large"
        tee.close()
    octets = path.read_bytes()
    kept = frames_of(octets)
    assert kept == passed[: len(kept)]
    assert (tee.recorded, tee.missed) == (len(kept), 20 - len(kept))
    assert limit_bytes - 200 < len(octets) <= limit_bytes
    assert len(kept) > 0


def drain(read_end: int) -> bytes:
    got = b""
    while select.select([read_end], [], [], 0)[0]:
        piece = os.read(read_end, 1 << 20)
        if not piece:
            break
        got += piece
    return got


def test_a_pipe_gets_the_capture_and_stays_the_callers() -> None:
    read_end, write_end = os.pipe()
    with SimNetwork() as network:
        passed, tee = exchange(network, write_end)
        tee.close()
        os.fstat(write_end)
    os.close(write_end)
    assert frames_of(drain(read_end)) == passed
    os.close(read_end)


def send_large(driver: LinkDriver, frame: bytes) -> None:
    assert driver.send(frame, csum_start=34, csum_offset=16, gso_size=1460, header_length=54, gso_family=4)
    assert driver.submit() == 0


def test_a_reader_that_is_slow_costs_packets_and_no_time() -> None:
    """Whole packets are missing; nothing waits; the capture goes on when the reader does."""
    read_end, write_end = os.pipe()
    got = b""
    with SimNetwork(segmentation_offload=True) as network:
        tee = TeeLink(network.a, write_end, epoch_ns=0, buffer_bytes=262144)
        driver = LinkDriver(tee)
        early = [segment(number, 40_000) for number in range(20)]
        for frame in early:
            send_large(driver, frame)
        missed = tee.missed
        assert 0 < missed < 20
        late = [segment(number, 60_000) for number in range(20, 40)]
        for frame in late:  # its reader keeps up again
            for _ in range(40):
                got += drain(read_end)
                driver.submit()
            send_large(driver, frame)
        for _ in range(100):
            tee.flush()
            got += drain(read_end)
        assert (tee.error, tee.missed) == (None, missed)
        tee.close()
    os.close(write_end)
    got += drain(read_end)
    os.close(read_end)
    assert frames_of(got) == early[: 20 - missed] + late
    assert (tee.recorded, tee.missed) == (40 - missed, missed)


def test_a_reader_that_lags_makes_room_by_what_it_has_read() -> None:
    """More than half of the buffer is in the pipe's past: the rest moves to the front, and a frame more is kept."""
    read_end, write_end = os.pipe()
    with SimNetwork(segmentation_offload=True) as network:
        tee = TeeLink(network.a, write_end, epoch_ns=0, buffer_bytes=262144)
        driver = LinkDriver(tee)
        frames = [segment(number, 40_000) for number in range(6)]
        for frame in frames:
            send_large(driver, frame)
        got = b""
        for _ in range(2):  # 64 KiB at a time, and as much behind it
            got += drain(read_end)
            tee.flush()
        frames.append(segment(6, 60_000))
        send_large(driver, frames[-1])
        assert tee.missed == 0
        for _ in range(100):
            got += drain(read_end)
            tee.flush()
        tee.close()
    os.close(write_end)
    got += drain(read_end)
    os.close(read_end)
    assert frames_of(got) == frames


def test_a_reader_that_takes_nothing_does_not_hold_up_the_end() -> None:
    read_end, write_end = os.pipe()
    with SimNetwork(segmentation_offload=True) as network:
        tee = TeeLink(network.a, write_end, epoch_ns=0)
        driver = LinkDriver(tee)
        for number in range(10):
            send_large(driver, segment(number, 60_000))
        tee.close()
        assert tee.missed + tee.recorded == 10
        assert tee.missed > 0
    os.close(write_end)
    os.close(read_end)


def test_what_is_buffered_at_a_fork_is_written_by_the_parent_alone(tmp_path: Path) -> None:
    with SimNetwork() as network:
        passed, tee = exchange(network, tmp_path / "a.pcapng")
        assert tee.recorded == len(passed)
        assert in_a_child(tee.close) is None
        assert frames_of((tmp_path / "a.pcapng").read_bytes()) == []
        tee.close()
    assert frames_of((tmp_path / "a.pcapng").read_bytes()) == passed


def test_a_child_may_go_on_with_a_capture_that_no_stack_has_used(tmp_path: Path) -> None:
    """Both write whole packets at the one end of the one file."""
    with SimNetwork() as network:
        passed, tee = exchange(network, tmp_path / "a.pcapng")
        more = segment(99, 99)

        def use() -> tuple[bool, int]:
            sent = LinkDriver(tee).send(more)
            tee.close()
            return sent, tee.recorded

        assert in_a_child(use) == [True, 1]
        tee.close()
    assert frames_of((tmp_path / "a.pcapng").read_bytes()) == [more, *passed]


def test_a_child_writes_nothing_into_a_packet_that_its_parent_has_begun() -> None:
    read_end, write_end = os.pipe()
    with SimNetwork(segmentation_offload=True) as network:
        tee = TeeLink(network.a, write_end, epoch_ns=0)
        driver = LinkDriver(tee)
        early = [segment(number, 40_000) for number in range(5)]
        for frame in early:
            send_large(driver, frame)
        tee.flush()  # a part of the second fills the pipe
        assert tee.recorded == len(early)

        def use() -> tuple[int, int]:
            missed = tee.missed
            driver.send(segment(99))
            recorded = tee.recorded
            tee.close()
            return recorded, tee.missed - missed

        got = drain(read_end)
        assert in_a_child(use) == [1, 1]
        assert drain(read_end) == b""
        for _ in range(100):
            tee.flush()
            got += drain(read_end)
        assert (tee.error, tee.missed) == (None, 0)
        tee.close()
    os.close(write_end)
    got += drain(read_end)
    os.close(read_end)
    assert frames_of(got) == early


def test_a_closed_stream_ends_the_capture() -> None:
    stream = io.BytesIO()
    with SimNetwork() as network:
        _, tee = exchange(network, stream, count=3)
        stream.close()
        tee.close()
        assert tee.error is not None
        assert "closed" in tee.error
        assert tee.missed == 6


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"file": 7.5}, "file"),
        ({"file": -1}, "file"),
        ({"buffer_bytes": 1}, "buffer_bytes"),
        ({"epoch_ns": -1}, "epoch_ns"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], what: str) -> None:
    with SimNetwork() as network, pytest.raises(ValueError, match=what):
        TeeLink(network.a, **{"file": io.BytesIO(), **arguments})


def test_a_closed_link_cannot_be_recorded(tmp_path: Path) -> None:
    with SimNetwork() as network:
        network.a.close()
        with pytest.raises(ValueError, match="closed"):
            TeeLink(network.a, tmp_path / "a.pcapng")
    assert not (tmp_path / "a.pcapng").exists()


def test_a_file_that_cannot_be_opened_is_an_oserror(tmp_path: Path) -> None:
    with SimNetwork() as network, pytest.raises(FileNotFoundError):
        TeeLink(network.a, tmp_path / "nowhere" / "a.pcapng")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_real_link_is_recorded_with_the_time_of_day(make_wire: Any, tmp_path: Path, kind: str) -> None:
    wire = make_wire(kind)
    tee = TeeLink(wire.open().link, tmp_path / "a.pcapng")
    driver = LinkDriver(tee)
    wire.socket().sendto(b"recorded", ("198.18.0.2", 9))
    driver.now_ns = 1
    frames = wire.take_udp(driver, 1)
    tee.close()
    packets = rdpcap(str(tmp_path / "a.pcapng"))
    assert frames[0].data in [bytes(packet) for packet in packets]
    assert packets[0].time > 10**9
    assert packets[0].sniffed_on == "ours"

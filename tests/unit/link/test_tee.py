# SPDX-License-Identifier: MIT
"""Captures: what the file says, read by three readers that are not ours, and what happens when it cannot be written."""

import io
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader, rdpcap

from ustack.link.sim import SimNetwork
from ustack.link.tee import TeeLink
from ustack.testing.linkdriver import LinkDriver

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


def blocks_of(octets: bytes) -> list[EnhancedPacket]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return [block for block in FileScanner(io.BytesIO(octets)) if isinstance(block, EnhancedPacket)]


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
    blocks = blocks_of(stream.getvalue())
    assert [block.packet_data for block in blocks] == passed
    assert [block.options["epb_flags"].inout for block in blocks] == ["outbound", "inbound"] * 20
    assert [block.timestamp_high << 32 | block.timestamp_low for block in blocks[::2]] == [
        1_000_000_000 + 1001 * (number + 1) for number in range(20)
    ]
    assert {block.interface.options["if_name"] for block in blocks} == {"end a"}
    assert {block.interface.link_type for block in blocks} == {1}


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
    (block,) = blocks_of(stream.getvalue())
    assert (block.captured_len, block.packet_len) == (54, 9000)


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
    assert blocks_of(stream.getvalue()) == []


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
        assert blocks_of(stream.getvalue()) == []
        driver.wait(10**10)
        assert [block.packet_data for block in blocks_of(stream.getvalue())] == passed
        tee.close()


class FailingStream(io.RawIOBase):
    """Takes so many octets, then raises."""

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
    [({"file": 7}, "file"), ({"buffer_bytes": 1}, "buffer_bytes"), ({"epoch_ns": -1}, "epoch_ns")],
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

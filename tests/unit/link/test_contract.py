# SPDX-License-Identifier: MIT
"""What ustack/link/device.pxd promises, asked of every link: one suite, as many links as there are.

A link's entry here (Under) opens it and plays its far end: the kernel for a veth pair and a TAP device, a packet socket
there putting frames on the wire and taking them off; the other end of a simulated wire; the caller of a link in memory.
What one kind promises beyond the contract is in its own file (test_packet_mmap, test_tap, test_sim, test_tee,
test_memory).
"""

import errno
import io
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack import OwnershipError, Stack
from ustack.lab import namespace
from ustack.link.device import Link
from ustack.link.memory import MemoryLink
from ustack.link.sim import SimNetwork
from ustack.link.tee import TeeLink
from ustack.obs.info import build_mode
from ustack.testing.parts.link_driver import LentFrame, LinkDriver

Wire = Any  # the class is in conftest

LOCAL_EXPERIMENTAL = b"\x88\xb5"  # IEEE 802: an EtherType that nobody else on this wire uses
BROADCAST = b"\xff" * 6
US = b"\x02\x00\x00\x00\x00\x77"
ALL = ["veth", "tap", "sim", "tee over sim", "tee over veth", "memory", "tee over memory"]


def frame_of(number: int, length: int = 64) -> bytes:
    """A frame that can be told from others by its number, all the way to its end."""
    payload = (number.to_bytes(4, "big") * (length // 4))[: length - 14]
    return BROADCAST + US + LOCAL_EXPERIMENTAL + payload


def frames_of(count: int, length: int = 64) -> list[bytes]:
    return [frame_of(number, length) for number in range(count)]


class Under:
    """A link under test and its far end."""

    fills = True
    """Whether the transmit ring can be full: TAP takes each frame at once."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.driver = LinkDriver(link)

    def put(self, frames: list[bytes]) -> None:
        """From the far end to the link."""
        raise NotImplementedError

    def taken(self, count: int) -> list[bytes]:
        """What has come out at the far end: so many frames, and whatever else has come by then."""
        raise NotImplementedError

    def burst(self, count: int) -> list[LentFrame]:
        """A burst of our frames, lent; others that a kernel sends of its own are not expected here."""
        got: list[LentFrame] = []
        for _ in range(1000):
            got += self.driver.burst(count - len(got))
            if len(got) >= count:
                break
            self.driver.wait(10_000_000)
        return got

    def close(self) -> None:
        self.link.close()


class OnAKernel(Under):
    """veth or TAP: the far end is a packet socket in the kernel that is the peer."""

    def __init__(self, wire: Wire, **arguments: Any) -> None:
        super().__init__(wire.open(**arguments).link)
        self.fills = wire.kind == "veth"
        with namespace.inside(wire.peer_ns):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        self.socket.bind((wire.peer, 0x88B5))
        self.socket.setblocking(False)
        self.driver.take(1000)

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.socket.send(frame)

    def taken(self, count: int) -> list[bytes]:
        """The kernel may deliver on another processor than that of the system call."""
        got: list[bytes] = []
        while True:
            try:
                data, about = self.socket.recvfrom(70_000)
            except BlockingIOError:
                if len(got) >= count or not select.select([self.socket], [], [], 10)[0]:
                    return got
                continue
            if about[2] != socket.PACKET_OUTGOING:
                got.append(data)

    def close(self) -> None:
        self.socket.close()
        super().close()


class OnASimulatedWire(Under):
    def __init__(self, **arguments: Any) -> None:
        self.network = SimNetwork(**arguments)
        super().__init__(self.network.a)

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.network.b.inject(frame)

    def taken(self, count: int) -> list[bytes]:
        return self.network.b.receive_all()

    def close(self) -> None:
        super().close()
        self.network.close()


class InMemory(Under):
    link: MemoryLink

    def __init__(self, **arguments: Any) -> None:
        super().__init__(MemoryLink(**arguments))

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.link.inject(frame)

    def taken(self, count: int) -> list[bytes]:
        return self.link.receive_all()


class Recorded(Under):
    """A tee over another link: the far end is that one's."""

    def __init__(self, inner: Under) -> None:
        self.inner = inner
        self.fills = inner.fills
        super().__init__(TeeLink(inner.link, io.BytesIO(), epoch_ns=0))

    def put(self, frames: list[bytes]) -> None:
        self.inner.put(frames)

    def taken(self, count: int) -> list[bytes]:
        return self.inner.taken(count)

    def close(self) -> None:
        super().close()
        self.inner.close()


Open = Callable[..., Under]


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.root if "veth" in kind or kind == "tap" else ())
                        for kind in ALL])  # fmt: skip
def open_link(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open a link of this kind: open_link(rx_slots=, tx_slots=, offload=). Each has a bound for both of the first."""
    made: list[Under] = []

    def simple(kind: str, rx_slots: int | None, tx_slots: int | None, offload: bool) -> Under:
        slots = {name: value for name, value in (("rx_slots", rx_slots), ("tx_slots", tx_slots)) if value is not None}
        if kind == "veth":
            one_ring = {"rx_small_slots": 0} if rx_slots else {}  # its bound is for all frames then
            return OnAKernel(request.getfixturevalue("veth"), **slots, **one_ring)
        if kind == "tap":
            return OnAKernel(request.getfixturevalue("tap"))
        if kind == "sim":
            return OnASimulatedWire(segmentation_offload=offload, **slots)
        return InMemory(segmentation_offload=offload, **slots)

    def open_one(*, rx_slots: int | None = None, tx_slots: int | None = None, offload: bool = True) -> Under:
        kind = request.param.removeprefix("tee over ")
        made.append(simple(kind, rx_slots, tx_slots, offload))
        if kind != request.param:
            made.append(Recorded(made[-1]))
        return made[-1]

    yield open_one
    for under in reversed(made):
        under.close()


# ---------------------------------------------------------------- receive
def test_frames_come_in_order_and_whole(open_link: Open) -> None:
    under = open_link()
    lengths = [14, 15, 60, 64, 65, 1000, 1513, 1514]
    sent = [frame_of(number, lengths[number % len(lengths)]) for number in range(48)]
    under.put(sent)
    got = under.burst(48)
    assert [frame.data for frame in got] == sent
    assert [frame.wire_length for frame in got] == [len(frame) for frame in sent]
    assert {frame.gso_size for frame in got} == {0}
    under.driver.release()


def test_a_burst_is_never_longer_than_asked_for(open_link: Open) -> None:
    under = open_link()
    under.put(frames_of(10))
    under.driver.wait(1_000_000_000)
    assert under.driver.burst(0) == []
    assert len(under.driver.burst(3)) == 3
    assert [frame.data for frame in under.burst(7)] == frames_of(10)[3:]
    assert under.driver.burst(64) == []


def test_lent_frames_are_not_overwritten(open_link: Open) -> None:
    """Whatever comes in between, until they are released, in the order in which they came."""
    under = open_link(rx_slots=8)
    under.put(frames_of(4, 200))
    lent = under.burst(4)
    for length in (60, 1000, 61):
        under.put(frames_of(10, length))
    assert under.driver.lent() == lent
    under.driver.release(1)
    under.put(frames_of(10, 900))
    assert under.driver.lent() == lent[1:]
    under.driver.release()


def test_the_ring_goes_round(open_link: Open) -> None:
    under = open_link(rx_slots=5)
    got = []
    for number in range(48):
        under.put([frame_of(number, 60 + 7 * number)])
        got += under.burst(1)
        if number % 3:  # with frames on loan while others come
            under.driver.release()
    assert [frame.data for frame in got] == [frame_of(number, 60 + 7 * number) for number in range(48)]


def test_releasing_nothing_is_nothing(open_link: Open) -> None:
    under = open_link()
    under.driver.release(0)
    under.put(frames_of(2))
    under.burst(2)
    under.driver.release(0)
    under.driver.release(2)
    under.put(frames_of(3))
    assert [frame.data for frame in under.burst(3)] == frames_of(3)


def test_a_full_receive_ring_drops_and_counts(open_link: Open) -> None:
    under = open_link(rx_slots=8)
    if isinstance(under, OnAKernel) and not under.fills:
        pytest.skip("a TAP device's queue is the kernel's: its length is the interface's txqueuelen")
    under.put(frames_of(4))
    lent = under.burst(4)
    under.put(frames_of(40, 200))
    assert under.driver.lent() == lent
    assert [frame.data for frame in under.driver.burst(64)] == frames_of(40, 200)[:4]
    assert under.driver.burst(64) == []
    assert under.link.counters()["rx_dropped"] == 36
    under.driver.release()
    under.put(frames_of(2))
    assert [frame.data for frame in under.burst(2)] == frames_of(2)


def test_it_tells_whether_so_many_frames_wait_or_that_it_cannot_tell(open_link: Open) -> None:
    under = open_link()
    put = frames_of(100)
    under.put(put)
    assert len(under.burst(20)) == 20
    driver = under.driver
    if driver.behind(1) is None:
        assert isinstance(under, OnAKernel)
        assert not under.fills  # a TAP device: the kernel keeps what waits to itself
        return
    assert [driver.behind(frames) for frames in (1, 79, 80, 81, 1000)] == [True, True, True, False, False]
    assert [driver.behind(frames, still=True) for frames in (2, 160, 162, 2000)] == [True, True, False, False]
    assert len(under.burst(80)) == 80
    assert not driver.behind(1)
    assert not driver.behind(1, still=True)


@pytest.mark.parametrize("make", [OnASimulatedWire, InMemory])
def test_three_quarters_of_its_slots_are_too_many_in_memory_too_whatever_is_asked_for(
    make: Callable[..., OnASimulatedWire | InMemory],
) -> None:
    under = make(rx_slots=100)
    for waiting, behind in ((74, False), (75, True)):
        under.put(frames_of(1 + waiting))
        assert len(under.burst(1)) == 1
        assert under.driver.behind(1 << 20) == behind
        assert not under.driver.behind(0)
        assert under.driver.behind(1 << 20, still=True)
        assert len(under.burst(waiting)) == waiting
        under.driver.release()
    under.close()


@pytest.mark.root
@pytest.mark.parametrize(("arguments", "slots"), [({"rx_small_slots": 100}, 100), ({"rx_small_slots": 0}, 100)])
def test_half_of_an_interfaces_ring_is_too_much_and_so_is_three_quarters_whatever_is_asked_for(
    veth: Wire, arguments: dict[str, int], slots: int
) -> None:
    under = OnAKernel(veth, rx_slots=slots, **arguments)
    try:
        room = under.link.small_slots or under.link.ring_slots[0]  # type: ignore[attr-defined]
        driver = under.driver
        for waiting, half, most in ((room // 4 - 1, False, False), (room // 2, True, False), (room - 2, True, True)):
            under.put(frames_of(waiting))
            for _ in range(100_000):  # another processor may be the one that fills the ring
                if (driver.behind(0), driver.behind(10 * room)) == (half, most):
                    break
                os.sched_yield()
            assert (driver.behind(0), driver.behind(10 * room)) == (half, most)
            assert driver.behind(0, still=True) == (waiting >= room // 4)
            assert len(under.burst(waiting)) == waiting
            driver.release()
    finally:
        under.close()


# ---------------------------------------------------------------- transmit
def test_frames_go_out_in_order_and_whole(open_link: Open) -> None:
    under = open_link()
    lengths = [14, 15, 60, 64, 65, 1000, 1513, 1514]
    sent = [frame_of(number, lengths[number % len(lengths)]) for number in range(50)]
    for frame in sent:
        assert under.driver.send(frame)
    assert under.driver.submit() == 0
    assert under.taken(50) == sent


def test_nothing_to_submit_is_no_system_call(open_link: Open) -> None:
    under = open_link()
    assert under.driver.submit() == 0
    assert under.driver.submit() == 0
    assert under.link.counters()["tx_submits"] == 0
    assert under.taken(0) == []


def test_a_full_transmit_ring_refuses_until_the_submit_and_goes_round(open_link: Open) -> None:
    under = open_link(tx_slots=5)
    if not under.fills:
        pytest.skip("a TAP device takes each frame when it is committed")
    for length in (64, 1000, 60, 1514):
        assert [under.driver.send(frame) for frame in frames_of(7, length)] == [True] * 5 + [False] * 2
        assert under.taken(0) == []
        assert under.driver.submit() == 0
        assert under.taken(5) == frames_of(5, length)


def test_a_second_reservation_is_the_same_slot(open_link: Open) -> None:
    under = open_link(tx_slots=2)
    assert under.driver.reserve(60)
    assert under.driver.reserve(1000)
    assert under.driver.reserve(64)
    under.driver.commit(frame_of(1))
    assert under.driver.send(frame_of(2, 1000))
    assert under.driver.submit() == 0
    assert under.taken(2) == [frame_of(1), frame_of(2, 1000)]


def test_a_reservation_may_stay_over_a_submit(open_link: Open) -> None:
    under = open_link()
    assert under.driver.send(frame_of(1))
    assert under.driver.reserve(64)
    assert under.driver.submit() == 0
    under.driver.commit(frame_of(2))
    assert under.driver.submit() == 0
    assert under.taken(2) == frames_of(3)[1:]


def test_a_frame_may_be_shorter_than_its_reservation(open_link: Open) -> None:
    under = open_link()
    for number in range(3):
        assert under.driver.reserve(1514)
        under.driver.commit(frame_of(number))
    assert under.driver.submit() == 0
    assert under.taken(3) == frames_of(3)


@pytest.mark.skipif(build_mode() != "release", reason="debug builds stop a caller that asks for too much")
@pytest.mark.parametrize("beyond", [1, 1000, 2**32 - 1 - 70_000])
def test_a_reservation_beyond_the_longest_frame_is_refused(open_link: Open, beyond: int) -> None:
    under = open_link()
    assert not under.driver.reserve(under.link.caps["max_frame"] + beyond)
    assert under.driver.send(frame_of(1))
    assert under.driver.submit() == 0
    assert under.taken(1) == [frame_of(1)]


def test_the_longest_frame_can_be_reserved(open_link: Open) -> None:
    under = open_link()
    assert under.driver.reserve(under.link.caps["max_frame"])
    under.driver.commit(frame_of(1))
    assert under.driver.submit() == 0
    assert under.taken(1) == [frame_of(1)]


# ---------------------------------------------------------------- capabilities
def test_capabilities_agree_with_each_other(open_link: Open) -> None:
    caps = open_link().link.caps
    assert caps["max_frame"] >= caps["mtu"] + 14
    assert caps["tx_checksum"] or not caps["tx_segmentation"]
    if caps["tx_segmentation"]:
        assert caps["max_frame"] >= 65_535


@pytest.mark.parametrize("offload", [{"csum_start": 5000, "csum_offset": 6}, {"csum_start": 62, "csum_offset": 6}])
def test_a_frame_with_an_impossible_offload_is_lost_and_the_next_is_sent(
    open_link: Open, offload: dict[str, int]
) -> None:
    under = open_link()
    assert under.driver.send(frame_of(1), **offload)
    assert under.driver.send(frame_of(2))
    assert under.driver.submit() == 0
    assert under.taken(1) == [frame_of(2)]


def test_a_checksum_is_left_to_a_device_that_has_it(open_link: Open) -> None:
    """The frame passes: filled in by a device of metal, or as it is to an end that knows what is missing."""
    under = open_link()
    assert under.link.caps["tx_checksum"]
    assert under.driver.send(frame_of(1), csum_start=34, csum_offset=16)
    assert under.driver.submit() == 0
    (got,) = under.taken(1)
    assert got[:50] == frame_of(1)[:50]
    assert got[52:] == frame_of(1)[52:]


# ---------------------------------------------------------------- waiting
def test_a_frame_that_is_there_ends_the_wait(open_link: Open) -> None:
    under = open_link()
    under.put(frames_of(1))
    assert under.driver.wait(60 * 10**9) == 0
    assert [frame.data for frame in under.driver.burst(64)] == frames_of(1)


def test_a_deadline_that_has_passed_is_no_wait(open_link: Open) -> None:
    under = open_link()
    assert under.driver.wait(0) == 0
    assert under.link.counters()["waits"] == 0


@pytest.mark.parametrize("busy_poll", ["auto", "always", "never"])
def test_the_deadline_ends_the_wait(open_link: Open, busy_poll: str) -> None:
    """No earlier, where there is something to wait for: memory has no clock, and nothing comes in while it waits."""
    under = open_link()
    under.driver.spin_ns = {"auto": 50_000, "always": 2**64 - 1, "never": 0}[busy_poll]
    start_ns = time.monotonic_ns()
    assert under.driver.wait(5_000_000) == 0
    if under.link.counters()["waits"]:
        assert time.monotonic_ns() - start_ns >= 5_000_000


# ---------------------------------------------------------------- counters
def test_counters_count_frames_and_bytes(open_link: Open) -> None:
    under = open_link()
    before = under.link.counters()
    under.put(frames_of(10, 100))
    under.burst(10)
    under.driver.release()
    for frame in frames_of(7, 200):
        under.driver.send(frame)
    under.driver.submit()
    after = under.link.counters()
    assert set(after) == {
        "rx_frames", "rx_bytes", "rx_dropped", "rx_truncated", "tx_frames", "tx_bytes", "tx_dropped", "tx_submits",
        "waits",
    }  # fmt: skip
    assert {name: after[name] - before[name] for name in after if name not in ("waits", "tx_submits")} == {
        "rx_frames": 10, "rx_bytes": 1000, "rx_dropped": 0, "rx_truncated": 0,
        "tx_frames": 7, "tx_bytes": 1400, "tx_dropped": 0,
    }  # fmt: skip
    assert after["tx_submits"] - before["tx_submits"] == (1 if under.fills else 7)


# ---------------------------------------------------------------- closing
def test_a_closed_link_does_nothing_and_does_not_crash(open_link: Open) -> None:
    under = open_link()
    driver = under.driver
    under.put(frames_of(3))
    under.burst(2)
    driver.send(frame_of(1))
    driver.submit()
    driver.reserve(60)
    before = under.link.counters()
    under.link.close()
    under.link.close()
    assert under.link.closed
    assert under.link.counters() == before
    assert driver.burst() == []
    driver.release()
    assert not driver.reserve(60)
    assert driver.submit() == -errno.EBADF
    assert driver.wait(10**12) == -errno.EBADF
    with pytest.raises(OSError, match=r"closed|descriptor"):
        under.link.fileno()


def test_a_commit_after_closing_is_lost(open_link: Open) -> None:
    """A closed link is a null object: what was reserved before is no longer its device's."""
    under = open_link()
    under.link.close()
    assert not under.driver.reserve(64)
    with pytest.raises(ValueError, match="reserved"):
        under.driver.commit(frame_of(1))


def test_leaving_the_with_block_closes_it(open_link: Open) -> None:
    under = open_link()
    with under.link as link:
        assert link is under.link
        assert not link.closed
    assert under.link.closed


def test_a_link_carries_one_stack_at_a_time(open_link: Open) -> None:
    under = open_link()
    with Stack(under.link, "198.18.0.2/24", now_ns=0):
        with pytest.raises(ValueError, match="in use"):
            Stack(under.link, "198.18.0.3/24", now_ns=0)
        with pytest.raises(ValueError, match="in use"):
            TeeLink(under.link, io.BytesIO(), epoch_ns=0)
    Stack(under.link, "198.18.0.3/24", now_ns=0).close()
    under.link.close()
    with pytest.raises(ValueError, match="closed"):
        Stack(under.link, "198.18.0.2/24", now_ns=0)


def test_nobody_closes_a_link_while_a_stack_is_inside(open_link: Open) -> None:
    under = open_link()
    stack = Stack(under.link, "198.18.0.2/24")
    thread = threading.Thread(target=stack.run)
    thread.start()
    try:
        while True:  # until it is inside: another call is refused then
            try:
                stack.closing_connections()
            except OwnershipError:
                break
        with pytest.raises(OwnershipError, match="inside"):
            under.link.close()
        assert not under.link.closed
    finally:
        while thread.is_alive():
            stack.stop()
            thread.join(0.01)
        stack.close()
    under.link.close()


def test_it_says_who_it_is(open_link: Open) -> None:
    link = open_link().link
    octets = [int(part, 16) for part in link.mac.split(":")]
    assert len(octets) == 6
    assert not octets[0] & 1
    assert set(link.caps) == {"mtu", "max_frame", "tx_checksum", "tx_segmentation", "rx_checksum"}

# SPDX-License-Identifier: MIT
"""Two receive rings are one arrival order: a processor's frames come out as it stored them, whatever others do."""

import errno
import itertools
import random
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from ustack.lab import namespace
from ustack.link.packet_mmap import PacketMmapLink
from ustack.testing.parts.failing import Failing
from ustack.testing.parts.rings import ReceiveRings

Wire = Any  # the class is in conftest

LARGE, SMALL = 0, 1
PROCESSOR = 1000  # frame number: processor times this, plus its place in what the processor stores


class Processor:
    """Stores its frames one after the other, one step at each turn: reserve, stamp, set the status."""

    def __init__(self, number: int, rings: ReceiveRings) -> None:
        self.number, self.rings = number, rings
        self.stored = 0
        self.dropped: list[int] = []
        self.which, self.slot, self.step = SMALL, 0, 0

    def turn(self, which: int, now_ns: int) -> None:
        frame = self.number * PROCESSOR + self.stored
        if self.step == 0:
            slot = self.rings.reserve(which)
            if slot is None:
                self.dropped.append(frame)
                self.stored += 1
                return
            self.which, self.slot = which, slot
        elif self.step == 1:
            self.rings.stamp(self.which, self.slot, frame, now_ns)
        else:
            self.rings.finish(self.which, self.slot)
            self.stored += 1
        self.step = (self.step + 1) % 3


# Steps of one processor; one that stops inside a frame while others go on is what makes the difference.
TURN = st.tuples(st.integers(0, 3), st.integers(LARGE, SMALL), st.sampled_from([1, 2, 3, 3, 3, 6]))


@settings(max_examples=400, deadline=None)
@given(
    processors=st.integers(1, 4),
    slots=st.integers(1, 9),
    script=st.lists(st.one_of(TURN, TURN, TURN, TURN, st.integers(1, 8), st.integers(-8, -1)), max_size=120),
)
def test_no_frame_overtakes_one_of_its_processor(processors: int, slots: int, script: list[Any]) -> None:
    rings = ReceiveRings(slots, processors)
    kernel = [Processor(number, rings) for number in range(processors)]
    got: list[int] = []
    lent = now_ns = 0
    for what in script:
        if isinstance(what, tuple):
            for _ in range(what[2]):
                now_ns += 1
                kernel[what[0] % processors].turn(what[1], now_ns)
        elif what > 0:
            frames = rings.burst(what)
            got += frames
            lent += len(frames)
        else:
            rings.release(min(-what, lent))
            lent -= min(-what, lent)
    for processor in kernel:  # nobody stops inside a frame for ever
        while processor.step:
            now_ns += 1
            processor.turn(SMALL, now_ns)
    while True:
        rings.release(lent)
        frames = rings.burst()
        lent = len(frames)
        got += frames
        if not frames:
            break
    for processor in kernel:
        theirs = [frame for frame in got if frame // PROCESSOR == processor.number]
        first = processor.number * PROCESSOR
        assert theirs == [frame for frame in range(first, first + processor.stored) if frame not in processor.dropped]


def store(rings: ReceiveRings, which: int, number: int, time_ns: int, **finish: bool) -> None:
    slot = rings.reserve(which)
    assert slot is not None
    rings.stamp(which, slot, number, time_ns)
    rings.finish(which, slot, **finish)


def test_the_stamp_decides_between_two_frames() -> None:
    rings = ReceiveRings(8, 1)
    store(rings, SMALL, 1, 999_999_999)
    store(rings, LARGE, 2, 1_000_000_000)
    store(rings, LARGE, 3, 1_000_000_001)
    store(rings, SMALL, 4, 1_000_000_002)
    assert rings.burst() == [1, 2, 3, 4]


def test_of_two_frames_with_one_stamp_the_large_one_comes_first() -> None:
    """The end of what was sent, behind a super-frame: what a sender does, on a clock that is coarse."""
    rings = ReceiveRings(8, 1)
    store(rings, SMALL, 2, 7)
    store(rings, LARGE, 1, 7)
    assert rings.burst() == [1, 2]


def test_a_frame_behind_one_that_is_being_stored_is_not_overtaken() -> None:
    rings = ReceiveRings(8, 2)
    stalled = rings.reserve(SMALL)
    store(rings, SMALL, 2, 10)
    store(rings, LARGE, 3, 11)
    assert rings.burst() == []
    assert stalled is not None
    rings.stamp(SMALL, stalled, 1, 12)
    rings.finish(SMALL, stalled)
    assert rings.burst() == [1, 2, 3]


def test_a_late_stamp_in_front_does_not_hold_back_the_frame_behind() -> None:
    """Another processor was slow between reserving its slot and stamping it: 2 came before 3 all the same."""
    rings = ReceiveRings(8, 2)
    slow = rings.reserve(SMALL)
    assert slow is not None
    store(rings, SMALL, 2, 10)
    store(rings, LARGE, 3, 11)
    rings.stamp(SMALL, slow, 1, 12)
    rings.finish(SMALL, slow)
    assert rings.burst() == [1, 2, 3]


def test_stamps_made_on_arrival_are_compared_as_they_are() -> None:
    rings = ReceiveRings(8, 2)
    for which, number, time_ns in ((SMALL, 1, 10), (LARGE, 2, 11), (LARGE, 3, 5), (SMALL, 4, 12)):
        store(rings, which, number, time_ns, stamped_on_arrival=True)
    assert rings.burst() == [1, 2, 3, 4]


def test_a_full_ring_and_an_empty_one_go_round() -> None:
    rings = ReceiveRings(3, 1)
    number = 0
    for turn in range(20):
        which = (LARGE, SMALL)[turn % 2]
        for _ in range(3):
            number += 1
            store(rings, which, number, number)
        assert rings.reserve(which) is None
        assert rings.burst() == [number - 2, number - 1, number]
        rings.release(3)


# ---------------------------------------------------------------- the kernel's own rings
def numbered(number: int, length: int, mac: str) -> bytes:
    return bytes(Ether(dst=mac, type=0x88B5) / number.to_bytes(4, "big")).ljust(length, b"\0")


@pytest.mark.root
def test_frames_of_all_lengths_arrive_in_the_order_of_their_sending(veth: Wire) -> None:
    driver = veth.open(rx_slots=64, rx_small_slots=64)
    link = driver.link
    assert isinstance(link, PacketMmapLink)
    for where, name in ((veth.ours_ns, veth.ours), (veth.peer_ns, veth.peer)):
        veth.run(f"ip -n {where} link set {name} mtu 9000")  # the rings were divided at 1,500
    chance = random.Random(7)
    sent = [numbered(i, chance.choice((60, 60, 200, 1514, 1522, 1523, 3000, 9000)), link.mac) for i in range(3000)]
    got: list[bytes] = []
    with namespace.inside(veth.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((veth.peer, 0))
        at = 0
        while len(got) < len(sent):
            for frame in sent[at : at + chance.randrange(1, 60)]:
                raw.send(frame)
                at += 1
            driver.wait(10_000_000)
            while frames := driver.burst(chance.randrange(1, 64)):
                got += [frame.data for frame in frames if frame.data[12:14] == b"\x88\xb5"]
                if chance.random() < 0.7:
                    driver.release()
            driver.release()
    assert got == sent
    assert link.ring_drops == (0, 0)


def exchange(veth: Wire, driver: Any, lengths: tuple[int, ...]) -> None:
    """A frame of each length, and each arrives once, whole and in order."""
    sent = [numbered(place, length, driver.link.mac) for place, length in enumerate(lengths)]
    with namespace.inside(veth.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((veth.peer, 0))
        for frame in sent:
            raw.send(frame)
    assert [frame.data for frame in driver.take() if frame.data[12:14] == b"\x88\xb5"] == sent
    assert driver.link.ring_drops == (0, 0)
    assert driver.link.counters()["rx_truncated"] == 0


def hooks(veth: Wire) -> int:
    """Places where the kernel hands frames of our interface to packet sockets."""
    with namespace.inside(veth.ours_ns):
        return sum(
            line.split()[1:2] == ["ours"] for line in Path("/proc/thread-self/net/ptype").read_text().splitlines()
        )


LENGTHS = (60, 5000, 1514, 1522, 1523, 60, 9000, 200)


@pytest.mark.root
def test_the_kernel_looks_at_a_frame_once_for_both_rings(veth: Wire) -> None:
    """Two sockets, one hook; when the interface has been down, too."""
    driver = veth.open()
    for where, name in ((veth.ours_ns, veth.ours), (veth.peer_ns, veth.peer)):
        veth.run(f"ip -n {where} link set {name} mtu 9000")
    driver.take()
    assert hooks(veth) == 1
    exchange(veth, driver, LENGTHS)
    for _ in range(3):
        veth.run(f"ip -n {veth.ours_ns} link set {veth.ours} down")
        veth.run(f"ip -n {veth.ours_ns} link set {veth.ours} up")
        veth.await_queues()
        driver.wait(0)  # takes the sockets' errors
        driver.take()
        exchange(veth, driver, LENGTHS)
    assert hooks(veth) == 1


GROUP_CALLS = 5  # the first socket, its program, the second socket, and two filters taken off


def opened_in_spite(veth: Wire, after: int, times: int) -> tuple[Any, int]:
    """Open our end while some calls of setsockopt fail: what drives it, None if it could not be; how many did."""
    with Failing("ustack.link.packet_ring", "setsockopt", errno.ENOMEM, after=after, times=times) as calls:
        try:
            driver = veth.open(rx_slots=16, rx_small_slots=16, tx_slots=16)
        except OSError:
            driver = None
    return driver, calls.failed


@pytest.mark.root
@pytest.mark.parametrize("step", range(GROUP_CALLS + 1))
def test_a_kernel_without_groups_divides_the_frames_all_the_same(veth: Wire, step: int) -> None:
    """Whatever it refuses, from the first step of forming the group to the last."""
    for where, name in ((veth.ours_ns, veth.ours), (veth.peer_ns, veth.peer)):
        veth.run(f"ip -n {where} link set {name} mtu 9000")
    calls_in_all = next(place for place in itertools.count() if opened_in_spite(veth, place, times=1)[1] == 0)
    driver, failed = opened_in_spite(veth, calls_in_all - GROUP_CALLS + step, times=GROUP_CALLS)
    assert failed == (1, 1, 1, 2, 1, 0)[step]  # it gives up at the first, but lets both filters go
    driver.take()
    exchange(veth, driver, LENGTHS)


@pytest.mark.root
def test_a_full_ring_for_small_frames_leaves_the_other_alone(veth: Wire) -> None:
    driver = veth.open(rx_slots=4, rx_small_slots=8)
    link = driver.link
    assert isinstance(link, PacketMmapLink)
    assert link.ring_slots[0] == 4
    for where, name in ((veth.ours_ns, veth.ours), (veth.peer_ns, veth.peer)):
        veth.run(f"ip -n {where} link set {name} mtu 9000")
    driver.take()
    with namespace.inside(veth.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((veth.peer, 0))
        for number in range(link.small_slots + 5):
            raw.send(numbered(number, 60, link.mac))
        raw.send(numbered(99, 5000, link.mac))
    assert link.ring_drops == (0, 5)
    assert driver.link.counters()["rx_dropped"] == 5
    frames = [frame.data for frame in driver.take()]
    assert [int.from_bytes(frame[14:18], "big") for frame in frames] == [*range(link.small_slots), 99]


@pytest.mark.root
def test_either_ring_wakes_a_waiter_and_its_descriptor(veth: Wire) -> None:
    driver = veth.open()
    link = driver.link
    for where, name in ((veth.ours_ns, veth.ours), (veth.peer_ns, veth.peer)):
        veth.run(f"ip -n {where} link set {name} mtu 9000")
    driver.take()
    with namespace.inside(veth.peer_ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((veth.peer, 0))
        for length in (60, 5000, 60, 5000):
            assert select.select([link.fileno()], [], [], 0)[0] == []
            raw.send(numbered(1, length, link.mac))
            assert select.select([link.fileno()], [], [], 10)[0] == [link.fileno()]
            before = link.counters()["waits"]
            assert driver.wait(10**10) == 0
            assert link.counters()["waits"] == before  # it was there: no sleep
            assert len(driver.take()) == 1


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "slots"), [({}, 4096), ({"rx_small_slots": 100}, 100), ({"rx_small_slots": 0}, 0)]
)
def test_the_ring_has_the_slots_that_were_asked_for(veth: Wire, arguments: dict[str, int], slots: int) -> None:
    link = veth.open(**arguments).link
    assert isinstance(link, PacketMmapLink)
    assert slots <= link.small_slots <= slots + slots // 4


@pytest.mark.root
def test_a_jumbo_mtu_makes_the_small_slots_larger_and_fewer(veth: Wire) -> None:
    veth.run(f"ip -n {veth.ours_ns} link set ours mtu 9000")
    link = veth.open().link
    assert isinstance(link, PacketMmapLink)
    assert 1500 < link.small_slots < 2000
    with pytest.raises(ValueError, match="rx_small_slots 65536 of 9"):
        veth.open(rx_small_slots=65536)

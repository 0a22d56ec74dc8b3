# SPDX-License-Identifier: MIT
"""The link in memory, beyond the contract (test_contract): its bounds, hostile frames, packets, the gate."""

import gc
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from ustack import OwnershipError, Stack
from ustack.link.memory import MemoryLink
from ustack.testing.parts.link_driver import LinkDriver

FRAME = bytes(range(60))
OURS = "198.18.0.2"
THEIRS = "198.18.0.1"


def frames_of(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * 16 for number in range(count)]


# ---------------------------------------------------------------- bounds
@settings(max_examples=300, deadline=None)
@given(
    script=st.lists(st.tuples(st.sampled_from("pbrscft"), st.integers(0, 900)), max_size=150),
    slots=st.integers(1, 9),
    ring_bytes=st.sampled_from([1600, 1664, 2048, 4096]),
)
def test_nothing_is_lost_mixed_up_or_kept_beyond_the_bounds(
    script: list[tuple[str, int]], slots: int, ring_bytes: int
) -> None:
    """Put, burst, release, send, submit, take in any order: each direction is one queue, and within its bound."""
    with MemoryLink(rx_slots=slots, tx_slots=slots, held_frames=2 * slots, ring_bytes=ring_bytes) as link:
        driver = LinkDriver(link)
        expected: list[bytes] = []  # of the stack, in order
        lent: list[bytes] = []
        committed: list[bytes] = []
        submitted: list[bytes] = []
        dropped = 0
        for number, (what, length) in enumerate(script):
            frame = (number.to_bytes(4, "big") * 225)[:length]
            if what == "p":
                if link.inject(frame):
                    expected.append(frame)
                else:
                    dropped += 1
                    assert expected or lent  # an empty ring takes any frame of the longest kind
                assert len(expected) + len(lent) <= slots
            elif what == "b":
                lent += (got := [one.data for one in driver.burst(length % 5)])
                assert got == expected[: len(got)]
                expected = expected[len(got) :]
            elif what == "r":
                driver.release(n := length % (len(lent) + 1))
                lent = lent[n:]
            elif what == "s":
                if driver.send(frame):
                    committed.append(frame)
                assert len(committed) <= slots
                assert len(committed) + len(submitted) <= 2 * slots
            elif what == "c":
                driver.submit()
                submitted += committed
                committed = []
            elif what == "f":
                assert [one.data for one in driver.lent()] == lent
            elif submitted:
                assert link.receive() == submitted.pop(0)
            else:
                assert link.receive() is None
            assert (link.waiting, link.sent) == (len(expected), len(submitted))
        assert link.counters()["rx_dropped"] == dropped


def test_the_whole_ring_can_be_one_frame_and_an_empty_one_starts_at_the_front() -> None:
    with MemoryLink(ring_bytes=4096) as link:
        driver = LinkDriver(link)
        for _ in range(5):
            assert link.inject(bytes(4032))
            assert not link.inject(b"")
            assert [len(frame.data) for frame in driver.take()] == [4032]
        assert link.counters()["rx_dropped"] == 5


def test_a_sender_goes_on_at_the_front_where_what_was_taken_has_left_room() -> None:
    frames = [bytes([number]) * 1100 for number in range(5)]
    with MemoryLink(ring_bytes=4096) as link:
        driver = LinkDriver(link)
        for frame in frames[:3]:
            assert driver.send(frame)
        assert not driver.send(frames[3])  # neither behind the third nor before the first
        driver.submit()
        assert link.receive() == frames[0]
        assert driver.send(frames[3])
        assert not driver.send(frames[4])
        driver.submit()
        assert [link.receive() for _ in range(4)] == [*frames[1:4], None]


def test_a_far_end_that_takes_nothing_holds_the_stack_up() -> None:
    with MemoryLink(held_frames=3) as link:
        driver = LinkDriver(link)
        for _ in range(4):
            driver.send(FRAME)
            driver.submit()
        assert link.sent == 3
        assert link.receive() == FRAME
        assert driver.send(FRAME)
        assert link.sent == 2
        assert link.counters()["tx_dropped"] == 0


def test_what_is_not_submitted_is_not_there_yet() -> None:
    with MemoryLink() as link:
        driver = LinkDriver(link)
        driver.send(FRAME)
        assert (link.sent, link.receive()) == (0, None)
        driver.submit()
        assert (link.sent, link.receive()) == (1, FRAME)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mtu": 67}, {"mtu": 1 << 21}, {"max_frame": 100}, {"max_frame": 1 << 21}, {"rx_slots": 0}, {"tx_slots": -1},
        {"held_frames": 0}, {"ring_bytes": 1500}, {"ring_bytes": 1 << 31}, {"rx_slots": 1 << 21},
    ],
)  # fmt: skip
def test_impossible_arguments_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MemoryLink(**arguments)


@pytest.mark.parametrize("arguments", [{"mac": "01:00:00:00:00:00"}, {"far_mac": "2"}])
def test_a_station_address_is_a_unicast_address(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="MAC"):
        MemoryLink(**arguments)


def test_it_is_opened_once_and_can_be_tried_again() -> None:
    link = MemoryLink.__new__(MemoryLink)
    with pytest.raises(OSError, match="closed"):
        link.inject(FRAME)
    with pytest.raises(ValueError, match="mtu"):
        link.__init__(mtu=1)  # type: ignore[misc]
    link.__init__()  # type: ignore[misc]
    with pytest.raises(ValueError, match="once"):
        link.__init__()  # type: ignore[misc]
    assert link.inject(FRAME)
    link.close()


# ---------------------------------------------------------------- frames
def test_capabilities_are_as_asked_for() -> None:
    assert MemoryLink().caps == {
        "mtu": 1500, "max_frame": 1514, "tx_checksum": False, "tx_segmentation": False, "rx_checksum": False
    }  # fmt: skip
    assert MemoryLink(mtu=9000, segmentation_offload=True).caps == {
        "mtu": 9000, "max_frame": 65549, "tx_checksum": True, "tx_segmentation": True, "rx_checksum": True
    }  # fmt: skip
    assert MemoryLink(max_frame=4000, checksum_offload=True).caps["max_frame"] == 4000


def test_an_injected_frame_says_what_it_is_told_to_say() -> None:
    with MemoryLink() as link:
        driver = LinkDriver(link)
        link.inject(FRAME, checksum="partial", gso_size=1000, wire_length=99, vlan_id=7)
        link.inject(bytearray(FRAME), checksum="verified")
        link.inject(memoryview(b""))
        assert driver.burst() == [(FRAME, 99, 1000, "partial"), (FRAME, 60, 0, "verified"), (b"", 0, 0, "unknown")]
        assert driver.vlan_ids() == [7, 0, 0]
        assert link.counters()["rx_truncated"] == 1


@pytest.mark.parametrize(
    ("about", "what"),
    [
        ({"checksum": "good"}, "checksum"), ({"gso_size": 65536}, "gso_size"), ({"vlan_id": 4096}, "vlan_id"),
        ({"wire_length": 59}, "wire_length"), ({"wire_length": 1 << 40}, "wire_length"),
    ],
)  # fmt: skip
def test_what_no_device_can_say_is_refused(about: dict[str, Any], what: str) -> None:
    with MemoryLink() as link:
        with pytest.raises(ValueError, match=what):
            link.inject(FRAME, **about)
        with pytest.raises(TypeError):
            link.inject(60)  # type: ignore[arg-type]
        assert link.waiting == 0


@pytest.mark.parametrize(
    ("arguments", "length", "offload"),
    [
        ({}, 100, {"csum_start": 34, "csum_offset": 16}),
        ({"checksum_offload": True}, 1000, {"csum_start": 34, "csum_offset": 16, "gso_size": 100, "header_length": 54}),
        ({"segmentation_offload": True}, 1515, {}),
        ({"segmentation_offload": True}, 1515, {"gso_size": 1460, "header_length": 54}),
        ({"checksum_offload": True}, 100, {"csum_start": 90, "csum_offset": 16}),
    ],
)
def test_what_the_capabilities_do_not_cover_is_refused(
    arguments: dict[str, bool], length: int, offload: dict[str, int]
) -> None:
    with MemoryLink(**arguments) as link:  # type: ignore[arg-type]
        driver = LinkDriver(link)
        assert driver.send(bytes(length), **offload)
        assert driver.send(FRAME)
        driver.submit()
        assert link.receive_all() == [FRAME]
        assert link.counters()["tx_dropped"] == 1


def test_a_super_frame_comes_out_whole_with_its_offload() -> None:
    with MemoryLink(segmentation_offload=True) as link:
        driver = LinkDriver(link)
        frame = random.Random(1).randbytes(14 + 65535)
        offload = {"csum_start": 34, "csum_offset": 16, "gso_size": 1460, "header_length": 54, "gso_family": 4}
        for _ in range(100):
            assert driver.send(frame, **offload)
            assert link.take() == [(frame, offload)]


# ---------------------------------------------------------------- packets
def test_a_stack_is_spoken_to_in_ip_packets() -> None:
    with MemoryLink() as link, Stack(link, f"{OURS}/24", seed=1, now_ns=0) as stack:
        echo = bytes(IP(src=THEIRS, dst=OURS) / ICMP(type=8, id=1, seq=2) / b"hello")
        assert link.inject_packet(echo)
        stack.poll(1)
        assert link.receive_packet() is None  # it has asked for the address, and the link has answered
        stack.poll(2)
        answer = link.receive_packet()
        assert answer is not None
        packet = IP(answer)
        assert (packet.src, packet.dst, packet[ICMP].type, bytes(packet[ICMP].payload)) == (OURS, THEIRS, 0, b"hello")
        assert link.receive_packet() is None


def test_packets_that_find_no_room_are_refused_and_a_question_then_goes_unanswered() -> None:
    """The stack asks for the address again, a second later."""
    echo = bytes(IP(src=THEIRS, dst=OURS) / ICMP(type=8, id=1, seq=2) / b"hello")
    with MemoryLink(rx_slots=1) as link, Stack(link, f"{OURS}/24", seed=1, now_ns=0) as stack:
        assert link.inject_packet(echo)
        assert not link.inject_packet(echo)
        stack.poll(1)
        assert link.inject_packet(echo)  # in the place of the answer to the question
        assert link.receive_packet() is None
        stack.poll(2)
        assert link.receive_packet() is None
        stack.poll(2_000_000_000)
        assert link.receive_packet() is None
        stack.poll(2_000_000_001)
        answer = link.receive_packet()
        assert answer is not None
        assert IP(answer)[ICMP].type == 0


def test_its_own_announcement_is_no_question() -> None:
    with MemoryLink() as link, Stack(link, f"{OURS}/24", seed=1, now_ns=0) as stack:
        stack.poll(1)
        assert link.receive_packet() is None
        assert link.waiting == 0


def test_any_version_has_its_ethertype_and_anything_else_is_refused() -> None:
    with MemoryLink() as link:
        driver = LinkDriver(link)
        link.inject_packet(b"\x45" + bytes(19))
        link.inject_packet(b"\x60" + bytes(39))
        assert [frame.data[:14].hex() for frame in driver.take()] == [
            "020000000002" "020000000001" "0800",
            "020000000002" "020000000001" "86dd",
        ]  # fmt: skip
        for bad in (b"", b"\x00" * 20, b"\x75" + bytes(19), b"\x45" + bytes(65535)):
            with pytest.raises(ValueError, match="packet"):
                link.inject_packet(bad)


def test_packets_are_for_a_link_without_offloads() -> None:
    with MemoryLink(checksum_offload=True) as link, pytest.raises(ValueError, match="offload"):
        link.receive_packet()


def test_short_and_odd_frames_of_a_stack_are_no_packets() -> None:
    with MemoryLink() as link:
        driver = LinkDriver(link)
        ask: Any = Ether(src="02:00:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=OURS, pdst=THEIRS, op=1)
        for frame in (b"", b"\x00" * 13, bytes(ask)[:20], bytes(60), bytes(ask)[:41]):
            driver.send(frame)
        driver.submit()
        assert link.receive_packet() is None
        assert (link.sent, link.waiting) == (0, 0)


# ---------------------------------------------------------------- the gate
def test_a_second_thread_gets_an_ownership_error() -> None:
    link = MemoryLink()
    stack = Stack(link, f"{OURS}/24")
    thread = threading.Thread(target=stack.run)
    thread.start()
    calls = {
        "inject": lambda: link.inject(FRAME), "receive": link.receive, "receive_all": link.receive_all,
        "take": link.take, "inject_packet": lambda: link.inject_packet(b"\x45" + bytes(19)),
        "receive_packet": link.receive_packet, "close": link.close,
    }  # fmt: skip
    try:
        while True:  # until it is inside
            try:
                stack.closing_connections()
            except OwnershipError:
                break
        for name, call in calls.items():
            with pytest.raises(OwnershipError, match="inside"):
                call()
            assert not link.closed, name
    finally:
        while thread.is_alive():
            stack.stop()
            thread.join(0.01)
        stack.close()
    link.close()


def test_a_collection_may_use_the_link_while_a_frame_is_taken_from_it() -> None:
    with MemoryLink() as link:
        driver = LinkDriver(link)
        for frame in frames_of(200):
            driver.send(frame)
        driver.submit()
        got: list[bytes | None] = []

        class Cycle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                got.append(link.receive())

        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(60):
                Cycle()
                got += [frame for frame, _ in link.take()[:1]]
        finally:
            gc.set_threshold(*before)
        gc.collect()
        taken = [frame for frame in got if frame is not None]
        assert len(taken) == len(set(taken))


def test_after_closing_there_is_nothing() -> None:
    link = MemoryLink()
    driver = LinkDriver(link)
    link.inject(FRAME)
    driver.burst()
    driver.send(FRAME)
    driver.submit()
    link.close()
    for call in (link.receive, link.take, link.receive_all, link.receive_packet):
        with pytest.raises(OSError, match="closed"):
            call()
    with pytest.raises(OSError, match="closed"):
        link.inject(FRAME)

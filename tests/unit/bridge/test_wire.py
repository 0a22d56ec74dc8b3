# SPDX-License-Identifier: MIT
"""What a wire does to packets, in virtual time between two links in memory: exact times, exact drops, no packet lost
without a reason."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ustack.bridge.wire import Wire
from ustack.errors import OwnershipError
from ustack.link.memory import MemoryLink
from ustack.link.sim import SimNetwork

MILLISECOND = 1_000_000
MACS: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
REASONS = ("queue_dropped", "lost", "beyond_mtu", "too_long", "no_room")


def frame(number: int, length: int = 1000) -> bytes:
    """An Ethernet frame of no protocol that says its number."""
    return (b"\2\0\0\0\0\2" + b"\2\0\0\0\0\1" + b"\x88\xb5" + number.to_bytes(4, "big")).ljust(length, b"\0")


def number_of(data: bytes) -> int:
    return int.from_bytes(data[14:18], "big")


class Between:
    """Two links in memory and a wire between them. What the far end of one puts in, the far end of the other takes."""

    def __init__(self, link: dict[str, Any] | None = None, **fields: Any) -> None:
        self.stack = ExitStack()
        size = {"rx_slots": 65536, "held_frames": 65536, "tx_slots": 65536, "ring_bytes": 1 << 27, **(link or {})}
        self.a = self.stack.enter_context(MemoryLink(**size))
        self.b = self.stack.enter_context(MemoryLink(**size))
        self.wire = self.stack.enter_context(Wire(self.a, self.b, **fields))
        self.now_ns = 0

    def send(self, data: bytes, **said: Any) -> None:
        assert self.a.inject(data, **said)

    def turn(self, now_ns: int) -> int | None:
        self.now_ns = now_ns
        return self.wire.turn(now_ns)

    def arrivals(self) -> list[tuple[int, bytes]]:
        """Everything that reaches b, with its time; nothing is left on the way."""
        arrived = []
        after: int | None = self.now_ns
        while after is not None:
            after = self.turn(max(self.now_ns, after))
            while self.a.waiting or (after is not None and after <= self.now_ns):
                after = self.turn(self.now_ns)
                arrived += [(self.now_ns, data) for data in self.b.receive_all()]
            arrived += [(self.now_ns, data) for data in self.b.receive_all()]
        return arrived

    def numbers(self) -> list[int]:
        return [number_of(data) for _, data in self.arrivals()]

    @property
    def forward(self) -> dict[str, int]:
        return self.wire.counters()["forward"]

    def close(self) -> None:
        self.stack.close()


@pytest.fixture
def between() -> Iterator[Any]:
    made: list[Between] = []

    def make(**fields: Any) -> Between:
        made.append(Between(**fields))
        return made[-1]

    yield make
    for one in made:
        one.close()


# ---------------------------------------------------------------- rate, delay, queue
def test_without_impairments_a_packet_passes_in_the_turn_that_takes_it(between: Any) -> None:
    wire = between()
    wire.send(frame(7))
    assert wire.turn(5) is None
    assert wire.b.receive_all() == [frame(7)]
    assert wire.a.receive_all() == []


def test_each_packet_is_serialised_after_the_one_before_it(between: Any) -> None:
    wire = between(rate_bps=8_000_000, delay_ns=10 * MILLISECOND)
    for number, length in enumerate((1000, 500, 250, 1514)):
        wire.send(frame(number, length))
    times = [time for time, _ in wire.arrivals()]
    assert times == [11 * MILLISECOND, 11_500_000, 11_750_000, 13_264_000]


def test_a_packet_is_not_there_a_nanosecond_early(between: Any) -> None:
    wire = between(rate_bps=100_000_000, delay_ns=10 * MILLISECOND)
    wire.send(frame(0, 1514))
    due_ns = 121_120 + 10 * MILLISECOND
    assert wire.turn(0) == due_ns
    assert wire.turn(due_ns - 1) == due_ns
    assert wire.b.receive_all() == []
    assert wire.turn(due_ns) is None
    assert wire.b.receive_all() == [frame(0, 1514)]


def test_a_late_turn_delivers_late_and_loses_no_capacity(between: Any) -> None:
    wire = between(rate_bps=8_000_000)
    for number in range(10):
        wire.send(frame(number))
    wire.turn(0)
    wire.turn(5 * MILLISECOND + 1)
    assert wire.forward["behind_most_ns"] == 4 * MILLISECOND + 1
    assert wire.forward["behind_ns"] == 10 * MILLISECOND + 5
    assert [number_of(data) for data in wire.b.receive_all()] == [0, 1, 2, 3, 4]
    wire.turn(10 * MILLISECOND)
    assert [number_of(data) for data in wire.b.receive_all()] == [5, 6, 7, 8, 9]


def test_a_queue_in_bytes_drops_what_does_not_fit_behind_the_packet_on_the_wire(between: Any) -> None:
    wire = between(rate_bps=8_000_000, queue_bytes=3000)
    for number in range(4):
        wire.send(frame(number))
    wire.send(frame(4, 60))
    assert wire.numbers() == [0, 1, 2]
    assert wire.forward["queue_dropped"] == 2
    assert (wire.forward["queue_most_bytes"], wire.forward["queue_most_frames"]) == (3000, 3)


def test_a_short_packet_takes_the_room_that_a_long_one_cannot(between: Any) -> None:
    wire = between(rate_bps=8_000_000, queue_bytes=2500)
    for number, length in enumerate((1000, 1000, 1000, 500)):
        wire.send(frame(number, length))
    assert wire.numbers() == [0, 1, 3]


def test_a_queue_in_packets_counts_packets(between: Any) -> None:
    wire = between(rate_bps=8_000_000, queue_frames=3)
    for number in range(6):
        wire.send(frame(number, 60 + 100 * number))
    assert wire.numbers() == [0, 1, 2]
    assert wire.forward["queue_dropped"] == 3


def test_room_comes_back_when_a_packet_has_left(between: Any) -> None:
    wire = between(rate_bps=8_000_000, queue_frames=1)
    wire.send(frame(0))
    wire.turn(0)
    wire.send(frame(1))
    wire.turn(MILLISECOND - 1)
    wire.send(frame(2))
    wire.turn(MILLISECOND)
    assert [number_of(data) for data in wire.b.receive_all()] == [0]
    assert wire.numbers() == [2]
    assert wire.forward["queue_dropped"] == 1


def test_the_directions_are_two_wires(between: Any) -> None:
    wire = between(rate_bps=(8_000_000, 80_000_000), delay_ns=(0, 2 * MILLISECOND), queue_frames=(1, 10))
    for number in range(3):
        wire.send(frame(number))
        assert wire.b.inject(frame(10 + number))
    while (after := wire.turn(wire.now_ns)) is not None:
        wire.now_ns = after
    assert [number_of(data) for data in wire.b.receive_all()] == [0]
    assert [number_of(data) for data in wire.a.receive_all()] == [10, 11, 12]
    assert wire.now_ns == 2 * MILLISECOND + 300_000


def test_a_super_frame_is_serialised_packet_by_packet(between: Any) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    wire = between(rate_bps=8_000_000, queue_frames=2)
    whole = bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP() / (b"x" * 3000))
    wire.send(whole, gso_size=1000, checksum="partial")
    arrived = wire.arrivals()
    assert [time for time, _ in arrived] == [1_054_000, 2_108_000]
    assert [len(data) for _, data in arrived] == [1054, 1054]
    assert (wire.forward["frames"], wire.forward["super_frames"], wire.forward["packets"]) == (1, 1, 3)
    assert wire.forward["queue_dropped"] == 1


def test_a_turn_takes_in_as_much_as_it_gives_and_no_more(between: Any) -> None:
    """A direction of many short frames keeps pace, and cannot hold the other one up."""
    wire = between()
    for number in range(1000):
        wire.send(frame(number, 60))
    seen = []
    for _ in range(8):
        wire.turn(0)
        seen.append(len(wire.b.receive_all()))
    assert seen == [128] * 7 + [104]


# ---------------------------------------------------------------- chance
def fates(between: Any, count: int = 2000, **fields: Any) -> list[int]:
    wire = between(**fields)
    for number in range(count):
        wire.send(frame(number, 60))
    return wire.numbers()


def test_the_same_seed_loses_the_same_packets(between: Any) -> None:
    first = fates(between, seed=7, loss=0.1)
    assert first == fates(between, seed=7, loss=0.1)
    assert first != fates(between, seed=8, loss=0.1)
    assert 1740 <= len(first) <= 1860  # 1,800 and four standard deviations
    assert first == sorted(first)


def test_a_packet_s_fate_depends_on_no_other_impairment(between: Any) -> None:
    """The n-th packet is lost by the seed alone: who repeats a run with another queue or rate sees the same losses."""
    survivors = set(fates(between, seed=7, loss=0.1))
    queued = between(seed=7, loss=0.1, rate_bps=8_000_000, queue_frames=900, delay_ns=5)
    for number in range(2000):
        queued.send(frame(number, 60))
    assert queued.numbers() == sorted(survivors & set(range(900)))
    late = set(fates(between, seed=7, loss=0.1, reorder=0.5, reorder_ns=MILLISECOND))
    assert late == survivors
    doubled = set(fates(between, seed=7, loss=0.1, duplicate=0.5))
    assert doubled == survivors


def test_the_directions_have_chances_of_their_own(between: Any) -> None:
    wire = between(seed=3, loss=0.5)
    for number in range(200):
        wire.send(frame(number))
        assert wire.b.inject(frame(number))
    while wire.a.waiting or wire.b.waiting:
        wire.turn(0)
    assert [number_of(d) for d in wire.a.receive_all()] != [number_of(d) for d in wire.b.receive_all()]


def test_a_share_of_the_packets_is_late_by_exactly_as_much_as_asked(between: Any) -> None:
    wire = between(seed=5, reorder=0.2, reorder_ns=5 * MILLISECOND, delay_ns=MILLISECOND)
    for number in range(500):
        wire.send(frame(number, 60))
    arrived = wire.arrivals()
    assert {time for time, _ in arrived} == {MILLISECOND, 6 * MILLISECOND}
    late = [number_of(data) for time, data in arrived if time == 6 * MILLISECOND]
    in_time = [number_of(data) for time, data in arrived if time == MILLISECOND]
    assert late == sorted(late)
    assert in_time == sorted(in_time)
    assert sorted(late + in_time) == list(range(500))
    assert len(late) == wire.forward["reordered"]
    assert 64 <= len(late) <= 136  # 100 and four standard deviations


def test_a_duplicate_follows_at_once(between: Any) -> None:
    wire = between(seed=5, duplicate=0.2)
    for number in range(500):
        wire.send(frame(number, 60))
    numbers = wire.numbers()
    assert numbers == sorted(numbers)
    twice = [number for number in set(numbers) if numbers.count(number) == 2]
    assert len(numbers) == 500 + len(twice)
    assert len(twice) == wire.forward["duplicated"]
    assert 64 <= len(twice) <= 136


def test_jitter_delays_and_keeps_the_order(between: Any) -> None:
    wire = between(seed=5, delay_ns=MILLISECOND, jitter_ns=3 * MILLISECOND)
    times: dict[int, int] = {}
    for number in range(300):
        wire.send(frame(number, 60))
        wire.turn(number * 100_000)
        times |= {number_of(data): wire.now_ns for data in wire.b.receive_all()}
    arrived = wire.arrivals()
    numbers = [*times, *(number_of(data) for _, data in arrived)]
    assert numbers == list(range(300))
    assert len({time for time, _ in arrived}) > 1
    assert wire.now_ns <= 299 * 100_000 + 4 * MILLISECOND
    assert wire.forward["reordered"] == 0


def test_order_is_kept_when_the_delay_falls(between: Any) -> None:
    wire = between(delay_ns=10 * MILLISECOND)
    wire.send(frame(0))
    wire.turn(0)
    wire.wire.impair(delay_ns=0)
    wire.send(frame(1))
    wire.turn(MILLISECOND)
    assert wire.b.receive_all() == []
    assert wire.numbers() == [0, 1]


# ---------------------------------------------------------------- marks
def ecn_frame(ecn: int, family: int = 4) -> bytes:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    if family == 4:
        ip = IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8 | ecn, id=77)
    else:
        ip = IPv6(src="fd00::1", dst="fd00::2", tc=0xB8 | ecn)
    return bytes(Ether(**MACS, type=0x0800 if family == 4 else 0x86DD) / ip / UDP(dport=9) / (b"x" * 958))


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_beyond_the_mark_says_so_if_it_can(between: Any, family: int) -> None:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    wire = between(rate_bps=8_000_000, mark_bytes=1500)
    kinds = [2, 2, 2, 1, 0, 3]
    for ecn in kinds:
        wire.send(ecn_frame(ecn, family))
    arrived = [Ether(data) for _, data in wire.arrivals()]
    seen = [packet[IP].tos if family == 4 else packet[IPv6].tc for packet in arrived]
    assert seen == [0xBA, 0xBA, 0xBB, 0xBB, 0xB8, 0xBB]
    assert wire.forward["marked"] == 3
    for packet in arrived if family == 4 else []:
        stated = packet[IP].chksum
        del packet[IP].chksum
        assert IP(bytes(packet[IP])).chksum == stated


# ---------------------------------------------------------------- bounds
def test_memory_is_bounded_and_what_finds_none_is_counted(between: Any) -> None:
    wire = between(delay_ns=MILLISECOND, memory_bytes=10_000)
    for number in range(100):
        wire.send(frame(number))
    assert wire.numbers() == list(range(9))
    assert wire.forward["no_room"] == 91
    assert wire.forward["memory_most_bytes"] <= 10_000


def test_memory_is_used_round_and_round(between: Any) -> None:
    wire = between(delay_ns=MILLISECOND, memory_bytes=10_000)
    got = []
    for number in range(2000):
        wire.send(frame(number, 60 + number % 1400))
        wire.turn(number * 400_000)
        got += [number_of(data) for data in wire.b.receive_all()]
    assert got + wire.numbers() == list(range(2000))
    assert wire.forward["no_room"] == 0


def test_packets_wait_while_the_other_link_takes_none(between: Any) -> None:
    wire = between(link={"held_frames": 3})
    for number in range(8):
        wire.send(frame(number))
    wire.turn(0)
    assert wire.b.sent == 3
    assert wire.forward["travelling"] == 5
    assert wire.numbers() == list(range(8))


def test_a_packet_beyond_the_mtu_is_dropped_and_counted() -> None:
    with MemoryLink(mtu=9000) as a, MemoryLink(mtu=1500, max_frame=9014) as b, Wire(a, b) as wire:
        a.inject(frame(0, 1514))
        a.inject(frame(1, 1518))  # with a tag
        a.inject(frame(2, 1519))
        wire.turn(0)
        assert wire.counters()["forward"]["too_long"] == 1
        assert wire.counters()["forward"]["forwarded"] == 2


def test_what_a_narrow_path_does_not_carry_vanishes_and_is_counted() -> None:
    with MemoryLink(mtu=9000) as a, MemoryLink(mtu=9000) as b, Wire(a, b, path_mtu=(1400, 0)) as wire:
        for number, length in enumerate((1414, 1415, 9014)):
            a.inject(frame(number, length))
            b.inject(frame(number, length))
        wire.turn(0)
        assert [number_of(data) for data in b.receive_all()] == [0]
        assert len(a.receive_all()) == 3
        counters = wire.counters()
        assert (counters["forward"]["beyond_mtu"], counters["backward"]["beyond_mtu"]) == (2, 0)
        assert counters["forward"]["too_long"] == 0


def test_a_packet_that_the_other_link_would_never_take_holds_up_nobody() -> None:
    with MemoryLink() as a, MemoryLink(mtu=1500, max_frame=1514) as b, Wire(a, b) as wire:
        for number, length in enumerate((1518, 1514)):
            a.inject(frame(number, length))
        wire.turn(0)
        assert wire.counters()["forward"]["too_long"] == 1
        assert [number_of(data) for data in b.receive_all()] == [1]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(14, 1514), max_size=60),
    fields=st.fixed_dictionaries(
        {
            "rate_bps": st.sampled_from([0, 1_000_000, 100_000_000]),
            "delay_ns": st.integers(0, 10**7),
            "jitter_ns": st.sampled_from([0, 10**6]),
            "queue_bytes": st.integers(1500, 60_000),
            "loss": st.sampled_from([0.0, 0.3, 1.0]),
            "reorder": st.sampled_from([0.0, 0.3]),
            "duplicate": st.sampled_from([0.0, 0.3, 1.0]),
            "memory_bytes": st.sampled_from([3000, 1 << 20]),
            "seed": st.integers(0, 2**40),
        }
    ),
)
def test_every_packet_arrives_or_has_a_reason(lengths: list[int], fields: dict[str, Any]) -> None:
    wire = Between(link={"rx_slots": 64, "ring_bytes": 1 << 20}, **fields)
    for number, length in enumerate(lengths):
        wire.send(frame(number, max(length, 18)))
    arrived = wire.arrivals()
    counters = wire.forward
    assert counters["packets"] == len(lengths)
    assert counters["forwarded"] == len(arrived)
    assert counters["forwarded"] - counters["duplicated"] + sum(counters[name] for name in REASONS) == len(lengths)
    assert counters["travelling"] == 0
    for _, data in arrived:
        assert data == frame(number_of(data), len(data))
    wire.close()


# ---------------------------------------------------------------- the face
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": 1.5}, "loss 1.5: must be a probability"),
        ({"loss": float("nan")}, "must be a probability"),
        ({"rate_bps": -1}, "rate_bps -1: must be"),
        ({"delay_ns": 1.5}, "must be an integer"),
        ({"queue_bytes": 0}, "queue_bytes 0: must be"),
        ({"queue_frames": 1 << 25}, "queue_frames"),
        ({"delay_ns": (1, 2, 3)}, "a pair"),
        ({"corrupt": 0.1}, "no impairment is called 'corrupt'"),
        ({"memory_bytes": 0}, "memory_bytes 0"),
        ({"spin_ns": -1}, "spin_ns -1"),
        ({"batch_ns": 1 << 40}, "batch_ns"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_links_free(fields: dict[str, Any], message: str) -> None:
    with MemoryLink() as a, MemoryLink() as b:
        with pytest.raises(ValueError, match=message):
            Wire(a, b, **fields)
        with Wire(a, b):
            pass


def test_a_link_carries_one_wire_at_a_time() -> None:
    with MemoryLink() as a, MemoryLink() as b, MemoryLink() as c:
        with Wire(a, b):
            for pair in ((a, c), (c, b)):
                with pytest.raises(ValueError, match="in use"):
                    Wire(*pair)
            with pytest.raises(ValueError, match="in use"):
                Wire(c, c)
        with Wire(b, a):
            pass


def test_a_closed_wire_keeps_its_counters_and_does_nothing() -> None:
    with MemoryLink() as a, MemoryLink() as b:
        wire = Wire(a, b)
        a.inject(frame(0))
        wire.turn(0)
        wire.close()
        wire.close()
        assert wire.closed
        assert wire.counters()["forward"]["forwarded"] == 1
        with pytest.raises(ValueError, match="closed"):
            wire.turn(0)
        with pytest.raises(ValueError, match="closed"):
            wire.run(0)


def test_a_link_that_is_gone_ends_the_run() -> None:
    a, b = MemoryLink(), MemoryLink()
    with Wire(a, b) as wire:
        b.close()
        with pytest.raises(OSError, match="an end of the wire"):
            wire.run()
    a.close()


def test_a_wire_that_is_dropped_gives_its_links_back() -> None:
    with MemoryLink() as a, MemoryLink() as b:
        wire = Wire(a, b, delay_ns=5)
        a.inject(frame(0))
        wire.turn(0)
        del wire
        with Wire(a, b) as another:
            assert another.counters()["forward"]["frames"] == 0


def test_stop_ends_the_run_that_comes_next() -> None:
    with MemoryLink() as a, MemoryLink() as b, Wire(a, b) as wire:
        wire.stop()
        wire.run()
        wire.run(0)


def test_the_ends_of_one_simulated_network_can_be_joined_too() -> None:
    """Both share a gate: the wire goes through it once."""
    with SimNetwork() as network, MemoryLink() as outside, Wire(network.a, outside) as wire:
        outside.inject(frame(1))
        wire.turn(0)
        assert network.b.receive() == frame(1)
    with SimNetwork() as network, Wire(network.a, network.b) as wire:
        assert wire.turn(0) is None


def test_the_links_of_a_wire_cannot_be_closed_from_within_its_turn() -> None:
    with SimNetwork() as network, MemoryLink() as outside, Wire(network.a, outside) as wire:
        refused: list[BaseException] = []

        def meddle(_data: bytes, _index: int) -> None:
            for call in (lambda: wire.turn(0), outside.close, wire.close, lambda: wire.impair(loss=0.5)):
                try:
                    call()
                except OwnershipError as error:
                    refused.append(error)

        network.filter_ab = meddle
        outside.inject(frame(1))
        wire.turn(0)
        assert len(refused) == 4

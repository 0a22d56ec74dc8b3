# SPDX-License-Identifier: MIT
"""The bounds of the neighbour cache: the queue of a neighbour, the table, who has to go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC = "02:00:00:00:00:02"
US = "198.18.0.2"
SECOND = 1_000_000_000
SEGMENT = bytes(TCP(sport=80, dport=40000, seq=0xFFFFFFF0))


def host(n: int) -> str:
    return f"198.18.{n >> 8 & 0xFF}.{n & 0xFF}"


def mac(n: int) -> str:
    return f"02:01:00:{n >> 16 & 0xFF:02x}:{n >> 8 & 0xFF:02x}:{n & 0xFF:02x}"


def arp(op: int, n: int) -> bytes:
    return bytes(Ether(src=mac(n), dst=US_MAC) / ARP(op=op, hwsrc=mac(n), psrc=host(n), hwdst=US_MAC, pdst=US))


def send(ip: IpLayer, n: int, now_ns: int = 0, payload: bytes = SEGMENT) -> str:
    return ip.send(host(n), 6, payload, 16, now_ns=now_ns)


def make_reachable(ip: IpLayer, n: int, now_ns: int = 0) -> None:
    send(ip, n, now_ns)
    ip.input(arp(2, n), now_ns)


def states(ip: IpLayer) -> dict[str, str]:
    return {address: str(entry["state"]) for address, entry in ip.neighbours().items()}


def unresolved(ip: IpLayer) -> int:
    return ip.counters().get("drop_neighbour_unresolved", 0)


# ---------------------------------------------------------------- waiting packets
def test_packets_wait_in_order_and_keep_the_latest() -> None:
    link = MemoryLink()
    ip = IpLayer(link, f"{US}/16", neighbour_queue=3)
    for i in range(5):
        assert send(ip, 1, payload=bytes(TCP(seq=0xFFFFFFFE, ack=i))) == "ok"
    assert unresolved(ip) == 2
    link.take()
    ip.input(arp(2, 1))
    frames = [Ether(octets) for octets, _ in link.take()]
    assert [frame[TCP].ack for frame in frames] == [2, 3, 4]
    assert {frame.dst for frame in frames} == {mac(1)}
    assert ip.waiting_bytes == 0


def test_a_queue_of_none_keeps_nothing() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_queue=0)
    send(ip, 1)
    assert (unresolved(ip), ip.waiting_bytes) == (1, 0)


def test_a_super_frame_waits_with_its_offload() -> None:
    link = MemoryLink(checksum_offload=True, segmentation_offload=True)
    ip = IpLayer(link, f"{US}/16")
    payload = SEGMENT + bytes(30000)
    assert ip.send(host(1), 6, payload, 16, gso_size=1448) == "ok"
    link.take()
    ip.input(arp(2, 1))
    [(octets, offload)] = link.take()
    assert len(octets) == 34 + len(payload)
    assert octets[:6] == bytes.fromhex(mac(1).replace(":", ""))
    assert offload == {
        "csum_start": 34,
        "csum_offset": 16,
        "gso_size": 1448,
        "header_length": 54,
        "gso_family": 4,
    }


def test_a_full_ring_is_submitted_once_for_what_waited() -> None:
    link = MemoryLink(tx_slots=2)
    ip = IpLayer(link, f"{US}/16")
    for _ in range(5):
        send(ip, 1)
    ip.input(arp(2, 1))
    assert len(link.take()) == 6
    assert unresolved(ip) == 0


def test_what_does_not_fit_even_then_is_counted() -> None:
    link = MemoryLink(held_frames=3)
    ip = IpLayer(link, f"{US}/16")
    for _ in range(5):
        send(ip, 1)
    ip.input(arp(2, 1))
    assert len(link.take()) == 3  # the question, and two
    assert unresolved(ip) == 3


def test_all_that_wait_together_are_bounded() -> None:
    link = MemoryLink(checksum_offload=True, segmentation_offload=True)
    ip = IpLayer(link, f"{US}/16", neighbour_queue=255)
    payload = SEGMENT + bytes(60000)
    for n in range(10, 110):
        assert ip.send(host(n), 6, payload, 16, gso_size=1448) == "ok"
    kept = 4 * 1024 * 1024 // (34 + len(payload))
    assert ip.waiting_bytes == kept * (34 + len(payload))
    assert sum(int(str(entry["waiting"])) for entry in ip.neighbours().values()) == kept
    assert unresolved(ip) == 100 - kept


def test_an_abandoned_reservation_is_forgotten() -> None:
    link = MemoryLink()
    ip = IpLayer(link, f"{US}/16")
    assert ip.send(host(1), 6, SEGMENT, 16, commit=False) == "ok"
    assert ip.send(host(1), 6, SEGMENT, 16, commit=False) == "ok"
    assert ip.neighbours()[host(1)]["waiting"] == 0
    assert send(ip, 1) == "ok"
    link.take()
    ip.input(arp(2, 1))
    assert len(link.take()) == 1


# ---------------------------------------------------------------- who has to go
def test_the_first_to_go_is_one_that_failed() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_limit=4)
    send(ip, 1)
    for second in range(1, 4):
        ip.timers(second * SECOND)
    ip.input(arp(1, 5), 3 * SECOND)
    make_reachable(ip, 6, 3 * SECOND)
    send(ip, 7, 3 * SECOND)
    assert states(ip)[host(1)] == "FAILED"
    send(ip, 8, 3 * SECOND)
    assert set(states(ip)) == {host(5), host(6), host(7), host(8)}


def test_the_next_is_one_that_only_spoke_to_us() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_limit=3)
    make_reachable(ip, 6)
    send(ip, 7)
    ip.input(arp(1, 5))
    send(ip, 8)
    assert set(states(ip)) == {host(6), host(7), host(8)}


def test_the_next_is_the_oldest_question_and_what_waits_for_it() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_limit=3)
    make_reachable(ip, 6)
    send(ip, 7, 10)
    send(ip, 8, 20)
    send(ip, 9, 30)
    assert set(states(ip)) == {host(6), host(8), host(9)}
    assert unresolved(ip) == 1


def test_the_last_is_one_in_use_and_the_idle_one_first() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_limit=3)
    for n in (6, 7, 8):
        make_reachable(ip, n)
    send(ip, 9)  # every mark was set: the first goes, the others have lost theirs
    assert set(states(ip)) == {host(7), host(8), host(9)}
    ip.input(arp(2, 9))
    send(ip, 7)
    send(ip, 10)
    assert set(states(ip)) == {host(7), host(9), host(10)}


def test_who_only_speaks_to_us_displaces_nobody_in_use() -> None:
    link = MemoryLink()
    ip = IpLayer(link, f"{US}/16", neighbour_limit=3)
    for n in (6, 7, 8):
        make_reachable(ip, n)
    link.take()
    ip.input(arp(1, 9))
    assert set(states(ip)) == {host(6), host(7), host(8)}
    [(octets, _)] = link.take()  # it is answered all the same
    assert Ether(octets)[ARP].pdst == host(9)


def test_the_gateway_stays() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/24", gateway="198.18.0.1", neighbour_limit=2)
    ip.send("203.0.113.1", 6, SEGMENT, 16)
    for n in range(10, 20):
        assert send(ip, n) == "ok"
    assert set(states(ip)) == {"198.18.0.1", host(19)}


@pytest.mark.parametrize("first", ["asks for us", "is sent to itself"])
def test_a_gateway_that_was_known_before_it_was_needed_stays(first: str) -> None:
    """It usually is: the first packet from another network comes after its question for us."""
    ip = IpLayer(MemoryLink(), f"{US}/24", gateway=host(1), neighbour_limit=2)
    if first == "asks for us":
        ip.input(arp(1, 1))
    else:
        make_reachable(ip, 1)
    assert ip.send("203.0.113.1", 6, SEGMENT, 16) == "ok"
    ip.input(arp(2, 1))
    for n in range(10, 20):
        make_reachable(ip, n)
    assert set(states(ip)) == {host(1), host(19)}


def test_a_table_of_the_gateway_alone_has_no_room() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/24", gateway="198.18.0.1", neighbour_limit=1)
    ip.send("203.0.113.1", 6, SEGMENT, 16)
    assert send(ip, 10) == "no_memory"
    assert ip.counters()["drop_no_memory"] == 1


def test_the_table_is_never_larger_than_its_limit() -> None:
    ip = IpLayer(MemoryLink(), f"{US}/16", neighbour_limit=7)
    for n in range(10, 300):
        send(ip, n, n)
        ip.input(arp(1, n + 1000), n)
        assert len(ip.neighbours()) <= 7


def test_a_flood_of_forged_senders_leaves_live_neighbours_alone() -> None:
    """100,000 SYNs from addresses on the link, each answered: the peers that are there keep their entries."""
    link = MemoryLink()
    ip = IpLayer(link, "198.18.0.2/15", neighbour_limit=256)
    live = range(10, 40)
    for n in live:
        make_reachable(ip, n)
    for n in range(100_000):
        assert ip.send(f"198.19.{n >> 8 & 0xFF}.{n & 0xFF}", 6, SEGMENT, 16, now_ns=n) != "no_memory"
        if n % 10_000 == 0:
            link.take()
    link.take()
    for n in live:
        assert ip.neighbours(100_000)[host(n)]["state"] == "REACHABLE"
        send(ip, n, 100_000)
    assert [Ether(octets).dst for octets, _ in link.take()] == [mac(n) for n in live]
    assert len(ip.neighbours()) == 256
    # The others wait for an answer, each with the one packet that it was sent.
    assert ip.waiting_bytes == (256 - len(live)) * (34 + len(SEGMENT))


def test_a_live_neighbour_gets_in_during_the_flood() -> None:
    link = MemoryLink()
    ip = IpLayer(link, "198.18.0.2/15", neighbour_limit=256)
    for n in range(1000):
        ip.send(f"198.19.{n >> 8 & 0xFF}.{n & 0xFF}", 6, SEGMENT, 16, now_ns=n)
    send(ip, 10, 1000)
    for n in range(100):  # those that come before its answer
        ip.send(f"198.19.99.{n}", 6, SEGMENT, 16, now_ns=1000 + n)
    ip.input(arp(2, 10), 2000)
    for n in range(2000):
        ip.send(f"198.19.{n >> 8 & 0xFF}.{n & 0xFF}", 6, SEGMENT, 16, now_ns=3000 + n)
    assert ip.neighbours(3000)[host(10)]["state"] == "REACHABLE"


# ---------------------------------------------------------------- any history
STEP = st.tuples(st.sampled_from(["send", "request", "reply", "tick", "confirm", "lose"]), st.integers(1, 12))


@settings(deadline=None, max_examples=150)
@given(st.lists(STEP, max_size=120), st.integers(1, 6))
def test_every_packet_is_sent_once_or_counted(steps: list[tuple[str, int]], limit: int) -> None:
    """A model of the accounts: packets accepted = segments out + dropped + still waiting, in any history."""
    link = MemoryLink(held_frames=40)
    ip = IpLayer(link, f"{US}/16", gateway="198.18.0.12", neighbour_limit=limit, neighbour_queue=2)
    now_ns, accepted, out = SECOND, 0, 0
    for step, n in steps:
        if step == "send":
            accepted += send(ip, n + 2, now_ns) == "ok"
        elif step in ("request", "reply"):
            ip.input(arp(1 if step == "request" else 2, n + 2), now_ns)
        elif step == "tick":
            now_ns += n * SECOND // 4
            deadline = ip.timers(now_ns)
            assert deadline is None or deadline >= now_ns
        elif step == "confirm":
            ip.confirm(n, now_ns)
        else:
            out += sum(IP in Ether(octets) for octets, _ in link.take())
        table = ip.neighbours(now_ns)
        assert len(table) <= limit
        for entry in table.values():
            assert entry["waiting"] == 0 or entry["state"] == "INCOMPLETE"
    out += sum(IP in Ether(octets) for octets, _ in link.take())
    waiting = sum(int(str(entry["waiting"])) for entry in ip.neighbours().values())
    assert accepted == out + waiting + unresolved(ip)
    assert ip.waiting_bytes == waiting * (34 + len(SEGMENT))


@pytest.mark.parametrize("limit", [1, 2, 15, 16, 17, 255, 256, 65535])
def test_any_limit_holds(limit: int) -> None:
    ip = IpLayer(MemoryLink(), "198.18.0.2/15", neighbour_limit=limit)
    for n in range(300):
        assert ip.send(f"198.19.{n >> 8}.{n & 0xFF}", 6, SEGMENT, 16) == "ok"
    assert len(ip.neighbours()) == min(limit, 300)

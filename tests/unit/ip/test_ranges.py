# SPDX-License-Identifier: MIT
"""A stack with several addresses: it answers for each of them and for none beside them, and opens from each in turn."""

import errno
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from ustack import Stack
from ustack.link.memory import MemoryLink

US_MAC, PEER_MAC, EVERYBODY = "02:00:00:00:00:02", "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"
PEER = "198.18.0.1"
FIRST = "198.18.0.2"
SOURCES = "198.18.1.250-198.18.2.5, 198.18.0.9"
OURS = [FIRST, "198.18.0.9", *(f"198.18.1.{n}" for n in range(250, 256)), *(f"198.18.2.{n}" for n in range(6))]
BESIDE = ["198.18.0.3", "198.18.0.8", "198.18.0.10", "198.18.1.249", "198.18.2.6", "198.18.3.0"]
SECOND = 1_000_000_000


class Host:
    """A stack on a link whose far end is this test."""

    def __init__(self, sources: str | None = SOURCES, seed: int = 1) -> None:
        self.link = MemoryLink()
        self.stack = Stack(self.link, f"{FIRST}/16", sources=sources, seed=seed, now_ns=SECOND)
        self.now_ns = 3 * SECOND
        self.stack.poll(self.now_ns)
        self.link.receive_all()  # the announcements, both
        self.tell(ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=FIRST), EVERYBODY)  # who asks is remembered,
        self.tell(IP(src=PEER, dst=FIRST) / ICMP(type=8))  # asked back when it is used,
        self.tell(ARP(op=2, hwsrc=PEER_MAC, psrc=PEER, hwdst=US_MAC, pdst=FIRST))  # and believed for half a minute

    def tell(self, packet: ARP | IP, destination: str = US_MAC) -> list[Ether]:
        """Give it a packet; what it sends in return."""
        self.link.inject(bytes(Ether(src=PEER_MAC, dst=destination) / packet))
        return self.poll()

    def poll(self) -> list[Ether]:
        self.now_ns += 1_000_000
        self.stack.poll(self.now_ns)
        return [Ether(frame) for frame in self.link.receive_all()]

    def close(self) -> None:
        self.stack.close()
        assert not any(self.stack.leaks().values())
        self.link.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.mark.parametrize("address", OURS)
def test_arp_is_answered_for_each_address_with_that_address(host: Host, address: str) -> None:
    (answer,) = host.tell(ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=address), EVERYBODY)
    assert (answer[ARP].op, answer[ARP].psrc, answer[ARP].hwsrc) == (2, address, US_MAC)
    assert (answer.dst, answer[ARP].pdst) == (PEER_MAC, PEER)


@pytest.mark.parametrize("address", BESIDE)
def test_arp_is_answered_for_none_beside_them(host: Host, address: str) -> None:
    assert host.tell(ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=address), EVERYBODY) == []


@pytest.mark.parametrize("address", OURS)
def test_a_conflict_is_answered_for_the_address_that_it_is_about(host: Host, address: str) -> None:
    """RFC 5227 section 2.4 (c), and not for another one within ten seconds."""
    claim = ARP(op=1, hwsrc="02:00:00:00:00:77", psrc=address, pdst=address)
    (answer,) = host.tell(claim, EVERYBODY)
    assert (answer[ARP].psrc, answer[ARP].pdst, answer.dst) == (address, address, EVERYBODY)
    assert host.tell(claim, EVERYBODY) == []


def claim(host: Host, address: str) -> list[str]:
    """Somebody else claims an address of ours: the addresses that we then say are ours."""
    answers = host.tell(ARP(op=1, hwsrc="02:00:00:00:00:77", psrc=address, pdst=address), EVERYBODY)
    assert all(frame[ARP].psrc == frame[ARP].pdst and frame.dst == EVERYBODY for frame in answers)
    return [frame[ARP].psrc for frame in answers]


def test_a_conflict_on_one_address_does_not_silence_the_others() -> None:
    """RFC 5227 section 2.4 (c): DEFEND_INTERVAL is one address's. After it, each is defended again."""
    host = Host()
    for _ in range(2):
        assert [claim(host, address) for address in OURS] == [[address] for address in OURS]
        assert [claim(host, address) for address in OURS] == [[]] * len(OURS)
        host.now_ns += 10 * SECOND
    counters = host.stack.counters()
    assert counters["arp_conflicts"] == 4 * len(OURS)
    assert counters["arp_conflicts_unanswered"] == 0
    host.close()


def test_claims_of_more_addresses_than_are_remembered_are_not_answered() -> None:
    """63 broadcasts in ten seconds for claims of as many addresses as one likes, and one for the first address."""
    host = Host(sources="198.18.1.0-198.18.1.199")
    while (next_ns := host.stack.next_deadline_ns) is not None:
        host.now_ns = next_ns
        announced(bytes(frame) for frame in host.poll())
    claimed = [f"198.18.1.{n}" for n in range(200)]
    assert [claim(host, address) for address in claimed] == [[address] for address in claimed[:63]] + [[]] * 137
    assert host.stack.counters()["arp_conflicts_unanswered"] == 137
    assert [claim(host, address) for address in claimed[:63]] == [[]] * 63
    assert host.stack.counters()["arp_conflicts_unanswered"] == 137
    assert claim(host, FIRST) == [FIRST]
    host.now_ns += 10 * SECOND  # every place is free again
    assert claim(host, claimed[150]) == [claimed[150]]
    host.close()


def test_a_defence_that_the_ring_has_no_room_for_is_made_at_the_next_claim() -> None:
    with MemoryLink(tx_slots=1) as link, Stack(link, f"{FIRST}/16", sources="198.18.0.9", now_ns=SECOND) as stack:
        for now_ns in range(2 * SECOND, 10 * SECOND, SECOND):
            stack.poll(now_ns)
        assert announced(link.receive_all()) == [FIRST, "198.18.0.9"] * 2
        for now_ns, claims, answers in (
            (13 * SECOND, [FIRST, "198.18.0.9"], [FIRST]),
            (14 * SECOND, [FIRST, "198.18.0.9"], ["198.18.0.9"]),
            (15 * SECOND, [FIRST, "198.18.0.9"], []),
        ):
            for address in claims:
                claimed = ARP(op=1, hwsrc="02:00:00:00:00:77", psrc=address, pdst=address)
                link.inject(bytes(Ether(src=PEER_MAC, dst=EVERYBODY) / claimed))
            stack.poll(now_ns)
            assert announced(link.receive_all()) == answers


# ---------------------------------------------------------------- announcements


def announced(frames: Iterable[bytes]) -> list[str]:
    """Of which addresses frames say that they are ours: broadcast requests for the sender's own address."""
    packets = [Ether(frame) for frame in frames]
    assert all(packet.dst == EVERYBODY and packet[ARP].op == 1 for packet in packets)
    assert all(packet[ARP].psrc == packet[ARP].pdst and packet[ARP].hwsrc == US_MAC for packet in packets)
    return [packet[ARP].psrc for packet in packets]


def test_every_address_is_announced_twice_two_seconds_apart() -> None:
    """RFC 5227 section 2.3: whoever has an old entry for one of them corrects it. ANNOUNCE_NUM, ANNOUNCE_INTERVAL."""
    with MemoryLink() as link, Stack(link, f"{FIRST}/16", sources=f"{SOURCES}, {FIRST}", now_ns=SECOND) as stack:
        assert announced(link.receive_all()) == OURS
        assert stack.next_deadline_ns == 3 * SECOND
        stack.poll(3 * SECOND - 1)
        assert link.receive_all() == []
        stack.poll(3 * SECOND)
        assert announced(link.receive_all()) == OURS
        assert stack.next_deadline_ns is None
        assert stack.poll(3600 * SECOND) == 0
        assert link.receive_all() == []


def test_many_addresses_are_announced_over_time_and_no_more_than_4096() -> None:
    """64 at once, a thousand per second, of 131,071: stations on the link take each broadcast."""
    sources = "198.19.0.0-198.19.255.254"
    with MemoryLink() as link, Stack(link, "198.18.0.2/15", sources=sources, now_ns=SECOND) as stack:
        now_ns, at = SECOND, {address: [SECOND] for address in announced(link.receive_all())}
        order = list(at)
        while (next_ns := stack.next_deadline_ns) is not None:
            assert next_ns == now_ns + (64_000_000 if len(order) != 4097 else 2 * SECOND)
            now_ns = next_ns
            stack.poll(now_ns - 1)
            assert link.receive_all() == []
            stack.poll(now_ns)
            found = announced(link.receive_all())
            assert len(found) == 64 or len(order) + len(found) in (4097, 2 * 4097)
            order += found
            for address in found:
                at[address] = [*at.get(address, []), now_ns]
        once = [FIRST, *(f"198.19.{n >> 8}.{n & 255}" for n in range(4096))]
        assert order == once + once
        assert all(second - first >= 2 * SECOND for first, second in at.values())


def test_announcements_wait_for_room_in_the_ring() -> None:
    sources = "198.18.1.0-198.18.1.99"
    with MemoryLink(tx_slots=16) as link, Stack(link, f"{FIRST}/16", sources=sources, now_ns=SECOND) as stack:
        now_ns, found = SECOND, announced(link.receive_all())
        assert len(found) < 64
        for _ in range(100):
            now_ns += 64_000_000
            stack.poll(now_ns)
            found += announced(link.receive_all())
        once = [FIRST, *(f"198.18.1.{n}" for n in range(100))]
        assert found == once + once


# ---------------------------------------------------------------- segments


@pytest.mark.parametrize("address", OURS)
def test_nobody_listens_at_each_of_them(host: Host, address: str) -> None:
    (answer,) = host.tell(IP(src=PEER, dst=address) / TCP(sport=4000, dport=81, flags="S", seq=0xFFFFFFFF))
    assert (answer[IP].src, answer[IP].dst, answer[TCP].flags) == (address, PEER, "RA")
    assert answer[TCP].ack == 0


@pytest.mark.parametrize("address", BESIDE)
def test_segments_for_others_are_none_of_its_business(host: Host, address: str) -> None:
    before = host.stack.counters()["drop_not_for_us"]
    assert host.tell(IP(src=PEER, dst=address) / TCP(sport=4000, dport=81, flags="S")) == []
    assert host.tell(IP(src=PEER, dst=address) / ICMP(type=8)) == []
    assert host.stack.counters()["drop_not_for_us"] == before + 2


@pytest.mark.parametrize("address", OURS)
def test_echo_and_errors_come_from_the_address_that_was_asked(host: Host, address: str) -> None:
    (echo,) = host.tell(IP(src=PEER, dst=address) / ICMP(type=8, id=7, seq=9) / b"hello")
    assert (echo[IP].src, echo[ICMP].type, bytes(echo[ICMP].payload)[:5]) == (address, 0, b"hello")
    (error,) = host.tell(IP(src=PEER, dst=address) / UDP(sport=1, dport=2) / b"x")
    assert (error[IP].src, error[ICMP].type, error[ICMP].code) == (address, 3, 3)


@pytest.mark.parametrize("address", OURS)
def test_nobody_else_may_speak_with_its_addresses(host: Host, address: str) -> None:
    before = host.stack.counters()["drop_ip_source"]
    assert host.tell(IP(src=address, dst=FIRST) / TCP(sport=4000, dport=81, flags="S")) == []
    assert host.stack.counters()["drop_ip_source"] == before + 1


def test_a_listener_is_reached_at_every_address_or_at_its_own(host: Host) -> None:
    listeners = [host.stack.listen(80), host.stack.listen(81, address="198.18.2.3")]
    for address in OURS:
        (answer,) = host.tell(IP(src=PEER, dst=address) / TCP(sport=4001, dport=80, flags="S"))
        assert (answer[IP].src, answer[TCP].flags) == (address, "SA")
        (answer,) = host.tell(IP(src=PEER, dst=address) / TCP(sport=4002, dport=81, flags="S"))
        assert answer[TCP].flags == ("SA" if address == "198.18.2.3" else "RA")
    with pytest.raises(OSError, match=r"198.18.2.6"):
        host.stack.listen(82, address="198.18.2.6")
    for listener in listeners:
        listener.close()


def opened(host: Host, count: int) -> list[tuple[str, int]]:
    """Local address and port of so many connections, by their SYNs."""
    connections = [host.stack.connect(PEER, 80, wait=False) for _ in range(count)]
    syns = [frame for frame in host.poll() if TCP in frame]
    for connection in connections:
        connection.abort()
    host.poll()
    return [(syn[IP].src, syn[TCP].sport) for syn in syns]


def test_active_opens_come_from_each_source_in_turn(host: Host) -> None:
    found = opened(host, 26)
    assert Counter(address for address, _ in found) == dict.fromkeys(OURS[1:], 2)
    assert len(set(found)) == 26


def test_ports_are_chosen_for_each_source_as_for_one(host: Host) -> None:
    """RFC 6056 section 3.3.4: a keyed offset for each pair of addresses, then upwards; from 32768 to 60999."""
    found = opened(host, 26)
    by_source = {address: [port for source, port in found if source == address] for address in OURS[1:]}
    assert all(32768 <= port <= 60999 for _, port in found)
    assert all(0 < second - first < 13 for first, second in by_source.values())
    assert len({ports[0] for ports in by_source.values()}) == 13  # offsets differ
    other = Host(seed=2)
    assert {port for _, port in opened(other, 13)}.isdisjoint({port for _, port in found})
    other.close()


def test_sources_fill_evenly_for_each_of_several_destinations() -> None:
    """Opens to one server do not push those to another one off the sources' turn."""
    host = Host()
    ports = range(80, 93)
    connections = [host.stack.connect(PEER, port, wait=False) for _ in range(13) for port in ports]
    syns = [frame for _ in range(4) for frame in host.poll() if TCP in frame]
    found = Counter((syn[IP].src, syn[TCP].dport) for syn in syns)
    assert found == {(address, port): 1 for address in OURS[1:] for port in ports}
    for connection in connections:
        connection.abort()
    host.poll()
    host.close()


@pytest.mark.parametrize("freed", range(13))
def test_a_port_of_ones_own_is_found_free_at_whichever_address(freed: int) -> None:
    host = Host()
    connections = [host.stack.connect(PEER, 80, local_port=5000, wait=False) for _ in range(13)]
    with pytest.raises(OSError, match=r".") as refused:
        host.stack.connect(PEER, 80, local_port=5000, wait=False)
    assert refused.value.errno == errno.EADDRINUSE
    assert sorted(one.local[0] for one in connections) == sorted(OURS[1:])
    gone = connections.pop(freed)
    address = gone.local[0]
    gone.abort()
    host.poll()
    connections.append(host.stack.connect(PEER, 80, local_port=5000, wait=False))
    assert connections[-1].local == (address, 5000)
    for connection in connections:
        connection.abort()
    host.poll()
    host.close()


def test_an_error_about_a_segment_from_any_source_finds_its_connection(host: Host) -> None:
    connection = host.stack.connect(PEER, 80, wait=False)
    (syn,) = [frame for frame in host.poll() if TCP in frame]
    assert syn[IP].src in OURS[1:]
    host.tell(IP(src=PEER, dst=syn[IP].src) / ICMP(type=3, code=3) / bytes(syn[IP]))
    assert connection.state == "CLOSED"
    before = host.stack.counters()["drop_icmp_no_connection"]
    syn[IP].src = "198.18.2.6"
    host.tell(IP(src=PEER, dst=FIRST) / ICMP(type=3, code=3) / bytes(syn[IP]))
    assert host.stack.counters()["drop_icmp_no_connection"] == before + 1


def test_it_connects_to_none_of_its_own(host: Host) -> None:
    for address in OURS:
        with pytest.raises(OSError, match=r"."):
            host.stack.connect(address, 80, wait=False)


def test_without_sources_the_one_address_is_the_source() -> None:
    host = Host(sources=None)
    assert {address for address, _ in opened(host, 5)} == {FIRST}
    host.close()


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("198.18.1.5-198.18.1.4", "from the smaller"),
        ("198.19.0.1", "not in 198.18.0.0/16"),
        ("198.18.255.0-198.19.0.4", "not in 198.18.0.0/16"),
        ("198.18.0.0-198.18.0.9", "network's or the broadcast"),
        ("198.18.255.255", "network's or the broadcast"),
        ("198.18.0.100-198.18.0.255", "the gateway 198.18.0.254"),
        ("", "ADDRESS or ADDRESS-ADDRESS"),
        ("198.18.0.5,", "ADDRESS or ADDRESS-ADDRESS"),
        ("2001:db8::1", "IPv6"),
        (",".join(f"198.18.1.{2 * n + 1}" for n in range(17)), "17 ranges, of 16"),
    ],
)
def test_what_cannot_be_a_source_is_refused(sources: str, said: str) -> None:
    with MemoryLink() as link, pytest.raises(ValueError, match=said):
        Stack(link, f"{FIRST}/16", "198.18.0.254", sources=sources, now_ns=0)


def test_ranges_that_touch_are_one() -> None:
    many = ",".join(f"198.18.1.{n}-198.18.1.{n + 3}" for n in range(1, 200))
    host = Host(sources=many)
    assert len({address for address, _ in opened(host, 202)}) == 202
    host.close()

# SPDX-License-Identifier: MIT
"""ARP: every state of a neighbour with every event, learning, answers, conflicts."""

from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import ARP, Ether

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC, PEER_MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01", "02:00:00:00:00:99"
EVERYBODY, NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
US, PEER = "198.18.0.2", "198.18.0.1"
SEGMENT = bytes(TCP(sport=80, dport=40000, seq=0xFFFFFFF0))
SECOND = 1_000_000_000
REACHABLE = 30 * SECOND
START = 100 * SECOND
RING_RETRY = 50_000


@pytest.fixture
def link() -> MemoryLink:
    return MemoryLink()


@pytest.fixture
def ip(link: MemoryLink) -> IpLayer:
    return IpLayer(link, f"{US}/24", now_ns=START)


def arp(op: int, psrc: str, pdst: str, hwsrc: str = PEER_MAC, dst: str = US_MAC, hwdst: str = NOBODY) -> bytes:
    return bytes(Ether(src=hwsrc, dst=dst) / ARP(op=op, hwsrc=hwsrc, psrc=psrc, hwdst=hwdst, pdst=pdst))


def request(hwsrc: str = PEER_MAC) -> bytes:
    return arp(1, PEER, US, hwsrc, dst=EVERYBODY)


def reply(hwsrc: str = PEER_MAC) -> bytes:
    return arp(2, PEER, US, hwsrc, hwdst=US_MAC)


def gratuitous(hwsrc: str = PEER_MAC) -> bytes:
    return arp(1, PEER, PEER, hwsrc, dst=EVERYBODY)


def other_request(hwsrc: str = PEER_MAC) -> bytes:
    return arp(1, PEER, "198.18.0.77", hwsrc, dst=EVERYBODY)


def send(ip: IpLayer, now_ns: int = START) -> str:
    return ip.send(PEER, 6, SEGMENT, 16, now_ns=now_ns, hint=ip.hint)


def state(ip: IpLayer, now_ns: int = START) -> str:
    entry = ip.neighbours(now_ns).get(PEER)
    return "none" if entry is None else str(entry["state"])


def station(ip: IpLayer) -> object:
    return ip.neighbours()[PEER]["mac"]


def sent(link: MemoryLink) -> list[str]:
    """What went out, in a word each."""
    words = []
    for octets, _ in link.take():
        frame = Ether(octets)
        assert frame.src == US_MAC
        if frame.type == 0x0800:
            words.append(f"segment to {frame.dst}")
            continue
        packet = frame[ARP]
        assert (packet.hwsrc, packet.psrc) == (US_MAC, US)
        if packet.op == 1:
            assert packet.hwdst == NOBODY
            words.append(f"request for {packet.pdst} to {frame.dst}")
        else:
            assert packet.hwdst == frame.dst
            words.append(f"reply to {packet.pdst} at {frame.dst}")
    return words


def drops(ip: IpLayer) -> dict[str, int]:
    return {name: value for name, value in ip.counters().items() if name.startswith("drop_")}


ASK = f"request for {PEER} to {EVERYBODY}"
PROBE = f"request for {PEER} to {PEER_MAC}"
DATA = f"segment to {PEER_MAC}"
REPLY = f"reply to {PEER} at {PEER_MAC}"


# ---------------------------------------------------------------- builders: a neighbour in each state at START
def make_none(ip: IpLayer) -> None:
    pass


def make_incomplete(ip: IpLayer) -> None:
    send(ip)


def make_reachable(ip: IpLayer) -> None:
    send(ip)
    ip.input(reply(), START)


def make_stale(ip: IpLayer) -> None:
    """Confirmed once, long ago."""
    send(ip, START - REACHABLE)
    ip.input(reply(), START - REACHABLE)


def make_heard(ip: IpLayer) -> None:
    """It sent to us; we never sent to it."""
    ip.input(request(), START)


def make_probe(ip: IpLayer) -> None:
    make_stale(ip)
    send(ip)


def make_failed(ip: IpLayer) -> None:
    for second in (3, 2, 1, 0):
        if second == 3:
            send(ip, START - 3 * SECOND)
        ip.timers(START - second * SECOND)


MAKERS: dict[str, Callable[[IpLayer], None]] = {
    "none": make_none,
    "incomplete": make_incomplete,
    "reachable": make_reachable,
    "stale": make_stale,
    "heard": make_heard,
    "probe": make_probe,
    "failed": make_failed,
}


# state, event -> state, what goes out. The waiting segment of make_incomplete goes out when the address is known.
TABLE = [
    # we send
    ("none", "send", "INCOMPLETE", [ASK]),
    ("incomplete", "send", "INCOMPLETE", []),
    ("reachable", "send", "REACHABLE", [DATA]),
    ("stale", "send", "PROBE", [PROBE, DATA]),
    ("heard", "send", "PROBE", [PROBE, DATA]),
    ("probe", "send", "PROBE", [DATA]),
    ("failed", "send", "INCOMPLETE", [ASK]),
    # it answers our question
    ("none", "reply", "STALE", []),
    ("incomplete", "reply", "REACHABLE", [DATA]),
    ("reachable", "reply", "REACHABLE", []),
    ("stale", "reply", "STALE", []),
    ("heard", "reply", "STALE", []),
    ("probe", "reply", "REACHABLE", []),
    ("failed", "reply", "STALE", []),
    # it asks for us
    ("none", "request", "STALE", [REPLY]),
    ("incomplete", "request", "STALE", [DATA, REPLY]),
    ("reachable", "request", "REACHABLE", [REPLY]),
    ("stale", "request", "STALE", [REPLY]),
    ("heard", "request", "STALE", [REPLY]),
    ("probe", "request", "PROBE", [REPLY]),
    ("failed", "request", "STALE", [REPLY]),
    # it announces itself
    ("none", "gratuitous", "none", []),
    ("incomplete", "gratuitous", "STALE", [DATA]),
    ("reachable", "gratuitous", "REACHABLE", []),
    ("stale", "gratuitous", "STALE", []),
    ("heard", "gratuitous", "STALE", []),
    ("probe", "gratuitous", "PROBE", []),
    ("failed", "gratuitous", "STALE", []),
    # it asks for somebody else
    ("none", "other_request", "none", []),
    ("incomplete", "other_request", "STALE", [DATA]),
    ("reachable", "other_request", "REACHABLE", []),
    ("stale", "other_request", "STALE", []),
    ("heard", "other_request", "STALE", []),
    ("probe", "other_request", "PROBE", []),
    ("failed", "other_request", "STALE", []),
    # TCP hears from it
    ("incomplete", "confirm", "INCOMPLETE", []),
    ("reachable", "confirm", "REACHABLE", []),
    ("stale", "confirm", "REACHABLE", []),
    ("probe", "confirm", "REACHABLE", []),
    ("failed", "confirm", "FAILED", []),
    # a second passes
    ("none", "second", "none", []),
    ("incomplete", "second", "INCOMPLETE", [ASK]),
    ("reachable", "second", "REACHABLE", []),
    ("stale", "second", "STALE", []),
    ("heard", "second", "STALE", []),
    ("probe", "second", "PROBE", [PROBE]),
    ("failed", "second", "FAILED", []),
    # three seconds pass
    ("incomplete", "three seconds", "FAILED", [ASK, ASK]),
    ("probe", "three seconds", "FAILED", [PROBE, PROBE]),
    # the time for which a confirmation is good passes
    ("reachable", "reachable time", "STALE", []),
    ("failed", "reachable time", "FAILED", []),
]


@pytest.mark.parametrize(("before", "event", "after", "out"), TABLE)
def test_state_and_event(ip: IpLayer, link: MemoryLink, before: str, event: str, after: str, out: list[str]) -> None:
    MAKERS[before](ip)
    link.take()
    now_ns = START
    if event == "send":
        assert send(ip) == "ok"
    elif event == "confirm":
        ip.confirm(ip.hint, START)
    elif event == "second":
        now_ns += SECOND
        ip.timers(now_ns)
    elif event == "three seconds":
        for now_ns in (START + SECOND, START + 2 * SECOND, START + 3 * SECOND):
            ip.timers(now_ns)
    elif event == "reachable time":
        now_ns += REACHABLE
        ip.timers(now_ns)
    else:
        event_frame = {"reply": reply, "request": request, "gratuitous": gratuitous, "other_request": other_request}
        assert ip.input(event_frame[event](), START) == ("consumed", {})
    assert state(ip, now_ns) == after
    assert sent(link) == out


@pytest.mark.parametrize("before", ["incomplete", "reachable", "stale", "heard", "probe", "failed"])
@pytest.mark.parametrize("frame", [request, reply, gratuitous, other_request])
def test_any_packet_of_a_known_sender_brings_its_address_up_to_date(
    ip: IpLayer, before: str, frame: Callable[[str], bytes]
) -> None:
    MAKERS[before](ip)
    ip.input(frame(OTHER_MAC), START)
    assert station(ip) == OTHER_MAC


@pytest.mark.parametrize("before", ["reachable", "stale", "probe"])
def test_a_changed_address_is_asked_about_at_the_next_use(ip: IpLayer, link: MemoryLink, before: str) -> None:
    MAKERS[before](ip)
    ip.input(gratuitous(OTHER_MAC), START)
    link.take()
    assert state(ip) == "STALE"
    send(ip)
    assert sent(link) == [f"request for {PEER} to {OTHER_MAC}", f"segment to {OTHER_MAC}"]
    assert state(ip) == "PROBE"


def test_a_confirmed_neighbour_is_used_without_a_question_for_30_seconds(ip: IpLayer, link: MemoryLink) -> None:
    make_reachable(ip)
    link.take()
    send(ip, START + REACHABLE - 1)
    assert sent(link) == [DATA]
    send(ip, START + REACHABLE)
    assert sent(link) == [PROBE, DATA]


def test_tcp_keeps_a_neighbour_confirmed(ip: IpLayer, link: MemoryLink) -> None:
    make_reachable(ip)
    link.take()
    for half in range(1, 9):
        now_ns = START + half * REACHABLE // 2
        ip.confirm(ip.hint, now_ns)
        send(ip, now_ns)
        assert sent(link) == [DATA]
    assert ip.counters()["arp_requests_out"] == 1


def test_an_answer_from_elsewhere_does_not_confirm_a_neighbour(ip: IpLayer, link: MemoryLink) -> None:
    """A connection's hint outlives the entry: what its peer acknowledges says nothing about who is in its place."""
    make_reachable(ip)
    link.take()
    ip.confirm(ip.hint, START + REACHABLE // 2, "198.18.0.99")
    ip.confirm(ip.hint, START + REACHABLE // 2, "203.0.113.5")
    send(ip, START + REACHABLE)
    assert sent(link) == [PROBE, DATA]


def test_an_answer_from_far_away_confirms_the_gateway(link: MemoryLink) -> None:
    ip = IpLayer(link, f"{US}/24", gateway=PEER)
    make_reachable(ip)
    link.take()
    ip.confirm(ip.hint, START + REACHABLE // 2, "203.0.113.5")
    send(ip, START + REACHABLE)
    assert sent(link) == [DATA]


def test_a_probed_neighbour_is_used_until_it_fails(ip: IpLayer, link: MemoryLink) -> None:
    make_probe(ip)
    sent(link)
    for second in (1, 2):
        ip.timers(START + second * SECOND)
        send(ip, START + second * SECOND)
        assert sent(link) == [PROBE, DATA]
    ip.timers(START + 3 * SECOND)
    send(ip, START + 3 * SECOND)
    assert sent(link) == [ASK]
    assert state(ip) == "INCOMPLETE"


def test_questions_are_a_second_apart(ip: IpLayer, link: MemoryLink) -> None:
    send(ip)
    assert ip.timers(START) == START + SECOND
    assert ip.timers(START + SECOND - 1) == START + SECOND
    assert sent(link) == [ASK]
    assert ip.timers(START + SECOND) == START + 2 * SECOND
    assert sent(link) == [ASK]


def test_what_waits_is_dropped_and_counted_at_the_end_of_the_tries(ip: IpLayer, link: MemoryLink) -> None:
    for _ in range(3):
        assert send(ip) == "ok"
    for second in range(1, 4):
        ip.timers(START + second * SECOND)
    assert state(ip) == "FAILED"
    assert ip.timers(START + 3 * SECOND) is None
    assert drops(ip) == {"drop_neighbour_unresolved": 3}
    assert ip.waiting_bytes == 0
    assert sent(link) == [ASK, ASK, ASK]


def test_a_full_ring_costs_no_try(link: MemoryLink) -> None:
    link = MemoryLink(held_frames=1)
    ip = IpLayer(link, f"{US}/24")
    ip.announce(START)
    send(ip)
    assert ip.neighbours()[PEER]["tries"] == 0
    assert ip.timers(START) == START + RING_RETRY
    link.take()
    assert ip.timers(START + RING_RETRY - 1) == START + RING_RETRY
    assert ip.timers(START + RING_RETRY) == START + RING_RETRY + SECOND
    assert ip.neighbours()[PEER]["tries"] == 1
    assert sent(link) == [ASK]


def test_a_full_ring_is_asked_once_in_fifty_microseconds_however_many_questions_are_due() -> None:
    """Whoever sleeps until the next deadline must not find that it is always now."""
    link = MemoryLink(held_frames=1)
    ip = IpLayer(link, f"{US}/24")
    ip.announce(START)
    for n in range(100):
        ip.send(f"198.18.0.{100 + n}", 6, SEGMENT, 16, now_ns=START)
    before, looks, at = ip.counters()["tx_ring_full"], 0, ip.timers(START)
    while at is not None and at < START + 1_000_000:
        now, looks = at, looks + 1
        at = ip.timers(now)
        assert at is not None
        assert at > now
    assert looks == 19
    assert ip.counters()["tx_ring_full"] - before == looks
    link.take()
    assert at == START + 1_000_000
    while at is not None and at < START + SECOND:
        link.take()
        at = ip.timers(at)
    assert {entry["tries"] for entry in ip.neighbours().values()} == {1}


# ---------------------------------------------------------------- learning (RFC 826)
def test_a_stranger_that_asks_for_us_is_remembered_and_answered(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(request(), START)
    assert (state(ip), station(ip)) == ("STALE", PEER_MAC)
    assert sent(link) == [REPLY]
    assert ip.counters()["arp_replies_out"] == 1


@pytest.mark.parametrize("frame", [gratuitous, other_request])
def test_a_stranger_that_asks_for_another_is_not(ip: IpLayer, frame: Callable[[], bytes]) -> None:
    ip.input(frame(), START)
    assert ip.neighbours() == {}
    assert drops(ip) == {"drop_arp_not_for_us": 1}


@pytest.mark.parametrize("sender", ["192.0.2.1", "198.18.0.255", "0.0.0.0"])
def test_a_sender_that_we_could_not_talk_to_is_answered_but_not_remembered(
    ip: IpLayer, link: MemoryLink, sender: str
) -> None:
    ip.input(arp(1, sender, US), START)
    assert ip.neighbours() == {}
    assert sent(link) == [f"reply to {sender} at {PEER_MAC}"]
    assert drops(ip) == {}


def test_a_reply_is_not_answered(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(reply(), START)
    assert sent(link) == []


def test_a_reply_without_room_in_the_ring_is_counted() -> None:
    link = MemoryLink(tx_slots=0)
    ip = IpLayer(link, f"{US}/24")
    ip.input(request(), START)
    assert ip.counters()["tx_ring_full"] == 1
    assert "arp_replies_out" not in ip.counters()


@pytest.mark.parametrize(
    "fields",
    [
        {"hwtype": 6},
        {"ptype": 0x86DD},
        {"hwlen": 8},
        {"plen": 16},
        {"op": 0},
        {"op": 3},
        {"op": 8},
        {"hwsrc": EVERYBODY},
        {"hwsrc": "01:00:5e:00:00:01"},
        {"hwsrc": NOBODY},
        {"psrc": "224.0.0.1"},
        {"psrc": "255.255.255.255"},
        {"psrc": "127.0.0.1"},
        {"op": 2, "psrc": "0.0.0.0"},
    ],
)
def test_a_malformed_packet_is_dropped(ip: IpLayer, link: MemoryLink, fields: dict[str, Any]) -> None:
    good: dict[str, Any] = {"op": 1, "hwsrc": PEER_MAC, "psrc": PEER, "hwdst": NOBODY, "pdst": US}
    packet = ARP(**{**good, **fields})
    assert ip.input(bytes(Ether(src=PEER_MAC, dst=EVERYBODY) / packet), START) == ("consumed", {})
    assert drops(ip) == {"drop_arp_malformed": 1}
    assert ip.neighbours() == {}
    assert sent(link) == []


# ---------------------------------------------------------------- our own address (RFC 5227)
ANNOUNCEMENT = f"request for {US} to {EVERYBODY}"


def test_the_announcement_asks_for_our_own_address(ip: IpLayer, link: MemoryLink) -> None:
    ip.announce(START)
    assert sent(link) == [ANNOUNCEMENT]


def test_it_is_made_again_after_two_seconds_and_then_no_more(ip: IpLayer, link: MemoryLink) -> None:
    """RFC 5227 section 2.3: ANNOUNCE_NUM, spaced ANNOUNCE_INTERVAL apart."""
    ip.announce(START)
    link.take()
    assert ip.timers(START + 2 * SECOND - 1) == START + 2 * SECOND
    assert sent(link) == []
    assert ip.timers(START + 2 * SECOND) is None
    assert sent(link) == [ANNOUNCEMENT]


def test_one_that_the_ring_has_no_room_for_is_made_later(link: MemoryLink) -> None:
    """Twice in all, as any."""
    link = MemoryLink(held_frames=1)
    ip = IpLayer(link, f"{US}/24")
    send(ip)
    ip.announce(START)
    assert sent(link) == [ASK]
    assert ip.timers(START + 64_000_000) == START + SECOND
    assert sent(link) == [ANNOUNCEMENT]
    ip.input(reply(), START + SECOND)
    link.take()
    assert ip.timers(START + SECOND) == START + 64_000_000 + 2 * SECOND
    assert ip.timers(START + 64_000_000 + 2 * SECOND) is None
    assert sent(link) == [ANNOUNCEMENT]


def test_nothing_is_sent_before_it(link: MemoryLink) -> None:
    IpLayer(link, f"{US}/24")
    assert link.take() == []


@pytest.mark.parametrize(("op", "target"), [(1, US), (1, PEER), (2, US), (2, PEER)])
def test_a_claim_to_our_address_is_counted_and_answered(ip: IpLayer, link: MemoryLink, op: int, target: str) -> None:
    ip.input(arp(op, US, target, OTHER_MAC, dst=EVERYBODY), START)
    assert ip.counters()["arp_conflicts"] == 1
    assert drops(ip) == {}
    assert ip.neighbours() == {}
    assert sent(link) == [ANNOUNCEMENT]


def test_our_address_is_defended_once_in_ten_seconds(ip: IpLayer, link: MemoryLink) -> None:
    claim = arp(1, US, US, OTHER_MAC, dst=EVERYBODY)
    for now_ns in (START, START + SECOND, START + 10 * SECOND - 1):
        ip.input(claim, now_ns)
    assert sent(link) == [ANNOUNCEMENT]
    ip.input(claim, START + 10 * SECOND)
    assert sent(link) == [ANNOUNCEMENT]
    assert ip.counters()["arp_conflicts"] == 4


def test_a_probe_for_our_address_is_answered(ip: IpLayer, link: MemoryLink) -> None:
    ip.input(arp(1, "0.0.0.0", US, OTHER_MAC, dst=EVERYBODY), START)
    assert sent(link) == [f"reply to 0.0.0.0 at {OTHER_MAC}"]
    assert "arp_conflicts" not in ip.counters()


@pytest.mark.parametrize("sender", [US, PEER])
def test_our_own_frame_come_back_is_no_conflict(ip: IpLayer, link: MemoryLink, sender: str) -> None:
    ip.input(arp(1, sender, US, US_MAC, dst=EVERYBODY), START)
    assert drops(ip) == {"drop_arp_not_for_us": 1}
    assert sent(link) == []

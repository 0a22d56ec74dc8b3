# SPDX-License-Identifier: MIT
"""Two stacks talk, a third who sees nothing of it guesses: the connection stays as it is, and he learns nothing.

He knows both addresses and ports, the time, and how the stack works; he can send any frame in anybody's name. He does
not see what goes between the two. What he can do is a bounded number of guesses, and to count what his own connection
to the same stack is answered. (RFC 5961, RFC 5927; Cao et al., "Off-Path TCP Exploits: Global Rate Limit Considered
Dangerous".)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ustack import Connection
from ustack.base.prng import Prng
from ustack.testing.pair import Pair
from ustack.testing.segment import Segment, build_frame, build_icmp_error
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, read_available

GUESSES = 4000
MASK = 0xFFFFFFFF
OURS = ("state", "snd_una", "snd_nxt", "snd_max", "snd_wnd", "rcv_nxt", "cwnd", "smss", "ts_recent", "soft_error")


@dataclass
class Third:
    """The one who guesses, about the connection of `pair`."""

    pair: Pair
    port: int
    generator: Prng

    def towards_a(self, flags: str, **fields: Any) -> bytes:
        """A segment in b's name."""
        segment = Segment(
            src=PEER_ADDRESS, dst=STACK_ADDRESS, sport=self.port, dport=80, seq=fields.pop("seq", 0),
            ack=fields.pop("ack", 0), flags=flags, wnd=fields.pop("wnd", 65535), **fields,
        )  # fmt: skip
        return build_frame(segment, src_mac=self.pair.network.b.mac, dst_mac=self.pair.network.a.mac)

    def any_number(self) -> int:
        """32 bits."""
        return self.generator.next() & MASK

    def icmp(self, icmp_type: int, code: int, mtu: int = 0) -> bytes:
        """An error from a router about a segment in a's name."""
        about = Segment(src=STACK_ADDRESS, dst=PEER_ADDRESS, sport=80, dport=self.port, seq=self.any_number(),
                        ack=0, flags="A", wnd=1, payload=b"x" * 8)  # fmt: skip
        quoted = build_frame(about, src_mac=self.pair.network.a.mac, dst_mac=self.pair.network.b.mac)
        return build_icmp_error(
            icmp_type, code, quoted, mtu=mtu, src=PEER_ADDRESS, dst=STACK_ADDRESS,
            src_mac=self.pair.network.b.mac, dst_mac=self.pair.network.a.mac,
        )  # fmt: skip


def resets(third: Third) -> Iterator[bytes]:
    """A RST at every window's distance, and at random."""
    for index in range(GUESSES):
        yield third.towards_a("R", seq=(index << 20) & MASK if index % 2 else third.any_number())


def reset_acks(third: Third) -> Iterator[bytes]:
    """The same with an ACK, and a SYN or a FIN with it."""
    for index in range(GUESSES):
        flags = ("RA", "RSA", "RFA")[index % 3]
        yield third.towards_a(flags, seq=third.any_number(), ack=third.any_number())


def syns(third: Third) -> Iterator[bytes]:
    """A SYN: as if b had restarted."""
    for _ in range(GUESSES):
        yield third.towards_a("S", seq=third.any_number(), options={"mss": 536})


def data(third: Third) -> Iterator[bytes]:
    """Text to be inserted."""
    for _ in range(GUESSES):
        yield third.towards_a("PA", seq=third.any_number(), ack=third.any_number(), payload=b"rm -rf /\n")


def stamped_data(third: Third) -> Iterator[bytes]:
    """The same with a timestamp."""
    for _ in range(GUESSES):
        options = {"nop": 2, "timestamps": (third.any_number(), third.any_number())}
        yield third.towards_a("PA", seq=third.any_number(), ack=third.any_number(), payload=b"x", options=options)


def fins(third: Third) -> Iterator[bytes]:
    """The stream's end."""
    for _ in range(GUESSES):
        yield third.towards_a("FA", seq=third.any_number(), ack=third.any_number())


def acks(third: Third) -> Iterator[bytes]:
    """ACKs of what was not received, and a shut window."""
    for _ in range(GUESSES):
        yield third.towards_a("A", seq=third.any_number(), ack=third.any_number(), wnd=0)


def unreachables(third: Third) -> Iterator[bytes]:
    """ICMP unreachable, every code."""
    for index in range(GUESSES):
        yield third.icmp(3, index % 16)


def too_big(third: Third) -> Iterator[bytes]:
    """ICMP fragmentation needed."""
    for index in range(GUESSES):
        yield third.icmp(3, 4, mtu=68 + index % 1400)


def other_errors(third: Third) -> Iterator[bytes]:
    """ICMP source quench, time exceeded, parameter problem."""
    for index in range(GUESSES):
        yield third.icmp((4, 11, 12)[index % 3], 0)


ATTACKS: dict[str, Callable[[Third], Iterator[bytes]]] = {
    attack.__name__: attack
    for attack in (resets, reset_acks, syns, data, stamped_data, fins, acks, unreachables, too_big, other_errors)
}


def row(pair: Pair) -> dict[str, Any]:
    """a's end of the connection."""
    (found,) = [row for row in pair.a.connections("connection") if row["local"][1] == 80]
    return found


def transfer(pair: Pair, source: Connection, sink: Connection, data: bytes) -> None:
    """All of it arrives."""
    source.send(data)
    received = b""

    def done() -> bool:
        nonlocal received
        received += read_available(sink)[0]
        return len(received) >= len(data)

    pair.run_until(done, 60 * SECOND)
    assert received == data


@pytest.mark.parametrize("timestamps", [0, 1], ids=["plain", "stamped"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in flight"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_connection_survives_a_bounded_number_of_guesses(attack: str, busy: bool, timestamps: int) -> None:
    """4,000 guesses at what has 2^32 values. busy: a has 20 KB in flight, which ICMP errors and ACKs are about."""
    with Pair(network={"delay_ns": 10 * MILLISECOND}, timestamps=timestamps) as pair:
        opener, accepter = pair.connect()
        transfer(pair, opener, accepter, b"hello")
        transfer(pair, accepter, opener, b"hello")
        pair.advance(SECOND)
        port = row(pair)["remote"][1]
        if busy:
            accepter.send(b"z" * 20_000)
            pair.pump()
        before = {name: row(pair)[name] for name in OURS}
        held = pair.a.leaks()
        third = Third(pair, port, Prng(7))
        counted = pair.a.counters()
        for number, frame in enumerate(ATTACKS[attack](third)):
            pair.network.b.inject(frame)
            if number % 50 == 49:
                pair.a.poll(pair.now_ns)
        pair.network.advance(pair.now_ns + 10 * MILLISECOND)
        pair.now_ns += 10 * MILLISECOND
        for _ in range(GUESSES // 50):
            pair.a.poll(pair.now_ns)
        assert {name: row(pair)[name] for name in OURS} == before
        assert pair.a.leaks() == held
        assert pair.a.counters()["frames_in"] - counted["frames_in"] == GUESSES
        answered = pair.a.counters()["segments_out"] - counted["segments_out"]
        assert answered <= (GUESSES if attack in ("data", "stamped_data", "fins") else 2)
        if busy:
            received = b""
            for _ in range(500):
                pair.advance(MILLISECOND)
                received += read_available(opener)[0]
            assert received == b"z" * 20_000
        transfer(pair, opener, accepter, b"still here" * 1000)
        transfer(pair, accepter, opener, b"so am I" * 1000)
        opener.abort()
        accepter.abort()
        pair.advance(SECOND)


# ---------------------------------------------------------------- what he can observe


def challenged(guess: int | None, seed: int) -> int:
    """What the third counts: challenge ACKs on his own connection, while he also guesses about somebody else's.

    guess: how far his RST for the other connection is from RCV.NXT; None: he sends none.
    """
    with Pair(seed=seed, network={"delay_ns": MILLISECOND}) as pair:
        listener = pair.a.listen(80)
        victims = [pair.b.connect(STACK_ADDRESS, 80, wait=False) for _ in range(50)]
        pair.advance(5 * SECOND)  # most SYNs go again: one neighbour's queue does not hold so many
        accepted = [listener.accept(timeout=0) for _ in victims]
        own = row_of(pair, accepted[0])
        third = Third(pair, own["remote"][1], Prng(1))
        if guess is not None:
            for connection in accepted[1:]:
                found = row_of(pair, connection)
                other = Third(pair, found["remote"][1], Prng(1))
                pair.network.b.inject(other.towards_a("R", seq=(found["rcv_nxt"] + guess) & MASK))
        before = pair.a.counters()["challenge_acks_out"]
        wanted = 0
        for _ in range(20):
            pair.network.b.inject(third.towards_a("S", seq=(own["rcv_nxt"] + 5) & MASK))
            pair.advance(600 * MILLISECOND)
            wanted += 1
        counted = pair.a.counters()["challenge_acks_out"] - before
        others = 0 if guess is None or not 0 < guess < 60_000 else 49
        assert wanted == 20
        listener.close()
        for connection in (*accepted, *victims):
            connection.abort()
        pair.advance(SECOND)
        return counted - others


def row_of(pair: Pair, connection: Connection) -> dict[str, Any]:
    (found,) = [row for row in pair.a.connections("connection") if row["remote"] == connection.remote]
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_guess_that_hits_a_window_changes_nothing_that_the_guesser_can_count(seed: int) -> None:
    """His own challenges are as many whether 49 RSTs for others were in their windows, beside them, or not sent."""
    assert challenged(None, seed) == challenged(100, seed) == challenged(0x30000000, seed) == 20


def test_what_is_drawn_for_a_second_does_not_repeat_itself() -> None:
    """A total that he could know would be one that he could count down (CVE-2016-5696): 1,700 connections that are all
    challenged in one second, of addresses enough for no peer's share to be the limit, get another total each second."""
    from ustack.testing.peer import ScriptedPeer
    from ustack.testing.states import SYN_OPTIONS, listen

    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=2000)
        peers = [
            ScriptedPeer(scene.testbed, port=2000 + index, address=f"198.18.0.{10 + index % 200}")
            for index in range(1700)
        ]
        for peer in peers:
            peer.send("S", options=SYN_OPTIONS)
            peer.expect("SA")
            peer.send("A")
        totals = []
        for _ in range(8):
            scene.testbed.advance(2 * SECOND)
            for peer in peers:
                peer.send("S", seq=peer.snd_nxt)
            totals.append(sum(len(peer.drain()) for peer in peers))
        assert len(set(totals)) >= 6
        assert max(totals) - min(totals) > 200
        for peer in peers:
            peer.send("R")


# ---------------------------------------------------------------- handshakes


def test_a_blind_third_segment_opens_nothing() -> None:
    """In b's name, with and without cookies: of 2^32 acknowledgment numbers he tries 4,000."""
    for cookies in (0, 2):
        with Pair(syn_cookies=cookies) as pair, pair.a.listen(80) as listener:
            third = Third(pair, 5555, Prng(3))
            held = pair.a.leaks()["tcbs"]
            for number in range(GUESSES):
                if number % 100 == 0:  # b answers what it does not know with a RST, as any host would
                    pair.network.b.inject(third.towards_a("S", seq=99, options={"mss": 1460}))
                pair.network.b.inject(third.towards_a("A", seq=100, ack=third.any_number()))
                if number % 50 == 49:
                    pair.a.poll(pair.now_ns)
            pair.pump()
            assert listener.pending == 0
            assert pair.a.leaks()["tcbs"] == held
            pair.advance(SECOND)


def test_a_connection_that_is_being_opened_takes_no_guessed_answer() -> None:
    """a has sent its SYN and waits: RSTs, SYN-ACKs and ICMP errors that acknowledge or quote another number."""
    with Pair(network={"delay_ns": 2 * SECOND}) as pair:
        listener = pair.b.listen(80)
        opening = pair.a.connect(PEER_ADDRESS, 80, wait=False)
        pair.advance(5 * SECOND)  # ARP has been answered, the SYN is on its way
        local = opening.local[1]
        generator = Prng(5)
        for number in range(GUESSES):
            segment = Segment(
                src=PEER_ADDRESS, dst=STACK_ADDRESS, sport=80, dport=local, seq=generator.next() & MASK,
                ack=generator.next() & MASK, flags=("RA", "SA", "A")[number % 3], wnd=1000,
            )  # fmt: skip
            pair.network.b.inject(build_frame(segment, src_mac=pair.network.b.mac, dst_mac=pair.network.a.mac))
        pair.run_until(lambda: listener.pending > 0, 60 * SECOND)
        accepted = listener.accept(timeout=0)
        transfer(pair, opening, accepted, b"hello")
        listener.close()
        opening.abort()
        accepted.abort()
        pair.advance(5 * SECOND)

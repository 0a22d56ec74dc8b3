# SPDX-License-Identifier: MIT
"""Handshakes whose half-open record had to make room in a flood of SYNs (RFC 4987 sections 3.2 and 3.3)."""

from dataclasses import replace

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, listen
from ustack.testing.testbed import SECOND, read_available

FLOOD_FROM = "198.18.0."


def flood(scene: Scene, syns: int, first: int = 0) -> None:
    """SYNs from addresses that send nothing else. first: number of SYNs that were sent before."""
    for index in range(first, first + syns):
        segment = scene.peer.segment("S", seq=index * 7919, src=FLOOD_FROM + str(10 + index % 200), options=SYN_OPTIONS)
        frame = scene.peer.frame(replace(segment, sport=1024 + index // 200))
        scene.testbed.inject(frame, pump=index % 60 == 59)
    scene.testbed.pump()
    scene.testbed.strays.clear()
    scene.testbed.frames.clear()


def honest(scene: Scene, port: int, options: object = SYN_OPTIONS) -> ScriptedPeer:
    """A client that has got its SYN-ACK, and not answered yet."""
    peer = ScriptedPeer(scene.testbed, port=port)
    peer.send("S", options=options)  # type: ignore[arg-type]
    peer.expect("SA", seq=0, ack=1)
    peer.timestamps = "timestamps" in (options or {})  # type: ignore[operator]
    return peer


def forgotten(scene: Scene, **parameters: object) -> ScriptedPeer:
    """A client whose half-open record, and what the cache had of it, has been overwritten; syn_queue must be 1."""
    peer = honest(scene, 50_000, **parameters)
    flood(scene, 20)
    scene.testbed.mark()
    return peer


@pytest.mark.parametrize(("queues", "at_least"), [(0.5, 40), (1.5, 40), (3, 39), (5, 36)])
def test_clients_are_served_in_a_flood_that_turns_the_queue_over_several_times_a_round_trip(
    queues: float, at_least: int
) -> None:
    """40 clients, one after the other. Between each one's SYN and its ACK come queues * syn_queue SYNs of others."""
    queue, served = 256, 0
    with listen(syn_queue=queue) as scene:
        assert scene.listener is not None
        for index in range(40):
            client = honest(scene, 50_000 + index)
            flood(scene, int(queue * queues), index * int(queue * queues))
            client.send("PA", payload=b"GET")
            assert not any("R" in segment.flags for segment in client.drain())
            if scene.listener.pending:
                connection = scene.listener.accept(timeout=0)
                served += read_available(connection)[0] == b"GET"
                connection.abort()
                scene.testbed.pump()
        assert scene.testbed.stack.leaks()["syns"] <= queue
    assert served >= at_least


def test_what_the_syn_offered_is_remembered() -> None:
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000, options=ALL_OPTIONS)
        flood(scene, 4)
        client.wnd = 1000
        client.send("A")
        connection = scene.accept()
        info = connection.info()
        assert (info["snd_wscale"], info["smss"], info["snd_wnd"]) == (7, 1448, 128_000)
        assert scene.testbed.counted()["syn_cache_hits"] == 1
        connection.send(b"welcome")
        scene.testbed.pump()
        client.expect("PA", seq=1, ack=1, payload=b"welcome", options={"timestamps": lambda v: v[1] == client.ts_now})


def test_a_peer_whose_third_segment_has_no_timestamp_may_stamp_what_follows() -> None:
    """The cache does not keep TS.Recent. With zero in its place PAWS would refuse half of all timestamps as older."""
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000, options=ALL_OPTIONS)
        flood(scene, 4)
        client.timestamps = False
        client.send("A")
        connection = scene.accept()
        scene.connection = None
        client.send("PA", payload=b"GET", options={"nop": 2, "timestamps": (0x9000_0000, 0)})
        assert read_available(connection)[0] == b"GET"
        client.send("A", options={"nop": 2, "timestamps": (0x8FFF_FFFF, 0)})
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        connection.abort()
        scene.testbed.pump()


def test_a_client_whose_syn_came_again_may_answer_the_first_syn_ack() -> None:
    """Its round trip is longer than its RTO: the first record has made room by then, the second has another ISS."""
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000)
        flood(scene, 4)
        scene.testbed.advance(SECOND)
        client.send("S", seq=0, options=SYN_OPTIONS)
        assert client.drain()[-1].seq != client.iss
        client.send("PA", seq=1, ack=1, payload=b"GET")
        assert not any("R" in segment.flags for segment in client.drain())
        connection = scene.accept()
        assert read_available(connection)[0] == b"GET"
        assert scene.testbed.stack.leaks()["syns"] == 0
        scene.connection = None
        connection.send(b"welcome")
        scene.testbed.pump()
        client.expect("PA", seq=1, ack=4, payload=b"welcome")
        connection.abort()
        scene.testbed.pump()


def test_the_ack_of_an_earlier_syn_ack_that_is_forgotten_leaves_the_newer_handshake() -> None:
    with listen(syn_queue=1) as scene:
        client = forgotten(scene)
        scene.testbed.advance(SECOND)
        client.send("S", seq=0, options=SYN_OPTIONS)
        again = client.drain()[-1]
        client.send("A", seq=1, ack=1)
        client.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_forgotten": 1}
        client.send("A", seq=1, ack=(again.seq + 1 - (client.iss or 0)) & 0xFFFFFFFF)
        connection = scene.accept()
        assert connection.remote == (client.address, client.port)
        client.send("R", seq=1)


def test_the_first_segment_with_text_completes_the_handshake_too() -> None:
    """The ACK itself was lost. A segment further on cannot: the client's ISN is taken to be SEG.SEQ - 1."""
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000)
        flood(scene, 4)
        client.send("A", seq=4, payload=b"lo")
        assert scene.testbed.dropped() == {"drop_tcp_forgotten": 1}
        client.send("A", payload=b"hel")
        client.send("A", payload=b"lo")
        scene.accept()
        assert scene.read() == b"hello"


def test_one_handshake_opens_one_connection() -> None:
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000)
        flood(scene, 4)
        client.send("A")
        assert scene.listener is not None
        assert scene.listener.pending == 1
        client.send("R")
        assert scene.listener.pending == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        client.send("A", seq=1)
        assert scene.listener.pending == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        client.expect_nothing()


@pytest.mark.parametrize("text", [b"", b"GET"])
def test_a_handshake_that_is_forgotten_altogether_is_not_reset_at_once(text: bytes) -> None:
    with listen(syn_queue=1) as scene:
        client = forgotten(scene)
        for _ in range(5):
            client.send("A", seq=1, payload=text)
            scene.testbed.advance(5 * SECOND)
            flood(scene, 2, first=1000)
        client.expect_nothing()
        assert scene.testbed.dropped()["drop_tcp_forgotten"] == 5


def test_a_client_that_is_forgotten_learns_it_when_no_half_open_record_could_be_so_old() -> None:
    """It gets a RST then. If we stayed silent, it would wait for its own user timeout, a quarter of an hour."""
    with listen(syn_queue=1, syn_ack_timeout_ns=63 * SECOND) as scene:
        client = forgotten(scene)
        for second in range(60):
            scene.testbed.advance(SECOND)
            flood(scene, 2, first=1000 + 2 * second)
        client.send("A", seq=1)
        client.expect_nothing()
        for second in range(5):
            scene.testbed.advance(SECOND)
            flood(scene, 2, first=2000 + 2 * second)
        client.send("A", seq=1)
        client.expect("R")


def test_numbers_that_were_never_ours_are_answered_with_rst_in_a_flood_too() -> None:
    """Section 3.10.7.2, second: the ACK does not answer any SYN,ACK of the last minute, so it gets the usual RST."""
    with listen(syn_queue=1) as scene:
        client = honest(scene, 50_000)
        flood(scene, 4)
        for ack in (1 << 30, 1 << 31, -(1 << 30)):
            sent = client.send("A", ack=ack)
            assert client.expect("R").seq == sent.ack
        client.send("SA", seq=0)
        client.expect("R")


def test_without_a_flood_an_ack_for_a_listener_is_reset() -> None:
    with listen() as scene:
        client = honest(scene, 50_000)
        client.send("R")
        client.send("A", seq=1)
        client.expect("R")


def test_a_full_accept_queue_keeps_the_handshake_for_later() -> None:
    with listen(syn_queue=1) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=1)
        client = honest(scene, 50_000)
        other = honest(scene, 50_001)
        other.send("A")
        flood(scene, 1)
        client.send("A", payload=b"x")
        client.expect_nothing()
        assert scene.testbed.counted()["accept_queue_overflow"] == 1
        scene.listener.accept(timeout=0).abort()
        scene.testbed.pump()
        client.send("A", seq=1, payload=b"x")
        scene.accept()
        assert scene.read() == b"x"

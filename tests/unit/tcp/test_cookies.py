# SPDX-License-Identifier: MIT
"""SYN cookies: handshakes of which nothing is kept (RFC 4987 section 3.6), and the queue before them."""

from dataclasses import replace
from typing import Any

import pytest

from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, listen
from ustack.testing.testbed import MICROSECOND, MILLISECOND, PEER_MAC, SECOND, read_available
from ustack.tools.syn_sender import SynSender

FLOOD_FROM = "198.18.0."
MSS_TABLE = (64, 512, 1200, 1360, 1400, 1440, 1460, 8960)
OFF, UNDER_PRESSURE, ALWAYS = 0, 1, 2
SLOT_NS = 1 << 34


def flood(scene: Scene, syns: int, first: int = 0) -> None:
    """SYNs from addresses that send nothing else. first: number of SYNs that were sent before."""
    for index in range(first, first + syns):
        segment = scene.peer.segment("S", seq=index * 7919, src=FLOOD_FROM + str(10 + index % 200), options=SYN_OPTIONS)
        frame = scene.peer.frame(replace(segment, sport=1024 + index // 200))
        scene.testbed.inject(frame, pump=index % 60 == 59)
    scene.testbed.pump()
    scene.testbed.strays.clear()
    scene.testbed.frames.clear()


def besieged(**config: Any) -> Scene:
    """A listener whose queue of half-open records is full."""
    scene = listen(syn_queue=config.pop("syn_queue", 1), **config)
    flood(scene, 4)
    return scene


def honest(scene: Scene, port: int, options: object = SYN_OPTIONS) -> ScriptedPeer:
    """A client that has got its SYN-ACK, and not answered yet."""
    peer = ScriptedPeer(scene.testbed, port=port)
    peer.send("S", options=options)  # type: ignore[arg-type]
    peer.expect("SA", seq=0, ack=1)
    peer.timestamps = "timestamps" in (options or {})  # type: ignore[operator]
    return peer


def cookies(scene: Scene) -> dict[str, int]:
    """What is counted of cookies, but for zeros."""
    return {name[12:]: n for name, n in scene.testbed.counted().items() if name.startswith("syn_cookies_") and n}


# ---------------------------------------------------------------- floods


@pytest.mark.parametrize(("queues", "at_least"), [(0.5, 40), (1.5, 40), (3, 40), (5, 40)])
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


def test_a_third_segment_after_600_ms_of_200_000_syns_per_second_completes_every_handshake() -> None:
    """120,000 SYNs of others between each client's SYN and its ACK; virtual time moves 5 us with each SYN."""
    clients = 100
    with listen(syn_queue=1024) as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=clients)
        testbed = scene.testbed
        sender = SynSender(
            bytes.fromhex(PEER_MAC.replace(":", "")), bytes.fromhex(testbed.stack_mac.replace(":", "")),
            testbed.stack_address, 80, "198.19.0.0/16", 1,
        )  # fmt: skip

        def besiege(syns: int) -> None:
            for _ in range(syns // 50):
                for _ in range(50):
                    testbed.inject(sender.next_frame(), pump=False)
                testbed.advance(250 * MICROSECOND)
            testbed.frames.clear()
            testbed.strays.clear()

        besiege(2000)
        held = dict(testbed.stack.leaks())
        before = testbed.stack.counters()
        waiting = [honest(scene, 50_000 + index, ALL_OPTIONS if index % 2 else SYN_OPTIONS) for index in range(clients)]
        began = testbed.now_ns
        besiege(120_000)
        assert testbed.now_ns - began == 600 * MILLISECOND
        counted = {name: n - before[name] for name, n in testbed.stack.counters().items()}
        assert counted["syn_cookies_sent"] == counted["segments_in"] == 120_000 + clients
        assert counted["syn_queue_evicted"] == 0
        assert testbed.stack.leaks() == held  # a cookie costs nothing
        for client in waiting:
            client.send("PA", payload=b"GET")
            client.expect_nothing()
        served = [scene.listener.accept(timeout=0) for _ in range(clients)]
        assert all(read_available(connection)[0] == b"GET" for connection in served)
        for connection in served:
            connection.abort()
        testbed.pump()


def test_who_is_in_the_queue_is_not_pushed_out_by_a_flood() -> None:
    with listen(syn_queue=8) as scene:
        clients = [honest(scene, 50_000 + index) for index in range(4)]
        flood(scene, 200)
        assert cookies(scene) == {"sent": 196}
        assert "syn_queue_evicted" not in scene.testbed.counted()
        clients[0].wait(2 * SECOND)
        clients[0].expect("SA", seq=0, ack=1)  # it is still cared for
        for client in clients:
            client.send("A")
        assert cookies(scene) == {"sent": 196}
        for client in clients:
            client.send("R")


# ---------------------------------------------------------------- what survives


def test_what_the_syn_offered_is_remembered() -> None:
    with besieged() as scene:
        client = honest(scene, 50_000, options=ALL_OPTIONS)
        client.wnd = 1000
        client.send("A")
        connection = scene.accept()
        info = connection.info()
        assert (info.snd_wscale, info.snd_mss_bytes, info.snd_wnd_bytes) == (7, 1448, 128_000)
        assert info.options == ("timestamps", "sack", "wscale")
        assert scene.testbed.counted()["syn_cookies_accepted"] == 1
        connection.send(b"welcome")
        scene.testbed.pump()
        client.expect("PA", seq=1, ack=1, payload=b"welcome", options={"timestamps": lambda v: v[1] == client.ts_now})


@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("shift", [None, 0, 1, 7, 13, 14])
def test_scale_and_sack_survive_in_the_timestamp(shift: int | None, sack: bool) -> None:
    options: dict[str, Any] = {"mss": 1460, "timestamps": (5, 0)}
    if sack:
        options["sack_permitted"] = True
    if shift is not None:
        options["wscale"] = shift
    with besieged() as scene:
        client = ScriptedPeer(scene.testbed, port=50_000)
        client.send("S", options=options)
        answer = client.expect("SA").options
        assert ("wscale" in answer, answer.get("sack_permitted", False)) == (shift is not None, sack)
        client.timestamps = True
        client.send("A", wnd=100)
        info = scene.accept().info()
        assert info.options == ("timestamps",) + ("sack",) * sack + ("wscale",) * (shift is not None)
        assert (info.snd_wscale, info.snd_wnd_bytes) == (shift or 0, 100 << (shift or 0))
        assert (info.rcv_wscale > 0) == (shift is not None)


def test_without_timestamps_only_the_mss_survives_and_nothing_else_is_agreed_on() -> None:
    options = {"mss": 1460, "sack_permitted": True, "nop": 1, "wscale": 7}
    with besieged() as scene:
        client = ScriptedPeer(scene.testbed, port=50_000)
        client.send("S", options=options)
        assert client.expect("SA").options.keys() == {"mss"}
        client.send("A", wnd=100)
        info = scene.accept().info()
        assert (info.options, info.snd_wnd_bytes, info.rcv_wscale, info.snd_mss_bytes) == ((), 100, 0, 1460)


@pytest.mark.parametrize("mss", [1, 63, 64, 65, 511, 512, 536, 1199, 1220, 1380, 1400, 1452, 1459, 1460, 8959, 65535])
def test_the_mss_is_the_largest_of_a_table_that_the_peer_takes(mss: int) -> None:
    with besieged(network={"mtu": 9216}) as scene:
        client = honest(scene, 50_000, options={"mss": mss})
        client.send("A")
        assert scene.accept().info().snd_mss_bytes == max(value for value in MSS_TABLE if value <= max(mss, 64))


def test_a_peer_that_names_no_mss_gets_the_default() -> None:
    """MUST-15: 536, of which the table's value is below."""
    with besieged() as scene:
        client = honest(scene, 50_000, options={})
        client.send("A")
        assert scene.accept().info().snd_mss_bytes == 512


def test_the_timestamp_of_a_cookie_is_not_ahead_of_those_that_follow() -> None:
    """RFC 7323 section 4.1: the clock does not go back. It borrows at most 63 ms from the past."""
    with besieged(syn_cookies=ALWAYS) as scene:
        for index in range(70):
            scene.testbed.advance(MILLISECOND)
            client = ScriptedPeer(scene.testbed, port=50_000 + index)
            client.send("S", options=ALL_OPTIONS)
            said = client.expect("SA").options["timestamps"][0]
            client.timestamps = True
            client.send("FA")
            now = client.expect("A").options["timestamps"][0]
            assert 0 <= (now - said) & 0xFFFFFFFF <= 63
            client.send("R")


# ---------------------------------------------------------------- the third segment


def test_a_peer_whose_third_segment_has_no_timestamp_may_stamp_what_follows() -> None:
    """Without it the cookie is not proved, and RFC 7323 section 3.2 wants such a segment dropped in silence."""
    with besieged() as scene:
        client = honest(scene, 50_000, options=ALL_OPTIONS)
        client.timestamps = False
        client.send("A")
        client.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_forgotten": 1}
        scene.testbed.mark()
        client.timestamps = True
        client.send("PA", payload=b"GET")
        connection = scene.accept()
        scene.connection = None
        assert read_available(connection)[0] == b"GET"
        client.send("A", options={"nop": 2, "timestamps": ((client.ts_now - 1000) & 0xFFFFFFFF, 0)})
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        connection.abort()
        scene.testbed.pump()


def answered_twice(scene: Scene) -> ScriptedPeer:
    """A client that got a cookie while the queue was full, and whose SYN has come again since there is room."""
    other = honest(scene, 50_001)
    client = honest(scene, 50_000)
    other.send("R")
    scene.testbed.advance(SECOND)
    client.send("S", seq=0, options=SYN_OPTIONS)
    return client


def test_a_client_whose_syn_came_again_may_answer_the_first_syn_ack() -> None:
    """Its round trip is longer than its RTO: it got a cookie first, and there is a record with another ISS now."""
    with listen(syn_queue=1) as scene:
        client = answered_twice(scene)
        assert client.drain()[-1].seq != client.iss
        assert scene.testbed.stack.leaks()["syns"] == 1
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
    """Of a cookie that this segment does not prove: it is further on than the first."""
    with listen(syn_queue=1) as scene:
        client = answered_twice(scene)
        again = client.drain()[-1]
        scene.testbed.mark()
        client.send("A", seq=5, ack=1)
        client.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_forgotten": 1}
        client.send("A", seq=1, ack=(again.seq + 1 - (client.iss or 0)) & 0xFFFFFFFF)
        connection = scene.accept()
        assert connection.remote == (client.address, client.port)
        client.send("R", seq=1)


def test_the_first_segment_with_text_completes_the_handshake_too() -> None:
    """The ACK itself was lost. A segment further on cannot: the client's ISN is taken to be SEG.SEQ - 1."""
    with besieged() as scene:
        client = honest(scene, 50_000)
        client.send("A", seq=4, payload=b"lo")
        assert scene.testbed.dropped() == {"drop_tcp_forgotten": 1}
        client.expect_nothing()
        client.send("A", payload=b"hel")
        client.send("A", payload=b"lo")
        scene.accept()
        assert scene.read() == b"hello"


@pytest.mark.parametrize("payload", [b"", b"GET"])
def test_a_fin_on_the_third_segment_is_the_end_of_the_stream(payload: bytes) -> None:
    with besieged() as scene:
        client = honest(scene, 50_000)
        client.send("FA", payload=payload)
        client.expect("A", seq=1, ack=2 + len(payload))
        scene.accept()
        assert scene.conn.state == "CLOSE-WAIT"
        assert (scene.read(), scene.at_eof()) == (payload, True)


def test_a_third_segment_that_comes_again_finds_the_connection() -> None:
    with besieged() as scene:
        client = honest(scene, 50_000)
        for _ in range(5):
            client.send("PA", seq=1, payload=b"GET")
        scene.accept()
        assert scene.read() == b"GET"
        assert cookies(scene) == {"sent": 4, "accepted": 1}
        assert [segment.flags for segment in client.drain()] == ["A"] * 4  # the first waits for company


def test_one_handshake_opens_one_connection() -> None:
    """Not again once it has ended, and RFC 9293 section 3.10.7.2, second, wants the RST."""
    with besieged() as scene:
        client = honest(scene, 50_000)
        client.send("A")
        assert scene.listener is not None
        assert scene.listener.pending == 1
        client.send("R")
        assert scene.listener.pending == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        client.send("A", seq=1)
        assert scene.listener.pending == 0
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        client.expect("R")
        assert cookies(scene)["refused_spent"] == 1


def test_a_full_accept_queue_keeps_the_handshake_for_later() -> None:
    with besieged() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = scene.testbed.stack.listen(80, backlog=1)
        client, other = honest(scene, 50_000), honest(scene, 50_001)
        other.send("A")
        client.send("A", payload=b"x")
        client.expect_nothing()
        assert scene.testbed.counted()["accept_queue_overflow"] == 1
        assert cookies(scene) == {"sent": 5, "accepted": 1}
        scene.listener.accept(timeout=0).abort()
        scene.testbed.pump()
        client.send("A", seq=1, payload=b"x")
        scene.accept()
        assert scene.read() == b"x"


def test_a_cookie_for_a_listener_that_has_gone_is_reset() -> None:
    with besieged() as scene:
        client = honest(scene, 50_000)
        assert scene.listener is not None
        scene.listener.close()
        scene.listener = None
        client.send("A")
        client.expect("R")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("text", [b"", b"GET"])
def test_a_handshake_that_is_forgotten_altogether_is_not_reset_at_once(text: bytes) -> None:
    """Its first segment was lost, what follows it comes: a RST would end a connection that the peer has."""
    with besieged() as scene:
        client = honest(scene, 50_000)
        scene.testbed.mark()
        for _ in range(5):
            client.send("A", seq=4, payload=text)
            scene.testbed.advance(5 * SECOND)
            flood(scene, 2, first=1000)
        client.expect_nothing()
        assert scene.testbed.dropped()["drop_tcp_forgotten"] == 5


def test_a_client_that_is_forgotten_learns_it_when_no_half_open_record_could_be_so_old() -> None:
    """It gets a RST then. If we stayed silent, it would wait for its own user timeout, a quarter of an hour."""
    with besieged() as scene:
        client = honest(scene, 50_000)
        for second in range(52):
            scene.testbed.advance(SECOND)
            flood(scene, 2, first=1000 + 2 * second)
        client.send("A")
        client.expect("R")
        assert cookies(scene)["refused"] == 1


@pytest.mark.parametrize("options", [SYN_OPTIONS, ALL_OPTIONS], ids=["plain", "stamped"])
@pytest.mark.parametrize("into_slot_ns", [0, SLOT_NS // 2, SLOT_NS - MILLISECOND])
def test_a_cookie_is_good_for_half_a_minute_and_not_for_a_minute(into_slot_ns: int, options: object) -> None:
    """Whatever the key's age: over the times of 6 slots each of four has been the first of a key."""
    for slot in range(6):
        for age_slots, right in ((0, True), (2, True), (3, False)):
            with besieged(syn_ack_timeout_ns=600 * SECOND) as scene:
                testbed = scene.testbed
                testbed.advance((slot * SLOT_NS - testbed.now_ns) % (6 * SLOT_NS) + into_slot_ns)
                client = honest(scene, 50_000, options)
                age_ns = age_slots * SLOT_NS - into_slot_ns  # the slot has just begun, or it is still the first
                testbed.advance(max(age_ns + MILLISECOND, 0))
                client.send("A")
                assert cookies(scene).get("accepted", 0) == right
                client.drain()
                client.send("R")


def test_numbers_that_were_never_ours_are_answered_with_rst_in_a_flood_too() -> None:
    """Section 3.10.7.2, second: the ACK does not answer any SYN,ACK of the last minute, so it gets the usual RST."""
    with besieged() as scene:
        client = honest(scene, 50_000)
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
        assert cookies(scene) == {}


@pytest.mark.parametrize("bit", range(32))
def test_a_cookie_with_another_bit_is_none(bit: int) -> None:
    with besieged() as scene:
        client = honest(scene, 50_000, ALL_OPTIONS)
        client.send("A", ack=1 ^ (1 << bit) if bit else 2)
        assert cookies(scene)["refused"] == 1
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        client.drain()
        client.send("A")
        scene.accept()


@pytest.mark.parametrize("change", [1, 16, 32, -64 * 1000, 64 * 1000])
def test_a_timestamp_echo_that_is_not_ours_is_refused(change: int) -> None:
    """The low bits are proved with the cookie; the rest must lie within a cookie's life (64,000 ms here)."""
    with besieged() as scene:
        client = honest(scene, 50_000, ALL_OPTIONS)
        echo = client.ts_recent
        client.send("A", options={"nop": 2, "timestamps": (client.ts_now, (echo + change) & 0xFFFFFFFF)})
        client.expect_nothing()
        assert cookies(scene) == {"sent": 4, "refused_echo" if abs(change) > 63 else "refused": 1}
        client.send("A", options={"nop": 2, "timestamps": (client.ts_now, echo)})
        scene.accept()


@pytest.mark.parametrize("other", ["port", "address", "service", "isn"])
def test_a_cookie_is_good_for_one_handshake_only(other: str) -> None:
    with besieged() as scene:
        with scene.testbed.stack.listen(81):
            client = honest(scene, 50_000)
            fields: dict[str, Any] = {"seq": 2} if other == "isn" else {}
            segment = client.segment("A", **fields)
            segment = {
                "port": replace(segment, sport=50_001),
                "address": replace(segment, src="198.18.0.9"),
                "service": replace(segment, dport=81),
                "isn": segment,
            }[other]
            scene.testbed.inject(client.frame(segment))
            assert cookies(scene) == {"sent": 4, "refused": 1}
        scene.testbed.strays.clear()


def test_forged_acknowledgments_open_nothing_and_keep_nothing() -> None:
    """20,000 of them, the first of an address each; the time is right, the cookie is guessed."""
    with besieged() as scene:
        held = dict(scene.testbed.stack.leaks())
        for index in range(20_000):
            segment = scene.peer.segment("A", src=f"198.18.0.{10 + index % 200}", seq=index, ack=index * 2654435761)
            scene.testbed.inject(scene.peer.frame(replace(segment, sport=2000 + index // 200)), pump=index % 60 == 59)
        scene.testbed.pump()
        assert scene.testbed.stack.leaks() == held
        assert cookies(scene) == {"sent": 3, "refused": 20_000}
        silent = scene.testbed.dropped()["drop_tcp_forgotten"]
        assert 20 < silent < 100  # 3 of 1024 might be ours
        assert scene.testbed.dropped()["drop_tcp_ack"] == 20_000 - silent
        scene.testbed.strays.clear()


# ---------------------------------------------------------------- the setting


def test_switched_off_the_oldest_half_open_record_makes_room() -> None:
    """RFC 4987 section 3.2; the one that made room is answered as section 3.10.7.2 of RFC 9293 says."""
    with besieged(syn_cookies=OFF) as scene:
        clients = [honest(scene, 50_000 + index) for index in range(2)]
        clients[0].send("A")
        clients[0].expect("R")
        clients[1].send("A")
        scene.accept()
        assert cookies(scene) == {}
        assert scene.testbed.counted()["syn_queue_evicted"] == 5


def test_switched_to_always_no_half_open_record_is_made() -> None:
    with listen(syn_cookies=ALWAYS) as scene:
        client = honest(scene, 50_000, ALL_OPTIONS)
        assert scene.testbed.stack.leaks()["syns"] == 0
        client.send("A")
        assert scene.accept().info().snd_wscale == 7


def test_a_cookie_for_a_syn_that_comes_again_is_the_same() -> None:
    """So is the connection, whichever of the two SYN-ACKs the peer acknowledges."""
    with listen(syn_cookies=ALWAYS) as scene:
        client = honest(scene, 50_000)
        client.send("S", seq=0, options=SYN_OPTIONS)
        client.expect("SA", seq=0, ack=1)


def test_a_syn_that_takes_over_a_time_wait_record_gets_no_cookie() -> None:
    """Our ISN must lie beyond the old connection's numbers (RFC 6191); a cookie's cannot."""
    with listen(syn_cookies=ALWAYS) as scene:
        client = honest(scene, 50_000)
        client.send("A")
        scene.accept()
        scene.close()
        client.expect("FA", seq=1, ack=1)
        client.send("FA")
        client.expect("A")
        last = client.iss
        client.send("S", seq=1000, options=SYN_OPTIONS)
        answer = client.expect("SA")
        assert last is not None
        assert 65536 < (answer.seq - last) & 0xFFFFFFFF < 1 << 31
        assert scene.testbed.stack.leaks()["syns"] == 1
        client.send("R", seq=1001)


@pytest.mark.parametrize("timestamps", [0, 1])
@pytest.mark.parametrize("sack", [0, 1])
def test_two_stacks_open_a_connection_by_cookie(timestamps: int, sack: int) -> None:
    with Pair(network={"delay_ns": MILLISECOND}, syn_cookies=ALWAYS, timestamps=timestamps, sack=sack) as pair:
        opener, accepter = pair.connect()
        for one, two in ((opener, accepter), (accepter, opener)):
            one.send(b"x" * 100_000)
            received = b""
            for _ in range(200):
                pair.advance(MILLISECOND)
                received += read_available(two)[0]
            assert len(received) == 100_000
        (a,), (b,) = pair.a.connections("connection"), pair.b.connections("connection")
        assert a["options"] == b["options"] == (7 if timestamps and sack else 5 if timestamps else 0)
        assert (a["snd_wscale"], a["rcv_wscale"]) == (b["rcv_wscale"], b["snd_wscale"])
        opener.abort()
        accepter.abort()
        pair.advance(SECOND)


# ---------------------------------------------------------------- what is told of it


def test_the_stack_tells_when_it_sends_cookies_and_whether_some_are_out() -> None:
    with listen(syn_queue=4, syn_ack_timeout_ns=SECOND) as scene:
        told = scene.testbed.stack.pressure()
        assert (told["half_open"], told["syn_queue"], told["syn_cookies"], told["cookies_out"]) == (0, 4, False, False)
        flood(scene, 4)
        told = scene.testbed.stack.pressure()
        assert (told["half_open"], told["syn_cookies"], told["cookies_out"]) == (4, True, False)
        flood(scene, 1, first=4)
        assert scene.testbed.stack.pressure()["cookies_out"]
        scene.testbed.advance(10 * SECOND)
        told = scene.testbed.stack.pressure()
        assert (told["half_open"], told["syn_cookies"], told["cookies_out"]) == (0, False, True)
        scene.testbed.advance(50 * SECOND)
        flood(scene, 1, first=5)
        assert not scene.testbed.stack.pressure()["cookies_out"]
        stack = scene.testbed.stack
    assert stack.pressure() == {}

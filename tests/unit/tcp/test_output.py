# SPDX-License-Identifier: MIT
"""What is sent when: Nagle, silly windows, lending, path MTU, fields. RFC 9293 section 3.7.4 and 3.8.6.2, RFC 1191."""

import sys
from typing import Any

import pytest

from ustack.testing.peer import length
from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MILLISECOND, SECOND

# ---------------------------------------------------------------- Nagle (SHLD-7, MUST-17)


def test_nagle_holds_a_small_segment_while_data_is_unacknowledged() -> None:
    with established() as scene:
        scene.send(b"first")
        scene.peer.expect("A", payload=b"first")
        scene.send(b"second")
        scene.send(b"third")
        scene.peer.expect_nothing()
        scene.peer.send("A")
        scene.peer.expect("PA", seq=6, payload=b"secondthird")


def test_nagle_sends_full_segments() -> None:
    with established() as scene:
        scene.send(b"first")
        scene.peer.expect("A", payload=b"first")
        scene.send(bytes(1460 + 10))
        scene.peer.expect("A", seq=6, payload=length(1460))
        scene.peer.expect_nothing()
        scene.peer.send("A")
        scene.peer.expect("PA", payload=length(10))


def test_nagle_lets_the_short_end_of_a_write_go_with_it() -> None:
    """Minshall's form: only a short segment that is not acknowledged holds the next one back."""
    with established() as scene:
        scene.send(bytes(3 * 1460 + 10))
        assert [len(segment.payload) for segment in scene.peer.drain()] == [1460, 1460, 1460, 10]
        scene.peer.rcv_nxt += 3 * 1460
        scene.send(bytes(2 * 1460 + 20))
        assert [len(segment.payload) for segment in scene.peer.drain()] == [1460, 1460]
        scene.peer.send("A")  # everything but the short one
        scene.peer.expect_nothing()
        scene.peer.rcv_nxt += 10
        scene.peer.send("A")
        assert [len(segment.payload) for segment in scene.peer.drain()] == [20]
        scene.peer.rcv_nxt += 2 * 1460 + 20
        scene.peer.send("A")


def test_nagle_a_short_end_may_follow_full_segments_of_another_write() -> None:
    with established() as scene:
        scene.send(bytes(1460))
        scene.send(bytes(1460))
        scene.send(bytes(30))
        scene.send(bytes(40))
        assert [len(segment.payload) for segment in scene.peer.drain()] == [1460, 1460, 30]
        scene.peer.rcv_nxt += 2 * 1460 + 30
        scene.peer.send("A")
        assert [len(segment.payload) for segment in scene.peer.drain()] == [40]
        scene.peer.rcv_nxt += 40
        scene.peer.send("A")


def test_nagle_does_not_hold_the_fin_or_what_comes_with_it() -> None:
    with established() as scene:
        scene.send(b"first")
        scene.peer.expect("A", payload=b"first")
        scene.conn.send(b"last")
        scene.conn.shutdown()
        scene.testbed.pump()
        scene.peer.expect("FPA", seq=6, payload=b"last")


def test_nodelay_sends_at_once() -> None:
    with established() as scene:
        scene.conn.nodelay = True
        for index in range(5):
            scene.send(b"tiny")
            scene.peer.expect("PA", seq=1 + 4 * index, payload=b"tiny")


def test_nodelay_releases_what_was_held() -> None:
    with established() as scene:
        scene.send(b"first")
        scene.send(b"second")
        scene.peer.expect("A", payload=b"first")
        scene.peer.expect_nothing()
        scene.conn.nodelay = True
        scene.testbed.pump()
        scene.peer.expect("A", seq=6, payload=b"second")


# ---------------------------------------------------------------- silly window, sender (MUST-38)


def test_sender_does_not_fill_a_small_window() -> None:
    """Section 3.8.6.2.1: a full segment, or half of the largest window, or all there is.

    Else wait for the override timer: 200 ms, where rule (4) has 0.1 to 1 s. What goes then fills the window.
    """
    with established(wnd=20_000) as scene:
        scene.send(bytes(14_600))
        scene.peer.catch_up()
        scene.peer.wnd = 300
        scene.peer.send("A")
        scene.send(bytes(5000))
        scene.peer.expect_after(200 * MILLISECOND, "A", seq=14_601, payload=length(300))
        scene.abort()


@pytest.mark.parametrize("wnd", [1, 10, 300, 1459])
def test_the_override_timer_sends_one_segment_into_a_small_window(wnd: int) -> None:
    """Section 3.8.6.2.1 rule (4), after 0.1 to 1 s: ours is 200 ms. No probe of one byte comes before it."""
    with established(wnd=20_000) as scene:
        scene.send(bytes(14_600))
        scene.peer.catch_up()
        scene.peer.wnd = wnd
        scene.peer.send("A")
        scene.send(bytes(3 * wnd + 4000))
        for _ in range(3):
            scene.peer.expect_after(200 * MILLISECOND, "A", payload=length(wnd))
            scene.peer.expect_nothing()
            scene.peer.send("A")
        counted = scene.testbed.counted()
        assert counted["window_overrides"] == 3
        assert counted.get("window_probes_out", 0) == 0
        scene.abort()


def test_a_window_that_closes_under_the_override_timer_is_probed_after_an_rto() -> None:
    """SHLD-29: the first probe when the window has been closed for the RTO."""
    with established(wnd=20_000) as scene:
        scene.send(bytes(14_600))
        scene.peer.catch_up()
        scene.peer.send("A", wnd=300)
        scene.send(bytes(5000))
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("A", wnd=0)
        scene.peer.expect_after(scene.info()["rto_ns"], "A", payload=length(1))
        assert scene.testbed.counted()["window_probes_out"] == 1
        scene.abort()


def test_a_window_that_opens_a_little_after_it_was_closed_has_the_override_timer() -> None:
    with established(wnd=20_000) as scene:
        scene.send(bytes(14_600))
        scene.peer.catch_up()
        scene.peer.send("A", wnd=0)
        scene.send(bytes(5000))
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("A", wnd=300)
        scene.peer.expect_after(200 * MILLISECOND, "A", payload=length(300))
        scene.abort()


def test_an_override_that_is_not_acknowledged_is_sent_again_as_data() -> None:
    with established(wnd=20_000) as scene:
        scene.send(bytes(14_600))
        scene.peer.catch_up()
        scene.peer.send("A", wnd=300)
        scene.send(bytes(5000))
        scene.peer.wait(SECOND)
        scene.peer.expect("A", payload=length(300))
        scene.peer.wait(5 * SECOND)
        scene.peer.expect("A", seq=14_601, payload=length(300))
        assert scene.testbed.counted()["retransmit_timeouts"] == 1
        scene.abort()


def test_sender_fills_half_of_the_largest_window() -> None:
    """Else a peer whose largest window is smaller than a segment would get nothing."""
    with established(wnd=1000) as scene:
        scene.send(bytes(3000))
        scene.peer.expect("A", seq=1, payload=length(1000))
        scene.peer.send("A", wnd=500)
        scene.peer.expect("A", seq=1001, payload=length(500))
        scene.peer.expect_nothing()
        scene.abort()


def test_sender_never_passes_the_right_edge() -> None:
    with established(wnd=3000, initial_window_segments=40) as scene:
        scene.send(bytes(100_000))
        sent = 0
        for _ in range(30):
            for segment in scene.peer.drain():
                seq, _ = scene.peer.relative(segment)
                sent = max(sent, seq + len(segment.payload))
                assert sent <= scene.peer.rcv_nxt + 3000
            scene.peer.rcv_nxt = sent
            scene.peer.send("A")
        scene.abort()


def test_an_ack_that_advances_sets_the_window_from_a_segment_before_the_last() -> None:
    """Section 3.10.7.4 compares SEG.SEQ with SND.WL1; here the segment is old by that, and its ACK is new: what fills
    a hole, sent again after what lies beyond it."""
    with established(wnd=5000) as scene:
        peer = scene.peer
        peer.send("A", seq=6, payload=b"second")
        peer.drain()
        scene.send(bytes(20_000))
        sent = sum(len(segment.payload) for segment in peer.drain())
        assert sent == 3 * 1460
        # Nobody reads: the edge stays at 1 + 5000.
        peer.send("A", seq=1, payload=b"first", ack=1 + 2 * 1460, wnd=5000 - 2 * 1460)
        assert scene.info()["snd_wnd"] == 5000 - 2 * 1460
        assert all(peer.relative(segment)[0] + len(segment.payload) <= 1 + 5000 for segment in peer.drain())
        scene.abort()


# ---------------------------------------------------------------- silly window, receiver (MUST-39, SHLD-14)


def test_receiver_does_not_advertise_small_steps() -> None:
    """Section 3.8.6.2.2: the edge moves by a full segment at least, or by half of the buffer if that is less."""
    with established(rcv_buffer_bytes=16384) as scene:
        window = scene.info()["rcv_wnd"]
        edge = scene.peer.snd_nxt + window
        while scene.peer.snd_nxt < edge:
            scene.peer.send("A", payload=b"x" * min(1460, edge - scene.peer.snd_nxt))
        scene.testbed.advance(SECOND)
        last = scene.peer.drain()[-1]
        assert scene.peer.relative(last)[1] + last.wnd == edge
        for _ in range(20):
            assert len(scene.conn.receive(10)) == 10
            scene.testbed.pump()
        scene.peer.expect_nothing()


def test_receiver_announces_a_window_that_opens() -> None:
    """The peer sends nothing before its persist timer expires, so an ACK tells it as soon as the reader made room."""
    with established(rcv_buffer_bytes=16384) as scene:
        edge = scene.peer.snd_nxt + scene.info()["rcv_wnd"]
        while scene.peer.snd_nxt < edge:
            scene.peer.send("A", payload=b"x" * min(1460, edge - scene.peer.snd_nxt))
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.read()
        scene.testbed.pump()
        scene.peer.expect("A", seq=1, ack=scene.peer.snd_nxt, wnd=16384)
        scene.peer.expect_nothing()


def test_receiver_never_moves_the_right_edge_back() -> None:
    """SHLD-14."""
    with established(rcv_buffer_bytes=32768) as scene:
        edge = 1 + scene.info()["rcv_wnd"]
        sizes = [1, 1460, 700, 3, 1460, 1460, 10, 1460, 1000, 1460]
        for index, size in enumerate(sizes * 2):
            scene.peer.send("A", payload=bytes(size))
            scene.testbed.advance(500 * MILLISECOND)
            for segment in scene.peer.drain():
                right = scene.peer.relative(segment)[1] + segment.wnd
                assert right >= edge
                edge = right
            if index % 3 == 0:
                scene.conn.receive(size)


# ---------------------------------------------------------------- lending


def test_lent_buffer_comes_back_with_the_ack() -> None:
    data = b"lend me" * 1000
    before = sys.getrefcount(data)
    with established() as scene:
        scene.conn.nodelay = True
        scene.send(data)
        assert sys.getrefcount(data) > before
        assert scene.testbed.stack.leaks()["lent"] == 1
        scene.peer.catch_up()
        scene.peer.send("A", ack=6999)
        assert sys.getrefcount(data) > before
        scene.peer.send("A", ack=7001)
        assert sys.getrefcount(data) == before
        assert scene.testbed.stack.leaks()["lent"] == 0


@pytest.mark.parametrize("how", ["reset", "abort", "timeout", "close_stack"])
def test_lent_buffer_comes_back_when_the_connection_ends(how: str) -> None:
    data = b"lend me" * 1000
    before = sys.getrefcount(data)
    with established() as scene:
        scene.send(data)
        if how == "reset":
            scene.peer.send("R")
        elif how == "abort":
            scene.abort()
        elif how == "timeout":
            scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        else:
            scene.testbed.stack.close()
        assert sys.getrefcount(data) == before


def test_retransmission_reads_the_same_object() -> None:
    """Nothing is copied. The test changes the lent buffer, which an application must not do: the new bytes are sent."""
    data = bytearray(b"before")
    with established() as scene:
        scene.send(data)
        scene.peer.expect("A", payload=b"before")
        data[:] = b"after!"
        scene.peer.wait(5 * SECOND)
        scene.peer.expect("A", seq=1, payload=b"after!")
        scene.peer.send("A", ack=7)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_lent(kind: type) -> None:
    with established() as scene:
        scene.send(kind(b"hello"))
        scene.peer.expect("A", payload=b"hello")
        scene.peer.send("A")


def test_segments_cross_the_borders_of_lent_pieces() -> None:
    with established() as scene:
        parts = [bytes([65 + index]) * (100 + 37 * index) for index in range(20)]
        for part in parts:
            scene.conn.send(part)
        scene.testbed.pump()
        sizes = [len(segment.payload) for segment in scene.peer.queue]
        got = scene.peer.catch_up()
        while len(got) < sum(map(len, parts)):
            scene.peer.send("A")
            got += scene.peer.catch_up()
        assert got == b"".join(parts)
        assert sizes[0] == 1460


# A queue of many small pieces: finding what to send is no walk. Counted, not timed: pieces passed over.


def queued(pieces: int, octets: int = 10, **config: Any) -> Scene:
    """A connection with that many pieces of data in its send queue; the initial window of them is sent."""
    scene = established(wnd=65535, **config)
    for index in range(pieces):
        scene.conn.send(bytes([index & 0xFF]) * octets)
    scene.testbed.mark()
    scene.testbed.pump()
    return scene


def walked(scene: Scene) -> tuple[int, int]:
    """Pieces passed over, and segments sent, since the mark."""
    counted = scene.testbed.counted()
    return counted.get("send_pieces_skipped", 0), counted["segments_out"]


def acknowledge(scene: Scene) -> None:
    """The peer takes what is in order and nothing else: new data that F-RTO sends after a timeout (RFC 5682 section 2.1
    step 2b) is lost to it, and comes again with another one."""
    scene.peer.send("A")
    if not scene.peer.queue:
        scene.peer.wait(5 * SECOND)


def expected(pieces: int, octets: int = 10) -> bytes:
    return b"".join(bytes([index & 0xFF]) * octets for index in range(pieces))


def test_a_segment_from_a_long_queue_of_pieces_costs_no_walk() -> None:
    with queued(5000) as scene:
        got = scene.peer.catch_up()
        while len(got) < 50_000:
            acknowledge(scene)
            got += scene.peer.catch_up()
        assert got == expected(5000)
        skipped, segments = walked(scene)
        assert segments >= 34
        assert skipped <= segments
        scene.peer.send("A")


def test_a_long_queue_of_pieces_costs_no_walk_after_a_timeout_either() -> None:
    with queued(5000, initial_window_segments=30) as scene:
        lost = scene.peer.drain()
        assert len(lost) >= 30
        scene.peer.wait(5 * SECOND)
        got = scene.peer.catch_up()
        while len(got) < 50_000:
            acknowledge(scene)
            got += scene.peer.catch_up()
        assert got == expected(5000)
        skipped, segments = walked(scene)
        assert skipped <= segments
        scene.peer.send("A")


def test_fast_retransmits_leave_the_cursor_where_new_data_begins() -> None:
    with queued(6000, initial_window_segments=30) as scene:
        arrived = {scene.peer.relative(segment)[0]: segment.payload for segment in scene.peer.drain()}
        first = arrived.pop(1)
        for _ in range(12):  # each lets one more segment go
            scene.peer.send("A", ack=1)
            for segment in scene.peer.drain():
                arrived[scene.peer.relative(segment)[0]] = segment.payload
        assert arrived.pop(1) == first
        skipped, segments = walked(scene)
        assert skipped <= segments
        for seq, payload in arrived.items():
            assert payload == expected(6000)[seq - 1 : seq - 1 + len(payload)]
        scene.abort()


def test_an_ack_inside_a_piece_and_beyond_the_cursor_finds_the_next_byte() -> None:
    """After a timeout the peer turns out to have half of it: what is lost begins within a piece."""
    with queued(3000, initial_window_segments=20) as scene:
        scene.peer.drain()
        scene.peer.wait(5 * SECOND)
        scene.peer.drain()
        scene.peer.rcv_nxt = 1 + 14_605
        scene.peer.send("A")
        got = scene.peer.catch_up()
        while len(got) < 30_000 - 14_605:
            acknowledge(scene)
            got += scene.peer.catch_up()
        assert got == expected(3000)[14_605:]
        skipped, segments = walked(scene)
        assert skipped <= segments
        scene.peer.send("A")


def test_partial_ack_inside_a_piece_is_resent_from_there() -> None:
    with established() as scene:
        scene.send(bytes(range(200)))
        scene.peer.drain()
        scene.peer.send("A", ack=51)
        scene.peer.wait(5 * SECOND)
        scene.peer.expect("A", seq=51, payload=bytes(range(50, 200)))


def test_send_queue_is_bounded() -> None:
    with established(snd_queue_bytes=10_000) as scene:
        scene.conn.nodelay = True
        assert scene.conn.send(bytes(12_000)) == 10_000
        assert scene.conn.send(b"one too many") == 0
        scene.testbed.pump()
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.conn.send(bytes(12_000)) == 10_000


# ---------------------------------------------------------------- path MTU (RFC 1191, RFC 5927)


def in_flight(scene: Scene, octets: int = 4380) -> None:
    """Some full segments on the way."""
    scene.send(bytes(octets))
    scene.peer.drain()


def test_fragmentation_needed_lowers_the_segment_size_and_resends() -> None:
    """At once: RFC 1191 section 6.4 has the sender not wait for the retransmission timer."""
    with established() as scene:
        in_flight(scene)
        scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=1, payload=bytes(1460)), mtu=1000)
        assert scene.info()["smss"] == 960
        scene.peer.expect("A", seq=1, payload=length(960))
        scene.peer.send("A")
        scene.testbed.run_until(lambda: data_of(scene) >= 4380, 60 * SECOND)


def data_of(scene: Scene) -> int:
    """Acknowledge what came, as a peer would; returns the in-order bytes so far."""
    if scene.peer.queue:
        for segment in list(scene.peer.queue):
            assert len(segment.payload) <= 960
        scene.peer.catch_up()
        scene.peer.send("A")
    return scene.peer.rcv_nxt - 1


def test_fragmentation_needed_about_what_is_not_in_flight_is_ignored() -> None:
    with established() as scene:
        in_flight(scene)
        scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=100_000), mtu=600)
        assert scene.info()["smss"] == 1460
        assert scene.testbed.dropped() == {"drop_icmp_no_connection": 1}


@pytest.mark.parametrize("mtu", [1500, 9000, 65535])
def test_fragmentation_needed_never_raises_the_segment_size(mtu: int) -> None:
    with established() as scene:
        in_flight(scene)
        scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=1, payload=bytes(1460)), mtu=mtu)
        assert scene.info()["smss"] == 1460
        assert scene.testbed.dropped() == {"drop_icmp_path_mtu": 1}
        assert scene.state == "ESTABLISHED"


@pytest.mark.parametrize(("mtu", "smss"), [(0, 1452), (1, 1452), (40, 1452), (67, 1452), (68, 512)])
def test_fragmentation_needed_with_a_tiny_mtu_does_not_stall(mtu: int, smss: int) -> None:
    """RFC 5927 section 7: a forged MTU must not make the sender crawl to a halt.

    Below 68, the least MTU of IPv4, it is no MTU: the next lower plateau of RFC 1191 section 7 is tried (1492). From 68
    on it is believed down to 552 (512 bytes of payload), as Linux does: below, routers may fragment.
    """
    with established() as scene:
        in_flight(scene)
        scene.peer.send_icmp_error(3, 4, scene.peer.from_stack(seq=1, payload=bytes(1460)), mtu=mtu)
        assert scene.info()["smss"] == smss
        assert scene.state == "ESTABLISHED"


# ---------------------------------------------------------------- fields


def test_ttl_is_configurable() -> None:
    """MUST-49."""
    with established(ttl=17) as scene:
        scene.send(b"x")
        assert scene.peer.expect("A", payload=b"x").ttl == 17


def test_ttl_can_be_set_for_one_connection() -> None:
    """MUST-49."""
    with established() as scene:
        scene.conn.set_ttl(9)
        scene.send(b"x")
        assert scene.peer.expect("A", payload=b"x").ttl == 9


def test_diffserv_field_goes_out_unchanged_and_can_change() -> None:
    """MUST-48, SHLD-21, SHLD-22."""
    with established() as scene:
        for tos in (0xB8, 0x28, 0):
            scene.conn.set_tos(tos)
            scene.send(b"x")
            assert scene.peer.expect("A", payload=b"x").tos == tos
            scene.peer.send("A")


def test_diffserv_field_is_on_acks_and_resets_too() -> None:
    with established() as scene:
        scene.conn.set_tos(0xB8)
        scene.peer.send("A", seq=5, payload=b"x")
        assert scene.peer.expect("A", ack=1).tos == 0xB8
        scene.abort()
        assert scene.peer.expect().tos == 0xB8


def test_local_address_stays_the_same() -> None:
    """MUST-45."""
    with established() as scene:
        scene.send(bytes(5000))
        assert {segment.src for segment in scene.peer.drain()} == {scene.testbed.stack_address}


def test_dont_fragment_is_set() -> None:
    with established() as scene:
        scene.send(b"x")
        assert scene.peer.expect("A", payload=b"x").dont_fragment


def test_urgent_pointer_is_zero_without_urg() -> None:
    with established() as scene:
        scene.send(b"x")
        segment = scene.peer.expect("A", payload=b"x")
        assert segment.urgent == 0
        assert "U" not in segment.flags


def test_sequence_numbers_wrap_in_the_middle_of_a_segment() -> None:
    with established() as scene:
        data = bytes(index % 251 for index in range(5000))
        scene.conn.nodelay = True
        scene.send(data)
        first = scene.peer.queue[0]
        assert first.seq > first.end
        assert scene.peer.catch_up() == data


def test_options_are_padded_to_words_and_timestamps_lead() -> None:
    """MUST-68, MUST-69."""
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.frames.clear()
        scene.send(b"x")
        frame = scene.testbed.frames[-1]
        words = frame[46] >> 4
        assert words == 8
        assert b"\x08\x0a" in frame[54 : 34 + 4 * words]


def test_syn_options_end_in_zero_padding_only() -> None:
    with established(options=ALL_OPTIONS) as scene:
        syn_ack = next(frame for frame in scene.testbed.frames if frame[12:14] == b"\x08\x00" and frame[47] == 0x12)
        options = syn_ack[54 : 34 + 4 * (syn_ack[46] >> 4)]
        at = 0
        while at < len(options) and options[at]:
            at += 1 if options[at] == 1 else options[at + 1]
        assert not any(options[at:])

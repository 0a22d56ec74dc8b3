# SPDX-License-Identifier: MIT
"""Urgent data: RFC 9293 section 3.8.5, the sixth step of section 3.10.7.4, and the URGENT flag of SEND.

Told is what on_urgent was called for: how much was still to be read, each time.
"""

import socket

import pytest

from ustack.testing.pair import Pair
from ustack.testing.peer import ANY, ScriptedPeer, length
from ustack.testing.recorder import Recorder
from ustack.testing.states import ALL_OPTIONS, Scene, close_wait, established, fin_wait_1, fin_wait_2, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

MSS = 1460
PEER_PORT = 40000
MOST = 65535
URGENT, URGENT_UNREAD = 21, 22  # conn_option_t


class Told:
    """A connection of an application that is told, and its peer."""

    def __init__(self, *, consume: int | None = None, **config: object) -> None:
        self.bed = Testbed(**config)  # type: ignore[arg-type]
        self.bed.introduce()
        self.application = Recorder()
        self.application.consume = consume
        self.bed.stack.listen(80, application=self.application)
        self.peer = ScriptedPeer(self.bed, port=PEER_PORT)
        self.peer.isn = 0xFFFFFFFF - 3  # the pointers pass zero
        self.peer.send("S", options={"mss": MSS})
        self.peer.expect("SA")
        self.peer.send("A")
        self.application.clear()
        self.bed.mark()

    @property
    def tellings(self) -> list[int]:
        """Bytes to be read, of each on_urgent."""
        return [entry[2] for entry in self.application.log if entry[0] == "urgent"]

    @property
    def unread(self) -> int:
        """Urgent bytes that are still to be read."""
        rows = [row for row in self.bed.stack.connections() if row["kind"] == "connection"]
        return int(rows[0]["urgent_bytes"])

    def read(self, size: int = 1 << 20) -> bytes:
        """What waits in the receive queue."""
        return self.application.read(PEER_PORT, size)

    @property
    def records(self) -> int:
        """Records of urgent data in use."""
        return self.bed.stack.leaks()["urgents"]

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *exc: object) -> None:
        self.application.on("closed")
        for port in self.application.ports:
            self.application.act(port, "abort")
        self.bed.pump()
        assert self.application.errors == []
        assert self.records == 0
        self.bed.__exit__(*exc)  # type: ignore[arg-type]


class Opening:
    """An application that opens a connection; the peer has its SYN."""

    def __init__(self) -> None:
        self.bed = Testbed()
        self.bed.introduce()
        self.application = Recorder()
        self.bed.stack.listen(80, application=self.application)
        self.peer = ScriptedPeer(self.bed, port=7777, stack_port=None)
        self.application.connect(self.peer.address, 7777)
        self.bed.pump()
        assert self.peer.expect("S").urgent == 0

    @property
    def records(self) -> int:
        """Records of urgent data in use."""
        return self.bed.stack.leaks()["urgents"]

    def __enter__(self) -> "Opening":
        return self

    def __exit__(self, *exc: object) -> None:
        for port in self.application.ports:
            self.application.act(port, "abort")
        self.bed.pump()
        assert self.application.errors == []
        assert self.records == 0
        self.bed.__exit__(*exc)  # type: ignore[arg-type]


# ---------------------------------------------------------------- told


def test_a_pointer_is_told_before_its_data() -> None:
    """MUST-32, MUST-33. The bytes that on_data is about to be handed are to be read still."""
    with Told() as told:
        told.peer.send("UPA", payload=b"hello!", urgent=6)
        assert told.application.log == [
            *[entry for entry in told.application.log if entry[0].startswith("burst_begin")],
            ("urgent", PEER_PORT, 6),
            ("data", PEER_PORT, b"hello!"),
            *[entry for entry in told.application.log if entry[0].startswith("burst_end")],
        ]
        assert told.unread == 0


def test_the_pointer_names_the_byte_behind_the_urgent_data() -> None:
    """MUST-62, as a receiver: of "hello!" five bytes are urgent, and the sixth is not."""
    with Told(consume=0) as told:
        told.peer.send("UPA", payload=b"hello!", urgent=5)
        assert (told.tellings, told.unread) == ([5], 5)
        assert told.read(4) == b"hell"
        assert told.unread == 1
        assert told.read(1) == b"o"
        assert told.unread == 0
        assert told.read() == b"!"


def test_what_on_data_is_handed_is_unread_until_it_returns() -> None:
    """Also while it looks: a program that reads a chunk can tell where in it the urgent part ends."""
    with Told() as told:
        seen: list[int] = []
        told.application.on("data", (lambda port: seen.append(told.application.option(port, URGENT_UNREAD)), None))
        told.peer.send("UPA", payload=b"hello!", urgent=4)
        told.peer.send("UPA", payload=b"again", urgent=9)
        told.peer.send("PA", payload=b"xy")
        assert seen == [4, 9, 4]
        assert told.unread == 2


def test_a_pointer_ahead_of_the_data_is_told_at_once() -> None:
    """Section 3.8.5: the point may lie ahead of RCV.NXT. What has not come yet is to be read, too."""
    with Told() as told:
        told.peer.send("UA", payload=b"ab", urgent=1000)
        assert (told.tellings, told.unread) == ([1000], 998)
        told.peer.send("A", payload=bytes(997))
        assert told.unread == 1
        told.peer.send("A", payload=b"!?")
        assert (told.tellings, told.unread) == ([1000], 0)


def test_a_pure_ack_tells() -> None:
    with Told() as told:
        told.peer.send("UA", urgent=10)
        assert (told.tellings, told.unread) == ([10], 10)
        assert told.bed.dropped() == {}


def test_the_same_pointer_again_is_no_news() -> None:
    """Every segment of urgent data has it, and so have retransmissions."""
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=6)
        told.peer.send("UA", payload=b"def", urgent=3)
        told.peer.send("UA", seq=1, payload=b"abcdef", urgent=6)
        assert (told.tellings, told.unread) == ([6], 6)


def test_a_pointer_that_advances_before_a_read_is_told_again() -> None:
    """MUST-32: "or whenever the urgent pointer advances in the data stream"."""
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=3)
        told.peer.send("UA", payload=b"def", urgent=3)
        assert (told.tellings, told.unread) == ([3, 6], 6)
        assert told.read() == b"abcdef"


def test_new_urgent_data_after_the_last_was_read_is_told() -> None:
    with Told() as told:
        told.peer.send("UPA", payload=b"abc", urgent=3)
        told.peer.send("PA", payload=b"def")
        told.peer.send("UPA", payload=b"ghi", urgent=3)
        assert told.tellings == [3, 3]


def test_a_pointer_never_recedes() -> None:
    """Section 3.8.5: it "cannot 'recede' in the sequence space". RCV.UP is the largest that has come."""
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=100)
        told.peer.send("UA", payload=b"def", urgent=2)
        assert (told.tellings, told.unread) == ([100], 100)


@pytest.mark.parametrize("urgent", [0, 1, 5])
def test_a_pointer_into_what_was_read_is_nothing(urgent: int) -> None:
    """A segment that overlaps what was read, and a pointer of zero, which names no byte."""
    with Told() as told:
        told.peer.send("A", payload=b"hello")
        told.peer.send("UA", seq=1, payload=b"hello world"[:6], urgent=urgent)
        assert (told.tellings, told.unread, told.records) == ([], 0, 0)
        assert told.application.received[PEER_PORT] == b"hello "


def test_a_pointer_into_what_waits_to_be_read_is_told() -> None:
    with Told(consume=0) as told:
        told.peer.send("A", payload=b"hello")
        told.peer.send("UA", seq=2, payload=b"ello!", urgent=2)
        assert (told.tellings, told.unread) == ([3], 3)


def test_a_pointer_beyond_the_window_is_taken_and_bounded() -> None:
    """A sender whose window is closed has one. It is at most 65,535 bytes behind its segment, and one record."""
    with Told(rcv_buffer_bytes=4096, rcv_buffer_max_bytes=4096) as told:
        told.peer.send("UA", urgent=MOST)
        assert (told.tellings, told.unread, told.records) == ([MOST], MOST, 1)
        told.peer.send("UA", seq=1 + 4096, urgent=MOST)  # the edge itself is as far as a segment can be
        assert (told.unread, told.records) == (MOST + 4096, 1)
        told.peer.send("UA", seq=1 + 4097, urgent=MOST)
        assert told.unread == MOST + 4096
        assert told.bed.dropped() == {"drop_tcp_sequence": 1}


def test_the_pointer_of_a_refused_segment_is_not_looked_at() -> None:
    """Before RCV.NXT, an ACK of what was never sent, without an ACK: the sixth step comes after the others."""
    with Told() as told:
        told.peer.send("A", payload=b"hello")
        told.peer.send("UA", seq=1, payload=b"he", urgent=1000)
        told.peer.send("UA", ack=1000, urgent=1000)
        told.peer.send("U", urgent=1000)
        assert (told.tellings, told.records) == ([], 0)


def test_a_window_of_zero_does_not_keep_urgent_data_secret() -> None:
    """MUST-66: URG is processed, with text that there is no room for and without."""
    with Told(consume=0, rcv_buffer_bytes=4096, rcv_buffer_max_bytes=4096) as told:
        while told.peer.snd_nxt < 4096:
            told.peer.send("A", payload=bytes(min(1000, 4097 - told.peer.snd_nxt)))
        assert told.peer.drain()[-1].wnd == 0
        told.peer.send("UA", urgent=7)
        assert (told.tellings, told.unread) == ([4096 + 7], 4096 + 7)
        told.peer.send("UA", seq=told.peer.snd_nxt, payload=b"x", urgent=8)
        assert told.tellings == [4096 + 7, 4096 + 8]
        assert told.read() == bytes(4096)
        assert told.unread == 8


def test_nothing_lies_behind_a_fin() -> None:
    """A pointer beyond it means all that comes before it."""
    with Told(consume=0) as told:
        told.peer.send("UFA", payload=b"bye", urgent=1000)
        assert (told.tellings, told.unread) == ([3], 3)
        assert told.read() == b"bye"
        assert told.unread == 0


def test_a_fin_ends_what_a_pointer_has_promised() -> None:
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=1000)
        assert told.unread == 1000
        told.peer.send("FA", payload=b"de")
        assert (told.tellings, told.unread) == ([1000], 5)
        assert told.read() == b"abcde"
        assert told.unread == 0


def test_a_fin_beyond_a_hole_bounds_its_pointer_too() -> None:
    with Told() as told:
        told.peer.send("UFA", seq=4, payload=b"def", urgent=1000)
        assert (told.tellings, told.unread) == ([6], 6)
        told.peer.send("A", seq=1, payload=b"abc")
        assert told.unread == 0


def test_urg_of_a_fin_alone_is_nothing() -> None:
    with Told() as told:
        told.peer.send("UFA", urgent=1)
        assert (told.tellings, told.records) == ([], 0)


def test_urg_after_the_fin_is_ignored() -> None:
    """Section 3.10.7.4: "Ignore the URG" in CLOSE-WAIT, CLOSING, LAST-ACK and TIME-WAIT."""
    with close_wait() as scene:
        scene.peer.send("UA", urgent=10)
        assert scene.conn.urgent_bytes == 0
        assert scene.testbed.stack.leaks()["urgents"] == 0


@pytest.mark.parametrize("state", [fin_wait_1, fin_wait_2], ids=["FIN-WAIT-1", "FIN-WAIT-2"])
def test_urgent_data_comes_while_only_we_have_finished(state: object) -> None:
    with state() as scene:  # type: ignore[operator]
        scene.peer.send("UA", payload=b"abc", urgent=3)
        assert scene.conn.urgent_bytes == 3
        assert scene.read() == b"abc"


def test_a_program_that_has_closed_is_not_told() -> None:
    with fin_wait_1(how="close") as scene:
        scene.peer.send("UA", urgent=3)
        assert scene.testbed.stack.leaks()["urgents"] == 0
        scene.peer.send("R")


def test_urg_on_a_syn_is_nothing_and_on_the_ack_of_a_handshake_is_told_after_accept() -> None:
    """A SYN's text is dropped with it: it comes again, and so does the pointer."""
    with Told() as told:
        peer = ScriptedPeer(told.bed, port=PEER_PORT + 1)
        peer.send("SU", options={"mss": MSS}, urgent=100)
        peer.expect("SA", urgent=0)
        assert told.records == 0
        peer.send("UA", payload=b"now", urgent=3)
        assert [entry[0] for entry in told.application.log if entry[1] == PEER_PORT + 1] == ["accept", "urgent", "data"]


def test_urg_on_a_syn_ack_counts_from_its_syn() -> None:
    """Section 3.10.7.3: "continue processing at the sixth step"."""
    with syn_sent() as scene:
        scene.peer.send("SUA", options={"mss": MSS}, payload=b"abcd", urgent=4)
        scene.peer.expect("A", ack=5)
        assert scene.conn.urgent_bytes == 3
        assert scene.conn.receive(100, timeout=0) == b"abc"
        assert scene.read() == b"d"


def test_at_a_simultaneous_open_the_pointer_of_the_syn_ack_counts_from_its_syn() -> None:
    with syn_sent() as scene:
        scene.peer.send("S", options={"mss": MSS})
        scene.peer.expect("SA")
        scene.peer.send("SUA", seq=0, payload=b"abcd", urgent=4)
        assert scene.state == "ESTABLISHED"
        assert scene.conn.urgent_bytes == 3
        assert scene.conn.receive(100, timeout=0) == b"abc"


@pytest.mark.parametrize("urgent", [4, 5, 1000])
def test_the_fin_of_a_syn_ack_bounds_its_pointer_behind_the_text(urgent: int) -> None:
    """The SYN takes a number of its own: the text of three bytes ends at the fourth."""
    with syn_sent() as scene:
        scene.peer.send("SFUA", options={"mss": MSS}, payload=b"abc", urgent=urgent)
        assert scene.state == "CLOSE-WAIT"
        assert scene.conn.urgent_bytes == 3
        assert scene.read() == b"abc"
        assert scene.conn.urgent_bytes == 0


def test_at_a_simultaneous_open_the_pointer_of_the_syn_waits_with_its_text() -> None:
    """Section 3.10.7.3: "other controls or text [...] queue them for processing after the ESTABLISHED state"."""
    with syn_sent() as scene:
        scene.peer.send("SU", options={"mss": MSS}, payload=b"abcd", urgent=4)
        scene.peer.expect("SA", ack=5)
        assert scene.state == "SYN-RECEIVED"
        assert not scene.conn.established
        scene.peer.send("SA", seq=0)
        assert scene.state == "ESTABLISHED"
        assert scene.conn.urgent_bytes == 3
        assert scene.conn.receive(100, timeout=0) == b"abc"
        assert scene.read() == b"d"


def test_a_pointer_that_the_syn_ack_of_a_simultaneous_open_repeats_is_no_news() -> None:
    with Opening() as opening:
        opening.application.consume = 0
        opening.peer.send("SU", options={"mss": MSS}, payload=b"abc", urgent=4)
        opening.peer.expect("SA")
        opening.peer.send("SUA", seq=0, payload=b"abc", urgent=4)
        told = [entry[2] for entry in opening.application.log if entry[0] == "urgent"]
        assert (told, opening.application.option(7777, URGENT_UNREAD)) == ([3], 3)
        assert opening.application.names() == ["connected", "urgent", "data"]


def test_a_simultaneous_open_that_is_reset_tells_nobody_of_its_pointer() -> None:
    with Opening() as opening:
        opening.peer.send("SU", options={"mss": MSS}, payload=b"abc", urgent=4)
        opening.peer.expect("SA")
        assert opening.records == 1
        opening.peer.send("R")
        assert opening.application.names() == ["closed"]
        assert opening.records == 0


def test_what_on_accept_has_read_is_not_told() -> None:
    """A pointer that has come before is news until it is read."""
    with Opening() as opening:
        opening.application.on("connected", lambda port: opening.application.read(port, 3))
        opening.peer.send("SU", options={"mss": MSS}, payload=b"abc", urgent=4)
        opening.peer.expect("SA")
        opening.peer.send("A")
        assert opening.application.names() == ["connected"]
        opening.application.on("connected")
        opening.peer.send("UA", payload=b"d", urgent=1)
        assert opening.application.names() == ["connected", "urgent", "data"]


def test_data_out_of_order_brings_its_pointer_before_it_can_be_read() -> None:
    with Told() as told:
        told.peer.send("UA", seq=4, payload=b"def", urgent=3)
        assert (told.tellings, told.application.received) == ([6], {})
        told.peer.send("A", seq=1, payload=b"abc")
        assert (told.application.received[PEER_PORT], told.unread) == (b"abcdef", 0)


def test_marks_and_urgent_data_are_both_heard() -> None:
    """One segment may say both (RFC 3168): neither hides the other."""
    with established(ecn=2, options=ALL_OPTIONS) as scene:
        scene.peer.send("UAE", payload=b"abc", urgent=3)
        assert scene.conn.urgent_bytes == 3
        assert scene.read() == b"abc"


def test_the_record_goes_with_the_next_segment_after_it_was_read() -> None:
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=3)
        assert told.records == 1
        assert told.read() == b"abc"
        told.bed.advance(SECOND)  # the delayed ACK
        assert told.records == 0


def test_a_connection_that_ends_gives_its_record_back() -> None:
    with Told(consume=0) as told:
        told.peer.send("UA", payload=b"abc", urgent=100)
        assert told.records == 1
        told.peer.send("R")
        assert (told.records, told.application.names()[-1]) == (0, "closed")


def test_without_room_for_a_record_nobody_is_told_and_all_is_read() -> None:
    """A bound for what peers can have us keep: the bytes are in line, and the pointer is counted."""
    with Told(extra_records=0) as told:
        told.peer.send("UPA", payload=b"hello", urgent=5)
        assert (told.tellings, told.application.received[PEER_PORT]) == ([], b"hello")
        assert told.bed.counted()["urgent_no_record"] == 1
        told.peer.drain()
        told.application.act(PEER_PORT, ("send", b"x"))
        assert told.application.act(PEER_PORT, "urgent") == -2
        told.bed.pump()
        assert told.peer.expect("A", payload=b"x").urgent == 0


def test_on_accept_knows_of_the_urgent_data_that_came_with_the_handshake() -> None:
    """It is unread then, though RCV.NXT counts it: the frame is still in the stack's hands."""
    with Told() as told:
        seen: list[int] = []
        told.application.on("accept", lambda port: seen.append(told.application.option(port, URGENT_UNREAD)))
        peer = ScriptedPeer(told.bed, port=PEER_PORT + 1)
        peer.send("S", options={"mss": MSS})
        peer.expect("SA")
        peer.send("UA", payload=b"now!", urgent=3)
        assert (seen, told.tellings) == ([3], [3])


def test_an_application_that_does_not_want_to_know_is_not_told() -> None:
    """What Connection does without on_urgent: nothing is called, urgent_bytes can be asked for."""
    with established() as scene:
        scene.peer.send("UA", payload=b"abc", urgent=3)
        assert scene.conn.urgent_bytes == 3
        assert scene.conn.on_urgent is None
        assert scene.read() == b"abc"
        assert scene.conn.urgent_bytes == 0


def test_on_urgent_may_close_and_abort() -> None:
    for action in ("close", "abort"):
        with Told() as told:
            told.application.on("urgent", action)
            told.peer.send("UPA", payload=b"abc", urgent=3)
            told.peer.expect("RA")
            assert told.application.names() == ["urgent", "closed"]


# ---------------------------------------------------------------- sent


def send_urgent(scene: Scene, data: bytes) -> None:
    assert scene.conn.send(data, flags=socket.MSG_OOB) == len(data)
    scene.testbed.pump()


def test_the_pointer_that_is_sent_names_the_byte_behind() -> None:
    """MUST-62."""
    with established() as scene:
        send_urgent(scene, b"stop!")
        scene.peer.expect("UA", seq=1, payload=b"stop!", urgent=5)
        scene.peer.expect_nothing()
        scene.peer.send("A")
        scene.send(b"and on")
        scene.peer.expect("A", seq=6, payload=b"and on", urgent=0)
        scene.peer.send("A")


def test_each_segment_has_the_pointer_as_it_lies_from_there() -> None:
    """MUST-31: a sequence of any length; what follows it has none."""
    with established() as scene:
        send_urgent(scene, bytes(3 * MSS + 100))
        for at in range(3):
            scene.peer.expect("UA", seq=1 + at * MSS, payload=length(MSS), urgent=3 * MSS + 100 - at * MSS)
        scene.peer.expect("UA", seq=1 + 3 * MSS, payload=length(100), urgent=100)
        scene.send(b"plain")
        scene.peer.expect("A", payload=b"plain", urgent=0)
        scene.peer.send("A")


def test_what_was_queued_before_is_urgent_with_it() -> None:
    """It has to be read first."""
    with established() as scene:
        scene.conn.send(b"before ", flags=socket.MSG_MORE)
        send_urgent(scene, b"now")
        scene.peer.expect("UA", seq=1, payload=b"before now", urgent=10)
        scene.peer.send("A")


def test_more_than_the_field_holds_is_told_as_far_as_it_goes() -> None:
    """MUST-31: the pointer says 65,535, and moves on with the segments. It never says more than there is."""
    total = 100_000
    with established(options=ALL_OPTIONS, wnd=8192, snd_queue_bytes=1 << 20) as scene:
        send_urgent(scene, bytes(total))
        received = 0
        while received < total:
            scene.testbed.pump()
            for segment in scene.peer.drain():
                at = (segment.seq - (scene.peer.iss or 0)) & 0xFFFFFFFF
                assert "U" in segment.flags
                assert segment.urgent == min(1 + total - at, MOST)
                assert len(segment.payload) <= MSS
                received = max(received, at - 1 + len(segment.payload))
            scene.peer.rcv_nxt = 1 + received
            scene.peer.send("A")
        scene.send(b"x")
        assert scene.peer.expect(payload=b"x").urgent == 0
        scene.peer.rcv_nxt = 2 + total
        scene.peer.send("A")
        assert scene.testbed.stack.leaks()["urgents"] == 0


def test_what_is_sent_again_has_its_pointer_again() -> None:
    with established() as scene:
        send_urgent(scene, bytes(MSS + 10))
        scene.peer.expect("UA", seq=1, payload=length(MSS), urgent=MSS + 10)
        scene.peer.expect("UA", seq=1 + MSS, payload=length(10), urgent=10)
        scene.peer.wait(10 * SECOND)
        first = scene.peer.expect("UA", payload=ANY)
        at = (first.seq - (scene.peer.iss or 0)) & 0xFFFFFFFF
        assert first.urgent == MSS + 11 - at
        scene.peer.send("A", ack=1 + MSS + 10)


def test_what_is_sent_again_behind_urgent_data_has_none() -> None:
    with established() as scene:
        send_urgent(scene, b"now")
        scene.peer.expect("UA", payload=b"now", urgent=3)
        scene.peer.send("A")
        scene.send(b"later")
        scene.peer.expect("A", payload=b"later", urgent=0)
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("A", payload=b"later", urgent=0)
        scene.peer.send("A")


def test_acks_say_it_while_some_waits() -> None:
    """Section 3.8.5: the absence of URG "indicates that there is no urgent data outstanding"."""
    with established(wnd=0) as scene:
        scene.conn.send(b"now", flags=socket.MSG_OOB)
        scene.testbed.pump()
        scene.peer.expect("UA", seq=1, urgent=3)
        scene.peer.send("A", payload=b"question")
        scene.testbed.advance(SECOND // 2)
        scene.peer.expect("UA", seq=1, ack=9, urgent=3)
        assert scene.read() == b"question"
        scene.abort()


def test_a_closed_window_does_not_keep_it_from_the_peer() -> None:
    """It is announced at once, by an ACK that needs no room, and each probe says it again (section 3.8.6.1)."""
    with established(wnd=0) as scene:
        send_urgent(scene, bytes(100))
        scene.peer.expect("UA", seq=1, urgent=100)
        scene.peer.expect_nothing()
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("UA", seq=1, payload=bytes(1), urgent=100)
        scene.peer.expect_nothing()
        scene.peer.wnd = 1000
        scene.peer.send("A", ack=1)
        scene.peer.expect("UA", seq=1, payload=length(100), urgent=100)
        scene.peer.send("A")


def test_probes_without_data_are_followed_by_an_ack_that_says_it() -> None:
    """They lie before the window, where nobody looks for URG."""
    with established(wnd=0, window_probe_bytes=0) as scene:
        send_urgent(scene, bytes(100))
        scene.peer.expect("UA", seq=1, urgent=100)
        scene.peer.wait(10 * SECOND)
        scene.peer.expect(seq=0)
        scene.peer.expect("UA", seq=1, urgent=100)
        scene.peer.expect_nothing()
        scene.abort()


def test_neither_nagle_nor_a_cork_holds_it_back() -> None:
    """As on Linux, which sends what is urgent at once."""
    with established() as scene:
        scene.send(b"a")
        scene.peer.expect("A", payload=b"a")
        send_urgent(scene, b"b")
        scene.peer.expect("UA", payload=b"b", urgent=1)
        scene.conn.set_option("TCP_CORK", True)
        send_urgent(scene, b"c")
        scene.peer.expect("UA", payload=b"c", urgent=1)
        scene.peer.send("A")


def test_a_device_is_given_no_urgent_data_to_cut() -> None:
    """It would copy one segment's pointer into all. Behind it super-frames go again."""
    seen: list[tuple[int, int]] = []  # data and pointer of each frame that has some

    def note(frame: bytes, _index: int) -> bool:
        if frame[12:14] == b"\x08\x00" and not frame[47] & 2 and len(frame) > 14 + 20 + 32:
            seen.append((len(frame) - 14 - 20 - 32, int.from_bytes(frame[52:54], "big") if frame[47] & 0x20 else 0))
        return True

    with Pair(network={"segmentation_offload": True, "delay_ns": MILLISECOND}, pacing=0) as pair:
        pair.network.filter_ab = note
        client, server = pair.connect()
        assert server.send(bytes(5000), flags=socket.MSG_OOB) == 5000
        pair.run_until(lambda: client.receivable_bytes == 5000, SECOND)
        assert seen == [(1448, 5000), (1448, 3552), (1448, 2104), (656, 656)]
        pair.run_until(lambda: server.unacked_bytes == 0, SECOND)
        server.send(bytes(5000))
        pair.run_until(lambda: client.receivable_bytes == 10_000, SECOND)
        assert seen[4:] == [(5000, 0)]
        assert client.urgent_bytes == 5000
        assert [len(client.receive(9000, timeout=0)) for _ in range(2)] == [5000, 5000]
        client.close()
        server.close()
        pair.run_until(pair.at_rest, 300 * SECOND)


def test_urgent_data_queued_before_the_handshake_is_urgent_after_it() -> None:
    """Section 3.10.2, SYN-SENT: "the urgent bit [...] must be sent with the data segments"; the SYN has none."""
    with Testbed() as bed:
        bed.introduce()
        application = Recorder()
        bed.stack.listen(80, application=application)
        peer = ScriptedPeer(bed, port=7777, stack_port=None)
        application.connect(peer.address, 7777)
        application.act(7777, ("send", b"hello"))
        assert application.act(7777, "urgent") == 0
        bed.pump()
        assert peer.expect("S", seq=0).urgent == 0
        peer.send("SA", options={"mss": MSS})
        peer.expect("UA", seq=1, payload=b"hello", urgent=5)
        peer.send("A")
        application.act(7777, "abort")
        bed.pump()
        assert application.errors == []


def test_nothing_queued_is_nothing_urgent() -> None:
    """ "The user must also send at least one data octet"."""
    with Told() as told:
        assert told.application.act(PEER_PORT, "urgent") == 0
        told.bed.pump()
        told.peer.expect_nothing()
        assert told.records == 0
        assert told.application.option(PEER_PORT, URGENT) == 0


def test_a_syn_alone_is_nothing_urgent() -> None:
    with Testbed() as bed:
        bed.introduce()
        application = Recorder()
        bed.stack.listen(80, application=application)
        peer = ScriptedPeer(bed, port=7777, stack_port=None)
        application.connect(peer.address, 7777)
        assert application.act(7777, "urgent") == 0
        assert application.option(7777, URGENT) == 0
        assert bed.stack.leaks()["urgents"] == 0
        application.act(7777, "abort")
        bed.pump()
        assert application.errors == []


def test_it_is_told_until_the_peer_has_it() -> None:
    with Told() as told:
        told.application.act(PEER_PORT, ("send", b"abc"))
        told.application.act(PEER_PORT, "urgent")
        told.bed.pump()
        assert told.application.option(PEER_PORT, URGENT) == 1
        told.peer.expect("UA", payload=b"abc")
        told.peer.send("A")
        assert told.application.option(PEER_PORT, URGENT) == 0


def test_after_shutdown_nothing_becomes_urgent() -> None:
    with Told() as told:
        told.application.act(PEER_PORT, ("send", b"abc"))
        told.application.act(PEER_PORT, "shutdown")
        assert told.application.act(PEER_PORT, "urgent") == -4
        told.bed.pump()
        assert told.peer.expect("FA", payload=b"abc").urgent == 0


def test_a_fin_behind_urgent_data_leaves_its_pointer_alone() -> None:
    with established() as scene:
        scene.conn.send(b"last", flags=socket.MSG_OOB)
        scene.conn.shutdown()
        scene.testbed.pump()
        scene.peer.expect("FUA", seq=1, payload=b"last", urgent=4)
        scene.peer.send("A")


def test_both_directions_share_a_record() -> None:
    with established() as scene:
        scene.peer.send("UA", payload=b"in", urgent=2)
        send_urgent(scene, b"out")
        scene.peer.expect("UA", ack=3, payload=b"out", urgent=3)
        assert scene.testbed.stack.leaks()["urgents"] == 1
        assert scene.read() == b"in"
        scene.peer.send("A")
        scene.send(b"x")
        assert scene.testbed.stack.leaks()["urgents"] == 0
        scene.peer.expect("A", payload=b"x", urgent=0)
        scene.peer.send("A")
        scene.testbed.advance(100 * MILLISECOND)

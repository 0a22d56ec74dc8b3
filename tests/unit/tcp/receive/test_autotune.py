# SPDX-License-Identifier: MIT
"""The receive window follows what the application takes in a round trip, up to a bound; it never shrinks."""

import itertools

import pytest

from ustack import Connection, Stack
from ustack.link.sim import SimNetwork
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, Scene, established
from ustack.testing.testbed import MICROSECOND, MILLISECOND, SECOND

KB = 1024
FIRST, MOST = 64 * KB, 512 * KB
RTT_NS = 20 * MILLISECOND
MSS = 1448
GROWS = {"rcv_buffer_bytes": FIRST, "rcv_buffer_max_bytes": MOST}


class Sender:
    """The peer of a scene, one round trip away: it sends up to the right edge that it knows, and no more."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.peer: ScriptedPeer = scene.peer
        self.edge = self.peer.snd_nxt + 65535  # of the SYN-ACK: not scaled
        self.edges = [self.edge]

    def listen(self) -> None:
        """Take the ACKs that have come."""
        scale = self.scene.info()["rcv_wscale"]
        for segment in self.peer.drain():
            edge = self.peer.relative(segment)[1] + (segment.wnd << scale)
            self.edges.append(edge)
            self.edge = max(self.edge, edge)

    def round(self, most: int = 1 << 30, *, read: bool = True) -> int:
        """A round trip later: as much as the window admits, at most `most`, in segments of full size. How much."""
        self.scene.testbed.advance(RTT_NS)
        sent = 0
        while sent < most and self.peer.snd_nxt + MSS <= self.edge:
            self.peer.send("A", payload=b"r" * MSS)
            sent += MSS
            if read:
                self.scene.read()
        self.scene.testbed.pump()
        self.listen()
        return sent


def grown(scene: Scene) -> int:
    return scene.testbed.stack.counters()["windows_grown"]


def test_the_window_doubles_in_a_round_trip_while_the_peer_fills_it() -> None:
    """As slow start asks; from the first window to the largest, and never back (SHLD-14)."""
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        sender = Sender(scene)
        sizes = [sender.round() for _ in range(8)]
        assert sizes[0] <= FIRST
        assert sender.edge - scene.peer.snd_nxt > MOST - 2 * MSS
        assert all(after <= 2 * before + 2 * MSS for before, after in itertools.pairwise(sizes))
        assert sender.edges == sorted(sender.edges)
        assert 3 <= grown(scene) <= 4  # not quite a whole window each time


def test_an_application_that_does_not_read_keeps_its_window() -> None:
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        sender = Sender(scene)
        for _ in range(6):
            sender.round(read=False)
        assert grown(scene) == 0
        assert scene.testbed.stack.leaks()["rx_held_bytes"] <= FIRST + 3 * 4096
        assert sender.edge <= FIRST + FIRST // 8 + 1


def test_a_peer_that_sends_slowly_keeps_the_first_window_and_no_record() -> None:
    """An eighth of the window in a round trip: what was measured is forgotten."""
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        sender = Sender(scene)
        for _ in range(6):
            sender.round(5 * MSS)
        assert grown(scene) == 0
        assert scene.info()["rcv_wnd"] <= FIRST
        assert scene.testbed.stack.leaks()["extras"] <= 1


def test_small_messages_make_no_record() -> None:
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        for _ in range(50):
            scene.peer.send("PA", payload=b"x" * (MSS - 1))
            scene.read()
        assert scene.testbed.stack.leaks()["extras"] == 0


def test_a_short_path_keeps_the_first_window() -> None:
    """A tenth of a millisecond there and back: what comes in that time is far less than the window."""
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        sender = Sender(scene)
        scene.send(b"how far is it?")
        scene.testbed.advance(100 * MICROSECOND)
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.info()["srtt_us"] < MSS
        for _ in range(100):
            scene.peer.send("A", payload=b"r" * MSS)
            scene.read()
            sender.listen()
            scene.testbed.advance(12 * MICROSECOND)  # 1 Gb/s
        assert grown(scene) == 0


def test_nothing_grows_while_receive_memory_is_short() -> None:
    """Somebody else's unread data takes more than half of it (pressure.pxd): no window grows, no edge moves left."""
    memory = 256 * KB
    with established(options=ALL_OPTIONS, rx_memory_bytes=memory, **GROWS) as scene:
        listener = scene.testbed.stack.listen(81)
        hoarders: list[Connection] = []
        while scene.testbed.stack.leaks()["rx_held_bytes"] <= memory // 2:
            hoarder = ScriptedPeer(scene.testbed, port=41_000 + len(hoarders), stack_port=81)
            hoarder.send("S", options={"mss": 1460})
            hoarder.expect("SA")
            hoarder.send("A")
            for _ in range(20):
                hoarder.send("A", payload=b"h" * 1000)
            hoarders.append(listener.accept(timeout=0))
        sender = Sender(scene)
        for _ in range(6):
            sender.round()
        assert grown(scene) == 0
        assert sender.edges == sorted(sender.edges)
        for connection in hoarders:
            connection.abort()
        listener.close()
        scene.testbed.pump()


def test_without_a_record_the_window_stays() -> None:
    with established(options=ALL_OPTIONS, extra_records=0, **GROWS) as scene:
        sender = Sender(scene)
        for _ in range(4):
            assert sender.round() <= FIRST
        assert grown(scene) == 0


def test_a_buffer_that_is_set_stays_as_it_is() -> None:
    """As with SO_RCVBUF: the size says both, unless the largest is named, too."""
    with established(options=ALL_OPTIONS, rcv_buffer_bytes=FIRST) as scene:
        sender = Sender(scene)
        for _ in range(4):
            assert sender.round() <= FIRST
        assert grown(scene) == 0
        assert scene.info()["rcv_wscale"] == 1


def test_window_scale_is_offered_for_the_largest_window() -> None:
    with established(options=ALL_OPTIONS) as scene:
        assert scene.info()["rcv_wscale"] == 9
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        assert scene.info()["rcv_wscale"] == 4


def test_bounds_that_contradict_each_other_are_refused() -> None:
    network = SimNetwork(1)
    with pytest.raises(ValueError, match="rcv_buffer_bytes is larger than rcv_buffer_max_bytes"):
        Stack(network.a, "198.18.0.2/24", rcv_buffer_bytes=2048, rcv_buffer_max_bytes=1024)
    network.a.close()
    network.b.close()


def test_the_record_goes_with_its_connection() -> None:
    with established(options=ALL_OPTIONS, **GROWS) as scene:
        sender = Sender(scene)
        for _ in range(4):
            sender.round()
        assert scene.testbed.stack.leaks()["extras"] == 1
        scene.abort()
        assert scene.testbed.stack.leaks()["extras"] == 0


@pytest.mark.parametrize("timestamps", [0, 1])
def test_a_long_fast_path_is_filled(timestamps: int) -> None:
    """1 Gb/s, 100 ms there and back, no loss: 12.5 MB are on the way. From the second second on at least 90 % of the
    rate arrive, in virtual time; without timestamps the handshake has measured the path."""
    network = {"rate_bps": 10**9, "delay_ns": 50 * MILLISECOND, "mtu": 9000, "queue_frames": 10_000}
    with Pair(seed=3, network=network, timestamps=timestamps) as pair:
        opener, accepter = pair.connect()
        piece = bytes(1 << 20)
        for _ in range(450):
            assert opener.send(piece) == len(piece)
        received = [0]

        def turn() -> None:
            while True:
                try:
                    received[0] += len(accepter.receive(1 << 20, timeout=0))
                except BlockingIOError:
                    return

        turn()
        start = pair.now_ns
        pair.run_until(lambda: pair.now_ns >= start + 2 * SECOND, 3 * SECOND, turn=turn)
        before = received[0]
        start = pair.now_ns
        pair.run_until(lambda: pair.now_ns >= start + SECOND, 2 * SECOND, turn=turn)
        assert (received[0] - before) * 8 >= 0.9 * 10**9
        opener.abort()
        accepter.abort()
        pair.pump()

# SPDX-License-Identifier: MIT
"""A server with an application, several peers and small pools, in any order that a random machine can think of.

One stack serves HTTP on one port, blocking sockets on another and an application whose every byte costs a part of the
turn on a third, and opens connections itself. Peers handshake, ask, answer nothing, shut windows, send out of order,
out of window, with lies in every field, in bursts; ICMP errors quote what was sent; Python sends, receives, closes,
drops objects; hours pass. All pools are small, so that every bound is reached: connections may hold twice the memory
that there is.

No expectation about each answer, but what must hold always: nothing crashes (the asan build looks closer), every frame
has at most one reason why it was refused, every pool keeps within its bound, nobody's data waits for a turn that never
comes, and in the end an honest client is served every byte, and nothing leaks.

    sudo make asan-test ARGS="tests/fuzz/test_stateful.py --fuzz-examples 3000 --timeout 0"      # for a long look
"""

import gc
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ustack import Connection, StackError
from ustack.server.http import HttpServer
from ustack.testing.leaks import difference, refusals
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.segment import SEQUENCE_MASK
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

HTTP_PORT = 80
SOCKET_PORT = 81
COSTLY_PORT = 82
SMALL = bytes(range(256)) * 2
LARGE = random.Random(1).randbytes(60_000)
LIMITS = {
    "max_connections": 16,
    "syn_queue": 4,
    "time_wait_limit": 3,
    "rx_memory_bytes": 64 * 1024,
    "snd_queue_bytes": 32 * 1024,
}
WALL_NS = 1_700_000_000 * SECOND

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"mss": 1460},
    {"mss": 1460, "sack_permitted": True, "nop": 1, "wscale": 7},
    {"mss": 100, "sack_permitted": True, "timestamps": (0xFFFFFF00, 0), "nop": 1, "wscale": 2},
    {"mss": 0, "nop": 1, "wscale": 255},
)
REQUESTS = (
    b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n" * 30,
    b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /large HTTP/1.1\r\nHost: h\r\nRange: bytes=5-50\r\n\r\n" * 3,
    b"GET /large HTTP/1.0\r\n\r\n",
    b"GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nmore",
    b"HEAD /small HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /small HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n",
    b"GET /sm",
    b"\n" * 1400,
    b"\x00\xff" * 300,
)
FLAGS = ("A", "A", "PA", "FA", "S", "SA", "R", "RA", "F", "", "UA", "SF", "SR", "FPU", "SAFR", "AEC")
OFFSETS = (-70_000, -1461, -2, -1, 0, 0, 0, 1, 2, 100, 1459, 1460, 8191, 8192, 65_535, 65_536, 1 << 31)
SIZES = (0, 0, 1, 2, 100, 1460)
WINDOWS = (0, 1, 100, 1460, 8192, 65_535)
TIMES = (0, MILLISECOND, 50 * MILLISECOND, SECOND, 15 * SECOND, 130 * SECOND, 20 * 60 * SECOND)
DAYS = (1, 20, 25, 50)


class Hostile(RuleBasedStateMachine):
    """See the module. One example is one life of one stack."""

    peers = Bundle("peers")
    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.site = Path(tempfile.mkdtemp(prefix="ustack-fuzz-"))
        (self.site / "small").write_bytes(SMALL)
        (self.site / "large").write_bytes(LARGE)
        self.testbed = Testbed(rcv_buffer_bytes=8192, **LIMITS)
        self.testbed.introduce()
        self.server = HttpServer(self.site, wall_clock=lambda: WALL_NS + self.testbed.now_ns)
        self.testbed.stack.listen(HTTP_PORT, application=self.server)
        self.costly = Recorder()
        self.testbed.stack.listen(COSTLY_PORT, application=self.costly)
        self.listener = self.testbed.stack.listen(SOCKET_PORT, backlog=2)
        self.next_port = 20_000
        self.opened: list[Connection] = []

    # ------------------------------------------------------------ helpers

    def new_peer(self, stack_port: int | None, port: int = 0) -> ScriptedPeer:
        self.next_port += 1
        return ScriptedPeer(self.testbed, port=port or self.next_port, stack_port=stack_port)

    def count_refusals(self, before: dict[str, int], frames: int) -> None:
        counted = refusals(difference(self.testbed.stack.counters(), before))
        assert sum(counted.values()) <= frames, counted

    # ------------------------------------------------------------ peers

    @rule(
        target=peers,
        port=st.sampled_from((HTTP_PORT, SOCKET_PORT, COSTLY_PORT)),
        options=st.sampled_from(OPTIONS),
        window=st.sampled_from(WINDOWS),
        finish=st.sampled_from((True, True, True, False)),
    )
    def opens(self, port: int, options: dict[str, Any], window: int, finish: bool) -> ScriptedPeer:
        """A peer's SYN, and mostly the rest of the handshake."""
        peer = self.new_peer(port)
        peer.wnd = window
        peer.send("S", options=options)
        for segment in peer.drain():
            if segment.flags == "SA":
                peer.iss = segment.seq
                peer.rcv_nxt = 1
                peer.timestamps = "timestamps" in segment.options
        if finish:
            peer.send("A")
        return peer

    @rule(peer=peers, request=st.sampled_from(REQUESTS), pump=st.booleans())
    def asks(self, peer: ScriptedPeer, request: bytes, pump: bool) -> None:
        """In order, cut into segments."""
        for start in range(0, len(request), 1400):
            peer.send("PA", payload=request[start : start + 1400], pump=False)
        if pump:
            self.testbed.pump()

    @rule(peer=peers, window=st.sampled_from(WINDOWS))
    def acknowledges(self, peer: ScriptedPeer, window: int) -> None:
        """Everything that has come, and says how much more may."""
        peer.catch_up()
        peer.wnd = window
        peer.send("A")

    @rule(peer=peers, places=st.lists(st.integers(0, 40), min_size=1, max_size=12), size=st.sampled_from((1, 7, 200)))
    def leaves_holes(self, peer: ScriptedPeer, places: list[int], size: int) -> None:
        """Pieces out of order, overlapping, again and again."""
        for place in places:
            peer.send("A", seq=peer.snd_nxt + 1 + place * 150, payload=bytes(size), pump=False)
        self.testbed.pump()

    @rule(
        peer=peers,
        flags=st.sampled_from(FLAGS),
        seq=st.sampled_from(OFFSETS),
        ack=st.sampled_from(OFFSETS),
        size=st.sampled_from(SIZES),
        window=st.sampled_from(WINDOWS),
        urgent=st.sampled_from((0, 1, 65_535)),
        stamp=st.sampled_from((None, None, 0, -1_000_000, 1 << 31)),
    )
    def lies(
        self, peer: ScriptedPeer, flags: str, seq: int, ack: int, size: int, window: int, urgent: int, stamp: int | None
    ) -> None:
        """One segment with a lie in any field. A RST is never answered, one segment with at most one RST."""
        options = {} if stamp is None else {"nop": 2, "timestamps": ((peer.ts_now + stamp) & SEQUENCE_MASK, 0)}
        self.testbed.pump()
        peer.drain()
        peer.send(flags, seq=peer.snd_nxt + seq, ack=peer.rcv_nxt + ack, wnd=window, payload=bytes(size),
                  options=options, urgent=urgent)  # fmt: skip
        resets = [segment for segment in peer.drain() if "R" in segment.flags]
        assert len(resets) <= 1
        if "R" in flags:
            assert not resets

    @rule(peer=peers, place=st.integers(0, 80), value=st.integers(0, 255), pump=st.booleans())
    def corrupts(self, peer: ScriptedPeer, place: int, value: int, pump: bool) -> None:
        """One byte of a frame is another."""
        frame = bytearray(peer.frame(peer.segment("PA", payload=b"GET / HTTP/1.1\r\n\r\n")))
        frame[place % len(frame)] ^= value
        before = self.testbed.stack.counters()
        self.testbed.inject(bytes(frame), pump=pump)
        if pump:
            received = difference(self.testbed.stack.counters(), before).get("frames_in", 0)
            self.count_refusals(before, received)

    @rule(
        peer=peers,
        kind=st.sampled_from(((3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0))),
        seq=st.sampled_from((0, 1, 100, 5000, 1 << 31)),
        mtu=st.sampled_from((0, 67, 68, 576, 1400, 9000, 65_535)),
    )
    def complains(self, peer: ScriptedPeer, kind: tuple[int, int], seq: int, mtu: int) -> None:
        """An ICMP error about what the stack may have sent."""
        about = peer.from_stack("A", seq=peer.rcv_nxt + seq, payload=b"12345678")
        peer.send_icmp_error(*kind, about, mtu=mtu)

    @rule(peer=consumes(peers), how=st.sampled_from(("FA", "R", "RA", None)))
    def leaves(self, peer: ScriptedPeer, how: str | None) -> None:
        """With a FIN, with a RST, or without a word."""
        peer.catch_up()
        if how is not None:
            peer.send(how)

    # ------------------------------------------------------------ our own program

    @rule(target=connections)
    def accepts(self) -> Any:
        if not self.listener.pending:
            return multiple()
        with suppress(BlockingIOError):
            self.opened.append(self.listener.accept(timeout=0))
            return len(self.opened) - 1
        return multiple()

    @rule(target=peers, answer=st.sampled_from(("SA", "S", "RA", "A", None)), options=st.sampled_from(OPTIONS))
    def connects(self, answer: str | None, options: dict[str, Any]) -> Any:
        """An active open to a peer that answers as it likes."""
        peer = self.new_peer(None)
        try:
            connection = self.testbed.stack.connect(peer.address, peer.port, wait=False)
        except StackError:
            return multiple()
        self.opened.append(connection)
        self.testbed.pump()
        for segment in peer.drain():
            peer.iss, peer.rcv_nxt = segment.seq, 1
        if peer.stack_port is None:
            return multiple()
        if answer is not None:
            peer.send(answer, options=options if "S" in answer else {})
        return peer

    @rule(
        which=st.integers(0, 30),
        call=st.sampled_from(
            ("send", "send", "receive", "receive", "shutdown", "close", "abort", "drop", "nodelay", "keepalive")
        ),
        size=st.sampled_from((0, 1, 100, 5000, 100_000)),
    )
    def calls(self, which: int, call: str, size: int) -> None:
        """The program does something with one of its connections, sensible or not."""
        if not self.opened:
            return
        connection = self.opened[which % len(self.opened)]
        with suppress(StackError, BlockingIOError, OSError):
            match call:
                case "send":
                    connection.send(bytearray(size), timeout=0)
                case "receive":
                    connection.receive(max(size, 1), timeout=0)
                case "nodelay" | "keepalive":
                    setattr(connection, call, not getattr(connection, call))
                case "drop":
                    self.opened.remove(connection)
                    connection.abort()
                case _:
                    getattr(connection, call)()
        self.testbed.pump()

    @rule(units=st.sampled_from((0, 1, 7, 300)), close=st.sampled_from((None, None, "shutdown", "close")))
    def costs(self, units: int, close: str | None) -> None:
        """What the costly application charges for a byte, and what it does when it gets some."""
        self.costly.charge = units
        self.costly.on("data", *([close] if close else []))
        self.costly.clear()

    @rule(ns=st.sampled_from(TIMES))
    def waits(self, ns: int) -> None:
        self.testbed.advance(ns)

    @rule(days=st.sampled_from(DAYS))
    def sleeps(self, days: int) -> None:
        """The clock alone moves, past the halves of every circle that a short counter goes round in."""
        self.testbed.now_ns += days * 86_400 * SECOND
        self.testbed.pump()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def pools_keep_within_their_bounds(self) -> None:
        held = self.testbed.stack.leaks()
        assert held["tcbs"] <= LIMITS["max_connections"]
        assert held["syns"] <= LIMITS["syn_queue"]
        assert held["time_waits"] <= LIMITS["time_wait_limit"]
        assert held["rx_held_bytes"] <= LIMITS["rx_memory_bytes"]

    @invariant()
    def variables_are_in_order(self) -> None:
        """SND.UNA <= SND.NXT <= SND.MAX, and no window is larger than its buffer."""
        for row in self.testbed.stack.connections("connection"):
            assert (row["snd_nxt"] - row["snd_una"]) & SEQUENCE_MASK < 1 << 31
            assert (row["snd_max"] - row["snd_nxt"]) & SEQUENCE_MASK < 1 << 31
            assert row["rcv_wnd"] <= 8192

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """At rest, an application that reads everything has read everything, and the HTTP server leaves requests unread
        only while a response is under way."""
        due_ns = self.testbed.stack.next_deadline_ns
        if self.testbed.network.a.waiting or (due_ns is not None and due_ns <= self.testbed.now_ns):
            return
        for row in self.testbed.stack.connections("connection"):
            if row["local"][1] == COSTLY_PORT:
                assert row["rcv_queued_bytes"] == 0, row
            if row["local"][1] == HTTP_PORT:
                assert row["rcv_queued_bytes"] == 0 or row["snd_queued_bytes"] > 0, row

    def teardown(self) -> None:
        """Everybody leaves; then an honest client is served, and nothing is left."""
        testbed = self.testbed
        try:
            for connection in self.opened:
                connection.abort()
            self.opened.clear()
            for peer in list(testbed.peers.values()):
                assert isinstance(peer, ScriptedPeer)
                peer.send("R", pump=False)
            testbed.pump()
            testbed.advance(1200 * SECOND)
            assert self.costly.errors == []
            self.honest_client_is_served()
        finally:
            self.server.close()
            self.listener.close()
            gc.collect()
            shutil.rmtree(self.site)
        testbed.close()

    def honest_client_is_served(self) -> None:
        peer = self.new_peer(HTTP_PORT, port=60_000)
        peer.send("S", options={"mss": 1460})
        peer.expect("SA")
        peer.send("A")
        peer.send("PA", payload=b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        received = b""
        for _ in range(500):
            received += peer.catch_up()
            if len(received) > len(LARGE) and received.endswith(LARGE):
                break
            peer.send("A")
            if not peer.queue:
                self.testbed.advance(SECOND)
        assert received.endswith(LARGE)
        peer.send("FA")


def test_no_sequence_of_events_breaks_the_stack(request: pytest.FixtureRequest) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Hostile,
        settings=settings(
            max_examples=request.config.getoption("--fuzz-examples"),
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )

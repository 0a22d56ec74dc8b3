# SPDX-License-Identifier: MIT
"""Events for Python: noted without the GIL, handed over once per turn, between receiving and output."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ustack import ConnectionTimeout, SimNetwork, Stack
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.gil_watch import GilWatch
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

PEERS = 16
MSS = {"mss": 1460}


@pytest.fixture
def recorder(bed: Testbed) -> Iterator[EventRecorder]:
    made = EventRecorder()
    bed.stack.listen(80, application=made)
    yield made
    assert made.errors == []
    bed.stack.close()
    assert made.records == 0


def turn(bed: Testbed) -> dict[str, int]:
    """One turn with every frame that is on the wire; what it added to the counters."""
    before = bed.stack.counters()
    bed.network.advance(bed.now_ns)
    bed.stack.poll(bed.now_ns)
    return {name: value - before[name] for name, value in bed.stack.counters().items() if value != before[name]}


def half_open(bed: Testbed, count: int, port: int = 80) -> list[ScriptedPeer]:
    """Peers whose SYN has been answered."""
    peers = [ScriptedPeer(bed, port=2000 + number, stack_port=port) for number in range(count)]
    for peer in peers:
        peer.send("S", options=MSS)
        peer.expect("SA")
    return peers


def opened(bed: Testbed, count: int = 1, port: int = 80) -> list[ScriptedPeer]:
    peers = half_open(bed, count, port)
    for peer in peers:
        peer.send("A")
    return peers


# ---------------------------------------------------------------- once per turn


def test_connections_that_open_and_end_in_one_burst_are_one_hand_over(bed: Testbed, recorder: EventRecorder) -> None:
    peers = half_open(bed, PEERS)
    for peer in peers:
        peer.send("A", pump=False)
    for peer in peers:
        peer.send("R", pump=False)
    added = turn(bed)
    assert (added["hand_overs"], added["events_handed_over"]) == (1, 2 * PEERS)
    assert "hand_overs_at_return" not in added
    assert recorder.log == [(1, peer.port, ("accepted", "closed"), 0) for peer in peers]
    assert (recorder.gil_taken, recorder.events_told) == (1, 2 * PEERS)
    assert recorder.reasons == ["reset"] * PEERS


def test_sockets_are_handed_a_turn_at_once(bed: Testbed) -> None:
    listener = bed.stack.listen(80)
    stays, goes = half_open(bed, 2), []
    for number in range(PEERS):
        peer = ScriptedPeer(bed, port=3000 + number)
        peer.send("S", options=MSS)
        peer.expect("SA")
        goes.append(peer)
    for peer in stays + goes:
        peer.send("A", pump=False)
    for peer in goes:
        peer.send("R", pump=False)
    added = turn(bed)
    assert (added["hand_overs"], added["events_handed_over"]) == (1, 2 + 2 * PEERS)
    assert (listener.pending, listener.lost) == (2, PEERS)
    assert [listener.accept(timeout=0).remote[1] for _ in stays] == [peer.port for peer in stays]


def test_a_turn_without_events_hands_nothing_over(bed: Testbed, recorder: EventRecorder) -> None:
    [peer] = opened(bed)
    before = recorder.hand_overs
    assert "hand_overs" not in turn(bed)
    peer.send("A", pump=False)  # a frame, but nothing for an application
    added = turn(bed)
    assert added["frames_in"] == 1
    assert not {"hand_overs", "hand_overs_at_return", "events_handed_over"} & added.keys()
    assert recorder.hand_overs == before


def test_sockets_take_no_gil_for_data(bed: Testbed) -> None:
    """It stays where it is until somebody asks."""
    listener = bed.stack.listen(80)
    [peer] = opened(bed)
    connection = listener.accept(timeout=0)
    peer.send("PA", payload=b"data", pump=False)
    added = turn(bed)
    assert added["frames_in"] == 1
    assert "hand_overs" not in added
    assert connection.receive() == b"data"
    connection.abort()


def test_events_of_a_connection_are_coalesced(bed: Testbed, recorder: EventRecorder) -> None:
    """A record for each connection, whatever its peer sends."""
    [peer] = opened(bed)
    recorder.log.clear()
    for _ in range(40):
        peer.send("PA", payload=b"x" * 100, pump=False)
    peer.send("FA", pump=False)
    added = turn(bed)
    assert added["frames_in"] == 41
    assert (added["hand_overs"], added["events_handed_over"]) == (1, 1)
    assert recorder.log == [(2, peer.port, ("data",), 4000)]
    assert recorder.records == 1


def test_events_come_in_order_of_a_connections_first(bed: Testbed, recorder: EventRecorder) -> None:
    one, other = opened(bed, 2)
    recorder.log.clear()
    other.send("PA", payload=b"b", pump=False)
    one.send("PA", payload=b"a", pump=False)
    other.send("R", pump=False)
    turn(bed)
    assert recorder.log == [(3, other.port, ("data", "closed"), 0), (3, one.port, ("data",), 1)]


def test_a_record_reused_within_a_turn_is_another_connection(bed: Testbed, recorder: EventRecorder) -> None:
    """The conn_t of the one that was reset is the next one's; what was noted of the first stays with the first."""
    [old] = opened(bed)
    [new] = [ScriptedPeer(bed, port=4000)]
    new.send("S", options=MSS)
    new.expect("SA")
    recorder.log.clear()
    old.send("PA", payload=b"old", pump=False)
    old.send("R", pump=False)
    new.send("A", pump=False)
    new.send("PA", payload=b"the new one", pump=False)
    turn(bed)
    assert sorted(recorder.log) == [(2, old.port, ("data", "closed"), 0), (2, new.port, ("accepted", "data"), 11)]
    assert recorder.records == 1
    bed.pump()
    assert len(bed.stack.connections("connection")) == 1


# ---------------------------------------------------------------- where in the turn


def test_what_a_hand_over_sends_goes_out_in_the_same_turn(bed: Testbed, recorder: EventRecorder) -> None:
    recorder.echo = True
    [peer] = half_open(bed, 1)
    peer.send("A", pump=False)
    peer.send("PA", payload=b"echo me", pump=False)
    assert turn(bed)["hand_overs"] == 1
    bed.network.advance(bed.now_ns)
    bed.collect()
    peer.expect("PA", payload=b"echo me")
    peer.send("FA", ack=8)
    peer.expect("FA")
    peer.send("A", ack=9)
    bed.advance(SECOND)
    assert recorder.names() == [("accepted", "data"), ("eof",), ("closed",)]
    assert recorder.reasons == ["normal"]


def test_nobody_holds_the_gil_while_a_turn_sends(bed: Testbed, recorder: EventRecorder) -> None:
    recorder.echo = True
    peers = half_open(bed, PEERS)
    for peer in peers:
        peer.send("A", pump=False)
        peer.send("PA", payload=b"echo me", pump=False)
    with GilWatch(bed.network.a) as watch:
        added = turn(bed)
    assert added["hand_overs"] == 1
    assert added["segments_out"] >= PEERS
    assert (watch.without, watch.holding) == (1, 0)
    for peer in peers:
        peer.send("R")


def test_the_watch_sees_a_thread_that_holds_the_gil(bed: Testbed) -> None:
    """A dropped listener's finalizer pushes with the GIL, on purpose: it may run in another thread than the owner's."""
    stack = Stack(SimNetwork().a)
    listener = [stack.listen(80)]
    with GilWatch(stack.link) as watch:
        stack.poll()
        assert (watch.without, watch.holding) == (1, 0)
        with pytest.warns(ResourceWarning, match="unclosed"):
            listener.clear()
        assert (watch.without, watch.holding) == (1, 1)
    stack.close()


def test_other_applications_stay_immediate(bed: Testbed, recorder: EventRecorder) -> None:
    """Their upcalls come with each segment; the hand-over comes behind the last one."""
    order: list[str] = []
    plain = Recorder()
    plain.on("data", lambda port: order.append("upcall"))
    bed.stack.listen(81, application=plain)
    [handed] = opened(bed)
    other = ScriptedPeer(bed, port=5000, stack_port=81)
    other.send("S", options=MSS)
    other.expect("SA")
    other.send("A")
    recorder.told = lambda port, kinds: order.append("hand-over")
    handed.send("PA", payload=b"first", pump=False)
    other.send("PA", payload=b"second", pump=False)
    handed.send("PA", payload=b"third", pump=False)
    other.send("PA", payload=b"fourth", pump=False)
    turn(bed)
    assert order == ["upcall", "upcall", "hand-over"]
    recorder.told = None
    assert plain.errors == []


def test_a_stack_without_python_applications_hands_nothing_over(bed: Testbed) -> None:
    plain = Recorder()
    bed.stack.listen(80, application=plain)
    [peer] = opened(bed)
    peer.send("PA", payload=b"data")
    peer.send("R")
    assert plain.names() == ["accept", "data", "closed"]
    counters = bed.stack.counters()
    assert counters["hand_overs"] == counters["hand_overs_at_return"] == counters["events_handed_over"] == 0


def test_timers_events_are_in_their_turns_hand_over(bed: Testbed, recorder: EventRecorder) -> None:
    recorder.timeout_ns = SECOND
    [peer] = opened(bed)
    before = bed.stack.counters()
    bed.advance(2 * SECOND)
    after = bed.stack.counters()
    assert recorder.names() == [("accepted",), ("timeout",)]
    assert after["hand_overs"] - before["hand_overs"] == 1
    assert after["hand_overs_at_return"] == before["hand_overs_at_return"]
    peer.send("R")


@pytest.mark.parametrize("sends", [False, True])
def test_run_hands_over_in_a_turn_without_a_frame(sends: bool) -> None:
    """A real clock: a timer's event is told in the timer's turn, and what is sent then leaves with it."""
    network = SimNetwork()
    with Stack(network.a, "198.18.0.1/24", msl_ns=0) as client, Stack(network.b, "198.18.0.2/24", msl_ns=0) as server:

        def cross() -> None:
            network.advance(max(network.next_event_ns or 0, network.now_ns))

        recorder = EventRecorder()
        recorder.timeout_ns = MILLISECOND
        server.listen(80, application=recorder)
        connection = client.connect("198.18.0.2", 80, wait=False)
        while connection.state != "ESTABLISHED":
            cross()
            server.poll()
            cross()
            client.poll()
        assert recorder.log == []  # its ACK has not crossed
        connection.send(b"data", timeout=0)
        cross()
        seen: list[tuple[tuple[str, ...], dict[str, int]]] = []

        def told(_port: int, names: tuple[str, ...]) -> None:
            seen.append((names, server.counters() | server.turns()))
            recorder.echo = sends  # not before the timeout
            if names == ("timeout",):
                server.stop()

        recorder.told = told
        server.run(60 * SECOND)
        after = server.counters() | server.turns()
        [(names, first), (last_names, last)] = seen
        assert (names, last_names) == (("accepted", "data"), ("timeout",))
        assert first["frames_in"] == last["frames_in"] == after["frames_in"]
        assert after["turns"] == last["turns"] + 1
        assert after["hand_overs_at_return"] == 0
        assert after["segments_out"] == last["segments_out"] + sends
        cross()
        client.poll()
        if sends:
            assert connection.receive(timeout=0) == b"data"
        assert recorder.errors == []


def test_what_output_ends_is_told_before_the_poll_returns(bed: Testbed) -> None:
    """Its RST ends the connection: too late for the turn's hand-over, with the GIL that the caller has anyway."""
    listener = bed.stack.listen(80)
    opened(bed)
    connection = listener.accept(timeout=0)
    connection.abort()
    assert connection.reason is None  # a manual clock: the next turn sends it
    added = turn(bed)
    assert (added["hand_overs_at_return"], added["events_handed_over"]) == (1, 1)
    assert "hand_overs" not in added
    assert connection.reason == "aborted"


def test_a_timeout_that_output_finds_is_told_before_the_poll_returns() -> None:
    """R2: it gives up when it would send again, in the second half of a turn."""
    with Testbed(msl_ns=0) as bed:
        bed.introduce()
        listener = bed.stack.listen(80)
        opened(bed)
        connection = listener.accept(timeout=0)
        connection.set_user_timeout(3)
        connection.send(b"never acknowledged")
        before = bed.stack.counters()
        for _ in range(10_000):
            if connection.reason is not None:
                break
            assert bed.stack.connections("connection") != []  # whoever is gone has been told
            deadline_ns = bed.stack.next_deadline_ns
            assert deadline_ns is not None
            bed.now_ns = max(deadline_ns, bed.now_ns)
            bed.network.advance(bed.now_ns)
            bed.stack.poll(bed.now_ns)
        assert connection.reason == "timeout"
        after = bed.stack.counters()
        told = [after[name] - before[name] for name in ("hand_overs", "hand_overs_at_return")]
        assert sum(told) == 1
        with pytest.raises(ConnectionTimeout):
            connection.receive(timeout=0)


def test_an_abort_is_told_before_the_call_returns() -> None:
    """A real clock: the RST is sent by abort() itself, and the end handed over before it comes back."""
    network = SimNetwork()
    with Stack(network.a, "198.18.0.2/24") as stack:
        connection = stack.connect("198.18.0.9", 80, wait=False)
        turns, waits = stack.turns()["turns"], stack.link.counters()["waits"]
        connection.abort()
        assert connection.reason == "aborted"
        assert stack.counters()["hand_overs_at_return"] == 1
        assert stack.turns()["turns"] == turns + 1
        assert stack.link.counters()["waits"] == waits


# ---------------------------------------------------------------- the end


def test_what_was_not_read_outlives_a_normal_end(bed: Testbed, recorder: EventRecorder) -> None:
    """Of a socket; and of a record, for whoever is told."""
    [peer] = opened(bed)
    recorder.shut = True
    peer.send("PA", payload=b"the last words")
    peer.expect("FA")
    peer.send("FA", ack=2)
    assert (recorder.reasons, recorder.rests) == (["normal"], [b"the last words"])
    listener = bed.stack.listen(81)
    other = ScriptedPeer(bed, port=5000, stack_port=81)
    other.send("S", options=MSS)
    other.expect("SA")
    other.send("A")
    connection = listener.accept(timeout=0)
    other.send("PA", payload=b"the last words")
    connection.shutdown()
    bed.pump()
    other.expect("FA")
    other.send("FA", ack=2)
    bed.advance(MILLISECOND)
    assert connection.reason == "normal"
    assert (connection.receive(3), connection.receive(), connection.receive()) == (b"the", b" last words", b"")


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_without_memory_for_a_record_a_connection_is_reset(bed: Testbed, recorder: EventRecorder, limit: int) -> None:
    recorder.limit = limit
    peers = half_open(bed, 4)
    for peer in peers:
        peer.send("A")
    assert recorder.names() == [("accepted",)] * limit
    assert recorder.records == limit
    assert bed.stack.counters()["accepts_without_memory"] == 4 - limit
    for peer in peers[limit:]:
        peer.expect("RA")
    assert len(bed.stack.connections("connection")) == bed.stack.established == limit
    recorder.limit = 4
    [late] = [ScriptedPeer(bed, port=6000)]
    late.send("S", options=MSS)
    late.expect("SA")
    late.send("A")
    assert recorder.records == limit + 1


FAILING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
int failing;
static int is_ours(void *caller)
{
    Dl_info about;
    return failing && dladdr(caller, &about) && about.dli_fname && strstr(about.dli_fname, "/blocking/events.");
}
void *malloc(size_t size) { return is_ours(__builtin_return_address(0)) ? 0 : __libc_malloc(size); }
void *calloc(size_t count, size_t size)
{
    return is_ours(__builtin_return_address(0)) ? 0 : __libc_calloc(count, size);
}
"""


@pytest.mark.skipif(
    shutil.which("gcc") is None or "LD_PRELOAD" in os.environ, reason="needs gcc, and an allocator of its own"
)
def test_without_memory_for_records_and_unread_bytes_connections_end_with_an_error(tmp_path: Path) -> None:
    """The C library's allocator refuses what events.pyx asks it for, and nobody else: in a process of its own."""
    (tmp_path / "failing.c").write_text(FAILING)
    library = tmp_path / "failing.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "failing.c", "-ldl"], check=True)
    script = f"""
        import ctypes
        from ustack.testing.peer import ScriptedPeer
        from ustack.testing.testbed import Testbed
        failing = ctypes.c_int.in_dll(ctypes.CDLL({str(library)!r}), "failing")
        with Testbed(msl_ns=0) as bed:
            bed.introduce()
            listener = bed.stack.listen(80)
            peer, refused = ScriptedPeer(bed, port=2000), ScriptedPeer(bed, port=2001)
            for each in (peer, refused):
                each.send("S", options={{"mss": 1460}})
                each.expect("SA")
            peer.send("A")
            connection = listener.accept(timeout=0)
            peer.send("PA", payload=b"the last words")
            connection.shutdown()
            bed.pump()
            peer.expect("FA")
            failing.value = 1
            refused.send("A")
            assert bed.stack.counters()["accepts_without_memory"] == 1
            refused.expect("RA")
            peer.send("FA", ack=2)
            bed.pump()
            failing.value = 0
            assert listener.pending == 0
            print(connection.reason)
            try:
                connection.receive()
            except OSError as error:
                print(error.reason)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["no_memory", "no_memory"]


def test_a_stack_that_ends_tells_everybody() -> None:
    recorder = EventRecorder()
    with Testbed() as bed:
        bed.introduce()
        bed.stack.listen(80, application=recorder)
        opened(bed, PEERS)
        bed.stack.close()
        assert recorder.reasons == ["aborted"] * PEERS
        assert recorder.records == 0


def test_a_connection_may_be_older_than_its_stack_and_listener() -> None:
    """Connections may be older than everything that they came from."""
    held: list[Any] = []
    with Testbed() as bed:
        bed.introduce()
        with bed.stack.listen(80) as listener:
            peers = opened(bed, 2)
            held.append(listener.accept(timeout=0))
        peers[0].send("R")
    assert held[0].reason == "reset"
    held.clear()


# ---------------------------------------------------------------- the other transport


@pytest.fixture
def memory() -> Iterator[tuple[MemoryTransport, EventRecorder]]:
    transport, recorder = MemoryTransport(), EventRecorder()
    transport.listen(80, recorder)
    yield transport, recorder
    transport.close()
    assert recorder.errors == []
    assert recorder.records == 0


def test_a_transport_in_memory_hands_over_once_per_turn(memory: tuple[MemoryTransport, EventRecorder]) -> None:
    transport, recorder = memory
    clients = [transport.open() for _ in range(PEERS)]
    for client in clients:
        client.send(b"some", b"thing")
    transport.poll()
    assert recorder.log == [(1, client.port, ("accepted", "data"), 9) for client in clients]
    assert (transport.hand_overs, transport.events_handed_over) == (1, 2 * PEERS)
    transport.poll()
    assert transport.hand_overs == 1
    for client in clients:
        client.abort()
    transport.poll()
    assert (transport.hand_overs, transport.events_handed_over) == (2, 3 * PEERS)
    assert recorder.reasons == ["reset"] * PEERS


def test_an_application_in_python_serves_a_transport_in_memory(memory: tuple[MemoryTransport, EventRecorder]) -> None:
    transport, recorder = memory
    recorder.echo = True
    client = transport.open()
    client.send(b"echo me")
    transport.poll()
    assert client.receive() == b"echo me"
    client.shutdown()
    transport.settle()
    assert client.ended
    assert recorder.names() == [("accepted", "data"), ("eof",), ("closed",)]


def test_a_transport_in_memory_counts_accepts_without_memory(memory: tuple[MemoryTransport, EventRecorder]) -> None:
    transport, recorder = memory
    recorder.limit = 1
    for _ in range(3):
        transport.open()
    transport.settle()
    assert (transport.accepts_without_memory, recorder.records) == (2, 1)


def test_room_to_send_is_told_where_it_was_asked_for(bed: Testbed, recorder: EventRecorder) -> None:
    recorder.want_writable = True
    opened(bed, 1)
    assert recorder.names() == [("accepted",), ("writable",)]

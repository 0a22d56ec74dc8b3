# SPDX-License-Identifier: MIT
"""A Trace: its ring's bound, whose records are in it, and what becomes of it with its connections and its stack."""

import gc
import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.blocking.test_ownership import Running
from ustack import Connection, OwnershipError, SimNetwork, Stack, StackError, Trace
from ustack.engine.trace import unpack
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND


def run_script(text: str, *options: str) -> str:
    """What it prints, in a process of its own."""
    command = [sys.executable, *options, "-c", textwrap.dedent(text)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def talk(pair: Pair, sender: Connection, receiver: Connection, times: int) -> None:
    """So many small messages, each acknowledged before the next."""
    for _ in range(times):
        sender.send(b"word")
        pair.advance(300 * MILLISECOND)
        assert receiver.receive() == b"word"


def finish(pair: Pair, *connections: Connection) -> None:
    for connection in connections:
        connection.abort()
    pair.advance(SECOND)


# ---------------------------------------------------------------- the ring


@pytest.mark.parametrize(("asked", "capacity"), [(64, 64), (65, 128), (1000, 1024)])
def test_a_ring_has_a_power_of_two_of_records(asked: int, capacity: int) -> None:
    with Pair() as pair:
        client, server = pair.connect()
        assert client.trace(asked).capacity == capacity
        finish(pair, client, server)


@pytest.mark.parametrize("asked", [0, 63, (1 << 26) + 1, -1])
def test_a_bad_capacity_is_refused(asked: int) -> None:
    with Pair() as pair:
        client, server = pair.connect()
        with pytest.raises(ValueError, match="capacity"):
            client.trace(asked)
        with pytest.raises(ValueError, match="capacity"):
            pair.a.trace(capacity=asked)
        finish(pair, client, server)


def test_the_latest_records_are_kept_and_the_others_counted() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        small, large = client.trace(64), server.trace(4096)
        talk(pair, client, server, 100)
        assert small.written == 202  # opened; then sent and acked, a hundred times; once the window has changed
        assert len(small.records()) == 64
        assert small.missed == 202 - 64
        assert [one["seq"] for one in small.records()[-2:]] == [1 + 99 * 4] * 2
        assert large.missed == 0
        assert len(large.records()) == large.written
        finish(pair, client, server)


def test_who_takes_in_time_misses_nothing() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        taken = b""
        for _ in range(10):
            talk(pair, client, server, 20)
            taken += trace.take()
        assert trace.take() == b""
        assert (len(taken) // 64, trace.missed) == (trace.written, 0)
        assert [one["seq"] for one in unpack(taken) if one["event"] == "sent"] == list(range(1, 801, 4))
        finish(pair, client, server)


def test_some_can_be_taken_and_the_rest_stays() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        talk(pair, client, server, 100)
        whole = trace.records()
        assert unpack(trace.take(10)) == whole[:10]
        assert trace.records() == whole[10:]
        assert unpack(trace.take(0)) == []
        assert unpack(trace.take(1000)) == whole[10:]
        assert trace.records() == []
        finish(pair, client, server)


# ---------------------------------------------------------------- whose records


def test_two_connections_have_their_own_rings() -> None:
    with Pair() as pair:
        first, first_end = pair.connect(80)
        second, second_end = pair.connect(81)
        one, other = first.trace(), second.trace()
        talk(pair, first, first_end, 3)
        assert (one.written, other.written) == (8, 1)
        finish(pair, first, first_end, second, second_end)


def test_the_next_connection_with_the_same_record_is_not_traced() -> None:
    """The tcb's index is used again at once; its trace ended with the connection."""
    with Pair(msl_ns=0) as pair:
        client, server = pair.connect()
        trace = client.trace()
        finish(pair, client, server)
        assert trace.records()[-1]["event"] == "closed"
        assert not trace.active
        written = trace.written
        client, server = pair.connect()
        talk(pair, client, server, 3)
        assert trace.written == written
        again = client.trace()
        talk(pair, client, server, 1)
        assert (trace.written, again.written) == (written, 3)
        assert again.connections[0]["local"] != trace.connections[0]["local"]
        finish(pair, client, server)


def test_a_connection_has_one_trace_at_a_time() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace()
        with pytest.raises(StackError, match="traced already"):
            client.trace()
        trace.stop()
        assert client.trace().active
        finish(pair, client, server)


def test_new_connections_are_traced_up_to_a_bound_and_numbered() -> None:
    with Pair(msl_ns=0) as pair:
        trace = pair.a.trace(connections=3)
        for _ in range(5):
            client, server = pair.connect()
            talk(pair, server, client, 1)
            finish(pair, client, server)
        assert [one["local"][1] for one in trace.connections] == [80] * 3
        assert len({one["remote"] for one in trace.connections}) == 3
        kinds: dict[int, list[str]] = {}
        for record in trace.records():
            kinds.setdefault(record["connection"], []).append(record["event"])
        assert list(kinds) == [1, 2, 3]
        assert all(events[0] == "opened" and events[-1] == "closed" for events in kinds.values())
        assert not trace.active


def test_a_connection_that_was_there_before_is_not_among_them() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = pair.a.trace()
        talk(pair, client, server, 2)
        assert (trace.written, trace.connections) == (0, [])
        with pytest.raises(StackError, match="traced already"):
            pair.a.trace()
        trace.stop()
        assert not trace.active
        pair.a.trace().stop()
        finish(pair, client, server)


def test_thousands_of_connections_are_told_apart() -> None:
    """The table of who is traced grows, and who leaves takes nobody along."""
    with Pair(seed=5) as pair:
        listener = pair.a.listen(80, backlog=4096)
        trace = pair.b.trace(connections=2000, capacity=1 << 17)
        clients = [pair.b.connect("198.18.0.2", 80, wait=False) for _ in range(2000)]
        pair.run_until(lambda: listener.pending == len(clients), 60 * SECOND)
        servers = [listener.accept(timeout=0) for _ in clients]
        listener.close()
        for client in clients[::3]:
            client.abort()
        pair.advance(SECOND)
        trace.take()
        for client in clients:
            if client.state == "ESTABLISHED":
                client.send(b"word")
        pair.advance(SECOND)
        told = unpack(trace.take())
        assert {one["connection"] for one in told} == {n + 1 for n in range(2000) if n % 3}
        assert {one["seq"] for one in told if one["event"] in ("sent", "acked")} == {1}
        ports = {n + 1: client.local[1] for n, client in enumerate(clients)}
        assert {n: one["local"][1] for n, one in enumerate(trace.connections, 1)} == ports
        finish(pair, *clients, *servers)


def test_who_leaves_the_table_of_the_traced_takes_nobody_along() -> None:
    """Eight at once in sixteen slots, most of them not in their own: whoever stays is found after each that leaves."""
    chance = random.Random(7)
    with Pair(seed=5) as pair:
        listener = pair.a.listen(80, backlog=64)
        clients = [pair.b.connect("198.18.0.2", 80, wait=False) for _ in range(64)]
        pair.run_until(lambda: listener.pending == len(clients), 60 * SECOND)
        servers = [listener.accept(timeout=0) for _ in clients]
        for _ in range(60):
            traced = {client: client.trace(64) for client in chance.sample(clients, 8)}
            while traced:
                client = chance.choice(list(traced))
                traced.pop(client).stop()
                for other in traced:
                    with pytest.raises(StackError, match="traced already"):
                        other.trace(64)
                assert all(trace.active for trace in traced.values())
                client.trace(64).stop()
        listener.close()
        finish(pair, *clients, *servers)


def test_all_of_a_ring_leave_at_once_and_the_others_stay() -> None:
    """Six of one trace and two of their own, whose records are any of 64: some have taken another's slot."""
    chance = random.Random(7)
    with Pair(seed=5) as pair:
        clients = [pair.b.connect("198.18.0.2", 80, wait=False) for _ in range(64)]
        for _ in range(60):
            chance.shuffle(clients)
            for _ in range(6):
                clients.pop().abort()
            ours = pair.b.trace(connections=6, capacity=64)
            new = [pair.b.connect("198.18.0.2", 80, wait=False) for _ in range(6)]
            others = [client.trace(64) for client in clients[:2]]
            ours.stop()
            assert not ours.active
            for other, client in zip(others, clients, strict=False):
                with pytest.raises(StackError, match="traced already"):
                    client.trace(64)
                other.stop()
                assert not other.active
            clients += new
        for client in clients:
            client.abort()
        pair.advance(SECOND)


# ---------------------------------------------------------------- lent


def bytes_of(pieces: list[memoryview]) -> bytes:
    return b"".join(pieces)


def test_what_is_lent_stays_as_it_is_and_what_finds_no_room_is_counted() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        talk(pair, client, server, 20)
        lent = trace.lend()
        before = bytes_of(lent)
        assert unpack(before) == trace.records()
        talk(pair, client, server, 40)
        assert bytes_of(lent) == before
        assert (trace.written, trace.missed) == (64, 122 - 64)
        trace.take_back()
        trace.take_back()
        assert len(trace.records()) == 64 - len(before) // 64
        talk(pair, client, server, 1)
        later = unpack(bytes_of(trace.lend()))
        assert later[-1]["seq"] == 1 + 60 * 4
        assert trace.written == 66
        assert [one["seq"] for one in unpack(before) + later if one["event"] == "sent"] == [
            *range(1, 1 + 4 * 31, 4),
            1 + 60 * 4,
        ]
        finish(pair, client, server)


def test_nothing_new_is_lent_before_it_is_taken_back() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        talk(pair, client, server, 3)
        trace.lend()
        with pytest.raises(ValueError, match="lent"):
            trace.take()
        with pytest.raises(ValueError, match="lent"):
            trace.lend()
        records = trace.records()
        trace.take_back()
        assert trace.records() == []
        assert len(records) == trace.written
        talk(pair, client, server, 1)
        assert len(unpack(trace.take())) == 2
        finish(pair, client, server)


def test_over_the_rings_end_it_is_lent_in_two_pieces() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        found: list[dict[str, Any]] = []
        for pieces in (1, 1, 2, 1):
            talk(pair, client, server, 15)
            wanted = trace.records()
            lent = trace.lend()
            assert len(lent) == pieces
            assert unpack(bytes_of(lent)) == wanted
            found += wanted
            trace.take_back()
        assert trace.lend() == []
        assert [one["seq"] for one in found if one["event"] == "sent"] == list(range(1, 241, 4))
        assert trace.missed == 0
        finish(pair, client, server)


def test_what_is_lent_outlives_its_trace_and_cannot_be_written() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace(64)
        talk(pair, client, server, 3)
        (lent,) = trace.lend()
        wanted = trace.records()
        trace.stop()
        del trace
        gc.collect()
        assert unpack(bytes(lent)) == wanted
        assert lent.readonly
        finish(pair, client, server)


# ---------------------------------------------------------------- its end


def test_stopped_twice_it_keeps_what_it_has() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        trace = client.trace()
        talk(pair, client, server, 1)
        trace.stop()
        trace.stop()
        written = trace.written
        talk(pair, client, server, 1)
        assert trace.written == written == len(trace.records())
        finish(pair, client, server)


def test_a_closed_connection_is_not_traced() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        finish(pair, client, server)
        with pytest.raises(OSError, match="198"):
            client.trace()


def test_it_outlives_its_stack() -> None:
    pair = Pair()
    client, _server = pair.connect()
    of_one, of_all = client.trace(), pair.a.trace()
    pair.close()
    assert not of_one.active
    assert not of_all.active
    assert of_one.records()[-1]["event"] == "closed"
    of_one.stop()
    of_all.stop()
    assert of_all.take() == b""
    assert of_one.connections[0]["active"]


def test_dropped_it_is_stopped() -> None:
    with Pair() as pair:
        client, server = pair.connect()
        client.trace()
        pair.a.trace()
        gc.collect()
        talk(pair, client, server, 1)
        assert client.trace().active
        assert pair.a.trace().active
        finish(pair, client, server)


DROPPED = """
    import gc
    from ustack.testing.pair import Pair

    for _ in range(20):
        pair = Pair()
        client, server = pair.connect()
        circle = [pair, client.trace(), pair.a.trace()]
        circle.append(circle)
        client.send(b"word")
        del pair, client, server, circle
        gc.collect()
    print("done")
"""


def test_dropped_with_its_stack_nothing_is_written_into_memory_that_is_gone() -> None:
    """Both in one circle, neither closed: whichever goes first."""
    assert run_script(DROPPED, "-Wignore") == "done"


def test_nobody_else_makes_one() -> None:
    with pytest.raises(TypeError, match=r"use Connection\.trace"):
        Trace()


@pytest.mark.parametrize(
    "call",
    [
        lambda stack, connection, trace: trace.take(),
        lambda stack, connection, trace: trace.records(),
        lambda stack, connection, trace: trace.lend(),
        lambda stack, connection, trace: trace.take_back(),
        lambda stack, connection, trace: trace.connections_from(0),
        lambda stack, connection, trace: trace.stop(),
        lambda stack, connection, trace: trace.missed,
        lambda stack, connection, trace: trace.connections,
        lambda stack, connection, trace: connection.trace(),
        lambda stack, connection, trace: stack.trace(),
    ],
)
def test_another_thread_must_not_read_while_the_stack_runs(call: Callable[[Stack, Any, Trace], object]) -> None:
    """The records are being written."""
    network = SimNetwork()
    stack = Stack(network.a)
    connection = stack.connect(PEER_ADDRESS, 80, wait=False)
    trace = connection.trace()
    with Running(stack), pytest.raises(OwnershipError, match=r"inside run\(\)"):
        call(stack, connection, trace)
    stack.close(linger=0)
    assert trace.records()[0]["event"] == "opened"


FORKED = """
    import json, os, sys
    from ustack.testing.pair import Pair

    pair = Pair(msl_ns=0)
    opener, accepter = pair.connect()
    trace = opener.trace()
    opener.send(b"before")
    pair.advance(1_000_000_000)
    assert accepter.receive() == b"before"
    before = trace.written
    answer, word = os.pipe()
    child = os.fork()
    if child == 0:
        seen = [len(trace.records()), len(trace.take()) // 64]
        trace.stop()
        os.write(word, json.dumps([*seen, trace.active]).encode())
        os._exit(0)
    os.close(word)
    told = json.loads(os.read(answer, 1000))
    status = os.waitpid(child, 0)[1]
    opener.send(b" and after")
    pair.advance(1_000_000_000)
    assert accepter.receive() == b" and after"
    print(json.dumps([told, status, before, len(trace.records()), trace.active]))
    opener.abort()
    pair.advance(1_000_000_000)
    pair.close()
"""


def test_a_child_of_fork_has_a_copy_and_ends_nothing_of_its_parents() -> None:
    told, status, before, now, active = json.loads(run_script(FORKED))
    assert told == [before, before, False]
    assert (status, now, active) == (0, before + 2, True)

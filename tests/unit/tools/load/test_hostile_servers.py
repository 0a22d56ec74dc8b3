# SPDX-License-Identifier: MIT
"""Servers that lie, stall, hang up or talk nonsense: each is reported by kind, and never counted as success."""

from collections.abc import Callable
from typing import Any

import pytest

from ustack import Connection
from ustack.errors import WouldBlock
from ustack.tools.load.client import LoadClient
from ustack.tools.load.memory import MemoryWorld
from ustack.tools.load.summary import summarise, warnings_of

MILLISECOND = 1_000_000
STEP = 100_000
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Answer = Callable[[Connection, int], None]  # to the connection, of the n-th request there was


def play(answer: Answer, rounds: int = 200, duration_ns: int = 0, **load: Any) -> tuple[dict[str, Any], int]:
    """The client's figures, and how many requests the scripted server has seen. Everything is given back."""
    client, seen = played(answer, rounds, duration_ns, **load)
    return client.stats(), seen


def played(answer: Answer, rounds: int, duration_ns: int, **load: Any) -> tuple[LoadClient, int]:
    """The client itself."""
    load.setdefault("connections", 2)
    if not duration_ns and "rate" not in load:
        load.setdefault("requests_most", 20)
    client = LoadClient(MemoryWorld.SERVER, 80, [REQUEST], **load)
    with MemoryWorld(None, step_ns=STEP) as world:
        listener = world.server_stack.listen(80, backlog=64)
        world.begin(client, duration_ns or None)
        seen = 0
        open_ends: dict[Connection, bytes] = {}
        for _ in range(rounds):
            if world.run(client, MILLISECOND):
                break
            while listener.pending:
                open_ends[listener.accept(timeout=0)] = b""
            for end in list(open_ends):
                try:
                    got = end.receive(timeout=0)
                except WouldBlock:
                    continue
                except OSError:
                    got = b""
                if not got:
                    end.close()
                    del open_ends[end]
                    continue
                open_ends[end] += got
                if open_ends[end].endswith(b"\r\n\r\n"):
                    open_ends[end] = b""
                    answer(end, seen)
                    seen += 1
        world.finish(client)
        for end in open_ends:
            end.abort()
    return client, seen


def saying(octets: bytes, *, then: str = "") -> Answer:
    def answer(end: Connection, number: int) -> None:
        end.send(octets)
        if then == "close":
            end.close()
        elif then == "abort":
            end.abort()

    return answer


def test_an_honest_one_is_good() -> None:
    stats, seen = play(saying(OK))
    assert stats["all"]["outcomes"] == {"ok": 20}
    assert seen == 20


LIES = {
    "bytes behind the length": (saying(OK + b"!"), "unasked"),
    "fewer bytes than the length, then the end": (saying(OK[:-1], then="close"), "cut"),
    "the end within the head": (saying(OK[:20], then="close"), "cut"),
    "no byte, then the end": (lambda end, number: end.close(), "closed"),
    "a reset": (lambda end, number: end.abort(), "reset"),
    "nonsense": (saying(b"220 mail ready\r\n\r\n"), "malformed"),
    "two lengths": (saying(OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n")), "bad length"),
    "a head without an end": (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000), "head too long"),
    "an error page": (saying(OK.replace(b"200 OK", b"503 Busy")), "status"),
    "a page elsewhere": (saying(OK.replace(b"200 OK", b"302 Found")), "status"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lie_is_counted_by_kind_and_as_nothing_else(case: str) -> None:
    answer, kind = LIES[case]
    stats, seen = play(answer)
    assert stats["all"]["outcomes"] == {kind: 20}
    assert stats["measured"]["outcomes"] == {kind: 20}
    assert seen == 20
    assert stats["in_time"] == 0
    assert stats["held_bytes"] == 0


def test_a_length_that_changes_is_found() -> None:
    longer = OK.replace(b": 5", b": 6") + b"!"
    stats, _ = play(lambda end, number: end.send(longer if number % 4 == 3 else OK) and None)
    assert stats["all"]["outcomes"] == {"ok": 15, "length": 5}
    accepted, _ = play(lambda end, number: end.send(longer if number % 4 == 3 else OK) and None, any_length=True)
    assert accepted["all"]["outcomes"] == {"ok": 20}


def test_a_body_that_changes_is_found_where_it_is_hashed() -> None:
    other = OK.replace(b"hello", b"jello")
    stats, _ = play(lambda end, number: end.send(other if number >= 10 else OK) and None, hash_every=1)
    assert stats["all"]["outcomes"] == {"ok": 10, "body": 10}
    blind, _ = play(lambda end, number: end.send(other if number >= 10 else OK) and None, hash_every=0)
    assert blind["all"]["outcomes"] == {"ok": 20}


def test_a_server_that_stalls_times_out() -> None:
    stats, seen = play(lambda end, number: None, timeout_ns=20 * MILLISECOND, duration_ns=100 * MILLISECOND)
    assert set(stats["all"]["outcomes"]) <= {"timeout", "unanswered"}
    assert stats["all"]["outcomes"]["timeout"] == pytest.approx(2 * 100 / 20, abs=3)
    assert sum(stats["all"]["outcomes"].values()) == stats["all"]["requests"] == seen


def test_a_server_that_dribbles_times_out_too() -> None:
    ends = []

    def answer(end: Connection, number: int) -> None:
        ends.append(end)
        end.send(OK[:-1])

    stats, _ = play(answer, timeout_ns=20 * MILLISECOND, duration_ns=50 * MILLISECOND)
    assert set(stats["all"]["outcomes"]) <= {"timeout", "unanswered"}


def test_one_that_stops_cannot_hide_what_was_due() -> None:
    """It answers for 50 ms of 100 and never again: all 1,000 requests that were due are accounted for, the silent half
    as errors that are in the distribution of latencies."""
    stats_at = {"seen": 0}

    def answer(end: Connection, number: int) -> None:
        if stats_at["seen"] < 200:
            stats_at["seen"] += 1
            end.send(OK)

    load = {"rate": 10_000.0, "connections": 8, "timeout_ns": 1000 * MILLISECOND}
    stats, _ = play(answer, rounds=1500, duration_ns=100 * MILLISECOND, **load)
    outcomes = stats["measured"]["outcomes"]
    assert outcomes["ok"] == 200
    assert sum(outcomes.values()) == 1000
    assert outcomes["unsent"] + outcomes.get("unanswered", 0) + outcomes.get("timeout", 0) == 800


SILENCES: dict[str, tuple[Answer, str]] = {
    "no answer": (lambda end, number: None, "timeout"),
    "half an answer": (saying(OK[:-1]), "timeout"),
    "a reset": (lambda end, number: end.abort(), "reset"),
    "no byte, then the end": (lambda end, number: end.close(), "closed"),
    "fewer bytes, then the end": (saying(OK[:-1], then="close"), "cut"),
}


@pytest.mark.parametrize("case", SILENCES)
def test_in_an_open_loop_who_got_no_response_is_in_the_latency(case: str) -> None:
    """Every fifth of 100 requests is not answered, and each has waited for as long as it took to find out."""
    bad, kind = SILENCES[case]
    timeout_ns = 20 * MILLISECOND
    client, _ = played(
        lambda end, number: bad(end, number) if number % 5 == 0 else end.send(OK) and None,
        300,
        100 * MILLISECOND,
        rate=1000.0,
        connections=30,
        timeout_ns=timeout_ns,
    )
    assert client.stats()["measured"]["outcomes"] == {"ok": 80, kind: 20}
    assert (client.latency.total, client.unanswered.total) == (80, 20)
    summary = summarise(
        client.stats(), client.latency, client.unanswered, client.opened, rate=1000.0, connections=30, idle=None
    )
    assert summary.latency_unanswered == 20
    assert "20 requests that were due" in " ".join(warnings_of(summary))
    if kind == "timeout":
        assert summary.latency_us["p50"] < 5_000
        assert summary.latency_us["p90"] * 1000 >= timeout_ns * 0.999


def test_a_slow_reader_that_is_starved_is_seen_among_the_others() -> None:
    """Three are served; one gets a tenth of what it could read in the second."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

    def answer(end: Connection, number: int) -> None:
        end.send(head + b"x" * (20_000 if number < 3 else 1000 - len(head)))

    load = {"connections": 4, "read_bytes_per_second": 10_000, "read_step_bytes": 500, "timeout_ns": 2 * 10**9}
    stats, _ = play(answer, rounds=4000, duration_ns=1000 * MILLISECOND, **load)
    readers = stats["readers"]
    assert (readers["served"], readers["least_bytes"]) == (3, 1000)
    assert readers["most_bytes"] == pytest.approx(10_000, abs=500)
    assert readers["fairness"] == pytest.approx(31_000**2 / (4 * 301e6), rel=0.01)


def test_in_an_open_loop_who_is_refused_is_in_the_latency() -> None:
    """A connection for each request, and nobody listens."""
    client = LoadClient(MemoryWorld.SERVER, 81, [REQUEST], connections=200, rate=1000.0, keep_alive=False)
    with MemoryWorld(None, step_ns=STEP) as world:
        world.begin(client, 100 * MILLISECOND)
        assert world.run(client, 30_000 * MILLISECOND)
        world.finish(client)
    assert client.stats()["measured"]["outcomes"] == {"refused": 100}
    assert (client.latency.total, client.unanswered.total) == (0, 100)


def test_a_wrong_response_is_in_no_latency() -> None:
    client, _ = played(saying(OK.replace(b"200 OK", b"503 Busy")), 200, 20 * MILLISECOND, rate=1000.0, connections=5)
    assert client.stats()["measured"]["outcomes"] == {"status": 20}
    assert (client.latency.total, client.unanswered.total) == (0, 0)


def test_a_connection_closed_while_idle_is_no_error() -> None:
    """One answer each, and a FIN behind it that the head does not announce."""
    stats, seen = play(saying(OK, then="close"), rate=1000.0, duration_ns=30 * MILLISECOND)
    assert stats["all"]["outcomes"] == {"ok": 30}
    assert seen == 30
    assert stats["all"]["closed_idle"] >= 20
    assert stats["all"]["opened"] >= 20


def test_a_server_that_announces_the_end_is_asked_on_a_new_connection() -> None:
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    stats, _ = play(saying(last, then="close"))
    assert stats["all"]["outcomes"] == {"ok": 20}
    assert stats["all"]["opened"] == pytest.approx(20, abs=2)


def test_bytes_before_any_request_are_unasked() -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, [REQUEST], connections=1, rate=10.0)
    with MemoryWorld(None, step_ns=STEP) as world:
        listener = world.server_stack.listen(80)
        world.begin(client, 50 * MILLISECOND)
        world.run(client, MILLISECOND)
        world.run(client, MILLISECOND)
        end = listener.accept(timeout=0)
        end.nodelay = True
        end.receive(timeout=0)
        end.send(OK)
        world.run(client, MILLISECOND)
        end.send(OK)
        world.run(client, MILLISECOND)
        assert client.stats()["all"]["outcomes"] == {"ok": 1, "unasked": 1}
        world.finish(client)
        end.abort()


def test_a_server_that_accepts_and_resets_is_not_pressed_for_ever() -> None:
    """Sixteen ends in a row, and the one that began it, then one in 100 ms from each of two connections."""
    stats, seen = play(lambda end, number: end.abort(), rounds=1100, duration_ns=1000 * MILLISECOND)
    outcomes = stats["all"]["outcomes"]
    assert set(outcomes) == {"reset"}
    assert 2 * 17 + 2 * 5 <= outcomes["reset"] <= 2 * 17 + 2 * 11
    assert seen == outcomes["reset"]


def test_an_answer_lets_it_be_opened_at_once_again() -> None:
    """Nine ends, an answer, and so on: nobody ever waits for 100 ms."""

    def answer(end: Connection, number: int) -> None:
        if number % 10 == 9:
            end.send(OK)
        else:
            end.abort()

    stats, seen = play(answer, rounds=1000, connections=1, requests_most=200)
    assert seen == 200
    assert stats["all"]["outcomes"] == {"ok": 20, "reset": 180}

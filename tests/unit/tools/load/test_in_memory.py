# SPDX-License-Identifier: MIT
"""A load client and this project's server, in memory and virtual time: the server's counters agree with what is
claimed, request by request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ustack.blocking.stack import Stack
from ustack.link.memory import MemoryLink
from ustack.server.http import HttpServer
from ustack.testing.leaks import holds_nothing
from ustack.tools.load.client import LoadClient
from ustack.tools.load.driver import Driver
from ustack.tools.load.memory import MemoryWorld
from ustack.tools.load.questions import parse_url, requests_of
from ustack.tools.load.summary import as_hdr, spread

MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND
STEP = 10_000
TARGET = parse_url(f"http://{MemoryWorld.SERVER}/512.bin")
BODY = bytes(range(256)) * 2
SEGMENT = 1448  # bytes of one, with timestamps
RATE = 100_000  # bytes per second of a slow reader
WALL_NS = 1_700_000_000 * SECOND


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "512.bin").write_bytes(BODY)
    (tmp_path / "big.bin").write_bytes(BODY * 400)
    return tmp_path


@pytest.fixture
def server(site: Path) -> Iterator[HttpServer]:
    """Its clock stands still: a new Date would be a new head for the client, in one of two runs that are to be the
    same."""
    with HttpServer(site, wall_clock=lambda: WALL_NS) as server:
        yield server


def asking(*paths: str, close: bool = False, method: str = "GET") -> list[bytes]:
    return requests_of(TARGET, paths or ["/512.bin"], keep_alive=not close, method=method)


def run(server: HttpServer, client: LoadClient, duration_ns: int = 20 * MILLISECOND, **config: Any) -> dict[str, Any]:
    """The client's figures when everything has come to rest and both stacks hold nothing."""
    with MemoryWorld(server, step_ns=STEP, **config) as world:
        world.begin(client, duration_ns)
        assert world.run(client, 100 * SECOND)
        world.finish(client)
        assert world.client_stack.established == 0
        for stack in (world.client_stack, world.server_stack):
            stack.close(linger=0.0)
            assert not any(stack.leaks().values()), stack.leaks()
    return client.stats()


def test_the_server_has_answered_what_the_client_claims(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=16)
    stats = run(server, client)
    served = server.stats()
    assert stats["all"]["outcomes"] == {"ok": served["responses_2xx"]}
    assert stats["all"]["requests"] == served["requests"] > 10_000
    assert stats["all"]["body_bytes"] == 512 * served["requests"]
    assert stats["all"]["opened"] == served["connections"] == 16
    assert stats["measured"]["outcomes"]["ok"] == client.latency.total
    assert stats["measured_ns"] == 20 * MILLISECOND
    assert stats["lengths"] == [512]
    assert stats["heads_known"] == stats["all"]["requests"] - 1  # all but the first


@pytest.mark.parametrize(("connections", "parts"), [(256, 1), (700, 3)])
def test_connections_end_in_parts_that_a_device_has_room_for(server: HttpServer, connections: int, parts: int) -> None:
    """Most have a request under way, whose answer comes before their turn, and counts no more."""
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=connections)
    with MemoryWorld(server, step_ns=STEP) as world:
        world.begin(client, 100 * SECOND)
        while client.stats()["all"]["requests"] < 4 * connections:
            assert not world.run(client, 10 * STEP)
        assert world.finish(client) == parts
        assert world.client_stack.established == world.server_stack.established == 0
        counted = client.stats()["all"]
        assert sum(counted["outcomes"].values()) == counted["requests"]
        assert counted["outcomes"]["unanswered"] >= connections // 2


def test_so_many_requests_and_no_more(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=7, requests_most=1000)
    with MemoryWorld(server, step_ns=STEP) as world:
        world.begin(client)
        assert world.run(client, 10 * SECOND)
        world.finish(client)
    assert client.stats()["all"]["outcomes"] == {"ok": 1000}
    assert server.stats()["requests"] == 1000


def test_a_connection_for_each_request(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(close=True), connections=8, keep_alive=False, requests_most=500)
    stats = run(server, client)
    served = server.stats()
    assert stats["all"]["outcomes"] == {"ok": 500}
    assert (served["requests"], served["connections"], stats["all"]["opened"]) == (500, 500, 500)
    assert stats["most_open"] <= 8
    assert client.opened.total == 500


@pytest.mark.parametrize("poisson", [False, True])
def test_an_open_loop_asks_what_is_due(server: HttpServer, poisson: bool) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=16, rate=50_000, poisson=poisson)
    stats = run(server, client, 100 * MILLISECOND)
    assert stats["due"] == stats["all"]["requests"] == server.stats()["requests"]
    assert stats["due"] == (pytest.approx(5000, rel=0.05) if poisson else 5000)
    assert stats["all"]["outcomes"] == {"ok": stats["due"]}
    assert client.latency.total == stats["due"]


def test_latency_counts_from_when_a_request_was_due(server: HttpServer) -> None:
    """One connection is answered 100,000 times per second, once in each step of 10 µs. Asked for twice as many, every
    request waits longer than the one before, and the last for as long as the run."""
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=1, rate=200_000)
    stats = run(server, client, 10 * MILLISECOND)
    assert stats["all"]["outcomes"] == {"ok": 2000}
    assert stats["in_time"] == pytest.approx(1000, abs=3)
    found = spread(as_hdr(client.latency))
    assert found["max"] == pytest.approx(10_000, rel=0.01)
    assert found["p50"] == pytest.approx(5_000, rel=0.01)
    assert found["p99"] == pytest.approx(9_900, rel=0.01)


def test_paths_are_asked_in_turn_and_their_lengths_learned(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking("/512.bin", "/big.bin"), connections=4, requests_most=100)
    stats = run(server, client)
    assert stats["lengths"] == [512, 512 * 400]
    assert stats["all"]["body_bytes"] == 50 * 512 * 401
    assert stats["all"]["outcomes"] == {"ok": 100}


def test_what_is_not_there_is_an_error_by_status(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking("/512.bin", "/none"), connections=3, requests_most=100)
    stats = run(server, client)
    assert stats["all"]["outcomes"] == {"ok": 50, "status": 50}
    assert stats["all"]["statuses"] == {"2xx": 50, "4xx": 50}
    assert client.latency.total == 50
    wanted = LoadClient(MemoryWorld.SERVER, 80, asking("/none"), connections=3, requests_most=100, status=404)
    assert run(server, wanted)["all"]["outcomes"] == {"ok": 100}


def test_head_has_no_body(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(method="HEAD"), connections=3, requests_most=100, to_head=True)
    stats = run(server, client)
    assert stats["all"]["outcomes"] == {"ok": 100}
    assert stats["all"]["body_bytes"] == 0


def test_a_file_that_is_not_the_one_is_found_by_length_and_by_hash(server: HttpServer, site: Path) -> None:
    from ustack.tools.load.responses import hash_of

    def outcomes(bodies: list[tuple[int, int | None]]) -> dict[str, int]:
        client = LoadClient(
            MemoryWorld.SERVER, 80, asking(), connections=3, requests_most=100, bodies=bodies, hash_every=10
        )
        found: dict[str, int] = run(server, client)["all"]["outcomes"]
        return found

    assert outcomes([(512, hash_of(BODY))]) == {"ok": 100}
    assert outcomes([(513, None)]) == {"length": 100}
    assert outcomes([(512, hash_of(BODY[::-1]))]) == {"ok": 90, "body": 10}


def test_connections_open_along_a_ramp(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=100, ramp_ns=100 * MILLISECOND)
    with MemoryWorld(server, step_ns=STEP) as world:
        world.begin(client, 20 * MILLISECOND)
        world.run(client, 50 * MILLISECOND)
        assert 45 <= client.stats()["open"] <= 52
        assert client.stats()["measured"]["requests"] == 0
        assert world.run(client, 10 * SECOND)
        world.finish(client)
    stats = client.stats()
    assert stats["most_open"] == 100
    assert stats["measured_ns"] == 20 * MILLISECOND
    assert 0 < stats["measured"]["requests"] < stats["all"]["requests"] == server.stats()["requests"]


@pytest.mark.parametrize("step_bytes", [0, 5 * SEGMENT, 100])
@pytest.mark.parametrize("turn_ns", [STEP, 30 * MILLISECOND])
def test_slow_readers_read_at_their_rate_however_late_they_are(
    server: HttpServer, step_bytes: int, turn_ns: int
) -> None:
    """204,800 bytes and a head at 100,000 bytes per second; the last of them wait for a turn."""
    client = LoadClient(
        MemoryWorld.SERVER,
        80,
        asking("/big.bin"),
        connections=5,
        requests_most=5,
        read_bytes_per_second=RATE,
        read_step_bytes=step_bytes,
    )
    with MemoryWorld(server, step_ns=turn_ns, rcv_buffer_bytes=16384, rcv_buffer_max_bytes=16384) as world:
        world.begin(client, 60 * SECOND)
        assert world.run(client, 100 * SECOND)
        world.finish(client)
    stats = client.stats()
    assert stats["all"]["outcomes"] == {"ok": 5}
    line_us = stats["all"]["bytes"] / 5 / RATE * 1e6
    found = spread(as_hdr(client.latency))
    assert 0.99 * line_us <= found["min"] <= found["max"] <= 1.01 * line_us + 3 * turn_ns / 1e3


def frames_of_a_reader(server: HttpServer, step_bytes: int, window_bytes: int) -> tuple[int, dict[str, int]]:
    """Both ways, for a file of 204,800 bytes; and what the server has counted."""
    client = LoadClient(
        MemoryWorld.SERVER,
        80,
        asking("/big.bin"),
        requests_most=1,
        read_bytes_per_second=RATE,
        read_step_bytes=step_bytes,
    )
    with MemoryWorld(server, step_ns=STEP, rcv_buffer_bytes=window_bytes, rcv_buffer_max_bytes=window_bytes) as world:
        world.begin(client, 60 * SECOND)
        assert world.run(client, 100 * SECOND)
        assert client.stats()["all"]["outcomes"] == {"ok": 1}
        return world.carried, world.server_stack.counters()


def test_a_step_opens_the_window_once_and_one_frame_fills_it(server: HttpServer) -> None:
    """Thirteen steps in 2 s, of an update, a super-frame and its ACK each; nothing is probed, nor goes by itself, but
    for an announcement by ARP two seconds after the first."""
    frames, counted = frames_of_a_reader(server, 11 * SEGMENT, 22 * SEGMENT)
    assert 3 * 11 <= frames <= 3 * 13 + 13
    assert counted["window_probes_out"] == counted["window_overrides"] == 0
    smaller, _ = frames_of_a_reader(server, 2 * SEGMENT, 22 * SEGMENT)
    assert smaller > 3 * frames


def test_slow_readers_that_are_all_served(server: HttpServer) -> None:
    client = LoadClient(
        MemoryWorld.SERVER,
        80,
        asking("/big.bin"),
        connections=20,
        read_bytes_per_second=RATE,
        read_step_bytes=2 * SEGMENT,
    )
    readers = run(server, client, SECOND, rcv_buffer_bytes=16384, rcv_buffer_max_bytes=16384)["readers"]
    assert (readers["step_bytes"], readers["due_bytes"], readers["served"]) == (2 * SEGMENT, RATE, 20)
    assert RATE - 2 * SEGMENT <= readers["least_bytes"] <= readers["most_bytes"] <= RATE + 2 * SEGMENT
    assert readers["fairness"] > 0.999


def test_readers_that_are_not_slow_are_not_compared(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=2, requests_most=10)
    assert run(server, client)["readers"] is None


def test_a_server_that_answers_no_fin_is_left(server: HttpServer) -> None:
    """On the machine's clock, which a driver has. Four parts would be ended, if anybody answered the first one."""
    count = 4 * 256
    client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=count, rate=1.0)
    links = [MemoryLink(mac=f"02:00:00:00:00:0{end}", checksum_offload=False) for end in (1, 2)]
    with (
        links[0] as ours,
        links[1] as theirs,
        Stack(ours, MemoryWorld.CLIENT + "/15") as stack,
        Stack(theirs, MemoryWorld.SERVER + "/15") as other,
    ):
        other.listen(80, application=server, backlog=count)
        client.begin(stack, 60 * SECOND)
        driver = Driver(client, stack)
        while client.stats()["open"] < count:
            assert not driver.run(MILLISECOND)
            for source, sink, end in ((ours, theirs, other), (theirs, ours, stack)):
                for frame in source.receive_all():
                    assert sink.inject(frame)
                end.poll()
        assert driver.finish(1) == 1


def test_nobody_listens(server: HttpServer) -> None:
    client = LoadClient(MemoryWorld.SERVER, 81, asking(), connections=4, timeout_ns=500 * MILLISECOND)
    with MemoryWorld(server, step_ns=STEP) as world:
        world.begin(client, 500 * MILLISECOND)
        assert world.run(client, 10 * SECOND)
        world.finish(client)
        assert holds_nothing(world.server_stack)
    stats = client.stats()
    assert set(stats["all"]["outcomes"]) == {"refused"}
    assert 20 <= stats["all"]["outcomes"]["refused"] <= 44  # each of four again after 100 ms
    assert stats["all"]["requests"] == server.stats()["requests"] == 0


def test_the_same_seed_gives_the_same_run(server: HttpServer) -> None:
    def one() -> tuple[dict[str, Any], bytes]:
        client = LoadClient(MemoryWorld.SERVER, 80, asking(), connections=9, rate=30_000, poisson=True, seed=5)
        return run(server, client, 30 * MILLISECOND), client.latency.counts()

    first, second = one(), one()
    assert first == second

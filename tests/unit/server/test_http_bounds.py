# SPDX-License-Identifier: MIT
"""What clients of the HTTP application can take: a part of a turn, memory, remembered heads; each has a bound."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.server.website import GET, Site, get
from ustack.testing.testbed import MILLISECOND, SECOND

# ---------------------------------------------------------------- one client against the others


def pipelined(kind: str, count: int) -> bytes:
    if kind == "missing":
        return b"".join(get(f"/missing/{number}") for number in range(count))
    if kind == "file":
        return b"".join(get(f"/?{number}") for number in range(count))
    if kind == "not remembered":
        return get("/", "If-Range: x", "Range: bytes=0-1", "Content-Length: 0") * count
    return get("/", method="PUT") * count


@pytest.mark.parametrize("kind", ["missing", "file", "not remembered", "refused"])
def test_pipelined_requests_take_a_bounded_part_of_a_turn(make_site: Callable[..., Site], kind: str) -> None:
    """A burst of 16 frames that each carry a thousand requests is many turns, and somebody else's request comes in
    one of the first."""
    site = make_site(pair={"network": {"mtu": 60_000}})
    flooding = [site.client() for _ in range(16)]
    other = site.client()
    site.pair.a.turns()
    for client in flooding:
        client.connection.send(pipelined(kind, 800))
    other.connection.send(GET)
    before = site.stats()["requests"]
    turns = served = 0
    while not other.received:
        site.pair.network.advance(site.pair.now_ns)
        site.pair.a.poll(site.pair.now_ns)
        site.pair.network.advance(site.pair.now_ns)
        site.pair.b.poll(site.pair.now_ns)
        served = site.stats()["requests"] - before
        other.read()  # once it has come, everything else happens, too
        turns += 1
        assert turns < 40
    if kind != "refused":
        assert served < 16 * 800
        assert site.stats()["put_off"] > 0
    site.settle()
    for _ in range(2000):
        for client in flooding:
            client.read()
        if all(client.received.count(b"HTTP/1.1 ") == 800 for client in flooding):
            break
        site.pass_time(MILLISECOND)
    assert [len(client.responses()) for client in flooding] == [800] * 16
    # Two stages, and what the last request of each may cost beyond its share.
    assert site.pair.a.turns()["units_max"] < 2 * (8192 + 1024)


# ---------------------------------------------------------------- memory that clients can take


def test_unfinished_heads_are_bounded_in_bytes_and_the_oldest_makes_room(make_site: Callable[..., Site]) -> None:
    site = make_site(max_request_bytes=100_000)
    holders = [site.client() for _ in range(40)]
    for holder in holders:
        holder.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 12_000)
        assert site.stats()["request_bytes"] <= 100_000
    assert site.stats()["requests_displaced"] >= 30
    for holder in holders:
        holder.read()
    told = [status for holder in holders for status, _, _ in holder.responses()]
    assert told == [503] * site.stats()["requests_displaced"]
    honest = site.client()
    honest.send(GET[:20])
    honest.send(GET[20:])
    assert [status for status, _, _ in honest.responses()] == [200]
    for holder in holders:
        holder.connection.abort()
    site.settle()
    assert site.stats()["request_bytes"] == 0


def test_heads_that_wait_for_their_bodies_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    site = make_site(max_request_bytes=100_000)
    holders = [site.client() for _ in range(40)]
    for holder in holders:
        holder.send(get("/", "X: " + "a" * 12_000, "Content-Length: 5") + b"1")
        assert site.stats()["request_bytes"] <= 100_000
    holders[-1].send(b"2345")
    assert [status for status, _, _ in holders[-1].responses()] == [200]
    assert site.stats()["requests_displaced"] >= 30


def test_a_request_whose_100_is_half_sent_is_displaced_by_a_reset(make_site: Callable[..., Site]) -> None:
    """What a connection holds is given back with it in whatever phase it is."""
    site = make_site(max_request_bytes=40_000, pair={"a": {"snd_queue_bytes": 4096}, "b": {"rcv_buffer_bytes": 2048}})
    stuck = site.client()
    (site.root / "filler").write_bytes(b"f" * 4000)
    # The queue holds 4,096 bytes, of which the client has taken 2,048: there is room for a part of the 100 only.
    stuck.connection.send(
        get("/filler", method="GET") + get("/", "X: " + "a" * 9000, "Expect: 100-continue", "Content-Length: 5")
    )
    site.settle()
    for _ in range(40):
        site.client().send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 12_000)
        assert site.stats()["request_bytes"] <= 40_000
    assert site.stats()["internal_errors"] == 0


def test_one_head_takes_no_more_than_its_limit(site: Site) -> None:
    client = site.client()
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
    for _ in range(160):
        client.send(b"a" * 100)
        assert 0 < site.stats()["request_bytes"] <= 16_385


def test_responses_in_flight_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    """Clients that ask for ever other responses and read none. Refusals and files are shared, and go on."""
    site = make_site(max_response_bytes=1 << 20, max_heads=8, pair={"b": {"rcv_buffer_bytes": 8192}})
    (site.root / "s48").write_bytes(b"s" * 49_000)
    site.ask(get("/text.txt"))
    number = 0
    for _ in range(12):
        client = site.client()
        for _ in range(40):
            number += 1
            client.connection.send(get("/s48", f"Range: bytes={number}-{number + 4000}"))
        site.settle()
        assert site.stats()["response_bytes"] <= 1 << 20
    assert site.stats()["responses_refused"] > 0
    assert site.ask(get("/text.txt"))[0] == 200
    assert site.ask(get("/missing"))[0] == 404


def test_heads_make_room_for_responses_from_wherever_the_hand_is(make_site: Callable[..., Site]) -> None:
    """It stands behind two heads that were asked for again, and goes on with the first when there is none behind it."""
    site = make_site(max_response_bytes=1 << 20, max_heads=4, pair={"b": {"rcv_buffer_bytes": 8192}})
    (site.root / "s48").write_bytes(b"s" * 49_000)

    def part(number: int) -> bytes:
        return get("/s48", f"Range: bytes={number}-{number + 4000}")

    for number in (0, 1, 2, 3, 0, 1, 4):
        assert site.ask(part(number))[0] == 206
    assert (site.stats()["head_hits"], site.stats()["heads_remembered"]) == (2, 4)
    for number in range(5, 5 + 12 * 40):
        if number % 40 == 5:
            client = site.client()
        client.connection.send(part(number))
        site.settle()
        assert site.stats()["response_bytes"] <= 1 << 20
        if site.stats()["responses_refused"]:
            break
    assert (site.stats()["responses_refused"], site.stats()["heads_remembered"]) == (1, 0)


def test_a_plain_head_whose_response_has_no_room_is_refused(make_site: Callable[..., Site]) -> None:
    """Clients that read nothing have it all: of files that each had a response of its own."""
    site = make_site(max_response_bytes=1 << 20, pair={"b": {"rcv_buffer_bytes": 8192}})
    for number in range(400):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)
    site.ask(get("/f0"))
    site.ask(get("/f1"))
    for number in range(2, 400):
        if number % 40 == 2:
            client = site.client()
        client.connection.send(get(f"/f{number}"))
        site.settle()
        assert site.stats()["response_bytes"] <= 1 << 20
        if site.stats()["responses_refused"]:
            break
    counts = site.stats()
    assert (counts["responses_refused"], counts["responses_5xx"]) == (1, 1)
    assert counts["heads_plain"] == counts["requests"] - 2  # the first one had a section to show, the last one no room
    assert site.ask(get("/missing"))[0] == 404


def test_what_is_only_remembered_makes_room_for_responses(make_site: Callable[..., Site]) -> None:
    """Heads seen before and files asked for before keep copies; nobody is refused because of them."""
    site = make_site(max_response_bytes=1 << 20)
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(300):
        assert site.ask(get("/s48", f"Range: bytes={number}-{number + 4000}"))[0] == 206
        assert site.stats()["response_bytes"] <= 1 << 20
    for number in range(300):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)
        assert site.ask(get(f"/f{number}"))[2] == b"f" * 4000
        assert site.stats()["response_bytes"] <= 1 << 20
    assert site.ask(get("/s48", "Range: bytes=0-0"))[0] == 206
    assert site.stats()["responses_refused"] == 0


def test_a_file_is_served_while_ranges_fill_the_memory_for_responses(make_site: Callable[..., Site]) -> None:
    """Also one that nobody has asked for before."""
    site = make_site(max_response_bytes=1 << 20, pair={"b": {"rcv_buffer_bytes": 8192}})
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(400):
        if number % 40 == 0:
            client = site.client()
        client.connection.send(get("/s48", f"Range: bytes={number}-{number + 4000}"))
        site.settle()
    assert site.stats()["responses_refused"] > 0
    for number in range(40):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)
        assert site.ask(get(f"/f{number}"))[2] == b"f" * 4000


def test_bodies_that_are_copies_are_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    site = make_site(max_copied_bytes=100_000)
    for number in range(20):
        (site.root / f"f{number}").write_bytes(b"f" * 20_000)
        assert len(site.ask(get(f"/f{number}"))[2]) == 20_000
        assert 0 < site.stats()["copied_bytes"] <= 100_000
    assert site.stats()["files_open"] == 5


# ---------------------------------------------------------------- remembered heads


def test_repeated_head_is_remembered(site: Site) -> None:
    for path in ("/text.txt", "/big", "/text.txt", "/big", "/text.txt", "/text.txt"):
        site.ask(get(path))
    assert (site.stats()["head_misses"], site.stats()["head_hits"]) == (2, 4)


REFUSED = [
    (get("/", method="PUT"), 405),
    (get("*", method="OPTIONS"), 204),
    (get("/a%2fb"), 404),
    (get("/%zz"), 400),
    (get("/", "Expect: miracle"), 417),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GARBAGE\r\n\r\n", 400),
    (get("/", method="BREW"), 501),
    (get("/", version="2.0"), 505),
    (get("/", "Content-Length: 100000"), 413),
    (get("/", *["A: b"] * 110), 431),
    (get("/missing"), 404),
    (get("/missing/"), 404),
    (get("/text.txt/x"), 404),
    (get("/" + "x" * 300), 404),
]


@pytest.mark.parametrize(("octets", "status"), REFUSED)
def test_refusals_are_remembered(site: Site, octets: bytes, status: int) -> None:
    responses = [site.ask(octets) for _ in range(3)]
    assert [found for found, _, _ in responses] == [status] * 3
    assert responses[0] == responses[2]
    assert (site.stats()["head_misses"], site.stats()["head_hits"]) == (1, 2)


def test_requests_with_bodies_are_not_remembered(site: Site) -> None:
    for octets in (get("/", "Content-Length: 1") + b"x", get("/missing", "Content-Length: 1") + b"x"):
        site.ask(octets)
    assert site.stats()["heads_remembered"] == 0


@pytest.mark.parametrize("path", ["/new.txt", "/new/", "/new/a"])
@pytest.mark.parametrize("checks", [1000, 0])
def test_a_remembered_404_ends_when_the_file_comes(make_site: Callable[..., Site], path: str, checks: int) -> None:
    """At once on a quiet server, within revalidate_s on one that has no checks left."""
    site = make_site(checks_per_second=checks)
    assert site.ask(get(path))[0] == site.ask(get(path))[0] == 404
    assert site.stats()["head_hits"] == 1
    file = site.root / (path[1:] + ("index.html" if path.endswith("/") else ""))
    file.parent.mkdir(exist_ok=True)
    file.write_text("here")
    if not checks:
        assert site.ask(get(path))[0] == 404
        site.pass_time(1001 * MILLISECOND)
    assert site.ask(get(path))[0] == 200


def test_a_link_that_leads_out_is_looked_at_each_time(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (site.root / "out").symlink_to("../secret")
    assert [site.ask(get("/out"))[0] for _ in range(2)] == [404, 404]
    assert site.stats()["heads_remembered"] == 0


def test_head_table_is_bounded_in_bytes(make_site: Callable[..., Site]) -> None:
    """Partial responses are remembered without the bytes of the file."""
    site = make_site(max_heads_bytes=100_000)
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(500):
        status, _, body = site.ask(get("/s48", f"Range: bytes=0-{48_999 - number}"))
        assert (status, len(body)) == (206, 49_000 - number)
        assert 0 < site.stats()["heads_bytes"] <= 100_000
    assert site.stats()["heads_remembered"] > 100
    assert site.stats()["response_bytes"] < 100_000
    assert site.stats()["copied_bytes"] < 60_000


def test_head_table_is_bounded_and_keeps_what_is_used(make_site: Callable[..., Site]) -> None:
    site = make_site(max_heads=8)
    site.ask(get("/text.txt"))
    site.ask(get("/sub/"))
    for number in range(100):
        site.ask(get("/text.txt"))
        site.ask(get(f"/?{number}"))
    assert site.stats()["heads_remembered"] == 8
    assert site.stats()["head_hits"] == 100


def test_date_moves_with_the_clock_in_ready_made_responses(site: Site) -> None:
    dates = []
    for _ in range(3):
        dates.append(site.ask(get("/"))[1]["Date"])
        site.pass_time(2 * SECOND)
    assert dates == sorted(set(dates))


def test_response_in_flight_keeps_its_octets_when_it_is_dated_again(make_site: Callable[..., Site]) -> None:
    site = make_site(pair={"network": {"delay_ns": 1500 * MILLISECOND}})
    clients = [site.client() for _ in range(3)]
    site.pass_time(30 * SECOND)
    for client in clients:
        client.connection.send(get("/text.txt"))
        site.pass_time(SECOND)
    site.pass_time(10 * SECOND)
    for client in clients:
        client.read()
    dates = [client.responses()[0][1]["Date"] for client in clients]
    assert len(set(dates)) == 3


def test_a_response_keeps_its_date_where_a_copy_finds_no_room(make_site: Callable[..., Site]) -> None:
    """Somebody is sent the ready-made one, so it cannot be dated again, and others in flight have all the memory."""
    site = make_site(over="memory", max_response_bytes=1 << 20)
    (site.root / "s48").write_bytes(b"s" * 49_000)
    for number in range(60):
        (site.root / f"f{number}").write_bytes(b"f" * 4000)

    def ask_and_read_nothing(request: bytes) -> None:
        client = site.client()
        client.connection.window_bytes = 0
        client.connection.send(request)
        site.settle()

    for number in range(300):
        ask_and_read_nothing(get("/s48", f"Range: bytes={number}-{number + 4000}"))
    number = 0
    while site.stats()["response_bytes"] <= (1 << 20) - 4300:  # an eighth is for files
        ask_and_read_nothing(get(f"/f{(number := number + 1)}"))
    site.pass_time(2 * SECOND)
    status, fields, body = site.ask(get(f"/f{number}"))
    assert (status, body) == (200, b"f" * 4000)
    assert site.stats()["dates_kept"] == 1
    assert fields["Date"].endswith("22:13:20 GMT")

# SPDX-License-Identifier: MIT
"""Files that are read while others go on: a transport in memory, where each read ends when the test says so."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.server.website import BIG, GET, Client, MemorySite, get
from ustack.buf import lent
from ustack.testing.testbed import SECOND

WARM_BYTES = 1 << 17
WARM_MOST = 1 << 24
FETCH_MOST = 1 << 20
LOADS = 64
WARM_LOADS = 48


@pytest.fixture
def make(root: Path) -> Iterator[Callable[..., MemorySite]]:
    alive = lent.alive()
    descriptors = len(os.listdir("/proc/self/fd"))
    made: list[MemorySite] = []

    def site(**options: int) -> MemorySite:
        made.append(MemorySite(root, reads_files=True, **options))
        return made[-1]

    yield site
    for each in made:
        each.close()
    made.clear()
    assert lent.alive() == alive
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.fixture
def site(make: Callable[..., MemorySite]) -> MemorySite:
    return make()


def asking(site: MemorySite, path: str) -> Client:
    client = site.client()
    client.send(get(path))
    return client


def bodies(client: Client) -> list[bytes]:
    return [body for _, _, body in client.responses()]


def end_all(site: MemorySite) -> int:
    """Every read that is under way or follows. How many there were."""
    ended = 0
    while site.transport.reads:
        ended += site.transport.reads
        site.transport.end_reads(site.transport.reads)
        site.settle()
    for client in site.clients:
        client.read()
    return ended


def learn(site: MemorySite) -> None:
    """What a plain head is, so that the next ones are decided without Python."""
    for _ in range(3):
        asking(site, "/")
        end_all(site)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("path", "reads"), [("/text.txt", 1), ("/middle", 1), ("/big", len(BIG) // WARM_BYTES), ("/packed.css", 2)]
)
def test_who_asks_waits_until_the_file_has_come(site: MemorySite, path: str, reads: int, plain: bool) -> None:
    if plain:
        learn(site)
    client = asking(site, path)
    assert (client.received, site.transport.reads) == (b"", 1)
    assert end_all(site) == reads
    assert bodies(client) == [(site.root / path[1:]).read_bytes()]
    again = asking(site, path)
    assert site.transport.reads == 0
    assert bodies(again) == bodies(client)


def test_others_go_on(site: MemorySite) -> None:
    learn(site)
    first = asking(site, "/text.txt")
    second = asking(site, "/")
    assert (bodies(second), first.received) == ([b"home"], b"")
    end_all(site)
    assert bodies(first) == [b"text"]


def test_what_follows_on_the_connection_waits_behind_it(site: MemorySite) -> None:
    learn(site)
    client = site.client()
    client.send(get("/text.txt") + GET)
    assert client.received == b""
    end_all(site)
    assert bodies(client) == [b"text", b"home"]


@pytest.mark.parametrize("path", ["/text.txt", "/big"])
def test_all_who_ask_for_a_file_share_one_read(site: MemorySite, path: str) -> None:
    clients = [asking(site, path) for _ in range(50)]
    assert (site.transport.reads, site.stats()["loads"]) == (1, 1)
    end_all(site)
    assert site.stats()["loads"] == 1
    assert {body for client in clients for body in bodies(client)} == {(site.root / path[1:]).read_bytes()}


@pytest.mark.parametrize("ended", ["abort", "shutdown"])
def test_who_goes_away_leaves_the_load_to_the_others(site: MemorySite, ended: str) -> None:
    """A half-closed client still gets its response."""
    gone, other = asking(site, "/text.txt"), asking(site, "/text.txt")
    getattr(gone.connection, ended)()
    site.settle()
    end_all(site)
    assert bodies(other) == [b"text"]
    assert bodies(gone) == ([b"text"] if ended == "shutdown" else [])
    assert site.stats()["request_bytes"] == 0


def test_a_load_that_nobody_waits_for_is_not_lost(site: MemorySite) -> None:
    gone = asking(site, "/text.txt")
    gone.connection.abort()
    site.settle()
    end_all(site)
    assert (bodies(asking(site, "/text.txt")), site.stats()["loads"]) == ([b"text"], 1)


@pytest.mark.parametrize("path", ["/text.txt", "/big"])
@pytest.mark.parametrize("change", ["edited", "replaced", "cut", "emptied", "removed"])
def test_a_file_that_changes_while_it_is_read(site: MemorySite, path: str, change: str) -> None:
    """Its bytes are those of one state of it: of the one that is there at the end."""
    file = site.root / path[1:]
    before = file.read_bytes()
    client = asking(site, path)
    if change == "edited":
        file.write_bytes(before[::-1])
    elif change == "replaced":
        other = file.with_suffix(".new")
        other.write_bytes(b"new" + before)
        other.rename(file)
    elif change == "cut":
        file.write_bytes(before[: len(before) // 2])
    elif change == "emptied":
        file.write_bytes(b"")
    else:
        file.unlink()
    end_all(site)
    [(status, fields, body)] = client.responses()
    if change == "removed":
        assert status == 404
    else:
        assert (status, body, int(fields["Content-Length"])) == (200, file.read_bytes(), file.stat().st_size)
    assert site.stats()["internal_errors"] == 0


@pytest.mark.parametrize("path", ["/text.txt", "/big", "/packed.css"])
def test_a_read_that_fails_is_made_again_at_once(site: MemorySite, path: str) -> None:
    clients = [asking(site, path) for _ in range(3)]
    site.transport.end_reads(error=errno.EIO)
    site.settle()
    end_all(site)
    assert [bodies(client) for client in clients] == [[(site.root / path[1:]).read_bytes()]] * 3
    assert (site.stats()["loads_failed"], site.transport.reads) == (1, 0)


def test_a_read_that_brings_less_goes_on(site: MemorySite) -> None:
    client = asking(site, "/text.txt")
    for _ in range(4):
        assert client.received == b""
        site.transport.end_reads(most_bytes=1)
        site.settle()
        client.read()
    assert bodies(client) == [b"text"]


def test_a_large_file_is_read_ahead_up_to_a_bound(site: MemorySite) -> None:
    with (site.root / "huge").open("wb") as file:
        file.truncate(3 * WARM_MOST)
    client = site.client()
    client.send(get("/huge", "Range: bytes=0-9"))
    assert end_all(site) == WARM_MOST // WARM_BYTES
    assert client.responses()[0][0] == 206


def test_so_many_are_read_at_once_and_the_others_queue(site: MemorySite) -> None:
    """In the order in which they came, each as soon as one has ended."""
    learn(site)
    for number in range(LOADS + 30):
        (site.root / f"f{number}").write_text(f"{number}")
    clients = [asking(site, f"/f{number}") for number in range(LOADS + 30)]
    assert (site.transport.reads, site.stats()["loads"]) == (LOADS, LOADS + 1)
    answered = []
    for number in range(LOADS + 30):
        site.transport.end_reads()
        site.settle()
        for client in clients:
            client.read()
        answered.append([at for at, client in enumerate(clients) if client.received])
        assert site.transport.reads == min(LOADS, LOADS + 29 - number)
    assert answered == [list(range(number + 1)) for number in range(LOADS + 30)]
    assert [bodies(client) for client in clients] == [[b"%d" % number] for number in range(LOADS + 30)]


def large(site: MemorySite, number: int) -> str:
    with (site.root / f"large{number}").open("wb") as file:
        file.truncate(FETCH_MOST + 1)
    return f"/large{number}"


def test_larger_files_leave_small_ones_a_share(site: MemorySite) -> None:
    learn(site)
    clients = [asking(site, large(site, number)) for number in range(LOADS)]
    assert site.transport.reads == WARM_LOADS
    small = asking(site, "/text.txt")
    assert site.transport.reads == WARM_LOADS + 1
    end_all(site)
    assert bodies(small) == [b"text"]
    assert {len(body) for client in clients for body in bodies(client)} == {FETCH_MOST + 1}


def test_small_files_leave_larger_ones_a_share(site: MemorySite) -> None:
    """However many wait, one that is read to its end makes room for a larger one until those have a quarter."""
    learn(site)
    for number in range(3 * LOADS):
        (site.root / f"f{number}").write_text(f"{number}")
    clients = [asking(site, f"/f{number}") for number in range(2 * LOADS)]
    waiting = [asking(site, large(site, number)) for number in range(LOADS)]
    clients += [asking(site, f"/f{number}") for number in range(2 * LOADS, 3 * LOADS)]
    site.transport.end_reads(LOADS - WARM_LOADS)
    site.settle()
    site.transport.end_reads(WARM_LOADS)
    site.settle()
    assert site.transport.reads == LOADS
    for client in clients:
        client.read()
    assert sum(client.received != b"" for client in clients) == LOADS
    end_all(site)
    assert [bodies(client) for client in clients] == [[b"%d" % number] for number in range(3 * LOADS)]
    assert {len(body) for client in waiting for body in bodies(client)} == {FETCH_MOST + 1}


@pytest.mark.parametrize(("path", "status"), [("/missing", 404), ("/empty", 200)])
def test_where_nothing_is_to_be_read_nobody_queues(site: MemorySite, path: str, status: int) -> None:
    learn(site)
    for number in range(LOADS + 1):
        (site.root / f"f{number}").write_text(f"{number}")
        asking(site, f"/f{number}")
    (site.root / "empty").touch()
    [(found, _, body)] = asking(site, path).responses()
    assert (found, site.transport.reads, site.stats()["loads"]) == (status, LOADS, LOADS + 1)
    assert body == b"" or status == 404


def test_the_rest_of_a_larger_file_that_nobody_waits_for_is_not_read(site: MemorySite) -> None:
    gone = asking(site, "/big")
    gone.connection.abort()
    site.settle()
    assert end_all(site) == 1
    assert (site.stats()["loads"], site.stats()["loads_failed"]) == (1, 0)
    assert bodies(asking(site, "/middle")) == []
    end_all(site)


def test_heads_for_python_do_not_keep_a_file_that_has_come_waiting(site: MemorySite) -> None:
    """As many as would fill hand-over after hand-over: one is decided for each of them."""
    learn(site)
    asking(site, "/index.html")
    end_all(site)
    waiting = [asking(site, "/text.txt"), asking(site, "/text.txt")]
    clients = [site.client() for _ in range(300)]
    for number, client in enumerate(clients):
        client.connection.send(get(f"/%69ndex.html?{number}"))
    before = site.stats()
    site.transport.end_reads()
    site.transport.poll()
    after = site.stats()
    assert 0 < after["head_misses"] - before["head_misses"] < 150
    for client in waiting:
        client.read()
    assert [bodies(client) for client in waiting] == [[b"text"], [b"text"]]
    site.settle()
    for client in clients:
        client.read()
    assert [bodies(client) for client in clients] == [[b"home"]] * 300


def test_the_queue_goes_on_when_its_first_ones_have_gone(site: MemorySite) -> None:
    for number in range(LOADS + 10):
        (site.root / f"f{number}").write_text(f"{number}")
    clients = [asking(site, f"/f{number}") for number in range(LOADS + 10)]
    for client in clients[LOADS : LOADS + 9]:
        client.connection.abort()
    site.settle()
    end_all(site)
    assert bodies(clients[-1]) == [b"%d" % (LOADS + 9)]
    assert site.stats()["loads"] == LOADS + 1
    assert site.stats()["request_bytes"] == 0


def test_heads_that_wait_are_bounded_in_bytes(make: Callable[..., MemorySite]) -> None:
    """A quarter of max_request_bytes, besides those that wait for Python; one more is answered 503."""
    site = make(max_request_bytes=1 << 16)
    clients = [asking(site, "/text.txt") for _ in range(1000)]
    assert site.stats()["request_bytes"] <= 1 << 14
    turned_away = site.stats()["heads_turned_away"]
    assert 0 < turned_away < 1000
    unseen = asking(site, "/%6donly")
    assert unseen.responses()[0][0] == 404
    end_all(site)
    found = [client.responses()[0][0] for client in clients]
    assert (found.count(503), found.count(200)) == (turned_away, 1000 - turned_away)


def test_a_turn_answers_no_more_than_it_pays_for(site: MemorySite) -> None:
    clients = [asking(site, "/text.txt") for _ in range(3000)]
    site.transport.end_reads()
    site.transport.poll()
    assert 0 < site.stats()["responses_2xx"] < 3000
    end_all(site)
    assert all(bodies(client) == [b"text"] for client in clients)


def test_it_waits_for_the_disk_and_not_for_its_client(site: MemorySite) -> None:
    client = asking(site, "/text.txt")
    site.pass_time(1000 * SECOND)
    client.read()
    assert (client.received, client.ended) == (b"", "")
    end_all(site)
    assert bodies(client) == [b"text"]


def test_a_body_is_read_before_its_file(site: MemorySite) -> None:
    """The file changes while the request's body comes: it is decided again, and waits for the new one."""
    asking(site, "/text.txt")
    end_all(site)
    client = site.client()
    client.send(get("/text.txt", "Content-Length: 4"))
    (site.root / "text.txt").write_text("changed")
    site.pass_time(2 * SECOND)
    client.send(b"body")
    assert client.received == b""
    end_all(site)
    assert bodies(client) == [b"changed"]


def test_a_server_that_finishes_answers_who_waits(site: MemorySite) -> None:
    client = asking(site, "/text.txt")
    site.server.finish(site.transport)
    assert not site.server.finished
    end_all(site)
    [(status, fields, body)] = client.responses()
    assert (status, fields["Connection"], body) == (200, "close", b"text")


@pytest.mark.parametrize("paths", [["/text.txt"], ["/big"], ["/text.txt", "/big"]])
def test_a_server_that_closes_leaves_nothing(site: MemorySite, paths: list[str]) -> None:
    for path in paths:
        asking(site, path)
    site.server.close()
    end_all(site)
    assert site.stats()["connections_open"] == 0
    assert all(client.received == b"" for client in site.clients)


def test_a_server_that_has_gone_is_not_missed(root: Path) -> None:
    """Its last connection ends before the read does."""
    alive = lent.alive()
    descriptors = len(os.listdir("/proc/self/fd"))
    site = MemorySite(root, reads_files=True)
    asking(site, "/big").connection.abort()
    site.settle()
    site.server.close()
    site.transport.end_reads()
    site.settle()
    assert site.transport.reads == 0
    site.transport.close()
    assert lent.alive() == alive
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_transport_that_goes_ends_what_it_reads(root: Path) -> None:
    alive = lent.alive()
    site = MemorySite(root, reads_files=True)
    asking(site, "/big")
    asking(site, "/text.txt")
    site.transport.close()
    assert site.stats()["loads_failed"] == 2
    site.server.close()
    assert lent.alive() == alive


def test_where_files_are_not_read_beside_nothing_is_kept(root: Path) -> None:
    site = MemorySite(root)
    assert bodies(asking(site, "/big")) == [BIG]
    assert (site.stats()["loads"], site.transport.reads) == (0, 0)
    site.close()

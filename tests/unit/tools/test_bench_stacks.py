# SPDX-License-Identifier: MIT
"""contestants tap, lwip, ...: other userspace stacks are asked for real; what counts for them and not for sockets."""

import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ustack.lab import inside
from ustack.lab.namespace import names as namespaces
from ustack.tools.bench import contestants, site
from ustack.tools.bench.contestants.base import Absent, Contestant, congestion_control_allowed
from ustack.tools.bench.contestants.tap import OnTap
from ustack.tools.bench.experiments.base import too_many
from ustack.tools.pair import tap_pair

STACKS = {name: kind for name, kind in contestants.known().items() if issubclass(kind, OnTap)}
CORE = max(os.sched_getaffinity(0))
GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("curl") is None, reason="needs root and curl")


class Stack(OnTap):
    name = "some-stack"
    files = ("/no/such/header.h", "/")
    install = "apt-get install some-stack"


def test_a_file_that_is_missing_is_said_with_how_it_comes(tmp_path: Path):
    with pytest.raises(Absent, match=r"^/no/such/header.h not installed: apt-get install some-stack$"):
        Stack(tmp_path, tmp_path, CORE).start()


def test_connections_of_another_stack_take_no_descriptors(tmp_path: Path):
    class Server(Contestant):
        name = "server"

    more = resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 1
    assert too_many(Stack(tmp_path, tmp_path, CORE), more) == ""
    assert "descriptors" in too_many(Server(tmp_path, tmp_path, CORE), more)


@needs_root
@pytest.mark.root
def test_a_tap_device_is_there_for_the_server_to_open():
    with tap_pair("unit") as pair:
        assert pair.server_netns == pair.client_netns
        with inside(pair.client_netns):
            assert pair.device in [name for _, name in socket.if_nameindex()]
    assert pair.client_netns not in namespaces()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    made = tmp_path_factory.mktemp("stacks") / "site"
    made.mkdir()
    sizes = {**{name: size for name, size in site.FILES.items() if size <= 1 << 20}, "/a/empty.bin": 0}
    return made, {name: site.write(made, name, size) for name, size in sizes.items()}


@pytest.fixture(scope="module", params=STACKS)
def served(request: pytest.FixtureRequest, folder: tuple[Path, dict[str, str]]) -> Iterator[Contestant]:
    server = STACKS[request.param](folder[0].parent, folder[0], CORE)
    if said := server.missing():
        pytest.skip(said)
    with congestion_control_allowed():
        server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server: Contestant, *pieces: bytes) -> bytes:
    """Send each piece after what came for the one before it; everything until the server closes."""
    with inside(server.client_netns):
        conn = socket.create_connection((server.host, 80), timeout=20)
    received = b""
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            conn.sendall(piece)
            if piece != pieces[-1] and piece.endswith(b"\r\n\r\n"):
                received += conn.recv(1 << 16)
        while part := conn.recv(1 << 16):
            received += part
    return received


def bodies(answer: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies, as their lengths say; nothing is left over, but to one that has no length."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        lengths = [int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")]
        assert lengths or b"connection: close" in head.lower()
        length = lengths[0] if lengths else len(answer)
        assert len(answer) >= length
        found.append((int(head.split()[1]), answer[:length]))
        answer = answer[length:]
    return found


@needs_root
@pytest.mark.root
class TestServed:
    def test_every_file_arrives(self, served: Contestant, folder: tuple[Path, dict[str, str]]):
        served.check_files(folder[1])

    def test_a_connection_is_kept_and_ends_where_it_is_told_to(self, served: Contestant):
        body = (served.site / "512.bin").read_bytes()
        wanted = [(200, body), (200, body)]
        assert bodies(ask(served, GET % b"/512.bin", LAST % b"/512.bin")) == wanted

    def test_pipelined_requests_are_answered_in_order(self, served: Contestant):
        small, large = ((served.site / name).read_bytes() for name in ("512.bin", "1m.bin"))
        asked = GET % b"/512.bin" + GET % b"/1m.bin" + GET % b"/none.bin" + LAST % b"/512.bin" + GET % b"/512.bin"
        assert bodies(ask(served, asked)) == [(200, small), (200, large), (404, b""), (200, small)]

    def test_a_head_may_come_in_pieces(self, served: Contestant):
        head = LAST % b"/512.bin"
        wanted = [(200, (served.site / "512.bin").read_bytes())]
        assert bodies(ask(served, *(head[at : at + 9] for at in range(0, len(head), 9)))) == wanted

    def test_what_lies_outside_is_not_served(self, served: Contestant):
        secret = served.site.parent / "secret"
        secret.write_text("x")
        assert bodies(ask(served, GET % b"/../secret" + LAST % b"/%s" % bytes(secret))) == [(404, b"")] * 2

    @pytest.mark.parametrize("head", [b"POST /512.bin HTTP/1.1\r\nHost: a\r\n\r\n", b"GET\r\n\r\n", b"a" * 20000])
    def test_what_is_no_request_ends_the_connection(self, served: Contestant, head: bytes):
        ((status, _),) = bodies(ask(served, head))
        assert status in (400, 431)

    def test_what_the_report_says_of_it(self, served: Contestant):
        about = served.describe()
        assert about["kind"] == "stack"
        assert about["version"]
        assert "SPDX-License-Identifier" in str(about["configuration"])

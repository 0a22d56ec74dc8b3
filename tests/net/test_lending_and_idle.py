# SPDX-License-Identifier: MIT
"""What the stack holds: lent buffers until they are acknowledged, a processor while there is work, and no longer."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.net.patience import PATIENT
from ustack.buf.lent import alive

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ADDRESS, PEER = "198.18.0.2", "198.18.0.1"
MIB = 1 << 20


# ---------------------------------------------------------------- lending


def accepted(one: Any, listener: Any, **options: Any) -> tuple[Any, Any]:
    """A connection from the kernel: its socket, and our end."""
    client = one.connect(**options)
    connection = listener.accept(timeout=30)
    one.drive(lambda: one.established(client))
    return client, connection


def test_a_buffer_is_lent_until_its_last_octet_is_acknowledged(local: Callable[..., Any], link: str) -> None:
    """The object's own count of references tells: the stack holds it as long as it may have to be sent again."""
    one = local(link)
    with one.stack.listen(80) as listener:
        client, connection = accepted(one, listener, receive_buffer=8192)
        data = random.Random("lent").randbytes(MIB)
        free = sys.getrefcount(data)
        connection.send(data)
        one.run_for(20)
        assert sys.getrefcount(data) > free
        assert one.read_all(client, MIB - 1) == data[:-1]
        assert one.read_all(client, 1) == data[-1:]
        one.drive(lambda: sys.getrefcount(data) == free)
        connection.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_anything_contiguous_can_be_lent(local: Callable[..., Any], link: str, kind: Any) -> None:
    one = local(link)
    data = random.Random("kinds").randbytes(3 * MIB + 1)
    with one.stack.listen(80) as listener:
        client, connection = accepted(one, listener)
        lent = kind(data)
        connection.send(lent)
        connection.close()
        assert one.read_all(client, len(data)) == data
        del lent


def test_one_object_lent_to_20_connections(local: Callable[..., Any], link: str) -> None:
    """A queue holds (object, offset, length), so 200 MiB queued cost no memory but the pieces' records."""
    one = local(link)
    data = random.Random("shared").randbytes(10 * MIB)
    with one.stack.listen(80) as listener:
        pairs = [accepted(one, listener) for _ in range(20)]
        for _, connection in pairs:
            connection.send(data)
        assert one.stack.leaks()["send_pieces"] <= 2 * len(pairs)
        for client, connection in pairs:
            assert one.read_all(client, len(data)) == data
            connection.close()
            client.close()


def test_an_aborted_connection_gives_back_what_it_was_lent(local: Callable[..., Any], link: str) -> None:
    one = local(link)
    data = bytes(10 * MIB)
    free = sys.getrefcount(data)
    with one.stack.listen(80) as listener:
        _, connection = accepted(one, listener, receive_buffer=8192)
        connection.send(data)
        one.run_for(5)
        connection.abort()
        one.drive(lambda: connection.state == "CLOSED")
    assert sys.getrefcount(data) == free
    assert one.stack.leaks()["send_pieces"] == 0


def test_a_file_truncated_under_a_response_ends_that_response_only(
    local: Callable[..., Any], link: str, site: Any, tmp_path: Path
) -> None:
    """Pages beyond the end of a mapped file are a SIGBUS for who reads them; the server must not be killed by it."""
    one = local(link)
    file = tmp_path / "shrinks.bin"
    file.write_bytes(site.body("ten.bin"))
    (tmp_path / "stays.bin").write_bytes(site.body("one.bin"))
    one.serve(tmp_path)
    client = one.ask("shrinks.bin", receive_buffer=8192)
    one.read_head(client)
    os.truncate(file, 4096)
    got = bytearray()

    def ended() -> bool:
        try:
            piece = one.read(client)
        except ConnectionResetError:
            return True
        got.extend(piece or b"")
        return piece == b""

    one.drive(ended)
    assert len(got) < 10 * MIB, "the response must not look complete"
    copy = tmp_path / "copy"
    assert one.finish(one.start("curl", "-sS", "--fail", "-o", str(copy), f"http://{ADDRESS}/stays.bin"))[0] == 0
    assert copy.read_bytes() == site.body("one.bin")


def test_a_file_changed_under_a_response_does_not_reach_the_next(
    serving: Callable[..., Any], link: str, site: Any, tmp_path: Path
) -> None:
    """Replaced as an editor does it: the old response ends with the old file, the next has the new one."""
    tmp_path.chmod(0o755)  # the server is nobody by the time that it looks into it
    file = tmp_path / "page.bin"
    file.write_bytes(site.body("ten.bin"))
    server = serving(link, directory=tmp_path)
    slow = server.start("curl", "-sS", server.url("page.bin"))
    received = hashlib.sha256(slow.stdout.read(100_000))
    (tmp_path / "new").write_bytes(site.body("one.bin"))
    os.replace(tmp_path / "new", file)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(1.2)  # the server looks at its files once a second
    assert server.get("page.bin") == site.body("one.bin")
    received.update(slow.stdout.read())
    assert received.hexdigest() == site.digests["ten.bin"]


# ---------------------------------------------------------------- two of us


def meet(one: Any, other: Any, holds: Callable[[], bool]) -> None:
    """Move both stacks until something holds. Frames on a veth pair arrive within the send, so polls need no waiting
    except for timers; the bound is on turns, not on time, and far beyond the second after which a SYN goes again that
    found no room behind the question for its station."""
    for _ in range(50_000_000):
        if holds():
            return
        other.stack.poll()
        one.stack.poll()
    raise AssertionError((one.stack.connections("connection"), other.stack.connections("connection")))


def take(connection: Any, into: bytearray) -> bool:
    """What there is; True at the end of the stream."""
    try:
        piece = connection.receive(MIB, timeout=0)
    except BlockingIOError:
        return False
    into.extend(piece)
    return not piece


def test_two_stacks_against_each_other_10_mib_each_way(local: Callable[..., Any]) -> None:
    server = local("veth", **PATIENT)
    client = local("veth", at_peer_of=server, **PATIENT)
    listener = server.stack.listen(80)
    opened = client.stack.connect(ADDRESS, 80, wait=False)
    meet(server, client, lambda: listener.pending and opened.established)
    taken = listener.accept()
    up, down = random.Random("up").randbytes(10 * MIB), random.Random("down").randbytes(10 * MIB)
    opened.send(up, timeout=0)
    taken.send(down, timeout=0)
    opened.shutdown()
    taken.shutdown()
    got_up, got_down = bytearray(), bytearray()
    ends = {"up": False, "down": False}

    def both_ended() -> bool:
        ends["up"] = ends["up"] or take(taken, got_up)
        ends["down"] = ends["down"] or take(opened, got_down)
        return all(ends.values())

    meet(server, client, both_ended)
    assert (got_up == up, got_down == down) == (True, True)
    meet(
        server,
        client,
        lambda: not server.stack.connections("connection") and not client.stack.connections("connection"),
    )
    for end in (server, client):
        counters = end.stack.counters()
        assert counters["segments_retransmitted"] == 0
        assert counters["resets_out"] == 0
        assert not {name: count for name, count in counters.items() if name.startswith("drop_tcp") and count}
    listener.close()


def test_200_connections_between_two_stacks(local: Callable[..., Any], site: Any) -> None:
    """Our client against our HTTP server: all at once, each its own page."""
    server = local("veth")
    server.serve(site.path)
    client = local("veth", at_peer_of=server)
    connections = [client.stack.connect(ADDRESS, 80, wait=False) for _ in range(200)]
    meet(server, client, lambda: all(connection.established for connection in connections))
    answers = [bytearray() for _ in connections]
    for number, connection in enumerate(connections):
        connection.send(f"GET /pages/{number % 50}.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    open_ones = set(range(200))

    def all_ended() -> bool:
        for number in list(open_ones):
            if take(connections[number], answers[number]):
                open_ones.discard(number)
                connections[number].close()
        return not open_ones

    meet(server, client, all_ended)
    for number, answer in enumerate(answers):
        assert bytes(answer).partition(b"\r\n\r\n")[2] == site.body(f"pages/{number % 50}.txt")
    meet(server, client, lambda: server.stack.established == 0 and not client.stack.connections("connection"))


# ---------------------------------------------------------------- idle


def ticks_used(pid: int) -> int:
    """utime and stime of a process with all its threads (proc(5)), and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[index - 3]) for index in (14, 15, 16, 17))


def test_idle_server_uses_under_one_percent_of_a_core(serving: Callable[..., Any], link: str) -> None:
    """The one figure that is a matter of the clock. A busy server spins; it must have stopped when nothing comes, also
    with connections open."""
    server = serving(link)
    server.run("ab", "-q", "-k", "-n", "5000", "-c", "10", server.url("512.bin"))
    script = "import socket; s = [socket.create_connection(('198.18.0.2', 80)) for _ in range(100)]; print(); input()"
    idle = server.start(sys.executable, "-c", script, stdin=subprocess.PIPE, bufsize=0)
    idle.stdout.readline()
    window_s = 3.0
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(0.3)  # what it had to finish
    before = ticks_used(server.process.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(window_s)
    used_s = (ticks_used(server.process.pid) - before) / os.sysconf("SC_CLK_TCK")
    assert used_s < 0.01 * window_s, f"{used_s / window_s:.1%} of a core"


def test_nothing_is_lent_when_no_stack_is_open() -> None:
    assert alive() == 0

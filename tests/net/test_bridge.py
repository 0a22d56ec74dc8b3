# SPDX-License-Identifier: MIT
"""A wire between the kernels of two namespaces: TCP moves bytes through it intact, and each impairment shows in counts.

The wire runs in a thread of this process, without the GIL, or as `ustack wire` in a process of its own.
"""

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.net.wires import running
from ustack.bridge.wire import Wire
from ustack.lab import inside
from ustack.lab.making import Made
from ustack.link.packet_mmap import PacketMmapLink
from ustack.link.tap import TapLink

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

A, B = "198.18.0.1", "198.18.0.2"
LIMIT_S = 60.0


class Ends:
    """Two namespaces whose kernels have an address each, and the interfaces that a wire is to join."""

    def __init__(self, labs: list[Made]) -> None:
        self.labs = labs
        self.a, self.b = (str(lab.peer_netns) for lab in labs)

    def open(self, resources: ExitStack) -> list[Any]:
        links = []
        for lab in self.labs:
            with lab.inside():
                links.append(PacketMmapLink(lab.ifname, busy_poll="never"))
            resources.enter_context(links[-1])
        return links

    @property
    def words(self) -> list[str]:
        return [f"{lab.ifname}@{lab.netns}" for lab in self.labs]


class TapEnds(Ends):
    """The same with TAP devices, which the kernels have and the wire opens."""

    def open(self, resources: ExitStack) -> list[Any]:
        links = []
        for lab in self.labs:
            with lab.inside():
                links.append(TapLink(lab.ifname, create=False, busy_poll="never"))
            resources.enter_context(links[-1])
        return links

    @property
    def words(self) -> list[str]:
        return [f"tap:{lab.ifname}@{lab.netns}" for lab in self.labs]


@pytest.fixture(params=["veth", "tap"])
def ends(request: pytest.FixtureRequest, make_lab: Callable[..., Made]) -> Ends:
    kind = request.param
    labs = [make_lab(link=kind, address=f"{other}/24", peer_address=f"{own}/24") for own, other in ((A, B), (B, A))]
    return (TapEnds if kind == "tap" else Ends)(labs)


@contextmanager
def joined(ends: Ends, **impairments: Any) -> Iterator[Wire]:
    """A wire that runs in a thread as long as the block lasts."""
    with ExitStack() as resources:
        a, b = ends.open(resources)
        yield resources.enter_context(running(resources.enter_context(Wire(a, b, **impairments))))


def transfer(ends: Ends, data: bytes, control: bytes = b"") -> bytes:
    """What arrives at a of the bytes that b's kernel sends; both ends see each other's FIN."""
    with inside(ends.b):
        listener = socket.create_server((B, 7000))
    with inside(ends.a):
        client = socket.socket()
    with listener, client:
        listener.settimeout(LIMIT_S)
        client.settimeout(LIMIT_S)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(LIMIT_S)
                if control:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control)
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""

        server = threading.Thread(target=serve)
        server.start()
        client.connect((B, 7000))
        received = bytearray()
        while block := client.recv(1 << 18):
            received += block
        client.close()
        server.join(LIMIT_S)
        assert not server.is_alive()
    return bytes(received)


PAYLOAD = random.Random(7).randbytes(3 << 20)


def conserved(counters: dict[str, int]) -> bool:
    dropped = sum(counters[name] for name in ("queue_dropped", "lost", "too_long", "no_room"))
    return counters["packets"] == counters["forwarded"] - counters["duplicated"] + dropped + counters["travelling"]


def test_a_stream_arrives_intact_and_super_frames_are_cut(ends: Ends) -> None:
    with joined(ends, delay_ns=1_000_000) as wire:
        assert hashlib.sha256(transfer(ends, PAYLOAD)).digest() == hashlib.sha256(PAYLOAD).digest()
        counters = wire.counters()
    back = counters["backward"]
    assert back["super_frames"] > 0
    assert back["packets"] >= len(PAYLOAD) // 1448
    assert back["unreadable"] == counters["forward"]["unreadable"] == 0
    assert back["ring_dropped"] == 0
    assert all(conserved(one) for one in counters.values())


def test_a_stream_arrives_intact_through_loss_reordering_and_duplicates(ends: Ends) -> None:
    with joined(
        ends, seed=3, delay_ns=500_000, loss=0.01, reorder=0.02, reorder_ns=2_000_000, duplicate=0.01, jitter_ns=100_000
    ) as wire:
        assert hashlib.sha256(transfer(ends, PAYLOAD, b"cubic")).digest() == hashlib.sha256(PAYLOAD).digest()
        back = wire.counters()["backward"]
    for name in ("lost", "reordered", "duplicated"):
        assert back[name] > 0, name
    assert conserved(back)


def test_a_slow_wire_with_a_short_queue_drops_its_tail(ends: Ends) -> None:
    with joined(ends, rate_bps=(0, 200_000_000), queue_bytes=30_000, delay_ns=2_000_000) as wire:
        assert transfer(ends, PAYLOAD, b"cubic") == PAYLOAD
        counters = wire.counters()
    assert counters["backward"]["queue_dropped"] > 0
    assert 0 < counters["backward"]["queue_most_bytes"] <= 30_000
    assert counters["forward"]["queue_dropped"] == 0
    assert all(conserved(one) for one in counters.values())


def test_each_echo_crosses_the_wire_twice(ends: Ends) -> None:
    """Ten echoes in turn: as many packets each way as there were, but for ARP, and none is on its way when its answer
    has come."""
    with joined(ends, delay_ns=2_000_000) as wire:
        with inside(ends.b):
            echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            echo.bind((B, 7))
        with inside(ends.a):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with echo, client:
            echo.settimeout(LIMIT_S)
            client.settimeout(LIMIT_S)
            for number in range(10):
                client.sendto(b"%d" % number, (B, 7))
                data, sender = echo.recvfrom(64)
                echo.sendto(data, sender)
                assert client.recv(64) == b"%d" % number
        counters = wire.counters()
        assert wire.sleeps > 0
    for one in counters.values():
        assert 10 <= one["forwarded"] <= 14
        assert one["bytes"] >= 10 * 43


# ---------------------------------------------------------------- ustack wire
@contextmanager
def command(*words: str, ready: bool = True) -> Iterator[subprocess.Popen[str]]:
    """`ustack wire` in a process of its own, which has ended when the block has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ustack.cli", "wire", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if ready:
            assert process.stdout.readline() == f"ready {words[0]} {words[1]}\n"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The rest of what it says. (communicate() would not see what readline() has read ahead.)"""
    assert process.stdout is not None
    assert process.stderr is not None
    out, errors = process.stdout.read(), process.stderr.read()
    process.wait(LIMIT_S)
    return out, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_joins_two_kernels_until_a_signal(ends: Ends, number: signal.Signals) -> None:
    with command(*ends.words, "--delay", "1ms", "--backward", "loss=1%", "--json", "--seed", "4") as process:
        assert transfer(ends, PAYLOAD) == PAYLOAD
        process.send_signal(number)
        out, errors = ended(process)
    assert (process.returncode, errors) == (0, "")
    figures = json.loads(out)
    assert figures["backward"]["lost"] > 0
    assert figures["forward"]["lost"] == 0
    assert all(conserved(figures[name]) for name in ("forward", "backward"))


def test_figures_so_far_on_a_signal_and_no_capability_left(ends: Ends) -> None:
    with command(*ends.words) as process:
        assert transfer(ends, PAYLOAD) == PAYLOAD
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        figures = json.loads(process.stderr.readline())
        assert figures["backward"]["forwarded_bytes"] > len(PAYLOAD)
        status = Path(f"/proc/{process.pid}/status").read_text()
        capabilities = int(status.partition("CapEff:\t")[2].split()[0], 16)
        assert not capabilities & (1 << 12 | 1 << 13 | 1 << 21)  # CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN
        assert transfer(ends, PAYLOAD) == PAYLOAD  # it goes on
        process.send_signal(signal.SIGTERM)
        _, errors = ended(process)
    assert (process.returncode, errors) == (0, "")


def test_a_reader_that_has_gone_away_is_no_failure(ends: Ends) -> None:
    with command(*ends.words) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(LIMIT_S)) == ("", 0)


def test_the_command_ends_by_itself(ends: Ends) -> None:
    with command(*ends.words, "--duration", "1ms") as process:
        out, errors = ended(process)
    assert (process.returncode, errors) == (0, "")
    assert "forwarded\t0\t0" in out.splitlines()


def test_an_end_that_goes_away_ends_the_command(ends: Ends) -> None:
    lab = ends.labs[1]
    with command(*ends.words) as process:
        with inside(lab.netns):
            subprocess.run(["ip", "link", "del", lab.ifname], check=True)
        _, errors = ended(process)
    assert process.returncode == 1
    assert errors.startswith("ustack: an end of the wire: ")
    assert len(errors.splitlines()) == 1


def test_tap_devices_that_the_command_made_go_with_it(make_namespace: Callable[[], str]) -> None:
    netns = make_namespace()
    words = [f"tap:wa@{netns}", f"tap:wb@{netns}"]
    with command(*words) as process:
        with inside(netns):
            assert {"wa", "wb"} <= {name for _, name in socket.if_nameindex()}
        process.send_signal(signal.SIGTERM)
        ended(process)
    with inside(netns):
        assert not {"wa", "wb"} & {name for _, name in socket.if_nameindex()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-if", "lo"], "no interface no-such-if"),
        (["lo", "no-such-if"], "interface lo is not Ethernet"),
        (["a@no-such-namespace", "b"], "no namespace no-such-namespace"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(words: list[str], message: str) -> None:
    with command(*words, ready=False) as process:
        out, errors = ended(process)
    assert (process.returncode, out) == (2, "")
    assert errors.startswith("ustack: ")
    assert message in errors
    assert len(errors.splitlines()) == 1

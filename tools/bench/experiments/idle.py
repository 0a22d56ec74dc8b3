# SPDX-License-Identifier: MIT
"""What a connection costs on which nothing happens: memory, in the process and in the kernel, and processor time."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from ustack.lab import LabError, inside
from ustack.tools.bench.contestants.base import USERSPACE, Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome, too_many
from ustack.tools.bench.processor import cpu_ns, memory_bytes, slab_bytes
from ustack.tools.benchmark import prepare_client
from ustack.tools.generators import LoadError

OPEN_TIMEOUT_S = 20.0
AT_ONCE = 256  # connections that are being opened: less than a listening socket's queue
SETTLE_S = 0.3  # the kernel frees sockets and inodes after a grace period
ANSWER_TIMEOUT_S = 5.0
SAMPLE = 100
BODY_BYTES = 512
REQUEST = b"GET /512.bin HTTP/1.1\r\nHost: bench\r\n\r\n"
AT_END_RST = struct.pack("ii", 1, 0)  # closed by a RST: nothing stays in TIME-WAIT


@contextmanager
def opened(contestant: Contestant, count: int) -> Iterator[list[socket.socket]]:
    """So many connections from the client's namespace, all established; gone at the end. Raises LoadError."""
    made: list[socket.socket] = []
    try:
        with selectors.DefaultSelector() as selector, inside(contestant.client_netns):
            _open(contestant, count, made, selector)
        yield made
    finally:
        for conn in made:
            conn.close()


def _open(contestant: Contestant, count: int, made: list[socket.socket], selector: selectors.BaseSelector) -> None:
    deadline, done = time.monotonic() + OPEN_TIMEOUT_S, 0
    while done < count:
        while len(made) < count and len(made) - done < AT_ONCE:
            conn = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            made.append(conn)
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_END_RST)
            status = conn.connect_ex((contestant.host, 80))
            if status not in (0, errno.EINPROGRESS):
                raise LoadError(f"connection {len(made)}: {os.strerror(status)}")
            selector.register(conn, selectors.EVENT_WRITE)
        for key, _ in selector.select(0.2):
            conn = key.fileobj  # type: ignore[assignment]
            if status := conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise LoadError(f"after {done} connections: {os.strerror(status)}")
            selector.unregister(conn)
            done += 1
        if time.monotonic() > deadline:
            raise LoadError(f"{done} of {count} connections were open after {OPEN_TIMEOUT_S:.0f} s")


def ask_each(connections: list[socket.socket]) -> None:
    """One request on each, and its response away. Who does not answer is found out by unanswered()."""
    for start in range(0, len(connections), AT_ONCE):
        some = connections[start : start + AT_ONCE]
        for conn in some:
            with suppress(OSError):
                conn.settimeout(ANSWER_TIMEOUT_S)
                conn.send(REQUEST)
        for conn in some:
            with suppress(OSError):
                is_answered(conn)


def is_answered(conn: socket.socket) -> bool:
    """Read one response, to the end of its body: is it the file? Raises OSError."""
    said = b""
    while len(said) - (said.find(b"\r\n\r\n") + 4) < BODY_BYTES or b"\r\n\r\n" not in said:
        part = conn.recv(65536)
        if not part:
            return False
        said += part
    return said.startswith(b"HTTP/1.1 200 ")


def sample_of(connections: list[socket.socket]) -> list[socket.socket]:
    """About SAMPLE of them, evenly taken; all, if there are no more."""
    return connections[:: max(1, len(connections) // SAMPLE)]


def unanswered(connections: list[socket.socket]) -> int:
    """How many of a sample do not give 200 to a request now."""
    wrong = 0
    for conn in sample_of(connections):
        try:
            conn.settimeout(ANSWER_TIMEOUT_S)
            conn.sendall(REQUEST)
            wrong += not is_answered(conn)
        except OSError:
            wrong += 1
    return wrong


class Idle(Experiment):
    """Bytes for one connection that waits."""

    name = "idle"
    order = 20
    title = "Memory of an idle connection"
    asks = (
        "How many bytes does an open connection take that has asked once, in the processes of a server that has just "
        "been started (proportional set size without files) and in the kernel's slabs? What the client's sockets take "
        "is measured against ustack, which has none at its end (its own are those of its process alone), and taken "
        "off; and does each of a sample of 100 still answer?"
    )
    unit = "bytes"
    lower_is_better = True
    counts: ClassVar[dict[str, int]] = {"10,000 connections": 10_000}
    points = tuple(counts)
    beside_s = 4.0
    most_rounds = 2

    def __init__(self) -> None:
        """The client's share is found out when it is first needed."""
        self.clients: dict[int, float] = {}

    def unfit(self, contestant: Contestant, point: str) -> str:
        """By the connections that it can hold."""
        return too_many(contestant, self.counts[point])

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """Open them, look, ask some, close them."""
        count = self.counts[point]
        client = self.client_bytes(bench, count)
        began = time.monotonic()
        process, kernel, spent_s, wrong = grown(contestant, count)
        errors = {wrong: 1} if wrong else {}
        ours = kernel - client if client is not None else kernel / 2
        if contestant.kind in USERSPACE:
            ours = 0.0  # no socket, no inode: what the slabs have grown beside the client's is the machine's noise
        if not errors and process + ours <= 0:
            errors = {f"{process + ours:.0f} bytes for a connection: something else was given back meanwhile": 1}
        details = {
            "process_bytes": round(process),
            "kernel_bytes_of_both_ends": round(kernel),
            "kernel_bytes_of_client": round(client) if client is not None else "half of both ends",
            "open_s": round(spent_s, 3),
        }
        command = f"{count} connect(2) from {contestant.client_netns}, {time.monotonic() - began:.1f} s"
        return Outcome(process + ours, command=command, errors=errors, details=details)

    def client_bytes(self, bench: Bench, count: int) -> float | None:
        """What the kernel keeps for the client's end of a connection; None without a server that has no socket, or when
        none of those could be measured, which is not the fault of who is measured now."""
        for ours in bench.contestants.values() if count not in self.clients else ():
            if ours.kind != "ustack" or ours.process is None:
                continue
            with suppress(LoadError, LabError, OSError):
                _, kernel, _, wrong = grown(ours, count)
                if not wrong and kernel > 0:
                    self.clients[count] = kernel
                    break
        return self.clients.get(count)


def grown(contestant: Contestant, count: int) -> tuple[float, float, float, str]:
    """By how much one connection lets process and kernel grow, how long opening took, what is wrong with the answers.

    A server that has served before has memory in hand: this one is new. Each connection asks once, for a server that
    defers to accept (TCP_DEFER_ACCEPT) has no socket before.
    """
    contestant.start_again()
    prepare_client(contestant.client_netns)
    with opened(contestant, 1):
        time.sleep(SETTLE_S)
    process, kernel, began = memory_bytes(contestant.pids()), slab_bytes(), time.monotonic()
    with opened(contestant, count) as connections:
        spent_s = time.monotonic() - began
        ask_each(connections)
        time.sleep(SETTLE_S)
        process, kernel = memory_bytes(contestant.pids()) - process, slab_bytes() - kernel
        return process / count, kernel / count, spent_s, not_answered(connections)


def not_answered(connections: list[socket.socket]) -> str:
    """What unanswered() has found, in words; "" if all of the sample answer."""
    wrong = unanswered(connections)
    return f"{wrong} of {len(sample_of(connections))} did not answer" if wrong else ""


class IdleCpu(Experiment):
    """Processor time of a server that has nothing to do."""

    name = "idlecpu"
    order = 21
    title = "Processor time of a server with 100 idle connections"
    asks = "What does waiting cost, in percent of a core?"
    unit = "% of a core"
    lower_is_better = True
    everybody = True
    points = ("100 connections",)
    most_rounds = 1
    beside_s = 0.5

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """By the threads' run times, for the length of a run."""
        with opened(contestant, 100) as connections:
            ask_each(connections)
            time.sleep(SETTLE_S)
            before, began = cpu_by_pid(contestant), time.monotonic()
            time.sleep(bench.seconds)
            after, window_s = cpu_by_pid(contestant), time.monotonic() - began
            wrong = not_answered(connections)
        # A process that came or went meanwhile cannot be told from one whose time was not seen.
        spent_ns = sum(after[pid] - before[pid] for pid in before.keys() & after.keys())
        errors = {wrong: 1} if wrong else {}
        if not before.keys() & after.keys():
            errors["no process was there before and after"] = 1
        command = f"/proc/PID/task/*/schedstat over {bench.seconds} s"
        return Outcome(spent_ns / window_s / 1e7, command=command, errors=errors)


def cpu_by_pid(contestant: Contestant) -> dict[int, int]:
    """What each of its processes has run so far, in ns."""
    return {pid: cpu_ns([pid]) for pid in contestant.pids()}


EXPERIMENTS = [Idle(), IdleCpu()]

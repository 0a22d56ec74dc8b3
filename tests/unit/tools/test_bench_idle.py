# SPDX-License-Identifier: MIT
"""The experiment `idle`: responses that come in pieces, ends that are no answer; whose processes are counted."""

import os
import socket
import subprocess
import sys

import pytest

from ustack.tools.bench.experiments.idle import BODY_BYTES, is_answered, unanswered
from ustack.tools.bench.processor import cpu_ns, family, memory_bytes

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "right"),
    [
        ([HEAD + b"x" * BODY_BYTES], True),
        ([HEAD, b"x" * BODY_BYTES], True),
        ([HEAD[:9], HEAD[9:] + b"x", b"x" * (BODY_BYTES - 1)], True),
        ([b"HTTP/1.1 503 Busy\r\n\r\n" + b"x" * BODY_BYTES], False),
        ([HEAD], False),
        ([b"x" * 2 * BODY_BYTES], False),
        ([], False),
    ],
)
def test_a_response_is_read_to_the_end_of_its_body(pieces: list[bytes], right: bool):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for piece in pieces:
            theirs.sendall(piece)
        theirs.shutdown(socket.SHUT_WR)
        assert is_answered(ours) is right


def test_who_does_not_answer_is_counted():
    pairs = [socket.socketpair() for _ in range(4)]
    try:
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(HEAD + b"x" * BODY_BYTES if number else b"")
            theirs.shutdown(socket.SHUT_WR)
        assert unanswered([ours for ours, _ in pairs]) == 1
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


def test_workers_in_sessions_of_their_own_are_of_the_family():
    """As `ustack serve` forks them: setsid, so that Ctrl-C reaches the first process alone."""
    words = "import os, sys\nif os.fork() == 0: os.setsid()\nprint(os.getpid(), flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(2)}
        assert process.pid in pids
        assert set(family(process.pid)) == pids
        assert cpu_ns(sorted(pids)) > 0
        assert memory_bytes(sorted(pids)) > 0
    assert os.getpid() not in pids

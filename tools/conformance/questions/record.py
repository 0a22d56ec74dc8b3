# SPDX-License-Identifier: MIT
"""A question to a TCP, the list that it is in, and how an answer is written down.

An answer is text: the segments that came, with relative numbers and without PSH, then the state, then what the
application has read. Above: the questions. Below: the test kit's states and segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ustack.testing.segment import SEQUENCE_MASK, Segment
from ustack.testing.states import Scene, Subject
from ustack.testing.testbed import SECOND

HALF_SECOND = SECOND // 2
SACK = {"mss": 1460, "sack_permitted": True}
Script = Callable[[Subject], str]


@dataclass(frozen=True)
class Question:
    """What is asked, where the RFC speaks of it, what it says, and the script.

    right: the answers that it has; none: it leaves it open.  word: what it says, in words of this project.
    """

    name: str
    section: str
    word: str
    right: tuple[str, ...]
    script: Script


class Questions(list[Question]):
    """A list of them, in the order in which they were written."""

    def question(self, name: str, section: str, word: str, *right: str) -> Callable[[Script], None]:
        """A decorator: the script of one question."""

        def add(script: Script) -> None:
            self.append(Question(name, section, word, right, script))

        return add


def said(scene: Scene, segment: Segment) -> str:
    """One segment: its flags, its numbers, how much text there is."""
    seq, ack = scene.peer.relative(segment)
    zero = segment.flags == "RA" and segment.seq == 0  # of whoever has no number to take
    words = [segment.flags.replace("P", ""), "seq=zero" if zero else f"seq={_signed(seq)}"]
    if "A" in segment.flags:
        words.append(f"ack={_signed(ack)}")
    if segment.payload:
        words.append(f"len={len(segment.payload)}")
    return " ".join(words)


def _signed(number: int) -> int:
    return number - SEQUENCE_MASK - 1 if number > SEQUENCE_MASK // 2 else number


def answer(scene: Scene, *, wait: bool = False, read: bool = False) -> str:
    """What has come, and the state. wait: something must come, within half a second. read: and what has been read."""
    if wait and not scene.peer.queue:
        scene.peer.wait(HALF_SECOND)
    parts = [", ".join(said(scene, segment) for segment in scene.peer.drain()) or "nothing", scene.state]
    if read:
        parts.append(f"read {scene.read()!r}")
    return "; ".join(parts)


def blocks(scene: Scene) -> str:
    """The SACK blocks of what has come, segment by segment, relative."""
    isn = scene.peer.isn
    return " ".join(
        str([((left - isn) & SEQUENCE_MASK, (right - isn) & SEQUENCE_MASK) for left, right in found])
        for found in (segment.options.get("sack", []) for segment in scene.peer.drain())
    )


def read_all(scene: Scene) -> bytes:
    """Reads as often as something comes: an urgent byte ends one read of the kernel's."""
    data = b""
    while piece := scene.read():
        data += piece
    return data

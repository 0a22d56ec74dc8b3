# SPDX-License-Identifier: MIT
"""Questions whose answer is policy: how much goes at once, which ACK waits, where PSH is.

Suites that were written for Linux judge by it (the published packetdrill scripts of its tree, from which these
questions are taken; the scripts are this project's). They are put to this stack twice, with its defaults and with the
profile `linux`, and to the kernel. No RFC has an answer to be right; where one speaks of it, that is the section.

Segments have 1,000 bytes and a number, from 1 on; P is PSH, F is FIN, R is a segment that had been sent before; what
one ACK lets go is between semicolons. A round trip takes 40 ms, of the kernel's as well: what is asked needs one. The
window is that of NewReno, unpaced, and tail loss probes are off in the kernel, whose timers do not wait for a script.

Above: document, the command. Below: record, the test kit.
"""

from __future__ import annotations

from typing import Any

from ustack.testing import states
from ustack.testing.states import SIMULATED, Scene, Subject
from ustack.testing.testbed import MILLISECOND, SECOND
from ustack.tools.conformance.questions.record import Questions

QUESTIONS = Questions()

OURS = {
    "ten out, none acknowledged until the timer; then all of them": "After a timeout an ACK counts for a segment "
    "(RFC 5681 section 3.1: what it covers may have arrived long ago), in Linux for all that it acknowledges",
    "PSH: a write of twelve into a window of ten": "Linux forces a PSH at half of the largest window while it copies, "
    "and goes on with what the frames before have left; here a write is whole before it is cut",
    "small segments with PSH, once the first ACKs are over": "Linux acknowledges each when it is read, as long as none "
    "has been answered (tcp_cleanup_rbuf); here every second one is",
    "full segments, once the first ACKs are over": "Linux sends one more ACK at once whenever what it may offer has "
    "grown (tcp_grow_window), which hangs on the memory of its buffers; SHLD-19 asks for every second one",
}
"""Where the profile's answer is not the kernel's, and why."""

MSS = 1000
SACK = {"mss": MSS, "sack_permitted": True}
PLAIN = {"mss": MSS}
ROUND_TRIP = 40 * MILLISECOND
QUIETLY = 24
"""Segments that a connection may acknowledge at once at its beginning, and more."""


SYSCTLS = {"tcp_rmem": "4096 131072 6291456", "tcp_early_retrans": 0}
"""Of the kernel that is asked, and its congestion control."""


class Profiled:
    """This stack with the profile: a subject of the builders."""

    def open(self, role: str, seed: int, **config: Any) -> Scene:
        """As the default one, but for the profile."""
        return SIMULATED.open(role, seed, profile="linux", **config)


def opened(subject: Subject, options: dict[str, Any] = SACK, **config: Any) -> Scene:
    """A connection to a peer with a wide window, at a round trip's distance."""
    scene = states.syn_received(subject=subject, options=options, **{"pacing": 0, "cc": "newreno", **config})
    scene.testbed.advance(ROUND_TRIP)
    scene.peer.send("A")
    scene.accept()
    return scene


class Counted:
    """What a sender has sent, segment by segment."""

    def __init__(self, scene: Scene) -> None:
        """Nothing yet."""
        self.scene = scene
        self._most = 0

    def come(self) -> str:
        """What has come since, as text."""
        self.scene.testbed.pump()
        words = []
        for segment in self.scene.peer.drain():
            if not segment.payload and "F" not in segment.flags:
                continue
            first = self.scene.peer.relative(segment)[0] - 1
            word = f"{first // MSS + 1}"
            if segment.payload and first < self._most:
                word += "R"
            if first % MSS or len(segment.payload) not in (0, MSS):
                word += f"({first}+{len(segment.payload)})"
            words.append(word + "".join(flag for flag in "PF" if flag in segment.flags))
            self._most = max(self._most, first + len(segment.payload))
        return " ".join(words) or "-"

    def write(self, segments: int) -> str:
        """Write so many: what comes in a quarter of a round trip."""
        self.scene.send(bytes(segments * MSS))
        self.scene.testbed.advance(ROUND_TRIP // 4)
        return self.come()

    def burst(self, segments: int) -> int:
        """The same: how many come."""
        come = self.write(segments)
        return 0 if come == "-" else len(come.split())

    def ack(self, segment: int, *blocks: tuple[int, int]) -> str:
        """The peer has all up to that one, and from one to another of each block, these included: what comes then."""
        peer = self.scene.peer
        iss = peer.iss or 0
        self.scene.testbed.advance(MILLISECOND)
        wide = tuple(
            ((iss + 1 + (first - 1) * MSS) & 0xFFFFFFFF, (iss + 1 + last * MSS) & 0xFFFFFFFF) for first, last in blocks
        )
        peer.send("A", ack=1 + segment * MSS, options={"nop": 2, "sack": wide} if wide else {})
        return self.come()


# ---------------------------------------------------------------- slow start


def grown(subject: Subject, sent: int, *acked: int) -> str:
    """The window after so many segments were sent at once, and an ACK of all up to each of `acked`."""
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(sent)
        for segment in acked:
            sender.ack(segment)
        return f"{sender.burst(60)} at once"


@QUESTIONS.question("slow start: ten of ten sent, an ACK for two of them", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    return grown(subject, 10, *range(2, 11, 2))


@QUESTIONS.question("slow start: nine of ten sent, an ACK for two of them", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    return grown(subject, 9, 2, 4, 6, 8, 9)


@QUESTIONS.question("slow start: five of ten sent, an ACK for each", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    return grown(subject, 5, *range(1, 6))


@QUESTIONS.question("slow start: one ACK for ten", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    return grown(subject, 10, 10)


@QUESTIONS.question("slow start: three writes of six, an ACK for two of them", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        for first in (0, 6, 12):
            sender.burst(6)
            for segment in (2, 4, 6):
                sender.ack(first + segment)
        return f"{sender.burst(60)} at once"


@QUESTIONS.question("after a pause of 300 ms with a window of twenty", "RFC 5681 section 4.1", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(10)
        sender.ack(10)
        scene.testbed.advance(300 * MILLISECOND)
        return f"{sender.burst(60)} at once"


# ---------------------------------------------------------------- losses


@QUESTIONS.question("three duplicate ACKs with SACK, ten out, more to send", "RFC 3042, RFC 9937", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(20)
        return "; ".join(sender.ack(0, (2, last)) for last in (2, 3, 4))


@QUESTIONS.question("three duplicate ACKs without SACK, ten out, more to send", "RFC 3042", "")
def _(subject: Subject) -> str:
    with opened(subject, PLAIN) as scene:
        sender = Counted(scene)
        sender.burst(20)
        return "; ".join(sender.ack(0) for _ in range(3))


@QUESTIONS.question("two duplicate ACKs without SACK, then one for three", "RFC 3042", "")
def _(subject: Subject) -> str:
    with opened(subject, PLAIN) as scene:
        sender = Counted(scene)
        sender.burst(15)
        return "; ".join(sender.ack(segment) for segment in (0, 0, 2, 4, 6))


@QUESTIONS.question("two duplicate ACKs with SACK, then one for three", "RFC 3042", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(15)
        first = [sender.ack(0, (2, last)) for last in (2, 3)]
        return "; ".join([*first, *(sender.ack(segment) for segment in (3, 5, 7))])


@QUESTIONS.question("one of ten lost, the application writes seven more after three", "RFC 9937 section 6.2", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(10)
        seen = [sender.ack(0, (2, last)) for last in (2, 3, 4)]
        seen.append(sender.write(7))
        seen += [sender.ack(0, (2, last)) for last in range(5, 11)]
        seen.append(sender.ack(10))
        return "; ".join(seen)


@QUESTIONS.question("four of twelve lost at once", "RFC 9937 section 6.2", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        sender.burst(40)
        seen = [sender.ack(0, (5, last)) for last in range(5, 13)]
        return "; ".join([*seen, *(sender.ack(segment, (5, 12)) for segment in (1, 2, 3)), sender.ack(12)])


@QUESTIONS.question("ten out, none acknowledged until the timer; then all of them", "RFC 5681 section 3.1", "")
def _(subject: Subject) -> str:
    with opened(subject, PLAIN) as scene:
        sender = Counted(scene)
        sender.burst(10)
        scene.peer.wait(3 * SECOND)
        seen = sender.come()
        sender.ack(10)
        return f"{seen}; then {sender.burst(30)} at once"


# ---------------------------------------------------------------- what ends with PSH


def ends_with_push(come: str) -> str:
    """Whether the last of what came at once has PSH; those before it are left out."""
    return "yes" if come.endswith("P") else "no"


@QUESTIONS.question("PSH at the end of what goes at once: ten of fifteen, then all but one", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        return ", ".join(map(ends_with_push, (sender.write(15), sender.ack(2), sender.ack(10))))


@QUESTIONS.question("PSH: three writes of a segment and a half", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        for _ in range(3):
            scene.send(bytes(MSS + MSS // 2))
        return "; ".join([sender.come(), sender.ack(1)])


@QUESTIONS.question("PSH: writes of a segment behind a full window", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        scene.send(bytes(10 * MSS))
        for _ in range(4):
            scene.send(bytes(MSS))
        sender.come()
        return sender.ack(10)


def cut(subject: Subject, window: int, segments: int, *acked: int, near: bool = False) -> str:
    """One write to a peer with a window of so many segments, and an ACK of all up to each of `acked`. near: the round
    trip of the handshake takes no time."""
    if near:
        scene = states.established(
            subject=subject, options=SACK, wnd=window * MSS, measured=True, pacing=0, cc="newreno"
        )
    else:
        scene = opened(subject, wnd=window * MSS)
    with scene:
        sender = Counted(scene)
        scene.send(bytes(segments * MSS))
        return "; ".join([sender.come(), *map(sender.ack, acked)])


@QUESTIONS.question("PSH: a write of six into a window of three", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 3, 6, 1, 2, 3)


@QUESTIONS.question("PSH: a write of twelve into a window of eight", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 8, 12, 1)


@QUESTIONS.question("PSH: a write of twelve into a window of ten", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 10, 12)


@QUESTIONS.question("PSH: a write of fourteen, ten at once", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 60, 14, 1, 2)


@QUESTIONS.question("PSH: a write of fourteen, ten at once, to a peer close by", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 60, 14, 1, 2, near=True)


@QUESTIONS.question("PSH: a write of nine into a window of seven, of a peer close by", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    return cut(subject, 7, 9, 1, near=True)


@QUESTIONS.question("PSH: a write of a segment, and the end", "RFC 9293 MUST-61", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        scene.send(bytes(MSS))
        scene.shutdown()
        return sender.come()


@QUESTIONS.question("small writes while a small segment is out", "RFC 9293 SHLD-7", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        sender = Counted(scene)
        for _ in range(3):
            scene.send(bytes(400))
        seen = sender.come()
        scene.peer.send("A", ack=401)
        return f"{seen}; {sender.come()}"


# ---------------------------------------------------------------- which ACK waits


def at_once(scene: Scene, segments: int, payload: int = 500, *, read: bool = False, flags: str = "A") -> str:
    """Of so many segments, one after the other: which are acknowledged at once. read: the application takes each."""
    seen = ""
    for _ in range(segments):
        scene.peer.send(flags, payload=bytes(payload))
        if read:
            scene.read()
            scene.testbed.pump()
        seen += "A" if scene.peer.drain() else "-"
    return seen


def wearied(subject: Subject) -> Scene:
    """A connection whose first ACKs are used up, with no ACK owed."""
    scene = opened(subject)
    at_once(scene, QUIETLY)
    scene.testbed.advance(60 * MILLISECOND)
    scene.peer.drain()
    return scene


def answered(subject: Subject) -> Scene:
    """A connection on which two requests have been answered."""
    scene = opened(subject)
    for _ in range(2):
        scene.peer.send("PA", payload=bytes(100))
        scene.send(bytes(100))
        scene.peer.catch_up()
    return scene


@QUESTIONS.question("the first ACKs", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with opened(subject) as scene:
        return at_once(scene, 18)


@QUESTIONS.question("ACKs after a pause of 500 ms", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with wearied(subject) as scene:
        scene.testbed.advance(500 * MILLISECOND)
        return at_once(scene, 4)


@QUESTIONS.question("ACKs after old data", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with wearied(subject) as scene:
        scene.peer.send("A", seq=1, payload=bytes(500))
        scene.peer.drain()
        return at_once(scene, 4)


@QUESTIONS.question("ACKs after a hole that was filled", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with wearied(subject) as scene:
        missing = scene.peer.snd_nxt
        scene.peer.send("A", seq=missing + 500, payload=bytes(500))
        scene.peer.send("A", payload=bytes(500))
        scene.peer.snd_nxt = missing + 1000
        scene.peer.drain()
        return at_once(scene, 4, read=True)


@QUESTIONS.question("ACKs of requests that were answered", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with answered(subject) as scene:
        return at_once(scene, 4, 100, read=True)


@QUESTIONS.question("ACKs of requests that were answered, after a pause of 500 ms", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with answered(subject) as scene:
        scene.peer.send("A")
        scene.testbed.advance(500 * MILLISECOND)
        return at_once(scene, 4, 100, read=True)


@QUESTIONS.question("ACKs of requests with PSH that were answered", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with answered(subject) as scene:
        return at_once(scene, 4, 100, read=True, flags="PA")


@QUESTIONS.question("small segments with PSH, once the first ACKs are over", "RFC 9293 SHLD-18", "")
def _(subject: Subject) -> str:
    with wearied(subject) as scene:
        return at_once(scene, 4, 100, read=True, flags="PA")


@QUESTIONS.question("full segments, once the first ACKs are over", "RFC 9293 SHLD-19", "")
def _(subject: Subject) -> str:
    with wearied(subject) as scene:
        scene.peer.send("A", payload=bytes(1460))
        scene.peer.drain()
        scene.testbed.advance(60 * MILLISECOND)
        scene.peer.drain()
        return at_once(scene, 4, 1460, read=True)

# SPDX-License-Identifier: MIT
"""Questions to a TCP, in the scripted peer's words: what it answers, and what the RFC has for an answer.

The same scripts run on either stack (ustack.testing.states.Subject). An answer is text: the segments that came, with
relative numbers and without PSH, then the state, then what the application has read. What an RFC leaves open has no
right answer, and then only differences are of interest. Nothing here waits for time to pass: what a timer sends is
waited for until it comes, and only where something must come.

Scripts of one event in a state come first, those of a small dialogue after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ustack.testing import states
from ustack.testing.segment import SEQUENCE_MASK, Segment, with_reserved_bits
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, Subject
from ustack.testing.testbed import SECOND

BEYOND = 70_000
"""No window scale is agreed on, so no window reaches that far."""
HALF_SECOND = SECOND // 2
SACK = {"mss": 1460, "sack_permitted": True}


@dataclass(frozen=True)
class Question:
    """What is asked, where the RFC speaks of it, what it says, and the script.

    right: the answers that it has; none: it leaves it open.  word: what it says, in words of this project.
    """

    name: str
    section: str
    word: str
    right: tuple[str, ...]
    script: Callable[[Subject], str]


QUESTIONS: list[Question] = []


# ---------------------------------------------------------------- answers


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


def question(name: str, section: str, word: str, *right: str) -> Callable[[Callable[[Subject], str]], None]:
    """A decorator: the script of one question."""

    def add(script: Callable[[Subject], str]) -> None:
        QUESTIONS.append(Question(name, section, word, right, script))

    return add


# ---------------------------------------------------------------- one event in each synchronized state


@dataclass(frozen=True)
class Case:
    """A synchronized state, how to get there, and the variables there (relative)."""

    name: str
    build: Callable[..., Scene]
    snd_una: int
    snd_nxt: int
    rcv_nxt: int

    @property
    def ack(self) -> str:
        """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and nothing changes."""
        return f"A seq={self.snd_nxt} ack={self.rcv_nxt}; {self.name}"

    @property
    def nothing(self) -> str:
        """No answer and no change."""
        return f"nothing; {self.name}"


CASES = (
    Case("ESTABLISHED", states.established, 1, 1, 1),
    Case("FIN-WAIT-1", states.fin_wait_1, 1, 2, 1),
    Case("FIN-WAIT-2", states.fin_wait_2, 2, 2, 1),
    Case("CLOSE-WAIT", states.close_wait, 1, 1, 2),
    Case("CLOSING", states.closing, 1, 2, 2),
    Case("LAST-ACK", states.last_ack, 1, 2, 2),
    Case("TIME-WAIT", states.time_wait, 2, 2, 2),
)

EVENTS: tuple[tuple[str, str, str, Callable[[Case], dict[str, Any]], Callable[[Case], str]], ...] = (
    (
        "a RST at RCV.NXT",
        "RFC 5961 section 3.2",
        "The connection is reset",
        lambda case: {"flags": "R", "seq": case.rcv_nxt},
        lambda case: "nothing; CLOSED",
    ),
    (
        "a RST elsewhere in the window",
        "RFC 5961 section 3.2",
        "A challenge ACK, and nothing else happens",
        lambda case: {"flags": "R", "seq": case.rcv_nxt + 10},
        lambda case: case.ack,
    ),
    (
        "a RST before the window",
        "RFC 5961 section 3.2",
        "It is discarded in silence",
        lambda case: {"flags": "R", "seq": case.rcv_nxt - 1},
        lambda case: case.nothing,
    ),
    (
        "a RST beyond the window",
        "RFC 5961 section 3.2",
        "It is discarded in silence",
        lambda case: {"flags": "R", "seq": case.rcv_nxt + BEYOND},
        lambda case: case.nothing,
    ),
    (
        "a SYN at RCV.NXT",
        "RFC 5961 section 4.2",
        "A challenge ACK, whatever its number",
        lambda case: {"flags": "S", "seq": case.rcv_nxt, "options": SYN_OPTIONS},
        lambda case: case.ack,
    ),
    (
        "the peer's own SYN again",
        "RFC 5961 section 4.2",
        "A challenge ACK, whatever its number",
        lambda case: {"flags": "S", "seq": 0, "options": SYN_OPTIONS},
        lambda case: case.ack,
    ),
    (
        "a segment without ACK",
        "RFC 9293 section 3.10.7.4, fifth",
        "It is dropped",
        lambda case: {"flags": "", "seq": case.rcv_nxt, "payload": b"x"},
        lambda case: case.nothing,
    ),
    (
        "an ACK of what was never sent",
        "RFC 9293 section 3.10.7.4, fifth; RFC 5961 section 5.2",
        "An ACK is sent and the segment dropped",
        lambda case: {"flags": "A", "ack": case.snd_nxt + 1},
        lambda case: case.ack,
    ),
    (
        "an ACK older than the largest window",
        "RFC 5961 section 5.2",
        "The segment is discarded and an ACK sent",
        lambda case: {"flags": "A", "ack": case.snd_una - 65536, "payload": b"injected"},
        lambda case: case.ack,
    ),
    (
        "a duplicate ACK",
        "RFC 9293 section 3.10.7.4, fifth",
        "It is ignored",
        lambda case: {"flags": "A", "ack": case.snd_una},
        lambda case: case.nothing,
    ),
    (
        "text beyond the window",
        "RFC 9293 section 3.10.7.4, first",
        "An ACK is sent and the segment dropped",
        lambda case: {"flags": "A", "seq": case.rcv_nxt + BEYOND, "payload": b"x"},
        lambda case: case.ack,
    ),
    (
        "a keep-alive probe: SEG.SEQ = RCV.NXT - 1",
        "RFC 9293 section 3.10.7.4, first",
        "An ACK is sent",
        lambda case: {"flags": "A", "seq": case.rcv_nxt - 1},
        lambda case: case.ack,
    ),
    (
        "a FIN beyond the window",
        "RFC 9293 section 3.10.7.4, first",
        "An ACK is sent and the segment dropped",
        lambda case: {"flags": "FA", "seq": case.rcv_nxt + BEYOND},
        lambda case: case.ack,
    ),
)
"""What is sent in each of CASES: name, section, word, the segment, the right answer."""


def _event(case: Case, fields: Callable[[Case], dict[str, Any]]) -> Callable[[Subject], str]:
    def script(subject: Subject) -> str:
        with case.build(subject=subject, measured=True) as scene:
            segment = fields(case)
            scene.peer.send(segment.pop("flags"), **segment)
            return answer(scene)

    return script


def _events() -> Iterator[Question]:
    for name, section, word, fields, right in EVENTS:
        for case in CASES:
            yield Question(f"{case.name}: {name}", section, word, (right(case),), _event(case, fields))


QUESTIONS.extend(_events())


def _again(name: str) -> None:
    """A FIN that has been taken comes again."""
    [case] = [case for case in CASES if case.name == name]

    @question(f"{name}: the peer's FIN again", "RFC 9293 section 3.10.7.4, first", "An ACK is sent", case.ack)
    def _(subject: Subject) -> str:
        with case.build(subject=subject, measured=True) as scene:
            scene.peer.send("FA", seq=1, ack=case.snd_una)
            return answer(scene)


for _name in ("CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"):
    _again(_name)


# ---------------------------------------------------------------- one event in the other states


def _in(
    build: Callable[..., Scene],
    state: str,
    name: str,
    section: str,
    word: str,
    *right: str,
    wait: bool = False,
    **sent: Any,
) -> None:
    """The answer to one segment in a state. Where no ISS is known yet, numbers of a RST are what the peer had sent."""

    @question(f"{state}: {name}", section, word, *right)
    def _(subject: Subject) -> str:
        with build(subject=subject) as scene:
            fields = dict(sent)
            if state in {"LISTEN", "CLOSED"}:
                scene.peer.iss = 0
            scene.peer.send(fields.pop("flags"), **fields)
            if "S" in sent["flags"] and state == "LISTEN" and scene.peer.queue:
                scene.peer.iss = scene.peer.queue[0].seq
            return answer(scene, wait=wait)


_LISTEN = "RFC 9293 section 3.10.7.2"
_in(states.listen, "LISTEN", "a RST", _LISTEN, "It is ignored", "nothing; CLOSED", flags="R")
_in(states.listen, "LISTEN", "an ACK", _LISTEN, "A RST with its number", "R seq=5000; CLOSED", flags="A", ack=5000)
_in(
    states.listen, "LISTEN", "a SYN", _LISTEN, "SYN,ACK", "SA seq=0 ack=1; SYN-RECEIVED", flags="S", options=SYN_OPTIONS
)
_in(states.listen, "LISTEN", "a FIN without ACK", _LISTEN, "It is dropped", "nothing; CLOSED", flags="F")
_in(
    states.listen,
    "LISTEN",
    "SYN and FIN",
    _LISTEN,
    "A SYN is answered, its FIN is for later",
    "SA seq=0 ack=1; SYN-RECEIVED",
    flags="SF",
    options=SYN_OPTIONS,
)
_in(
    states.listen,
    "LISTEN",
    "a SYN with text",
    _LISTEN,
    "SYN,ACK; the text may be kept or come again",
    "SA seq=0 ack=1; SYN-RECEIVED",
    "SA seq=0 ack=6; SYN-RECEIVED",
    flags="S",
    options=SYN_OPTIONS,
    payload=b"early",
)
_in(
    states.listen,
    "LISTEN",
    "a SYN from a broadcast address",
    "RFC 9293 section 3.9.2.3, MUST-63",
    "It is ignored",
    "nothing; CLOSED",
    flags="S",
    src="198.18.0.255",
)
_in(
    states.listen,
    "LISTEN",
    "a SYN from a multicast address",
    "RFC 9293 section 3.9.2.3, MUST-63",
    "It is ignored",
    "nothing; CLOSED",
    flags="S",
    src="224.0.0.1",
)
_in(
    states.listen,
    "LISTEN",
    "a SYN to the broadcast address",
    "RFC 9293 section 3.9.2.3, MUST-57",
    "It is ignored",
    "nothing; CLOSED",
    flags="S",
    dst="198.18.0.255",
)

_CLOSED = "RFC 9293 section 3.10.7.1"
_in(states.closed, "CLOSED", "a SYN", _CLOSED, "RST,ACK of it", "RA seq=zero ack=1; CLOSED", flags="S")
_in(
    states.closed,
    "CLOSED",
    "a SYN with text",
    _CLOSED,
    "RST,ACK of all of it",
    "RA seq=zero ack=6; CLOSED",
    flags="S",
    payload=b"early",
)
_in(states.closed, "CLOSED", "an ACK", _CLOSED, "A RST with its number", "R seq=5000; CLOSED", flags="A", ack=5000)
_in(
    states.closed,
    "CLOSED",
    "a FIN with ACK",
    _CLOSED,
    "A RST with its number",
    "R seq=5000; CLOSED",
    flags="FA",
    ack=5000,
)
_in(states.closed, "CLOSED", "a RST", _CLOSED, "It is discarded", "nothing; CLOSED", flags="R")

_SENT = "RFC 9293 section 3.10.7.3"
_in(
    states.syn_sent,
    "SYN-SENT",
    "SYN,ACK",
    _SENT,
    "ACK, and ESTABLISHED",
    "A seq=1 ack=1; ESTABLISHED",
    flags="SA",
    ack=1,
    options=SYN_OPTIONS,
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "SYN,ACK with text",
    _SENT,
    "ACK, and ESTABLISHED; the text may come again",
    "A seq=1 ack=1; ESTABLISHED",
    "A seq=1 ack=6; ESTABLISHED",
    flags="SA",
    ack=1,
    options=SYN_OPTIONS,
    payload=b"early",
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "SYN,ACK of what was not sent",
    _SENT,
    "A RST with its number",
    "R seq=5000; SYN-SENT",
    flags="SA",
    ack=5000,
    options=SYN_OPTIONS,
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "an ACK of what was not sent",
    _SENT,
    "A RST with its number",
    "R seq=5000; SYN-SENT",
    flags="A",
    ack=5000,
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "an ACK of the SYN, without SYN",
    _SENT,
    "It is dropped",
    "nothing; SYN-SENT",
    flags="A",
    ack=1,
)
_in(states.syn_sent, "SYN-SENT", "a FIN alone", _SENT, "It is dropped", "nothing; SYN-SENT", flags="F")
_in(
    states.syn_sent,
    "SYN-SENT",
    "a RST that acknowledges the SYN",
    _SENT,
    "The connection is refused",
    "nothing; CLOSED",
    flags="RA",
    ack=1,
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "a RST that acknowledges something else",
    _SENT,
    "It is dropped",
    "nothing; SYN-SENT",
    flags="RA",
    ack=5000,
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "a RST without ACK",
    "RFC 5961 section 3.2",
    "It is discarded in silence",
    "nothing; SYN-SENT",
    flags="R",
)
_in(
    states.syn_sent,
    "SYN-SENT",
    "a SYN",
    _SENT,
    "SYN,ACK: simultaneous open",
    "SA seq=0 ack=1; SYN-RECEIVED",
    flags="S",
    options=SYN_OPTIONS,
)

_RECEIVED = "RFC 9293 section 3.10.7.4"
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "an ACK of the SYN",
    _RECEIVED,
    "ESTABLISHED",
    "nothing; ESTABLISHED",
    flags="A",
    ack=1,
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "an ACK of what was not sent",
    _RECEIVED,
    "A RST with its number",
    "R seq=5000; SYN-RECEIVED",
    flags="A",
    ack=5000,
)
_in(states.syn_received, "SYN-RECEIVED", "a RST at RCV.NXT", _RECEIVED, "Back to LISTEN", "nothing; CLOSED", flags="R")
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "a RST elsewhere in the window",
    "RFC 5961 section 3.2",
    "A challenge ACK, in all states but SYN-SENT",
    "A seq=1 ack=1; SYN-RECEIVED",
    flags="R",
    seq=11,
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "a RST beyond the window",
    "RFC 5961 section 3.2",
    "It is discarded in silence",
    "nothing; SYN-RECEIVED",
    flags="R",
    seq=BEYOND,
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "the peer's own SYN again",
    _RECEIVED,
    "The SYN,ACK again, or an ACK",
    "SA seq=0 ack=1; SYN-RECEIVED",
    "A seq=1 ack=1; SYN-RECEIVED",
    flags="S",
    seq=0,
    options=SYN_OPTIONS,
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "another SYN in the window",
    f"{_RECEIVED}, fourth; RFC 5961 section 4.2",
    "Back to LISTEN, or a challenge ACK",
    "A seq=1 ack=1; SYN-RECEIVED",
    "nothing; CLOSED",
    flags="S",
    seq=11,
    options=SYN_OPTIONS,
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "text beyond the window",
    _RECEIVED,
    "An ACK is sent and the segment dropped",
    "A seq=1 ack=1; SYN-RECEIVED",
    flags="A",
    seq=BEYOND,
    ack=1,
    payload=b"x",
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "text without ACK",
    _RECEIVED,
    "It is dropped",
    "nothing; SYN-RECEIVED",
    flags="",
    payload=b"x",
)
_in(
    states.syn_received,
    "SYN-RECEIVED",
    "FIN,ACK",
    _RECEIVED,
    "CLOSE-WAIT, and an ACK",
    "A seq=1 ack=2; CLOSE-WAIT",
    wait=True,
    flags="FA",
    ack=1,
)


# ---------------------------------------------------------------- opening and closing


@question("simultaneous open, to its end", "RFC 9293 section 3.5, figure 7", "The SYN,ACK of the peer establishes")
def _(subject: Subject) -> str:
    with states.syn_received(subject=subject, role="active") as scene:
        scene.peer.send("SA", seq=0, ack=1, options=SYN_OPTIONS)
        return answer(scene)


@question(
    "simultaneous close, to its end", "RFC 9293 section 3.6, figure 13", "CLOSING, then TIME-WAIT", "nothing; TIME-WAIT"
)
def _(subject: Subject) -> str:
    with states.closing(subject=subject, measured=True) as scene:
        scene.peer.send("A", ack=2)
        return answer(scene)


@question("the passive closer's last ACK", "RFC 9293 section 3.10.7.4, fifth", "CLOSED", "nothing; CLOSED")
def _(subject: Subject) -> str:
    with states.last_ack(subject=subject, measured=True) as scene:
        scene.peer.send("A", ack=2)
        return answer(scene)


@question(
    "a peer that has forgotten the connection opens it again",
    "RFC 9293 section 3.5.1; RFC 5961 section 4.2",
    "The challenge ACK is answered with a RST, which ends the connection",
    "A seq=1 ack=1; ESTABLISHED; nothing; CLOSED",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("S", seq=-100_000, options=SYN_OPTIONS)
        challenge = answer(scene)
        scene.peer.send("R", seq=1)
        return f"{challenge}; {answer(scene)}"


@question("abort", "RFC 9293 section 3.10.5", "A RST at SND.NXT", "R seq=1; CLOSED", "RA seq=1 ack=1; CLOSED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.abort()
        return answer(scene)


@question(
    "close with text that nobody has read",
    "RFC 9293 section 3.6.1, SHLD-3",
    "A RST",
    "R seq=1; CLOSED",
    "RA seq=1 ack=11; CLOSED",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"never read")
        scene.peer.wait(HALF_SECOND)
        scene.peer.drain()
        scene.close()
        return answer(scene)


@question(
    "text after close",
    "RFC 9293 section 3.6.1, SHLD-3",
    "A RST",
    "R seq=2; CLOSED",
    "RA seq=2 ack=1; CLOSED",
    "R seq=1; CLOSED",
)
def _(subject: Subject) -> str:
    with states.fin_wait_1(subject=subject, measured=True, how="close") as scene:
        scene.peer.send("A", payload=b"too late")
        return answer(scene)


@question("text after the peer's FIN", "RFC 9293 section 3.10.7.4, seventh", "It is ignored", "nothing; CLOSE-WAIT")
def _(subject: Subject) -> str:
    with states.close_wait(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"more")
        return answer(scene)


@question(
    "a FIN before the text that comes before it",
    "RFC 9293 section 3.10.7.4",
    "It waits for its turn",
    "A seq=1 ack=1; ESTABLISHED; A seq=1 ack=7; CLOSE-WAIT; read b'hello'",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("FA", seq=6)
        first = answer(scene, wait=True)
        scene.peer.send("A", seq=1, payload=b"hello")
        return f"{first}; {answer(scene, wait=True, read=True)}"


@question(
    "TIME-WAIT: a SYN beyond the old connection",
    "RFC 9293 section 3.6.1, MAY-2",
    "It may open a new one, or an ACK",
    "SYN-ACK; SYN-RECEIVED",
    "ACK; TIME-WAIT",
)
def _(subject: Subject) -> str:
    with states.time_wait(subject=subject, measured=True) as scene:
        scene.peer.send("S", seq=100_000, options=SYN_OPTIONS)
        [came] = scene.peer.drain()
        return f"{'SYN-ACK' if 'S' in came.flags else 'ACK'}; {scene.state}"


# ---------------------------------------------------------------- options


def _first_length(scene: Scene, octets: int = 3000) -> str:
    scene.send(bytes(octets))
    return f"len={len(scene.peer.queue[0].payload)}"


@question("a peer without the MSS option", "RFC 9293 section 3.7.1, MUST-15", "536", "len=536")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={}) as scene:
        return _first_length(scene)


@question("a peer with an MSS of 700", "RFC 9293 section 3.7.1, MUST-16", "No more than that", "len=700")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={"mss": 700}) as scene:
        return _first_length(scene)


@question("a peer with an MSS of 1", "RFC 9293 section 3.7.1, MUST-16", "No more than that, to the letter", "len=1")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={"mss": 1}) as scene:
        return _first_length(scene)


@question(
    "timestamps take room", "RFC 7323 section 3.2; RFC 9293 section 3.7.1", "Twelve bytes of a segment", "len=1448"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options=ALL_OPTIONS) as scene:
        return _first_length(scene)


@question(
    "a SYN with all options",
    "RFC 9293 section 3.7.1; RFC 7323; RFC 2018",
    "Those that are supported",
    "mss sack_permitted timestamps wscale",
)
def _(subject: Subject) -> str:
    with states.syn_received(subject=subject, role="passive", options=ALL_OPTIONS) as scene:
        scene.peer.send("S", seq=0, options=ALL_OPTIONS)
        [came] = scene.peer.drain()
        return " ".join(sorted(came.options))


@question("a SYN with ECE and CWR", "RFC 3168 section 6.1.1", "ECE alone, or no ECN", "SAE", "SA")
def _(subject: Subject) -> str:
    with states.listen(subject=subject) as scene:
        scene.peer.send("SEC", options=SYN_OPTIONS)
        [came] = scene.peer.drain()
        return came.flags


@question(
    "an option of an impossible length",
    "RFC 9293 section 3.1, MUST-7",
    "It is survived: the text may be taken or come again",
    "nothing; ESTABLISHED; read b''",
    "nothing; ESTABLISHED; read b'x'",
    "A seq=1 ack=2; ESTABLISHED; read b'x'",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"x", options={"raw": b"\x08\x01\x00\x00"})
        return answer(scene, read=True)


@question("reserved bits", "RFC 9293 section 3.1", "They are ignored", "read b'x'")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.testbed.inject(with_reserved_bits(scene.peer.frame(scene.peer.segment("A", payload=b"x")), 0x0E))
        return f"read {scene.read()!r}"


@question("a bad checksum", "RFC 9293 section 3.1, MUST-3", "It is dropped", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("R", malformed={"checksum": 0x1234})
        return answer(scene)


@question("a header of four words", "RFC 9293 section 3.1", "It is no segment", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("R", malformed={"data_offset": 4})
        return answer(scene)


@question(
    "urgent data", "RFC 9293 section 3.8.5", "The pointer is a point in the stream: all is read", "read b'hello world'"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("UA", payload=b"hello world", urgent=5)
        return f"read {_all(scene)!r}"


def _all(scene: Scene) -> bytes:
    """Reads as often as something comes: an urgent byte ends one read of the kernel's."""
    data = b""
    while piece := scene.read():
        data += piece
    return data


# ---------------------------------------------------------------- timestamps


def _stamped(subject: Subject) -> Scene:
    """ESTABLISHED with timestamps; one byte with a stamp well above what may follow has been read and acknowledged."""
    scene = states.established(subject=subject, measured=True, options=ALL_OPTIONS)
    scene.peer.ts_offset += 100_000
    scene.peer.send("A", payload=b"x")
    if not scene.peer.queue:
        scene.peer.wait(HALF_SECOND)
    scene.peer.drain()
    assert scene.read() == b"x"
    return scene


def _old(scene: Scene) -> dict[str, Any]:
    return {"nop": 2, "timestamps": ((scene.peer.ts_now - 50_000) & SEQUENCE_MASK, scene.peer.ts_recent)}


@question(
    "text with an old timestamp",
    "RFC 7323 section 5.3",
    "An ACK is sent and the segment dropped",
    "A seq=1 ack=2; ESTABLISHED; read b''",
)
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("A", payload=b"old", options=_old(scene))
        return answer(scene, read=True)


@question("a RST with an old timestamp", "RFC 7323 section 5.2", "It is judged by its number alone", "nothing; CLOSED")
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("R", options=_old(scene))
        return answer(scene)


@question(
    "text without the agreed timestamps",
    "RFC 7323 section 3.2",
    "It should be dropped in silence",
    "nothing; ESTABLISHED; read b''",
)
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("A", payload=b"bare", options={"timestamps": None})
        taken = scene.read()
        if taken and not scene.peer.queue:
            scene.peer.wait(HALF_SECOND)
        return f"{answer(scene)}; read {taken!r}"


@question("timestamps that were not agreed on", "RFC 7323 section 3.2", "They are ignored", "read b'ab'")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"a", options={"nop": 2, "timestamps": (5000, 0)})
        scene.peer.send("A", payload=b"b", options={"nop": 2, "timestamps": (4000, 0)})
        return f"read {_all(scene)!r}"


@question(
    "the RST of an abort, with timestamps", "RFC 7323 section 5.2", "It should have the option", "with timestamps"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options=ALL_OPTIONS) as scene:
        scene.abort()
        [came] = scene.peer.drain()
        return "with timestamps" if "timestamps" in came.options else "without timestamps"


@question(
    "the RST for a segment with timestamps of no connection",
    "RFC 7323 section 5.2",
    "It is recommended to have the option",
    "with timestamps",
)
def _(subject: Subject) -> str:
    with states.closed(subject=subject) as scene:
        scene.peer.send("A", ack=5000, options={"nop": 2, "timestamps": (1000, 1)})
        [came] = scene.peer.drain()
        return "with timestamps" if "timestamps" in came.options else "without timestamps"


@question("what the ACK of a filled hole echoes", "RFC 7323 section 4.3", "The segment that filled it", "the filler")
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("A", seq=1450, payload=b"y" * 10)
        scene.peer.drain()
        scene.peer.ts_offset += 1000
        filler = scene.peer.send("A", seq=2, payload=b"x" * 1448)
        echoed = [segment.options["timestamps"][1] for segment in scene.peer.drain()]
        return "the filler" if echoed == [filler.options["timestamps"][0]] else f"something else: {len(echoed)}"


# ---------------------------------------------------------------- acknowledgments


@question("text out of order", "RFC 5681 section 4.2", "A duplicate ACK at once", "A seq=1 ack=1; ESTABLISHED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        return answer(scene)


@question(
    "text that fills a hole",
    "RFC 5681 section 4.2",
    "An ACK at once",
    "A seq=1 ack=11; ESTABLISHED; read b'helloworld'",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        scene.peer.drain()
        scene.peer.send("A", seq=1, payload=b"hello")
        return answer(scene, read=True)


@question("two full segments", "RFC 5681 section 4.2", "Acknowledged with the second at the latest", "ack=2921")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=bytes(1460))
        scene.peer.send("A", payload=bytes(1460))
        return f"ack={scene.peer.relative(scene.peer.drain()[-1])[1]}"


@question("one small segment", "RFC 9293 section 3.8.6.3, MUST-40", "Acknowledged within half a second", "acknowledged")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"x")
        if not scene.peer.queue:
            scene.peer.wait(HALF_SECOND)
        return "acknowledged" if scene.peer.relative(scene.peer.drain()[0])[1] == 2 else "something else"


def _islands(subject: Subject, *pieces: tuple[int, int], options: dict[str, Any] | None = None) -> str:
    with states.established(subject=subject, measured=True, options=options or SACK) as scene:
        found = []
        for left, right in pieces:
            scene.peer.send("A", seq=left, payload=b"x" * (right - left))
            if not scene.peer.queue:
                scene.peer.wait(HALF_SECOND)
            found.append(blocks(scene))
        return " / ".join(found)


@question("SACK of an island", "RFC 2018 section 3", "Its first byte, and the one behind its last", "[(101, 201)]")
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201))


@question(
    "SACK of three islands",
    "RFC 2018 section 4",
    "The latest first, then those reported before",
    "[(1001, 1101)] / [(301, 401), (1001, 1101)] / [(601, 701), (301, 401), (1001, 1101)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, (1001, 1101), (301, 401), (601, 701))


@question(
    "SACK of five islands",
    "RFC 2018 section 3",
    "Four blocks in forty bytes",
    "[(1401, 1501), (1101, 1201), (801, 901), (501, 601)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, *((left, left + 100) for left in range(201, 1402, 300))).split(" / ")[-1]


@question("SACK of what joins two islands", "RFC 2018 section 4", "One block", "[(101, 401)]")
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201), (301, 401), (201, 301)).split(" / ")[-1]


@question("a segment that comes again", "RFC 2883 section 4", "It is the first block", "[] / [(1, 101)]")
def _(subject: Subject) -> str:
    return _islands(subject, (1, 101), (1, 101))


@question(
    "an island that comes again",
    "RFC 2883 section 4",
    "It is the first block, the whole island the second",
    "[(101, 201)] / [(101, 201), (101, 201)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201), (101, 201))


@question(
    "a segment of which a part comes again", "RFC 2883 section 4.2", "That part is the first block", "[] / [(51, 101)]"
)
def _(subject: Subject) -> str:
    return _islands(subject, (1, 101), (51, 151))


# ---------------------------------------------------------------- windows


@question(
    "a probe of the peer's closed window",
    "RFC 9293 section 3.8.6.1",
    "At least a byte of new data, if there is some",
    "A seq=1 ack=1 len=1; ESTABLISHED",
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", wnd=0)
        scene.send(bytes(10))
        scene.peer.wait(3 * SECOND)
        return answer(scene)


def _filled(subject: Subject) -> Scene:
    """ESTABLISHED, and the peer has sent until the window was closed; nobody has read."""
    scene = states.established(subject=subject, measured=True)
    window = 65535
    for _ in range(2000):
        scene.peer.send("A", payload=b"x" * min(window, 1460))
        if not scene.peer.queue:
            scene.peer.wait(HALF_SECOND)
        last = scene.peer.drain()[-1]
        window = last.wnd
        acked = scene.peer.relative(last)[1]
        scene.peer.snd_nxt = acked
        if window == 0:
            return scene
    raise AssertionError("the window does not close")


@question(
    "a probe of the closed window",
    "RFC 9293 section 3.8.6.1",
    "An ACK with the window",
    "an ACK of what there was, closed",
)
def _(subject: Subject) -> str:
    with _filled(subject) as scene:
        at = scene.peer.snd_nxt
        scene.peer.send("A", seq=at, payload=b"x")
        [came] = scene.peer.drain()
        closed = came.wnd == 0 and scene.peer.relative(came)[1] == at
        scene.abort()
        return "an ACK of what there was, closed" if closed else f"wnd={came.wnd}"


@question("a RST at a closed window", "RFC 9293 section 3.4, MUST-66", "It is processed", "nothing; CLOSED")
def _(subject: Subject) -> str:
    with _filled(subject) as scene:
        scene.peer.send("R")
        return answer(scene)


@question(
    "an ACK at a closed window", "RFC 9293 section 3.4, MUST-66", "It is processed: what it opens is used", "sent"
)
def _(subject: Subject) -> str:
    with _filled(subject) as scene:
        scene.peer.send("A", wnd=0)
        scene.peer.drain()
        scene.send(b"answer")
        scene.peer.drain()
        scene.peer.send("A", wnd=1000)
        came = [segment.payload for segment in scene.peer.drain()]
        scene.abort()
        return "sent" if came == [b"answer"] else f"{came}"


# ---------------------------------------------------------------- ICMP


def _icmp(subject: Subject, kind: int, code: int, *, mtu: int = 0) -> Scene:
    """An error about the full segment that is in flight."""
    scene = states.established(subject=subject, measured=True)
    scene.send(bytes(1460))
    [about] = scene.peer.drain()
    scene.peer.send_icmp_error(kind, code, about, mtu=mtu)
    return scene


@question(
    "port unreachable while established",
    "RFC 9293 section 3.9.2.2, SHLD-26; RFC 5927 section 5.2",
    "Abort; or a soft error, as anybody could have sent it",
    "nothing; CLOSED",
    "nothing; ESTABLISHED",
)
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 3) as scene:
        return answer(scene)


@question("host unreachable while established", "RFC 9293 section 3.9.2.2, MUST-56", "No abort", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 1) as scene:
        return answer(scene)


@question("source quench", "RFC 9293 section 3.9.2.2, MUST-55", "It is discarded", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with _icmp(subject, 4, 0) as scene:
        return answer(scene)


@question(
    "fragmentation needed, MTU 1000",
    "RFC 1191 section 6.4",
    "The segment goes again at once, in smaller ones",
    "A seq=1 ack=1 len=960, A seq=961 ack=1 len=500; ESTABLISHED",
    "A seq=1 ack=1 len=960; ESTABLISHED",
)
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 4, mtu=1000) as scene:
        return answer(scene)


@question(
    "port unreachable for a SYN", "RFC 9293 section 3.9.2.2, SHLD-26", "The connection is refused", "nothing; CLOSED"
)
def _(subject: Subject) -> str:
    with states.syn_sent(subject=subject) as scene:
        scene.peer.send_icmp_error(3, 3, scene.peer.from_stack("S", seq=0))
        return answer(scene)


OURS = {
    "TIME-WAIT: an ACK older than the largest window": "The record has no room for the largest window: an older ACK is "
    "ignored, and its text with it",
    "a peer with an MSS of 1": "It is raised to 64: to the letter it would have us send headers alone",
    "text without the agreed timestamps": "Keep-alives of some systems lack them, and a middlebox may begin to strip "
    "them (RFC 7323, 3.2)",
    "the RST for a segment with timestamps of no connection": "There is no record that has agreed on them",
}
"""Where our answer is not the RFC's, and why."""


def ask(subject: Subject, one: Question) -> str:
    """The answer; where the script cannot go on, why."""
    try:
        return one.script(subject)
    except (AssertionError, ConnectionError, ValueError, IndexError) as stuck:
        return "cannot be asked: " + " ".join(str(stuck).split())[:120]

# SPDX-License-Identifier: MIT
"""Questions of one segment: what it makes of each state. RFC 9293 section 3.10.7, RFC 5961.

Above: the list of all questions. Below: record, the test kit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ustack.testing import states
from ustack.testing.states import SYN_OPTIONS, Scene, Subject
from ustack.tools.conformance.questions.record import Question, Questions, Script, answer

BEYOND = 70_000
"""No window scale is agreed on, so no window reaches that far."""
QUESTIONS = Questions()

# ---------------------------------------------------------------- synchronized states


@dataclass(frozen=True)
class Case:
    """A synchronized state, how to get there, and the variables there (relative)."""

    name: str
    build: Callable[..., Scene]
    snd_una: int
    snd_nxt: int
    rcv_nxt: int


CASES = (
    Case("ESTABLISHED", states.established, 1, 1, 1),
    Case("FIN-WAIT-1", states.fin_wait_1, 1, 2, 1),
    Case("FIN-WAIT-2", states.fin_wait_2, 2, 2, 1),
    Case("CLOSE-WAIT", states.close_wait, 1, 1, 2),
    Case("CLOSING", states.closing, 1, 2, 2),
    Case("LAST-ACK", states.last_ack, 1, 2, 2),
    Case("TIME-WAIT", states.time_wait, 2, 2, 2),
)
FIN_TAKEN = CASES[3:]
"""The states in which the peer's FIN has been received."""


def ack(case: Case) -> str:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and nothing changes."""
    return f"A seq={case.snd_nxt} ack={case.rcv_nxt}; {case.name}"


def nothing(case: Case) -> str:
    """No answer and no change."""
    return f"nothing; {case.name}"


def closed(case: Case) -> str:
    """No answer, and that was the end."""
    return "nothing; CLOSED"


class Event(NamedTuple):
    """One segment in each of `cases`; `right` is the RFC's answer."""

    name: str
    section: str
    word: str
    right: Callable[[Case], str]
    segment: Callable[[Case], dict[str, Any]]
    cases: tuple[Case, ...] = CASES


# fmt: off
EVENTS = (
    Event("a RST at RCV.NXT", "RFC 5961 section 3.2", "The connection is reset", closed,
          lambda case: {"flags": "R", "seq": case.rcv_nxt}),
    Event("a RST elsewhere in the window", "RFC 5961 section 3.2", "A challenge ACK, and nothing else happens", ack,
          lambda case: {"flags": "R", "seq": case.rcv_nxt + 10}),
    Event("a RST before the window", "RFC 5961 section 3.2", "It is discarded in silence", nothing,
          lambda case: {"flags": "R", "seq": case.rcv_nxt - 1}),
    Event("a RST beyond the window", "RFC 5961 section 3.2", "It is discarded in silence", nothing,
          lambda case: {"flags": "R", "seq": case.rcv_nxt + BEYOND}),
    Event("a SYN at RCV.NXT", "RFC 5961 section 4.2", "A challenge ACK, whatever its number", ack,
          lambda case: {"flags": "S", "seq": case.rcv_nxt, "options": SYN_OPTIONS}),
    Event("the peer's own SYN again", "RFC 5961 section 4.2", "A challenge ACK, whatever its number", ack,
          lambda case: {"flags": "S", "seq": 0, "options": SYN_OPTIONS}),
    Event("a segment without ACK", "RFC 9293 section 3.10.7.4, fifth", "It is dropped", nothing,
          lambda case: {"flags": "", "seq": case.rcv_nxt, "payload": b"x"}),
    Event("an ACK of what was never sent", "RFC 9293 section 3.10.7.4, fifth; RFC 5961 section 5.2",
          "An ACK is sent and the segment dropped", ack, lambda case: {"flags": "A", "ack": case.snd_nxt + 1}),
    Event("an ACK older than the largest window", "RFC 5961 section 5.2", "The segment is discarded and an ACK sent",
          ack, lambda case: {"flags": "A", "ack": case.snd_una - 65536, "payload": b"injected"}),
    Event("a duplicate ACK", "RFC 9293 section 3.10.7.4, fifth", "It is ignored", nothing,
          lambda case: {"flags": "A", "ack": case.snd_una}),
    Event("text beyond the window", "RFC 9293 section 3.10.7.4, first", "An ACK is sent and the segment dropped", ack,
          lambda case: {"flags": "A", "seq": case.rcv_nxt + BEYOND, "payload": b"x"}),
    Event("a keep-alive probe: SEG.SEQ = RCV.NXT - 1", "RFC 9293 section 3.10.7.4, first", "An ACK is sent", ack,
          lambda case: {"flags": "A", "seq": case.rcv_nxt - 1}),
    Event("a FIN beyond the window", "RFC 9293 section 3.10.7.4, first", "An ACK is sent and the segment dropped", ack,
          lambda case: {"flags": "FA", "seq": case.rcv_nxt + BEYOND}),
    Event("the peer's FIN again", "RFC 9293 section 3.10.7.4, first", "An ACK is sent", ack,
          lambda case: {"flags": "FA", "seq": 1, "ack": case.snd_una}, FIN_TAKEN),
)
# fmt: on


def _script(case: Case, event: Event) -> Script:
    def script(subject: Subject) -> str:
        with case.build(subject=subject, measured=True) as scene:
            segment = event.segment(case)
            scene.peer.send(segment.pop("flags"), **segment)
            return answer(scene)

    return script


QUESTIONS.extend(
    Question(f"{case.name}: {event.name}", event.section, event.word, (event.right(case),), _script(case, event))
    for event in EVENTS
    for case in event.cases
)

# ---------------------------------------------------------------- the other states


class Other(NamedTuple):
    """One segment in a state that is not synchronized."""

    name: str
    word: str
    right: tuple[str, ...]
    segment: dict[str, Any]
    section: str = ""


LISTEN, CLOSED, SYN_SENT, SYN_RECEIVED = "LISTEN", "CLOSED", "SYN-SENT", "SYN-RECEIVED"
BUILDERS: dict[str, tuple[Callable[..., Scene], str]] = {
    LISTEN: (states.listen, "RFC 9293 section 3.10.7.2"),
    CLOSED: (states.closed, "RFC 9293 section 3.10.7.1"),
    SYN_SENT: (states.syn_sent, "RFC 9293 section 3.10.7.3"),
    SYN_RECEIVED: (states.syn_received, "RFC 9293 section 3.10.7.4"),
}
# fmt: off
OTHERS: dict[str, tuple[Other, ...]] = {
    LISTEN: (
        Other("a RST", "It is ignored", ("nothing; CLOSED",), {"flags": "R"}),
        Other("an ACK", "A RST with its number", ("R seq=5000; CLOSED",), {"flags": "A", "ack": 5000}),
        Other("a SYN", "SYN,ACK", ("SA seq=0 ack=1; SYN-RECEIVED",), {"flags": "S", "options": SYN_OPTIONS}),
        Other("a FIN without ACK", "It is dropped", ("nothing; CLOSED",), {"flags": "F"}),
        Other("SYN and FIN", "A SYN is answered, its FIN is for later", ("SA seq=0 ack=1; SYN-RECEIVED",),
              {"flags": "SF", "options": SYN_OPTIONS}),
        Other("a SYN with text", "SYN,ACK; the text may be kept or come again",
              ("SA seq=0 ack=1; SYN-RECEIVED", "SA seq=0 ack=6; SYN-RECEIVED"),
              {"flags": "S", "options": SYN_OPTIONS, "payload": b"early"}),
        Other("a SYN from a broadcast address", "It is ignored", ("nothing; CLOSED",),
              {"flags": "S", "src": "198.18.0.255"}, "RFC 9293 section 3.9.2.3, MUST-63"),
        Other("a SYN from a multicast address", "It is ignored", ("nothing; CLOSED",),
              {"flags": "S", "src": "224.0.0.1"}, "RFC 9293 section 3.9.2.3, MUST-63"),
        Other("a SYN to the broadcast address", "It is ignored", ("nothing; CLOSED",),
              {"flags": "S", "dst": "198.18.0.255"}, "RFC 9293 section 3.9.2.3, MUST-57"),
    ),
    CLOSED: (
        Other("a SYN", "RST,ACK of it", ("RA seq=zero ack=1; CLOSED",), {"flags": "S"}),
        Other("a SYN with text", "RST,ACK of all of it", ("RA seq=zero ack=6; CLOSED",),
              {"flags": "S", "payload": b"early"}),
        Other("an ACK", "A RST with its number", ("R seq=5000; CLOSED",), {"flags": "A", "ack": 5000}),
        Other("a FIN with ACK", "A RST with its number", ("R seq=5000; CLOSED",), {"flags": "FA", "ack": 5000}),
        Other("a RST", "It is discarded", ("nothing; CLOSED",), {"flags": "R"}),
    ),
    SYN_SENT: (
        Other("SYN,ACK", "ACK, and ESTABLISHED", ("A seq=1 ack=1; ESTABLISHED",),
              {"flags": "SA", "ack": 1, "options": SYN_OPTIONS}),
        Other("SYN,ACK with text", "ACK, and ESTABLISHED; the text may come again",
              ("A seq=1 ack=1; ESTABLISHED", "A seq=1 ack=6; ESTABLISHED"),
              {"flags": "SA", "ack": 1, "options": SYN_OPTIONS, "payload": b"early"}),
        Other("SYN,ACK of what was not sent", "A RST with its number", ("R seq=5000; SYN-SENT",),
              {"flags": "SA", "ack": 5000, "options": SYN_OPTIONS}),
        Other("an ACK of what was not sent", "A RST with its number", ("R seq=5000; SYN-SENT",),
              {"flags": "A", "ack": 5000}),
        Other("an ACK of the SYN, without SYN", "It is dropped", ("nothing; SYN-SENT",), {"flags": "A", "ack": 1}),
        Other("a FIN alone", "It is dropped", ("nothing; SYN-SENT",), {"flags": "F"}),
        Other("a RST that acknowledges the SYN", "The connection is refused", ("nothing; CLOSED",),
              {"flags": "RA", "ack": 1}),
        Other("a RST that acknowledges something else", "It is dropped", ("nothing; SYN-SENT",),
              {"flags": "RA", "ack": 5000}),
        Other("a RST without ACK", "It is discarded in silence", ("nothing; SYN-SENT",), {"flags": "R"},
              "RFC 5961 section 3.2"),
        Other("a SYN", "SYN,ACK: simultaneous open", ("SA seq=0 ack=1; SYN-RECEIVED",),
              {"flags": "S", "options": SYN_OPTIONS}),
    ),
    SYN_RECEIVED: (
        Other("an ACK of the SYN", "ESTABLISHED", ("nothing; ESTABLISHED",), {"flags": "A", "ack": 1}),
        Other("an ACK of what was not sent", "A RST with its number", ("R seq=5000; SYN-RECEIVED",),
              {"flags": "A", "ack": 5000}),
        Other("a RST at RCV.NXT", "Back to LISTEN", ("nothing; CLOSED",), {"flags": "R"}),
        Other("a RST elsewhere in the window", "A challenge ACK, in all states but SYN-SENT",
              ("A seq=1 ack=1; SYN-RECEIVED",), {"flags": "R", "seq": 11}, "RFC 5961 section 3.2"),
        Other("a RST beyond the window", "It is discarded in silence", ("nothing; SYN-RECEIVED",),
              {"flags": "R", "seq": BEYOND}, "RFC 5961 section 3.2"),
        Other("the peer's own SYN again", "The SYN,ACK again, or an ACK",
              ("SA seq=0 ack=1; SYN-RECEIVED", "A seq=1 ack=1; SYN-RECEIVED"),
              {"flags": "S", "seq": 0, "options": SYN_OPTIONS}),
        Other("another SYN in the window", "Back to LISTEN", ("nothing; CLOSED",),
              {"flags": "S", "seq": 11, "options": SYN_OPTIONS}, "RFC 9293 section 3.10.7.4, fourth"),
        Other("text beyond the window", "An ACK is sent and the segment dropped", ("A seq=1 ack=1; SYN-RECEIVED",),
              {"flags": "A", "seq": BEYOND, "ack": 1, "payload": b"x"}),
        Other("text without ACK", "It is dropped", ("nothing; SYN-RECEIVED",), {"flags": "", "payload": b"x"}),
        Other("FIN,ACK", "CLOSE-WAIT, and an ACK", ("A seq=1 ack=2; CLOSE-WAIT",), {"flags": "FA", "ack": 1}),
    ),
}
# fmt: on


def _other(state: str, one: Other) -> Script:
    """Where no ISS is known yet, the number of a RST is the one that the peer has acknowledged."""

    def script(subject: Subject) -> str:
        with BUILDERS[state][0](subject=subject) as scene:
            peer, segment = scene.peer, dict(one.segment)
            if state in {LISTEN, CLOSED}:
                peer.iss = 0
            peer.send(segment.pop("flags"), **segment)
            if state == LISTEN and peer.queue and "S" in peer.queue[0].flags:
                peer.iss = peer.queue[0].seq
            return answer(scene, wait=one.right[0].endswith("CLOSE-WAIT"))

    return script


QUESTIONS.extend(
    Question(f"{state}: {one.name}", one.section or BUILDERS[state][1], one.word, one.right, _other(state, one))
    for state, others in OTHERS.items()
    for one in others
)

# SPDX-License-Identifier: MIT
"""Questions about opening and closing: a few segments each way.

Above: the list of all questions. Below: record, the test kit.
"""

from __future__ import annotations

from ustack.testing import states
from ustack.testing.states import SYN_OPTIONS, Subject
from ustack.tools.conformance.questions.record import HALF_SECOND, Questions, answer

QUESTIONS = Questions()


@QUESTIONS.question(
    "simultaneous open, to its end", "RFC 9293 section 3.5, figure 7", "The SYN,ACK of the peer establishes"
)
def _(subject: Subject) -> str:
    with states.syn_received(subject=subject, role="active") as scene:
        scene.peer.send("SA", seq=0, ack=1, options=SYN_OPTIONS)
        return answer(scene)


@QUESTIONS.question(
    "simultaneous close, to its end", "RFC 9293 section 3.6, figure 13", "CLOSING, then TIME-WAIT", "nothing; TIME-WAIT"
)
def _(subject: Subject) -> str:
    with states.closing(subject=subject, measured=True) as scene:
        scene.peer.send("A", ack=2)
        return answer(scene)


@QUESTIONS.question("the passive closer's last ACK", "RFC 9293 section 3.10.7.4, fifth", "CLOSED", "nothing; CLOSED")
def _(subject: Subject) -> str:
    with states.last_ack(subject=subject, measured=True) as scene:
        scene.peer.send("A", ack=2)
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question("abort", "RFC 9293 section 3.10.5", "A RST at SND.NXT", "R seq=1; CLOSED", "RA seq=1 ack=1; CLOSED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.abort()
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question(
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


@QUESTIONS.question(
    "text after the peer's FIN", "RFC 9293 section 3.10.7.4, seventh", "It is ignored", "nothing; CLOSE-WAIT"
)
def _(subject: Subject) -> str:
    with states.close_wait(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"more")
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question(
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

# SPDX-License-Identifier: MIT
"""Questions about a transfer: acknowledgments and SACK, windows, what ICMP says of it.

Above: the list of all questions. Below: record, the test kit.
"""

from __future__ import annotations

from typing import Any

from ustack.testing import states
from ustack.testing.states import Scene, Subject
from ustack.testing.testbed import SECOND
from ustack.tools.conformance.questions.record import HALF_SECOND, SACK, Questions, answer, blocks

QUESTIONS = Questions()


@QUESTIONS.question(
    "text out of order", "RFC 5681 section 4.2", "A duplicate ACK at once", "A seq=1 ack=1; ESTABLISHED"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", seq=6, payload=b"world")
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question(
    "two full segments", "RFC 5681 section 4.2", "Acknowledged with the second at the latest", "ack=2921"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=bytes(1460))
        scene.peer.send("A", payload=bytes(1460))
        return f"ack={scene.peer.relative(scene.peer.drain()[-1])[1]}"


@QUESTIONS.question(
    "one small segment", "RFC 9293 section 3.8.6.3, MUST-40", "Acknowledged within half a second", "acknowledged"
)
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


@QUESTIONS.question(
    "SACK of an island", "RFC 2018 section 3", "Its first byte, and the one behind its last", "[(101, 201)]"
)
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201))


@QUESTIONS.question(
    "SACK of three islands",
    "RFC 2018 section 4",
    "The latest first, then those reported before",
    "[(1001, 1101)] / [(301, 401), (1001, 1101)] / [(601, 701), (301, 401), (1001, 1101)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, (1001, 1101), (301, 401), (601, 701))


@QUESTIONS.question(
    "SACK of five islands",
    "RFC 2018 section 3",
    "Four blocks in forty bytes",
    "[(1401, 1501), (1101, 1201), (801, 901), (501, 601)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, *((left, left + 100) for left in range(201, 1402, 300))).split(" / ")[-1]


@QUESTIONS.question("SACK of what joins two islands", "RFC 2018 section 4", "One block", "[(101, 401)]")
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201), (301, 401), (201, 301)).split(" / ")[-1]


@QUESTIONS.question("a segment that comes again", "RFC 2883 section 4", "It is the first block", "[] / [(1, 101)]")
def _(subject: Subject) -> str:
    return _islands(subject, (1, 101), (1, 101))


@QUESTIONS.question(
    "an island that comes again",
    "RFC 2883 section 4",
    "It is the first block, the whole island the second",
    "[(101, 201)] / [(101, 201), (101, 201)]",
)
def _(subject: Subject) -> str:
    return _islands(subject, (101, 201), (101, 201))


@QUESTIONS.question(
    "a segment of which a part comes again", "RFC 2883 section 4.2", "That part is the first block", "[] / [(51, 101)]"
)
def _(subject: Subject) -> str:
    return _islands(subject, (1, 101), (51, 151))


# ---------------------------------------------------------------- windows


@QUESTIONS.question(
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


@QUESTIONS.question(
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


@QUESTIONS.question("a RST at a closed window", "RFC 9293 section 3.4, MUST-66", "It is processed", "nothing; CLOSED")
def _(subject: Subject) -> str:
    with _filled(subject) as scene:
        scene.peer.send("R")
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question(
    "port unreachable while established",
    "RFC 9293 section 3.9.2.2, SHLD-26; RFC 5927 section 5.2",
    "Abort; or a soft error, as anybody could have sent it",
    "nothing; CLOSED",
    "nothing; ESTABLISHED",
)
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 3) as scene:
        return answer(scene)


@QUESTIONS.question(
    "host unreachable while established", "RFC 9293 section 3.9.2.2, MUST-56", "No abort", "nothing; ESTABLISHED"
)
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 1) as scene:
        return answer(scene)


@QUESTIONS.question("source quench", "RFC 9293 section 3.9.2.2, MUST-55", "It is discarded", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with _icmp(subject, 4, 0) as scene:
        return answer(scene)


@QUESTIONS.question(
    "fragmentation needed, MTU 1000",
    "RFC 1191 section 6.4",
    "The segment goes again at once, in smaller ones",
    "A seq=1 ack=1 len=960, A seq=961 ack=1 len=500; ESTABLISHED",
    "A seq=1 ack=1 len=960; ESTABLISHED",
)
def _(subject: Subject) -> str:
    with _icmp(subject, 3, 4, mtu=1000) as scene:
        return answer(scene)


@QUESTIONS.question(
    "port unreachable for a SYN", "RFC 9293 section 3.9.2.2, SHLD-26", "The connection is refused", "nothing; CLOSED"
)
def _(subject: Subject) -> str:
    with states.syn_sent(subject=subject) as scene:
        scene.peer.send_icmp_error(3, 3, scene.peer.from_stack("S", seq=0))
        return answer(scene)

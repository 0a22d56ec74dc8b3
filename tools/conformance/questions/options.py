# SPDX-License-Identifier: MIT
"""Questions about options, malformed segments, urgent data and timestamps.

Above: the list of all questions. Below: record, the test kit.
"""

from __future__ import annotations

from typing import Any

from ustack.testing import states
from ustack.testing.segment import SEQUENCE_MASK, with_reserved_bits
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, Subject
from ustack.tools.conformance.questions.record import HALF_SECOND, Questions, answer, read_all

QUESTIONS = Questions()


def _first_length(scene: Scene, octets: int = 3000) -> str:
    scene.send(bytes(octets))
    return f"len={len(scene.peer.queue[0].payload)}"


@QUESTIONS.question("a peer without the MSS option", "RFC 9293 section 3.7.1, MUST-15", "536", "len=536")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={}) as scene:
        return _first_length(scene)


@QUESTIONS.question("a peer with an MSS of 700", "RFC 9293 section 3.7.1, MUST-16", "No more than that", "len=700")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={"mss": 700}) as scene:
        return _first_length(scene)


@QUESTIONS.question(
    "a peer with an MSS of 1", "RFC 9293 section 3.7.1, MUST-16", "No more than that, to the letter", "len=1"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options={"mss": 1}) as scene:
        return _first_length(scene)


@QUESTIONS.question(
    "timestamps take room", "RFC 7323 section 3.2; RFC 9293 section 3.7.1", "Twelve bytes of a segment", "len=1448"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options=ALL_OPTIONS) as scene:
        return _first_length(scene)


@QUESTIONS.question(
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


@QUESTIONS.question("a SYN with ECE and CWR", "RFC 3168 section 6.1.1", "ECE alone, or no ECN", "SAE", "SA")
def _(subject: Subject) -> str:
    with states.listen(subject=subject) as scene:
        scene.peer.send("SEC", options=SYN_OPTIONS)
        [came] = scene.peer.drain()
        return came.flags


@QUESTIONS.question(
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


@QUESTIONS.question("reserved bits", "RFC 9293 section 3.1", "They are ignored", "read b'x'")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.testbed.inject(with_reserved_bits(scene.peer.frame(scene.peer.segment("A", payload=b"x")), 0x0E))
        return f"read {scene.read()!r}"


@QUESTIONS.question("a bad checksum", "RFC 9293 section 3.1, MUST-3", "It is dropped", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("R", malformed={"checksum": 0x1234})
        return answer(scene)


@QUESTIONS.question("a header of four words", "RFC 9293 section 3.1", "It is no segment", "nothing; ESTABLISHED")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("R", malformed={"data_offset": 4})
        return answer(scene)


@QUESTIONS.question(
    "urgent data", "RFC 9293 section 3.8.5", "The pointer is a point in the stream: all is read", "read b'hello world'"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("UA", payload=b"hello world", urgent=5)
        return f"read {read_all(scene)!r}"


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


@QUESTIONS.question(
    "text with an old timestamp",
    "RFC 7323 section 5.3",
    "An ACK is sent and the segment dropped",
    "A seq=1 ack=2; ESTABLISHED; read b''",
)
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("A", payload=b"old", options=_old(scene))
        return answer(scene, read=True)


@QUESTIONS.question(
    "a RST with an old timestamp", "RFC 7323 section 5.2", "It is judged by its number alone", "nothing; CLOSED"
)
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("R", options=_old(scene))
        return answer(scene)


@QUESTIONS.question(
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


@QUESTIONS.question("timestamps that were not agreed on", "RFC 7323 section 3.2", "They are ignored", "read b'ab'")
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True) as scene:
        scene.peer.send("A", payload=b"a", options={"nop": 2, "timestamps": (5000, 0)})
        scene.peer.send("A", payload=b"b", options={"nop": 2, "timestamps": (4000, 0)})
        return f"read {read_all(scene)!r}"


@QUESTIONS.question(
    "the RST of an abort, with timestamps", "RFC 7323 section 5.2", "It should have the option", "with timestamps"
)
def _(subject: Subject) -> str:
    with states.established(subject=subject, measured=True, options=ALL_OPTIONS) as scene:
        scene.abort()
        [came] = scene.peer.drain()
        return "with timestamps" if "timestamps" in came.options else "without timestamps"


@QUESTIONS.question(
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


@QUESTIONS.question(
    "what the ACK of a filled hole echoes", "RFC 7323 section 4.3", "The segment that filled it", "the filler"
)
def _(subject: Subject) -> str:
    with _stamped(subject) as scene:
        scene.peer.send("A", seq=1450, payload=b"y" * 10)
        scene.peer.drain()
        scene.peer.ts_offset += 1000
        filler = scene.peer.send("A", seq=2, payload=b"x" * 1448)
        echoed = [segment.options["timestamps"][1] for segment in scene.peer.drain()]
        return "the filler" if echoed == [filler.options["timestamps"][0]] else f"something else: {len(echoed)}"

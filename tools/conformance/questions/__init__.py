# SPDX-License-Identifier: MIT
"""Questions to a TCP, in the scripted peer's words: what it answers, and what the RFC has for an answer.

The same scripts run on either stack (ustack.testing.states.Subject). What an RFC leaves open has no right answer, and
then only differences are of interest. Nothing here waits for time to pass: what a timer sends is waited for until it
comes, and only where something must come.

events: one segment in a state. dialogues: opening and closing. options, transfer: on a connection. policy, which is
put to two of our profiles and lets time pass, is a list of its own.
"""

from __future__ import annotations

from ustack.testing.states import Subject
from ustack.tools.conformance.questions import dialogues, events, options, transfer
from ustack.tools.conformance.questions.record import Question

QUESTIONS = (*events.QUESTIONS, *dialogues.QUESTIONS, *options.QUESTIONS, *transfer.QUESTIONS)

OURS = {
    "TIME-WAIT: an ACK older than the largest window": "The record has no room for the largest window: an older ACK is "
    "ignored, and its text with it",
    "SYN-RECEIVED: another SYN in the window": "A challenge ACK, as RFC 5961 section 4.2 has it for the states that "
    "follow: anybody could have sent the SYN",
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

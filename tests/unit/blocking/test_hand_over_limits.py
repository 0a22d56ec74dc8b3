# SPDX-License-Identifier: MIT
"""What one turn's hand-over may cost the others, and what is looked at between an end and its hand-over."""

import pytest

from ustack import StackError
from ustack.testing.event_recorder import EventRecorder
from ustack.testing.peer import ScriptedPeer
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import SECOND, Testbed

MSS = {"mss": 1460}
STAGE_UNITS = 8192  # TURN_STAGE_UNITS
TIMERS = 1024  # TIMERS_A_TURN
ACCEPT_REFUSED = 2  # accept_t
LOOKS_IN_VAIN = 256  # engine/upcalls.pyx


def opened(bed: Testbed, port: int, stack_port: int) -> ScriptedPeer:
    peer = ScriptedPeer(bed, port=port, stack_port=stack_port)
    peer.send("S", options=MSS)
    peer.expect("SA")
    peer.send("A")
    return peer


def test_a_thousand_events_leave_output_its_half_of_the_turn(bed: Testbed) -> None:
    recorder = EventRecorder()
    bed.stack.listen(80, application=recorder)
    listener = bed.stack.listen(81)
    reader = opened(bed, 1000, 81)
    connection = listener.accept(timeout=0)
    recorder.timeout_ns = SECOND
    for number in range(TIMERS):
        opened(bed, 2000 + number, 80)
    due_ns = bed.now_ns + 2 * SECOND
    assert len(recorder.log) == TIMERS
    before = bed.stack.counters()
    connection.send(b"in time")
    bed.now_ns = due_ns
    bed.network.advance(due_ns)
    bed.stack.poll(due_ns)
    after = bed.stack.counters()
    assert after["frames_out"] > before["frames_out"]
    assert 0 < after["events_handed_over"] - before["events_handed_over"] < TIMERS
    assert bed.stack.turns()["units_max"] <= 2 * STAGE_UNITS
    bed.pump()
    reader.expect("PA", payload=b"in time")
    assert recorder.names().count(("timeout",)) == TIMERS
    assert recorder.errors == []


@pytest.mark.parametrize("held", [0, 40000])
def test_bytes_kept_at_an_end_are_charged(bed: Testbed, held: int) -> None:
    recorder = EventRecorder()
    recorder.shut = True
    bed.stack.listen(80, application=recorder)
    peer = opened(bed, 2000, 80)
    sent = 0
    while sent < held:
        peer.send("PA", payload=bytes(1000), seq=1 + sent)
        sent += 1000
    if held == 0:
        peer.send("PA", payload=b"x")
        sent = 1
    peer.send("FA", seq=1 + sent, ack=2)
    bed.pump()
    assert [len(rest) for rest in recorder.rests] == [sent]
    units = bed.stack.turns()["units_max"]
    assert (units > held // 512 + 300) if held else units < 600


def test_who_asks_again_at_the_end_of_a_turn_gets_the_next_one_without_a_sleep(bed: Testbed) -> None:
    recorder = EventRecorder()
    recorder.reset = recorder.ask_again = True
    bed.stack.listen(80, application=recorder)
    peer = opened(bed, 2000, 80)
    peer.send("PA", payload=b"x", pump=False)
    bed.network.advance(bed.now_ns)
    bed.stack.poll(bed.now_ns)
    assert recorder.reasons == ["aborted"]
    assert bed.stack.counters()["hand_overs_at_return"] == 1
    assert bed.stack.next_deadline_ns == bed.now_ns
    bed.stack.poll(bed.now_ns)
    assert bed.stack.next_deadline_ns != bed.now_ns


def test_a_connection_that_has_ended_and_does_not_know_yet_has_no_variables(bed: Testbed) -> None:
    """Its memory may be another connection's already."""
    recorder = EventRecorder()
    bed.stack.listen(80, application=recorder)
    listener = bed.stack.listen(81)
    first, second = opened(bed, 2000, 80), opened(bed, 2001, 81)
    connection = listener.accept(timeout=0)
    seen: list[object] = []

    def look(port: int, names: tuple[str, ...]) -> None:
        seen.append(connection.state)
        for ask in (lambda: connection.cc, lambda: connection.nodelay):
            try:
                seen.append(ask())
            except StackError as error:
                seen.append(error.reason)

    recorder.told = look
    first.send("R", pump=False)
    second.send("R", pump=False)
    bed.pump()
    assert seen == ["CLOSED", "state", "state"]
    assert connection.reason == "reset"
    assert recorder.errors == []


@pytest.mark.parametrize("after", ["told", "dropped"])
def test_a_connection_refused_after_an_event_is_not_told_of(bed: Testbed, after: str) -> None:
    """Its record is in the ring: it goes when the ring comes to it, or with the application."""
    recorder = EventRecorder()
    bed.stack.listen(80, application=recorder)
    assert recorder.refuse_one_that_has_timed_out() == ACCEPT_REFUSED
    assert recorder.records == 0
    if after == "dropped":
        return
    bed.stack.poll(bed.now_ns)
    assert recorder.hand_overs == 1
    assert (recorder.log, recorder.events_told) == ([], 0)
    opened(bed, 2000, 80)
    assert recorder.names() == [("accepted",)]


def test_a_listener_of_one_address_takes_no_place_from_that_of_any(bed: Testbed) -> None:
    """Who waits has been counted by the listener that was there then."""
    of_any = bed.stack.listen(80, backlog=2)
    opened(bed, 2000, 80)
    with bed.stack.listen(80, address=bed.stack_address, backlog=2):
        of_any.accept(timeout=0).close()
    bed.pump()
    for number in range(2):
        opened(bed, 3000 + number, 80)
    assert of_any.pending == 2


def test_who_gathers_events_looks_at_a_bounded_number_of_others_connections(bed: Testbed) -> None:
    """A thousand connections of an application without hand-overs have work, a socket's event lies behind them: it is
    told all the same."""
    plain = Recorder()
    bed.stack.listen(80, application=plain)
    listener = bed.stack.listen(81)
    socket = opened(bed, 1000, 81)
    connection = listener.accept(timeout=0)
    plain.on("accept", ("timeout", SECOND))
    for number in range(TIMERS - 1):
        opened(bed, 2000 + number, 80)
    connection.set_user_timeout(1)
    due_ns = bed.now_ns + 2 * SECOND
    bed.now_ns = due_ns
    bed.network.advance(due_ns)
    bed.stack.poll(due_ns)
    turns = bed.stack.turns()
    assert turns["timers_max"] >= 500
    assert turns["looks_in_vain_max"] == LOOKS_IN_VAIN
    socket.send("PA", payload=b"x")
    assert connection.receive(timeout=0) == b"x"

# SPDX-License-Identifier: MIT
"""The table of legal moves between states, and its one gate: RFC 9293 figure 5 and section 3.10."""

import re
import subprocess
from collections.abc import Callable

import pytest

from tests.children import run_python
from tests.tree import ROOT, sources
from ustack.buf.slab import Slab
from ustack.tcp.records.state import MOVES, Move, state_name, tcp_state_t
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import (
    SYN_OPTIONS,
    Scene,
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    listen,
    syn_received,
    syn_sent,
    time_wait,
)
from ustack.testing.testbed import SECOND, Testbed

STATES = list(tcp_state_t)
IS_DEBUG = Slab(64, 1).is_debug


# ---------------------------------------------------------------- every legal move, made


def nothing() -> Scene:
    """CLOSED, and nothing has happened yet."""
    testbed = Testbed()
    testbed.introduce()
    return Scene(testbed, ScriptedPeer(testbed, port=7777, stack_port=None))


def open_listener(scene: Scene) -> None:
    scene.listener = scene.testbed.stack.listen(80)


def close_listener(scene: Scene) -> None:
    assert scene.listener is not None
    scene.listener.close()


def connect(scene: Scene) -> None:
    scene.connection = scene.testbed.stack.connect(scene.peer.address, 7777, wait=False)
    scene.testbed.pump()


# What makes each move: the builder of the state before, and the event. Both forms of SYN-RECEIVED have a row.
SCRIPTS: dict[tuple[str, str], list[tuple[Callable[[], Scene], Callable[[Scene], object]]]] = {
    ("CLOSED", "LISTEN"): [(nothing, open_listener)],
    ("CLOSED", "SYN-SENT"): [(nothing, connect)],
    ("LISTEN", "SYN-RECEIVED"): [(listen, lambda scene: scene.peer.send("S", options=SYN_OPTIONS))],
    ("LISTEN", "CLOSED"): [(listen, close_listener)],
    ("SYN-SENT", "SYN-RECEIVED"): [(syn_sent, lambda scene: scene.peer.send("S", options=SYN_OPTIONS))],
    ("SYN-SENT", "ESTABLISHED"): [(syn_sent, lambda scene: scene.peer.send("SA", options=SYN_OPTIONS))],
    ("SYN-SENT", "CLOSED"): [
        (syn_sent, lambda scene: scene.close()),
        (syn_sent, lambda scene: scene.peer.send("RA", ack=1)),
    ],
    ("SYN-RECEIVED", "ESTABLISHED"): [
        (syn_received, lambda scene: scene.peer.send("A")),
        (lambda: syn_received(role="active"), lambda scene: scene.peer.send("A")),
    ],
    ("SYN-RECEIVED", "LISTEN"): [
        (syn_received, lambda scene: scene.peer.send("R")),
        (syn_received, lambda scene: scene.testbed.advance(200 * SECOND)),
    ],
    ("SYN-RECEIVED", "CLOSED"): [
        (lambda: syn_received(role="active"), lambda scene: scene.peer.send("R")),
        (lambda: syn_received(role="active"), lambda scene: scene.abort()),
    ],
    ("ESTABLISHED", "FIN-WAIT-1"): [(established, lambda scene: scene.shutdown())],
    ("ESTABLISHED", "CLOSE-WAIT"): [(established, lambda scene: scene.peer.send("FA"))],
    ("ESTABLISHED", "CLOSED"): [
        (established, lambda scene: scene.peer.send("R")),
        (established, lambda scene: scene.abort()),
    ],
    ("FIN-WAIT-1", "FIN-WAIT-2"): [(fin_wait_1, lambda scene: scene.peer.send("A"))],
    ("FIN-WAIT-1", "CLOSING"): [(fin_wait_1, lambda scene: scene.peer.send("FA", ack=1))],
    ("FIN-WAIT-1", "CLOSED"): [(fin_wait_1, lambda scene: scene.peer.send("R"))],
    ("FIN-WAIT-2", "TIME-WAIT"): [(fin_wait_2, lambda scene: scene.peer.send("FA"))],
    ("FIN-WAIT-2", "CLOSED"): [
        (fin_wait_2, lambda scene: scene.peer.send("R")),
        (lambda: fin_wait_2(how="close"), lambda scene: scene.testbed.advance(61 * SECOND)),
    ],
    ("CLOSE-WAIT", "LAST-ACK"): [(close_wait, lambda scene: scene.close())],
    ("CLOSE-WAIT", "CLOSED"): [(close_wait, lambda scene: scene.peer.send("R"))],
    ("CLOSING", "TIME-WAIT"): [(closing, lambda scene: scene.peer.send("A"))],
    ("CLOSING", "CLOSED"): [(closing, lambda scene: scene.peer.send("R"))],
    ("LAST-ACK", "CLOSED"): [
        (last_ack, lambda scene: scene.peer.send("A")),
        (last_ack, lambda scene: scene.peer.send("R")),
    ],
    ("TIME-WAIT", "CLOSED"): [
        (time_wait, lambda scene: scene.testbed.advance(61 * SECOND)),
        (time_wait, lambda scene: scene.peer.send("R")),
    ],
}  # fmt: skip


def names(move: Move) -> tuple[str, str]:
    return state_name(move.before), state_name(move.after)


def test_every_legal_move_has_a_script() -> None:
    assert SCRIPTS.keys() == {names(move) for move in MOVES}


@pytest.mark.parametrize(
    ("move", "build", "event"),
    [(move, build, event) for move, scripts in SCRIPTS.items() for build, event in scripts],
    ids=[f"{move[0]} to {move[1]}, {at}" for move, scripts in SCRIPTS.items() for at in range(len(scripts))],
)
def test_the_script_makes_the_move_and_no_other(
    move: tuple[str, str], build: Callable[[], Scene], event: Callable[[Scene], object]
) -> None:
    with build() as scene:
        before = scene.testbed.stack.state_moves()
        event(scene)
        assert scene.testbed.stack.state_moves() == before | {move}
        assert move not in before


def test_a_close_that_waited_for_a_simultaneous_open_passes_each_state_on_its_way() -> None:
    with syn_received(role="active") as scene:
        scene.shutdown()
        scene.peer.send("A")
        assert scene.state == "FIN-WAIT-1"
        assert ("ESTABLISHED", "FIN-WAIT-1") in scene.testbed.stack.state_moves()


def test_a_syn_that_reopens_a_connection_in_time_wait_passes_closed_and_listen() -> None:
    """MAY-2: accept a new SYN from the remote TCP endpoint to reopen the connection directly from TIME-WAIT."""
    with time_wait() as scene:
        before = scene.testbed.stack.state_moves()
        scene.peer.send("S", seq=100_000, options=SYN_OPTIONS)
        assert scene.state == "SYN-RECEIVED"
        assert scene.testbed.stack.state_moves() == before | {("TIME-WAIT", "CLOSED")}


# ---------------------------------------------------------------- the table


def test_no_move_is_there_twice() -> None:
    assert len({(move.before, move.after) for move in MOVES}) == len(MOVES)


@pytest.mark.parametrize("state", STATES, ids=state_name)
def test_every_state_can_be_reached_and_left(state: tcp_state_t) -> None:
    assert any(move.after == state for move in MOVES)
    assert any(move.before == state for move in MOVES)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: " to ".join(names(move)))
def test_every_move_names_its_section_and_the_words(move: Move) -> None:
    assert re.fullmatch(r"3\.10\.\d(\.\d)?", move.section)
    assert move.words.endswith(".")
    assert move.event


# ---------------------------------------------------------------- the gate


def path_to(state: tcp_state_t) -> list[tcp_state_t]:
    """Legal moves from CLOSED to the state."""
    paths: dict[tcp_state_t, list[tcp_state_t]] = {tcp_state_t.CLOSED: []}
    while state not in paths:
        for move in MOVES:
            if move.before in paths:
                paths.setdefault(move.after, [*paths[move.before], move.after])
    return paths[state]


def walk(*states: int) -> subprocess.CompletedProcess[str]:
    return run_python(f"from ustack.testing.parts.tcp import walk_states; walk_states(*{list(map(int, states))})")


def test_a_walk_over_every_legal_move_is_let_through() -> None:
    rounds = [[*path_to(move.before), move.after] for move in MOVES]
    home = [[] if states[-1] == tcp_state_t.CLOSED else [tcp_state_t.CLOSED] for states in rounds]
    done = walk(*[state for out, back in zip(rounds, home, strict=True) for state in (*out, *back)])
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not IS_DEBUG, reason="only debug builds check their callers")
@pytest.mark.parametrize("before", STATES, ids=state_name)
def test_debug_builds_abort_on_an_illegal_move(before: tcp_state_t) -> None:
    legal = {move.after for move in MOVES if move.before == before}
    for after in set(STATES) - legal:
        done = walk(*path_to(before), after)
        assert done.returncode < 0, f"{state_name(before)} to {state_name(after)} went through"
        assert "move_is_legal" in done.stderr


DECLARED = re.compile(r"\btcb_t \*(\w+)")


def writers_of_state(text: str) -> list[str]:
    """Lines that write the state of something declared as a tcb_t."""
    names = {*DECLARED.findall(text), "tcb", "conn"}
    write = re.compile(rf"(?<![\w.])(?:[\w.]+\.)?(?:{'|'.join(sorted(names))})(?:\[0\])?\.state\s*(?:=(?!=)|[-+|&^]=)")
    return [line.strip() for line in text.splitlines() if write.search(line) or re.search(r"&\w+\.state\b", line)]


def test_nobody_else_writes_a_connections_state() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources(".pyx", ".pxd", ".pyi")
        if (lines := writers_of_state(path.read_text()))
    }
    assert found.keys() == {"ustack/tcp/records/moves.pxd"}, found


def test_the_search_for_writers_finds_them() -> None:
    assert writers_of_state("cdef tcb_t *victim\n    victim.state = CLOSED") == ["victim.state = CLOSED"]
    assert writers_of_state("    self.conn.state = <uint8_t>CLOSED") == ["self.conn.state = <uint8_t>CLOSED"]
    assert writers_of_state("    p = &tcb.state") == ["p = &tcb.state"]
    assert writers_of_state("    if tcb.state == CLOSED and f(tcb.state):\n    set_state(tcp, tcb, CLOSED)") == []

# SPDX-License-Identifier: MIT
"""What every synchronized state has in common: RFC 9293 section 3.10.7.4, steps one to five, and RFC 5961.

What is a state's own (text, FIN, acknowledgment of our FIN, user calls) is in test_state_<state>.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ustack import ConnectionReset
from ustack.testing import states
from ustack.testing.states import Scene


@dataclass(frozen=True)
class Case:
    """A state, how to get there, and the stack's variables there (relative)."""

    name: str
    build: Callable[..., Scene]
    snd_una: int
    snd_nxt: int
    rcv_nxt: int

    def __str__(self) -> str:
        return self.name


ESTABLISHED = Case("ESTABLISHED", states.established, 1, 1, 1)
FIN_WAIT_1 = Case("FIN-WAIT-1", states.fin_wait_1, 1, 2, 1)
FIN_WAIT_2 = Case("FIN-WAIT-2", states.fin_wait_2, 2, 2, 1)
CLOSE_WAIT = Case("CLOSE-WAIT", states.close_wait, 1, 1, 2)
CLOSING = Case("CLOSING", states.closing, 1, 2, 2)
LAST_ACK = Case("LAST-ACK", states.last_ack, 1, 2, 2)
TIME_WAIT = Case("TIME-WAIT", states.time_wait, 2, 2, 2)

FULL = [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK]
"""The states that have a tcb. TIME-WAIT is a mini-record that only answers: test_state_time_wait.py."""
ALL = [*FULL, TIME_WAIT]
BEYOND_WINDOW = 70_000
"""No window scale was agreed on, so no window reaches that far."""

every_state = pytest.mark.parametrize("case", ALL, ids=str)
every_full_state = pytest.mark.parametrize("case", FULL, ids=str)


def expect_ack(scene: Scene, case: Case) -> None:
    """<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and nothing else."""
    scene.peer.expect("A", seq=case.snd_nxt, ack=case.rcv_nxt)
    scene.peer.expect_nothing()


# ---------------------------------------------------------------- first: sequence number


@every_state
def test_builder_reaches_the_state(case: Case) -> None:
    with case.build() as scene:
        assert scene.state == case.name
        assert scene.peer.snd_nxt == case.rcv_nxt
        assert scene.peer.rcv_nxt == case.snd_nxt


@every_state
def test_initial_sequence_numbers_are_just_under_the_wrap(case: Case) -> None:
    with case.build() as scene:
        assert scene.peer.iss is not None
        assert scene.peer.iss > 0xFFFFFF00
        assert scene.peer.isn > 0xFFFFFF00


@every_state
def test_data_beyond_the_window_is_answered_with_an_ack(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("A", seq=case.rcv_nxt + BEYOND_WINDOW, payload=b"x" * 10)
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}


@every_full_state
def test_data_before_the_window_is_answered_with_an_ack(case: Case) -> None:
    """All of it has been received: counted as a duplicate, not as a sequence number out of the window."""
    with case.build() as scene:
        scene.peer.send("A", seq=case.rcv_nxt - 1, payload=b"x")
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_duplicate": 1}


@every_full_state
def test_fin_beyond_the_window_is_not_taken(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("FA", seq=case.rcv_nxt + BEYOND_WINDOW)
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}


# ---------------------------------------------------------------- second: RST (RFC 5961 section 3)


@every_full_state
def test_rst_exact_ends_the_connection(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("R")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.counted().get("resets_out", 0) == 0


@pytest.mark.parametrize("case", [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2], ids=str)
def test_rst_exact_is_told_to_a_reader(case: Case) -> None:
    """MUST-12: the application can tell an abort from a normal close."""
    with case.build() as scene:
        scene.peer.send("R")
        with pytest.raises(ConnectionReset):
            scene.conn.receive(100, timeout=0)


def test_rst_exact_is_told_to_a_sender() -> None:
    with states.close_wait() as scene:
        scene.peer.send("R")
        with pytest.raises(ConnectionReset):
            scene.conn.send(b"x")


@every_full_state
def test_rst_exact_with_an_ack_and_data_ends_the_connection(case: Case) -> None:
    """SHLD-2: a RST may carry data, an explanation."""
    with case.build() as scene:
        scene.peer.send("RA", payload=b"go away")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"


@every_full_state
def test_rst_in_window_is_challenged(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("R", seq=case.rcv_nxt + 10)
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}
        assert scene.testbed.counted()["challenge_acks_out"] == 1


@every_state
@pytest.mark.parametrize("offset", [-1, BEYOND_WINDOW], ids=["before", "beyond"])
def test_rst_outside_of_the_window_is_dropped_silently(case: Case, offset: int) -> None:
    """RFC 5961 section 3.2, case 1. Counted as a RST, so that a blind attack can be seen."""
    with case.build() as scene:
        scene.peer.send("R", seq=case.rcv_nxt + offset)
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


# ---------------------------------------------------------------- fourth: SYN (RFC 5961 section 4)


@every_full_state
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_syn_in_window_is_challenged(case: Case, flags: str) -> None:
    with case.build() as scene:
        scene.peer.send(flags, seq=case.rcv_nxt)
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_syn": 1}
        assert scene.testbed.counted()["challenge_acks_out"] == 1


@every_full_state
def test_syn_outside_of_the_window_is_answered_with_an_ack(case: Case) -> None:
    """The peer's own SYN again: an ACK, by the first step (all of it has been received) as by RFC 5961 section 4.2.

    The first step comes first, so the drop is counted as a duplicate, not as a SYN. The ACK is limited like a
    challenge and counted as one.
    """
    with case.build() as scene:
        scene.peer.send("S", seq=0, options={"mss": 1460})
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_duplicate": 1}
        assert scene.testbed.counted()["challenge_acks_out"] == 1


# ---------------------------------------------------------------- fifth: ACK


@every_full_state
def test_no_ack_bit_is_dropped(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("", seq=case.rcv_nxt, payload=b"x")
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


@every_full_state
def test_ack_of_what_was_never_sent_is_answered_with_an_ack(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("A", ack=case.snd_nxt + 1)
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


@every_full_state
def test_ack_older_than_the_largest_window_is_challenged(case: Case) -> None:
    """RFC 5961 section 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT (MAY-12)."""
    with case.build() as scene:
        scene.peer.send("A", ack=case.snd_una - 65535 - 1, payload=b"injected")
        expect_ack(scene, case)
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


@every_full_state
def test_old_ack_is_ignored(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("A", ack=case.snd_una - 1)
        scene.peer.expect_nothing()
        assert scene.state == case.name


@every_full_state
def test_duplicate_ack_changes_nothing(case: Case) -> None:
    with case.build() as scene:
        scene.peer.send("A", ack=case.snd_una)
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {}


# ---------------------------------------------------------------- malformed


@every_full_state
@pytest.mark.parametrize(
    "octets",
    [b"\x02\x00\x05\xb4", b"\x08\x01\x00\x00", b"\x01\x01\x08\x0a", b"\x02\x28\x05\xb4", b"\x01\x01\x01\x02"],
    ids=["length_0", "length_1", "cut_off", "beyond_header", "kind_only"],
)
def test_option_with_an_impossible_length_is_survived(case: Case, octets: bytes) -> None:
    """MUST-7."""
    with case.build() as scene:
        scene.peer.send("A", options={"raw": octets, "timestamps": None}, payload=b"x")
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_option": 1}
        scene.peer.expect_nothing()


@every_state
def test_bad_checksum_is_dropped(case: Case) -> None:
    """MUST-3."""
    with case.build() as scene:
        segment = scene.peer.segment("R")
        good = scene.peer.frame(segment)
        scene.testbed.inject(good[:50] + bytes([good[50] ^ 1]) + good[51:])
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_checksum": 1}


@every_state
@pytest.mark.parametrize("words", [0, 4, 6, 15])
def test_bad_data_offset_is_dropped(case: Case, words: int) -> None:
    with case.build() as scene:
        scene.peer.send("R", malformed={"data_offset": words})
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_tcp_data_offset": 1}


# ---------------------------------------------------------------- ICMP (section 3.9.2.2, RFC 5927)

SOFT = [(3, 0), (3, 1), (3, 5), (11, 0), (11, 1), (12, 0)]
HARD = [(3, 2), (3, 3)]


@pytest.mark.parametrize("case", [FIN_WAIT_1, CLOSING, LAST_ACK], ids=str)
@pytest.mark.parametrize(("kind", "code"), SOFT)
def test_soft_icmp_error_does_not_abort(case: Case, kind: int, code: int) -> None:
    """MUST-56."""
    with case.build() as scene:
        scene.peer.send_icmp_error(kind, code, scene.peer.from_stack("FA", seq=case.snd_una))
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("case", FULL, ids=str)
@pytest.mark.parametrize(("kind", "code"), [*SOFT, *HARD])
def test_icmp_error_about_what_is_not_in_flight_is_dropped(case: Case, kind: int, code: int) -> None:
    """RFC 5927 section 4: SND.UNA <= SEG.SEQ < SND.NXT; anything else may be forged by somebody who has to guess."""
    with case.build() as scene:
        scene.peer.send_icmp_error(kind, code, scene.peer.from_stack(seq=case.snd_nxt + 1000))
        scene.peer.expect_nothing()
        assert scene.state == case.name
        assert scene.testbed.dropped() == {"drop_icmp_no_connection": 1}


@every_full_state
def test_source_quench_is_discarded(case: Case) -> None:
    """MUST-55."""
    with case.build() as scene:
        scene.peer.send_icmp_error(4, 0, scene.peer.from_stack(seq=case.snd_una))
        scene.peer.expect_nothing()
        assert scene.state == case.name


# ---------------------------------------------------------------- the user (section 3.10.5)


@pytest.mark.parametrize("case", [ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT], ids=str)
def test_abort_sends_a_rst(case: Case) -> None:
    """Section 3.10.5: <SEQ=SND.NXT><CTL=RST>. Ours carries ACK=RCV.NXT as well.

    Section 3.1 has it in every segment of an established connection, and the receiver of a RST does not look at it.
    """
    with case.build() as scene:
        scene.abort()
        scene.peer.expect("RA", seq=case.snd_nxt, ack=case.rcv_nxt)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.counted()["resets_out"] == 1


@pytest.mark.parametrize("case", [CLOSING, LAST_ACK], ids=str)
def test_abort_of_a_closing_connection_deletes_it(case: Case) -> None:
    """Section 3.10.5 deletes the TCB and need not say so to the peer; we send the RST of the other states here, too."""
    with case.build() as scene:
        scene.abort()
        scene.peer.expect("RA", seq=case.snd_nxt, ack=case.rcv_nxt)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"

# SPDX-License-Identifier: MIT
"""TIME-WAIT, a mini-record that only answers. RFC 9293 section 3.6.1 and 3.10.7.4, RFC 6191, RFC 1337."""

from typing import Any

import pytest

from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, Scene, time_wait
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

MSL = 30 * SECOND


def scene_with_listener(**parameters: Any) -> Scene:
    """TIME-WAIT of an accepted connection: the port still listens."""
    return time_wait(msl_ns=MSL, **parameters)


def test_time_wait_lasts_two_msl() -> None:
    """MUST-13."""
    with time_wait(msl_ns=MSL) as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 10 * MSL)
        assert 2 * MSL <= took <= 2 * MSL + SECOND
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["time_waits"] == 0


@pytest.mark.parametrize("days", [1, 7, 10, 14, 20, 60])
def test_time_wait_is_over_however_long_nobody_looked(days: int) -> None:
    """Ticks tell 6.5 days: a process that was stopped for longer does not take the past for the future."""
    with time_wait(msl_ns=MSL) as scene:
        scene.testbed.now_ns += days * 86400 * SECOND
        scene.testbed.pump()
        assert scene.testbed.stack.leaks()["time_waits"] == 0


def test_time_wait_costs_no_tcb() -> None:
    with time_wait() as scene:
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        assert scene.testbed.stack.leaks()["time_waits"] == 1


def test_time_wait_fin_again_is_acknowledged_and_restarts_the_wait() -> None:
    with time_wait(msl_ns=MSL) as scene:
        scene.testbed.advance(MSL)
        scene.peer.send("FA", seq=1)
        scene.peer.expect("A", seq=2, ack=2)
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 10 * MSL)
        assert 2 * MSL <= took <= 2 * MSL + SECOND


def test_time_wait_old_data_is_acknowledged() -> None:
    with time_wait() as scene:
        scene.peer.send("A", seq=1, payload=b"x")
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "TIME-WAIT"


def test_time_wait_ack_is_not_answered() -> None:
    """Two TCPs in TIME-WAIT (simultaneous close) must not acknowledge each other for ever."""
    with time_wait() as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "TIME-WAIT"


def test_time_wait_rst_is_not_answered() -> None:
    """It ends the wait: RFC 9293 section 3.10.7.4, second: "enter the CLOSED state".

    A stack may ignore it instead (RFC 1337 section 3, F1). Ours asks for the exact sequence number (RFC 5961 section
    3.2), which an old duplicate hardly has.
    """
    with time_wait() as scene:
        scene.peer.send("R")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.stack.leaks()["time_waits"] == 0
        assert scene.testbed.dropped() == {"drop_tcp_rst": 1}


def test_a_peer_whose_clock_went_back_opens_again_by_its_rst() -> None:
    """Its SYN may be an old one: it is acknowledged (RFC 9293 section 3.10.7.4), which SYN-SENT answers with a RST of
    the number that the ACK names (section 3.10.7.3). That ends the wait, and the SYN's retransmission is heard."""
    with scene_with_listener(options=ALL_OPTIONS) as scene:
        options = dict(ALL_OPTIONS, timestamps=(scene.peer.ts_now - 10_000, 0))
        scene.peer.send("S", seq=50_000, options=options)
        reply = scene.peer.expect("A", seq=2, ack=2)
        scene.peer.send("R", seq=scene.peer.relative(reply)[1])
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["time_waits"] == 0
        scene.peer.send("S", seq=50_000, options=options)
        scene.peer.expect("SA")


def test_time_wait_rst_in_window_does_not_assassinate() -> None:
    """RFC 5961 section 3 applies here as well: only the exact sequence number may end it, another one is challenged."""
    with time_wait() as scene:
        scene.peer.send("R", seq=12)
        scene.peer.expect("A", seq=2, ack=2)
        scene.peer.expect_nothing()
        assert scene.state == "TIME-WAIT"
        assert scene.testbed.counted()["challenge_acks_out"] == 1


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_time_wait_segment_without_ack_is_dropped(payload: bytes) -> None:
    """Fifth: if the ACK bit is off, drop the segment and return."""
    with time_wait() as scene:
        scene.peer.send("", payload=payload)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_flags": 1}


@pytest.mark.parametrize("flags", ["A", "FA"])
def test_time_wait_what_lies_beyond_the_fin_is_ignored(flags: str) -> None:
    """Seventh: ignore the segment text. A second FIN is no retransmission of the first, and prolongs nothing."""
    with time_wait(msl_ns=MSL) as scene:
        scene.testbed.advance(MSL)
        scene.peer.send(flags, payload=b"x")
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_after_fin": 1}
        assert scene.testbed.run_until(lambda: scene.state == "CLOSED", 10 * MSL) <= MSL + SECOND


def test_time_wait_syn_in_window_is_challenged() -> None:
    """It is not above RCV.NXT, so it opens nothing (MAY-2)."""
    with time_wait() as scene:
        scene.peer.send("SA", seq=10)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.testbed.dropped() == {"drop_tcp_syn": 1}


def test_time_wait_ack_of_what_was_never_sent_is_challenged() -> None:
    """RFC 5961 section 5.2."""
    with time_wait() as scene:
        scene.peer.send("A", ack=100)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.testbed.dropped() == {"drop_tcp_ack": 1}


def test_time_wait_old_timestamp_is_answered_and_prolongs_nothing() -> None:
    """RFC 7323 section 5.3."""
    with time_wait(options=ALL_OPTIONS, msl_ns=MSL) as scene:
        scene.testbed.advance(MSL)
        scene.peer.send("FA", seq=1, options={"nop": 2, "timestamps": ((scene.peer.ts_now - 100_000) & 0xFFFFFFFF, 0)})
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        assert scene.testbed.run_until(lambda: scene.state == "CLOSED", 10 * MSL) <= MSL + SECOND


def test_time_wait_old_syn_is_answered_with_an_ack() -> None:
    """An old duplicate SYN: not above RCV.NXT, so MAY-2 does not apply."""
    with time_wait() as scene:
        scene.peer.send("S", seq=0, options=SYN_OPTIONS)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "TIME-WAIT"


def test_time_wait_new_syn_above_the_old_sequence_numbers_is_accepted() -> None:
    """MAY-2: the new ISN is larger than the largest number used before; ours as well."""
    with scene_with_listener() as scene:
        scene.testbed.advance(SECOND)
        old_end = scene.peer.rcv_nxt
        scene.peer.send("S", seq=100_000, options=SYN_OPTIONS)
        answer = scene.peer.expect("SA")
        new_iss = scene.peer.relative(answer)[0]
        assert old_end < new_iss < 1 << 31
        assert scene.testbed.counted()["time_wait_reused"] == 1
        scene.peer.isn = (scene.peer.isn + 100_000) & 0xFFFFFFFF
        scene.peer.iss = answer.seq
        scene.peer.snd_nxt = scene.peer.rcv_nxt = 1
        scene.peer.send("A", payload=b"again")
        connection = scene.accept()
        assert read_available(connection)[0] == b"again"
        assert scene.testbed.stack.leaks()["time_waits"] == 0


def test_time_wait_new_syn_with_newer_timestamp_is_accepted() -> None:
    """RFC 6191: timestamps decide, whatever the sequence numbers say (SHLD-4)."""
    with scene_with_listener(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(SECOND)
        options = dict(ALL_OPTIONS, timestamps=(scene.peer.ts_now, 0))
        scene.peer.send("S", seq=-1000, options=options)
        scene.peer.expect("SA")
        assert scene.testbed.counted()["time_wait_reused"] == 1


def test_time_wait_new_syn_with_older_timestamp_is_answered_with_an_ack() -> None:
    with scene_with_listener(options=ALL_OPTIONS) as scene:
        options = dict(ALL_OPTIONS, timestamps=(scene.peer.ts_now - 10_000, 0))
        scene.peer.send("S", seq=100_000, options=options)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "TIME-WAIT"


def test_time_wait_new_syn_without_a_listener_opens_nothing() -> None:
    with time_wait() as scene:
        assert scene.listener is not None
        scene.listener.close()
        scene.testbed.advance(10 * MILLISECOND)
        scene.peer.send("S", seq=100_000, options=SYN_OPTIONS)
        scene.peer.expect("A", seq=2, ack=2)
        scene.peer.expect_nothing()
        assert scene.state == "TIME-WAIT"
        assert scene.testbed.dropped() == {"drop_tcp_sequence": 1}


def test_time_wait_beyond_the_limit_the_oldest_goes() -> None:
    """time_wait_limit bounds the memory; a new connection is never refused for it."""
    with time_wait(time_wait_limit=1) as scene:
        from ustack.testing.peer import ScriptedPeer

        other = ScriptedPeer(scene.testbed, port=41000)
        other.send("S", options=SYN_OPTIONS)
        other.expect("SA")
        other.send("A")
        assert scene.listener is not None
        connection = scene.listener.accept(timeout=0)
        connection.shutdown()
        scene.testbed.pump()
        other.expect("FA")
        other.send("FA")
        other.expect("A", seq=2, ack=2)
        assert scene.testbed.stack.leaks()["time_waits"] == 1
        scene.peer.send("FA", seq=1)
        scene.peer.expect("R")
        other.send("FA", seq=1)
        other.expect("A", seq=2, ack=2)


def test_time_wait_unread_data_stays_readable() -> None:
    """TIME-WAIT has taken the tcb's place, and the application has not read everything yet."""
    from ustack.testing.states import fin_wait_2

    with fin_wait_2() as scene:
        scene.peer.send("FPA", payload=b"read me later")
        scene.peer.expect("A", seq=2, ack=15)
        scene.testbed.advance(SECOND)
        assert read_available(scene.conn) == (b"read me later", True)


def test_time_wait_timestamps_are_echoed() -> None:
    with time_wait(options=ALL_OPTIONS) as scene:
        sent = scene.peer.send("FA", seq=1)
        scene.peer.expect("A", seq=2, ack=2, options={"timestamps": lambda v: v[1] == sent.options["timestamps"][0]})

# SPDX-License-Identifier: MIT
"""LAST-ACK: the peer closed, then we did. RFC 9293 section 3.10.7.4."""

import pytest

from ustack.testing.states import close_wait, last_ack
from ustack.testing.testbed import SECOND


def test_last_ack_ack_of_our_fin_closes() -> None:
    """No TIME-WAIT for the passive closer."""
    with last_ack() as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.stack.leaks()["tcbs"] == 0
        assert scene.testbed.stack.leaks()["time_waits"] == 0
        assert scene.testbed.counted()["connections_closed"] == 1


def test_last_ack_other_ack_leaves_the_state() -> None:
    with last_ack() as scene:
        scene.peer.send("A", ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "LAST-ACK"


def test_last_ack_fin_again_is_acknowledged() -> None:
    with last_ack() as scene:
        scene.peer.send("FA", seq=1, ack=1)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "LAST-ACK"


def test_last_ack_text_is_ignored() -> None:
    """Seventh: the peer's FIN has been received, so no text can follow it.

    No data is lost, so there is no RST by SHLD-3 either, though the application has closed.
    """
    with last_ack() as scene:
        scene.peer.send("A", seq=2, ack=1, payload=b"after the end")
        scene.peer.expect_nothing()
        assert scene.state == "LAST-ACK"
        assert scene.testbed.dropped() == {"drop_tcp_after_fin": 1}


def test_last_ack_fin_is_sent_again_after_a_timeout() -> None:
    with last_ack() as scene:
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("FA", seq=1, ack=2)
        assert scene.testbed.counted()["retransmit_timeouts"] == 1


def test_last_ack_gives_up_after_the_user_timeout() -> None:
    """120 s, compared after 1 + 2 + 4 + 8 + 16 + 32 + 60: the application has closed (test_orphans.py)."""
    with last_ack() as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == 123


@pytest.mark.parametrize("octets", [1, 5000])
def test_last_ack_data_then_fin_is_all_acknowledged(octets: int) -> None:
    with close_wait() as scene:
        scene.conn.send(bytes(octets))
        scene.conn.close()
        scene.testbed.pump()
        assert scene.peer.catch_up() == bytes(octets)
        assert scene.peer.rcv_nxt == 1 + octets + 1
        scene.peer.send("A")
        assert scene.state == "CLOSED"

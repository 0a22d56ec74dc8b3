# SPDX-License-Identifier: MIT
"""FIN-WAIT-1: our FIN is on its way. RFC 9293 section 3.10.7.4."""

import pytest

from ustack import StackError
from ustack.testing.states import fin_wait_1
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

either_way = pytest.mark.parametrize("how", ["shutdown", "close"])


@either_way
def test_fin_wait_1_ack_of_our_fin_reaches_fin_wait_2(how: str) -> None:
    with fin_wait_1(how=how) as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "FIN-WAIT-2"


@either_way
def test_fin_wait_1_fin_with_ack_of_our_fin_reaches_time_wait(how: str) -> None:
    with fin_wait_1(how=how) as scene:
        scene.peer.send("FA")
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "TIME-WAIT"


@either_way
def test_fin_wait_1_fin_without_ack_of_our_fin_reaches_closing(how: str) -> None:
    with fin_wait_1(how=how) as scene:
        scene.peer.send("FA", ack=1)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "CLOSING"


def test_fin_wait_1_data_is_delivered() -> None:
    with fin_wait_1() as scene:
        scene.peer.send("A", ack=1, payload=b"still here")
        assert scene.read() == b"still here"
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=2, ack=11)
        assert scene.state == "FIN-WAIT-1"


def test_fin_wait_1_data_with_fin_and_ack_is_delivered() -> None:
    with fin_wait_1() as scene:
        scene.peer.send("FPA", payload=b"bye")
        scene.peer.expect("A", seq=2, ack=5)
        assert read_available(scene.conn) == (b"bye", True)
        assert scene.state == "TIME-WAIT"


def test_fin_wait_1_data_after_close_is_answered_with_rst() -> None:
    """SHLD-3: nobody will read it. The RST is an abort's, SEQ=SND.NXT, and does not acknowledge the text.

    SHLD-3 does not say which: SEQ=SEG.ACK would be as right, and exact for a peer that our FIN has not reached.
    """
    with fin_wait_1(how="close") as scene:
        scene.peer.send("A", ack=1, payload=b"too late")
        scene.peer.expect("RA", seq=2, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.counted()["drop_tcp_after_close"] == 1


def test_fin_wait_1_fin_is_sent_again_after_a_timeout() -> None:
    with fin_wait_1() as scene:
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("FA", seq=1, ack=1)
        assert scene.testbed.counted()["retransmit_timeouts"] == 1
        assert scene.state == "FIN-WAIT-1"


@either_way
def test_fin_wait_1_gives_up_after_the_user_timeout(how: str) -> None:
    """SHLD-11: R2 is 900 s; 120 s once the application has closed and nobody waits any more (test_orphans.py).

    It is compared when the timer expires, 1 + 2 + 4 + 8 + 16 + 32 and then each 60 s after the FIN.
    """
    with fin_wait_1(how=how) as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == {"shutdown": 903, "close": 123}[how]


def test_fin_wait_1_partial_ack_of_data_leaves_the_state() -> None:
    with fin_wait_1() as scene:
        scene.peer.send("A", ack=1)
        assert scene.state == "FIN-WAIT-1"


def test_fin_wait_1_send_fails() -> None:
    with fin_wait_1() as scene, pytest.raises(StackError):
        scene.conn.send(b"x")


def test_fin_wait_1_second_shutdown_sends_no_second_fin() -> None:
    with fin_wait_1() as scene:
        scene.shutdown()
        scene.peer.expect_nothing()
        assert scene.state == "FIN-WAIT-1"


def test_fin_wait_1_window_update_does_not_resend_the_fin() -> None:
    with fin_wait_1() as scene:
        scene.peer.send("A", ack=1, wnd=2000)
        scene.peer.expect_nothing()

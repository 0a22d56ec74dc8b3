# SPDX-License-Identifier: MIT
"""CLOSING: both FINs have crossed on the wire. RFC 9293 section 3.10.7.4 and figure 13."""

import pytest

from ustack.testing.states import closing
from ustack.testing.testbed import SECOND

either_way = pytest.mark.parametrize("how", ["shutdown", "close"])


@either_way
def test_closing_ack_of_our_fin_reaches_time_wait(how: str) -> None:
    with closing(how=how) as scene:
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "TIME-WAIT"


def test_closing_other_ack_leaves_the_state() -> None:
    with closing() as scene:
        scene.peer.send("A", ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSING"


def test_closing_fin_again_is_acknowledged() -> None:
    with closing() as scene:
        scene.peer.send("FA", seq=1, ack=1)
        scene.peer.expect("A", seq=2, ack=2)
        assert scene.state == "CLOSING"


def test_closing_fin_again_with_ack_of_our_fin_reaches_time_wait_or_acknowledges() -> None:
    """It acknowledges: the FIN lies before the window, so the first step answers with an ACK and drops the segment.

    Our FIN counts as acknowledged with the peer's next ACK. A stack that trims the FIN and goes on to the fifth step,
    as BSD does, is in TIME-WAIT at once.
    """
    with closing() as scene:
        scene.peer.send("FA", seq=1, ack=2)
        scene.peer.expect("A", seq=2, ack=2)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_duplicate": 1}
        assert scene.state == "CLOSING"
        scene.peer.send("A")
        assert scene.state == "TIME-WAIT"


def test_closing_text_is_ignored() -> None:
    with closing() as scene:
        scene.peer.send("A", seq=2, ack=1, payload=b"after the end")
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_after_fin": 1}
        assert scene.state == "CLOSING"


def test_closing_fin_is_sent_again_after_a_timeout() -> None:
    with closing() as scene:
        scene.peer.wait(10 * SECOND)
        scene.peer.expect("FA", seq=1, ack=2)
        assert scene.testbed.counted()["retransmit_timeouts"] == 1


@either_way
def test_closing_gives_up_after_the_user_timeout(how: str) -> None:
    """How long: see FIN-WAIT-1."""
    with closing(how=how) as scene:
        took = scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        assert took // SECOND == {"shutdown": 903, "close": 123}[how]


def test_closing_reader_sees_the_end() -> None:
    with closing() as scene:
        assert scene.at_eof()

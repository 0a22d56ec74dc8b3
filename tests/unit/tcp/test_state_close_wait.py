# SPDX-License-Identifier: MIT
"""CLOSE-WAIT: the peer has closed, we can still send. RFC 9293 section 3.10.7.4."""

import pytest

from ustack import ConnectionTimeout
from ustack.testing.peer import length
from ustack.testing.states import close_wait
from ustack.testing.testbed import SECOND


def test_close_wait_send_goes_on() -> None:
    """Half-close: section 3.6."""
    with close_wait() as scene:
        scene.conn.nodelay = True
        scene.send(b"x" * 3000)
        scene.peer.expect("A", seq=1, ack=2, payload=length(1460))
        scene.peer.expect("A", seq=1461, ack=2, payload=length(1460))
        scene.peer.expect("PA", seq=2921, ack=2, payload=length(80))
        scene.peer.send("A")
        scene.peer.expect_nothing()
        assert scene.state == "CLOSE-WAIT"


def test_close_wait_receive_is_eof() -> None:
    with close_wait() as scene:
        assert scene.conn.receive(100, timeout=0) == b""
        assert scene.conn.receive(100, timeout=0) == b""


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_close_wait_close_reaches_last_ack(how: str) -> None:
    with close_wait() as scene:
        scene.shutdown() if how == "shutdown" else scene.close()
        scene.peer.expect("FA", seq=1, ack=2)
        assert scene.state == "LAST-ACK"


def test_close_wait_text_is_ignored() -> None:
    """Seventh: this should not occur since a FIN has been received. Ignore the segment text."""
    with close_wait() as scene:
        scene.peer.send("A", seq=2, payload=b"after the end")
        scene.testbed.advance(SECOND)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_after_fin": 1}
        assert scene.at_eof()
        assert scene.state == "CLOSE-WAIT"


def test_close_wait_fin_again_is_acknowledged() -> None:
    """Eighth: remain in CLOSE-WAIT; the repeated FIN lies before the window, so an ACK answers it."""
    with close_wait() as scene:
        scene.peer.send("FA", seq=1)
        scene.peer.expect("A", seq=1, ack=2)
        assert scene.state == "CLOSE-WAIT"


def test_close_wait_second_fin_is_ignored() -> None:
    with close_wait() as scene:
        scene.peer.send("FA", seq=2)
        scene.testbed.advance(SECOND)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_after_fin": 1}
        assert scene.state == "CLOSE-WAIT"


def test_close_wait_ack_that_carries_text_counts_as_an_ack() -> None:
    """Fifth comes before seventh."""
    with close_wait() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", seq=1, payload=b"hello")
        scene.peer.send("A", seq=2, payload=b"after the end")
        scene.peer.expect_nothing()
        assert scene.testbed.stack.leaks()["send_pieces"] == 0


def test_close_wait_ack_frees_the_send_queue() -> None:
    with close_wait() as scene:
        scene.send(b"hello")
        scene.peer.expect("A", seq=1, payload=b"hello")
        assert scene.testbed.stack.leaks()["send_pieces"] == 1
        scene.peer.send("A")
        assert scene.testbed.stack.leaks()["send_pieces"] == 0


def test_close_wait_user_timeout_closes() -> None:
    with close_wait() as scene:
        scene.send(b"hello")
        scene.testbed.run_until(lambda: scene.state == "CLOSED", 7200 * SECOND)
        with pytest.raises(ConnectionTimeout):
            scene.conn.send(b"x")


def test_close_wait_without_data_lasts() -> None:
    with close_wait() as scene:
        scene.testbed.advance(24 * 3600 * SECOND)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSE-WAIT"

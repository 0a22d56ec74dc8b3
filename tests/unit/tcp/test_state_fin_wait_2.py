# SPDX-License-Identifier: MIT
"""FIN-WAIT-2: our FIN is acknowledged, the peer may go on sending. RFC 9293 section 3.10.7.4."""

import pytest

from ustack import StackError
from ustack.testing.states import fin_wait_2
from ustack.testing.testbed import MILLISECOND, SECOND, read_available


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_fin_wait_2_fin_reaches_time_wait(how: str) -> None:
    with fin_wait_2(how=how) as scene:
        scene.peer.send("FA")
        scene.peer.expect("A", seq=2, ack=2)
        scene.peer.expect_nothing()
        assert scene.state == "TIME-WAIT"


def test_fin_wait_2_data_is_delivered() -> None:
    with fin_wait_2() as scene:
        scene.peer.send("A", payload=b"half-closed")
        assert scene.read() == b"half-closed"
        scene.peer.expect_after(40 * MILLISECOND, "A", seq=2, ack=12)
        assert scene.state == "FIN-WAIT-2"


def test_fin_wait_2_much_data_then_fin() -> None:
    with fin_wait_2() as scene:
        got = b""
        for index in range(50):
            scene.peer.send("A", payload=bytes([index]) * 1000)
            got += scene.read()
        scene.peer.send("FA")
        rest, eof = read_available(scene.conn)
        assert got + rest == b"".join(bytes([index]) * 1000 for index in range(50))
        assert eof
        assert scene.state == "TIME-WAIT"


def test_fin_wait_2_data_out_of_order_is_kept() -> None:
    with fin_wait_2() as scene:
        scene.peer.send("FA", seq=6, payload=b"world")
        scene.peer.expect("A", seq=2, ack=1)
        scene.peer.send("A", seq=1, payload=b"hello")
        scene.peer.expect("A", seq=2, ack=12)
        assert read_available(scene.conn) == (b"helloworld", True)
        assert scene.state == "TIME-WAIT"


def test_fin_wait_2_data_after_close_is_answered_with_rst() -> None:
    """SHLD-3. The text is not acknowledged by the RST."""
    with fin_wait_2(how="close") as scene:
        scene.peer.send("A", payload=b"too late")
        scene.peer.expect("RA", seq=2, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"
        assert scene.testbed.counted()["drop_tcp_after_close"] == 1


def test_fin_wait_2_half_close_has_no_timeout() -> None:
    """A half-closed connection whose application still reads lives as long as the peer wants."""
    with fin_wait_2() as scene:
        scene.testbed.advance(24 * 3600 * SECOND)
        assert scene.state == "FIN-WAIT-2"
        scene.peer.expect_nothing()


def test_fin_wait_2_send_fails() -> None:
    with fin_wait_2() as scene, pytest.raises(StackError):
        scene.conn.send(b"x")


def test_fin_wait_2_close_after_shutdown_leaves_nothing_to_read_for() -> None:
    """After a shutdown the application still reads; after the close nobody does, and data gets a RST (SHLD-3)."""
    with fin_wait_2() as scene:
        scene.close()
        scene.peer.expect_nothing()
        scene.peer.send("A", payload=b"too late")
        scene.peer.expect("RA", seq=2, ack=1)
        scene.peer.expect_nothing()
        assert scene.state == "CLOSED"

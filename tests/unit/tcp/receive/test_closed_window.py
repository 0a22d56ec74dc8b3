# SPDX-License-Identifier: MIT
"""What is taken although the window is closed (RFC 9293 section 3.10.7.4; MUST-66)."""

from ustack.testing.states import established

BUFFER = 8192


def test_a_fin_behind_data_that_fills_the_window_is_taken() -> None:
    """It needs no room: the acknowledged edge is then one beyond the one that was offered."""
    with established(rcv_buffer_bytes=BUFFER) as scene:
        for _ in range(BUFFER // 1024):
            scene.peer.send("A", payload=b"x" * 1024)
        scene.testbed.advance(500_000_000)
        assert scene.peer.drain()[-1].wnd == 0
        scene.peer.send("FA")
        answer = scene.peer.drain()[-1]
        assert (answer.ack - scene.peer.isn) & 0xFFFFFFFF == BUFFER + 2
        assert answer.wnd == 0
        assert scene.state == "CLOSE-WAIT"
        assert scene.read() == b"x" * BUFFER
        assert scene.at_eof()
        scene.peer.send("R")

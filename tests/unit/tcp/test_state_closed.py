# SPDX-License-Identifier: MIT
"""CLOSED: no listener and no connection for the segment. RFC 9293 section 3.10.7.1."""

import pytest

from ustack.testing.states import closed


@pytest.mark.parametrize("flags", ["S", "F", "", "P"])
def test_closed_without_ack_is_answered_with_rst_ack(flags: str) -> None:
    """<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>."""
    with closed() as scene:
        sent = scene.peer.send(flags, payload=b"12345")
        reset = scene.peer.expect("RA", ack=sent.length)
        assert reset.seq == 0
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_no_listener": 1}
        assert scene.testbed.counted()["resets_out"] == 1


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "PA"])
def test_closed_with_ack_is_answered_with_rst(flags: str) -> None:
    """<SEQ=SEG.ACK><CTL=RST>."""
    with closed() as scene:
        sent = scene.peer.send(flags, ack=0xFFFFFFF0)
        reset = scene.peer.expect("R")
        assert reset.seq == sent.ack
        assert scene.testbed.dropped() == {"drop_tcp_no_listener": 1}


@pytest.mark.parametrize("flags", ["R", "RA", "SR"])
def test_closed_rst_is_never_answered(flags: str) -> None:
    with closed() as scene:
        scene.peer.send(flags)
        scene.peer.expect_nothing()
        assert scene.testbed.dropped() == {"drop_tcp_no_listener": 1}
        assert scene.testbed.counted().get("resets_out", 0) == 0


def test_closed_answers_from_the_address_and_port_asked() -> None:
    with closed() as scene:
        scene.peer.stack_port = 12345
        scene.peer.send("S")
        reset = scene.peer.expect("RA")
        assert (reset.src, reset.sport) == ("198.18.0.2", 12345)


def test_closed_after_the_listener_was_closed() -> None:
    with closed() as scene:
        listener = scene.testbed.stack.listen(80)
        listener.close()
        scene.peer.send("S")
        scene.peer.expect("RA", ack=1)

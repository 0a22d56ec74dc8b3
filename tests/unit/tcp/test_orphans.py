# SPDX-License-Identifier: MIT
"""Orphans: connections that their application has closed and their peer has not (RFC 6429 section 3, RFC 9293 section
3.8.3). Nobody waits for them, so they get less time than others, and there is a limit for all of them.
"""

from typing import Any

import pytest

from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import SYN_OPTIONS, Scene, close_wait, established, listen
from ustack.testing.testbed import MILLISECOND, SECOND


def life(scene: Scene) -> int:
    """How long the connection lives on when nothing more comes from its peer."""
    return scene.testbed.run_until(lambda: scene.state == "CLOSED", 3600 * SECOND)


@pytest.mark.parametrize("octets", [0, 1000])
@pytest.mark.parametrize("build", [established, close_wait])
def test_a_closed_connection_gives_up_a_vanished_peer_after_two_minutes(build: Any, octets: int) -> None:
    """After 1 + 2 + 4 + 8 + 16 + 32 + 60 s: the timer that expires after orphan_timeout_ns, 120 s. Linux: 100 to 130 s.

    It ends with a RST, in case the peer can hear. (Without a search for the path's MTU: RFC 4821 section 7.7 would cut
    the 1000 bytes in two after the third time.)
    """
    with build(mtu_probing=0) as scene:
        scene.conn.send(b"x" * octets)
        scene.close()
        assert life(scene) // SECOND == 123
        ours = "FPA" if octets else "FA"
        assert [segment.flags for segment in scene.peer.drain()] == [ours] * 7 + ["RA"]
        assert scene.testbed.counted()["orphans_timed_out"] == 1


def test_a_connection_that_is_only_shut_down_waits_as_long_as_any() -> None:
    """It is no orphan: its application still reads, and can end it. R2 is 900 s, compared when the timer expires."""
    with established() as scene:
        scene.shutdown()
        assert life(scene) // SECOND == 903
        assert "orphans_timed_out" not in scene.testbed.counted()


def test_the_time_can_be_set() -> None:
    """10 s are over when the timer expires after 1 + 2 + 4 + 8 s."""
    with established(orphan_timeout_ns=10 * SECOND) as scene:
        scene.close()
        assert life(scene) // SECOND == 15


def test_a_shorter_user_timeout_holds() -> None:
    """20 s are over when the timer expires after 1 + 2 + 4 + 8 + 16 s."""
    with established(user_timeout_ns=20 * SECOND) as scene:
        scene.close()
        assert life(scene) // SECOND == 31


def test_a_window_that_stays_closed_ends_an_orphan_though_the_peer_answers() -> None:
    """120 s, counted from the first probe: 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 s.

    MUST-37 keeps a connection open whose peer answers; RFC 6429 section 3 allows to end it all the same.
    """
    with established(rto_min_ns=SECOND) as scene:
        scene.send(b"x" * 1000)
        scene.peer.expect("A", payload=b"x" * 1000)
        scene.peer.send("A", wnd=0)
        scene.conn.send(b"y" * 1000)
        scene.close()
        start = scene.testbed.now_ns
        while scene.state != "CLOSED":
            assert scene.testbed.now_ns < start + 200 * SECOND
            scene.testbed.step(start + 200 * SECOND)
            if scene.peer.drain():
                scene.peer.send("A", wnd=0)
        assert (scene.testbed.now_ns - start) // SECOND == 183


def test_progress_gives_an_orphan_its_time_again() -> None:
    """A path that loses each segment three times: no measurement is ever taken, and each ACK is progress.

    After the last one it lives for 8 + 16 + 32 + 60 s: the RTO stays backed off, for want of a measurement. (Without a
    search for the path's MTU: RFC 4821 section 7.7 takes this for a black hole, and the segments would be smaller.)
    """
    with established(mtu_probing=0) as scene:
        scene.conn.send(b"x" * 1460 * 20)
        scene.close()
        scene.peer.wnd = 1460
        scene.peer.drain()
        for index in range(12):
            ack = 1 + 1460 * (index + 1)
            for _ in range(3):
                scene.peer.wait(130 * SECOND)
                scene.peer.drain()
            scene.peer.send("A", ack=ack)
            scene.peer.drain()
            assert scene.state == "FIN-WAIT-1", index
        assert life(scene) // SECOND == 116


# ---------------------------------------------------------------- how many


def orphan(scene: Scene, port: int) -> ScriptedPeer:
    """A connection from a port, closed by its application at once; its FIN is not answered."""
    peer = ScriptedPeer(scene.testbed, port=port)
    peer.send("S", options=SYN_OPTIONS)
    peer.expect("SA")
    peer.send("A")
    assert scene.listener is not None
    scene.listener.accept(timeout=0).close()
    scene.testbed.pump()
    return peer


def test_beyond_the_limit_a_close_is_a_reset() -> None:
    with listen(max_orphans=3) as scene:
        peers = [orphan(scene, 1000 + index) for index in range(5)]
        ends = [[segment.flags for segment in peer.drain()] for peer in peers]
        assert ends == [["FA"]] * 3 + [["RA"]] * 2
        assert scene.testbed.counted()["orphans_refused"] == 2
        assert scene.testbed.stack.leaks()["tcbs"] == 3


def test_an_orphan_that_ends_makes_room() -> None:
    with listen(max_orphans=1) as scene:
        for index in range(5):
            peer = orphan(scene, 1000 + index)
            peer.expect("FA")
            peer.send("FA")
            peer.expect("A")
        for index, how in enumerate(("R", "silence", "end")):
            peer = orphan(scene, 2000 + index)
            peer.expect("FA")
            if how == "R":
                peer.send("R")
            elif how == "silence":
                scene.testbed.advance(200 * SECOND)
        assert "orphans_refused" not in scene.testbed.counted()


def test_while_there_are_many_an_orphan_that_is_not_answered_twice_ends() -> None:
    """With more than half of max_orphans (2 here), an orphan ends after two unanswered timeouts instead of 120 s.

    Its peer is probably gone, and what it makes room for need not be closed with a RST.
    """
    with listen(max_orphans=4) as scene:
        for index in range(3):
            orphan(scene, 1000 + index)
            scene.testbed.advance(100 * MILLISECOND)
        scene.testbed.advance(3 * SECOND)
        assert scene.testbed.stack.leaks()["tcbs"] == 2
        assert scene.testbed.counted()["orphans_timed_out"] == 1
        scene.testbed.advance(60 * SECOND)
        assert scene.testbed.stack.leaks()["tcbs"] == 2

# SPDX-License-Identifier: MIT
"""What our timestamp clock says to whom: an offset for each pair of addresses (RFC 7323 section 5.4)."""

from itertools import pairwise

from ustack.base.prng import Prng
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, Scene, listen
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

MASK = 0xFFFFFFFF


def address(index: int) -> str:
    return f"198.18.{index // 200}.{10 + index % 200}"


def said_to(scene: Scene, peer: ScriptedPeer) -> int:
    """TSval of the SYN-ACK that a peer gets for a SYN; it then goes away."""
    peer.iss = None
    peer.snd_nxt = 0
    peer.send("S", options=ALL_OPTIONS)
    value = peer.expect("SA").options["timestamps"][0]
    peer.send("R")
    return int(value)


def test_each_pair_of_addresses_sees_the_clock_from_another_start() -> None:
    with listen() as scene:
        values = [said_to(scene, ScriptedPeer(scene.testbed, address=address(index))) for index in range(64)]
        differences = {(b - a) & MASK for a, b in pairwise(values)}
        assert len(differences) == 63
        assert sum(1 << 24 < difference < MASK - (1 << 24) for difference in differences) > 50


def test_every_port_of_a_pair_sees_the_same_clock_and_it_runs_in_milliseconds() -> None:
    """The next connection of a pair begins where the last one ended: PAWS and RFC 6191 depend on it."""
    with listen() as scene:
        other = scene.testbed.stack.listen(81)
        first = said_to(scene, ScriptedPeer(scene.testbed, port=1000))
        assert said_to(scene, ScriptedPeer(scene.testbed, port=2000)) == first
        assert said_to(scene, ScriptedPeer(scene.testbed, port=2000, stack_port=81)) == first
        scene.testbed.advance(3 * SECOND)
        assert said_to(scene, ScriptedPeer(scene.testbed, port=1001)) == (first + 3000) & MASK
        other.close()


def test_another_secret_gives_other_offsets() -> None:
    values = set()
    for seed in (1, 2, 3):
        with Testbed(seed=seed) as testbed, testbed.stack.listen(80):
            peer = ScriptedPeer(testbed)
            peer.send("S", options=ALL_OPTIONS)
            values.add(peer.expect("SA").options["timestamps"][0])
            peer.send("R")
    assert len(values) == 3


def test_more_peers_than_the_table_has_places_keep_their_offsets() -> None:
    """The table only saves the hash: who is pushed out of it is told the same again."""
    with listen(address="198.18.0.2/16") as scene:
        values = {}
        generator = Prng(1)
        peers = [ScriptedPeer(scene.testbed, address=address(index)) for index in range(2000)]
        for peer in peers:
            values[peer.address] = said_to(scene, peer)
        for _ in range(500):
            peer = peers[generator.below(len(peers))]
            assert said_to(scene, peer) == values[peer.address]


def test_an_echo_is_taken_back_to_our_clock() -> None:
    """Whoever the peer is: a segment is sent again, and only its echo tells the round trip (RFC 6298 section 3)."""
    for index in range(8):
        with listen() as scene:
            peer = ScriptedPeer(scene.testbed, address=f"198.18.0.{20 + index}")
            peer.send("S", options=ALL_OPTIONS)
            peer.expect("SA")
            peer.send("S", seq=0, options=ALL_OPTIONS)  # so the handshake measures nothing (Karn)
            peer.expect("SA")
            peer.timestamps = True
            peer.send("A")
            connection = scene.accept()
            connection.send(b"lost")
            scene.testbed.pump()
            peer.drain()
            peer.wait(2 * SECOND)
            peer.drain()
            scene.testbed.advance(37 * MILLISECOND)
            peer.send("A", ack=5)
            assert 36_000 <= connection.info()["srtt_us"] <= 39_000
            peer.send("R")


def test_all_segments_of_a_connection_carry_it() -> None:
    """Half-open record, connection, TIME-WAIT record, and the RST at its end."""
    with listen() as scene:
        for ending in ("time-wait", "abort"):
            peer = ScriptedPeer(scene.testbed, port=3000 if ending == "abort" else 3001)
            peer.send("S", options=ALL_OPTIONS)
            values = [peer.expect("SA").options["timestamps"][0]]
            peer.timestamps = True
            peer.send("PA", payload=b"x")
            connection = scene.accept()
            scene.connection = None
            connection.receive(10)
            if ending == "abort":
                connection.abort()
            else:
                connection.close()
            scene.testbed.pump()
            values += [segment.options["timestamps"][0] for segment in peer.drain()]
            if ending == "time-wait":
                peer.send("FA", ack=2)
                peer.send("FA", seq=2, ack=2)
                answers = [segment.options["timestamps"][0] for segment in peer.drain()]
                assert len(answers) == 2
                values += answers
            assert len(values) >= 2
            assert all((value - values[0]) & MASK < 1000 for value in values)

# SPDX-License-Identifier: MIT
"""The public test kit: two stacks on a simulated wire, a scripted peer, segment builders. Nothing here sleeps.

    segment   frames with TCP segments in them, bytes to fields and back
    testbed   one stack and a free end of its wire, moved by a manual clock
    peer      ScriptedPeer: send and expect segments in the words of the RFC
    states    a builder for each state of RFC 9293: established(), fin_wait_1(), ...
    pair      two stacks on one wire, run until something holds
    bulk      one connection of a pair that has always more to send
    shares    several, with a congestion control each, beside each other
    leaks     what every test's end asserts

A first script:

    from ustack.testing.states import established

    with established() as scene:
        scene.peer.send("PA", payload=b"hello")
        scene.peer.wait(500_000_000)
        scene.peer.expect("A", seq=1, ack=6)
        assert scene.read() == b"hello"
"""

# SPDX-License-Identifier: MIT
"""How a stack gives everything back where nobody can be told any more."""

import gc

import pytest

from ustack import Connection, ConnectionTimeout, SimNetwork, Stack
from ustack.buf import lent
from ustack.link.memory import MemoryLink
from ustack.testing.recorder import Recorder
from ustack.testing.segment import Segment, build_frame, parse_frame
from ustack.testing.testbed import SECOND

PEER, OURS = "198.18.0.1", "198.18.0.2"


class Stubborn(Stack):
    """A stack whose finalizer does nothing: what __del__ does at other times is left to deallocation."""

    def __del__(self) -> None:
        pass


def test_a_stack_that_is_deallocated_with_connections_gives_their_memory_back() -> None:
    """At the end of a process finalizers may not run. Peers are not told; what was lent comes back all the same."""
    before = lent.alive()
    network = SimNetwork(1, now_ns=0)
    stack = Stubborn(network.a, OURS + "/24", seed=1, now_ns=0)
    application = Recorder()
    stack.listen(80, application=application)
    for number in range(3):
        application.connect(f"198.18.0.{10 + number}", 1000 + number)
        application.act(1000 + number, ("send", b"queued" * 100))
    stack.poll(0)
    assert lent.alive() == before + 3
    del stack
    gc.collect()
    assert lent.alive() == before
    network.close()


def packet(flags: str, *, seq: int, ack: int = 0) -> bytes:
    segment = Segment(
        src=PEER, dst=OURS, sport=1000, dport=80, seq=seq, ack=ack, flags=flags, wnd=65535, options={}, payload=b""
    )
    return build_frame(segment, src_mac="02:00:00:00:00:01", dst_mac="02:00:00:00:00:02")[14:]


def behind_a_wall(**settings: int) -> tuple[MemoryLink, Stack, Connection]:
    """A connection whose device holds one frame, and has it: what it sends now finds no room."""
    link = MemoryLink(held_frames=1)
    stack = Stack(link, OURS + "/24", seed=1, now_ns=0, **settings)
    listener = stack.listen(80)
    link.receive_all()
    link.inject_packet(packet("S", seq=5))
    answer = None
    while answer is None:
        stack.poll(0)
        answer = link.receive_packet()
    syn_ack = parse_frame(bytes(12) + b"\x08\0" + answer)
    assert syn_ack is not None
    assert set(syn_ack.flags) == set("SA")
    link.inject_packet(packet("A", seq=6, ack=syn_ack.seq + 1))
    stack.poll(0)
    connection = listener.accept(timeout=0)
    connection.send(b"in the way")
    stack.poll(0)
    return link, stack, connection


def test_peers_behind_a_device_that_takes_nothing_are_left_untold() -> None:
    """Closing tries again as long as that may help, and then ends without a RST."""
    link, stack, connection = behind_a_wall()
    stack.close()
    assert (connection.state, connection.reason) == ("CLOSED", "aborted")
    assert not any(stack.leaks().values())
    [frame] = link.receive_all()
    assert frame.endswith(b"in the way")
    link.close()


def test_an_end_whose_reset_has_not_gone_yet_is_no_end_of_the_stream() -> None:
    """The peer has sent its FIN. R2 has passed (RFC 9293 MUST-20), and the RST waits for the device."""
    link, stack, connection = behind_a_wall(user_timeout_ns=SECOND)
    link.inject_packet(packet("FA", seq=6, ack=stack.connections("connection")[0]["snd_una"]))
    for seconds in range(1, 5):
        stack.poll(seconds * SECOND)
    assert connection.state == "CLOSE-WAIT"
    with pytest.raises(ConnectionTimeout):
        connection.receive(timeout=0)
    for _ in range(2):  # the second announcement by ARP waits as well, and goes first
        link.receive_all()
        stack.poll(5 * SECOND)
    assert (connection.state, connection.reason) == ("CLOSED", "timeout")
    [frame] = link.receive_all()
    reset = parse_frame(frame)
    assert reset is not None
    assert set(reset.flags) == set("RA")
    stack.close()
    link.close()

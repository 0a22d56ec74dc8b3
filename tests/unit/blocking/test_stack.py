# SPDX-License-Identifier: MIT
"""The Python face: arguments of a stack, of listen and of connect; snapshots; the end with and without lingering."""

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ustack import AddressInUse, PacketMmapLink, SimNetwork, Stack, StackError, Unreachable
from ustack.lab import namespace
from ustack.lab.making import Made
from ustack.link.memory import MemoryLink
from ustack.testing.pair import Pair
from ustack.testing.recorder import Recorder
from ustack.testing.segment import Segment, build_frame
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS

MakeStack = Callable[..., Any]


@pytest.fixture
def stack(make_stack: MakeStack) -> Any:
    return make_stack(SimNetwork().a, now_ns=0)


# ---------------------------------------------------------------- arguments of a stack


@pytest.mark.parametrize(
    "address", ["x", "", "198.18.0.256/24", "198.18.0.2/33", "198.18.0/24", "::1/64", "198.18.0.2/24/24", "198.18.0.2 "]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Stack(SimNetwork().a, address, now_ns=0)


@pytest.mark.parametrize("address", [None, 5, b"198.18.0.2/24", ["198.18.0.2/24"]], ids=repr)
def test_an_address_that_is_no_text_is_refused(address: Any) -> None:
    with pytest.raises(TypeError):
        Stack(SimNetwork().a, address, now_ns=0)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0/0",
        "0.0.0.0/24",
        "255.255.255.255/24",
        "224.0.0.1/24",
        "127.0.0.1/8",
        "198.18.0.0/24",
        "198.18.0.255/24",
    ],
)
def test_an_address_that_no_host_can_have_is_refused(address: str) -> None:
    """RFC 1122 section 3.2.1.3: it could never be answered."""
    with pytest.raises(ValueError, match=r"\S"):
        Stack(SimNetwork().a, address, now_ns=0)


@pytest.mark.parametrize("address", ["198.18.0.2/31", "198.18.0.3/31", "198.18.0.2/32"])
def test_short_prefixes_have_neither_network_nor_broadcast_address(make_stack: MakeStack, address: str) -> None:
    """RFC 3021."""
    make_stack(SimNetwork().a, address, now_ns=0).poll(0)


def test_an_address_without_a_prefix_length_is_refused_with_what_to_write() -> None:
    """It would be a network of one: nothing could answer."""
    with pytest.raises(ValueError, match=r"198\.18\.0\.2/24") as raised:
        Stack(SimNetwork().a, "198.18.0.2", now_ns=0)
    assert "198.18.0.2/32" in str(raised.value)


@pytest.mark.parametrize("address", ["::1/64", "fe80::1", "2001:db8::2/32"])
def test_an_ipv6_address_is_refused_as_such(address: str) -> None:
    with pytest.raises(ValueError, match="IPv6 is not supported yet"):
        Stack(SimNetwork().a, address, now_ns=0)


@pytest.mark.parametrize("gateway", ["x", "", "198.18.0.1/24", "::1"])
def test_a_gateway_that_is_no_address_is_refused(gateway: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Stack(SimNetwork().a, "198.18.0.2/24", gateway, now_ns=0)


@pytest.mark.parametrize("seed", ["1", 1.5, b"1", []], ids=repr)
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(TypeError):
        Stack(SimNetwork().a, now_ns=0, seed=seed)


@pytest.mark.parametrize("seed", [0, -1, 1 << 64, 1 << 200])
def test_any_whole_number_is_a_seed(make_stack: MakeStack, seed: int) -> None:
    make_stack(SimNetwork().a, now_ns=0, seed=seed).poll(0)


@pytest.mark.parametrize(
    ("now_ns", "error"), [(-1, ValueError), (1 << 64, ValueError), ("0", TypeError), ([], TypeError)], ids=repr
)
def test_a_start_time_beyond_64_bits_is_refused(now_ns: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Stack(SimNetwork().a, now_ns=now_ns)


def chosen(seed: int | None) -> tuple[int, int]:
    """Port and initial sequence number of a stack's first connection."""
    network = SimNetwork()
    with Stack(network.a, seed=seed, now_ns=0) as stack:
        connection = stack.connect(PEER_ADDRESS, 80, wait=False)
        assert connection.state == "SYN-SENT"
        first = stack.connections("connection")[0]
        return first["local"][1], first["snd_una"]


def test_the_same_seed_gives_the_same_ports_and_numbers() -> None:
    assert chosen(7) == chosen(7)


def test_another_seed_gives_others() -> None:
    assert chosen(7) != chosen(8)


def test_without_a_seed_each_stack_is_another() -> None:
    assert chosen(None) != chosen(None)


# ---------------------------------------------------------------- listen


@pytest.mark.parametrize("port", [0, -1, 65536, 100_000, 1 << 40, -(1 << 40)])
def test_a_port_beyond_16_bits_is_not_listened_on(stack: Stack, port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port}: must be from 1 to 65535"):
        stack.listen(port)


@pytest.mark.parametrize("port", [None, "80", b"80", []], ids=repr)
def test_a_port_that_is_no_number_is_not_listened_on(stack: Stack, port: Any) -> None:
    with pytest.raises(TypeError):
        stack.listen(port)


@pytest.mark.parametrize("port", [1, 65535])
def test_every_port_can_be_listened_on(stack: Stack, port: int) -> None:
    assert stack.listen(port).port == port


@pytest.mark.parametrize("backlog", [0, -1, 1 << 40])
def test_a_backlog_must_hold_something(stack: Stack, backlog: int) -> None:
    with pytest.raises(ValueError, match=f"backlog {backlog}: must be from 1 to"):
        stack.listen(80, backlog=backlog)


@pytest.mark.parametrize("address", ["198.18.0.9", "198.18.0.1", "224.0.0.1", "198.18.0.255"])
def test_only_our_address_is_listened_on(stack: Stack, address: str) -> None:
    with pytest.raises(StackError) as raised:
        stack.listen(80, address=address)
    assert raised.value.reason == "bad_address"


def test_listening_on_no_address_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        stack.listen(80, address="nowhere")


def test_an_application_must_be_one(stack: Stack) -> None:
    with pytest.raises(TypeError):
        stack.listen(80, application=object())  # type: ignore[arg-type]


def test_there_are_64_listeners(stack: Stack) -> None:
    listeners = [stack.listen(port) for port in range(1, 65)]
    with pytest.raises(StackError) as raised:
        stack.listen(65)
    assert raised.value.reason == "no_memory"
    for listener in listeners:
        listener.close()


def test_a_port_is_one_applications(stack: Stack) -> None:
    with stack.listen(80, application=Recorder()):
        for application in (None, Recorder()):
            with pytest.raises(AddressInUse):
                stack.listen(80, application=application)
    stack.listen(80).close()


def test_connections_of_an_application_do_not_wait_for_accept() -> None:
    with Pair() as pair:
        listener = pair.a.listen(80, application=Recorder())
        opener = pair.b.connect(STACK_ADDRESS, 80, wait=False)
        pair.advance(MILLISECOND)
        assert (listener.pending, pair.a.established, opener.state) == (0, 1, "ESTABLISHED")
        with pytest.raises(BlockingIOError):
            listener.accept(timeout=0)


# ---------------------------------------------------------------- connect


@pytest.mark.parametrize("port", [0, -1, 65536, 1 << 40])
def test_a_port_beyond_16_bits_is_not_connected_to(stack: Stack, port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port}: must be from 1 to 65535"):
        stack.connect(PEER_ADDRESS, port)


@pytest.mark.parametrize("local_port", [-1, 65536, 1 << 40])
def test_a_local_port_beyond_16_bits_is_not_connected_from(stack: Stack, local_port: int) -> None:
    with pytest.raises(ValueError, match=f"local_port {local_port}: must be from 0 to 65535"):
        stack.connect(PEER_ADDRESS, 80, local_port=local_port)


@pytest.mark.parametrize(
    "address", ["", "::1", "198.18.0.1/24", "198.18.0.256", "1.2.3", "a..b", "-x", "a b", "x" * 300]
)
def test_an_address_that_is_none_is_not_connected_to(stack: Stack, address: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        stack.connect(address, 80)


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.255", "198.18.0.2"])
def test_an_address_that_no_peer_can_have_is_not_connected_to(stack: Stack, address: str) -> None:
    """MUST-46."""
    with pytest.raises(StackError) as raised:
        stack.connect(address, 80)
    assert raised.value.reason == "bad_address"
    assert stack.connections("connection") == []


def test_a_local_port_is_used_once_for_each_peer(stack: Stack) -> None:
    connection = stack.connect(PEER_ADDRESS, 80, local_port=5000, wait=False)
    assert connection.local == (STACK_ADDRESS, 5000)
    with pytest.raises(AddressInUse):
        stack.connect(PEER_ADDRESS, 80, local_port=5000, wait=False)
    other = stack.connect(PEER_ADDRESS, 81, local_port=5000, wait=False)
    assert other.local[1] == 5000


def test_ports_are_chosen_without_repeating(stack: Stack) -> None:
    connections = [stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(2000)]
    ports = {connection.local[1] for connection in connections}
    assert len(ports) == 2000
    assert all(32768 <= port <= 60999 for port in ports)


def test_every_port_can_be_taken_and_then_none_is_left(stack: Stack) -> None:
    taken = [stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(28232)]
    with pytest.raises(StackError) as raised:
        stack.connect(PEER_ADDRESS, 80, wait=False)
    assert raised.value.reason == "no_port"
    assert len({connection.local[1] for connection in taken}) == 28232


def test_a_manual_clock_connects_without_waiting(stack: Stack) -> None:
    connection = stack.connect(PEER_ADDRESS, 80)
    assert connection.state == "SYN-SENT"


def test_a_peer_off_the_prefix_is_not_reached_without_a_gateway(stack: Stack) -> None:
    """Said when the SYN finds no route, in the next turn: connect(wait=False) only queues it."""
    connection = stack.connect("10.0.0.1", 80, wait=False)
    assert (connection.state, connection.reason) == ("SYN-SENT", None)
    stack.poll(1)
    assert connection.reason == "net_unreachable"
    with pytest.raises(Unreachable) as caught:
        connection.receive(1, timeout=0)
    assert caught.value.errno == errno.ENETUNREACH


# ---------------------------------------------------------------- snapshots


def test_connections_is_a_snapshot_of_all(stack: Stack) -> None:
    assert stack.connections("connection") == []
    made = [stack.connect(PEER_ADDRESS, port, wait=False) for port in range(1, 4)]
    listed = stack.connections("connection")
    assert sorted(entry["remote"][1] for entry in listed) == [1, 2, 3]
    assert {entry["state"] for entry in listed} == {"SYN-SENT"}
    for connection in made:
        connection.abort()
    assert len(listed) == 3


def test_every_connection_is_listed_after_the_table_has_grown(stack: Stack) -> None:
    made = [stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(3000)]
    wanted = {connection.local for connection in made}
    assert {entry["local"] for entry in stack.connections("connection")} == wanted


def test_counters_have_every_name_and_whole_numbers(stack: Stack) -> None:
    counters = stack.counters()
    assert {"frames_in", "segments_out", "drop_tcp_checksum", "connections_accepted"} <= counters.keys()
    assert all(type(value) is int for value in counters.values())


def test_counters_are_a_copy(stack: Stack) -> None:
    stack.counters()["frames_in"] = 99
    assert stack.counters()["frames_in"] == 0


# ---------------------------------------------------------------- the end


def test_leaving_the_context_closes_also_after_an_exception() -> None:
    network = SimNetwork()
    with pytest.raises(KeyError), Stack(network.a, now_ns=0) as stack:
        raise KeyError
    assert not stack.alive
    assert not any(stack.leaks().values())


def test_closing_resets_what_is_open() -> None:
    with Pair() as pair:
        opener, accepter = pair.connect()
        pair.a.close()
        pair.network.advance(pair.now_ns)
        pair.b.poll(pair.now_ns)
        assert (accepter.reason, opener.reason) == ("aborted", "reset")


def test_closing_counts_what_still_has_something_to_deliver() -> None:
    with Pair() as pair:
        opener, accepter = pair.connect()
        opener.send(b"x")
        assert pair.b.closing_connections() == 0
        opener.close()
        assert pair.b.closing_connections() == 1
        accepter.abort()
        pair.advance(MILLISECOND)
        assert pair.b.closing_connections() == 0


def test_a_stack_with_everything_in_it_leaves_nothing() -> None:
    """Half-open, open, half-closed, TIME-WAIT, data queued both ways, a timer each: all of it goes."""
    with Pair() as pair:
        listener = pair.a.listen(80)
        made = [pair.b.connect(STACK_ADDRESS, 80, wait=False) for _ in range(20)]
        pair.run_until(lambda: listener.pending == 20, 10 * SECOND)
        accepted = [listener.accept(timeout=0) for _ in range(10)]
        for number, connection in enumerate(made):
            connection.send(b"x" * (1000 * number))
            connection.keepalive = True
        for connection in accepted[:5]:
            connection.shutdown()
        pair.advance(MILLISECOND)
        for connection in made[:10]:
            connection.close()
        pair.advance(MILLISECOND)
        for _ in range(5):
            pair.b.connect(STACK_ADDRESS, 80, wait=False).send(b"early")
        pair.b.close()


@pytest.mark.parametrize("tx_slots", [1, 2])
def test_closing_through_a_full_ring_still_tells_everybody(tx_slots: int) -> None:
    network = SimNetwork(tx_slots=tx_slots)
    stack = Stack(network.a, now_ns=0)
    connections = [stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(100)]
    stack.poll(1)
    stack.close()
    assert {connection.reason for connection in connections} == {"aborted"}
    assert not any(stack.leaks().values())


@pytest.mark.parametrize(("connections", "reason"), [(10, "aborted"), (25_000, "refused")])
def test_a_large_table_is_looked_through_with_turns_between_its_parts(
    make_stack: MakeStack, connections: int, reason: str
) -> None:
    """Who closes a stack looks for connections that still close. A large table is looked through with turns between its
    parts, so that what comes meanwhile is heard, here a reset; a small one needs no turn, and all are aborted."""
    link = MemoryLink()
    stack = make_stack(link)
    opened = [stack.connect(PEER_ADDRESS, 80, wait=False) for _ in range(connections)]
    entry = next(entry for entry in stack.connections("connection") if entry["local"] == opened[0].local)
    reset = Segment(PEER_ADDRESS, STACK_ADDRESS, 80, opened[0].local[1], 0, entry["snd_una"] + 1, "RA")
    assert link.inject(build_frame(reset, src_mac="02:00:00:00:00:01", dst_mac="02:00:00:00:00:02"))
    stack.close(linger=60.0)
    assert opened[0].reason == reason
    assert opened[-1].reason == "aborted"


@pytest.mark.root
@pytest.mark.parametrize("linger", [60.0, 0.0])
def test_closing_lingers_for_what_is_queued(
    make_lab: Callable[..., Made], make_stack: MakeStack, linger: float
) -> None:
    """With time, a closed connection's data arrives; without, the peer gets a part and a reset."""
    lab = make_lab()
    data = b"x" * 3_000_000
    received = bytearray()
    outcome: list[str] = []
    with namespace.inside(lab.peer_netns):
        peer = socket.socket()
    peer.settimeout(60)
    go_on = threading.Event()

    def client() -> None:
        try:
            peer.connect((STACK_ADDRESS, 80))
            assert go_on.wait(60)
            while piece := peer.recv(65536):
                received.extend(piece)
            outcome.append("whole")
        except ConnectionResetError:
            outcome.append("reset")
        finally:
            peer.close()

    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with link:
        stack = make_stack(link, STACK_ADDRESS + "/24")
        thread = threading.Thread(target=client)
        thread.start()
        try:
            connection = stack.listen(80).accept(timeout=60)
            connection.send(data)
            connection.close()
            go_on.set()
            stack.close(linger=linger)
        finally:
            go_on.set()
            thread.join(60)
    if linger:
        assert (outcome, len(received)) == (["whole"], len(data))
    else:
        assert outcome == ["reset"]
    assert not any(stack.leaks().values())

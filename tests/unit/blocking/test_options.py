# SPDX-License-Identifier: MIT
"""Options under Linux's names: what each does to the segments, its bounds, and when it may be set."""

import errno
import socket
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from ustack import Connection, ConnectionReset, Listener, StackError, WouldBlock
from ustack.blocking.options import options
from ustack.testing.pair import Pair
from ustack.testing.peer import ScriptedPeer, at_least, length
from ustack.testing.states import (
    PEER_SERVICE,
    SYN_OPTIONS,
    Scene,
    close_wait,
    established,
    fin_wait_1,
    listen,
)
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND

MSS = 1460
LARGE = 0x7FFFFFFF
ON_CONNECTIONS = [line for line in options().values() if line.on in {"connection", "both"}]
NUMBERS = [line for line in ON_CONNECTIONS if line.unit not in {"name", "linger"} and line.name != "TCP_MAXSEG"]


def handshake(scene: Scene, *, options: Any = SYN_OPTIONS, port: int = 40_001) -> tuple[ScriptedPeer, Connection]:
    """A client of the scene's listener, and its connection."""
    peer = ScriptedPeer(scene.testbed, port=port)
    peer.send("S", options=options)
    peer.expect("SA")
    peer.send("A")
    assert scene.listener is not None
    return peer, scene.listener.accept(timeout=0)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("line", options().values(), ids=options())
def test_numbers_are_linuxs(line: Any) -> None:
    assert line.number == getattr(socket, line.name, line.number)
    assert {"SOL_SOCKET": 1, "IPPROTO_IP": 0, "IPPROTO_TCP": 6}[line.level] == getattr(socket, line.level)


@pytest.mark.parametrize("line", NUMBERS, ids=lambda line: str(line.name))
def test_what_was_set_is_what_is_told(line: Any) -> None:
    with established() as scene:
        for value in {line.low, line.high}:
            scene.conn.set_option(line.name, value)
            assert scene.conn.option(line.name) in {value & ~3 if line.name == "IP_TOS" else value, value != 0}
        scene.abort()


@pytest.mark.parametrize("line", [line for line in NUMBERS if line.unit != "flag"], ids=lambda line: str(line.name))
def test_bounds_are_said(line: Any) -> None:
    with established() as scene:
        before = scene.conn.option(line.name)
        for value in (line.low - 1, line.high + 1, -LARGE, 1 << 70):
            with pytest.raises(ValueError, match=f"{line.name}={value}: must be from {line.low} to {line.high}"):
                scene.conn.set_option(line.name, value)
        wrongs: list[Any] = [None, "1", 1.5, b"1", []]
        for wrong in wrongs:
            with pytest.raises(TypeError, match=f"{line.name} is a whole number"):
                scene.conn.set_option(line.name, wrong)
        assert scene.conn.option(line.name) == before
        assert scene.testbed.stack.leaks()["sockopts"] == 0
        scene.abort()


@pytest.mark.parametrize("name", ["SO_RCVTIMEO", "nodelay", "", None, 5, "TCP_NOPUSH"])
def test_a_name_that_there_is_not(name: Any) -> None:
    with established() as scene:
        for call in (lambda: scene.conn.set_option(name, 1), lambda: scene.conn.option(name)):
            with pytest.raises(StackError, match="there is no option") as raised:
                call()
            assert (raised.value.errno, raised.value.reason) == (errno.ENOPROTOOPT, "unsupported")
        scene.abort()


def test_accept_filters_are_refused_with_what_to_use_instead() -> None:
    with listen() as scene:
        assert scene.listener is not None
        with pytest.raises(StackError, match=r"accept filters .*TCP_DEFER_ACCEPT") as raised:
            scene.listener.set_option("SO_ACCEPTFILTER", "httpready")
        assert raised.value.errno == errno.ENOPROTOOPT
        with pytest.raises(StackError, match="no socket filters"):
            scene.listener.set_option("SO_ATTACH_FILTER", b"")
        for level, number, word in ((1, 26, "socket"), (1, 50, "socket"), (0xFFFF, 0x1000, "accept")):
            with pytest.raises(StackError, match=f"there are no {word} filters") as raised:
                scene.listener.setsockopt(level, number, b"")
            assert raised.value.errno == errno.ENOPROTOOPT


def test_what_can_be_read_alone_and_what_is_the_listeners() -> None:
    with listen() as scene:
        assert scene.listener is not None
        _, connection = handshake(scene)
        for name in ("SO_ERROR", "TCP_INFO", "IP_MTU"):
            with pytest.raises(StackError, match="can be read alone"):
                connection.set_option(name, 1)
        with pytest.raises(StackError, match="is an option of listeners"):
            connection.set_option("TCP_DEFER_ACCEPT", 1)
        with pytest.raises(StackError, match="can be read alone"):
            scene.listener.set_option("SO_ERROR", 1)
        with pytest.raises(StackError, match="is an option of connections"):
            scene.listener.option("IP_MTU")
        assert (connection.option("IP_MTU"), connection.option("TCP_INFO").state) == (1500, "ESTABLISHED")
        connection.abort()
        scene.testbed.pump()


def test_the_last_option_that_is_as_usual_again_gives_its_record_back() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_CORK", True)
        scene.conn.set_option("TCP_USER_TIMEOUT", 1234)
        scene.conn.set_option("TCP_CORK", False)
        assert scene.testbed.stack.leaks()["sockopts"] == 1
        scene.conn.set_option("TCP_USER_TIMEOUT", 0)
        assert scene.testbed.stack.leaks()["sockopts"] == scene.testbed.stack.leaks()["extras"] == 0
        scene.conn.set_option("TCP_QUICKACK", True)
        scene.abort()
        assert scene.testbed.stack.leaks()["sockopts"] == 0


def test_without_room_for_a_record_nothing_is_set() -> None:
    with established(extra_records=0) as scene:
        with pytest.raises(StackError, match="a limit of the stack") as raised:
            scene.conn.set_option("TCP_CORK", True)
        assert raised.value.errno == errno.ENOBUFS
        assert scene.conn.option("TCP_CORK") == 0
        scene.conn.set_option("TCP_NODELAY", True)  # which needs none
        scene.abort()


# ---------------------------------------------------------------- when


@pytest.mark.parametrize("line", ON_CONNECTIONS, ids=lambda line: str(line.name))
def test_after_the_end_each_says_so(line: Any) -> None:
    with established() as scene:
        scene.peer.send("R")
        value = "cubic" if line.unit == "name" else 1
        if line.name not in {"SO_ERROR", "SO_LINGER", "SO_OOBINLINE"}:
            with pytest.raises(ConnectionReset):
                scene.conn.option(line.name)
        if line.on != "read":
            with pytest.raises(ConnectionReset):
                scene.conn.set_option(line.name, max(value, line.low) if line.unit != "name" else value)


@pytest.mark.parametrize("state", [close_wait, fin_wait_1])
def test_while_it_closes_options_still_count(state: Callable[[], Scene]) -> None:
    with state() as scene:
        scene.conn.set_option("TCP_USER_TIMEOUT", 5000)
        assert scene.conn.option("TCP_USER_TIMEOUT") == 5000
        scene.abort()


def test_before_connect_goes_with_the_syn() -> None:
    scene = listen()
    with scene.testbed:
        peer = ScriptedPeer(scene.testbed, port=PEER_SERVICE, stack_port=None)
        wanted = {"TCP_MAXSEG": 536, "IP_TTL": 9, "TCP_KEEPIDLE": 7, "SO_KEEPALIVE": 1}
        connection = scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False, options=wanted)
        scene.testbed.pump()
        syn = peer.expect("S", options={"mss": 536})
        assert syn.ttl == 9
        peer.send("SA", options=SYN_OPTIONS)
        peer.expect("A")
        assert [connection.option(name) for name in wanted] == [536, 9, 7, 1]
        with pytest.raises(StackError, match="goes with the SYN") as raised:
            connection.set_option("TCP_MAXSEG", 600)
        assert raised.value.errno == errno.EISCONN
        connection.send(bytes(1000))
        scene.testbed.pump()
        peer.expect("A", payload=length(536))
        connection.abort()
        scene.testbed.pump()


@pytest.mark.parametrize("wanted", [{"TCP_MAXSEG": 5}, {"IP_TTL": 0}, {"TCP_CONGESTION": "tahoe"}, {"nothing": 1}])
def test_connect_with_a_wrong_option_opens_nothing(wanted: Any) -> None:
    with listen() as scene:
        with pytest.raises((ValueError, StackError)):
            scene.testbed.stack.connect(PEER_ADDRESS, PEER_SERVICE, wait=False, options=wanted)
        scene.testbed.pump()
        assert scene.testbed.stack.connections("connection") == []


def test_what_a_listener_has_its_connections_begin_with() -> None:
    with listen() as scene:
        assert scene.listener is not None
        wanted = {
            "TCP_NODELAY": 1, "SO_KEEPALIVE": 1, "TCP_KEEPCNT": 3, "IP_TOS": 0xB8, "IP_TTL": 5,
            "TCP_CONGESTION": "newreno",
            "SO_SNDBUF": 5000, "SO_RCVBUF": 6000, "TCP_NOTSENT_LOWAT": 77, "TCP_MAXSEG": 600, "SO_LINGER": 3,
            "TCP_LINGER2": 9, "TCP_QUICKACK": 1, "TCP_USER_TIMEOUT": 2500, "IP_MTU_DISCOVER": 0,
        }  # fmt: skip
        for name, value in wanted.items():
            scene.listener.set_option(name, value)
            assert scene.listener.option(name) == value
        peer = ScriptedPeer(scene.testbed, port=40_001)
        peer.send("S", options=SYN_OPTIONS)
        peer.expect("SA", options={"mss": 600})
        peer.send("A")
        connection = scene.listener.accept(timeout=0)
        assert {name: connection.option(name) for name in wanted} == wanted
        scene.listener.set_option("TCP_NODELAY", 0)
        _, later = handshake(scene, port=40_002)
        assert (connection.option("TCP_NODELAY"), later.option("TCP_NODELAY")) == (1, 0)
        connection.abort()
        later.abort()
        scene.testbed.pump()


def test_a_listener_that_cannot_give_what_it_promised_gives_nothing() -> None:
    with listen(extra_records=0) as scene:
        assert scene.listener is not None
        scene.listener.set_option("TCP_CORK", 1)
        peer = ScriptedPeer(scene.testbed, port=40_001)
        peer.send("S", options=SYN_OPTIONS)
        peer.expect("SA")
        peer.send("A")
        peer.expect("RA")
        assert scene.testbed.counted()["accepts_without_memory"] == 1


def test_a_closed_listener_takes_no_option() -> None:
    with listen() as scene:
        assert scene.listener is not None
        scene.listener.close()
        with pytest.raises(ValueError, match="the listener is closed"):
            scene.listener.set_option("TCP_NODELAY", 1)


def test_listen_with_a_wrong_option_leaves_the_port_free() -> None:
    with listen() as scene:
        with pytest.raises(ValueError, match="TCP_KEEPCNT=0"):
            scene.testbed.stack.listen(81, options={"TCP_NODELAY": 1, "TCP_KEEPCNT": 0})
        scene.testbed.stack.listen(81).close()


# ---------------------------------------------------------------- as sockets have it


def test_setsockopt_and_getsockopt_in_a_sockets_words() -> None:
    with established() as scene:
        connection = scene.conn
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert connection.nodelay
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, (30).to_bytes(4, "little"))
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4) == (30).to_bytes(4, "little")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"newreno\0")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == b"newreno\0"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 5, 0, 0, 0]))
        assert connection.option("SO_LINGER") == 5
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes([1, 0, 0, 0, 5, 0, 0, 0])
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(StackError, match="no option 99 at level 6") as raised:
            connection.setsockopt(socket.IPPROTO_TCP, 99, 1)
        assert raised.value.errno == errno.ENOPROTOOPT
        with pytest.raises(StackError, match="Fast Open"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1)
        scene.peer.send("R")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == connection.error == errno.ECONNRESET


# ---------------------------------------------------------------- sending


def test_cork_holds_what_is_no_whole_segment_until_it_is_off() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_CORK", True)
        scene.send(b"head ")
        scene.send(b"and body")
        scene.peer.expect_nothing()
        scene.send(bytes(MSS))
        scene.peer.expect("A", payload=length(MSS))
        scene.peer.expect_nothing()
        scene.conn.set_option("TCP_CORK", False)
        scene.testbed.pump()
        scene.peer.expect("PA", payload=length(13))
        scene.abort()


def test_cork_holds_for_200_ms_at_most_and_not_a_fin() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_CORK", True)
        scene.send(b"late")
        scene.peer.expect_after(200 * MILLISECOND, "PA", payload=b"late")
        scene.peer.send("A")
        scene.send(b"last")
        scene.peer.expect_nothing()
        scene.shutdown()
        scene.peer.expect("FPA", payload=b"last")
        scene.abort()


def test_cork_is_above_nodelay() -> None:
    with established() as scene:
        scene.conn.nodelay = True
        scene.conn.set_option("TCP_CORK", True)
        scene.send(b"x")
        scene.peer.expect_nothing()
        scene.abort()


def test_msg_more_holds_until_the_next_part_says_otherwise() -> None:
    with established() as scene:
        scene.conn.send(b"head ", flags=socket.MSG_MORE)
        scene.testbed.pump()
        scene.peer.expect_nothing()
        scene.conn.send(b"body")
        scene.testbed.pump()
        scene.peer.expect("PA", payload=b"head body")
        assert scene.testbed.stack.leaks()["sockopts"] == 0
        scene.conn.sendall(b"one ", socket.MSG_MORE)
        scene.testbed.pump()
        scene.peer.send("A")
        scene.peer.expect_after(200 * MILLISECOND, "PA", payload=b"one ")
        scene.abort()


def test_a_send_buffer_bounds_what_is_queued_and_wakes_at_half_of_it() -> None:
    with established(wnd=1000) as scene:
        scene.conn.set_option("SO_SNDBUF", 3000)
        assert scene.conn.send(bytes(10_000)) == 3000
        assert (scene.conn.send(b"x"), scene.conn.unacked_bytes, scene.conn.unsent_bytes) == (0, 3000, 3000)
        scene.testbed.pump()
        assert scene.conn.unsent_bytes == 2000
        scene.peer.catch_up()
        scene.peer.send("A", wnd=1000)
        scene.testbed.pump()
        assert scene.conn.send(bytes(10_000)) == 1000
        scene.abort()


def test_a_user_timeout_is_in_milliseconds() -> None:
    with established(measured=True) as scene:
        scene.conn.set_option("TCP_USER_TIMEOUT", 1500)
        scene.send(b"anybody?")
        scene.testbed.advance(1490 * MILLISECOND)
        assert scene.state == "ESTABLISHED"
        scene.testbed.advance(20 * MILLISECOND)
        assert (scene.conn.reason, scene.conn.error) == ("timeout", errno.ETIMEDOUT)


def test_df_can_be_cleared_and_set() -> None:
    with established() as scene:
        for value, df in ((0, False), (2, True)):
            scene.conn.set_option("IP_MTU_DISCOVER", value)
            scene.send(b"x" * 100)
            frame = scene.testbed.frames[-1]
            assert bool(frame[20] & 0x40) is df
            scene.peer.catch_up()
            scene.peer.send("A")
        scene.abort()


# ---------------------------------------------------------------- receiving


def test_quick_acks_are_not_delayed() -> None:
    with established() as scene:
        scene.peer.send("PA", payload=b"one")
        scene.peer.expect_nothing()
        scene.conn.set_option("TCP_QUICKACK", True)
        scene.testbed.pump()
        scene.peer.expect("A", ack=4)
        scene.peer.send("PA", payload=b"two")
        scene.peer.expect("A", ack=7)
        assert scene.conn.info().ato_us == 0
        scene.conn.set_option("TCP_QUICKACK", False)
        scene.peer.send("PA", payload=b"three")
        scene.peer.expect_nothing()
        scene.abort()


def test_a_receive_buffer_is_the_window_and_does_not_grow() -> None:
    with established(rcv_buffer_bytes=4000, rcv_buffer_max_bytes=1 << 20) as scene:
        scene.conn.set_option("SO_RCVBUF", 8000)
        scene.testbed.pump()
        for _ in range(40):
            scene.peer.send("PA", payload=bytes(MSS))
            scene.read()
            scene.testbed.advance(5 * MILLISECOND)
        assert 8000 - MSS <= scene.conn.info().rcv_wnd_bytes <= 8000  # the last one's ACK is delayed
        assert scene.conn.option("SO_RCVBUF") == 8000
        assert scene.testbed.counted().get("windows_grown", 0) == 0
        scene.abort()


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda connection: connection.unacked_bytes, "queued_bytes"),
        (lambda connection: connection.unsent_bytes, "notsent_bytes"),
        (lambda connection: connection.receivable_bytes, "receivable_bytes"),
        (lambda connection: connection.urgent_bytes, "urgent_bytes"),
        (lambda connection: connection.option("IP_MTU"), "pmtu_bytes"),
    ],
)
def test_one_number_is_read_alone(ask: Callable[[Connection], int], field: str) -> None:
    """Of all that info() has, with less memory than a snapshot takes."""
    with established() as scene:
        scene.peer.send("UPA", payload=b"received", urgent=4)
        scene.conn.send(b"queued")
        wanted = getattr(scene.conn.info(), field)
        ask(scene.conn)
        tracemalloc.start()
        try:
            found = ask(scene.conn)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found == wanted > 0
        assert peak < 1024
        scene.abort()


def test_a_listener_that_nobody_made_has_no_options() -> None:
    made = Listener.__new__(Listener)
    assert made.option("TCP_NODELAY") is None
    for call in (lambda: made.set_option("TCP_NODELAY", 1), lambda: made.setsockopt(socket.IPPROTO_TCP, 1, 1)):
        with pytest.raises(ValueError, match="the listener is closed"):
            call()


def test_peek_leaves_what_it_reads() -> None:
    with established() as scene:
        scene.peer.send("PA", payload=b"hello ")
        assert scene.conn.recv(3, socket.MSG_PEEK) == b"hel"
        scene.peer.send("PA", payload=b"world")
        assert scene.conn.recv(100, socket.MSG_PEEK) == b"hello world"
        assert scene.conn.receivable_bytes == 11
        buffer = bytearray(4)
        assert (scene.conn.recv_into(buffer, flags=socket.MSG_PEEK), bytes(buffer)) == (4, b"hell")
        assert (scene.conn.recv_into(buffer), bytes(buffer)) == (4, b"hell")
        assert scene.conn.recv(100) == b"o world"
        with pytest.raises(WouldBlock):
            scene.conn.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        scene.abort()


def test_a_peek_changes_nothing() -> None:
    """Nor does it make the peer send more: reading as much would open the window again."""
    with established() as scene:
        window = scene.conn.info().rcv_wnd_bytes
        scene.conn.set_option("SO_RCVBUF", window)
        for at in range(0, window, 1024):
            scene.peer.send("PA", payload=bytes(min(1024, window - at)))
        scene.peer.drain()
        before = scene.conn.info()
        assert before.rcv_wnd_bytes == 0
        assert len(scene.conn.recv(window, socket.MSG_PEEK)) == window
        scene.testbed.pump()
        assert scene.conn.info() == before
        scene.peer.expect_nothing()
        assert len(scene.conn.recv(window)) == window
        scene.testbed.pump()
        scene.peer.expect("A", wnd=at_least(1))
        scene.abort()


def test_a_peek_sees_across_all_that_is_held() -> None:
    data = bytes(range(256)) * 40
    with established() as scene:
        for at in range(0, len(data), 1000):
            scene.peer.send("PA", payload=data[at : at + 1000])
        assert scene.conn.recv(1 << 20, socket.MSG_PEEK) == data
        assert scene.read() == data
        scene.abort()


def test_what_was_peeked_and_not_read_is_unread() -> None:
    """RFC 9293 SHLD-3: close() with unread data is a reset."""
    with established() as scene:
        scene.peer.send("PA", payload=b"unread")
        scene.conn.recv(6, socket.MSG_PEEK)
        scene.close()
        scene.peer.drain()
        assert scene.state == "CLOSED"
        assert scene.conn.reason == "aborted"


def test_what_was_peeked_outlives_a_normal_end_but_no_reset() -> None:
    for flags, left in (("FA", b"some more"), ("R", None)):
        with established() as scene:
            scene.peer.send("PA", payload=b"some ")
            scene.conn.recv(2, socket.MSG_PEEK)
            scene.peer.send("PA", payload=b"more")
            scene.shutdown()
            scene.peer.catch_up()
            scene.peer.send(flags, ack=2)
            if left is None:
                with pytest.raises(ConnectionReset):
                    scene.conn.recv(100)
            else:
                assert scene.conn.recv(5) + scene.conn.recv(100) == left
                assert scene.conn.recv(100) == b""


def test_waitall_takes_all_that_was_asked_for(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    opener.nodelay = True
    for part in (b"ab", b"cd", b"ef"):
        opener.send(part)
        pair.advance(MILLISECOND)
    assert accepter.recv(5, socket.MSG_WAITALL) == b"abcde"
    assert accepter.recv(5, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"f"
    with pytest.raises(WouldBlock):
        accepter.recv(5, socket.MSG_WAITALL | socket.MSG_DONTWAIT)


@pytest.mark.parametrize("flags", [socket.MSG_TRUNC, 1 << 20])
def test_flags_that_there_are_not(flags: int) -> None:
    with established() as scene:
        for call in (lambda: scene.conn.recv(1, flags), lambda: scene.conn.sendall(b"x", flags)):
            with pytest.raises(StackError, match="flags") as raised:
                call()
            assert raised.value.errno == errno.EOPNOTSUPP
        scene.abort()


# ---------------------------------------------------------------- silence


def test_keep_alive_of_its_own() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_KEEPIDLE", 10)
        scene.conn.set_option("TCP_KEEPINTVL", 3)
        scene.conn.set_option("TCP_KEEPCNT", 2)
        scene.conn.keepalive = True
        scene.peer.expect_after(10 * SECOND, "A", seq=0, payload=b"")
        scene.peer.expect_after(3 * SECOND, "A", seq=0, payload=b"")
        scene.peer.expect_after(3 * SECOND, "RA")
        assert scene.conn.error == errno.ETIMEDOUT


def test_a_shorter_silence_set_while_it_lasts_counts_from_its_beginning() -> None:
    with established() as scene:
        scene.conn.keepalive = True
        scene.testbed.advance(20 * SECOND)
        scene.conn.set_option("TCP_KEEPIDLE", 30)
        scene.peer.expect_after(10 * SECOND, "A", seq=0, payload=b"")
        scene.abort()


def test_a_user_timeout_ends_keep_alive_before_its_count() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_KEEPIDLE", 10)
        scene.conn.set_option("TCP_KEEPINTVL", 5)
        scene.conn.set_option("TCP_USER_TIMEOUT", 14_000)
        scene.conn.keepalive = True
        scene.peer.expect_after(10 * SECOND, "A", seq=0)
        scene.peer.expect_after(5 * SECOND, "RA")


# ---------------------------------------------------------------- the end


def test_linger_of_no_time_resets() -> None:
    with established() as scene:
        scene.conn.set_option("SO_LINGER", 0)
        scene.close()
        scene.peer.expect("RA")
        assert scene.conn.reason == "aborted"


def test_linger2_is_how_long_fin_wait_2_lasts() -> None:
    with established() as scene:
        scene.conn.set_option("TCP_LINGER2", 7)
        scene.close()
        scene.peer.expect("FA")
        scene.peer.send("A", ack=2)
        assert scene.state == "FIN-WAIT-2"
        scene.testbed.advance(6 * SECOND)
        assert scene.state == "FIN-WAIT-2"
        scene.testbed.advance(2 * SECOND)
        assert scene.state == "CLOSED"


@pytest.mark.parametrize(("flags", "reason", "number"), [("R", "reset", errno.ECONNRESET), ("FA", "normal", None)])
def test_the_error_is_what_ended_it(flags: str, reason: str, number: int | None) -> None:
    with established() as scene:
        assert scene.conn.error is None
        scene.shutdown()
        scene.peer.catch_up()
        scene.peer.send(flags, ack=2)
        scene.testbed.advance(61 * SECOND)
        assert (scene.conn.reason, scene.conn.error, scene.conn.option("SO_ERROR")) == (reason, number, number or 0)


# ---------------------------------------------------------------- deferred


def deferring(seconds: int) -> tuple[Scene, ScriptedPeer]:
    scene = listen()
    assert scene.listener is not None
    scene.listener.set_option("TCP_DEFER_ACCEPT", seconds)
    peer = ScriptedPeer(scene.testbed, port=40_001)
    peer.send("S", options=SYN_OPTIONS)
    peer.expect("SA")
    return scene, peer


def test_a_deferred_connection_is_there_with_its_first_data() -> None:
    scene, peer = deferring(5)
    with scene:
        assert scene.listener is not None
        peer.send("A")
        assert (scene.listener.pending, scene.testbed.dropped()) == (0, {"drop_tcp_deferred": 1})
        scene.testbed.advance(500 * MILLISECOND)
        peer.send("PA", payload=b"GET /")
        connection = scene.listener.accept(timeout=0)
        assert connection.recv(100) == b"GET /"
        assert connection.info().rtt_us == 0, "the half second was the client's"
        connection.abort()
        scene.testbed.pump()


def test_who_says_nothing_is_there_after_that_time() -> None:
    scene, peer = deferring(3)
    with scene:
        assert scene.listener is not None
        peer.send("A")
        for seconds in (1, 2):
            assert scene.listener.pending == 0
            peer.expect_after(seconds * SECOND, "SA")
            peer.send("A")
        assert scene.listener.pending == 1
        scene.listener.accept(timeout=0).abort()
        scene.testbed.pump()


def test_a_deferred_fin_is_news_enough() -> None:
    scene, peer = deferring(5)
    with scene:
        assert scene.listener is not None
        peer.send("FA")
        assert scene.listener.pending == 1
        scene.listener.accept(timeout=0).abort()
        scene.testbed.pump()

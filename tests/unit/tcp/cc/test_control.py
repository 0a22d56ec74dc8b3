# SPDX-License-Identifier: MIT
"""A congestion control in its socket: who chooses it, what reaches it, where its record lives and when it goes.

The controls are those of testing/parts/controls.pyx; `aimd` writes down every call that it gets.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ustack import SimNetwork, Stack, StackError
from ustack.errors import SendAfterEnd
from ustack.tcp.cc.registry import names
from ustack.testing.pair import Pair
from ustack.testing.parts import controls
from ustack.testing.peer import ScriptedPeer
from ustack.testing.states import ALL_OPTIONS, Scene, established, fin_wait_1, listen, syn_sent
from ustack.testing.testbed import MILLISECOND, PEER_ADDRESS, SECOND, STACK_ADDRESS, Testbed, read_available

MSS = 1460
IW = 10 * MSS
ARBITRARILY_HIGH = 0x7FFFFFFF
FIXED = 20_000


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    controls.register()
    controls.set_fixed_bytes(FIXED)
    controls.take_calls()
    yield
    assert controls.faults() == []


def calls(*leave_out: str) -> list[tuple[Any, ...]]:
    return [call for call in controls.take_calls() if call[0] not in leave_out]


def records(scene: Scene) -> int:
    return scene.testbed.stack.leaks()["cc_records"]


def sent(scene: Scene) -> list[int]:
    """Lengths of the data segments that have arrived; takes them, and counts them as received."""
    lengths = [len(segment.payload) for segment in scene.peer.queue if segment.payload]
    scene.peer.catch_up()
    return lengths


# ---------------------------------------------------------------- who chooses


def test_a_stack_has_cubic_when_it_is_not_told_otherwise() -> None:
    with established() as scene:
        assert scene.conn.cc == scene.conn.info().cc == scene.info()["cc"] == names()[1] == "cubic"


@pytest.mark.parametrize("role", ["passive", "active"])
def test_a_stack_chooses_for_all_its_connections(role: str) -> None:
    with established(role=role, cc="aimd") as scene:
        assert scene.conn.cc == scene.info()["cc"] == "aimd"


def test_a_listener_chooses_for_its_connections() -> None:
    with Testbed(cc="aimd") as bed:
        bed.introduce()
        listeners = {80: bed.stack.listen(80), 81: bed.stack.listen(81, cc="fixed")}
        for port in listeners:
            peer = ScriptedPeer(bed, port=40000 + port, stack_port=port)
            peer.send("S", options={"mss": MSS})
            peer.expect("SA")
            peer.rcv_nxt = 1
            peer.send("A")
        assert {row["local"][1]: row["cc"] for row in bed.stack.connections("connection")} == {80: "aimd", 81: "fixed"}
        assert [listener.accept(timeout=0).cc for listener in listeners.values()] == ["aimd", "fixed"]


def test_a_connection_chooses_for_itself() -> None:
    with Testbed(cc="fixed") as bed:
        bed.introduce()
        chosen = bed.stack.connect(PEER_ADDRESS, 7, wait=False, cc="aimd")
        default = bed.stack.connect(PEER_ADDRESS, 8, wait=False)
        assert (chosen.cc, default.cc) == ("aimd", "fixed")
        for connection in (chosen, default):
            connection.abort()
        bed.pump()


@pytest.mark.parametrize("name", ["bogus", "", "new\0reno"])
def test_a_control_that_is_not_there_is_refused_everywhere(name: str) -> None:
    with pytest.raises(ValueError, match="there are: newreno"):
        Stack(SimNetwork().a, now_ns=0, cc=name)
    with established() as scene:
        stack = scene.testbed.stack
        with pytest.raises(ValueError, match="there are: newreno"):
            stack.listen(81, cc=name)
        with pytest.raises(ValueError, match="there are: newreno"):
            stack.connect(PEER_ADDRESS, 7, wait=False, cc=name)
        with pytest.raises(ValueError, match="there are: newreno"):
            scene.conn.cc = name
        stack.listen(81).close()  # the port was not taken
        assert (scene.conn.cc, len(stack.connections("connection"))) == ("cubic", 1)


# ---------------------------------------------------------------- the record


def test_a_connection_that_never_sent_owns_no_record() -> None:
    with established(cc="aimd") as scene:
        scene.peer.send("PA", payload=bytes(1000))
        scene.read()
        scene.testbed.advance(60 * SECOND)
        assert (records(scene), controls.take_calls()) == (0, [])


def test_nor_does_one_that_sends_nothing_but_its_fin() -> None:
    with fin_wait_1(cc="aimd") as scene:
        scene.testbed.advance(SECOND + MILLISECOND)  # its FIN times out once
        scene.peer.drain()
        scene.peer.send("A", ack=2)
        scene.peer.send("FA", ack=2)
        assert (records(scene), scene.state, controls.take_calls()) == (0, "TIME-WAIT", [])


def test_the_record_comes_with_the_first_data() -> None:
    with established(cc="aimd") as scene:
        scene.send(b"x")
        assert records(scene) == 1
        scene.abort()
        assert records(scene) == 0


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_one_that_begins_late_has_none_while_its_responses_do_not_fill_the_window(cc: str) -> None:
    """Half a window is one that limits in slow start; below that these controls do nothing on an ACK."""
    with established(cc=cc) as scene:
        for length in (1, 100, IW // 2 - 1) * 20:
            scene.send(bytes(length))
            scene.peer.catch_up()
            scene.peer.send("A")
            scene.testbed.advance(SECOND)
        assert (records(scene), scene.conn.cc, scene.info()["cwnd"]) == (0, cc, IW)
        scene.send(bytes(IW // 2))
        scene.peer.catch_up()
        scene.peer.send("A")
        assert (records(scene), scene.info()["cwnd"]) == (1, IW + IW // 2)
        scene.abort()
        assert records(scene) == 0


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_one_that_begins_late_begins_with_a_loss(cc: str) -> None:
    """Of a flight that did not fill the window: five segments, the first of them lost."""
    with established(cc=cc, initial_window_segments=20) as scene:
        scene.send(bytes(5 * MSS))
        for _ in range(3):
            scene.peer.send("A", ack=1)
        assert (records(scene), scene.info()["ssthresh"]) == (1, 35 * MSS // 10 if cc == "cubic" else 5 * MSS // 2)
        scene.abort()


def test_one_that_begins_late_begins_with_a_timeout() -> None:
    with established(cc="cubic") as scene:
        scene.send(bytes(MSS))
        scene.testbed.advance(5 * SECOND)
        assert (records(scene), scene.info()["cwnd"], scene.info()["ssthresh"]) == (1, MSS, 2 * MSS)
        scene.abort()


@pytest.mark.parametrize("cc", ["aimd", "nothing", "newreno"])
def test_in_a_flight_one_that_has_not_begun_gives_way_at_once(cc: str) -> None:
    """To one that is told of everything: it might wait forever for the next flight."""
    with established(cc="cubic") as scene:
        scene.send(bytes(100))
        scene.conn.cc = cc
        told = controls.take_calls()
        assert (scene.conn.cc, records(scene)) == (cc, 1 if cc == "aimd" else 0)  # NewReno begins late itself
        assert [call[0] for call in told] == (["init"] if cc == "aimd" else [])
        scene.peer.catch_up()
        scene.peer.send("A")
        assert [call[0] for call in controls.take_calls()] == (["on_ack"] if cc == "aimd" else [])
        scene.abort()


def test_data_that_waits_for_a_window_has_one() -> None:
    with established(cc="aimd", wnd=0) as scene:
        scene.send(b"x")
        assert (records(scene), calls()) == (1, [("init", IW, ARBITRARILY_HIGH, MSS)])
        scene.abort()


@pytest.mark.parametrize("end", ["abort", "reset", "close", "timeout", "stack"])
def test_the_record_goes_with_the_connection(end: str) -> None:
    with established(cc="aimd", user_timeout_ns=5 * SECOND) as scene:
        scene.send(bytes(100))
        if end == "abort":
            scene.abort()
        elif end == "reset":
            scene.peer.send("R", seq=scene.peer.snd_nxt)
        elif end == "timeout":
            scene.testbed.advance(60 * SECOND)
        elif end == "stack":
            scene.testbed.stack.close()
        else:
            scene.peer.catch_up()
            scene.peer.send("A")
            scene.close()
            scene.peer.send("FA", ack=102)
        assert (records(scene), calls()[-1][0]) == (0, "release")


def test_it_stays_while_the_connection_is_idle() -> None:
    """The control remembers the path: between two requests of a connection it may take minutes."""
    with established(cc="aimd") as scene:
        scene.send(bytes(100))
        scene.peer.catch_up()
        scene.peer.send("A")
        scene.testbed.advance(3600 * SECOND)
        assert (records(scene), calls("init", "on_sent", "on_ack")) == (1, [])
        scene.abort()


def test_a_control_that_can_rest_does_so_ten_seconds_after_the_last_data() -> None:
    """What an idle connection costs does not depend on its control: one word of the record stays, and the window."""
    with established(cc="cubic") as scene:
        scene.send(bytes(IW))
        scene.peer.catch_up()
        scene.peer.send("A")
        window = scene.info()["cwnd"]
        scene.testbed.advance(9 * SECOND)
        assert records(scene) == 1
        scene.testbed.advance(12 * SECOND)
        assert (records(scene), scene.conn.cc, scene.info()["cwnd"]) == (0, "cubic", window)
        scene.send(bytes(IW))
        scene.peer.catch_up()
        scene.peer.send("A")
        assert records(scene) == 1
        scene.abort()
        assert records(scene) == 0


def test_it_does_not_while_data_flows_or_is_in_flight() -> None:
    with established(cc="cubic") as scene:
        for length in (IW, *(100,) * 7):
            scene.send(bytes(length))
            scene.peer.catch_up()
            scene.peer.send("A")
            scene.testbed.advance(5 * SECOND)
            assert records(scene) == 1
        scene.send(bytes(100))
        scene.testbed.advance(40 * SECOND)
        assert records(scene) == 1
        scene.abort()


def test_after_a_rest_sending_begins_with_the_restart_window() -> None:
    """RFC 5681 section 4.1, as after any idle time."""
    with established(cc="cubic", wnd=60_000) as scene:
        for _ in range(3):
            scene.send(bytes(3 * IW))
            while sent(scene):
                scene.peer.send("A")
        assert scene.info()["cwnd"] > 2 * IW
        scene.testbed.advance(30 * SECOND)
        assert records(scene) == 0
        scene.send(bytes(3 * IW))
        assert (scene.info()["cwnd"], len(sent(scene))) == (IW, 10)
        scene.abort()


def test_another_control_can_be_chosen_during_a_rest() -> None:
    with established(cc="cubic") as scene:
        scene.send(bytes(100))
        scene.peer.catch_up()
        scene.peer.send("A")
        scene.testbed.advance(30 * SECOND)
        scene.conn.cc = "aimd"
        scene.send(bytes(100))
        assert (records(scene), calls("on_sent")[0][0]) == (1, "init")
        scene.abort()


def test_without_a_record_a_connection_has_newreno() -> None:
    with established(cc="aimd", cc_records=0) as scene:
        assert scene.conn.cc == "aimd"
        scene.send(bytes(20 * MSS))
        assert scene.conn.cc == "newreno"
        assert scene.testbed.counted()["controls_replaced"] == 1
        assert sent(scene) == [MSS] * 10
        scene.peer.send("A")
        assert (scene.info()["cwnd"], sent(scene)) == (2 * IW, [MSS] * 10)
        assert (records(scene), controls.take_calls()) == (0, [])
        scene.abort()


def test_records_are_as_many_as_the_setting_says() -> None:
    with Testbed(cc="aimd", cc_records=2) as bed:
        bed.introduce()
        connections = []
        for number in range(4):
            connection = bed.stack.connect(PEER_ADDRESS, 7 + number, wait=False)
            peer = ScriptedPeer(bed, port=7 + number, stack_port=None)
            bed.pump()
            peer.expect("S")
            peer.rcv_nxt = 1
            peer.send("SA", options={"mss": MSS})
            connections.append(connection)
        for connection in connections[:3]:
            connection.send(b"x")
        bed.pump()
        assert [connection.cc for connection in connections] == ["aimd", "aimd", "newreno", "aimd"]
        assert (bed.stack.leaks()["cc_records"], bed.counted()["controls_replaced"]) == (2, 1)
        connections[0].abort()
        bed.pump()
        connections[3].send(b"x")
        bed.pump()
        assert (connections[3].cc, bed.stack.leaks()["cc_records"]) == ("aimd", 2)
        for connection in connections:
            connection.abort()
        bed.pump()
        assert bed.stack.leaks()["cc_records"] == 0


# ---------------------------------------------------------------- what reaches it


RATE = {
    "delivered",
    "min_rtt_us",
    "prior_in_flight",
    "in_flight",
    "round_start",
    "is_app_limited",
    "delivered_total",
    "lost_total",
    "rate_delivered",
    "rate_interval_us",
    "rate_prior_delivered",
    "rate_in_flight",
    "rate_lost",
}


def taken() -> list[tuple[Any, ...]]:
    """The calls since the last time; of a sample what is not about the delivery rate (test_rate has that)."""
    return [
        call
        if call[0] != "on_ack"
        else ("on_ack", {name: value for name, value in call[1].items() if name not in RATE})
        for call in controls.take_calls()
    ]


def acks(acked: int, flight: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return "on_ack", {"acked": acked, "flight": flight, **more} if acked else {"flight": flight, **more}


def test_a_transfer_without_loss() -> None:
    with established(cc="aimd") as scene:
        scene.send(bytes(11 * MSS + 500))
        assert taken() == [
            ("init", IW, ARBITRARILY_HIGH, MSS),
            *(("on_sent", MSS, MSS * number) for number in range(1, 11)),
        ]
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", ack=1 + MSS)
        assert taken() == [
            acks(MSS, IW, rtt_us=100_000, cwnd_limited=True, unsent=MSS + 500),
            ("on_sent", MSS, IW),
            ("on_sent", 500, IW + 500),
        ]
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("A", ack=1 + 10 * MSS)
        scene.peer.send("A", ack=1 + 11 * MSS + 500)
        assert taken() == [
            acks(9 * MSS, IW + 500, cwnd_limited=True, rtt_us=150_000),
            acks(MSS + 500, MSS + 500, rtt_us=50_000),
        ]
        scene.peer.rcv_nxt = 1 + 11 * MSS + 500
        scene.close()
        scene.peer.send("A", ack=scene.peer.rcv_nxt + 1)
        scene.peer.send("FA", ack=scene.peer.rcv_nxt + 1)
        assert taken() == [
            ("on_sent", 1, 1),
            acks(1, 1, rtt_us=1, unsent=-1),
            ("release", 11 * MSS + 501, 11 * MSS + 501),
        ]


def test_every_ack_of_something_sent_once_gives_a_round_trip() -> None:
    """In microseconds of our clock: timestamps, whose clock ticks once per millisecond, are not asked (RFC 7323
    section 4 where they are)."""
    with established(cc="aimd", options=ALL_OPTIONS, wnd=512) as scene:
        segment = MSS - 12
        scene.send(bytes(3 * segment))
        scene.testbed.advance(20 * MILLISECOND)
        controls.take_calls()
        for number in (1, 2):
            scene.peer.send("A", ack=1 + number * segment)
        assert [call[1]["rtt_us"] for call in controls.take_calls()] == [20_000, 20_000]
        scene.abort()


def test_a_loss_and_its_repair() -> None:
    """Once a window; while it is repaired the control is told of every ACK, and the window is recovery's."""
    with established(cc="aimd", initial_window_segments=20) as scene:
        scene.send(bytes(20 * MSS))
        controls.take_calls()
        for _ in range(5):
            scene.peer.send("A", ack=1)
        duplicate = acks(0, 20 * MSS, cwnd_limited=True)
        lost = acks(0, 20 * MSS, cwnd_limited=True, in_recovery=True, newly_lost=MSS)
        after = acks(0, 20 * MSS, cwnd_limited=True, in_recovery=True)
        assert taken() == [
            duplicate, duplicate, ("on_loss", 20 * MSS), lost, ("on_sent", MSS, 20 * MSS), after, after
        ]  # fmt: skip
        info = scene.info()
        assert (info["ssthresh"], info["cwnd"] // MSS) == (15 * MSS, 15)  # its own; what is in flight (RFC 9937)
        scene.peer.send("A", ack=1 + 4 * MSS)
        assert taken() == [
            acks(4 * MSS, 20 * MSS, in_recovery=True, cwnd_limited=True, newly_lost=MSS, rtt_us=1),
            ("on_sent", MSS, 16 * MSS),
        ]
        scene.peer.send("A", ack=1 + 20 * MSS)
        assert taken() == [acks(16 * MSS, 16 * MSS, in_recovery=True, cwnd_limited=True, rtt_us=1)]
        assert scene.info()["cwnd"] == 2 * MSS  # RFC 6582 section 3.2 step 3, option (1)
        scene.abort()


def test_what_limited_transmit_sends_is_not_in_the_flight_of_a_loss() -> None:
    with established(cc="aimd") as scene:
        scene.send(bytes(20 * MSS))
        controls.take_calls()
        for _ in range(3):
            scene.peer.send("A", ack=1)
        assert calls("on_sent", "on_ack") == [("on_loss", IW)]
        scene.abort()


def test_a_timeout_and_one_more() -> None:
    with established(cc="aimd") as scene:
        scene.send(bytes(4 * MSS))
        controls.take_calls()
        scene.testbed.advance(SECOND + MILLISECOND)
        scene.testbed.advance(2 * SECOND + MILLISECOND)
        assert taken() == [
            ("on_rto", 4 * MSS, True),
            ("on_sent", MSS, 4 * MSS),
            ("on_rto", 4 * MSS, False),
            ("on_sent", MSS, 4 * MSS),
        ]
        scene.peer.send("A", ack=1 + MSS)  # Karn: no round trip of a segment that was sent again
        assert taken() == [
            acks(MSS, 4 * MSS, cwnd_limited=True),
            ("on_sent", MSS, 3 * MSS),
            ("on_sent", MSS, 3 * MSS),
        ]
        scene.abort()


def test_a_pause() -> None:
    """Only when data goes again, and only after an RTO; the control decides what the window is then."""
    with established(cc="aimd") as scene:
        scene.send(bytes(10 * MSS))
        scene.peer.catch_up()
        scene.peer.send("A")
        controls.take_calls()
        scene.send(b"at once")
        assert taken() == [("on_sent", 7, 7)]
        scene.peer.catch_up()
        scene.peer.send("A")
        controls.take_calls()
        scene.testbed.advance(5 * SECOND)
        assert taken() == []
        scene.send(b"later")
        assert taken() == [("on_idle", IW), ("on_sent", 5, 5)]
        assert scene.info()["cwnd"] == 2 * IW + 7
        scene.abort()


def test_a_smaller_path() -> None:
    with established(cc="aimd") as scene:
        scene.send(bytes(2 * MSS))
        controls.take_calls()
        quoted = scene.peer.from_stack(seq=1, payload=bytes(MSS))
        scene.peer.send_icmp_error(3, 4, quoted, mtu=1000, router="10.0.0.1")
        assert taken() == [
            ("on_mtu", 960, MSS),
            ("on_sent", 960, 2920),
            ("on_sent", 960, 2920),
            ("on_sent", 960, 2920),
            ("on_sent", 40, 2920),
        ]
        scene.abort()


def test_a_window_probe_is_no_data_sent() -> None:
    with established(cc="aimd", wnd=0) as scene:
        scene.send(bytes(100))
        controls.take_calls()
        scene.testbed.advance(20 * SECOND)
        assert scene.testbed.counted()["window_probes_out"] > 2
        assert taken() == []
        scene.abort()


@pytest.mark.parametrize("smss", [100, 536, 1460])
def test_acknowledgment_of_the_syn_opens_no_window(smss: int) -> None:
    """RFC 5681 section 3.1: the SYN/ACK and the acknowledgment of the SYN/ACK MUST NOT increase cwnd."""
    with syn_sent(initial_window_segments=1) as scene:
        scene.peer.send("SA", options={"mss": smss})
        assert scene.info()["cwnd"] == smss


@pytest.mark.parametrize("seed", range(4))
def test_over_a_bad_network_every_byte_is_told_once(seed: int) -> None:
    network = {"loss": 0.03, "reorder": 0.05, "duplicate": 0.02, "delay_ns": 10 * MILLISECOND}
    data = bytes(range(256)) * 1200
    with Pair(seed=seed, network=network, b={"cc": "aimd"}) as pair:
        opener, accepter = pair.connect()
        opener.send(data)
        opener.shutdown()
        got = bytearray()

        def read() -> None:
            got.extend(read_available(accepter)[0])

        pair.run_until(lambda: len(got) == len(data), 600 * SECOND, turn=read)
        assert bytes(got) == data
        accepter.close()
        pair.run_until(pair.at_rest, 600 * SECOND)
        told = controls.take_calls()
        opener.close()
    kinds = {call[0] for call in told}
    assert {"init", "on_sent", "on_ack", "on_loss", "release"} <= kinds
    assert sum(call[1].get("acked", 0) for call in told if call[0] == "on_ack") == len(data) + 1  # and its FIN
    assert sum(call[1] for call in told if call[0] == "on_sent") > len(data)
    assert [call for call in told if call[0] == "release"] == [told[-1]]


# ---------------------------------------------------------------- what it decides


def test_a_control_of_another_kind_has_the_window_that_it_wants() -> None:
    with established(cc="fixed") as scene:
        scene.send(bytes(60_000))
        assert sum(sent(scene)) == FIXED // MSS * MSS
        scene.peer.send("A")
        assert (scene.info()["cwnd"], sum(sent(scene))) == (FIXED, FIXED // MSS * MSS)
        scene.testbed.advance(2 * SECOND)
        assert scene.info()["cwnd"] == FIXED  # a timeout changes nothing
        scene.abort()


def test_a_control_that_names_nothing_gets_the_default_bodies() -> None:
    with established(cc="bare") as scene:
        scene.send(bytes(60_000))
        sent(scene)
        scene.peer.send("A")
        assert scene.info()["cwnd"] == IW
        sent(scene)
        scene.testbed.advance(2 * SECOND)
        info = scene.info()
        assert (info["cwnd"], info["ssthresh"]) == (MSS, 5 * MSS)
        scene.abort()


@pytest.mark.parametrize("size", [1, MSS, 3 * MSS + 1, 50_000])
def test_a_control_that_wants_no_window_at_all_cannot_stop_a_connection(size: int) -> None:
    data = bytes(index & 0xFF for index in range(size))
    with established(cc="nothing") as scene:
        scene.send(data)
        got = scene.peer.catch_up()
        while len(got) < size:
            assert scene.info()["cwnd"] == MSS
            scene.peer.send("A")
            more = scene.peer.catch_up()
            assert 0 < len(more) <= MSS
            got += more
        assert got == data
        assert scene.testbed.counted().get("retransmit_timeouts", 0) == 0
        scene.abort()


# ---------------------------------------------------------------- another one on a live connection


def test_a_connection_that_has_sent_nothing_only_changes_its_mind() -> None:
    with established() as scene:
        scene.conn.cc = "aimd"
        assert (scene.conn.cc, records(scene), controls.take_calls()) == ("aimd", 0, [])
        scene.conn.cc = "fixed"
        scene.send(bytes(60_000))
        assert (sum(sent(scene)), controls.take_calls()) == (FIXED // MSS * MSS, [])
        scene.abort()


def test_a_live_connection_gets_another_control_with_the_window_as_it_is() -> None:
    with established() as scene:
        scene.send(bytes(60_000))
        sent(scene)
        scene.peer.send("A", ack=1 + 4 * MSS)
        sent(scene)
        assert scene.info()["cwnd"] == 14 * MSS
        scene.conn.cc = "aimd"
        assert taken() == [("init", 14 * MSS, ARBITRARILY_HIGH, MSS)]
        assert (records(scene), scene.info()["cc"], scene.info()["cwnd"]) == (1, "aimd", 14 * MSS)
        scene.peer.send("A", ack=1 + 5 * MSS)
        assert taken()[0] == acks(MSS, 14 * MSS, cwnd_limited=True, unsent=60_000 - 18 * MSS, rtt_us=1)
        scene.conn.cc = "newreno"
        assert calls("on_sent") == [("release", 2 * MSS, MSS)]
        assert (records(scene), scene.info()["cwnd"]) == (1, 15 * MSS)
        scene.abort()


def test_a_wider_window_is_used_at_once() -> None:
    with established() as scene:
        scene.send(bytes(60_000))
        assert sum(sent(scene)) == IW
        controls.set_fixed_bytes(12 * MSS)
        scene.conn.cc = "fixed"
        scene.testbed.pump()
        assert sum(sent(scene)) == 2 * MSS
        scene.abort()


def test_the_same_control_again_changes_nothing() -> None:
    with established(cc="aimd") as scene:
        scene.send(bytes(100))
        controls.take_calls()
        scene.conn.cc = "aimd"
        assert (controls.take_calls(), records(scene)) == ([], 1)
        scene.abort()


def test_newreno_begins_anew_when_it_comes_back() -> None:
    """What another control has left in the tcb's word is not taken for bytes acknowledged."""
    with established(cc="aimd") as scene:
        scene.send(bytes(60_000))
        sent(scene)
        for _ in range(3):
            scene.peer.send("A", ack=1)
        scene.peer.send("A", ack=1 + IW)
        sent(scene)
        scene.conn.cc = "newreno"
        before = scene.info()
        scene.conn.cc = "aimd"
        scene.conn.cc = "newreno"
        after = scene.info()
        assert (before["cwnd"], before["ssthresh"]) == (after["cwnd"], after["ssthresh"])
        assert records(scene) == 1
        scene.abort()


def test_in_the_middle_of_a_repair() -> None:
    with established(initial_window_segments=20, cc="newreno") as scene:
        scene.send(bytes(20 * MSS))
        for _ in range(4):
            scene.peer.send("A", ack=1)
        scene.conn.cc = "aimd"
        window = scene.info()["cwnd"]
        assert 16 * MSS <= window < 17 * MSS  # in flight: 20 less 4 duplicates; less than a segment more (RFC 9937)
        assert taken() == [("init", window, 10 * MSS, MSS)]
        scene.peer.send("A", ack=1 + 20 * MSS)
        assert taken() == [acks(20 * MSS, 20 * MSS, in_recovery=True, cwnd_limited=True, rtt_us=1)]
        assert scene.info()["cwnd"] == 2 * MSS
        scene.abort()


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_in_the_middle_of_a_repair_of_one_that_has_its_own_window_for_it(cc: str) -> None:
    """It has set no ssthresh, which a repair ends with (RFC 9937 section 6.4): the next one is told of the loss."""
    with established(initial_window_segments=20, cc="bbr") as scene:
        scene.send(bytes(40 * MSS))
        for _ in range(4):
            scene.peer.send("A", ack=1)
        assert scene.testbed.counted()["fast_retransmits"] == 1
        scene.conn.cc = cc
        assert scene.info()["ssthresh"] <= 14 * MSS  # 0.7 of what is in flight, or half of it
        scene.testbed.advance(MILLISECOND)
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.info()["cwnd"] <= 14 * MSS
        scene.abort()


@pytest.mark.parametrize("cc", ["newreno", "cubic"])
def test_a_mark_that_the_one_before_has_answered_is_no_excuse_for_a_loss(cc: str) -> None:
    with listen(initial_window_segments=20, cc="bbr") as scene:
        scene.peer.send("SEC", options={"mss": MSS})
        scene.peer.expect("SAE")
        scene.peer.send("A")
        scene.accept()
        scene.send(bytes(40 * MSS))
        scene.testbed.advance(20 * MILLISECOND)  # at its rate
        scene.peer.send("AE", ack=1 + 4 * MSS)
        scene.conn.cc = cc
        for _ in range(4):
            scene.peer.send("A", ack=1 + 4 * MSS)
        assert scene.testbed.counted()["fast_retransmits"] == 1
        assert scene.info()["ssthresh"] <= 20 * MSS
        scene.testbed.advance(MILLISECOND)
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.info()["cwnd"] <= 20 * MSS
        scene.abort()


def test_the_rate_of_the_one_before_does_not_stay() -> None:
    """BBR has paced; NewReno, which does not, sends what its window allows at once."""
    with established(cc="bbr") as scene:
        scene.send(bytes(400 * MSS))
        scene.testbed.advance(100 * MILLISECOND)  # a round trip, and a rate that it makes of it
        scene.peer.catch_up()
        scene.peer.send("A")
        assert scene.peer.catch_up()
        assert scene.info()["snd_nxt"] - scene.info()["snd_una"] & 0xFFFFFFFF < scene.info()["cwnd"] - MSS
        scene.conn.cc = "newreno"
        scene.testbed.pump()
        assert scene.info()["snd_nxt"] - scene.info()["snd_una"] & 0xFFFFFFFF > scene.info()["cwnd"] - MSS
        scene.abort()


def test_without_a_record_for_the_new_one_the_old_one_stays() -> None:
    with established(cc="fixed", cc_records=0) as scene:
        scene.send(bytes(60_000))
        with pytest.raises(StackError, match="limit") as raised:
            scene.conn.cc = "aimd"
        assert raised.value.reason == "no_memory"
        assert (scene.conn.cc, scene.info()["cwnd"]) == ("fixed", FIXED)
        assert scene.testbed.counted().get("controls_replaced", 0) == 0
        scene.abort()


def test_a_connection_that_has_ended_has_none() -> None:
    with established() as scene:
        scene.abort()
        with pytest.raises(OSError, match=STACK_ADDRESS.rpartition(".")[0]):
            scene.conn.cc = "fixed"
        with pytest.raises(OSError, match=STACK_ADDRESS.rpartition(".")[0]):
            _ = scene.conn.cc


def test_every_control_after_every_other_in_one_transfer() -> None:
    order = ["newreno", "aimd", "bare", "fixed", "aimd", "nothing", "newreno", "nothing", "aimd", "newreno"]
    data = bytes(range(256)) * 1000
    with established() as scene:
        scene.send(data)
        got = scene.peer.catch_up()
        turn = 0
        while len(got) < len(data):
            scene.conn.cc = order[turn % len(order)]
            owns = scene.conn.cc == "aimd" or (scene.conn.cc == "newreno" and turn > 0)  # at first it has not begun
            assert records(scene) == (1 if owns else 0)
            turn += 1
            scene.peer.send("A")
            got += scene.peer.catch_up()
        assert got == data
        scene.abort()
        assert records(scene) == 0


def test_another_call_cannot_follow_the_end() -> None:
    """The record is given back when the connection leaves the table; its last upcalls come later."""
    with established(cc="aimd") as scene:
        scene.send(bytes(100))
        scene.peer.send("R", seq=scene.peer.snd_nxt)
        with pytest.raises((OSError, SendAfterEnd)):
            scene.conn.send(b"x")
        assert calls()[-1][0] == "release"

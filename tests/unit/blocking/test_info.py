# SPDX-License-Identifier: MIT
"""Connection.info() and Stack.connections(): every field, made to be something else than it is at first."""

import re
import socket
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from ustack import Connection, ConnectionInfo, ConnectionReset
from ustack.blocking import info as module
from ustack.testing.pair import Pair
from ustack.testing.states import (
    ALL_OPTIONS,
    SYN_OPTIONS,
    Scene,
    established,
    fin_wait_2,
    fly,
    listen,
    syn_received,
    syn_sent,
    time_wait,
)
from ustack.testing.testbed import MILLISECOND, SECOND, read_available

MSS = 1460
SACK_OPTIONS = {**SYN_OPTIONS, "sack_permitted": True}
ROUND_TRIP = 40 * MILLISECOND


def info(scene: Scene) -> ConnectionInfo:
    return scene.conn.info()


def flying(segments: int = 8, *, options: Any = SACK_OPTIONS, **config: Any) -> Scene:
    scene = established(options=options, **config)
    fly(scene, segments, mss=MSS, tos=0, round_trip_ns=ROUND_TRIP)
    return scene


def segment(index: int) -> int:
    """Relative sequence number of what follows `index` segments, one of which was acknowledged before."""
    return 1 + MSS * (index + 1)


def sack(scene: Scene, ack: int, *blocks: tuple[int, int]) -> None:
    iss = scene.peer.iss or 0
    edges = [((iss + segment(left)) & 0xFFFFFFFF, (iss + segment(right)) & 0xFFFFFFFF) for left, right in blocks]
    scene.peer.send("A", ack=segment(ack), options={"nop": 2, "sack": edges} if edges else {})


# ---------------------------------------------------------------- its shape


def test_every_field_has_words_and_linuxs_name_or_says_that_it_is_ours() -> None:
    text = Path(module.__file__).read_text()
    for field in fields(ConnectionInfo):
        found = re.search(rf'^    {field.name}: [^\n]+\n    """(tcpi_\w+|Ours): ', text, re.MULTILINE)
        assert found, f"{field.name} is not described"


def test_linuxs_names_are_those_of_its_header() -> None:
    header = Path("/usr/include/linux/tcp.h")
    if not header.exists():
        pytest.skip("there is no <linux/tcp.h>")
    known = set(re.findall(r"\btcpi_\w+", header.read_text()))
    if "tcpi_rcv_wnd" not in known or "tcpi_total_rto" not in known:
        known |= {"tcpi_rcv_wnd", "tcpi_total_rto", "tcpi_rehash"}  # Linux 6.2 and 6.7
    assert set(re.findall(r'"""(tcpi_\w+)', Path(module.__file__).read_text())) <= known


def test_it_cannot_be_changed() -> None:
    with established() as scene:
        with pytest.raises(FrozenInstanceError):
            info(scene).state = "LISTEN"  # type: ignore[misc]
        scene.abort()


def test_an_idle_connection_has_said_and_lost_nothing() -> None:
    with established() as scene:
        found = info(scene)
        assert (found.state, found.ca_state, found.options) == ("ESTABLISHED", "open", ())
        assert (found.bytes_acked, found.bytes_received, found.unacked_bytes, found.queued_bytes) == (0, 0, 0, 0)
        assert (found.retransmits, found.probes, found.backoff, found.total_retrans_segs) == (0, 0, 0, 0)
        assert (found.snd_mss_bytes, found.advmss_bytes, found.pmtu_bytes) == (MSS, MSS, 1500)
        assert (found.snd_cwnd_bytes, found.snd_ssthresh_bytes) == (10 * MSS, None)
        assert (found.pacing_rate, found.rcv_rtt_us, found.delivered_ce, found.soft_error) == (None, None, None, None)
        assert dict(found.timers) == {}
        assert scene.testbed.stack.leaks()["extras"] == 0, "looking makes no record"
        scene.abort()


def test_after_the_end_it_says_which() -> None:
    with established() as scene:
        scene.peer.send("R")
        with pytest.raises(ConnectionReset):
            info(scene)


@pytest.mark.parametrize(
    ("options", "config", "names"),
    [
        (SYN_OPTIONS, {}, ()),
        (SACK_OPTIONS, {}, ("sack",)),
        (ALL_OPTIONS, {}, ("timestamps", "sack", "wscale")),
        (ALL_OPTIONS, {"sack": 0}, ("timestamps", "wscale")),
    ],
)
def test_options_are_those_that_both_ends_agreed_on(options: Any, config: dict[str, int], names: tuple[str]) -> None:
    with established(options=options, **config) as scene:
        assert info(scene).options == names
        assert (info(scene).snd_wscale, info(scene).rcv_wscale > 0) == ((7, True) if "wscale" in names else (0, False))
        scene.abort()


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("role", ["passive", "active"])
def test_bytes_are_counted_without_syn_and_fin(role: str) -> None:
    with established(role=role) as scene:
        scene.send(b"x" * 1000)
        scene.peer.catch_up()
        assert (info(scene).bytes_acked, info(scene).unacked_bytes, info(scene).queued_bytes) == (0, 1000, 1000)
        scene.peer.send("A")
        scene.peer.send("PA", payload=b"y" * 300)
        assert (info(scene).bytes_acked, info(scene).bytes_received) == (1000, 300)
        assert info(scene).receivable_bytes == 300
        scene.peer.send("FA")
        [row] = scene.testbed.stack.connections("connection")
        assert (row["state"], row["bytes_acked"], row["bytes_received"]) == ("CLOSE-WAIT", 1000, 300)
        scene.abort()


def test_a_fin_that_is_acknowledged_is_not_a_byte() -> None:
    with fin_wait_2() as scene:
        [row] = scene.testbed.stack.connections("connection")
        assert (row["state"], row["bytes_acked"], row["bytes_received"]) == ("FIN-WAIT-2", 0, 0)


def test_what_was_sacked_is_delivered_but_not_acknowledged() -> None:
    with flying(8) as scene:
        sack(scene, 0, (6, 7))
        assert (info(scene).bytes_acked, info(scene).delivered_bytes) == (MSS, 2 * MSS)
        assert (info(scene).sacked_bytes, info(scene).unacked_bytes) == (MSS, 8 * MSS)
        scene.abort()


def test_duplicates_without_sack_acknowledge_nothing() -> None:
    with flying(8, options=SYN_OPTIONS) as scene:
        for _ in range(2):
            scene.peer.send("A", ack=segment(0))
        assert (info(scene).ca_state, info(scene).bytes_acked) == ("disorder", MSS)
        scene.abort()


def test_bytes_sent_are_counted_each_time_and_without_syn_and_fin() -> None:
    with flying(8) as scene:
        assert (info(scene).bytes_sent, info(scene).bytes_retrans) == (9 * MSS, 0)
        sack(scene, 0, (1, 4))
        assert (info(scene).bytes_sent, info(scene).bytes_retrans) == (10 * MSS, MSS)
        scene.conn.shutdown(socket.SHUT_WR)
        sack(scene, 8)
        assert (info(scene).bytes_sent, info(scene).bytes_acked) == (10 * MSS, 9 * MSS)
        scene.peer.drain()
        scene.peer.expect_after(200 * MILLISECOND, "FA")  # the FIN alone, again
        assert (info(scene).bytes_sent, info(scene).bytes_retrans) == (10 * MSS, MSS)
        scene.abort()


def test_bytes_sent_are_those_that_the_peer_sees() -> None:
    """After a timeout, and with a FIN in the frame that goes again."""
    with flying(2, options=SYN_OPTIONS) as scene:
        scene.send(b"last")
        scene.conn.shutdown(socket.SHUT_WR)
        while info(scene).total_rto < 2:
            scene.testbed.advance(SECOND)
        sack(scene, 2)
        seen = scene.peer.drain()
        assert [found.payload for found in seen if "F" in found.flags] == [b"", b"last"]
        found = info(scene)
        assert found.bytes_sent == 3 * MSS + sum(len(segment.payload) for segment in seen)
        assert found.bytes_retrans == found.bytes_sent - 3 * MSS - 4
        scene.abort()


def test_what_the_peer_has_had_twice_is_counted() -> None:
    with flying(4) as scene:
        assert info(scene).dsack_dups == 0
        sack(scene, 2, (0, 1))
        sack(scene, 2, (1, 2))
        assert info(scene).dsack_dups == 2
        sack(scene, 2, (9, 12))  # never sent
        assert info(scene).dsack_dups == 2
        scene.abort()


def test_bytes_that_were_never_sent() -> None:
    with established(wnd=1000) as scene:
        scene.send(bytes(5000))
        assert (info(scene).notsent_bytes, info(scene).queued_bytes, info(scene).snd_wnd_bytes) == (4000, 5000, 1000)
        scene.abort()


def test_windows_and_limits_of_the_receiver() -> None:
    with established(rcv_buffer_bytes=10_000) as scene:
        scene.peer.send("PA", payload=bytes(MSS))
        assert (info(scene).rcv_wnd_bytes, info(scene).rcv_ssthresh_bytes) == (10_000 - MSS, 10_000)
        scene.abort()


# ---------------------------------------------------------------- recovery


def test_the_state_of_recovery_with_sack() -> None:
    with flying(8) as scene:
        assert info(scene).ca_state == "open"
        sack(scene, 0, (1, 2))
        assert info(scene).ca_state == "disorder"
        sack(scene, 0, (1, 4))
        found = info(scene)
        assert found.ca_state == "recovery"
        assert (found.retrans_bytes, found.lost_bytes, found.sacked_bytes) == (MSS, 0, 3 * MSS)
        assert found.retransmissions == {"fast": 1, "rack": 0, "tlp": 0, "rto": 0, "size": 0, "spurious": 0}
        assert found.total_retrans_segs == 1
        assert found.snd_ssthresh_bytes is not None
        sack(scene, 8)
        assert (info(scene).ca_state, info(scene).total_retrans_segs) == ("open", 1)
        scene.abort()


def test_what_is_lost_and_waits_is_told_from_what_has_gone_again() -> None:
    with flying(8) as scene:
        sack(scene, 0, (4, 8))
        found = info(scene)
        assert found.lost_bytes + found.retrans_bytes == 4 * MSS
        assert found.retrans_bytes == MSS * found.retransmissions["fast"] > 0
        scene.abort()


def test_what_time_finds_lost_is_racks() -> None:
    """One segment SACKed: nothing to count, and a quarter of a round trip is over (RFC 8985 section 6.2)."""
    with flying(8) as scene:
        sack(scene, 0, (1, 2))
        scene.peer.wait(SECOND)
        assert (info(scene).retransmissions["rack"], info(scene).retransmissions["fast"]) == (1, 0)
        scene.abort()


def test_the_state_of_recovery_without_sack() -> None:
    with flying(8, options=SYN_OPTIONS) as scene:
        for _ in range(3):
            scene.peer.send("A", ack=segment(0))
        assert info(scene).ca_state == "recovery"
        assert (info(scene).retransmissions["fast"], info(scene).retransmissions["rack"]) == (1, 0)
        scene.abort()


def test_a_timeout_is_loss_and_doubles() -> None:
    with flying(4, options=SYN_OPTIONS) as scene:
        scene.peer.wait(5 * SECOND)
        found = info(scene)
        assert (found.ca_state, found.retransmits, found.backoff, found.total_rto) == ("loss", 1, 1, 1)
        assert found.retransmissions["rto"] == 1
        assert found.rto_us == 2 * scene.testbed.stack.settings()["rto_min_ns"].default // 1000
        scene.abort()


def test_a_tail_loss_probe_is_a_cause_of_its_own() -> None:
    with flying(4) as scene:
        scene.peer.drain()
        scene.testbed.advance(150 * MILLISECOND)
        assert info(scene).retransmissions["tlp"] == 1
        assert (info(scene).total_rto, info(scene).ca_state) == (0, "open")
        scene.abort()


def test_a_repair_that_was_none_is_spurious() -> None:
    """Eifel (RFC 3522): the ACK after a timeout echoes the first copy's timestamp."""
    with established(options=ALL_OPTIONS, measured=True) as scene:
        scene.send(bytes(4 * 1448))
        first = scene.peer.drain()[0].options["timestamps"][0]
        while scene.conn.info().total_rto == 0:
            scene.testbed.advance(100 * MILLISECOND)
        assert info(scene).retransmissions["spurious"] == 0
        scene.peer.send("A", ack=1 + 1448, options={"nop": 2, "timestamps": (scene.peer.ts_now, first)})
        assert (info(scene).retransmissions["spurious"], info(scene).ca_state) == (1, "open")
        scene.abort()


def test_a_syn_that_went_again_counts() -> None:
    with syn_sent() as scene:
        scene.peer.expect_after(SECOND, "S", seq=0)
        assert (info(scene).total_retrans_segs, info(scene).state, info(scene).bytes_received) == (1, "SYN-SENT", 0)
        scene.peer.send("SA", options=SYN_OPTIONS)
        assert (info(scene).total_retrans_segs, info(scene).total_rto, info(scene).bytes_acked) == (1, 1, 0)
        scene.abort()


def test_an_icmp_error_is_shown_until_something_is_acknowledged() -> None:
    with flying(1) as scene:
        sent = scene.peer.from_stack("A", seq=segment(0), payload=bytes(MSS))
        scene.peer.send_icmp_error(3, 1, sent)
        assert info(scene).soft_error == (3, 1)
        sack(scene, 1)
        assert info(scene).soft_error is None
        scene.abort()


# ---------------------------------------------------------------- time


def test_round_trips_and_what_the_peer_last_said() -> None:
    with flying(1) as scene:
        sack(scene, 1)
        found = info(scene)
        assert found.rtt_us == found.min_rtt_us == ROUND_TRIP // 1000
        scene.testbed.advance(250 * MILLISECOND)
        assert info(scene).last_ack_recv_ms == 250
        assert abs(info(scene).age_ns - (250 * MILLISECOND + 2 * ROUND_TRIP)) < 40 * MILLISECOND
        scene.abort()


def test_timers_say_what_is_waited_for() -> None:
    with flying(4) as scene:
        assert set(info(scene).timers) == {"retransmission", "tail_probe"}
        assert 0 < info(scene).timers["retransmission"] <= SECOND
        sack(scene, 4)
        assert dict(info(scene).timers) == {}
        scene.conn.keepalive = True
        assert info(scene).timers["keepalive"] == 7200 * SECOND
        scene.peer.send("PA", payload=b"one")
        assert 0 < info(scene).timers["delayed_ack"] <= 41 * MILLISECOND
        scene.abort()


def test_a_closed_window_is_the_persist_timers() -> None:
    with established(wnd=0) as scene:
        scene.send(b"waits")
        assert set(info(scene).timers) == {"persist"}
        scene.peer.wait(5 * SECOND)
        assert (info(scene).probes, info(scene).backoff, info(scene).retransmits) == (1, 1, 0)
        scene.abort()


def test_a_paced_connection_has_a_rate() -> None:
    with established(pacing=2, measured=True) as scene:
        scene.send(bytes(20 * MSS))
        assert (info(scene).pacing_rate or 0) > 0
        scene.abort()


# ---------------------------------------------------------------- all that a stack holds


def kinds(scene: Scene) -> list[str]:
    return [str(row["kind"]) for row in scene.testbed.stack.connections()]


def test_a_listener_shows_its_backlog_and_who_waits() -> None:
    with listen() as scene:
        [row] = scene.testbed.stack.connections()
        assert row == {"kind": "listener", "state": "LISTEN", "local": ("0.0.0.0", 80), "remote": None,
                       "backlog": 128, "waiting": 0, "cc": "cubic"}  # fmt: skip
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA")
        scene.peer.send("A")
        [row] = scene.testbed.stack.connections("listener")
        assert row["waiting"] == 1
        scene.accept().abort()
        [row] = scene.testbed.stack.connections("listener")
        assert row["waiting"] == 0
        scene.testbed.pump()


def test_a_half_open_connection_has_an_age_and_syn_acks() -> None:
    with syn_received() as scene:
        assert kinds(scene) == ["listener", "half-open"]
        scene.peer.expect_after(SECOND, "SA")
        scene.testbed.advance(500 * MILLISECOND)
        [row] = scene.testbed.stack.connections("half-open")
        assert (row["state"], row["remote"]) == ("SYN-RECEIVED", (scene.peer.address, scene.peer.port))
        assert abs(row["age_ns"] - 1500 * MILLISECOND) < 5 * MILLISECOND
        assert row["retransmissions"] == {"rto": 1}
        assert abs(row["timers"]["retransmission"] - 1500 * MILLISECOND) < 5 * MILLISECOND


def test_time_wait_has_an_age_and_an_end() -> None:
    with time_wait() as scene:
        scene.testbed.advance(20 * SECOND)
        assert kinds(scene) == ["listener", "time-wait"]
        [row] = scene.testbed.stack.connections("time-wait")
        assert row["state"] == "TIME-WAIT"
        assert abs(row["age_ns"] - 20 * SECOND) < 5 * MILLISECOND
        assert abs(row["timers"]["time_wait"] - 40 * SECOND) < 5 * MILLISECOND


def test_a_connections_row_has_what_its_info_has() -> None:
    with flying(8) as scene:
        sack(scene, 0, (1, 4))
        [row] = scene.testbed.stack.connections("connection")
        found = info(scene)
        for name in ("state", "age_ns", "bytes_acked", "bytes_received", "retransmissions", "cc", "timers", "ca_state"):
            assert row[name] == getattr(found, name)
        assert row["cwnd"] == found.snd_cwnd_bytes
        scene.abort()


@pytest.mark.parametrize("wanted", ["connections", "", "LISTEN", None, 1])
def test_a_kind_that_there_is_not_is_an_error(wanted: Any) -> None:
    with listen() as scene, pytest.raises(ValueError, match="the kinds are listener, half-open, connection, time-wait"):
        scene.testbed.stack.connections(wanted)


def test_who_lost_nothing_pays_nothing(pair: Pair, ends: tuple[Connection, Connection]) -> None:
    opener, accepter = ends
    for _ in range(50):
        opener.send(bytes(1000))
        pair.advance(MILLISECOND)
        read_available(accepter)
    for stack in (pair.a, pair.b):
        assert stack.leaks()["histories"] == 0


@pytest.mark.parametrize("records", [0, 1])
def test_without_room_for_a_history_nothing_is_counted_and_all_is_repaired(records: int) -> None:
    with flying(8, extra_records=records) as scene:
        sack(scene, 0, (1, 4))
        assert info(scene).total_retrans_segs == records
        sack(scene, 8)
        assert info(scene).unacked_bytes == 0
        scene.abort()


def test_a_history_ends_with_its_connection() -> None:
    with flying(8) as scene:
        sack(scene, 0, (1, 4))
        assert scene.testbed.stack.leaks()["histories"] == 1
        scene.peer.send("R")
        assert scene.testbed.stack.leaks()["histories"] == scene.testbed.stack.leaks()["extras"] == 0

# SPDX-License-Identifier: MIT
"""Options that both ends agree on: MSS (RFC 9293 section 3.7.1), window scale, timestamps (RFC 7323), SACK."""

import re
from pathlib import Path
from typing import Any

import pytest

from ustack.testing.peer import at_most, length
from ustack.testing.states import ALL_OPTIONS, SYN_OPTIONS, closing, established, listen, syn_received, syn_sent
from ustack.testing.testbed import MILLISECOND, SECOND

both_roles = pytest.mark.parametrize("role", ["passive", "active"])


def present(value: object) -> bool:
    """Matches an option that is there."""
    return value is not None


# ---------------------------------------------------------------- MSS


def test_mss_is_advertised_from_the_mtu() -> None:
    """MUST-14, SHLD-5, MUST-67: at most MMS_R - 20."""
    with listen(network={"mtu": 1400}) as scene:
        scene.peer.send("S", options=SYN_OPTIONS)
        scene.peer.expect("SA", options={"mss": 1360})


@both_roles
def test_mss_without_the_option_is_536(role: str) -> None:
    """MUST-15."""
    with established(role=role, options={}) as scene:
        scene.send(bytes(1000))
        scene.peer.expect("A", payload=length(536))


@both_roles
def test_mss_of_the_peer_bounds_segments(role: str) -> None:
    """MUST-16."""
    with established(role=role, options={"mss": 700}) as scene:
        scene.send(bytes(2100))
        for seq in (1, 701, 1401):
            scene.peer.expect("A", seq=seq, payload=length(700))


def test_mss_of_the_peer_above_ours_is_bounded_by_the_mtu() -> None:
    with established(options={"mss": 9000}) as scene:
        scene.send(bytes(3000))
        scene.peer.expect("A", payload=length(1460))


def test_mss_leaves_room_for_timestamps() -> None:
    """RFC 6691, RFC 7323 section 3.2: the option's twelve bytes come off the payload."""
    with established(options=ALL_OPTIONS) as scene:
        scene.send(bytes(3000))
        scene.peer.expect("A", payload=length(1448))


@pytest.mark.parametrize("mss", [0, 1, 12, 40])
def test_mss_that_is_absurd_does_not_stall_or_divide_by_zero(mss: int) -> None:
    """It is raised to 64. Obeyed to the letter (MUST-16) it would have us send headers alone. Linux raises it to 48."""
    with established(options={"mss": mss}) as scene:
        scene.send(bytes(300))
        for seq, octets in ((1, 64), (65, 64), (129, 64), (193, 64), (257, 44)):
            scene.peer.expect("A", seq=seq, payload=length(octets))
        scene.peer.expect_nothing()


def test_mss_option_is_never_in_a_segment_without_syn() -> None:
    """MUST-65."""
    with established(options=ALL_OPTIONS) as scene:
        scene.send(bytes(3000))
        scene.peer.send("A", payload=b"x")
        scene.shutdown()
        for segment in scene.peer.drain():
            assert "mss" not in segment.options
            assert "wscale" not in segment.options
            assert "sack_permitted" not in segment.options  # RFC 2018 section 2


# ---------------------------------------------------------------- window scale


def test_window_scale_is_offered_only_to_who_offers_it() -> None:
    """RFC 7323 section 2.2."""
    with listen() as scene:
        scene.peer.send("S", options={"mss": 1460})
        scene.peer.expect("SA", options={"wscale": None})
    with listen() as scene:
        scene.peer.send("S", options={"mss": 1460, "nop": 1, "wscale": 0})
        scene.peer.expect("SA", options={"wscale": present})


def test_window_scale_is_offered_in_our_syn() -> None:
    """The smallest shift with which the largest window (16 MiB) fits the field; RFC 7323 section 2.3 allows 0 to 14."""
    with syn_sent() as scene:
        scene.peer.expect_after(SECOND, "S", options={"wscale": 9})


@pytest.mark.parametrize(("shift", "used"), [(0, 0), (7, 7), (14, 14), (15, 14), (255, 14)])
def test_window_scale_of_the_peer_is_applied_and_clamped(shift: int, used: int) -> None:
    """RFC 7323 section 2.3: a shift above 14 is used as 14."""
    with established(options={"mss": 1460, "nop": 1, "wscale": shift}, wnd=1000) as scene:
        assert scene.info()["snd_wnd"] == 1000 << used


def test_window_in_a_syn_is_never_scaled() -> None:
    with listen() as scene:
        scene.peer.send("S", options={"mss": 1460, "nop": 1, "wscale": 14}, wnd=1000)
        scene.peer.expect("SA")
    with syn_sent() as scene:
        scene.peer.send("SA", options={"mss": 1460, "nop": 1, "wscale": 10}, wnd=1000)
        assert scene.info()["snd_wnd"] == 1000


@both_roles
def test_window_scale_unused_if_the_peer_does_not_offer(role: str) -> None:
    with established(role=role, wnd=1000) as scene:
        assert scene.info()["snd_wnd"] == 1000
        scene.peer.send("A", payload=b"x")
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", wnd=at_most(65535))


def test_window_we_advertise_is_scaled() -> None:
    with established(options={"mss": 1460, "nop": 1, "wscale": 0}, rcv_buffer_bytes=1 << 20) as scene:
        scene.peer.send("A", payload=b"x")
        scene.testbed.advance(SECOND)
        assert scene.info()["rcv_wscale"] == 5
        scene.peer.expect("A", wnd=((1 << 20) - 1) >> 5)  # one byte is unread


def test_window_is_unsigned() -> None:
    """MUST-1."""
    with established(wnd=0xFFFF, initial_window_segments=60) as scene:
        assert scene.info()["snd_wnd"] == 0xFFFF
        scene.conn.nodelay = True
        scene.send(bytes(65535))
        assert len(scene.peer.catch_up()) == 65535


# ---------------------------------------------------------------- timestamps


@both_roles
def test_timestamps_are_used_if_both_offer(role: str) -> None:
    with established(role=role, options=ALL_OPTIONS) as scene:
        scene.send(b"x")
        scene.peer.expect("A", payload=b"x", options={"timestamps": present})


@both_roles
def test_timestamps_are_not_used_if_the_peer_does_not_offer(role: str) -> None:
    with established(role=role) as scene:
        scene.send(b"x")
        scene.peer.expect("A", payload=b"x", options={"timestamps": None})


def test_timestamps_can_be_switched_off() -> None:
    with listen(timestamps=0, sack=0, window_scaling=0) as scene:
        scene.peer.send("S", options=ALL_OPTIONS)
        scene.peer.expect("SA", options={"timestamps": None, "sack_permitted": None, "wscale": None, "mss": 1460})


def test_timestamps_echo_the_peers() -> None:
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        sent = scene.peer.send("A", payload=b"x")
        scene.send(b"y")
        answer = scene.peer.expect("A", payload=b"y")
        assert answer.options["timestamps"][1] == sent.options["timestamps"][0]


def test_timestamps_follow_the_clock() -> None:
    """A tick is 1 ms, the fastest that RFC 7323 section 5.4 allows (1 ms to 1 s)."""
    with established(options=ALL_OPTIONS) as scene:
        scene.send(b"x")
        first = scene.peer.expect("A", payload=b"x").options["timestamps"][0]
        scene.peer.send("A")
        scene.testbed.advance(10 * SECOND)
        scene.send(b"y")
        second = scene.peer.expect("A", payload=b"y").options["timestamps"][0]
        assert (second - first) & 0xFFFFFFFF == 10_000


def test_timestamps_echo_the_earliest_unacknowledged_segment() -> None:
    """RFC 7323 section 4.3: a delayed ACK echoes the first segment it covers, so that the delay is measured."""
    with established(options=ALL_OPTIONS) as scene:
        first = scene.peer.send("A", payload=b"x" * 1448)
        scene.testbed.advance(5 * MILLISECOND)
        scene.peer.send("A", payload=b"x" * 1448)
        answer = scene.peer.expect("A", ack=2897)
        assert answer.options["timestamps"][1] == first.options["timestamps"][0]


def test_timestamps_of_an_out_of_order_segment_are_not_remembered() -> None:
    """RFC 7323 section 4.3: SEG.SEQ <= Last.ACK.sent."""
    with established(options=ALL_OPTIONS) as scene:
        before = scene.peer.ts_now
        scene.testbed.advance(50 * MILLISECOND)
        scene.peer.send("A", seq=1449, payload=b"x" * 100)
        answer = scene.peer.expect("A", ack=1)
        assert answer.options["timestamps"][1] == before


def test_paws_drops_an_old_duplicate() -> None:
    """RFC 7323 section 5.3: not acceptable: send an ACK and drop."""
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A", payload=b"x")
        scene.testbed.advance(SECOND)
        scene.peer.drain()
        scene.testbed.mark()
        scene.peer.send("A", payload=b"old", options={"timestamps": (scene.peer.ts_now - 5000, scene.peer.ts_recent)})
        scene.peer.expect("A", seq=1, ack=2)
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        assert scene.read() == b"x"


def test_paws_compares_across_the_wrap() -> None:
    with established(options=ALL_OPTIONS) as scene:
        scene.peer.send("A", payload=b"x", options={"timestamps": (scene.peer.ts_now + 0x7FFF0000, 0)})
        scene.testbed.mark()
        scene.peer.send("A", payload=b"y", options={"timestamps": (scene.peer.ts_now + 0x7FFF0001, 0)})
        assert scene.read() == b"xy"
        assert scene.testbed.dropped() == {}


def test_paws_does_not_apply_to_rst() -> None:
    """RFC 7323 section 5.2: a RST needs no timestamp, and an old one is no reason to ignore it."""
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        scene.peer.send("A")
        scene.peer.send("R", options={"timestamps": None})
        assert scene.state == "CLOSED"


DAY = 24 * 3600 * SECOND


@pytest.mark.parametrize("tick_ms", [1, 4, 10, 1000], ids=lambda ms: f"{ms}ms_clock")
@pytest.mark.parametrize("days", [24, 25, 40, 49, 50, 74, 100, 400])
def test_paws_forgets_after_24_days(days: int, tick_ms: int) -> None:
    """RFC 7323 section 5.5: the peer's clock may have wrapped; TS.Recent is replaced, and counts again.

    The wrap comes after 24.8 days with the fastest clock that section 5.4 allows (1 ms), later with others.
    """
    with established(options=ALL_OPTIONS) as scene:
        begin_ns, begin_ts = scene.testbed.now_ns, scene.peer.ts_now

        def stamp(back: int = 0) -> dict[str, Any]:
            ticks = (scene.testbed.now_ns - begin_ns) // (tick_ms * MILLISECOND)
            return {"nop": 2, "timestamps": ((begin_ts + ticks - back) & 0xFFFFFFFF, 0)}

        scene.testbed.advance(days * DAY)
        for octet in (b"a", b"b", b"c"):
            scene.peer.send("A", payload=octet, options=stamp())
            scene.testbed.advance(2 * SECOND)
        assert scene.read() == b"abc"
        assert scene.testbed.dropped() == {}
        scene.peer.send("A", payload=b"old", options=stamp(back=100_000))
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}


def test_paws_stays_forgotten_until_a_timestamp_comes() -> None:
    """Neither a segment without timestamps nor one out of order replaces TS.Recent, so the stale one must not count
    again after them.
    """
    with established(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(30 * DAY)
        scene.peer.send("A", options={"timestamps": None})
        scene.peer.send("A", seq=2, payload=b"b")
        scene.peer.send("A", payload=b"a")
        assert scene.read() == b"ab"
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("flags", ["R", "S", "SA", "P", "PA"])
def test_timestamp_of_a_segment_that_is_not_acceptable_is_not_remembered(flags: str) -> None:
    """If it were, PAWS would refuse everything that the peer sends in the next 24 days, for one forged segment.

    RST in the window, SYN in the window, no ACK, an ACK of what was never sent: RFC 7323 sections 4.3, 5.2 and 5.3.
    """
    with established(options=ALL_OPTIONS) as scene:
        scene.peer.send("PA", payload=b"0123456789")
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", ack=11)
        before = scene.info()["ts_recent"]
        forged = (scene.peer.ts_now + 0x70000000) & 0xFFFFFFFF
        scene.peer.send(flags, seq=6, ack=0x40000000, payload=b"j" * 100, options={"timestamps": (forged, 1), "nop": 2})
        assert scene.info()["ts_recent"] == before
        scene.testbed.advance(SECOND)
        scene.peer.send("PA", payload=b"honest")
        assert scene.read() == b"0123456789honest"
        assert "drop_tcp_paws" not in scene.testbed.dropped()


def test_timestamp_of_the_last_segment_is_remembered_in_time_wait() -> None:
    """The ACK that ends a connection counts for RFC 6191 as well: a FIN with an older timestamp is refused by PAWS.

    The timestamp of a newer FIN is remembered in its turn (RFC 7323 section 4.3, rule 2).
    """
    with closing(options=ALL_OPTIONS) as scene:
        scene.testbed.advance(100 * MILLISECOND)
        last = scene.peer.send("A").options["timestamps"][0]
        older = {"nop": 2, "timestamps": ((last - 50) & 0xFFFFFFFF, 0)}
        scene.peer.send("FA", seq=1, options=older)
        assert scene.peer.expect("A").options["timestamps"][1] == last
        assert scene.testbed.dropped() == {"drop_tcp_paws": 1}
        scene.testbed.advance(100 * MILLISECOND)
        newer = scene.peer.send("FA", seq=1).options["timestamps"][0]
        assert scene.peer.expect("A").options["timestamps"][1] == newer


def test_segments_without_the_agreed_timestamps_are_taken() -> None:
    """RFC 7323 section 3.2 has a SHOULD for dropping them. The reason for not doing so is in input.pyx."""
    with established(options=ALL_OPTIONS) as scene:
        before = scene.info()["ts_recent"]
        scene.testbed.advance(SECOND)
        scene.peer.send("A", payload=b"x", options={"timestamps": None})
        scene.testbed.advance(SECOND)
        scene.peer.expect("A", ack=2, options={"timestamps": present})
        assert scene.info()["ts_recent"] == before
        scene.peer.send("FA", options={"timestamps": None})
        scene.peer.expect("A", ack=3, options={"timestamps": present})
        assert scene.read() == b"x"
        assert scene.testbed.counted()["timestamps_missing_in"] == 2
        assert scene.testbed.dropped() == {}


@pytest.mark.parametrize("octets", [0, 1])
def test_keepalive_without_the_agreed_timestamps_is_answered(octets: int) -> None:
    with established(options=ALL_OPTIONS) as scene:
        scene.peer.send("A", seq=0, payload=b"\0" * octets, options={"timestamps": None})
        scene.peer.expect("A", seq=1, ack=1, options={"timestamps": present})


def test_rst_of_a_connection_carries_timestamps() -> None:
    """RFC 7323 section 3.2: SHOULD."""
    with established(options=ALL_OPTIONS) as scene:
        last = scene.info()["ts_recent"]
        scene.abort()
        answer = scene.peer.expect("RA", seq=1, ack=1, options={"timestamps": present})
        assert answer.options["timestamps"][1] == last


def test_rst_of_a_connection_without_timestamps_carries_none() -> None:
    with established() as scene:
        scene.abort()
        scene.peer.expect("RA", seq=1, ack=1, options={"timestamps": None})


@both_roles
def test_rst_of_a_handshake_carries_timestamps(role: str) -> None:
    with syn_received(role=role, options=ALL_OPTIONS) as scene:
        scene.peer.send("A", ack=5000)
        scene.peer.expect("R", options={"timestamps": present})


def test_rst_for_nobody_carries_no_timestamps() -> None:
    """There is no record to have agreed on them."""
    with listen() as scene:
        scene.peer.timestamps = True
        scene.peer.send("A", ack=5000)
        scene.peer.expect("R", options={"timestamps": None})


# ---------------------------------------------------------------- SACK-permitted


def test_sack_is_permitted_only_to_who_permits_it() -> None:
    with syn_received() as scene:
        scene.peer.expect_after(SECOND, "SA", options={"sack_permitted": None})
    with syn_received(options={"mss": 1460, "sack_permitted": True}) as scene:
        scene.peer.expect_after(SECOND, "SA", options={"sack_permitted": True})


def test_sack_blocks_are_never_sent_without_permission() -> None:
    with established() as scene:
        scene.peer.send("A", seq=100, payload=b"x")
        scene.peer.expect("A", options={"sack": None})


def test_no_size_of_an_ip_header_is_written_down_in_tcp() -> None:
    """ip/family.pxd has them: 536 and 1220 (MUST-15) follow from it."""
    sizes = re.compile(r"\bIPV[46]_\w*BYTES\b|\b(?<!,)(?:536|1220|576|1280)\b")
    tcp = Path(__file__).parents[3] / "ustack" / "tcp"
    for path in tcp.rglob("*.p[yx][xd]"):
        code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
        assert not sizes.search(code), path

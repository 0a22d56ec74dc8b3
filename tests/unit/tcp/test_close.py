# SPDX-License-Identifier: MIT
"""Closing, two stacks with each other: normal, simultaneous, half-closed, aborted. RFC 9293 section 3.6."""

import pytest

from ustack import ConnectionReset
from ustack.testing.pair import Pair
from ustack.testing.testbed import MILLISECOND, SECOND, read_available


def test_normal_close_leaves_time_wait_with_the_active_closer_only() -> None:
    with Pair(network={"delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        client.close()
        pair.run_until(lambda: server.state == "CLOSE-WAIT", SECOND)
        server.close()
        pair.advance(SECOND)
        assert pair.b.leaks()["time_waits"] == 1
        assert pair.a.leaks()["time_waits"] == 0
        assert not pair.a.connections("connection")
        pair.run_until(pair.at_rest, 300 * SECOND)


def test_simultaneous_close_puts_both_into_time_wait() -> None:
    """Figure 13."""
    with Pair(network={"delay_ns": 10 * MILLISECOND}) as pair:
        client, server = pair.connect()
        client.close()
        server.close()
        pair.advance(SECOND)
        assert pair.a.leaks()["time_waits"] == 1
        assert pair.b.leaks()["time_waits"] == 1
        pair.run_until(pair.at_rest, 300 * SECOND)


def test_half_close_lets_the_other_side_finish() -> None:
    with Pair(network={"delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        client.send(b"question")
        client.shutdown()
        pair.run_until(lambda: server.state == "CLOSE-WAIT", SECOND)
        assert read_available(server) == (b"question", True)
        answer = bytes(index % 251 for index in range(300_000))
        server.send(answer)
        server.shutdown()
        got = b""

        def read() -> None:
            nonlocal got
            got += read_available(client)[0]

        pair.run_until(lambda: len(got) == len(answer), 30 * SECOND, turn=read)
        assert got == answer
        assert read_available(client) == (b"", True)
        pair.run_until(pair.at_rest, 300 * SECOND)


def test_abort_is_a_reset_for_the_other_side() -> None:
    """MUST-12."""
    with Pair(network={"delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        client.abort()
        pair.run_until(lambda: server.state == "CLOSED", SECOND)
        with pytest.raises(ConnectionReset):
            server.receive(1, timeout=0)
        pair.run_until(pair.at_rest, SECOND)


def test_close_with_unread_data_is_a_reset_for_the_sender() -> None:
    """SHLD-3."""
    with Pair(network={"delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        client.send(b"never read")
        pair.advance(SECOND)
        server.close()
        pair.run_until(lambda: client.state == "CLOSED", SECOND)
        with pytest.raises(ConnectionReset):
            client.receive(1, timeout=0)
        pair.run_until(pair.at_rest, SECOND)


def test_close_delivers_everything_queued() -> None:
    with Pair(network={"delay_ns": 5 * MILLISECOND, "rate_bps": 10_000_000}) as pair:
        client, server = pair.connect()
        data = bytes(index % 253 for index in range(500_000))
        client.send(data)
        client.close()
        got = b""
        end = False

        def read() -> None:
            nonlocal got, end
            piece, end = read_available(server)
            got += piece

        pair.run_until(lambda: end, 60 * SECOND, turn=read)
        assert got == data
        server.close()
        pair.run_until(pair.at_rest, 300 * SECOND)


@pytest.mark.parametrize("seed", range(10))
def test_close_survives_loss(seed: int) -> None:
    """Every FIN and every last ACK may be lost; both ends still come to CLOSED."""
    with Pair(seed=seed, network={"delay_ns": MILLISECOND}) as pair:
        client, server = pair.connect()
        pair.network.impair(loss=0.4)
        client.close()
        server.close()
        pair.run_until(pair.at_rest, 3600 * SECOND)


def test_clean_transfer_retransmits_nothing() -> None:
    with Pair(network={"delay_ns": MILLISECOND, "queue_frames": 100_000}) as pair:
        client, server = pair.connect()
        client.send(bytes(2_000_000))
        client.shutdown()
        total = 0
        end = False

        def read() -> None:
            nonlocal total, end
            piece, end = read_available(server)
            total += len(piece)

        pair.run_until(lambda: end, 60 * SECOND, turn=read)
        assert total == 2_000_000
        server.close()
        pair.advance(SECOND)
        for stack in (pair.a, pair.b):
            counters = stack.counters()
            assert counters["segments_retransmitted"] == 0
            assert counters["duplicate_acks_in"] == 0
            assert not {name: count for name, count in counters.items() if name.startswith("drop_tcp") and count}

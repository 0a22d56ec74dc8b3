# SPDX-License-Identifier: MIT
"""The rules of recovery with plain numbers: PRR (RFC 9937), RACK and TLP (RFC 8985), F-RTO (RFC 5682)."""

import pytest

from ustack.testing.parts import recovery

MSS = 1000


# ---------------------------------------------------------------- PRR


def test_prr_shrinks_the_flight_in_proportion() -> None:
    """Twenty in flight, ssthresh ten: one segment goes for two that are delivered; never a burst."""
    in_flight, out, total = 19 * MSS, 0, []
    for delivered in range(1, 11):
        count = recovery.prr(in_flight, 10 * MSS, 20 * MSS, delivered * MSS, out, MSS, MSS)
        send = count // MSS
        total.append(send)
        out += send * MSS
        in_flight += send * MSS - MSS
    assert max(total) == 1
    assert 4 <= sum(total) <= 5


def test_prr_sends_when_the_rfcs_first_example_does() -> None:
    """RFC 9937 section 8, figure 1, in segments: of twenty the first is lost, and limited transmit has sent two more.
    From the third ACK on: cwnd, and whether one goes. At ACK#19 the figure sends, but ssthresh is in flight, so that
    the steps of section 6.2 leave no room; the next ACK makes up for it."""
    in_flight, out = 22 - 3 - 1, 0
    windows, sends = [], ""
    for delivered in range(1, 20):
        count = recovery.prr(in_flight, 10, recovery.recover_fs(22, 3, 1, 0), delivered, out, 1, 1)
        windows.append(in_flight + count)
        sends += "N" if count else " "
        out += count
        in_flight += count - 1  # and the next ACK says that one has arrived
    assert windows == [19, 18, 18, 17, 17, 16, 16, 15, 15, 14, 14, 13, 13, 12, 12, 11, 10, 10, 10]
    assert sends == "N N N N N N N N  NN"


def test_prr_forces_the_fast_retransmit() -> None:
    assert recovery.prr(100 * MSS, 10 * MSS, 100 * MSS, 0, 0, 0, MSS) == MSS


def test_prr_below_ssthresh_conserves_packets() -> None:
    """PRR-CRB: no more than is delivered, when there are more losses than the window should shrink by."""
    assert recovery.prr(3 * MSS, 10 * MSS, 20 * MSS, 4 * MSS, 4 * MSS, 2 * MSS, MSS) == 2 * MSS


def test_prr_below_ssthresh_grows_by_one_segment_where_the_ack_is_safe() -> None:
    """PRR-SSRB."""
    assert recovery.prr(3 * MSS, 10 * MSS, 20 * MSS, 4 * MSS, 4 * MSS, 2 * MSS, MSS, safe_ack=True) == 3 * MSS


def test_prr_never_goes_beyond_ssthresh() -> None:
    assert recovery.prr(9 * MSS, 10 * MSS, 20 * MSS, 15 * MSS, 2 * MSS, 9 * MSS, MSS, safe_ack=True) == MSS


def test_prr_ends_at_ssthresh_when_nothing_more_is_lost() -> None:
    """One of hundred lost: at the end of the round trip fifty have been sent, and fifty are in flight."""
    in_flight, out = 99 * MSS, 0
    for delivered in range(1, 100):
        in_flight -= MSS
        count = recovery.prr(in_flight, 50 * MSS, 100 * MSS, delivered * MSS, out, MSS, MSS)
        send = count // MSS * MSS
        out += send
        in_flight += send
    assert abs(in_flight - 50 * MSS) <= MSS


def test_recover_fs_leaves_out_what_will_not_be_delivered() -> None:
    assert recovery.recover_fs(20 * MSS, 5 * MSS, 2 * MSS, 0) == 17 * MSS
    assert recovery.recover_fs(20 * MSS, 0, 0, 3 * MSS) == 23 * MSS


def test_prr_with_an_empty_recover_fs_does_not_divide_by_it() -> None:
    assert recovery.prr(10 * MSS, 2 * MSS, 0, 0, 0, 0, MSS) >= MSS


# ---------------------------------------------------------------- RACK's window, TLP's timeout


@pytest.mark.parametrize(
    ("seen", "repairing", "sacked", "multiplier", "window"),
    [
        (False, False, 0, 1, 10_000),  # min_RTT / 4
        (False, False, 2, 1, 10_000),
        (False, False, 3, 1, 0),  # DupThresh segments, and no reordering so far
        (False, True, 0, 1, 0),
        (True, True, 3, 1, 10_000),
        (True, False, 0, 3, 30_000),
        (True, False, 0, 16, 50_000),  # SRTT at most
    ],
)
def test_reordering_window(seen: bool, repairing: bool, sacked: int, multiplier: int, window: int) -> None:
    """RFC 8985 section 6.2 step 4."""
    assert recovery.reordering_window(seen, repairing, sacked, multiplier, 40_000, 50_000) == window


def test_reordering_window_widens_with_duplicates_and_fades_after_sixteen_recoveries() -> None:
    packed, multiplier = recovery.reordering_after(0, True)
    assert multiplier == 2
    packed, multiplier = recovery.reordering_after(packed, True)
    assert multiplier == 3
    for _ in range(15):
        packed, multiplier = recovery.reordering_after(packed, False)
        assert multiplier == 3
    assert recovery.reordering_after(packed, False) == (0, 1)
    for _ in range(40):
        packed, multiplier = recovery.reordering_after(packed, True)
    assert multiplier == 16


@pytest.mark.parametrize(
    ("srtt_us", "alone", "timeout_us"), [(0, True, 1_000_000), (10_000, False, 20_000), (10_000, True, 220_000)]
)
def test_probe_timeout(srtt_us: int, alone: bool, timeout_us: int) -> None:
    """RFC 8985 section 7.2: 2 * SRTT, with the delayed ACK's 200 ms for a lone segment; a second without SRTT."""
    assert recovery.probe_timeout(srtt_us, alone) == timeout_us


# ---------------------------------------------------------------- F-RTO


def test_frto_sends_new_data_when_the_first_ack_moves_on() -> None:
    assert recovery.frto(1, moved=True) == "send new"


@pytest.mark.parametrize("why", [{"moved": False}, {"complete": True}, {"can_send": False}])
def test_frto_gives_up_at_the_first_ack(why: dict[str, bool]) -> None:
    assert recovery.frto(1, **{"moved": True, **why}) == "lost"  # type: ignore[arg-type]


def test_frto_is_sure_when_the_second_ack_acknowledges_what_was_never_sent_again() -> None:
    assert recovery.frto(2, moved=True, original=True) == "spurious"


def test_frto_waits_for_an_ack_that_moves_on_where_sack_tells_duplicates_apart() -> None:
    """RFC 5682 section 3.1 step 2; without SACK a duplicate means conventional recovery (section 2.1 step 2a)."""
    assert recovery.frto(1, moved=False, selective=True) == "go on"
    assert recovery.frto(1, moved=False) == "lost"


def test_frto_doubts_an_ack_of_what_was_sent_after_the_timeout() -> None:
    """RFC 5682 section 3.1 step 3a: covers more than RecoveryPoint."""
    assert recovery.frto(2, moved=True, original=True, beyond=True, selective=True) == "lost"
    assert recovery.frto(2, moved=True, original=True, beyond=True) == "spurious"


@pytest.mark.parametrize("why", [{"original": False}, {"original": True, "repeated": True}])
def test_frto_gives_up_at_the_second_ack(why: dict[str, bool]) -> None:
    assert recovery.frto(2, moved=True, **why) == "lost"  # type: ignore[arg-type]

# SPDX-License-Identifier: MIT
"""A network in virtual time: when frames arrive, what queues and wires do to them, what flows say."""

import errno
import gc
import io
import threading
from typing import Any

import pytest

from tests.children import in_a_child
from ustack import OwnershipError
from ustack.buf.lent import alive as lent_alive
from ustack.sim.network import START_NS, Flow, Hop, Network
from ustack.sim.world import MICROSECOND, MILLISECOND, SECOND, TICK_NS
from ustack.tcp.cc.scripted import Ack, CongestionControl, Window, register

FOREVER = 3600 * SECOND
MBIT = 1_000_000
SEGMENT_BYTES = 1448 + 66  # a full one as a frame


def pair(seed: int = 1, **settings: Any) -> tuple[Network, Hop, Hop]:
    """Two hosts and a link."""
    network = Network(seed)
    network.host("a")
    network.host("b")
    there, back = network.connect("a", "b", **settings)
    return network, there, back


def download(network: Network, size: int = 1_000_000, **flow: Any) -> dict[str, Any]:
    """A flow from a to b, to its end."""
    made = network.flow("f", source="a", sink="b", size=size, **flow)
    network.run(FOREVER, until_ended=True)
    assert made.ended
    return made.report()


# ---------------------------------------------------------------- time on a wire
def test_a_response_takes_what_wires_and_delays_add_up_to() -> None:
    network, _, _ = pair(rate_bps=8 * MBIT, delay_ns=10 * MILLISECOND)  # a byte takes a microsecond
    with network:
        flow = network.flow(
            "f", source="a", sink="b", pattern="requests", request_bytes=34, response_bytes=134, count=3
        )
        network.run(FOREVER, until_ended=True)
        report = flow.report()
    assert report["responses"] == 3
    assert report["response_p50_ns"] == 20 * MILLISECOND + (66 + 34 + 66 + 134) * MICROSECOND
    assert report["reason"] == "normal"


def test_a_router_sends_each_frame_again() -> None:
    with Network() as network:
        network.host("a")
        network.router("r")
        network.router("s")
        network.host("b")
        network.connect("a", "r", rate_bps=8 * MBIT, delay_ns=MILLISECOND)
        network.connect("r", "s", rate_bps=80 * MBIT, delay_ns=MILLISECOND)
        network.connect("s", "b", delay_ns=MILLISECOND)
        flow = network.flow(
            "f", source="a", sink="b", pattern="requests", request_bytes=134, response_bytes=134, count=1
        )
        network.run(FOREVER, until_ended=True)
        assert flow.report()["response_p50_ns"] == 6 * MILLISECOND + 2 * (200 + 20) * MICROSECOND


def test_the_shortest_way_is_taken_and_hosts_forward_nothing() -> None:
    with Network() as network:
        for name in "ab":
            network.host(name)
        for name in "rstu":
            network.router(name)
        network.connect("a", "r")
        network.connect("r", "s")
        network.connect("s", "t")
        network.connect("t", "u")
        network.connect("r", "u")
        network.connect("u", "b")
        network.flow("f", source="a", sink="b", size=10_000)
        network.run(FOREVER, until_ended=True)
        assert network.hop("r", "u").counters()["delivered"] > 0
        assert network.hop("s", "t").counters()["offered"] == 0


def test_a_host_without_a_way_gets_nothing_and_time_goes_on() -> None:
    with Network() as network:
        network.host("a")
        network.host("b")
        network.router("r")
        network.connect("a", "r")
        flow = network.flow("f", source="a", sink="b", size=1)
        assert network.run(10 * SECOND) == 10 * SECOND
        assert network.now_ns == START_NS + 10 * SECOND
        assert not flow.ended
        assert flow.report()["received_bytes"] == 0


def test_a_changed_rate_counts_for_the_frame_that_is_being_sent() -> None:
    network, there, _ = pair(rate_bps=8 * MBIT)
    with network:
        flow = network.flow("f", source="a", sink="b", pattern="requests", request_bytes=934, response_bytes=1, count=1)
        at_us = 74 + 74 + 500  # SYN and SYN-ACK; then half of the request, 1,000 bytes, is out
        there.at(at_us * MICROSECOND, rate_bps=4 * MBIT)
        network.run(FOREVER, until_ended=True)
        assert flow.report()["last_ns"] == (at_us + 2 * 500) * MICROSECOND


def test_a_wire_that_is_down_keeps_frames_and_one_that_is_cut_loses_them() -> None:
    network, there, _ = pair(delay_ns=MILLISECOND)
    with network:
        there.set(down=1)
        there.at(100 * MILLISECOND, down=0)
        flow = network.flow("f", source="a", sink="b", size=1)
        network.run(FOREVER, until_ended=True)
        assert flow.report()["first_ns"] == 102 * MILLISECOND
        assert there.counters()["lost"] == 0
    network, there, _ = pair(delay_ns=MILLISECOND)
    with network:
        there.set(cut=1)
        there.at(100 * MILLISECOND, cut=0)
        flow = network.flow("f", source="a", sink="b", size=1)
        network.run(FOREVER, until_ended=True)
        assert 0 <= flow.report()["first_ns"] - 1002 * MILLISECOND < TICK_NS  # the SYN's timer
        assert there.counters()["lost"] == 1


def test_what_changes_at_one_time_does_so_before_a_frame_moves() -> None:
    """A wire that takes no time would send all that waits between the two."""
    for how in ("set", "at"):
        network, there, _ = pair(delay_ns=MILLISECOND)
        with network:
            there.set(down=1)
            if how == "at":
                there.at(100 * MILLISECOND, down=0, rate_bps=8_000)  # a byte takes a millisecond
            network.flow("f", source="a", sink="b", size=1)
            network.run(100 * MILLISECOND)
            if how == "set":
                there.set(down=0, rate_bps=8_000)
            network.run(73 * MILLISECOND)
            assert there.counters()["sent"] == 0, how
            network.run(MILLISECOND)
            assert there.counters()["sent"] == 1, how


def test_a_frame_whose_last_bit_is_out_has_left_when_the_wire_goes_down() -> None:
    network, there, _ = pair(rate_bps=8 * MBIT)
    with network:
        network.flow("f", source="a", sink="b", size=1)
        there.at(74 * MICROSECOND, down=1)
        network.run(MILLISECOND)
        assert there.counters()["delivered"] == 1


@pytest.mark.parametrize("rate_bps", [10**10, 10**11])
def test_fast_wires_lose_no_part_of_a_nanosecond(rate_bps: int) -> None:
    """A SYN takes 5.92 ns at 100 Gb/s: not 6, one behind the other."""
    network, there, _ = pair(delay_ns=MILLISECOND)
    with network:
        there.set(down=1)
        for number in range(20):
            network.flow(f"f{number}", source="a", sink="b", size=1, start_ns=number)
        network.run(MILLISECOND)
        assert there.counters()["offered"] == 20
        there.set(down=0, rate_bps=rate_bps)
        began_ns = network.now_ns
        while there.counters()["sent"] < 20:
            network.run(1)
        assert network.now_ns - began_ns == -(-there.counters()["sent_bytes"] * 8 * SECOND // rate_bps)


def test_a_rate_trace_is_followed_and_repeated() -> None:
    network, there, _ = pair()
    with network:
        there.rates([(0, 8 * MBIT), (10 * MILLISECOND, 0)], repeat_ns=20 * MILLISECOND)
        report = download(network, 1_000_000)
        # A byte takes a microsecond, half of the time: the last one leaves in the second half of nothing.
        frames = there.counters()["sent_bytes"]
        assert frames // 10_000 * 20 * MILLISECOND <= report["last_ns"] <= (frames // 10_000 + 2) * 20 * MILLISECOND


# ---------------------------------------------------------------- what chance does
def test_frames_are_lost_by_number() -> None:
    network, there, _ = pair(delay_ns=MILLISECOND)
    with network:
        there.lose([5, 1, 5])
        report = download(network, 100_000)
        assert there.counters()["lost"] == 2
        assert 0 <= report["first_ns"] - 1002 * MILLISECOND < TICK_NS  # the first one was the SYN
        assert report["retransmitted"] == 1
        assert report["retransmitted_by"] == {"fast": 1, "rack": 0, "probe": 0, "rto": 1, "size": 0}
        assert report["timeouts"] == 1  # the SYN's, as the one for RTO
        assert report["received_bytes"] == 100_000


@pytest.mark.parametrize(
    ("setting", "counter"),
    [("loss", "lost"), ("reorder", "reordered"), ("duplicate", "duplicated"), ("corrupt", "corrupted")],
)
def test_chance_hits_as_often_as_it_is_told_and_data_is_whole(setting: str, counter: str) -> None:
    network, there, _ = pair(rate_bps=100 * MBIT, delay_ns=MILLISECOND, queue_frames=10_000)
    with network:
        there.set(**{setting: 0.02})
        report = download(network, 5_000_000)
        counters = there.counters()
    assert report["received_bytes"] == 5_000_000
    assert 0.01 < counters[counter] / counters["sent"] < 0.03


def test_losses_of_gilbert_and_elliott_come_in_bursts() -> None:
    network, there, _ = pair(rate_bps=100 * MBIT, delay_ns=MILLISECOND)
    with network:
        there.set(good_to_bad=0.002, bad_to_good=0.2, loss_good=0.0, loss_bad=1.0)
        download(network, 10_000_000)
        counters = there.counters()
    # A share of 1 % of frames is in bad state, five in a row.
    assert 0.002 < counters["lost"] / counters["sent"] < 0.05


def test_the_same_seed_gives_the_same_frames_at_the_same_times() -> None:
    def recorded(seed: int) -> bytes:
        stream = io.BytesIO()
        network, there, back = pair(seed, rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, jitter_ns=MILLISECOND)
        with network:
            there.set(loss=0.02, reorder=0.02, duplicate=0.01, corrupt=0.01)
            back.set(loss=0.02)
            there.record(stream)
            download(network, 300_000)
        return stream.getvalue()

    first = recorded(7)
    assert first == recorded(7)
    assert first != recorded(8)
    assert len(first) > 300_000


def test_it_does_not_matter_in_how_many_pieces_time_passes() -> None:
    def told(pieces: int) -> tuple[Any, ...]:
        stream = io.BytesIO()
        network, there, _ = pair(rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, loss=0.01)
        with network:
            there.record(stream)
            flow = network.flow("f", source="a", sink="b")
            network.flow("g", source="b", sink="a", pattern="chunks", chunk_bytes=500, every_ns=7 * MILLISECOND)
            for _ in range(pieces):
                network.run(SECOND // pieces)
            events, report = network.events, flow.report()
        return events, report, stream.getvalue()

    whole = told(1)
    assert whole[0] > 1_000
    assert told(7 * 125) == told(5**8) == whole


def test_recording_changes_nothing_and_its_checksums_are_right() -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.utils import PcapNgReader

    stream = io.BytesIO()
    reports = []
    for file in (None, stream):
        network, there, _ = pair(3, rate_bps=10 * MBIT, delay_ns=MILLISECOND)
        with network:
            there.set(loss=0.01)
            if file is not None:
                there.record(file)
            reports.append(download(network, 50_000))
    assert reports[0] == reports[1]
    packets = list(PcapNgReader(io.BytesIO(stream.getvalue())))
    assert len(packets) > 30
    for packet in packets:
        claimed = packet[TCP].chksum
        del packet[TCP].chksum
        assert IP(bytes(packet[IP]))[TCP].chksum == claimed


def test_recording_changes_nothing_of_what_is_damaged() -> None:
    """A bit of a MAC address is nobody's checksum's."""

    def told(*, recorded: bool) -> tuple[dict[str, Any], dict[str, int], dict[str, int]]:
        network, there, _ = pair(3, rate_bps=100 * MBIT, delay_ns=MILLISECOND, corrupt=0.2)
        with network:
            if recorded:
                there.record(io.BytesIO())
            report = download(network, 3_000_000)
            return report, there.counters(), network.stack("b").counters()

    report, hop, host = told(recorded=False)
    assert told(recorded=True) == (report, hop, host)
    dropped = sum(count for name, count in host.items() if name.startswith("drop_") and name != "drop_tcp_duplicate")
    assert 0.97 * hop["corrupted"] < dropped < hop["corrupted"]


# ---------------------------------------------------------------- queues
def test_a_droptail_queue_holds_no_more_than_it_is_told() -> None:
    network, there, _ = pair(rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, queue_frames=20)
    with network:
        report = download(network, 3_000_000)
        counters = there.counters()
    assert counters["most_frames"] == 20
    assert counters["tail_dropped"] > 0
    assert counters["early_dropped"] == 0
    assert report["received_bytes"] == 3_000_000


def test_a_limit_of_bytes_holds_too() -> None:
    network, there, _ = pair(rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, queue_bytes=10 * SEGMENT_BYTES)
    with network:
        download(network, 3_000_000)
        assert there.counters()["most_bytes"] == 10 * SEGMENT_BYTES


@pytest.mark.parametrize("queue", ["codel", "red"])
@pytest.mark.parametrize("ecn", [0, 1])
def test_queues_that_act_early_stay_short_without_losing_goodput(queue: str, ecn: int) -> None:
    means = {}
    for kind in ("droptail", queue):
        network = Network(1)
        network.host("a", ecn=1)
        network.host("b", ecn=1)
        there, _ = network.connect("a", "b", rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, queue_frames=300)
        with network:
            there.set(queue=kind, ecn=ecn)
            network.sample(10 * MILLISECOND)
            network.flow("f", source="a", sink="b")
            network.sample(10 * MILLISECOND)
            network.run(60 * SECOND)
            series = network.series()["hops"]["a->b"]
            means[kind] = sum(series["queue_bytes"][1000:]) / len(series["queue_bytes"][1000:])
            counters = there.counters()
        if kind == queue:
            assert counters["tail_dropped"] == 0
            assert (counters["marked"] > 0) == bool(ecn)
            # (A control packet cannot be marked.)
            assert counters["early_dropped"] <= 2 if ecn else counters["early_dropped"] > 0
            assert counters["sent_bytes"] * 8 > 0.9 * 60 * 10 * MBIT
    assert means[queue] < means["droptail"] / 4


def test_a_droptail_queue_may_mark() -> None:
    network = Network(1)
    network.host("a", ecn=1)
    network.host("b", ecn=1)
    with network:
        there, _ = network.connect("a", "b", rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND, mark_bytes=15_000)
        report = download(network, 3_000_000)
        assert there.counters()["marked"] > 0
        assert there.counters()["tail_dropped"] == 0
        assert report["retransmitted"] == 0


# ---------------------------------------------------------------- packets that are too long
def narrow(**settings: Any) -> tuple[Network, Hop]:
    network = Network(1)
    network.host("a")
    network.router("r")
    network.host("b")
    network.connect("a", "r", delay_ns=MILLISECOND)
    there, _ = network.connect("r", "b", delay_ns=MILLISECOND, mtu=1000, **settings)
    return network, there


def test_a_router_says_what_fits() -> None:
    network, there = narrow()
    with network:
        report = download(network, 100_000)
        assert report["received_bytes"] == 100_000
        assert there.counters()["beyond_mtu"] > 0
        assert network.stack("a").counters()["path_mtu_reduced"] > 0
        assert network.stack("a").counters()["black_holes"] == 0


def test_a_silent_router_makes_a_black_hole_that_tcp_finds() -> None:
    network, _ = narrow(silent=1)
    with network:
        report = download(network, 100_000)
        assert report["received_bytes"] == 100_000
        assert network.stack("a").counters()["black_holes"] > 0


# ---------------------------------------------------------------- flows
def test_chunks_come_at_their_times() -> None:
    network, _, _ = pair(delay_ns=MILLISECOND)
    with network:
        flow = network.flow(
            "f", source="a", sink="b", pattern="chunks", chunk_bytes=100, every_ns=50 * MILLISECOND, size=1050
        )
        network.run(FOREVER, until_ended=True)
        report = flow.report()
    assert report["received_bytes"] == 1050
    assert report["segments_sent"] == 11
    # The first one when the handshake is done, then ten periods, as a stack's timer keeps them.
    assert 0 <= report["last_ns"] - (3 * MILLISECOND + 10 * 50 * MILLISECOND) < 10 * MILLISECOND


@pytest.mark.parametrize("every_ns", [100 * MICROSECOND, MILLISECOND])
def test_no_chunk_is_left_out_by_timers_that_tick_slower(every_ns: int) -> None:
    network, _, _ = pair(delay_ns=MILLISECOND)
    with network:
        flow = network.flow("f", source="a", sink="b", pattern="chunks", chunk_bytes=100, every_ns=every_ns)
        network.run(SECOND)
        chunks = flow.report()["received_bytes"] // 100
        due = (SECOND - 3 * MILLISECOND) // every_ns + 1
        assert due - 2 * TICK_NS // every_ns - 1 <= chunks <= due


def test_requests_think_in_between() -> None:
    network, _, _ = pair(delay_ns=10 * MILLISECOND)
    with network:
        flow = network.flow(
            "f",
            source="a",
            sink="b",
            pattern="requests",
            request_bytes=10,
            response_bytes=100_000,
            think_ns=SECOND,
            count=5,
        )
        network.run(FOREVER, until_ended=True)
        report = flow.report()
    assert report["responses"] == 5
    assert report["end_ns"] > 4 * SECOND
    assert report["response_p50_ns"] < 200 * MILLISECOND


def test_a_flow_begins_and_is_cut_off_when_it_is_told() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        flow = network.flow("f", source="a", sink="b", start_ns=SECOND, stop_ns=3 * SECOND)
        network.run(SECOND - 1)
        assert flow.report()["segments_sent"] == 0
        network.run(10 * SECOND)
        report = flow.report()
    assert report["end_ns"] == 3 * SECOND
    assert report["reason"] == "aborted"
    assert 9 * MBIT < report["goodput_bps"] < 10 * MBIT


def test_flows_share_a_link_and_all_arrive() -> None:
    network, _, _ = pair(rate_bps=100 * MBIT, delay_ns=MILLISECOND)
    with network:
        flows = [network.flow(f"f{i}", source="a", sink="b", size=20_000, cc="newreno") for i in range(200)]
        network.run(FOREVER, until_ended=True)
        assert all(flow.report()["received_bytes"] == 20_000 for flow in flows)


def test_flows_go_both_ways() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        flows = [
            network.flow("there", source="a", sink="b", size=500_000),
            network.flow("back", source="b", sink="a", size=500_000, cc="bbr"),
        ]
        network.run(FOREVER, until_ended=True)
        assert [flow.report()["received_bytes"] for flow in flows] == [500_000] * 2


# ---------------------------------------------------------------- series
def test_series_have_a_row_for_each_interval() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=10 * MILLISECOND)
    with network:
        network.flow("f", source="a", sink="b", size=1_000_000)
        network.sample(10 * MILLISECOND)
        network.run(2 * SECOND)
        series = network.series()
    assert list(series["times_ns"]) == [at * 10 * MILLISECOND for at in range(201)]
    flow, hop = series["flows"]["f"], series["hops"]["a->b"]
    assert flow["received_bytes"][-1] == 1_000_000
    assert flow["acked_bytes"][-1] == 1_000_000
    assert list(flow["received_bytes"]) == sorted(flow["received_bytes"])
    assert list(flow["acked_bytes"]) == sorted(flow["acked_bytes"])
    assert all(acked <= received for acked, received in zip(flow["acked_bytes"], flow["received_bytes"], strict=True))
    assert max(flow["cwnd"]) > 10 * 1448
    assert max(flow["flight"]) <= max(flow["cwnd"]) + 1448
    assert 20_000 <= max(flow["srtt_us"]) < 500_000
    assert max(hop["queue_bytes"]) > 0
    assert hop["sent_bytes"][-1] > 1_000_000


def test_series_are_bounded() -> None:
    network, _, _ = pair()
    with network:
        network.sample(MILLISECOND, rows_max=10)
        network.run(SECOND)
        assert len(network.series()["times_ns"]) == 10
        network.sample(MILLISECOND, rows_max=100)  # anew, whatever the last ones missed
        network.run(SECOND)
        assert len(network.series()["times_ns"]) == 100


def test_time_ends_before_its_number_does() -> None:
    network, _, _ = pair()
    with network:
        network.run(1 << 60)
        with pytest.raises(ValueError, match="time ends"):
            network.run(1 << 61)
        assert network.now_ns == START_NS + (1 << 60)


def test_faces_are_made_by_their_network_alone() -> None:
    for kind in (Hop, Flow):
        with pytest.raises(TypeError, match="use Network"):
            kind()
    with pytest.raises(ValueError, match="closed"):
        Network.__new__(Network).sample(1)
    nobodys = Hop.__new__(Hop)
    assert nobodys.counters()["sent"] == 0
    for call in (lambda: nobodys.set(cut=1), lambda: nobodys.at(1, cut=1), lambda: nobodys.rates([(0, 1)])):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert Flow.__new__(Flow).report()["received_bytes"] == 0


def test_a_network_that_was_never_sampled_has_empty_series() -> None:
    network, _, _ = pair()
    with network:
        assert list(network.series()["times_ns"]) == []


# ---------------------------------------------------------------- programs in it
def test_programs_use_the_stacks_of_hosts_between_two_runs() -> None:
    network, _, _ = pair(delay_ns=MILLISECOND)
    with network:
        listener = network.stack("b").listen(80)
        client = network.stack("a").connect(network.address("b"), 80, wait=False)
        network.run(10 * MILLISECOND)
        server = listener.accept(timeout=0)
        client.send(b"hello")
        network.run(10 * MILLISECOND)
        assert server.receive(timeout=0) == b"hello"


def test_what_a_program_calls_happens_when_the_run_before_it_has_ended() -> None:
    network, _, _ = pair(delay_ns=MILLISECOND)
    with network:
        network.run(5 * SECOND)
        listener = network.stack("b").listen(80)
        client = network.stack("a").connect(network.address("b"), 80, wait=False)
        network.run(10 * MILLISECOND)
        (row,) = (each for each in network.stack("a").connections() if each["local"] == client.getsockname())
        assert row["age_ns"] <= 10 * MILLISECOND
        assert listener.accept(timeout=0).getpeername() == client.getsockname()


class Counting(CongestionControl):
    """NewReno's growth, and a count of its events."""

    name = "written"
    acks = 0

    def on_ack(self, window: Window, ack: Ack) -> None:
        Counting.acks += 1
        if ack.cwnd_limited and not ack.in_recovery:
            window.cwnd += window.smss


def test_a_control_in_python_is_called_in_the_run() -> None:
    register(Counting)
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        assert download(network, 200_000, cc="written")["received_bytes"] == 200_000
    assert Counting.acks > 10


def test_a_stack_that_was_closed_takes_no_more_turns() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        flow = network.flow("f", source="a", sink="b")
        network.run(SECOND)
        network.stack("b").close()
        network.run(SECOND)
        assert flow.ended
        assert flow.report()["reason"] == "reset"


def test_a_flow_of_a_stack_that_was_closed_says_so() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        begun = network.flow("begun", source="a", sink="b", size=10**9)
        later = network.flow("later", source="a", sink="b", start_ns=2 * SECOND, size=1)
        network.run(SECOND)
        network.stack("a").close()
        assert network.run(FOREVER, until_ended=True) == SECOND
        assert [flow.report()["reason"] for flow in (begun, later)] == ["aborted", "aborted"]
        assert [flow.report()["end_ns"] for flow in (begun, later)] == [SECOND, 2 * SECOND]


def test_a_flow_that_nobody_answered_says_why() -> None:
    network, _, _ = pair(delay_ns=MILLISECOND, cut=1)
    with network:
        assert download(network)["reason"] == "timeout"


def test_a_flow_for_which_its_stack_has_no_room_says_so() -> None:
    network = Network(1)
    network.host("a", max_connections=1)
    network.host("b")
    network.connect("a", "b", delay_ns=MILLISECOND)
    with network:
        flows = [network.flow(name, source="a", sink="b", size=1) for name in "fg"]
        network.run(SECOND)
        assert [flow.report()["reason"] for flow in flows] == ["normal", "no_memory"]


def test_a_network_runs_in_its_own_process_alone() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        flow = network.flow("f", source="a", sink="b", size=10**6)
        network.run(SECOND // 2)
        before = flow.report()
        assert in_a_child(lambda: network.run(SECOND)) == errno.EBADF
        assert in_a_child(flow.report) == before

        def use_one_of_its_own() -> int:
            network.close()
            with pair(delay_ns=MILLISECOND)[0] as own:
                received: int = download(own)["received_bytes"]
            return received

        assert in_a_child(use_one_of_its_own) == 1_000_000
        network.run(SECOND)
        assert flow.report()["received_bytes"] == 10**6


def test_another_thread_is_refused() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    refused: list[BaseException] = []

    class Asking(CongestionControl):
        name = "written"

        def on_ack(self, window: Window, ack: Ack) -> None:
            if not refused:
                thread = threading.Thread(target=ask)
                thread.start()
                thread.join()

    def ask() -> None:
        try:
            network.run(1)
        except OwnershipError as error:
            refused.append(error)

    register(Asking)
    with network:
        download(network, 100_000, cc="written")
    assert len(refused) == 1


def test_a_flow_without_end_over_a_link_without_time_is_an_error() -> None:
    network, there, _ = pair()
    with network:
        network.flow("f", source="a", sink="b")
        with pytest.raises(RuntimeError, match="does not come to rest"):
            network.run(SECOND)
        there.set(rate_bps=10 * MBIT)
        assert network.run(SECOND) > 0


def test_a_run_until_the_end_needs_somebody_to_end() -> None:
    network, _, _ = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    with network:
        assert network.run(SECOND, until_ended=True) == SECOND
        network.flow("f", source="a", sink="b", start_ns=SECOND, stop_ns=2 * SECOND)
        assert network.run(FOREVER, until_ended=True) == SECOND


def test_a_stack_that_was_polled_ahead_of_time_is_noticed() -> None:
    network, _, _ = pair()
    with network:
        network.stack("a").poll(network.now_ns + 5)
        with pytest.raises(ValueError, match="'a': its stack was polled"):
            network.run(1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_network_that_nobody_closed_may_be_dropped() -> None:
    network, *hops = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    hops[0].record(io.BytesIO())
    network.flow("f", source="a", sink="b")
    network.run(SECOND)
    del network, hops
    gc.collect()


def test_nothing_is_left_of_a_network_that_is_dropped() -> None:
    gc.collect()
    before = len([each for each in gc.get_objects() if isinstance(each, Network)])
    lent_before = lent_alive()
    network, *hops = pair(rate_bps=10 * MBIT, delay_ns=MILLISECOND)
    network.flow("f", source="a", sink="b")
    network.run(SECOND)
    network.close()
    network.close()
    assert lent_alive() == lent_before
    del network, hops
    gc.collect()
    assert len([each for each in gc.get_objects() if isinstance(each, Network)]) == before


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rate": 1}, "no setting of a link is called 'rate'"),
        ({"rate_bps": -1}, "rate_bps -1"),
        ({"rate_bps": 1.5}, "whole number"),
        ({"loss": 1.1}, "probability"),
        ({"loss": float("nan")}, "probability"),
        ({"loss": "half"}, "probability"),
        ({"queue": "fifo"}, "droptail, codel, red"),
        ({"queue_frames": 0}, "queue_frames 0"),
        ({"mtu": 70_000}, "mtu 70000"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_changed(settings: dict[str, Any], said: str) -> None:
    network, there, _ = pair()
    with network:
        with pytest.raises(ValueError, match=said):
            there.set(delay_ns=5, **settings)
        with pytest.raises(ValueError, match=said):
            there.at(0, **settings)
        network.flow("f", source="a", sink="b", size=1)
        network.run(FOREVER, until_ended=True)
        assert network.now_ns < START_NS + MILLISECOND


def test_bad_topologies_and_flows_are_refused() -> None:
    with Network() as network:
        network.host("a")
        network.router("r")
        with pytest.raises(ValueError, match="of that name"):
            network.router("a")
        with pytest.raises(ValueError, match="no node"):
            network.connect("a", "nobody")
        with pytest.raises(ValueError, match="joins two nodes"):
            network.connect("a", "a")
        network.connect("a", "r")
        with pytest.raises(ValueError, match="once"):
            network.connect("a", "r")
        network.router("s")
        with pytest.raises(ValueError, match="one link"):
            network.connect("a", "s")
        with pytest.raises(ValueError, match="from a host to another"):
            network.flow("f", source="a", sink="r")
        network.host("b")
        for wrong in ({"size": -1}, {"pattern": "talk"}, {"pattern": "chunks"}, {"cc": "none"}, {"stop_ns": -5}):
            with pytest.raises(ValueError, match=r".+"):
                network.flow("f", source="a", sink="b", **wrong)  # type: ignore[arg-type]
        assert network.flows() == {}
        with pytest.raises(ValueError, match="nonsense"):
            network.host("c", nonsense=1)
        with pytest.raises(ValueError, match="duration_ns"):
            network.run(-1)


@pytest.mark.parametrize("steps", [[], [(1, 1)], [(0, 1), (0, 2)], [(0, -1)], [(0, "x")]])
def test_bad_rate_traces_are_refused(steps: Any) -> None:
    network, there, _ = pair()
    with network, pytest.raises(ValueError, match="rates"):
        there.rates(steps)


def test_a_rate_trace_that_is_mere_work_is_refused() -> None:
    network, there, _ = pair()
    with network:
        with pytest.raises(ValueError, match="rates: 2 steps in 19999 ns are too many"):
            there.rates([(0, MBIT), (1, 2 * MBIT)], repeat_ns=19_999)
        there.rates([(0, MBIT), (1, 2 * MBIT)], repeat_ns=20_000)
        there.rates([(at, at + 1) for at in range(1000)])  # once


def test_a_closed_network_refuses_everything() -> None:
    network, there, _ = pair()
    network.close()
    for call in (
        lambda: network.run(1),
        lambda: network.host("c"),
        lambda: network.router("c"),
        lambda: network.flow("f", source="a", sink="b"),
        lambda: network.connect("a", "b"),
        lambda: there.record(io.BytesIO()),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()

# SPDX-License-Identifier: MIT
"""A scenario from its file to what hops and stacks have counted: marks, packets that are too long, blackouts, and what
RED remembers of all that."""

from typing import Any

import pytest

from ustack.sim.building import build
from ustack.sim.network import Network
from ustack.sim.reading import Document, scenario_of
from ustack.sim.world import MILLISECOND, SECOND

PATH = """\
duration = "600 s"
routers = ["r", "s"]
[hosts.a]
{hosts}
[hosts.b]
{hosts}
[links.a-r]
delay = "1 ms"
{near}
[links.r-s]
rate = "10 Mb/s"
delay = "5 ms"
{middle}
[links.s-b]
delay = "1 ms"
[flows.f]
from = "a"
to = "b"
size = "6 MB"
"""


class Path:
    """Two hosts, and between them two routers with a narrow link; what was counted until all had arrived."""

    def __init__(self, middle: str, *, hosts: str = "", near: str = "") -> None:
        text = PATH.format(middle=middle, hosts=hosts, near=near)
        scenario = scenario_of(Document.parse(text.encode(), "path.toml"))
        with build(scenario) as network:
            network.run(scenario.duration_ns, until_ended=True)
            network.run(SECOND)  # for what travels still
            self.flow = network.flows()["f"].report()
            self.near, self.middle, self.back = (network.hop(*ways).counters() for ways in ("ar", "rs", "sr"))
            self.sender, self.receiver = (network.stack(name).counters() for name in "ab")
        assert self.flow["received_bytes"] == 6_000_000

    def balances(self) -> bool:
        """Every frame is somewhere."""
        hop = self.middle
        return (
            hop["offered"] == hop["sent"] + hop["tail_dropped"] + hop["early_dropped"]
            and hop["sent"] == hop["delivered"] + hop["lost"]
        )


# ---------------------------------------------------------------- marks
QUEUES = {
    "droptail": 'mark = "20 kB"',
    "codel": 'queue = "codel"\necn = true',
    "red": 'queue = "red"\necn = true',
    "a full red": 'queue = "red"\necn = true\nbuffer = "25 kB"\nred_min = "5 kB"\nred_max = "40 kB"\nred_max_p = 0.2',
}


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("ecn", [1, 3])
def test_marks_of_a_queue_are_those_that_arrive_and_are_answered(queue: str, ecn: int) -> None:
    """A frame that finds no room was not marked, either."""
    path = Path(QUEUES[queue], hosts=f"ecn = {ecn}")
    marked = path.middle["marked"]
    assert marked == path.receiver["ce_in"] > 10
    assert 10 < path.sender["ecn_reductions"] <= marked
    if ecn == 1:
        assert path.sender["cwr_out"] == path.receiver["cwr_in"]
        # A loss is answered with it, too; the last answer may have had no segment to go on.
        assert -path.flow["retransmitted"] <= path.sender["ecn_reductions"] - path.sender["cwr_out"] <= 1
        assert path.sender["accecn_marks_in"] == 0
    else:
        assert path.sender["accecn_marks_in"] == marked
        assert path.sender["ece_in"] == path.sender["cwr_out"] == 0
    assert (path.middle["tail_dropped"] > 0) == (queue == "a full red")
    assert path.flow["retransmitted"] == path.middle["tail_dropped"] + path.middle["early_dropped"]


@pytest.mark.parametrize("queue", ["codel", "red"])
def test_who_has_not_agreed_is_dropped_and_not_marked(queue: str) -> None:
    path = Path(QUEUES[queue], hosts="ecn = 2")  # both accept, nobody offers
    assert path.middle["marked"] == path.receiver["ce_in"] == path.sender["ecn_reductions"] == 0
    assert path.flow["retransmitted"] == path.middle["early_dropped"] > 10


# ---------------------------------------------------------------- packets that are too long
@pytest.mark.parametrize(("near", "middle", "claims"), [(1500, 1400, 1), (1500, 556, 1), (600, 556, 2), (570, 556, 2)])
def test_a_narrow_link_is_told_to_the_sender(near: int, middle: int, claims: int) -> None:
    """Each narrower link once, by ICMP alone, though the way back may carry no 576 bytes."""
    path = Path(f"mtu = {middle}", near=f"mtu = {near}")
    assert path.sender["path_mtu_reduced"] == claims
    assert path.sender["black_holes"] == path.flow["timeouts"] == 0
    assert path.back["beyond_mtu"] == 0
    assert path.near["lost"] == path.near["tail_dropped"] == 0


@pytest.mark.parametrize("queue", ["droptail", "codel", "red"])
@pytest.mark.parametrize("silent", [False, True])
def test_a_link_may_become_narrow_twice(queue: str, silent: bool) -> None:
    """With ICMP a timeout proves each claim about what had passed before (RFC 5927); without it a black hole is found.
    What waits when it becomes narrow still passes."""
    changes = '{ at = "1 s", mtu = 1200 }, { at = "2 s", mtu = 700 }'
    path = Path(f'queue = "{queue}"\nsilent = {str(silent).lower()}\nchanges = [{changes}]')
    assert path.balances()
    assert path.middle["beyond_mtu"] > 0
    if silent:
        assert path.sender["path_mtu_reduced"] == path.sender["path_mtu_deferred"] == 0
        assert path.sender["black_holes"] > 0
    else:
        assert path.sender["path_mtu_reduced"] == path.flow["timeouts"] == 2
        assert path.sender["black_holes"] == 0
        assert path.flow["end_ns"] < 9 * SECOND


# ---------------------------------------------------------------- blackouts
@pytest.mark.parametrize("frames", ["wait", "lost"])
@pytest.mark.parametrize("queue", [*QUEUES, "codel without marks", "red without marks"])
@pytest.mark.parametrize("lasts_ms", [50, 2000, 20_000])
def test_a_blackout_leaves_nothing_behind(queue: str, frames: str, lasts_ms: int) -> None:
    settings = QUEUES.get(queue) or f'queue = "{queue.split(maxsplit=1)[0]}"'
    blackout = f'blackouts = [{{ at = "1 s", for = "{lasts_ms} ms", frames = "{frames}" }}]'
    path = Path(f"{settings}\n{blackout}", hosts="ecn = 1")
    assert path.balances()
    assert (path.middle["lost"] > 0) == (frames == "lost")
    assert 0 <= path.middle["marked"] - path.receiver["ce_in"] <= path.middle["lost"]
    assert path.flow["end_ns"] < 2 * lasts_ms * MILLISECOND + 8 * SECOND


# ---------------------------------------------------------------- what RED remembers
def remembered(rate_bps: int, changes: dict[int, dict[str, Any]], steps: list[tuple[int, int]] | None = None) -> bool:
    """Ten segments come at once, and ten more after five seconds. Does RED's average still know of the first ones when
    these come? changes: what happens to the wire in between (ms: settings)."""
    with Network(1) as network:
        network.host("a")
        network.host("b")
        there, _ = network.connect("a", "b", rate_bps=rate_bps, queue="red", red_weight_shift=4)
        if steps is not None:
            there.rates(steps, repeat_ns=len(steps) * steps[1][0])
        for at_ms, settings in changes.items():
            there.at(at_ms * MILLISECOND, **settings)
        there.at(4_999 * MILLISECOND, red_min_bytes=1, red_max_bytes=2)  # 4 bytes of the average: nothing passes
        network.flow("f", source="a", sink="b", pattern="chunks", chunk_bytes=10 * 1448, every_ns=5 * SECOND)
        network.run(4_999 * MILLISECOND)
        before = there.counters()
        assert before["sent"] == before["offered"] >= 10
        network.run(200 * MILLISECOND)
        after = there.counters()
        assert after["offered"] >= before["offered"] + 10
        return after["sent"] == before["sent"]


def test_the_average_falls_while_a_wire_is_idle() -> None:
    assert not remembered(10_000_000, {})
    assert remembered(100_000, {})  # which could have sent 31 frames


def test_an_idle_wire_is_as_fast_as_it_was_then() -> None:
    """Not as it is when the next frame comes."""
    assert remembered(100_000, {4_998: {"rate_bps": 10_000_000}})


def test_a_wire_that_stands_still_is_not_idle() -> None:
    assert remembered(10_000_000, {20: {"down": 1}, 4_998: {"down": 0}})
    assert not remembered(10_000_000, {20: {"down": 1}, 4_000: {"down": 0}})


def test_steps_of_a_rate_that_are_shorter_than_a_frame_add_up() -> None:
    assert not remembered(0, {}, [(0, 10_000_000), (100_000, 9_000_000)])
    assert remembered(0, {}, [(0, 100_000), (100_000, 90_000)])


def test_another_weight_forgets_nothing() -> None:
    assert remembered(100_000, {4_998: {"red_weight_shift": 16}})

# SPDX-License-Identifier: MIT
"""Active opens: which address and port of ours they take, and how long they look for one (RFC 6056 section 3.3)."""

import pytest

from ustack.testing.parts.tcp import Opens

PORTS = 28_232  # 32768 to 60999
IN_A_ROW = LEAPS = 1024
FEW = 3


def take(opens: Opens, ports: int) -> list[int]:
    """So many connections, of ports that are chosen; the connections. Raises when none is found."""
    found = [opens.connect() for _ in range(ports)]
    return [one[0] for one in found if one is not None]


def test_a_clump_of_ports_in_use_costs_a_bounded_number_of_steps() -> None:
    """20,000 in a row are taken, right ahead: the first leap lands behind them."""
    opens = Opens()
    first = opens.connect()
    assert first is not None
    for ahead in range(1, 20_001):
        assert opens.connect(32_768 + (first[1][1] - 32_768 + ahead) % PORTS) is not None
    for _ in range(5):
        before = opens.looked_at
        assert opens.connect() is not None
        assert IN_A_ROW <= opens.looked_at - before <= IN_A_ROW + FEW


def test_a_clump_over_many_addresses_costs_no_more() -> None:
    """112,928 pairs, half of the circle: every port of four addresses, or as many of eight."""
    opens = Opens(8)
    for connection in take(opens, 8 * PORTS - 1)[4 * PORTS :]:
        opens.end(connection)
    assert opens.looked_at == 0
    assert opens.connect() is not None  # the last one before the clump
    assert opens.connect() is not None
    assert IN_A_ROW <= opens.looked_at <= IN_A_ROW + FEW


def test_any_stretch_of_an_eight_hundredth_is_found_by_the_first_search() -> None:
    opens = Opens()
    taken = take(opens, PORTS)
    free = PORTS // 800 + 1
    for begin in range(0, PORTS - free, PORTS // 50):
        for connection in taken[begin : begin + free]:
            opens.end(connection)
        before = opens.looked_at
        found = take(opens, 1)
        assert len(found) == 1
        assert opens.looked_at - before < IN_A_ROW + LEAPS
        taken[begin : begin + free] = found + take_all(opens, free - 1)


def take_all(opens: Opens, ports: int) -> list[int]:
    """As many, however often the search has to go on."""
    found: list[int] = []
    while len(found) < ports:
        found += take(opens, 1)
    return found


@pytest.mark.parametrize("place", [0, 1, 9_999, PORTS - 1])
def test_the_last_free_port_is_found_by_searches_that_go_on_where_the_one_before_ended(place: int) -> None:
    opens = Opens()
    taken = take(opens, PORTS)
    opens.end(taken[place])
    searches, found = 1, opens.connect()
    while found is None:
        before = opens.looked_at
        searches, found = searches + 1, opens.connect()
        assert opens.looked_at - before <= IN_A_ROW + LEAPS
    assert searches <= -(-PORTS // IN_A_ROW)


def test_a_full_circle_ends_a_search_soon() -> None:
    opens = Opens()
    take(opens, PORTS)
    assert opens.looked_at == 0
    assert opens.connect() is None
    assert opens.looked_at == IN_A_ROW + LEAPS


def test_a_port_of_ones_own_is_looked_for_at_every_address_once() -> None:
    opens = Opens(300)
    assert len({opens.connect(5000) for _ in range(300)}) == 300
    before = opens.looked_at
    assert opens.connect(5000) is None
    assert opens.looked_at - before == 300


@pytest.mark.parametrize("sources", [1, 3])
def test_the_counters_go_on_beyond_32_bits(sources: int) -> None:
    """A counter that began anew there would break the circle: 2^32 is no multiple of it, and pairs would be asked twice
    while others are left out."""
    opens = Opens(sources, counters=2**32 - 500)
    found = [opens.connect() for _ in range(1000)]
    places = [one[1] for one in found if one is not None]
    assert [address for address, _ in places] == [(places[0][0] + i) % sources for i in range(1000)]
    for (address, port), (again, later) in zip(places, places[sources:], strict=False):
        assert again == address
        assert (later - port) % PORTS == 1
    assert opens.looked_at == 0

# SPDX-License-Identifier: MIT
"""canned_clients: clients that notice every wrong answer, on a real stack with a real server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ustack import SimNetwork, Stack
from ustack.server.http import HttpServer
from ustack.tools.canned_clients import CannedClients

REQUEST = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b"b" * 512


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(BODY)
    (tmp_path / "large").write_bytes(BODY * 8)
    return tmp_path


@contextmanager
def serving(link: CannedClients, site: Path) -> Iterator[Stack]:
    with HttpServer(site) as server, Stack(link, "198.18.0.2/24", seed=1, now_ns=link.now_ns) as stack:
        stack.listen(80, application=server)
        yield stack


@pytest.mark.parametrize("connections", [1, 2, 31, 32, 33, 63, 64, 65, 1000])
@pytest.mark.parametrize("offload", [True, False])
def test_every_client_is_answered_in_turn(site: Path, connections: int, offload: bool):
    link = CannedClients(connections, REQUEST, offload=offload)
    with serving(link, site) as stack:
        spent_ns, polls = link.exchange(stack, 10 * connections)
        counters = stack.counters()
        assert (link.unexpected, counters["connections_accepted"]) == (0, connections)
        assert link.responses == counters["segments_in"] - connections  # the SYNs
        assert sum(count for name, count in counters.items() if name.startswith("drop_")) == 0
        assert counters["segments_retransmitted"] == 0
        assert len(BODY) < link.response_bytes < 2 * len(BODY)
        assert spent_ns > 0
        assert polls > 0
        assert len(stack.connections("connection")) == connections


def test_clients_beyond_the_ports_of_an_address_are_behind_it(site: Path):
    """Each of 60,100 is answered; with so many a look ahead over each burst changes nothing that they notice."""
    link = CannedClients(60_100, REQUEST)
    with HttpServer(site) as server, Stack(link, "198.18.0.2/24", "198.18.0.1", seed=1, now_ns=link.now_ns) as stack:
        stack.listen(80, application=server, backlog=60_100)
        link.exchange(stack, 3 * 60_100)
        counters = stack.counters()
        assert (link.unexpected, counters["connections_accepted"]) == (0, 60_100)
        assert counters["segments_retransmitted"] == 0
        assert sum(count for name, count in counters.items() if name.startswith("drop_")) == 0


def test_the_second_exchange_goes_on_with_the_same_connections(site: Path):
    link = CannedClients(3, REQUEST)
    with serving(link, site) as stack:
        link.exchange(stack, 3)
        before = link.now_ns
        link.exchange(stack, 300)
        assert stack.counters()["connections_accepted"] == 3
        assert link.now_ns > before


def test_a_server_that_ends_the_connection_is_unexpected(site: Path):
    link = CannedClients(2, REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
    with serving(link, site) as stack, pytest.raises(RuntimeError, match="unexpected"):
        link.exchange(stack, 2)


def test_a_response_in_several_segments_is_no_measurement(site: Path):
    link = CannedClients(1, REQUEST.replace(b"/file", b"/large"), offload=False)
    with serving(link, site) as stack, pytest.raises(RuntimeError, match="responses"):
        link.exchange(stack, 10)


def test_a_port_that_nobody_listens_on_is_unexpected(site: Path):
    link = CannedClients(1, REQUEST, port=81)
    with serving(link, site) as stack, pytest.raises(RuntimeError, match="0 responses, 1 unexpected"):
        link.exchange(stack, 1)


def test_an_engine_on_another_link_is_refused():
    network = SimNetwork(seed=1)
    link = CannedClients(1, REQUEST)
    with Stack(network.a, "198.18.0.2/24", seed=1, now_ns=0) as stack, pytest.raises(ValueError, match="another link"):
        link.exchange(stack, 1)


@pytest.mark.parametrize(
    ("connections", "octets"), [(0, REQUEST), ((1 << 26) + 1, REQUEST), (1, b""), (1, b"x" * 1025)]
)
def test_what_does_not_fit_is_refused(connections: int, octets: bytes):
    with pytest.raises(ValueError, match="1 to"):
        CannedClients(connections, octets)


def test_readings_of_the_clock_take_time():
    assert CannedClients(1, REQUEST).clock_ns(1000) > 0

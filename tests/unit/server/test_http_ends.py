# SPDX-License-Identifier: MIT
"""How connections and the server end, and what errors of its own leave, on a real stack and over memory."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.conftest import IN_ONE_THREAD
from tests.unit.server.website import GET, MIDDLE, MemorySite, Site, get
from ustack.server import selection
from ustack.testing.testbed import MILLISECOND, SECOND

# ---------------------------------------------------------------- the end of a connection


def small_window(make_site: Callable[..., Site], **options: Any) -> Site:
    """Clients take 8 KB at a time, so that most of a response waits in the server's queue until it is read."""
    return make_site(pair={"b": {"rcv_buffer_bytes": 8192}}, **options)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("late", [b"\r\n", get("/text.txt"), b"x" * 3000])
@pytest.mark.parametrize("path", ["/small", "/middle"])
def test_bytes_that_come_after_the_last_request_cost_nothing_of_its_response(
    make_site: Callable[..., Site], path: str, late: bytes, version: str
) -> None:
    """RFC 9112 section 9.6: what the client sends after `Connection: close` is read and discarded, not reset."""
    site = small_window(make_site)
    (site.root / "small").write_bytes(b"s" * 20_000)
    client = site.client()
    client.connection.send(get(path, "Connection: close", version=version))
    site.settle()
    client.connection.send(late)
    site.settle()
    client.read_until(1 << 30)
    [(status, _, body)] = client.responses()
    assert (status, body, client.ended) == (200, (site.root / path[1:]).read_bytes(), "eof")
    assert site.pair.a.counters()["resets_out"] == 0


@pytest.mark.parametrize("fields", [(), ("Connection: close",)])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_client_that_reads_slowly_gets_the_whole_response(
    make_site: Callable[..., Site], fields: tuple[str, ...], half_closed: bool
) -> None:
    """The send timeout runs from the last byte acknowledged, not from the end of the response or of the request."""
    site = small_window(make_site)
    client = site.client()
    client.connection.send(get("/middle", *fields))
    if half_closed:
        client.connection.shutdown()
    site.settle()
    while len(client.received) < len(MIDDLE) and not client.ended:
        site.pass_time(20 * SECOND)  # in all several times send_timeout_s
        client.received += client.connection.receive(4096, timeout=0)
    client.read_until(1 << 30 if fields or half_closed else 1)
    assert client.responses()[0][2] == MIDDLE
    assert client.ended == ("eof" if fields or half_closed else "")
    assert site.stats()["stalled_aborted"] == 0


def test_a_client_that_stops_reading_after_close_is_given_up(make_site: Callable[..., Site]) -> None:
    site = small_window(make_site)
    client = site.client()
    client.connection.send(get("/middle", "Connection: close"))
    site.pass_time(50 * SECOND)
    assert site.stats()["connections_open"] == 1
    site.pass_time(20 * SECOND)
    assert (site.stats()["connections_open"], site.stats()["stalled_aborted"]) == (0, 1)


def test_a_slow_reader_costs_half_a_cache_line_here(make_site: Callable[..., Site]) -> None:
    """Of a large file, while it is read, and nothing afterwards; the rest of what it costs is TCP's."""
    site = small_window(make_site)
    client = site.client()
    client.connection.send(get("/middle"))
    site.settle()
    assert (site.stats()["connections_busy"], site.stats()["busy_bytes"]) == (1, 32)
    client.read_until(1 << 30)
    assert site.stats()["busy_bytes"] == 0


def test_what_follows_a_delivered_response_is_read_for_a_bounded_time_and_size(tcp_site: Site) -> None:
    chatty, silent = tcp_site.client(), tcp_site.client()
    for client in (chatty, silent):
        client.send(get("/", "Connection: close"))
        assert client.ended == "eof"
    tcp_site.pass_time(MILLISECOND)
    for _ in range(100):
        if chatty.connection.state != "CLOSE-WAIT":
            break
        chatty.connection.send(b"x" * 4096)
        tcp_site.settle()
    assert chatty.connection.state == "CLOSED"  # after 256 KiB
    assert silent.connection.state == "CLOSE-WAIT"
    assert tcp_site.stats()["connections_busy"] == 1
    tcp_site.pass_time(5 * SECOND)
    assert tcp_site.stats()["connections_busy"] == 0


def test_no_record_for_a_linger_still_ends_the_connection(make_site: Callable[..., Site]) -> None:
    site = make_site(max_busy=1)
    holder, client = site.client(), site.client()
    holder.send(b"GET / HT")
    client.send(get("/", "Connection: close"))
    assert (len(client.responses()), client.ended) == (1, "eof")
    assert site.stats()["busy_refused"] == 1


# ---------------------------------------------------------------- the end of the server


def test_finish_sends_idle_connections_a_fin_and_takes_no_more(tcp_site: Site) -> None:
    idle = [tcp_site.client() for _ in range(3)]
    idle[0].send(GET)
    tcp_site.server.finish(tcp_site.pair.a)
    tcp_site.settle()
    for client in idle:
        client.read()
    assert [client.ended for client in idle] == ["eof"] * 3
    assert tcp_site.pair.a.counters()["resets_out"] == 0
    with pytest.raises(ConnectionResetError):
        tcp_site.client()
    for client in idle:
        client.connection.close()
    tcp_site.settle()
    assert tcp_site.server.finished
    assert tcp_site.stats()["connections_open"] == 0


def test_finish_lets_what_is_under_way_end(make_site: Callable[..., Site]) -> None:
    site = small_window(make_site)
    asking, waiting, reading = (site.client() for _ in range(3))
    asking.send(GET[:10])
    reading.connection.send(get("/middle"))
    site.settle()
    site.server.finish(site.pair.a)
    site.server.finish(site.pair.a)
    site.settle()
    asking.send(GET[10:])
    reading.read_until(1 << 30)
    waiting.read()
    assert [client.ended for client in (asking, waiting, reading)] == ["eof"] * 3
    [(status, fields, _)] = asking.responses()
    assert (status, fields["Connection"]) == (200, "close")
    assert reading.responses()[0][2] == MIDDLE
    assert not site.server.finished
    site.pass_time(5 * SECOND)
    assert site.server.finished
    assert site.pair.a.counters()["resets_out"] == 0


def test_a_request_that_crosses_the_fin_is_not_reset(tcp_site: Site) -> None:
    client = tcp_site.client()
    tcp_site.server.finish(tcp_site.pair.a)
    client.send(GET)
    client.read()
    assert (client.received, client.ended) == (b"", "eof")
    assert tcp_site.pair.a.counters()["resets_out"] == 0


# ---------------------------------------------------------------- errors of our own


def test_unexpected_error_is_a_500_and_is_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(selection, "decide", broken)
        status, fields, _ = site.ask(GET)
    assert (status, fields["Connection"]) == (500, "close")
    assert site.stats()["internal_errors"] == 1
    assert "ZeroDivisionError" in caplog.text
    site.expected_errors = 1
    assert site.ask(GET)[0] == 200


def test_interrupt_within_an_upcall_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised from poll() once the turn is over, and the client gets its answer all the same."""
    decide, calls = selection.decide, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return decide(*arguments)

    client = site.client()
    with monkeypatch.context() as patch:
        patch.setattr(selection, "decide", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.send(GET)
    site.settle()
    client.read()
    assert [status for status, _, _ in client.responses()] == [200]
    assert site.stats()["internal_errors"] == 0


class Deadline(Exception):
    """What the handler below raises: a program's own exception."""


@pytest.mark.parametrize("site", IN_ONE_THREAD, indirect=True)  # Python runs handlers in its first thread alone
def test_what_a_signal_handler_raises_within_an_upcall_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is an ordinary exception: the handler's frame is in its traceback. No client gets a 500 for it."""
    decide, calls = selection.decide, 0

    def handler(number: int, frame: object) -> None:
        raise Deadline

    def signalled(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            signal.raise_signal(signal.SIGUSR2)
        return decide(*arguments)

    client = site.client()
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(selection, "decide", signalled)
            with pytest.raises(Deadline):
                client.send(GET)
    finally:
        signal.signal(signal.SIGUSR2, before)
    site.settle()
    client.read()
    assert [status for status, _, _ in client.responses()] == [200]
    assert site.stats()["internal_errors"] == 0


def test_a_client_whose_decision_is_interrupted_again_and_again_is_reset(
    tcp_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit

    client = tcp_site.client()
    with monkeypatch.context() as patch:
        patch.setattr(selection, "decide", interrupted)
        with pytest.raises(SystemExit):
            client.send(GET)
    tcp_site.settle()
    assert client.connection.reason == "reset"
    assert tcp_site.ask(GET)[0] == 200


def test_closed_server_lets_go_of_its_connections(root: Path) -> None:
    site = Site(root)
    client = site.client()
    site.server.close()
    site.server.close()
    client.send(GET)
    assert (client.received, client.ended) == (b"", "ConnectionReset")
    with pytest.raises(ConnectionResetError):
        site.client()
    site.pair.close()


@pytest.mark.parametrize("event", ["data", "writable", "eof", "timeout"])
@pytest.mark.parametrize("kind", [Site, MemorySite])
def test_connections_of_a_closed_server_end_with_their_next_event(root: Path, kind: type[Site], event: str) -> None:
    site = kind(root)
    client = site.client()
    if event == "writable":
        client.connection.send(get("/big") * 4)  # most of it waits for the client to read
        site.settle()
    site.server.close()
    assert site.stats()["connections_open"] == 1
    if event == "data":
        client.send(GET)
    elif event == "writable":
        client.read_until(1 << 30)
    elif event == "eof":
        client.connection.shutdown()
    site.pass_time(100 * SECOND if event == "timeout" else SECOND)
    assert site.stats()["connections_open"] == 0
    site.close_transport()

# SPDX-License-Identifier: MIT
"""Who owns and moves an engine: clocks, run and stop, link errors, signals, memory at the end."""

import gc
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from ustack import SimNetwork, Stack
from ustack.buf.lent import alive as lent_alive
from ustack.engine.owner import Engine
from ustack.link.device import Link
from ustack.testing.memory_transport import MemoryTransport
from ustack.testing.pair import Pair
from ustack.testing.recorder import Recorder
from ustack.testing.testbed import MILLISECOND, SECOND, Testbed

PEER = "198.18.0.1"
MakeStack = Callable[..., Any]


def in_a_process(body: str) -> dict[str, Any]:
    """Run a script that may end its process, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# ---------------------------------------------------------------- the manual clock


def test_a_stack_with_now_ns_has_a_manual_clock(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=5)
    assert (stack.manual_clock, stack.alive, stack.established) == (True, True, 0)


def test_poll_returns_the_number_of_frames(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a, now_ns=0)
    for _ in range(3):
        network.b.inject(b"\xff" * 60)
    network.advance(0)
    assert stack.poll(0) == 3
    assert stack.poll(0) == 0


def test_a_manual_clock_must_be_told(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    with pytest.raises(ValueError, match="now_ns"):
        stack.poll()


def test_time_does_not_go_back(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=100)
    stack.poll(200)
    with pytest.raises(ValueError, match="199 after 200"):
        stack.poll(199)
    assert stack.poll(200) == 0


@pytest.mark.parametrize("now_ns", [-1, 2**64, 2**80])
def test_a_time_beyond_64_bits_is_refused(make_stack: MakeStack, now_ns: int) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    with pytest.raises(ValueError, match=f"now_ns {now_ns}: must be from 0 to"):
        stack.poll(now_ns)


def test_the_far_end_of_time_is_reached_safely(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    connection = stack.connect(PEER, 80, wait=False)
    stack.poll(0)
    stack.poll(2**63)
    assert stack.poll(2**63 + 1) == 0
    assert connection.state == "SYN-SENT"


def test_a_manual_clock_cannot_run(make_stack: MakeStack) -> None:
    with pytest.raises(ValueError, match="manual clock"):
        make_stack(SimNetwork().a, now_ns=0).run(1)


def test_the_next_deadline_is_none_when_nothing_waits(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    assert stack.next_deadline_ns == 2 * SECOND  # the second announcement by ARP
    stack.poll(2 * SECOND)
    assert stack.next_deadline_ns is None


def test_the_next_deadline_is_now_while_work_is_left(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=SECOND)
    connection = stack.connect(PEER, 80, wait=False)
    assert (stack.next_deadline_ns, connection.state) == (SECOND, "SYN-SENT")


def test_the_next_deadline_is_that_of_the_first_timer() -> None:
    with Testbed(rto_initial_ns=500 * MILLISECOND) as bed:
        bed.introduce()
        connection = bed.stack.connect(PEER, 80, wait=False)
        bed.pump()
        deadline = bed.stack.next_deadline_ns
        assert deadline is not None
        assert deadline - bed.now_ns <= 501 * MILLISECOND
        bed.mark()
        bed.run_until(lambda: bed.counted().get("segments_retransmitted", 0) == 1, SECOND)
        assert (bed.now_ns >= deadline, connection.state) == (True, "SYN-SENT")


# ---------------------------------------------------------------- the real clock


def test_a_stack_without_now_ns_has_the_real_clock(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a)
    assert not stack.manual_clock
    assert stack.poll() == 0


def test_a_real_clock_is_not_told(make_stack: MakeStack) -> None:
    with pytest.raises(ValueError, match="now_ns"):
        make_stack(SimNetwork().a).poll(1)


def test_run_ends_with_its_duration(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a)
    before = time.monotonic_ns()
    stack.run(2 * MILLISECOND)
    assert time.monotonic_ns() - before >= 2 * MILLISECOND


def test_run_of_no_time_returns(make_stack: MakeStack) -> None:
    make_stack(SimNetwork().a).run(0)


@pytest.mark.parametrize("duration_ns", [-1, 2**64])
def test_run_refuses_a_duration_beyond_64_bits(make_stack: MakeStack, duration_ns: int) -> None:
    with pytest.raises(ValueError, match=f"duration_ns {duration_ns}: must be from 0 to"):
        make_stack(SimNetwork().a).run(duration_ns)


def test_stop_from_another_thread_ends_run(make_stack: MakeStack) -> None:
    """run() forgets earlier wishes when it begins, so the other thread repeats its own until run has returned."""
    stack = make_stack(SimNetwork().a)
    returned = threading.Event()

    def stop() -> None:
        while not returned.is_set():
            stack.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        stack.run(60 * SECOND)
    finally:
        returned.set()
        stopper.join()


def test_stop_before_run_is_forgotten(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a)
    stack.stop()
    before = time.monotonic_ns()
    stack.run(MILLISECOND)
    assert time.monotonic_ns() - before >= MILLISECOND


class Interrupted(Exception):
    """What the handler below raises."""


@contextmanager
def interrupted() -> Iterator[None]:
    """Raise Interrupted from a signal handler after 20 ms of this process's own work (the simulated link spins)."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("call", ["run", "accept", "connect"])
def test_a_signal_handler_that_raises_ends_a_wait(make_stack: MakeStack, call: str) -> None:
    """Ctrl-C in a script that waits for a connection."""
    stack = make_stack(SimNetwork().a)
    waits: dict[str, Callable[[], Any]] = {
        "run": lambda: stack.run(30 * SECOND),
        "accept": lambda: stack.listen(80).accept(timeout=30.0),
        "connect": lambda: stack.connect(PEER, 80, timeout=30.0),
    }
    before = time.monotonic()
    with interrupted(), pytest.raises(Interrupted):
        waits[call]()
    assert time.monotonic() - before < 25


# ---------------------------------------------------------------- links


def test_a_closed_link_is_refused() -> None:
    network = SimNetwork()
    network.a.close()
    with pytest.raises(ValueError, match="closed"):
        Stack(network.a, now_ns=0)


def test_a_link_that_was_never_opened_is_refused() -> None:
    with pytest.raises(ValueError, match="closed"):
        Stack(Link(), now_ns=0)


@pytest.mark.parametrize("link", [None, "veth1", 3])
def test_what_is_not_a_link_is_refused(link: Any) -> None:
    with pytest.raises(TypeError):
        Stack(link, now_ns=0)


def test_a_stack_keeps_its_link_alive(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    gc.collect()
    before = stack.counters()["arp_requests_out"]
    connection = stack.connect(PEER, 80, wait=False)
    assert stack.poll(1) == 0
    assert (stack.counters()["arp_requests_out"], connection.state) == (before + 1, "SYN-SENT")


def test_run_reports_a_link_that_was_closed(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a)
    network.a.close()
    with pytest.raises(OSError, match="link: Bad file descriptor"):
        stack.run(SECOND)


def test_a_link_error_is_raised_once(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a, now_ns=0)
    network.a.close()
    stack.poll(1)
    with pytest.raises(OSError, match="link"):
        stack.raise_link_error()
    stack.raise_link_error()


def test_poll_on_a_closed_link_takes_nothing_and_timers_go_on(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a, now_ns=0, syn_timeout_ns=SECOND)
    connection = stack.connect(PEER, 80, wait=False)
    network.close()
    for at_ns in range(0, 10 * SECOND, 100 * MILLISECOND):
        assert stack.poll(at_ns) == 0
    assert (connection.state, connection.reason) == ("CLOSED", "timeout")


def test_a_stack_whose_link_was_closed_first_still_ends_its_connections() -> None:
    network = SimNetwork()
    stack = Stack(network.a, now_ns=0)
    connections = [stack.connect(PEER, 80, wait=False) for _ in range(10)]
    for connection in connections:
        connection.send(b"never sent")
    network.close()
    stack.close()
    assert {connection.reason for connection in connections} == {"aborted"}
    assert not any(stack.leaks().values())


def test_a_stack_whose_link_was_closed_first_ends_without_lingering() -> None:
    network = SimNetwork()
    stack = Stack(network.a)
    connection = stack.connect(PEER, 80, wait=False)
    network.close()
    stack.close(linger=600.0)
    assert not any(stack.leaks().values())
    assert connection.reason == "aborted"


# ---------------------------------------------------------------- the end


def test_close_is_idempotent(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    stack.close()
    stack.close()
    assert not stack.alive


def test_an_unused_stack_leaks_nothing(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    stack.close()
    assert not any(stack.leaks().values())


def test_leaks_names_what_is_in_use(make_stack: MakeStack) -> None:
    stack = make_stack(SimNetwork().a, now_ns=0)
    connection = stack.connect(PEER, 80, wait=False)
    connection.send(b"hello")
    held = stack.leaks()
    assert (held["tcbs"], held["flows"], held["send_pieces"], held["lent"]) == (1, 1, 1, 1)


def test_leaks_counts_what_was_lent_to_this_stack_alone(make_stack: MakeStack) -> None:
    """Not to the process: another stack's buffers, or a server's, are not ours."""
    network = SimNetwork()
    ours, other = make_stack(network.a, now_ns=0), make_stack(network.b, "198.18.0.1/24", now_ns=0)
    connection = other.connect("198.18.0.2", 80, wait=False)
    connection.send(b"hello")
    assert (ours.leaks()["lent"], other.leaks()["lent"]) == (0, 1)


@pytest.mark.parametrize(
    "use",
    [
        lambda stack: stack.poll(1),
        lambda stack: stack.run(1),
        lambda stack: stack.listen(80),
        lambda stack: stack.connect(PEER, 80, wait=False),
        lambda stack: stack.connections("connection"),
        lambda stack: stack.closing_connections(),
    ],
    ids=["poll", "run", "listen", "connect", "connections", "closing_connections"],
)
@pytest.mark.parametrize("now_ns", [None, 0])
def test_use_after_close_is_refused(make_stack: MakeStack, use: Callable[[Any], Any], now_ns: int | None) -> None:
    stack = make_stack(SimNetwork().a, now_ns=now_ns)
    stack.close()
    with pytest.raises(ValueError, match="closed"):
        use(stack)


def test_what_a_closed_stack_can_still_say(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a, now_ns=0)
    stack.poll(0)
    stack.close()
    stack.stop()
    stack.raise_link_error()
    assert stack.counters()["frames_out"] == 1
    assert (stack.next_deadline_ns, stack.established, stack.link) == (None, 0, network.a)


def test_an_engine_is_initialised_once(make_stack: MakeStack) -> None:
    network = SimNetwork()
    stack = make_stack(network.a, now_ns=0)
    with pytest.raises(RuntimeError):
        stack.__init__(network.a, now_ns=0)


def test_a_stack_that_was_never_initialised_is_closed() -> None:
    stack = Stack.__new__(Stack)
    stack.close()
    with pytest.raises(ValueError, match="closed"):
        stack.poll(0)


def test_a_stack_that_failed_to_start_keeps_nothing() -> None:
    network = SimNetwork()
    before = sys.getrefcount(network.a)
    with pytest.raises(ValueError, match="no such setting"):
        Stack(network.a, now_ns=0, no_such_setting=1)
    after = sys.getrefcount(network.a)  # apart from the assertion, which holds what it compares
    assert after == before


def drop_a_stack() -> None:
    Stack(SimNetwork().a, now_ns=0)
    gc.collect()


def test_a_stack_dropped_without_close_is_warned_of() -> None:
    with pytest.warns(ResourceWarning, match=r"unclosed <Stack 198\.18\.0\.2/24"):
        drop_a_stack()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_stack_dropped_without_close_resets_its_peers() -> None:
    """As a process that ends does."""
    pair = Pair()
    opener, accepter = pair.connect()
    stack_of_accepter = [pair.a]
    del accepter, pair.a
    stack_of_accepter.clear()
    gc.collect()
    pair.network.advance(pair.now_ns)
    pair.b.poll(pair.now_ns)
    assert opener.reason == "reset"
    pair.b.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_stack_dropped_without_close_gives_lent_buffers_back() -> None:
    buffer = bytearray(b"x" * 100_000)
    before = lent_alive()
    stack = Stack(SimNetwork().a, now_ns=0)
    connection = stack.connect(PEER, 80, wait=False)
    connection.send(buffer)
    del connection, stack
    gc.collect()
    assert lent_alive() == before
    buffer.append(0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_stack_dropped_without_close_is_collected() -> None:
    class Marked(Stack):
        """Stack itself has no weak references."""

    stack = Marked(SimNetwork().a, now_ns=0)
    stack.listen(80)
    connection = stack.connect(PEER, 80, wait=False)
    reference = weakref.ref(stack)
    del stack, connection
    gc.collect()
    assert reference() is None


def test_a_closed_stack_is_collected_with_everything_that_points_to_it() -> None:
    class Marked(Stack):
        """Stack itself has no weak references."""

    stack = Marked(SimNetwork().a, now_ns=0)
    listener = stack.listen(80)
    connection = stack.connect(PEER, 80, wait=False)
    stack.close()
    reference = weakref.ref(stack)
    del stack, listener, connection
    gc.collect()
    assert reference() is None


def test_an_application_is_released_with_its_stack() -> None:
    class Marked(Recorder):
        """Recorder itself has no weak references."""

    application = Marked()
    reference = weakref.ref(application)
    with Stack(SimNetwork().a, now_ns=0) as stack:
        stack.listen(80, application=application)
        del application
        gc.collect()
        assert reference() is not None
    del stack
    gc.collect()
    assert reference() is None


def test_an_application_of_a_stack_that_ended_without_a_word_is_not_taken_for_anothers() -> None:
    """Not even when the next stack lies at the same address: it would be called by a table that has never heard of
    it."""

    class Silent(Stack):
        """Its memory is given back, and nobody is told."""

        def __del__(self) -> None:
            pass

    application = Recorder()
    stack = Silent(SimNetwork().a, now_ns=0)
    stack.listen(80, application=application)
    places = set()
    for _ in range(20):
        del stack
        gc.collect()
        stack = Silent(SimNetwork().a, now_ns=0)
        places.add(id(stack))
        with pytest.raises(ValueError, match="never closed"):
            stack.listen(80, application=application)
    stack.close()
    if len(places) == 20:
        pytest.skip("no stack lay where one had been")


def test_an_application_knows_nothing_of_a_transport_that_is_gone() -> None:
    """However it went: closed, dropped, or given back without a word, as without memory for a finalizer."""

    class Silent(Stack):
        """Tells nobody."""

        def __del__(self) -> None:
            pass

    kept, closed, memory = Recorder(), Recorder(), Recorder()
    stack = Silent(SimNetwork().a, now_ns=0)
    transport = MemoryTransport()
    for port, application in ((80, kept), (81, Recorder()), (82, closed)):
        stack.listen(port, application=application)
    transport.listen(80, memory)
    assert kept.attached
    assert memory.attached
    del stack, transport, application
    gc.collect()
    assert not kept.attached
    assert not closed.attached
    assert not memory.attached
    with pytest.raises(ValueError, match="never closed"):
        MemoryTransport().listen(80, kept)
    again = Recorder()
    for _ in range(2):
        with Stack(SimNetwork().a, now_ns=0) as stack:
            stack.listen(80, application=again)
            assert again.attached
        assert not again.attached


def test_a_listener_used_after_its_stack_does_not_end_the_process() -> None:
    """Blocking calls would poll an engine whose memory is gone: tried in a process of its own."""
    said = in_a_process(
        """
        import json
        from ustack import SimNetwork, Stack
        said = {}
        network = SimNetwork()
        for name, clock in (("real", {}), ("manual", {"now_ns": 0})):
            stack = Stack(network.a, **clock)
            listener = stack.listen(80)
            stack.close()
            for timeout in (0, 0.05):
                try:
                    listener.accept(timeout=timeout)
                except Exception as error:
                    said[f"{name} {timeout}"] = type(error).__name__
            listener.close()
        print(json.dumps(said))
        """
    )
    assert said == dict.fromkeys(["real 0", "real 0.05", "manual 0", "manual 0.05"], "ValueError")


# ---------------------------------------------------------------- initialised once


def test_a_closed_engine_is_not_initialised_again() -> None:
    network = SimNetwork()
    stack = Stack(network.a, now_ns=0)
    stack.close()
    with pytest.raises(RuntimeError, match="initialised once"):
        stack.__init__(SimNetwork().a, now_ns=0)  # type: ignore[misc]


def test_an_argument_that_initialises_the_engine_is_found_out() -> None:
    inner, outer = SimNetwork(), SimNetwork()
    stack = Stack.__new__(Stack)

    class Seed:
        def __index__(self) -> int:
            stack.__init__(inner.a, now_ns=0)  # type: ignore[misc]
            return 1

    with pytest.raises(RuntimeError, match="initialised once"):
        stack.__init__(outer.a, now_ns=0, seed=Seed())  # type: ignore[misc,arg-type]
    assert stack.link is inner.a
    Stack(outer.a, now_ns=0).close()
    stack.close()


def test_a_stack_whose_engine_alone_was_initialised_has_sockets() -> None:
    network = SimNetwork()
    stack = Stack.__new__(Stack)
    Engine.__init__(stack, network.a, "198.18.0.2/24", None, None, 0, {})
    with stack, stack.listen(80) as listener:
        assert listener.pending == 0

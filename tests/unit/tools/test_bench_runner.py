# SPDX-License-Identifier: MIT
"""runner, generators: who is measured when, and what a contestant that dies, lies or serves errors comes to."""

import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ustack.kernel import strategies
from ustack.lab import LabError
from ustack.lab.namespace import names as namespaces
from ustack.tools.bench import command, contestants, experiments, figures, records, runner, site
from ustack.tools.bench.command import bench as bench_command
from ustack.tools.bench.command import last_round
from ustack.tools.bench.contestants import nginx
from ustack.tools.bench.contestants.base import ALLOWED, Absent, Contestant, congestion_control_allowed
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome
from ustack.tools.bench.experiments.closed import ClosedLoop
from ustack.tools.bench.generators import Shape, Wrk, ask, wrong_lengths
from ustack.tools.bench.processor import CoreTimes, SystemUse
from ustack.tools.bench.records import Results, Writer
from ustack.tools.bench.runner import MOST_STARTS, Runner
from ustack.tools.generators import Load, LoadError
from ustack.tools.pair import Pair
from ustack.tools.servers import WITH_US


class Alive:
    pid = 0


class Still(Contestant):
    """Serves right and never ends, without a process."""

    name = "still"
    main = True
    starts = 0

    def start(self) -> None:
        type(self).starts += 1
        self.process = Alive()  # type: ignore[assignment]

    def how_it_is(self) -> str:
        return ""

    def check_file(self, path: str, wanted: str) -> None:
        pass

    def describe(self) -> dict[str, object]:
        return {}

    def stop(self) -> None:
        self.process = None


class Second(Still):
    name = "second"


class Changed(Still):
    """Its files are other ones after the start."""

    name = "changed"

    def check_file(self, path: str, wanted: str) -> None:
        raise LoadError(f"{path} arrived changed")

    def check_files(self, files: dict[str, str]) -> None:
        pass


class Dying(Still):
    """Ends during each run."""

    name = "dying"
    starts = 0

    def how_it_is(self) -> str:
        return "dying: ended with -9: " if self.asked else ""

    def start(self) -> None:
        super().start()
        self.asked = False


class Missing(Still):
    name = "missing"

    def start(self) -> None:
        raise Absent("missing not installed: apt-get install missing")


class Count(Experiment):
    """How often has anybody been asked?"""

    name = "count"
    unit = "times"
    points: Sequence[str] = ("one", "two")

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        self.asked.append((point, contestant.name))
        contestant.asked = True  # type: ignore[attr-defined]
        return Outcome(float(len(self.asked)), Load(requests=10, seconds=1.0))


class Broken(Count):
    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        if contestant.name == "second":
            raise LoadError("the load would not run")
        return super().measure(bench, contestant, point)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No namespaces."""
    monkeypatch.setattr(runner, "prepare_client", lambda _netns: None)
    monkeypatch.setattr(runner, "settings_of", lambda _netns: {})


def ran(tmp_path: Path, kinds: list[type[Contestant]], experiment: Experiment, rounds: int = 2, **more: Any) -> Results:
    hashes = dict.fromkeys(site.FILES, "")
    shared = Bench(tmp_path, tmp_path, Wrk(tmp_path, 0), 1, 0, 1, hashes)
    writer = Writer(io.StringIO())
    made = Runner(shared, [experiment], writer, **more)
    made.start([kind.name for kind in kinds], {kind.name: kind for kind in kinds})
    writer.write("experiment", **experiment.describe())
    for number in range(1, rounds + 1):
        made.run_round(number)
    made.stop()
    return writer.results


class Waiting(Still):
    """A process that waits, and dies with its parent."""

    name = "waiting"

    def start(self) -> None:
        command = [*WITH_US, "sleep", "1000"]
        self.process = subprocess.Popen(command, start_new_session=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class AlsoWaiting(Waiting):
    name = "also"


class Alone(Count):
    """Who is stopped while one is measured, and goes on afterwards?"""

    alone = True
    points = ("one",)

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        for one in bench.contestants.values():
            assert one.process is not None
            if one is not contestant:
                assert os.waitid(os.P_PID, one.process.pid, os.WSTOPPED) is not None
                self.asked.append((one.name, "stopped"))
            else:
                assert os.waitid(os.P_PID, one.process.pid, os.WSTOPPED | os.WNOHANG) is None
        return Outcome(1.0, Load(requests=10, seconds=1.0), errors={"wrong": 1} if contestant.name == "also" else {})


@pytest.mark.usefixtures("plain")
def test_who_is_measured_alone_has_the_others_stopped_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    alone, went_on = Alone(), list[str]()

    def look(self: Waiting) -> None:
        assert self.process is not None
        if os.waitid(os.P_PID, self.process.pid, os.WCONTINUED | os.WNOHANG) is not None:
            went_on.append(self.name)
        stop(self)

    stop = Waiting.stop
    monkeypatch.setattr(Waiting, "stop", look)
    ran(tmp_path, [Waiting, AlsoWaiting], alone, rounds=1)
    assert alone.asked == [("also", "stopped"), ("waiting", "stopped")]
    assert went_on == ["waiting", "also"]


OF_WHOM_IS_KILLED = """
import sys
from pathlib import Path
from tests.unit.tools.test_bench_runner import Waiting
one = Waiting(Path(), Path(), 0)
one.start()
with one.stopped():
    print(one.process.pid, flush=True)
    sys.stdin.read()
"""


def test_who_is_stopped_ends_with_a_bench_that_is_killed():
    command = [sys.executable, "-c", OF_WHOM_IS_KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        stopped = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.kill()
            ready, _, _ = select.select([stopped], [], [], 60)
            assert ready
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(stopped, signal.SIGKILL)
            os.close(stopped)


@pytest.mark.usefixtures("plain")
def test_contestants_take_turns_and_the_order_turns(tmp_path: Path):
    count = Count()
    ran(tmp_path, [Still, Second], count)
    assert count.asked == [
        ("one", "still"), ("one", "second"), ("two", "still"), ("two", "second"),
        ("one", "still"), ("one", "second"), ("two", "still"), ("two", "second"),
    ] or [name for _, name in count.asked[::2]] != [name for _, name in count.asked[1::2]]  # fmt: skip
    for start in range(0, 8, 2):
        pair = count.asked[start : start + 2]
        assert {name for _, name in pair} == {"still", "second"}, "each point asks everybody before the next"
        assert len({point for point, _ in pair}) == 1


@pytest.mark.usefixtures("plain")
def test_each_of_three_is_once_first(tmp_path: Path):
    class Third(Still):
        name = "third"

    count = Count()
    count.points = ("one",)
    ran(tmp_path, [Still, Second, Third], count, rounds=6)
    firsts = [count.asked[start][1] for start in range(0, 18, 3)]
    assert set(firsts) == {"still", "second", "third"}


@pytest.mark.usefixtures("plain")
def test_one_that_fails_says_why_and_the_others_go_on(tmp_path: Path):
    found = ran(tmp_path, [Still, Second], Broken())
    assert [run.errors for run in found.runs if run.contestant == "second"] == [{"the load would not run": 1}] * 4
    assert all(run.good for run in found.runs if run.contestant == "still")


@pytest.mark.usefixtures("plain")
def test_one_whose_bytes_are_wrong_after_a_run_has_no_value(tmp_path: Path):
    found = ran(tmp_path, [Changed, Still], Count())
    changed = [run for run in found.runs if run.contestant == "changed"]
    assert {text for run in changed for text in run.errors} == {"after the run: /512.bin arrived changed"}
    assert [run.value for run in changed] == [None] * 4
    assert changed[0].details["not counted"] > 0
    assert figures.best(figures.cells(found.runs, 0, 1), "count", "one", ["changed", "still"], lower=False) == "still"


@pytest.mark.usefixtures("plain")
def test_one_that_dies_is_started_again_so_often_and_never_counts(tmp_path: Path):
    Dying.starts = 0
    found = ran(tmp_path, [Dying, Still], Count(), rounds=4)
    assert Dying.starts == MOST_STARTS
    dead = [run for run in found.runs if run.contestant == "dying"]
    assert [run.value for run in dead] == [None] * 8
    assert "ended with -9" in next(iter(dead[0].errors))
    assert all(run.good for run in found.runs if run.contestant == "still")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "error",
    [LabError("no namespace"), subprocess.TimeoutExpired("ip", 5), OSError("gone")],
    ids=lambda one: type(one).__name__,
)
def test_one_that_cannot_be_stopped_keeps_nobody_else_running(tmp_path: Path, error: Exception):
    class Stubborn(Still):
        name = "stubborn"

        def stop(self) -> None:
            raise error

    ended = []

    class Ending(Second):
        def stop(self) -> None:
            ended.append(self.name)

    class Finishing(Count):
        def finish(self) -> None:
            ended.append("experiment")

    said: list[str] = []
    found = ran(tmp_path, [Stubborn, Ending], Finishing(), say=lambda line, _seconds: said.append(line))
    assert ended == ["second", "experiment"]
    assert said[-1] == f"stubborn could not be ended: {error}"
    assert all(run.good for run in found.runs)


@pytest.mark.usefixtures("plain")
def test_interrupted_it_shows_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Count):
        points = ("one", "two")

        def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
            if point == "two":
                raise KeyboardInterrupt
            return super().measure(bench, contestant, point)

    stops = []

    class Ending(Still):
        def stop(self) -> None:
            stops.append(self.name)

    monkeypatch.setattr(command, "two_cores", lambda _: (min(os.sched_getaffinity(0)),) * 2)
    monkeypatch.setattr(command, "raise_limit", lambda: None)
    monkeypatch.setattr(command, "congestion_control_allowed", nullcontext)
    monkeypatch.setattr(experiments, "known", lambda: {"count": Interrupted()})
    monkeypatch.setattr(contestants, "known", lambda: {"still": Ending})
    cores = os.sched_getaffinity(0)
    try:
        done = CliRunner().invoke(bench_command, ["--out", str(tmp_path / "out")], standalone_mode=False)
    finally:
        os.sched_setaffinity(0, cores)
    assert done.return_value == command.INTERRUPTED, done.output
    assert "count: " in done.output
    assert stops == ["still"]
    assert len(records.read(tmp_path / "out" / "runs.jsonl").runs) == 1


@pytest.mark.usefixtures("plain")
def test_one_that_is_not_installed_is_written_down_with_the_hint(tmp_path: Path):
    found = ran(tmp_path, [Missing, Still], Count())
    assert found.contestants["missing"]["absent"] == "missing not installed: apt-get install missing"
    assert {run.contestant for run in found.runs} == {"still"}


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("device", "ends"), [("", {"client", "server"}), ("tap0", {"client"})])
def test_the_kernels_settings_are_those_of_ends_that_are_its_own(tmp_path: Path, device: str, ends: set[str]):
    class Linked(Still):
        pair = Pair("one", "other", "198.18.0.2", device)

    assert ran(tmp_path, [Linked], Count()).contestants["still"]["settings"].keys() == ends


@pytest.mark.usefixtures("plain")
def test_only_main_contestants_take_part_where_not_everybody_does(tmp_path: Path):
    class Minor(Still):
        name = "minor"
        main = False

    assert {run.contestant for run in ran(tmp_path, [Still, Minor], Count()).runs} == {"still"}
    assert {run.contestant for run in ran(tmp_path, [Still, Minor], Count(), explicit=True).runs} == {"still", "minor"}
    everybody = Count()
    everybody.everybody = True
    assert {run.contestant for run in ran(tmp_path, [Still, Minor], everybody).runs} == {"still", "minor"}


@pytest.mark.usefixtures("plain")
def test_what_cannot_be_asked_is_said_once_and_not_asked(tmp_path: Path):
    class Few(Still):
        name = "few"
        at_most = 100
        why_at_most = "no more fit"

    class Many(ClosedLoop):
        name = "many"
        shapes = {"1,000": Shape(connections=1000)}  # noqa: RUF012
        points = ("1,000",)

    found = ran(tmp_path, [Few], Many(), rounds=3)
    assert [run.errors for run in found.runs] == [{"at most 100 connections: no more fit": 1}]


def test_bytes_that_cannot_be_so_many_responses_are_an_error():
    shape = Shape(body_bytes=512, connections=10)
    assert wrong_lengths(Load(requests=100, bytes=100 * (512 + 200)), shape) == {}
    # The last responses of the run have begun to come and are not counted.
    assert wrong_lengths(Load(requests=100, bytes=100 * (512 + 200) + 10 * 700), shape) == {}
    for bytes_ in (100 * 200, 100 * 511, 100 * (512 + 4096)):
        assert len(wrong_lengths(Load(requests=100, bytes=bytes_), shape)) == 1


def test_a_generator_that_cannot_run_is_an_error_of_the_run(tmp_path: Path):
    class Fails(Wrk):
        def run(self, *_: object) -> Load:
            raise LoadError("wrk: not found")

    server = Still(tmp_path, tmp_path, 1)
    load, asked = ask(Fails(tmp_path, 0), server, Shape(), 1)
    assert load.errors == {"wrk: not found": 1}
    assert "-c64" in asked


def test_pipelined_requests_are_one_of_wrks(tmp_path: Path):
    text = Wrk(tmp_path, 0).script(Shape(depth=16)).read_text()
    assert "string.rep(one(...), 16)" in text
    assert "{depth}" not in text


def test_the_processors_time_by_core():
    before = "cpu  0 0 0 0\ncpu0 10 0 10 80 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\nintr 1\n"
    after = "cpu  0 0 0 0\ncpu0 40 10 20 100 0 10 10 10 0 0\ncpu1 0 0 0 50 50 0 0 0\n"
    use = SystemUse.between(CoreTimes.parse(before), CoreTimes.parse(after))
    first, second = use.cores
    assert first == {"core": 0, "user": 0.4, "system": 0.1, "irq": 0.2, "idle": 0.2, "steal": 0.1}
    assert second["idle"] == 1.0
    assert use.busy_cores == pytest.approx(0.7)
    assert use.steal == pytest.approx(0.05)


def test_every_contestant_says_what_a_reader_wants_to_know():
    found = contestants.known()
    assert {"ustack-veth", "ustack-tap", "nginx"} <= found.keys()
    assert {f"kernel:{name}" for name in strategies.names()} <= found.keys()
    for name, kind in found.items():
        assert kind.name == name
        assert kind.kind in contestants.KINDS
        assert kind.install, name
        assert kind.at_most is None or kind.why_at_most, name


def test_every_experiment_says_what_it_asks():
    for name, experiment in experiments.known().items():
        assert experiment.name == name
        assert experiment.title
        assert experiment.asks.endswith("?") or "? " in experiment.asks or ":" in experiment.asks
        assert experiment.points
        assert set(experiment.points_of(quick=True)) <= set(experiment.points)


def test_what_is_not_installed_is_said_with_how_it_is(tmp_path: Path):
    class Rare(Contestant):
        name = "rare"
        programs = ("no-such-program", "sh")
        modules = ("no_such_module", "os")
        install = "apt-get install rare"

    rare = Rare(tmp_path, tmp_path, 1)
    with pytest.raises(Absent, match="no-such-program, no_such_module not installed: apt-get install rare"):
        rare.start()
    assert rare.process is None


@pytest.mark.parametrize("arguments", [["cake"], ["--contestants", "cake"], ["--rounds", "0"], ["report", "/no/file"]])
def test_wrong_arguments_exit_with_2(arguments: list[str]):
    assert CliRunner().invoke(bench_command, arguments).exit_code == 2


def test_without_root_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(bench_command, ["--out", str(tmp_path / "out")])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


def test_the_list_names_everybody_without_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(bench_command, ["--list"])
    assert done.exit_code == 0
    assert all(name in done.output for name in (*contestants.known(), *experiments.known()))


needs_everything = pytest.mark.skipif(
    os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2 or not all(map(shutil.which, ("curl", "wrk", "nginx"))),
    reason="needs root, two cores, curl, wrk and nginx",
)

LIAR = """
import os, socket, sys
how, address = sys.argv[1:3]
listener = socket.create_server((address, 80), backlog=100)
body, asked = open(sys.argv[3] + "/512.bin", "rb").read(), 0
while True:
    conn, _ = listener.accept()
    while conn.recv(65536):
        asked += 1
        pressed = asked > 7  # honest until the load comes: the check before it has seen nothing
        status, length, sent = b"200 OK", 512, body
        if pressed and how == "status":
            status = b"503 Busy"
        if pressed and how == "empty":
            length, sent = 0, b""
        if pressed and how == "short":
            sent = body[:100]
        if pressed and how == "dies":
            os._exit(3)
        conn.sendall(b"HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, length) + sent)
        if len(sent) != length:
            break
    conn.close()
"""


@needs_everything
@pytest.mark.root
@pytest.mark.parametrize(
    ("how", "said"), [("status", "status"), ("empty", "length"), ("short", "read"), ("dies", "ended with 3")]
)
def test_a_contestant_that_lies_cannot_win(tmp_path: Path, how: str, said: str):
    """It is honest when it is checked, and answers faster and wrong under load."""
    import sys

    (tmp_path / "liar.py").write_text(LIAR)

    class Liar(Contestant):
        name = f"liar-{how}"
        main = True

        def command(self) -> list[str]:
            program = str(tmp_path / "liar.py")
            return self.pinned(sys.executable, program, how, self.pair.server_address, str(self.site))

    tmp_path.chmod(0o755)
    folder = tmp_path / "site"
    folder.mkdir()
    hashes = {"/512.bin": site.write(folder, "/512.bin", 512)}
    cores = sorted(os.sched_getaffinity(0))
    shared = Bench(tmp_path, folder, Wrk(tmp_path, cores[0]), 1, cores[0], cores[1], hashes)
    writer = Writer(io.StringIO())

    class One(ClosedLoop):
        name = "one"
        shapes = {"1 connection": Shape(connections=1)}  # noqa: RUF012
        points = ("1 connection",)

    with congestion_control_allowed():
        made = Runner(shared, [One()], writer)
        try:
            made.start([Liar.name], {Liar.name: Liar})
            assert made.absent == {}
            liar = shared.contestants[Liar.name]
            for _ in range(8):  # past its honesty
                with pytest.MonkeyPatch.context():
                    try:
                        liar.check_file("/512.bin", hashes["/512.bin"])
                    except LoadError:
                        break
            made.run_round(1)
        finally:
            made.stop()
    (run,) = writer.results.runs
    assert run.value is None
    assert said in " ".join(run.errors)
    assert figures.best(figures.cells([run], 0, 1), "one", "1 connection", [Liar.name], lower=False) == ""


@needs_everything
@pytest.mark.root
def test_a_quick_bench_reports_and_leaves_nothing(tmp_path: Path):
    before, allowed = set(namespaces()), ALLOWED.read_text()
    out = tmp_path / "out"
    arguments = ["keepalive", "--quick", "--contestants", "ustack-veth,nginx", "--rounds", "1", "--out", str(out)]
    done = CliRunner().invoke(bench_command, arguments)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    found = {line["contestant"]: line for line in lines if line["type"] == "run"}
    assert {name: line["errors"] for name, line in found.items()} == {"ustack-veth": {}, "nginx": {}}
    assert all(line["value"] > 0 and line["cores"] and line["command"] for line in found.values())
    about = {line["name"]: line for line in lines if line["type"] == "contestant"}
    for name in found:
        assert about[name]["settings"]["client"]["net.ipv4.tcp_congestion_control"] == "cubic"
    assert about["nginx"]["settings"]["server"]["net.ipv4.tcp_congestion_control"] == "cubic"
    assert (out / "report.html").stat().st_size > 1_000_000
    assert "keepalive" in done.output
    assert not {name for name in set(namespaces()) - before if f"-{os.getpid()}-" in name}
    assert ALLOWED.read_text() == allowed


class Planned:
    """A runner of which only the plan is asked: the first round takes 100 s, each later one 40 s."""

    def planned_s(self, number: int = 1) -> float:
        return 100.0 if number == 1 else 40.0


@pytest.mark.parametrize(
    ("number", "spent_s", "limit_s", "last"),
    [
        (1, 0, 1, 1),  # the first is run in any case
        (1, 0, 230, 4),  # 100 + 3 x 40
        (2, 100, 230, 4),
        (2, 200, 230, 1),  # twice as slow as planned: another takes 80 s
        (2, 200, 290, 2),
        (3, 140, 230, 4),
    ],
)
def test_as_many_whole_rounds_as_fit(number: int, spent_s: float, limit_s: float, last: int):
    assert last_round(Planned(), number, spent_s, limit_s) == last


@pytest.mark.parametrize("descriptors", [256, 20_000, 1 << 20])
def test_nginx_remembers_no_more_files_than_leave_descriptors_for_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (descriptors, descriptors))
    monkeypatch.setattr(Contestant, "prepare", lambda _self: None)
    monkeypatch.setattr(nginx, "version_of", lambda *_command: "nginx/1.0")
    server = nginx.Nginx(tmp_path, tmp_path, 0)
    server.pair = Pair("", "", "198.18.0.2")
    server.prepare()
    words = dict(
        re.findall(r"(worker_rlimit_nofile|worker_connections|open_file_cache max=)\s*(\d+)", server.configuration)
    )
    assert int(words["worker_rlimit_nofile"]) == descriptors
    assert int(words["open_file_cache max="]) <= descriptors // 4
    assert int(words["worker_connections"]) <= descriptors
    assert "@" not in server.configuration

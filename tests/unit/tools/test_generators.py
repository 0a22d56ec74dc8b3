# SPDX-License-Identifier: MIT
"""load: what wrk and /proc/stat say, as numbers."""

import sys

import pytest

from ustack.tools.generators import CpuTimes, CpuUse, Load, LoadError, inside, parse_wrk, program_of, run

REPORT = (
    'USTACK {"requests": 1000, "duration_us": 2000000, "bytes": 500000, "p50_us": 41.5, "p99_us": 90.0, '
    '"max_us": 120.0, "connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}'
)


def test_a_report_of_wrk_is_found_among_its_other_lines():
    load = parse_wrk(f"Running 1s test\n{REPORT}\nsomething else\n")
    assert load == Load(requests=1000, seconds=2.0, bytes=500000, p50_us=41.5, p99_us=90.0, max_us=120.0)
    assert load.requests_per_second == pytest.approx(500.0)
    assert load.gigabits_per_second == pytest.approx(0.002)


def test_errors_that_wrk_met_are_kept_by_kind():
    assert parse_wrk(REPORT.replace('"read": 0', '"read": 7')).errors == {"read": 7}


def test_a_run_without_a_response_is_an_error():
    assert parse_wrk(REPORT.replace('"requests": 1000', '"requests": 0')).errors == {"no response": 1}


def test_a_wrk_that_reported_nothing_is_an_error():
    with pytest.raises(LoadError, match="unable to connect"):
        parse_wrk("unable to connect to 198.18.0.2:80")


def test_an_empty_load_divides_by_nothing():
    assert (Load().requests_per_second, Load().gigabits_per_second) == (0.0, 0.0)


def test_processor_times_of_proc_stat():
    times = CpuTimes.parse("cpu  10 1 20 100 5 2 3 9 4 4\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    # Guest time is within user time: it is not added again.
    assert times == CpuTimes(total=150, idle=105, steal=9)


def test_use_between_two_readings():
    use = CpuUse.between(CpuTimes(total=1000, idle=500, steal=100), CpuTimes(total=1200, idle=600, steal=120))
    assert use.busy == pytest.approx(0.4)
    assert use.steal == pytest.approx(0.1)


def test_use_between_equal_readings_is_zero():
    times = CpuTimes(total=1000, idle=500, steal=100)
    assert CpuUse.between(times, times) == CpuUse(0.0, 0.0)


def test_the_system_answers():
    times = CpuTimes.now()
    assert times.total >= times.idle + times.steal > 0


def test_a_command_in_a_namespace_on_a_core():
    assert inside("x", 1) == ["nsenter", "--net=/run/netns/x", "taskset", "-c", "1"]
    assert inside("x") == ["nsenter", "--net=/run/netns/x"]


def test_a_failing_command_says_what_it_said():
    with pytest.raises(LoadError, match=r"exit 3: oh"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('oh'); sys.exit(3)"], timeout_s=60)
    with pytest.raises(LoadError, match="no-such-program: "):
        run(["no-such-program"], timeout_s=1)


def test_the_program_of_a_command_is_behind_its_prefix():
    for command in ([*inside("x", 1), "wrk", "-t1"], [*inside("x"), "wrk"], ["wrk"]):
        assert program_of(command) == "wrk"

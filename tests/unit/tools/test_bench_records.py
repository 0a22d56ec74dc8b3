# SPDX-License-Identifier: MIT
"""records: what is written is what is read; a file that is none is refused by its line."""

import io
import json

import pytest

from tests.unit.tools.bench_runs import results, run, runs
from ustack.tools.bench.records import RecordsError, Writer, parse


def test_what_is_written_is_what_is_read():
    out = io.StringIO()
    writer = Writer(out)
    writer.write("bench", seconds=1)
    made = [run("a", 1, 5.0, details={"x": [1]}), run("b", 1, None, errors={"died": 1})]
    for one in made:
        writer.write_run(one)
    read = parse(io.StringIO(out.getvalue()), "file")
    assert read.runs == made == writer.results.runs
    assert [one.good for one in made] == [True, False]


def test_a_field_that_a_later_version_writes_is_no_fault():
    lines = [json.dumps({"type": "bench"}), json.dumps({"type": "run", **vars(run("a", 1, 1.0)), "later": 1})]
    assert parse(lines, "file").runs == [run("a", 1, 1.0)]


def test_the_last_line_of_a_bench_that_was_killed_is_left_out():
    whole = json.dumps({"type": "bench"}) + "\n"
    assert parse([whole, '{"type": "run", "rou'], "file").runs == []
    with pytest.raises(RecordsError, match="line 2: not JSON"):
        parse([whole, '{"type": "run", "rou\n', whole], "file")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["[]\n"], "line 1: not an object"),
        (['{"type": "cake"}\n'], "line 1: no record"),
        (['{"type": "run"}\n'], "line 1: a run record that is not complete"),
        (['{"type": "contestant"}\n'], "line 1: a contestant record"),
        ([], "not a file of `ustack bench`"),
        (['{"type": "experiment", "name": "a"}\n'], "not a file of `ustack bench`"),
    ],
)
def test_a_file_that_is_none_is_refused(lines: list[str], said: str):
    with pytest.raises(RecordsError, match=said):
        parse(lines, "file")


def test_the_tests_own_file_is_one():
    assert len(results(runs(a=[1, 2], b=[None])).runs) == 3

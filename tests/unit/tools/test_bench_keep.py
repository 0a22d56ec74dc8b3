# SPDX-License-Identifier: MIT
"""keep, plot, summary: what is kept of runs that nobody made, and what the README shows of it."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.tools.bench_runs import results, runs
from ustack.obs import drawing
from ustack.tools.bench import keep, plot, summary
from ustack.tools.bench.command import bench
from ustack.tools.bench.records import ROOT, Results, parse, without_folder

README = f"# Title\n\nbefore\n\n{keep.BEGIN}\nold\n{keep.END}\n\nafter\n"
INDEX = f"# Results\n\n{keep.HEAD_OF_INDEX}\nmore\n"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def made() -> Results:
    return results(
        runs(ustack_veth=[200, 220, 240, 260, 280, 300], nginx=[100] * 6, best=[150] * 6, flaky=[900, None] * 3),
        ustack_veth={"kind": "ustack", "title": "ours & <yours>"},
        best={"kind": "strategy"},
    )


@pytest.fixture
def place(tmp_path: Path, made: Results) -> Path:
    """A checkout's README, its folder of results, and a file of runs."""
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "docs/results/README.md").write_text(INDEX)
    lines = [{"type": "bench", **made.bench, "command": f"{ROOT}/.venv/bin/ustack bench"}]
    lines += [{"type": "experiment", **about} for about in made.experiments.values()]
    lines += [{"type": "contestant", **about} for about in made.contestants.values()]
    lines += [{"type": "run", **vars(one)} for one in made.runs]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def kept(place: Path) -> dict[str, str]:
    pytest.importorskip("matplotlib")
    keep.keep(place / "runs.jsonl", place / "docs/results", place / "README.md", "here")
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_the_best_of_the_others_did_not_fail_and_the_ratio_is_to_it(made: Results):
    (row,) = summary.rows(made)
    assert row.best == "best"
    assert row.ratios["ustack-veth"].median == pytest.approx(250 / 150)
    line = summary.table(made).splitlines()[2]
    assert line == (
        "| made, a point, requests/s | 250 (200-300) | 100 (100-100) | best: 150 (150-150) | 1.67\\* (1.33-2.00) |"
    )


def test_where_nobody_else_was_good_there_is_no_ratio():
    found = results(runs(ustack_veth=[2, 3], nginx=[None, None]), ustack_veth={"kind": "ustack"})
    (row,) = summary.rows(found)
    assert (row.best, row.ratios) == ("", {})
    assert "made to fail" in summary.table(found)


def test_what_has_no_rival_stands_below_the_table():
    found = results(runs(ustack_memory=[160, 170, 180]), ustack_memory={"kind": "ustack"})
    assert summary.table(found).splitlines()[-1] == (
        "In memory, without a device: made, a point: 170 (160-180) requests/s."
    )


def test_words_of_a_contestant_are_no_markup():
    assert summary.plain("a|b <img src=x> `c` [d](e)\nf *g*") == "a&#124;b &lt;img src=x> 'c' &#91;d](e) f \\*g\\*"


def test_everything_is_made_of_the_kept_file_and_twice_alike(place: Path):
    first = kept(place)
    assert set(first) == {
        "README.md",
        "runs.jsonl",
        "docs/results/README.md",
        "docs/results/here.jsonl",
        "docs/results/here.md",
        "docs/results/main.svg",
    }
    keep.keep(place / "docs/results/here.jsonl", place / "docs/results", place / "README.md", "here")
    assert {name: (place / name).read_text() for name in first} == first


def test_the_readme_has_plot_table_machine_and_link_and_keeps_the_rest(place: Path):
    text = kept(place)["README.md"]
    assert text.startswith("# Title\n\nbefore\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    assert "(docs/results/main.svg)" in text
    assert "[here.jsonl](docs/results/here.jsonl)" in text
    assert "| made, a point, requests/s |" in text
    assert "2 cores" in text


def test_the_index_names_a_file_once(place: Path):
    kept(place)
    text = kept(place)["docs/results/README.md"]
    assert text.count("[here.jsonl](here.jsonl)") == 1
    assert text.endswith("\n\nmore\n")
    assert keep.HEAD_OF_INDEX in text


def test_where_the_checkout_was_is_in_no_kept_file(place: Path):
    found = kept(place)
    del found["runs.jsonl"]
    assert not [name for name, text in found.items() if str(ROOT) in text]
    assert json.loads(found["docs/results/here.jsonl"].splitlines()[0])["command"] == "./.venv/bin/ustack bench"


def test_a_note_stands_before_the_figures_and_stays_in_the_file(place: Path):
    pytest.importorskip("matplotlib")
    folder, readme = place / "docs/results", place / "README.md"
    keep.keep(place / "runs.jsonl", folder, readme, "here", "on a <busy> day")
    first = readme.read_text()
    assert first.index("**on a &lt;busy> day**") < first.index("| made, a point")
    assert "**on a &lt;busy> day**" in (folder / "here.md").read_text()
    keep.keep(folder / "here.jsonl", folder, readme, "here")
    assert readme.read_text() == first


def test_only_whole_folders_are_shortened():
    folder = Path("/home/me/tree")
    assert without_folder("/home/me/tree/a /home/me/trees /x/home/me/tree/b", folder) == (
        "./a /home/me/trees /x/home/me/tree/b"
    )
    assert without_folder("/a /b", Path("/")) == "/a /b"


def test_a_file_without_a_place_is_left_as_it_is(place: Path):
    pytest.importorskip("matplotlib")
    (place / "README.md").write_text("# Title\n")
    with pytest.raises(keep.NoPlace, match="needs <!-- figures"):
        keep.keep(place / "runs.jsonl", place / "docs/results", place / "README.md", "here")
    assert [path.name for path in (place / "docs/results").iterdir()] == ["README.md"]


def test_the_plot_is_small_whole_and_reads_on_light_and_dark(made: Results):
    pytest.importorskip("matplotlib")
    text = plot.svg(made)
    root = ElementTree.fromstring(text)
    words = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    assert {"ours & <yours>", "nginx", "250", "100", "150"} <= words
    assert len(text) < 60_000
    assert drawing.INK not in text
    assert drawing.PAPER not in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("var(--ink)") > 5
    links = [value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")]
    assert all(value.startswith("#") for value in links)
    assert plot.svg(made) == text


def test_nothing_good_is_nothing_to_draw():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.svg(results(runs(nginx=[None])))


def test_the_command_says_what_it_wrote_and_what_is_wrong_in_one_line(place: Path):
    pytest.importorskip("matplotlib")
    words = ["keep", str(place / "runs.jsonl"), "--results", str(place / "docs/results")]
    done = CliRunner().invoke(bench, [*words, "--readme", str(place / "README.md")])
    assert done.exit_code == 0, done.output
    name = keep.name_of(parse((place / "runs.jsonl").read_text().splitlines(keepends=True), "runs"))
    assert str(place / "docs/results" / f"{name}.jsonl") in done.output
    (place / "runs.jsonl").write_text("{}\n")
    done = CliRunner().invoke(bench, [*words, "--readme", ""])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC 7B13", "epyc-7b13-2-cores-2000-01-01"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "xeon-2-cores-2000-01-01"),
        ("", "machine-2-cores-2000-01-01"),
    ],
)
def test_a_kept_file_is_named_after_machine_and_day(made: Results, cpu: str, name: str):
    made.bench["machine"]["cpu"] = cpu
    assert keep.name_of(made) == name

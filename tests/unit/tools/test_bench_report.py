# SPDX-License-Identifier: MIT
"""tables, html, compare: what is shown of runs that nobody made."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.unit.tools.bench_runs import results, run, runs
from ustack.tools.bench import compare, figures, html, tables
from ustack.tools.bench.command import bench
from ustack.tools.bench.records import Results

NASTY = "</script><img src=http://example.invalid/x onerror=alert(1)>"


class Page(HTMLParser):
    """Elements, and the text of those that have an id or a class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and self.inside:
            name = attributes.get("id") or str(len(self.elements))
            self.scripts[name] = self.scripts.get(name, "") + data
        else:
            self.texts.append(data.strip())


@pytest.fixture
def made() -> Results:
    return results(
        runs(ustack_veth=[200, 220, 240, 260, 280, 300], nginx=[100] * 6, broken=[None] * 6, flaky=[900, None] * 3),
        broken={"kind": "server", "configuration": NASTY},
        ustack_veth={"kind": "ustack"},
    )


@pytest.fixture
def page(made: Results) -> Page:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    return Page(html.page(made))


def shown(*what: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    for one in what:
        console.print(one)
    return out.getvalue()


def test_the_page_has_no_reference_to_the_outside(page: Page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action", "data"} & attributes.keys(), (tag, attributes)
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline';")
    assert "http" not in policy


def test_the_plots_are_json_and_have_every_good_contestant(page: Page):
    plots = json.loads(page.scripts["plots"])
    names = {trace["name"]: trace["y"] for trace in plots["made"]["data"]}
    assert names == {"ustack-veth": [250], "nginx": [100], "flaky": [900]}
    assert ("div", {"class": "plot", "data-plot": "made"}) in page.elements


def test_plotlys_script_is_whole_in_the_page(page: Page):
    _, script = html.libraries()
    assert any(len(text) >= len(script) for text in page.scripts.values())
    assert len(page.scripts) == 3


def test_a_cell_says_why_it_is_empty(page: Page):
    at = [index for index, (tag, attributes) in enumerate(page.elements) if attributes.get("class") == "none"]
    assert len(at) == 1
    assert "made to fail" in page.texts


def test_what_a_server_says_is_text_and_no_markup(page: Page):
    assert NASTY in " ".join(page.texts)
    assert "<" not in html.embedded({"name": NASTY})
    assert json.loads(html.embedded({"name": NASTY})) == {"name": NASTY}


def test_who_failed_in_a_round_is_not_bold(page: Page):
    best = [index for index, (_, attributes) in enumerate(page.elements) if attributes.get("class") == "best"]
    assert len(best) == 1
    assert "250" in page.texts


def test_every_template_file_is_installed_with_the_package():
    """What a wheel takes along is said in pyproject.toml by patterns."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    text = (Path(__file__).parents[3] / "pyproject.toml").read_bytes().decode()
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["ustack.tools.bench"]
    folder = Path(html.__file__).parent
    reached = {path for pattern in patterns for path in folder.glob(pattern)}
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {path for path in files if path.suffix != ".py" or path.parent.name == "applications"}
    assert wanted <= reached


def test_without_the_libraries_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, made: Results):
    monkeypatch.setattr(html, "find_spec", lambda _: None)
    pytest.importorskip("jinja2")
    with pytest.raises(html.NoLibraries, match="plotly is not installed: pip install"):
        html.page(made)


def test_the_terminal_shows_medians_ratios_and_reasons(made: Results):
    text = shown(tables.experiment_table(made, "made", tables.all_cells(made), "nginx"))
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert "250 (200-300)" in rows["ustack-veth"]
    assert "2.50* (2.00-3.00)" in rows["ustack-veth"]
    assert "made to fail" in rows["broken"]
    assert "3 failed" in rows["flaky"]
    assert "*" not in rows["flaky"]


def test_a_reason_is_cut_to_the_cell():
    text = tables.why(figures.cell([run("a", 1, None, errors={"long " * 40: 1})], 0, 1))
    assert len(text) <= tables.WHY_MOST
    assert text.endswith("…")


def test_two_benches_beside_each_other(made: Results):
    other = results(runs(ustack_veth=[400, 410], nginx=[90, 110], gone=[1, 1]))
    other.bench["congestion_control"] = "reno"
    other.bench["machine"]["kernel"] = "9.9"
    text = shown(*compare.table(made, other, "A", "B"))
    assert re.search(r"kernel +│ 0\.0 +│ 9\.9", text)
    assert re.search(r"congestion_control +│ cubic +│ reno", text)
    assert "1.62 apart" in text  # 405 by 250, and no run of one lies among those of the other
    assert "gone" not in text
    nginx = next(line for line in text.splitlines() if "│ nginx" in line)
    assert "1.00 " in nginx
    assert "apart" not in nginx


def write(path: Path, made: Results) -> Path:
    lines = [{"type": "bench", **made.bench}]
    lines += [{"type": "experiment", **about} for about in made.experiments.values()]
    lines += [{"type": "contestant", **about} for about in made.contestants.values()]
    lines += [{"type": "run", **vars(one)} for one in made.runs]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_commands_show_and_compare_files(tmp_path: Path, made: Results):
    file = write(tmp_path / "runs.jsonl", made)
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    done = CliRunner().invoke(bench, ["report", str(file), "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "ustack-veth" in done.output
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    done = CliRunner().invoke(bench, ["compare", str(file), str(file)])
    assert done.exit_code == 0, done.output
    assert "second / first" in done.output


def test_a_file_that_is_none_is_one_line(tmp_path: Path):
    (tmp_path / "x").write_text("{}\n")
    done = CliRunner().invoke(bench, ["report", str(tmp_path / "x")])
    assert done.exit_code == 1
    assert "line 1: no record of a benchmark" in done.output
    assert done.output.count("\n") == 1


def test_who_has_failed_in_a_round_is_not_surely_better():
    """In the twenty rounds that are left it is nine times as fast, and two runs are missing."""
    found = results(runs(ustack_veth=[900] * 20 + [None] * 2, nginx=[100] * 22), ustack_veth={"kind": "ustack"})
    compared = figures.ratio(found.runs, "made", "a point", "ustack-veth", "nginx")
    assert compared is not None
    assert (compared.p < 0.001, compared.failed, compared.sure) == (True, 2, False)
    assert "*" not in tables.ratio(compared)
    assert html.said(compared, lower=False) == "not sure"
    turned = figures.ratio(found.runs, "made", "a point", "nginx", "ustack-veth")
    assert turned is not None
    assert not turned.sure
    whole = figures.ratio([one for one in found.runs if one.good], "made", "a point", "ustack-veth", "nginx")
    assert whole is not None
    assert html.said(whole, lower=False) == "better"
